//! A log file that ends at midnight, at an age or at a size, and whose predecessors go after a while.
//!
//! `miner.log` is always the current one; a finished one is renamed to `miner.log.2026-01-31_00-00-00` after the UTC time
//! at which it ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

use super::rotation::{Retention, Rotation};

/// Suffix of a finished file.
const ENDED_AT: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]_[hour]-[minute]-[second]");

/// Where the log file is and how it rotates.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// The current file; its folder is created.
    pub path: PathBuf,
    /// When it ends.
    pub rotation: Rotation,
    /// How long finished ones stay.
    pub retention: Retention,
}

/// The open log file.
#[derive(Debug)]
pub(super) struct RotatedFile {
    options: FileOptions,
    file: File,
    length_bytes: u64,
    /// Number of the period that the file belongs to.
    period: u64,
}

impl RotatedFile {
    /// Opens the file to append. One that an earlier period left behind ends first.
    pub(super) fn open(options: &FileOptions) -> io::Result<Self> {
        if let Some(folder) = options.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let now = since_1970(SystemTime::now());
        let file = append(&options.path)?;
        let metadata = file.metadata()?;
        let mut opened = Self { options: options.clone(), file, length_bytes: metadata.len(), period: 0 };
        let written = if metadata.len() == 0 { now } else { since_1970(metadata.modified()?) };
        opened.period = opened.period_of(written);
        opened.rotate_if_due(now, 0)?;
        Ok(opened)
    }

    /// Appends one line.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.write_at(since_1970(SystemTime::now()), line)
    }

    fn write_at(&mut self, now: Duration, line: &[u8]) -> io::Result<()> {
        self.rotate_if_due(now, line.len() as u64)?;
        self.file.write_all(line)?;
        self.length_bytes += line.len() as u64;
        Ok(())
    }

    fn rotate_if_due(&mut self, now: Duration, coming_bytes: u64) -> io::Result<()> {
        let full = self.length_bytes > 0 && self.length_bytes + coming_bytes > self.options.rotation.size_bytes;
        if !full && self.period_of(now) == self.period {
            return Ok(());
        }
        if self.length_bytes > 0 {
            fs::rename(&self.options.path, self.finished_name(now))?;
            self.file = append(&self.options.path)?;
            self.length_bytes = 0;
        }
        self.period = self.period_of(now);
        self.prune(now)
    }

    fn period_of(&self, time: Duration) -> u64 {
        self.options.rotation.period.map_or(0, |period| time.as_secs() / period.as_secs().max(1))
    }

    /// A free name for the file that ends now.
    fn finished_name(&self, now: Duration) -> PathBuf {
        let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
        let ended_at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let suffix = ended_at.format(ENDED_AT).unwrap_or_else(|_| seconds.to_string());
        let mut name = with_suffix(&self.options.path, &suffix);
        let mut count = 1;
        while name.exists() {
            name = with_suffix(&self.options.path, &format!("{suffix}.{count:03}"));
            count += 1;
        }
        name
    }

    /// Deletes finished files that need not be kept.
    fn prune(&self, now: Duration) -> io::Result<()> {
        let prefix = with_suffix(&self.options.path, "");
        let prefix = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = self.options.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut finished = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Only names of our own making: a year follows.
            if name.strip_prefix(&prefix).is_some_and(|suffix| suffix.starts_with("20")) {
                finished.push((name, entry.path(), since_1970(entry.metadata()?.modified()?)));
            }
        }
        finished.sort();
        let kept = match self.options.retention {
            Retention::Files(kept) => kept,
            Retention::Age(_) => finished.len(),
        };
        let surplus = finished.len() - kept.min(finished.len());
        for (index, (_, path, modified)) in finished.iter().enumerate() {
            let too_old = matches!(self.options.retention, Retention::Age(age) if now.saturating_sub(*modified) > age);
            if index < surplus || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn options(&self, rotation: &str, retention: &str) -> FileOptions {
            let path = self.0.path().join("logs/miner.log");
            FileOptions { path, rotation: rotation.parse().unwrap(), retention: retention.parse().unwrap() }
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.0.path().join("logs")).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn midnight(day: u64) -> Duration {
        DAY * u32::try_from(day).unwrap()
    }

    fn today() -> u64 {
        since_1970(SystemTime::now()).as_secs() / DAY.as_secs()
    }

    #[test]
    fn the_day_ends_at_midnight_utc_and_so_does_the_file() {
        let folder = Folder::new();
        let mut file = RotatedFile::open(&folder.options("1 day", "10")).unwrap();
        let tomorrow = midnight(today() + 1);
        file.write_at(tomorrow - Duration::from_secs(1), b"last\n").unwrap();
        file.write_at(tomorrow, b"first\n").unwrap();
        assert_eq!(folder.names().len(), 2);
        assert!(folder.names()[1].ends_with("_00-00-00"), "{:?}", folder.names());
        assert_eq!(fs::read_to_string(&file.options.path).unwrap(), "first\n");
    }

    #[test]
    fn a_full_file_ends_and_no_line_is_split_or_lost() {
        let folder = Folder::new();
        let mut file = RotatedFile::open(&folder.options("1 kb", "10")).unwrap();
        let line = [b'x'; 400];
        for _ in 0..5 {
            file.write_at(midnight(today()), &line).unwrap();
        }
        let names = folder.names();
        let sizes: Vec<u64> =
            names.iter().map(|name| fs::metadata(folder.0.path().join("logs").join(name)).unwrap().len()).collect();
        assert_eq!(sizes, [400, 800, 800], "{names:?}");
    }

    #[test]
    fn only_so_many_finished_files_stay_and_foreign_ones_are_left_alone() {
        let folder = Folder::new();
        let mut file = RotatedFile::open(&folder.options("1 day", "2")).unwrap();
        fs::write(folder.0.path().join("logs/miner.log.keep"), "").unwrap();
        for day in 1..=5 {
            file.write_at(midnight(today() + day), b"line\n").unwrap();
        }
        assert_eq!(folder.names().len(), 4, "{:?}", folder.names());
        assert!(folder.names().contains(&"miner.log.keep".to_owned()));
    }

    #[test]
    fn finished_files_go_at_their_age() {
        let folder = Folder::new();
        let mut file = RotatedFile::open(&folder.options("1 day", "3 days")).unwrap();
        file.write_at(midnight(today() + 1), b"one\n").unwrap();
        file.write_at(midnight(today() + 2), b"two\n").unwrap();
        assert_eq!(folder.names().len(), 2);
        // Both finished files carry today's modification time.
        file.write_at(midnight(today() + 5), b"five\n").unwrap();
        assert_eq!(folder.names(), ["miner.log"]);
    }

    #[test]
    fn a_file_of_yesterday_ends_when_it_is_opened_and_one_of_today_goes_on() {
        let folder = Folder::new();
        let options = folder.options("1 day", "10");
        RotatedFile::open(&options).unwrap().write(b"earlier\n").unwrap();
        RotatedFile::open(&options).unwrap().write(b"later\n").unwrap();
        assert_eq!(folder.names(), ["miner.log"]);
        File::options().append(true).open(&options.path).unwrap().set_modified(SystemTime::now() - DAY).unwrap();
        RotatedFile::open(&options).unwrap();
        assert_eq!(folder.names().len(), 2);
    }
}

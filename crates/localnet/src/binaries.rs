//! The daemons' executables: where they are, and whether they are built from the sources as they stand.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The daemons that a network runs.
const DAEMONS: [&str; 3] = ["byteleap-validator", "byteleap-miner", "byteleap-worker"];

/// The executables of one build.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
}

/// An executable that cannot be run, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// It is not there.
    #[error("{path} is missing: run `{BUILD_COMMAND}`")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A source file is newer than it.
    #[error("{path} is older than its source {source_path}: run `{BUILD_COMMAND}`")]
    Stale {
        /// The executable.
        path: PathBuf,
        /// The newer source.
        source_path: PathBuf,
    },
    /// This process does not know its own place.
    #[error("the folder of this executable cannot be found")]
    Unknown(#[source] io::Error),
}

const BUILD_COMMAND: &str = "cargo build --workspace --bins";

impl Binaries {
    /// The folder of this process's own executable. A test's executable lies one folder below its build's.
    ///
    /// # Errors
    ///
    /// [`BinariesError`]: an executable is missing or stale, or the folder is unknown.
    pub fn beside_this_process() -> Result<Self, BinariesError> {
        let own = std::env::current_exe().map_err(BinariesError::Unknown)?;
        let folder = own.parent().unwrap_or(Path::new("/"));
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        Self::in_folder(folder)
    }

    /// The executables of a folder.
    ///
    /// # Errors
    ///
    /// [`BinariesError`]: one is missing or stale.
    pub fn in_folder(folder: &Path) -> Result<Self, BinariesError> {
        let binaries = Self { folder: folder.to_owned() };
        for daemon in DAEMONS {
            binaries.check(daemon)?;
        }
        Ok(binaries)
    }

    /// The validator's executable.
    #[must_use]
    pub fn validator(&self) -> PathBuf {
        self.folder.join(DAEMONS[0])
    }

    /// The miner's executable.
    #[must_use]
    pub fn miner(&self) -> PathBuf {
        self.folder.join(DAEMONS[1])
    }

    /// The worker's executable.
    #[must_use]
    pub fn worker(&self) -> PathBuf {
        self.folder.join(DAEMONS[2])
    }

    /// Compares the executable with the sources that cargo noted beside it. Installed executables come without that note.
    fn check(&self, daemon: &str) -> Result<(), BinariesError> {
        let path = self.folder.join(daemon);
        let Some(built) = modified(&path) else {
            return Err(BinariesError::Missing { path });
        };
        let Ok(note) = fs::read_to_string(path.with_extension("d")) else {
            return Ok(());
        };
        match sources(&note).into_iter().find(|source| modified(source).is_some_and(|changed| changed > built)) {
            Some(source_path) => Err(BinariesError::Stale { path, source_path }),
            None => Ok(()),
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The sources in cargo's note, a rule as `make` writes it: `target: source source…`, spaces in names behind a backslash.
fn sources(note: &str) -> Vec<PathBuf> {
    let mut sources = Vec::new();
    for rule in note.lines() {
        let Some((_, listed)) = rule.split_once(": ") else { continue };
        let mut name = String::new();
        let mut characters = listed.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => name.extend(characters.next()),
                ' ' => sources.push(PathBuf::from(std::mem::take(&mut name))),
                other => name.push(other),
            }
        }
        sources.push(PathBuf::from(name));
    }
    sources.retain(|source| !source.as_os_str().is_empty());
    sources
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn built(folder: &Path) {
        for daemon in DAEMONS {
            fs::write(folder.join(daemon), "").unwrap();
        }
    }

    #[test]
    fn a_missing_executable_names_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let error = Binaries::in_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("cargo build --workspace --bins"), "{error}");
    }

    #[test]
    fn an_executable_older_than_one_of_its_sources_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        built(folder.path());
        let source = folder.path().join("my main.rs");
        fs::write(&source, "").unwrap();
        let note = format!("{}: {}\n", folder.path().join("byteleap-miner").display(), source.display());
        fs::write(folder.path().join("byteleap-miner.d"), note.replace("my main", "my\\ main")).unwrap();
        let age = |age: Duration| {
            let file = fs::File::options().append(true).open(&source).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        age(Duration::from_secs(3600));
        Binaries::in_folder(folder.path()).unwrap();
        fs::File::options()
            .append(true)
            .open(&source)
            .unwrap()
            .set_modified(SystemTime::now() + Duration::from_secs(60))
            .unwrap();
        let error = Binaries::in_folder(folder.path()).unwrap_err();
        assert!(matches!(&error, BinariesError::Stale { source_path, .. } if *source_path == source), "{error}");
        assert!(error.to_string().contains("cargo build"), "{error}");
    }

    #[test]
    fn an_installed_executable_has_no_sources_to_compare() {
        let folder = tempfile::tempdir().unwrap();
        built(folder.path());
        Binaries::in_folder(folder.path()).unwrap();
    }
}

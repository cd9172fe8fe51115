//! The one way to the machine's files: everything that this crate reads or changes below `/sys`, `/proc`, `/etc`, `/boot`
//! and `/dev` passes through a [`HostFs`], whose root is `/` outside tests (vm-and-gpu-host spec 4.7).
//!
//! Symbolic links are followed as if the root were `/`, so that a tree in a folder never leads out of it. A file is changed
//! whole or not at all: written beside, synced, renamed. Tests stand between a change and the disk by an [`Interception`]:
//! they let the k-th change fail, end the process there, or answer for the kernel.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::statvfs::{FsFlags, statvfs};

/// Symbolic links that one path may lead through, as the kernel bounds them.
const LINKS_MAX: usize = 40;

/// What the name of a file ends with while it is written.
const UNFINISHED: &str = ".byteleap-new";

/// How long the kernel may take to take an attribute: unbinding a busy driver can block for ever.
const ATTRIBUTE_TIMEOUT: Duration = Duration::from_secs(20);

/// Files that are not read beyond this: what this crate reads is small.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// The files of one machine.
#[derive(Clone, Debug)]
pub struct HostFs {
    root: PathBuf,
    interception: Option<Arc<dyn Interception>>,
}

/// Stands between a change and the disk, in tests.
pub trait Interception: fmt::Debug + Send + Sync {
    /// Asked before each change; an error makes the change fail.
    ///
    /// # Errors
    /// Whatever the change shall fail with.
    fn before(&self, change: Change<'_>) -> io::Result<()>;

    /// Answers for the kernel when an attribute below `root` is written; `None` lets the write through.
    fn attribute(&self, root: &Path, path: &str, text: &str) -> Option<io::Result<()>> {
        let _ = (root, path, text);
        None
    }
}

/// A change that is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A folder is made.
    Folder(&'a str),
    /// New content is written beside a file.
    Write(&'a str),
    /// It takes the file's place.
    Replace(&'a str),
    /// A file, link or empty folder is removed.
    Remove(&'a str),
    /// An attribute of the kernel is set.
    Attribute(&'a str),
}

/// What lies at a path, as far as a backup must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File {
        /// Its content.
        content: Vec<u8>,
        /// Its permissions, `0o7777` at most.
        mode: u32,
        /// Its user and group; none keeps what is there, or what the process makes.
        owner: Option<(u32, u32)>,
    },
    /// A symbolic link.
    Link {
        /// What it holds.
        target: PathBuf,
    },
}

impl Node {
    /// A file of root's that all may read.
    #[must_use]
    pub fn text(content: impl Into<String>) -> Self {
        Self::File { content: content.into().into_bytes(), mode: 0o644, owner: None }
    }

    /// A script of root's that all may run.
    #[must_use]
    pub fn script(content: impl Into<String>) -> Self {
        Self::File { content: content.into().into_bytes(), mode: 0o755, owner: None }
    }
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What users other than root may still fill, in bytes.
    pub available_bytes: u64,
    /// Whether it is mounted read-only.
    pub is_read_only: bool,
}

impl HostFs {
    /// The machine whose files lie below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), interception: None }
    }

    /// The same, with a test between each change and the disk.
    #[must_use]
    pub fn intercepted(root: &Path, interception: Arc<dyn Interception>) -> Self {
        Self { root: root.to_owned(), interception: Some(interception) }
    }

    /// Whether these are the files of the machine that this process runs on.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the machine is for this process. Links in the parent folders are followed, the last name is not.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.resolve(parent).join(name),
            _ => self.root.clone(),
        }
    }

    /// As [`Self::at`], with the last name followed too.
    fn resolve(&self, path: &Path) -> PathBuf {
        if self.is_live() {
            return self.root.join(path);
        }
        let mut ahead: Vec<OsString> = names(path).rev().collect();
        let (mut resolved, mut depth, mut links) = (self.root.clone(), 0_usize, 0_usize);
        while let Some(name) = ahead.pop() {
            if name == ".." {
                if depth > 0 {
                    resolved.pop();
                    depth -= 1;
                }
                continue;
            }
            let next = resolved.join(&name);
            match fs::read_link(&next) {
                Ok(target) if links < LINKS_MAX => {
                    links += 1;
                    if target.is_absolute() {
                        (resolved, depth) = (self.root.clone(), 0);
                    }
                    ahead.extend(names(&target).rev());
                }
                _ => {
                    resolved = next;
                    depth += 1;
                }
            }
        }
        resolved
    }

    /// The content of a file.
    ///
    /// # Errors
    /// It cannot be read, or is larger than anything that this crate has to do with.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let path = self.resolve(path.as_ref());
        if fs::metadata(&path)?.len() > FILE_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is unexpectedly large"));
        }
        fs::read(path)
    }

    /// A file as text, trimmed; nothing where it cannot be read or is empty.
    #[must_use]
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = String::from_utf8_lossy(&self.read(path).ok()?).trim().to_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// The names in a folder, sorted; none where it cannot be listed.
    #[must_use]
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.resolve(path.as_ref())).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// What a symbolic link holds.
    #[must_use]
    pub fn link(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        fs::read_link(self.at(path)).ok()
    }

    /// The last name of what a symbolic link holds, as the driver of a device.
    #[must_use]
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        self.link(path)?.file_name()?.to_str().map(str::to_owned)
    }

    /// Whether there is anything, links followed.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.resolve(path.as_ref()).exists()
    }

    /// Whether there is a folder, links followed.
    #[must_use]
    pub fn is_folder(&self, path: impl AsRef<Path>) -> bool {
        self.resolve(path.as_ref()).is_dir()
    }

    /// What lies at a path, links not followed; nothing where nothing is.
    ///
    /// # Errors
    /// It cannot be read, or is neither a file nor a link.
    pub fn node(&self, path: &str) -> io::Result<Option<Node>> {
        let at = self.at(path);
        let found = match fs::symlink_metadata(&at) {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if found.is_symlink() {
            return Ok(Some(Node::Link { target: fs::read_link(at)? }));
        }
        if !found.is_file() {
            return Err(io::Error::other("neither a file nor a symbolic link"));
        }
        let (mode, owner) = (found.mode() & 0o7777, Some((found.uid(), found.gid())));
        Ok(Some(Node::File { content: fs::read(at)?, mode, owner }))
    }

    /// The room on the file system of a path, or of the nearest folder above it that exists.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn space(&self, path: &str) -> io::Result<Space> {
        let path = self.resolve(Path::new(path));
        let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(&self.root);
        let found = statvfs(existing)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Space {
            total_bytes: bytes(found.blocks()),
            available_bytes: bytes(found.blocks_available()),
            is_read_only: found.flags().contains(FsFlags::ST_RDONLY),
        })
    }

    /// Makes a folder and those above it that are missing; the missing ones, outermost first.
    ///
    /// # Errors
    /// One cannot be made.
    pub fn make_folder(&self, path: &str, mode: u32) -> io::Result<()> {
        let missing = self.missing_folders(path);
        for folder in missing {
            self.before(Change::Folder(&folder))?;
            let at = self.at(&folder);
            fs::create_dir(&at)?;
            fs::set_permissions(&at, Permissions::from_mode(mode))?;
            sync_folder_of(&at)?;
        }
        Ok(())
    }

    /// A folder and those above it, as far as they are missing, outermost first.
    #[must_use]
    pub fn missing_folders(&self, path: &str) -> Vec<String> {
        let ancestors = Path::new(path).ancestors().take_while(|folder| !self.is_folder(folder));
        let mut missing: Vec<_> = ancestors.map(|folder| folder.to_string_lossy().into_owned()).collect();
        missing.reverse();
        missing
    }

    /// Puts `node` in place whole, over whatever file or link is there. The folder must exist.
    ///
    /// # Errors
    /// The old one is still there then.
    pub fn put(&self, path: &str, node: &Node) -> io::Result<()> {
        let (at, beside) = (self.at(path), self.beside(path));
        self.before(Change::Write(path))?;
        remove_if_there(&beside)?;
        match node {
            Node::Link { target } => symlink(target, &beside)?,
            Node::File { content, mode, owner } => {
                let mut file = File::create_new(&beside)?;
                file.set_permissions(Permissions::from_mode(0o600))?;
                file.write_all(content)?;
                let existing = fs::symlink_metadata(&at).ok().map(|found| (found.uid(), found.gid()));
                if let Some((user, group)) = owner.or(existing).filter(|_| nix::unistd::geteuid().is_root()) {
                    chown(&beside, Some(user), Some(group))?;
                }
                file.set_permissions(Permissions::from_mode(*mode))?;
                file.sync_all()?;
            }
        }
        self.before(Change::Replace(path))?;
        fs::rename(&beside, &at)?;
        sync_folder_of(&at)
    }

    /// Removes a file or link; nothing there is fine.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let at = self.at(path);
        if fs::symlink_metadata(&at).is_err() {
            return Ok(());
        }
        self.before(Change::Remove(path))?;
        remove_if_there(&at)?;
        sync_folder_of(&at)
    }

    /// Removes what an interrupted [`Self::put`] left beside a file.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove_unfinished(&self, path: &str) -> io::Result<()> {
        remove_if_there(&self.beside(path))
    }

    /// Removes a folder if it is empty.
    ///
    /// # Errors
    /// It is empty and still there.
    pub fn remove_empty_folder(&self, path: &str) -> io::Result<()> {
        if !self.is_folder(path) || !self.list(path).is_empty() {
            return Ok(());
        }
        self.before(Change::Remove(path))?;
        let at = self.at(path);
        fs::remove_dir(&at)?;
        sync_folder_of(&at)
    }

    /// Sets an attribute of the kernel. A process of its own writes, since the kernel may never answer.
    ///
    /// # Errors
    /// The kernel refused, or did not answer in time.
    pub fn set_attribute(&self, path: &str, text: &str) -> io::Result<()> {
        self.before(Change::Attribute(path))?;
        if let Some(answer) = self.interception.as_ref().and_then(|test| test.attribute(&self.root, path, text)) {
            return answer;
        }
        let script = r#"printf '%s' "$1" > "$0""#;
        let mut writer = Command::new("/bin/sh");
        writer.args(["-c", script]).arg(self.resolve(Path::new(path))).arg(text);
        let mut writer = writer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let deadline = Instant::now() + ATTRIBUTE_TIMEOUT;
        loop {
            match writer.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => return Err(io::Error::other(format!("the kernel refused to take {text:?}"))),
                None if Instant::now() >= deadline => {
                    // It may sit in the kernel, deaf to this: then it stays behind, and this process goes on.
                    let _ = writer.kill();
                    let seconds = ATTRIBUTE_TIMEOUT.as_secs();
                    let message = format!("the kernel did not take {text:?} within {seconds} s: the driver is busy");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn before(&self, change: Change<'_>) -> io::Result<()> {
        self.interception.as_ref().map_or(Ok(()), |test| test.before(change))
    }

    /// The name under which a file is written before it takes its place.
    fn beside(&self, path: &str) -> PathBuf {
        let at = self.at(path);
        let mut name = OsString::from(".");
        name.push(at.file_name().unwrap_or_default());
        name.push(UNFINISHED);
        at.with_file_name(name)
    }
}

/// The names that a path consists of, from the root.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn machine() -> (tempfile::TempDir, HostFs) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/default")).unwrap();
        let host = HostFs::new(folder.path());
        (folder, host)
    }

    #[test]
    fn links_are_followed_as_if_the_root_were_the_machines() {
        let (folder, host) = machine();
        fs::write(folder.path().join("etc/default/grub"), "quiet\n").unwrap();
        symlink("/etc/default/grub", folder.path().join("etc/absolute")).unwrap();
        symlink("../../../../../etc/default", folder.path().join("etc/above")).unwrap();
        symlink("circle", folder.path().join("etc/circle")).unwrap();
        assert_eq!(host.text("/etc/absolute").as_deref(), Some("quiet"));
        assert_eq!(host.text("/etc/above/grub").as_deref(), Some("quiet"));
        assert_eq!(host.text("/etc/../../etc/default/grub").as_deref(), Some("quiet"));
        assert_eq!(host.text("/etc/circle"), None);
        assert_eq!(host.link_name("/etc/absolute").as_deref(), Some("grub"));
        assert_eq!(host.list("/etc"), ["above", "absolute", "circle", "default"]);
    }

    #[test]
    fn a_file_and_a_link_are_put_in_place_with_their_modes() {
        let (folder, host) = machine();
        host.put("/etc/default/grub", &Node::script("#!/bin/sh\n")).unwrap();
        let Some(Node::File { content, mode, owner }) = host.node("/etc/default/grub").unwrap() else {
            panic!("no file")
        };
        assert_eq!((content.as_slice(), mode, owner.is_some()), (b"#!/bin/sh\n".as_slice(), 0o755, true));
        let link = Node::Link { target: "elsewhere".into() };
        host.put("/etc/default/grub", &link).unwrap();
        assert_eq!(host.node("/etc/default/grub").unwrap(), Some(link));
        host.remove("/etc/default/grub").unwrap();
        host.remove("/etc/default/grub").unwrap();
        assert_eq!(host.node("/etc/default/grub").unwrap(), None);
        assert_eq!(fs::read_dir(folder.path().join("etc/default")).unwrap().count(), 0, "nothing is left beside");
    }

    #[test]
    fn missing_folders_are_named_outermost_first_and_only_empty_ones_are_removed() {
        let (_folder, host) = machine();
        assert_eq!(host.missing_folders("/etc/a/b"), ["/etc/a", "/etc/a/b"]);
        host.make_folder("/etc/a/b", 0o750).unwrap();
        assert!(host.missing_folders("/etc/a/b").is_empty());
        host.put("/etc/a/b/file", &Node::text("")).unwrap();
        host.remove_empty_folder("/etc/a/b").unwrap();
        assert!(host.exists("/etc/a/b/file"));
        host.remove("/etc/a/b/file").unwrap();
        host.remove_empty_folder("/etc/a/b").unwrap();
        assert_eq!(host.list("/etc"), ["a", "default"]);
    }

    #[derive(Debug, Default)]
    struct Refusing(Mutex<Vec<String>>);

    impl Interception for Refusing {
        fn before(&self, change: Change<'_>) -> io::Result<()> {
            self.0.lock().unwrap().push(format!("{change:?}"));
            if matches!(change, Change::Replace(_)) { Err(io::Error::other("refused")) } else { Ok(()) }
        }
    }

    #[test]
    fn a_test_stands_before_each_change_and_what_an_interrupted_one_left_is_removed() {
        let (folder, plain) = machine();
        plain.put("/etc/default/grub", &Node::text("old\n")).unwrap();
        let test = Arc::new(Refusing::default());
        let host = HostFs::intercepted(folder.path(), test.clone());
        host.put("/etc/default/grub", &Node::text("new\n")).unwrap_err();
        assert_eq!(test.0.lock().unwrap().len(), 2);
        assert_eq!(host.text("/etc/default/grub").as_deref(), Some("old"));
        assert_eq!(host.list("/etc/default"), [".grub.byteleap-new", "grub"]);
        host.remove_unfinished("/etc/default/grub").unwrap();
        assert_eq!(host.list("/etc/default"), ["grub"]);
    }

    #[test]
    fn an_attribute_is_written_by_another_process() {
        let (folder, host) = machine();
        let attribute = folder.path().join("etc/driver_override");
        fs::write(&attribute, "").unwrap();
        host.set_attribute("/etc/driver_override", "vfio-pci").unwrap();
        assert_eq!(fs::read_to_string(attribute).unwrap(), "vfio-pci");
        host.set_attribute("/etc/missing/attribute", "x").unwrap_err();
    }
}

//! The lasting name of a worker (worker-miner spec 7).
//!
//! A worker's history at the validators hangs on its `worker_id`. The Python worker computes it at every start from
//! facts that change with each kernel update. This one computes the same value once, so that a migrated host keeps its
//! name, and from then on reads it from a file.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::host_fs::HostFs;
use crate::interface::{self, Interface};
use crate::procfs;

/// The file in the state directory that holds the identity.
pub const FILE_NAME: &str = "worker_id";

/// Hexadecimal digits of a computed identity.
const DIGITS: usize = 16;

/// Names of interfaces that count as primary, best first.
const PRIMARY_PREFIXES: [&str; 7] = ["eth0", "en0", "ens", "eno", "enp", "wlan0", "wlo"];

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stored identity could not be read.
    #[error("cannot read the worker's identity from {}: make it readable for this user, or set the key worker_id", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The identity could not be stored.
    #[error("cannot store the worker's identity in {}: make its folder writable for this user, or point the key state_dir to one that is", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The identity kept in `state_dir`; on the first start it is computed from the machine whose files lie under `root`, and
/// kept (mode 0600).
///
/// # Errors
/// The file can neither be read nor written.
pub fn load_or_create(state_dir: &Path, root: &Path) -> Result<String, Error> {
    let path = state_dir.join(FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read { path, source }),
    }
    let worker_id = Fingerprint::read(&HostFs::new(root)).worker_id();
    store(state_dir, &path, &worker_id).map_err(|source| Error::Write { path, source })?;
    Ok(worker_id)
}

/// Whether [`load_or_create`] could read or keep an identity there; changes nothing.
///
/// # Errors
/// As [`load_or_create`].
pub fn check(state_dir: &Path) -> Result<(), Error> {
    let path = state_dir.join(FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read { path, source }),
    }
    let existing = state_dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let writable = nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK);
    writable.map_err(|errno| Error::Write { path, source: errno.into() })
}

/// Writes the file whole or not at all.
fn store(state_dir: &Path, path: &Path, worker_id: &str) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    let unfinished = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{worker_id}")?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    fs::File::open(state_dir)?.sync_all()
}

/// The facts that an identity is computed from.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    /// Hardware name of the kernel, as `x86_64`.
    pub machine: String,
    /// `/etc/machine-id`, if readable.
    pub machine_id: Option<String>,
    /// Release of the kernel.
    pub release: String,
    /// What `uname -p` says, empty for `unknown`: empty on Debian, the machine on Ubuntu.
    pub processor: String,
    /// Name and version of the C library as its configuration string has them, as `glibc 2.35`.
    pub c_library: String,
    /// MAC of the primary interface, or a node number.
    pub primary_mac: String,
}

impl Fingerprint {
    /// Reads the facts of a machine. Runs `uname -p` and `getconf GNU_LIBC_VERSION`: what they
    /// say is compiled into the host's own programs and stands in no file.
    pub fn read(host: &HostFs) -> Self {
        let processor = output_of("uname", &["-p"]).unwrap_or_default();
        Self {
            machine: procfs::machine(host),
            machine_id: host.text("/etc/machine-id"),
            release: host.text("/proc/sys/kernel/osrelease").unwrap_or_default(),
            processor: if processor == "unknown" { String::new() } else { processor },
            c_library: output_of("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_default(),
            primary_mac: primary_mac(&interface::list()).unwrap_or_else(|| random_node(host)),
        }
    }

    /// The identity: the head of SHA-256 over [`Self::text`].
    pub fn worker_id(&self) -> String {
        let mut digits = hex::encode(Sha256::digest(self.text()));
        digits.truncate(DIGITS);
        digits
    }

    /// The facts as one text: `key:value` sorted by key, joined by bars.
    pub fn text(&self) -> String {
        let mut entries = vec![format!("machine:{}", self.machine)];
        entries.extend(self.machine_id.as_ref().map(|id| format!("machine_id:{id}")));
        entries.push(format!("platform:{}", self.platform()));
        entries.push(format!("primary_mac:{}", self.primary_mac));
        entries.push(format!("processor:{}", self.processor));
        entries.join("|")
    }

    /// `Linux-<release>-<machine>[-<processor>]-with-<C library>`, cleaned as Python's `platform` cleans it.
    fn platform(&self) -> String {
        let processor = if self.processor == self.machine { "" } else { &self.processor };
        let c_library = self.c_library.replace(' ', "");
        let parts = ["Linux", &self.release, &self.machine, processor, "with", &c_library];
        let parts: Vec<&str> = parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect();
        let mut platform: String = parts
            .join("-")
            .chars()
            .map(|character| match character {
                ' ' => '_',
                '/' | '\\' | ':' | ';' | '"' | '(' | ')' => '-',
                other => other,
            })
            .collect();
        platform = platform.replace("unknown", "");
        while platform.contains("--") {
            platform = platform.replace("--", "-");
        }
        platform.trim_end_matches('-').to_owned()
    }
}

/// The MAC of the primary interface: of the first prefix that any interface has, the last such interface; without one,
/// the first interface that is not loopback and has an address other than zero.
fn primary_mac(interfaces: &[Interface]) -> Option<String> {
    let with_prefix = |prefix| {
        let mut matching = interfaces.iter().rev().filter(move |interface| interface.name.starts_with(prefix));
        matching.find_map(|interface| interface.mac.clone())
    };
    PRIMARY_PREFIXES.into_iter().find_map(with_prefix).or_else(|| {
        let mut others = interfaces.iter().filter(|interface| !interface.name.starts_with("lo"));
        others.find_map(|interface| interface.mac.clone().filter(|mac| mac != "00:00:00:00:00:00"))
    })
}

/// A node number for a machine without any MAC: random, so that two such machines do not share an identity.
fn random_node(host: &HostFs) -> String {
    let uuid = host.text("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("0x{}", uuid.rsplit('-').next().unwrap_or_default())
}

/// What a program prints, trimmed; nothing where it is missing or fails.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn worked_example() -> Fingerprint {
        Fingerprint {
            machine: "x86_64".to_owned(),
            machine_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
            release: "5.15.0-91-generic".to_owned(),
            processor: "x86_64".to_owned(),
            c_library: "glibc 2.35".to_owned(),
            primary_mac: "02:00:5e:10:00:01".to_owned(),
        }
    }

    #[test]
    fn the_worked_examples_give_their_identities() {
        let with_processor = worked_example();
        assert_eq!(
            with_processor.text(),
            "machine:x86_64|machine_id:0123456789abcdef0123456789abcdef|\
             platform:Linux-5.15.0-91-generic-x86_64-with-glibc2.35|primary_mac:02:00:5e:10:00:01|processor:x86_64"
        );
        assert_eq!(with_processor.worker_id(), "09442c31e75402e3");
        let without = Fingerprint { processor: String::new(), ..with_processor };
        assert_eq!(without.worker_id(), "ae0e5668ea1e6129");
    }

    #[test]
    fn an_unreadable_machine_id_leaves_its_key_out() {
        let fingerprint = Fingerprint { machine_id: None, ..worked_example() };
        assert!(!fingerprint.text().contains("machine_id"));
    }

    #[test]
    fn the_platform_is_cleaned_as_python_cleans_it() {
        let fingerprint = Fingerprint {
            release: "6.1 (unknown)/custom".to_owned(),
            processor: "Ampere:Altra".to_owned(),
            c_library: String::new(),
            ..worked_example()
        };
        assert_eq!(fingerprint.platform(), "Linux-6.1_-custom-x86_64-Ampere-Altra-with");
    }

    #[test]
    fn the_last_interface_with_the_best_prefix_is_primary() {
        let interface = |name, mac| Interface::new(name, Some(mac), true, false);
        let interfaces = [
            interface("lo", "00:00:00:00:00:00"),
            interface("docker0", "02:42:00:00:00:01"),
            interface("enp1s0", "0a:00:00:00:00:01"),
            interface("eno1", "0a:00:00:00:00:02"),
            interface("eno2", "0a:00:00:00:00:03"),
        ];
        assert_eq!(primary_mac(&interfaces).as_deref(), Some("0a:00:00:00:00:03"));
        assert_eq!(primary_mac(&interfaces[..2]).as_deref(), Some("02:42:00:00:00:01"));
        assert_eq!(primary_mac(&interfaces[..1]), None);
    }

    #[test]
    fn an_identity_is_computed_once_and_kept_private() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        check(&state).unwrap();
        let first = load_or_create(&state, root.path()).unwrap();
        check(&state).unwrap();
        assert_eq!(first.len(), DIGITS);
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/machine-id"), "changed\n").unwrap();
        assert_eq!(load_or_create(&state, root.path()).unwrap(), first);
        let mode = fs::metadata(state.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_identity_that_cannot_be_kept_is_an_error_that_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let blocked = root.path().join("file");
        fs::write(&blocked, "").unwrap();
        assert!(check(&blocked.join("state")).is_err());
        let error = load_or_create(&blocked.join("state"), root.path()).unwrap_err();
        assert!(error.to_string().contains("worker_id"), "{error}");
    }
}

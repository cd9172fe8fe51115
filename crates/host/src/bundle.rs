//! An archive for support, and what is taken out of every text that goes into it: names of the machine, addresses, serial
//! numbers, keys.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::host_fs::HostFs;

/// What stands where something was taken out.
const REMOVED: &str = "[removed]";

/// Words before a value that nobody else may know.
const SECRET_NAMES: &[&str] =
    &["password", "passwd", "secret", "token", "mnemonic", "private", "apikey", "api_key", "authkey"];

/// Files that hold what tells this machine from others.
const NAMING_FILES: &[&str] = &[
    "/etc/hostname",
    "/proc/sys/kernel/hostname",
    "/etc/machine-id",
    "/sys/class/dmi/id/product_serial",
    "/sys/class/dmi/id/board_serial",
    "/sys/class/dmi/id/chassis_serial",
    "/sys/class/dmi/id/product_uuid",
];

/// Digits from which a hexadecimal word may be a key.
const KEY_DIGITS: usize = 32;

/// What to take out of texts of one machine.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    names: Vec<String>,
}

impl Redaction {
    /// Learns the names of a machine.
    #[must_use]
    pub fn of(host: &HostFs) -> Self {
        let names = NAMING_FILES.iter().filter_map(|path| host.text(path));
        // A short or common name would tear holes into words.
        Self { names: names.filter(|name| name.len() >= 4 && name != "localhost").collect() }
    }

    /// The text without what nobody else needs to know. The form of lines stays.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for name in &self.names {
            text = text.replace(name.as_str(), REMOVED);
        }
        let mut redacted = text.split_inclusive('\n').map(line).collect::<String>();
        if text.is_empty() {
            redacted.clear();
        }
        redacted
    }
}

/// One line without secrets and addresses.
fn line(line: &str) -> String {
    let lower = line.to_lowercase();
    if let Some(end) = secret_value(&lower).filter(|end| line.is_char_boundary(*end)) {
        let newline = if line.ends_with('\n') { "\n" } else { "" };
        return format!("{} {REMOVED}{newline}", &line[..end]);
    }
    let is_part = |character: char| character.is_ascii_alphanumeric() || ".:-_".contains(character);
    let (mut out, mut word) = (String::new(), String::new());
    for character in line.chars() {
        if is_part(character) {
            word.push(character);
            continue;
        }
        out.push_str(if is_telling(&word) { REMOVED } else { &word });
        word.clear();
        out.push(character);
    }
    out.push_str(if is_telling(&word) { REMOVED } else { &word });
    out
}

/// Where a secret's value begins in a line `name: value` or `name=value`.
fn secret_value(lower: &str) -> Option<usize> {
    let name = SECRET_NAMES.iter().find_map(|name| lower.find(name))?;
    let separator = lower[name..].find([':', '='])?;
    Some(name + separator + 1)
}

/// Whether a word is an address of a network, a UUID or a key.
fn is_telling(word: &str) -> bool {
    let word = word.trim_matches(['.', ':', '-', '_']);
    is_ip(word) || is_mac(word) || is_uuid(word) || is_key(word)
}

fn is_ip(word: &str) -> bool {
    let bare = match word.rsplit_once(':') {
        Some((host, port)) if host.contains('.') && port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => word,
    };
    let is_local = |address: std::net::IpAddr| address.is_loopback() || address.is_unspecified();
    // Four numbers or at least two colons: a version or a PCI address is none.
    bare.parse().is_ok_and(|address| !is_local(address))
}

fn is_mac(word: &str) -> bool {
    let parts: Vec<_> = word.split([':', '-']).collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && is_hexadecimal(part))
}

fn is_uuid(word: &str) -> bool {
    let lengths: Vec<_> = word.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && word.split('-').all(is_hexadecimal)
}

fn is_key(word: &str) -> bool {
    let bare = word.trim_start_matches("0x");
    bare.len() >= KEY_DIGITS && is_hexadecimal(bare)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The name in the archive of a file of the machine.
#[must_use]
pub fn name(path: &str) -> String {
    format!("files{path}")
}

/// Writes texts into a compressed archive that only its owner may read.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, files: &[(String, String)]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, format!("byteleap-support/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_a_machine_from_others_is_taken_out_and_the_rest_stays() {
        let redaction = Redaction { names: vec!["rack7-n3".to_owned()] };
        for (text, expected) in [
            ("host rack7-n3 is up\n", "host [removed] is up\n"),
            ("inet 203.0.113.7:7799/24", "inet [removed]/24"),
            ("link 0a:00:00:00:00:01 fe80::1", "link [removed] [removed]"),
            ("miner_token: abc\nnext: 1\n", "miner_token: [removed]\nnext: 1\n"),
            ("PASSWORD=hunter2", "PASSWORD= [removed]"),
            ("root=UUID=6fd0b0c5-6a31-4f4e-9c0c-5b1a5a3f8b2e ro", "root=UUID=[removed] ro"),
            ("id 0123456789abcdef0123456789abcdef", "id [removed]"),
        ] {
            assert_eq!(redaction.apply(text), expected);
        }
        for kept in ["0000:c1:00.0 10de:2204", "6.8.0-45-generic", "listen 127.0.0.1:7797", "cpu 10.1.2", ""] {
            assert_eq!(redaction.apply(kept), kept);
        }
    }
}

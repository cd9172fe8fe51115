//! What a gateway asks for, checked before anything is touched (vm-and-gpu-host spec 2.2 and 2.4).
//!
//! In: the parameters of a create operation as they came, and what the host has to give. Out: a [`CreateRequest`] whose
//! every field is safe to put into a path, a definition or a seed, or the [`Refusal`] that the gateway is told. A refused
//! request costs nothing and leaves nothing; the refused value itself appears in no message.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use byteleap_protocol::Object;
use serde_json::Value;
use ssh_key::{Algorithm, PublicKey};
use zeroize::Zeroizing;

/// Least memory of a machine, MiB.
pub const MIN_MEMORY_MIB: u64 = 512;

/// Disk of a machine whose request names none, GiB.
pub const DEFAULT_DISK_GIB: u64 = 10;

/// Most keys that a request may bring.
pub const MAX_SSH_KEYS: usize = 8;

/// Longest text of all keys, bytes: eight of the longest RSA keys and their comments.
const MAX_SSH_KEYS_BYTES: usize = 32 * 1024;

/// Lengths of an RSA key, bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=16_384;

/// What this host has to give, and to whom.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The worker as the gateway knows it.
    pub worker_id: String,
    /// Where images are kept; a request must name this folder, and no path is ever built from what it says.
    pub image_dir: PathBuf,
    /// The images whose digest was verified, and the virtual size of each, GiB.
    pub images: BTreeMap<String, u64>,
    /// Free memory, MiB.
    pub memory_mib: u64,
    /// Free processors.
    pub vcpus: u64,
    /// Free units for passthrough.
    pub gpus: u64,
    /// Largest disk that fits, GiB.
    pub disk_gib: u64,
    /// Whether a tenant may log in by password.
    pub allow_password: bool,
}

/// A machine to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// What the request is called.
    pub task_id: TaskId,
    /// The machine's name.
    pub vm_name: VmName,
    /// Its base image, one of [`Offer::images`].
    pub image_name: ImageName,
    /// Its memory, MiB.
    pub memory_mib: u64,
    /// Its processors.
    pub vcpus: u64,
    /// Its whole GPUs.
    pub gpu_count: u64,
    /// Its disk, GiB.
    pub disk_gib: u64,
    /// Who logs in.
    pub username: UserName,
    /// By which keys.
    pub ssh_keys: Vec<SshKey>,
    /// By which password.
    pub password: Option<Password>,
}

/// Why a request is refused; fit for the gateway's eyes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field that every request has.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field of another shape.
    #[error("{0} must be {1}")]
    Malformed(&'static str, &'static str),
    /// More or less than there is to give.
    #[error("{field} must be from {least} to {most}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its least value here and now.
        least: u64,
        /// Its greatest value here and now; may be below the least, when nothing is left.
        most: u64,
    },
    /// The request is for another worker.
    #[error("worker_id is not this worker's")]
    OtherWorker,
    /// No verified image has this name.
    #[error("image_name is not in this host's catalogue")]
    UnknownImage,
    /// There is no built-in password.
    #[error("neither sshkey nor password is given: nobody could log in")]
    NoLogin,
    /// The operator wants keys only.
    #[error("password is not allowed on this host: give an sshkey")]
    PasswordNotAllowed,
}

impl CreateRequest {
    /// Reads the parameters of a create; unknown ones are ignored.
    ///
    /// # Errors
    /// The first rule that is broken, see [`Refusal`].
    pub fn parse(parameters: &Object, offer: &Offer) -> Result<Self, Refusal> {
        if required_text(parameters, "worker_id")? != offer.worker_id {
            return Err(Refusal::OtherWorker);
        }
        let task_id = TaskId::parse("task_id", required_text(parameters, "task_id")?)?;
        let vm_name = match text(parameters, "vm_name")? {
            None | Some("") => VmName::of_task(&task_id),
            Some(name) => VmName::parse("vm_name", name)?,
        };
        if Path::new(required_text(parameters, "cloud_init_dir")?) != offer.image_dir {
            return Err(Refusal::Malformed("cloud_init_dir", "this host's image directory"));
        }
        let image_name = ImageName::parse("image_name", required_text(parameters, "image_name")?)?;
        let image_gib = *offer.images.get(image_name.as_str()).ok_or(Refusal::UnknownImage)?;
        let memory_mib = required_number(parameters, "memory_mb", MIN_MEMORY_MIB, offer.memory_mib)?;
        if memory_mib % 2 != 0 {
            return Err(Refusal::Malformed("memory_mb", "a multiple of 2"));
        }
        let vcpus = required_number(parameters, "vcpus", 1, offer.vcpus)?;
        let gpu_count = number(parameters, "gpu_count", 0, 0, offer.gpus)?;
        let disk_gib = number(parameters, "disk_size", DEFAULT_DISK_GIB, image_gib, offer.disk_gib)?;
        let username = UserName::parse("username", text(parameters, "username")?.unwrap_or("root"))?;
        let ssh_keys = match text(parameters, "sshkey")? {
            None | Some("") => Vec::new(),
            Some(lines) => SshKey::parse_lines(lines)?,
        };
        let password = match text(parameters, "password")? {
            None | Some("") => None,
            Some(_) if !offer.allow_password => return Err(Refusal::PasswordNotAllowed),
            Some(password) => Some(Password::parse(password)?),
        };
        if ssh_keys.is_empty() && password.is_none() {
            return Err(Refusal::NoLogin);
        }
        Ok(Self { task_id, vm_name, image_name, memory_mib, vcpus, gpu_count, disk_gib, username, ssh_keys, password })
    }
}

/// A text; null counts as absent.
fn text<'a>(parameters: &'a Object, field: &'static str) -> Result<Option<&'a str>, Refusal> {
    match parameters.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::Malformed(field, "a text")),
    }
}

fn required_text<'a>(parameters: &'a Object, field: &'static str) -> Result<&'a str, Refusal> {
    text(parameters, field)?.ok_or(Refusal::Missing(field))
}

/// A whole number within bounds; booleans, floats and texts are none.
fn required_number(parameters: &Object, field: &'static str, least: u64, most: u64) -> Result<u64, Refusal> {
    match parameters.get(field) {
        None | Some(Value::Null) => Err(Refusal::Missing(field)),
        Some(value) => {
            let number = value.as_i64().ok_or(Refusal::Malformed(field, "a whole number"))?;
            within(field, u64::try_from(number).ok(), least, most)
        }
    }
}

fn number(parameters: &Object, field: &'static str, default: u64, least: u64, most: u64) -> Result<u64, Refusal> {
    match required_number(parameters, field, least, most) {
        Err(Refusal::Missing(_)) => within(field, Some(default), least, most),
        other => other,
    }
}

fn within(field: &'static str, number: Option<u64>, least: u64, most: u64) -> Result<u64, Refusal> {
    number.filter(|number| (least..=most).contains(number)).ok_or(Refusal::OutOfRange { field, least, most })
}

macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $limit:literal, $first:expr, $rest:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks a text that came as `field`.
            ///
            /// # Errors
            /// It is empty, too long, or has other characters.
            pub fn parse(field: &'static str, text: &str) -> Result<Self, Refusal> {
                let (first, rest): (fn(u8) -> bool, fn(u8) -> bool) = ($first, $rest);
                let starts_well = text.bytes().next().is_some_and(first);
                if starts_well && text.len() <= $limit && text.bytes().all(rest) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Refusal::Malformed(field, $rule))
                }
            }

            /// The name as it came.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

plain_name!(
    /// A request, or the one that made something: `[A-Za-z0-9._:-]{1,128}`.
    TaskId, 128,
    is_task_byte, is_task_byte,
    "1 to 128 letters, digits, dots, underscores, colons and hyphens"
);
plain_name!(
    /// A machine: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
    VmName, 63,
    |byte| byte.is_ascii_alphanumeric(), is_name_byte,
    "at most 63 letters, digits, dots, underscores and hyphens, the first a letter or digit"
);
plain_name!(
    /// An image: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
    ImageName, 128,
    |byte| byte.is_ascii_alphanumeric(), is_name_byte,
    "at most 128 letters, digits, dots, underscores and hyphens, the first a letter or digit"
);
plain_name!(
    /// A user of the guest: `[a-z_][a-z0-9_-]{0,31}`.
    UserName, 32,
    |byte| byte.is_ascii_lowercase() || byte == b'_',
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte),
    "at most 32 small letters, digits, underscores and hyphens, the first a letter or underscore"
);

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

fn is_task_byte(byte: u8) -> bool {
    is_name_byte(byte) || byte == b':'
}

impl VmName {
    const MAX_CHARS: usize = 63;

    /// The name of a machine whose request gives it none: `vm_` and the task, a colon as a hyphen, cut to fit.
    fn of_task(task: &TaskId) -> Self {
        Self(format!("vm_{}", task.0.replace(':', "-")).chars().take(Self::MAX_CHARS).collect())
    }

    /// The guest's host name: lower case, hyphens for what a host name cannot hold.
    #[must_use]
    pub fn host_name(&self) -> String {
        self.0.to_ascii_lowercase().replace(['_', '.'], "-")
    }
}

/// A public key by which a tenant logs in, written anew from what was understood of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKey(String);

impl SshKey {
    const MAX_COMMENT_CHARS: usize = 128;
    const RULE: &'static str = "1 to 8 public keys in OpenSSH's format: ed25519, ecdsa, sk-* or rsa from 2048 bits";

    /// Reads one key a line.
    ///
    /// # Errors
    /// None or more than [`MAX_SSH_KEYS`], or one that is no acceptable key.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, Refusal> {
        let refusal = Refusal::Malformed("sshkey", Self::RULE);
        if text.len() > MAX_SSH_KEYS_BYTES {
            return Err(refusal);
        }
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if !(1..=MAX_SSH_KEYS).contains(&lines.len()) {
            return Err(refusal);
        }
        lines.into_iter().map(|line| Self::parse(line).ok_or_else(|| refusal.clone())).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut key = PublicKey::from_openssh(line).ok()?;
        let is_acceptable = match key.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
                true
            }
            Algorithm::Rsa { .. } => {
                let modulus = key.key_data().rsa()?.n.as_positive_bytes()?;
                let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
                RSA_BITS.contains(&bits)
            }
            _ => false,
        };
        if !is_acceptable {
            return None;
        }
        let is_printable = |character: &char| (' '..='~').contains(character);
        let comment: String = key.comment().chars().filter(is_printable).take(Self::MAX_COMMENT_CHARS).collect();
        key.set_comment(comment.trim());
        key.to_openssh().ok().map(Self)
    }

    /// The key as one line, as `authorized_keys` holds it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A tenant's password in clear: 8 to 128 printable ASCII characters. It is hashed before it is stored, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if (8..=128).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(Refusal::Malformed("password", "8 to 128 printable ASCII characters"))
        }
    }

    /// The password itself, to be hashed.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests;

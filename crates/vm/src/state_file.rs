//! `vmgw_state.json`: what a worker keeps of its enrolment (vm-and-gpu-host spec 1.6).
//!
//! In: the gateway's answer and the key it belongs to. Out: [`Credentials`] after a restart. The deployed Python worker
//! reads and writes the same file, so the two may follow one another on a host; fields that neither knows survive.
//!
//! The file holds a private key. It is written beside itself and renamed, mode 0600 from the first byte, so that a crash
//! leaves the old or the new; and it is refused where others could have read or replaced it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use byteleap_protocol::Object;
use byteleap_protocol::gateway::EnrolmentAnswer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x509_cert::Certificate;
use x509_cert::der::DecodePem as _;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use zeroize::Zeroizing;

use crate::gateway::Validity;
use crate::timestamp;

/// The file's name, beside the configuration file.
pub const FILE_NAME: &str = "vmgw_state.json";

/// Largest file that is read, bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why there are no credentials to be had from the file, or why they could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Others can read or write the file: its key may be known to them.
    #[error(
        "{path} is open to other users (mode {mode:o}): if nobody else had access, run `chmod 600 {path}`, else delete it and the worker enrols anew"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Everyone can put another file in its place.
    #[error("{path} is writable by everyone (mode {mode:o}): run `chmod o-w {path}`")]
    ExposedFolder {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is something else than the file it should be. The reference ignores such a file and enrols anew.
    #[error("{path} is unusable: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Why a text of the credentials cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No X.509 certificate in PEM.
    #[error("deviceCertPem holds no certificate")]
    Certificate,
    /// The certificate's subject has no common name.
    #[error("the certificate names nobody")]
    CommonName,
    /// No date.
    #[error("expiresAt is no date in ISO 8601 with a time zone")]
    ExpiresAt,
}

/// A private key in PEM; never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceKey(Zeroizing<String>);

impl DeviceKey {
    /// A key in PKCS#8 PEM.
    #[must_use]
    pub fn new(pem: String) -> Self {
        Self(Zeroizing::new(pem))
    }

    /// The PEM text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for DeviceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DeviceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(hidden)")
    }
}

/// What a worker connects with, in the file's own shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The worker's certificate, PEM.
    pub device_cert_pem: String,
    /// Its private key.
    pub device_key_pem: DeviceKey,
    /// Authorities of the gateway, PEM.
    pub ca_bundle: String,
    /// When the gateway says that the certificate ends, ISO 8601.
    pub expires_at: String,
    /// Where the session is opened.
    pub ws_url: String,
    /// The certificate's serial number, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_serial: Option<String>,
    /// First enrolment, ISO 8601 with `+00:00`; never changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_at: Option<String>,
    /// Last change after it, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renewed_at: Option<String>,
    /// What is not known to this version.
    #[serde(flatten)]
    pub other: Object,
}

impl Credentials {
    /// What an enrolment yields, in place of `former` if there was one, at `now_ms` (Unix).
    ///
    /// # Errors
    /// The answer's certificate is none.
    pub fn enrolled(
        answer: EnrolmentAnswer,
        key: DeviceKey,
        former: Option<&Self>,
        now_ms: i64,
    ) -> Result<Self, CredentialsError> {
        let mut credentials = Self {
            device_cert_pem: answer.device_cert_pem,
            device_key_pem: key,
            ca_bundle: answer.ca_bundle,
            expires_at: answer.expires_at,
            ws_url: answer.ws_url,
            cert_serial: answer.cert_serial,
            enrolled_at: former.map_or_else(|| Some(timestamp::format(now_ms)), |former| former.enrolled_at.clone()),
            last_renewed_at: former.map(|_| timestamp::format(now_ms)),
            other: former.map(|former| former.other.clone()).unwrap_or_default(),
        };
        if credentials.cert_serial.is_none() {
            credentials.cert_serial = Some(serial(&credentials.certificate()?));
        }
        Ok(credentials)
    }

    /// These credentials with their next certificate and its key; authorities and address stay.
    ///
    /// # Errors
    /// The certificate is none.
    pub fn renewed(
        &self,
        device_cert_pem: String,
        expires_at: String,
        key: DeviceKey,
        now_ms: i64,
    ) -> Result<Self, CredentialsError> {
        let mut credentials = Self {
            device_cert_pem,
            expires_at,
            device_key_pem: key,
            last_renewed_at: Some(timestamp::format(now_ms)),
            ..self.clone()
        };
        credentials.cert_serial = Some(serial(&credentials.certificate()?));
        Ok(credentials)
    }

    /// Whom the certificate names: the worker's identity at the time of its enrolment.
    ///
    /// # Errors
    /// There is no certificate, or it names nobody.
    pub fn common_name(&self) -> Result<String, CredentialsError> {
        let certificate = self.certificate()?;
        let attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|name| name.0.iter());
        let mut names = attributes.filter(|attribute| attribute.oid == COMMON_NAME).filter_map(|attribute| {
            let utf8 = attribute.value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
            utf8.or_else(|_| attribute.value.decode_as::<PrintableStringRef<'_>>().map(|text| text.to_string())).ok()
        });
        names.next().ok_or(CredentialsError::CommonName)
    }

    /// When the certificate may be used: until the earlier of its own end and the gateway's word.
    ///
    /// # Errors
    /// There is no certificate, or `expiresAt` is no date.
    pub fn validity(&self) -> Result<Validity, CredentialsError> {
        let validity = self.certificate()?.tbs_certificate.validity;
        let unix_ms = |time: x509_cert::time::Time| {
            i64::try_from(time.to_unix_duration().as_millis()).map_err(|_| CredentialsError::Certificate)
        };
        let promised_ms = timestamp::parse(&self.expires_at).ok_or(CredentialsError::ExpiresAt)?;
        Ok(Validity {
            not_before_ms: unix_ms(validity.not_before)?,
            not_after_ms: unix_ms(validity.not_after)?.min(promised_ms),
        })
    }

    /// The worker's own certificate, the first of the text.
    fn certificate(&self) -> Result<Certificate, CredentialsError> {
        // Cut out by hand: the library's reader of whole chains panics on a text without any.
        const END: &str = "-----END CERTIFICATE-----";
        let text = self.device_cert_pem.trim_start();
        let end = text.find(END).ok_or(CredentialsError::Certificate)? + END.len();
        Certificate::from_pem(&text[..end]).map_err(|_| CredentialsError::Certificate)
    }
}

/// A serial number as the file has it: whole bytes, no sign byte (vm-and-gpu-host spec 1.6).
fn serial(certificate: &Certificate) -> String {
    let bytes = certificate.tbs_certificate.serial_number.as_bytes();
    let significant = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    hex::encode(&bytes[significant..])
}

/// The file. One process at a time writes it.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file at this path, whether it exists or not.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The stored credentials; none where there is no file.
    ///
    /// # Errors
    /// [`StateError::Exposed`] and [`StateError::ExposedFolder`] should keep the worker from starting;
    /// [`StateError::Unusable`] means to enrol anew.
    pub fn read(&self) -> Result<Option<Credentials>, StateError> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| self.failed("open", source))?,
        };
        self.check_folder()?;
        let metadata = file.metadata().map_err(|source| self.failed("examine", source))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StateError::Exposed { path: self.path.clone(), mode });
        }
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Err(self.unusable(format!("it is no file of at most {MAX_BYTES} bytes")));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|source| self.failed("read", source))?;
        // The parser's message may quote a value, and one of them is the key: only the place is told.
        let credentials = serde_json::from_str(&text).map_err(|error| {
            self.unusable(format!("it lacks a field or is no JSON (line {}, column {})", error.line(), error.column()))
        })?;
        Ok(Some(credentials))
    }

    /// Stores credentials. The file that was last proven stays beside them as `.1` until [`Self::forget_former`].
    ///
    /// # Errors
    /// The folder is open to everyone, or the file system refused; then the old file is untouched.
    pub fn write(&self, credentials: &Credentials) -> Result<(), StateError> {
        self.check_folder()?;
        let mut text = Zeroizing::new(Vec::with_capacity(8 * 1024));
        serde_json::to_writer_pretty(&mut *text, credentials).map_err(|error| self.failed("write", error.into()))?;
        let fresh = self.beside("new");
        remove_if_present(&fresh).map_err(|source| self.failed("replace", source))?;
        let written = create_private(&fresh).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(|source| self.failed("write", source))?;
        match fs::hard_link(&self.path, self.former()) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                return Err(self.failed("keep the former of", error));
            }
            _ => {}
        }
        fs::rename(&fresh, &self.path).map_err(|source| self.failed("replace", source))?;
        File::open(self.folder()).and_then(|folder| folder.sync_all()).map_err(|source| self.failed("write", source))
    }

    /// Puts the former credentials back in place of new ones that the gateway does not take.
    ///
    /// # Errors
    /// There are none, or the file system refused.
    pub fn restore_former(&self) -> Result<(), StateError> {
        fs::rename(self.former(), &self.path).map_err(|source| self.failed("restore", source))
    }

    /// Deletes the former credentials, once the new ones have opened a session.
    ///
    /// # Errors
    /// The file system refused.
    pub fn forget_former(&self) -> Result<(), StateError> {
        remove_if_present(&self.former()).map_err(|source| self.failed("clear the former of", source))
    }

    fn check_folder(&self) -> Result<(), StateError> {
        let metadata = fs::metadata(self.folder()).map_err(|source| self.failed("examine the folder of", source))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o002 == 0 { Ok(()) } else { Err(StateError::ExposedFolder { path: self.folder().to_owned(), mode }) }
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    fn former(&self) -> PathBuf {
        self.beside("1")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    fn failed(&self, action: &'static str, source: io::Error) -> StateError {
        StateError::Io { action, path: self.path.clone(), source }
    }

    fn unusable(&self, reason: String) -> StateError {
        StateError::Unusable { path: self.path.clone(), reason }
    }
}

/// A file that did not exist and that only its owner can read.
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

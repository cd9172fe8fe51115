//! The certificate of the workers' port.
//!
//! It comes from the files that the operator names, or is made at the first start and kept in the state directory. A
//! self-signed one is known by its fingerprint alone, which the worker pins; so it never expires. One protocol version:
//! TLS 1.3, whose exported keying material is what a worker's proof is tied to.

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use byteleap_daemon::file;
use byteleap_protocol::join::CertificateFingerprint;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
        version::TLS13,
    },
};

/// The self-signed certificate in the state directory.
const CERTIFICATE_FILE: &str = "workers_certificate.pem";

/// Its private key.
const KEY_FILE: &str = "workers_certificate_key.pem";

/// The name in a self-signed certificate. Nobody checks it: workers compare the fingerprint.
const SELF_SIGNED_NAME: &str = "byteleap-miner";

/// Whether the workers' port speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `ws://` only.
    Off,
    /// `ws://` and `wss://` on the same port.
    On,
    /// `wss://` only.
    Required,
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            // The bare words are booleans to YAML 1.1, and read as such where a text is expected.
            "off" | "false" => Ok(Self::Off),
            "on" | "true" => Ok(Self::On),
            "required" => Ok(Self::Required),
            _ => Err("off, on or required"),
        }
    }
}

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate and what vouches for it.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From the operator.
    Files(Files),
    /// Made by the miner, kept in this folder.
    SelfSigned(PathBuf),
}

impl Origin {
    fn files(&self) -> Files {
        match self {
            Self::Files(files) => files.clone(),
            Self::SelfSigned(folder) => {
                Files { certificate: folder.join(CERTIFICATE_FILE), key: folder.join(KEY_FILE) }
            }
        }
    }
}

/// What the port needs to speak TLS.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// By which a worker can pin it.
    pub fingerprint: CertificateFingerprint,
    /// The settings of each handshake.
    config: Arc<ServerConfig>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file of certificates is no such.
    #[error("no certificate can be read from {}: check worker_management.tls.cert", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The file of the key is no such.
    #[error("no private key can be read from {}: check worker_management.tls.key", path.display())]
    UnreadableKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The two do not fit.
    #[error("the certificate in {} and its key cannot be used together", path.display())]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A self-signed one cannot be kept.
    #[error("the certificate of the workers' port cannot be kept in {}: make the folder writable, or set state_dir", folder.display())]
    Unkept {
        /// The state directory.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A self-signed one cannot be made.
    #[error("the certificate of the workers' port cannot be made")]
    Unmade(#[from] rcgen::Error),
}

impl Certificate {
    /// Reads the certificate; makes a self-signed one first where none was kept.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn open(origin: &Origin) -> Result<Self, CertificateError> {
        if let Origin::SelfSigned(folder) = origin
            && !origin.files().certificate.exists()
        {
            make(folder)?;
        }
        Self::read(&origin.files())
    }

    /// Reads the certificate; none where a self-signed one is still to be made.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn look(origin: &Origin) -> Result<Option<Self>, CertificateError> {
        match origin {
            Origin::SelfSigned(_) if !origin.files().certificate.exists() => Ok(None),
            _ => Self::read(&origin.files()).map(Some),
        }
    }

    /// What shakes hands with it.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    fn read(files: &Files) -> Result<Self, CertificateError> {
        let unreadable = |source| CertificateError::Unreadable { path: files.certificate.clone(), source };
        let chain: Vec<_> =
            CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect).map_err(unreadable)?;
        let first = chain.first().ok_or_else(|| unreadable(pem::Error::NoItemsFound))?;
        let fingerprint = CertificateFingerprint::of(first);
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|source| CertificateError::UnreadableKey { path: files.key.clone(), source })?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain, key));
        let mut config =
            config.map_err(|source| CertificateError::Unusable { path: files.certificate.clone(), source })?;
        // A worker connects once and stays: a ticket would be two writes and a session to keep for nothing.
        config.send_tls13_tickets = 0;
        Ok(Self { fingerprint, config: Arc::new(config) })
    }
}

/// Makes a self-signed certificate. The key goes to disk first: a certificate without one would never be replaced.
fn make(folder: &Path) -> Result<(), CertificateError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new([SELF_SIGNED_NAME.to_owned()])?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, SELF_SIGNED_NAME);
    let certificate = parameters.self_signed(&key)?;
    let files = Origin::SelfSigned(folder.to_owned()).files();
    file::replace(&files.key, key.serialize_pem().as_bytes())
        .and_then(|()| file::replace(&files.certificate, certificate.pem().as_bytes()))
        .map_err(|source| CertificateError::Unkept { folder: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_self_signed_certificate_is_made_once_and_its_key_is_for_the_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = Origin::SelfSigned(folder.path().to_owned());
        assert!(Certificate::look(&origin).expect("nothing wrong").is_none());
        let made = Certificate::open(&origin).expect("made").fingerprint;
        assert_eq!(Certificate::open(&origin).expect("kept").fingerprint, made);
        assert_eq!(Certificate::look(&origin).expect("kept").expect("there").fingerprint, made);
        let mode = fs::metadata(folder.path().join(KEY_FILE)).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().expect("a folder");
        let other = Certificate::open(&Origin::SelfSigned(other.path().to_owned())).expect("made");
        assert_ne!(other.fingerprint, made);
    }

    #[test]
    fn files_that_are_no_certificate_no_key_or_no_pair_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let mine = Origin::SelfSigned(folder.path().to_owned());
        Certificate::open(&mine).expect("made");
        let mine = mine.files();
        let other = tempfile::tempdir().expect("a folder");
        Certificate::open(&Origin::SelfSigned(other.path().to_owned())).expect("made");
        let other = Origin::SelfSigned(other.path().to_owned()).files();
        let error = |certificate: &Path, key: &Path| {
            let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
            Certificate::open(&Origin::Files(files)).expect_err("a wrong file").to_string()
        };
        assert!(error(&mine.key, &mine.key).contains("tls.cert"));
        assert!(error(Path::new("/nowhere"), &mine.key).contains("tls.cert"));
        assert!(error(&mine.certificate, &mine.certificate).contains("tls.key"));
        assert!(error(&mine.certificate, &other.key).contains("together"));
        assert!(Certificate::open(&Origin::Files(mine)).is_ok());
    }
}

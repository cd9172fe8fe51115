//! By what a worker knows its miner on a `wss://` link: exactly one certificate where `miner_fingerprint` is set, else
//! the authorities of this machine and the miner's name.
//!
//! A pinned certificate is compared as a whole, so neither its name nor its dates matter; that the peer holds its private
//! key is verified all the same. TLS 1.3 only, as at the miner.

use std::sync::Arc;

use byteleap_protocol::join::CertificateFingerprint;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

/// The miner showed another certificate than the pinned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is {found}, expected is {expected}")]
pub struct WrongFingerprint {
    /// The key `miner_fingerprint`.
    pub expected: CertificateFingerprint,
    /// What the miner showed.
    pub found: CertificateFingerprint,
}

/// What shakes hands with a miner.
///
/// # Errors
/// None in practice: ring speaks TLS 1.3.
pub fn connector(pinned: Option<CertificateFingerprint>) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let config = match pinned {
        Some(expected) => {
            let verifier = Arc::new(Pinned { expected, provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pinned {
    expected: CertificateFingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = CertificateFingerprint::of(certificate);
        if found == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = WrongFingerprint { expected: self.expected, found };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(wrong)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Which certificates were compared, if the handshake failed over a pin.
#[must_use]
pub fn wrong_fingerprint(error: &Error) -> Option<WrongFingerprint> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => error.downcast_ref().copied(),
        _ => None,
    }
}

/// What an operator does about a failed TLS handshake.
#[must_use]
pub fn advice(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the miner's certificate has expired: renew it there, or check this machine's clock; with miner_fingerprint set \
             to what byteleap-miner status shows, its dates do not matter"
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the miner's certificate is not valid yet: check the clocks of both machines; with miner_fingerprint set to what \
             byteleap-miner status shows, its dates do not matter"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "the miner's certificate is for another name: dial that name, or set miner_fingerprint to what byteleap-miner \
             status shows"
        }
        Error::InvalidCertificate(_) => {
            "no authority that this machine trusts vouches for the miner's certificate: set miner_fingerprint to what \
             byteleap-miner status shows, or join with a token of its"
        }
        Error::InvalidMessage(_) => {
            "the port does not speak TLS: dial ws:// instead, or set worker_management.tls.mode there"
        }
        _ => "no TLS connection could be made; check that the miner's worker_management.tls.mode is on",
    }
}

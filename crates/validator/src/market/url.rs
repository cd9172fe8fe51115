//! Where the marketplace listens: the key `meshhub.ws_url`, checked when it is read.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use tokio_tungstenite::tungstenite::http::Uri;

/// A `ws://` or `wss://` address; the path is kept as it is given. Cheap to clone, for errors that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubUrl(Arc<Parts>);

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

/// A text that is no address of a marketplace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wss://host:port/path, or ws:// to this machine; without a user's name in it")]
pub struct HubUrlError;

impl FromStr for HubUrl {
    type Err = HubUrlError;

    fn from_str(text: &str) -> Result<Self, HubUrlError> {
        let uri: Uri = text.trim().parse().map_err(|_| HubUrlError)?;
        let is_tls = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            _ => return Err(HubUrlError),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(HubUrlError)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(HubUrlError);
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self(Arc::new(Parts { host, port, is_tls, uri })))
    }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.uri.fmt(out)
    }
}

impl HubUrl {
    /// As it stands in the request.
    pub fn uri(&self) -> &Uri {
        &self.0.uri
    }

    /// Name or address.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Whether the way is encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.is_tls
    }

    /// Whether nobody on the way can listen: it is encrypted, or does not leave this machine.
    pub fn is_safe(&self) -> bool {
        let host = self.host();
        self.is_tls() || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_safe_on_this_machine_only() {
        for (text, host, port, safe) in [
            ("wss://hub.example/ws", "hub.example", 443, true),
            ("ws://hub.example:8000/ws?x=1", "hub.example", 8000, false),
            ("ws://127.0.0.1:26551", "127.0.0.1", 26551, true),
            ("ws://[::1]/", "::1", 80, true),
            ("ws://localhost/", "localhost", 80, true),
            ("ws://localhost.example/", "localhost.example", 80, false),
        ] {
            let url: HubUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.is_safe()), (host, port, safe), "{text}");
        }
        for text in ["", "hub.example", "https://hub.example", "wss://me:secret@hub.example", "wss://"] {
            assert!(text.parse::<HubUrl>().is_err(), "{text}");
        }
    }
}

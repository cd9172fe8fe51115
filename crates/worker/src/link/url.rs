//! Where the miner listens: the key `miner_url`, checked when it is read.

use std::fmt;
use std::str::FromStr;

use tokio_tungstenite::tungstenite::http::Uri;

/// Port of a miner's worker listener unless its operator changed it.
pub const MINER_PORT: u16 = 7799;

/// Port of a `ws://` URL that names none.
const WS_PORT: u16 = 80;

/// Port of a `wss://` URL that names none.
const WSS_PORT: u16 = 443;

/// A `ws://` or `wss://` URL with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinerUrl {
    uri: Uri,
    host: String,
    port: Option<u16>,
    is_tls: bool,
}

impl MinerUrl {
    /// The URL as the WebSocket request carries it.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Name or address of the miner's host, brackets removed.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port to dial: 80 or, with TLS, 443 where the URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.is_tls { WSS_PORT } else { WS_PORT })
    }

    /// Whether it is a `wss://` URL.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether the URL names its port.
    #[must_use]
    pub fn names_port(&self) -> bool {
        self.port.is_some()
    }
}

impl fmt::Display for MinerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(out)
    }
}

/// Why a text is no miner's URL, with the URL that was probably meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ws://<host>:<port> or wss://<host>:<port>, probably {example}: {problem}")]
pub struct MinerUrlError {
    problem: &'static str,
    example: String,
}

impl FromStr for MinerUrl {
    type Err = MinerUrlError;

    fn from_str(text: &str) -> Result<Self, MinerUrlError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let problem = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "wss" => None,
            "http" | "https" => Some("the miner speaks WebSocket"),
            "" => Some("the scheme is missing"),
            _ => Some("the scheme must be ws or wss"),
        };
        let is_tls = scheme.eq_ignore_ascii_case("wss");
        let scheme = if is_tls { "wss" } else { "ws" };
        let example = example(scheme, rest);
        let failed = |problem| MinerUrlError { problem, example: example.clone() };
        if let Some(problem) = problem {
            return Err(failed(problem));
        }
        let uri: Uri = format!("{scheme}://{rest}").parse().map_err(|_| failed("this is no URL"))?;
        let authority = uri.authority().ok_or_else(|| failed("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(failed("a miner asks for no user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(failed("the host is missing"));
        }
        let named_port = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let port = match (uri.port_u16(), named_port) {
            (Some(0), _) | (None, Some(_)) => return Err(failed("the port must be from 1 to 65535")),
            (port, _) => port,
        };
        Ok(Self { host, port, uri, is_tls })
    }
}

/// What was probably meant, from what follows the scheme.
fn example(scheme: &str, rest: &str) -> String {
    let authority = rest.split(['/', '?', ' ']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port.parse::<u16>().ok().filter(|port| *port > 0)),
        _ => (authority, None),
    };
    let host = if host.is_empty() { "<miner's host>" } else { host };
    format!("{scheme}://{host}:{}", port.unwrap_or(MINER_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_perhaps_port_and_path() {
        let url: MinerUrl = " ws://203.0.113.7:8080/ws?x=1 ".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.names_port()), ("203.0.113.7", 8080, true));
        assert_eq!(url.to_string(), "ws://203.0.113.7:8080/ws?x=1");
        let url: MinerUrl = "WS://miner.example".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.names_port()), ("miner.example", 80, false));
        let url: MinerUrl = "ws://[2001:db8::7]:7799".parse().unwrap();
        assert_eq!((url.host(), url.port()), ("2001:db8::7", 7799));
        let url: MinerUrl = "WSS://miner.example".parse().unwrap();
        assert_eq!((url.port(), url.is_tls(), url.to_string().as_str()), (443, true, "wss://miner.example/"));
        let url: MinerUrl = "ws://[::1]/".parse().unwrap();
        assert_eq!((url.host(), url.names_port()), ("::1", false));
    }

    #[test]
    fn a_wrong_url_is_answered_with_what_to_write() {
        for (wrong, (problem, example)) in [
            ("203.0.113.7:7799", ("the scheme is missing", "ws://203.0.113.7:7799")),
            ("203.0.113.7", ("the scheme is missing", "ws://203.0.113.7:7799")),
            ("http://203.0.113.7:7799/", ("the miner speaks WebSocket", "ws://203.0.113.7:7799")),
            ("wss://miner.example:0", ("the port must be from 1 to 65535", "wss://miner.example:7799")),
            ("tcp://miner.example:1", ("the scheme must be ws or wss", "ws://miner.example:1")),
            ("ws://", ("this is no URL", "ws://<miner's host>:7799")),
            ("ws://:7799", ("the host is missing", "ws://<miner's host>:7799")),
            ("ws://miner.example:0", ("the port must be from 1 to 65535", "ws://miner.example:7799")),
            ("ws://miner.example:70000", ("the port must be from 1 to 65535", "ws://miner.example:7799")),
            ("ws://miner.example:", ("the port must be from 1 to 65535", "ws://miner.example:7799")),
            ("ws://me:secret@miner.example:7799", ("a miner asks for no user name", "ws://miner.example:7799")),
            ("ws://miner example:7799", ("this is no URL", "ws://miner:7799")),
        ] {
            let told = format!("ws://<host>:<port> or wss://<host>:<port>, probably {example}: {problem}");
            assert_eq!(wrong.parse::<MinerUrl>().unwrap_err().to_string(), told, "{wrong}");
        }
    }
}

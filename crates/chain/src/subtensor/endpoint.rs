//! Where a node is: network names and URLs, and which of them are safe to use (chain spec 4.5).

use std::env;

use subxt::rpcs::utils::url_is_secure;

/// Network names as in the official tools.
const NETWORKS: [(&str, &str); 3] = [
    ("finney", "wss://entrypoint-finney.opentensor.ai:443"),
    ("test", "wss://test.finney.opentensor.ai:443"),
    ("archive", "wss://archive.chain.opentensor.ai:443"),
];

/// Environment variable that moves the network `local` elsewhere.
const LOCAL_ENDPOINT: &str = "BT_SUBTENSOR_CHAIN_ENDPOINT";

/// Where the network `local` is otherwise.
const LOCAL_URL: &str = "ws://127.0.0.1:9944";

/// A configured network that names no usable endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a known name nor a URL.
    #[error("unknown network {0:?}: use finney, test, archive, local, or a URL as wss://host:port")]
    UnknownNetwork(String),
    /// A text with a scheme that is no WebSocket URL.
    #[error("{0} is no WebSocket URL: write wss://host:port, or ws:// for this machine")]
    BadUrl(String),
    /// Plain text to another machine.
    #[error("{0} is not encrypted and not on this machine: use wss://, or set allow_insecure")]
    Insecure(String),
    /// No endpoint at all.
    #[error("no network is configured")]
    NoNetwork,
}

/// The URL behind a network name or URL. `ws://` is accepted for loopback only, unless `allow_insecure`.
///
/// # Errors
/// [`EndpointError`] for an unknown name, a malformed or an insecure URL.
pub fn resolve(network: &str, allow_insecure: bool) -> Result<String, EndpointError> {
    let url = match NETWORKS.iter().find(|(name, _)| *name == network) {
        Some((_, url)) => (*url).to_owned(),
        None if network == "local" => env::var(LOCAL_ENDPOINT).unwrap_or_else(|_| LOCAL_URL.to_owned()),
        None if network.contains("://") => network.to_owned(),
        None => return Err(EndpointError::UnknownNetwork(network.to_owned())),
    };
    if !(url.starts_with("wss://") || url.starts_with("ws://")) {
        return Err(EndpointError::BadUrl(shown(&url)));
    }
    match url_is_secure(&url) {
        Err(_) => Err(EndpointError::BadUrl(shown(&url))),
        Ok(false) if !allow_insecure => Err(EndpointError::Insecure(shown(&url))),
        Ok(_) => Ok(url),
    }
}

/// What logs and errors show of a URL: scheme, host and port. User parts, paths and queries carry access keys.
pub(super) fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_official_tools() {
        assert_eq!(resolve("finney", false).unwrap(), "wss://entrypoint-finney.opentensor.ai:443");
        assert_eq!(resolve("test", false).unwrap(), "wss://test.finney.opentensor.ai:443");
        assert_eq!(resolve("archive", false).unwrap(), "wss://archive.chain.opentensor.ai:443");
        assert!(matches!(resolve("mainnet", false), Err(EndpointError::UnknownNetwork(_))));
    }

    #[test]
    fn a_url_is_taken_as_it_is() {
        for url in ["wss://node.example:9944", "ws://127.0.0.1:1", "ws://localhost:9944", "ws://[::1]:9944"] {
            assert_eq!(resolve(url, false).unwrap(), url);
        }
    }

    #[test]
    fn plain_text_leaves_this_machine_only_when_allowed() {
        let url = "ws://node.example:9944";
        assert_eq!(resolve(url, false), Err(EndpointError::Insecure(url.to_owned())));
        assert_eq!(resolve(url, true).unwrap(), url);
    }

    #[test]
    fn other_schemes_are_refused() {
        for url in ["http://127.0.0.1:9944", "ws://", "ftp://node"] {
            assert!(matches!(resolve(url, true), Err(EndpointError::BadUrl(_))), "{url}");
        }
    }

    #[test]
    fn access_keys_in_a_url_are_never_shown() {
        let url = "ws://user:key@node.example:9944/key?key=key#key";
        assert_eq!(resolve(url, false), Err(EndpointError::Insecure("ws://node.example:9944".to_owned())));
        assert_eq!(shown(url), "ws://node.example:9944");
    }
}

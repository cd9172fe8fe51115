//! The validator's side of the marketplace, MeshHub (validator spec, chapter 7): who rents which worker comes in, who
//! serves and what it was worth goes out.
//!
//! [`link`] keeps one connection: it dials ([`dial`], [`url`]), shakes hands, checks who answers, and serves the session.
//! What comes in goes to [`orders`] (leases, configuration by [`remote`], tasks); what goes out is made by [`resources`] and
//! [`scores`] from the store, so that an outage or a restart loses nothing: a new session begins with a full report, and a
//! round is told again until the marketplace has read it. [`tokens`] fetches enrolment tokens for miners; [`lease`] watches
//! how old leases grow and ends those that nobody repeats; [`status`] is what operators see of all this.

pub mod dial;
pub mod lease;
pub mod link;
pub mod orders;
pub mod remote;
pub mod resources;
pub mod scores;
pub mod status;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod url;

use std::str::FromStr;
use std::time::Duration;

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::meshhub::handshake::AccessToken;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::url::HubUrl;

/// How the store names what the marketplace said of a lease.
pub const SOURCE: &str = "meshhub";

/// How to reach and treat the marketplace.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Where it is.
    pub url: HubUrl,
    /// Whether it may be spoken to in plain text across machines.
    pub allow_insecure: bool,
    /// Our login.
    pub token: AccessToken,
    /// What we say that we can do.
    pub capabilities: Vec<String>,
    /// Who it has to be; none: whoever it was at first use.
    pub server: Option<Hotkey>,
    /// Longest pause between attempts.
    pub longest_pause: Duration,
    /// Pause between heartbeats.
    pub heartbeat: Duration,
    /// Pause between reports of resources.
    pub resources: Duration,
    /// What becomes of the leases that it publishes.
    pub leases: LeaseRules,
}

/// What becomes of the leases that the marketplace publishes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeaseRules {
    /// Whether they count at all.
    pub taken: bool,
    /// Whether a message is the whole list, so that a worker that it does not name is not leased.
    pub snapshot: bool,
    /// A score above this is refused; none: any finite one counts.
    pub max_score: Option<f64>,
}

/// From whom leases are taken: the key `leases.source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseSource {
    /// The marketplace alone.
    MeshHub,
    /// Our own API alone.
    Api,
    /// Either: the latest word counts.
    Both,
}

/// A text that names no [`LeaseSource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("meshhub, api or both")]
pub struct UnknownLeaseSource;

impl FromStr for LeaseSource {
    type Err = UnknownLeaseSource;

    fn from_str(text: &str) -> Result<Self, UnknownLeaseSource> {
        match text {
            "meshhub" => Ok(Self::MeshHub),
            "api" => Ok(Self::Api),
            "both" => Ok(Self::Both),
            _ => Err(UnknownLeaseSource),
        }
    }
}

impl LeaseSource {
    /// Whether the marketplace's leases count.
    pub fn takes_meshhub(self) -> bool {
        self != Self::Api
    }

    /// Whether leases that come in by our own API count.
    pub fn takes_api(self) -> bool {
        self != Self::MeshHub
    }
}

impl HubSettings {
    /// Why this marketplace is not dialled: what to write if it is meant.
    pub fn refusal(&self) -> Option<String> {
        let is_refused = !self.url.is_safe() && !self.allow_insecure;
        is_refused.then(|| {
            format!(
                "meshhub.ws_url is {}: everything on the way to it would see the access token and could set leases; use \
                 wss://, or write\n  meshhub.allow_insecure: true\nif it is meant",
                self.url
            )
        })
    }
}

/// An instant on the marketplace's wire: ISO 8601 with Z.
fn iso(at_ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

//! The marketplace, as far as this version needs one: it grants a lease.
//!
//! The marketplace's own wire comes later. Until then a lease reaches the validator by the loopback route that its admin
//! endpoint has for development, `POST /leases` with `{"hotkey", "worker_id", "score"}`.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use byteleap_chain::Hotkey;
use serde_json::json;

/// How long the validator may take to record a lease.
const DEADLINE: Duration = Duration::from_secs(10);

/// The worker that a lease is for, written `HOTKEY:WORKER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its id with that miner.
    pub worker_id: String,
}

/// Why a lease was not granted.
#[derive(Debug, thiserror::Error)]
pub enum MarketError {
    /// The validator cannot be asked.
    #[error("the validator's admin endpoint {0} does not answer: does the network run?")]
    Unreachable(SocketAddr, #[source] reqwest::Error),
    /// It refused.
    #[error("the validator answered {status}: {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
}

impl FromStr for Leased {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hotkey, worker_id) =
            text.split_once(':').filter(|(_, worker)| !worker.is_empty()).ok_or("write HOTKEY:WORKER")?;
        let hotkey = hotkey.parse().map_err(|error| format!("{hotkey} is no hotkey: {error}"))?;
        Ok(Self { hotkey, worker_id: worker_id.to_owned() })
    }
}

/// Records a lease with the running validator; a score of 0 ends it.
///
/// # Errors
///
/// The validator does not answer, or refuses.
pub async fn lease(validator_admin: SocketAddr, leased: &Leased, score: f64) -> Result<(), MarketError> {
    let unreachable = |error| MarketError::Unreachable(validator_admin, error);
    let body = json!({ "hotkey": leased.hotkey, "worker_id": leased.worker_id, "score": score });
    let response = reqwest::Client::new()
        .post(format!("http://{validator_admin}/leases"))
        .header("content-type", "application/json")
        .body(body.to_string())
        .timeout(DEADLINE)
        .send()
        .await
        .map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let text = response.text().await.map_err(unreachable)?;
    Err(MarketError::Refused { status: status.as_u16(), text: text.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_names_a_hotkey_and_a_worker() {
        let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
        let leased: Leased = format!("{alice}:worker-1").parse().unwrap();
        assert_eq!((leased.hotkey.to_string().as_str(), leased.worker_id.as_str()), (alice, "worker-1"));
        for text in ["", "worker-1", &format!("{alice}:"), "5nonsense:worker-1"] {
            assert!(text.parse::<Leased>().is_err(), "{text}");
        }
    }
}

//! The marketplace of the local network: the server's side of MeshHub's wire, and the commands that play it.
//!
//! [`Marketplace`] listens for validators; what it holds lies in its [`book`] and outlives it, one [`talk`] is one session
//! with a validator. It is told what to do over loopback ([`server`]), by the functions here: grant, change and end leases,
//! issue tokens, set keys, publish tasks, go down and come back, and [`Misbehaviour`].

pub mod book;
mod server;
mod talk;

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use byteleap_protocol::meshhub::MeshWorker;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::server::{Marketplace, Options, ServeError};

/// The login of the local network's validator.
pub const ACCESS_TOKEN: &str = "localnet";
/// How long the marketplace may take for a command.
const DEADLINE: Duration = Duration::from_secs(10);

/// A way in which a marketplace can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Misbehaviour {
    /// Well again.
    None,
    /// Speaks with another key from the next session on, and ends the present ones.
    WrongKey,
    /// States its own key and does not prove it, as above.
    Unsigned,
    /// Says its leases twice under one number.
    Replay,
    /// Says them under a number that is far too high.
    BadSequence,
    /// Says them under another type than the sealed one.
    WrongType,
    /// Leases every worker for infinity.
    InfiniteScore,
    /// Leases every worker for less than nothing.
    NegativeScore,
    /// Leases a worker that nobody has heard of.
    UnknownWorker,
    /// Says what is no message.
    Malformed,
    /// Says and reads nothing, and keeps its connections open.
    Silence,
}

/// A name of no [`Misbehaviour`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "one of none, wrong-key, unsigned, replay, bad-sequence, wrong-type, infinite-score, negative-score, unknown-worker, \
     malformed, silence"
)]
pub struct UnknownMisbehaviour;

impl FromStr for Misbehaviour {
    type Err = UnknownMisbehaviour;

    fn from_str(text: &str) -> Result<Self, UnknownMisbehaviour> {
        serde_json::from_value(json!(text)).map_err(|_| UnknownMisbehaviour)
    }
}

/// What the marketplace answers to whoever asks for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenPolicy {
    /// A token.
    #[default]
    Issue,
    /// Ask again.
    Pending,
    /// None.
    Refuse,
}

impl FromStr for TokenPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        serde_json::from_value(json!(text)).map_err(|_| "one of issue, pending, refuse".to_owned())
    }
}

/// Something that the marketplace is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Leases a worker; 0 ends the lease.
    Lease {
        /// The worker.
        worker: MeshWorker,
        /// What the lease is worth.
        score: f64,
    },
    /// Forgets a lease without a word, so that nobody repeats it.
    Forget {
        /// The worker.
        worker: MeshWorker,
    },
    /// Answers requests for tokens otherwise.
    Tokens(TokenPolicy),
    /// Sets keys of the validator: sections as in its file.
    Config(Value),
    /// Publishes a task.
    Task(Value),
    /// Misbehaves.
    Misbehave(Misbehaviour),
    /// Ends every session and listens no more, as if it had been killed.
    Down,
    /// Listens again.
    Up,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum MarketError {
    /// The marketplace cannot be asked.
    #[error("the marketplace on {0} does not answer: does the network run?")]
    Unreachable(SocketAddr, #[source] reqwest::Error),
    /// It refused.
    #[error("the marketplace answered {status}: {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
}

/// Has the marketplace whose control listens on `control` do something.
///
/// # Errors
///
/// It does not answer, or refuses.
pub async fn tell(control: SocketAddr, command: &Command) -> Result<(), MarketError> {
    let request = reqwest::Client::new()
        .post(format!("http://{control}/commands"))
        .header("content-type", "application/json")
        .body(json!(command).to_string());
    ask(control, request).await.map(drop)
}

/// What the marketplace holds and has heard, as JSON.
///
/// # Errors
///
/// It does not answer.
pub async fn look(control: SocketAddr) -> Result<Value, MarketError> {
    let text = ask(control, reqwest::Client::new().get(format!("http://{control}/status"))).await?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

async fn ask(control: SocketAddr, request: reqwest::RequestBuilder) -> Result<String, MarketError> {
    let unreachable = |error| MarketError::Unreachable(control, error);
    let response = request.timeout(DEADLINE).send().await.map_err(unreachable)?;
    let status = response.status();
    let text = response.text().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(text);
    }
    Err(MarketError::Refused { status: status.as_u16(), text: text.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misbehaviour_has_a_name_and_every_other_name_is_told_which_there_are() {
        assert_eq!("wrong-key".parse(), Ok(Misbehaviour::WrongKey));
        assert!("rude".parse::<Misbehaviour>().unwrap_err().to_string().contains("infinite-score"));
        assert_eq!("pending".parse(), Ok(TokenPolicy::Pending));
    }

    #[test]
    fn a_command_survives_the_way_to_the_marketplace() {
        let worker: MeshWorker = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY:worker-1".parse().unwrap();
        for command in [
            Command::Lease { worker, score: 0.5 },
            Command::Tokens(TokenPolicy::Refuse),
            Command::Config(json!({ "validation": { "challenge_interval": 30 } })),
            Command::Misbehave(Misbehaviour::Silence),
            Command::Down,
        ] {
            let text = json!(command).to_string();
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command, "{text}");
        }
    }
}

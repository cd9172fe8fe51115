//! The validator side: whom the miner works for, and how it talks to them.
//!
//! [`select`] filters the metagraph, [`Validators`] keeps the result fresh, and [`Validator`] is one of them with its
//! five calls. Below a call: `session` holds the keys, `pace` and `backoff` say when, `dendrite` sends signed HTTP,
//! `blacklist` remembers who does not answer.

mod backoff;
mod blacklist;
mod dendrite;
mod pace;
pub mod select;
mod session;
mod validator;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use byteleap_chain::{Chain, ChainError};
use byteleap_daemon::clock::Clock;
use byteleap_protocol::hotkey::{Hotkey, Signer};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    blacklist::Blacklist,
    validator::{CallError, Validator},
};
use self::{
    dendrite::Dendrite,
    select::{Axon, Policy},
};

/// Pause after a refresh that failed.
const REFRESH_PAUSE: Duration = Duration::from_secs(10);

/// The validators in use, as a cheap handle.
#[derive(Clone)]
pub struct Validators(Arc<Shared>);

struct Shared {
    chain: Arc<dyn Chain>,
    netuid: u16,
    policy: Policy,
    own: Hotkey,
    blacklist: Arc<Blacklist>,
    dendrite: Arc<Dendrite>,
    current: Mutex<Vec<Arc<Validator>>>,
    trouble: Mutex<Option<String>>,
}

impl Validators {
    pub(crate) fn new(
        chain: Arc<dyn Chain>,
        netuid: u16,
        policy: Policy,
        blacklist: Blacklist,
        signer: Arc<dyn Signer>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self(Arc::new(Shared {
            chain,
            netuid,
            policy,
            own: signer.hotkey(),
            blacklist: Arc::new(blacklist),
            dendrite: Arc::new(Dendrite::new(signer, clock)?),
            current: Mutex::default(),
            trouble: Mutex::default(),
        })))
    }

    /// The validators to work for now, in the order of their uids.
    #[must_use]
    pub(crate) fn current(&self) -> Vec<Arc<Validator>> {
        self.lock().clone()
    }

    /// Why no validator may give work, as of the last look at the metagraph, for people; none where one may.
    #[must_use]
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the metagraph anew. A validator whose hotkey and address stay the same keeps its session.
    pub(crate) async fn refresh(&self) -> Result<(), ChainError> {
        let shared = &*self.0;
        let metagraph = shared.chain.metagraph(shared.netuid).await?;
        let now = Instant::now();
        let chosen = select::select(&metagraph, &shared.policy, &shared.own, |_| false);
        let (set_aside, axons): (Vec<_>, Vec<_>) =
            chosen.into_iter().partition(|axon| shared.blacklist.lists(&axon.address, now));
        let mut current = self.lock();
        let next: Vec<_> = axons
            .into_iter()
            .map(|axon| match current.iter().find(|validator| validator.axon() == axon) {
                Some(known) => Arc::clone(known),
                None => {
                    tracing::info!(validator = %axon.hotkey, address = %axon.address, "validator in use");
                    Arc::new(Validator::new(axon, Arc::clone(&shared.dendrite), Arc::clone(&shared.blacklist)))
                }
            })
            .collect();
        for gone in current.iter().filter(|old| !next.iter().any(|new| new.axon() == old.axon())) {
            tracing::info!(validator = %gone.hotkey(), address = %gone.axon().address, "validator no longer in use");
        }
        let trouble = if metagraph.by_hotkey(&shared.own).is_none() {
            Some(format!(
                "hotkey {} is no longer registered on subnet {}, so that validators refuse it: register it (btcli subnet \
                 register --netuid {})",
                shared.own, shared.netuid, shared.netuid
            ))
        } else {
            next.is_empty().then(|| nobody(&set_aside))
        };
        if let Some(trouble) = &trouble {
            tracing::warn!("{trouble}");
        }
        metrics::gauge!("validators_in_use").set(next.len() as f64);
        metrics::gauge!("validators_set_aside").set(set_aside.len() as f64);
        *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        *current = next;
        Ok(())
    }

    /// Refreshes every `interval` until `stop`.
    pub(crate) async fn keep_fresh(self, interval: Duration, stop: CancellationToken) {
        let mut pause = interval;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.refresh().await {
                Ok(()) => interval,
                Err(error) => {
                    tracing::warn!(%error, "the validator list could not be refreshed; the old one stays in use");
                    REFRESH_PAUSE.min(interval)
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Validator>>> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no validator to work for, of those that are chosen and do not answer.
fn nobody(set_aside: &[Axon]) -> String {
    let Some(first) = set_aside.first() else {
        return "no validator is in use: none has the permit, the stake of metagraph.validator_min_stake_tao and an \
                address, and none is in metagraph.validator_whitelist"
            .to_owned();
    };
    format!(
        "no validator is in use: {} did not answer, {} at {} among them, and are tried again within \
         metagraph.blacklist.ttl_seconds; is this machine's network up?",
        set_aside.len(),
        first.hotkey,
        first.address
    )
}

impl std::fmt::Debug for Validators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.lock().iter().map(|validator| validator.axon())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validators_that_do_not_answer_are_told_from_validators_that_nobody_has_chosen() {
        assert!(nobody(&[]).contains("metagraph.validator_whitelist"));
        let silent = Axon { hotkey: Hotkey([2; 32]), address: "192.0.2.1:9091".parse().expect("an address") };
        let told = nobody(&[silent]);
        assert!(told.contains("1 did not answer") && told.contains("192.0.2.1:9091"), "{told}");
    }
}

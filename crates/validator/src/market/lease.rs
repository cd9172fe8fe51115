//! How old leases grow: metrics of their age, the end of those that nobody repeats, and what a person is told of a miner's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::clock::Clock;
use byteleap_daemon::live::Live;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// From which age on a lease is stale, and from which it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// `meshhub.lease_stale_after`.
    pub stale_after: Duration,
    /// `meshhub.lease_expire_after`; none: never.
    pub expire_after: Option<Duration>,
}

/// Looks until `stop`.
pub async fn watch(store: Store, ages: Live<Ages>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        if let Err(error) = look(&store, *ages.get(), clock.unix_ms()).await {
            tracing::warn!(%error, "leases were not looked at: tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Looks once: ends what is overdue, and counts.
///
/// # Errors
/// The store does not answer.
pub async fn look(store: &Store, ages: Ages, now_ms: i64) -> Result<(), StoreError> {
    if let Some(expire_after) = ages.expire_after {
        for lease in store.expire_leases(now_ms - ms(expire_after), now_ms).await? {
            metrics::counter!("leases_expired_total").increment(1);
            tracing::warn!(
                peer = %lease.hotkey,
                worker_id = %lease.worker_id,
                score = lease.score,
                "lease ended: nobody repeated it (meshhub.lease_expire_after)"
            );
        }
    }
    let counted = store.lease_ages().await?;
    let age_ms = counted.oldest_at_ms.map_or(0, |at_ms| (now_ms - at_ms).max(0));
    metrics::gauge!("leases_active").set(counted.active as f64);
    metrics::gauge!("leases_oldest_age_seconds").set(age_ms as f64 / 1000.0);
    metrics::gauge!("leases_stale").set(store.stale_leases(now_ms - ms(ages.stale_after)).await? as f64);
    Ok(())
}

/// What became of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It counts.
    Fresh,
    /// It counts, but nobody has repeated it for long.
    Stale,
    /// It ended because nobody repeated it.
    Expired,
    /// It was ended.
    Ended,
}

/// The lease of one worker, as a person is told of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToldLease {
    /// The worker.
    pub worker_id: WorkerId,
    /// What it is worth now.
    pub score: f64,
    /// What it was worth before its last change; none when it never changed.
    pub before: Option<f64>,
    /// Who said so.
    pub source: String,
    /// Since it was last said, ms.
    pub age_ms: i64,
    /// What became of it.
    pub standing: Standing,
}

/// The leases of a miner's workers now.
///
/// # Errors
/// The store does not answer.
pub async fn told(store: &Store, hotkey: Hotkey, ages: Ages, now_ms: i64) -> Result<Vec<ToldLease>, StoreError> {
    let mut told = Vec::new();
    for lease in store.leases_of(hotkey).await? {
        let age_ms = now_ms - lease.received_at_ms;
        let standing = if lease.expired_at_ms.is_some() {
            Standing::Expired
        } else if lease.score <= 0.0 {
            Standing::Ended
        } else if age_ms > ms(ages.stale_after) {
            Standing::Stale
        } else {
            Standing::Fresh
        };
        let before = store.lease_before(hotkey, &lease.worker_id).await?;
        let (worker_id, score, source) = (lease.worker_id, lease.score, lease.source);
        told.push(ToldLease { worker_id, score, before, source, age_ms, standing });
    }
    Ok(told)
}

impl fmt::Display for ToldLease {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker_id, score, source, .. } = self;
        let (age_s, before) = (self.age_ms / 1000, self.before.unwrap_or(0.0));
        match self.standing {
            Standing::Fresh => write!(out, "lease of {worker_id}: {score}, by {source} {age_s} s ago"),
            Standing::Stale => {
                write!(out, "lease of {worker_id}: {score}, stale: {source} has not repeated it for {age_s} s")
            }
            Standing::Expired => {
                write!(out, "lease of {worker_id}: expired: {source} has not repeated its {before} for {age_s} s")
            }
            Standing::Ended => write!(out, "lease of {worker_id}: none, ended by {source} {age_s} s ago"),
        }
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lease::LeaseScore;
    use crate::store::testing::{on_both_engines, store};

    async fn a_lease_is_fresh_then_stale_then_expired_and_a_person_is_told() {
        let (store, miner, worker) = (store().await, Hotkey([7; 32]), "w".parse().unwrap());
        let ages = Ages { stale_after: Duration::from_secs(30), expire_after: Some(Duration::from_secs(60)) };
        store.set_lease(miner, &worker, LeaseScore::new(0.8).unwrap(), super::super::SOURCE, 0).await.unwrap();
        for (now_ms, standing, text) in [
            (30_000, Standing::Fresh, "lease of w: 0.8, by meshhub 30 s ago"),
            (60_000, Standing::Stale, "lease of w: 0.8, stale: meshhub has not repeated it for 60 s"),
            (60_001, Standing::Expired, "lease of w: expired: meshhub has not repeated its 0.8 for 60 s"),
        ] {
            look(&store, ages, now_ms).await.unwrap();
            let told = told(&store, miner, ages, now_ms).await.unwrap().remove(0);
            assert_eq!((told.standing, told.to_string().as_str()), (standing, text));
        }
        store.set_lease(miner, &worker, LeaseScore::NONE, super::super::SOURCE, 70_000).await.unwrap();
        let told = told(&store, miner, ages, 71_000).await.unwrap().remove(0);
        assert_eq!(told.to_string(), "lease of w: none, ended by meshhub 1 s ago");
    }

    async fn without_a_limit_a_lease_grows_stale_and_still_counts() {
        let (store, miner) = (store().await, Hotkey([7; 32]));
        let ages = Ages { stale_after: Duration::from_secs(1), expire_after: None };
        store.set_lease(miner, &"w".parse().unwrap(), LeaseScore::new(1.0).unwrap(), "api", 0).await.unwrap();
        look(&store, ages, i64::MAX / 2).await.unwrap();
        assert_eq!(store.leases().await.unwrap()[0].score, 1.0);
    }

    on_both_engines!(
        a_lease_is_fresh_then_stale_then_expired_and_a_person_is_told,
        without_a_limit_a_lease_grows_stale_and_still_counts,
    );
}

//! The challenges under way, on disk: a miner that was killed takes each up again where it was.
//!
//! A page is written when a challenge has its worker and again when the validator has named what to open, each time before
//! the next step; it is torn out when the challenge has ended. What was lost between two writings is done once more, which
//! neither a validator nor a worker takes amiss.

use std::{path::Path, sync::Arc, time::Duration};

use byteleap_daemon::{
    journal::{Journal, JournalError},
    tasks::chain,
};
use byteleap_protocol::{challenge::ChallengeItem, hotkey::Hotkey, id::WorkerId, payload::ProofRequest};
use serde::{Deserialize, Serialize};

use crate::workers::registry::Owner;

/// How long a page can matter: the longest challenge, the time for its proof, and some more.
const TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// Pages of one miner; more than challenges can be under way.
const CAPACITY: usize = 2048;

/// One challenge under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Page {
    /// As it came.
    pub(crate) item: ChallengeItem,
    /// Who handed it out.
    pub(crate) validator: Hotkey,
    /// Who computes it.
    pub(crate) worker_id: WorkerId,
    /// Whose result is taken: a name alone proves nothing to the next process either.
    pub(crate) owner: Owner,
    /// When it came, in milliseconds since 1970.
    pub(crate) received_at_ms: i64,
    /// What the validator answered to the commitment.
    pub(crate) committed: Option<Committed>,
}

/// A commitment that the validator has taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Committed {
    /// When its answer came, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// What is to be opened.
    pub(crate) requests: Vec<ProofRequest>,
}

/// The pages, as a cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logbook(Option<Arc<Journal>>);

impl Logbook {
    /// The logbook of one hotkey in a state directory. Without a usable folder a crash costs the challenges under way, and
    /// nothing else: that is logged.
    pub(crate) async fn open(state_dir: &Path, own: Hotkey) -> Self {
        let folder = state_dir.join(format!("challenges-{own}"));
        Self(off_the_runtime(move || Journal::open(folder, TIME_TO_LIVE, CAPACITY)).await.map(Arc::new))
    }

    /// What a former process left.
    pub(crate) async fn pages(&self) -> Vec<Page> {
        let Some(journal) = self.0.clone() else { return Vec::new() };
        off_the_runtime(move || journal.documents()).await.unwrap_or_default()
    }

    /// Writes a page, over the one of the same challenge. It is on disk when this returns.
    pub(crate) async fn write(&self, page: &Page) {
        if let Some(journal) = self.0.clone() {
            let page = page.clone();
            off_the_runtime(move || journal.put(&key(&page), &page)).await;
        }
    }

    /// Tears a page out.
    pub(crate) async fn tear_out(&self, page: &Page) {
        if let Some(journal) = self.0.clone() {
            let key = key(page);
            off_the_runtime(move || journal.remove(&key)).await;
        }
    }
}

fn key(page: &Page) -> String {
    format!("{} {}", page.validator, page.item.challenge_id)
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "challenges under way do not survive a crash"),
        Err(error) => tracing::error!(%error, "challenges under way do not survive a crash"),
    }
    None
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::{
        Object,
        challenge::{ChallengeKind, TimeoutSeconds},
        id::ChallengeId,
    };

    use super::*;

    #[tokio::test]
    async fn a_page_is_found_by_the_next_process_of_the_same_hotkey_until_it_is_torn_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = async |own| Logbook::open(folder.path(), own).await;
        let (own, other) = (Hotkey([1; 32]), Hotkey([2; 32]));
        let item = ChallengeItem {
            challenge_id: ChallengeId::new("c1").expect("an id"),
            challenge_type: ChallengeKind::CpuMatrix,
            data: Object::new(),
            timeout: TimeoutSeconds::default(),
            target_worker_id: None,
        };
        let worker_id = WorkerId::new("w1").expect("an id");
        let owner = Owner::Address([203, 0, 113, 1].into());
        let mut page = Page { item, validator: other, worker_id, owner, received_at_ms: 5, committed: None };
        open(own).await.write(&page).await;
        page.committed = Some(Committed { at_ms: 6, requests: Vec::new() });
        open(own).await.write(&page).await;
        assert!(open(other).await.pages().await.is_empty());
        let found = open(own).await.pages().await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].owner, owner);
        assert_eq!(found[0].committed.as_ref().map(|committed| committed.at_ms), Some(6));
        open(own).await.tear_out(&page).await;
        assert!(open(own).await.pages().await.is_empty());
    }
}

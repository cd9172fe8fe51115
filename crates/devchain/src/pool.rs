//! Extrinsics that were checked and wait for a block.

use std::collections::{HashSet, VecDeque};

use tokio::sync::mpsc;

use crate::{
    extrinsic::Refusal,
    types::{AccountId32, H256, RuntimeCall},
};

/// Extrinsics that wait at most; the next one is refused.
const CAPACITY: usize = 4096;
/// Statuses that a watched extrinsic goes through at most: future or ready, in block, finalised.
const STATUSES: usize = 3;

/// What becomes of a watched extrinsic, in the order in which it happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    /// It waits for an extrinsic with a smaller nonce.
    Future,
    /// The next block takes it.
    Ready,
    /// It is in the block of this hash.
    InBlock(H256),
    /// That block is final.
    Finalized(H256),
    /// Its era passed, or its nonce was used, before a block took it.
    Invalid,
}

/// An extrinsic that waits.
pub(crate) struct Pending {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: H256,
    pub(crate) sender: AccountId32,
    pub(crate) nonce: u32,
    pub(crate) call: RuntimeCall,
    /// The first block that may not take it any more.
    pub(crate) death: u32,
    /// Who is told what becomes of it.
    pub(crate) watcher: Option<mpsc::Sender<Status>>,
}

impl Pending {
    /// Starts to report what becomes of it.
    pub(crate) fn watch(&mut self) -> mpsc::Receiver<Status> {
        let (watcher, statuses) = mpsc::channel(STATUSES);
        self.watcher = Some(watcher);
        statuses
    }

    /// Reports to whoever watches. There is room for every status, and a watcher that left misses nothing.
    pub(crate) fn report(&self, status: Status) {
        if let Some(watcher) = &self.watcher {
            let _ = watcher.try_send(status);
        }
    }
}

/// The waiting extrinsics in order of arrival.
#[derive(Default)]
pub(crate) struct Pool {
    waiting: VecDeque<Pending>,
}

impl Pool {
    /// Takes an extrinsic in, unless the pool is full or holds the same one, or another with the sender's nonce.
    pub(crate) fn push(&mut self, pending: Pending) -> Result<(), Refusal> {
        if self.waiting.iter().any(|other| other.hash == pending.hash) {
            return Err(Refusal::AlreadyImported);
        }
        if self.waiting.iter().any(|other| other.sender == pending.sender && other.nonce == pending.nonce) {
            return Err(Refusal::TooLowPriority);
        }
        if self.waiting.len() == CAPACITY {
            return Err(Refusal::PoolFull);
        }
        self.waiting.push_back(pending);
        Ok(())
    }

    /// Everything that waits, each sender's extrinsics by nonce; the caller gives back what cannot be taken yet.
    pub(crate) fn drain(&mut self) -> Vec<Pending> {
        let mut waiting: Vec<Pending> = std::mem::take(&mut self.waiting).into();
        waiting.sort_by_key(|pending| pending.nonce);
        waiting
    }

    /// Puts an extrinsic back that came from [`drain`](Self::drain).
    pub(crate) fn put_back(&mut self, pending: Pending) {
        self.waiting.push_back(pending);
    }

    /// The nonce that the sender's next extrinsic needs, those that wait included, `nonce` being the account's.
    pub(crate) fn next_nonce(&self, sender: AccountId32, nonce: u32) -> u32 {
        let waiting: HashSet<u32> =
            self.waiting.iter().filter(|pending| pending.sender == sender).map(|pending| pending.nonce).collect();
        (nonce..).find(|nonce| !waiting.contains(nonce)).unwrap_or(nonce)
    }

    /// The waiting extrinsics' bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.iter().map(|pending| pending.bytes.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::frame_system;

    const SENDER: AccountId32 = AccountId32([1; 32]);

    fn pending(nonce: u32) -> Pending {
        let mut hash = H256::default();
        hash.0[..4].copy_from_slice(&nonce.to_le_bytes());
        let call = RuntimeCall::System(frame_system::pallet::Call::remark { remark: Vec::new() });
        Pending { bytes: Vec::new(), hash, sender: SENDER, nonce, call, death: u32::MAX, watcher: None }
    }

    #[test]
    fn a_full_pool_refuses_the_next() {
        let mut pool = Pool { waiting: (0..CAPACITY as u32).map(pending).collect() };
        assert_eq!(pool.push(pending(CAPACITY as u32)), Err(Refusal::PoolFull));
        pool.drain();
        assert_eq!(pool.push(pending(0)), Ok(()));
    }

    #[test]
    fn a_sender_leaves_the_pool_in_the_order_of_nonces() {
        let mut pool = Pool::default();
        for nonce in [2, 0, 1, 4] {
            pool.push(pending(nonce)).unwrap();
        }
        assert_eq!(pool.next_nonce(SENDER, 0), 3, "the first that nobody waits with");
        assert_eq!(pool.drain().iter().map(|pending| pending.nonce).collect::<Vec<_>>(), [0, 1, 2, 4]);
    }

    #[test]
    fn a_watcher_hears_every_status_and_then_the_end() {
        let mut watched = pending(0);
        let mut statuses = watched.watch();
        let told = [Status::Ready, Status::InBlock(H256([1; 32])), Status::Finalized(H256([1; 32]))];
        for status in told {
            watched.report(status);
        }
        drop(watched);
        assert_eq!(std::iter::from_fn(|| statuses.try_recv().ok()).collect::<Vec<_>>(), told);
        assert!(statuses.is_closed());
    }
}

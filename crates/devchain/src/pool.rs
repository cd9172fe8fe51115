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

//! One chain as plain data: state, blocks and pool, and the steps that lead from one block to the next. No clock, no task
//! and no socket; time comes in as a number.

use std::{cmp::Ordering, time::Duration};

use sp_crypto_hashing::blake2_256;
use tokio::sync::{mpsc, watch};

use crate::{
    block::{Block, Blocks},
    dispatch::{self, commit},
    epoch,
    extrinsic::{self, Extrinsic, Refusal},
    genesis::Genesis,
    metadata,
    pool::{Pending, Pool, Status},
    runtime_api::{self, Context, Method},
    state::{State, View},
    storage,
    types::{
        AccountId32, DispatchError, Era, H256, RuntimeEvent,
        frame_system::{DispatchEventInfo, EventRecord, Phase, pallet::Event as SystemEvent},
    },
};

/// Extrinsics that one block takes; the others wait for the next.
const EXTRINSICS_PER_BLOCK: usize = 512;

/// Why a runtime call has no answer, in the words of a real node.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum CallError {
    /// The runtime has no such function.
    #[error("Execution failed: Other: Exported method {0} is not found")]
    UnknownMethod(String),
    /// The arguments are not those of the function.
    #[error("Execution failed: Other: Bad input data provided to {0}")]
    BadArguments(String),
}

/// See the [module](self).
pub(crate) struct Node {
    state: State,
    blocks: Blocks,
    pool: Pool,
    methods: Vec<Method>,
    metadata: Vec<u8>,
    head: watch::Sender<u32>,
}

impl Node {
    /// A chain that ends at its block 0. `slot` is the time between blocks as the metadata tells it.
    pub(crate) fn new(genesis: &Genesis, slot: Duration) -> Self {
        let methods = runtime_api::methods();
        let metadata = metadata::encode(&methods, slot);
        let mut state = State::new(&metadata);
        genesis.write(&mut state);
        let block = Block::new(H256::default(), 0, state.seal_block(), Vec::new());
        Self {
            state,
            blocks: Blocks::new(block),
            pool: Pool::default(),
            methods,
            metadata,
            head: watch::Sender::new(0),
        }
    }

    /// The kept blocks.
    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The waiting extrinsics.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The state at the head.
    pub(crate) fn latest(&self) -> View<'_> {
        self.state.latest()
    }

    /// The state after the block of that number, if it is kept.
    pub(crate) fn at(&self, number: u32) -> Option<View<'_>> {
        self.state.at(number)
    }

    /// Follows the number of the head.
    pub(crate) fn follow(&self) -> watch::Receiver<u32> {
        self.head.subscribe()
    }

    /// Answers a runtime call from the state of one block.
    pub(crate) fn call(&self, view: View<'_>, name: &str, arguments: &[u8]) -> Result<Vec<u8>, CallError> {
        let method = self.methods.iter().find(|method| method.is(name));
        let method = method.ok_or_else(|| CallError::UnknownMethod(name.to_owned()))?;
        let context = Context { view, metadata: &self.metadata };
        method.answer(&context, arguments).map_err(|_| CallError::BadArguments(name.to_owned()))
    }

    /// What became of the extrinsic in the block: the block's number, and whether its call succeeded. `None` if the
    /// block does not hold it.
    pub(crate) fn outcome(&self, block: &H256, extrinsic: &[u8]) -> Option<(u32, Result<(), DispatchError>)> {
        let block = self.blocks.by_hash(block)?;
        let number = block.header.number;
        let index = block.extrinsics.iter().position(|included| included == extrinsic)? as u32;
        let events = self.at(number)?.get(&storage::Events, ());
        events.into_iter().find_map(|record| match (record.phase, record.event) {
            (Phase::ApplyExtrinsic(of), RuntimeEvent::System(event)) if of == index => match event {
                SystemEvent::ExtrinsicSuccess { .. } => Some((number, Ok(()))),
                SystemEvent::ExtrinsicFailed { dispatch_error, .. } => Some((number, Err(dispatch_error))),
            },
            _ => None,
        })
    }

    /// Checks an extrinsic and lets it wait for the next block; its hash.
    pub(crate) fn submit(&mut self, bytes: Vec<u8>) -> Result<H256, Refusal> {
        let pending = self.check(bytes)?;
        let hash = pending.hash;
        self.pool.push(pending)?;
        Ok(hash)
    }

    /// Like [`submit`](Self::submit), and reports what becomes of the extrinsic.
    pub(crate) fn submit_and_watch(&mut self, bytes: Vec<u8>) -> Result<mpsc::Receiver<Status>, Refusal> {
        let mut pending = self.check(bytes)?;
        let statuses = pending.watch();
        let is_next = pending.nonce == self.next_nonce(pending.sender);
        pending.report(if is_next { Status::Ready } else { Status::Future });
        self.pool.push(pending)?;
        Ok(statuses)
    }

    /// The nonce that the sender's next extrinsic needs, those that wait included.
    pub(crate) fn next_nonce(&self, sender: AccountId32) -> u32 {
        self.pool.next_nonce(sender, self.latest().get(&storage::Account, sender).nonce)
    }

    /// Everything that a real node checks before an extrinsic may wait: signature, era, nonce, the call's own check.
    fn check(&self, bytes: Vec<u8>) -> Result<Pending, Refusal> {
        let extrinsic = Extrinsic::decode(&bytes)?;
        // The next block is the first that can take it.
        let next = self.latest().block() + 1;
        let birth = self.birth_hash(extrinsic.era, next).ok_or(Refusal::AncientBirthBlock)?;
        extrinsic.verify(self.blocks.genesis(), birth)?;
        if extrinsic.nonce < self.latest().get(&storage::Account, extrinsic.sender).nonce {
            return Err(Refusal::Stale);
        }
        dispatch::validate(self.latest(), extrinsic.sender, &extrinsic.call)?;
        Ok(Pending {
            hash: H256(blake2_256(&bytes)),
            bytes,
            sender: extrinsic.sender,
            nonce: extrinsic.nonce,
            call: extrinsic.call,
            death: extrinsic.era.death(next),
            watcher: None,
        })
    }

    /// The hash of the first block of an era around the block `next`.
    fn birth_hash(&self, era: Era, next: u32) -> Option<H256> {
        self.blocks.hash(era.birth(next))
    }

    /// Builds the next block from everything that waits. `now_ms` is the time since 1970; a clock that stands still or
    /// goes back moves the chain's time on by one.
    pub(crate) fn produce_block(&mut self, now_ms: u64) {
        let now_ms = now_ms.max(self.latest().get(&storage::Now, ()) + 1);
        let parent = self.blocks.head().hash;
        let number = self.state.begin_block();
        self.state.put(&storage::Number, (), number);
        self.state.put(&storage::ParentHash, (), parent);
        self.state.put(&storage::Now, (), now_ms);
        commit::store_pulses(&mut self.state, now_ms);
        let revealed = epoch::reveal_due(&mut self.state);
        epoch::run_due(&mut self.state);

        let mut extrinsics = vec![extrinsic::set_time(now_ms)];
        let at_start = |event| EventRecord { phase: Phase::Initialization, event, topics: Vec::new() };
        let mut events: Vec<_> = revealed.into_iter().map(at_start).chain([record(0, success())]).collect();
        let mut included = Vec::new();
        for pending in self.pool.drain() {
            let nonce = self.latest().get(&storage::Account, pending.sender).nonce;
            let is_full = included.len() == EXTRINSICS_PER_BLOCK;
            match pending.nonce.cmp(&nonce) {
                _ if number >= pending.death => pending.report(Status::Invalid),
                Ordering::Less => pending.report(Status::Invalid),
                Ordering::Equal if !is_full => {
                    events.extend(self.apply(extrinsics.len() as u32, &pending));
                    extrinsics.push(pending.bytes.clone());
                    included.push(pending);
                }
                _ => self.pool.put_back(pending),
            }
        }

        self.state.put(&storage::Events, (), events);
        let block = Block::new(parent, number, self.state.seal_block(), extrinsics);
        let hash = block.hash;
        self.blocks.push(block);
        for pending in included {
            pending.report(Status::InBlock(hash));
            pending.report(Status::Finalized(hash));
        }
        self.head.send_replace(number);
    }

    /// Applies the extrinsic at `index` of the block being built; its events.
    fn apply(&mut self, index: u32, pending: &Pending) -> Vec<EventRecord<RuntimeEvent, H256>> {
        self.state.mutate(&storage::Account, pending.sender, |account| account.nonce += 1);
        match dispatch::dispatch(&mut self.state, pending.sender, pending.call.clone()) {
            Ok(event) => event.into_iter().chain([success()]).map(|event| record(index, event)).collect(),
            Err(dispatch_error) => {
                let failed = SystemEvent::ExtrinsicFailed { dispatch_error, dispatch_info: DispatchEventInfo::FREE };
                vec![record(index, RuntimeEvent::System(failed))]
            }
        }
    }
}

fn success() -> RuntimeEvent {
    RuntimeEvent::System(SystemEvent::ExtrinsicSuccess { dispatch_info: DispatchEventInfo::FREE })
}

fn record(index: u32, event: RuntimeEvent) -> EventRecord<RuntimeEvent, H256> {
    EventRecord { phase: Phase::ApplyExtrinsic(index), event, topics: Vec::new() }
}

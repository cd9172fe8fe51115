//! One chain as plain data: state, blocks and pool, and the steps that lead from one block to the next. No clock, no task
//! and no socket; time comes in as a number.

use std::{cmp::Ordering, collections::VecDeque, time::Duration};

use sp_crypto_hashing::blake2_256;
use tokio::sync::{mpsc, watch};

use crate::{
    block::{Block, Blocks},
    dispatch::{self, commit},
    epoch,
    extrinsic::{self, Extrinsic, Refusal},
    genesis::Genesis,
    metadata::Metadata,
    pool::{Pending, Pool, Status},
    runtime_api::{self, Context, Method},
    state::{KEPT_BLOCKS, State, View},
    storage,
    store::{Saved, Sealed, Store},
    types::{
        AccountId32, DispatchError, Era, H256, RuntimeEvent,
        frame_system::{DispatchEventInfo, EventRecord, Phase, pallet::Event as SystemEvent},
        pallet_subtensor::pallet::Error,
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
    metadata: Metadata,
    slot: Duration,
    store: Option<Store>,
    head: watch::Sender<u32>,
    finalised: watch::Sender<u32>,
    /// In a block that is not final yet, with the block's number.
    unfinalised: VecDeque<(u32, Pending)>,
    faults: Faults,
}

/// A change of the state that no call made.
type Change = dyn FnOnce(&mut State) + Send + Sync;

/// What a test has asked for; nothing of it happens on its own.
struct Faults {
    /// Blocks by which finality trails the head.
    lag: u32,
    /// Whether no further block becomes final.
    finality_stands: bool,
    /// Whether blocks take no extrinsics.
    blocks_stay_empty: bool,
    /// How the next extrinsic fails.
    next_fails: Option<Error>,
    /// Ahead of the real time, in milliseconds.
    clock_ahead_ms: i64,
    /// What happens to the state at the start of the next block.
    next_block: Vec<Box<Change>>,
    /// Whether no client is answered.
    silent: watch::Sender<bool>,
}

impl Node {
    /// A chain that ends at its block 0. `slot` is the time between blocks as the metadata tells it, which names numbers
    /// unless it is to have the old shape.
    pub(crate) fn new(genesis: &Genesis, slot: Duration, old_shape: bool) -> Self {
        let methods = runtime_api::methods();
        let metadata = Metadata::new(&methods, slot, old_shape);
        let mut state = State::new(&metadata.v15);
        genesis.write(&mut state);
        let block = Block::new(H256::default(), 0, state.seal_block(), Vec::new());
        Self {
            state,
            blocks: Blocks::new(block),
            pool: Pool::default(),
            methods,
            metadata,
            slot,
            store: None,
            head: watch::Sender::new(0),
            finalised: watch::Sender::new(0),
            unfinalised: VecDeque::new(),
            faults: Faults {
                lag: 0,
                finality_stands: false,
                blocks_stay_empty: false,
                next_fails: None,
                clock_ahead_ms: 0,
                next_block: Vec::new(),
                silent: watch::Sender::new(false),
            },
        }
    }

    /// Goes on with what an earlier run of this chain saved, if anything, and saves every block from here on.
    pub(crate) fn keep_in(&mut self, store: Store, saved: Option<Saved>) {
        match saved {
            Some(Saved { blocks, values }) if !blocks.is_empty() => {
                let (oldest, newest) = (&blocks[0].header, &blocks[blocks.len() - 1].header);
                let numbers = (oldest.number, newest.number);
                self.state = State::restored(values, numbers, newest.state_root);
                self.blocks = Blocks::restored(self.blocks.genesis(), blocks);
                self.head.send_replace(numbers.1);
                self.finalised.send_replace(numbers.1);
                self.store = Some(store);
            }
            _ => {
                self.store = Some(store);
                self.save();
            }
        }
    }

    /// Saves the head. A chain that cannot be saved goes on: it is what its clients work with.
    fn save(&self) {
        let Some(store) = &self.store else { return };
        let sealed = Sealed { block: self.blocks.head().clone(), writes: self.state.writes() };
        if let Err(error) = store.save(sealed) {
            tracing::error!(%error, block = self.latest().block(), "a block was not saved; a restart will not know it");
        }
    }

    /// The kept blocks.
    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The time between two blocks.
    pub(crate) fn slot(&self) -> Duration {
        self.slot
    }

    /// The metadata in the form that the plain request answers.
    pub(crate) fn metadata_v14(&self) -> &[u8] {
        &self.metadata.v14
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

    /// The newest final block.
    pub(crate) fn finalised(&self) -> &Block {
        self.blocks.by_number(*self.finalised.borrow()).unwrap_or_else(|| self.blocks.head())
    }

    /// The state after the newest final block.
    pub(crate) fn final_state(&self) -> View<'_> {
        self.at(self.finalised().header.number).unwrap_or_else(|| self.latest())
    }

    /// Follows the number of the newest final block.
    pub(crate) fn follow_finalised(&self) -> watch::Receiver<u32> {
        self.finalised.subscribe()
    }

    /// Tells whether clients are left without answers.
    pub(crate) fn follow_silence(&self) -> watch::Receiver<bool> {
        self.faults.silent.subscribe()
    }

    /// Answers a runtime call from the state of one block.
    pub(crate) fn call(&self, view: View<'_>, name: &str, arguments: &[u8]) -> Result<Vec<u8>, CallError> {
        let method = self.methods.iter().find(|method| method.is(name));
        let method = method.ok_or_else(|| CallError::UnknownMethod(name.to_owned()))?;
        let context = Context { view, metadata: &self.metadata.v15 };
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
        let now_ms = now_ms.saturating_add_signed(self.faults.clock_ahead_ms);
        let now_ms = now_ms.max(self.latest().get(&storage::Now, ()) + 1);
        let parent = self.blocks.head().hash;
        let number = self.state.begin_block();
        self.state.put(&storage::Number, (), number);
        self.state.put(&storage::ParentHash, (), parent);
        self.state.put(&storage::Now, (), now_ms);
        for change in std::mem::take(&mut self.faults.next_block) {
            change(&mut self.state);
        }
        commit::store_pulses(&mut self.state, now_ms);
        let revealed = epoch::reveal_due(&mut self.state);
        epoch::run_due(&mut self.state);

        let mut extrinsics = vec![extrinsic::set_time(now_ms)];
        let at_start = |event| EventRecord { phase: Phase::Initialization, event, topics: Vec::new() };
        let mut events: Vec<_> = revealed.into_iter().map(at_start).chain([record(0, success())]).collect();
        let mut included = Vec::new();
        for pending in self.pool.drain() {
            let nonce = self.latest().get(&storage::Account, pending.sender).nonce;
            let is_full = included.len() == EXTRINSICS_PER_BLOCK || self.faults.blocks_stay_empty;
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
        self.save();
        for pending in included {
            pending.report(Status::InBlock(hash));
            self.unfinalised.push_back((number, pending));
        }
        self.head.send_replace(number);
        self.finalise();
    }

    /// Makes final what is due, and tells those who wait for it. Finality never trails so far that its block is forgotten.
    fn finalise(&mut self) {
        let head = self.blocks.head().header.number;
        let before = *self.finalised.borrow();
        let due = if self.faults.finality_stands { before } else { head.saturating_sub(self.faults.lag) };
        let number = due.max(before).max(head.saturating_sub(KEPT_BLOCKS - 1));
        while self.unfinalised.front().is_some_and(|(included, _)| *included <= number) {
            let Some((included, pending)) = self.unfinalised.pop_front() else { break };
            if let Some(hash) = self.blocks.hash(included) {
                pending.report(Status::Finalized(hash));
            }
        }
        self.finalised.send_replace(number);
    }

    /// From now on a block becomes final when so many others lie above it.
    pub(crate) fn lag_finality(&mut self, blocks: u32) {
        self.faults.lag = blocks;
        self.finalise();
    }

    /// Lets no further block become final, or all that are due.
    pub(crate) fn stop_finality(&mut self, stands: bool) {
        self.faults.finality_stands = stands;
        self.finalise();
    }

    /// Leaves extrinsics waiting, or takes them into blocks again.
    pub(crate) fn keep_blocks_empty(&mut self, empty: bool) {
        self.faults.blocks_stay_empty = empty;
    }

    /// Forgets the extrinsics that wait.
    pub(crate) fn forget_pending(&mut self) {
        self.pool.drain();
    }

    /// Lets the next extrinsic that a block takes fail.
    pub(crate) fn fail_next(&mut self, error: Error) {
        self.faults.next_fails = Some(error);
    }

    /// Leaves clients without answers, or answers again.
    pub(crate) fn silence(&mut self, silent: bool) {
        self.faults.silent.send_replace(silent);
    }

    /// Puts the chain's clock ahead of the real one by so much, or behind it.
    pub(crate) fn set_clock_ahead(&mut self, ahead_ms: i64) {
        self.faults.clock_ahead_ms = ahead_ms;
    }

    /// By how much the chain's clock is ahead of the real one.
    pub(crate) fn clock_ahead_ms(&self) -> i64 {
        self.faults.clock_ahead_ms
    }

    /// Changes the state at the start of the next block.
    pub(crate) fn change_next(&mut self, change: impl FnOnce(&mut State) + Send + Sync + 'static) {
        self.faults.next_block.push(Box::new(change));
    }

    /// Puts another block of the same content in the head's place, as a chain that leaves a fork does.
    pub(crate) fn replace_head(&mut self) {
        let Block { header, extrinsics, .. } = self.blocks.head().clone();
        let root = H256(blake2_256(&header.state_root.0));
        self.blocks.replace_head(Block::new(header.parent, header.number, root, extrinsics));
        self.save();
    }

    /// Applies the extrinsic at `index` of the block being built; its events.
    fn apply(&mut self, index: u32, pending: &Pending) -> Vec<EventRecord<RuntimeEvent, H256>> {
        self.state.mutate(&storage::Account, pending.sender, |account| account.nonce += 1);
        let outcome = match self.faults.next_fails.take() {
            Some(error) => Err(error.into()),
            None => dispatch::dispatch(&mut self.state, pending.sender, pending.call.clone()),
        };
        match outcome {
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

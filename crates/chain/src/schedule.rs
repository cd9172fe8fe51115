//! When epochs come and when a commit is revealed: the chain's own steps, walked ahead block by block (chain spec 5.1 and 6.2).

use std::time::Duration;

use crate::timelock::Beacon;
use crate::{Block, ChainError, Epoch, Rules};

/// An epoch runs after so many blocks without one, whatever the schedule says.
const LONGEST_STEP_BLOCKS: u64 = 50_400;

/// Blocks after the reveal block by which the beacon's round must be out.
const REVEAL_MARGIN_BLOCKS: u64 = 3;

impl Epoch {
    /// The block of the next epoch as scheduled; it may be in the past, when epochs wait for their turn. `None` for a
    /// subnet without epochs.
    #[must_use]
    pub fn next(&self, tempo: u16) -> Option<Block> {
        let due = self.last_block.saturating_add(u64::from(tempo));
        (tempo > 0).then(|| self.pending_at.map_or(due, |pending| due.min(pending)))
    }

    /// Whether at `block` the owner may not change the subnet's rules: an epoch comes within `window_blocks`, or was asked
    /// for and has not run.
    #[must_use]
    pub fn freezes_rules(&self, tempo: u16, window_blocks: u16, block: Block) -> bool {
        let near = |next: Block| next.saturating_sub(block) < u64::from(window_blocks);
        tempo > 0 && (self.pending_at.is_some() || self.next(tempo).is_some_and(near))
    }

    /// Whether an epoch is due at `block`.
    fn is_due(&self, tempo: u16, block: Block) -> bool {
        let asked_for = self.pending_at.is_some_and(|pending| block >= pending);
        let elapsed = block.saturating_sub(self.last_block);
        tempo > 0 && (asked_for || self.since_step > LONGEST_STEP_BLOCKS || elapsed >= u64::from(tempo))
    }

    /// The schedule after `block`.
    fn step(self, tempo: u16, block: Block) -> Self {
        if self.is_due(tempo, block) {
            Self { index: self.index + 1, last_block: block, pending_at: None, since_step: 0 }
        } else {
            Self { since_step: self.since_step + 1, ..self }
        }
    }
}

/// The block at which the chain opens a commit that lands in the block after `head`, whose schedule is `epoch`. `None` when
/// no epoch will come.
#[must_use]
pub fn reveal_block(mut epoch: Epoch, tempo: u16, reveal_period: u64, head: Block) -> Option<Block> {
    let landing = head + 1;
    let target = epoch.index + u64::from(epoch.is_due(tempo, landing)) + reveal_period;
    let farthest = reveal_period.saturating_add(1).saturating_mul(LONGEST_STEP_BLOCKS);
    if tempo == 0 {
        return None;
    }
    for block in landing..=head.saturating_add(farthest) {
        if epoch.index + u64::from(epoch.is_due(tempo, block)) == target {
            return Some(block);
        }
        epoch = epoch.step(tempo, block);
    }
    None
}

/// The beacon's round that reveals a commit made on top of block `head` of that number and Unix time in ms.
///
/// # Errors
/// [`ChainError::Unsupported`] where no epoch would ever reveal it, or no beacon.
pub fn reveal_round(
    beacon: &Beacon,
    rules: &Rules,
    epoch: &Epoch,
    (head, head_ms): (Block, u64),
    slot: Duration,
) -> Result<u64, ChainError> {
    let reveal = reveal_block(*epoch, rules.tempo, rules.reveal_period, head).ok_or_else(|| {
        ChainError::Unsupported("weights must be committed, but no epoch will reveal them".to_owned())
    })?;
    let newest = beacon.newest_round(head_ms);
    if newest == 0 {
        return Err(ChainError::Unsupported("the chain's clock stands before the beacon's first round".to_owned()));
    }
    let slot_ms = u64::try_from(slot.as_millis()).unwrap_or(u64::MAX);
    let blocks = reveal + REVEAL_MARGIN_BLOCKS - head;
    // A round that is out hides nothing, and the chain refuses it; only a chain of quick blocks comes so close.
    Ok(beacon.round_before(head_ms.saturating_add(blocks.saturating_mul(slot_ms))).max(newest + 1))
}

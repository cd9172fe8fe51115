//! When the next vector may be sent, in blocks. Pure.

use byteleap_chain::{Block, Rules};

use crate::store::submission::{SubmissionRow, SubmissionStatus};

/// At most so many attempts within a tempo.
pub const ATTEMPTS_PER_TEMPO: usize = 5;
/// An extrinsic lives 64 blocks, and finality follows within a few: after so many, what was not seen will not come.
pub const FATE_BLOCKS: u64 = 80;

/// Whether nobody knows yet what became of a submission.
pub fn is_open(submission: &SubmissionRow) -> bool {
    matches!(submission.status, SubmissionStatus::Pending | SubmissionStatus::Unconfirmed)
}

/// The first block at which to send, given the chain's `LastUpdate` of our uid, the block of now, and what was sent so
/// far, newest first.
///
/// A tempo after the last weights that arrived, and never before the chain's rate limit is over. After a failure 1, 2,
/// 4, 8 blocks later, but no more than [`ATTEMPTS_PER_TEMPO`] times within a tempo; after one whose fate is open, once
/// it cannot arrive any more. A dry run counts as an arrival.
pub fn due_block(last_update: Block, now: Block, rules: &Rules, tempo_blocks: u64, history: &[SubmissionRow]) -> Block {
    // The chain waives its limit for a uid that never set weights.
    let limit = if last_update == 0 { 0 } else { rules.weights_rate_limit.saturating_add(1) };
    let mut due = last_update.saturating_add(tempo_blocks.max(limit));

    let arrived = history.iter().find_map(|submission| match submission.status {
        SubmissionStatus::Included => submission.confirmed_block,
        SubmissionStatus::Skipped => Some(submission.block),
        SubmissionStatus::Pending | SubmissionStatus::Rejected | SubmissionStatus::Unconfirmed => None,
    });
    if let Some(block) = arrived {
        due = due.max(block.saturating_add(tempo_blocks));
    }

    let is_failure = |submission: &&SubmissionRow| {
        (is_open(submission) || submission.status == SubmissionStatus::Rejected)
            && submission.block >= last_update.max(arrived.unwrap_or(0))
            && submission.block.saturating_add(tempo_blocks) > now
    };
    let failures: Vec<&SubmissionRow> = history.iter().filter(is_failure).collect();
    let (Some(newest), Some(oldest)) = (failures.first(), failures.last()) else { return due };
    let wait = if is_open(newest) { FATE_BLOCKS } else { 1 << (failures.len() - 1).min(ATTEMPTS_PER_TEMPO) };
    due = due.max(newest.block.saturating_add(wait));
    if failures.len() >= ATTEMPTS_PER_TEMPO {
        due = due.max(oldest.block.saturating_add(tempo_blocks));
    }
    due
}

#[cfg(test)]
mod tests {
    use super::super::testing::chain_rules;
    use super::*;
    use crate::store::round::RoundKey;
    use crate::store::submission::SubmissionKey;

    const TEMPO: u64 = 105;

    fn submission(block: Block, status: SubmissionStatus) -> SubmissionRow {
        SubmissionRow {
            key: SubmissionKey(1),
            round: RoundKey(1),
            at_ms: 0,
            block,
            version_key: 0,
            uids: vec![1],
            values: vec![u16::MAX],
            terms: None,
            status,
            reason: None,
            extrinsic: None,
            confirmed_block: (status == SubmissionStatus::Included).then_some(block + 2),
            reveal_round: None,
        }
    }

    fn due(last_update: Block, now: Block, history: &[SubmissionRow]) -> Block {
        due_block(last_update, now, &chain_rules(), TEMPO, history)
    }

    #[test]
    fn weights_are_due_a_tempo_after_the_last_ones_and_not_before_the_chains_rate_limit() {
        assert_eq!(due(1_000, 1_050, &[]), 1_105);
        assert_eq!(due_block(1_000, 1_050, &chain_rules(), 1, &[]), 1_021);
        assert_eq!(due_block(0, 7, &chain_rules(), 1, &[]), 1);
    }

    #[test]
    fn weights_that_arrived_count_even_before_the_chain_shows_them() {
        assert_eq!(due(1_000, 1_112, &[submission(1_110, SubmissionStatus::Included)]), 1_217);
    }

    #[test]
    fn each_refusal_doubles_the_wait_and_five_end_the_tempo() {
        let mut history = Vec::new();
        for (block, next) in [(2_000, 2_001), (2_001, 2_003), (2_003, 2_007), (2_007, 2_015), (2_015, 2_000 + TEMPO)] {
            history.insert(0, submission(block, SubmissionStatus::Rejected));
            assert_eq!(due(1_000, block, &history), next);
        }
        assert_eq!(due(1_000, 2_000 + TEMPO, &history), 2_023, "the oldest has left the tempo: at once");
    }

    #[test]
    fn a_refusal_before_the_last_arrival_is_forgotten() {
        assert_eq!(due(1_000, 1_010, &[submission(999, SubmissionStatus::Rejected)]), 1_105);
    }

    #[test]
    fn what_may_still_arrive_is_not_sent_again() {
        assert_eq!(due(1_000, 2_001, &[submission(2_000, SubmissionStatus::Unconfirmed)]), 2_080);
        assert_eq!(due(1_000, 2_001, &[submission(2_000, SubmissionStatus::Pending)]), 2_080);
    }
}

//! From a miner's share to its value on chain: the last step of an explanation.
//!
//! A round's weight alone makes a value over the largest weight ([`Value::alone`]). What is sent besides depends on what is
//! burned, on the chain's limits and on who still holds its uid, so it is read from the submission itself.

use std::fmt;

use byteleap_chain::Block;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_scoring::MinerScore;
use serde::Serialize;

use crate::store::round::{RoundKey, ShareRow};
use crate::store::submission::{DropReason, SubmissionKey, SubmissionRow, SubmissionStatus, Terms};
use crate::store::{Store, StoreError};

/// How many submissions back one is sought that was not refused.
const LOOK_BACK: i64 = 50;

/// What a round makes of a miner on chain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Value {
    /// The weight over the largest weight of the round, in 65,535ths: what would be sent if nothing were burned or cut.
    pub alone: u16,
    /// The submission that pays the round; before there is one, the last that pays an earlier round. None without either.
    pub submitted: Option<Submitted>,
}

/// A miner's part of a submission.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Submitted {
    /// The submission.
    pub submission: SubmissionKey,
    /// The round that it pays.
    pub round: RoundKey,
    /// What became of it.
    pub status: SubmissionStatus,
    /// Why, if it was not included.
    pub reason: Option<String>,
    /// The block that its uids and limits were read at.
    pub block: Block,
    /// The block that holds it.
    pub confirmed_block: Option<Block>,
    /// The uid that the miner had in that round; none when it was not registered.
    pub uid: Option<u16>,
    /// What that uid was given, of 65,535; 0 when it does not stand in the vector.
    pub value: u16,
    /// That over the sum of all values.
    pub share: f64,
    /// Why the miner was left out though the round pays it.
    pub dropped: Option<DropReason>,
    /// What the vector was made by; none for one of a program that did not keep it.
    pub terms: Option<Terms>,
}

impl Value {
    /// Reads what became of a round, in which `miner` is the score of `hotkey` and `shares` is what everybody gets.
    pub(super) async fn read(
        store: &Store,
        round: RoundKey,
        hotkey: Hotkey,
        miner: Option<&MinerScore>,
        shares: &[ShareRow],
    ) -> Result<Self, StoreError> {
        let top = shares.iter().map(|share| share.weight).fold(0.0, f64::max);
        let own = shares.iter().find(|share| share.hotkey == hotkey).map_or(0.0, |share| share.weight);
        let alone = if top > 0.0 { (own / top * f64::from(u16::MAX)).round_ties_even() as u16 } else { 0 };
        let submissions = store.submissions_up_to(round, LOOK_BACK).await?;
        let arrived = submissions.iter().find(|submission| submission.status != SubmissionStatus::Rejected);
        let Some(submission) = submissions.iter().find(|submission| submission.round == round).or(arrived) else {
            return Ok(Self { alone, submitted: None });
        };
        let uid = if submission.round == round {
            miner.map(|miner| miner.uid)
        } else {
            store.miner_score(submission.round, hotkey).await?.map(|miner| miner.uid)
        };
        Ok(Self { alone, submitted: Some(Submitted::of(submission, hotkey, uid)) })
    }

    /// Tells the value of a miner in `round`, as lines of an explanation.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, round: RoundKey) -> fmt::Result {
        let Some(submitted) = &self.submitted else {
            return writeln!(
                f,
                "on chain      nothing was submitted yet; alone this weight makes {} of 65535",
                self.alone
            );
        };
        if submitted.round != round {
            writeln!(
                f,
                "on chain      this round was not submitted; alone its weight makes {} of 65535. Before it:",
                self.alone
            )?;
        }
        write!(f, "on chain      {} of 65535, {:.4}% of the vector", submitted.value, submitted.share * 100.0)?;
        write!(f, ": submission {} of round {}, {}", submitted.submission.0, submitted.round.0, submitted.status)?;
        match (submitted.confirmed_block, &submitted.reason) {
            (Some(block), _) => writeln!(f, " in block {block}")?,
            (None, Some(reason)) => writeln!(f, ": {reason}")?,
            (None, None) => writeln!(f)?,
        }
        submitted.write_terms(f)
    }
}

impl Submitted {
    fn of(submission: &SubmissionRow, hotkey: Hotkey, uid: Option<u16>) -> Self {
        let pairs = submission.pairs();
        let value = pairs.iter().find(|(paid, _)| Some(*paid) == uid).map_or(0, |(_, value)| *value);
        let sum: f64 = pairs.iter().map(|(_, value)| f64::from(*value)).sum();
        let terms = submission.terms.clone();
        let dropped = terms.as_ref().and_then(|terms| {
            terms.dropped.iter().find(|dropped| dropped.hotkey == hotkey).map(|dropped| dropped.reason)
        });
        Self {
            submission: submission.key,
            round: submission.round,
            status: submission.status,
            reason: submission.reason.clone(),
            block: submission.block,
            confirmed_block: submission.confirmed_block,
            uid,
            value: if dropped.is_some() { 0 } else { value },
            share: if dropped.is_some() || sum == 0.0 { 0.0 } else { f64::from(value) / sum },
            dropped,
            terms,
        }
    }

    fn write_terms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(terms) = &self.terms else {
            return writeln!(f, "  what was burned and cut is not known: an older version submitted it");
        };
        if let Some(reason) = self.dropped {
            writeln!(f, "  the miner was left out: {reason}")?;
        }
        terms
            .to_string()
            .lines()
            .filter(|line| !line.starts_with("left out"))
            .try_for_each(|line| writeln!(f, "  {line}"))
    }
}

//! A stored round, scored again under another profile: what a change of `scoring.*` would have done to everybody.
//!
//! The round brings its inputs with it, so neither the network nor what happened since has a say.

use std::fmt;

use byteleap_protocol::hotkey::Hotkey;
use byteleap_scoring::{Measures, MinerScore, Outcome, Profile, weigh};
use serde::Serialize;

use super::explain::instant;
use crate::store::round::{Lost, RoundKey};
use crate::store::{Store, StoreError};

/// Why a round cannot be scored again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was never scored.
    #[error("there is no such scoring round: the status page and `explain` name rounds")]
    NoRound,
    /// What it was scored from is gone.
    #[error("round {0} cannot be scored again: {1}")]
    Lost(i64, Lost),
}

/// Two results from the same facts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// The round.
    pub round: RoundKey,
    /// The instant of its facts, unix milliseconds UTC.
    pub at_ms: i64,
    /// What it was scored by.
    pub stored: Profile,
    /// What it is scored by now.
    pub replayed: Profile,
    /// What became of it.
    pub stored_outcome: Outcome,
    /// What would have become of it.
    pub replayed_outcome: Outcome,
    /// Whether every number of every miner and worker is as it was stored, bit for bit.
    pub same: bool,
    /// What of all weight would have gone elsewhere, 0 to 1.
    pub moved: f64,
    /// Every registered miner, those that gain or lose most first.
    pub miners: Vec<Shift>,
}

/// One miner under both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shift {
    /// Who.
    pub hotkey: Hotkey,
    /// Its uid then.
    pub uid: u16,
    /// Its score as stored.
    pub stored_score: f64,
    /// Its score now.
    pub replayed_score: f64,
    /// Its weight as stored.
    pub stored_weight: f64,
    /// Its weight now.
    pub replayed_weight: f64,
    /// What it gains.
    pub difference: f64,
}

/// Scores a round again; the newest when none is named.
///
/// # Errors
/// As [`ReplayError`].
pub async fn replay(store: &Store, round: Option<RoundKey>, profile: &Profile) -> Result<Replay, ReplayError> {
    let row = match round {
        Some(key) => store.round(key).await?,
        None => store.latest_round().await?,
    };
    let row = row.ok_or(ReplayError::NoRound)?;
    let stored = store.whole_round(&row).await?.map_err(|lost| ReplayError::Lost(row.key.0, lost))?;
    let replayed = weigh(profile, &Measures::of(&stored));
    let shift = |(old, new): (&MinerScore, &MinerScore)| Shift {
        hotkey: old.hotkey,
        uid: old.uid,
        stored_score: old.score,
        replayed_score: new.score,
        stored_weight: old.weight,
        replayed_weight: new.weight,
        difference: new.weight - old.weight,
    };
    let mut miners: Vec<Shift> = stored.miners.iter().zip(&replayed.miners).map(shift).collect();
    miners
        .sort_by(|left, right| right.difference.abs().total_cmp(&left.difference.abs()).then(left.uid.cmp(&right.uid)));
    Ok(Replay {
        round: row.key,
        at_ms: row.at_ms,
        same: replayed == stored,
        moved: miners.iter().map(|miner| miner.difference.abs()).sum::<f64>() / 2.0,
        stored_outcome: stored.outcome,
        replayed_outcome: replayed.outcome,
        stored: stored.rules.profile().clone(),
        replayed: profile.clone(),
        miners,
    })
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stored, replayed) = (self.stored.name, self.replayed.name);
        writeln!(f, "round     {} of {}", self.round.0, instant(self.at_ms))?;
        writeln!(f, "stored    {stored}, {}", self.stored_outcome)?;
        writeln!(f, "replayed  {replayed}, {}", self.replayed_outcome)?;
        let same = if self.same { "every number as stored" } else { "numbers differ" };
        let is_paid = |weight: fn(&Shift) -> f64| self.miners.iter().any(|miner| weight(miner) > 0.0);
        match (is_paid(|miner| miner.stored_weight), is_paid(|miner| miner.replayed_weight)) {
            (true, false) => writeln!(f, "result    {same}; nobody would have been paid")?,
            (false, true) => writeln!(f, "result    {same}; nobody was paid, these would have been")?,
            _ => writeln!(f, "result    {same}; {:.4}% of all weight goes elsewhere", self.moved * 100.0)?,
        }
        writeln!(
            f,
            "{:>5}  {:<48}  {:>9}  {:>9}  {:>9}  {:>9}  {:>10}",
            "uid", "hotkey", "score", "was", "weight", "was", "difference"
        )?;
        for miner in &self.miners {
            writeln!(
                f,
                "{:>5}  {:<48}  {:>9.6}  {:>9.6}  {:>9.6}  {:>9.6}  {:>+10.6}",
                miner.uid,
                miner.hotkey.to_string(),
                miner.replayed_score,
                miner.stored_score,
                miner.replayed_weight,
                miner.stored_weight,
                miner.difference
            )?;
        }
        Ok(())
    }
}

//! What `byteleap-validator weights show | preview | submit | diff | replay` print.

use std::fmt::{self, Write};

use byteleap_chain::{Block, Hotkey, Receipt};
use byteleap_scoring::{Outcome, Profile, ProfileName};
use serde::Serialize;

use super::{Prepared, Preparer, REMEMBERED, Submitter, WeightsError};
use crate::counted::counted;
use crate::score::replay::replay;
use crate::store::Store;
use crate::store::round::RoundKey;
use crate::store::submission::{Burned, Dropped, SubmissionRow, Terms};

/// The subcommands of `weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum WeightsCommand {
    /// Show the last submissions and what became of them.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the vector that would be sent now, and send nothing.
    Preview {
        /// Whose it is (SS58); without it the running validator's, else the wallet's.
        #[arg(long)]
        hotkey: Option<Hotkey>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send the vector now, whatever the tempo.
    Submit {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hold the vector that would be sent now against the chain's for us, its consensus, and other validators'.
    Diff {
        /// Whose it is (SS58); without it the running validator's, else the wallet's.
        #[arg(long)]
        hotkey: Option<Hotkey>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Score a stored round again under another profile and show the difference, without the network.
    Replay {
        /// The round; without it the newest.
        round: Option<i64>,
        /// The profile; without it what is configured, `--set scoring.…` included.
        #[arg(long)]
        profile: Option<ProfileName>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The vector that would be sent now.
///
/// # Errors
/// Whatever forbids to send one.
pub async fn preview(preparer: &Preparer, json: bool) -> Result<String, WeightsError> {
    let prepared = preparer.prepare().await?;
    Ok(if json { json_of(&Vector::of(&prepared, None)) } else { prepared.to_string() })
}

/// How that vector compares.
///
/// # Errors
/// Whatever forbids to send one, or the chain.
pub async fn diff(preparer: &Preparer, json: bool) -> Result<String, WeightsError> {
    let difference = preparer.diff().await?;
    Ok(if json { json_of(&difference) } else { difference.to_string() })
}

/// A stored round, the newest when none is named, scored again under `profile`.
///
/// # Errors
/// It is not there, or cannot be read.
pub async fn replayed(
    store: &Store,
    round: Option<i64>,
    profile: &Profile,
    json: bool,
) -> Result<String, WeightsError> {
    let replay = replay(store, round.map(RoundKey), profile).await?;
    Ok(if json { json_of(&replay) } else { replay.to_string() })
}

/// Sends the vector and tells what became of it.
///
/// # Errors
/// Whatever forbids to send one, and the chain's refusal.
pub async fn submit(submitter: &Submitter, json: bool) -> Result<String, WeightsError> {
    let (prepared, receipt) = submitter.submit().await?;
    if json {
        return Ok(json_of(&Vector::of(&prepared, receipt)));
    }
    let outcome = match receipt {
        Some(Receipt { block, hash, .. }) => {
            format!("included in block {block} as extrinsic 0x{}", hex::encode(hash))
        }
        None => "not sent: weights.dry_run is set".to_owned(),
    };
    Ok(format!("{prepared}{outcome}\n"))
}

/// A vector as JSON tells it, and, once sent, what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Vector<'a> {
    /// The round that it pays.
    round: RoundKey,
    outcome: Outcome,
    /// The block that uids and limits were read at.
    block: Block,
    version_key: u64,
    uids: &'a [u16],
    /// Parallel to `uids`.
    values: &'a [u16],
    /// What the vector was made by.
    terms: &'a Terms,
    /// The finalised block that holds it; none when it was not sent.
    included_block: Option<Block>,
    /// `0x…`; none when it was not sent.
    extrinsic: Option<String>,
}

impl<'a> Vector<'a> {
    pub(crate) fn of(prepared: &'a Prepared, receipt: Option<Receipt>) -> Self {
        Self {
            round: prepared.round.key,
            outcome: prepared.round.outcome,
            block: prepared.block,
            version_key: prepared.weights.version_key(),
            uids: prepared.weights.uids(),
            values: prepared.weights.values(),
            terms: &prepared.terms,
            included_block: receipt.map(|receipt| receipt.block),
            extrinsic: receipt.map(|receipt| format!("0x{}", hex::encode(receipt.hash))),
        }
    }
}

fn json_of(value: &impl Serialize) -> String {
    format!("{:#}\n", serde_json::json!(value))
}

/// The last submissions, newest first, and the vector of the newest.
///
/// # Errors
/// The store cannot be read.
pub async fn show(store: &Store, json: bool) -> Result<String, WeightsError> {
    let submissions = store.last_submissions(REMEMBERED).await?;
    if json {
        return Ok(json_of(&submissions));
    }
    let Some(newest) = submissions.first() else {
        return Ok("no weights were submitted yet\n".to_owned());
    };
    let mut text = String::new();
    for submission in &submissions {
        let _ = writeln!(text, "{}", line_of(submission));
    }
    let _ = writeln!(text, "\nsubmission {}:", newest.key.0);
    if let Some(terms) = &newest.terms {
        let _ = write!(text, "{terms}");
    }
    let _ = write!(text, "{}", Table(newest.pairs()));
    Ok(text)
}

fn line_of(submission: &SubmissionRow) -> String {
    let SubmissionRow { key, round, block, uids, status, reason, extrinsic, confirmed_block, .. } = submission;
    let mut line =
        format!("{}: {status}, round {}, read at block {block}, {}", key.0, round.0, counted(uids.len(), "weight"));
    if let Some(block) = confirmed_block {
        line += &format!(", in block {block}");
    }
    for text in extrinsic.iter().chain(reason) {
        line += &format!(", {text}");
    }
    line
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "round {} ({}), block {}, version key {}",
            self.round.key.0,
            self.round.outcome,
            self.block,
            self.weights.version_key()
        )?;
        write!(f, "{}{}", self.terms, Table(self.weights.pairs().collect()))
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Dropped { hotkey, uid, reason } in &self.dropped {
            writeln!(f, "left out    uid {uid}, {hotkey}: {reason}")?;
        }
        if let Some(Burned { uid, share }) = self.burned {
            writeln!(f, "burned      {:.4}% of the weight, by uid {uid}", share * 100.0)?;
        }
        let largest = f64::from(self.max_share) / f64::from(u16::MAX) * 100.0;
        let enforced = if self.enforced { "" } else { ", not enforced here (weights.enforce_limits)" };
        write!(f, "limits      at least {}, ", counted(self.min_allowed, "weight"))?;
        writeln!(
            f,
            "largest share {largest:.4}%, {} between two settings{enforced}",
            counted(self.rate_limit_blocks, "block")
        )?;
        if self.capped {
            writeln!(f, "capped      the largest shares were cut to {largest:.4}%")?;
        }
        if self.filled > 0 {
            writeln!(
                f,
                "filled      {} with the value 1, so that the vector is long enough",
                counted(self.filled, "uid")
            )?;
        }
        if self.timelocked {
            writeln!(f, "timelocked  committed first, revealed by the chain later")?;
        }
        Ok(())
    }
}

/// A vector, a line per uid.
struct Table(Vec<(u16, u16)>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum: f64 = self.0.iter().map(|(_, value)| f64::from(*value)).sum();
        writeln!(f, "{:>5}  {:>5}  {:>8}", "uid", "value", "share")?;
        for (uid, value) in &self.0 {
            writeln!(f, "{uid:>5}  {value:>5}  {:>7.4}%", f64::from(*value) / sum * 100.0)?;
        }
        Ok(())
    }
}

//! From facts to findings: a pure function, so that every threshold is tested.

use std::time::Duration;

use super::{Alarm, Findings, Limits};

/// Tempos without weights of ours that are too many.
const TEMPOS_WITHOUT_WEIGHTS: u64 = 2;
/// A claim on another's card is news for so long.
pub const CONTEST_MS: i64 = 30 * 60_000;

/// The marketplace may be gone for so long.
const MARKETPLACE_MS: i64 = 10 * 60_000;

/// Our place on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether we may set weights.
    pub has_permit: bool,
    /// Blocks since our last weights, or since the start of this process if that is later.
    pub silent_blocks: u64,
}

/// What is known at one moment; what is not known is `None`.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Our place on the chain; the inner `None`: we have none any more.
    pub standing: Option<Option<Standing>>,
    /// Blocks between submissions; none: we send none.
    pub tempo_blocks: Option<u64>,
    /// How old the newest round is, or how long this process runs if that is less.
    pub round_age_ms: Option<i64>,
    /// From when on a round is too old to be paid (`weights.max_round_age`).
    pub max_round_age: Duration,
    /// How long the proof that waits longest has waited; 0 when none waits.
    pub oldest_proof_ms: Option<i64>,
    /// Leases above zero that were not repeated in time.
    pub stale_leases: Option<i64>,
    /// How long the marketplace has been gone; none where none is configured.
    pub marketplace_gone_ms: Option<i64>,
    /// Cards that several workers claimed lately.
    pub contested_gpus: Option<i64>,
    /// Free space on the fullest disk that we write to.
    pub free_disk_bytes: Option<u64>,
    /// How far our clock is ahead.
    pub clock_ahead_ms: Option<i64>,
}

/// What is wrong, and what to do about it.
pub fn judge(facts: &Facts, limits: &Limits) -> Findings {
    let mut findings = Findings::new();
    let mut found = |alarm, known: bool, is_wrong: bool, text: String| {
        if known {
            findings.insert(alarm, is_wrong.then_some(text));
        }
    };
    let standing = facts.standing.flatten();
    found(
        Alarm::RegistrationLost,
        facts.standing.is_some(),
        standing.is_none(),
        "the hotkey is not registered on the subnet any more: register it again".to_owned(),
    );
    let lacks_permit = standing.is_some_and(|standing| !standing.has_permit);
    found(
        Alarm::PermitLost,
        facts.standing.is_some(),
        lacks_permit,
        "the hotkey has no validator permit: its weights are refused until it has more stake".to_owned(),
    );
    let silent = standing.map_or(0, |standing| standing.silent_blocks);
    let too_silent = facts.tempo_blocks.is_some_and(|tempo| silent > TEMPOS_WITHOUT_WEIGHTS.saturating_mul(tempo));
    found(
        Alarm::NoSubmission,
        facts.standing.is_some(),
        too_silent && !lacks_permit,
        format!(
            "no weights of ours on chain for {silent} blocks: `byteleap-validator weights preview` says what is in the way"
        ),
    );
    let round_age_ms = facts.round_age_ms.unwrap_or(0);
    found(
        Alarm::NoRound,
        facts.round_age_ms.is_some(),
        u128::try_from(round_age_ms).unwrap_or(0) > facts.max_round_age.as_millis(),
        format!(
            "no scoring round for {} s, so no weights are sent: see in the log why scoring stopped",
            round_age_ms / 1000
        ),
    );
    let waited_ms = facts.oldest_proof_ms.unwrap_or(0);
    found(
        Alarm::VerificationBacklog,
        facts.oldest_proof_ms.is_some(),
        u128::try_from(waited_ms).unwrap_or(0) > limits.verification_wait.as_millis(),
        format!(
            "a proof has waited {} s for its verdict: raise validation.verification_concurrent, or start a verifier on another machine",
            waited_ms / 1000
        ),
    );
    let stale = facts.stale_leases.unwrap_or(0);
    found(
        Alarm::StaleLeases,
        facts.stale_leases.is_some(),
        stale > 0,
        format!(
            "{stale} leases were not repeated for {} s: is the marketplace connected?",
            limits.lease_stale_after.as_secs()
        ),
    );
    let gone_ms = facts.marketplace_gone_ms.unwrap_or(0);
    found(
        Alarm::MarketplaceGone,
        facts.marketplace_gone_ms.is_some(),
        gone_ms > MARKETPLACE_MS,
        format!("the marketplace has been gone for {} s: /status says why; leases stay as they are", gone_ms / 1000),
    );
    let contested = facts.contested_gpus.unwrap_or(0);
    found(
        Alarm::ContestedGpus,
        facts.contested_gpus.is_some(),
        contested > 0,
        format!("{contested} cards are claimed by several workers: see the log for who claims them"),
    );
    let free = facts.free_disk_bytes.unwrap_or(u64::MAX);
    found(
        Alarm::LowDisk,
        facts.free_disk_bytes.is_some(),
        free < limits.min_free_disk_bytes,
        format!(
            "{} MB are left on the disk of database or log: make room, or lower database.event_retention_days",
            free / 1_000_000
        ),
    );
    let ahead_ms = facts.clock_ahead_ms.unwrap_or(0);
    found(
        Alarm::ClockOffset,
        facts.clock_ahead_ms.is_some(),
        u128::from(ahead_ms.unsigned_abs()) > limits.max_clock_offset.as_millis(),
        format!("our clock is {ahead_ms} ms ahead of the miners': check that time is synchronised (timedatectl)"),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            webhook: None,
            verification_wait: Duration::from_secs(300),
            lease_stale_after: Duration::from_secs(1800),
            min_free_disk_bytes: 1_000_000_000,
            max_clock_offset: Duration::from_secs(2),
        }
    }

    fn well() -> Facts {
        Facts {
            standing: Some(Some(Standing { has_permit: true, silent_blocks: 210 })),
            tempo_blocks: Some(105),
            round_age_ms: Some(1_800_000),
            max_round_age: Duration::from_secs(1800),
            oldest_proof_ms: Some(300_000),
            stale_leases: Some(0),
            marketplace_gone_ms: Some(600_000),
            contested_gpus: Some(0),
            free_disk_bytes: Some(1_000_000_000),
            clock_ahead_ms: Some(-2_000),
        }
    }

    fn wrong(facts: &Facts) -> Vec<Alarm> {
        let findings = judge(facts, &limits());
        findings.into_iter().filter_map(|(alarm, text)| text.map(|_| alarm)).collect()
    }

    #[test]
    fn each_threshold_is_exact() {
        assert_eq!(wrong(&well()), []);
        assert_eq!(judge(&well(), &limits()).len(), Alarm::ALL.len());
        let standing = |has_permit, silent_blocks| Some(Some(Standing { has_permit, silent_blocks }));
        for (facts, alarm) in [
            (Facts { standing: standing(true, 211), ..well() }, Alarm::NoSubmission),
            (Facts { standing: standing(false, 211), ..well() }, Alarm::PermitLost),
            (Facts { standing: Some(None), ..well() }, Alarm::RegistrationLost),
            (Facts { round_age_ms: Some(1_800_001), ..well() }, Alarm::NoRound),
            (Facts { oldest_proof_ms: Some(300_001), ..well() }, Alarm::VerificationBacklog),
            (Facts { stale_leases: Some(1), ..well() }, Alarm::StaleLeases),
            (Facts { marketplace_gone_ms: Some(600_001), ..well() }, Alarm::MarketplaceGone),
            (Facts { contested_gpus: Some(2), ..well() }, Alarm::ContestedGpus),
            (Facts { free_disk_bytes: Some(999_999_999), ..well() }, Alarm::LowDisk),
            (Facts { clock_ahead_ms: Some(2_001), ..well() }, Alarm::ClockOffset),
        ] {
            assert_eq!(wrong(&facts), [alarm]);
        }
    }

    #[test]
    fn who_sends_no_weights_is_not_late_and_what_is_unknown_is_left_out() {
        let standing = Some(Some(Standing { has_permit: true, silent_blocks: 1_000_000 }));
        assert_eq!(wrong(&Facts { standing, tempo_blocks: None, ..well() }), []);
        assert!(judge(&Facts::default(), &limits()).is_empty());
    }
}

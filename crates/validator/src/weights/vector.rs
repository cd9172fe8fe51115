//! The vector: a round's shares, matched with the metagraph of now and brought within the chain's limits. Pure.

use std::collections::BTreeMap;

use byteleap_chain::{Limits, Metagraph, Rules, Weights};
use byteleap_scoring::Outcome;

use crate::config::{Burn, BurnUid, WeightSettings};
use crate::store::round::{RoundRow, ShareRow};
use crate::store::submission::{Burned, DropReason, Dropped, Terms};

/// Why a round pays nobody.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VectorError {
    /// Nobody scored, or nobody who scored is still there.
    #[error("nobody to pay: the round scored no miner that is still registered")]
    Nobody,
    /// Weight is to be burned, and there is nobody to burn it by.
    #[error(
        "weight is to be burned (weights.burn.share or scoring.zero_round), but weights.burn.uid names nobody who is \
         registered, or this validator itself"
    )]
    NoBurner,
    /// The shares are no weights.
    #[error("the round's shares are not weights: {0}")]
    NotWeights(#[from] byteleap_chain::WeightsError),
}

/// A vector, and what it was made by.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// Whom it pays, and how much.
    pub weights: Weights,
    /// How it differs from the round.
    pub terms: Terms,
}

/// Builds the vector of a round: by uid, without ourselves and without whoever registered after the round; uids that
/// only fill a vector too short for the chain come last, our own at the very end where no other is left.
///
/// # Errors
/// As [`VectorError`].
pub fn build(
    round: &RoundRow,
    shares: &[ShareRow],
    metagraph: &Metagraph,
    rules: &Rules,
    own_uid: u16,
    settings: &WeightSettings,
) -> Result<Built, VectorError> {
    let mut dropped = Vec::new();
    let mut pairs = Vec::new();
    for share in shares {
        let is_same = metagraph
            .by_hotkey(&share.hotkey)
            .is_some_and(|neuron| neuron.uid == share.uid && neuron.registered_at <= round.block);
        let reason = match (is_same, share.uid == own_uid) {
            (false, _) => DropReason::Reregistered,
            (true, true) => DropReason::Own,
            (true, false) => {
                pairs.push((share.uid, share.weight));
                continue;
            }
        };
        dropped.push(Dropped { hotkey: share.hotkey, uid: share.uid, reason });
    }
    let share = if round.outcome == Outcome::Burn { 1.0 } else { settings.burn.share };
    let burned = if share > 0.0 && (share == 1.0 || !pairs.is_empty()) {
        let uid = burner(&settings.burn, metagraph, own_uid).ok_or(VectorError::NoBurner)?;
        pairs = burn(&pairs, uid, share);
        Some(Burned { uid, share })
    } else {
        None
    };
    pairs.sort_by_key(|(uid, _)| *uid);
    let limits = Limits {
        min_allowed: rules.min_allowed_weights,
        max_share: rules.max_weight_limit,
        neurons: u16::try_from(metagraph.neurons.len()).unwrap_or(u16::MAX),
        owner: metagraph.owner_uid(),
        own: Some(own_uid),
    };
    let enforced = settings.enforce_limits;
    let weights = if enforced {
        Weights::emit_within(&pairs, settings.version_key, &limits)
    } else {
        Weights::emit(&pairs, settings.version_key)
    };
    let weights = weights?.ok_or(VectorError::Nobody)?;
    let terms = Terms {
        min_allowed: limits.min_allowed,
        max_share: limits.max_share,
        enforced,
        capped: enforced && largest_share(&pairs) > f64::from(limits.max_share) / f64::from(u16::MAX),
        filled: weights.uids().iter().filter(|uid| pairs.iter().all(|(paid, _)| paid != *uid)).count(),
        version_demanded: rules.weights_version,
        rate_limit_blocks: rules.weights_rate_limit,
        timelocked: rules.commit_reveal,
        burned,
        dropped,
    };
    Ok(Built { weights, terms })
}

fn largest_share(pairs: &[(u16, f64)]) -> f64 {
    let sum: f64 = pairs.iter().map(|(_, weight)| weight).sum();
    pairs.iter().map(|(_, weight)| weight / sum).fold(0.0, f64::max)
}

/// By whose uid weight is burned; ours would not be counted.
fn burner(burn: &Burn, metagraph: &Metagraph, own_uid: u16) -> Option<u16> {
    let uid = match burn.uid {
        BurnUid::Owner => metagraph.owner_uid(),
        BurnUid::Fixed(uid) => Some(uid).filter(|uid| usize::from(*uid) < metagraph.neurons.len()),
    };
    uid.filter(|uid| *uid != own_uid)
}

/// Shares of one, of which `share` goes to `uid` beside what it has (validator spec 6.4).
fn burn(pairs: &[(u16, f64)], uid: u16, share: f64) -> Vec<(u16, f64)> {
    let sum: f64 = pairs.iter().map(|(_, weight)| weight).sum();
    let mut shares: BTreeMap<u16, f64> = pairs
        .iter()
        .map(|(of, weight)| (*of, weight / sum * (1.0 - share)))
        .filter(|(_, weight)| *weight > 0.0)
        .collect();
    *shares.entry(uid).or_default() += share;
    shares.into_iter().collect()
}

/// How much of the whole went elsewhere between two vectors: half the sum of the differences of all shares, 0 to 1.
#[must_use]
pub fn moved_share(new: &[(u16, u16)], old: &[(u16, u16)]) -> f64 {
    differences(new, old).iter().map(|(_, difference)| difference.abs()).sum::<f64>() / 2.0
}

/// By how much each uid's share of the whole differs between two vectors, the largest differences first.
#[must_use]
pub fn differences(new: &[(u16, u16)], old: &[(u16, u16)]) -> Vec<(u16, f64)> {
    let sum = |pairs: &[(u16, u16)]| pairs.iter().map(|(_, value)| f64::from(*value)).sum::<f64>();
    let (new_sum, old_sum) = (sum(new).max(1.0), sum(old).max(1.0));
    let mut differences: BTreeMap<u16, f64> = BTreeMap::new();
    for (uid, value) in new {
        *differences.entry(*uid).or_default() += f64::from(*value) / new_sum;
    }
    for (uid, value) in old {
        *differences.entry(*uid).or_default() -= f64::from(*value) / old_sum;
    }
    let mut differences: Vec<(u16, f64)> = differences.into_iter().collect();
    differences.sort_by(|(_, left), (_, right)| right.abs().total_cmp(&left.abs()));
    differences
}

#[cfg(test)]
mod tests {
    use byteleap_chain::Hotkey;
    use byteleap_scoring::Rules as ScoringRules;
    use proptest::prelude::*;

    use super::super::testing::{chain_rules, neuron, settings};
    use super::*;
    use crate::store::round::RoundKey;

    const OWN: u16 = 0;
    const OWNER: u16 = 5;

    fn hotkey(uid: u16) -> Hotkey {
        Hotkey([uid.to_le_bytes()[0]; 32])
    }

    fn round() -> RoundRow {
        RoundRow {
            key: RoundKey(1),
            at_ms: 0,
            block: 100,
            rules: ScoringRules::default(),
            outcome: Outcome::Scored,
            miners: 0,
            workers: 0,
            max_raw: 0.0,
            mean_norm: 0.0,
        }
    }

    fn metagraph() -> Metagraph {
        let neurons = (0..6).map(|uid| neuron(uid, hotkey(uid))).collect();
        Metagraph { netuid: 128, block: 200, owner_hotkey: hotkey(OWNER), neurons }
    }

    fn shares(pairs: &[(u16, f64)]) -> Vec<ShareRow> {
        pairs.iter().map(|(uid, weight)| ShareRow { hotkey: hotkey(*uid), uid: *uid, weight: *weight }).collect()
    }

    fn built(pairs: &[(u16, f64)], metagraph: &Metagraph, rules: &Rules) -> (Vec<(u16, u16)>, Vec<Dropped>) {
        let Built { weights, terms } =
            build(&round(), &shares(pairs), metagraph, rules, OWN, &settings()).expect("somebody to pay");
        (weights.pairs().collect(), terms.dropped)
    }

    #[test]
    fn shares_become_values_by_uid_and_never_our_own() {
        let (values, dropped) = built(&[(3, 0.25), (1, 0.5), (OWN, 0.25)], &metagraph(), &chain_rules());
        assert_eq!(values, [(1, 65_535), (3, 32_768)]);
        assert_eq!(dropped, [Dropped { hotkey: hotkey(OWN), uid: OWN, reason: DropReason::Own }]);
    }

    #[test]
    fn a_uid_that_changed_hands_since_the_round_gets_nothing() {
        let mut metagraph = metagraph();
        metagraph.neurons[1].hotkey = hotkey(77);
        metagraph.neurons[2].registered_at = 101;
        metagraph.neurons[3].registered_at = 100;
        let (values, dropped) = built(&[(1, 0.5), (2, 0.3), (3, 0.2)], &metagraph, &chain_rules());
        assert_eq!(values, [(3, 65_535)]);
        assert_eq!(dropped.iter().map(|drop| drop.uid).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_vector_too_short_for_the_chain_is_filled_without_ourselves() {
        let rules = Rules { min_allowed_weights: 3, ..chain_rules() };
        assert_eq!(built(&[(2, 1.0)], &metagraph(), &rules).0, [(2, 65_535), (OWNER, 1), (1, 1)]);
        let unlimited = WeightSettings { enforce_limits: false, ..settings() };
        let built = build(&round(), &shares(&[(2, 1.0)]), &metagraph(), &rules, OWN, &unlimited).unwrap();
        assert_eq!((built.weights.uids(), built.terms.filled, built.terms.enforced), ([2].as_slice(), 0, false));
    }

    #[test]
    fn the_limits_that_a_vector_was_made_by_are_told() {
        let rules = Rules {
            min_allowed_weights: 4,
            max_weight_limit: u16::MAX / 2,
            weights_version: 3,
            commit_reveal: true,
            ..chain_rules()
        };
        let shares = shares(&[(1, 0.6), (2, 0.3), (3, 0.1)]);
        let terms = build(&round(), &shares, &metagraph(), &rules, OWN, &settings()).unwrap().terms;
        let expected = Terms {
            min_allowed: 4,
            max_share: u16::MAX / 2,
            enforced: true,
            capped: true,
            filled: 1,
            version_demanded: 3,
            rate_limit_blocks: 20,
            timelocked: true,
            burned: None,
            dropped: Vec::new(),
        };
        assert_eq!(terms, expected);
        let loose = build(&round(), &shares, &metagraph(), &chain_rules(), OWN, &settings()).unwrap().terms;
        assert!(!loose.capped && loose.filled == 0 && !loose.timelocked);
    }

    #[test]
    fn a_round_that_pays_nobody_sends_nothing_and_a_burned_one_pays_the_owner() {
        let build = |round: &RoundRow, metagraph: &Metagraph| {
            build(round, &[], metagraph, &chain_rules(), OWN, &settings()).map(|built| built.weights)
        };
        assert_eq!(build(&round(), &metagraph()), Err(VectorError::Nobody));
        let burned = RoundRow { outcome: Outcome::Burn, ..round() };
        assert_eq!(build(&burned, &metagraph()).unwrap().uids(), [OWNER]);
        let ownerless = Metagraph { owner_hotkey: hotkey(99), ..metagraph() };
        assert_eq!(build(&burned, &ownerless), Err(VectorError::NoBurner));
    }

    #[test]
    fn a_burned_share_leaves_the_rest_in_proportion() {
        let burning = |share, uid| {
            let settings = WeightSettings { burn: Burn { share, uid }, ..settings() };
            let paid = [(1, 0.5), (2, 0.25), (OWN, 0.25)];
            build(&round(), &shares(&paid), &metagraph(), &chain_rules(), OWN, &settings)
        };
        let half = burning(0.5, BurnUid::Owner).unwrap();
        assert_eq!(half.weights.pairs().collect::<Vec<_>>(), [(1, 43_690), (2, 21_845), (OWNER, 65_535)]);
        assert_eq!(half.terms.burned, Some(Burned { uid: OWNER, share: 0.5 }));
        let beside = burning(0.5, BurnUid::Fixed(2)).unwrap();
        assert_eq!(beside.weights.pairs().collect::<Vec<_>>(), [(1, 32_768), (2, 65_535)], "a third and two thirds");
        assert_eq!(burning(1.0, BurnUid::Owner).unwrap().weights.uids(), [OWNER]);
        assert_eq!(burning(0.0, BurnUid::Owner).unwrap().terms.burned, None);
        for nobody in [BurnUid::Fixed(6), BurnUid::Fixed(OWN)] {
            assert_eq!(burning(0.5, nobody), Err(VectorError::NoBurner));
        }
    }

    #[test]
    fn what_moved_between_two_vectors_is_a_share_of_the_whole() {
        assert_eq!(moved_share(&[(1, 100)], &[(1, 65_535)]), 0.0);
        assert_eq!(moved_share(&[(1, 50), (2, 50)], &[(1, 50)]), 0.5);
        assert_eq!(moved_share(&[(2, 1)], &[(1, 1)]), 1.0);
        let differences = differences(&[(1, 50), (2, 50), (3, 100)], &[(1, 50), (2, 50)]);
        assert_eq!(differences, [(3, 0.5), (1, -0.25), (2, -0.25)], "the largest first");
    }

    proptest! {
        #[test]
        fn any_shares_become_a_vector_that_the_chain_can_hold(
            weights in proptest::collection::vec(0.0..1.0_f64, 5),
            min_allowed_weights in 0..10_u16,
        ) {
            let pairs: Vec<(u16, f64)> = (0_u16..).zip(weights).collect();
            let rules = Rules { min_allowed_weights, ..chain_rules() };
            if let Ok(Built { weights, .. }) = build(&round(), &shares(&pairs), &metagraph(), &rules, OWN, &settings()) {
                prop_assert!(min_allowed_weights > 5 || !weights.uids().contains(&OWN));
                prop_assert_eq!(weights.values().iter().max(), Some(&u16::MAX));
                prop_assert!(weights.uids().len() >= usize::from(min_allowed_weights.min(6)));
            }
        }
    }
}

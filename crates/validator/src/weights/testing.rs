//! A subnet for tests.

use std::time::Duration;

use byteleap_chain::{Hotkey, Neuron, Rules};

use crate::config::{Burn, BurnUid, WeightSettings};
use crate::store::submission::Terms;

/// A registered hotkey without anything special.
pub(crate) fn neuron(uid: u16, hotkey: Hotkey) -> Neuron {
    Neuron {
        uid,
        hotkey,
        coldkey: [0; 32],
        axon: None,
        axon_version: 0,
        alpha_stake: 0,
        total_stake: 0,
        validator_permit: false,
        active: true,
        last_update: 0,
        registered_at: 0,
    }
}

/// Hyperparameters that forbid little.
pub(crate) fn chain_rules() -> Rules {
    Rules {
        tempo: 360,
        immunity_period: 0,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version: 0,
        weights_rate_limit: 20,
        serving_rate_limit: 0,
        admin_freeze_window: 10,
        stake_threshold: 0,
        commit_reveal: false,
        reveal_period: 1,
        max_uids: 256,
    }
}

/// What a vector is made by on such a subnet.
pub(crate) fn terms() -> Terms {
    Terms {
        min_allowed: 1,
        max_share: u16::MAX,
        enforced: true,
        capped: false,
        filled: 0,
        version_demanded: 0,
        rate_limit_blocks: 20,
        timelocked: false,
        burned: None,
        dropped: Vec::new(),
    }
}

/// What is configured when nothing is, with a tempo of 100 blocks.
pub(crate) fn settings() -> WeightSettings {
    WeightSettings {
        tempo_blocks: Some(100),
        dry_run: false,
        version_key: 9_010_000,
        enforce_limits: true,
        max_round_age: Duration::from_secs(30 * 60),
        burn: Burn { share: 0.0, uid: BurnUid::Owner },
    }
}

//! Keys made on the spot, and the genesis that knows them: one validator with stake and permit, and the miners.

use std::path::Path;

use byteleap_chain::{
    Hotkey, Signer as _, Wallet,
    wallet::{Passwords, SecretError, WalletError, keypair_from_uri},
};
use byteleap_devchain::{
    Genesis,
    genesis::{Hyperparameters, Neuron, Subnet},
};

/// The subnet of the development chain: the number of the real one.
pub(crate) const NETUID: u16 = 128;
/// The uid of the validator: the first neuron.
pub(crate) const VALIDATOR_UID: u16 = 0;
/// The name of every hotkey.
pub(crate) const HOTKEY_NAME: &str = "default";
/// Stake of the validator in TAO, and what miners ask of one.
pub(crate) const VALIDATOR_STAKE_TAO: u64 = 10_000;

const RAO_PER_TAO: u64 = 1_000_000_000;
/// Blocks between two settings of weights.
const WEIGHTS_RATE_LIMIT_BLOCKS: u64 = 3;
/// The account that owns every hotkey and the subnet: a well-known development key.
const OWNER: &str = "//Alice";

/// The hotkeys of one network.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) validator: Hotkey,
    pub(crate) miners: Vec<Hotkey>,
    owner: Hotkey,
}

/// Why the keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A wallet cannot be read or made.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The well-known owner cannot be derived.
    #[error("the owner's key cannot be derived")]
    Owner(#[from] SecretError),
}

impl Keys {
    /// Loads the wallets, making those that are missing.
    pub(crate) fn in_wallets(wallets: &Path, miners: u16) -> Result<Self, KeysError> {
        let owner = keypair_from_uri(OWNER)?.hotkey();
        let hotkey = |name: &str| -> Result<Hotkey, WalletError> {
            let exists = wallets.join(name).join("hotkeys").join(HOTKEY_NAME).exists();
            let wallet = if exists {
                Wallet::load(wallets, name, HOTKEY_NAME, &Passwords::default())?
            } else {
                Wallet::create(wallets, name, HOTKEY_NAME, &owner)?
            };
            Ok(wallet.keypair.hotkey())
        };
        let validator = hotkey("validator")?;
        let miners = (1..=miners).map(|number| hotkey(&miner_name(number))).collect::<Result<_, _>>()?;
        Ok(Self { validator, miners, owner })
    }

    /// Block 0: the validator is uid 0 and holds all stake, the miners follow in order.
    pub(crate) fn genesis(&self) -> Genesis {
        let stake_rao = VALIDATOR_STAKE_TAO * RAO_PER_TAO;
        let neuron =
            |hotkey: &Hotkey, stake_rao| Neuron { hotkey: *hotkey, coldkey: self.owner, stake_rao, axon: None };
        let mut neurons = vec![neuron(&self.validator, stake_rao)];
        neurons.extend(self.miners.iter().map(|miner| neuron(miner, 0)));
        Genesis {
            balances_rao: vec![(self.owner, stake_rao)],
            stake_threshold_rao: RAO_PER_TAO,
            subnets: vec![Subnet {
                netuid: NETUID,
                owner_hotkey: self.owner,
                owner_coldkey: self.owner,
                hyperparameters: Hyperparameters {
                    weights_rate_limit_blocks: WEIGHTS_RATE_LIMIT_BLOCKS,
                    ..Hyperparameters::default()
                },
                neurons,
            }],
        }
    }
}

/// The name of a miner, counted from 1: of its wallet, its folder and its log.
pub(crate) fn miner_name(number: u16) -> String {
    format!("miner-{number}")
}

/// The name of a worker, counted from 1.
pub(crate) fn worker_name(number: u16) -> String {
    format!("worker-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_the_same_from_run_to_run() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::in_wallets(folder.path(), 1).unwrap();
        let second = Keys::in_wallets(folder.path(), 2).unwrap();
        assert_eq!(first.validator, second.validator);
        assert_eq!(first.miners[0], second.miners[0]);
        assert_ne!(second.miners[0], second.miners[1]);
    }

    #[test]
    fn the_validator_is_the_first_neuron_and_holds_the_stake() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::in_wallets(folder.path(), 2).unwrap();
        let subnet = &keys.genesis().subnets[0];
        let stakes: Vec<_> = subnet.neurons.iter().map(|neuron| (neuron.hotkey, neuron.stake_rao > 0)).collect();
        assert_eq!(stakes, [(keys.validator, true), (keys.miners[0], false), (keys.miners[1], false)]);
        assert_eq!(usize::from(VALIDATOR_UID), 0);
    }
}

//! The small network that the tests talk to: one subnet, two validators and two miners, keys of the well-known test seeds.

use byteleap_devchain::{
    DevChain, Genesis, Options, Pace,
    genesis::{Hyperparameters, Neuron, Subnet},
};
use byteleap_protocol::hotkey::{Hotkey, Keypair, Signer};

/// The subnet of ByteLeap.
pub(crate) const NETUID: u16 = 128;

/// One TAO in rao.
pub(crate) const TAO: u64 = 1_000_000_000;

/// A key pair of the tests; each letter is another one.
pub(crate) fn key(letter: u8) -> Keypair {
    Keypair::from_seed(&[letter; 32])
}

/// The owner of all hotkeys, with a balance.
pub(crate) fn coldkey() -> Keypair {
    key(b'c')
}

/// uid 0: most stake.
pub(crate) fn validator() -> Keypair {
    key(b'v')
}

/// uid 1: no stake, hence no permit.
pub(crate) fn miner() -> Keypair {
    key(b'm')
}

/// uid 2: no stake either.
pub(crate) fn other_miner() -> Keypair {
    key(b'n')
}

/// Weights may be set in every block, so that a test gets past the rate limit unless it is about it.
pub(crate) fn lenient() -> Hyperparameters {
    Hyperparameters { weights_rate_limit_blocks: 0, serving_rate_limit_blocks: 0, ..Hyperparameters::default() }
}

/// The network with the subnet's rules.
pub(crate) fn genesis(hyperparameters: Hyperparameters) -> Genesis {
    let neuron = |key: Keypair, stake_rao| Neuron { hotkey: key.hotkey(), coldkey: coldkey().hotkey(), stake_rao };
    Genesis {
        balances_rao: vec![(coldkey().hotkey(), 100 * TAO)],
        stake_threshold_rao: 0,
        subnets: vec![Subnet {
            netuid: NETUID,
            owner_hotkey: Hotkey([0; 32]),
            owner_coldkey: coldkey().hotkey(),
            hyperparameters,
            neurons: vec![neuron(validator(), 1000 * TAO), neuron(miner(), 0), neuron(other_miner(), 0)],
        }],
    }
}

/// A chain on a free port.
pub(crate) async fn start_with(genesis: Genesis, pace: Pace) -> DevChain {
    let listen = Some(([127, 0, 0, 1], 0).into());
    DevChain::start(genesis, Options { listen, pace }).await.expect("the chain starts")
}

//! The small network that the tests talk to: one subnet, one validator and two miners, on a chain that serves a free port.

use byteleap_devchain::{
    DevChain, Genesis, Options, Pace,
    genesis::{Hyperparameters, Neuron, Subnet},
};
use byteleap_protocol::hotkey::{Hotkey, Keypair, Signer};
use subxt::{
    OnlineClient, SubstrateConfig,
    error::{BackendError, DispatchError, ExtrinsicError, RpcError, TransactionEventsError},
    rpcs::{Error as ClientError, RpcClient, UserError},
};

/// The subnet of ByteLeap.
pub(crate) const NETUID: u16 = 128;
/// One TAO in rao.
pub(crate) const TAO: u64 = 1_000_000_000;

/// The owner of the subnet and of all hotkeys, with a balance of 100 TAO.
pub(crate) fn coldkey() -> Keypair {
    Keypair::from_seed(&[b'c'; 32])
}

/// uid 0, with a stake of 1000 TAO.
pub(crate) fn validator() -> Keypair {
    Keypair::from_seed(&[b'v'; 32])
}

/// uid 1, without stake.
pub(crate) fn miner() -> Keypair {
    Keypair::from_seed(&[b'm'; 32])
}

/// uid 2, without stake.
pub(crate) fn other_miner() -> Keypair {
    Keypair::from_seed(&[b'o'; 32])
}

/// Registered nowhere.
pub(crate) fn stranger() -> Keypair {
    Keypair::from_seed(&[b's'; 32])
}

/// Rules without a rate limit.
pub(crate) fn unhurried() -> Hyperparameters {
    Hyperparameters { weights_rate_limit_blocks: 0, serving_rate_limit_blocks: 0, ..Hyperparameters::default() }
}

/// The network under the given rules.
pub(crate) fn genesis(hyperparameters: Hyperparameters) -> Genesis {
    let neuron =
        |key: Keypair, stake_rao| Neuron { hotkey: key.hotkey(), coldkey: coldkey().hotkey(), stake_rao, axon: None };
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

/// What became of a submitted extrinsic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Its call succeeded.
    Applied,
    /// It is in a block, and its call failed with the pallet's error of this name.
    Failed(String),
    /// The pool refused it: JSON-RPC code and reason.
    Refused(i32, String),
}

/// Its call failed with the error of this name.
pub(crate) fn failed(name: &str) -> Outcome {
    Outcome::Failed(name.to_owned())
}

/// The pool refused it as an invalid transaction for this reason.
pub(crate) fn refused(reason: &str) -> Outcome {
    Outcome::Refused(1010, reason.to_owned())
}

/// A chain that makes blocks on command, and clients connected to it.
pub(crate) struct World {
    pub(crate) chain: DevChain,
    pub(crate) client: OnlineClient<SubstrateConfig>,
    pub(crate) rpc: RpcClient,
}

impl World {
    /// The network under the given rules.
    pub(crate) async fn under(hyperparameters: Hyperparameters) -> Self {
        Self::of(genesis(hyperparameters)).await
    }

    /// The network of that genesis.
    pub(crate) async fn of(genesis: Genesis) -> Self {
        let chain = start(genesis, Pace::OnCommand).await;
        let url = chain.url().expect("it serves");
        let client = OnlineClient::from_insecure_url(&url).await.expect("subxt connects");
        let rpc = RpcClient::from_insecure_url(&url).await.expect("a plain client connects");
        Self { chain, client, rpc }
    }

    /// Makes so many blocks.
    pub(crate) fn produce_blocks(&self, count: usize) {
        (0..count).for_each(|_| self.chain.produce_block());
    }

    /// Submits an extrinsic and makes the block that takes it.
    pub(crate) async fn send(&self, extrinsic: Vec<u8>) -> Outcome {
        let transactions = self.client.tx().await.expect("the head is read");
        let progress = match transactions.from_bytes(extrinsic).submit_and_watch().await {
            Ok(progress) => progress,
            Err(error) => return pool_refusal(error),
        };
        self.chain.produce_block();
        let included = progress.wait_for_finalized().await.expect("the next block takes it");
        match included.wait_for_success().await {
            Ok(_) => Outcome::Applied,
            Err(TransactionEventsError::ExtrinsicFailed(DispatchError::Module(error))) => {
                failed(&error.details().expect("the metadata knows the error").variant.name)
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// The weights of a uid at the head.
    pub(crate) async fn weights(&self, uid: u16) -> Vec<(u16, u16)> {
        let at = self.client.at_current_block().await.expect("the head is read");
        let address = subxt::dynamic::storage::<(u16, u16), Vec<(u16, u16)>>("SubtensorModule", "Weights");
        let value = at.storage().fetch(address, (NETUID, uid)).await.expect("an entry of the metadata");
        value.decode().expect("pairs of uid and weight")
    }
}

/// A chain on a free port.
pub(crate) async fn start(genesis: Genesis, pace: Pace) -> DevChain {
    let listen = Some(([127, 0, 0, 1], 0).into());
    DevChain::start(genesis, Options { listen, pace, ..Options::default() }).await.expect("the chain starts")
}

fn pool_refusal(error: ExtrinsicError) -> Outcome {
    match error {
        ExtrinsicError::ErrorSubmittingTransaction(BackendError::Rpc(RpcError::ClientError(ClientError::User(
            UserError { code, data, .. },
        )))) => Outcome::Refused(code, data.map_or_else(String::new, |data| data.get().trim_matches('"').to_owned())),
        error => panic!("{error:?}"),
    }
}

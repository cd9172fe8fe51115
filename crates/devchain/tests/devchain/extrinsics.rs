//! `subxt` by itself, with nothing of ours between it and the chain.

use std::time::Duration;

use byteleap_devchain::Pace;
use byteleap_protocol::hotkey::{Keypair, Signer as _};
use subxt::{
    OnlineClient, SubstrateConfig, dynamic,
    utils::{AccountId32, MultiSignature},
};

use crate::world::{self, NETUID};

/// Lets `subxt` sign with our key pair.
struct By(Keypair);

impl subxt::transactions::Signer<SubstrateConfig> for By {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.0.hotkey().0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(self.0.sign(payload).0)
    }
}

#[tokio::test]
async fn subxt_sets_weights_and_reads_them_back() {
    let chain = world::start_with(world::genesis(world::lenient()), Pace::Every(Duration::from_millis(20))).await;
    let client = OnlineClient::<SubstrateConfig>::from_insecure_url(chain.url().unwrap()).await.unwrap();
    let call = dynamic::tx(
        "SubtensorModule",
        "set_mechanism_weights",
        (NETUID, 0_u8, vec![1_u16, 2], vec![21_845_u16, 65_535], 0_u64),
    );
    let submitted = client.tx().await.unwrap().sign_and_submit_then_watch_default(&call, &By(world::validator())).await;
    submitted.unwrap().wait_for_finalized_success().await.unwrap();

    let at = client.at_current_block().await.unwrap();
    let address = dynamic::storage::<(u16, u16), Vec<(u16, u16)>>("SubtensorModule", "Weights");
    let weights = at.storage().fetch(address, (NETUID, 0)).await.unwrap().decode().unwrap();
    assert_eq!(weights, [(1, 21_845), (2, 65_535)]);
}

//! Enrolment tokens: the marketplace's for a miner with a live worker of that name, and for nobody else.

use std::time::Duration;

use byteleap_localnet::market::{self, Command, TokenPolicy};
use byteleap_protocol::payload::TokenRecord;
use byteleap_protocol::synapse::SynapseKind;
use serde_json::json;

use super::client::{Miner, worker};
use super::world::{Real, World};

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

async fn ask(miner: &Miner, worker_id: &str) -> TokenRecord {
    let answer = miner.call(SynapseKind::GetVmgwEnrollToken, &json!({ "worker_id": worker_id })).await.served();
    serde_json::from_value(answer).unwrap()
}

#[tokio::test]
async fn a_token_goes_from_the_marketplace_to_the_miner_of_a_live_worker_and_to_nobody_else() {
    let mut world = World::start(Real::Nothing, &[]).await;
    let port = world.port_of(0).await;
    let miner = Miner::connect(world.miner(1), world.validator(), port).await;
    let liar = Miner::connect(world.miner(2), world.validator(), port).await;
    miner.report(miner.hotkey, &[worker("mine"), worker("later")]).await;
    let admin = world.network.plan().daemons[0].admin;
    while byteleap_daemon::admin::get(admin, "/status").await.unwrap()["marketplace"]["state"] != "ready" {
        tokio::time::sleep(LOOK_AGAIN).await;
    }

    let token = ask(&miner, "mine").await;
    assert_eq!((token.code, token.worker_id.as_str()), (0, "mine"), "{token:?}");
    assert!(token.token.as_deref().is_some_and(|token| token.starts_with("localnet-token-")), "{token:?}");
    assert!(token.expires_at.is_some() && token.enrollment_url.is_some());
    assert_eq!(ask(&miner, "mine").await.token, token.token, "kept until it ends");

    assert_eq!(ask(&liar, "mine").await.code, 1000, "another's worker");
    assert_eq!(ask(&miner, "nobody").await.code, 1000);
    let market = world.network.plan().market;
    market::tell(market, &Command::Tokens(TokenPolicy::Pending)).await.unwrap();
    let pending = ask(&miner, "later").await;
    assert_eq!((pending.code, pending.token, pending.try_again_in_sec), (0, None, Some(2)));
    market::tell(market, &Command::Tokens(TokenPolicy::Refuse)).await.unwrap();
    assert_eq!(ask(&miner, "later").await.code, 1003);
    world.network.stop().await;
}

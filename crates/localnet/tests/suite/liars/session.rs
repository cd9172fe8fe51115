//! A miner that lies about who it is, or about what it said before: refused by headers, sessions and the axon, and
//! counted against nobody but itself.

use byteleap_protocol::{
    hotkey::Signer,
    payload::TaskRequest,
    session::ReplayWindow,
    synapse::{Request, SynapseKind},
};
use serde_json::json;

use super::{
    client::{Miner, worker},
    world::{Real, World, refused, score_of},
};

const TASK: SynapseKind = SynapseKind::Task;

/// The request with another value of a header, or without it.
fn with_header(mut request: Request, name: &'static str, value: Option<String>) -> Request {
    request.headers.retain(|(found, _)| *found != name);
    request.headers.extend(value.map(|value| (name, value)));
    request
}

#[tokio::test]
async fn a_miner_that_lies_about_itself_is_refused_and_harms_nobody() {
    let mut world = World::start(Real::Nothing, &[]).await;
    let port = world.port_of(0).await;
    let (liar_key, victim_key) = (world.miner(1), world.miner(2));
    let liar = Miner::connect(liar_key.clone(), world.validator(), port).await;
    let victim = Miner::connect(victim_key, world.validator(), port).await;
    let poll = |miner: &Miner| miner.seal(TASK, &TaskRequest::new(miner.hotkey, 0.0));
    victim.report(victim.hotkey, &[with_gpu("honest", "GPU-1")]).await;

    // Headers: whose signature does not hold is nobody.
    let unsigned = with_header(liar.request(TASK, poll(&liar)), "bt_header_dendrite_signature", None);
    let answer = liar.send(TASK, unsigned).await;
    assert_eq!(answer.http(), (401, "Not Verified with error: Missing signature"), "missing signature");

    let forged = liar_key.sign(b"something else").to_string();
    let forged = with_header(liar.request(TASK, poll(&liar)), "bt_header_dendrite_signature", Some(forged));
    assert_eq!(liar.send(TASK, forged).await.http().0, 401, "forged signature");

    let impersonating = liar.request(TASK, poll(&liar));
    let impersonating = with_header(impersonating, "bt_header_dendrite_hotkey", Some(victim.hotkey.to_string()));
    assert_eq!(liar.send(TASK, impersonating).await.http().0, 401, "own signature under another hotkey");

    let captured = victim.request(TASK, poll(&victim));
    victim.send(TASK, captured.clone()).await.served();
    let answer = liar.send(TASK, captured).await;
    assert!(answer.http().1.contains("Nonce is too old"), "replayed request: {answer:?}");

    // Body: it may name nobody but the signer.
    let mut other_body = liar.request(TASK, poll(&liar));
    other_body.body = other_body.body.replace(&liar.hotkey.to_string(), &victim.hotkey.to_string());
    let answer = liar.send(TASK, other_body).await;
    let told = (401, "Not Verified with error: body names another caller than the signed header");
    assert_eq!(answer.http(), told, "body hotkey is not header hotkey");

    // Session: it serves whom it was opened for, and each package once.
    let stolen = poll(&victim);
    assert_eq!(liar.deliver(TASK, stolen.clone()).await.code(), 4012, "impersonated session");
    victim.deliver(TASK, stolen).await.served();

    let package = poll(&liar);
    liar.deliver(TASK, package.clone()).await.served();
    assert_eq!(liar.deliver(TASK, package).await.code(), 4020, "replayed package");

    let (first, second) = (poll(&liar), poll(&liar));
    liar.deliver(TASK, second.clone()).await.served();
    liar.deliver(TASK, first.clone()).await.served();
    for again in [first, second] {
        assert_eq!(liar.deliver(TASK, again).await.code(), 4020, "reordered package, a second time");
    }
    let late = poll(&liar);
    let newest = (0..ReplayWindow::SIZE).map(|_| poll(&liar)).last().unwrap();
    liar.deliver(TASK, newest).await.served();
    assert_eq!(liar.deliver(TASK, late).await.code(), 4020, "package reordered further than the window");

    let heartbeat = liar.seal(SynapseKind::Heartbeat, &json!({ "hotkey": liar.hotkey, "workers": [] }));
    assert_eq!(liar.deliver(TASK, heartbeat).await.code(), 4011, "package of another kind");

    // Heartbeats: what is said of another's workers and cards is said of one's own.
    liar.report(victim.hotkey, &[worker("forged")]).await;
    let answer = liar.report(liar.hotkey, &[with_gpu("thief", "GPU-1")]).await;
    let message = answer["message"].as_str().unwrap().to_owned();
    assert!(message.contains("1 GPUs held by another worker: GPU-1"), "GPU uuid of another miner: {message}");

    let told = world
        .explained(liar.hotkey, "both of the liar's workers are scored", |told| {
            told["workers"].as_array().is_some_and(|workers| workers.len() == 2)
        })
        .await;
    let counted = |code| refused(&told, code);
    assert_eq!(counted("other_caller"), 1);
    assert_eq!(counted("unknown_session"), 1);
    assert_eq!(counted("replayed_package"), 4);
    assert_eq!(counted("unreadable_package"), 1);
    assert_eq!(counted("gpu_of_another"), 1);
    let metrics = world.metrics().await;
    assert!(metrics.contains(r#"requests_refused_total{code="replayed_package"} 4"#), "{metrics}");
    for lie in ["forged", "thief"] {
        assert_eq!(score_of(&told, lie)["performance"], 0.0, "{lie} earned");
    }
    assert_eq!(told["miner"]["weight"], 0.0, "the liar earned");
    let text = world.explained_to_people(liar.hotkey);
    assert!(text.contains("  replayed_package: 4 times, last "), "{text}");

    let told = world.explained(victim.hotkey, "the victim is scored", |told| told["miner"].is_object()).await;
    assert_eq!(told["refusals"], json!([]), "nothing is held against the victim");
    let workers = told["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 1, "nobody reports for the victim but itself");
    world.network.stop().await;
}

/// A worker with a card.
fn with_gpu(worker_id: &str, uuid: &str) -> serde_json::Value {
    let mut worker = worker(worker_id);
    worker["system_info"] = json!({ "gpu_plugin": [{ "uuid": uuid, "name": "RTX 4090" }] });
    worker
}

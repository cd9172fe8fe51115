//! The API as its callers see it: over HTTP, with tokens of every role.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use byteleap_chain::{Chain, FixedChain};
use byteleap_daemon::clock::ManualClock;
use byteleap_daemon::config::{Config, Sources};
use byteleap_protocol::hotkey::{Hotkey, Keypair, Signer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::token::{Role, Token, TokenFile};
use super::*;
use crate::config::{KEYS, LiveSettings, Settings};
use crate::store::DatabaseUrl;
use crate::store::heartbeat::Heartbeat;
use crate::store::testing::beat;

const NETUID: u16 = 128;
const MINER: Hotkey = Hotkey([7; 32]);
const NOW_MS: i64 = 1_700_000_000_000;

/// A validator's API on a port of its own, with one miner that has one worker.
struct Served {
    address: SocketAddr,
    store: Store,
    clock: Arc<ManualClock>,
    tokens: TokenFile,
    _folder: TempDir,
}

impl Served {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url: DatabaseUrl = format!("sqlite:///{}", folder.path().join("validator.db").display()).parse().unwrap();
        let store = Store::open(&url).await.unwrap();
        store.migrate_up(NOW_MS).await.unwrap();
        let mut worker = beat("rig");
        worker.capabilities = vec!["cpu_matrix".to_owned()];
        let heartbeat =
            Heartbeat { hotkey: MINER, version: None, public_ip: None, workers: vec![worker], at_ms: NOW_MS };
        store.record_heartbeat(&heartbeat).await.unwrap();
        let signer = Keypair::from_seed(&[5; 32]);
        let chain = FixedChain::of(NETUID, &[signer.hotkey(), MINER]);
        let members = Members::fixed(chain.metagraph(NETUID).await.unwrap());
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let settings = settings(&url);
        let live = LiveSettings::of(&settings);
        let tokens = TokenFile::at(&folder.path().join("tokens.json"));
        let api = Api {
            store: store.clone(),
            members,
            clock: clock.clone(),
            alarms: Alarms::default(),
            alarm_limits: live.alarms.clone(),
            challenge_rules: live.challenge.clone(),
            weights: Preparer {
                store: store.clone(),
                chain: Arc::new(chain),
                own: signer.hotkey(),
                clock: clock.clone(),
                netuid: NETUID,
                settings: settings.weights.clone(),
            },
            lease_source: settings.lease_source,
            own: signer.hotkey(),
            tokens: tokens.clone(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router(&api)).await });
        Self { address, store, clock, tokens, _folder: folder }
    }

    /// A token of this role.
    fn token(&self, role: Role) -> String {
        let token = Token::random(&mut rand_core::OsRng);
        self.tokens.create(&uuid::Uuid::new_v4().to_string(), role, None, &token, NOW_MS).unwrap();
        token.reveal()
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: Option<String>) -> (StatusCode, Value) {
        let mut request = reqwest::Client::new().request(method, format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str, token: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, &format!("{ROOT}{path}"), Some(token), None).await
    }
}

fn settings(url: &DatabaseUrl) -> Settings {
    let arguments = [
        format!("netuid={NETUID}"),
        "wallet.name=validator".to_owned(),
        "wallet.hotkey=default".to_owned(),
        format!("database.url=sqlite:///{}", url.file().unwrap().display()),
    ];
    let sources = Sources { arguments: arguments.to_vec(), ..Sources::default() };
    Settings::read(&Config::load(KEYS, &sources).unwrap()).unwrap()
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

/// Every route of the document with its method, its parameters filled in.
fn every_route() -> Vec<(Method, String)> {
    let document = json!(document());
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{hotkey}", &MINER.to_string())
            .replace("{worker_id}", "rig")
            .replace("{round}", "1")
            .replace("{id}", "none");
        for method in methods.as_object().unwrap().keys() {
            routes.push((method.to_uppercase().parse().unwrap(), filled.clone()));
        }
    }
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

#[tokio::test]
async fn nothing_is_told_without_a_token_that_is_known_and_in_time() {
    let served = Served::start().await;
    let token = Token::random(&mut rand_core::OsRng);
    served.tokens.create("old", Role::Operator, Some(NOW_MS), &token, NOW_MS - 1).unwrap();
    let stranger = Token::random(&mut rand_core::OsRng).reveal();
    for (method, path) in every_route() {
        for (token, expected) in [
            (None, "token_missing"),
            (Some(stranger.as_str()), "token_unknown"),
            (Some("secret"), "token_unknown"),
            (Some(token.reveal().as_str()), "token_expired"),
        ] {
            let (status, body) = served.ask(method.clone(), &path, token, None).await;
            assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, expected), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_role_reaches_what_it_is_for_and_nothing_else() {
    let served = Served::start().await;
    let mut forbidden = Vec::new();
    for role in Role::ALL {
        let token = served.token(role);
        for (method, path) in every_route() {
            let (status, body) = served.ask(method.clone(), &path, Some(&token), Some("{}".to_owned())).await;
            if status == StatusCode::FORBIDDEN {
                assert_eq!(code(&body), "role_forbids");
                forbidden.push(format!("{role} {method} {}", path.replace(&MINER.to_string(), "M")));
            } else {
                let reached = [200, 400, 404, 409].contains(&status.as_u16());
                assert!(reached, "{role} {method} {path}: {status} {body}");
            }
        }
    }
    assert_eq!(
        forbidden,
        [
            "read POST /api/v1/challenges",
            "read DELETE /api/v1/leases/M/rig",
            "read PUT /api/v1/leases/M/rig",
            "marketplace GET /api/v1/alarms",
            "marketplace GET /api/v1/challenges",
            "marketplace POST /api/v1/challenges",
            "marketplace GET /api/v1/challenges/none",
            "marketplace GET /api/v1/explain/M",
            "marketplace GET /api/v1/rounds",
            "marketplace GET /api/v1/rounds/1",
            "marketplace GET /api/v1/scores/M",
            "marketplace GET /api/v1/verifier",
            "marketplace GET /api/v1/weights/preview",
            "marketplace GET /api/v1/weights/submissions",
        ]
    );
}

#[tokio::test]
async fn a_marketplace_sets_repeats_and_ends_a_lease() {
    let served = Served::start().await;
    let market = served.token(Role::Marketplace);
    let path = format!("{ROOT}/leases/{MINER}/rig");
    let set = async |score: &str| {
        served.ask(Method::PUT, &path, Some(&market), Some(format!(r#"{{"score": {score}}}"#))).await
    };
    assert_eq!(set("1.5").await, (StatusCode::OK, json!({ "changed": true })));
    assert_eq!(set("1.5").await, (StatusCode::OK, json!({ "changed": false })));
    for refused in ["0", "-1", "1e400", "NaN", "\"1\"", "null"] {
        let (status, body) = set(refused).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    let (_, worker) = served.get(&format!("/workers/{MINER}/rig"), &market).await;
    assert_eq!(worker["worker"]["lease_score"], 1.5);
    let (_, leases) = served.get("/leases", &market).await;
    assert_eq!((&leases["items"][0]["source"], &leases["items"][0]["stale"]), (&json!("api"), &json!(false)));
    served.clock.advance(std::time::Duration::from_secs(30 * 86_400));
    let (_, leases) = served.get("/leases", &market).await;
    assert_eq!(leases["items"][0]["stale"], true);
    let (status, _) = served.ask(Method::DELETE, &path, Some(&market), None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(served.get("/leases", &market).await.1["items"], json!([]));
    let (_, history) = served.get(&format!("/leases/{MINER}/rig/history"), &market).await;
    assert_eq!((&history["items"][0]["new"], &history["items"][1]["old"]), (&json!(0.0), &json!(null)));
}

#[tokio::test]
async fn an_operators_test_is_a_challenge_that_counts_for_nothing() {
    let served = Served::start().await;
    let operator = served.token(Role::Operator);
    let order = |kind: &str, worker: &str| json!({ "hotkey": MINER, "worker_id": worker, "kind": kind });
    let test = async |order: Value| {
        served.ask(Method::POST, &format!("{ROOT}/challenges"), Some(&operator), Some(order.to_string())).await
    };
    for (order, refused) in [
        (order("gpu_matrix", "rig"), "worker_incapable"),
        (order("cpu_matrix", "nobody"), "worker_not_online"),
        (order("quantum", "rig"), "bad_body"),
    ] {
        assert_eq!(code(&test(order).await.1), refused);
    }
    let (status, made) = test(order("cpu_matrix", "rig")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(code(&test(order("cpu_matrix", "rig")).await.1), "worker_busy");
    let id = made["challenge_id"].as_str().unwrap();
    let (_, whole) = served.get(&format!("/challenges/{id}"), &operator).await;
    assert_eq!((&whole["challenge"]["counted"], &whole["challenge"]["status"]), (&json!(false), &json!("created")));
    let sent = served.store.send_challenges(MINER, 9, NOW_MS, NOW_MS + 1000).await.unwrap();
    assert_eq!(sent.iter().map(|challenge| challenge.id.as_str()).collect::<Vec<_>>(), [id]);
    served.store.sweep_challenges(NOW_MS + 10_000, 0, 0).await.unwrap();
    let (_, failed) = served.get(&format!("/challenges?worker=rig&status=failed&hotkey={MINER}"), &operator).await;
    assert_eq!(failed["items"][0]["code"], "commitment_late");
    let mut snapshot = served.store.snapshot().await.unwrap();
    assert_eq!(snapshot.outcomes_from(0, 0).await.unwrap().0, []);
    assert_eq!(served.store.missed_challenges(MINER, 9).await.unwrap(), []);
}

#[tokio::test]
async fn a_question_that_cannot_be_read_says_why() {
    let served = Served::start().await;
    let reader = served.token(Role::Read);
    for (path, status, expected) in [
        ("/miners/5nobody", 400, "bad_path"),
        ("/workers?limit=0", 400, "bad_query"),
        ("/workers?limit=501", 400, "bad_query"),
        ("/workers?stat=online", 400, "bad_query"),
        ("/workers?after=soon", 400, "bad_query"),
        ("/challenges?status=lost", 400, "bad_query"),
        ("/rounds/latest", 400, "bad_path"),
        ("/rounds/9", 404, "round_unknown"),
        ("/nothing", 404, "route_unknown"),
        ("/weights/preview", 409, "no_weights"),
    ] {
        let (found, body) = served.get(path, &reader).await;
        assert_eq!((found.as_u16(), code(&body)), (status, expected), "{path}: {body}");
        assert!(body["error"]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{path}");
    }
    let (status, body) = served.ask(Method::POST, &format!("{ROOT}/miners"), Some(&reader), None).await;
    assert_eq!((status.as_u16(), code(&body)), (405, "method_not_allowed"));
}

#[tokio::test]
async fn the_network_is_told_with_our_own_place_in_it() {
    let served = Served::start().await;
    let (_, network) = served.get("/network", &served.token(Role::Read)).await;
    assert_eq!((&network["netuid"], &network["own"]["uid"]), (&json!(NETUID), &json!(0)));
    assert_eq!(network["neurons"][1]["hotkey"], json!(MINER));
}

#[test]
fn the_document_in_the_repository_is_that_of_the_routes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let document = document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("BYTELEAP_BLESS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == document, "docs/openapi.json is old: BYTELEAP_BLESS=1 with this test writes it");
}

//! A whole round through the desk: a real small challenge, computed by the worker's code and judged by ours; then
//! everything that must not pass.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use byteleap_chain::{Chain, FixedChain};
use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::cpu::compute;
use byteleap_compute::gpu::verify::Tolerance;
use byteleap_daemon::clock::{Clock, ManualClock};
use byteleap_daemon::live::Live;
use byteleap_protocol::Object;
use byteleap_protocol::challenge::{ChallengeData, ChallengeItem, TimeoutSeconds};
use byteleap_protocol::feedback::{Outcome, WorkerFeedback};
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{Iterations, MatrixSize, Unit};
use byteleap_protocol::merkle::{MerkleTree, NodeHash};
use byteleap_protocol::payload::{
    Commitment, CommitmentData, HeartbeatData, ProofData, ProofRequest, ProofResponse, TaskRequest, TokenRequest,
};
use serde_json::json;
use tokio::sync::Notify;

use super::schedule::Scheduler;
use super::state::Status;
use super::stored_proof;
use super::units::CommittedUnit;
use super::verify::{Pace, Verifier};
use super::{CpuRules, GpuRules, Kinds, Rules, Spread};
use crate::alarm::Limits;
use crate::desk::Desk;
use crate::feedback::Feedback;
use crate::metagraph::Members;
use crate::refusal::Refusal;
use crate::score::facts::Known;
use crate::score::{ScoredRound, Scorer};
use crate::store::Store;
use crate::store::challenge::ChallengeRow;
use crate::store::lease::LeaseScore;
use crate::store::queue::Claim;
use crate::store::testing::{self, on_both_engines};

pub(super) const MINER: Hotkey = Hotkey([1; 32]);
pub(super) const STRANGER: Hotkey = Hotkey([2; 32]);
pub(super) const START_MS: i64 = 1_760_000_000_000;
pub(super) const INTERVAL_S: u64 = 240;

/// A validator without network: everything behind the desk, and a clock in our hands.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) clock: Arc<ManualClock>,
    pub(super) desk: Desk,
    pub(super) scheduler: Scheduler,
    pub(super) verifier: Verifier,
    pub(super) rules: Live<Rules>,
    newest_round: Live<Option<ScoredRound>>,
}

pub(super) fn rules() -> Rules {
    Rules {
        kinds: Kinds::Cpu,
        interval_ms: INTERVAL_S as i64 * 1000,
        timeout: TimeoutSeconds::new(60).unwrap(),
        commitment_grace_ms: 5000,
        proof_timeout_ms: 60_000,
        cpu: CpuRules {
            matrix_size: MatrixSize::new(100).unwrap(),
            size_variance: 0.1,
            iterations: Iterations::new(2).unwrap(),
            rows: Spread { base: 8, variance: 0.5 },
        },
        gpu: GpuRules {
            matrix_size: MatrixSize::new(64).unwrap(),
            size_variance: 0.1,
            iterations: Iterations::new(2).unwrap(),
            coordinates: Spread { base: 10, variance: 0.2 },
            rows: Spread { base: 2, variance: 0.5 },
            tolerance: Tolerance { row_sample_rate: 0.5, ..Tolerance::default() },
            model_allowlist: vec!["rtx 4090".to_owned()],
            trusted_keys: Vec::new(),
            accept_host_keys: true,
        },
    }
}

fn limits() -> Limits {
    Limits {
        webhook: None,
        verification_wait: Duration::from_secs(300),
        lease_stale_after: Duration::from_secs(1800),
        min_free_disk_bytes: 0,
        max_clock_offset: Duration::from_secs(2),
    }
}

impl World {
    pub(super) async fn new(rules: Rules) -> Self {
        let store = testing::store().await;
        let clock = Arc::new(ManualClock::new(START_MS));
        let metagraph = FixedChain::of(128, &[MINER, STRANGER]).metagraph(128).await.unwrap();
        let (rules, proof_arrived) = (Live::from(rules), Arc::new(Notify::new()));
        let shared: Arc<dyn Clock> = clock.clone();
        let newest_round = Live::from(None);
        let (alarms, newest) = (Live::from(limits()), newest_round.clone());
        let feedback = Feedback::new(store.clone(), Arc::clone(&shared), rules.clone(), alarms, newest);
        let desk = Desk::new(store.clone(), rules.clone(), Arc::clone(&shared), Arc::clone(&proof_arrived));
        Self {
            desk: desk.telling(feedback),
            newest_round,
            scheduler: Scheduler::new(store.clone(), rules.clone(), Members::fixed(metagraph), Arc::clone(&shared)),
            verifier: Verifier::new(
                store.clone(),
                shared,
                proof_arrived,
                "validator-test".to_owned(),
                Pace {
                    concurrency: NonZeroUsize::new(2).unwrap(),
                    idle: Duration::from_secs(30),
                    claim: Duration::from_secs(120),
                }
                .into(),
                rules.clone(),
            ),
            rules,
            store,
            clock,
        }
    }

    /// The scheduler of a process that starts now over the same store.
    async fn restarted_scheduler(&self) -> Scheduler {
        let metagraph = FixedChain::of(128, &[MINER, STRANGER]).metagraph(128).await.unwrap();
        Scheduler::new(self.store.clone(), Arc::new(rules()), Members::fixed(metagraph), self.clock.clone())
    }

    pub(super) async fn hear(&self, miner: Hotkey, workers: &[&str]) {
        let workers: Vec<_> =
            workers.iter().map(|id| json!({ "worker_id": id, "capabilities": ["cpu_matrix"] })).collect();
        let data = json!({ "hotkey": miner, "workers": workers });
        let data: HeartbeatData = serde_json::from_value(data).unwrap();
        assert_eq!(self.desk.heartbeat(miner, data).await.error_code, 0);
    }

    pub(super) async fn fetch(&self, miner: Hotkey) -> Vec<ChallengeItem> {
        self.desk.tasks(miner, TaskRequest::new(miner, 0.0)).await.unwrap().challenges
    }

    /// A challenge that was just handed to worker `w` of [`MINER`].
    async fn one_sent(&self) -> ChallengeItem {
        self.hear(MINER, &["w"]).await;
        assert_eq!(self.scheduler.pass().await.unwrap(), 1);
        self.fetch(MINER).await.remove(0)
    }

    pub(super) async fn row(&self, item: &ChallengeItem) -> ChallengeRow {
        self.store.challenge(MINER, &item.challenge_id).await.unwrap().unwrap()
    }

    /// Makes a round of what is known now.
    pub(super) async fn score(&self) {
        let chain = Arc::new(FixedChain::of(128, &[MINER, STRANGER]));
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let scorer = Scorer { store, chain, netuid: 128, clock, rules: byteleap_scoring::Rules::default().into() };
        self.newest_round.set(Some(scorer.score_from(&mut Known::default()).await.unwrap()));
    }

    /// What [`MINER`] is told of its worker `w` in the answer to a heartbeat, once what was read before is no longer fresh.
    async fn told(&self) -> WorkerFeedback {
        self.clock.advance(Duration::from_secs(10));
        let data = json!({ "hotkey": MINER, "workers": [{ "worker_id": "w", "capabilities": ["cpu_matrix"] }] });
        let answer = self.desk.heartbeat(MINER, serde_json::from_value(data).unwrap()).await;
        answer.feedback.unwrap().workers.remove(0)
    }

    pub(super) async fn status(&self, item: &ChallengeItem) -> Status {
        self.row(item).await.status
    }
}

/// What an honest worker holds after computing.
fn computed(item: &ChallengeItem) -> (Vec<byteleap_protocol::id::RowHash>, MerkleTree) {
    let data = ChallengeData::parse(item.challenge_type, &item.data).unwrap();
    let challenge = CpuChallenge::new(&data.seed, data.matrix_size, data.iterations).unwrap();
    let hashes = compute(&challenge, &AtomicBool::new(false)).unwrap().row_hashes;
    let tree = MerkleTree::from_rows(&hashes).unwrap();
    (hashes, tree)
}

fn commitment(item: &ChallengeItem, root: NodeHash) -> CommitmentData {
    CommitmentData {
        challenge_id: item.challenge_id.clone(),
        worker_id: item.target_worker_id.clone().unwrap(),
        commitments: vec![Commitment::cpu(root)],
        debug_info: Object::new(),
        schema_version: 1,
    }
}

fn proof(item: &ChallengeItem, request: &ProofRequest, tree: &MerkleTree) -> ProofData {
    let merkle_proofs: Vec<_> = request.rows.iter().map(|row| tree.open(*row as usize).unwrap()).collect();
    let row_hashes = merkle_proofs.iter().map(|opening| match opening.leaf_hash {
        NodeHash::Row(hash) => hash,
        NodeHash::Inner(_) => unreachable!("leaves are rows"),
    });
    ProofData {
        challenge_id: item.challenge_id.clone(),
        proofs: vec![ProofResponse {
            uuid: Unit::Cpu,
            row_hashes: row_hashes.collect(),
            merkle_proofs: merkle_proofs.clone(),
            coordinate_values: Vec::new(),
        }],
        debug_info: Object::new(),
        schema_version: 1,
    }
}

/// Runs one challenge to its verdict; `lie` may change the tree that is committed to and the proof that is sent.
async fn verdict_on(
    commit_to: impl FnOnce(&ChallengeItem) -> MerkleTree,
    lie: impl FnOnce(&mut ProofResponse),
) -> (Status, Option<String>) {
    let world = World::new(rules()).await;
    let item = world.one_sent().await;
    let tree = commit_to(&item);
    let answer = world.desk.commit(MINER, commitment(&item, tree.root())).await.unwrap();
    let mut data = proof(&item, &answer.proof_requests[0], &tree);
    lie(&mut data.proofs[0]);
    world.desk.prove(MINER, data).await.unwrap();
    assert_eq!(world.store.verification_queue(START_MS).await.unwrap().waiting, 1);
    assert_eq!(world.verifier.judge_batch().await.unwrap(), 1);
    assert_eq!(world.store.verification_queue(START_MS).await.unwrap().waiting, 0);
    let code = world.store.fail_code(world.row(&item).await.key).await;
    (world.status(&item).await, code)
}

fn honest(item: &ChallengeItem) -> MerkleTree {
    computed(item).1
}

async fn a_challenge_goes_all_the_way_round() {
    let world = World::new(rules()).await;
    let item = world.one_sent().await;
    assert_eq!(item.timeout.get(), 60);
    assert_eq!(item.target_worker_id, Some("w".parse().unwrap()));
    let data = ChallengeData::parse(item.challenge_type, &item.data).unwrap();
    assert!((90..=110).contains(&data.matrix_size.get()));
    assert_eq!((data.miner_hotkey, data.round_id.as_deref()), (Some(MINER), Some("round_1760000000")));
    let tree = honest(&item);

    world.clock.advance(Duration::from_millis(1500));
    let answer = world.desk.commit(MINER, commitment(&item, tree.root())).await.unwrap();
    let [request] = answer.proof_requests.as_slice() else { panic!("one request") };
    assert_eq!(request.rows, world.row(&item).await.targets.rows, "the rows that are asked for are the stored ones");
    assert!((4..=12).contains(&request.rows.len()));

    let receipt = world.desk.prove(MINER, proof(&item, request, &tree)).await.unwrap();
    assert_eq!(receipt.challenge_status, "queued");
    assert_eq!(world.verifier.judge_batch().await.unwrap(), 1);

    assert_eq!(world.status(&item).await, Status::Verified);
    assert_eq!(world.store.last_verified(10).await.unwrap(), std::slice::from_ref(&item.challenge_id));
    let outcomes = world.store.snapshot().await.unwrap().outcomes_from(0, START_MS).await.unwrap().0;
    assert_eq!(outcomes.len(), 1);
    assert_eq!((outcomes[0].verified, outcomes[0].compute_ms, outcomes[0].units_ok), (true, Some(1500.0), 1));
    assert_eq!(world.verifier.judge_batch().await.unwrap(), 0, "the proof is forgotten after its verdict");
}

async fn a_miner_is_told_how_its_worker_stands() {
    let world = World::new(rules()).await;
    let told = world.told().await;
    assert_eq!((told.lease, &told.verdict, &told.score, &told.no_challenge), (None, &None, &None, &None));
    assert_eq!(world.scheduler.pass().await.unwrap(), 1);
    assert!(world.told().await.no_challenge.unwrap().ends_with("waits for the miner to fetch it"));

    let item = world.fetch(MINER).await.remove(0);
    let tree = honest(&item);
    let answer = world.desk.commit(MINER, commitment(&item, tree.root())).await.unwrap();
    assert!(world.told().await.no_challenge.unwrap().ends_with("waits for its proof"));
    world.desk.prove(MINER, proof(&item, &answer.proof_requests[0], &tree)).await.unwrap();
    world.verifier.judge_batch().await.unwrap();
    world.score().await;
    let told = world.told().await;
    let verdict = told.verdict.unwrap();
    assert_eq!((verdict.challenge_id, verdict.outcome), (item.challenge_id, Outcome::Verified));
    assert_eq!((verdict.kind.as_str(), verdict.units_ok, verdict.units), ("cpu_matrix", 1, 1));
    let score = told.score.unwrap();
    assert_eq!((score.attempts, score.successes), (1, 1));
    assert_eq!(told.no_challenge, None);
    assert_eq!(told.next_challenge_at_ms, Some(START_MS + 10_000 + INTERVAL_S as i64 * 1000));

    // What was read a moment ago is told again.
    let leased = LeaseScore::new(1.0).unwrap();
    world.store.set_lease(MINER, &"w".parse().unwrap(), leased, "test", world.clock.unix_ms()).await.unwrap();
    assert_eq!(world.desk.heartbeat(MINER, no_workers()).await.feedback.unwrap().workers[0].lease, None);
    let told = world.told().await;
    let lease = told.lease.unwrap();
    assert!(lease.leased && !lease.is_stale && told.no_challenge.unwrap().contains("leased"));
    world.clock.advance(limits().lease_stale_after);
    assert!(world.told().await.lease.unwrap().is_stale);
}

fn no_workers() -> HeartbeatData {
    serde_json::from_value(json!({ "hotkey": MINER, "workers": [] })).unwrap()
}

async fn a_wrong_row_is_caught() {
    let forged = |item: &ChallengeItem| {
        let hashes = computed(item).0;
        // One right row in place of all the others: cheap to compute, and every opening but one is a lie.
        MerkleTree::from_rows(&vec![hashes[0]; hashes.len()]).unwrap()
    };
    assert_eq!(verdict_on(forged, |_| ()).await, (Status::Failed, Some("wrong_row_hash".to_owned())));
}

async fn right_rows_under_another_root_are_caught() {
    let other_root = |item: &ChallengeItem| {
        let mut hashes = computed(item).0;
        hashes.reverse();
        MerkleTree::from_rows(&hashes).unwrap()
    };
    let (status, code) = verdict_on(other_root, |_| ()).await;
    assert_eq!((status, code.as_deref()), (Status::Failed, Some("wrong_row_hash")));
}

async fn a_forged_path_is_caught() {
    let (status, code) = verdict_on(honest, |proof| {
        let opening = &mut proof.merkle_proofs[0];
        opening.proof_hashes[0] = NodeHash::Inner([7; 32]);
    })
    .await;
    assert_eq!((status, code.as_deref()), (Status::Failed, Some("wrong_path")));
}

async fn a_swapped_index_is_caught() {
    let (status, code) = verdict_on(honest, |proof| {
        proof.merkle_proofs.swap(0, 1);
        proof.row_hashes.swap(0, 1);
    })
    .await;
    assert_eq!((status, code.as_deref()), (Status::Failed, Some("wrong_index")));
}

async fn every_refusal_of_phase_1_leaves_the_challenge_as_it_was() {
    let world = World::new(rules()).await;
    let item = world.one_sent().await;
    let root = honest(&item).root();
    let before = world.row(&item).await;
    let good = commitment(&item, root);

    let unknown = CommitmentData { challenge_id: "nobody".parse().unwrap(), ..good.clone() };
    let other_worker = CommitmentData { worker_id: "v".parse().unwrap(), ..good.clone() };
    let none = CommitmentData { commitments: Vec::new(), ..good.clone() };
    let two = CommitmentData { commitments: vec![Commitment::cpu(root), Commitment::cpu(root)], ..good.clone() };
    let gpu = Commitment { uuid: "GPU-1".parse().unwrap(), ..Commitment::cpu(root) };
    let gpu = CommitmentData { commitments: vec![gpu], ..good.clone() };
    let short =
        CommitmentData { commitments: vec![Commitment::cpu("afae135667bd0972".parse().unwrap())], ..good.clone() };
    for (caller, data, refusal) in [
        (MINER, unknown, Refusal::UnknownChallenge),
        (STRANGER, good.clone(), Refusal::UnknownChallenge),
        (MINER, other_worker, Refusal::OtherWorker),
        (MINER, none, Refusal::Commitments),
        (MINER, two, Refusal::Commitments),
        (MINER, gpu, Refusal::Commitments),
        (MINER, short, Refusal::Root),
    ] {
        assert_eq!(world.desk.commit(caller, data).await, Err(refusal));
        assert_eq!(world.row(&item).await, before);
    }

    // 60 s to compute and 5 s of grace; at the last moment it is taken, and only once.
    world.clock.advance(Duration::from_millis(65_001));
    assert_eq!(world.desk.commit(MINER, good.clone()).await, Err(Refusal::Expired));
    assert_eq!(world.row(&item).await, before);
    world.clock.set_unix_ms(START_MS + 65_000);
    assert!(world.desk.commit(MINER, good.clone()).await.is_ok());
    let committed = world.row(&item).await;
    let other = commitment(&item, "ab".repeat(32).parse().unwrap());
    assert_eq!(world.desk.commit(MINER, other).await, Err(Refusal::AlreadyProcessed));
    assert_eq!(world.row(&item).await, committed);

    // Each was counted, for whoever asked.
    let told = world.store.refusals_of(MINER).await.unwrap();
    let told: BTreeMap<_, _> = told.iter().map(|row| (row.code.as_str(), row.times)).collect();
    let expected = [
        ("already_processed", 1),
        ("expired", 1),
        ("other_worker", 1),
        ("unknown_challenge", 1),
        ("wrong_commitments", 3),
        ("wrong_root", 1),
    ];
    assert_eq!(told, BTreeMap::from(expected));
    assert_eq!(world.store.refusals_of(STRANGER).await.unwrap().len(), 1);
}

async fn the_same_commitment_again_gets_the_same_rows_again_until_it_is_proved() {
    let world = World::new(rules()).await;
    let item = world.one_sent().await;
    let tree = honest(&item);
    let good = commitment(&item, tree.root());
    let answer = world.desk.commit(MINER, good.clone()).await.unwrap();
    let committed = world.row(&item).await;
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(world.desk.commit(MINER, good.clone()).await, Ok(answer.clone()));
    assert_eq!(world.row(&item).await, committed, "and no more time");
    let from_another = CommitmentData { worker_id: "v".parse().unwrap(), ..good.clone() };
    assert_eq!(world.desk.commit(MINER, from_another).await, Err(Refusal::AlreadyProcessed));
    world.desk.prove(MINER, proof(&item, &answer.proof_requests[0], &tree)).await.unwrap();
    assert_eq!(world.desk.commit(MINER, good).await, Err(Refusal::AlreadyProcessed));
}

async fn whoever_lost_time_to_our_restart_does_not_fail_for_being_late() {
    let world = World::new(rules()).await;
    world.hear(MINER, &["sent", "committed"]).await;
    world.scheduler.pass().await.unwrap();
    let before = world.fetch(MINER).await;
    let committed = before.iter().find(|item| item.target_worker_id == Some("committed".parse().unwrap())).unwrap();
    world.desk.commit(MINER, commitment(committed, honest(committed).root())).await.unwrap();

    world.clock.advance(Duration::from_secs(1));
    let restarted = world.restarted_scheduler().await;
    world.hear(MINER, &["later"]).await;
    restarted.pass().await.unwrap();
    let later = world.fetch(MINER).await.remove(0);
    world.clock.advance(Duration::from_secs(70));
    restarted.sweep().await.unwrap();
    for item in &before {
        assert_eq!(world.status(item).await, Status::Void);
        assert_eq!(world.store.fail_code(world.row(item).await.key).await.as_deref(), Some("restart"));
    }
    assert_eq!(world.status(&later).await, Status::Failed, "it had all of its time");
}

async fn every_refusal_of_phase_2_leaves_the_challenge_as_it_was() {
    let world = World::new(rules()).await;
    let item = world.one_sent().await;
    let tree = honest(&item);
    let early = ProofRequest { uuid: Unit::Cpu, rows: vec![0], coordinates: Vec::new() };
    assert_eq!(world.desk.prove(MINER, proof(&item, &early, &tree)).await, Err(Refusal::NotCommitted));

    let answer = world.desk.commit(MINER, commitment(&item, tree.root())).await.unwrap();
    let good = proof(&item, &answer.proof_requests[0], &tree);
    let rows = answer.proof_requests[0].rows.len();
    let before = world.row(&item).await;
    let altered = |alter: &dyn Fn(&mut Vec<ProofResponse>)| {
        let mut data = good.clone();
        alter(&mut data.proofs);
        data
    };
    for (caller, data, refusal) in [
        (STRANGER, good.clone(), Refusal::UnknownChallenge),
        (MINER, altered(&|proofs| proofs.clear()), Refusal::Proofs),
        (MINER, altered(&|proofs| proofs.push(proofs[0].clone())), Refusal::Proofs),
        (MINER, altered(&|proofs| proofs[0].uuid = "GPU-1".parse().unwrap()), Refusal::Proofs),
        (MINER, altered(&|proofs| proofs[0].row_hashes.truncate(1)), Refusal::Lengths { rows }),
        (MINER, altered(&|proofs| proofs[0].merkle_proofs.truncate(1)), Refusal::Lengths { rows }),
    ] {
        assert_eq!(world.desk.prove(caller, data).await, Err(refusal));
        assert_eq!(world.row(&item).await, before);
        assert_eq!(world.verifier.judge_batch().await.unwrap(), 0, "nothing to judge");
    }

    world.clock.advance(Duration::from_millis(60_001));
    assert_eq!(world.desk.prove(MINER, good.clone()).await, Err(Refusal::Expired));
    world.clock.set_unix_ms(START_MS + 60_000);
    assert!(world.desk.prove(MINER, good.clone()).await.is_ok());
    assert_eq!(world.desk.prove(MINER, good).await, Err(Refusal::AlreadyProcessed));
}

async fn deadlines_end_challenges_and_only_the_workers_fault_is_a_failure() {
    let world = World::new(rules()).await;
    world.hear(MINER, &["late", "mute"]).await;
    world.hear(STRANGER, &["unfetched"]).await;
    assert_eq!(world.scheduler.pass().await.unwrap(), 3);
    let sent = world.fetch(MINER).await;
    let [late, mute] = sent.as_slice() else { panic!("two challenges") };
    world.desk.commit(MINER, commitment(mute, honest(mute).root())).await.unwrap();

    world.clock.advance(Duration::from_millis(65_000));
    world.scheduler.sweep().await.unwrap();
    assert_eq!(world.status(late).await, Status::Sent, "its grace is not over");
    assert_eq!(world.status(mute).await, Status::Failed);
    world.clock.advance(Duration::from_millis(1));
    world.scheduler.sweep().await.unwrap();
    assert_eq!(world.status(late).await, Status::Failed);

    world.clock.advance(Duration::from_secs(INTERVAL_S));
    world.scheduler.sweep().await.unwrap();
    assert_eq!(world.store.challenge_counts().await.unwrap(), [(Status::Failed, 2), (Status::Void, 1)]);
    assert_eq!(world.fetch(STRANGER).await, [], "what is void is not handed out");
    let outcomes = world.store.snapshot().await.unwrap().outcomes_from(0, START_MS).await.unwrap().0;
    assert!(outcomes.iter().all(|outcome| !outcome.verified) && outcomes.len() == 2, "void counts for nothing");
}

async fn after_a_restart_proofs_are_judged_and_what_we_missed_is_void() {
    let world = World::new(rules()).await;
    world.hear(MINER, &["proved", "missed", "in_time"]).await;
    world.scheduler.pass().await.unwrap();
    let sent = world.fetch(MINER).await;
    let [proved, missed, in_time] = sent.as_slice() else { panic!("three challenges") };
    let tree = honest(proved);
    let answer = world.desk.commit(MINER, commitment(proved, tree.root())).await.unwrap();
    world.desk.prove(MINER, proof(proved, &answer.proof_requests[0], &tree)).await.unwrap();
    world.clock.advance(Duration::from_secs(30));
    world.desk.commit(MINER, commitment(in_time, honest(in_time).root())).await.unwrap();

    world.clock.advance(Duration::from_secs(31));
    assert_eq!(world.store.void_interrupted(world.clock.unix_ms()).await.unwrap(), 1);
    assert_eq!(world.status(missed).await, Status::Void);
    assert_eq!(world.status(in_time).await, Status::Committed);
    world.verifier.judge_batch().await.unwrap();
    assert_eq!(world.status(proved).await, Status::Verified);
}

async fn an_acknowledged_proof_is_in_the_database_of_another_process() {
    let world = World::new(rules()).await;
    let item = world.one_sent().await;
    let tree = honest(&item);
    let answer = world.desk.commit(MINER, commitment(&item, tree.root())).await.unwrap();
    let data = proof(&item, &answer.proof_requests[0], &tree);
    world.desk.prove(MINER, data.clone()).await.unwrap();
    let other = testing::store().await;
    let claim = Claim { name: "other".to_owned(), until_ms: i64::MAX };
    let claimed = other.claim_proofs(&claim, 10, START_MS).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let waiting = other.pending_proof(&claimed[0]).await.unwrap().unwrap();
    assert_eq!(stored_proof::unpack(&waiting.body).unwrap(), data.proofs);
    assert_eq!(waiting.units, [CommittedUnit::cpu(tree.root())]);
}

async fn the_queue_of_proofs_shows_its_depth_and_how_long_they_wait() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let shows = |line: &str| {
        let page = recorder.handle().render();
        assert!(page.lines().any(|shown| shown == line), "no {line} in\n{page}");
    };
    let world = World::new(rules()).await;
    let item = world.one_sent().await;
    let tree = honest(&item);
    let answer = world.desk.commit(MINER, commitment(&item, tree.root())).await.unwrap();
    world.desk.prove(MINER, proof(&item, &answer.proof_requests[0], &tree)).await.unwrap();
    world.clock.advance(Duration::from_secs(7));
    world.verifier.measure_queue().await.unwrap();
    ["verification_queue_depth 1", "verification_queue_oldest_seconds 7"].into_iter().for_each(shows);
    assert_eq!(world.verifier.judge_batch().await.unwrap(), 1);
    world.verifier.measure_queue().await.unwrap();
    ["verification_queue_depth 0", "verification_queue_oldest_seconds 0"].into_iter().for_each(shows);
    ["verification_wait_seconds_sum 7", "verification_duration_seconds_count 1"].into_iter().for_each(shows);
}

async fn only_idle_unleased_heard_and_registered_workers_are_asked() {
    let world = World::new(rules()).await;
    let outsider = Hotkey([3; 32]);
    world.hear(MINER, &["idle", "leased"]).await;
    world.hear(outsider, &["w"]).await;
    let lease = LeaseScore::new(1.0).unwrap();
    world.store.set_lease(MINER, &"leased".parse().unwrap(), lease, "test", START_MS).await.unwrap();
    assert_eq!(world.scheduler.pass().await.unwrap(), 1);
    assert_eq!(world.scheduler.pass().await.unwrap(), 0, "one at a time");
    assert_eq!(world.fetch(outsider).await, []);
    let items = world.fetch(MINER).await;
    assert_eq!(items[0].target_worker_id, Some("idle".parse().unwrap()));

    // Its turn comes again when the interval has passed, and not while it is silent.
    world.clock.advance(Duration::from_secs(INTERVAL_S));
    world.scheduler.sweep().await.unwrap();
    assert_eq!(world.scheduler.pass().await.unwrap(), 0, "offline");
    world.hear(MINER, &["idle", "leased"]).await;
    assert_eq!(world.scheduler.pass().await.unwrap(), 1);
}

async fn a_token_request_is_answered_at_once_by_whether_the_worker_lives() {
    let world = World::new(rules()).await;
    world.hear(MINER, &["w"]).await;
    let code = async |caller| {
        let request = TokenRequest { worker_id: "w".parse().unwrap() };
        world.desk.token(caller, request).await.unwrap().code
    };
    assert_eq!((code(MINER).await, code(STRANGER).await), (1003, 1000));
    world.clock.advance(Duration::from_secs(121));
    assert_eq!(code(MINER).await, 1000);
}

on_both_engines!(
    a_miner_is_told_how_its_worker_stands,
    a_challenge_goes_all_the_way_round,
    a_wrong_row_is_caught,
    right_rows_under_another_root_are_caught,
    a_forged_path_is_caught,
    a_swapped_index_is_caught,
    every_refusal_of_phase_1_leaves_the_challenge_as_it_was,
    the_same_commitment_again_gets_the_same_rows_again_until_it_is_proved,
    whoever_lost_time_to_our_restart_does_not_fail_for_being_late,
    every_refusal_of_phase_2_leaves_the_challenge_as_it_was,
    deadlines_end_challenges_and_only_the_workers_fault_is_a_failure,
    after_a_restart_proofs_are_judged_and_what_we_missed_is_void,
    an_acknowledged_proof_is_in_the_database_of_another_process,
    the_queue_of_proofs_shows_its_depth_and_how_long_they_wait,
    only_idle_unleased_heard_and_registered_workers_are_asked,
    a_token_request_is_answered_at_once_by_whether_the_worker_lives,
);

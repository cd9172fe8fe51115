//! A whole GPU round through the desk: computed by the software engine, judged unit by unit; then everything for which a unit
//! must fail, and no other with it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use byteleap_compute::engine::software::SoftwareEngine;
use byteleap_compute::engine::{Committed, GpuEngine};
use byteleap_compute::gpu::GpuChallenge;
use byteleap_compute::gpu::verify::Tolerance;
use byteleap_daemon::clock::Clock;
use byteleap_protocol::Object;
use byteleap_protocol::challenge::{ChallengeData, ChallengeItem, ChallengeKind};
use byteleap_protocol::gpu_signature::CommitmentSigner;
use byteleap_protocol::half::Half;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{GpuUuid, RowHash, Unit};
use byteleap_protocol::merkle::MerkleTree;
use byteleap_protocol::payload::{Commitment, CommitmentData, HeartbeatData, ProofData, ProofRequest, ProofResponse};
use rand_core::OsRng;
use serde_json::json;

use super::state::Status;
use super::targets::Targets;
use super::tests::{INTERVAL_S, MINER, START_MS, STRANGER, World, rules};
use super::{GpuRules, Kinds, Rules, Spread};
use crate::refusal::Refusal;
use crate::score::explain::explain;
use crate::store::gpu::OWNERSHIP_LAPSE_MS;
use crate::store::snapshot::OutcomeRow;
use crate::store::testing::on_both_engines;

/// A worker with GPUs that the processor plays.
struct Rig {
    engine: SoftwareEngine,
}

impl Rig {
    fn new(names: &[&str]) -> Self {
        let gpus = names.iter().map(|name| name.parse().unwrap()).collect();
        Self { engine: SoftwareEngine::with_gpus(CommitmentSigner::random(&mut OsRng), gpus) }
    }

    /// What its heartbeat says, of cards of this model.
    fn plugin(&self, model: &str) -> Vec<Object> {
        let devices = self.engine.devices().unwrap();
        let with_model = |mut details: Object| {
            details.insert("name".to_owned(), model.into());
            details
        };
        devices.into_iter().map(|device| with_model(device.details)).collect()
    }

    fn compute(&self, item: &ChallengeItem) -> Vec<Committed> {
        self.engine.submit(&challenge(item), &AtomicBool::new(false)).unwrap()
    }

    /// Opens one unit, honestly.
    fn open(&self, item: &ChallengeItem, committed: &[Committed], request: &ProofRequest) -> ProofResponse {
        let Unit::Gpu(gpu) = &request.uuid else { panic!("a GPU is opened") };
        let committed = committed.iter().find(|unit| unit.commitment.uuid == request.uuid).unwrap();
        let tree = MerkleTree::from_rows(&committed.row_hashes).unwrap();
        ProofResponse {
            uuid: request.uuid.clone(),
            row_hashes: request.rows.iter().map(|row| committed.row_hashes[*row as usize]).collect(),
            merkle_proofs: request.rows.iter().map(|row| tree.open(*row as usize).unwrap()).collect(),
            coordinate_values: self.engine.open(&challenge(item), gpu, &request.rows, &request.coordinates).unwrap(),
        }
    }
}

fn challenge(item: &ChallengeItem) -> GpuChallenge {
    GpuChallenge::from(&ChallengeData::parse(item.challenge_type, &item.data).unwrap())
}

fn gpu_rules() -> Rules {
    Rules { kinds: Kinds::Gpu, ..rules() }
}

impl World {
    /// The one challenge with a verdict.
    async fn outcome(&self) -> OutcomeRow {
        self.store.snapshot().await.unwrap().outcomes_from(0, START_MS).await.unwrap().0.remove(0)
    }

    /// A heartbeat of worker `w` with both capabilities and these cards.
    async fn hear_gpus(&self, miner: Hotkey, plugin: &[Object]) {
        let worker = json!({
            "worker_id": "w",
            "capabilities": ["cpu_matrix", "gpu_matrix"],
            "system_info": { "gpu_plugin": plugin, "gpu_info": plugin },
        });
        let data: HeartbeatData = serde_json::from_value(json!({ "hotkey": miner, "workers": [worker] })).unwrap();
        assert_eq!(self.desk.heartbeat(miner, data).await.error_code, 0);
    }

    /// A GPU challenge that was just handed to worker `w` of [`MINER`], which reports the cards of `rig`.
    async fn one_for(&self, rig: &Rig) -> ChallengeItem {
        self.hear_gpus(MINER, &rig.plugin("NVIDIA GeForce RTX 4090")).await;
        assert_eq!(self.scheduler.pass().await.unwrap(), 1);
        self.fetch(MINER).await.remove(0)
    }

    /// From the commitment to the verdict, honestly but for what `lie` does to the proofs.
    async fn answer(
        &self,
        rig: &Rig,
        item: &ChallengeItem,
        commitments: Vec<Commitment>,
        lie: impl FnOnce(&mut Vec<ProofResponse>, &ProofRequest),
    ) -> Result<(), Refusal> {
        let committed = rig.compute(item);
        let answer = self.desk.commit(MINER, commitment(item, commitments)).await?;
        let opened = answer.proof_requests.iter().map(|request| rig.open(item, &committed, request));
        let mut proofs: Vec<_> = opened.collect();
        lie(&mut proofs, &answer.proof_requests[0]);
        self.desk.prove(MINER, proof(item, proofs)).await?;
        assert_eq!(self.verifier.judge_batch().await.unwrap(), 1);
        Ok(())
    }
}

fn commitment(item: &ChallengeItem, commitments: Vec<Commitment>) -> CommitmentData {
    CommitmentData {
        challenge_id: item.challenge_id.clone(),
        worker_id: item.target_worker_id.clone().unwrap(),
        commitments,
        debug_info: Object::new(),
        schema_version: 1,
    }
}

fn proof(item: &ChallengeItem, proofs: Vec<ProofResponse>) -> ProofData {
    ProofData { challenge_id: item.challenge_id.clone(), proofs, debug_info: Object::new(), schema_version: 1 }
}

fn commitments_of(committed: &[Committed]) -> Vec<Commitment> {
    committed.iter().map(|unit| unit.commitment.clone()).collect()
}

async fn a_gpu_challenge_goes_all_the_way_round() {
    let (world, rig) = (World::new(gpu_rules()).await, Rig::new(&["GPU-a", "GPU-b"]));
    let item = world.one_for(&rig).await;
    assert_eq!(item.challenge_type, ChallengeKind::GpuMatrix);
    let data = ChallengeData::parse(item.challenge_type, &item.data).unwrap();
    assert_eq!((data.mode, data.target_gpu_id), (Some(0), Some(-1)));
    assert!((57..=70).contains(&data.matrix_size.get()));
    assert!(world.row(&item).await.targets.rows.is_empty(), "nothing is drawn before the commitment");

    let committed = rig.compute(&item);
    world.clock.advance(Duration::from_millis(800));
    let good = commitment(&item, commitments_of(&committed));
    let answer = world.desk.commit(MINER, good.clone()).await.unwrap();
    let [one, two] = answer.proof_requests.as_slice() else { panic!("a request for each GPU") };
    assert_eq!((&one.rows, &one.coordinates), (&two.rows, &two.coordinates), "all open the same");
    let stored = world.row(&item).await.targets;
    assert_eq!((&stored.rows, &stored.coordinates), (&one.rows, &one.coordinates));
    assert!((1..=3).contains(&one.rows.len()) && (8..=12).contains(&one.coordinates.len()));
    assert_eq!(world.desk.commit(MINER, good.clone()).await.unwrap(), answer, "the same again gets the same again");
    let other = commitment(&item, good.commitments[..1].to_vec());
    assert_eq!(world.desk.commit(MINER, other).await, Err(Refusal::AlreadyProcessed));

    let proofs = answer.proof_requests.iter().map(|request| rig.open(&item, &committed, request)).collect();
    world.desk.prove(MINER, proof(&item, proofs)).await.unwrap();
    assert_eq!(world.verifier.judge_batch().await.unwrap(), 1);
    assert_eq!(world.status(&item).await, Status::Verified);

    let outcome = world.outcome().await;
    assert_eq!((outcome.verified, outcome.compute_ms, outcome.units_ok), (true, Some(800.0), 2));
    assert_eq!(outcome.gpus.iter().map(GpuUuid::as_str).collect::<Vec<_>>(), ["GPU-a", "GPU-b"]);
    let cards = world.store.gpus_of(MINER).await.unwrap();
    assert_eq!(cards.iter().map(|card| (card.passed, card.failed)).collect::<Vec<_>>(), [(1, 0), (1, 0)]);
}

/// Runs a challenge of two GPUs of which the first lies; the second must pass, and the explanation must name the first.
async fn first_fails_alone(
    rules: Rules,
    lie_before: impl FnOnce(&mut Commitment, &ChallengeItem),
    lie_after: impl FnOnce(&mut Vec<ProofResponse>, &ProofRequest),
    code: &str,
) {
    let (world, rig) = (World::new(rules).await, Rig::new(&["GPU-a", "GPU-b"]));
    let item = world.one_for(&rig).await;
    let mut commitments = commitments_of(&rig.compute(&item));
    lie_before(&mut commitments[0], &item);
    let first = commitments[0].uuid.clone();
    world.answer(&rig, &item, commitments, lie_after).await.unwrap();
    assert_eq!(world.status(&item).await, Status::Verified, "{code}: the other GPU passes");
    let outcome = world.outcome().await;
    assert_eq!(outcome.units_ok, 1, "{code}");
    let failed = world.store.failed_units(MINER, 10).await.unwrap();
    let [failed] = failed.as_slice() else { panic!("{code}: one GPU fails, found {failed:?}") };
    assert_eq!((failed.gpu.as_str(), failed.code.as_str()), (first.as_str(), code));
    assert!(failed.note.len() > code.len(), "in words: {}", failed.note);
}

fn honest(_: &mut Commitment, _: &ChallengeItem) {}

fn faithful(_: &mut Vec<ProofResponse>, _: &ProofRequest) {}

async fn a_gpu_with_an_empty_signature_fails_alone() {
    first_fails_alone(gpu_rules(), |unit, _| unit.sig_val = Some(String::new()), faithful, "unsigned").await;
}

async fn a_gpu_without_a_signature_fails_alone() {
    first_fails_alone(gpu_rules(), |unit, _| unit.sig_val = None, faithful, "unsigned").await;
}

async fn a_wrongly_signed_gpu_fails_alone() {
    let sign = |unit: &mut Commitment, item: &ChallengeItem| {
        let Unit::Gpu(gpu) = &unit.uuid else { unreachable!() };
        let signer = CommitmentSigner::random(&mut OsRng);
        unit.sig_val = Some(signer.sign(&challenge(item).seed, gpu, unit.merkle_root));
    };
    first_fails_alone(gpu_rules(), sign, faithful, "wrong_signature").await;
}

async fn a_signature_of_zeros_fails_alone() {
    first_fails_alone(gpu_rules(), |unit, _| unit.sig_val = Some("00".repeat(64)), faithful, "wrong_signature").await;
}

async fn a_root_that_was_changed_after_it_was_signed_fails_alone() {
    let swap = |unit: &mut Commitment, _: &ChallengeItem| unit.merkle_root = "ab".repeat(32).parse().unwrap();
    first_fails_alone(gpu_rules(), swap, faithful, "wrong_signature").await;
}

async fn a_root_that_is_none_fails_alone() {
    let short = |unit: &mut Commitment, _: &ChallengeItem| unit.merkle_root = "afae135667bd0972".parse().unwrap();
    first_fails_alone(gpu_rules(), short, faithful, "wrong_root").await;
}

async fn a_gpu_that_the_worker_does_not_report_fails_alone() {
    let foreign = |unit: &mut Commitment, _: &ChallengeItem| unit.uuid = "GPU-0".parse().unwrap();
    first_fails_alone(gpu_rules(), foreign, faithful, "gpu_not_held").await;
}

async fn a_wrong_element_fails_alone() {
    let lie = |proofs: &mut Vec<ProofResponse>, request: &ProofRequest| {
        for number in &mut proofs[0].coordinate_values[..request.coordinates.len()] {
            *number = Half::from_f64(number.to_f64() + 1.0);
        }
    };
    first_fails_alone(gpu_rules(), honest, lie, "wrong_elements").await;
}

async fn a_reloaded_tolerance_judges_the_next_proof() {
    let (world, rig) = (World::new(gpu_rules()).await, Rig::new(&["GPU-a"]));
    let item = world.one_for(&rig).await;
    let tolerance = Tolerance { success_rate: 0.0, ..rules().gpu.tolerance };
    world.rules.set(Rules { gpu: GpuRules { tolerance, ..rules().gpu }, ..gpu_rules() });
    let lie = |proofs: &mut Vec<ProofResponse>, request: &ProofRequest| {
        for number in &mut proofs[0].coordinate_values[..request.coordinates.len()] {
            *number = Half::from_f64(number.to_f64() + 1.0);
        }
    };
    let commitments = commitments_of(&rig.compute(&item));
    world.answer(&rig, &item, commitments, lie).await.unwrap();
    assert_eq!(world.status(&item).await, Status::Verified, "what a_wrong_element_fails_alone refuses");
}

async fn a_row_with_one_wrong_number_fails_alone() {
    let lie = |proofs: &mut Vec<ProofResponse>, request: &ProofRequest| {
        let number = &mut proofs[0].coordinate_values[request.coordinates.len()];
        *number = Half::from_bits(number.to_bits() ^ 1);
    };
    first_fails_alone(gpu_rules(), honest, lie, "wrong_row_hash").await;
}

async fn a_row_hash_that_was_not_committed_to_fails_alone() {
    let lie = |proofs: &mut Vec<ProofResponse>, _: &ProofRequest| proofs[0].row_hashes[0] = RowHash([7; 8]);
    first_fails_alone(gpu_rules(), honest, lie, "wrong_path").await;
}

async fn a_number_that_is_none_fails_alone() {
    let lie = |proofs: &mut Vec<ProofResponse>, _: &ProofRequest| proofs[0].coordinate_values[0] = Half::NAN;
    first_fails_alone(gpu_rules(), honest, lie, "number_out_of_range").await;
}

async fn a_list_that_is_too_short_fails_alone() {
    let shorten = |proofs: &mut Vec<ProofResponse>, _: &ProofRequest| proofs[0].coordinate_values.truncate(9);
    first_fails_alone(gpu_rules(), honest, shorten, "wrong_number_count").await;
}

async fn a_list_that_is_too_long_fails_alone() {
    let lengthen = |proofs: &mut Vec<ProofResponse>, _: &ProofRequest| proofs[0].coordinate_values.push(Half::NAN);
    first_fails_alone(gpu_rules(), honest, lengthen, "wrong_number_count").await;
}

async fn a_gpu_that_the_proof_leaves_out_fails_alone() {
    let lie = |proofs: &mut Vec<ProofResponse>, _: &ProofRequest| drop(proofs.remove(0));
    first_fails_alone(gpu_rules(), honest, lie, "no_proof").await;
}

/// The network's key, and rules by which it alone counts.
fn strict() -> (CommitmentSigner, Rules) {
    let network = CommitmentSigner::from_hex(&"09".repeat(32)).unwrap();
    let gpu = GpuRules { accept_host_keys: false, trusted_keys: vec![network.public_key()], ..rules().gpu };
    (network, Rules { gpu, ..gpu_rules() })
}

async fn a_gpu_signed_by_its_host_fails_alone_where_host_keys_are_not_accepted() {
    let (network, strict) = strict();
    let (world, rig) = (World::new(strict).await, Rig::new(&["GPU-a", "GPU-b"]));
    let item = world.one_for(&rig).await;
    let mut commitments = commitments_of(&rig.compute(&item));
    // The second GPU's server holds the network's key.
    let Unit::Gpu(second) = commitments[1].uuid.clone() else { unreachable!() };
    commitments[1].sig_val = Some(network.sign(&challenge(&item).seed, &second, commitments[1].merkle_root));
    world.answer(&rig, &item, commitments, faithful).await.unwrap();
    let failed = world.store.failed_units(MINER, 10).await.unwrap();
    assert_eq!(
        failed.iter().map(|unit| (unit.gpu.as_str(), unit.code.as_str())).collect::<Vec<_>>(),
        [("GPU-a", "untrusted_key")]
    );
}

async fn a_challenge_of_which_no_gpu_is_believed_fails_at_once_and_the_caller_reads_why() {
    let (world, rig) = (World::new(strict().1).await, Rig::new(&["GPU-a", "GPU-b"]));
    let item = world.one_for(&rig).await;
    let refused = world.desk.commit(MINER, commitment(&item, commitments_of(&rig.compute(&item)))).await.unwrap_err();
    assert_eq!(refused.code(), Some("untrusted_key"));
    assert!(refused.to_string().contains("GPU-a: its commitment is signed by the host's own key"), "{refused}");
    assert_eq!(world.status(&item).await, Status::Failed);
    assert_eq!(world.store.fail_code(world.row(&item).await.key).await.as_deref(), Some("untrusted_key"));
}

async fn a_challenge_of_which_no_gpu_passes_fails_and_every_gpu_has_its_reason() {
    let (world, rig) = (World::new(gpu_rules()).await, Rig::new(&["GPU-a", "GPU-b"]));
    let item = world.one_for(&rig).await;
    let commitments = commitments_of(&rig.compute(&item));
    let lie = |proofs: &mut Vec<ProofResponse>, _: &ProofRequest| {
        proofs[0].coordinate_values.clear();
        proofs[1].coordinate_values[0] = Half::NAN;
    };
    world.answer(&rig, &item, commitments, lie).await.unwrap();
    assert_eq!(world.status(&item).await, Status::Failed);
    let outcome = world.outcome().await;
    assert_eq!((outcome.verified, outcome.units_ok, outcome.gpus.len()), (false, 0, 2));
    let failed = world.store.failed_units(MINER, 10).await.unwrap();
    let codes: Vec<_> = failed.iter().map(|unit| (unit.gpu.as_str(), unit.code.as_str())).collect();
    assert_eq!(codes, [("GPU-a", "wrong_number_count"), ("GPU-b", "number_out_of_range")]);
    assert_eq!(world.store.gpus_of(MINER).await.unwrap()[0].failed, 1);
}

async fn an_explanation_names_the_gpus_and_why_one_failed() {
    let (world, rig) = (World::new(gpu_rules()).await, Rig::new(&["GPU-a", "GPU-b"]));
    let item = world.one_for(&rig).await;
    let commitments = commitments_of(&rig.compute(&item));
    let lie = |proofs: &mut Vec<ProofResponse>, _: &ProofRequest| drop(proofs.remove(0));
    world.answer(&rig, &item, commitments, lie).await.unwrap();
    world.score().await;
    let told = explain(&world.store, MINER).await.unwrap().unwrap().to_string();
    let challenge = &item.challenge_id;
    for line in [
        "GPU-b of w: NVIDIA GeForce RTX 4090, 1 passed, 0 failed, last reported 2025-10-09T08:53:20Z".to_owned(),
        format!("2025-10-09T08:53:20Z w: GPU-a in challenge {challenge}, no_proof: the proof leaves it out"),
    ] {
        assert!(told.contains(&line), "{line}\n{told}");
    }
}

async fn what_is_no_commitment_of_gpus_leaves_the_challenge_as_it_was() {
    let (world, rig) = (World::new(gpu_rules()).await, Rig::new(&["GPU-a", "GPU-b"]));
    let item = world.one_for(&rig).await;
    let good = commitments_of(&rig.compute(&item));
    let before = world.row(&item).await;
    let named = |name: String| Commitment { uuid: name.parse().unwrap(), ..good[0].clone() };
    let cpu = Commitment::cpu(good[0].merkle_root);
    for wrong in [
        Vec::new(),
        vec![cpu.clone()],
        vec![good[0].clone(), cpu],
        vec![good[0].clone(), good[0].clone()],
        (0..17).map(|number| named(format!("GPU-{number}"))).collect(),
        vec![named(format!("GPU-{}", "x".repeat(61)))],
    ] {
        assert_eq!(world.desk.commit(MINER, commitment(&item, wrong)).await, Err(Refusal::GpuCommitments));
        assert_eq!(world.row(&item).await, before);
    }
}

async fn what_is_no_proof_of_the_opened_gpus_can_be_sent_again() {
    let (world, rig) = (World::new(gpu_rules()).await, Rig::new(&["GPU-a", "GPU-b"]));
    let item = world.one_for(&rig).await;
    let committed = rig.compute(&item);
    let mut commitments = commitments_of(&committed);
    commitments[0].sig_val = None;
    let answer = world.desk.commit(MINER, commitment(&item, commitments)).await.unwrap();
    let [request] = answer.proof_requests.as_slice() else { panic!("only the signed one is opened") };
    let good = rig.open(&item, &committed, request);
    let of_the_refused = ProofResponse { uuid: "GPU-a".parse().unwrap(), ..good.clone() };
    for wrong in [Vec::new(), vec![good.clone(), good.clone()], vec![good.clone(), of_the_refused]] {
        assert_eq!(world.desk.prove(MINER, proof(&item, wrong)).await, Err(Refusal::GpuProofs));
        assert_eq!(world.status(&item).await, Status::Committed);
    }
    world.desk.prove(MINER, proof(&item, vec![good])).await.unwrap();
}

async fn only_workers_with_an_allowed_gpu_are_asked_for_gpu_work() {
    let (world, rig) = (World::new(gpu_rules()).await, Rig::new(&["GPU-a"]));
    world.hear(STRANGER, &["cpu-only"]).await;
    world.hear_gpus(MINER, &[]).await;
    assert_eq!(world.scheduler.pass().await.unwrap(), 0, "no GPU");
    world.hear_gpus(MINER, &rig.plugin("NVIDIA GTX 970")).await;
    assert_eq!(world.scheduler.pass().await.unwrap(), 0, "not on the list");
    world.hear_gpus(MINER, &rig.plugin("nvidia geforce rtx 4090 D")).await;
    assert_eq!(world.scheduler.pass().await.unwrap(), 1);
}

async fn without_a_list_every_gpu_is_asked_but_one_is_needed() {
    let rig = Rig::new(&["GPU-a"]);
    let everything = GpuRules { model_allowlist: Vec::new(), ..rules().gpu };
    let world = World::new(Rules { gpu: everything, ..gpu_rules() }).await;
    world.hear_gpus(MINER, &[]).await;
    assert_eq!(world.scheduler.pass().await.unwrap(), 0, "an empty list still needs a GPU");
    world.hear_gpus(MINER, &rig.plugin("NVIDIA GTX 970")).await;
    assert_eq!(world.scheduler.pass().await.unwrap(), 1);
}

async fn both_kinds_come_in_turn_to_whoever_can_do_both() {
    let (world, rig) = (World::new(Rules { kinds: Kinds::Both, ..rules() }).await, Rig::new(&["GPU-a"]));
    let mut kinds = Vec::new();
    for _ in 0..4 {
        world.hear_gpus(MINER, &rig.plugin("NVIDIA RTX 4090")).await;
        world.hear(STRANGER, &["cpu-only"]).await;
        assert_eq!(world.scheduler.pass().await.unwrap(), 2);
        assert_eq!(world.fetch(STRANGER).await[0].challenge_type, ChallengeKind::CpuMatrix);
        kinds.push(world.fetch(MINER).await[0].challenge_type);
        for _ in 0..4 {
            world.clock.advance(Duration::from_secs(INTERVAL_S / 4));
            world.hear_gpus(MINER, &rig.plugin("NVIDIA RTX 4090")).await;
            world.hear(STRANGER, &["cpu-only"]).await;
            world.scheduler.sweep().await.unwrap();
        }
    }
    let (cpu, gpu) = (ChallengeKind::CpuMatrix, ChallengeKind::GpuMatrix);
    assert_eq!(kinds, [cpu, gpu, cpu, gpu]);
}

async fn whoever_proves_a_contested_gpu_gets_it_from_a_holder_that_does_not() {
    let (world, rig) = (World::new(gpu_rules()).await, Rig::new(&["GPU-a"]));
    let plugin = rig.plugin("RTX 4090");
    world.hear_gpus(STRANGER, &plugin).await;
    world.hear_gpus(MINER, &plugin).await;
    let owner = async || {
        world.store.snapshot().await.unwrap().gpu_owners(0).await.unwrap()[&"GPU-a".parse::<GpuUuid>().unwrap()].hotkey
    };
    assert_eq!(owner().await, STRANGER, "the first reporter holds it");
    assert_eq!(world.scheduler.pass().await.unwrap(), 2, "and both are asked to prove it");
    let item = world.fetch(MINER).await.remove(0);
    world.answer(&rig, &item, commitments_of(&rig.compute(&item)), faithful).await.unwrap();
    assert_eq!(owner().await, MINER);
    assert_eq!(world.store.gpus_of(MINER).await.unwrap()[0].passed, 1);

    // Now the proved one is the holder: a claim that proves nothing changes nothing.
    world.hear_gpus(STRANGER, &plugin).await;
    assert_eq!(owner().await, MINER);
    assert!(OWNERSHIP_LAPSE_MS > 0 && world.clock.unix_ms() == START_MS);
}

/// An honest challenge by these counts, to its verdict; what was drawn.
async fn shown_by(rows: Spread, coordinates: Spread) -> Targets {
    let gpu = GpuRules { rows, coordinates, ..rules().gpu };
    let (world, rig) = (World::new(Rules { gpu, ..gpu_rules() }).await, Rig::new(&["GPU-a"]));
    let item = world.one_for(&rig).await;
    world.answer(&rig, &item, commitments_of(&rig.compute(&item)), faithful).await.unwrap();
    assert_eq!(world.status(&item).await, Status::Verified);
    world.row(&item).await.targets
}

const NONE: Spread = Spread { base: 0, variance: 0.0 };

async fn elements_alone_can_be_asked_for() {
    let targets = shown_by(NONE, rules().gpu.coordinates).await;
    assert!(targets.rows.is_empty() && !targets.coordinates.is_empty());
}

async fn rows_alone_can_be_asked_for() {
    let targets = shown_by(rules().gpu.rows, NONE).await;
    assert!(!targets.rows.is_empty() && targets.coordinates.is_empty());
}

on_both_engines!(
    a_reloaded_tolerance_judges_the_next_proof,
    a_gpu_challenge_goes_all_the_way_round,
    a_gpu_with_an_empty_signature_fails_alone,
    a_gpu_without_a_signature_fails_alone,
    a_wrongly_signed_gpu_fails_alone,
    a_signature_of_zeros_fails_alone,
    a_root_that_was_changed_after_it_was_signed_fails_alone,
    a_root_that_is_none_fails_alone,
    a_gpu_that_the_worker_does_not_report_fails_alone,
    a_wrong_element_fails_alone,
    a_row_with_one_wrong_number_fails_alone,
    a_row_hash_that_was_not_committed_to_fails_alone,
    a_number_that_is_none_fails_alone,
    a_list_that_is_too_short_fails_alone,
    a_list_that_is_too_long_fails_alone,
    a_gpu_that_the_proof_leaves_out_fails_alone,
    a_gpu_signed_by_its_host_fails_alone_where_host_keys_are_not_accepted,
    a_challenge_of_which_no_gpu_is_believed_fails_at_once_and_the_caller_reads_why,
    a_challenge_of_which_no_gpu_passes_fails_and_every_gpu_has_its_reason,
    an_explanation_names_the_gpus_and_why_one_failed,
    what_is_no_commitment_of_gpus_leaves_the_challenge_as_it_was,
    what_is_no_proof_of_the_opened_gpus_can_be_sent_again,
    only_workers_with_an_allowed_gpu_are_asked_for_gpu_work,
    without_a_list_every_gpu_is_asked_but_one_is_needed,
    both_kinds_come_in_turn_to_whoever_can_do_both,
    whoever_proves_a_contested_gpu_gets_it_from_a_holder_that_does_not,
    elements_alone_can_be_asked_for,
    rows_alone_can_be_asked_for,
);

//! A worker of eight GPUs behind the real miner, before the real validator: each GPU is judged alone, also in the largest
//! proof that there is.

use std::sync::atomic::AtomicBool;

use byteleap_compute::{
    engine::{Committed, GpuEngine, software::SoftwareEngine},
    gpu::{GpuChallenge, row_hash::row_hash},
};
use byteleap_protocol::{
    Object,
    challenge::{ChallengeData, ChallengeKind},
    frame::{MinerFrame, ProofAnswer, WorkerFrame},
    gpu_signature::CommitmentSigner,
    half::Half,
    hotkey::Signer,
    id::{GpuUuid, RowHash, Unit},
    merkle::MerkleTree,
    payload::{Commitment, ProofRequest, ProofResponse, SignatureVersion},
};
use serde_json::{Value, json};

use super::{
    worker::Worker,
    world::{Real, World, missed, passed},
};

const WORKER: &str = "eight-gpus";

/// The worker's GPUs, of which the last is never opened.
const GPUS: [&str; 8] = ["GPU-0", "GPU-1", "GPU-2", "GPU-3", "GPU-4", "GPU-5", "GPU-6", "GPU-7"];
const LEFT_OUT: &str = GPUS[7];

/// What this worker's commitments are signed with.
fn signer() -> CommitmentSigner {
    CommitmentSigner::from_hex(&"07".repeat(32)).unwrap()
}

/// What it computes, or claims to have computed.
trait Gpus: Send + 'static {
    fn compute(&mut self, challenge: GpuChallenge) -> Vec<Committed>;
    fn numbers(&self, gpu: &GpuUuid, request: &ProofRequest) -> Vec<Half>;
}

async fn serve(mut worker: Worker, mut gpus: impl Gpus) {
    let mut held = Vec::new();
    while let Some(frame) = worker.hear().await {
        match frame {
            MinerFrame::TaskAssignment { data } => {
                let definition = ChallengeData::parse(ChallengeKind::GpuMatrix, &data.data).unwrap();
                let committed = gpus.compute(GpuChallenge::from(&definition));
                let result = worker.result(data, committed.iter().map(|unit| unit.commitment.clone()).collect());
                held = committed;
                worker.say(WorkerFrame::TaskResult(result)).await;
            }
            MinerFrame::ProofRequest { message_id, data } => {
                let asked = data.requests.iter().filter(|request| request.uuid.to_string() != LEFT_OUT);
                let proofs = asked.map(|request| open(&gpus, &held, request)).collect();
                let data = ProofAnswer::opened(proofs, 0, 0);
                worker.say(WorkerFrame::ProofResponse { message_id, data }).await;
            }
            _ => {}
        }
    }
}

fn open(gpus: &impl Gpus, held: &[Committed], request: &ProofRequest) -> ProofResponse {
    let Unit::Gpu(gpu) = &request.uuid else { panic!("a GPU is opened") };
    let row_hashes = &held.iter().find(|unit| unit.commitment.uuid == request.uuid).unwrap().row_hashes;
    let tree = MerkleTree::from_rows(row_hashes).unwrap();
    ProofResponse {
        uuid: request.uuid.clone(),
        row_hashes: request.rows.iter().map(|row| row_hashes[*row as usize]).collect(),
        merkle_proofs: request.rows.iter().map(|row| tree.open(*row as usize).unwrap()).collect(),
        coordinate_values: gpus.numbers(gpu, request),
    }
}

/// Lets the worker take part until `holds`, and gives the explanation of its miner's score.
async fn explained(set: &[&str], gpus: impl Gpus, holds: impl Fn(&Value) -> bool) -> Value {
    let more = ["validation.challenge_type=gpu_matrix", "validation.gpu.size_variance=0"];
    let mut world = World::start(Real::Miner, &[&more, set].concat()).await;
    let (port, miner) = (world.port_of(1).await, world.miner(1).hotkey());
    let card = |gpu| json!({ "uuid": gpu, "name": "software", "host_key": signer().public_key().to_string() });
    let system_info: Object =
        [("gpu_plugin".to_owned(), GPUS.map(card).into()), ("gpu_info".to_owned(), GPUS.map(card).into())]
            .into_iter()
            .collect();
    let worker = Worker::join(port, WORKER, ChallengeKind::GpuMatrix, system_info).await;
    let serving = tokio::spawn(serve(worker, gpus));
    let told = world.explained(miner, "the GPUs are judged", holds).await;
    serving.abort();
    world.network.stop().await;
    told
}

/// The GPUs of an explanation that failed, each with its code.
fn failed(told: &Value) -> Vec<(&str, &str)> {
    let units = told["failed_units"].as_array().into_iter().flatten();
    units.map(|unit| (unit["gpu"].as_str().unwrap(), unit["code"].as_str().unwrap())).collect()
}

/// GPUs that the processor plays, honestly.
struct Honest {
    engine: SoftwareEngine,
    challenge: Option<GpuChallenge>,
}

impl Gpus for Honest {
    fn compute(&mut self, challenge: GpuChallenge) -> Vec<Committed> {
        self.engine.submit(self.challenge.insert(challenge), &AtomicBool::new(false)).unwrap()
    }

    fn numbers(&self, gpu: &GpuUuid, request: &ProofRequest) -> Vec<Half> {
        self.engine.open(self.challenge.as_ref().unwrap(), gpu, &request.rows, &request.coordinates).unwrap()
    }
}

#[tokio::test]
async fn a_gpu_that_its_worker_leaves_out_of_the_proof_fails_alone() {
    let gpus = GPUS.map(|gpu| gpu.parse().unwrap()).into();
    let honest = Honest { engine: SoftwareEngine::with_gpus(signer(), gpus), challenge: None };
    let told = explained(&["validation.gpu.matrix_size=101"], honest, |told| !failed(told).is_empty()).await;
    assert_eq!(failed(&told), [(LEFT_OUT, "no_proof")]);
    assert_eq!((passed(&told, WORKER), missed(&told, WORKER)), (1, None));
}

/// GPUs that compute nothing: all rows of their results are the same one, which somebody made up.
struct MadeUp(Vec<Half>);

impl MadeUp {
    /// Numbers with as many digits as those of a true result.
    fn with_size(size: u16) -> Self {
        Self((0..size).map(|column| Half::from_f64(f64::from(column % 4001) / 16.0 - 125.0)).collect())
    }
}

impl Gpus for MadeUp {
    fn compute(&mut self, challenge: GpuChallenge) -> Vec<Committed> {
        let row_hashes: Vec<RowHash> = vec![row_hash(&self.0); challenge.size.as_usize()];
        let merkle_root = MerkleTree::from_rows(&row_hashes).unwrap().root();
        let commit = |gpu: &str| {
            let gpu: GpuUuid = gpu.parse().unwrap();
            let sig_val = Some(signer().sign(&challenge.seed, &gpu, merkle_root));
            let commitment = Commitment { uuid: Unit::Gpu(gpu), merkle_root, sig_ver: SignatureVersion::P256, sig_val };
            Committed { commitment, row_hashes: row_hashes.clone() }
        };
        GPUS.map(commit).into()
    }

    fn numbers(&self, gpu: &GpuUuid, request: &ProofRequest) -> Vec<Half> {
        let rows = request.rows.iter().flat_map(|_| &self.0);
        let mut numbers: Vec<_> = self.0[..request.coordinates.len()].iter().chain(rows).copied().collect();
        match gpu.as_str() {
            "GPU-5" => drop(numbers.pop()),
            "GPU-6" => numbers[0] = Half::NAN,
            _ => {}
        }
        numbers
    }
}

#[tokio::test]
async fn the_largest_proof_reaches_the_validator_and_each_of_its_gpus_is_judged() {
    const SIZE: u16 = 34_406;
    let set = [
        "validation.gpu.matrix_size=34406",
        "validation.gpu.verification.row_verification_count=3",
        "validation.gpu.verification.row_verification_count_variance=0",
        "validation.challenge_timeout=120",
    ];
    let told = explained(&set, MadeUp::with_size(SIZE), |told| missed(told, WORKER).is_some()).await;
    let mut expected = GPUS.map(|gpu| (gpu, "wrong_elements"));
    (expected[5].1, expected[6].1, expected[7].1) = ("wrong_number_count", "number_out_of_range", "no_proof");
    assert_eq!(failed(&told), expected);
    assert_eq!(passed(&told, WORKER), 0);
}

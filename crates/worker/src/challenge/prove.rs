//! Phase 2: opens the rows that a validator drew, out of the tree that was committed to, and lets GPUs show their numbers.

use std::time::Duration;

use byteleap_compute::engine::EngineError;
use byteleap_compute::gpu::row_hash::row_hash as gpu_row_hash;
use byteleap_protocol::frame::{ProofAnswer, ProofQuery};
use byteleap_protocol::half::Half;
use byteleap_protocol::id::{GpuUuid, RowHash, Unit};
use byteleap_protocol::merkle::{MerkleTree, NodeHash};
use byteleap_protocol::payload::{ProofRequest, ProofResponse};

use super::cache::{Kept, ResultCache};
use crate::gpu::Gpus;

/// Rows that one request may ask for: as JSON at most 5 MB, well below what a miner takes in one message. Validators draw
/// some dozens.
pub const MAX_ROWS: usize = 4096;

/// Numbers that one request may ask GPUs for: as JSON some 12 MB, below what a miner takes in one message. Validators draw three
/// rows of 34,406 numbers for each of eight GPUs at most.
pub const MAX_NUMBERS: usize = 1_200_000;

/// Answers a proof request from the kept results. Takes some milliseconds per unit for the tree, and as long as the GPUs take to show
/// their numbers.
///
/// Units that cannot be opened are left out, with the reason in `error`; the answer is a success if any unit could
/// (worker-miner spec 2.10). A GPU that cannot show its numbers is there without them, so that the others count (5.7).
/// `received_ts` is when the request came in, `completed_ts` yields when the answer was ready, both in ms since 1970.
pub fn prove(
    cache: &ResultCache,
    gpus: &Gpus,
    query: &ProofQuery,
    now: Duration,
    received_ts: i64,
    completed_ts: impl FnOnce() -> i64,
) -> ProofAnswer {
    let asked: usize = query.requests.iter().map(|request| request.rows.len()).sum();
    if asked > MAX_ROWS {
        return ProofAnswer::failed(format!("{asked} rows are asked for, at most {MAX_ROWS} are opened at once"));
    }
    let Some(kept) = cache.get(query.validator_hotkey, &query.challenge_id, now) else {
        return ProofAnswer::failed("no result is kept for this validator and challenge");
    };
    let asked = query.requests.iter().map(|request| numbers_asked(&kept, request)).sum::<usize>();
    if asked > MAX_NUMBERS {
        return ProofAnswer::failed(format!("{asked} numbers are asked for, at most {MAX_NUMBERS} are shown at once"));
    }
    let mut proofs = Vec::new();
    let mut reasons = Vec::new();
    for request in &query.requests {
        let opened = open(&kept, request).map(|mut proof| {
            if let Unit::Gpu(gpu) = &request.uuid {
                match show(&kept, gpus, gpu, request, &proof.row_hashes) {
                    Ok(numbers) => proof.coordinate_values = numbers,
                    Err(error) => reasons.push(format!("unit {gpu}: {error}")),
                }
            }
            proof
        });
        match opened {
            Ok(proof) => proofs.push(proof),
            Err(reason) => reasons.push(format!("unit {}: {reason}", request.uuid)),
        }
    }
    if proofs.is_empty() {
        return ProofAnswer::failed(reasons.join("; "));
    }
    let error = (!reasons.is_empty()).then(|| reasons.join("; "));
    ProofAnswer { error, ..ProofAnswer::opened(proofs, received_ts, completed_ts()) }
}

/// How many numbers a GPU has to show for this.
fn numbers_asked(kept: &Kept, request: &ProofRequest) -> usize {
    match (&request.uuid, &kept.gpu_challenge) {
        (Unit::Gpu(_), Some(challenge)) => {
            request.coordinates.len() + request.rows.len().saturating_mul(challenge.size.as_usize())
        }
        _ => 0,
    }
}

/// Opens the rows of one unit, in the order in which they are asked for.
fn open(kept: &Kept, request: &ProofRequest) -> Result<ProofResponse, String> {
    let row_hashes = kept.row_hashes(&request.uuid).ok_or("no result is kept for it")?;
    if request.rows.is_empty() && request.uuid == Unit::Cpu {
        return Err("the processor opens rows, and none is asked for".to_owned());
    }
    let size = row_hashes.len();
    let within = |index: &u32| (*index as usize) < size;
    if let Some(row) = request.rows.iter().find(|row| !within(row)) {
        return Err(format!("row {row} is not below {size}"));
    }
    if let Some((row, column)) = request.coordinates.iter().find(|(row, column)| !within(row) || !within(column)) {
        return Err(format!("element {row}, {column} is not below {size}"));
    }
    let tree = MerkleTree::from_rows(row_hashes).ok_or("its result has no row")?;
    let openings: Vec<_> = request.rows.iter().filter_map(|row| tree.open(*row as usize)).collect();
    Ok(ProofResponse {
        uuid: request.uuid.clone(),
        row_hashes: openings.iter().map(|opening| row_hash(opening.leaf_hash)).collect(),
        merkle_proofs: openings,
        coordinate_values: Vec::new(),
    })
}

/// Lets a GPU show the numbers that are asked for; those of rows must be the ones that it committed to.
fn show(
    kept: &Kept,
    gpus: &Gpus,
    gpu: &GpuUuid,
    request: &ProofRequest,
    row_hashes: &[RowHash],
) -> Result<Vec<Half>, EngineError> {
    if let Some(numbers) = kept.shown(gpu, request) {
        return Ok(numbers);
    }
    let challenge = kept.gpu_challenge.as_ref().ok_or(EngineError::Gone)?;
    let numbers = gpus.engine()?.open(challenge, gpu, &request.rows, &request.coordinates)?;
    let rows = numbers.get(request.coordinates.len()..).unwrap_or_default().chunks_exact(challenge.size.as_usize());
    if !rows.map(gpu_row_hash).eq(row_hashes.iter().copied()) {
        return Err(EngineError::Gone);
    }
    kept.keep_shown(gpu.clone(), request.clone(), numbers.clone());
    Ok(numbers)
}

fn row_hash(leaf: NodeHash) -> RowHash {
    match leaf {
        NodeHash::Row(hash) => hash,
        NodeHash::Inner(_) => unreachable!("trees are built from row hashes"),
    }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::frame::TaskOutcome;
    use byteleap_protocol::hotkey::Hotkey;
    use byteleap_protocol::id::ChallengeId;

    use super::super::cache::Committed;
    use super::*;

    fn cache() -> (ResultCache, MerkleTree) {
        let row_hashes: Vec<RowHash> = (0..5).map(|row| RowHash([row; 8])).collect();
        let tree = MerkleTree::from_rows(&row_hashes).unwrap();
        let cache = ResultCache::default();
        let (validator, challenge_id) = (Hotkey([1; 32]), ChallengeId::new("c").unwrap());
        let (outcome, units) = (TaskOutcome::failed("unused"), vec![(Unit::Cpu, row_hashes)]);
        let committed = Committed { validator, challenge_id, outcome, gpu_challenge: None, units };
        cache.insert(committed, Duration::ZERO).unwrap();
        (cache, tree)
    }

    fn request(uuid: &str, rows: Vec<u32>) -> ProofRequest {
        ProofRequest { uuid: uuid.parse().unwrap(), rows, coordinates: Vec::new() }
    }

    fn answer(cache: &ResultCache, challenge: &str, requests: Vec<ProofRequest>) -> ProofAnswer {
        let challenge_id = ChallengeId::new(challenge).unwrap();
        let query = ProofQuery { validator_hotkey: Hotkey([1; 32]), challenge_id, requests };
        prove(cache, &Gpus::none(), &query, Duration::ZERO, 5, || 7)
    }

    #[test]
    fn rows_are_opened_in_request_order_and_lead_to_the_root() {
        let (cache, tree) = cache();
        let answer = answer(&cache, "c", vec![request("-1", vec![4, 0, 4])]);
        assert!(answer.success && answer.error.is_none());
        assert_eq!(answer.phase2_timestamp("worker_proof_request_received_ts"), Some(5));
        assert_eq!(answer.phase2_timestamp("worker_proof_completed_ts"), Some(7));
        let [proof] = answer.proofs.as_slice() else { panic!("one unit") };
        assert_eq!(proof.row_hashes, [RowHash([4; 8]), RowHash([0; 8]), RowHash([4; 8])]);
        for (row, opening) in [4, 0, 4].into_iter().zip(&proof.merkle_proofs) {
            opening.verify(tree.root(), 5, row, NodeHash::Row(RowHash([row as u8; 8]))).unwrap();
        }
    }

    #[test]
    fn a_unit_that_cannot_be_opened_does_not_cost_the_others() {
        let (cache, _) = cache();
        let both = answer(&cache, "c", vec![request("GPU-1", vec![0]), request("-1", vec![1])]);
        assert!(both.success);
        assert_eq!(both.proofs.len(), 1);
        assert_eq!(both.error.as_deref(), Some("unit GPU-1: no result is kept for it"));
    }

    #[test]
    fn what_cannot_be_opened_is_a_failure_with_its_reason() {
        let (cache, _) = cache();
        let error = |challenge, requests| {
            let answer = answer(&cache, challenge, requests);
            assert!(!answer.success && answer.proofs.is_empty());
            answer.error.unwrap()
        };
        assert_eq!(error("c", vec![request("-1", vec![0, 5])]), "unit -1: row 5 is not below 5");
        assert!(error("other", vec![request("-1", vec![0])]).contains("no result is kept"));
        assert!(error("c", vec![request("-1", vec![])]).contains("rows"));
        assert!(error("c", vec![request("-1", vec![0; MAX_ROWS + 1])]).contains("4097"));
    }
}

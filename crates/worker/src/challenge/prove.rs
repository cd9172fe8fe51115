//! Phase 2: opens the rows that a validator drew, out of the tree that was committed to.

use std::time::Duration;

use byteleap_protocol::frame::{ProofAnswer, ProofQuery};
use byteleap_protocol::id::{RowHash, Unit};
use byteleap_protocol::merkle::{MerkleTree, NodeHash};
use byteleap_protocol::payload::{ProofRequest, ProofResponse};

use super::cache::ResultCache;

/// Rows that one request may ask for: as JSON at most 5 MB, well below what a miner takes in one message. Validators draw
/// some dozens.
pub const MAX_ROWS: usize = 4096;

/// Answers a proof request from the kept results. Takes some microseconds per row.
///
/// Units that cannot be opened are left out, with the reason in `error`; the answer is a success if any unit could
/// (worker-miner spec 2.10). `received_ts` is when the request came in, `completed_ts` yields when the answer was
/// ready, both in ms since 1970.
pub fn prove(
    cache: &ResultCache,
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
    let mut proofs = Vec::new();
    let mut reasons = Vec::new();
    for request in &query.requests {
        match open(&kept.tree, request) {
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

/// Opens the rows of one unit, in the order in which they are asked for.
fn open(tree: &MerkleTree, request: &ProofRequest) -> Result<ProofResponse, String> {
    if request.uuid != Unit::Cpu {
        return Err("no result is kept for it".to_owned());
    }
    if request.rows.is_empty() {
        return Err("the processor opens rows, and none is asked for".to_owned());
    }
    let mut proof = ProofResponse {
        uuid: Unit::Cpu,
        row_hashes: Vec::with_capacity(request.rows.len()),
        merkle_proofs: Vec::with_capacity(request.rows.len()),
        coordinate_values: Vec::new(),
    };
    for row in &request.rows {
        let opened = tree.open(*row as usize);
        let out_of_range = || format!("row {row} is not below {}", tree.leaf_count());
        let opening = opened.ok_or_else(out_of_range)?;
        proof.row_hashes.push(row_hash(opening.leaf_hash));
        proof.merkle_proofs.push(opening);
    }
    Ok(proof)
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
        let committed = Committed { validator, challenge_id, outcome: TaskOutcome::failed("unused"), row_hashes };
        cache.insert(committed, Duration::ZERO).unwrap();
        (cache, tree)
    }

    fn request(uuid: &str, rows: Vec<u32>) -> ProofRequest {
        ProofRequest { uuid: uuid.parse().unwrap(), rows, coordinates: Vec::new() }
    }

    fn answer(cache: &ResultCache, challenge: &str, requests: Vec<ProofRequest>) -> ProofAnswer {
        let challenge_id = ChallengeId::new(challenge).unwrap();
        let query = ProofQuery { validator_hotkey: Hotkey([1; 32]), challenge_id, requests };
        prove(cache, &query, Duration::ZERO, 5, || 7)
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

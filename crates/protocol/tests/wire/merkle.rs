//! Trees and openings (`merkle.json`).

use byteleap_protocol::merkle::{MerkleProof, MerkleTree, NodeHash};
use serde_json::Value;
use sha2::{Digest, Sha256};

#[derive(serde::Deserialize)]
struct Vectors {
    trees: Vec<Tree>,
    must_reject: Rejected,
    accepted_by_reference_but_should_be_rejected: Rejected,
    duplicate_last_leaf_collision: Collision,
}

#[derive(serde::Deserialize)]
struct Tree {
    leaf_rule: String,
    leaf_count: usize,
    leaves: Option<Vec<NodeHash>>,
    depth: usize,
    root: NodeHash,
    proofs: Vec<MerkleProof>,
}

#[derive(serde::Deserialize)]
struct Rejected {
    root: NodeHash,
    cases: Vec<RejectedCase>,
}

#[derive(serde::Deserialize)]
struct RejectedCase {
    why: String,
    proof: Value,
}

#[derive(serde::Deserialize)]
struct Collision {
    root_9: NodeHash,
    root_10: NodeHash,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/merkle.json")).unwrap()
}

/// Leaf i by the vectors' rule: the first digits of SHA-256 of the text `leaf-<i>`.
fn leaf(number: usize, digits: usize) -> NodeHash {
    hex::encode(Sha256::digest(format!("leaf-{number}")))[..digits].parse().unwrap()
}

#[test]
fn trees_and_openings_equal_the_recorded_ones() {
    for recorded in vectors().trees {
        let digits = if recorded.leaf_rule.contains("all 64") { 64 } else { 16 };
        let leaves: Vec<_> = (0..recorded.leaf_count).map(|number| leaf(number, digits)).collect();
        assert_eq!(*recorded.leaves.as_ref().unwrap_or(&leaves), leaves);

        let tree = MerkleTree::new(leaves.clone()).unwrap();
        assert_eq!(tree.root(), recorded.root);
        for proof in recorded.proofs {
            let index = usize::try_from(proof.leaf_index).unwrap();
            assert_eq!(tree.open(index).unwrap(), proof);
            assert_eq!(proof.proof_hashes.len(), recorded.depth);
            assert_eq!(proof.verify(recorded.root, recorded.leaf_count, index, leaves[index]), Ok(()));
        }
    }
}

#[test]
fn forged_openings_are_refused_also_where_the_reference_accepts_them() {
    let vectors = vectors();
    // Both lists are about the tree of five leaves.
    let leaves: Vec<_> = (0..5).map(|number| leaf(number, 16)).collect();
    let root = MerkleTree::new(leaves.clone()).unwrap().root();
    for list in [vectors.must_reject, vectors.accepted_by_reference_but_should_be_rejected] {
        assert_eq!(list.root, root);
        for RejectedCase { why, proof } in list.cases {
            // A text that is no node is refused already when it is read.
            let Ok(proof) = serde_json::from_value::<MerkleProof>(proof) else { continue };
            for (index, leaf) in leaves.iter().enumerate() {
                assert!(proof.verify(root, 5, index, *leaf).is_err(), "{why}");
                assert!(proof.verify(root, 5, index, proof.leaf_hash).is_err(), "{why}");
            }
        }
    }
}

#[test]
fn a_repeated_last_leaf_is_told_apart_by_the_leaf_count() {
    let mut leaves: Vec<_> = (0..9).map(|number| leaf(number, 16)).collect();
    let collision = vectors().duplicate_last_leaf_collision;
    let nine = MerkleTree::new(leaves.clone()).unwrap();
    leaves.push(leaves[8]);
    let ten = MerkleTree::new(leaves.clone()).unwrap();
    assert_eq!((nine.root(), ten.root()), (collision.root_9, collision.root_10));
    // The tenth leaf opens in a tree of ten, and never in one of nine.
    let opening = ten.open(9).unwrap();
    assert_eq!(opening.verify(ten.root(), 10, 9, leaves[9]), Ok(()));
    assert!(opening.verify(nine.root(), 9, 9, leaves[9]).is_err());
}

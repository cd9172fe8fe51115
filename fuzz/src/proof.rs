//! The openings that decide what a miner earns.

use byteleap_protocol::id::RowHash;
use byteleap_protocol::merkle::{MerkleProof, MerkleTree, NodeHash};

/// An opening that was tampered with. The first two bytes choose a tree and a row of it; each further pair is one change
/// to the honest opening or to the question. Exactly the honest opening of the row that is asked for is proved.
pub fn merkle_proof(bytes: &[u8]) {
    let [rows, row, changes @ ..] = bytes else { return };
    let leaves: Vec<_> = (0..=*rows).map(leaf).collect();
    let tree = MerkleTree::new(leaves.clone()).unwrap();
    let mut index = usize::from(*row) % leaves.len();
    let mut opening = tree.open(index).unwrap();
    let mut claimed = leaves[index];
    for change in changes.chunks_exact(2) {
        apply(change[0], change[1], &tree, &mut opening, &mut index, &mut claimed);
    }
    let honest = tree.open(index);
    let is_true = honest.as_ref() == Some(&opening) && leaves.get(index) == Some(&claimed);
    let verdict = opening.verify(tree.root(), leaves.len(), index, claimed);
    assert_eq!(verdict.is_ok(), is_true, "{verdict:?} for row {index} of {}: {opening:?}", leaves.len());

    let text = serde_json::to_string(&opening).unwrap();
    assert_eq!(serde_json::from_str::<MerkleProof>(&text).unwrap(), opening);
}

fn apply(
    change: u8,
    with: u8,
    tree: &MerkleTree,
    opening: &mut MerkleProof,
    index: &mut usize,
    claimed: &mut NodeHash,
) {
    let level = usize::from(with) % opening.proof_hashes.len().max(1);
    let other = tree.open(usize::from(with) % tree.leaf_count()).unwrap();
    match change % 14 {
        0 => opening.leaf_index = with.into(),
        1 => opening.leaf_index = u64::MAX - u64::from(with),
        2 => *index = with.into(),
        3 => *index = usize::MAX - usize::from(with),
        4 => opening.leaf_hash = leaf(with),
        5 => *claimed = leaf(with),
        6 => drop(opening.proof_hashes.pop()),
        7 => drop(opening.proof_directions.pop()),
        8 => opening.proof_directions.push(with.is_multiple_of(2)),
        9 => opening.proof_hashes.push(other.leaf_hash),
        10 => opening.proof_hashes.push(tree.root()),
        11 => opening.proof_directions.get_mut(level).into_iter().for_each(|right| *right = !*right),
        12 => *opening = other,
        // An inner node of another way in the place of this one's, or in that of the row.
        _ => match (opening.proof_hashes.get_mut(level), other.proof_hashes.get(level)) {
            (Some(own), Some(foreign)) => *own = *foreign,
            _ => opening.leaf_hash = tree.root(),
        },
    }
}

/// A row hash of its own for each number.
fn leaf(number: u8) -> NodeHash {
    NodeHash::Row(RowHash([number, 0, 0, 0, 0, 0, 0, number]))
}

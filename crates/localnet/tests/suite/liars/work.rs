//! A challenge as a worker computes it, and the lies that a worker can tell about the result.

use std::sync::atomic::AtomicBool;

use byteleap_compute::{challenge::CpuChallenge, cpu::compute};
use byteleap_protocol::{
    challenge::{ChallengeData, ChallengeKind},
    id::{RowHash, Seed, Unit},
    merkle::{MerkleTree, NodeHash},
    payload::ProofResponse,
};

/// What a worker holds after computing, or claims to.
#[derive(Clone)]
pub(super) struct Work {
    hashes: Vec<RowHash>,
    tree: MerkleTree,
}

impl Work {
    /// Computes a challenge as it came.
    pub(super) fn of(data: &byteleap_protocol::Object) -> Self {
        let data = ChallengeData::parse(ChallengeKind::CpuMatrix, data).unwrap();
        Self::with_seed(&data, &data.seed)
    }

    /// The same challenge, as if it had come with another seed: what another worker, or an earlier round, was asked for.
    fn of_another(data: &byteleap_protocol::Object) -> Self {
        let data = ChallengeData::parse(ChallengeKind::CpuMatrix, data).unwrap();
        Self::with_seed(&data, &"00112233445566778899aabbccddeeff".parse().unwrap())
    }

    fn with_seed(data: &ChallengeData, seed: &Seed) -> Self {
        let challenge = CpuChallenge::new(seed, data.matrix_size, data.iterations).unwrap();
        Self::claiming(compute(&challenge, &AtomicBool::new(false)).unwrap().row_hashes)
    }

    fn claiming(hashes: Vec<RowHash>) -> Self {
        Self { tree: MerkleTree::from_rows(&hashes).unwrap(), hashes }
    }

    /// What is committed to.
    pub(super) fn root(&self) -> NodeHash {
        self.tree.root()
    }

    /// The openings of these rows.
    pub(super) fn open(&self, rows: &[u32]) -> ProofResponse {
        ProofResponse {
            uuid: Unit::Cpu,
            row_hashes: rows.iter().map(|row| self.hashes[*row as usize]).collect(),
            merkle_proofs: rows.iter().map(|row| self.tree.open(*row as usize).unwrap()).collect(),
            coordinate_values: Vec::new(),
        }
    }
}

/// What a worker does otherwise than an honest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// One row of the product is wrong.
    WrongRow,
    /// Half of the rows were never computed.
    PartialWork,
    /// Commits to the root of another worker's result, and proves by its own.
    AnotherWorkersRoot,
    /// Commits to its own result, and sends a proof that once held.
    ReplayedProof,
    /// Computes what the seed of an earlier challenge asks for.
    StaleSeed,
    /// Opens two rows in each other's place.
    SwappedIndex,
    /// Presents the parent of two rows as a row.
    InnerNodeAsLeaf,
    /// Opens the copy that pairs the last row of an odd level with itself.
    OddLeafDuplication,
    /// Leaves the last step of a path out.
    ShortPath,
    /// Adds a step to a path.
    LongPath,
    /// Opens one row fewer than asked.
    MissingRow,
}

impl Lie {
    pub(super) const ALL: [Self; 11] = [
        Self::WrongRow,
        Self::PartialWork,
        Self::AnotherWorkersRoot,
        Self::ReplayedProof,
        Self::StaleSeed,
        Self::SwappedIndex,
        Self::InnerNodeAsLeaf,
        Self::OddLeafDuplication,
        Self::ShortPath,
        Self::LongPath,
        Self::MissingRow,
    ];

    /// The worker that tells this lie and no other.
    pub(super) fn worker_id(self) -> &'static str {
        match self {
            Self::WrongRow => "wrong-row",
            Self::PartialWork => "partial-work",
            Self::AnotherWorkersRoot => "another-workers-root",
            Self::ReplayedProof => "replayed-proof",
            Self::StaleSeed => "stale-seed",
            Self::SwappedIndex => "swapped-index",
            Self::InnerNodeAsLeaf => "inner-node-as-leaf",
            Self::OddLeafDuplication => "odd-leaf-duplication",
            Self::ShortPath => "short-path",
            Self::LongPath => "long-path",
            Self::MissingRow => "missing-row",
        }
    }

    /// The code under which it is caught, and the reason as people read it. A proof that is refused can be sent again
    /// until its deadline, so a lie in its shape ends there.
    pub(super) fn verdict(self) -> (&'static str, &'static str) {
        match self {
            Self::WrongRow => ("wrong_row_hash", "row 50 has another hash than the product's row"),
            Self::PartialWork => ("wrong_row_hash", "row 51 has another hash than the product's row"),
            Self::StaleSeed => ("wrong_row_hash", "row 0 has another hash than the product's row"),
            Self::AnotherWorkersRoot | Self::ReplayedProof => {
                ("wrong_path", "row 0: path does not lead to the committed root")
            }
            Self::SwappedIndex => ("wrong_index", "row 0: opens another row than the requested one"),
            Self::InnerNodeAsLeaf => ("wrong_path", "row 0: opens another value than the row hash"),
            Self::OddLeafDuplication => ("wrong_path", "row 100: path does not lead from the requested row"),
            Self::ShortPath | Self::LongPath => {
                ("wrong_path", "row 0: path does not have one sibling and direction per level")
            }
            Self::MissingRow => ("proof_late", "no proof before the deadline"),
        }
    }

    /// What the liar commits to, and what it opens afterwards.
    pub(super) fn work(self, data: &byteleap_protocol::Object) -> (NodeHash, Work) {
        let (own, another) = (Work::of(data), Work::of_another(data));
        match self {
            Self::WrongRow => committed(altered(own, 50..51)),
            Self::PartialWork => committed(altered(own, 51..101)),
            Self::AnotherWorkersRoot => (another.root(), own),
            Self::ReplayedProof => (own.root(), another),
            Self::StaleSeed => committed(another),
            _ => committed(own),
        }
    }

    /// The openings of `rows`, all 101 of them, bent.
    pub(super) fn proof(self, work: &Work, rows: &[u32]) -> ProofResponse {
        assert_eq!(rows.len(), 101, "every row is opened");
        let mut proof = work.open(rows);
        let (first, last) = (0, rows.len() - 1);
        match self {
            Self::SwappedIndex => {
                proof.merkle_proofs.swap(first, 1);
                proof.row_hashes.swap(first, 1);
            }
            Self::InnerNodeAsLeaf => {
                let opening = &mut proof.merkle_proofs[first];
                opening.leaf_hash = NodeHash::parent(opening.leaf_hash, opening.proof_hashes.remove(0));
                opening.proof_directions.remove(0);
            }
            Self::OddLeafDuplication => {
                // With the last row doubled the tree has the same root, and the copy is row 101.
                let doubled = work.hashes.iter().chain(work.hashes.last()).copied().collect();
                let doubled = Work::claiming(doubled);
                assert_eq!(doubled.root(), work.root());
                proof.merkle_proofs[last] = doubled.tree.open(rows.len()).unwrap();
                proof.merkle_proofs[last].leaf_index = last as u64;
            }
            Self::ShortPath => {
                let opening = &mut proof.merkle_proofs[first];
                opening.proof_hashes.pop();
                opening.proof_directions.pop();
            }
            Self::LongPath => {
                let opening = &mut proof.merkle_proofs[first];
                opening.proof_hashes.push(NodeHash::Inner([7; 32]));
                opening.proof_directions.push(true);
            }
            Self::MissingRow => {
                proof.merkle_proofs.pop();
                proof.row_hashes.pop();
            }
            Self::WrongRow | Self::PartialWork | Self::AnotherWorkersRoot | Self::ReplayedProof | Self::StaleSeed => {}
        }
        proof
    }
}

fn committed(work: Work) -> (NodeHash, Work) {
    (work.root(), work)
}

/// The work with something invented in place of these rows.
fn altered(work: Work, rows: std::ops::Range<usize>) -> Work {
    let mut hashes = work.hashes;
    hashes[rows].fill(RowHash([0xbb; 8]));
    Work::claiming(hashes)
}

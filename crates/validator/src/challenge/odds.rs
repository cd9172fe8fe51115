//! How often partial work is caught: the rows are drawn and judged many times, with seeds, and the share of proofs that
//! failed is held against what the draw promises.

use std::sync::atomic::AtomicBool;

use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::cpu::compute;
use byteleap_compute::verify::{Fault, judge};
use byteleap_protocol::id::{Iterations, MatrixSize, RowHash, Unit};
use byteleap_protocol::merkle::MerkleTree;
use byteleap_protocol::payload::ProofResponse;
use rand_core::{RngCore, impls};

use super::Spread;
use super::targets::draw_rows;

const SIZE: u32 = 200;
const ROWS: u32 = 8;
const VARIANCE: f64 = 0.5;
const TRIALS: u32 = 3_000;

/// SplitMix64: small, seeded, and good enough to draw by.
struct Seeded(u64);

impl RngCore for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        impls::fill_bytes_via_next(self, bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// The chance that at least one of `drawn` distinct rows out of [`SIZE`] is among the `wrong` ones. With few rows drawn it
/// is all but 1 - (1 - f)^k.
fn caught_with(wrong: u32, drawn: u32) -> f64 {
    let all_right =
        (0..drawn).map(|already| f64::from((SIZE - wrong).saturating_sub(already)) / f64::from(SIZE - already));
    1.0 - all_right.product::<f64>()
}

/// That chance over the numbers of rows that may be drawn, each as likely as the other.
fn promised(wrong: u32) -> f64 {
    let spread = (f64::from(ROWS) * VARIANCE) as u32;
    let counts = ROWS - spread..=ROWS + spread;
    counts.clone().map(|drawn| caught_with(wrong, drawn)).sum::<f64>() / f64::from(counts.end() - counts.start() + 1)
}

#[test]
fn partial_work_is_caught_as_often_as_the_draw_promises() {
    let size = MatrixSize::new(SIZE).unwrap();
    let challenge = CpuChallenge::new(&"5eed".parse().unwrap(), size, Iterations::ONE).unwrap();
    let right = compute(&challenge, &AtomicBool::new(false)).unwrap().row_hashes;
    let mut rng = Seeded(2026);
    for (percent, wrong) in [(1, 2), (5, 10), (10, 20), (50, 100)] {
        let mut claimed = right.clone();
        // Any rows serve, since the draw knows nothing of them: the last ones, as of a worker that stopped early.
        claimed[(SIZE - wrong) as usize..].fill(RowHash([0xbb; 8]));
        let tree = MerkleTree::from_rows(&claimed).unwrap();
        let mut caught = 0_u32;
        for trial in 0..TRIALS {
            let rows = draw_rows(&mut rng, size, Spread { base: ROWS, variance: VARIANCE });
            let proof = ProofResponse {
                uuid: Unit::Cpu,
                row_hashes: rows.iter().map(|row| claimed[*row as usize]).collect(),
                merkle_proofs: rows.iter().map(|row| tree.open(*row as usize).unwrap()).collect(),
                coordinate_values: Vec::new(),
            };
            let first_wrong = rows.iter().copied().find(|row| *row >= SIZE - wrong);
            let verdict = judge(&challenge, &rows, tree.root(), &[proof]);
            let expected = first_wrong.map_or(Ok(()), |row| Err(Fault::RowHash { row }));
            assert_eq!(verdict, expected, "{percent} % wrong, trial {trial}, rows {rows:?}");
            caught += u32::from(verdict.is_err());
        }
        let promised = promised(wrong);
        let sigma = (promised * (1.0 - promised) / f64::from(TRIALS)).sqrt();
        let found = f64::from(caught) / f64::from(TRIALS);
        assert!(
            (found - promised).abs() < 4.0 * sigma,
            "{percent} % wrong: caught {found}, promised {promised} ± {sigma}"
        );
    }
}

#[test]
fn the_promise_is_that_of_the_formula_where_few_of_many_rows_are_drawn() {
    for wrong in [2, 10, 20, 100] {
        let share = f64::from(wrong) / f64::from(SIZE);
        let formula = 1.0 - (1.0 - share).powi(8);
        let exact = caught_with(wrong, 8);
        assert!(exact >= formula && exact - formula < 0.01, "{wrong}: {exact} and {formula}");
    }
}

//! The receiver's window (`replay_window.json`), by the strict rule.

use byteleap_protocol::session::ReplayWindow;
use proptest::prelude::*;

#[derive(serde::Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    walks: Vec<Walk>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    steps: Vec<Step>,
    final_highest: u64,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Step {
    One { seq: u64, strict: bool },
    Range { from: u64, to: u64, strict: bool },
}

#[derive(serde::Deserialize)]
struct Walk {
    name: String,
    seqs: Vec<u64>,
    strict: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/replay_window.json")).unwrap()
}

#[test]
fn every_step_of_the_cases_has_the_strict_verdict() {
    for Case { name, steps, final_highest } in vectors().cases {
        let mut window = ReplayWindow::default();
        for step in steps {
            let (seqs, strict): (Vec<u64>, bool) = match step {
                Step::One { seq, strict } => (vec![seq], strict),
                Step::Range { from, to, strict } if from <= to => ((from..=to).collect(), strict),
                Step::Range { from, to, strict } => ((to..=from).rev().collect(), strict),
            };
            for seq in seqs {
                assert_eq!(window.accept(seq), strict, "{name}: {seq}");
            }
        }
        assert_eq!(window.highest(), final_highest, "{name}");
    }
}

#[test]
fn both_long_walks_have_the_strict_verdicts() {
    for Walk { name, seqs, strict } in vectors().walks {
        let mut window = ReplayWindow::default();
        let verdicts: String = seqs.iter().map(|seq| if window.accept(*seq) { '1' } else { '0' }).collect();
        assert_eq!(verdicts, strict, "{name}");
    }
}

/// The rule as it is written, with all numbers kept for ever.
#[derive(Default)]
struct Naive {
    highest: u64,
    accepted: std::collections::BTreeSet<u64>,
}

impl Naive {
    fn accept(&mut self, seq: u64) -> bool {
        let is_old = seq < self.highest.saturating_sub(1023);
        let is_far = seq > self.highest.saturating_add(2048);
        if is_old || is_far || !self.accepted.insert(seq) {
            return false;
        }
        self.highest = self.highest.max(seq);
        true
    }
}

proptest! {
    #[test]
    fn the_window_equals_the_naive_model(steps in prop::collection::vec((-1100_i64..2100, 1_usize..20), 1..300)) {
        let (mut window, mut naive) = (ReplayWindow::default(), Naive::default());
        for (offset, repeats) in steps {
            let start = naive.highest.saturating_add_signed(offset);
            for seq in (start..).take(repeats) {
                prop_assert_eq!(window.accept(seq), naive.accept(seq));
                prop_assert_eq!(window.highest(), naive.highest);
            }
        }
    }
}

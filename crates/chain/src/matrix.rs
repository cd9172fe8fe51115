//! What validators say of everybody, and what the chain makes of it: for comparison, never for scoring.

use std::collections::BTreeMap;

use crate::{Block, Neuron};

/// Everybody's weights on a subnet at one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightMatrix {
    /// The block that everything here was read at.
    pub block: Block,
    /// By uid of the validator, its `(uid, value)` pairs as the chain holds them; those that set none are left out.
    pub rows: BTreeMap<u16, Vec<(u16, u16)>>,
    /// By uid, the share that validators with most of the stake agree on, of 65,535; all 0 before an epoch has run.
    pub consensus: Vec<u16>,
}

/// The consensus over the rows of those who hold a permit: for each uid the largest share that validators with at least
/// half of their stake give it. What the chain's epoch begins with, without its later corrections.
#[must_use]
pub fn consensus(neurons: &[Neuron], rows: &BTreeMap<u16, Vec<(u16, u16)>>) -> Vec<u16> {
    let voters: Vec<&Neuron> =
        neurons.iter().filter(|neuron| neuron.validator_permit && neuron.total_stake > 0).collect();
    let all: u128 = voters.iter().map(|voter| u128::from(voter.total_stake)).sum();
    let share_of = |uid: u16, voter: &Neuron| {
        let row = rows.get(&voter.uid).map_or(&[][..], Vec::as_slice);
        let sum: f64 = row.iter().map(|(_, value)| f64::from(*value)).sum();
        row.iter().find(|(of, _)| *of == uid).map_or(0.0, |(_, value)| f64::from(*value) / sum)
    };
    let agreed = |neuron: &Neuron| {
        let mut shares: Vec<(f64, u64)> =
            voters.iter().map(|voter| (share_of(neuron.uid, voter), voter.total_stake)).collect();
        shares.sort_by(|left, right| right.0.total_cmp(&left.0));
        let mut behind = 0_u128;
        let agreed = shares.into_iter().find(|(_, stake)| {
            behind += u128::from(*stake);
            2 * behind >= all
        });
        agreed.map_or(0, |(share, _)| (share * f64::from(u16::MAX)).round_ties_even() as u16)
    };
    neurons.iter().map(agreed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hotkey;

    fn neuron(uid: u16, stake: u64) -> Neuron {
        Neuron {
            uid,
            hotkey: Hotkey([1; 32]),
            coldkey: [0; 32],
            axon: None,
            axon_version: 0,
            alpha_stake: stake,
            total_stake: stake,
            validator_permit: stake > 0,
            active: true,
            last_update: 0,
            registered_at: 0,
        }
    }

    #[test]
    fn consensus_is_what_half_of_the_stake_grants() {
        let neurons = [neuron(0, 50), neuron(1, 30), neuron(2, 20), neuron(3, 0), neuron(4, 0)];
        let rows = [(0, vec![(3, 100)]), (1, vec![(3, 50), (4, 50)]), (2, vec![(4, 7)])].into();
        assert_eq!(consensus(&neurons, &rows), [0, 0, 0, 65_535, 32_768]);
        assert_eq!(consensus(&neurons, &BTreeMap::new()), [0; 5]);
    }
}

//! Our vector beside what the chain holds for us, what validators agree on, and what each of them says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use byteleap_chain::{Block, Hotkey, WeightMatrix};
use serde::Serialize;

use super::vector::moved_share;
use super::{Preparer, WeightsError};
use crate::counted::counted;
use crate::store::round::RoundKey;

/// How our vector of now compares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The block that the chain was read at.
    pub block: Block,
    /// Our uid.
    pub own_uid: u16,
    /// The round that our vector pays.
    pub round: RoundKey,
    /// What of the whole differs from what the chain holds for us, 0 to 1; none when it holds nothing.
    pub moved_from_chain: Option<f64>,
    /// What of the whole differs from the consensus; none when there is none yet.
    pub moved_from_consensus: Option<f64>,
    /// Every other validator that has set weights.
    pub validators: Vec<Validator>,
    /// Everybody whom anybody pays, by uid.
    pub paid: Vec<Paid>,
}

/// Another validator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validator {
    /// Its uid.
    pub uid: u16,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its stake as the chain weighs it, in rao.
    pub stake: u64,
    /// Block of its last weights.
    pub last_update: Block,
    /// What of the whole differs between its vector and ours, 0 to 1.
    pub moved: f64,
}

/// One who is paid, as shares of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Paid {
    /// Its uid.
    pub uid: u16,
    /// By the vector that we would send now.
    pub ours: f64,
    /// By what the chain holds for us.
    pub chain: f64,
    /// By consensus.
    pub consensus: f64,
}

impl Preparer {
    /// Compares the vector that would be sent now.
    ///
    /// # Errors
    /// Whatever forbids to send one, or the chain.
    pub async fn diff(&self) -> Result<Difference, WeightsError> {
        let view = self.view().await?;
        let own_uid = self.own(&view.metagraph)?.uid;
        let prepared = self.prepare_at(&view).await?;
        let matrix = self.chain.weight_matrix(self.netuid).await?;
        let ours: Vec<(u16, u16)> = prepared.weights.pairs().collect();
        let validators = view.metagraph.neurons.iter().filter_map(|neuron| {
            let row = matrix.rows.get(&neuron.uid).filter(|_| neuron.uid != own_uid)?;
            Some(Validator {
                uid: neuron.uid,
                hotkey: neuron.hotkey,
                stake: neuron.total_stake,
                last_update: neuron.last_update,
                moved: moved_share(&ours, row),
            })
        });
        Ok(Difference {
            block: matrix.block,
            own_uid,
            round: prepared.round.key,
            moved_from_chain: matrix.rows.get(&own_uid).map(|row| moved_share(&ours, row)),
            moved_from_consensus: consensus(&matrix).map(|row| moved_share(&ours, &row)),
            validators: validators.collect(),
            paid: paid(&ours, own_uid, &matrix),
        })
    }
}

/// The consensus as a vector; none while it is all zeros.
fn consensus(matrix: &WeightMatrix) -> Option<Vec<(u16, u16)>> {
    let row: Vec<(u16, u16)> = (0..).zip(matrix.consensus.iter().copied()).filter(|(_, share)| *share > 0).collect();
    (!row.is_empty()).then_some(row)
}

fn paid(ours: &[(u16, u16)], own_uid: u16, matrix: &WeightMatrix) -> Vec<Paid> {
    let (ours, consensus) = (shares(ours), shares(&consensus(matrix).unwrap_or_default()));
    let chain = shares(matrix.rows.get(&own_uid).map_or(&[], Vec::as_slice));
    let uids: BTreeSet<u16> = ours.keys().chain(chain.keys()).chain(consensus.keys()).copied().collect();
    let of = |row: &BTreeMap<u16, f64>, uid| row.get(&uid).copied().unwrap_or(0.0);
    let paid = |uid| Paid { uid, ours: of(&ours, uid), chain: of(&chain, uid), consensus: of(&consensus, uid) };
    uids.into_iter().map(paid).collect()
}

fn shares(row: &[(u16, u16)]) -> BTreeMap<u16, f64> {
    let sum: f64 = row.iter().map(|(_, value)| f64::from(*value)).sum();
    row.iter().map(|(uid, value)| (*uid, f64::from(*value) / sum)).collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |moved: Option<f64>, none: &str| {
            moved.map_or_else(|| none.to_owned(), |moved| format!("{:.4}% differ", moved * 100.0))
        };
        writeln!(
            f,
            "our vector of round {} as it would be sent at block {}, uid {}",
            self.round.0, self.block, self.own_uid
        )?;
        writeln!(f, "chain       {}", percent(self.moved_from_chain, "it holds no weights of ours"))?;
        writeln!(f, "consensus   {}", percent(self.moved_from_consensus, "none yet"))?;
        match self.validators.len() {
            0 => writeln!(f, "validators  no other has set weights")?,
            others => writeln!(f, "validators  {} beside ours", counted(others, "vector"))?,
        }
        for Validator { uid, hotkey, stake, last_update, moved } in &self.validators {
            let tao = *stake as f64 / 1e9;
            writeln!(
                f,
                "  {uid:>5}  {hotkey}  stake {tao:.0}, set at block {last_update}: {:.4}% differ",
                moved * 100.0
            )?;
        }
        writeln!(f, "{:>5}  {:>9}  {:>9}  {:>9}", "uid", "ours", "chain", "consensus")?;
        for Paid { uid, ours, chain, consensus } in &self.paid {
            let [ours, chain, consensus] = [ours, chain, consensus].map(|share| share * 100.0);
            writeln!(f, "{uid:>5}  {ours:>8.4}%  {chain:>8.4}%  {consensus:>8.4}%")?;
        }
        Ok(())
    }
}

//! What can be believed of a commitment before anything is opened: each unit is weighed on its own.
//!
//! A GPU's commitment counts if the worker holds that GPU, or claims it, and if a trusted key signed it (worker-miner spec
//! 5.6). The reference refuses a whole commitment for one bad unit; here a unit that is not believed fails alone, the others
//! are opened, and only where none is left has the challenge failed.

use std::collections::BTreeMap;

use byteleap_protocol::gpu_signature::CommitmentKey;
use byteleap_protocol::id::{GpuUuid, MatrixSize, Seed, Unit};
use byteleap_protocol::merkle::NodeHash;
use byteleap_protocol::payload::Commitment;

use super::GpuRules;
use super::state::UnitFault;
use crate::refusal::Refusal;
use crate::store::gpu::InventoryGpu;
use crate::store::presence::MAX_GPUS;

/// A longer name is no GPU's.
const MAX_UNIT_CHARS: usize = 64;

/// A unit that was committed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedUnit {
    /// Which.
    pub unit: Unit,
    /// Root over its row hashes.
    pub root: NodeHash,
    /// Why it is not believed, if it is not; then nothing of it is opened.
    pub fault: Option<UnitFault>,
}

impl CommittedUnit {
    /// The processor's.
    pub fn cpu(root: NodeHash) -> Self {
        Self { unit: Unit::Cpu, root, fault: None }
    }
}

/// The processor's commitment: exactly one, unsigned.
pub fn cpu_unit(commitments: &[Commitment], size: MatrixSize) -> Result<CommittedUnit, Refusal> {
    match commitments {
        [Commitment { uuid: Unit::Cpu, merkle_root, .. }] if is_root(*merkle_root, size) => {
            Ok(CommittedUnit::cpu(*merkle_root))
        }
        [Commitment { uuid: Unit::Cpu, .. }] => Err(Refusal::Root),
        _ => Err(Refusal::Commitments),
    }
}

/// The GPUs' commitments, each GPU once, in the order of their names. Blocks for the time of the signatures.
pub fn gpu_units(
    commitments: &[Commitment],
    size: MatrixSize,
    seed: &Seed,
    inventory: &BTreeMap<GpuUuid, InventoryGpu>,
    rules: &GpuRules,
) -> Result<Vec<CommittedUnit>, Refusal> {
    let mut units = BTreeMap::new();
    for commitment in commitments {
        let Unit::Gpu(gpu) = &commitment.uuid else { return Err(Refusal::GpuCommitments) };
        let fault = weigh(commitment, gpu, size, seed, inventory, rules).err();
        let unit = CommittedUnit { unit: commitment.uuid.clone(), root: commitment.merkle_root, fault };
        if gpu.as_str().len() > MAX_UNIT_CHARS || units.insert(gpu.clone(), unit).is_some() {
            return Err(Refusal::GpuCommitments);
        }
    }
    if units.is_empty() || units.len() > MAX_GPUS {
        return Err(Refusal::GpuCommitments);
    }
    Ok(units.into_values().collect())
}

fn weigh(
    commitment: &Commitment,
    gpu: &GpuUuid,
    size: MatrixSize,
    seed: &Seed,
    inventory: &BTreeMap<GpuUuid, InventoryGpu>,
    rules: &GpuRules,
) -> Result<(), UnitFault> {
    let held = inventory.get(gpu).ok_or(UnitFault::NotHeld)?;
    if !is_root(commitment.merkle_root, size) {
        return Err(UnitFault::Root);
    }
    let signature = commitment.sig_val.as_deref().filter(|text| !text.is_empty()).ok_or(UnitFault::Unsigned)?;
    let signed_by = |key: &CommitmentKey| key.verify(seed, gpu, commitment.merkle_root, signature);
    if rules.trusted_keys.iter().any(signed_by) {
        return Ok(());
    }
    match &held.host_key {
        Some(key) if signed_by(key) && rules.accept_host_keys => Ok(()),
        Some(key) if signed_by(key) => Err(UnitFault::HostKey),
        _ => Err(UnitFault::Signature),
    }
}

/// The root of one row is that row's hash; every other root is a whole SHA-256.
fn is_root(root: NodeHash, size: MatrixSize) -> bool {
    matches!((root, size.get()), (NodeHash::Row(_), 1) | (NodeHash::Inner(_), 2..))
}

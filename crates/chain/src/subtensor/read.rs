//! Readings at one finalised block: each function takes a pinned connection and asks for all it needs at once
//! (chain spec 4.1 and 4.2).

use std::time::Duration;

use futures_util::future::try_join_all;
use scale_decode::DecodeAsType;
use subxt::dynamic;
use subxt::storage::Address;
use subxt::utils::AccountId32;
use tokio::time::timeout;
use tokio::try_join;

use super::fault::Fault;
use super::wire::{self, by_hotkey, by_subnet, by_uid, global};
use super::{At, Client, Patience, within};
use crate::{Block, ChainError, Epoch, Head, Hotkey, Metagraph, Neuron, Rules, WeightMatrix};

/// The block that the connection is pinned to.
pub(super) fn head(at: &At) -> Result<Head, Fault> {
    Ok(Head { block: at.block_number(), hash: at.block_hash().0, spec: at.spec_version(), slot: slot(at)? })
}

/// Time between two blocks.
pub(super) fn slot(at: &At) -> Result<Duration, Fault> {
    let slot_ms: u64 = at.constants().entry(dynamic::constant("Aura", "SlotDuration"))?;
    Ok(Duration::from_millis(slot_ms))
}

/// Waits on the stream of finalised blocks for one above `after`.
pub(super) async fn next_block(client: &Client, after: Block, patience: &Patience) -> Result<Head, Fault> {
    let now = within(patience.call, async { head(&client.at_current_block().await?) }).await?;
    if now.block > after {
        return Ok(now);
    }
    let mut blocks = within(patience.call, async { Ok(client.stream_blocks().await?) }).await?;
    loop {
        let next = timeout(patience.stall, blocks.next()).await;
        let next = next.map_err(|_| Fault::Lost(format!("no finalised block within {:?}", patience.stall)))?;
        let block = next.ok_or_else(|| Fault::Lost("the stream of blocks ended".to_owned()))??;
        if block.number() > after {
            return within(patience.call, async { head(&block.at().await?) }).await;
        }
    }
}

async fn columns(at: &At, netuid: u16) -> Result<wire::Metagraph, Fault> {
    let call =
        dynamic::runtime_api_call::<_, Option<wire::Metagraph>>("SubnetInfoRuntimeApi", "get_metagraph", (netuid,));
    Ok(at.runtime_apis().call(call).await?.ok_or_else(|| ChainError::refused("SubnetNotExists"))?)
}

/// The weights of everybody who may set any, and their consensus.
pub(super) async fn weight_matrix(at: &At, netuid: u16) -> Result<WeightMatrix, Fault> {
    let columns = columns(at, netuid).await?;
    let permitted = (0..).zip(&columns.validator_permit).filter(|(_, permit)| **permit).map(|(uid, _)| uid);
    let row = |uid: u16| async move { Ok::<_, Fault>((uid, weights(at, netuid, uid).await?)) };
    let rows = try_join_all(permitted.map(row)).await?;
    Ok(WeightMatrix {
        block: columns.block,
        rows: rows.into_iter().filter(|(_, row)| !row.is_empty()).collect(),
        consensus: columns.consensus,
    })
}

/// All neurons of a subnet.
pub(super) async fn metagraph(at: &At, netuid: u16) -> Result<Metagraph, Fault> {
    let columns = columns(at, netuid).await?;
    let neurons = (0..=u16::MAX)
        .zip(0..columns.hotkeys.len())
        .map(|(uid, row)| neuron(&columns, uid, row))
        .collect::<Option<_>>()
        .ok_or_else(|| ChainError::Unsupported("get_metagraph: columns of different length".to_owned()))?;
    Ok(Metagraph { netuid, block: columns.block, owner_hotkey: Hotkey(columns.owner_hotkey.0), neurons })
}

fn neuron(columns: &wire::Metagraph, uid: u16, row: usize) -> Option<Neuron> {
    let axon = columns.axons.get(row)?;
    Some(Neuron {
        uid,
        hotkey: Hotkey(columns.hotkeys.get(row)?.0),
        coldkey: columns.coldkeys.get(row)?.0,
        axon: axon.address(),
        axon_version: axon.version,
        alpha_stake: *columns.alpha_stake.get(row)?,
        total_stake: *columns.total_stake.get(row)?,
        validator_permit: *columns.validator_permit.get(row)?,
        active: *columns.active.get(row)?,
        last_update: *columns.last_update.get(row)?,
        registered_at: *columns.block_at_registration.get(row)?,
    })
}

/// The hyperparameters of a subnet, entry by entry: their names have outlived every struct that once grouped them.
pub(super) async fn rules(at: &At, netuid: u16) -> Result<Rules, Fault> {
    let subnet = (netuid,);
    let (
        tempo,
        immunity_period,
        min_allowed_weights,
        max_weight_limit,
        weights_version,
        weights_rate_limit,
        serving_rate_limit,
        stake_threshold,
        commit_reveal,
        reveal_period,
        max_uids,
        admin_freeze_window,
    ) = try_join!(
        stored(at, by_subnet("Tempo"), subnet),
        stored(at, by_subnet("ImmunityPeriod"), subnet),
        stored(at, by_subnet("MinAllowedWeights"), subnet),
        stored(at, by_subnet("MaxWeightsLimit"), subnet),
        stored(at, by_subnet("WeightsVersionKey"), subnet),
        stored(at, by_subnet("WeightsSetRateLimit"), subnet),
        stored(at, by_subnet("ServingRateLimit"), subnet),
        stored(at, global("StakeThreshold"), ()),
        stored(at, by_subnet("CommitRevealWeightsEnabled"), subnet),
        stored(at, by_subnet("RevealPeriodEpochs"), subnet),
        stored(at, by_subnet("MaxAllowedUids"), subnet),
        stored(at, global("AdminFreezeWindow"), ()),
    )?;
    Ok(Rules {
        tempo,
        immunity_period,
        min_allowed_weights,
        max_weight_limit,
        weights_version,
        weights_rate_limit,
        serving_rate_limit,
        stake_threshold,
        commit_reveal,
        reveal_period,
        max_uids,
        admin_freeze_window,
    })
}

/// The stored epoch schedule; the modulo formula of older runtimes is not used.
pub(super) async fn epoch(at: &At, netuid: u16) -> Result<Epoch, Fault> {
    let subnet = (netuid,);
    let (index, last_block, pending_at, since_step): (u64, u64, u64, u64) = try_join!(
        stored(at, by_subnet("SubnetEpochIndex"), subnet),
        stored(at, by_subnet("LastEpochBlock"), subnet),
        stored(at, by_subnet("PendingEpochAt"), subnet),
        stored(at, by_subnet("BlocksSinceLastStep"), subnet),
    )?;
    Ok(Epoch { index, last_block, pending_at: (pending_at > 0).then_some(pending_at), since_step })
}

/// What a timelocked commit is made for.
pub(super) struct CommitState {
    pub(super) epoch: Epoch,
    /// Unix time of the block.
    pub(super) now_ms: u64,
    /// Version of the commit's form.
    pub(super) version: u16,
}

/// Schedule, time and form for a commit.
pub(super) async fn commit_state(at: &At, netuid: u16) -> Result<CommitState, Fault> {
    let (epoch, now_ms, version) = try_join!(
        epoch(at, netuid),
        stored(at, dynamic::storage::<(), u64>("Timestamp", "Now"), ()),
        stored(at, global("CommitRevealWeightsVersion"), ()),
    )?;
    Ok(CommitState { epoch, now_ms, version })
}

/// The uid of a hotkey.
pub(super) async fn uid(at: &At, netuid: u16, hotkey: Hotkey) -> Result<Option<u16>, Fault> {
    stored_if_any(at, by_hotkey("Uids"), (netuid, AccountId32(hotkey.0))).await
}

/// The axon of a hotkey, and the blocks that must pass before it may change.
pub(super) async fn axon(at: &At, netuid: u16, hotkey: Hotkey) -> Result<(Option<wire::Axon>, u64), Fault> {
    try_join!(
        stored_if_any(at, by_hotkey("Axons"), (netuid, AccountId32(hotkey.0))),
        stored(at, by_subnet("ServingRateLimit"), (netuid,)),
    )
}

/// The weights that a uid has set.
pub(super) async fn weights(at: &At, netuid: u16, uid: u16) -> Result<Vec<(u16, u16)>, Fault> {
    stored(at, by_uid("Weights"), (netuid, uid)).await
}

/// A storage value, or its default.
async fn stored<A>(at: &At, address: A, keys: A::KeyParts) -> Result<A::Value, Fault>
where
    A: Address,
    A::Value: DecodeAsType,
{
    Ok(at.storage().fetch(address, keys).await?.decode()?)
}

/// A storage value, if there is one.
async fn stored_if_any<A>(at: &At, address: A, keys: A::KeyParts) -> Result<Option<A::Value>, Fault>
where
    A: Address,
    A::Value: DecodeAsType,
{
    Ok(at.storage().try_fetch(address, keys).await?.map(|value| value.decode()).transpose()?)
}

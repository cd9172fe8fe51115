//! Who takes part: miners, workers, GPUs and the subnet as the chain has it.

use axum::Json;
use axum::extract::State;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::ask::{InPath, InQuery, Rows, limit, page_rows};
use super::problem::{EveryRefusal, Problem, Refusal};
use crate::store::gpu::OWNERSHIP_LAPSE_MS;
use crate::store::pages::Page;
use crate::store::pages::network::{ContestedGpu, GpuLine, MinerLine, WorkerFilter, WorkerLine, WorkerWhole};

/// What a token of any role may ask.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(network))
        .routes(routes!(miners))
        .routes(routes!(miner))
        .routes(routes!(workers))
        .routes(routes!(worker))
        .routes(routes!(gpus))
        .routes(routes!(contested_gpus))
}

/// The subnet at one block.
#[derive(Debug, Serialize, ToSchema)]
struct Network {
    /// The subnet.
    netuid: u16,
    /// The block that all of this was read at.
    block: u64,
    /// How long ago.
    age_ms: i64,
    /// The subnet owner's hotkey, where weight is burned.
    #[schema(value_type = String)]
    owner_hotkey: Hotkey,
    /// This validator.
    own: Own,
    /// Everybody, by uid.
    neurons: Vec<NeuronLine>,
}

/// This validator on the subnet.
#[derive(Debug, Serialize, ToSchema)]
struct Own {
    /// Its hotkey.
    #[schema(value_type = String)]
    hotkey: Hotkey,
    /// Its uid; null when it is no longer registered.
    uid: Option<u16>,
    /// Its place among the validators with a permit by stake, from 1; null without a permit.
    stake_rank: Option<usize>,
}

/// A registered hotkey.
#[derive(Debug, Serialize, ToSchema)]
struct NeuronLine {
    /// Its number.
    uid: u16,
    /// Its hotkey (SS58).
    #[schema(value_type = String)]
    hotkey: Hotkey,
    /// Stake as the chain weighs it, in rao.
    stake_rao: u64,
    /// Whether it may set weights on others.
    validator_permit: bool,
    /// Whether it set weights within the activity cutoff.
    active: bool,
    /// Block of its last weights.
    last_update: u64,
    /// Where it serves; null when it published nothing.
    axon: Option<String>,
}

/// The subnet as the chain has it, from the latest reading.
#[utoipa::path(get, path = "/network", tag = "network", responses(
    (status = 200, body = Network), (status = 404, description = "no reading yet", body = Problem), EveryRefusal))]
async fn network(State(api): State<Api>) -> Result<Json<Network>, Refusal> {
    let snapshot = api.members.snapshot();
    let snapshot = snapshot
        .ok_or_else(|| Refusal::unknown("no_metagraph", "the chain was not read yet", "ask again in a minute"))?;
    let metagraph = &snapshot.metagraph;
    let own = metagraph.by_hotkey(&api.own);
    let stake_rank = own.filter(|own| own.validator_permit).map(|own| {
        let above = |other: &&byteleap_chain::Neuron| other.validator_permit && other.total_stake > own.total_stake;
        metagraph.neurons.iter().filter(above).count() + 1
    });
    let neurons = metagraph.neurons.iter().map(|neuron| NeuronLine {
        uid: neuron.uid,
        hotkey: neuron.hotkey,
        stake_rao: neuron.total_stake,
        validator_permit: neuron.validator_permit,
        active: neuron.active,
        last_update: neuron.last_update,
        axon: neuron.axon.map(|axon| axon.to_string()),
    });
    Ok(Json(Network {
        netuid: metagraph.netuid,
        block: metagraph.block,
        age_ms: api.clock.unix_ms() - snapshot.at_ms,
        owner_hotkey: metagraph.owner_hotkey,
        own: Own { hotkey: api.own, uid: own.map(|own| own.uid), stake_rank },
        neurons: neurons.collect(),
    }))
}

/// Which miners.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct MinersAsked {
    /// Those that were heard of lately, or the others.
    online: Option<bool>,
    /// Rows of the page.
    #[serde(default = "page_rows", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 500, default = 50, required = false)]
    limit: u32,
    /// `next` of the page before; none for the first page.
    after: Option<String>,
}

/// Miners by hotkey.
#[utoipa::path(get, path = "/miners", tag = "network", params(MinersAsked), responses(
    (status = 200, body = Page<MinerLine>), EveryRefusal))]
async fn miners(
    State(api): State<Api>,
    InQuery(asked): InQuery<MinersAsked>,
) -> Result<Json<Page<MinerLine>>, Refusal> {
    // A NUL is a text that PostgreSQL does not take.
    let after = asked.after.unwrap_or_default().replace('\0', "");
    Ok(Json(api.store.miner_page(asked.online, &after, asked.limit, api.clock.unix_ms()).await?))
}

/// One miner.
#[utoipa::path(get, path = "/miners/{hotkey}", tag = "network",
    params(("hotkey" = String, Path, description = "SS58")), responses(
    (status = 200, body = MinerLine), (status = 404, description = "never heard of", body = Problem), EveryRefusal))]
async fn miner(State(api): State<Api>, InPath(hotkey): InPath<Hotkey>) -> Result<Json<MinerLine>, Refusal> {
    let line = api.store.miner_line(hotkey, api.clock.unix_ms()).await?;
    line.map(Json).ok_or_else(|| {
        Refusal::unknown("miner_unknown", "no heartbeat of this hotkey was ever taken", "see /api/v1/miners")
    })
}

/// Whether a worker was heard of lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WorkerState {
    /// It was.
    Online,
    /// It was not.
    Offline,
}

/// Which workers.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WorkersAsked {
    /// Of this miner.
    #[param(value_type = Option<String>)]
    hotkey: Option<Hotkey>,
    /// Heard of lately, or not.
    #[param(inline)]
    state: Option<WorkerState>,
    /// Leased, or not.
    leased: Option<bool>,
    /// Rows of the page.
    #[serde(default = "page_rows", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 500, default = 50, required = false)]
    limit: u32,
    /// `next` of the page before; none for the first page.
    after: Option<i64>,
}

/// Workers in the order in which they first came.
#[utoipa::path(get, path = "/workers", tag = "network", params(WorkersAsked), responses(
    (status = 200, body = Page<WorkerLine>), EveryRefusal))]
async fn workers(
    State(api): State<Api>,
    InQuery(asked): InQuery<WorkersAsked>,
) -> Result<Json<Page<WorkerLine>>, Refusal> {
    let filter = WorkerFilter {
        hotkey: asked.hotkey,
        online: asked.state.map(|state| state == WorkerState::Online),
        leased: asked.leased,
    };
    Ok(Json(api.store.worker_page(filter, asked.after.unwrap_or(0), asked.limit, api.clock.unix_ms()).await?))
}

/// One worker: its machine, when it was heard, from where, with which GPUs.
#[utoipa::path(get, path = "/workers/{hotkey}/{worker_id}", tag = "network",
    params(("hotkey" = String, Path, description = "of its miner, SS58"), ("worker_id" = String, Path)), responses(
    (status = 200, body = WorkerWhole), (status = 404, description = "never heard of", body = Problem), EveryRefusal))]
async fn worker(
    State(api): State<Api>,
    InPath((hotkey, worker_id)): InPath<(Hotkey, WorkerId)>,
) -> Result<Json<WorkerWhole>, Refusal> {
    let whole = api.store.worker_whole(hotkey, &worker_id, api.clock.unix_ms()).await?;
    whole.map(Json).ok_or_else(|| {
        Refusal::unknown("worker_unknown", "this miner never reported a worker of this id", "see /api/v1/workers")
    })
}

/// Which GPUs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct GpusAsked {
    /// Held by workers of this miner.
    #[param(value_type = Option<String>)]
    hotkey: Option<Hotkey>,
    /// Rows of the page.
    #[serde(default = "page_rows", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 500, default = 50, required = false)]
    limit: u32,
    /// `next` of the page before; none for the first page.
    after: Option<i64>,
}

/// GPUs in the order in which they were first seen, each with its holder.
#[utoipa::path(get, path = "/gpus", tag = "network", params(GpusAsked), responses(
    (status = 200, body = Page<GpuLine>), EveryRefusal))]
async fn gpus(State(api): State<Api>, InQuery(asked): InQuery<GpusAsked>) -> Result<Json<Page<GpuLine>>, Refusal> {
    Ok(Json(api.store.gpu_page(asked.hotkey, asked.after.unwrap_or(0), asked.limit).await?))
}

/// GPUs that more than one worker reports, with everyone who does.
#[utoipa::path(get, path = "/gpus/contested", tag = "network", params(Rows), responses(
    (status = 200, body = Page<ContestedGpu>), EveryRefusal))]
async fn contested_gpus(
    State(api): State<Api>,
    InQuery(asked): InQuery<Rows>,
) -> Result<Json<Page<ContestedGpu>>, Refusal> {
    let since_ms = api.clock.unix_ms() - OWNERSHIP_LAPSE_MS;
    Ok(Json(api.store.contested_page(since_ms, asked.after.unwrap_or(0), asked.limit).await?))
}

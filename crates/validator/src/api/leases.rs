//! What is rented: seen by everybody who may see who takes part, set by a marketplace or an operator.

use axum::Json;
use axum::extract::State;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::ask::{InBody, InPath, InQuery, Rows, limit, page_rows};
use super::problem::{EveryRefusal, Problem, Refusal};
use crate::store::lease::LeaseScore;
use crate::store::pages::Page;
use crate::store::pages::leases::{LeaseChange, LeaseLine};

/// The source of leases that came in here.
const SOURCE: &str = "api";
/// What stands for the text before every other in a cursor's place.
const START: &str = "";

/// What a token of any role may ask.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(leases)).routes(routes!(history))
}

/// What a marketplace or an operator may do.
pub(super) fn setting_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(set_lease, end_lease))
}

/// Which leases.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LeasesAsked {
    /// Those that have ended too.
    #[serde(default)]
    #[param(required = false)]
    ended: bool,
    /// Rows of the page.
    #[serde(default = "page_rows", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 500, default = 50, required = false)]
    limit: u32,
    /// `next` of the page before; none for the first page.
    after: Option<String>,
}

/// Leases by hotkey and worker, with their age.
#[utoipa::path(get, path = "/leases", tag = "leases", params(LeasesAsked), responses(
    (status = 200, body = Page<LeaseLine>), EveryRefusal))]
async fn leases(
    State(api): State<Api>,
    InQuery(asked): InQuery<LeasesAsked>,
) -> Result<Json<Page<LeaseLine>>, Refusal> {
    let after = asked.after.unwrap_or_default().replace('\0', "");
    let after = after.split_once(':').unwrap_or((&after, START));
    let stale_after_ms = api.alarm_limits.get().lease_stale_after.as_millis() as i64;
    let stale_before_ms = api.clock.unix_ms() - stale_after_ms;
    Ok(Json(api.store.lease_page(asked.ended, after, asked.limit, stale_before_ms).await?))
}

/// How one worker's lease changed, the newest change first.
#[utoipa::path(get, path = "/leases/{hotkey}/{worker_id}/history", tag = "leases",
    params(("hotkey" = String, Path, description = "of its miner, SS58"), ("worker_id" = String, Path), Rows),
    responses((status = 200, body = Page<LeaseChange>), EveryRefusal))]
async fn history(
    State(api): State<Api>,
    InPath((hotkey, worker_id)): InPath<(Hotkey, WorkerId)>,
    InQuery(asked): InQuery<Rows>,
) -> Result<Json<Page<LeaseChange>>, Refusal> {
    let before = asked.after.unwrap_or(i64::MAX);
    Ok(Json(api.store.lease_history(hotkey, &worker_id, before, asked.limit).await?))
}

/// A lease that is set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLease {
    /// What it is worth, above 0; a lease that is not repeated goes stale and expires.
    #[schema(exclusive_minimum = 0)]
    score: f64,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
struct LeaseSet {
    /// Whether its score is another than before.
    changed: bool,
}

/// Set a worker's lease, or repeat it. The worker need not have been heard of.
#[utoipa::path(put, path = "/leases/{hotkey}/{worker_id}", tag = "leases",
    params(("hotkey" = String, Path, description = "of its miner, SS58"), ("worker_id" = String, Path)),
    request_body = NewLease, responses((status = 200, body = LeaseSet),
    (status = 409, description = "leases come from the marketplace alone", body = Problem), EveryRefusal))]
async fn set_lease(
    State(api): State<Api>,
    InPath((hotkey, worker_id)): InPath<(Hotkey, WorkerId)>,
    InBody(lease): InBody<NewLease>,
) -> Result<Json<LeaseSet>, Refusal> {
    let score = LeaseScore::new(lease.score).filter(|score| score.get() > 0.0).ok_or_else(|| {
        Refusal::bad("bad_score", "a lease's score is a finite number above 0", "DELETE the lease to end it")
    })?;
    store(&api, hotkey, &worker_id, score).await
}

/// End a worker's lease.
#[utoipa::path(delete, path = "/leases/{hotkey}/{worker_id}", tag = "leases",
    params(("hotkey" = String, Path, description = "of its miner, SS58"), ("worker_id" = String, Path)),
    responses((status = 200, body = LeaseSet),
    (status = 409, description = "leases come from the marketplace alone", body = Problem), EveryRefusal))]
async fn end_lease(
    State(api): State<Api>,
    InPath((hotkey, worker_id)): InPath<(Hotkey, WorkerId)>,
) -> Result<Json<LeaseSet>, Refusal> {
    store(&api, hotkey, &worker_id, LeaseScore::NONE).await
}

async fn store(api: &Api, hotkey: Hotkey, worker_id: &WorkerId, score: LeaseScore) -> Result<Json<LeaseSet>, Refusal> {
    if !api.lease_source.takes_api() {
        return Err(Refusal::leases_elsewhere());
    }
    let changed = api.store.set_lease(hotkey, worker_id, score, SOURCE, api.clock.unix_ms()).await?;
    tracing::info!(peer = %hotkey, %worker_id, score = score.get(), changed, "lease set over the API");
    Ok(Json(LeaseSet { changed }))
}

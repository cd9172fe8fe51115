//! What was asked, how it ended, and what it was worth: challenges, rounds, scores, weights and alarms.

use axum::Json;
use axum::extract::State;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::ask::{InBody, InPath, InQuery, Rows, limit, page_rows};
use super::problem::{EveryRefusal, Problem, Refusal};
use crate::challenge::state::Status;
use crate::challenge::test_run::test_worker;
use crate::score::explain::explain_round;
use crate::store::pages::Page;
use crate::store::pages::challenges::{ChallengeFilter, ChallengeLine, ChallengeWhole, VerdictTimes};
use crate::store::pages::rounds::{RoundLine, RoundWhole, ScoreLine};
use crate::store::round::RoundKey;
use crate::store::submission::SubmissionRow;
use crate::weights::report::Vector;

/// What a token that may see the books may ask.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(challenges))
        .routes(routes!(challenge))
        .routes(routes!(verifier))
        .routes(routes!(rounds))
        .routes(routes!(round))
        .routes(routes!(scores))
        .routes(routes!(explain))
        .routes(routes!(preview))
        .routes(routes!(submissions))
        .routes(routes!(alarms))
}

/// What an operator may do.
pub(super) fn operating_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(test_challenge))
}

/// Which challenges.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ChallengesAsked {
    /// Of this miner.
    #[param(value_type = Option<String>)]
    hotkey: Option<Hotkey>,
    /// Of workers of this id.
    #[param(value_type = Option<String>)]
    worker: Option<WorkerId>,
    /// In this status.
    #[param(inline)]
    status: Option<Status>,
    /// Rows of the page.
    #[serde(default = "page_rows", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 500, default = 50, required = false)]
    limit: u32,
    /// `next` of the page before; none for the first page.
    after: Option<i64>,
}

/// Challenges, the newest first.
#[utoipa::path(get, path = "/challenges", tag = "challenges", params(ChallengesAsked), responses(
    (status = 200, body = Page<ChallengeLine>), EveryRefusal))]
async fn challenges(
    State(api): State<Api>,
    InQuery(asked): InQuery<ChallengesAsked>,
) -> Result<Json<Page<ChallengeLine>>, Refusal> {
    let filter = ChallengeFilter { hotkey: asked.hotkey, worker_id: asked.worker, status: asked.status };
    Ok(Json(api.store.challenge_page(&filter, asked.after.unwrap_or(i64::MAX), asked.limit).await?))
}

/// One challenge, with a verdict for each of its units.
#[utoipa::path(get, path = "/challenges/{id}", tag = "challenges", params(("id" = String, Path)), responses(
    (status = 200, body = ChallengeWhole), (status = 404, description = "never made, or forgotten", body = Problem),
    EveryRefusal))]
async fn challenge(State(api): State<Api>, InPath(id): InPath<ChallengeId>) -> Result<Json<ChallengeWhole>, Refusal> {
    let whole = api.store.challenge_whole(&id).await?;
    whole.map(Json).ok_or_else(|| {
        Refusal::unknown(
            "challenge_unknown",
            "there is no such challenge, or it is forgotten",
            "see /api/v1/challenges",
        )
    })
}

/// The queue of proofs and how fast it is worked off.
#[derive(Debug, Serialize, ToSchema)]
struct VerifierNow {
    /// Proofs without a verdict.
    waiting: i64,
    /// Those of them that somebody is judging.
    claimed: i64,
    /// When the oldest of them arrived, unix milliseconds UTC.
    oldest_at_ms: Option<i64>,
    /// How long the newest verdicts took.
    times: VerdictTimes,
}

/// The queue of proofs and how fast it is worked off.
#[utoipa::path(get, path = "/verifier", tag = "challenges", responses((status = 200, body = VerifierNow), EveryRefusal))]
async fn verifier(State(api): State<Api>) -> Result<Json<VerifierNow>, Refusal> {
    let queue = api.store.verification_queue(api.clock.unix_ms()).await?;
    Ok(Json(VerifierNow {
        waiting: queue.waiting,
        claimed: queue.claimed,
        oldest_at_ms: queue.oldest_at_ms,
        times: api.store.verdict_times().await?,
    }))
}

/// Whom to test.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TestOrder {
    /// Its miner's hotkey (SS58).
    #[schema(value_type = String)]
    hotkey: Hotkey,
    /// Its own id.
    #[schema(value_type = String)]
    worker_id: WorkerId,
    /// `cpu_matrix` or `gpu_matrix`.
    #[schema(value_type = String)]
    kind: ChallengeKind,
}

/// A test that was made.
#[derive(Debug, Serialize, ToSchema)]
struct TestMade {
    /// Its name: see `/challenges/{id}`.
    #[schema(value_type = String)]
    challenge_id: ChallengeId,
}

/// Challenge one worker now. The verdict is shown and counts for nothing.
#[utoipa::path(post, path = "/challenges", tag = "challenges", request_body = TestOrder, responses(
    (status = 201, body = TestMade),
    (status = 404, description = "no such worker online", body = Problem),
    (status = 409, description = "the worker is leased, busy, or cannot", body = Problem), EveryRefusal))]
async fn test_challenge(
    State(api): State<Api>,
    InBody(order): InBody<TestOrder>,
) -> Result<(axum::http::StatusCode, Json<TestMade>), Refusal> {
    let rules = api.challenge_rules.get();
    let challenge_id =
        test_worker(&api.store, &rules, api.clock.as_ref(), order.hotkey, &order.worker_id, order.kind).await?;
    Ok((axum::http::StatusCode::CREATED, Json(TestMade { challenge_id })))
}

/// Rounds of scores, the newest first.
#[utoipa::path(get, path = "/rounds", tag = "scores", params(Rows), responses(
    (status = 200, body = Page<RoundLine>), EveryRefusal))]
async fn rounds(State(api): State<Api>, InQuery(asked): InQuery<Rows>) -> Result<Json<Page<RoundLine>>, Refusal> {
    Ok(Json(api.store.round_page(asked.after.unwrap_or(i64::MAX), asked.limit).await?))
}

/// One round with its miners.
#[utoipa::path(get, path = "/rounds/{round}", tag = "scores", params(("round" = i64, Path)), responses(
    (status = 200, body = RoundWhole), (status = 404, description = "never scored, or forgotten", body = Problem),
    EveryRefusal))]
async fn round(State(api): State<Api>, InPath(round): InPath<i64>) -> Result<Json<RoundWhole>, Refusal> {
    api.store.round_with_miners(RoundKey(round)).await?.map(Json).ok_or_else(no_round)
}

/// A miner's scores from round to round, the newest first.
#[utoipa::path(get, path = "/scores/{hotkey}", tag = "scores",
    params(("hotkey" = String, Path, description = "SS58"), Rows), responses(
    (status = 200, body = Page<ScoreLine>), EveryRefusal))]
async fn scores(
    State(api): State<Api>,
    InPath(hotkey): InPath<Hotkey>,
    InQuery(asked): InQuery<Rows>,
) -> Result<Json<Page<ScoreLine>>, Refusal> {
    Ok(Json(api.store.score_page(hotkey, asked.after.unwrap_or(i64::MAX), asked.limit).await?))
}

/// Which round is explained.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ExplainAsked {
    /// Without it, the newest.
    round: Option<i64>,
}

/// Every number of a miner's score, what changed since the round before, and what would raise it: what
/// `byteleap-validator explain --json` prints.
#[utoipa::path(get, path = "/explain/{hotkey}", tag = "scores",
    params(("hotkey" = String, Path, description = "SS58"), ExplainAsked), responses(
    (status = 200, body = Object), (status = 404, description = "no such round", body = Problem), EveryRefusal))]
async fn explain(
    State(api): State<Api>,
    InPath(hotkey): InPath<Hotkey>,
    InQuery(asked): InQuery<ExplainAsked>,
) -> Result<Json<Value>, Refusal> {
    let round = match asked.round {
        Some(round) => api.store.round(RoundKey(round)).await?,
        None => api.store.latest_round().await?,
    };
    let explanation = explain_round(&api.store, hotkey, round.ok_or_else(no_round)?).await?;
    Ok(Json(serde_json::json!(explanation)))
}

/// The vector that would be sent to the chain now; nothing is sent.
#[utoipa::path(get, path = "/weights/preview", tag = "weights", responses(
    (status = 200, body = Object),
    (status = 409, description = "no weights can be set now", body = Problem), EveryRefusal))]
async fn preview(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    let prepared = api.weights.prepare().await?;
    Ok(Json(serde_json::json!(Vector::of(&prepared, None))))
}

/// Vectors that were sent, or in a dry run were not, the newest first, and what became of each.
#[utoipa::path(get, path = "/weights/submissions", tag = "weights", params(Rows), responses(
    (status = 200, body = Page<SubmissionRow>), EveryRefusal))]
async fn submissions(
    State(api): State<Api>,
    InQuery(asked): InQuery<Rows>,
) -> Result<Json<Page<SubmissionRow>>, Refusal> {
    Ok(Json(api.store.submission_page(asked.after.unwrap_or(i64::MAX), asked.limit).await?))
}

/// What is wrong now.
#[utoipa::path(get, path = "/alarms", tag = "operation", responses((status = 200, body = Vec<Object>), EveryRefusal))]
async fn alarms(State(api): State<Api>) -> Json<Value> {
    Json(serde_json::json!(api.alarms.raised()))
}

fn no_round() -> Refusal {
    Refusal::unknown("round_unknown", "there is no such round, or it is forgotten", "see /api/v1/rounds")
}

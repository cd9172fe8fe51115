//! The HTTP API: what dashboards, operators' own programs and marketplaces ask this validator, under `/api/v1`.
//!
//! It is served beside the admin pages (`http.listen`, loopback unless told otherwise). A request passes [`token`] (who
//! asks, and may they), [`ask`] (what is asked) and one function of [`inventory`], [`leases`] or [`books`], which reads a
//! page from the store; or it ends as a [`problem`]. `GET /api/v1/openapi.json`, which needs no token, is the document of
//! all this; it is made from the routes and their types, and `docs/openapi.json` is a copy that a test compares.

pub mod ask;
pub mod books;
pub mod inventory;
pub mod leases;
pub mod problem;
pub mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Json, Router};
use byteleap_daemon::clock::Clock;
use byteleap_daemon::live::Live;
use byteleap_protocol::hotkey::Hotkey;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use self::problem::Refusal;
use self::token::{Right, Token, TokenFile};
use crate::alarm::{Alarms, Limits};
use crate::challenge::Rules;
use crate::market::LeaseSource;
use crate::metagraph::Members;
use crate::store::Store;
use crate::weights::Preparer;

/// What the API answers from. Cheap to clone.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a chain and a signer need not be printable")]
pub struct Api {
    /// The books.
    pub store: Store,
    /// The latest metagraph.
    pub members: Members,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is wrong.
    pub alarms: Alarms,
    /// When a lease is stale.
    pub alarm_limits: Live<Limits>,
    /// How challenges are made.
    pub challenge_rules: Live<Rules>,
    /// Whose leases count.
    pub lease_source: LeaseSource,
    /// What weights would be sent.
    pub weights: Preparer,
    /// Our hotkey.
    pub own: Hotkey,
    /// Who may ask.
    pub tokens: TokenFile,
}

/// Where everything of the API is.
const ROOT: &str = "/api/v1";

/// What the document says besides the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ByteLeap validator",
        description = "What a ByteLeap validator knows and decides. Times are unix milliseconds in UTC. A list comes in \
                       pages: `next` of one is `after` of the following. Every answer that is no success has the form of \
                       `Problem`, with a code that stays the same over releases.",
        version = "1"
    ),
    modifiers(&BearerTokens),
    security(("token" = [])),
)]
struct Document;

struct BearerTokens;

impl Modify for BearerTokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("made by `byteleap-validator token create NAME --role read|operator|marketplace`"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// The routes, all below [`ROOT`].
pub fn router(api: &Api) -> Router {
    let document = document();
    let document = serde_json::json!(document);
    let shown = move || std::future::ready(Json(document.clone()));
    let mut router = Router::new()
        .route(&format!("{ROOT}/openapi.json"), get(shown))
        .route("/api/{*rest}", any(async || Refusal::no_route()));
    for (right, group) in groups() {
        let door = middleware::from_fn_with_state(
            Door { tokens: api.tokens.clone(), clock: Arc::clone(&api.clock), right },
            admit,
        );
        let (group, _) = OpenApiRouter::new().nest(ROOT, group).split_for_parts();
        router = router.merge(group.layer(door).with_state(api.clone()));
    }
    router.method_not_allowed_fallback(async || Refusal::wrong_method())
}

/// The document of the API.
pub fn document() -> utoipa::openapi::OpenApi {
    let all = OpenApiRouter::<Api>::with_openapi(Document::openapi());
    // Merged and not nested one by one: two groups may share a path, and nesting would keep the methods of the last.
    let groups = groups().into_iter().fold(OpenApiRouter::new(), |groups, (_, group)| groups.merge(group));
    all.nest(ROOT, groups).into_openapi()
}

/// The routes by what they ask of a caller: a route that stands in none cannot be reached.
fn groups() -> [(Right, OpenApiRouter<Api>); 4] {
    [
        (Right::SeeInventory, inventory::routes().merge(leases::routes())),
        (Right::SeeBooks, books::routes()),
        (Right::SetLeases, leases::setting_routes()),
        (Right::Operate, books::operating_routes()),
    ]
}

/// Who may pass to a group of routes.
#[derive(Debug, Clone)]
struct Door {
    tokens: TokenFile,
    clock: Arc<dyn Clock>,
    right: Right,
}

async fn admit(State(door): State<Door>, request: Request, next: Next) -> Result<Response, Refusal> {
    let header = request.headers().get(AUTHORIZATION).ok_or_else(Refusal::no_token)?;
    let text = header.to_str().ok().and_then(|text| text.split_once(' '));
    let (_, text) = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).ok_or_else(Refusal::no_token)?;
    let token: Token = text.parse().map_err(|_| Refusal::wrong_token())?;
    let Door { tokens, clock, right } = door;
    // The file may have to be read anew.
    let found = tokio::task::spawn_blocking(move || tokens.find(&token)).await;
    let grant = found.unwrap_or(Ok(None))?.ok_or_else(Refusal::wrong_token)?;
    if grant.is_expired(clock.unix_ms()) {
        return Err(Refusal::expired_token());
    }
    if !grant.role.may(right) {
        return Err(Refusal::forbidden(grant.role));
    }
    metrics::counter!("api_requests_total", "role" => grant.role.as_str()).increment(1);
    Ok(next.run(request).await)
}

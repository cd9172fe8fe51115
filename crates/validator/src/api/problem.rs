//! How the API says no: a lasting short code for programs, a sentence for people, and what to do about it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::token::{Role, TokenError};
use crate::challenge::test_run::TestError;
use crate::store::StoreError;
use crate::weights::WeightsError;

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// What went wrong.
    pub error: ProblemDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProblemDetail {
    /// A lasting short name, for programs.
    #[schema(value_type = String)]
    pub code: &'static str,
    /// The same as a sentence.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// The answers that every route may give besides its own, for the document.
#[derive(IntoResponses)]
pub enum EveryRefusal {
    /// The question cannot be read: a bad hotkey, number or cursor.
    #[response(status = 400)]
    BadQuestion(#[to_schema] Problem),
    /// No token, or one that is wrong, revoked or expired.
    #[response(status = 401)]
    NoToken(#[to_schema] Problem),
    /// The token's role may not do this.
    #[response(status = 403)]
    Forbidden(#[to_schema] Problem),
    /// The database or the chain does not answer.
    #[response(status = 503)]
    Unavailable(#[to_schema] Problem),
}

/// A refusal.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    detail: ProblemDetail,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, detail: ProblemDetail { code, message: message.into(), remedy: remedy.into() } }
    }

    /// The question cannot be read.
    pub fn bad(code: &'static str, message: impl Into<String>, remedy: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message, remedy)
    }

    /// There is no such thing.
    pub fn unknown(code: &'static str, message: impl Into<String>, remedy: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message, remedy)
    }

    /// Nobody says who asks.
    pub fn no_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "token_missing",
            "the request has no bearer token",
            "send Authorization: Bearer TOKEN; byteleap-validator token create makes one",
        )
    }

    /// Nobody holds this token.
    pub fn wrong_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "token_unknown",
            "the token is none of this validator's, or was revoked",
            "ask the validator's operator for one",
        )
    }

    /// The token has ended.
    pub fn expired_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "token_expired",
            "the token has expired",
            "ask the validator's operator for a new one",
        )
    }

    /// The role is not enough.
    pub fn forbidden(role: Role) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "role_forbids",
            format!("a token of the role {role} may not do this"),
            "use a token of another role",
        )
    }

    /// The route is there, for another method.
    pub fn wrong_method() -> Self {
        let remedy = "see /api/v1/openapi.json";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the route does not take this method", remedy)
    }

    /// Leases set here do not count.
    pub fn leases_elsewhere() -> Self {
        let message = "leases.source is meshhub: leases come from the marketplace alone";
        Self::new(StatusCode::CONFLICT, "leases_elsewhere", message, "set leases.source to api or both")
    }

    /// There is no such route.
    pub fn no_route() -> Self {
        Self::unknown("route_unknown", "there is no such route", "see /api/v1/openapi.json")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        metrics::counter!("api_refusals_total", "code" => self.detail.code).increment(1);
        let challenge = (self.status == StatusCode::UNAUTHORIZED).then_some([(WWW_AUTHENTICATE, "Bearer")]);
        (self.status, challenge, Json(Problem { error: self.detail })).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the API cannot answer: check the database");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database_unavailable",
            "the database does not answer",
            "try again; the validator's log says why",
        )
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        tracing::error!(error = byteleap_daemon::tasks::chain(&error), "the API lets nobody in");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "tokens_unavailable",
            "the validator cannot read its tokens",
            "the validator's log says why",
        )
    }
}

impl From<WeightsError> for Refusal {
    fn from(error: WeightsError) -> Self {
        let reason = error.to_string();
        match error {
            WeightsError::Store(error) => error.into(),
            WeightsError::Chain(error) if error.is_temporary() => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "chain_unavailable",
                "the chain does not answer",
                "try again; the validator's log says why",
            ),
            _ => Self::new(StatusCode::CONFLICT, "no_weights", reason, "see alarms and the log of the validator"),
        }
    }
}

impl From<TestError> for Refusal {
    fn from(error: TestError) -> Self {
        let message = error.to_string();
        let conflict = |code, remedy: &str| Self::new(StatusCode::CONFLICT, code, message.clone(), remedy);
        match error {
            TestError::Store(error) => error.into(),
            TestError::NotOnline => Self::unknown("worker_not_online", message, "see /api/v1/workers?state=online"),
            TestError::Leased => conflict("worker_leased", "wait until the lease ends"),
            TestError::Busy => conflict("worker_busy", "ask again once its challenge has a verdict"),
            TestError::Incapable(_) => conflict("worker_incapable", "ask for a kind among its capabilities"),
            TestError::Rules(_) => conflict("no_challenge", "mend the configuration"),
        }
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::bad("bad_path", rejection.body_text(), "see /api/v1/openapi.json")
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad("bad_query", rejection.body_text(), "see /api/v1/openapi.json")
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::bad("bad_body", rejection.body_text(), "send JSON as in /api/v1/openapi.json")
    }
}

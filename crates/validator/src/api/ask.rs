//! What a question holds: path, query and body, read strictly, and refused as every refusal of the API is.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use utoipa::IntoParams;

use super::problem::Refusal;
use crate::store::pages::{MAX_PAGE_ROWS, PAGE_ROWS};

/// What stands in the path.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(path) = Path::from_request_parts(parts, state).await?;
        Ok(Self(path))
    }
}

/// What stands in the query.
#[derive(Debug)]
pub struct InQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Query(query) = Query::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

/// What stands in the body.
#[derive(Debug)]
pub struct InBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for InBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let Json(body) = Json::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// Which page of a list in the order of its rows.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// Rows of the page.
    #[serde(default = "page_rows", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 500, default = 50, required = false)]
    pub limit: u32,
    /// `next` of the page before; none for the first page.
    pub after: Option<i64>,
}

/// For `limit` where it is not given.
pub fn page_rows() -> u32 {
    PAGE_ROWS
}

/// Reads `limit`.
///
/// # Errors
/// Not 1 to [`MAX_PAGE_ROWS`].
pub fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let limit = u32::deserialize(deserializer)?;
    if (1..=MAX_PAGE_ROWS).contains(&limit) {
        Ok(limit)
    } else {
        Err(D::Error::custom(format!("limit is 1 to {MAX_PAGE_ROWS}")))
    }
}

//! Enrolment tokens for the VM gateway (validator spec 7.11): a miner asks for one of its live workers, we ask whoever
//! issues them, and keep what we got until it ends. A token is never logged.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::tasks;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use byteleap_protocol::meshhub::MeshWorker;
use byteleap_protocol::meshhub::order::TokenResponse;
use byteleap_protocol::payload::TokenRecord;
use parking_lot::Mutex;
use serde_json::{Value, json};
use time::{Date, Month, PrimitiveDateTime, Time};
use tokio::sync::{mpsc, oneshot};

use crate::alarm::webhook::{self, Webhook, WebhookUrl};

/// How long a miner may wait for our answer, less the way to it: it gives up after 10 s.
const DEADLINE: Duration = Duration::from_secs(8);
/// Requests of one worker in an hour that reach the issuer.
const REQUESTS_PER_HOUR: usize = 6;
const HOUR_MS: i64 = 3_600_000;
/// Requests under way at once; more are told to come again.
const MAX_WAITING: usize = 64;
/// Workers that are remembered; beyond, those whose hour is over are forgotten.
const MAX_WORKERS: usize = 10_000;
/// A token that ends within this time is not handed out again.
const LEAST_LIFE_MS: i64 = 30_000;
/// When a miner is to ask again.
const TRY_AGAIN_S: i64 = 5;

/// Codes of a token record (miner-validator spec 8); a name space of its own.
pub mod code {
    /// The caller has no live worker of this name.
    pub const NO_WORKER: i64 = 1000;
    /// Nobody here issues tokens, or none just now.
    pub const NO_ISSUER: i64 = 1003;
}

/// Who issues tokens: the key `vmgw.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody.
    Off,
    /// The marketplace, over its wire.
    Hub,
    /// Whoever answers at `vmgw.url`.
    Http,
}

/// Who issues tokens, and how to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuing {
    /// Nobody.
    Off,
    /// The marketplace, over its wire.
    Hub,
    /// Whoever answers there.
    Http {
        /// Where.
        url: WebhookUrl,
        /// Our login.
        bearer: Option<Bearer>,
    },
}

/// A login. Neither printed nor logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer(String);

impl Bearer {
    /// The login of this text.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Bearer")
    }
}

/// A text that names no [`Mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("off, hub or http")]
pub struct UnknownMode;

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "off" => Ok(Self::Off),
            "hub" => Ok(Self::Hub),
            "http" => Ok(Self::Http),
            _ => Err(UnknownMode),
        }
    }
}

/// A request on its way to the marketplace.
#[derive(Debug)]
pub struct Asked {
    /// The worker.
    pub worker: MeshWorker,
    /// Where the answer goes.
    pub answer: oneshot::Sender<TokenResponse>,
}

/// Where miners' requests for tokens are answered. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    issuer: Option<Issuer>,
    workers: Arc<Mutex<HashMap<(Hotkey, WorkerId), Served>>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tokens").field("has_issuer", &self.issuer.is_some()).finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum Issuer {
    Hub(mpsc::Sender<Asked>),
    Http(WebhookUrl, Option<Bearer>),
}

/// What one worker has got and asked for.
#[derive(Default)]
struct Served {
    asked_at_ms: Vec<i64>,
    token: Option<(TokenRecord, i64)>,
}

impl Tokens {
    /// Nobody issues any.
    pub fn off() -> Self {
        Self { issuer: None, workers: Arc::default() }
    }

    /// The marketplace issues them: the other end is for its connection.
    pub fn by_hub() -> (Self, mpsc::Receiver<Asked>) {
        let (issuer, asked) = mpsc::channel(MAX_WAITING);
        (Self { issuer: Some(Issuer::Hub(issuer)), workers: Arc::default() }, asked)
    }

    /// Whoever answers at `url` issues them.
    pub fn by_http(url: WebhookUrl, bearer: Option<Bearer>) -> Self {
        Self { issuer: Some(Issuer::Http(url, bearer)), workers: Arc::default() }
    }

    /// The answer to a miner whose worker is live.
    pub async fn token(&self, hotkey: Hotkey, worker_id: &WorkerId, now_ms: i64) -> TokenRecord {
        let record = self.record(hotkey, worker_id, now_ms).await;
        let outcome = match (&record.token, record.code) {
            (Some(_), _) => "issued",
            (None, 0) => "pending",
            (None, _) => "refused",
        };
        metrics::counter!("enrolment_tokens_total", "outcome" => outcome).increment(1);
        TokenRecord { worker_id: worker_id.to_string(), ..record }
    }

    async fn record(&self, hotkey: Hotkey, worker_id: &WorkerId, now_ms: i64) -> TokenRecord {
        let Some(issuer) = &self.issuer else { return refused("No token issuer available") };
        let key = (hotkey, worker_id.clone());
        match self.admit(&key, now_ms) {
            Admission::Known(record) => return record,
            Admission::TooMany => return refused("Too many token requests for this worker"),
            Admission::Ask => {}
        }
        let worker = MeshWorker { hotkey, worker_id: worker_id.clone() };
        let asked = async {
            match issuer {
                Issuer::Hub(issuer) => ask_hub(issuer, worker).await,
                Issuer::Http(url, bearer) => ask_http(url, bearer.as_ref(), &worker).await,
            }
        };
        let answered = tokio::time::timeout(DEADLINE, asked).await;
        let record = answered.unwrap_or_else(|_| refused("The token issuer gives no answer"));
        if let Some(ends_at_ms) = record.expires_at.as_deref().and_then(unix_ms).filter(|_| record.token.is_some()) {
            self.workers.lock().entry(key).or_default().token = Some((record.clone(), ends_at_ms));
        }
        record
    }

    fn admit(&self, key: &(Hotkey, WorkerId), now_ms: i64) -> Admission {
        let mut workers = self.workers.lock();
        if workers.len() >= MAX_WORKERS {
            workers.retain(|_, served| {
                served.token.as_ref().is_some_and(|(_, ends_at_ms)| *ends_at_ms > now_ms)
                    || served.asked_at_ms.last().is_some_and(|at_ms| *at_ms > now_ms - HOUR_MS)
            });
        }
        if workers.len() >= MAX_WORKERS && !workers.contains_key(key) {
            return Admission::TooMany;
        }
        let served = workers.entry(key.clone()).or_default();
        if let Some((record, ends_at_ms)) = &served.token
            && *ends_at_ms > now_ms + LEAST_LIFE_MS
        {
            return Admission::Known(record.clone());
        }
        served.asked_at_ms.retain(|at_ms| *at_ms > now_ms - HOUR_MS);
        if served.asked_at_ms.len() >= REQUESTS_PER_HOUR {
            return Admission::TooMany;
        }
        served.asked_at_ms.push(now_ms);
        Admission::Ask
    }
}

enum Admission {
    Known(TokenRecord),
    TooMany,
    Ask,
}

async fn ask_hub(issuer: &mpsc::Sender<Asked>, worker: MeshWorker) -> TokenRecord {
    let (answer, answered) = oneshot::channel();
    if issuer.try_send(Asked { worker, answer }).is_err() {
        return pending();
    }
    answered.await.map_or_else(|_| refused("The token issuer is not connected"), read)
}

async fn ask_http(url: &WebhookUrl, bearer: Option<&Bearer>, worker: &MeshWorker) -> TokenRecord {
    let body = json!({ "hotkey": worker.hotkey, "worker_id": worker.worker_id }).to_string();
    let issuer = Webhook { url: url.clone(), ca_file: None };
    let (status, body) = match webhook::ask(&issuer, bearer.map(|bearer| bearer.0.as_str()), body).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(error = tasks::chain(&error), "the token issuer was not asked");
            return refused("The token issuer does not answer");
        }
    };
    let text = |body: &Value, key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    match (status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap_or_default()) {
        (200, body) if text(&body, "token").is_some() => TokenRecord {
            token: text(&body, "token"),
            expires_at: text(&body, "expires_at"),
            enrollment_url: text(&body, "enrollment_url"),
            ..TokenRecord::default()
        },
        (202, body) => {
            let try_again_in_sec = body.get("try_again_in_sec").and_then(Value::as_i64).unwrap_or(TRY_AGAIN_S);
            TokenRecord { try_again_in_sec: Some(try_again_in_sec), ..TokenRecord::default() }
        }
        (status, _) => {
            tracing::warn!(status, "the token issuer refused, or its answer holds no token");
            refused("The token issuer refuses")
        }
    }
}

fn read(response: TokenResponse) -> TokenRecord {
    let has_way = response.token.is_some() || response.try_again_in_sec.is_some();
    TokenRecord {
        worker_id: String::new(),
        code: if has_way { 0 } else { code::NO_ISSUER },
        try_again_in_sec: response.try_again_in_sec.filter(|_| response.token.is_none()),
        token: response.token,
        expires_at: response.expires_at,
        enrollment_url: response.enrollment_url,
        error_message: response.error_message,
    }
}

fn refused(message: &str) -> TokenRecord {
    TokenRecord { code: code::NO_ISSUER, error_message: Some(message.to_owned()), ..TokenRecord::default() }
}

fn pending() -> TokenRecord {
    TokenRecord { try_again_in_sec: Some(TRY_AGAIN_S), ..TokenRecord::default() }
}

/// `2026-01-31T12:00:00Z`, with or without a fraction, as unix ms; none for any other form.
fn unix_ms(text: &str) -> Option<i64> {
    let (seconds, zone) = text.split_at_checked(19)?;
    let zone = zone.trim_start_matches(|char: char| char == '.' || char.is_ascii_digit());
    if !matches!(zone, "Z" | "+00:00") {
        return None;
    }
    let (date, time) = seconds.split_once('T')?;
    let number = |text: &str| text.parse::<u8>().ok();
    let (mut date, mut time) = (date.split('-'), time.split(':'));
    let year = date.next()?.parse().ok()?;
    let month = Month::try_from(number(date.next()?)?).ok()?;
    let date = Date::from_calendar_date(year, month, number(date.next()?)?).ok()?;
    let time = Time::from_hms(number(time.next()?)?, number(time.next()?)?, number(time.next()?)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp() * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINER: Hotkey = Hotkey([7; 32]);

    fn worker() -> WorkerId {
        "w".parse().unwrap()
    }

    /// An issuer that answers every request alike, and how often it was asked.
    fn issuer(response: TokenResponse) -> (Tokens, Arc<Mutex<usize>>) {
        let (tokens, mut asked) = Tokens::by_hub();
        let count = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                *counted.lock() += 1;
                let _ = request.answer.send(response.clone());
            }
        });
        (tokens, count)
    }

    #[test]
    fn an_instant_is_read_to_the_second() {
        assert_eq!(unix_ms("1970-01-02T00:00:01Z"), Some(86_401_000));
        assert_eq!(unix_ms("1970-01-02T00:00:01.5+00:00"), Some(86_401_000));
        for other in ["", "1970-01-02T00:00:01", "1970-01-02T00:00:01+02:00", "1970-13-02T00:00:01Z", "ééééééééééé"]
        {
            assert_eq!(unix_ms(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_token_is_kept_until_it_ends() {
        let response = TokenResponse {
            token: Some("jwt".to_owned()),
            expires_at: Some("1970-01-01T01:00:00Z".to_owned()),
            ..TokenResponse::default()
        };
        let (tokens, asked) = issuer(response);
        for now_ms in [0, 1_000, HOUR_MS - LEAST_LIFE_MS - 1] {
            let record = tokens.token(MINER, &worker(), now_ms).await;
            assert_eq!((record.code, record.token.as_deref(), record.worker_id.as_str()), (0, Some("jwt"), "w"));
        }
        assert_eq!(*asked.lock(), 1);
        tokens.token(MINER, &worker(), HOUR_MS).await;
        assert_eq!(*asked.lock(), 2);
        assert!(!format!("{tokens:?}").contains("jwt"));
    }

    #[tokio::test]
    async fn a_worker_asks_six_times_an_hour() {
        let (tokens, asked) = issuer(TokenResponse { try_again_in_sec: Some(2), ..TokenResponse::default() });
        for number in 0..8 {
            let record = tokens.token(MINER, &worker(), number).await;
            let expected = if number < 6 { (0, Some(2)) } else { (code::NO_ISSUER, None) };
            assert_eq!((record.code, record.try_again_in_sec), expected);
        }
        assert_eq!(*asked.lock(), 6);
        assert_eq!(tokens.token(MINER, &"other".parse().unwrap(), 9).await.code, 0);
        assert_eq!(tokens.token(MINER, &worker(), HOUR_MS + 9).await.code, 0, "an hour later");
    }

    /// An issuer over HTTP that gives this answer to whoever has the login, and says what it was asked.
    async fn http_issuer(status: u16, answer: Value) -> (Tokens, mpsc::Receiver<Value>) {
        let (seen, asked) = mpsc::channel(8);
        let routes = axum::Router::new().route(
            "/tokens",
            axum::routing::post(
                move |headers: axum::http::HeaderMap, axum::Json(body): axum::Json<Value>| async move {
                    if headers.get("authorization").is_none_or(|login| login != "Bearer login") {
                        return (axum::http::StatusCode::UNAUTHORIZED, axum::Json(json!({})));
                    }
                    seen.send(body).await.unwrap();
                    (axum::http::StatusCode::from_u16(status).unwrap(), axum::Json(answer))
                },
            ),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/tokens", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (Tokens::by_http(url, Some(Bearer::new("login".to_owned()))), asked)
    }

    #[tokio::test]
    async fn an_issuer_over_http_is_asked_with_our_login_and_its_three_answers_are_told_apart() {
        let answer = json!({ "token": "jwt", "expires_at": "1970-01-01T01:00:00Z", "enrollment_url": "https://gw" });
        let (tokens, mut asked) = http_issuer(200, answer).await;
        let record = tokens.token(MINER, &worker(), 0).await;
        assert_eq!((record.code, record.token.as_deref()), (0, Some("jwt")));
        assert_eq!(record.enrollment_url.as_deref(), Some("https://gw"));
        assert_eq!(asked.recv().await.unwrap(), json!({ "hotkey": MINER, "worker_id": "w" }));
        let (pending, _asked) = http_issuer(202, json!({ "try_again_in_sec": 3 })).await;
        let record = pending.token(MINER, &worker(), 0).await;
        assert_eq!((record.code, record.token, record.try_again_in_sec), (0, None, Some(3)));
        for (status, answer) in [(500, json!({})), (200, json!({ "expires_at": "x" }))] {
            let (refusing, _asked) = http_issuer(status, answer).await;
            assert_eq!(refusing.token(MINER, &worker(), 0).await.code, code::NO_ISSUER);
        }
    }

    #[tokio::test]
    async fn without_an_issuer_the_miner_goes_on_to_the_next_validator() {
        assert_eq!(Tokens::off().token(MINER, &worker(), 0).await.code, code::NO_ISSUER);
        let (tokens, asked) = Tokens::by_hub();
        drop(asked);
        assert_eq!(tokens.token(MINER, &worker(), 0).await.try_again_in_sec, Some(TRY_AGAIN_S));
    }
}

//! Fetches VM gateway enrolment tokens for workers (worker-miner spec 3.9, miner-validator spec 2.7).
//!
//! Validators are asked one after another: first the one that gave the last token, since it has what it takes, then the
//! others in the order of their uids. Each is asked for at most 30 s; the whole search ends in time for a worker that
//! waits 60 s (F50), and at once when the worker is gone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use byteleap_protocol::{
    frame::TokenAnswer,
    hotkey::Hotkey,
    payload::{TokenRecord, TokenRequest as Query},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    validators::{Validator, Validators},
    workers::connection::TokenRequest,
};

/// The whole search; a reference worker gives up after 60 s.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(55);

/// How long one validator is asked.
const WINDOW: Duration = Duration::from_secs(30);

/// Pause where the validator names none.
const DEFAULT_PAUSE: Duration = Duration::from_secs(5);

/// Searches under way at once; further requests wait in their queue.
const MAX_SEARCHES: usize = 16;

/// The code of "not to be had" towards a worker.
const UNAVAILABLE: i64 = 1003;

/// Serves token requests until `stop`.
pub(crate) async fn run(validators: Validators, mut requests: mpsc::Receiver<TokenRequest>, stop: CancellationToken) {
    let (places, giver) = (Arc::new(Semaphore::new(MAX_SEARCHES)), Giver::default());
    loop {
        let request = tokio::select! {
            () = stop.cancelled() => return,
            request = requests.recv() => match request {
                Some(request) => request,
                None => return,
            },
        };
        let place = tokio::select! {
            () = stop.cancelled() => return,
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
        };
        let (validators, giver, stop) = (validators.current(), giver.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let TokenRequest { worker_id, mut answer } = request;
            let query = Query { worker_id };
            tokio::select! {
                () = stop.cancelled() => {}
                () = answer.closed() => {}
                found = search(validators, &giver, &query) => {
                    // The worker may have gone in this very moment.
                    let _ = answer.send(found);
                }
            }
        });
    }
}

/// Which validator gave the last token, as a handle that all searches share.
#[derive(Debug, Clone, Default)]
struct Giver(Arc<Mutex<Option<Hotkey>>>);

impl Giver {
    fn remember(&self, validator: Hotkey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(validator);
    }

    /// The giver first, the others as they are.
    fn first<T>(&self, mut validators: Vec<T>, hotkey: impl Fn(&T) -> Hotkey) -> Vec<T> {
        let giver = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        validators.sort_by_key(|validator| Some(hotkey(validator)) != giver);
        validators
    }
}

/// The first token that a validator gives, or the last reason why not.
async fn search(validators: Vec<Arc<Validator>>, giver: &Giver, query: &Query) -> TokenAnswer {
    let end = Instant::now() + SEARCH_TIMEOUT;
    let mut reason = "no validator is known".to_owned();
    for validator in giver.first(validators, |validator| validator.hotkey()) {
        let window = (Instant::now() + WINDOW).min(end);
        match ask(&validator, query, window).await {
            Ok(record) => {
                giver.remember(validator.hotkey());
                return TokenAnswer {
                    code: 0,
                    token: record.token,
                    expires_at: record.expires_at,
                    enrollment_url: record.enrollment_url,
                    error: None,
                };
            }
            Err(refusal) => {
                tracing::debug!(worker_id = %query.worker_id, validator = %validator.hotkey(), refusal, "no token");
                reason = refusal;
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    TokenAnswer { code: UNAVAILABLE, error: Some(reason), ..TokenAnswer::default() }
}

/// Asks one validator until it gives a token, refuses, or its window closes.
async fn ask(validator: &Validator, query: &Query, window: Instant) -> Result<TokenRecord, String> {
    let closed = || "the validator has no token yet".to_owned();
    loop {
        let record = match timeout_at(window, validator.token(query.clone())).await {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err("the validator does not answer in time".to_owned()),
        };
        match next_step(record)? {
            Step::Done(record) => return Ok(record),
            Step::AskAgainIn(pause) => {
                let again = Instant::now() + pause;
                if again >= window {
                    return Err(closed());
                }
                tokio::time::sleep_until(again).await;
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Step {
    Done(TokenRecord),
    AskAgainIn(Duration),
}

/// What a validator's answer means; an error is its reason to refuse.
fn next_step(record: TokenRecord) -> Result<Step, String> {
    if record.code != 0 {
        let reason = record.error_message.unwrap_or_else(|| "no reason given".to_owned());
        return Err(format!("code {}: {reason}", record.code));
    }
    if record.token.as_deref().is_some_and(|token| !token.is_empty()) {
        return Ok(Step::Done(record));
    }
    let pause = record.try_again_in_sec.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    Ok(Step::AskAgainIn(pause.map_or(DEFAULT_PAUSE, Duration::from_secs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(code: i64, token: Option<&str>, pause: Option<i64>) -> TokenRecord {
        TokenRecord {
            code,
            token: token.map(str::to_owned),
            try_again_in_sec: pause,
            error_message: (code != 0).then(|| "no issuer".to_owned()),
            ..TokenRecord::default()
        }
    }

    #[test]
    fn a_token_ends_the_search_and_a_code_goes_on_to_the_next_validator() {
        assert!(matches!(next_step(record(0, Some("eyJh"), None)), Ok(Step::Done(_))));
        assert_eq!(next_step(record(1003, None, None)), Err("code 1003: no issuer".to_owned()));
    }

    #[test]
    fn a_pending_token_is_asked_for_again_after_the_named_or_the_default_pause() {
        let pause = |seconds| next_step(record(0, None, seconds));
        assert_eq!(pause(Some(7)), Ok(Step::AskAgainIn(Duration::from_secs(7))));
        for unnamed in [None, Some(0), Some(-1)] {
            assert_eq!(pause(unnamed), Ok(Step::AskAgainIn(DEFAULT_PAUSE)));
        }
        assert_eq!(next_step(record(0, Some(""), None)), Ok(Step::AskAgainIn(DEFAULT_PAUSE)));
    }

    #[test]
    fn the_last_giver_is_asked_first_and_the_others_in_their_order() {
        let (giver, uids) = (Giver::default(), || (1..=4).collect::<Vec<u8>>());
        let order = || giver.first(uids(), |uid| Hotkey([*uid; 32]));
        assert_eq!(order(), [1, 2, 3, 4]);
        giver.remember(Hotkey([3; 32]));
        assert_eq!(order(), [3, 1, 2, 4]);
        giver.remember(Hotkey([9; 32]));
        assert_eq!(order(), [1, 2, 3, 4], "one that is no longer in use");
    }
}

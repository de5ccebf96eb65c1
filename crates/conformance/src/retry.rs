//! What passes is ridden out: answers 429, 500, 502, 503 and 504, lost connections, watches and execs that were cut. Each is counted, and
//! the report says how often. A run makes nothing whose name the server chooses, so every request may be made twice: what the first
//! attempt made after all is found by the second, with the run's mark on it (`ledger`). A refusal is an answer, never asked again.

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long one request is tried, and how long a server that answers nobody. Less than an answer is waited for (`cluster::ANSWER`), so
/// that it is the last failure that is told and not the time that passed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server that has never answered is tried: it is more likely absent than busy.
const FIRST_CONTACT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What passed, and after how many failures; in the order of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// As in `the API server answered 429`.
    pub what: String,
    /// How often it was tried again for that.
    pub times: usize,
}

impl fmt::Display for Retried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.times {
            1 => write!(out, "{} once; asked again", self.what),
            times => write!(out, "{} {times} times; asked again", self.what),
        }
    }
}

/// The retries of a run.
#[derive(Debug)]
pub struct Retries {
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<String, usize>,
    reached: bool,
    failing_since: Option<Instant>,
}

impl Default for Retries {
    fn default() -> Self {
        Retries {
            patience: PATIENCE,
            state: Mutex::default(),
        }
    }
}

impl Retries {
    /// None, for tests.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Retries {
            patience: Duration::ZERO,
            state: Mutex::default(),
        }
    }

    /// Counts something that passes and that is tried again.
    pub fn count(&self, what: impl Into<String>) {
        *self.state().counts.entry(what.into()).or_default() += 1;
    }

    /// Everything counted so far.
    pub fn told(&self) -> Vec<Retried> {
        let counts = self.state().counts.clone();
        let retried = |(what, times)| Retried { what, times };
        counts.into_iter().map(retried).collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        let mut state = self.state();
        state.reached = true;
        state.failing_since = None;
    }

    /// Until when a request that began then is tried, now that it has failed. Where the server fails everybody, the time began with the
    /// first failure: after it each request fails at once, with its cause, and no check waits for one after the other.
    fn end(&self, begun: Instant) -> Instant {
        let mut state = self.state();
        let since = *state.failing_since.get_or_insert_with(Instant::now);
        let patience = if state.reached {
            self.patience
        } else {
            self.patience.min(FIRST_CONTACT)
        };
        begun.min(since) + patience
    }
}

/// A client that rides out what passes.
pub fn patient(inner: Client, retries: Arc<Retries>) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let service = tower::service_fn(move |request| answer(inner.clone(), Arc::clone(&retries), request));
    Client::new(service, namespace)
}

async fn answer(
    client: Client,
    retries: Arc<Retries>,
    request: Request<Body>,
) -> Result<Response<impl http_body::Body<Data = bytes::Bytes, Error = kube::Error>>, kube::Error> {
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query.split('&').any(|part| part == "watch=true");
    let answer = send(client, &retries, request).await?;
    Ok(answer.map(|body| {
        body.map_err(move |error| {
            // Whoever watches takes it up again, without a word.
            if is_watch {
                retries.count("a watch was cut");
            }
            error
        })
    }))
}

async fn send(
    client: Client,
    retries: &Retries,
    request: Request<Body>,
) -> Result<Response<Body>, kube::Error> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut request = request;
    loop {
        let next = copy(&request);
        let answer = client.send(request).await;
        let Some(what) = passing(&answer) else {
            if answer.is_ok() {
                retries.answered();
            }
            return answer;
        };
        let asked_for = answer
            .as_ref()
            .ok()
            .and_then(|answer| retry_after(answer.headers()));
        let wait = asked_for.unwrap_or(pause);
        let Some(next) = next.filter(|_| Instant::now() + wait <= retries.end(begun)) else {
            return answer;
        };
        tracing::debug!(method = %next.method(), uri = %next.uri(), what, ?wait, "asked again");
        retries.count(what);
        // The connection is free for others while this one waits.
        drop(answer);
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        request = next;
    }
}

/// What failed and may work in a moment; none for what is an answer.
fn passing(answer: &Result<Response<Body>, kube::Error>) -> Option<String> {
    match answer {
        Ok(answer) => matches!(
            answer.status(),
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
        .then(|| format!("the API server answered {}", answer.status().as_u16())),
        Err(kube::Error::Service(_) | kube::Error::HyperError(_)) => {
            Some("the connection to the API server failed".to_owned())
        }
        Err(_) => None,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// The same request; none where its body cannot be sent twice.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    request.extensions().clone_into(copy.extensions_mut());
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Server, answer, ok, refuse};
    use axum::extract::Request as Incoming;
    use axum::response::Response as Answer;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, PostParams};
    use rstest::rstest;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that fails so many requests, then answers; and the count of requests it got.
    async fn failing(times: usize, fail: fn() -> Answer) -> (Server, Arc<AtomicUsize>) {
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        let server = answer(move |_: &Incoming| {
            if counted.fetch_add(1, Ordering::SeqCst) < times {
                fail()
            } else {
                ok(&json!({ "metadata": { "name": "m" } }))
            }
        })
        .await;
        (server, seen)
    }

    async fn ask(server: &Server, retries: &Arc<Retries>) -> Result<ConfigMap, kube::Error> {
        let client = patient(server.client(), Arc::clone(retries));
        let maps = Api::<ConfigMap>::namespaced(client, "n");
        maps.create(&PostParams::default(), &ConfigMap::default()).await
    }

    fn throttled() -> Answer {
        let mut answer = refuse(429, "TooManyRequests", "later");
        answer.headers_mut().insert("retry-after", "1".parse().unwrap());
        answer
    }

    #[rstest]
    #[case::throttled(throttled, "the API server answered 429 2 times; asked again")]
    #[case::internal(|| refuse(500, "InternalError", "etcd"), "the API server answered 500 2 times; asked again")]
    #[case::unavailable(|| refuse(503, "ServiceUnavailable", "starting"), "the API server answered 503 2 times; asked again")]
    #[tokio::test]
    async fn what_passes_is_ridden_out_and_told(#[case] fail: fn() -> Answer, #[case] told: &str) {
        let (server, seen) = failing(2, fail).await;
        let retries = Arc::new(Retries::default());
        let begun = Instant::now();
        ask(&server, &retries).await.unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 3);
        let lines: Vec<String> = retries.told().iter().map(ToString::to_string).collect();
        assert_eq!(lines, [told]);
        if told.contains("429") {
            assert!(begun.elapsed() >= Duration::from_secs(2), "Retry-After is kept");
        }
    }

    #[rstest]
    #[case::refused(|| refuse(403, "Forbidden", "no"))]
    #[case::not_authenticated(|| refuse(401, "Unauthorized", "who?"))]
    #[case::conflict(|| refuse(409, "AlreadyExists", "there"))]
    #[case::gone(|| refuse(410, "Expired", "too old"))]
    #[tokio::test]
    async fn an_answer_is_never_asked_for_again(#[case] fail: fn() -> Answer) {
        let (server, seen) = failing(1, fail).await;
        let retries = Arc::new(Retries::default());
        ask(&server, &retries).await.unwrap_err();
        assert_eq!((seen.load(Ordering::SeqCst), retries.told()), (1, Vec::new()));
    }

    #[tokio::test]
    async fn a_server_that_asks_for_more_patience_than_there_is_gets_none() {
        let long = || {
            let mut answer = throttled();
            answer
                .headers_mut()
                .insert("retry-after", "3600".parse().unwrap());
            answer
        };
        let (server, seen) = failing(1, long).await;
        ask(&server, &Arc::new(Retries::default())).await.unwrap_err();
        assert_eq!(seen.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_for_one_request_and_begins_with_the_outage() {
        let retries = Retries::default();
        retries.answered();
        let first = Instant::now();
        assert_eq!(retries.end(first), first + PATIENCE);
        tokio::time::advance(PATIENCE / 2).await;
        assert_eq!(
            retries.end(Instant::now()),
            first + PATIENCE,
            "nobody was answered since"
        );
        retries.answered();
        let later = Instant::now();
        assert_eq!(retries.end(later), later + PATIENCE, "somebody was");
    }

    #[tokio::test]
    async fn a_server_that_never_answered_is_soon_given_up() {
        let retries = Arc::new(Retries::default());
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = patient(Client::try_from(config).unwrap(), Arc::clone(&retries));
        let begun = Instant::now();
        client.apiserver_version().await.unwrap_err();
        assert!(
            begun.elapsed() < FIRST_CONTACT + FIRST_PAUSE,
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(retries.told()[0].what, "the connection to the API server failed");
    }
}

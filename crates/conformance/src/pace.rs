//! How hard the API server may be asked: a bound on requests under way, and on clusters that are not local on their rate. A layer of the
//! client, so that it holds for every call, the provisioner's included.

use futures::future::BoxFuture;
use kube::client::Body;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tower::{Layer, Service};

/// How long a check may take where it gets more than its own time.
const LONGEST: Duration = Duration::from_secs(300);

/// Limits for one API server.
#[derive(Debug)]
pub struct Pace {
    slots: Semaphore,
    many: Semaphore,
    checks: Semaphore,
    turn: Option<(Duration, Mutex<Instant>)>,
    slowness: u32,
}

impl Pace {
    /// For a local cluster: 16 requests under way at once, 8 of them of the kind that checks make many of; 32 checks.
    pub fn local() -> Self {
        Pace {
            slots: Semaphore::new(16),
            many: Semaphore::new(8),
            turn: None,
            checks: Semaphore::new(32),
            slowness: 1,
        }
    }

    /// For any other: five requests a second, four under way at once, 2 of the kind that checks make many of; four checks, so that no request
    /// waits for its turn for as long as an answer may take, and each with five times its time.
    pub fn gentle() -> Self {
        Pace {
            slots: Semaphore::new(4),
            many: Semaphore::new(2),
            turn: Some((Duration::from_millis(200), Mutex::new(Instant::now()))),
            checks: Semaphore::new(4),
            slowness: 5,
        }
    }

    /// For one of many requests: held while it is under way. What else waits for an answer is not behind all of them, and the time that
    /// they wait for each other is not taken for the server's.
    pub async fn one_of_many(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.many.acquire().await.ok()
    }

    /// For a check: held while it is under way.
    pub async fn check(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.checks.acquire().await.ok()
    }

    /// What a check's time limit is on this cluster, that is `limit` on a local one: more where requests wait for their turn, but not so
    /// much that a few checks that hang take the run's time from all others.
    pub fn limit(&self, limit: Duration) -> Duration {
        limit.max((limit * self.slowness).min(LONGEST))
    }

    async fn turn(&self) {
        let Some((gap, next)) = &self.turn else { return };
        let mut next = next.lock().await;
        tokio::time::sleep_until(*next).await;
        *next = Instant::now() + *gap;
    }
}

/// Adds a [`Pace`] to a client.
#[derive(Debug, Clone)]
pub struct PaceLayer(pub Arc<Pace>);

impl<S> Layer<S> for PaceLayer {
    type Service = Paced<S>;

    fn layer(&self, inner: S) -> Paced<S> {
        Paced {
            inner,
            pace: Arc::clone(&self.0),
        }
    }
}

/// A service that keeps a [`Pace`].
#[derive(Debug)]
pub struct Paced<S> {
    inner: S,
    pace: Arc<Pace>,
}

impl<S> Service<http::Request<Body>> for Paced<S>
where
    S: Service<http::Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The request is sent when its future is first polled, which is after its turn has come.
        let answer = self.inner.call(request);
        let pace = Arc::clone(&self.pace);
        Box::pin(async move {
            // The semaphore is never closed.
            let _slot = pace.slots.acquire().await;
            pace.turn().await;
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[tokio::test(start_paused = true)]
    async fn a_gentle_pace_is_five_a_second() {
        let pace = Pace::gentle();
        let begin = Instant::now();
        for _ in 0..11 {
            pace.turn().await;
        }
        assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    }

    #[rstest]
    #[case::local(Pace::local(), 60, 60)]
    #[case::gentle(Pace::gentle(), 30, 150)]
    #[case::not_all_of_a_run(Pace::gentle(), 120, 300)]
    #[case::never_less(Pace::gentle(), 400, 400)]
    fn a_check_has_time_for_its_turn(#[case] pace: Pace, #[case] own: u64, #[case] expected: u64) {
        let limit = pace.limit(Duration::from_secs(own));
        assert_eq!(limit, Duration::from_secs(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn a_local_cluster_is_asked_without_pause() {
        let pace = Pace::local();
        let begin = Instant::now();
        for _ in 0..100 {
            pace.turn().await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}

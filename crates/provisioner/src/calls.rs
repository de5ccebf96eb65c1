//! One way to ask the API server: passing failures are ridden out for a while, and an error says what was attempted.

use crate::cluster::explain_credentials;
use crate::progress::{Progress, Step};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use kube::client::UpgradeConnectionError;
use kube::core::Status;
use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longer than any answer takes that is still on its way; a lost connection does not always say so.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a server that has never answered is tried: it is more likely absent than busy.
const FIRST_CONTACT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A request that failed: what was attempted, and why it did not work.
#[derive(Debug)]
pub struct CallError {
    /// As in `apply Deployment ai-agents-api in ai-agents-acme`.
    pub what: String,
    /// How long it was tried again and again; none if the first answer was final.
    pub tried_for: Option<Duration>,
    /// The last failure.
    pub cause: Cause,
}

/// Why a request failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The API server refused it.
    Refused(Box<Status>),
    /// No answer within this time.
    Silence(Duration),
    /// No connection, or no usable answer.
    Broken(kube::Error),
    /// There was nothing to send: what went wrong on this side.
    Unsent(String),
}

impl CallError {
    /// The status that the API server answered with, if it did.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match &self.cause {
            Cause::Refused(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the API server refused it with 409.
    pub(crate) fn is_conflict(&self) -> bool {
        self.cause.is_refusal(409)
    }

    /// Whether there is no such object, or no namespace for it.
    pub(crate) fn is_absence(&self) -> bool {
        self.cause.is_refusal(404)
    }

    /// Whether the namespace takes nothing new, since it is being deleted
    /// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespacelifecycle).
    pub(crate) fn is_from_the_end_of_a_namespace(&self) -> bool {
        let details = self.status().and_then(|status| status.details.as_ref());
        details.is_some_and(|details| {
            let ending = |cause: &kube::core::response::StatusCause| cause.reason == "NamespaceTerminating";
            details.causes.iter().any(ending) || (self.is_absence() && details.kind == "namespaces")
        })
    }

    /// Whether the same request may work in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.cause.is_passing()
    }

    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let status = self.status();
        if status.is_some_and(|status| status.code == 401) {
            return Some(
                "the credentials of this kubeconfig context are not accepted; renew them".to_owned(),
            );
        }
        let lacking = status.filter(|status| status.code == 403 && status.message.contains(" cannot "));
        if let Some(status) = lacking {
            // Rights in the whole cluster are kept from platform admins: they could give themselves any.
            let who = if status.message.contains("clusterrole") {
                "a cluster administrator"
            } else {
                "a member of platform-admins"
            };
            return Some(format!("use an account with this right, such as {who}"));
        }
        (!matches!(self.cause, Cause::Refused(_) | Cause::Unsent(_)))
            .then(|| "check that the cluster is up and can be reached from here".to_owned())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.tried_for {
            Some(waited) => write!(f, ": given up after {waited:.1?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A proxy in between answers without a message of its own.
            Self::Refused(status) if status.message.is_empty() => write!(f, "status {}", status.code),
            Self::Refused(status) => write!(f, "{} (status {})", status.message, status.code),
            Self::Silence(time) => write!(f, "no answer within {time:.0?}"),
            // The client's own text for these is a prefix; what it means is in its source.
            Self::Broken(kube::Error::Service(_) | kube::Error::HyperError(_)) => {
                f.write_str("no connection")
            }
            Self::Broken(kube::Error::Auth(error)) => f.write_str(&explain_credentials(error)),
            Self::Broken(error) => error.fmt(f),
            Self::Unsent(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(kube::Error::Service(error)) => Some(error.as_ref()),
            Self::Broken(kube::Error::HyperError(error)) => Some(error),
            // The others say themselves what their source says.
            _ => None,
        }
    }
}

impl From<kube::Error> for Cause {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            // An answer too, but of a request for a stream: the client throws its body away.
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => {
                Self::Refused(Status::failure("", "").with_code(code.as_u16()).boxed())
            }
            other => Self::Broken(other),
        }
    }
}

impl Cause {
    fn is_refusal(&self, code: u16) -> bool {
        matches!(self, Self::Refused(status) if status.code == code)
    }

    fn is_passing(&self) -> bool {
        match self {
            Self::Refused(status) => match status.code {
                // 410: what was listed is older than the server remembers. No request of ours names a version to begin with, so the same
                // one again begins anew (https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses).
                410 | 429 | 500 | 502 | 503 | 504 => true,
                // Somebody else wrote in between. A conflict about who owns a field does not pass.
                409 => !status
                    .details
                    .iter()
                    .flat_map(|details| &details.causes)
                    .any(is_field_conflict),
                _ => false,
            },
            Self::Silence(_) => true,
            Self::Broken(error) => match error {
                kube::Error::Service(_) | kube::Error::HyperError(_) => true,
                kube::Error::UpgradeConnection(error) => {
                    matches!(error, UpgradeConnectionError::GetPendingUpgrade(_))
                }
                // An answer that ended too early, without the connection saying so.
                kube::Error::SerdeError(error) => error.is_eof(),
                _ => false,
            },
            Self::Unsent(_) => false,
        }
    }

    /// How long the server wants not to be asked: a few seconds of it, so that patience is not over at once.
    pub(crate) fn pause_asked_for(&self) -> Option<Duration> {
        let Self::Refused(status) = self else { return None };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds.min(10))))
    }
}

/// An error and its causes in one line; a cause that its parent already quotes is not repeated.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

pub(crate) fn is_field_conflict(cause: &kube::core::response::StatusCause) -> bool {
    cause.reason == "FieldManagerConflict"
}

/// How many requests are under way at once; few enough for a server that limits a client's rate.
const CONCURRENCY: usize = 8;

/// Makes requests at once, a few at a time; returns what became of each, in order. Boxed, since the compiler does not see
/// otherwise that an operation made of them may be moved between threads.
pub(crate) async fn all<'f, T: Send>(requests: impl IntoIterator<Item = BoxFuture<'f, T>>) -> Vec<T> {
    let requests: Vec<BoxFuture<'f, T>> = requests.into_iter().collect();
    stream::iter(requests).buffered(CONCURRENCY).collect().await
}

/// Asks, and asks again while failures are passing ones and patience lasts.
pub(crate) struct Calls<'a> {
    deadline: Instant,
    started: Instant,
    reached: AtomicBool,
    pub(crate) progress: &'a dyn Progress,
}

impl<'a> Calls<'a> {
    pub(crate) fn new(patience: Duration, progress: &'a dyn Progress) -> Self {
        let started = Instant::now();
        Self {
            deadline: started + patience,
            started,
            reached: AtomicBool::new(false),
            progress,
        }
    }

    /// When patience ends.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Makes the request until it works, fails for good, or patience is over.
    pub(crate) async fn make<T, F>(
        &self,
        what: impl fmt::Display,
        request: impl FnMut() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        self.make_until(what, Cause::is_passing, request).await
    }

    /// The same for a request that 409 is an answer to: there is such an object already, or it is not the one that was meant.
    pub(crate) async fn make_unless_conflict<T, F>(
        &self,
        what: impl fmt::Display,
        request: impl FnMut() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let passing = |cause: &Cause| !cause.is_refusal(409) && cause.is_passing();
        self.make_until(what, passing, request).await
    }

    async fn make_until<T, F>(
        &self,
        what: impl fmt::Display,
        is_passing: impl Fn(&Cause) -> bool,
        mut request: impl FnMut() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let mut pause = FIRST_PAUSE;
        let mut tried = false;
        loop {
            let cause = match timeout(self.time_for_an_answer(), request()).await {
                Ok(Ok(value)) => {
                    self.reached.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Ok(Err(error)) => Cause::from(error),
                Err(_) => Cause::Silence(self.time_for_an_answer()),
            };
            if matches!(cause, Cause::Refused(_)) {
                self.reached.store(true, Ordering::Relaxed);
            }
            let wait = cause.pause_asked_for().unwrap_or(pause);
            if !is_passing(&cause) || Instant::now() + wait > self.end() {
                let tried_for = tried.then(|| self.started.elapsed());
                return Err(CallError {
                    what: what.to_string(),
                    tried_for,
                    cause,
                });
            }
            let why = cause
                .source()
                .map_or_else(|| cause.to_string(), |source| format!("{cause}: {source}"));
            self.progress.step(&Step::Retrying {
                what: what.to_string(),
                why,
            });
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            tried = true;
        }
    }

    /// The failure of something that was attempted again and again, when there is no time left for it.
    pub(crate) fn given_up(&self, error: CallError) -> CallError {
        let tried_for = Some(self.started.elapsed());
        CallError { tried_for, ..error }
    }

    /// One request without a second attempt, for those who ask regularly anyway.
    pub(crate) async fn once<T>(
        what: impl fmt::Display,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CallError> {
        let cause = match timeout(ANSWER_WITHIN, request).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Cause::from(error),
            Err(_) => Cause::Silence(ANSWER_WITHIN),
        };
        Err(CallError {
            what: what.to_string(),
            tried_for: None,
            cause,
        })
    }

    fn end(&self) -> Instant {
        if self.reached.load(Ordering::Relaxed) {
            self.deadline
        } else {
            self.deadline.min(self.started + FIRST_CONTACT)
        }
    }

    fn time_for_an_answer(&self) -> Duration {
        // A silent server gets at least a moment, however little patience is left.
        self.deadline
            .saturating_duration_since(Instant::now())
            .clamp(Duration::from_secs(1), ANSWER_WITHIN)
    }
}

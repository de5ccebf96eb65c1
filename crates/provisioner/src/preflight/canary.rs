//! Whether the cluster enforces network policies: two pods in a namespace of its own, connections that pass, two policies, and
//! connections that must not pass any more beside one that still must. A smaller sibling of conformance's NET-01, which looks at
//! every node; everything that is made here is removed here, whatever happens.

mod objects;

use super::{Check, Finding, State};
use crate::calls::{CallError, Calls, chain};
use crate::exec::{self, Command, ExecError, Input, Output};
use crate::labels;
use crate::progress::{Progress, Step};
use futures::future::{self, BoxFuture, Either, Shared};
use futures::{FutureExt, TryFutureExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use objects::{CLOSED_IN, CLOSED_OUT, OPEN};
use probe::protocol::{self, Ask, Attempt, Ending, Part, Protocol, Question, Reply};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Label on the canary's namespace: what made it, and which.
pub(crate) const CANARY: &str = "ai-agents-platform/preflight";

/// How long the whole of it may take, but for its removal.
const WITHIN: Duration = Duration::from_secs(120);
/// How long pods may take to start.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// How long connections may take to pass at first.
const REACHED_WITHIN: Duration = Duration::from_secs(15);
/// How long a policy may take to be enforced.
const ENFORCED_WITHIN: Duration = Duration::from_secs(30);
/// How long the removal may take.
const REMOVED_WITHIN: Duration = Duration::from_secs(90);
/// What a killed run leaves counts as left over after this time.
const EXPIRES_AFTER: SignedDuration = SignedDuration::from_mins(15);
/// A connection that must pass.
const CONTROL: Duration = Duration::from_secs(3);
/// One that must not.
const DENIAL: Duration = Duration::from_secs(1);
/// While a policy is awaited.
const GLANCE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(150);
/// What an answer may take beside its attempts.
const OVERHEAD: Duration = Duration::from_secs(10);

/// What came of the canary.
pub(super) struct Watched {
    /// None where it was interrupted.
    pub(super) finding: Option<Finding>,
    /// What could not be removed, and how it is.
    pub(super) left: Vec<String>,
}

/// Ends when somebody does not want to wait any more.
pub(super) type Interrupt = Shared<BoxFuture<'static, ()>>;

/// Puts the canary up, watches it, and takes it away.
pub(super) async fn watch(
    client: &Client,
    image: &str,
    interrupted: Interrupt,
    progress: &dyn Progress,
) -> Watched {
    let mut watched = Watched {
        finding: None,
        left: Vec::new(),
    };
    let found = |state, detail: String| Some(Finding::new(Check::Enforcement, "", state, detail));
    let name = match getrandom::u32() {
        Ok(number) => format!("preflight-{number:08x}"),
        Err(error) => {
            watched.finding = found(State::Unknown, format!("there are no random numbers: {error}"));
            return watched;
        }
    };
    let canary = Canary {
        client,
        calls: Calls::new(WITHIN, progress),
        name,
        image,
        progress,
    };
    canary.sweep().await;
    // Not given up half way: what was asked for may be made all the same, and has to be removed.
    if interrupted.peek().is_some() {
        return watched;
    }
    if let Err(error) = canary.make_namespace().await {
        let maybe_made = error.is_passing();
        watched.finding = Some(Finding::undecided(Check::Enforcement, "", &error));
        if !maybe_made {
            return watched;
        }
    } else {
        let experiment = timeout(WITHIN, canary.experiment());
        let first = future::select(experiment.boxed(), interrupted).await;
        watched.finding = match first {
            Either::Right(_) => None,
            Either::Left((Err(_), _)) => found(
                State::Unknown,
                format!("not decided within {} s", WITHIN.as_secs()),
            ),
            Either::Left((Ok(seen), _)) => Some(judge(seen, image)),
        };
    }
    watched.left = canary.remove().await.err().into_iter().collect();
    watched
}

/// What was seen of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The listener answered.
    Reached,
    /// Nothing came back, or a refusal.
    Denied,
    /// Neither: nothing can be concluded.
    Unclear(String),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Enforcement {
    /// After this time, between these nodes.
    Enforced { after: Duration, nodes: Vec<String> },
    /// Connections that a policy closes still pass.
    Ignored { what: Vec<&'static str> },
}

/// Why it was not decided.
#[derive(Debug)]
struct Undecided {
    what: String,
    remedy: Option<String>,
}

impl Undecided {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: None,
        }
    }
}

impl From<CallError> for Undecided {
    fn from(error: CallError) -> Self {
        Self {
            what: chain(&error),
            remedy: error.hint(),
        }
    }
}

impl From<ExecError> for Undecided {
    fn from(error: ExecError) -> Self {
        Self::new(error.what)
    }
}

fn judge(seen: Result<Enforcement, Undecided>, image: &str) -> Finding {
    let finding = |state, detail: String| Finding::new(Check::Enforcement, "", state, detail);
    match seen {
        Ok(Enforcement::Enforced { after, nodes }) => {
            let between = match nodes.as_slice() {
                [node] => format!("on node {node}"),
                nodes => format!("between nodes {}", nodes.join(" and ")),
            };
            let millis = after.as_millis();
            finding(
                State::Ok,
                format!("policies are enforced {between}, in and out, {millis} ms after they were made"),
            )
        }
        Ok(Enforcement::Ignored { what }) => finding(
            State::Missing,
            format!(
                "policies are not enforced: {} s after it was made, {}",
                ENFORCED_WITHIN.as_secs(),
                what.join(", and ")
            ),
        )
        .mend("use a network plugin that enforces NetworkPolicy in both directions, such as Cilium or Calico; kubectl get pods --namespace kube-system shows which one runs"),
        Err(Undecided { what, remedy }) => {
            let image_lacks = what.contains("Image");
            let load = format!(
                "put the image {image} on the nodes, or name it as they can fetch it: --agent-image IMAGE; or --skip enforcement, and have `conformance run` prove it"
            );
            let remedy = if image_lacks { Some(load) } else { remedy };
            finding(State::Unknown, what).mend_with(remedy)
        }
    }
}

struct Canary<'a> {
    client: &'a Client,
    calls: Calls<'a>,
    name: String,
    image: &'a str,
    progress: &'a dyn Progress,
}

impl Canary<'_> {
    fn note(&self, text: String) {
        self.progress.step(&Step::Note(text));
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Removes what killed runs left behind, as far as that is possible, and waits for nothing.
    async fn sweep(&self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let parameters = ListParams::default().labels(CANARY);
        let listed = Calls::once("list namespaces of earlier canaries", api.list(&parameters)).await;
        let Ok(listed) = listed else { return };
        for namespace in listed.items {
            let expires = namespace
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(labels::EXPIRES));
            let expired = expires
                .and_then(|time| time.parse::<Timestamp>().ok())
                .is_some_and(|time| time < Timestamp::now());
            let ending = namespace.metadata.deletion_timestamp.is_some();
            if let Some(name) = namespace.metadata.name.filter(|_| expired && !ending) {
                self.note(format!(
                    "removing Namespace {name}, which a canary that was killed left behind"
                ));
                let what = format!("delete Namespace {name}");
                let _ = Calls::once(what, api.delete(&name, &DeleteParams::background())).await;
            }
        }
    }

    async fn make_namespace(&self) -> Result<(), CallError> {
        let expires = Timestamp::now() + EXPIRES_AFTER;
        let namespace = objects::namespace(&self.name, expires);
        let api: Api<Namespace> = Api::all(self.client.clone());
        self.note(format!("enforcement canary in Namespace {}", self.name));
        let what = format!("create Namespace {}", self.name);
        let parameters = PostParams::default();
        let made = self
            .calls
            .make_unless_conflict(what, || api.create(&parameters, &namespace))
            .await;
        match made {
            // Its name is random: what exists by now is what an answer that got lost was about.
            Err(error) if error.is_conflict() => Ok(()),
            made => made.map(drop),
        }
    }

    /// Deletes the namespace with all in it, and waits until it is gone.
    async fn remove(&self) -> Result<(), String> {
        let calls = Calls::new(REMOVED_WITHIN, self.progress);
        let api: Api<Namespace> = Api::all(self.client.clone());
        let left = |why: String| {
            format!(
                "Namespace {}: {why}; remove it by: kubectl delete namespace {}",
                self.name, self.name
            )
        };
        let gone = |error: &CallError| error.status().is_some_and(|status| status.code == 404);
        let what = format!("delete Namespace {}", self.name);
        let parameters = DeleteParams::background();
        match calls.make(&what, || api.delete(&self.name, &parameters)).await {
            Ok(_) => {}
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(left(chain(&error))),
        }
        loop {
            let live = calls
                .make(format!("get Namespace {}", self.name), || api.get_opt(&self.name))
                .await;
            match live {
                Ok(None) => return Ok(()),
                Ok(Some(_)) if Instant::now() > calls.deadline() => {
                    return Err(left(format!(
                        "it is being deleted, and still there after {} s",
                        REMOVED_WITHIN.as_secs()
                    )));
                }
                Ok(Some(_)) => sleep(PAUSE).await,
                Err(error) => return Err(left(chain(&error))),
            }
        }
    }

    async fn experiment(&self) -> Result<Enforcement, Undecided> {
        self.account().await?;
        let pods = self.pods();
        let parameters = PostParams::default();
        for pod in [
            objects::listener(&self.name, self.image),
            objects::client(&self.name, self.image),
        ] {
            let what = format!(
                "create Pod {} in {}",
                pod.metadata.name.as_deref().unwrap_or_default(),
                self.name
            );
            let made = self
                .calls
                .make_unless_conflict(what, || pods.create(&parameters, &pod))
                .await;
            match made {
                Err(error) if !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        let (listener, client) =
            future::try_join(self.started(objects::LISTENER), self.started(objects::CLIENT)).await?;
        let mut session = Session::open(self.client, &self.name, listener.ip).await?;
        session.reach().await?;
        let begin = Instant::now();
        self.close().await?;
        let after = session.await_denied(begin).await?;
        let mut nodes = vec![client.node, listener.node];
        nodes.dedup();
        session.conclude(after, nodes).await
    }

    /// Without this account no pod is admitted.
    async fn account(&self) -> Result<(), Undecided> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.name);
        let begin = Instant::now();
        while begin.elapsed() < STARTED_WITHIN {
            let what = format!("get ServiceAccount default in {}", self.name);
            if self.calls.make(what, || api.get_opt("default")).await?.is_some() {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        Err(Undecided {
            what: format!("Namespace {} has no ServiceAccount default", self.name),
            remedy: Some("check that kube-controller-manager runs".to_owned()),
        })
    }

    async fn started(&self, name: &str) -> Result<Started, Undecided> {
        let api = self.pods();
        let begin = Instant::now();
        loop {
            let what = format!("get Pod {name} in {}", self.name);
            let pod = self.calls.make(what, || api.get_opt(name)).await?;
            let state = objects::state(pod.as_ref());
            match state {
                objects::State::Started { ip, node } => return Ok(Started { ip, node }),
                objects::State::Hopeless(why) => {
                    return Err(Undecided::new(format!("Pod {name} does not start: {why}")));
                }
                objects::State::Waits(why) if begin.elapsed() > STARTED_WITHIN => {
                    return Err(Undecided::new(format!(
                        "Pod {name} has not started within {} s: {why}",
                        STARTED_WITHIN.as_secs()
                    )));
                }
                objects::State::Waits(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn close(&self) -> Result<(), Undecided> {
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), &self.name);
        let parameters = PostParams::default();
        for policy in objects::policies(&self.name) {
            let name = policy.metadata.name.clone().unwrap_or_default();
            let what = format!("create NetworkPolicy {name} in {}", self.name);
            let made = self
                .calls
                .make_unless_conflict(what, || api.create(&parameters, &policy))
                .await;
            match made {
                Err(error) if !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

struct Started {
    ip: String,
    node: String,
}

/// The client's agent, asked one question after the other.
struct Session {
    input: Input,
    output: Output,
    target: String,
    asked: u32,
}

impl Session {
    async fn open(client: &Client, namespace: &str, target: String) -> Result<Self, Undecided> {
        let command = Command {
            namespace,
            pod: objects::CLIENT,
            command: &["/probe", "session"],
        };
        let opened = timeout(OVERHEAD, exec::start(client, command).map_err(Undecided::from)).await;
        let (input, output) = opened.unwrap_or_else(|_| {
            Err(Undecided::new(format!(
                "exec in Pod {}: no answer within {} s",
                objects::CLIENT,
                OVERHEAD.as_secs()
            )))
        })?;
        Ok(Self {
            input,
            output,
            target,
            asked: 0,
        })
    }

    /// One attempt at each of these ports at the same time, answered in their order.
    async fn attempt(&mut self, ports: &[u16], limit: Duration) -> Result<Vec<Seen>, Undecided> {
        let mut attempts = Vec::new();
        for (id, port) in (0..).zip(ports) {
            let nonce = getrandom::u64()
                .map_err(|error| Undecided::new(format!("there are no random numbers: {error}")))?;
            attempts.push(Attempt {
                id,
                protocol: Protocol::Tcp,
                host: self.target.clone(),
                port: *port,
                nonce: format!("{nonce:016x}"),
                timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(protocol::MAX_TIMEOUT_MS),
                query: None,
            });
        }
        self.asked += 1;
        let ask = Ask {
            ask: self.asked,
            question: Question::Attempt(protocol::Request {
                version: protocol::VERSION,
                concurrency: attempts.len(),
                attempts,
            }),
        };
        let answered = timeout(OVERHEAD + limit, self.answer(&ask)).await;
        let seen = answered.unwrap_or_else(|_| {
            Err(Undecided::new(format!(
                "Pod {} does not answer within {} s",
                objects::CLIENT,
                (OVERHEAD + limit).as_secs()
            )))
        })?;
        let unanswered = || Seen::Unclear("the agent did not say what came of it".to_owned());
        Ok((0..)
            .zip(ports)
            .map(|(id, _)| seen.get(&id).cloned().unwrap_or_else(unanswered))
            .collect())
    }

    async fn answer(&mut self, ask: &Ask) -> Result<HashMap<u32, Seen>, Undecided> {
        let unreadable = |error| Undecided::new(format!("talk with Pod {}: {error}", objects::CLIENT));
        let line = serde_json::to_vec(ask).map_err(unreadable)?;
        self.input.line(&line).await?;
        let mut seen = HashMap::new();
        loop {
            let line = self.output.line().await?;
            let reply: Reply = serde_json::from_slice(&line).map_err(unreadable)?;
            match reply.part {
                _ if reply.ask != ask.ask => {}
                Part::Outcome(outcome) => {
                    let what = match outcome.ending {
                        Ending::Reached if outcome.echoed => Seen::Reached,
                        Ending::TimedOut | Ending::Refused | Ending::Unreachable => Seen::Denied,
                        ending => Seen::Unclear(format!(
                            "{ending:?} {}",
                            outcome.error.or(outcome.answer).unwrap_or_default()
                        )),
                    };
                    seen.insert(outcome.id, what);
                }
                Part::End(summary) => match summary.refused {
                    Some(why) => {
                        return Err(Undecided::new(format!("Pod {} refuses: {why}", objects::CLIENT)));
                    }
                    None => return Ok(seen),
                },
                _ => {}
            }
        }
    }

    /// Before any policy every port is reached.
    async fn reach(&mut self) -> Result<(), Undecided> {
        let begin = Instant::now();
        loop {
            let seen = self.attempt(&[OPEN, CLOSED_OUT, CLOSED_IN], CONTROL).await?;
            if seen.iter().all(|each| *each == Seen::Reached) {
                return Ok(());
            }
            if begin.elapsed() > REACHED_WITHIN {
                return Err(Undecided {
                    what: format!(
                        "without any policy one pod does not reach the other: {}",
                        describe(&seen)
                    ),
                    remedy: Some(
                        "kubectl get pods --namespace kube-system shows whether the network plugin runs"
                            .to_owned(),
                    ),
                });
            }
            sleep(PAUSE).await;
        }
    }

    /// How long the policies took; none where they did nothing.
    async fn await_denied(&mut self, begin: Instant) -> Result<Option<Duration>, Undecided> {
        while begin.elapsed() < ENFORCED_WITHIN {
            let asked = begin.elapsed();
            let seen = self.attempt(&[CLOSED_OUT, CLOSED_IN], GLANCE).await?;
            if seen.iter().all(|each| *each == Seen::Denied) {
                return Ok(Some(asked));
            }
            sleep(PAUSE).await;
        }
        Ok(None)
    }

    /// Fresh attempts: what is closed is denied twice, what both policies allow is reached.
    async fn conclude(
        &mut self,
        after: Option<Duration>,
        nodes: Vec<String>,
    ) -> Result<Enforcement, Undecided> {
        let ports = [CLOSED_OUT, CLOSED_IN];
        let first = self.attempt(&ports, DENIAL).await?;
        let second = self.attempt(&ports, DENIAL).await?;
        let open = self.attempt(&[OPEN], CONTROL).await?;
        weigh(after, nodes, &[first, second], &open)
    }
}

fn weigh(
    after: Option<Duration>,
    nodes: Vec<String>,
    closed: &[Vec<Seen>],
    open: &[Seen],
) -> Result<Enforcement, Undecided> {
    let directions = [
        "a connection passes that the policy for outgoing ones does not allow",
        "a connection passes that the policy for incoming ones does not allow",
    ];
    let passes = |place: usize| {
        closed
            .iter()
            .any(|round| round.get(place) == Some(&Seen::Reached))
    };
    let ignored: Vec<&str> = directions
        .into_iter()
        .enumerate()
        .filter(|(place, _)| passes(*place))
        .map(|(_, what)| what)
        .collect();
    if !ignored.is_empty() {
        return Ok(Enforcement::Ignored { what: ignored });
    }
    let unclear = closed.iter().flatten().find(|each| **each != Seen::Denied);
    if let Some(seen) = unclear {
        return Err(Undecided::new(format!(
            "what came of a closed connection is not clear: {}",
            describe(std::slice::from_ref(seen))
        )));
    }
    if open.iter().any(|each| *each != Seen::Reached) {
        return Err(Undecided::new(format!(
            "a connection that both policies allow does not pass any more: {}",
            describe(open)
        )));
    }
    match after {
        Some(after) => Ok(Enforcement::Enforced { after, nodes }),
        None => Err(Undecided::new(format!(
            "the policies were not in force everywhere within {} s, and are now",
            ENFORCED_WITHIN.as_secs()
        ))),
    }
}

fn describe(seen: &[Seen]) -> String {
    let words = seen.iter().map(|each| match each {
        Seen::Reached => "reached".to_owned(),
        Seen::Denied => "denied".to_owned(),
        Seen::Unclear(why) => why.clone(),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;

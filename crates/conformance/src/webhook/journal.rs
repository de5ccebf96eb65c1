//! What is said of webhooks in pod logs: of all pods of the tenants, beside the shared services and the ingress, and in `default`, by their
//! containers of now and by those before a restart. Read as the run's user, since a webhook began; only lines that name one of the run's
//! webhooks are kept, and none that only tells of the run's own looks. A log that cannot be read is a gap, and so is one that lost something
//! between two readings: what is not seen there is not absent.

mod continuity;

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::names::PROBE;
use crate::settings::application::{LogForm, NONCES};
use crate::stage::Site;
use crate::verdict::Control;
use continuity::{Container, Continuity, Reading, pod_id};
use futures::AsyncReadExt;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams, LogParams};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// The most that is read of one container's log, in bytes. One that is longer is a gap.
const LONGEST: usize = 8 << 20;
/// So much before the first webhook is read too: clocks differ.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);
/// In every statement that a run makes itself at PostgreSQL: a server may log statements, and these are not the application's words.
pub(super) const OWN_STATEMENT: &str = "/* ai-agents-conformance */";

/// Stands for a webhook in the addresses of looks.
const ANY: &str = "any-webhook";

/// A line that names a webhook of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where the pod is.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Whether it is a worker's.
    pub by_worker: bool,
    /// The webhooks that it names.
    pub nonces: BTreeSet<String>,
    /// The webhook that it says was enhanced, where it says so.
    pub enhanced: Option<String>,
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "pod {} in namespace {}", self.pod, self.namespace)
    }
}

/// A pod, by what runs in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The pod.
    pub pod: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The images that run, by digest.
    pub ids: Vec<String>,
    /// Whether the kubelet finds it ready.
    pub ready: bool,
}

/// What all logs say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logs {
    /// The lines, in no order.
    pub lines: Vec<Line>,
    /// What could not be read, by namespace.
    pub gaps: BTreeMap<String, Vec<String>>,
    /// How many containers' logs were read, by namespace.
    pub read: BTreeMap<String, usize>,
    /// The pods that there are, by namespace.
    pub pods: BTreeMap<String, Vec<Image>>,
}

impl Logs {
    /// The lines that name this webhook.
    pub fn of<'a>(&'a self, nonce: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.nonces.contains(nonce))
    }

    /// The workers' lines that say that it was enhanced.
    pub fn enhanced<'a>(&'a self, nonce: &'a str) -> impl Iterator<Item = &'a Line> {
        let says = move |line: &&Line| line.by_worker && line.enhanced.as_deref() == Some(nonce);
        self.lines.iter().filter(says)
    }

    /// The lines anywhere that say that it was enhanced.
    pub fn said_enhanced<'a>(&'a self, nonce: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines
            .iter()
            .filter(move |line| line.enhanced.as_deref() == Some(nonce))
    }

    /// That the logs in these namespaces were read, all of them.
    pub fn readable<'a>(&self, namespaces: impl Iterator<Item = &'a str> + Clone) -> Control {
        let count: usize = namespaces
            .clone()
            .filter_map(|namespace| self.read.get(namespace))
            .sum();
        let names: Vec<&str> = namespaces.clone().collect();
        Control {
            claim: format!("all logs in {} are read", names.join(", ")),
            holds: match self.gap(namespaces) {
                None => Ok(format!("{count} containers")),
                Some(gap) => Err(gap),
            },
        }
    }

    /// The pods in a namespace that wear these labels.
    pub fn pods_of<'a>(
        &'a self,
        namespace: &str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Image> {
        let pods = self.pods.get(namespace).into_iter().flatten();
        pods.filter(move |pod| wears(&pod.labels, labels))
    }

    /// Why the logs in these namespaces are not all there, where they are not.
    pub fn gap<'a>(&self, namespaces: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let gaps = namespaces
            .into_iter()
            .filter_map(|namespace| self.gaps.get(namespace)?.first());
        gaps.map(ToOwned::to_owned).next()
    }
}

/// Reads logs; of many that ask at the same time one reads for all.
pub(super) struct Journal {
    site: Arc<Site>,
    namespaces: Vec<String>,
    nonces: Regex,
    looks: Vec<String>,
    since: Timestamp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    continuity: Continuity,
    read: Option<(Instant, Arc<Logs>)>,
}

/// A container whose log is to be read.
struct Source {
    of: Container,
    previous: bool,
    /// How often it had been restarted when this log began.
    restarts: i32,
    by_worker: bool,
}

impl Journal {
    /// One of these namespaces, from now on.
    ///
    /// # Errors
    /// None that is known: the pattern is fixed.
    pub(super) fn new(site: Arc<Site>, namespaces: Vec<String>) -> Result<Self, HarnessError> {
        let nonces =
            Regex::new(NONCES).map_err(|error| HarnessError::during("read the nonces' pattern", &error))?;
        Ok(Journal {
            since: Timestamp::now() - MARGIN,
            looks: looks(&site),
            site,
            namespaces,
            nonces,
            state: Mutex::default(),
        })
    }

    /// What all logs say now.
    pub(super) async fn read(&self) -> Arc<Logs> {
        let wanted = Instant::now();
        let mut state = self.state.lock().await;
        if let Some((begun, logs)) = &state.read
            && *begun >= wanted
        {
            return Arc::clone(logs);
        }
        let begun = Instant::now();
        let each = self
            .namespaces
            .iter()
            .map(|namespace| self.read_namespace(namespace));
        let mut logs = Logs::default();
        let mut reading = Reading::default();
        for (namespace, mut part) in self.namespaces.iter().zip(join_all(each).await) {
            reading.append(&mut part.reading);
            part.merge_into(&mut logs, namespace);
        }
        for (namespace, gap) in state.continuity.compare(reading) {
            logs.gaps.entry(namespace).or_default().push(gap);
        }
        let logs = Arc::new(logs);
        state.read = Some((begun, Arc::clone(&logs)));
        logs
    }

    async fn read_namespace(&self, namespace: &str) -> Part {
        let pods = Api::<Pod>::namespaced(self.site.cluster.client.clone(), namespace);
        // Agents are sent no webhooks: no Service knows them.
        let params = ListParams::default().labels(&format!("!{PROBE}"));
        let listed = within(
            ANSWER,
            format!("list pods in namespace {namespace}"),
            pods.list(&params),
        )
        .await;
        let listed = match listed {
            Ok(listed) => listed.items,
            Err(error) => {
                return Part {
                    gaps: vec![error.what],
                    reading: Reading::without(namespace),
                    ..Part::default()
                };
            }
        };
        let worker = &self.site.settings.application.log.worker;
        let sources: Vec<Source> = listed
            .iter()
            .flat_map(|pod| sources(namespace, pod, worker, self.since))
            .collect();
        let texts = join_all(sources.iter().map(|source| self.text(&pods, namespace, source))).await;
        let mut part = Part {
            pods: listed.iter().map(image).collect(),
            reading: Reading::of(namespace, &listed, self.since),
            ..Part::default()
        };
        for (source, text) in sources.iter().zip(texts) {
            part.reading.add(source, &text);
            if let Ok(text) = text {
                part.read += 1;
                let form = &self.site.settings.application.log;
                part.lines.extend(self.lines(&text, namespace, source, form));
            }
        }
        part
    }

    async fn text(&self, pods: &Api<Pod>, namespace: &str, source: &Source) -> Result<String, HarnessError> {
        let ((_, pod, _), container) = &source.of;
        let _turn = self.site.cluster.pace.one_of_many().await;
        let params = LogParams {
            container: Some(container.clone()),
            previous: source.previous,
            since_time: Some(self.since),
            // So that no two beginnings are the same.
            timestamps: true,
            limit_bytes: i64::try_from(LONGEST).ok(),
            ..LogParams::default()
        };
        let which = if source.previous { "previous log" } else { "log" };
        let doing =
            format!("read the {which} of container {container} of pod {pod} in namespace {namespace}");
        let read = async {
            let mut bytes = Vec::new();
            let stream = pods.log_stream(pod, &params).await?;
            std::pin::pin!(stream)
                .read_to_end(&mut bytes)
                .await
                .map_err(kube::Error::ReadEvents)?;
            Ok::<_, kube::Error>(bytes)
        };
        let bytes = within(ANSWER, &doing, read).await?;
        if bytes.len() >= LONGEST {
            return Err(HarnessError::new(format!(
                "{doing}: it is longer than {LONGEST} bytes since this run began"
            )));
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The kubelet answers 200 before it looks for the log, and says in its stead, or after what it found, why it could not read it:
        // https://github.com/kubernetes/kubernetes/issues/142258. What a container wrote has its time.
        let ends = [text.lines().next(), text.lines().last()];
        if let Some(said) = ends
            .into_iter()
            .flatten()
            .find(|line| without_time(line).is_none())
        {
            let said: String = said.chars().take(200).collect();
            return Err(HarnessError::new(format!("{doing}: {said}")));
        }
        Ok(text)
    }

    fn lines(&self, text: &str, namespace: &str, source: &Source, form: &LogForm) -> Vec<Line> {
        let own = format!("conformance-{}-", self.site.mark.run);
        let told = text
            .lines()
            .filter(|line| line.contains(&own) && !line.contains(OWN_STATEMENT))
            .map(|line| without_time(line).unwrap_or(line));
        told.map(|line| {
            let enhanced = form
                .enhanced
                .captures(line)
                .and_then(|found| Some(found.name("nonce")?.as_str().to_owned()));
            Line {
                namespace: namespace.to_owned(),
                pod: source.of.0.1.clone(),
                by_worker: source.by_worker,
                nonces: self
                    .nonces
                    .find_iter(line)
                    .map(|nonce| nonce.as_str())
                    .filter(|nonce| enhanced.as_deref() == Some(*nonce) || !self.tells_look(line, nonce))
                    .map(str::to_owned)
                    .collect(),
                enhanced,
            }
        })
        .filter(|line| !line.nonces.is_empty())
        .collect()
    }

    /// Whether a line names a webhook only since the run asked for it.
    fn tells_look(&self, line: &str, nonce: &str) -> bool {
        self.looks
            .iter()
            .any(|look| line.contains(&look.replace(ANY, nonce)))
    }
}

/// How logs of requests name the run's own looks for [`ANY`] webhook, at each tenant: by path and query, or by the path alone where that
/// says which webhook.
fn looks(site: &Site) -> Vec<String> {
    let application = &site.settings.application;
    let tenants = site.settings.tenants.iter();
    let addresses = tenants.filter_map(|tenant| application.outcome_address(&tenant.id, ANY));
    let looks = addresses.filter_map(|address| {
        let url = reqwest::Url::parse(&address).ok()?;
        let path = url.path().to_owned();
        Some(match url.query() {
            Some(query) if !path.contains(ANY) => format!("{path}?{query}"),
            _ => path,
        })
    });
    looks.filter(|look| look.contains(ANY)).collect()
}

/// What one namespace's logs say.
#[derive(Default)]
struct Part {
    lines: Vec<Line>,
    gaps: Vec<String>,
    read: usize,
    pods: Vec<Image>,
    reading: Reading,
}

impl Part {
    fn merge_into(self, logs: &mut Logs, namespace: &str) {
        logs.lines.extend(self.lines);
        logs.read.insert(namespace.to_owned(), self.read);
        logs.pods.insert(namespace.to_owned(), self.pods);
        if !self.gaps.is_empty() {
            logs.gaps.insert(namespace.to_owned(), self.gaps);
        }
    }
}

fn image(pod: &Pod) -> Image {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let ids = statuses
        .map(|container| container.image_id.clone())
        .filter(|id| !id.is_empty());
    Image {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        ids: ids.collect(),
        ready: pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|each| each.type_ == "Ready" && each.status == "True"),
    }
}

/// Of all its containers.
fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ]
        .into_iter()
        .flatten()
        .flatten()
    })
}

/// A line without the time that the kubelet puts before it.
fn without_time(line: &str) -> Option<&str> {
    let (time, line) = line.split_once(' ')?;
    time.parse::<Timestamp>().is_ok().then_some(line)
}

/// The logs that a pod has: of every container that runs or ran, and of the one before it where that ended since then.
fn sources(namespace: &str, pod: &Pod, worker: &BTreeMap<String, String>, since: Timestamp) -> Vec<Source> {
    let by_worker = wears(&pod.metadata.labels.clone().unwrap_or_default(), worker);
    let mut sources = Vec::new();
    for container in statuses(pod) {
        let mut source = |previous| {
            sources.push(Source {
                of: (pod_id(namespace, pod), container.name.clone()),
                previous,
                restarts: container.restart_count - i32::from(previous),
                by_worker,
            });
        };
        if has_log(container, since) {
            source(false);
        }
        if has_previous(container, since) {
            source(true);
        }
    }
    sources
}

fn wears(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether it has a log with lines since then. Of one that waits the kubelet answers the last one's; of one that waits for its first start
/// there is none, and one that ended before said nothing since, and may be gone.
fn has_log(container: &ContainerStatus, since: Timestamp) -> bool {
    let state = container.state.clone().unwrap_or_default();
    let last = container.last_state.clone().unwrap_or_default();
    match (state.running, state.terminated.or(last.terminated)) {
        (Some(_), _) => true,
        (None, Some(ended)) => ended.finished_at.is_none_or(|at| at.0 >= since),
        (None, None) => container.restart_count > 0,
    }
}

/// Whether the container before it has a log of its own, with lines since then: of one that waits, the kubelet answers the last one's either
/// way; and one that ended before said nothing since, and may be gone.
fn has_previous(container: &ContainerStatus, since: Timestamp) -> bool {
    let waits = container
        .state
        .as_ref()
        .is_some_and(|state| state.waiting.is_some());
    let ended = container
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    let recent = ended
        .and_then(|ended| ended.finished_at.as_ref())
        .is_some_and(|at| at.0 >= since);
    recent && !waits
}

#[cfg(test)]
mod tests;

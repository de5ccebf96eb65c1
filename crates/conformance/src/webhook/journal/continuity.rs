//! Whether the logs that were there still are, from one reading to the next: a pod that goes takes its logs along, the kubelet keeps those of
//! a container's last two starts only, and of each the newest file. What is lost is a gap.

use super::{Source, has_log, statuses};
use crate::error::HarnessError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// So many bytes at the beginning of a log, times included, must be there in the next reading too. The kubelet answers the newest file only,
/// and begins one when it is full: <https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation>. Of a log that had said
/// nothing until then that cannot be seen.
const HEAD: usize = 1 << 10;

/// A pod, by namespace, name and UID.
pub(super) type PodId = (String, String, String);

/// A container of a pod.
pub(super) type Container = (PodId, String);

/// The pod, as it is told from another of the same name.
pub(super) fn pod_id(namespace: &str, pod: &Pod) -> PodId {
    (
        namespace.to_owned(),
        pod.name_any(),
        pod.uid().unwrap_or_default(),
    )
}

/// What one reading found of pods and of their logs.
#[derive(Default)]
pub(super) struct Reading {
    /// The namespaces whose pods could not be listed.
    unlisted: BTreeSet<String>,
    /// The pods, and whether each had ended for good.
    pods: BTreeMap<PodId, bool>,
    containers: BTreeMap<Container, Written>,
}

/// What is there of a container's logs: one for each time that it was started.
#[derive(Default)]
struct Written {
    /// How often it has been restarted.
    restarts: i32,
    /// Whether it ran, and does no more.
    stopped: bool,
    /// Whether the last one has a log that matters.
    has_log: bool,
    /// How those begin that there are, by restarts; or why one could not be read.
    heads: BTreeMap<i32, Result<String, String>>,
}

impl Reading {
    /// Of a namespace's pods, before their logs are read.
    pub(super) fn of(namespace: &str, pods: &[Pod], since: Timestamp) -> Self {
        let mut reading = Reading::default();
        for pod in pods {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
            reading.pods.insert(pod_id(namespace, pod), has_ended);
            for status in statuses(pod) {
                let (state, last) = (status.state.as_ref(), status.last_state.as_ref());
                let running = state.is_some_and(|state| state.running.is_some());
                let mut states = [state, last].into_iter().flatten();
                let ended = states.any(|state| state.terminated.is_some());
                let written = Written {
                    restarts: status.restart_count,
                    stopped: !running && (ended || status.restart_count > 0),
                    has_log: has_log(status, since),
                    heads: BTreeMap::new(),
                };
                let container = (pod_id(namespace, pod), status.name.clone());
                reading.containers.insert(container, written);
            }
        }
        reading
    }

    /// Of a namespace whose pods could not be listed.
    pub(super) fn without(namespace: &str) -> Self {
        Reading {
            unlisted: [namespace.to_owned()].into(),
            ..Reading::default()
        }
    }

    /// Takes in a log that was read, or why it could not be.
    pub(super) fn add(&mut self, source: &Source, text: &Result<String, HarnessError>) {
        let head = match text {
            Ok(text) => Ok(text[..text.floor_char_boundary(HEAD)].to_owned()),
            Err(error) => Err(error.what.clone()),
        };
        if let Some(written) = self.containers.get_mut(&source.of) {
            written.heads.insert(source.restarts, head);
        }
    }

    /// Takes in another namespace's.
    pub(super) fn append(&mut self, other: &mut Reading) {
        self.unlisted.append(&mut other.unlisted);
        self.pods.append(&mut other.pods);
        self.containers.append(&mut other.containers);
    }
}

/// What must be there.
#[derive(Default)]
pub(super) struct Continuity {
    is_begun: bool,
    /// The namespaces whose pods could not be listed at first: who has gone since is not known.
    unseen: BTreeSet<String>,
    /// The pods that were there, but for those that had ended before the run.
    pods: BTreeSet<PodId>,
    containers: BTreeMap<Container, Begun>,
}

/// What must be there of a container's logs.
struct Begun {
    /// From after so many restarts on: nobody spoke of the run's webhooks before.
    first: i32,
    heads: BTreeMap<i32, String>,
}

impl Continuity {
    /// What is lost, or could not be read now, each with its namespace; remembers what there is.
    pub(super) fn compare(&mut self, now: Reading) -> Vec<(String, String)> {
        // No webhook had been sent before the first reading.
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        if is_first {
            self.unseen.clone_from(&now.unlisted);
        }
        let unseen = |namespace: &String| {
            let gap = format!(
                "the pods in namespace {namespace} could not be listed when the run began: run again"
            );
            (namespace.clone(), gap)
        };
        let mut gaps: Vec<_> = self.unseen.iter().map(unseen).collect();
        let gone = |pod: &&PodId| !now.pods.contains_key(*pod) && !now.unlisted.contains(&pod.0);
        for (namespace, pod, _) in self.pods.iter().filter(gone) {
            let gap = format!("pod {pod} in namespace {namespace} has gone, and its log with it: run again");
            gaps.push((namespace.clone(), gap));
        }
        let to_be_known = now
            .pods
            .into_iter()
            .filter(|(_, has_ended)| !is_first || !has_ended);
        self.pods.extend(to_be_known.map(|(pod, _)| pod));
        for (container, written) in now.containers {
            let first = match is_first {
                true => written.restarts + i32::from(written.stopped),
                false => 0,
            };
            let begun = self.containers.entry(container.clone()).or_insert_with(|| Begun {
                first,
                heads: BTreeMap::new(),
            });
            let namespace = container.0.0.clone();
            let found = begun.compare(&container, written);
            gaps.extend(found.into_iter().map(|gap| (namespace.clone(), gap)));
        }
        gaps
    }
}

impl Begun {
    fn compare(&mut self, ((namespace, pod, _), name): &Container, now: Written) -> Vec<String> {
        let log = format!("a log of container {name} of pod {pod} in namespace {namespace} is not all there");
        let mut gaps = Vec::new();
        let expected = self.first..now.restarts + i32::from(now.has_log);
        // The kubelet keeps the one before the last, until it collects it.
        if expected
            .clone()
            .any(|restarts| !now.heads.contains_key(&restarts))
        {
            gaps.push(format!(
                "{log}: it was restarted, and what came before cannot be read any more; run again once it is no longer restarted"
            ));
        }
        let expected = now
            .heads
            .into_iter()
            .filter(|(restarts, _)| expected.contains(restarts));
        for (restarts, head) in expected {
            let before = self.heads.entry(restarts).or_default();
            match head {
                Err(why) => gaps.push(why),
                Ok(head) if head.starts_with(before.as_str()) => *before = head,
                // It is not taken over: a log that was rotated lacks something from then on.
                Ok(_) => gaps.push(format!(
                    "{log}: it was rotated since this run began; run again, and where it happens again raise the kubelet's containerLogMaxSize"
                )),
            }
        }
        gaps
    }
}

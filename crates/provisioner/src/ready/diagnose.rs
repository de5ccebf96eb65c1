//! Why a Deployment is not rolled out, from its conditions, its pods and their events. Pure.

use super::Reason;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};

/// The trouble and what tells of it; none when the rollout is complete.
pub(super) fn deployment(
    deployment: &Deployment,
    pods: &[Pod],
    events: &[Event],
) -> Option<(Reason, String)> {
    let counts = Counts::of(deployment);
    if counts.complete {
        return None;
    }
    let state = counts.describe();
    let refusal = refusal(deployment).map(|(reason, message)| (reason, format!("{state}; {message}")));
    // Of several pods the one that is worst off explains most; `Starting` is the least.
    refusal
        .or_else(|| {
            let troubles = owned(deployment, pods).map(|pod| trouble(pod, events));
            let worst = troubles.max_by_key(|(reason, _)| *reason != Reason::Starting);
            worst.map(|(reason, message)| (reason, format!("{state}; {message}")))
        })
        .or(Some((Reason::Starting, state)))
}

/// Where a container that ended may have said why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) pod: String,
    pub(super) container: String,
    /// It runs again, and the log that counts is the one before.
    pub(super) previous: bool,
}

/// The log of the first container of the Deployment that ended.
pub(super) fn log(deployment: &Deployment, pods: &[Pod]) -> Option<Log> {
    owned(deployment, pods).find_map(|pod| {
        let ended = statuses(pod).find(|status| {
            let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            !status.ready && (now.is_some() || last_end(status).is_some())
        })?;
        let running = ended.state.as_ref().is_some_and(|state| state.running.is_some());
        Some(Log {
            pod: pod.metadata.name.clone()?,
            container: ended.name.clone(),
            previous: running,
        })
    })
}

/// How much of a line is told.
const LINE: usize = 200;

/// The last line of a log that is not empty, without what would move a terminal's cursor or colour it.
pub(super) fn last_line(log: &str) -> Option<String> {
    let lines = log.lines().rev().map(|line| {
        line.chars()
            .filter(|character| !character.is_control())
            .collect::<String>()
    });
    let line = lines
        .map(|line| line.trim().to_owned())
        .find(|line| !line.is_empty())?;
    Some(match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    })
}

/// How many pods are available, how many are wanted, and whether the rollout is complete.
pub(super) fn counts(deployment: &Deployment) -> (i32, i32, bool) {
    let counts = Counts::of(deployment);
    (counts.available, counts.wanted, counts.complete)
}

struct Counts {
    wanted: i32,
    updated: i32,
    available: i32,
    total: i32,
    observed: bool,
    complete: bool,
}

impl Counts {
    fn of(deployment: &Deployment) -> Self {
        let wanted = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        let status = deployment.status.as_ref();
        let count = |field: Option<Option<i32>>| field.flatten().unwrap_or(0);
        let updated = count(status.map(|status| status.updated_replicas));
        let available = count(status.map(|status| status.available_replicas));
        let total = count(status.map(|status| status.replicas));
        let observed = status.and_then(|status| status.observed_generation).unwrap_or(0)
            >= deployment.metadata.generation.unwrap_or(0);
        let complete = observed && updated == wanted && available == wanted && total == wanted;
        Self {
            wanted,
            updated,
            available,
            total,
            observed,
            complete,
        }
    }

    fn describe(&self) -> String {
        let Self {
            wanted,
            updated,
            available,
            total,
            ..
        } = self;
        if !self.observed {
            return format!("0 of {wanted} pods ready, the rollout has not begun");
        }
        let old = total - updated;
        let old = if old > 0 {
            format!(", {old} of an older version still there")
        } else {
            String::new()
        };
        format!("{available} of {wanted} pods ready{old}")
    }
}

/// What admission said to the pods that could not be made.
fn refusal(deployment: &Deployment) -> Option<(Reason, String)> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|it| it.type_ == "ReplicaFailure" && it.status == "True")?;
    let message = failure.message.clone().unwrap_or_default();
    let reason = if message.contains("exceeded quota") || message.contains("failed quota") {
        Reason::Quota
    } else if message.contains("violates PodSecurity") {
        Reason::PodSecurity
    } else if ["maximum ", "minimum ", "limit to request ratio"]
        .iter()
        .any(|part| message.contains(part))
    {
        Reason::LimitRange
    } else {
        Reason::Refused
    };
    Some((reason, message))
}

fn owned<'p>(deployment: &Deployment, pods: &'p [Pod]) -> impl Iterator<Item = &'p Pod> {
    // A pod's owner is the ReplicaSet, which is named after the Deployment and a hash.
    let prefix = format!("{}-", deployment.metadata.name.as_deref().unwrap_or_default());
    pods.iter().filter(move |pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.metadata.owner_references.iter().flatten().any(|owner| {
                let hash = owner.name.strip_prefix(&prefix);
                owner.kind == "ReplicaSet" && hash.is_some_and(|hash| !hash.contains('-'))
            })
    })
}

fn trouble(pod: &Pod, events: &[Event]) -> (Reason, String) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let (reason, message) = state(pod);
    let killed = (reason == Reason::Crash)
        .then(|| killed_by_probe(pod, name, events))
        .flatten();
    let event = killed.or_else(|| last_warning(name, events));
    let reason = match event.and_then(|event| event.reason.as_deref()) {
        Some("FailedCreatePodSandBox" | "FailedMount" | "FailedAttachVolume")
            if reason == Reason::Starting =>
        {
            Reason::Node
        }
        _ if killed.is_some() => Reason::Probe,
        _ => reason,
    };
    let event = event
        .and_then(|event| event.message.as_deref())
        .map(str::trim)
        // Conditions often quote the event.
        .filter(|text| !message.contains(text))
        .map(|text| format!("; last event: {text}"));
    (
        reason,
        format!("pod {name} {message}{}", event.unwrap_or_default()),
    )
}

fn state(pod: &Pod) -> (Reason, String) {
    let Some(status) = &pod.status else {
        return (Reason::Starting, "is new".to_owned());
    };
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|it| it.type_ == "PodScheduled" && it.status == "False");
    if let Some(condition) = unscheduled {
        let message = condition.message.clone().unwrap_or_default();
        return (Reason::Scheduling, format!("is not scheduled: {message}"));
    }
    if status.phase.as_deref() == Some("Failed") {
        let text = status
            .message
            .clone()
            .or(status.reason.clone())
            .unwrap_or_default();
        return (Reason::Node, format!("failed: {text}"));
    }
    let troubles = statuses(pod).filter(|container| !container.ready).map(container);
    troubles
        .max_by_key(|(reason, _)| *reason != Reason::Starting)
        .unwrap_or((Reason::Starting, "is starting".to_owned()))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status
        .flat_map(|status| {
            status
                .init_container_statuses
                .iter()
                .chain(&status.container_statuses)
        })
        .flatten()
}

/// How it ended before it was started again.
fn last_end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}

/// Its exit code, and what the node adds that the code does not say.
fn end(end: &ContainerStateTerminated) -> String {
    let code = format!("ended with exit code {}", end.exit_code);
    let message = end
        .message
        .as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty());
    match (end.reason.as_deref(), message) {
        (None | Some("Error" | "Completed" | ""), None) => code,
        (None | Some("Error" | "Completed" | ""), Some(message)) => format!("{code} ({message})"),
        (Some(reason), None) => format!("{code} ({reason})"),
        (Some(reason), Some(message)) => format!("{code} ({reason}: {message})"),
    }
}

fn container(status: &ContainerStatus) -> (Reason, String) {
    let name = &status.name;
    let state = status.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting
            .message
            .as_deref()
            .map(|text| format!(": {text}"))
            .unwrap_or_default();
        let kind = match reason {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "ImageInspectError" => Reason::Image,
            "CrashLoopBackOff" => Reason::Crash,
            "" | "ContainerCreating" | "PodInitializing" => Reason::Starting,
            _ => Reason::Node,
        };
        let ended = last_end(status).map(|ended| format!(", it {}", end(ended)));
        let ended = ended.unwrap_or_default();
        return (
            kind,
            format!("waits in container {name}, {reason}{message}{ended}"),
        );
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        return (
            Reason::Crash,
            format!("has container {name}, which {}", end(ended)),
        );
    }
    if let Some(ended) = last_end(status) {
        let times = match status.restart_count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        let message = format!(
            "runs container {name}, restarted {times}, again: before, it {}",
            end(ended)
        );
        return (Reason::Crash, message);
    }
    (
        Reason::Probe,
        format!(
            "runs, and container {name} ({}) has not passed its probe",
            status.image
        ),
    )
}

/// The exit codes of a container that was told to end, and of one that did not listen: 128 and SIGTERM, SIGKILL.
const KILLED: [i32; 2] = [143, 137];

/// The probe that a kubelet killed the container for: a startup or liveness probe
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#types-of-probe>).
fn killed_by_probe<'e>(pod: &Pod, name: &str, events: &'e [Event]) -> Option<&'e Event> {
    let out_of_memory = |end: &&ContainerStateTerminated| end.reason.as_deref() == Some("OOMKilled");
    let killed = statuses(pod).any(|status| {
        let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        let ended = now.or_else(|| last_end(status));
        ended.is_some_and(|end| KILLED.contains(&end.exit_code) && !out_of_memory(&end))
    });
    let kills = |event: &&Event| {
        let message = event.message.as_deref().unwrap_or_default();
        event.reason.as_deref() == Some("Unhealthy")
            && ["Liveness", "Startup"]
                .iter()
                .any(|probe| message.starts_with(probe))
    };
    latest(warnings(name, events).filter(kills)).filter(|_| killed)
}

fn last_warning<'e>(pod: &str, events: &'e [Event]) -> Option<&'e Event> {
    latest(warnings(pod, events))
}

fn warnings<'e>(pod: &str, events: &'e [Event]) -> impl Iterator<Item = &'e Event> {
    events.iter().filter(move |event| {
        event.type_.as_deref() == Some("Warning")
            && event.involved_object.kind.as_deref() == Some("Pod")
            && event.involved_object.name.as_deref() == Some(pod)
    })
}

fn latest<'e>(events: impl Iterator<Item = &'e Event>) -> Option<&'e Event> {
    events.max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests;

//! Waiting for pods of ours: until their containers are ready, or until it is known that they will not be, and why.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, ListParams};
use kube::runtime::wait::await_condition;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const AGAIN: Duration = Duration::from_millis(300);
/// The controller that makes a namespace's ServiceAccount answers in well under a second; a loaded one in a few.
const ACCOUNT_LIMIT: Duration = Duration::from_secs(30);

/// A pod whose containers are ready.
pub struct Started {
    /// Its address.
    pub ip: String,
    /// Its node.
    pub node: String,
}

/// Waits until a pod's containers are ready.
///
/// # Errors
/// The pod cannot start, is gone, or has not started within the limit, with what it waits for.
pub async fn await_started(pods: &Api<Pod>, name: &str, limit: Duration) -> Result<Started, HarnessError> {
    let seen = Mutex::new(None);
    match tokio::time::timeout(limit, follow(pods, name, &seen)).await {
        Ok(result) => result,
        Err(_) => {
            let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
            let waits = seen.unwrap_or_else(|| "the API server did not say how it fares".to_owned());
            let seconds = limit.as_secs();
            Err(HarnessError::new(format!(
                "pod {name} has not started within {seconds} s: {waits}"
            )))
        }
    }
}

/// Follows a pod until it is decided; `seen` is what it waited for last.
async fn follow(pods: &Api<Pod>, name: &str, seen: &Mutex<Option<String>>) -> Result<Started, HarnessError> {
    loop {
        let decided = |pod: Option<&Pod>| {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = pod.map(waits_for);
            pod.is_none_or(is_decided)
        };
        // A watch that is cut is no news about the pod.
        let Ok(found) = await_condition(pods.clone(), name, decided).await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let Some(pod) = found else {
            return Err(HarnessError::new(format!(
                "pod {name} is gone: somebody deleted or evicted it"
            )));
        };
        if let Some(why) = hopeless(&pod) {
            return Err(HarnessError::new(format!("pod {name} does not start: {why}")));
        }
        let ip = pod.status.and_then(|status| status.pod_ip);
        let node = pod.spec.and_then(|spec| spec.node_name);
        if let (Some(ip), Some(node)) = (ip, node) {
            return Ok(Started { ip, node });
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Waits without limit until the Job of this name has a pod, and names it.
///
/// # Errors
/// The API server refuses to say.
pub async fn of_job(pods: &Api<Pod>, job: &str) -> Result<String, HarnessError> {
    let params = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    loop {
        let listed = pods.list_metadata(&params).await;
        let listed =
            listed.map_err(|error| HarnessError::during(format!("list the pods of job {job}"), &error))?;
        let name = listed.items.into_iter().find_map(|pod| pod.metadata.name);
        if let Some(name) = name {
            return Ok(name);
        }
        tokio::time::sleep(AGAIN / 3).await;
    }
}

fn is_decided(pod: &Pod) -> bool {
    hopeless(pod).is_some() || containers_ready(pod)
}

fn containers_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|each| each.type_ == "ContainersReady" && each.status == "True")
    })
}

/// What a pod waits for: a node, or what its containers say.
fn waits_for(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "nobody has looked at it yet".to_owned();
    };
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .filter(|each| each.type_ == "PodScheduled" && each.status == "False")
        .find_map(|each| each.message.as_deref());
    if let Some(why) = unscheduled {
        return format!("it is not scheduled: {why}");
    }
    let waiting = status.container_statuses.iter().flatten();
    let mut waiting = waiting.filter_map(|each| each.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    format!(
        "on node {} its container is in {}",
        node.unwrap_or("?"),
        waiting.next_back().unwrap_or("no state")
    )
}

/// Why a pod will not start, where that is known.
fn hopeless(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(phase @ ("Failed" | "Succeeded")) = status.phase.as_deref() {
        let why = status
            .message
            .as_deref()
            .or(status.reason.as_deref())
            .unwrap_or("its container ended");
        return Some(format!("{phase}: {why}"));
    }
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|each| each.state.as_ref()?.waiting.as_ref());
    for state in waiting {
        let reason = state.reason.as_deref().unwrap_or_default();
        let fatal = [
            "ErrImagePull",
            "ImagePullBackOff",
            "ErrImageNeverPull",
            "InvalidImageName",
        ];
        if fatal.contains(&reason) || reason.starts_with("CreateContainer") {
            return Some(format!(
                "{reason}: {}",
                state.message.as_deref().unwrap_or("no message")
            ));
        }
    }
    None
}

/// Adds what to do to an error about a pod that did not start.
pub fn advise(error: HarnessError, image: &str) -> HarnessError {
    if error.what.contains("Image") {
        return error.hint(format!("put the image {image} on every node (`lab load-image FILE`, `kind load image-archive FILE`), or name another with --agent-image"));
    }
    error.hint(
        "kubectl describe the pod while it waits, with --keep, for the node's or the scheduler's reason",
    )
}

/// Waits until a namespace has its ServiceAccount `default`, without which no pod is admitted.
///
/// # Errors
/// It did not come in time.
pub async fn await_default_account(client: &kube::Client, namespace: &str) -> Result<(), HarnessError> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let doing = format!("await serviceaccount default in namespace {namespace}");
    let deadline = tokio::time::Instant::now() + ACCOUNT_LIMIT;
    loop {
        let found = within(ANSWER, &doing, accounts.get_metadata_opt("default")).await;
        match found {
            Ok(Some(_)) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Ok(None) if tokio::time::Instant::now() > deadline => {
                let seconds = ACCOUNT_LIMIT.as_secs();
                return Err(HarnessError::new(format!("{doing}: none after {seconds} s"))
                    .hint("kube-controller-manager makes it: check that it runs"));
            }
            Ok(None) | Err(_) => tokio::time::sleep(AGAIN / 3).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::ready(json!({ "phase": "Running", "conditions": [{ "type": "ContainersReady", "status": "True" }] }), true, None)]
    #[case::starting(json!({ "phase": "Pending", "containerStatuses": [{ "name": "p", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "ContainerCreating" } } }] }), false, None)]
    #[case::no_image(json!({ "phase": "Pending", "containerStatuses": [{ "name": "p", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "ErrImagePull", "message": "not found" } } }] }), true, Some("ErrImagePull: not found"))]
    #[case::evicted(json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" }), true, Some("Failed: low on memory"))]
    fn a_pod_is_ready_or_hopeless_or_neither(
        #[case] status: Value,
        #[case] decided: bool,
        #[case] why: Option<&str>,
    ) {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": status })).unwrap();
        assert_eq!((is_decided(&pod), hopeless(&pod).as_deref()), (decided, why));
    }

    #[rstest]
    #[case::new(json!({}), "nobody has looked at it yet")]
    #[case::no_node(json!({ "status": { "conditions": [{ "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available" }] } }), "it is not scheduled: 0/1 nodes are available")]
    #[case::no_network(json!({ "spec": { "containers": [], "nodeName": "n" }, "status": { "containerStatuses": [{ "name": "p", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "ContainerCreating" } } }] } }), "on node n its container is in ContainerCreating")]
    fn a_pod_that_does_not_start_says_what_it_waits_for(#[case] pod: Value, #[case] waits: &str) {
        assert_eq!(waits_for(&serde_json::from_value(pod).unwrap()), waits);
    }
}

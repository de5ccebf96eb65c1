//! What the canary puts up, and how its pods fare. Pure.

use super::CANARY;
use crate::labels;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The port that both policies allow.
pub(super) const OPEN: u16 = 8000;
/// The port that the client's policy for outgoing connections does not allow.
pub(super) const CLOSED_OUT: u16 = 8001;
/// The port that the listener's policy for incoming connections does not allow.
pub(super) const CLOSED_IN: u16 = 8002;

pub(super) const LISTENER: &str = "listener";
pub(super) const CLIENT: &str = "client";
/// Label on the canary's pods. Its values never change: a network plugin may keep an identity for each set of labels.
const ROLE: &str = "ai-agents-platform/canary";

/// A constant of this file; that each is valid is tested.
fn typed<T: DeserializeOwned + Default>(object: Value) -> T {
    serde_json::from_value(object).unwrap_or_default()
}

pub(super) fn namespace(name: &str, expires: Timestamp) -> Namespace {
    typed(json!({
        "metadata": {
            "name": name,
            "labels": {
                CANARY: "canary",
                "pod-security.kubernetes.io/enforce": "restricted",
            },
            "annotations": { labels::EXPIRES: expires.to_string() },
        },
    }))
}

pub(super) fn listener(namespace: &str, image: &str) -> Pod {
    let ports = [OPEN, CLOSED_OUT, CLOSED_IN]
        .map(|port| port.to_string())
        .join(",");
    pod(LISTENER, namespace, image, &json!(["serve", "--tcp", ports]))
}

pub(super) fn client(namespace: &str, image: &str) -> Pod {
    let port = OPEN.to_string();
    pod(CLIENT, namespace, image, &json!(["serve", "--tcp", port]))
}

fn pod(role: &str, namespace: &str, image: &str, args: &Value) -> Pod {
    typed(json!({
        "metadata": { "name": role, "namespace": namespace, "labels": { ROLE: role } },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            // Where there are two nodes, packets are to cross from one to the other.
            "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 100,
                "podAffinityTerm": {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": { "matchExpressions": [{ "key": ROLE, "operator": "Exists" }] },
                },
            }] } },
            "containers": [{
                "name": "agent",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": args,
                "resources": {
                    "requests": { "cpu": "10m", "memory": "16Mi" },
                    "limits": { "cpu": "260m", "memory": "64Mi" },
                },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    }))
}

/// Of three ports one stays open, so that a listener that died is not taken for one that is closed.
pub(super) fn policies(namespace: &str) -> [NetworkPolicy; 2] {
    let ports = |ports: [u16; 2]| ports.map(|port| json!({ "protocol": "TCP", "port": port }));
    let policy = |name: &str, role: &str, spec: Value| {
        let mut spec = spec;
        spec["podSelector"] = json!({ "matchLabels": { ROLE: role } });
        typed(json!({ "metadata": { "name": name, "namespace": namespace }, "spec": spec }))
    };
    [
        policy(
            "outgoing",
            CLIENT,
            json!({ "policyTypes": ["Egress"], "egress": [{ "ports": ports([OPEN, CLOSED_IN]) }] }),
        ),
        policy(
            "incoming",
            LISTENER,
            json!({ "policyTypes": ["Ingress"], "ingress": [{ "ports": ports([OPEN, CLOSED_OUT]) }] }),
        ),
    ]
}

/// How a pod fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Started { ip: String, node: String },
    Waits(String),
    Hopeless(String),
}

pub(super) fn state(pod: Option<&Pod>) -> State {
    let Some(pod) = pod else {
        return State::Hopeless("it is gone: somebody deleted or evicted it".to_owned());
    };
    let Some(status) = &pod.status else {
        return State::Waits("nobody has looked at it yet".to_owned());
    };
    if let Some(phase @ ("Failed" | "Succeeded")) = status.phase.as_deref() {
        let why = status.message.as_deref().or(status.reason.as_deref());
        return State::Hopeless(format!("{phase}: {}", why.unwrap_or("its container ended")));
    }
    let mut waiting = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    if let Some(waiting) = waiting.next() {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or_default();
        let told = format!("{reason}: {message}");
        return if reason.contains("Image") || reason.starts_with("CreateContainer") {
            State::Hopeless(told)
        } else {
            State::Waits(told)
        };
    }
    let conditions = || status.conditions.iter().flatten();
    if let Some(condition) = conditions().find(|it| it.type_ == "PodScheduled" && it.status == "False") {
        let message = condition.message.as_deref().unwrap_or_default();
        return State::Waits(format!("it is not scheduled: {message}"));
    }
    let ready = conditions().any(|it| it.type_ == "ContainersReady" && it.status == "True");
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    match (ready, status.pod_ip.clone(), node) {
        (true, Some(ip), Some(node)) => State::Started { ip, node },
        _ => State::Waits("its container is not ready".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn every_object_is_as_it_is_written() {
        let namespace = namespace("n", Timestamp::UNIX_EPOCH);
        assert_eq!(namespace.metadata.name.as_deref(), Some("n"));
        assert_eq!(
            namespace.metadata.annotations.unwrap()["ai-agents-platform/expires"],
            "1970-01-01T00:00:00Z"
        );
        for pod in [listener("n", "i:1"), client("n", "i:1")] {
            assert_eq!(pod.metadata.namespace.as_deref(), Some("n"));
            let spec = pod.spec.unwrap();
            assert_eq!(spec.containers[0].image.as_deref(), Some("i:1"));
            assert!(spec.affinity.is_some());
        }
    }

    #[test]
    fn one_port_is_allowed_by_both_policies_and_each_of_the_others_by_one() {
        let [outgoing, incoming] = policies("n").map(|policy| policy.spec.unwrap());
        let ports = |value: Value| -> Vec<i64> {
            let ports = value[0]["ports"].as_array().unwrap().clone();
            ports
                .into_iter()
                .map(|port| port["port"].as_i64().unwrap())
                .collect()
        };
        let outgoing = ports(serde_json::to_value(outgoing.egress).unwrap());
        let incoming = ports(serde_json::to_value(incoming.ingress).unwrap());
        assert_eq!(outgoing, [i64::from(OPEN), i64::from(CLOSED_IN)]);
        assert_eq!(incoming, [i64::from(OPEN), i64::from(CLOSED_OUT)]);
    }

    fn waits(reason: &str) -> Value {
        json!({"containerStatuses": [{"name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": "m"}}}]})
    }

    #[rstest]
    #[case::started(json!({"podIP": "10.0.0.1", "conditions": [{"type": "ContainersReady", "status": "True"}]}), State::Started { ip: "10.0.0.1".into(), node: "n1".into() })]
    #[case::no_image(waits("ErrImageNeverPull"), State::Hopeless("ErrImageNeverPull: m".into()))]
    #[case::backs_off(waits("ImagePullBackOff"), State::Hopeless("ImagePullBackOff: m".into()))]
    #[case::creating(waits("ContainerCreating"), State::Waits("ContainerCreating: m".into()))]
    #[case::evicted(json!({"phase": "Failed", "reason": "Evicted"}), State::Hopeless("Failed: Evicted".into()))]
    #[case::no_room(json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}), State::Waits("it is not scheduled: 0/1 nodes".into()))]
    #[case::new(json!({}), State::Waits("its container is not ready".into()))]
    fn what_a_pod_tells(#[case] status: Value, #[case] expected: State) {
        let pod: Pod = typed(json!({"spec": {"nodeName": "n1", "containers": []}, "status": status}));
        assert_eq!(state(Some(&pod)), expected);
    }
}

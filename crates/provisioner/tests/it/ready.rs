//! Waiting for a tenant, against the scripted server: what is missing and why.

use crate::apply::{applied, manifests, tenant};
use crate::server::{Server, status};
use provisioner::{ApplyError, Reason, Silent, wait_ready};
use rstest::rstest;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn what_is_not_ready_is_named_with_its_reason() {
    let server = Server::start().await;
    let refused = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "pods is forbidden: exceeded quota: tenant-acme-quota"});
    server.state().deployment_status = Some(json!({"observedGeneration": 1, "conditions": [refused]}));
    let Err(ApplyError::NotReady(not_ready)) = applied(&server, &manifests()).await else {
        panic!("ready")
    };
    let reasons: Vec<Reason> = not_ready.missing.iter().map(|missing| missing.reason).collect();
    assert_eq!(reasons, [Reason::Quota, Reason::Quota]);
    assert!(not_ready.to_string().contains(
        "Deployment ai-agents-api in ai-agents-acme: 0 of 1 pods ready; pods is forbidden: exceeded quota"
    ));
    assert!(not_ready.hint().unwrap().contains("raise the quota"));
}

#[tokio::test]
async fn a_tenant_that_is_complete_is_ready_and_one_that_is_absent_is_not() {
    let server = Server::start().await;
    let client = server.client().await;
    let absent = wait_ready(&client, &tenant(), Duration::from_millis(300), &Silent)
        .await
        .unwrap_err();
    assert_eq!(absent.missing.len(), 6, "{absent}");
    applied(&server, &manifests()).await.unwrap();
    wait_ready(&client, &tenant(), Duration::from_millis(300), &Silent)
        .await
        .unwrap();
}

#[tokio::test]
async fn rights_that_are_missing_end_the_wait_at_once() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    server.script(
        "GET",
        "/pods",
        9,
        403,
        status(403, "Forbidden", "pods is forbidden"),
    );
    let started = Instant::now();
    let error = wait_ready(&server.client().await, &tenant(), Duration::from_secs(9), &Silent)
        .await
        .unwrap_err();
    assert_eq!(error.missing[0].reason, Reason::Unknown);
    assert!(
        error
            .to_string()
            .contains("list pods in ai-agents-acme: pods is forbidden"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// The API's pod, with this status of its container.
fn pod(status: &Value) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {
            "name": "ai-agents-api-5d4-x",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "ai-agents-api-5d4", "uid": "u"}],
        },
        "spec": {"containers": []},
        "status": status,
    })
}

fn container(state: &Value, last: &Value) -> Value {
    let mut status = json!({"name": "api", "image": "i:1", "imageID": "", "ready": false, "restartCount": 3, "state": state});
    if !last.is_null() {
        status["lastState"] = json!({"terminated": last});
    }
    json!({"containerStatuses": [status]})
}

fn waiting(reason: &str, message: &str, last: &Value) -> Value {
    container(&json!({"waiting": {"reason": reason, "message": message}}), last)
}

/// What admission says is told by the Deployment.
fn refused(message: &str) -> Value {
    let condition =
        json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message});
    json!({"observedGeneration": 1, "conditions": [condition]})
}

/// What a test makes of the cluster, and what has to be told of it.
struct Trouble {
    deployment: Value,
    pod: Value,
    event: (&'static str, &'static str),
    told: &'static str,
    hint: &'static str,
}

impl Trouble {
    fn of_pod(status: Value, told: &'static str, hint: &'static str) -> Self {
        Self {
            deployment: json!({"observedGeneration": 1}),
            pod: status,
            event: ("", ""),
            told,
            hint,
        }
    }

    fn of_admission(message: &str, told: &'static str, hint: &'static str) -> Self {
        Self {
            deployment: refused(message),
            ..Self::of_pod(Value::Null, told, hint)
        }
    }

    fn and_event(self, reason: &'static str, message: &'static str) -> Self {
        Self {
            event: (reason, message),
            ..self
        }
    }
}

#[rstest]
#[case::image(Reason::Image, Trouble::of_pod(
    waiting("ImagePullBackOff", "Back-off pulling image", &Value::Null), "pod ai-agents-api-5d4-x waits in container api, ImagePullBackOff: Back-off pulling image; last event: manifest unknown", "load the image",
).and_event("Failed", "manifest unknown"))]
#[case::quota(
    Reason::Quota,
    Trouble::of_admission(
        "pods \"x\" is forbidden: exceeded quota: q, requested: limits.cpu=5",
        "0 of 1 pods ready; pods \"x\" is forbidden: exceeded quota: q, requested: limits.cpu=5",
        "raise the quota",
    )
)]
#[case::limit_range(
    Reason::LimitRange,
    Trouble::of_admission(
        "pods \"x\" is forbidden: maximum cpu usage per Container is 1, but limit is 2",
        "maximum cpu usage",
        "change the workload's template",
    )
)]
#[case::pod_security(
    Reason::PodSecurity,
    Trouble::of_admission(
        "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": privileged",
        "violates PodSecurity",
        "change the workload's template",
    )
)]
#[case::webhook(
    Reason::Refused,
    Trouble::of_admission(
        "admission webhook \"w\" denied the request",
        "admission webhook \"w\" denied",
        "the named policy or webhook",
    )
)]
#[case::scheduling(Reason::Scheduling, Trouble::of_pod(
    json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]}), "is not scheduled: 0/1 nodes are available: 1 Insufficient cpu.", "add a node",
))]
#[case::probe(Reason::Probe, Trouble::of_pod(
    container(&json!({"running": {}}), &Value::Null), "container api (i:1) has not passed its probe; last event: Readiness probe failed: 503", "`kubectl logs` of the pod",
).and_event("Unhealthy", "Readiness probe failed: 503"))]
#[case::liveness(Reason::Probe, Trouble::of_pod(
    container(&json!({"running": {}}), &json!({"exitCode": 137, "reason": "Error"})), "ended with exit code 137; last event: Liveness probe failed: timeout", "`kubectl logs` of the pod",
).and_event("Unhealthy", "Liveness probe failed: timeout"))]
#[case::crash(Reason::Crash, Trouble::of_pod(
    waiting("CrashLoopBackOff", "back-off", &json!({"exitCode": 1, "reason": "Error"})), "CrashLoopBackOff: back-off, it ended with exit code 1; last line of its log: no database", "kubectl logs --previous",
))]
#[case::out_of_memory(Reason::Crash, Trouble::of_pod(
    container(&json!({"running": {}}), &json!({"exitCode": 137, "reason": "OOMKilled"})), "restarted 3 times, again: before, it ended with exit code 137 (OOMKilled); last line of its log: no database", "kubectl logs --previous",
))]
#[case::sandbox(Reason::Node, Trouble::of_pod(
    waiting("ContainerCreating", "", &Value::Null), "ContainerCreating: ; last event: no network", "kubectl describe",
).and_event("FailedCreatePodSandBox", "no network"))]
#[case::slow(Reason::Starting, Trouble::of_pod(
    waiting("ContainerCreating", "", &Value::Null), "waits in container api, ContainerCreating", "--timeout",
))]
#[tokio::test]
async fn each_reason_is_found_in_conditions_pods_events_and_logs(
    #[case] reason: Reason,
    #[case] trouble: Trouble,
) {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    let namespace = "/api/v1/namespaces/ai-agents-acme";
    let deployment = "/apis/apps/v1/namespaces/ai-agents-acme/deployments/ai-agents-api";
    server.state().objects.get_mut(deployment).unwrap()["status"] = trouble.deployment;
    if !trouble.pod.is_null() {
        server.put(
            &format!("{namespace}/pods/ai-agents-api-5d4-x"),
            pod(&trouble.pod),
        );
    }
    let (why, message) = trouble.event;
    if !why.is_empty() {
        server.put(
            &format!("{namespace}/events/e1"),
            json!({
                "metadata": {"name": "e1"}, "type": "Warning", "reason": why, "message": message,
                "involvedObject": {"kind": "Pod", "name": "ai-agents-api-5d4-x"},
            }),
        );
    }
    let log = json!("starting\nno database\n\n");
    server.script("GET", "/pods/ai-agents-api-5d4-x/log", 1, 200, log);
    let client = server.client().await;
    let not_ready = wait_ready(&client, &tenant(), Duration::from_millis(150), &Silent)
        .await
        .unwrap_err();
    let [missing] = not_ready.missing.as_slice() else {
        panic!("{not_ready}")
    };
    assert_eq!(missing.reason, reason, "{not_ready}");
    assert!(missing.detail.contains(trouble.told), "{not_ready}");
    let hint = not_ready.hint().unwrap();
    assert!(hint.contains(trouble.hint), "{hint}");
}

#[tokio::test]
async fn a_log_that_may_not_be_read_is_left_out() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    let deployment = "/apis/apps/v1/namespaces/ai-agents-acme/deployments/ai-agents-api";
    server.state().objects.get_mut(deployment).unwrap()["status"] = json!({"observedGeneration": 1});
    let ended = container(&json!({"terminated": {"exitCode": 2}}), &Value::Null);
    server.put(
        "/api/v1/namespaces/ai-agents-acme/pods/ai-agents-api-5d4-x",
        pod(&ended),
    );
    server.script(
        "GET",
        "/log",
        1,
        403,
        status(403, "Forbidden", "pods/log is forbidden"),
    );
    let client = server.client().await;
    let not_ready = wait_ready(&client, &tenant(), Duration::from_millis(150), &Silent)
        .await
        .unwrap_err();
    assert!(
        not_ready.missing[0]
            .detail
            .ends_with("has container api, which ended with exit code 2"),
        "{not_ready}"
    );
}

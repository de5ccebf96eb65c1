use super::*;
use rstest::rstest;
use serde_json::{Value, json};

fn api(status: &Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "ai-agents-api", "generation": 2},
        "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": status,
    }))
    .unwrap()
}

fn pod(owner: &str, status: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "p1",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": "u"}],
        },
        "status": status,
    }))
    .unwrap()
}

fn waiting(reason: &str, message: &str) -> Value {
    let state = json!({"waiting": {"reason": reason, "message": message}});
    json!({"containerStatuses": [container_status(&state)]})
}

/// A container that runs again.
fn again(code: i32, reason: &Value, message: &Value) -> Value {
    let mut status = container_status(&json!({"running": {}}));
    status["restartCount"] = json!(2);
    status["lastState"] = json!({"terminated": {"exitCode": code, "reason": reason, "message": message}});
    json!({"containerStatuses": [status]})
}

fn container_status(state: &Value) -> Value {
    json!({"name": "api", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

const ROLLED_OUT: fn() -> Value =
    || json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});

#[test]
fn a_rollout_that_is_complete_lacks_nothing() {
    assert_eq!(deployment(&api(&ROLLED_OUT()), &[], &[]), None);
}

#[rstest]
#[case::not_observed("observedGeneration", 1, "0 of 1 pods ready, the rollout has not begun")]
#[case::old_pods("replicas", 2, "1 of 1 pods ready, 1 of an older version still there")]
#[case::not_available("availableReplicas", 0, "0 of 1 pods ready")]
fn one_number_that_is_not_there_yet(#[case] field: &str, #[case] value: i32, #[case] message: &str) {
    let mut status = ROLLED_OUT();
    status[field] = json!(value);
    let (reason, detail) = deployment(&api(&status), &[], &[]).unwrap();
    assert_eq!((reason, detail.as_str()), (Reason::Starting, message));
}

#[rstest]
#[case::quota(
    "pods \"x\" is forbidden: exceeded quota: q, requested: limits.cpu=5",
    Reason::Quota
)]
#[case::quota_without_numbers(
    "pods \"x\" is forbidden: failed quota: q: must specify limits.cpu",
    Reason::Quota
)]
#[case::pod_security(
    "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"",
    Reason::PodSecurity
)]
#[case::limit_range(
    "pods \"x\" is forbidden: maximum cpu usage per Container is 1, but limit is 2",
    Reason::LimitRange
)]
#[case::webhook("admission webhook \"w\" denied the request", Reason::Refused)]
fn what_admission_said(#[case] message: &str, #[case] expected: Reason) {
    let condition =
        json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message});
    let status = json!({"observedGeneration": 2, "conditions": [condition]});
    let (reason, detail) = deployment(&api(&status), &[], &[]).unwrap();
    assert_eq!(reason, expected);
    assert!(detail.contains(message), "{detail}");
}

#[rstest]
#[case::image(
    waiting("ImagePullBackOff", "not found"),
    Reason::Image,
    "waits in container api, ImagePullBackOff: not found"
)]
#[case::never_pull(waiting("ErrImageNeverPull", "x"), Reason::Image, "ErrImageNeverPull")]
#[case::crash(waiting("CrashLoopBackOff", "back-off"), Reason::Crash, "CrashLoopBackOff")]
#[case::config(
    waiting("CreateContainerConfigError", "runs as root"),
    Reason::Node,
    "runs as root"
)]
#[case::creating(waiting("ContainerCreating", ""), Reason::Starting, "ContainerCreating")]
#[case::out_of_memory(again(137, &json!("OOMKilled"), &Value::Null), Reason::Crash, "runs container api, restarted 2 times, again: before, it ended with exit code 137 (OOMKilled)")]
#[case::not_started(again(128, &json!("StartError"), &json!("no such file")), Reason::Crash, "ended with exit code 128 (StartError: no such file)")]
#[case::ended(json!({"containerStatuses": [container_status(&json!({"terminated": {"exitCode": 3}}))]}), Reason::Crash, "has container api, which ended with exit code 3")]
#[case::probe(json!({"containerStatuses": [container_status(&json!({"running": {}}))]}), Reason::Probe, "container api (i:1) has not passed its probe")]
#[case::unscheduled(json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}), Reason::Scheduling, "is not scheduled: 0/1 nodes")]
#[case::evicted(json!({"phase": "Failed", "reason": "Evicted"}), Reason::Node, "failed: Evicted")]
#[case::new(json!({}), Reason::Starting, "is starting")]
fn what_a_pod_tells(#[case] status: Value, #[case] expected: Reason, #[case] message: &str) {
    let pods = [pod("ai-agents-api-5d4", &status)];
    let (reason, detail) = deployment(&api(&json!({"observedGeneration": 2})), &pods, &[]).unwrap();
    assert_eq!(reason, expected);
    assert!(detail.contains(message), "{detail}");
}

#[test]
fn pods_of_other_deployments_tell_nothing() {
    let pods = [pod(
        "ai-agents-api-gateway-5d4",
        &waiting("CrashLoopBackOff", "x"),
    )];
    let (reason, _) = deployment(&api(&json!({"observedGeneration": 2})), &pods, &[]).unwrap();
    assert_eq!(reason, Reason::Starting);
}

#[test]
fn an_event_explains_a_pod_that_a_node_cannot_set_up() {
    let event: Event = serde_json::from_value(json!({
        "metadata": {},
        "involvedObject": {"kind": "Pod", "name": "p1"},
        "type": "Warning",
        "reason": "FailedCreatePodSandBox",
        "message": "no network",
    }))
    .unwrap();
    let pods = [pod("ai-agents-api-5d4", &waiting("ContainerCreating", ""))];
    let (reason, detail) = deployment(&api(&json!({"observedGeneration": 2})), &pods, &[event]).unwrap();
    assert_eq!(reason, Reason::Node);
    assert!(detail.ends_with("; last event: no network"), "{detail}");
}

fn unhealthy(message: &str) -> Event {
    serde_json::from_value(json!({
        "metadata": {},
        "involvedObject": {"kind": "Pod", "name": "p1"},
        "type": "Warning",
        "reason": "Unhealthy",
        "message": message,
    }))
    .unwrap()
}

#[rstest]
#[case::liveness(137, "Error", "Liveness probe failed: timeout", Reason::Probe)]
#[case::startup(143, "Error", "Startup probe failed: refused", Reason::Probe)]
#[case::readiness_kills_nobody(137, "Error", "Readiness probe failed: refused", Reason::Crash)]
#[case::it_ended_by_itself(1, "Error", "Liveness probe failed: timeout", Reason::Crash)]
#[case::out_of_memory(137, "OOMKilled", "Liveness probe failed: timeout", Reason::Crash)]
fn a_container_that_was_killed_for_its_probe_did_not_crash(
    #[case] code: i32,
    #[case] why: &str,
    #[case] message: &str,
    #[case] expected: Reason,
) {
    let pods = [pod("ai-agents-api-5d4", &again(code, &json!(why), &Value::Null))];
    let events = [unhealthy(message)];
    let observed = api(&json!({"observedGeneration": 2}));
    let (reason, detail) = deployment(&observed, &pods, &events).unwrap();
    assert_eq!(reason, expected, "{detail}");
    if reason == Reason::Probe {
        assert!(detail.ends_with(&format!("; last event: {message}")), "{detail}");
    }
}

#[test]
fn the_log_that_counts_is_that_of_the_container_which_ended() {
    let observed = api(&json!({}));
    let of = |status: Value| log(&observed, &[pod("ai-agents-api-5d4", &status)]);
    let expected = |previous| {
        Some(Log {
            pod: "p1".to_owned(),
            container: "api".to_owned(),
            previous,
        })
    };
    assert_eq!(of(again(1, &Value::Null, &Value::Null)), expected(true));
    let ended = json!({"containerStatuses": [container_status(&json!({"terminated": {"exitCode": 3}}))]});
    assert_eq!(of(ended), expected(false));
    assert_eq!(of(waiting("ErrImagePull", "x")), None);
}

#[rstest]
#[case::last("one\ntwo\n", Some("two"))]
#[case::empty_lines("one\n\n  \n", Some("one"))]
#[case::colours("\u{1b}[31mred\u{1b}[0m\r\n", Some("[31mred[0m"))]
#[case::nothing("\n", None)]
fn the_last_line_of_a_log_is_one_that_can_be_shown(#[case] log: &str, #[case] expected: Option<&str>) {
    assert_eq!(last_line(log).as_deref(), expected);
}

#[test]
fn a_long_line_is_cut() {
    let line = last_line(&"ä".repeat(300)).unwrap();
    assert_eq!(line, format!("{}…", "ä".repeat(200)));
}

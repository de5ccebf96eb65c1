//! Waiting for a tenant, against the scripted server: what is missing and why.

use crate::apply::{applied, manifests, tenant};
use crate::server::{Server, status};
use provisioner::{ApplyError, Reason, Silent, wait_ready};
use serde_json::json;
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

//! The application behind the webhook checks, on a real cluster: that the contract is configuration, and that no secret is told. Run by
//! `make test-cluster`; see `support` for the cluster. Makes namespaces and removes them.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod support;

use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams, LogParams};
use std::path::Path;
use support::{client, conformance, delete, provision, run, tenant};

/// Algorithm, encoding, string to sign, header, payload, outcome and log lines all differ from the enhancer's.
#[test]
#[ignore = "needs a cluster: make test-cluster"]
fn an_application_with_another_contract_is_judged_by_configuration_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::set_current_dir(&root).unwrap();
    let only = "APP-01,APP-02,APP-03,APP-05,APP-07,APP-08,APP-09";
    let outcome = run(&[
        "--config",
        "fixtures/ticketdesk/conformance.yaml",
        "--tenants",
        "desk-a,desk-b",
        "--only",
        only,
    ]);
    assert!(
        outcome.failed.is_empty() && outcome.inconclusive.is_empty(),
        "{}",
        outcome.text
    );
    assert_eq!((outcome.code, outcome.passed.len()), (0, 14), "{}", outcome.text);
}

/// Where anybody could read it: output at the highest verbosity, the report, events, and the logs of every pod that is involved.
#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn no_secret_is_told_anywhere() {
    let client = client().await;
    let tenants = ["secret-a", "secret-b"];
    for id in tenants {
        provision(&client, id, None).await;
    }
    let state = tempfile::tempdir().unwrap();
    let junit = state.path().join("junit.xml");
    let arguments = [
        "run",
        "-vv",
        "--tenants",
        "secret-a,secret-b",
        "--junit",
        junit.to_str().unwrap(),
    ];
    let output = conformance(state.path(), &arguments).output().unwrap();
    let mut told = vec![
        (
            "stderr".to_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ),
        (
            "stdout".to_owned(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ),
        ("JUnit".to_owned(), std::fs::read_to_string(&junit).unwrap()),
    ];
    let mut secrets = Vec::new();
    for id in tenants {
        let namespace = tenant(id).namespace();
        let secret = Api::<Secret>::namespaced(client.clone(), &namespace)
            .get("ai-agents-credentials")
            .await
            .unwrap();
        for (key, value) in secret.data.unwrap() {
            secrets.push((format!("{id} {key}"), String::from_utf8(value.0).unwrap()));
        }
        told.extend(events(&client, &namespace).await);
        told.extend(logs(&client, &namespace).await);
    }
    for namespace in ["database", "ingress-nginx"] {
        told.extend(events(&client, namespace).await);
        told.extend(logs(&client, namespace).await);
    }
    for id in tenants {
        delete(&client, id).await;
    }
    assert_eq!(output.status.code(), Some(0), "{}", told[0].1);
    assert_eq!(secrets.len(), 6);
    // The search sees what is there: each tenant's API logged its webhooks.
    assert!(
        told.iter()
            .any(|(what, text)| what.contains("log of ai-agents-api") && text.contains("webhook accepted"))
    );
    for (name, value) in &secrets {
        for (what, text) in &told {
            assert!(!text.contains(value.as_str()), "{name} is told by {what}");
        }
    }
}

async fn events(client: &kube::Client, namespace: &str) -> Vec<(String, String)> {
    let list = Api::<Event>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await
        .unwrap();
    let text = |event: Event| {
        (
            format!("an event in {namespace}"),
            serde_json::to_string(&event).unwrap(),
        )
    };
    list.items.into_iter().map(text).collect()
}

async fn logs(client: &kube::Client, namespace: &str) -> Vec<(String, String)> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut logs = Vec::new();
    for pod in pods.list(&ListParams::default()).await.unwrap().items {
        let name = pod.name_any();
        // A pod may have gone meanwhile.
        if let Ok(text) = pods.logs(&name, &LogParams::default()).await {
            logs.push((format!("log of {name}"), text));
        }
    }
    logs
}

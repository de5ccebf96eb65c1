//! A whole run on a real cluster, as its users start it: what it finds on a cluster that keeps its promises, what it leaves alone, and what
//! it leaves behind. Run by `make test-cluster`; see `support` for the cluster. Makes namespaces and removes them.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod support;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;
use support::{cluster, conformance, delete, namespaces, provision, run, run_id, written};

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn a_cluster_that_keeps_its_promises_passes_and_nothing_is_left() {
    let client = support::client().await;
    let outcome = run(&["--tenants", "clean-a,clean-b"]);
    assert!(outcome.passed_all(), "{}", outcome.text);
    let all = outcome.passed.len();
    assert!(
        outcome.text.contains(&format!("isolated: {all} of {all} checks")),
        "{}",
        outcome.text
    );
    let left = namespaces(&client, &["clean-", &run_id(&outcome.text)]).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn tenants_that_were_there_are_used_and_left_as_they_were() {
    let client = support::client().await;
    for id in ["there-a", "there-b"] {
        provision(&client, id, None).await;
    }
    // The pods of both have to be there before: they are part of what must stay as it was.
    let first = run(&["--tenants", "there-a,there-b", "--only", "PROV-13"]);
    let before = [
        written(&client, "there-a").await,
        written(&client, "there-b").await,
    ];
    let second = run(&["--tenants", "there-a,there-b"]);
    let after = [
        written(&client, "there-a").await,
        written(&client, "there-b").await,
    ];
    for id in ["there-a", "there-b"] {
        delete(&client, id).await;
    }
    assert_eq!(first.code, 0, "{}", first.text);
    assert!(second.passed_all(), "{}", second.text);
    assert_eq!(before, after);
}

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn agents_in_a_tenant_never_serve_and_are_never_adopted() {
    let client = support::client().await;
    let state = tempfile::tempdir().unwrap();
    let arguments = ["run", "--tenants", "keep-a,keep-b", "--only", "NET-02", "--keep"];
    let output = conformance(state.path(), &arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let pods = Api::<Pod>::namespaced(client.clone(), "ai-agents-keep-b");
    let agents = pods
        .list(&ListParams::default().labels("ai-agents-platform/probe=agent"))
        .await
        .unwrap()
        .items;
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "ai-agents-keep-b");
    let endpoints: Vec<_> = slices
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .flat_map(|slice| slice.endpoints)
        .collect();
    let api = pods
        .list(&ListParams::default().labels("app=ai-agents-api,!ai-agents-platform/probe"))
        .await
        .unwrap();
    let run = run_id(&text);
    let cleaned = conformance(state.path(), &["clean", "--run", &run])
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!agents.is_empty());
    for agent in &agents {
        let owner = agent.owner_references().first().expect("an owner");
        assert_eq!(
            (owner.kind.as_str(), owner.controller),
            ("ConfigMap", Some(true)),
            "{}",
            agent.name_any()
        );
        let address = agent
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.clone())
            .unwrap();
        for endpoint in endpoints
            .iter()
            .filter(|endpoint| endpoint.addresses.contains(&address))
        {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            assert_eq!(
                (conditions.ready, conditions.serving),
                (Some(false), Some(false)),
                "{}",
                agent.name_any()
            );
        }
    }
    assert_eq!(api.items.len(), 1, "the API's ReplicaSet keeps its one pod");
    assert_eq!(
        cleaned.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&cleaned.stdout)
    );
    let left = namespaces(&client, &["keep-", &run]).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn an_interrupted_run_cleans_up_and_says_so() {
    let client = support::client().await;
    let state = tempfile::tempdir().unwrap();
    let (child, mut lines) = started(state.path(), "stop-a,stop-b");
    let banner = await_line(&mut lines, "-a provisioned");
    signal(&child, "INT");
    let (code, text) = ended(child, lines);
    let left = namespaces(&client, &["stop-", &run_id(&banner)]).await;
    assert_eq!(code, Some(130), "{text}");
    assert!(text.contains("stopping, then cleaning up"), "{text}");
    assert!(left.is_empty(), "{left:?} {text}");
}

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn what_a_killed_run_left_is_found_by_clean() {
    let client = support::client().await;
    let state = tempfile::tempdir().unwrap();
    let (child, mut lines) = started(state.path(), "kill-a,kill-b");
    let run = run_id(&await_line(&mut lines, "-a provisioned"));
    signal(&child, "KILL");
    ended(child, lines);
    let left = namespaces(&client, &["kill-", &run]).await;
    let second = ["run", "--tenants", "kill-a,kill-b", "--timeout", "10s"];
    let refused = conformance(state.path(), &second).output().unwrap();
    let cleaned = conformance(state.path(), &["clean"]).output().unwrap();
    let after = namespaces(&client, &["kill-", &run]).await;
    let text = String::from_utf8_lossy(&cleaned.stdout).into_owned();
    assert!(left.contains("ai-agents-kill-a"), "{left:?}");
    assert_eq!(
        refused.status.code(),
        Some(3),
        "its Lease still holds: {}",
        String::from_utf8_lossy(&refused.stderr)
    );
    assert_eq!(cleaned.status.code(), Some(0), "{text}");
    assert!(
        text.contains("removed") && text.contains("tenant kill-a"),
        "{text}"
    );
    assert!(after.is_empty(), "{after:?}");
}

/// PROV-14's planted fault: an object of the run that cannot be removed.
#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn a_foreign_finalizer_turns_hygiene_red_and_is_named() {
    let client = support::client().await;
    let state = tempfile::tempdir().unwrap();
    let settings = state.path().join("settings.yaml");
    std::fs::write(&settings, "cleanUpWithin: 15s\n").unwrap();
    for id in ["final-a", "final-b"] {
        provision(&client, id, None).await;
    }
    let child = conformance(
        state.path(),
        &["run", "--tenants", "final-a,final-b", "--only", "NET-03,PROV-14"],
    )
    .arg("--config")
    .arg(&settings)
    .stderr(Stdio::piped())
    .stdout(Stdio::null())
    .spawn();
    let mut child = child.unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    await_line(&mut lines, "enforcement canary listens");
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "ai-agents-final-a");
    let owner = await_owner(&maps).await;
    let finalizers = |list: serde_json::Value| Patch::Merge(json!({ "metadata": { "finalizers": list } }));
    maps.patch(
        &owner,
        &PatchParams::default(),
        &finalizers(json!(["example.com/nobody"])),
    )
    .await
    .unwrap();
    let (code, text) = ended(child, lines);
    maps.patch(&owner, &PatchParams::default(), &finalizers(json!(null)))
        .await
        .unwrap();
    let cleaned = conformance(
        state.path(),
        &["clean", "--run", owner.trim_start_matches("conformance-")],
    )
    .output()
    .unwrap();
    for id in ["final-a", "final-b"] {
        delete(&client, id).await;
    }
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("failed        PROV-14 cluster"), "{text}");
    assert!(
        text.contains(&format!(
            "configmap {owner} in namespace ai-agents-final-a is gone"
        )),
        "{text}"
    );
    assert!(text.contains("left behind"), "{text}");
    assert_eq!(
        cleaned.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&cleaned.stdout)
    );
}

/// SEN-01's fault: what is open is closed by somebody else. The fault `cluster-closes-more` stands for it.
#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn probes_that_do_not_see_an_open_tenant_leave_the_run_undecided() {
    let client = support::client().await;
    let state = tempfile::tempdir().unwrap();
    let child = conformance(
        state.path(),
        &["run", "--tenants", "sense-a,sense-b", "--only", "SEN-01,QUO-01"],
    )
    .stderr(Stdio::piped())
    .stdout(Stdio::null())
    .spawn();
    let mut child = child.unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let run = run_id(&await_line(&mut lines, "conformance run"));
    let namespace = format!("ai-agents-open-{run}");
    let policies = Api::<NetworkPolicy>::namespaced(client.clone(), &namespace);
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), &namespace);
    let closed = json!({ "metadata": { "name": "closed" }, "spec": { "podSelector": {}, "policyTypes": ["Ingress"] } });
    let closed: NetworkPolicy = serde_json::from_value(closed).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while policies.create(&Default::default(), &closed).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "no namespace {namespace}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let small = json!({ "metadata": { "name": "small" }, "spec": { "hard": { "limits.memory": "1Gi" } } });
    let small: ResourceQuota = serde_json::from_value(small).unwrap();
    quotas.create(&Default::default(), &small).await.unwrap();
    let (code, text) = ended(child, lines);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("inconclusive  SEN-01 cluster"), "{text}");
    for part in ["outsider -> open", "limits.memory", "QUO-01 sense-a"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(namespaces(&client, &["sense-", &run]).await.is_empty());
}

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn a_dry_run_shows_everything_and_changes_nothing() {
    let client = support::client().await;
    let state = tempfile::tempdir().unwrap();
    let output = conformance(state.path(), &["run", "--dry-run", "--tenants", "dry-a,dry-b"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for expected in [
        "NET-02 dry-a -> dry-b",
        "Namespace conformance-",
        "Tenant dry-a",
        "serviceaccounts/token",
        &cluster(),
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert!(namespaces(&client, &["dry-"]).await.is_empty());
}

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn somebody_elses_namespace_is_refused_and_left_alone() {
    let client = support::client().await;
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone());
    let foreign = serde_json::from_value(json!({ "metadata": { "name": "ai-agents-foreign-a" } })).unwrap();
    namespaces.create(&Default::default(), &foreign).await.unwrap();
    let state = tempfile::tempdir().unwrap();
    let output = conformance(state.path(), &["run", "--tenants", "foreign-a,foreign-b"])
        .output()
        .unwrap();
    let left = namespaces.get_opt("ai-agents-foreign-a").await.unwrap();
    namespaces
        .delete("ai-agents-foreign-a", &Default::default())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("namespace ai-agents-foreign-a is not a tenant's") && text.contains("hint:"),
        "{text}"
    );
    assert!(left.is_some());
}

fn started(state: &std::path::Path, tenants: &str) -> (Child, impl BufRead + use<>) {
    let mut command = conformance(state, &["run", "--tenants", tenants]);
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    (child, lines)
}

/// Reads up to the line that has this in it; answers all that was read.
fn await_line(lines: &mut impl BufRead, part: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert_ne!(
            lines.read_line(&mut line).unwrap(),
            0,
            "the run ended before it said {part:?}: {text}"
        );
        text.push_str(&line);
    }
    text
}

fn ended(mut child: Child, mut lines: impl BufRead) -> (Option<i32>, String) {
    let mut text = String::new();
    lines.read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

async fn await_owner(maps: &Api<ConfigMap>) -> String {
    for _ in 0..100 {
        let found = maps
            .list(&ListParams::default().labels("ai-agents-platform/run-id"))
            .await
            .unwrap();
        if let Some(map) = found.items.first() {
            return map.name_any();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the run made no owner for its agents");
}

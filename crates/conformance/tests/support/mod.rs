//! What tests on a real cluster share: the cluster they were given, `conformance` run as its users run it, its report read back, and tenants
//! of their own. The cluster is the kubeconfig context that CONFORMANCE_TEST_CLUSTER names; without it they fail.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

pub mod proxy;
pub mod verdicts;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::gvk::GroupVersionKind;
use kube::{Client, ResourceExt};
use provisioner::tenant::{SharedServices, Stamp};
use provisioner::{ApplyOptions, DeleteOptions, Silent, Templates, Tenant, TenantId, registration};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

pub fn cluster() -> String {
    std::env::var("CONFORMANCE_TEST_CLUSTER").expect(
        "CONFORMANCE_TEST_CLUSTER is not set. hint: name the kubeconfig context of a local cluster, or run `make test-cluster`",
    )
}

pub async fn client() -> Client {
    connection().await.client
}

pub async fn connection() -> provisioner::Connection {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = provisioner::ConnectOptions {
        context: Some(cluster()),
        ..Default::default()
    };
    let connection = provisioner::connect(&options)
        .await
        .expect("connect to the test cluster");
    connection
        .client
        .apiserver_version()
        .await
        .expect("reach the test cluster");
    connection
}

/// `conformance` with these arguments; ledgers go to a directory of the test's.
pub fn conformance(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("conformance"));
    command
        .args(arguments)
        .args(["--cluster", &cluster()])
        .env("XDG_STATE_HOME", state);
    command
}

/// What a run came to, by its exit code and its JUnit report.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub code: i32,
    pub failed: BTreeSet<String>,
    pub inconclusive: BTreeSet<String>,
    pub skipped: BTreeSet<String>,
    pub passed: BTreeSet<String>,
    /// What the report says of each item that is not passed, and of the run itself: first line and text.
    pub causes: BTreeMap<String, String>,
    /// What was asked again, by the report.
    pub retried: BTreeSet<String>,
    pub text: String,
}

impl Outcome {
    pub fn passed_all(&self) -> bool {
        self.code == 0 && self.failed.is_empty() && self.inconclusive.is_empty() && self.skipped.is_empty()
    }
}

/// A whole run with a JUnit report.
pub fn run(arguments: &[&str]) -> Outcome {
    let state = tempfile::tempdir().unwrap();
    let junit = state.path().join("junit.xml");
    let mut all = vec!["run", "--junit", junit.to_str().unwrap()];
    all.extend(arguments);
    let output = conformance(state.path(), &all).output().unwrap();
    let ledgers = std::fs::read_dir(state.path().join("ai-agents-conformance")).map_or(0, Iterator::count);
    assert_eq!(ledgers, 0, "a ledger was left: {}", text(&output));
    outcome(&output, &junit)
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    )
}

pub fn outcome(output: &Output, junit: &Path) -> Outcome {
    let mut outcome = Outcome {
        code: output.status.code().unwrap_or(-1),
        failed: BTreeSet::new(),
        inconclusive: BTreeSet::new(),
        skipped: BTreeSet::new(),
        passed: BTreeSet::new(),
        causes: BTreeMap::new(),
        retried: BTreeSet::new(),
        text: text(output),
    };
    let xml = std::fs::read_to_string(junit).unwrap_or_default();
    assert!(!xml.is_empty(), "no report: {}", outcome.text);
    let mut reader = Reader::from_str(&xml);
    let mut case = String::new();
    loop {
        match reader.read_event().expect("well-formed JUnit") {
            Event::Eof => return outcome,
            Event::Start(start) | Event::Empty(start) => {
                let set = match start.name().as_ref() {
                    b"testcase" => {
                        case = attribute(&start, "name");
                        outcome.passed.insert(case.clone());
                        continue;
                    }
                    b"failure" => &mut outcome.failed,
                    b"error" => &mut outcome.inconclusive,
                    b"skipped" => &mut outcome.skipped,
                    b"property" if attribute(&start, "name") == "retried" => {
                        outcome.retried.insert(attribute(&start, "value"));
                        continue;
                    }
                    _ => continue,
                };
                set.insert(case.clone());
                outcome.passed.remove(&case);
                outcome.causes.insert(case.clone(), attribute(&start, "message"));
            }
            Event::CData(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if let Some(cause) = outcome.causes.get_mut(&case) {
                    cause.push_str(&text);
                }
            }
            _ => {}
        }
    }
}

fn attribute(start: &BytesStart<'_>, name: &str) -> String {
    let found = start.try_get_attribute(name).unwrap();
    found.map_or_else(String::new, |found| {
        found
            .normalized_value(XmlVersion::Implicit1_0)
            .unwrap()
            .into_owned()
    })
}

pub fn tenant(id: &str) -> TenantId {
    TenantId::try_from(id).unwrap()
}

/// Provisions and registers a tenant that no run made, with these overrides where the directory exists.
pub async fn provision(client: &Client, id: &str, overrides: Option<&Path>) {
    let templates = match overrides.filter(|path| path.is_dir()) {
        Some(path) => Templates::with_overrides(path).expect("read the overrides"),
        None => Templates::embedded(),
    };
    let id = tenant(id);
    let standard = Tenant::standard(id.clone());
    let manifests = provisioner::render(&standard, &templates, &Stamp::default()).expect("render");
    let options = ApplyOptions {
        readiness: None,
        ..ApplyOptions::default()
    };
    provisioner::apply(client, &manifests, &id, &options, &Silent)
        .await
        .expect("apply");
    registration::register(client, &standard, &Silent, PATIENCE)
        .await
        .expect("register");
}

pub async fn delete(client: &Client, id: &str) {
    let options = DeleteOptions {
        deadline: Duration::from_secs(120),
    };
    provisioner::delete(client, &tenant(id), &options, &Silent)
        .await
        .expect("delete the test's tenant");
    let services = SharedServices::default();
    registration::purge(client, &services, &tenant(id), &Silent, PATIENCE)
        .await
        .expect("purge the test's tenant");
}

/// How long PostgreSQL and Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The namespaces whose name contains one of these words: tests run side by side, and each looks for its own.
pub async fn namespaces(client: &Client, words: &[&str]) -> BTreeSet<String> {
    let all = Api::<Namespace>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap();
    let names = all.items.iter().map(ResourceExt::name_any);
    names
        .filter(|name| words.iter().any(|word| name.contains(word)))
        .collect()
}

/// The id in a run's banner.
pub fn run_id(text: &str) -> String {
    let id = text
        .split("conformance run ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    id.expect("a banner").to_owned()
}

/// Everything in a tenant's namespace that somebody wrote, as text: no status, no versions, no record of who wrote it, and not what
/// controllers make of it.
pub async fn written(client: &Client, id: &str) -> BTreeMap<String, String> {
    let kinds = [
        ("", "v1", "ResourceQuota"),
        ("", "v1", "LimitRange"),
        ("", "v1", "ServiceAccount"),
        ("", "v1", "ConfigMap"),
        ("", "v1", "Secret"),
        ("", "v1", "Service"),
        ("", "v1", "Pod"),
        ("apps", "v1", "Deployment"),
        ("apps", "v1", "ReplicaSet"),
        ("networking.k8s.io", "v1", "NetworkPolicy"),
        ("rbac.authorization.k8s.io", "v1", "Role"),
        ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    ];
    let mut found = BTreeMap::new();
    for (group, version, kind) in kinds {
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, _) = kube::discovery::pinned_kind(client, &gvk).await.unwrap();
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &tenant(id).namespace(), &resource);
        for mut object in api.list(&ListParams::default()).await.unwrap().items {
            object.metadata.managed_fields = None;
            object.metadata.resource_version = None;
            if let Some(fields) = object.data.as_object_mut() {
                fields.remove("status");
            }
            found.insert(
                format!("{kind} {}", object.name_any()),
                serde_json::to_string_pretty(&object).unwrap(),
            );
        }
    }
    found
}

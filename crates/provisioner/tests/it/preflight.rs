//! `preflight` against the scripted server: what is there, what is missing, and that nothing of the canary stays.

use crate::cli::{directory, not_registered, provisioner, with_server};
use crate::server::{Server, status};
use predicates::str::contains;
use provisioner::preflight::{AGENT_IMAGE, Check, Report, Request, State};
use provisioner::{
    ApplyOptions, Manifest, Platform, Silent, Stamp, Templates, Tenant, preflight, render, render_platform,
};
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const POSTGRESQL: &str = "postgresql";
const REDIS: &str = "redis";

/// A Service that leads to one ready pod with that label.
fn service(server: &Server, namespace: &str, name: &str, label: (&str, &str), port: u16) {
    let (key, value) = label;
    let labels = json!({ key: value });
    server.put(
        &format!("/api/v1/namespaces/{namespace}/services/{name}"),
        json!({"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"selector": labels, "ports": [{"port": port}]}}),
    );
    server.put(
        &format!("/api/v1/namespaces/{namespace}/pods/{name}-0"),
        json!({"kind": "Pod", "metadata": {"name": format!("{name}-0"), "labels": labels}, "spec": {"containers": []}}),
    );
    server.put(
        &format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}"),
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": format!("{name}-0")}}],
        }),
    );
}

fn discovery(server: &Server) {
    let groups = [
        ("/api/v1", &["namespaces", "pods"][..]),
        (
            "/apis/rbac.authorization.k8s.io/v1",
            &["clusterroles", "clusterrolebindings"],
        ),
        ("/apis/networking.k8s.io/v1", &["networkpolicies"]),
    ];
    for (path, plurals) in groups {
        let resources: Vec<Value> = plurals
            .iter()
            .map(|name| json!({"name": name, "kind": "K"}))
            .collect();
        server.put(path, json!({"resources": resources}));
    }
}

/// Everything that a tenant is put into.
fn surroundings(server: &Server) {
    discovery(server);
    for name in ["database", "ingress-nginx"] {
        let labels = json!({"kubernetes.io/metadata.name": name});
        server.put(
            &format!("/api/v1/namespaces/{name}"),
            json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        );
    }
    service(
        server,
        "database",
        POSTGRESQL,
        ("app", "ai-agents-postgresql"),
        5432,
    );
    service(server, "database", REDIS, ("app", "ai-agents-redis"), 6379);
    service(server, "kube-system", "kube-dns", ("k8s-app", "kube-dns"), 53);
    let manifests = render_platform(&Platform::default(), &Templates::embedded_platform()).unwrap();
    for manifest in manifests {
        let kind = &manifest.kind;
        let root = if kind.group.is_empty() {
            format!("/api/{}", kind.version)
        } else {
            format!("/apis/{}/{}", kind.group, kind.version)
        };
        let place = manifest.object.metadata.namespace.as_ref();
        let place = place.map_or_else(String::new, |namespace| format!("/namespaces/{namespace}"));
        let path = format!("{root}{place}/{}/{}", kind.plural, manifest.name());
        server.put(&path, serde_json::to_value(&manifest.object).unwrap());
    }
}

#[test]
fn on_an_empty_cluster_each_thing_that_is_missing_is_named_with_what_mends_it() {
    let directory = directory();
    with_server(|server| {
        discovery(server);
        let mut command = provisioner(directory.path());
        command
            .args(["preflight", "--tenant-id", "acme", "--skip", "enforcement"])
            .env("KUBECONFIG", server.kubeconfig());
        let output = command.assert().code(1).get_output().stdout.clone();
        insta::assert_snapshot!(
            "preflight of an empty cluster",
            String::from_utf8(output).unwrap()
        );
        assert_eq!(made(server), Vec::<String>::new());
    });
}

/// What was written beside the questions about rights.
fn made(server: &Server) -> Vec<String> {
    let mut writes = server.writes();
    writes.retain(|line| !line.contains("/selfsubject"));
    writes
}

#[test]
fn where_all_is_there_the_report_says_so_and_the_command_succeeds() {
    let directory = directory();
    not_registered(directory.path());
    with_server(|server| {
        surroundings(server);
        let run = |args: &[&str]| {
            let mut command = provisioner(directory.path());
            command
                .args(["preflight", "-f", "acme.yaml", "--skip", "enforcement"])
                .args(args)
                .env("KUBECONFIG", server.kubeconfig());
            command.assert()
        };
        let output = run(&[]).code(0).get_output().stdout.clone();
        insta::assert_snapshot!("preflight of a whole cluster", String::from_utf8(output).unwrap());
        let output = run(&["-o", "json"]).code(0).get_output().stdout.clone();
        let document: Value = serde_json::from_slice(&output).unwrap();
        assert_eq!(document["apiVersion"], "ai-agents-platform/v1");
        assert_eq!(document["kind"], "Preflight");
        assert_eq!(document["interrupted"], false);
        let postgresql = document["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["check"] == "postgresql")
            .unwrap();
        assert_eq!(postgresql["state"], "ok", "{document:#}");
        assert_eq!(postgresql["of"], "database/postgresql");
    });
}

#[test]
fn a_right_that_is_missing_is_named_with_who_gives_it() {
    let directory = directory();
    not_registered(directory.path());
    with_server(|server| {
        surroundings(server);
        server.state().forbidden = vec!["patch deployments".to_owned(), "delete pods".to_owned()];
        let mut command = provisioner(directory.path());
        command
            .args(["preflight", "-f", "acme.yaml", "--skip", "enforcement"])
            .env("KUBECONFIG", server.kubeconfig());
        command
            .assert()
            .code(1)
            .stdout(contains(
                "you may not: delete pods in ai-agents-acme; patch deployments.apps in ai-agents-acme\n",
            ))
            .stdout(contains("--clusterrole=ai-agents-platform-admin --user='jane'"));
        let asked: BTreeSet<String> = server.state().asked.iter().cloned().collect();
        for right in [
            "create namespaces",
            "create secrets",
            "patch networkpolicies",
            "list events",
        ] {
            let known = asked.contains(right);
            assert_eq!(known, right != "list events", "{right} of {asked:?}");
        }
    });
}

/// Every kind of request that an apply, its wait and a deletion make, as a right.
#[tokio::test]
async fn every_request_of_an_apply_and_a_deletion_is_a_right_that_was_asked_for() {
    let server = Server::start().await;
    surroundings(&server);
    let (tenant, manifests) = acme();
    let only = BTreeSet::from([Check::Permissions]);
    let skip = Check::ALL
        .into_iter()
        .filter(|check| !only.contains(check))
        .collect();
    look(&server, &tenant, &manifests, skip, std::future::pending()).await;
    let asked: BTreeSet<String> = server.state().asked.drain(..).collect();
    server.state().requests.clear();
    let client = server.client().await;
    let options = ApplyOptions {
        readiness: Some(Duration::from_secs(1)),
        ..ApplyOptions::default()
    };
    provisioner::apply(&client, &manifests, &tenant.id, &options, &Silent)
        .await
        .unwrap();
    let requests = server.state().requests.clone();
    assert!(requests.len() > 20, "{requests:#?}");
    for request in requests {
        let right = right(&request);
        assert!(asked.contains(&right), "{request}: {right} of {asked:#?}");
    }
}

/// `patch deployments` for `PATCH /apis/apps/v1/namespaces/x/deployments/y`.
fn right(request: &str) -> String {
    let (method, path) = request.split_once(' ').unwrap();
    let path = path.trim_end_matches(" (dry run)");
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let parts = if parts[0] == "api" {
        &parts[2..]
    } else {
        &parts[3..]
    };
    let (resource, name) = match parts {
        ["namespaces", _, resource, rest @ ..] => (*resource, rest.first()),
        [resource, rest @ ..] => (*resource, rest.first()),
        [] => panic!("{request}"),
    };
    let verb = match (method, name) {
        ("GET", Some(_)) => "get",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        _ => "delete",
    };
    format!("{verb} {resource}")
}

#[rstest]
#[case::unknown(&["preflight", "--tenant-id", "acme", "--skip", "canary"], "there is no check \"canary\"")]
#[case::no_tenant(&["preflight"], "--tenant-id <ID>")]
fn a_command_line_that_cannot_be_meant_is_a_usage_error(#[case] args: &[&str], #[case] complaint: &str) {
    let directory = directory();
    provisioner(directory.path())
        .args(args)
        .assert()
        .code(2)
        .stdout("")
        .stderr(contains(complaint));
}

#[test]
fn a_cluster_that_does_not_answer_leaves_everything_unknown() {
    let directory = directory();
    with_server(|server| {
        server.script(
            "GET",
            "/version",
            99,
            401,
            status(401, "Unauthorized", "Unauthorized"),
        );
        let mut command = provisioner(directory.path());
        command
            .args(["preflight", "--tenant-id", "acme"])
            .env("KUBECONFIG", server.kubeconfig());
        command
            .assert()
            .code(1)
            .stdout(contains("Unauthorized (status 401)"))
            .stdout(contains(
                "mend: the credentials of this kubeconfig context are not accepted",
            ))
            .stdout(contains("  unknown  the cluster does not answer"));
        assert_eq!(server.writes(), Vec::<String>::new());
    });
}

fn acme() -> (Tenant, Vec<Manifest>) {
    let tenant = Tenant {
        registration: false,
        ..Tenant::standard("acme".parse().unwrap())
    };
    let manifests = render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap();
    (tenant, manifests)
}

async fn look(
    server: &Server,
    tenant: &Tenant,
    manifests: &[Manifest],
    skip: BTreeSet<Check>,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> Report {
    let tenants = [(tenant.clone(), manifests.to_vec())];
    let request = Request {
        tenants: &tenants,
        skip,
        platform_apply: false,
        agent_image: AGENT_IMAGE,
    };
    preflight(&server.client().await, &request, interrupted, &Silent).await
}

/// The canary alone.
async fn canary(server: &Server, interrupted: impl Future<Output = ()> + Send + 'static) -> Report {
    let (tenant, manifests) = acme();
    let skip = Check::ALL
        .into_iter()
        .filter(|check| *check != Check::Enforcement)
        .collect();
    let mut report = look(server, &tenant, &manifests, skip, interrupted).await;
    report
        .findings
        .retain(|finding| finding.check == Check::Enforcement);
    report
}

fn canary_is_gone(server: &Server) -> bool {
    let state = server.state();
    state.objects.keys().all(|path| !path.contains("/preflight-"))
}

fn waiting(reason: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": "not there"}}}]})
}

#[tokio::test]
async fn a_canary_without_its_image_decides_nothing_and_leaves_nothing() {
    let server = Server::start().await;
    server.state().pod_status = Some(waiting("ErrImageNeverPull"));
    let report = canary(&server, std::future::pending()).await;
    let finding = &report.findings[0];
    assert_eq!(finding.state, State::Unknown, "{finding:?}");
    assert!(
        finding.detail.contains("ErrImageNeverPull: not there"),
        "{finding:?}"
    );
    assert!(finding.remedy.as_ref().unwrap().contains("--agent-image IMAGE"));
    assert!(!report.is_complete());
    assert!(canary_is_gone(&server));
    let made = made(&server);
    assert!(made[0].starts_with("POST /api/v1/namespaces"), "{made:?}");
    assert!(
        made.last()
            .unwrap()
            .starts_with("DELETE /api/v1/namespaces/preflight-"),
        "{made:?}"
    );
}

#[tokio::test]
async fn an_interrupted_canary_leaves_nothing() {
    let server = Server::start().await;
    server.state().pod_status = Some(waiting("ContainerCreating"));
    let report = canary(&server, tokio::time::sleep(Duration::from_millis(500))).await;
    assert!(report.interrupted);
    assert_eq!(report.findings, []);
    assert_eq!(report.left, Vec::<String>::new());
    assert!(canary_is_gone(&server));
}

#[tokio::test]
async fn a_canary_that_cannot_be_removed_is_named_with_the_command_that_does() {
    let server = Server::start().await;
    server.state().pod_status = Some(waiting("ErrImageNeverPull"));
    server.script(
        "DELETE",
        "",
        9,
        403,
        status(403, "Forbidden", "namespaces is forbidden"),
    );
    let report = canary(&server, std::future::pending()).await;
    assert_eq!(report.left.len(), 1, "{report:?}");
    assert!(report.left[0].contains("namespaces is forbidden"), "{report:?}");
    assert!(report.left[0].contains("remove it by: kubectl delete namespace preflight-"));
    assert!(!report.is_complete());
}

#[tokio::test]
async fn what_a_killed_canary_left_behind_is_removed_by_the_next_once_it_has_expired() {
    let server = Server::start().await;
    server.state().pod_status = Some(waiting("ErrImageNeverPull"));
    for (name, expires) in [
        ("preflight-old", "2020-01-01T00:00:00Z"),
        ("preflight-new", "2099-01-01T00:00:00Z"),
    ] {
        let metadata = json!({"name": name, "labels": {"ai-agents-platform/preflight": "canary"}, "annotations": {"ai-agents-platform/expires": expires}});
        server.put(
            &format!("/api/v1/namespaces/{name}"),
            json!({"kind": "Namespace", "metadata": metadata}),
        );
    }
    canary(&server, std::future::pending()).await;
    assert!(!server.has("/api/v1/namespaces/preflight-old"));
    assert!(server.has("/api/v1/namespaces/preflight-new"));
}

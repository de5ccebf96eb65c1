//! `provisioner diff` and `apply --dry-run`, against the scripted server: what is said, with which exit code, and that nothing is written.

use crate::apply::{applied, manifests};
use crate::server::{Server, status};
use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use rstest::rstest;
use serde_json::{Value, json};

const NAMESPACE: &str = "/api/v1/namespaces/ai-agents-acme";
const API: &str = "/apis/apps/v1/namespaces/ai-agents-acme/deployments/ai-agents-api";
const QUOTA: &str = "/api/v1/namespaces/ai-agents-acme/resourcequotas/tenant-acme-quota";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const NETWORKING: &str = "/apis/networking.k8s.io/v1/namespaces/ai-agents-acme";

/// Only a server on a thread of its own can answer while the test waits for the command.
fn with_tenant(test: impl FnOnce(&Server)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(async {
        let server = Server::start().await;
        applied(&server, &manifests()).await.unwrap();
        server
    });
    server.writes();
    test(&server);
    assert_eq!(server.writes(), Vec::<String>::new(), "nothing is ever written");
}

fn run(server: &Server, args: &[&str]) -> assert_cmd::assert::Assert {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("provisioner").unwrap();
    command.current_dir(directory.path()).env_clear();
    command.args(args).env("KUBECONFIG", server.kubeconfig());
    let assert = command.assert();
    assert!(
        std::fs::read_dir(directory.path()).unwrap().next().is_none(),
        "no file is written either"
    );
    assert
}

fn diff(server: &Server, more: &[&str]) -> assert_cmd::assert::Assert {
    run(server, &[&["diff", "--tenant-id", "acme"], more].concat())
}

fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

fn conflict(field: &str) -> Value {
    let mut body = status(409, "Conflict", "Apply failed with 1 conflict");
    body["details"] = json!({"causes": [{
        "reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using v1", "field": field,
    }]});
    body
}

fn theirs(kind: &str, name: &str, rest: &Value) -> Value {
    let mut object = json!({"kind": kind, "metadata": {
        "name": name, "namespace": "ai-agents-acme", "creationTimestamp": "2026-01-02T03:04:05Z",
        "managedFields": [{"manager": "kubectl-create", "operation": "Update", "time": "2026-01-02T03:04:05Z"}],
    }});
    object
        .as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    object
}

/// Another policy that allows, a binding of somebody, and one of the tenant's account in the whole cluster.
fn widen(server: &Server) {
    let subject = |kind: &str, name: &str, namespace: Option<&str>| {
        json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": kind, "name": name, "namespace": namespace}],
        })
    };
    let open = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}});
    server.put(
        &format!("{NETWORKING}/networkpolicies/debug"),
        theirs("NetworkPolicy", "debug", &open),
    );
    server.put(
        &format!("{RBAC}/namespaces/ai-agents-acme/rolebindings/debug"),
        theirs("RoleBinding", "debug", &subject("User", "eve", None)),
    );
    let mut wide = theirs(
        "ClusterRoleBinding",
        "readers",
        &subject("ServiceAccount", "sa-acme", Some("ai-agents-acme")),
    );
    wide["metadata"].as_object_mut().unwrap().remove("namespace");
    server.put(&format!("{RBAC}/clusterrolebindings/readers"), wide);
}

#[test]
fn a_tenant_that_is_as_applied_is_the_same() {
    with_tenant(|server| {
        diff(server, &[]).code(0).stdout(predicate::str::ends_with(
            "namespace ai-agents-acme is as its templates say\n",
        ));
    });
}

#[test]
fn what_only_tightens_and_labels_of_others_are_no_drift() {
    with_tenant(|server| {
        let deny = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}});
        server.put(
            &format!("{NETWORKING}/networkpolicies/deny"),
            theirs("NetworkPolicy", "deny", &deny),
        );
        server.put(
            &format!("{NAMESPACE}/resourcequotas/more"),
            theirs(
                "ResourceQuota",
                "more",
                &json!({"spec": {"hard": {"pods": "100"}}}),
            ),
        );
        server.state().objects.get_mut(NAMESPACE).unwrap()["metadata"]["labels"]["team"] = json!("x");
        diff(server, &[]).code(0);
    });
}

#[test]
fn what_widens_is_named_with_what_it_opens_who_made_it_and_what_to_do() {
    with_tenant(|server| {
        widen(server);
        let output = stdout(&diff(server, &[]).code(1));
        let extras = &output[output.find("extra ").unwrap()..];
        insta::assert_snapshot!("diff extras", extras);
    });
}

#[test]
fn a_way_in_and_pods_that_have_their_node_are_named() {
    with_tenant(|server| {
        let backend = json!({"service": {"name": "ai-agents-api", "port": {"number": 8000}}});
        let rules = json!({"spec": {"rules": [{"http": {"paths": [{"path": "/", "backend": backend}]}}]}});
        server.put(
            &format!("{NETWORKING}/ingresses/debug"),
            theirs("Ingress", "debug", &rules),
        );
        server.state().objects.get_mut(API).unwrap()["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        diff(server, &[])
            .code(1)
            .stdout(contains("same     Deployment ai-agents-api in ai-agents-acme\n"))
            .stdout(contains("extra    Deployment ai-agents-api in ai-agents-acme\n         opens the node's network to the pods: hostNetwork\n"))
            .stdout(contains("extra    Ingress debug in ai-agents-acme\n         opens Service ai-agents-api to clients outside of the cluster: / of every host\n"));
    });
}

#[test]
fn kinds_that_one_may_not_list_are_unseen_and_each_is_named_once() {
    with_tenant(|server| {
        for kind in ["ingresses", "poddisruptionbudgets"] {
            let refusal = format!("{kind} is forbidden: User \"me\" cannot list resource {kind:?}");
            let refusal = status(403, "Forbidden", &refusal);
            server.script("GET", &format!("/{kind}"), 2, 403, refusal);
        }
        let output = stdout(&diff(server, &[]).code(3));
        for kind in ["ingresses", "poddisruptionbudgets"] {
            let line = format!("unseen   list {kind} in ai-agents-acme: {kind} is forbidden");
            assert_eq!(output.matches(&line).count(), 1, "{output}");
        }
    });
}

#[test]
fn the_platform_differs_where_somebody_opens_the_shared_services() {
    const OPEN: &str = "/apis/networking.k8s.io/v1/namespaces/database/networkpolicies/open";
    with_tenant(|server| {
        server.put(
            "/api/v1/namespaces/database",
            json!({"kind": "Namespace", "metadata": {"name": "database"}}),
        );
        let platform = |more: &[&str]| run(server, &[&["platform"][..], more].concat());
        platform(&["apply", "--yes"]).code(0);
        server.writes();
        platform(&["diff"]).code(0);
        let mut open = theirs(
            "NetworkPolicy",
            "open",
            &json!({"spec": {"podSelector": {}, "ingress": [{}]}}),
        );
        open["metadata"]["namespace"] = json!("database");
        server.put(OPEN, open);
        platform(&["diff"]).code(1).stdout(contains(
            "extra    NetworkPolicy open in database\n         opens ingress from everybody to all pods: any port\n",
        ));
        // Nothing is to be done, so nothing is asked.
        platform(&["apply"])
            .code(0)
            .stdout(predicate::str::ends_with("platform is applied: 18 unchanged\n"));
        server.state().objects.remove(OPEN);
        let refusal = "rolebindings is forbidden: User \"me\" cannot list resource \"rolebindings\"";
        server.script(
            "GET",
            "/database/rolebindings",
            1,
            403,
            status(403, "Forbidden", refusal),
        );
        platform(&["diff"]).code(2).stdout(contains(format!(
            "unseen   list rolebindings in database: {refusal}; "
        )));
    });
}

#[test]
fn a_field_that_was_edited_is_named_with_its_manager() {
    with_tenant(|server| {
        server.state().objects.get_mut(QUOTA).unwrap()["spec"]["hard"]["pods"] = json!("100");
        server.script("PATCH", "/tenant-acme-quota", 1, 409, conflict(".spec.hard.pods"));
        diff(server, &[])
            .code(1)
            .stdout(contains("change   ResourceQuota tenant-acme-quota in ai-agents-acme\n         .spec.hard.pods: on the cluster \"100\" (set by \"kubectl-edit\"), in the template \"10\"\n"))
            .stdout(contains("1 in conflict with others: apply refuses these without --force-conflicts"));
    });
}

#[test]
fn a_change_that_the_server_refuses_is_named_with_its_words() {
    with_tenant(|server| {
        server.state().objects.get_mut(API).unwrap()["spec"]["selector"] = json!({});
        let invalid = status(422, "Invalid", "spec.selector: field is immutable");
        server.script("PATCH", "/deployments/ai-agents-api", 1, 422, invalid);
        diff(server, &[])
            .code(1)
            .stdout(contains("refused  Deployment ai-agents-api in ai-agents-acme\n         the API server refuses what the templates say: spec.selector: field is immutable\n"))
            .stdout(contains("kubectl delete deployment ai-agents-api -n ai-agents-acme"));
    });
}

#[test]
fn as_json_it_is_one_document() {
    with_tenant(|server| {
        widen(server);
        server.state().objects.remove(QUOTA);
        let output = stdout(&diff(server, &["-o", "json"]).code(1));
        let document: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(document["apiVersion"], "ai-agents-platform/v1");
        assert_eq!(document["kind"], "Differences");
        let tenant = &document["tenants"][0];
        assert_eq!((&tenant["id"], &tenant["same"]), (&json!("acme"), &json!(false)));
        let quota = &tenant["objects"][1];
        assert_eq!(
            (&quota["object"]["kind"], &quota["state"]),
            (&json!("ResourceQuota"), &json!("create"))
        );
        let extras: Vec<&Value> = tenant["extras"]
            .as_array()
            .unwrap()
            .iter()
            .map(|extra| &extra["object"]["kind"])
            .collect();
        assert_eq!(extras, ["ClusterRoleBinding", "NetworkPolicy", "RoleBinding"]);
        assert_eq!(tenant["extras"][1]["madeBy"], "kubectl-create");
        assert_eq!(document["failed"], json!([]));
    });
}

#[test]
fn a_tenant_that_does_not_exist_is_all_to_be_made() {
    with_tenant(|server| {
        run(server, &["diff", "--tenant-id", "other"])
            .code(1)
            .stdout(contains("create   Namespace ai-agents-other\n"))
            .stdout(predicate::str::ends_with(
                "namespace ai-agents-other differs: 15 to create\n",
            ));
    });
}

#[test]
fn who_may_not_see_the_clusters_bindings_is_told_so_and_how_to_leave_them_out() {
    with_tenant(|server| {
        let refusal =
            "clusterrolebindings is forbidden: User \"me\" cannot list resource \"clusterrolebindings\"";
        server.script(
            "GET",
            "/clusterrolebindings",
            1,
            403,
            status(403, "Forbidden", refusal),
        );
        diff(server, &[])
            .code(3)
            .stdout(contains("unseen   list clusterrolebindings: "))
            .stdout(contains("--namespace-only leaves the cluster's bindings out"));
        widen(server);
        diff(server, &["--namespace-only"])
            .code(1)
            .stdout(contains("NetworkPolicy debug"))
            .stdout(contains("ClusterRoleBinding").not());
    });
}

#[rstest]
#[case::another_ones(json!({"kind": "Namespace", "metadata": {"name": "ai-agents-acme", "labels": {"managed-by": "helm"}}}), "it exists and is not ours: label managed-by is \"helm\"")]
#[case::going(json!({"kind": "Namespace", "metadata": {"name": "ai-agents-acme", "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {"managed-by": "ai-agents-platform", "tenant": "acme"}}}), "it is being deleted")]
fn what_cannot_be_compared_is_neither_the_same_nor_drift(#[case] namespace: Value, #[case] message: &str) {
    with_tenant(|server| {
        server.put(NAMESPACE, namespace);
        let json = diff(server, &["-o", "json"]).code(3).stderr(contains(message));
        let document: Value = serde_json::from_str(&stdout(&json)).unwrap();
        assert_eq!(document["tenants"], json!([]));
        assert_eq!(document["failed"][0]["id"], "acme");
    });
}

#[test]
fn a_dry_run_of_the_client_needs_no_cluster_and_shows_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let apply = |more: &[&str]| {
        let mut command = Command::cargo_bin("provisioner").unwrap();
        command.current_dir(directory.path()).env_clear();
        command.args([&["apply", "--tenant-id", "acme", "--dry-run=client"], more].concat());
        command.assert().code(0)
    };
    let text = stdout(&apply(&[]).stderr(contains(
        "15 objects are valid for namespace ai-agents-acme; no cluster was asked, and nothing was changed",
    )));
    assert_eq!(text.matches("---\n").count(), 15, "{text}");
    assert!(
        text.starts_with("---\napiVersion: v1\nkind: Namespace\n"),
        "{text}"
    );
    let document: Value = serde_json::from_str(&stdout(&apply(&["-o", "json"]))).unwrap();
    assert_eq!(document["kind"], "Rendered");
    assert_eq!(document["tenants"][0]["objects"].as_array().unwrap().len(), 15);
    assert!(!directory.path().join("generated").exists());
}

#[test]
fn a_dry_run_of_the_server_says_what_an_apply_would_do() {
    with_tenant(|server| {
        server.state().objects.remove(QUOTA);
        // What others made is no matter of an apply.
        widen(server);
        let apply = |server: &Server| run(server, &["apply", "--tenant-id", "acme", "--dry-run=server"]);
        apply(server)
            .code(0)
            .stdout(contains(
                "create   ResourceQuota tenant-acme-quota in ai-agents-acme\n",
            ))
            .stdout(contains("same     Deployment ai-agents-api in ai-agents-acme\n"))
            .stdout(predicate::str::ends_with(
                "namespace ai-agents-acme differs: 1 to create\n",
            ))
            .stderr(contains("INFO dry run: nothing was changed\n"));
        let taken = |server: &Server| {
            let policy = format!("{NETWORKING}/networkpolicies/default-deny-ingress");
            server.state().objects.get_mut(&policy).unwrap()["spec"]["policyTypes"] = json!(["Egress"]);
            server.script(
                "PATCH",
                "/default-deny-ingress",
                1,
                409,
                conflict(".spec.policyTypes"),
            );
        };
        taken(server);
        apply(server)
            .code(1)
            .stderr(contains("error: dry run: apply would be refused, since others set fields of ai-agents-acme\nhint: settle who sets these fields"));
        taken(server);
        run(
            server,
            &[
                "apply",
                "--tenant-id",
                "acme",
                "--dry-run=server",
                "--force-conflicts",
            ],
        )
        .code(0);
    });
}

#[rstest]
#[case::as_it_is(&[])]
#[case::by_force(&["--force-conflicts"])]
fn a_dry_run_of_the_server_fails_where_the_api_server_would_refuse(#[case] more: &[&str]) {
    with_tenant(|server| {
        server.state().objects.get_mut(API).unwrap()["spec"]["selector"] = json!({});
        let invalid = status(422, "Invalid", "spec.selector: field is immutable");
        server.script("PATCH", "/deployments/ai-agents-api", 1, 422, invalid);
        let apply = ["apply", "--tenant-id", "acme", "--dry-run=server"];
        run(server, &[&apply[..], more].concat())
            .code(1)
            .stdout(contains("refused  Deployment ai-agents-api in ai-agents-acme\n"))
            .stderr(contains("error: dry run: apply would be refused by the API server: Deployment ai-agents-api in ai-agents-acme: spec.selector: field is immutable\nhint: "));
    });
}

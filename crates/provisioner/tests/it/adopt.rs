//! Taking over a namespace that was made by hand, against the scripted server. What the server records of managers is shown on a real
//! cluster.

use crate::server::{Server, status};
use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use rstest::rstest;
use serde_json::{Value, json};
use std::path::Path;

const NAMESPACE: &str = "/api/v1/namespaces/ai-agents-acme";
const SERVICE: &str = "/api/v1/namespaces/ai-agents-acme/services/ai-agents-api";
const LIMITS: &str = "/api/v1/namespaces/ai-agents-acme/limitranges/tenant-acme-limits";

fn with_namespace(labels: &Value, test: impl FnOnce(&Server, &Path)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(Server::start());
    let by_kubectl = |fields: Value| json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    server.put(
        NAMESPACE,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": "ai-agents-acme", "labels": labels, "managedFields": by_kubectl(json!({"f:metadata": {"f:labels": {"f:app": {}}}})),
        }}),
    );
    server.put(
        SERVICE,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {
            "name": "ai-agents-api", "namespace": "ai-agents-acme", "managedFields": by_kubectl(json!({"f:spec": {"f:type": {}}})),
        }, "spec": {"type": "NodePort"}}),
    );
    server.writes();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("acme.yaml"),
        "id: acme\nregistration: false\n",
    )
    .unwrap();
    test(&server, directory.path());
}

fn run(server: &Server, directory: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("provisioner").unwrap();
    command.current_dir(directory).env_clear();
    command
        .args(args)
        .args(["-f", "acme.yaml"])
        .env("KUBECONFIG", server.kubeconfig());
    command.assert()
}

#[test]
fn it_says_what_changes_and_does_nothing_until_it_is_confirmed() {
    with_namespace(&json!({"app": "ai-agents"}), |server, directory| {
        run(server, directory, &["adopt"])
            .code(2)
            .stdout(contains("change   Namespace ai-agents-acme\n"))
            .stdout(contains(".metadata.labels.tenant: on the cluster not set, in the template \"acme\"\n"))
            .stdout(contains("taken    Service ai-agents-api in ai-agents-acme: from kubectl-create\n"))
            .stdout(contains("left out limitrange: the namespace is adopted without it, so the quota refuses containers that name no requests and limits\n"))
            .stdout(contains("provisioner adopt --tenant-id acme --harden limitrange adds it\n"))
            .stdout(contains("default-deny-egress in").not())
            .stdout(predicate::str::ends_with("taking namespace ai-agents-acme over changes 13 of 13 objects\n"))
            .stderr(contains("error: adopt Namespace ai-agents-acme: there is no terminal to ask on; nothing was changed\nhint: add --yes if you are sure\n"));
        assert_eq!(server.writes(), Vec::<String>::new());
        assert!(!directory.join("generated").exists());
    });
}

#[test]
fn what_is_opted_in_to_is_remembered_by_every_later_apply() {
    with_namespace(&json!({}), |server, directory| {
        let labels = |server: &Server| server.state().objects[NAMESPACE]["metadata"]["labels"].clone();
        let noted = |server: &Server| {
            server.state().objects[NAMESPACE]["metadata"]["annotations"]["ai-agents-platform/hardening"]
                .clone()
        };
        run(server, directory, &["adopt", "--yes"])
            .code(0)
            .stdout(predicate::str::ends_with(
                "namespace ai-agents-acme is adopted and ready: 11 created, 2 changed\n",
            ));
        assert_eq!(noted(server), "none");
        assert_eq!(labels(server)["pod-security.kubernetes.io/warn"], "restricted");
        assert_eq!(labels(server)["pod-security.kubernetes.io/enforce"], Value::Null);
        assert!(!server.has(LIMITS));
        run(server, directory, &["apply"])
            .code(0)
            .stdout("namespace ai-agents-acme is ready: 13 unchanged\n");
        run(server, directory, &["diff"])
            .code(0)
            .stdout(contains("left out pod-security: "));
        run(server, directory, &["adopt", "--yes", "--harden", "limitrange"])
            .code(0)
            .stdout(contains("create   LimitRange"))
            .stdout(predicate::str::ends_with(
                "adopted and ready: 1 created, 1 changed, 12 unchanged\n",
            ));
        assert_eq!(noted(server), "limitrange");
        run(server, directory, &["apply"])
            .code(0)
            .stdout("namespace ai-agents-acme is ready: 14 unchanged\n");
        run(server, directory, &["adopt", "--yes", "--harden", "all"]).code(0);
        assert_eq!(labels(server)["pod-security.kubernetes.io/enforce"], "restricted");
        run(server, directory, &["diff"])
            .code(0)
            .stdout(contains("left out").not());
    });
}

#[test]
fn a_tenant_of_ours_keeps_all_its_hardening() {
    with_namespace(&json!({}), |server, directory| {
        server.state().objects.clear();
        run(server, directory, &["apply"]).code(0);
        server.writes();
        run(server, directory, &["adopt"])
            .code(0)
            .stdout(contains(
                "namespace ai-agents-acme is ours already, and as its templates say\n",
            ))
            .stdout(predicate::str::ends_with("15 unchanged\n"));
        assert!(server.has(LIMITS));
    });
}

#[rstest]
#[case::another_tenants(json!({"tenant": "other"}), "it is somebody else's: label tenant is \"other\", not \"acme\"")]
#[case::another_platforms(json!({"managed-by": "helm"}), "it is somebody else's: label managed-by is \"helm\", not \"ai-agents-platform\"")]
#[case::a_tests(json!({"ai-agents-platform/run-id": "0a1b2c3d"}), "conformance run 0a1b2c3d made it, and removes it")]
fn a_namespace_that_is_somebodys_is_refused(#[case] labels: Value, #[case] message: &str) {
    with_namespace(&labels, |server, directory| {
        run(server, directory, &["adopt", "--yes"])
            .code(1)
            .stdout("")
            .stderr(contains(message))
            .stderr(contains("hint: nothing was changed"));
        assert_eq!(server.writes(), Vec::<String>::new());
    });
}

#[test]
fn without_a_namespace_there_is_nothing_to_take_over() {
    with_namespace(&json!({}), |server, directory| {
        server.state().objects.clear();
        run(server, directory, &["adopt", "--yes"]).code(1).stderr(contains(
            "error: adopt Namespace ai-agents-acme: it does not exist\nhint: there is nothing to take over: provisioner apply makes it\n",
        ));
    });
}

#[test]
fn an_object_that_cannot_become_ours_has_to_go_first() {
    with_namespace(&json!({}), |server, directory| {
        let invalid = status(422, "Invalid", "spec.clusterIP: field is immutable");
        server.script("PATCH", "/services/ai-agents-api", 9, 422, invalid);
        run(server, directory, &["adopt", "--yes"])
            .code(1)
            .stderr(contains("the API server refuses what the templates say of:\n  Service ai-agents-api in ai-agents-acme: spec.clusterIP: field is immutable\n"))
            .stderr(contains("kubectl delete service ai-agents-api -n ai-agents-acme"));
        assert_eq!(server.writes(), Vec::<String>::new());
    });
}

#[test]
fn what_only_does_not_go_together_with_what_goes_is_no_obstacle() {
    with_namespace(&json!({}), |server, directory| {
        let invalid = status(422, "Invalid", "spec.ports[0].name: Required value");
        server.script("PATCH", "/services/ai-agents-api", 1, 422, invalid);
        run(server, directory, &["adopt", "--yes"])
            .code(0)
            .stdout(contains(
                ".spec.type: on the cluster \"NodePort\", in the template \"ClusterIP\"\n",
            ));
    });
}

#[test]
fn an_unknown_hardening_lists_those_that_exist() {
    with_namespace(&json!({}), |server, directory| {
        run(server, directory, &["adopt", "--harden", "psa"])
            .code(2)
            .stderr(contains("\"psa\" is no hardening; there are: pod-security, default-deny-egress, limitrange, internet-except, all"));
    });
}

//! Several tenants at once, and what is said of tenants: transcripts of the binary against the scripted API server.

use crate::cli::{directory, provisioner, with_server};
use crate::server::{Server, status};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use rstest::rstest;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Tenants that somebody else registers: the scripted server has no PostgreSQL.
fn three(directory: &Path) {
    for id in ["alpha", "beta", "gamma"] {
        let text = format!("id: {id}\nregistration: false\n");
        fs::write(directory.join(format!("tenants/{id}.yaml")), text).unwrap();
    }
}

fn directory_of_three() -> tempfile::TempDir {
    let directory = directory();
    fs::create_dir(directory.path().join("tenants")).unwrap();
    three(directory.path());
    directory
}

fn run(directory: &Path, server: &Server, args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = provisioner(directory);
    command.args(args).env("KUBECONFIG", server.kubeconfig());
    command.assert()
}

/// The tenant's quota is refused, for good.
fn refuse(server: &Server, id: &str) {
    let refusal = status(
        403,
        "Forbidden",
        "resourcequotas is forbidden: User \"me\" cannot patch resource",
    );
    for method in ["PATCH", "POST"] {
        server.script(
            method,
            &format!("/ai-agents-{id}/resourcequotas/tenant-{id}-quota"),
            100,
            403,
            refusal.clone(),
        );
    }
}

fn document(stdout: &[u8]) -> Value {
    serde_json::from_slice(stdout).unwrap()
}

#[test]
fn of_a_directory_one_that_fails_does_not_keep_the_others_from_being_applied() {
    let directory = directory_of_three();
    with_server(|server| {
        refuse(server, "beta");
        run(directory.path(), server, &["apply", "-f", "tenants"])
            .code(1)
            .stdout(contains("namespace ai-agents-alpha is ready: 15 created\n"))
            .stdout(contains("namespace ai-agents-gamma is ready: 15 created\n"))
            .stdout(predicates::str::ends_with("3 tenants: 2 ready, 1 failed\n"))
            .stderr(contains("INFO tenant{id=alpha}: created ResourceQuota tenant-alpha-quota in ai-agents-alpha\n"))
            .stderr(contains("error: namespace ai-agents-beta: apply ResourceQuota tenant-beta-quota in ai-agents-beta"))
            .stderr(contains("error: apply 3 tenants: 1 failed: beta\nhint: mend what is said above of each, then the same again"));
        assert!(server.has("/apis/apps/v1/namespaces/ai-agents-gamma/deployments/ai-agents-worker"));
        assert!(!server.has("/apis/apps/v1/namespaces/ai-agents-beta/deployments/ai-agents-worker"));
        run(
            directory.path(),
            server,
            &["apply", "-f", "tenants", "--tenant-id=gamma"],
        )
        .code(0)
        .stdout("namespace ai-agents-gamma is ready: 15 unchanged\n");
    });
}

#[test]
fn a_mistake_in_one_file_is_found_before_anything_is_done_for_another() {
    let directory = directory_of_three();
    fs::write(
        directory.path().join("tenants/beta.yaml"),
        "id: beta\nquota:\n  pods: 2\n",
    )
    .unwrap();
    with_server(|server| {
        run(directory.path(), server, &["apply", "-f", "tenants"])
            .code(2)
            .stdout("")
            .stderr(contains("error: read tenant file tenants/beta.yaml: quota.pods: 2 is less than the 4 that API and worker need with one more pod each in a rollout; raise it, or lower replicas or sizes at line 3 column 9"));
        assert_eq!(server.writes(), Vec::<String>::new());
    });
}

#[test]
fn results_of_an_apply_are_one_json_document() {
    let directory = directory_of_three();
    with_server(|server| {
        refuse(server, "beta");
        let assert = run(
            directory.path(),
            server,
            &["apply", "-f", "tenants", "-o", "json", "--jobs=1"],
        )
        .code(1);
        let document = document(&assert.get_output().stdout);
        assert_eq!(
            (&document["apiVersion"], &document["kind"]),
            (&json!("ai-agents-platform/v1"), &json!("Applied"))
        );
        let states: Vec<(&str, &str)> = document["tenants"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tenant| (tenant["id"].as_str().unwrap(), tenant["state"].as_str().unwrap()))
            .collect();
        assert_eq!(
            states,
            [("alpha", "ready"), ("beta", "failed"), ("gamma", "ready")]
        );
        assert_eq!(document["tenants"][0]["created"].as_array().unwrap().len(), 15);
        let error = document["tenants"][1]["error"].as_str().unwrap();
        assert!(
            error.starts_with("apply ResourceQuota tenant-beta-quota in ai-agents-beta"),
            "{error}"
        );
    });
}

#[test]
fn a_single_failure_is_in_the_json_document_too() {
    let directory = directory_of_three();
    with_server(|server| {
        refuse(server, "beta");
        let assert = run(
            directory.path(),
            server,
            &["apply", "-f", "tenants/beta.yaml", "-o", "json"],
        )
        .code(1)
        .stderr(contains(
            "error: apply ResourceQuota tenant-beta-quota in ai-agents-beta",
        ));
        let document = document(&assert.get_output().stdout);
        assert_eq!(document["tenants"][0]["state"], "failed");
    });
}

#[test]
fn files_of_a_directory_are_generated_and_named() {
    let directory = directory_of_three();
    let assert = provisioner(directory.path())
        .args(["generate", "-f", "tenants", "-o", "json"])
        .assert()
        .code(0);
    let document = document(&assert.get_output().stdout);
    assert_eq!(document["kind"], "Generated");
    assert_eq!(
        document["tenants"][2]["files"][0],
        "generated/gamma/namespace-gamma.yaml"
    );
    assert!(
        directory
            .path()
            .join("generated/beta/deployment-api-beta.yaml")
            .exists()
    );
}

#[test]
fn tiers_of_a_file_are_those_of_the_tenants() {
    let directory = directory();
    fs::write(
        directory.path().join("tiers.yaml"),
        "tiers:\n  gold:\n    quota: {pods: 44}\n",
    )
    .unwrap();
    fs::write(
        directory.path().join("acme.yaml"),
        "id: acme\ntier: gold\nlabels: {example.com/team: blue}\n",
    )
    .unwrap();
    provisioner(directory.path())
        .args(["generate", "-f", "acme.yaml", "--tiers", "tiers.yaml"])
        .assert()
        .code(0);
    let read = |name: &str| fs::read_to_string(directory.path().join("generated/acme").join(name)).unwrap();
    assert!(read("resourcequota-acme.yaml").contains("pods: \"44\""));
    assert!(read("namespace-acme.yaml").contains("ai-agents-platform/tier: gold"));
    assert!(read("role-acme.yaml").contains("example.com/team: blue"));
    provisioner(directory.path())
        .args(["generate", "-f", "acme.yaml"])
        .assert()
        .code(2)
        .stderr("error: read tenant file acme.yaml: tier: tier gold does not exist; there are: premium, standard at line 2 column 7\n");
}

#[test]
fn tenants_are_listed_with_tier_state_and_usage() {
    let directory = directory_of_three();
    fs::write(
        directory.path().join("tenants/beta.yaml"),
        "id: beta\ntier: premium\nregistration: false\n",
    )
    .unwrap();
    with_server(|server| {
        run(directory.path(), server, &["list"])
            .code(0)
            .stdout("")
            .stderr(contains("INFO no tenant is there: no namespace has our labels\n"));
        run(directory.path(), server, &["apply", "-f", "tenants"]).code(0);
        server.put(
            "/api/v1/namespaces/ai-agents-legacy",
            json!({"kind": "Namespace", "metadata": {"name": "ai-agents-legacy", "labels": {"tenant": "legacy"}}}),
        );
        server.state().deployment_status =
            Some(json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}));
        server.put(
            "/apis/apps/v1/namespaces/ai-agents-alpha/deployments/ai-agents-api",
            json!({"kind": "Deployment", "metadata": {
                "name": "ai-agents-api", "namespace": "ai-agents-alpha", "labels": {"managed-by": "ai-agents-platform", "tenant": "alpha"},
            }, "spec": {"replicas": 1, "selector": {}, "template": {}}}),
        );
        let assert = run(directory.path(), server, &["list"]).code(0);
        insta::assert_snapshot!(
            "list",
            String::from_utf8(assert.get_output().stdout.clone()).unwrap()
        );
        let assert = run(directory.path(), server, &["list", "-o", "json"]).code(0);
        let document = document(&assert.get_output().stdout);
        assert_eq!(document["kind"], "Tenants");
        let beta = &document["tenants"][1];
        assert_eq!(
            (&beta["id"], &beta["tier"], &beta["ready"]),
            (&json!("beta"), &json!("premium"), &json!(true))
        );
        assert_eq!(beta["workloads"].as_array().unwrap().len(), 2);
        assert_eq!(document["tenants"].as_array().unwrap().len(), 3);
    });
}

#[test]
fn status_says_how_a_tenant_is_and_exits_accordingly() {
    let directory = directory_of_three();
    with_server(|server| {
        run(directory.path(), server, &["status", "-f", "tenants/alpha.yaml"])
            .code(1)
            .stdout("tenant alpha: not there\n  namespace     ai-agents-alpha\n  registration  not asked for\n  missing       Namespace ai-agents-alpha: it does not exist\n");
        run(directory.path(), server, &["apply", "-f", "tenants"]).code(0);
        let assert = run(directory.path(), server, &["status", "-f", "tenants/alpha.yaml"]).code(0);
        insta::assert_snapshot!(
            "status",
            String::from_utf8(assert.get_output().stdout.clone()).unwrap()
        );
        let path = "/apis/apps/v1/namespaces/ai-agents-beta/deployments/ai-agents-worker";
        server.state().objects.remove(path).unwrap();
        let assert = run(
            directory.path(),
            server,
            &["status", "-f", "tenants", "-o", "json"],
        )
        .code(1);
        let document = document(&assert.get_output().stdout);
        assert_eq!(document["kind"], "Statuses");
        let states: Vec<&Value> = document["tenants"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tenant| &tenant["state"])
            .collect();
        assert_eq!(states, ["ready", "notReady", "ready"]);
        assert_eq!(
            document["tenants"][1]["missing"][0]["object"]["name"],
            "ai-agents-worker"
        );
    });
}

#[test]
fn what_status_cannot_find_out_is_not_taken_for_ready() {
    let directory = directory_of_three();
    with_server(|server| {
        run(directory.path(), server, &["apply", "-f", "tenants/alpha.yaml"]).code(0);
        // By its id alone it is one that we register, and there is no administrator's Secret.
        run(
            directory.path(),
            server,
            &["status", "--tenant-id=alpha", "--no-registration"],
        )
        .code(0)
        .stdout(contains("  registration  not asked for\n"));
        let refusal = status(
            403,
            "Forbidden",
            "secrets is forbidden: User \"me\" cannot get resource",
        );
        server.script("GET", "/secrets/postgresql-admin", 100, 403, refusal);
        run(directory.path(), server, &["status", "--tenant-id=alpha"])
            .code(3)
            .stdout(contains("tenant alpha: not known\n"))
            .stdout(contains(
                "  registration  not known: get Secret postgresql-admin in database",
            ));
        let refusal = status(
            403,
            "Forbidden",
            "namespaces is forbidden: User \"me\" cannot get resource",
        );
        server.script("GET", "/namespaces/ai-agents-alpha", 100, 403, refusal);
        run(directory.path(), server, &["status", "--tenant-id=alpha"])
            .code(3)
            .stdout("")
            .stderr(contains(
                "error: get Namespace ai-agents-alpha: namespaces is forbidden",
            ));
    });
}

#[test]
fn a_namespace_that_is_not_ours_is_said_to_be_so() {
    let directory = directory();
    with_server(|server| {
        server.put(
            "/api/v1/namespaces/ai-agents-acme",
            json!({"kind": "Namespace", "metadata": {"name": "ai-agents-acme"}}),
        );
        run(directory.path(), server, &["status", "--tenant-id=acme"])
            .code(1)
            .stdout(contains("tenant acme: not ours\n"))
            .stdout(contains(
                "missing       Namespace ai-agents-acme: it is not ours: label managed-by is missing",
            ));
    });
}

#[test]
fn a_new_tenant_file_is_written_once_and_can_be_used() {
    let directory = directory();
    let new = |args: &[&str]| {
        let mut command = provisioner(directory.path());
        command.args(["tenant", "new", "acme"]).args(args);
        command.assert()
    };
    new(&["--tier", "premium", "--name", "Acme Corp."])
        .code(0)
        .stdout("acme.yaml\n")
        .stderr("");
    let text = fs::read_to_string(directory.path().join("acme.yaml")).unwrap();
    assert!(
        text.contains("\nid: acme\n") && text.contains("\ntier: premium\n"),
        "{text}"
    );
    new(&[])
        .code(2)
        .stdout("")
        .stderr("error: write tenant file acme.yaml: File exists (os error 17)\nhint: a file that exists is kept; name another with --file PATH\n");
    assert_eq!(
        fs::read_to_string(directory.path().join("acme.yaml")).unwrap(),
        text
    );
    new(&["--file", "other.yaml"]).code(0).stdout("other.yaml\n");
    provisioner(directory.path())
        .args(["generate", "-f", "acme.yaml"])
        .assert()
        .code(0);
    let quota = fs::read_to_string(directory.path().join("generated/acme/resourcequota-acme.yaml")).unwrap();
    assert!(quota.contains("limits.cpu: \"16\""), "{quota}");
}

#[rstest]
#[case::no_such_tier(&["tenant", "new", "acme", "--tier=gold"], "error: use tier gold: it does not exist; there are: premium, standard\nhint: name one of these, or a tiers file that has it with --tiers FILE\n")]
#[case::no_id(&["tenant", "new", "UPPER"], "tenant id \"UPPER\" has 'U' at position 1")]
#[case::no_directory(&["tenant", "new", "acme", "--file=no/where.yaml"], "error: write tenant file no/where.yaml: No such file or directory (os error 2)\nhint: make its directory first: mkdir -p no\n")]
#[case::no_tiers_file(&["generate", "--tenant-id=a", "--tiers=/does/not/exist"], "error: read tiers file /does/not/exist: No such file or directory")]
#[case::no_job(&["apply", "--tenant-id=a", "--jobs=0"], "0 is not in 1..=32")]
#[case::nothing_to_list(&["list", "--kubeconfig=/does/not/exist"], "error: read kubeconfig /does/not/exist")]
fn what_cannot_be_used_is_named(#[case] args: &[&str], #[case] message: &str) {
    let directory = directory();
    let assert = provisioner(directory.path())
        .args(args)
        .assert()
        .stdout("")
        .stderr(contains(message));
    assert!(matches!(assert.get_output().status.code(), Some(1 | 2)));
}

#[test]
fn nothing_of_one_tenant_is_said_of_several_on_no_terminal_but_plain_lines() {
    let directory = directory_of_three();
    with_server(|server| {
        run(directory.path(), server, &["apply", "-f", "tenants"])
            .code(0)
            .stdout(predicates::str::ends_with("3 tenants: 3 ready\n"))
            .stderr(contains("\r").not())
            .stderr(contains("\x1b").not());
    });
}

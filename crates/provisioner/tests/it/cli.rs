//! The command as its users see it: exit code, stdout and stderr.

use crate::server::Server;
use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use rstest::rstest;
use serde_json::json;
use std::path::Path;

pub(crate) fn provisioner(directory: &Path) -> Command {
    let mut command = Command::cargo_bin("provisioner").unwrap();
    command.current_dir(directory).env_clear().env("HOME", directory);
    command
}

pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Only a server on a thread of its own can answer while the test waits for the command.
pub(crate) fn with_server(test: impl FnOnce(&Server)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(Server::start());
    test(&server);
}

/// A tenant file of a tenant that somebody else registers: the scripted server has no PostgreSQL.
pub(crate) fn not_registered(directory: &Path) {
    std::fs::write(directory.join("acme.yaml"), "id: acme\nregistration: false\n").unwrap();
}

#[test]
fn apply_says_where_it_works_and_what_it_did() {
    let directory = directory();
    not_registered(directory.path());
    with_server(|server| {
        let apply = |id: &str| {
            let mut command = provisioner(directory.path());
            command
                .args(["apply", "--tenant-id", id, "-f", "acme.yaml"])
                .arg("--kubeconfig")
                .arg(server.kubeconfig());
            command
        };
        let first = format!(" INFO using context test (http://{})\n", server.address);
        apply("acme")
            .assert()
            .code(0)
            .stdout("namespace ai-agents-acme is ready: 15 created\n")
            .stderr(predicate::str::starts_with(first))
            .stderr(contains(" INFO generated 15 manifests in generated/acme\n"))
            .stderr(contains(
                " INFO created Deployment ai-agents-worker in ai-agents-acme\n",
            ))
            .stderr(contains(
                " INFO not registered with PostgreSQL and Redis: the tenant file says so\n",
            ))
            .stderr(contains("verified: quota in force"));
        apply("acme")
            .assert()
            .code(0)
            .stdout("namespace ai-agents-acme is ready: 15 unchanged\n");
        assert!(
            directory
                .path()
                .join("generated/acme/deployment-api-acme.yaml")
                .exists()
        );
    });
}

#[test]
fn apply_without_shared_services_names_what_is_missing_after_all_is_applied() {
    let directory = directory();
    with_server(|server| {
        let mut command = provisioner(directory.path());
        command
            .args(["apply", "--tenant-id", "acme"])
            .env("KUBECONFIG", server.kubeconfig());
        command
            .assert()
            .code(1)
            .stdout("")
            .stderr(contains(
                "INFO created Deployment ai-agents-api in ai-agents-acme\n",
            ))
            // Both are asked for at the same time, and the first that is missing is told.
            .stderr(contains(
                "-admin in database: it does not exist\nhint: an administrator's name and password",
            ));
        let admin = json!({"kind": "Secret", "data": {"username": "YQ==", "password": "YQ=="}});
        server.put(
            "/api/v1/namespaces/database/secrets/postgresql-admin",
            admin.clone(),
        );
        server.put("/api/v1/namespaces/database/secrets/redis-admin", admin);
        let mut command = provisioner(directory.path());
        command
            .args(["apply", "--tenant-id", "acme"])
            .env("KUBECONFIG", server.kubeconfig());
        command.assert().code(1).stderr(contains(
            "error: find PostgreSQL in database: Namespace database does not exist\nhint: put up the shared services",
        ));
    });
}

#[test]
fn delete_removes_the_namespace_and_the_files() {
    const KEPT: &str = "kept: what PostgreSQL and Redis hold of the tenant, rows, queue and accounts; it is removed by: provisioner delete --tenant-id acme --purge-data\n";
    let directory = directory();
    not_registered(directory.path());
    with_server(|server| {
        let run = |args: &[&str]| {
            let mut command = provisioner(directory.path());
            command.args(args).env("KUBECONFIG", server.kubeconfig());
            command.assert()
        };
        run(&["apply", "-f", "acme.yaml"]).code(0);
        run(&["delete", "--tenant-id=acme"])
            .code(2)
            .stdout("")
            .stderr("error: delete Namespace ai-agents-acme: there is no terminal to ask on\nhint: add --yes if you are sure\n");
        run(&["delete", "--tenant-id=acme", "--yes"])
            .code(0)
            .stdout(format!("namespace ai-agents-acme is deleted\n{KEPT}"))
            .stderr(contains("INFO goes: Namespace ai-agents-acme, with\n"))
            .stderr(contains("INFO   Deployment: ai-agents-api, ai-agents-worker\n"))
            .stderr(contains("INFO goes: generated files in generated/acme\n"))
            .stderr(contains(
                "INFO stays: role tenant-acme in PostgreSQL with its rows, user tenant-acme in Redis with its keys (they go with --purge-data)\n",
            ));
        assert!(!directory.path().join("generated/acme").exists());
        run(&["delete", "--tenant-id=acme", "--yes"])
            .code(0)
            .stdout(format!("namespace ai-agents-acme does not exist\n{KEPT}"));
        run(&["delete", "--tenant-id=acme", "--yes", "--purge-data"])
            .code(0)
            .stdout("namespace ai-agents-acme does not exist\nremoved from PostgreSQL and Redis: nothing\n")
            .stderr(contains(
                "nothing is there to hold data: find PostgreSQL in database: Namespace database does not exist",
            ));
    });
}

#[rstest]
#[case::apply(&["apply", "--tenant-id=acme"], "error: apply Namespace ai-agents-acme: it exists and is not ours: label managed-by is missing")]
#[case::delete(&["delete", "--tenant-id=acme", "--yes"], "error: delete Namespace ai-agents-acme: it is not ours: label managed-by is missing")]
fn what_is_not_ours_is_refused(#[case] args: &[&str], #[case] message: &str) {
    let directory = directory();
    with_server(|server| {
        server.put(
            "/api/v1/namespaces/ai-agents-acme",
            json!({"kind": "Namespace", "metadata": {"name": "ai-agents-acme"}}),
        );
        let mut command = provisioner(directory.path());
        command.args(args).env("KUBECONFIG", server.kubeconfig());
        command
            .assert()
            .code(1)
            .stdout("")
            .stderr(contains(message))
            .stderr(contains("`provisioner adopt`"));
    });
}

#[test]
fn generate_prints_the_files_in_order() {
    let directory = directory();
    let assert = provisioner(directory.path())
        .args(["generate", "--tenant-id", "acme"])
        .assert()
        .code(0)
        .stderr("");
    let stdout = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    assert!(
        stdout.starts_with("generated/acme/namespace-acme.yaml\ngenerated/acme/resourcequota-acme.yaml\n"),
        "{stdout}"
    );
    assert_eq!(stdout.lines().count(), 15);
}

#[rstest]
#[case::upper_case(&["generate", "--tenant-id=UPPER"], "tenant id \"UPPER\" has 'U' at position 1; use 1 to 53 of a-z")]
#[case::too_long(&["apply", "--tenant-id=a23456789-123456789-123456789-123456789-123456789-123456789-"], "has 60 characters")]
#[case::no_tenant(&["apply"], "--tenant-id <ID>")]
#[case::no_command(&[], "Usage: provisioner")]
#[case::bad_time(&["apply", "--tenant-id=a", "--timeout=soon"], "use a time with its unit, as in 90s or 2m")]
#[case::no_templates(&["generate", "--tenant-id=a", "--templates=/does/not/exist"], "error: read /does/not/exist: No such file or directory")]
#[case::no_tenant_file(&["generate", "-f", "/does/not/exist"], "error: read tenant file /does/not/exist: No such file")]
#[case::no_kubeconfig(&["apply", "--tenant-id=a"], "error: find kubeconfig: there is no file ")]
#[case::no_platform_command(&["platform"], "Usage: provisioner platform")]
#[case::no_platform_settings(&["platform", "diff", "-f", "/does/not/exist"], "error: read platform settings /does/not/exist: No such file")]
#[case::kubeconfig_gone(&["apply", "--tenant-id=a", "--kubeconfig=/does/not/exist"], "error: read kubeconfig /does/not/exist: No such file")]
fn what_cannot_be_used_is_named(#[case] args: &[&str], #[case] message: &str) {
    let directory = directory();
    provisioner(directory.path())
        .args(args)
        .assert()
        .code(2)
        .stdout("")
        .stderr(contains(message));
}

#[test]
fn a_tenant_file_with_a_mistake_names_line_and_field() {
    let directory = directory();
    std::fs::write(
        directory.path().join("t.yaml"),
        "id: acme\nquota:\n  limitsCPU: 4\n",
    )
    .unwrap();
    provisioner(directory.path())
        .args(["generate", "-f", "t.yaml"])
        .assert()
        .code(2)
        .stderr(contains(
            "error: read tenant file t.yaml: quota: unknown field `limitsCPU`",
        ))
        .stderr(contains("line 3"));
}

#[test]
fn a_template_with_a_missing_variable_names_file_and_line() {
    let directory = directory();
    std::fs::create_dir(directory.path().join("mine")).unwrap();
    std::fs::write(
        directory.path().join("mine/configmap.yaml.hbs"),
        "kind: ConfigMap\nid: {{TENNANT_ID}}\n",
    )
    .unwrap();
    provisioner(directory.path())
        .args(["generate", "--tenant-id=a", "--templates=mine"])
        .assert()
        .code(2)
        .stderr(
            "error: mine/configmap.yaml.hbs:2: variable TENNANT_ID does not exist; did you mean TENANT_ID?\n",
        );
}

#[test]
fn an_unknown_context_lists_those_that_exist() {
    let directory = directory();
    with_server(|server| {
        let mut command = provisioner(directory.path());
        command
            .args(["apply", "--tenant-id=a", "--cluster=prod"])
            .env("KUBECONFIG", server.kubeconfig());
        command
            .assert()
            .code(2)
            .stderr("error: use context prod: it does not exist; there are: test\nhint: name one of these\n");
    });
}

#[test]
fn a_broken_kubeconfig_is_named_without_its_secrets() {
    let directory = directory();
    let path = directory.path().join("kubeconfig");
    std::fs::write(&path, "users:\n- name: me\n  user: {token: s3cret\nclusters: [").unwrap();
    provisioner(directory.path())
        .args(["apply", "--tenant-id=a"])
        .env("KUBECONFIG", &path)
        .assert()
        .code(2)
        .stderr(contains("it is no kubeconfig (line "))
        .stderr(contains("s3cret").not());
}

#[test]
fn missing_files_of_the_list_are_skipped() {
    let directory = directory();
    not_registered(directory.path());
    with_server(|server| {
        let list = format!("/does/not/exist:{}", server.kubeconfig().display());
        let mut command = provisioner(directory.path());
        command.args(["apply", "-f", "acme.yaml"]).env("KUBECONFIG", list);
        // Such a proxy would be in the way: this machine is always reached directly.
        command.env("HTTPS_PROXY", "127.0.0.1:9");
        command.assert().code(0);
    });
}

#[test]
fn a_cluster_that_does_not_answer_is_given_up_soon() {
    let directory = directory();
    let path = with_dead_server(directory.path());
    provisioner(directory.path())
        .args(["apply", "--tenant-id=acme"])
        .env("KUBECONFIG", path)
        .timeout(std::time::Duration::from_secs(10))
        .assert()
        .code(1)
        .stderr(contains("error: get Namespace ai-agents-acme: given up after "))
        .stderr(contains("no connection"))
        .stderr(contains("Connection refused"))
        .stderr(contains("hint: check that the cluster is up"));
}

#[test]
fn delete_names_the_dns_entries_that_lead_to_the_tenant() {
    let directory = directory();
    let file = "id: acme\nregistration: false\ningress: {className: nginx, host: acme.example.org}\n";
    std::fs::write(directory.path().join("acme.yaml"), file).unwrap();
    with_server(|server| {
        let run = |args: &[&str]| {
            let mut command = provisioner(directory.path());
            command.args(args).env("KUBECONFIG", server.kubeconfig());
            command.assert()
        };
        run(&["apply", "-f", "acme.yaml"]).code(0);
        run(&["delete", "--tenant-id", "acme", "--yes"])
            .code(0)
            .stdout(contains(
                "DNS entry acme.example.org (Ingress ai-agents-api) leads nowhere now: remove it where your zone is kept\n",
            ))
            .stderr(contains(
                "INFO stays, yours to remove: DNS entry acme.example.org (Ingress ai-agents-api)\n",
            ));
        // The namespace is gone, and the file still names the host.
        run(&["delete", "-f", "acme.yaml", "--yes"])
            .code(0)
            .stdout(contains(
                "DNS entry acme.example.org (ingress.host of the tenant file) leads nowhere now",
            ));
    });
}

fn with_dead_server(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("kubeconfig");
    let config = json!({
        "current-context": "dead",
        "clusters": [{"name": "dead", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "dead", "context": {"cluster": "dead", "user": "me"}}],
        "users": [],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn the_platform_is_compared_and_applied_only_when_confirmed() {
    let directory = directory();
    with_server(|server| {
        server.put(
            "/api/v1/namespaces/database",
            json!({"kind": "Namespace", "metadata": {"name": "database"}}),
        );
        server.put(
            "/api/v1/namespaces/database/pods/backup-0",
            json!({"metadata": {"name": "backup-0"}, "spec": {"containers": []}, "status": {"phase": "Running"}}),
        );
        let run = |args: &[&str]| {
            let mut command = provisioner(directory.path());
            command
                .arg("platform")
                .args(args)
                .env("KUBECONFIG", server.kubeconfig());
            command.assert()
        };
        let output = run(&["diff"]).code(1).get_output().stdout.clone();
        let difference = String::from_utf8(output).unwrap();
        insta::assert_snapshot!("platform diff", difference);
        run(&["apply"])
            .code(2)
            .stdout(difference.clone())
            .stderr(contains(
                "error: apply platform: there is no terminal to ask on; nothing was changed\nhint: add --yes if you are sure\n",
            ));
        assert_eq!(server.writes(), Vec::<String>::new());
        run(&["apply", "--yes"])
            .code(0)
            .stdout(difference + "platform is applied: 18 created\n");
        run(&["diff"]).code(0).stderr(contains("INFO using context test"));
        run(&["apply"])
            .code(0)
            .stdout(predicate::str::ends_with("platform is applied: 18 unchanged\n"));
    });
}

#[rstest]
#[case::diff(&["diff"], 2)]
#[case::apply(&["apply", "--yes"], 1)]
fn a_missing_namespace_of_the_shared_services_is_named_with_its_remedy(
    #[case] args: &[&str],
    #[case] code: i32,
) {
    let directory = directory();
    with_server(|server| {
        let mut command = provisioner(directory.path());
        command
            .arg("platform")
            .args(args)
            .env("KUBECONFIG", server.kubeconfig());
        command
            .assert()
            .code(code)
            .stdout("")
            .stderr(contains(
                "error: find Namespace database of the shared services: it does not exist\nhint: put up the shared services first",
            ));
    });
}

#[rstest]
#[case::all(&["--help"])]
#[case::apply(&["apply", "--help"])]
#[case::adopt(&["adopt", "--help"])]
#[case::diff(&["diff", "--help"])]
#[case::delete(&["delete", "--help"])]
#[case::generate(&["generate", "--help"])]
#[case::list(&["list", "--help"])]
#[case::status(&["status", "--help"])]
#[case::tenant_new(&["tenant", "new", "--help"])]
#[case::platform(&["platform", "--help"])]
#[case::platform_diff(&["platform", "diff", "--help"])]
#[case::platform_apply(&["platform", "apply", "--help"])]
#[case::preflight(&["preflight", "--help"])]
fn help(#[case] args: &[&str]) {
    let directory = directory();
    let output = provisioner(directory.path())
        .args(args)
        .env("COLUMNS", "120")
        .output()
        .unwrap();
    insta::assert_snapshot!(args.join(" "), String::from_utf8(output.stdout).unwrap());
}

#[test]
fn the_script_applies_and_logs_to_stdout() {
    let directory = directory();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/create-tenant-namespace.sh");
    let binary = assert_cmd::cargo::cargo_bin("provisioner");
    not_registered(directory.path());
    with_server(|server| {
        let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
        let mut command = Command::new(&script);
        command
            .args(["--tenant-id=acme", "-f", "acme.yaml"])
            .current_dir(directory.path());
        command
            .env_clear()
            .env("PATH", path)
            .env("KUBECONFIG", server.kubeconfig());
        command
            .assert()
            .code(0)
            .stderr("")
            .stdout(contains("INFO created Namespace ai-agents-acme"))
            .stdout(predicate::str::ends_with(
                "namespace ai-agents-acme is ready: 15 created\n",
            ));
    });
}

//! Applying, against the scripted server: what is written, in which order, and what happens when it does not go well.

use crate::server::{SILENCE, Server, status};
use provisioner::{
    Applied, ApplyError, ApplyOptions, ConnectOptions, Manifest, Ownership, Silent, Stamp, Step, Templates,
    Tenant, apply, client_with_token, connect, ownership, render,
};
use rstest::rstest;
use serde_json::json;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "/api/v1/namespaces/ai-agents-acme";
const API: &str = "/apis/apps/v1/namespaces/ai-agents-acme/deployments/ai-agents-api";
const CONFIG: &str = "/api/v1/namespaces/ai-agents-acme/configmaps/ai-agents-config";

pub(crate) fn tenant() -> Tenant {
    Tenant::standard("acme".parse().unwrap())
}

pub(crate) fn manifests() -> Vec<Manifest> {
    render(&tenant(), &Templates::embedded(), &Stamp::default()).unwrap()
}

fn options() -> ApplyOptions {
    ApplyOptions {
        readiness: Some(Duration::from_secs(1)),
        patience: Duration::from_secs(2),
        ..ApplyOptions::default()
    }
}

pub(crate) async fn applied(server: &Server, manifests: &[Manifest]) -> Result<Applied, ApplyError> {
    apply(
        &server.client().await,
        manifests,
        &tenant().id,
        &options(),
        &Silent,
    )
    .await
}

fn place(writes: &[String], part: &str) -> usize {
    writes
        .iter()
        .position(|line| line.contains(part))
        .unwrap_or_else(|| panic!("{part} is not in {writes:#?}"))
}

#[tokio::test]
async fn a_tenant_is_made_in_order_and_nothing_runs_before_its_limits_are_in_force() {
    let server = Server::start().await;
    let result = applied(&server, &manifests()).await.unwrap();
    assert_eq!(result.to_string(), "15 created");
    let requests = server.state().requests.clone();
    let quota_asked = requests
        .iter()
        .rposition(|line| {
            line.ends_with("GET /api/v1/namespaces/ai-agents-acme/resourcequotas/tenant-acme-quota")
        })
        .unwrap();
    let writes = server.writes();
    assert_eq!(writes[0], "POST /api/v1/namespaces");
    for guard in [
        "resourcequotas",
        "limitranges",
        "serviceaccounts",
        "roles",
        "rolebindings",
        "networkpolicies",
    ] {
        assert!(place(&writes, guard) < place(&writes, "configmaps"), "{guard}");
    }
    assert!(place(&writes, "services/ai-agents-api") < place(&writes, "deployments"));
    assert!(quota_asked < place(&requests, "deployments/ai-agents-api"));
}

#[tokio::test]
async fn a_role_that_the_server_does_not_see_yet_is_waited_for() {
    let server = Server::start().await;
    let unseen = status(404, "NotFound", "rolebindings \"tenant-acme-role\" not found");
    server.script("PATCH", "/rolebindings/tenant-acme-rolebinding", 2, 404, unseen);
    assert_eq!(
        applied(&server, &manifests()).await.unwrap().to_string(),
        "15 created"
    );
}

#[tokio::test]
async fn the_second_apply_writes_nothing() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    server.writes();
    let result = applied(&server, &manifests()).await.unwrap();
    assert_eq!(result.to_string(), "15 unchanged");
    let requests = server.state().requests.clone();
    let reads = requests.iter().filter(|line| line.starts_with("GET")).count();
    assert_eq!(reads, requests.len(), "not even a dry run: {requests:#?}");
}

#[tokio::test]
async fn only_what_differs_is_written() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    server.writes();
    let mut tenant = tenant();
    tenant.worker.replicas = 2;
    let manifests = render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap();
    let result = applied(&server, &manifests).await.unwrap();
    assert_eq!(result.to_string(), "1 changed, 14 unchanged");
    assert_eq!(
        server.writes(),
        [format!("PATCH {}", API.replace("-api", "-worker"))]
    );
}

#[tokio::test]
async fn an_interrupted_apply_is_completed_by_the_next() {
    let server = Server::start().await;
    server.script(
        "PATCH",
        "/deployments/ai-agents-api",
        1,
        403,
        status(403, "Forbidden", "not now"),
    );
    applied(&server, &manifests()).await.unwrap_err();
    let result = applied(&server, &manifests()).await.unwrap();
    assert_eq!(result.to_string(), "1 created, 14 unchanged");
}

const CREDENTIALS: &str = "/api/v1/namespaces/ai-agents-acme/secrets/ai-agents-credentials";

fn held(server: &Server) -> serde_json::Value {
    server.state().objects[CREDENTIALS]["data"].clone()
}

#[tokio::test]
async fn credentials_are_made_before_anything_runs_and_stay() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    let writes = server.writes();
    let filled = writes
        .iter()
        .rposition(|line| *line == format!("PATCH {CREDENTIALS}"));
    assert!(filled.unwrap() < place(&writes, "deployments"));
    let first = held(&server);
    let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["POSTGRESQL_PASSWORD", "REDIS_PASSWORD", "WEBHOOK_SECRET"]);

    let result = applied(&server, &with_secret("type: Opaque\nimmutable: false\n"))
        .await
        .unwrap();
    assert_eq!(result.to_string(), "1 changed, 14 unchanged");
    assert_eq!(held(&server), first);
}

/// The manifests, of whose credentials the template ends in this.
fn with_secret(end: &str) -> Vec<Manifest> {
    let directory = tempfile::tempdir().unwrap();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../templates/tenant/51-secret-credentials.yaml.hbs"
    );
    let text = std::fs::read_to_string(path)
        .unwrap()
        .replace("type: Opaque\n", end);
    std::fs::write(directory.path().join("51-secret-credentials.yaml.hbs"), text).unwrap();
    let templates = Templates::with_overrides(directory.path()).unwrap();
    render(&tenant(), &templates, &Stamp::default()).unwrap()
}

#[tokio::test]
async fn a_key_that_is_missing_is_made_and_the_others_stay() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    let mut first = held(&server);
    let mut without = first.as_object().unwrap().clone();
    without.remove("REDIS_PASSWORD");
    server.state().objects.get_mut(CREDENTIALS).unwrap()["data"] = json!(without);
    server.writes();
    let result = applied(&server, &manifests()).await.unwrap();
    assert_eq!(result.to_string(), "1 changed, 14 unchanged");
    assert_eq!(server.writes(), [format!("PATCH {CREDENTIALS}")]);
    let mut second = held(&server);
    assert_ne!(first["REDIS_PASSWORD"].take(), second["REDIS_PASSWORD"].take());
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_value_of_the_template_is_taken_and_the_other_keys_are_made() {
    let server = Server::start().await;
    let manifests = with_secret("stringData: {REDIS_PASSWORD: chosen}\n");
    applied(&server, &manifests).await.unwrap();
    assert_eq!(held(&server)["REDIS_PASSWORD"], "Y2hvc2Vu");
    assert_eq!(held(&server).as_object().unwrap().len(), 3);
    server.writes();
    assert_eq!(
        applied(&server, &manifests).await.unwrap().to_string(),
        "15 unchanged"
    );
    assert_eq!(server.writes(), Vec::<String>::new());
    let shown = format!("{manifests:?}");
    assert!(
        !shown.contains("Y2hvc2Vu") && !shown.contains("chosen"),
        "{shown}"
    );
    for manifest in &manifests {
        assert!(!manifest.to_yaml().unwrap().contains("Y2hvc2Vu"));
    }
}

#[tokio::test]
async fn only_generated_values_give_way_to_the_template() {
    for (manager, forced) in [("ai-agents-credentials", 1), ("somebody", 0)] {
        let server = Server::start().await;
        applied(&server, &manifests()).await.unwrap();
        let mut body = status(409, "Conflict", "Apply failed with 1 conflict");
        body["details"] = json!({"causes": [{
            "reason": "FieldManagerConflict",
            "message": format!("conflict with \"{manager}\" using v1"),
            "field": ".data.REDIS_PASSWORD",
        }]});
        server.script("PATCH", "/secrets/ai-agents-credentials", 1, 409, body);
        let manifests = with_secret("stringData: {REDIS_PASSWORD: chosen}\n");
        let result = applied(&server, &manifests).await;
        if forced == 0 {
            let error = result.unwrap_err().to_string();
            assert!(
                error.ends_with(
                    ".data.REDIS_PASSWORD is (hidden), set by \"somebody\"; the templates say (hidden)"
                ),
                "{error}"
            );
        } else {
            assert_eq!(result.unwrap().to_string(), "1 changed, 14 unchanged");
        }
        assert_eq!(server.state().forced, forced, "{manager}");
    }
}

fn conflict() -> serde_json::Value {
    let mut body = status(409, "Conflict", "Apply failed with 1 conflict");
    body["details"] = json!({"causes": [{
        "reason": "FieldManagerConflict",
        "message": "conflict with \"kubectl-scale\" using apps/v1",
        "field": ".spec.replicas",
    }]});
    body
}

#[tokio::test]
async fn a_conflict_names_manager_field_and_both_values_and_changes_nothing() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    server.writes();
    server.state().objects.get_mut(API).unwrap()["spec"]["replicas"] = json!(5);
    server.script("PATCH", "/deployments/ai-agents-api", 9, 409, conflict());
    let mut changed = tenant();
    changed.name = Some("Another name".parse().unwrap());
    let manifests = render(&changed, &Templates::embedded(), &Stamp::default()).unwrap();
    let error = applied(&server, &manifests).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "apply: a field is set by others:\n  Deployment ai-agents-api in ai-agents-acme: .spec.replicas is 5, set by \"kubectl-scale\"; the templates say 1"
    );
    assert!(error.hint().unwrap().contains("--force-conflicts"));
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn force_takes_fields_back() {
    let server = Server::start().await;
    let client = server.client().await;
    let options = ApplyOptions {
        force_conflicts: true,
        ..options()
    };
    apply(&client, &manifests(), &tenant().id, &options, &Silent)
        .await
        .unwrap();
    // The scripted server does not judge conflicts; on a real one it is shown that the field is taken back.
    assert_eq!(server.state().forced, 15);
}

#[rstest]
#[case::no_labels(json!({}), "label managed-by is missing, expected \"ai-agents-platform\"")]
#[case::other_owner(json!({"managed-by": "helm", "tenant": "acme"}), "label managed-by is \"helm\", not \"ai-agents-platform\"")]
#[case::other_tenant(json!({"managed-by": "ai-agents-platform", "tenant": "other"}), "label tenant is \"other\", not \"acme\"")]
#[tokio::test]
async fn a_namespace_of_somebody_else_is_refused(#[case] labels: serde_json::Value, #[case] why: &str) {
    let server = Server::start().await;
    server.put(
        NAMESPACE,
        json!({"kind": "Namespace", "metadata": {"name": "ai-agents-acme", "labels": labels}}),
    );
    let error = applied(&server, &manifests()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("apply Namespace ai-agents-acme: it exists and is not ours: {why}")
    );
    assert!(error.hint().unwrap().contains("provisioner adopt"));
    assert_eq!(server.writes(), Vec::<String>::new());
}

/// The first look finds nothing, whatever is there.
fn made_since_we_looked(server: &Server, namespace: serde_json::Value) {
    server.put(NAMESPACE, namespace);
    let nothing = status(404, "NotFound", "not found");
    server.script("GET", "/namespaces/ai-agents-acme", 1, 404, nothing);
}

#[tokio::test]
async fn a_namespace_that_somebody_made_since_we_looked_is_not_taken_over() {
    let server = Server::start().await;
    let theirs = json!({"kind": "Namespace", "metadata": {"name": "ai-agents-acme"}});
    made_since_we_looked(&server, theirs);
    let before = server.state().objects[NAMESPACE].clone();
    let error = applied(&server, &manifests()).await.unwrap_err();
    assert!(matches!(error, ApplyError::Foreign { .. }), "{error}");
    assert_eq!(server.writes(), ["POST /api/v1/namespaces"]);
    assert_eq!(server.state().objects[NAMESPACE], before);
}

#[rstest]
#[case::before(false)]
#[case::since_we_looked(true)]
#[tokio::test]
async fn a_namespace_that_a_run_made_of_our_manifest_is_ours(#[case] since: bool) {
    let server = Server::start().await;
    let manifests = manifests();
    let namespace = serde_json::to_value(&manifests[0].object).unwrap();
    if since {
        made_since_we_looked(&server, namespace);
    } else {
        server.put(NAMESPACE, namespace);
    }
    let result = applied(&server, &manifests).await.unwrap();
    assert_eq!(result.to_string(), "14 created, 1 changed");
}

#[tokio::test]
async fn a_namespace_that_we_make_is_recorded_as_applied() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    let recorded = server.state().objects[NAMESPACE]["metadata"]["managedFields"].clone();
    assert_eq!(recorded.as_array().unwrap().len(), 1);
    assert_eq!(recorded[0]["operation"], "Apply");
}

#[tokio::test]
async fn a_namespace_that_a_run_marked_is_ours_and_says_so() {
    let server = Server::start().await;
    let stamp = Stamp {
        labels: [("ai-agents-platform/run-id".to_owned(), "r1".to_owned())].into(),
        annotations: [(
            "ai-agents-platform/expires".to_owned(),
            "2020-01-01T00:00:00Z".to_owned(),
        )]
        .into(),
    };
    let manifests = render(&tenant(), &Templates::embedded(), &stamp).unwrap();
    applied(&server, &manifests).await.unwrap();
    let Ownership::Ours {
        labels,
        annotations,
        terminating,
        ..
    } = ownership(&server.client().await, &tenant().id).await.unwrap()
    else {
        panic!("not ours");
    };
    assert_eq!(labels["ai-agents-platform/run-id"], "r1");
    assert_eq!(annotations["ai-agents-platform/expires"], "2020-01-01T00:00:00Z");
    assert!(!terminating);
}

#[tokio::test]
async fn a_namespace_that_does_not_go_is_named_and_nothing_is_written() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    server.state().objects.get_mut(NAMESPACE).unwrap()["metadata"]["deletionTimestamp"] =
        json!("2026-01-01T00:00:00Z");
    server.writes();
    let error = applied(&server, &manifests()).await.unwrap_err();
    assert!(matches!(error, ApplyError::Terminating { .. }), "{error}");
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_templates_no_longer_contain_is_pruned_and_what_is_not_ours_stays() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    let worn = |manager: &str| {
        json!({
            "kind": "ConfigMap",
            "metadata": {
                "namespace": "ai-agents-acme",
                "labels": {"managed-by": "ai-agents-platform", "tenant": "acme"},
                "managedFields": [{"manager": manager, "operation": "Apply"}],
            },
        })
    };
    server.put(
        &CONFIG.replace("ai-agents-config", "old"),
        worn("ai-agents-provisioner"),
    );
    server.put(&CONFIG.replace("ai-agents-config", "theirs"), worn("kubectl"));
    // What is in it would go with it.
    let claim = "/api/v1/namespaces/ai-agents-acme/persistentvolumeclaims/data";
    let mut volume = worn("ai-agents-provisioner");
    volume["kind"] = json!("PersistentVolumeClaim");
    server.put(claim, volume);
    let without_worker: Vec<Manifest> = manifests()
        .into_iter()
        .filter(|manifest| manifest.template != "deployment-worker")
        .collect();
    let result = applied(&server, &without_worker).await.unwrap();
    let pruned: Vec<String> = result.pruned.iter().map(ToString::to_string).collect();
    assert_eq!(
        pruned,
        [
            "ConfigMap old in ai-agents-acme",
            "Deployment ai-agents-worker in ai-agents-acme"
        ]
    );
    assert!(
        server.has(&CONFIG.replace("ai-agents-config", "theirs")) && server.has(CONFIG) && server.has(API)
    );
    assert!(server.has(claim));
}

#[tokio::test]
async fn no_namespace_is_ever_pruned_whatever_it_wears() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    let other = "/api/v1/namespaces/billing";
    let mut worn = server.state().objects[NAMESPACE].clone();
    worn["metadata"]["name"] = json!("billing");
    server.put(other, worn);
    server.writes();
    let result = applied(&server, &manifests()).await.unwrap();
    assert_eq!(result.to_string(), "15 unchanged");
    let without_namespace: Vec<Manifest> = manifests()
        .into_iter()
        .filter(|manifest| manifest.kind.kind != "Namespace")
        .collect();
    let result = applied(&server, &without_namespace).await.unwrap();
    assert_eq!(result.to_string(), "14 unchanged");
    assert_eq!(server.writes(), Vec::<String>::new());
    assert!(server.has(other) && server.has(NAMESPACE));
}

#[tokio::test]
async fn what_is_another_object_by_now_is_not_pruned() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    let mismatch = status(409, "Conflict", "the UID in the precondition does not match");
    server.script("DELETE", "/deployments/ai-agents-worker", 1, 409, mismatch);
    let another = json!({"kind": "Deployment", "metadata": {"name": "ai-agents-worker", "uid": "another"}});
    server.script("GET", "/deployments/ai-agents-worker", 1, 200, another);
    let without_worker: Vec<Manifest> = manifests()
        .into_iter()
        .filter(|manifest| manifest.template != "deployment-worker")
        .collect();
    let result = applied(&server, &without_worker).await.unwrap();
    assert_eq!(result.to_string(), "14 unchanged");
    assert!(server.has(&API.replace("-api", "-worker")));
}

#[tokio::test]
async fn kinds_that_may_not_be_listed_and_that_no_template_makes_are_passed_over() {
    let server = Server::start().await;
    applied(&server, &manifests()).await.unwrap();
    server.script(
        "GET",
        "/ingresses",
        9,
        403,
        status(403, "Forbidden", "ingresses is forbidden: User \"u\" cannot list"),
    );
    server.script(
        "GET",
        "/poddisruptionbudgets",
        9,
        404,
        status(404, "NotFound", "the server could not find it"),
    );
    assert_eq!(
        applied(&server, &manifests()).await.unwrap().to_string(),
        "15 unchanged"
    );
}

#[rstest]
#[case::slow_down(429)]
#[case::broken(500)]
#[case::unavailable(503)]
#[case::somebody_wrote_in_between(409)]
#[tokio::test]
async fn passing_failures_are_ridden_out_and_told(#[case] code: u16) {
    let server = Server::start().await;
    server.script(
        "PATCH",
        "/configmaps/ai-agents-config",
        2,
        code,
        status(code, "", "busy"),
    );
    let told = Mutex::new(Vec::new());
    let progress = |step: &Step| {
        if let Step::Retrying { what, why } = step {
            told.lock().unwrap().push(format!("{what}: {why}"));
        }
    };
    let client = server.client().await;
    let result = apply(&client, &manifests(), &tenant().id, &options(), &progress)
        .await
        .unwrap();
    assert_eq!(result.to_string(), "15 created");
    let expected = format!("apply ConfigMap ai-agents-config in ai-agents-acme: busy (status {code})");
    assert_eq!(*told.lock().unwrap(), [expected.clone(), expected]);
}

#[tokio::test]
async fn a_failure_that_does_not_pass_is_named_with_how_long_it_was_tried() {
    let server = Server::start().await;
    server.script(
        "PATCH",
        "/configmaps/ai-agents-config",
        999,
        500,
        status(500, "InternalError", "etcd is away"),
    );
    let started = Instant::now();
    let error = applied(&server, &manifests()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("apply ConfigMap ai-agents-config in ai-agents-acme: given up after "),
        "{error}"
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "etcd is away (status 500)");
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_after_the_patience() {
    let server = Server::start().await;
    server.script("PATCH", "/configmaps/ai-agents-config", 9, SILENCE, json!({}));
    let started = Instant::now();
    let error = applied(&server, &manifests()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("apply ConfigMap ai-agents-config in ai-agents-acme"),
        "{error}"
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("no answer within "), "{cause}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn credentials_that_are_not_accepted_are_final() {
    let server = Server::start().await;
    server.script(
        "GET",
        "/namespaces/ai-agents-acme",
        9,
        401,
        status(401, "Unauthorized", "Unauthorized"),
    );
    let error = applied(&server, &manifests()).await.unwrap_err();
    assert_eq!(error.to_string(), "get Namespace ai-agents-acme");
    assert!(error.hint().unwrap().contains("credentials"));
}

#[tokio::test]
async fn a_client_with_a_token_uses_it_and_nothing_else() {
    let server = Server::start().await;
    let options = ConnectOptions {
        kubeconfig: Some(server.kubeconfig()),
        context: None,
    };
    let connection = connect(&options).await.unwrap();
    let client = client_with_token(&connection.config, "another").unwrap();
    ownership(&connection.client, &tenant().id).await.unwrap();
    ownership(&client, &tenant().id).await.unwrap();
    assert_eq!(server.state().credentials, ["Bearer t0ken", "Bearer another"]);
}

#[tokio::test]
async fn a_refusal_is_final_and_names_the_object() {
    let server = Server::start().await;
    let message = "roles.rbac.authorization.k8s.io is forbidden: User \"u\" cannot patch resource \"roles\"";
    server.script(
        "PATCH",
        "/roles/tenant-acme-role",
        9,
        403,
        status(403, "Forbidden", message),
    );
    let started = Instant::now();
    let error = applied(&server, &manifests()).await.unwrap_err();
    assert_eq!(error.to_string(), "apply Role tenant-acme-role in ai-agents-acme");
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .starts_with(message)
    );
    assert!(error.hint().unwrap().contains("account with this right"));
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(!server.has(API), "nothing runs where a guard is missing");
}

#[tokio::test]
async fn nothing_runs_under_a_quota_that_is_not_in_force() {
    let server = Server::start().await;
    server.state().quota_controller_is_down = true;
    let error = applied(&server, &manifests()).await.unwrap_err();
    assert!(matches!(error, ApplyError::QuotaNotLive { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("limits.cpu is not in its status, 4 in its spec"),
        "{error}"
    );
    assert!(!server.has(API));
}

#[tokio::test]
async fn what_an_autoscaler_decided_is_not_taken_back() {
    const WORKER: &str = "/apis/apps/v1/namespaces/ai-agents-acme/deployments/ai-agents-worker";
    let server = Server::start().await;
    let mut autoscaled = tenant();
    autoscaled.autoscaling.enabled = true;
    let manifests = render(&autoscaled, &Templates::embedded(), &Stamp::default()).unwrap();
    let complete =
        json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
    server.state().deployment_status = Some(complete);
    applied(&server, &manifests).await.unwrap();
    assert!(
        server
            .has("/apis/autoscaling/v2/namespaces/ai-agents-acme/horizontalpodautoscalers/ai-agents-worker")
    );
    let three = json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3});
    let mut worker = server.state().objects[WORKER].clone();
    worker["spec"]["replicas"] = json!(3);
    worker["status"] = three;
    server.state().objects.insert(WORKER.to_owned(), worker);
    let again = applied(&server, &manifests).await.unwrap();
    assert_eq!(again.to_string(), format!("{} unchanged", manifests.len()));
    assert_eq!(server.state().objects[WORKER]["spec"]["replicas"], 3);
}

//! Taking over what `fixtures/adoption/by-kubectl.sh` makes, on a real cluster: what the server records of managers, and what becomes of it.

use super::{Case, READY_WITHIN, connected, run_the_agent, with_tenant};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use provisioner::adopt::{self, Adoption};
use provisioner::diff::{self, Extras, Options, State};
use provisioner::{AdoptError, ApplyError, ApplyOptions, Hardened, Manifest, Silent, Tenant, wait_ready_for};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The former procedure, for this tenant.
fn by_kubectl(case: &Case, more: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/adoption/by-kubectl.sh");
    let context = std::env::var("CONFORMANCE_TEST_CLUSTER").unwrap();
    let kubectl = match std::env::var("LAB_BINARY") {
        Ok(lab) => format!("{lab} kubectl --context {context}"),
        Err(_) => format!("kubectl --context {context}"),
    };
    let made = Command::new(script)
        .arg(format!("--tenant-id={}", case.tenant.id))
        .arg("--image=ai-agents.local/probe:1")
        .args(more)
        .env("KUBECTL", kubectl)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
}

async fn look(case: &Case, harden: &str) -> Result<Adoption, AdoptError> {
    let harden: Hardened = harden.parse().unwrap();
    let (client, id) = (&case.client, &case.tenant.id);
    adopt::look(client, &case.manifests(), id, &harden, &Silent).await
}

async fn take_over(case: &Case, harden: &str) -> Adoption {
    let adoption = look(case, harden).await.unwrap();
    provisioner::adopt(&case.client, &adoption, &Silent)
        .await
        .unwrap();
    adoption
}

fn changes(adoption: &Adoption, kind: &str, name: &str) -> Vec<String> {
    let mut objects = adoption.difference.objects.iter();
    let found = objects.find(|it| it.object.kind == kind && it.object.name == name);
    found
        .unwrap()
        .state
        .changes()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn has(lines: &[String], part: &str) {
    assert!(
        lines.iter().any(|line| line.contains(part)),
        "{part} is not in {lines:#?}"
    );
}

async fn live(case: &Case, kind: &str, name: &str) -> Value {
    let manifests = case.manifests();
    let found = manifests
        .iter()
        .find(|it| it.kind.kind == kind && it.name() == name);
    serde_json::to_value(case.live(found.unwrap()).await).unwrap()
}

/// What an apply leaves to do, and what widens the tenant.
async fn difference(case: &Case, manifests: &[Manifest]) -> diff::Difference {
    let options = Options {
        extras: Extras::InNamespace,
        ..Options::default()
    };
    diff::tenant(&case.client, manifests, &case.tenant.id, &options, &Silent)
        .await
        .unwrap()
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn what_kubectl_made_is_taken_over_and_no_later_apply_is_in_conflict() {
    with_tenant("by-kubectl", async |case| {
        by_kubectl(&case, &[]);
        let refused = case.apply(&case.manifests(), ApplyOptions::default()).await;
        assert!(
            matches!(refused, Err(ApplyError::Conflicts(_))),
            "a plain apply takes nothing: {refused:?}"
        );

        let adoption = look(&case, "").await.unwrap();
        let id = &case.tenant.id;
        let quota = format!("tenant-{id}-quota");
        has(
            &changes(&adoption, "ResourceQuota", &quota),
            ".spec.hard.pods: on the cluster \"20\"",
        );
        let api = changes(&adoption, "Deployment", "ai-agents-api");
        has(&api, "[name=\"api-container\"]");
        has(&api, "in the template not set");
        has(&changes(&adoption, "Service", "ai-agents-api"), "port=80");
        let managers: Vec<&str> = adoption
            .managers
            .iter()
            .flat_map(|(_, names)| names.iter().map(String::as_str))
            .collect();
        assert!(managers.contains(&"kubectl-create"), "{managers:?}");
        assert!(managers.contains(&"kubectl-client-side-apply"), "{managers:?}");
        let extras: Vec<&str> = adoption
            .difference
            .extras
            .iter()
            .map(|extra| extra.object.name.as_str())
            .collect();
        assert_eq!(extras, ["allow-debug"]);

        let adoption = take_over(&case, "").await;
        let wanted = &adoption.manifests;
        let containers =
            live(&case, "Deployment", "ai-agents-api").await["spec"]["template"]["spec"]["containers"]
                .clone();
        assert_eq!(containers.as_array().unwrap().len(), 1, "{containers}");
        assert_eq!(containers[0]["name"], "api");
        assert_eq!(containers[0]["env"], Value::Null);
        let service = live(&case, "Service", "ai-agents-api").await;
        assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 1, "{service}");
        assert_eq!(service["spec"]["ports"][0]["port"], 8000);
        // What an application reads, and labels, stay.
        let config = live(&case, "ConfigMap", "ai-agents-config").await;
        assert_eq!(config["data"]["FEATURE_FLAGS"], "beta");
        let secret = live(&case, "Secret", "ai-agents-credentials").await;
        assert_eq!(
            secret["data"]["WEBHOOK_SECRET"],
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
        );
        assert!(secret["data"]["REDIS_PASSWORD"].is_string());
        let namespace = live(&case, "Namespace", &case.namespace()).await;
        assert_eq!(namespace["metadata"]["labels"]["team"], "research");
        // Nothing is enforced that its workloads were not made for.
        let label = |name: &str| {
            namespace["metadata"]["labels"][format!("pod-security.kubernetes.io/{name}")].clone()
        };
        assert_eq!(
            (label("warn"), label("enforce")),
            (json!("restricted"), Value::Null)
        );

        let found = difference(&case, &case.manifests()).await;
        assert!(found.is_applied(), "{found}");
        assert_eq!(found.extras.len(), 1, "{found}");
        assert_eq!(found.left_out.len(), 4);
        let again = case
            .apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        assert_eq!(again.to_string(), "13 unchanged");
        assert!(look(&case, "").await.unwrap().is_done());

        // Every value may change later without a conflict.
        let mut later = case.clone();
        later.tenant.quota.pods = 9;
        later.tenant.api.size.memory_limit = "512Mi".parse().unwrap();
        let changed = later
            .apply(&later.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        assert_eq!(changed.to_string(), "2 changed, 11 unchanged");
        wait_ready_for(&case.client, id, wanted, READY_WITHIN, &Silent)
            .await
            .unwrap();
    })
    .await;
}

/// The tenant of a single-tenant installation, in a namespace that does not even say whose it is.
#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn the_single_tenant_default_is_taken_over_and_hardened_step_by_step() {
    let client = connected().await;
    let mut tenant = Tenant::standard("default".parse().unwrap());
    run_the_agent(&mut tenant);
    let case = Case {
        client,
        tenant,
        workloads: true,
    };
    let outcome = tokio::spawn(harden(case.clone())).await;
    // It may be nobody's still, which `delete` leaves alone.
    let namespaces: Api<Namespace> = Api::all(case.client.clone());
    let removed = namespaces
        .delete(&case.namespace(), &DeleteParams::default())
        .await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic.into_panic());
    }
    removed.expect("the namespace can be removed");
}

async fn harden(case: Case) {
    by_kubectl(&case, &["--without-owner-labels"]);
    let refused = case.apply(&case.manifests(), ApplyOptions::default()).await;
    assert!(matches!(refused, Err(ApplyError::Foreign { .. })), "{refused:?}");
    take_over(&case, "limitrange").await;
    let found = difference(&case, &case.manifests()).await;
    assert!(found.is_applied(), "{found}");
    let left: Vec<&str> = found.left_out.iter().map(|it| it.name()).collect();
    assert_eq!(left, ["pod-security", "default-deny-egress", "internet-except"]);
    let again = case
        .apply(&case.manifests(), ApplyOptions::default())
        .await
        .unwrap();
    assert_eq!(again.to_string(), "14 unchanged");

    let adoption = look(&case, "all").await.unwrap();
    let created: Vec<&str> = adoption
        .difference
        .objects
        .iter()
        .filter(|it| it.state == State::Create)
        .map(|it| it.object.name.as_str())
        .collect();
    assert_eq!(created, ["default-deny-egress"]);
    take_over(&case, "all").await;
    let found = difference(&case, &case.manifests()).await;
    assert!(found.is_applied() && found.left_out.is_empty(), "{found}");
    let namespace = live(&case, "Namespace", &case.namespace()).await;
    assert_eq!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
}

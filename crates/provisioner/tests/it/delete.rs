//! Deleting, against the scripted server: what goes, in which order, and what stays.

use crate::server::{Server, status};
use provisioner::{
    ApplyOptions, DeleteError, DeleteOptions, Deleted, Silent, Stamp, Templates, Tenant, apply, delete,
    inventory, render,
};
use serde_json::json;
use std::time::Duration;

const NAMESPACE: &str = "/api/v1/namespaces/ai-agents-acme";
const POD: &str = "/api/v1/namespaces/ai-agents-acme/pods/p1";

async fn tenant_with_a_pod() -> (Server, Tenant) {
    let server = Server::start().await;
    let tenant = Tenant::standard("acme".parse().unwrap());
    let manifests = render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap();
    apply(
        &server.client().await,
        &manifests,
        &tenant.id,
        &ApplyOptions::default(),
        &Silent,
    )
    .await
    .unwrap();
    server.put(
        POD,
        json!({"kind": "Pod", "metadata": {"name": "p1"}, "spec": {"nodeName": "n1", "containers": []}}),
    );
    server.writes();
    (server, tenant)
}

async fn deleted(server: &Server, tenant: &Tenant) -> Result<Deleted, DeleteError> {
    let options = DeleteOptions {
        deadline: Duration::from_secs(1),
    };
    delete(&server.client().await, &tenant.id, &options, &Silent).await
}

#[tokio::test]
async fn rights_go_first_then_workloads_then_pods_and_the_namespace_last() {
    let (server, tenant) = tenant_with_a_pod().await;
    let result = deleted(&server, &tenant).await.unwrap();
    assert!(result.existed);
    let writes = server.writes();
    let kinds: Vec<&str> = writes
        .iter()
        .map(|line| line.rsplit('/').nth(1).unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["rolebindings", "deployments", "deployments", "pods", "namespaces"],
        "{writes:#?}"
    );
    assert!(!server.has(NAMESPACE));
}

#[tokio::test]
async fn policies_outlive_pods_that_do_not_end() {
    let (server, tenant) = tenant_with_a_pod().await;
    server.state().sticky.push("/pods/".to_owned());
    server.state().objects.get_mut(POD).unwrap()["metadata"]["finalizers"] = json!(["example.org/hold"]);
    let error = deleted(&server, &tenant).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("pods are still there after 1s: p1 (finalizer example.org/hold (taken away by the controller of example.org))"),
        "{error}"
    );
    assert!(server.has(NAMESPACE));
    assert!(
        server
            .has("/apis/networking.k8s.io/v1/namespaces/ai-agents-acme/networkpolicies/default-deny-egress")
    );
}

#[tokio::test]
async fn a_namespace_that_stays_is_named_with_what_holds_it() {
    let (server, tenant) = tenant_with_a_pod().await;
    server
        .state()
        .sticky
        .push("/namespaces/ai-agents-acme".to_owned());
    server.state().objects.remove(POD);
    let condition = json!({"type": "NamespaceFinalizersRemaining", "status": "True",
        "message": "Some content in the namespace has finalizers remaining: example.org/hold in 1 resource instances"});
    server.state().objects.get_mut(NAMESPACE).unwrap()["status"] = json!({"conditions": [condition]});
    let error = deleted(&server, &tenant).await.unwrap_err();
    assert!(matches!(error, DeleteError::NamespaceStays { .. }), "{error}");
    assert!(error.to_string().contains("NamespaceFinalizersRemaining: Some content in the namespace has finalizers remaining: example.org/hold"), "{error}");
}

#[tokio::test]
async fn a_namespace_of_somebody_else_is_refused() {
    let server = Server::start().await;
    server.put(
        NAMESPACE,
        json!({"kind": "Namespace", "metadata": {"name": "ai-agents-acme"}}),
    );
    let error = deleted(&server, &Tenant::standard("acme".parse().unwrap()))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "delete Namespace ai-agents-acme: it is not ours: label managed-by is missing, expected \"ai-agents-platform\""
    );
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_namespace_that_does_not_exist_is_success() {
    let server = Server::start().await;
    let result = deleted(&server, &Tenant::standard("acme".parse().unwrap()))
        .await
        .unwrap();
    assert_eq!(result, Deleted::default());
}

#[tokio::test]
async fn an_interrupted_deletion_is_continued() {
    let (server, tenant) = tenant_with_a_pod().await;
    server.script(
        "DELETE",
        "/namespaces/ai-agents-acme",
        1,
        403,
        status(403, "Forbidden", "not now"),
    );
    deleted(&server, &tenant).await.unwrap_err();
    assert!(deleted(&server, &tenant).await.unwrap().existed);
    assert!(!server.has(NAMESPACE));
}

fn another_uid() -> serde_json::Value {
    status(409, "Conflict", "the UID in the precondition does not match")
}

#[tokio::test]
async fn a_namespace_that_was_made_again_meanwhile_is_looked_at_again() {
    let (server, tenant) = tenant_with_a_pod().await;
    server.script("DELETE", "/namespaces/ai-agents-acme", 1, 409, another_uid());
    assert!(deleted(&server, &tenant).await.unwrap().existed);
    let requests = server.state().requests.clone();
    let refused = requests
        .iter()
        .position(|line| *line == format!("DELETE {NAMESPACE}"))
        .unwrap();
    assert_eq!(requests[refused + 1], format!("GET {NAMESPACE}"));
    assert!(!server.has(NAMESPACE));
}

#[tokio::test]
async fn a_namespace_that_somebody_else_made_again_meanwhile_stays() {
    let (server, tenant) = tenant_with_a_pod().await;
    server.script("DELETE", "/namespaces/ai-agents-acme", 1, 409, another_uid());
    // The first look still finds ours.
    let ours = server.state().objects[NAMESPACE].clone();
    server.script("GET", "/namespaces/ai-agents-acme", 1, 200, ours);
    server.put(
        NAMESPACE,
        json!({"kind": "Namespace", "metadata": {"name": "ai-agents-acme"}}),
    );
    let error = deleted(&server, &tenant).await.unwrap_err();
    assert!(matches!(error, DeleteError::Foreign { .. }), "{error}");
    assert!(server.has(NAMESPACE));
}

/// The namespace waits for a ConfigMap and for an object of a kind that we do not know.
#[tokio::test]
async fn an_object_that_a_finalizer_holds_is_named_with_who_takes_it_away() {
    let (server, tenant) = tenant_with_a_pod().await;
    server
        .state()
        .sticky
        .push("/namespaces/ai-agents-acme".to_owned());
    server.state().objects.remove(POD);
    let held = |name: &str, finalizer: &str| json!({"metadata": {"name": name, "finalizers": [finalizer]}});
    server.put(
        "/api/v1/namespaces/ai-agents-acme/configmaps/keep",
        held("keep", "example.org/hold"),
    );
    server.put(
        "/apis/example.com/v2/namespaces/ai-agents-acme/widgets/w1",
        held("w1", "widgets.example.com/cleanup"),
    );
    server.put(
        "/api/v1",
        json!({"resources": [{"name": "configmaps", "kind": "ConfigMap"}]}),
    );
    server.put(
        "/apis/example.com",
        json!({"preferredVersion": {"groupVersion": "example.com/v2"}}),
    );
    server.put(
        "/apis/example.com/v2",
        json!({"resources": [{"name": "widgets", "kind": "Widget"}]}),
    );
    let condition = json!({"type": "NamespaceContentRemaining", "status": "True",
        "message": "Some resources are remaining: configmaps. has 1 resource instances, widgets.example.com has 1 resource instances"});
    server.state().objects.get_mut(NAMESPACE).unwrap()["status"] = json!({"conditions": [condition]});
    let error = deleted(&server, &tenant).await.unwrap_err().to_string();
    for line in [
        "\n  ConfigMap keep in ai-agents-acme: finalizer example.org/hold (taken away by the controller of example.org)",
        "\n  Widget w1 in ai-agents-acme: finalizer widgets.example.com/cleanup (taken away by the controller of widgets.example.com)",
    ] {
        assert!(error.contains(line), "{error}");
    }
}

#[tokio::test]
async fn what_is_there_and_what_leads_there_is_told_before_it_goes() {
    let (server, tenant) = tenant_with_a_pod().await;
    server.put(
        "/apis/networking.k8s.io/v1/namespaces/ai-agents-acme/ingresses/web",
        json!({"kind": "Ingress", "metadata": {"name": "web"}, "spec": {"rules": [{"host": "acme.example.org"}]}}),
    );
    server.script(
        "GET",
        "/secrets",
        1,
        403,
        status(403, "Forbidden", "secrets is forbidden"),
    );
    let inventory = inventory(&server.client().await, &tenant.id).await.unwrap();
    let lines = inventory.lines();
    for line in [
        "Deployment: ai-agents-api, ai-agents-worker",
        "Pod: p1",
        "Ingress: web",
        "and what there is of these, which you may not list: secrets",
    ] {
        assert!(lines.contains(&line.to_owned()), "{lines:#?}");
    }
    assert_eq!(inventory.dns_entries.len(), 1);
    assert_eq!(inventory.dns_entries[0].name, "acme.example.org");
    assert_eq!(server.writes(), Vec::<String>::new());
}

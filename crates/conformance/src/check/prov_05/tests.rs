//! PROV-05 against a scripted API server that holds a tenant as the templates make it, and what somebody did to it.

use super::*;
use crate::scripted::{Asked, judged, ok, refuse};
use axum::response::Response;
use rstest::rstest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The objects of the cluster, by path.
type Objects = BTreeMap<String, Value>;

const NAMESPACE: &str = "/api/v1/namespaces/ai-agents-a";
const QUOTA: &str = "/api/v1/namespaces/ai-agents-a/resourcequotas/tenant-a-quota";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/ai-agents-a/networkpolicies";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/ai-agents-a/rolebindings";
const CLUSTER_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

fn manifests() -> Vec<Manifest> {
    let settings = crate::settings::resolve(
        "scripted",
        &crate::settings::Overrides {
            tenants: Some(vec!["a".into(), "b".into()]),
            ..Default::default()
        },
    )
    .unwrap();
    let templates = provisioner::Templates::embedded();
    provisioner::render(&settings.tenants[0], &templates, &provisioner::Stamp::default()).unwrap()
}

fn path(manifest: &Manifest) -> String {
    let kind = manifest.kind;
    let root = if kind.group.is_empty() { "/api" } else { "/apis" };
    let place = match &manifest.object.metadata.namespace {
        Some(namespace) => format!("/namespaces/{namespace}"),
        None => String::new(),
    };
    format!(
        "{root}/{}{place}/{}/{}",
        kind.api_version(),
        kind.plural,
        manifest.name()
    )
}

fn applied(mut object: Value) -> Value {
    object["metadata"]["resourceVersion"] = json!("7");
    object["metadata"]["managedFields"] = json!([{"manager": "ai-agents-provisioner", "operation": "Apply"}]);
    object
}

/// A tenant as an apply left it.
fn provisioned() -> Objects {
    let all = manifests();
    let object = |manifest: &Manifest| {
        let object = applied(serde_json::to_value(&manifest.object).unwrap());
        (path(manifest), object)
    };
    all.iter().map(object).collect()
}

/// The same, with something done to it.
fn changed(change: impl FnOnce(&mut Objects)) -> Objects {
    let mut objects = provisioned();
    change(&mut objects);
    objects
}

fn with(path: &str, name: &str, rest: &Value) -> Objects {
    changed(|objects| {
        let mut object = json!({ "metadata": { "name": name, "namespace": "ai-agents-a", "managedFields": [{"manager": "kubectl-create", "operation": "Update"}] } });
        object
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        objects.insert(format!("{path}/{name}"), object);
    })
}

fn edited(path: &'static str, pointer: &'static str, value: Value) -> Objects {
    changed(|objects| *objects.get_mut(path).unwrap().pointer_mut(pointer).unwrap() = value)
}

fn answer(objects: &Objects, asked: &Asked) -> Response {
    let one = objects.get(&asked.path);
    match (asked.method.as_str(), one) {
        // A field that the template sets is somebody else's where it has another value.
        ("PATCH", Some(live)) => {
            assert!(asked.is_dry(), "{}", asked.path);
            let mut wanted = applied(asked.body.clone());
            for (key, value) in live["metadata"]["labels"].as_object().into_iter().flatten() {
                if wanted["metadata"]["labels"][key].is_null() {
                    wanted["metadata"]["labels"][key] = value.clone();
                }
            }
            ok(&wanted)
        }
        ("PATCH", None) => ok(&asked.body),
        ("GET", Some(live)) => ok(live),
        ("GET", None)
            if asked.path.split('/').count().is_multiple_of(2) == asked.path.starts_with("/apis") =>
        {
            refuse(404, "NotFound", "not found")
        }
        ("GET", None) => {
            let prefix = format!("{}/", asked.path);
            let owned = asked.query.contains("labelSelector");
            let items: Vec<&Value> = objects
                .iter()
                .filter(|(path, _)| path.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')))
                .map(|(_, object)| object)
                .filter(|object| !owned || object["metadata"]["labels"]["tenant"] == "a")
                .collect();
            ok(&json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
        }
        _ => refuse(405, "MethodNotAllowed", "this check changes nothing"),
    }
}

async fn verdict(objects: Objects) -> (&'static str, String) {
    let objects = Arc::new(objects);
    judged(&Prov05, move |asked| answer(&objects, asked)).await
}

fn subject(kind: &str, name: &str) -> Value {
    json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": kind, "name": name, "namespace": "ai-agents-b"}],
    })
}

#[rstest]
#[case::as_the_templates_say(provisioned(), "passed", "beside stricter templates: one too many")]
#[case::a_label_of_somebodys_own(changed(|objects| objects.get_mut(NAMESPACE).unwrap()["metadata"]["labels"]["team"] = json!("x")), "passed", "as the templates say")]
#[case::a_note_of_somebodys_own(changed(|objects| objects.get_mut(NAMESPACE).unwrap()["metadata"]["annotations"]["note"] = json!("x")), "passed", "as the templates say")]
#[case::a_policy_that_tightens(with(POLICIES, "more", &json!({"spec": {"podSelector": {}, "policyTypes": ["Egress"]}})), "passed", "looked at 5 NetworkPolicy")]
#[case::a_larger_second_quota(with("/api/v1/namespaces/ai-agents-a/resourcequotas", "more", &json!({"spec": {"hard": {"pods": "99"}}})), "passed", "looked at 2 ResourceQuota")]
#[case::a_trusted_administrator(with(CLUSTER_BINDINGS, "admins", &subject("User", "root")), "passed", "looked at 1 ClusterRoleBinding")]
#[case::a_policy_that_allows(with(POLICIES, "debug", &json!({"spec": {"podSelector": {}, "ingress": [{}]}})), "failed", "made by kubectl-create, it opens ingress from everybody to all pods: any port")]
#[case::a_binding_beside_ours(with(BINDINGS, "debug", &subject("User", "eve")), "failed", "the rights of ClusterRole view to User eve")]
#[case::a_binding_of_a_tenants_account(with(CLUSTER_BINDINGS, "wide", &subject("ServiceAccount", "sa-b")), "failed", "in every namespace, to ServiceAccount sa-b in ai-agents-b")]
#[case::a_larger_quota(edited(QUOTA, "/spec/hard/pods", json!("100")), "failed", ".spec.hard.pods is \\\"10\\\"")]
#[case::a_second_account(edited("/apis/rbac.authorization.k8s.io/v1/namespaces/ai-agents-a/rolebindings/tenant-a-rolebinding", "/subjects", json!([{"kind": "User", "name": "eve"}])), "failed", ".subjects")]
#[case::a_policy_taken_away(changed(|objects| drop(objects.remove(&format!("{POLICIES}/default-deny-ingress")))), "failed", "NetworkPolicy default-deny-ingress in ai-agents-a is there, as the templates say")]
#[case::pod_security_lowered(edited(NAMESPACE, "/metadata/labels/pod-security.kubernetes.io~1enforce", json!("privileged")), "failed", "pod-security.kubernetes.io/enforce is \\\"restricted\\\"")]
#[tokio::test]
async fn what_isolates_is_compared_and_the_rest_left_alone(
    #[case] objects: Objects,
    #[case] word: &str,
    #[case] text: &str,
) {
    let (seen, said) = verdict(objects).await;
    assert_eq!(seen, word, "{said}");
    assert!(said.contains(text), "{said}");
}

/// What differs in a Deployment is no matter of isolation, and others change it on purpose.
#[tokio::test]
async fn workloads_are_others_matter() {
    const API: &str = "/apis/apps/v1/namespaces/ai-agents-a/deployments/ai-agents-api";
    let (seen, said) = verdict(edited(API, "/spec/replicas", json!(3))).await;
    assert_eq!(seen, "passed", "{said}");
}

#[derive(Clone, Copy)]
enum Trouble {
    /// Lists leave somebody's objects out.
    PoliciesHidden,
    /// A dry run answers what is there, whatever is asked for.
    DryRunsSayNothing,
    NoClusterBindings,
    Unauthorized,
}

#[rstest]
#[case::policies_hidden(
    Trouble::PoliciesHidden,
    "all NetworkPolicy objects were looked at: 0 were seen, and the templates have 4"
)]
#[case::dry_runs_say_nothing(
    Trouble::DryRunsSayNothing,
    "ResourceQuota tenant-a-quota in ai-agents-a beside stricter templates: the comparison says it is the same"
)]
#[case::no_cluster_bindings(
    Trouble::NoClusterBindings,
    "could not be looked at: list clusterrolebindings"
)]
#[case::unauthorized(Trouble::Unauthorized, "compare tenant a with its templates")]
#[tokio::test]
async fn what_cannot_be_told_is_neither_the_same_nor_drift(#[case] trouble: Trouble, #[case] text: &str) {
    let objects = Arc::new(provisioned());
    let script = move |asked: &Asked| match trouble {
        Trouble::PoliciesHidden
            if asked.last() == "networkpolicies" && !asked.query.contains("labelSelector") =>
        {
            ok(&json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": [] }))
        }
        Trouble::DryRunsSayNothing if asked.method == "PATCH" => ok(&objects[&asked.path]),
        Trouble::NoClusterBindings if asked.last() == "clusterrolebindings" => refuse(
            403,
            "Forbidden",
            "User \"me\" cannot list resource \"clusterrolebindings\"",
        ),
        Trouble::Unauthorized => refuse(401, "Unauthorized", "Unauthorized"),
        _ => answer(&objects, asked),
    };
    let (seen, said) = judged(&Prov05, script).await;
    assert_eq!(seen, "inconclusive", "{said}");
    assert!(said.contains(text), "{said}");
}

//! What widens a tenant, object by object.

use super::*;
use crate::{Stamp, Templates, Tenant, render};
use rstest::rstest;
use serde_json::json;

fn manifests() -> Vec<Manifest> {
    let tenant = Tenant::standard("acme".parse().unwrap());
    render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap()
}

fn kind(name: &str) -> &'static Kind {
    let all = kinds::TENANT.iter().chain(kinds::PLATFORM);
    all.copied().find(|kind| kind.kind == name).unwrap()
}

/// The object of our templates, with these fields beside them.
fn ours(kind: &str, name: &str, merged: &Value) -> DynamicObject {
    let manifests = manifests();
    let found = manifests
        .iter()
        .find(|it| it.kind.kind == kind && it.name() == name);
    let mut object = serde_json::to_value(&found.unwrap().object).unwrap();
    merge(&mut object, merged);
    serde_json::from_value(object).unwrap()
}

fn merge(object: &mut Value, more: &Value) {
    match (object, more) {
        (Value::Object(object), Value::Object(more)) => {
            for (key, value) in more {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, more) => *object = more.clone(),
    }
}

fn theirs(name: &str, rest: &Value) -> DynamicObject {
    let mut object = json!({
        "metadata": {
            "name": name, "namespace": "ai-agents-acme", "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [
                {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-03T00:00:00Z"},
                {"manager": "kubectl-create", "operation": "Update", "time": "2026-01-02T03:04:05Z"},
            ],
        },
    });
    merge(&mut object, rest);
    serde_json::from_value(object).unwrap()
}

fn extras(kind_name: &str, object: DynamicObject) -> Vec<Extra> {
    let manifests = manifests();
    let around = Around {
        namespace: "ai-agents-acme".to_owned(),
        objects: vec![(kind(kind_name), object)],
        unseen: Vec::new(),
    };
    let known = manifests.iter().map(Manifest::reference).collect();
    around.extras(&manifests, &known)
}

fn opens(kind: &str, object: DynamicObject) -> Vec<String> {
    extras(kind, object)
        .into_iter()
        .flat_map(|extra| extra.opens)
        .collect()
}

#[rstest]
#[case::node_port(
    json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}}),
    &["the Service's pods to clients outside of the cluster: type NodePort, every node's port 30080"],
)]
#[case::load_balancer(json!({"spec": {"type": "LoadBalancer"}}), &["the Service's pods to clients outside of the cluster: type LoadBalancer"])]
#[case::external_addresses(
    json!({"spec": {"type": "ClusterIP", "externalIPs": ["192.0.2.7"]}}),
    &["traffic for 192.0.2.7 to the Service's pods, also that of other tenants to whoever has these addresses: externalIPs"],
)]
#[case::elsewhere(
    json!({"spec": {"type": "ExternalName", "externalName": "db.example.com"}}),
    &["a way to db.example.com for the ingress and whoever else asks for the Service: type ExternalName"],
)]
#[case::inside(json!({"spec": {"type": "ClusterIP"}}), &[])]
fn a_service_that_is_reached_from_outside_widens(#[case] rest: Value, #[case] expected: &[&str]) {
    assert_eq!(opens("Service", theirs("debug", &rest)), expected);
}

#[test]
fn what_others_add_to_our_own_objects_is_found_where_an_apply_is_blind() {
    let service = ours(
        "Service",
        "ai-agents-api",
        &json!({"spec": {"externalIPs": ["192.0.2.7"]}}),
    );
    assert_eq!(opens("Service", service).len(), 1);
    let quota = ours(
        "ResourceQuota",
        "tenant-acme-quota",
        &json!({"spec": {"scopes": ["NotTerminating"]}}),
    );
    assert_eq!(
        opens("ResourceQuota", quota),
        ["the quota to pods that it no longer counts: spec.scopes is [\"NotTerminating\"]"]
    );
    let deployment = ours(
        "Deployment",
        "ai-agents-worker",
        &json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}),
    );
    assert_eq!(
        opens("Deployment", deployment),
        ["the node's network to the pods: hostNetwork"]
    );
    let pinned = |version: &str| {
        let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce-version": version}}});
        opens("Namespace", ours("Namespace", "ai-agents-acme", &labels))
    };
    assert_eq!(pinned("v1.25").len(), 1);
    assert_eq!(pinned("latest"), Vec::<String>::new());
}

#[rstest]
#[case("Namespace", "ai-agents-acme")]
#[case("ResourceQuota", "tenant-acme-quota")]
#[case("RoleBinding", "tenant-acme-rolebinding")]
#[case("NetworkPolicy", "allow-egress-shared-services")]
#[case("Service", "ai-agents-api")]
#[case("Deployment", "ai-agents-api")]
#[case("Deployment", "ai-agents-worker")]
fn our_own_objects_are_no_extras(#[case] kind: &str, #[case] name: &str) {
    assert_eq!(extras(kind, ours(kind, name, &json!({}))), Vec::new());
}

#[test]
fn what_others_run_on_the_node_or_lead_in_from_outside_widens() {
    let ingress = json!({"spec": {"rules": [{"http": {"paths": [{"path": "/", "backend": {"service": {"name": "ai-agents-api"}}}]}}]}});
    assert_eq!(
        opens("Ingress", theirs("debug", &ingress)),
        ["Service ai-agents-api to clients outside of the cluster: / of every host"]
    );
    let agent = json!({"spec": {"template": {"spec": {"hostPID": true}}}});
    assert_eq!(
        opens("Deployment", theirs("agent", &agent)),
        ["the node's processes to the pods: hostPID"]
    );
}

#[test]
fn who_may_look_at_what_we_may_not_is_said() {
    let of = |name: &str| unseen(kind(name), "list x: forbidden");
    assert!(of("Ingress").starts_with("list x: forbidden; a member of platform-admins may"));
    assert!(of("ClusterRoleBinding").starts_with("list x: forbidden; a cluster administrator may"));
}

#[rstest]
#[case::second_quota("ResourceQuota", json!({"spec": {"hard": {"pods": "1000"}}}))]
#[case::policy_that_only_denies("NetworkPolicy", json!({"spec": {"podSelector": {}, "policyTypes": ["Egress"]}}))]
#[case::deployment_of_others("Deployment", json!({"spec": {"template": {"spec": {"containers": [{"name": "x"}]}}}}))]
#[case::ingress_without_rules("Ingress", json!({"spec": {}}))]
#[case::binding_of_nobody("RoleBinding", json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": "x"}}))]
fn what_only_tightens_or_gives_nothing_is_no_extra(#[case] kind: &str, #[case] rest: Value) {
    assert_eq!(extras(kind, theirs("theirs", &rest)), Vec::new());
}

#[test]
fn an_extra_says_what_it_opens_who_made_it_and_what_to_do() {
    let policy = theirs("debug", &json!({"spec": {"podSelector": {}, "ingress": [{}]}}));
    let binding = theirs(
        "debug",
        &json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        }),
    );
    let found = [extras("NetworkPolicy", policy), extras("RoleBinding", binding)].concat();
    let text: String = found.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_about_to_be_pruned_is_no_extra() {
    let policy = theirs("debug", &json!({"spec": {"podSelector": {}, "ingress": [{}]}}));
    let around = Around {
        namespace: "ai-agents-acme".to_owned(),
        objects: vec![(kind("NetworkPolicy"), policy)],
        unseen: Vec::new(),
    };
    let pruned = ObjectRef {
        kind: "NetworkPolicy".to_owned(),
        name: "debug".to_owned(),
        namespace: Some("ai-agents-acme".to_owned()),
    };
    assert_eq!(around.extras(&manifests(), &[pruned].into()), Vec::new());
}

//! Whom a binding gives rights in a tenant's namespace that its templates do not. Pure.
//!
//! In the namespace every binding counts. Of the cluster's, which give their rights in every namespace
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#rolebinding-and-clusterrolebinding>), those count that reach a
//! tenant's account or everybody: whom else a cluster trusts, its administrators and the accounts of its own components, is up to it.

use crate::apply::objects::was_applied_by_us;
use crate::labels;
use k8s_openapi::api::rbac::v1::{RoleRef, Subject};
use kube::core::DynamicObject;
use serde_json::Value;

/// Default bindings of groups that everybody is in, to what discovery takes:
/// <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles>, and for the last
/// <https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery>.
const DISCOVERY: [&str; 4] = [
    "system:basic-user",
    "system:discovery",
    "system:public-info-viewer",
    "system:service-account-issuer-discovery",
];
/// Groups and users that nobody is kept out of, or no pod is.
const EVERYBODY: [&str; 4] = [
    "system:authenticated",
    "system:unauthenticated",
    "system:anonymous",
    "system:serviceaccounts",
];

/// Rights that the binding gives, one line for each subject.
pub(super) fn given(binding: &DynamicObject) -> Vec<String> {
    let role = role(binding);
    subjects(binding)
        .iter()
        .map(|subject| format!("{role} to {}", name(subject)))
        .collect()
}

/// The same of a ClusterRoleBinding, as far as it reaches tenants' accounts or everybody; nothing of the platform's and the system's own.
pub(super) fn given_to_tenants(binding: &DynamicObject) -> Vec<String> {
    if is_platforms(binding) {
        return Vec::new();
    }
    let is_discovery = is_discovery(binding);
    reaching(binding, "in every namespace", |subject| {
        is_tenants(subject) || is_everybody(subject) && !is_discovery
    })
}

/// The same of a RoleBinding in a namespace that is no tenant's; no template makes one there.
pub(crate) fn given_to_tenants_in(binding: &DynamicObject, namespace: &str) -> Vec<String> {
    reaching(binding, &format!("in {namespace}"), |subject| {
        is_tenants(subject) || is_everybody(subject)
    })
}

fn reaching(binding: &DynamicObject, place: &str, counts: impl Fn(&Subject) -> bool) -> Vec<String> {
    let role = role(binding);
    subjects(binding)
        .iter()
        .filter(|subject| counts(subject))
        .map(|subject| format!("{role}, {place}, to {}", name(subject)))
        .collect()
}

/// What platform templates made: `platform diff` compares it with them.
fn is_platforms(binding: &DynamicObject) -> bool {
    let labels = binding.metadata.labels.as_ref();
    let managed = labels.and_then(|labels| labels.get(labels::MANAGED_BY));
    managed.is_some_and(|value| value == labels::MANAGED_BY_VALUE) && was_applied_by_us(binding)
}

/// The server itself keeps these, each to the role of its own name.
fn is_discovery(binding: &DynamicObject) -> bool {
    let name = binding.metadata.name.as_deref().unwrap_or_default();
    let role = binding.data.pointer("/roleRef/name").and_then(Value::as_str);
    DISCOVERY.contains(&name) && role == Some(name)
}

fn subjects(binding: &DynamicObject) -> Vec<Subject> {
    let subjects = binding.data.get("subjects").cloned().unwrap_or_default();
    serde_json::from_value(subjects).unwrap_or_default()
}

fn role(binding: &DynamicObject) -> String {
    let role = binding.data.get("roleRef").cloned().unwrap_or_default();
    let RoleRef { kind, name, .. } = serde_json::from_value(role).unwrap_or_default();
    format!("the rights of {kind} {name}")
}

fn name(subject: &Subject) -> String {
    let namespace = subject.namespace.as_deref();
    let place = namespace.map(|namespace| format!(" in {namespace}"));
    format!("{} {}{}", subject.kind, subject.name, place.unwrap_or_default())
}

fn is_everybody(subject: &Subject) -> bool {
    matches!(subject.kind.as_str(), "Group" | "User") && EVERYBODY.contains(&subject.name.as_str())
}

/// Accounts are users and groups of these names too:
/// <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-subjects>.
fn is_tenants(subject: &Subject) -> bool {
    let namespace = match subject.kind.as_str() {
        "ServiceAccount" => subject.namespace.as_deref(),
        "User" => subject.name.strip_prefix("system:serviceaccount:"),
        "Group" => subject.name.strip_prefix("system:serviceaccounts:"),
        _ => None,
    };
    namespace.is_some_and(|namespace| namespace.starts_with(labels::NAMESPACE_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn binding(name: &str, role: &str, subject: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [subject],
        }))
        .unwrap()
    }

    #[rstest]
    #[case::tenants_account(json!({"kind": "ServiceAccount", "name": "sa-acme", "namespace": "ai-agents-acme"}), true)]
    #[case::tenants_account_as_user(json!({"kind": "User", "name": "system:serviceaccount:ai-agents-acme:sa-acme"}), true)]
    #[case::tenants_accounts(json!({"kind": "Group", "name": "system:serviceaccounts:ai-agents-acme"}), true)]
    #[case::all_accounts(json!({"kind": "Group", "name": "system:serviceaccounts"}), true)]
    #[case::everybody(json!({"kind": "Group", "name": "system:authenticated"}), true)]
    #[case::nobody_known(json!({"kind": "User", "name": "system:anonymous"}), true)]
    #[case::component(json!({"kind": "ServiceAccount", "name": "cilium", "namespace": "kube-system"}), false)]
    #[case::administrators(json!({"kind": "Group", "name": "sre"}), false)]
    #[case::person(json!({"kind": "User", "name": "jane"}), false)]
    fn of_the_clusters_bindings_those_count_that_reach_tenants_or_everybody(
        #[case] subject: Value,
        #[case] counts: bool,
    ) {
        let found = given_to_tenants(&binding("x", "view", &subject));
        assert_eq!(found.len(), usize::from(counts), "{found:?}");
        // In the namespace all of them do.
        assert_eq!(given(&binding("x", "view", &subject)).len(), 1);
        // In another one, the same do as in the cluster.
        let found = given_to_tenants_in(&binding("x", "view", &subject), "database");
        assert_eq!(found.len(), usize::from(counts), "{found:?}");
        assert!(
            found
                .iter()
                .all(|line| line.starts_with("the rights of ClusterRole view, in database, to "))
        );
    }

    #[rstest]
    #[case::own("system:discovery", "system:discovery", 0)]
    #[case::name_alone("system:discovery", "cluster-admin", 1)]
    #[case::another("cluster-admin", "cluster-admin", 1)]
    fn the_servers_own_bindings_for_discovery_do_not(
        #[case] name: &str,
        #[case] role: &str,
        #[case] count: usize,
    ) {
        let everybody = json!({"kind": "Group", "name": "system:authenticated"});
        assert_eq!(given_to_tenants(&binding(name, role, &everybody)).len(), count);
    }

    #[test]
    fn the_platforms_own_do_not_and_a_copied_label_does_not_make_one() {
        let everybody = json!({"kind": "Group", "name": "system:authenticated"});
        let mut object = binding("x", "view", &everybody);
        object.metadata.labels = Some([("managed-by".to_owned(), "ai-agents-platform".to_owned())].into());
        assert_eq!(
            given_to_tenants(&object),
            ["the rights of ClusterRole view, in every namespace, to Group system:authenticated"]
        );
        object.metadata.managed_fields =
            serde_json::from_value(json!([{"manager": "ai-agents-provisioner", "operation": "Apply"}]))
                .unwrap();
        assert_eq!(given_to_tenants(&object), Vec::<String>::new());
    }
}

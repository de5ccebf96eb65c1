//! Which fields of an object an apply would change. Pure.

use kube::core::DynamicObject;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

/// One field that an apply would change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// The field, as the API server names it: `.spec.ingress[0].ports[0].port`.
    pub path: String,
    /// Its value now; none if it is not set.
    pub on_cluster: Option<Value>,
    /// Its value after an apply; none if it is not set then.
    pub in_template: Option<Value>,
    /// Who set it, where that stands in the way of an apply.
    pub manager: Option<String>,
}

/// What `kubectl apply` wrote last, as an annotation: the whole object over again, a Secret's values included.
const LAST_APPLIED: &str = ".metadata.annotations.kubectl.kubernetes.io/last-applied-configuration";
/// What is said instead of a value that must not be shown.
const HIDDEN: &str = "(hidden)";

impl FieldChange {
    /// Takes values out that must not be shown: of a Secret everything but its metadata and type, and of all objects what `kubectl
    /// apply` noted of them.
    pub(super) fn hide(&mut self, of_a_secret: bool) {
        let within = |parent: &str| self.path == parent || self.path.starts_with(&format!("{parent}."));
        let shown = [".metadata", ".type", ".immutable"];
        let is_secret = of_a_secret && !shown.into_iter().any(within);
        // Whoever loses all annotations at once loses this one with them.
        if is_secret || self.path == LAST_APPLIED || self.path == ".metadata.annotations" {
            for value in [&mut self.on_cluster, &mut self.in_template] {
                *value = value.take().map(|_| Value::from(HIDDEN));
            }
        }
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| {
            value
                .as_ref()
                .map_or_else(|| "not set".to_owned(), Value::to_string)
        };
        write!(f, "{}: on the cluster {}", self.path, show(&self.on_cluster))?;
        if let Some(manager) = &self.manager {
            write!(f, " (set by {manager:?})")?;
        }
        write!(f, ", in the template {}", show(&self.in_template))
    }
}

/// What the server writes by itself, whoever asks.
const BY_THE_SERVER: [&str; 5] = [
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
];

/// The fields in which the object differs from what an apply would make of it. `managers` are the fields that others hold, each
/// with its manager; they may be parents of what differs.
pub(super) fn changes(
    live: &DynamicObject,
    wanted: &DynamicObject,
    managers: &[(String, String)],
) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    walk("", Some(&decided(live)), Some(&decided(wanted)), &mut changes);
    for change in &mut changes {
        let holder = managers.iter().find(|(field, _)| holds(field, &change.path));
        change.manager = holder.map(|(_, manager)| manager.clone());
    }
    changes
}

fn holds(field: &str, path: &str) -> bool {
    path.strip_prefix(field)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The object without what nobody decides.
fn decided(object: &DynamicObject) -> Value {
    let mut object = serde_json::to_value(object).unwrap_or_default();
    if let Value::Object(fields) = &mut object {
        // A list leaves apiVersion and kind of its items out.
        fields.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind" | "status"));
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !BY_THE_SERVER.contains(&name.as_str()));
    }
    object
}

fn walk(path: &str, live: Option<&Value>, wanted: Option<&Value>, changes: &mut Vec<FieldChange>) {
    // The server takes null for a field that is not set.
    let (live, wanted) = (set(live), set(wanted));
    let none = Map::new();
    match (live, wanted) {
        (live, wanted) if live == wanted => {}
        (Some(Value::Object(_)), None | Some(Value::Object(_))) | (None, Some(Value::Object(_)))
            if !is_empty(live) && !is_empty(wanted) =>
        {
            let live = live.and_then(Value::as_object).unwrap_or(&none);
            let wanted = wanted.and_then(Value::as_object).unwrap_or(&none);
            let names: BTreeSet<&String> = live.keys().chain(wanted.keys()).collect();
            for name in names {
                walk(
                    &format!("{path}.{name}"),
                    live.get(name),
                    wanted.get(name),
                    changes,
                );
            }
        }
        (Some(Value::Array(live)), Some(Value::Array(wanted)))
            if has_named_items(path) && are_objects(live) && are_objects(wanted) =>
        {
            let names: BTreeSet<&str> = live.iter().chain(wanted).filter_map(name).collect();
            for each in names {
                let of = |items: &'_ [Value]| items.iter().find(|item| name(item) == Some(each)).cloned();
                walk(
                    &format!("{path}[name={each:?}]"),
                    of(live).as_ref(),
                    of(wanted).as_ref(),
                    changes,
                );
            }
        }
        (Some(Value::Array(live)), Some(Value::Array(wanted)))
            if are_objects(live) && are_objects(wanted) =>
        {
            for index in 0..live.len().max(wanted.len()) {
                walk(
                    &format!("{path}[{index}]"),
                    live.get(index),
                    wanted.get(index),
                    changes,
                );
            }
        }
        (live, wanted) => changes.push(FieldChange {
            path: path.to_owned(),
            on_cluster: live.cloned(),
            in_template: wanted.cloned(),
            manager: None,
        }),
    }
}

/// Lists whose items the API server tells apart by their names, and names so in conflicts.
fn has_named_items(path: &str) -> bool {
    [".containers", ".initContainers", ".volumes", ".env"]
        .into_iter()
        .any(|list| path.ends_with(list))
}

fn name(item: &Value) -> Option<&str> {
    item.get("name").and_then(Value::as_str)
}

fn set(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

/// `{}` says something of its own in a selector and has no fields to name.
fn is_empty(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value.as_object().is_some_and(Map::is_empty))
}

/// Other lists are shown whole: of names one more in front would change every place.
fn are_objects(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn object(spec: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "labels": {"managed-by": "ai-agents-platform"}}, "spec": spec,
        }))
        .unwrap()
    }

    #[rstest]
    #[case::same(json!({"podSelector": {}}), json!({"podSelector": {}}), &[])]
    #[case::deep(
        json!({"ingress": [{"ports": [{"port": 1, "protocol": "TCP"}]}]}),
        json!({"ingress": [{"ports": [{"port": 2, "protocol": "TCP"}]}]}),
        &[".spec.ingress[0].ports[0].port: on the cluster 1, in the template 2"],
    )]
    #[case::opened(json!({"ingress": [{}], "podSelector": {}}), json!({"podSelector": {}}), &[".spec.ingress: on the cluster [{}], in the template not set"])]
    #[case::null_is_not_set(json!({"a": null, "b": 1}), json!({"b": null}), &[".spec.b: on the cluster 1, in the template not set"])]
    #[case::emptied(
        json!({"ingress": [{}, {}]}),
        json!({"ingress": []}),
        &[".spec.ingress: on the cluster [{},{}], in the template []"],
    )]
    #[case::rule_more(
        json!({"ingress": [{"from": []}, {}]}),
        json!({"ingress": [{"from": []}]}),
        &[".spec.ingress[1]: on the cluster {}, in the template not set"],
    )]
    #[case::narrowed(
        json!({"podSelector": {"matchLabels": {"app": "x"}}}),
        json!({"podSelector": {}}),
        &[".spec.podSelector: on the cluster {\"matchLabels\":{\"app\":\"x\"}}, in the template {}"],
    )]
    #[case::names_are_shown_whole(
        json!({"verbs": ["list", "watch"]}),
        json!({"verbs": ["get", "list", "watch"]}),
        &[".spec.verbs: on the cluster [\"list\",\"watch\"], in the template [\"get\",\"list\",\"watch\"]"],
    )]
    #[case::two(
        json!({"a": 1, "c": {"d": null}}),
        json!({"b": "x", "c": {"d": null}}),
        &[".spec.a: on the cluster 1, in the template not set", ".spec.b: on the cluster not set, in the template \"x\""],
    )]
    fn every_field_that_differs_is_named(
        #[case] live: Value,
        #[case] wanted: Value,
        #[case] expected: &[&str],
    ) {
        let found = changes(&object(&live), &object(&wanted), &[]);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_the_server_writes_is_no_change_and_labels_are() {
        let mut live = object(&json!({}));
        live.types = None;
        live.metadata.labels = None;
        live.metadata.uid = Some("1".to_owned());
        live.metadata.generation = Some(3);
        live.metadata.resource_version = Some("7".to_owned());
        live.metadata.managed_fields = Some(Vec::new());
        live.data["status"] = json!({"x": 1});
        let found = changes(&live, &object(&json!({})), &[]);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [".metadata.labels.managed-by: on the cluster not set, in the template \"ai-agents-platform\""]
        );
    }

    #[rstest]
    #[case::itself(".spec.ingress", true)]
    #[case::inside(".spec.ingress[0].from", true)]
    #[case::same_start(".spec.ingressClass", false)]
    #[case::parent(".spec", false)]
    fn a_manager_holds_a_field_and_what_is_in_it(#[case] path: &str, #[case] held: bool) {
        assert_eq!(holds(".spec.ingress", path), held);
    }

    #[test]
    fn containers_are_told_apart_by_name_as_conflicts_name_them() {
        let pod = |first: &str, image: &str| json!({"template": {"spec": {"containers": [{"name": first}, {"name": "api", "image": image}]}}});
        let managers = [(
            ".spec.template.spec.containers[name=\"api\"].image".to_owned(),
            "kubectl-set".to_owned(),
        )];
        let found = changes(&object(&pod("a", "i:1")), &object(&pod("b", "i:2")), &managers);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                ".spec.template.spec.containers[name=\"a\"].name: on the cluster \"a\", in the template not set",
                ".spec.template.spec.containers[name=\"api\"].image: on the cluster \"i:1\" (set by \"kubectl-set\"), in the template \"i:2\"",
                ".spec.template.spec.containers[name=\"b\"].name: on the cluster not set, in the template \"b\"",
            ]
        );
    }

    #[rstest]
    #[case::value(".data.PASSWORD", true)]
    #[case::all_values(".data", true)]
    #[case::what_kubectl_noted(LAST_APPLIED, true)]
    #[case::all_annotations(".metadata.annotations", true)]
    #[case::label(".metadata.labels.tenant", false)]
    #[case::its_type(".type", false)]
    fn values_of_a_secret_are_hidden(#[case] path: &str, #[case] hidden: bool) {
        let mut change = FieldChange {
            path: path.to_owned(),
            on_cluster: Some(json!("c2VjcmV0")),
            in_template: None,
            manager: None,
        };
        change.hide(true);
        assert_eq!(!change.to_string().contains("c2VjcmV0"), hidden, "{change}");
        assert_eq!(change.in_template, None);
    }

    #[test]
    fn the_manager_is_named_where_it_stands_in_the_way() {
        let managers = [(".spec.ingress".to_owned(), "kubectl-edit".to_owned())];
        let (live, wanted) = (json!({"ingress": [{}], "x": 1}), json!({"x": 2}));
        let found = changes(&object(&live), &object(&wanted), &managers);
        let found: Vec<Option<&str>> = found.iter().map(|change| change.manager.as_deref()).collect();
        assert_eq!(found, [Some("kubectl-edit"), None]);
    }
}

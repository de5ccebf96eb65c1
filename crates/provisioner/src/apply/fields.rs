//! What `metadata.managedFields` tells: which fields of an object are ours, and whether an apply would change any. Pure.
//!
//! The format is Kubernetes' FieldsV1 (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>): a tree
//! whose names are `f:NAME` for a field, `k:{KEYS}` for the item of a list with these keys, `v:VALUE` for the item of a set, and `.` for
//! the thing itself; a name without any below it stands for all that is there.

use crate::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::core::DynamicObject;
use serde_json::{Map, Value};

/// What is recorded of us in this way, leaving out what is recorded of a subresource.
fn is_ours(entry: &ManagedFieldsEntry, operation: &str) -> bool {
    entry.manager.as_deref() == Some(labels::FIELD_MANAGER)
        && entry.operation.as_deref() == Some(operation)
        && entry.subresource.is_none()
}

/// The same entries, where all that we created or updated is recorded as applied; none if there is nothing to change.
pub(super) fn as_applied(entries: Option<&[ManagedFieldsEntry]>) -> Option<Vec<ManagedFieldsEntry>> {
    let entries = entries?;
    let (updates, mut others): (Vec<_>, Vec<_>) = entries
        .iter()
        .cloned()
        .partition(|entry| is_ours(entry, "Update"));
    if updates.is_empty() {
        return None;
    }
    for mut update in updates {
        let same_version = |entry: &&mut ManagedFieldsEntry| {
            is_ours(entry, "Apply") && entry.api_version == update.api_version
        };
        match others.iter_mut().find(same_version) {
            Some(apply) => apply.fields_v1 = union(apply.fields_v1.take(), update.fields_v1),
            None => {
                update.operation = Some("Apply".to_owned());
                others.push(update);
            }
        }
    }
    Some(others)
}

fn union(one: Option<FieldsV1>, other: Option<FieldsV1>) -> Option<FieldsV1> {
    match (one, other) {
        (Some(FieldsV1(mut one)), Some(FieldsV1(other))) => {
            add(&mut one, other);
            Some(FieldsV1(one))
        }
        (one, other) => one.or(other),
    }
}

/// Adds names to a set. The set of everything, which has no name in it, stays what it is.
fn add(set: &mut Value, more: Value) {
    let (Value::Object(set), Value::Object(more)) = (set, more) else {
        return;
    };
    if set.is_empty() {
        return;
    }
    if more.is_empty() {
        set.clear();
        return;
    }
    for (name, below) in more {
        match set.get_mut(&name) {
            Some(known) => add(known, below),
            None => {
                set.insert(name, below);
            }
        }
    }
}

/// Whether applying `wanted` would leave the object as it is: all that we applied last is what is wanted now, no field more and none
/// less, and each still has that value. Then nobody can be in conflict with us, since a conflict is about a value that differs, and
/// nothing has to be taken away. What cannot be told here, such as an amount that the server writes otherwise, is not the same: the
/// server's own dry run decides.
pub(super) fn is_as_applied(wanted: &DynamicObject, live: &DynamicObject) -> bool {
    let entries = live.metadata.managed_fields.as_deref().unwrap_or_default();
    if live.metadata.deletion_timestamp.is_some() || entries.iter().any(|entry| is_ours(entry, "Update")) {
        return false;
    }
    let mut ours = entries.iter().filter(|entry| is_ours(entry, "Apply"));
    let (Some(entry), None) = (ours.next(), ours.next()) else {
        return false;
    };
    let version = wanted.types.as_ref().map(|types| types.api_version.as_str());
    let (Ok(wanted), Ok(live)) = (serde_json::to_value(wanted), serde_json::to_value(live)) else {
        return false;
    };
    entry.api_version.as_deref() == version
        && entry
            .fields_v1
            .as_ref()
            .is_some_and(|FieldsV1(set)| holds(&without_identity(wanted), Some(&live), set))
}

/// Without what names the object, which is in no set of fields.
fn without_identity(mut object: Value) -> Value {
    let Value::Object(fields) = &mut object else {
        return object;
    };
    fields.remove("apiVersion");
    fields.remove("kind");
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        metadata.remove("name");
        metadata.remove("namespace");
        if metadata.is_empty() {
            fields.remove("metadata");
        }
    }
    object
}

/// Whether the value is as wanted, and the set names exactly the fields that are wanted.
fn holds(wanted: &Value, live: Option<&Value>, set: &Value) -> bool {
    let Value::Object(set) = set else { return false };
    if set.is_empty() {
        // A null is a field that must not be there.
        return match live {
            None | Some(Value::Null) => wanted.is_null(),
            Some(live) => live == wanted,
        };
    }
    match (wanted, live) {
        (Value::Object(wanted), Some(Value::Object(live))) => fields_hold(wanted, live, set),
        (Value::Array(wanted), Some(Value::Array(live))) => items_hold(wanted, live, set),
        _ => false,
    }
}

/// The names in a set but for the thing itself.
fn named(set: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    set.iter().filter(|(name, _)| *name != ".")
}

fn fields_hold(wanted: &Map<String, Value>, live: &Map<String, Value>, set: &Map<String, Value>) -> bool {
    named(set).count() == wanted.len()
        && wanted.iter().all(|(name, value)| {
            set.get(&format!("f:{name}"))
                .is_some_and(|below| holds(value, live.get(name), below))
        })
}

/// In the order that is wanted, too: an apply would bring them back into it.
fn items_hold(wanted: &[Value], live: &[Value], set: &Map<String, Value>) -> bool {
    let mut next = 0;
    named(set).count() == wanted.len()
        && wanted.iter().all(|item| {
            let mut fitting = named(set).filter(|(name, _)| fits(item, name));
            let (Some((name, below)), None) = (fitting.next(), fitting.next()) else {
                return false;
            };
            let found = live.iter().position(|live| is_item(live, name));
            let Some(place) = found.filter(|place| *place >= next) else {
                return false;
            };
            next = place + 1;
            holds(item, live.get(place), below)
        })
}

/// Whether that may be the name of the item that is wanted, whose keys may have been left to their defaults.
fn fits(item: &Value, name: &str) -> bool {
    keys(name).map_or_else(
        || is_item(item, name),
        |keys| {
            keys.iter()
                .all(|(key, value)| item.get(key).is_none_or(|held| held == value))
        },
    )
}

/// Whether that is the name of the item that is there.
fn is_item(item: &Value, name: &str) -> bool {
    if let Some(keys) = keys(name) {
        return keys.iter().all(|(key, value)| item.get(key) == Some(value));
    }
    let value = name.strip_prefix("v:");
    value.is_some_and(|value| serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item))
}

fn keys(name: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(name.strip_prefix("k:")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    fn recorded(entries: &[Value]) -> Option<Value> {
        let entries: Vec<ManagedFieldsEntry> = serde_json::from_value(json!(entries)).unwrap();
        as_applied(Some(&entries)).map(|entries| serde_json::to_value(entries).unwrap())
    }

    const US: &str = "ai-agents-provisioner";

    #[test]
    fn what_we_created_becomes_what_we_applied() {
        let labels = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}});
        let created = recorded(&[entry(US, "Update", &labels), entry("kubectl", "Update", &labels)]);
        let expected = [entry("kubectl", "Update", &labels), entry(US, "Apply", &labels)];
        assert_eq!(created, Some(json!(expected)));
    }

    #[test]
    fn what_we_created_and_then_applied_is_ours_together() {
        let created = json!({"f:metadata": {"f:labels": {".": {}, "f:old": {}}}, "f:all": {}});
        let applied = json!({"f:metadata": {"f:labels": {"f:new": {}}}, "f:all": {"f:some": {}}});
        let both = json!({"f:metadata": {"f:labels": {".": {}, "f:old": {}, "f:new": {}}}, "f:all": {}});
        let together = recorded(&[entry(US, "Apply", &applied), entry(US, "Update", &created)]);
        assert_eq!(together, Some(json!([entry(US, "Apply", &both)])));
    }

    #[test]
    fn nothing_is_recorded_anew_where_there_was_no_create() {
        let fields = json!({"f:data": {}});
        assert_eq!(
            recorded(&[entry(US, "Apply", &fields), entry("k", "Update", &fields)]),
            None
        );
        let mut status = entry(US, "Update", &fields);
        status["subresource"] = json!("status");
        assert_eq!(recorded(&[status]), None);
        assert_eq!(as_applied(None), None);
    }

    fn wanted() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "namespace": "n", "labels": {"app": "a"}},
            "spec": {
                "size": 3, "selector": {}, "ingress": null, "words": ["b", "a"],
                "ports": [{"port": 53, "name": "dns"}, {"port": 80, "name": "web"}],
                "finalizers": ["a/b"],
            },
        })
    }

    fn live() -> Value {
        let ours = entry(
            US,
            "Apply",
            &json!({
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:size": {}, "f:selector": {}, "f:ingress": {}, "f:words": {},
                    "f:ports": {
                        "k:{\"port\":53,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}},
                        "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}},
                    },
                    "f:finalizers": {"v:\"a/b\"": {}},
                },
            }),
        );
        json!({
            "apiVersion": "v1", "kind": "Thing",
            "metadata": {"name": "x", "namespace": "n", "uid": "1", "labels": {"app": "a", "theirs": "1"}, "managedFields": [ours, entry("k", "Update", &json!({"f:status": {}}))]},
            "spec": {
                "size": 3, "defaulted": true, "selector": {}, "words": ["b", "a"],
                "ports": [{"port": 53, "name": "dns", "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}, {"port": 80, "name": "web", "protocol": "TCP"}],
                "finalizers": ["z/z", "a/b"],
            },
            "status": {},
        })
    }

    fn same(wanted: Value, live: Value) -> bool {
        is_as_applied(
            &serde_json::from_value(wanted).unwrap(),
            &serde_json::from_value(live).unwrap(),
        )
    }

    #[test]
    fn what_is_as_it_was_applied_needs_no_apply_whatever_others_added() {
        assert!(same(wanted(), live()));
    }

    #[rstest]
    #[case::value("/spec/size", json!(4))]
    #[case::other_writing("/spec/size", json!("3"))]
    #[case::one_field_more("/spec/more", json!(1))]
    #[case::one_null_more("/spec/more", json!(null))]
    #[case::null_that_is_there("/spec/words", json!(null))]
    #[case::label("/metadata/labels/app", json!("b"))]
    #[case::one_label_more("/metadata/labels/theirs", json!("1"))]
    #[case::order("/spec/words", json!(["a", "b"]))]
    #[case::order_of_items("/spec/ports", json!([{"port": 80, "name": "web"}, {"port": 53, "name": "dns"}]))]
    #[case::fewer_items("/spec/ports", json!([{"port": 53, "name": "dns"}]))]
    #[case::more_items("/spec/finalizers", json!(["a/b", "z/z"]))]
    #[case::field_of_an_item("/spec/ports/0/name", json!("other"))]
    #[case::key_of_an_item("/spec/ports/0/protocol", json!("UDP"))]
    #[case::other_version("/apiVersion", json!("v2"))]
    fn another_wish_needs_an_apply(#[case] path: &str, #[case] value: Value) {
        let mut wanted = wanted();
        set(&mut wanted, path, value);
        assert!(!same(wanted, live()));
    }

    #[rstest]
    #[case::somebody_changed_a_value("/spec/size", json!(4))]
    #[case::somebody_added_a_rule("/spec/ingress", json!([{}]))]
    #[case::somebody_took_an_item("/spec/ports/0/port", json!(54))]
    #[case::it_is_going("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"))]
    #[case::we_own_more("/metadata/managedFields/0/fieldsV1/f:spec/f:old", json!({}))]
    #[case::somebody_took_a_field("/metadata/managedFields/0/manager", json!("kubectl"))]
    #[case::half_recorded("/metadata/managedFields/1/manager", json!(US))]
    fn another_object_needs_an_apply(#[case] path: &str, #[case] value: Value) {
        let mut live = live();
        set(&mut live, path, value);
        assert!(!same(wanted(), live));
    }

    fn set(object: &mut Value, path: &str, value: Value) {
        let (parent, name) = path.rsplit_once('/').unwrap();
        match object.pointer_mut(parent).unwrap() {
            Value::Object(fields) => {
                fields.insert(name.to_owned(), value);
            }
            other => panic!("{parent} is {other}"),
        }
    }
}

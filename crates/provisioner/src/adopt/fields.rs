//! Sets of fields, as `metadata.managedFields` writes them: which of them two managers both have, which are left, and what their values
//! are (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>). Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::{Map, Value};

/// The member of a set that stands for the field or list item itself.
const ITSELF: &str = ".";

/// A set of fields: an object of `f:NAME` for fields, `k:{KEYS}` for list items and `v:VALUE` for members of lists, each with what of it is
/// in the set; an empty object is all of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn of(entry: &ManagedFieldsEntry) -> Self {
        let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.as_object());
        Self(fields.cloned().unwrap_or_default())
    }

    pub(super) fn written(self) -> FieldsV1 {
        FieldsV1(Value::Object(self.0))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without the metadata, and the metadata alone.
    pub(super) fn split_metadata(mut self) -> (Self, Self) {
        let metadata = self.0.remove("f:metadata");
        let alone = metadata.map(|metadata| ("f:metadata".to_owned(), metadata));
        (self, Self(alone.into_iter().collect()))
    }

    /// What is in either.
    pub(super) fn union(mut self, other: &Self) -> Self {
        join(&mut self.0, &other.0);
        self
    }

    /// What is in this one alone.
    pub(super) fn without(mut self, other: &Self) -> Self {
        take(&mut self.0, &other.0);
        self
    }

    /// The fields of the object that are in the set, each by its path and value; a list item as a whole, where it is itself in the set.
    pub(super) fn values(&self, object: &Value) -> Vec<(String, Value)> {
        let mut values = Vec::new();
        inside(&self.0, object, "", &mut values);
        values
    }
}

fn join(set: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (key, value) in more {
        match (set.get_mut(key), value) {
            (Some(Value::Object(inside)), Value::Object(more)) => join(inside, more),
            (Some(_), _) => {}
            (None, _) => {
                set.insert(key.clone(), value.clone());
            }
        }
    }
}

fn take(set: &mut Map<String, Value>, other: &Map<String, Value>) {
    set.retain(|key, value| {
        let (Some(inside), Some(Value::Object(others))) = (value.as_object_mut(), other.get(key)) else {
            return !other.contains_key(key);
        };
        if inside.is_empty() {
            return false;
        }
        take(inside, others);
        // A map of whose fields none is left is not kept for its own sake.
        inside.keys().any(|key| key != ITSELF)
    });
}

/// What of the value's own fields and items is in the set. That a map is there (its [`ITSELF`]) is no field of it.
fn inside(set: &Map<String, Value>, value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    for (key, below) in set.iter().filter(|(key, _)| *key != ITSELF) {
        let (Some(below), Some((path, value))) = (below.as_object(), step(key, value, path)) else {
            continue;
        };
        let is_item = key.starts_with("k:") && below.contains_key(ITSELF);
        if !below.is_empty() && !is_item {
            inside(below, value, &path, found);
        } else if !value.is_null() {
            found.push((path, value.clone()));
        }
    }
}

/// Where a key of a set leads.
fn step<'v>(key: &str, value: &'v Value, path: &str) -> Option<(String, &'v Value)> {
    match key.split_once(':')? {
        ("f", name) => Some((format!("{path}.{name}"), value.get(name)?)),
        ("k", keys) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
            let is_meant = |item: &&Value| keys.iter().all(|(key, value)| item.get(key) == Some(value));
            let item = value.as_array()?.iter().find(is_meant)?;
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            Some((format!("{path}[{}]", keys.join(",")), item))
        }
        ("v", member) => {
            let member: Value = serde_json::from_str(member).ok()?;
            let item = value.as_array()?.iter().find(|item| **item == member)?;
            Some((format!("{path}[={member}]"), item))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn set(value: &Value) -> Fields {
        Fields(value.as_object().unwrap().clone())
    }

    #[rstest]
    #[case::apart(json!({"f:spec": {"f:a": {}}}), json!({"f:spec": {"f:b": {}}}), json!({"f:spec": {"f:a": {}}}))]
    #[case::the_same(json!({"f:spec": {"f:a": {}}}), json!({"f:spec": {"f:a": {}, "f:b": {}}}), json!({}))]
    #[case::some(json!({"f:spec": {"f:a": {}, "f:b": {}}}), json!({"f:spec": {"f:a": {}}}), json!({"f:spec": {"f:b": {}}}))]
    #[case::items(
        json!({"f:ports": {"k:{\"port\":80}": {".": {}, "f:port": {}, "f:name": {}}, "k:{\"port\":81}": {".": {}}}}),
        json!({"f:ports": {"k:{\"port\":80}": {".": {}, "f:port": {}}}}),
        json!({"f:ports": {"k:{\"port\":80}": {"f:name": {}}, "k:{\"port\":81}": {".": {}}}}),
    )]
    #[case::no_field_is_left(json!({"f:labels": {".": {}, "f:a": {}}}), json!({"f:labels": {"f:a": {}}}), json!({}))]
    #[case::an_empty_map_is_not_what_is_in_it(json!({"f:labels": {"f:a": {}}}), json!({"f:labels": {}}), json!({"f:labels": {"f:a": {}}}))]
    fn what_one_has_alone(#[case] one: Value, #[case] other: Value, #[case] expected: Value) {
        assert_eq!(set(&one).without(&set(&other)), set(&expected));
        // And with that the two have together what they had.
        let both = set(&one).union(&set(&other));
        assert_eq!(both, set(&expected).union(&set(&other)).union(&set(&one)));
    }

    #[rstest]
    #[case::field(json!({"f:spec": {"f:type": {}}}), &[(".spec.type", json!("NodePort"))])]
    #[case::item(
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}}),
        &[(".spec.ports[port=80,protocol=\"TCP\"]", json!({"port": 80, "protocol": "TCP"}))],
    )]
    #[case::field_of_an_item(
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:port": {}}}}}),
        &[(".spec.ports[port=80,protocol=\"TCP\"].port", json!(80))],
    )]
    #[case::member(json!({"f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}}}), &[(".metadata.finalizers[=\"a/b\"]", json!("a/b"))])]
    #[case::that_a_map_is_there(json!({"f:spec": {".": {}, "f:type": {}, "f:ports": {".": {}}}}), &[(".spec.type", json!("NodePort"))])]
    #[case::nothing(json!({}), &[])]
    #[case::gone_already(json!({"f:spec": {"f:ports": {"k:{\"port\":81}": {".": {}}}, "f:clusterIP": {}}}), &[])]
    fn the_values_of_a_set(#[case] fields: Value, #[case] expected: &[(&str, Value)]) {
        let object = json!({
            "metadata": {"finalizers": ["a/b"]},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]},
        });
        let found = set(&fields).values(&object);
        let found: Vec<(&str, Value)> = found
            .iter()
            .map(|(path, value)| (path.as_str(), value.clone()))
            .collect();
        assert_eq!(found, expected);
    }
}

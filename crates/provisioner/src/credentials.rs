//! Keys of a Secret that get a random value on the cluster and keep it. A template names them in the annotation
//! [`labels::GENERATE`] and never holds a value; what the live Secret lacks is filled in by a field manager of its own, so that applying
//! the template neither drops values nor shows them.
//!
//! A template may hold a value for such a key all the same: then that one is meant, and none is made.

use crate::calls::{CallError, Cause};
use crate::labels;
use crate::manifest::Manifest;
use k8s_openapi::ByteString;
use kube::core::DynamicObject;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The fewest and the most random bytes of a value.
const BYTES: std::ops::RangeInclusive<usize> = 16..=1024;

/// A key that gets a random value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generated {
    /// The key.
    pub(crate) key: String,
    /// How many random bytes; the value is twice as many hexadecimal digits.
    bytes: usize,
}

/// The keys that the object wants generated; none without the annotation.
///
/// # Errors
/// What is wrong with the annotation.
pub(crate) fn wanted(object: &DynamicObject) -> Result<Vec<Generated>, String> {
    let annotation = object
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(labels::GENERATE));
    let Some(text) = annotation else {
        return Ok(Vec::new());
    };
    let mut keys: Vec<Generated> = Vec::new();
    for word in text.split_whitespace() {
        let generated = key(word).ok_or_else(|| {
            format!(
                "has an annotation {} with {word:?}, expected KEY=BYTES of {} to {} bytes",
                labels::GENERATE,
                BYTES.start(),
                BYTES.end()
            )
        })?;
        if keys.iter().any(|other| other.key == generated.key) {
            return Err(format!(
                "has an annotation {} that names {} twice",
                labels::GENERATE,
                generated.key
            ));
        }
        keys.push(generated);
    }
    Ok(keys)
}

fn key(word: &str) -> Option<Generated> {
    let (key, bytes) = word.split_once('=')?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let bytes = bytes.parse().ok().filter(|bytes| BYTES.contains(bytes))?;
    (!key.is_empty() && key.len() <= 253 && key.chars().all(allowed)).then(|| Generated {
        key: key.to_owned(),
        bytes,
    })
}

/// Those of these keys that the Secret lacks.
pub(crate) fn lacking<'k>(keys: &'k [Generated], live: &DynamicObject) -> impl Iterator<Item = &'k str> {
    let held: HashSet<String> = live
        .data
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|held| held.keys().cloned())
        .collect();
    keys.iter()
        .filter(move |generated| !held.contains(&generated.key))
        .map(|generated| generated.key.as_str())
}

/// That the annotation cannot be used; rendering refuses such a one.
pub(crate) fn unusable(manifest: &Manifest, problem: &str) -> CallError {
    CallError {
        what: format!("generate credentials in {}", manifest.reference()),
        tried_for: None,
        cause: Cause::Unsent(format!("it {problem}")),
    }
}

/// A value for each of these keys that the Secret lacks, as in `data`; none if it lacks none.
///
/// # Errors
/// The operating system gives no random bytes.
pub(crate) fn missing(
    keys: &[Generated],
    live: &DynamicObject,
) -> Result<Option<Map<String, Value>>, getrandom::Error> {
    let held = live.data.get("data").and_then(Value::as_object);
    let lacking = keys
        .iter()
        .filter(|generated| !held.is_some_and(|held| held.contains_key(&generated.key)));
    let made = lacking
        .map(|generated| Ok((generated.key.clone(), encoded(&random(generated.bytes)?))))
        .collect::<Result<Map<_, _>, _>>()?;
    Ok((!made.is_empty()).then_some(made))
}

fn random(bytes: usize) -> Result<String, getrandom::Error> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The text as it stands in `data`.
fn encoded(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap_or_default()
}

/// Makes `data` of `stringData`, as the server does; applied as it is, a key that goes from `stringData` would stay in `data`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn settle_string_data(object: &mut DynamicObject) -> Result<(), String> {
    let Value::Object(fields) = &mut object.data else {
        return Ok(());
    };
    let texts = match fields.remove("stringData") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(texts)) => texts,
        Some(_) => return Err("has a stringData that is no map".to_owned()),
    };
    let data = fields.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if data.is_null() {
        *data = Value::Object(Map::new());
    }
    let Value::Object(data) = data else {
        return Err("has a data that is no map".to_owned());
    };
    for (key, text) in texts {
        let Value::String(text) = text else {
            return Err(format!("has a stringData.{key} that is no string"));
        };
        data.insert(key, encoded(&text));
    }
    Ok(())
}

/// The object without values that must not be shown.
pub(crate) fn without_values(manifest: &Manifest) -> DynamicObject {
    let mut object = manifest.object.clone();
    if manifest.kind.kind == "Secret"
        && let Value::Object(fields) = &mut object.data
    {
        fields.remove("data");
        fields.remove("stringData");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn secret(annotation: &str, rest: &Value) -> DynamicObject {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "x", "annotations": {labels::GENERATE: annotation}},
        });
        object
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    #[rstest]
    #[case::no_length("A")]
    #[case::no_number("A=x")]
    #[case::too_short("A=15")]
    #[case::too_long("A=1025")]
    #[case::no_key("=16")]
    #[case::strange_key("A/B=16")]
    #[case::twice("A=16 A=16")]
    fn annotations_that_cannot_be_used(#[case] annotation: &str) {
        let error = wanted(&secret(annotation, &json!({}))).unwrap_err();
        assert!(error.contains(labels::GENERATE), "{error}");
    }

    #[test]
    fn what_is_lacking_is_made_anew_each_time_and_what_is_there_stays() {
        let live = secret("A=16 B=32", &json!({"data": {"A": "eA=="}}));
        let keys = wanted(&live).unwrap();
        let value = || {
            let made = missing(&keys, &live).unwrap().unwrap();
            assert_eq!(made.keys().collect::<Vec<_>>(), ["B"]);
            let ByteString(bytes) = serde_json::from_value(made["B"].clone()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let (first, second) = (value(), value());
        assert_eq!(first.len(), 64);
        assert!(first.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(first, second);
        let full = secret("A=16", &json!({"data": {"A": ""}}));
        assert_eq!(missing(&wanted(&full).unwrap(), &full).unwrap(), None);
    }

    #[test]
    fn string_data_becomes_data_and_wins_over_it() {
        let mut object = secret(
            "",
            &json!({"data": {"A": "eA==", "B": "eA=="}, "stringData": {"B": "y"}}),
        );
        settle_string_data(&mut object).unwrap();
        assert_eq!(object.data, json!({"data": {"A": "eA==", "B": "eQ=="}}));
        let mut odd = secret("", &json!({"stringData": {"B": 1}}));
        assert_eq!(
            settle_string_data(&mut odd).unwrap_err(),
            "has a stringData.B that is no string"
        );
    }
}

//! Conflicts over fields: who else set them, and both values.

use super::ApplyError;
use super::objects::{Failure, Objects};
use crate::calls::{CallError, is_field_conflict};
use crate::labels;
use crate::manifest::ObjectRef;
use kube::core::Status;
use kube::core::response::StatusCause;
use serde_json::Value;
use std::fmt;

/// One field that somebody else set to another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The object.
    pub object: ObjectRef,
    /// The field, as the API server names it: `.spec.replicas`.
    pub field: String,
    /// Who set it.
    pub manager: String,
    /// Our value, as JSON.
    pub ours: String,
    /// The value that is there, as JSON.
    pub theirs: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            object,
            field,
            manager,
            ours,
            theirs,
        } = self;
        write!(
            f,
            "{object}: {field} is {theirs}, set by {manager:?}; the templates say {ours}"
        )
    }
}

pub(super) fn listing(conflicts: &[Conflict]) -> String {
    let lines: Vec<String> = conflicts
        .iter()
        .map(|conflict| format!("\n  {conflict}"))
        .collect();
    format!(
        "apply: {} set by others:{}",
        if lines.len() == 1 {
            "a field is"
        } else {
            "fields are"
        },
        lines.concat()
    )
}

pub(super) fn causes(status: &Status) -> impl Iterator<Item = &StatusCause> {
    status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .filter(|cause| is_field_conflict(cause))
}

/// The fields that others hold, each with its manager.
pub(crate) fn managers(failure: &Failure<'_>) -> Vec<(String, String)> {
    let causes = failure.error.status().into_iter().flat_map(causes);
    causes
        .map(|cause| (cause.field.clone(), manager(&cause.message).to_owned()))
        .collect()
}

/// Whether all that stands in the way are values that were generated: a template that names one instead is meant to replace it.
pub(super) fn only_generated(error: &CallError) -> bool {
    let mut others = error.status().into_iter().flat_map(causes).peekable();
    others.peek().is_some() && others.all(|cause| manager(&cause.message) == labels::CREDENTIALS_MANAGER)
}

/// The first failure that is no conflict; without any, all conflicts as one error.
pub(super) async fn settle(objects: &Objects<'_>, failed: Vec<Failure<'_>>) -> Result<(), ApplyError> {
    let (conflicting, others): (Vec<_>, Vec<_>) = failed.into_iter().partition(Failure::is_conflict);
    if let Some(failure) = others.into_iter().next() {
        return Err(failure.error.into());
    }
    let mut conflicts = Vec::new();
    for failure in conflicting {
        conflicts.extend(explain(objects, &failure).await?);
    }
    if conflicts.is_empty() {
        Ok(())
    } else {
        Err(ApplyError::Conflicts(conflicts))
    }
}

async fn explain(objects: &Objects<'_>, failure: &Failure<'_>) -> Result<Vec<Conflict>, ApplyError> {
    let Some(status) = failure.error.status() else {
        return Ok(Vec::new());
    };
    let manifest = failure.manifest;
    let live = objects.get(manifest).await?;
    let live = serde_json::to_value(live).unwrap_or_default();
    let ours = serde_json::to_value(&manifest.object).unwrap_or_default();
    let secret = manifest.kind.kind == "Secret";
    let show = |object: &Value, field: &str| match at(object, field) {
        None | Some(Value::Null) => "not set".to_owned(),
        Some(_) if secret => "(hidden)".to_owned(),
        Some(value) => value.to_string(),
    };
    Ok(causes(status)
        .map(|cause| Conflict {
            object: manifest.reference(),
            field: cause.field.clone(),
            manager: manager(&cause.message).to_owned(),
            ours: show(&ours, &cause.field),
            theirs: show(&live, &cause.field),
        })
        .collect())
}

/// The manager out of `conflict with "NAME" using apps/v1`.
fn manager(message: &str) -> &str {
    message.split('"').nth(1).unwrap_or(message)
}

/// The value at a path such as `.spec.template.spec.containers[name="api"].image`. Names may have dots in them, which the path does
/// not tell from its own, so the longest name that the object has is taken.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if path.is_empty() {
        return Some(value);
    }
    if let Some(rest) = path.strip_prefix('.') {
        let fields = value.as_object()?;
        let fits = |name: &str| {
            rest.strip_prefix(name)
                .filter(|after| after.is_empty() || after.starts_with(['.', '[']))
        };
        let (name, after) = fields
            .keys()
            .filter_map(|name| fits(name).map(|after| (name, after)))
            .max_by_key(|(name, _)| name.len())?;
        return at(&fields[name], after);
    }
    let (selector, after) = path.strip_prefix('[')?.split_once(']')?;
    let items = value.as_array()?;
    at(
        items
            .iter()
            .enumerate()
            .find(|(index, item)| selects(selector, *index, item))?
            .1,
        after,
    )
}

/// Whether `name="api"`, `port=80,protocol="TCP"`, `="value"` or `0` selects the item.
fn selects(selector: &str, index: usize, item: &Value) -> bool {
    let is =
        |item: &Value, text: &str| serde_json::from_str::<Value>(text).is_ok_and(|wanted| *item == wanted);
    if let Some(value) = selector.strip_prefix('=') {
        return is(item, value);
    }
    if let Ok(wanted) = selector.parse::<usize>() {
        return wanted == index;
    }
    let mut pairs = selector.split(',').map(|pair| pair.split_once('='));
    pairs.all(|pair| pair.is_some_and(|(key, value)| item.get(key).is_some_and(|found| is(found, value))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::field(".spec.replicas", "3")]
    #[case::dots_in_a_name(".metadata.labels.pod-security.kubernetes.io/enforce", "\"restricted\"")]
    #[case::shorter_name_with_the_same_start(".metadata.labels.pod-security", "\"short\"")]
    #[case::by_key(".spec.containers[name=\"api\"].image", "\"i:1\"")]
    #[case::by_two_keys(".spec.ports[port=53,protocol=\"UDP\"].name", "\"dns\"")]
    #[case::by_value(".metadata.finalizers[=\"a/b\"]", "\"a/b\"")]
    #[case::by_index(".spec.ports[1].name", "\"dns\"")]
    fn the_value_at_a_path(#[case] path: &str, #[case] expected: &str) {
        let object = json!({
            "metadata": {
                "labels": {"pod-security": "short", "pod-security.kubernetes.io/enforce": "restricted"},
                "finalizers": ["a/b"],
            },
            "spec": {
                "replicas": 3,
                "containers": [{"name": "worker"}, {"name": "api", "image": "i:1"}],
                "ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "name": "dns"}],
            },
        });
        assert_eq!(at(&object, path).map(Value::to_string).as_deref(), Some(expected));
    }

    #[rstest]
    #[case::plain("conflict with \"kubectl-scale\" using apps/v1", "kubectl-scale")]
    #[case::subresource("conflict with \"hpa\" with subresource \"scale\" using apps/v1", "hpa")]
    #[case::unknown_form("somebody", "somebody")]
    fn the_manager_of_a_message(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(manager(message), expected);
    }
}

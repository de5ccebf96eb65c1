//! How one object differs from what a template says: the server's own dry run beside what is there. Shared by tenants and the platform.

use super::fields::{self, FieldChange};
use crate::apply::ApplyError;
use crate::apply::conflict;
use crate::apply::objects::Objects;
use crate::apply::plan::{self, Tried};
use crate::calls::CallError;
use crate::credentials;
use crate::manifest::{Manifest, ObjectRef};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::fmt;

/// One object, and how it differs.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ObjectDifference {
    /// The object.
    pub object: ObjectRef,
    /// How it differs.
    #[serde(flatten)]
    pub state: State,
}

/// How one object differs.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "changes")]
pub enum State {
    /// It does not exist.
    Create,
    /// It exists and differs in these fields. None where their values are the same and only their manager is another.
    Change(Vec<FieldChange>),
    /// An object of that name exists that is not ours. It is taken over only if conflicts are forced.
    Foreign {
        /// What tells so, as in `label managed-by is missing, expected "ai-agents-platform"`.
        why: String,
        /// Where it differs.
        changes: Vec<FieldChange>,
    },
    /// It is as the templates say.
    Same,
    /// It cannot be: this server has no such kind.
    Skip {
        /// What the server lacks, and since when others have it.
        why: String,
    },
    /// It is ours, and the templates no longer contain it.
    Prune,
    /// The API server refuses what the templates say of it, as with a field that cannot be changed once it is set.
    Refused {
        /// Its words.
        why: String,
    },
}

impl State {
    /// The fields that an apply would change.
    #[must_use]
    pub fn changes(&self) -> &[FieldChange] {
        match self {
            Self::Change(changes) | Self::Foreign { changes, .. } => changes,
            Self::Create | Self::Same | Self::Skip { .. } | Self::Prune | Self::Refused { .. } => &[],
        }
    }

    /// Whether a field is somebody else's.
    #[must_use]
    pub fn is_in_conflict(&self) -> bool {
        self.changes().iter().any(|change| change.manager.is_some())
    }
}

/// How the object differs, and what it would be. `foreign` says what tells that a live object is not ours.
pub(crate) async fn compare(
    objects: &Objects<'_>,
    one: Tried<'_>,
    foreign: fn(&DynamicObject) -> Option<String>,
) -> Result<(State, Option<DynamicObject>), ApplyError> {
    let Tried {
        manifest,
        live,
        result,
    } = one;
    let (wanted, managers) = match result {
        Ok(wanted) => (wanted, Vec::new()),
        Err(failure) if failure.is_conflict() => {
            let managers = conflict::managers(&failure);
            match objects.try_force(manifest).await {
                Ok(wanted) => (wanted, managers),
                Err(failure) => return refused(failure.error),
            }
        }
        // Its role is about to be made.
        Err(failure) if failure.lacks_role() => return Ok((State::Create, None)),
        Err(failure) => return refused(failure.error),
    };
    let Some(live) = live else {
        return Ok((State::Create, Some(wanted)));
    };
    let mut changes = changes(manifest, &live, &wanted, &managers);
    changes.extend(ungenerated(manifest, &live)?);
    let state = match foreign(&live) {
        Some(why) => State::Foreign { why, changes },
        None if changes.is_empty() && plan::what_we_decide(live) == plan::what_we_decide(wanted.clone()) => {
            State::Same
        }
        None => State::Change(changes),
    };
    Ok((state, Some(wanted)))
}

/// What the API server finds invalid is found out, other failures are none of the object's:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run> validates as a write does.
fn refused(error: CallError) -> Result<(State, Option<DynamicObject>), ApplyError> {
    match error.status().filter(|status| status.code == 422) {
        Some(status) => {
            let why = status.message.clone();
            Ok((State::Refused { why }, None))
        }
        None => Err(error.into()),
    }
}

/// The fields that differ, without what must not be shown.
pub(crate) fn changes(
    manifest: &Manifest,
    live: &DynamicObject,
    wanted: &DynamicObject,
    managers: &[(String, String)],
) -> Vec<FieldChange> {
    let mut changes = fields::changes(live, wanted, managers);
    for change in &mut changes {
        change.hide(manifest.kind.kind == "Secret");
    }
    changes
}

/// The keys of a Secret that an apply would give a random value, as changes: no dry run makes one.
fn ungenerated(manifest: &Manifest, live: &DynamicObject) -> Result<Vec<FieldChange>, ApplyError> {
    if manifest.kind.kind != "Secret" {
        return Ok(Vec::new());
    }
    let keys =
        credentials::wanted(&manifest.object).map_err(|problem| credentials::unusable(manifest, &problem))?;
    let lacking = credentials::lacking(&keys, live);
    Ok(lacking
        .map(|key| FieldChange {
            path: format!(".data.{key}"),
            on_cluster: None,
            in_template: Some(json!("(generated)")),
            manager: None,
        })
        // A value in the template is one of the fields already.
        .filter(|change| {
            manifest
                .object
                .data
                .pointer(&change.path.replace('.', "/"))
                .is_none_or(Value::is_null)
        })
        .collect())
}

/// The command that removes the object.
pub(crate) fn kubectl_delete(object: &ObjectRef) -> String {
    let place = object
        .namespace
        .as_ref()
        .map(|namespace| format!(" -n {namespace}"));
    let kind = object.kind.to_lowercase();
    format!(
        "kubectl delete {kind} {}{}",
        object.name,
        place.unwrap_or_default()
    )
}

/// The objects as text, each with the fields that differ.
pub(crate) fn show(objects: &[ObjectDifference], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    objects.iter().try_for_each(|one| show_one(one, f))
}

fn show_one(one: &ObjectDifference, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let word = match &one.state {
        State::Create => "create",
        State::Change(_) => "change",
        State::Foreign { .. } => "foreign",
        State::Same => "same",
        State::Skip { .. } => "skip",
        State::Prune => "prune",
        State::Refused { .. } => "refused",
    };
    writeln!(f, "{word:<8} {}", one.object)?;
    match &one.state {
        State::Foreign { why, .. } => writeln!(f, "         it exists and is not ours: {why}")?,
        State::Skip { why } => writeln!(f, "         {why}")?,
        State::Refused { why } => {
            let delete = kubectl_delete(&one.object);
            writeln!(f, "         the API server refuses what the templates say: {why}")?;
            writeln!(
                f,
                "         where a field of it cannot be changed: {delete}; apply makes it anew"
            )?;
        }
        State::Change(changes) if changes.is_empty() => {
            writeln!(
                f,
                "         its values are the same; others set some of them since"
            )?;
        }
        _ => {}
    }
    one.state
        .changes()
        .iter()
        .try_for_each(|change| writeln!(f, "         {change}"))
}

//! Compares what is wanted with what is, by the server's own dry run, before anything is written.

use super::objects::{Leftover, Objects};
use super::{ApplyError, conflict};
use crate::calls;
use crate::kinds::{self, Kind, Phase, Scope};
use crate::manifest::Manifest;
use futures::FutureExt;
use futures::future;
use kube::core::DynamicObject;
use serde_json::Value;
use std::collections::HashMap;

/// What has to be done to one object.
#[derive(Debug)]
pub(super) enum Action {
    /// It does not exist.
    Create,
    /// It exists and differs.
    Change {
        /// Its version now.
        version: String,
    },
    /// It is as wanted.
    Leave,
}

/// What an apply will do.
pub(super) struct Plan<'m> {
    actions: Vec<(&'m Manifest, Action)>,
    pub(super) leftovers: Vec<Leftover>,
}

impl<'m> Plan<'m> {
    /// For a namespace that does not exist: there is nothing to compare with.
    pub(super) fn fresh(manifests: &'m [Manifest]) -> Self {
        let actions = manifests
            .iter()
            .map(|manifest| (manifest, Action::Create))
            .collect();
        Self {
            actions,
            leftovers: Vec::new(),
        }
    }

    pub(super) fn of_phase(&self, phase: Phase) -> Vec<(&'m Manifest, &Action)> {
        self.actions
            .iter()
            .filter(|(manifest, _)| manifest.kind.phase == phase)
            .map(|(manifest, action)| (*manifest, action))
            .collect()
    }
}

/// For a namespace of ours that exists.
pub(super) async fn compare<'m>(
    objects: &Objects<'_>,
    manifests: &'m [Manifest],
) -> Result<Plan<'m>, ApplyError> {
    let tried = calls::all(
        manifests
            .iter()
            .map(|manifest| objects.try_apply(manifest).boxed()),
    );
    let (live, tried) = future::join(live(objects, manifests), tried).await;
    let mut live = live?;
    let mut actions = Vec::new();
    let mut failed = Vec::new();
    for (manifest, result) in manifests.iter().zip(tried) {
        match result {
            Ok(wanted) => {
                let current = live
                    .remove(&key(manifest.kind, manifest.name()))
                    .map(|(_, object)| object);
                actions.push((manifest, action(current, wanted)));
            }
            // Its role is about to be made, so it does not exist either.
            Err(failure) if failure.lacks_role() => actions.push((manifest, Action::Create)),
            Err(failure) => failed.push(failure),
        }
    }
    conflict::settle(objects, failed).await?;
    let mut leftovers: Vec<Leftover> = live
        .into_values()
        .filter_map(|(kind, object)| Leftover::of(kind, &object))
        .collect();
    leftovers.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(Plan { actions, leftovers })
}

type Live = HashMap<(&'static str, String), (&'static Kind, DynamicObject)>;

fn key(kind: &'static Kind, name: &str) -> (&'static str, String) {
    (kind.kind, name.to_owned())
}

/// The tenant's namespace, and all in it that wears the tenant's labels, of every kind that templates may make. What lives in the
/// cluster is never looked for by labels: anybody's may wear them.
async fn live(objects: &Objects<'_>, manifests: &[Manifest]) -> Result<Live, ApplyError> {
    let kinds = kinds::TENANT
        .iter()
        .filter(|kind| kind.scope == Scope::Namespaced);
    let lists = kinds.map(|kind| {
        let wanted = manifests.iter().any(|manifest| manifest.kind == *kind);
        async move { objects.owned(kind, wanted).await.map(|list| (*kind, list)) }.boxed()
    });
    let (namespace, lists) = future::join(objects.namespace(), calls::all(lists)).await;
    let mut lists: Vec<(&'static Kind, Vec<DynamicObject>)> = lists.into_iter().collect::<Result<_, _>>()?;
    lists.push((&kinds::NAMESPACE, namespace?.into_iter().collect()));
    let all = lists
        .into_iter()
        .flat_map(|(kind, list)| list.into_iter().map(move |object| (kind, object)));
    Ok(all
        .map(|(kind, object)| {
            (
                key(kind, object.metadata.name.as_deref().unwrap_or_default()),
                (kind, object),
            )
        })
        .collect())
}

fn action(current: Option<DynamicObject>, wanted: DynamicObject) -> Action {
    // A dry run that would create has no version: nothing was stored that could have one.
    let Some(version) = wanted
        .metadata
        .resource_version
        .clone()
        .filter(|version| !version.is_empty())
    else {
        return Action::Create;
    };
    // It may also exist without our labels; then it is missing from the list and gets them.
    let same = current.is_some_and(|current| what_we_decide(current) == what_we_decide(wanted));
    if same {
        Action::Leave
    } else {
        Action::Change { version }
    }
}

/// The object without what changes by itself: its status, who wrote the status, and when anything was written.
fn what_we_decide(mut object: DynamicObject) -> DynamicObject {
    object.metadata.resource_version = None;
    for entry in object.metadata.managed_fields.iter_mut().flatten() {
        entry.time = None;
    }
    if let Some(entries) = &mut object.metadata.managed_fields {
        entries.retain(|entry| entry.subresource.as_deref() != Some("status"));
    }
    if let Value::Object(fields) = &mut object.data {
        fields.remove("status");
    }
    // A list leaves apiVersion and kind of its items out.
    object.types = None;
    object
}

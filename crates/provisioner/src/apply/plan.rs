//! Compares what is wanted with what is, by the server's own dry run, before anything is written.

use super::objects::{Failure, Leftover, Objects, Owned};
use super::{ApplyError, conflict, fields};
use crate::calls::{self, CallError};
use crate::diff::objects::kubectl_delete;
use crate::kinds::{self, Kind, Phase};
use crate::manifest::Manifest;
use crate::progress::Step;
use futures::FutureExt;
use futures::future;
use kube::core::DynamicObject;
use serde_json::Value;
use std::collections::HashMap;

/// Objects of this kind are not pruned.
const HOLDS_DATA: &str = "PersistentVolumeClaim";

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
    Leave {
        /// The object as it is.
        live: Box<DynamicObject>,
    },
}

/// What an apply will do.
pub(crate) struct Plan<'m> {
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

/// One manifest beside the cluster's object of that name.
pub(crate) struct Tried<'m> {
    pub(crate) manifest: &'m Manifest,
    /// The object as it is; none if it does not exist.
    pub(crate) live: Option<DynamicObject>,
    /// What applying would make of it.
    pub(crate) result: Result<DynamicObject, Failure<'m>>,
}

/// Everything that an apply is about, as it is and as it would be. Nothing was written.
pub(crate) struct Look<'m> {
    pub(crate) tried: Vec<Tried<'m>>,
    /// Of ours, and in no manifest.
    pub(crate) leftovers: Vec<Leftover>,
    /// The same, and not pruned: what goes with them cannot be made anew.
    kept: Vec<Leftover>,
    /// Kinds that are in no manifest and that we may not list, each with the refusal: what is left over of them is not known.
    pub(crate) unlisted: Unlisted,
}

/// Looks at everything, and tries by a dry run each manifest that is not plainly what the object is already: a dry run costs the server
/// as much as a write, and most of the time nothing has changed.
pub(crate) async fn look<'m>(
    objects: &Objects<'_>,
    manifests: &'m [Manifest],
) -> Result<Look<'m>, CallError> {
    let (mut live, unlisted) = live(objects, manifests).await?;
    let results = manifests.iter().map(|manifest| {
        let known = live.get(&key(manifest.kind, manifest.name()));
        let same = known.filter(|(_, object)| fields::is_as_applied(&manifest.object, object));
        match same {
            Some((_, object)) => future::ready(Ok(object.clone())).boxed(),
            None => objects.try_apply(manifest).boxed(),
        }
    });
    let results = calls::all(results).await;
    let mut tried = Vec::new();
    for (manifest, result) in manifests.iter().zip(results) {
        let mut current = live
            .remove(&key(manifest.kind, manifest.name()))
            .map(|(_, object)| object);
        // It may also exist without our labels; then it is missing from the lists.
        if current.is_none() && !result.as_ref().is_ok_and(would_be_new) {
            current = objects.get(manifest).await?;
        }
        tried.push(Tried {
            manifest,
            live: current,
            result,
        });
    }
    let mut leftovers: Vec<Leftover> = live
        .into_values()
        .filter_map(|(kind, object)| Leftover::of(kind, &object))
        .collect();
    leftovers.sort_by(|a, b| a.reference.cmp(&b.reference));
    let (kept, leftovers) = leftovers
        .into_iter()
        .partition(|leftover| leftover.reference.kind == HOLDS_DATA);
    Ok(Look {
        tried,
        leftovers,
        kept,
        unlisted,
    })
}

/// For a namespace that exists: what has to be done, or what forbids it.
pub(crate) async fn settle<'m>(objects: &Objects<'_>, look: Look<'m>) -> Result<Plan<'m>, ApplyError> {
    let mut actions = Vec::new();
    let mut failed = Vec::new();
    for Tried {
        manifest,
        live,
        result,
    } in look.tried
    {
        match result {
            Ok(wanted) => actions.push((manifest, action(live, wanted))),
            // Its role is about to be made, so it does not exist either.
            Err(failure) if failure.lacks_role() => actions.push((manifest, Action::Create)),
            Err(failure) => failed.push(failure),
        }
    }
    conflict::settle(objects, failed).await?;
    for Leftover { reference, .. } in look.kept {
        objects.calls.progress.step(&Step::Note(format!(
            "{reference} is in no template, and stays for the data that it holds; where nobody needs that: {}",
            kubectl_delete(&reference)
        )));
    }
    for (_, refusal) in look.unlisted {
        let note = format!("{refusal}; what is left over of these, if anything, is not pruned");
        objects.calls.progress.step(&Step::Note(note));
    }
    Ok(Plan {
        actions,
        leftovers: look.leftovers,
    })
}

type Live = HashMap<(&'static str, String), (&'static Kind, DynamicObject)>;
type Unlisted = Vec<(&'static Kind, String)>;

fn key(kind: &'static Kind, name: &str) -> (&'static str, String) {
    (kind.kind, name.to_owned())
}

/// The owner's namespace, and all that wears the owner's labels, of every kind that its templates may make.
async fn live(objects: &Objects<'_>, manifests: &[Manifest]) -> Result<(Live, Unlisted), CallError> {
    let lists = objects.searched().map(|kind| {
        let wanted = manifests.iter().any(|manifest| manifest.kind == kind);
        async move { objects.owned(kind, wanted).await.map(|owned| (kind, owned)) }.boxed()
    });
    let (namespace, lists) = future::join(objects.namespace(), calls::all(lists)).await;
    let mut all: Vec<(&'static Kind, DynamicObject)> = Vec::new();
    let mut unlisted = Unlisted::new();
    for result in lists {
        match result? {
            (kind, Owned::Listed(list)) => all.extend(list.into_iter().map(|object| (kind, object))),
            (kind, Owned::Forbidden(refusal)) => unlisted.push((kind, refusal)),
        }
    }
    all.extend(namespace?.map(|object| (&kinds::NAMESPACE, object)));
    let live = all.into_iter().map(|(kind, object)| {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        (key(kind, name), (kind, object))
    });
    Ok((live.collect(), unlisted))
}

fn action(current: Option<DynamicObject>, wanted: DynamicObject) -> Action {
    let Some(version) = version(&wanted).map(str::to_owned) else {
        return Action::Create;
    };
    match current {
        Some(current) if what_we_decide(current.clone()) == what_we_decide(wanted) => Action::Leave {
            live: Box::new(current),
        },
        _ => Action::Change { version },
    }
}

/// A dry run that would create has no version: nothing was stored that could have one.
fn version(wanted: &DynamicObject) -> Option<&str> {
    wanted
        .metadata
        .resource_version
        .as_deref()
        .filter(|version| !version.is_empty())
}

fn would_be_new(wanted: &DynamicObject) -> bool {
    version(wanted).is_none()
}

/// The object without what changes by itself: its status, who wrote the status, and when anything was written.
pub(crate) fn what_we_decide(mut object: DynamicObject) -> DynamicObject {
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

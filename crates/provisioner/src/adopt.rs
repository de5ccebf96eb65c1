//! Takes over a tenant's namespace that was made by hand, or by the former kubectl procedure: says what that changes and who set what
//! ([`look`]), and carries it out ([`adopt`]).
//!
//! Ownership moves as Kubernetes has it moved
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#upgrading-from-client-side-apply-to-server-side-apply>): what
//! kubectl wrote counts as applied by us, so that an apply takes away what of it the templates do not have; then everything is applied by
//! force; then what became ours is taken out of the others' entries, so that no later apply is in conflict with it. Values that an
//! application reads, labels and annotations stay, whoever set them.

mod fields;
mod handover;

use crate::apply::objects::{Objects, Owner, was_applied_by_us};
use crate::apply::{self, Applied, ApplyError, ApplyOptions};
use crate::calls::{CallError, Calls};
use crate::diff::objects::kubectl_delete;
use crate::diff::{self, Difference, Extras, FieldChange, State};
use crate::hardening::{Hardened, Hardening};
use crate::kinds::Phase;
use crate::labels;
use crate::manifest::{Manifest, ObjectRef};
use crate::names::TenantId;
use crate::ownership;
use crate::progress::Progress;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use std::fmt;

/// What taking a namespace over comes to. Nothing is done yet.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// The tenant.
    pub id: TenantId,
    /// What is applied: the templates, without the hardening that is left out.
    pub manifests: Vec<Manifest>,
    /// What changes, field by field, and what widens the tenant and stays.
    pub difference: Difference,
    /// Who else set fields of these objects; what became ours of that is nobody else's afterwards.
    pub managers: Vec<(ObjectRef, Vec<String>)>,
    /// The namespace that was looked at.
    uid: Option<String>,
}

impl Adoption {
    /// Whether there is nothing to take over and nothing to change.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.difference.is_applied()
    }
}

/// Why a namespace is not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// There is none.
    #[error("adopt Namespace {0}: it does not exist")]
    Absent(String),
    /// It is being deleted.
    #[error("adopt Namespace {0}: it is being deleted")]
    Terminating(String),
    /// It is somebody's. Nothing was changed.
    #[error("adopt Namespace {namespace}: it is somebody else's: {why}")]
    Foreign {
        /// The namespace.
        namespace: String,
        /// What tells so.
        why: String,
    },
    /// Objects cannot be what the templates say. Nothing was changed.
    #[error("adopt Namespace {namespace}: the API server refuses what the templates say of:{}", refused.iter().map(|(object, why)| format!("\n  {object}: {why}")).collect::<String>())]
    Refused {
        /// The namespace.
        namespace: String,
        /// The objects, and the API server's words.
        refused: Vec<(ObjectRef, String)>,
    },
    /// It could not be looked at, or not be applied to.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A request failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl AdoptError {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Absent(_) => Some("there is nothing to take over: provisioner apply makes it".to_owned()),
            Self::Terminating(_) => Some("wait until it is gone; provisioner apply makes it anew".to_owned()),
            Self::Foreign { .. } => Some(
                "nothing was changed; choose another tenant id, or settle whose it is and take that label off"
                    .to_owned(),
            ),
            Self::Refused { refused, .. } => {
                let deletes: Vec<String> = refused.iter().map(|(object, _)| kubectl_delete(object)).collect();
                Some(format!(
                    "nothing was changed; fields like selectors and roleRef cannot be changed, so delete these objects and adopt again, which makes them anew: {}",
                    deletes.join("; ")
                ))
            }
            Self::Apply(error) => error.hint(),
            Self::Call(error) => error.hint(),
        }
    }
}

/// Says what taking the namespace over comes to, with this hardening beside what it has. Changes nothing.
///
/// # Errors
/// [`AdoptError::Absent`], [`AdoptError::Terminating`] and [`AdoptError::Foreign`] where there is nothing to take over;
/// [`AdoptError::Refused`] where an object has to go first; else the API server refused or did not answer.
pub async fn look(
    client: &Client,
    manifests: &[Manifest],
    tenant: &TenantId,
    harden: &Hardened,
    progress: &dyn Progress,
) -> Result<Adoption, AdoptError> {
    let calls = Calls::new(ApplyOptions::default().patience, progress);
    let objects = Objects::new(client, &calls, Owner::Tenant(tenant), false);
    let live = to_take_over(&objects, tenant).await?;
    let hardened = hardened(&live, harden);
    let manifests = match &hardened {
        Some(hardened) => hardened.applied_to(manifests),
        None => manifests.to_vec(),
    };
    let options = diff::Options {
        extras: Extras::InNamespace,
        ..diff::Options::default()
    };
    let difference = diff::compare(client, &objects, &manifests, tenant, &options).await?;
    let left_out: Vec<Hardening> = hardened.map(|hardened| hardened.left_out()).unwrap_or_default();
    let mut adoption = Adoption {
        id: tenant.clone(),
        manifests,
        difference: Difference {
            left_out,
            ..difference
        },
        managers: Vec::new(),
        uid: live.metadata.uid.clone(),
    };
    find_managers(&objects, &mut adoption).await?;
    refuse(adoption)
}

/// The namespace, where there is one to take over.
async fn to_take_over(objects: &Objects<'_>, tenant: &TenantId) -> Result<DynamicObject, AdoptError> {
    let namespace = tenant.namespace();
    let Some(live) = objects.namespace().await? else {
        return Err(AdoptError::Absent(namespace));
    };
    if live.metadata.deletion_timestamp.is_some() {
        return Err(AdoptError::Terminating(namespace));
    }
    match foreign(&live, tenant) {
        Some(why) => Err(AdoptError::Foreign { namespace, why }),
        None => Ok(live),
    }
}

/// What tells that the namespace is another tenant's or another platform's, or one of a test.
fn foreign(live: &DynamicObject, tenant: &TenantId) -> Option<String> {
    let labels = live.metadata.labels.clone().unwrap_or_default();
    let ours = [
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE),
        (labels::TENANT, tenant.as_str()),
    ];
    // One that is missing is what an adoption is for.
    let mut unlike = ours
        .into_iter()
        .filter(|(key, _)| labels.contains_key(*key))
        .filter_map(|(key, expected)| ownership::unlike(&labels, key, expected));
    let run = labels.get(labels::RUN_ID);
    unlike
        .next()
        .or_else(|| run.map(|run| format!("conformance run {run} made it, and removes it")))
}

/// What the namespace is to have; none where it has everything and nothing says otherwise.
fn hardened(live: &DynamicObject, harden: &Hardened) -> Option<Hardened> {
    let annotations = live.metadata.annotations.clone().unwrap_or_default();
    match Hardened::of(&annotations) {
        Some(hardened) => Some(hardened.with(harden)),
        None if was_applied_by_us(live) => None,
        None => Some(harden.clone()),
    }
}

/// Adds who else set what, and to what changes what goes with kubectl's ownership.
async fn find_managers(objects: &Objects<'_>, adoption: &mut Adoption) -> Result<(), AdoptError> {
    for (manifest, compared) in adoption.manifests.iter().zip(&mut adoption.difference.objects) {
        if compared.state == State::Create {
            continue;
        }
        let Some(live) = objects.get(manifest).await? else {
            continue;
        };
        let before = live.metadata.managed_fields.clone().unwrap_or_default();
        let others = handover::others(&before);
        if !others.is_empty() {
            adoption.managers.push((manifest.reference(), others));
        }
        if let State::Refused { why } = &compared.state {
            // What kubectl wrote and what the templates say may not go together, and will not be together.
            if !is_for_good(why) && handover::received(manifest, &before).is_some() {
                let fresh = fresh(objects, manifest).await?;
                let changes = fresh.map(|fresh| diff::objects::changes(manifest, &live, &fresh, &[]));
                compared.state = State::Change(changes.unwrap_or_default());
            }
            continue;
        }
        let wanted = objects
            .try_force(manifest)
            .await
            .map_err(|failure| failure.error)?;
        let after = wanted.metadata.managed_fields.unwrap_or_default();
        let live = serde_json::to_value(&live).unwrap_or_default();
        let goes = if handover::received(manifest, &before).is_some() {
            let fresh = fresh(objects, manifest).await?;
            let fresh = serde_json::to_value(fresh).unwrap_or_default();
            handover::going(manifest, (&live, &fresh), &before, &after)
        } else {
            Vec::new()
        };
        let goes = goes.into_iter().map(|(path, value)| FieldChange {
            path,
            on_cluster: Some(value),
            in_template: None,
            manager: None,
        });
        let mut changes = compared.state.changes().to_vec();
        changes.extend(goes);
        let released = handover::received(manifest, &before).or_else(|| handover::released(&after));
        if !changes.is_empty() || released.is_some() {
            compared.state = State::Change(changes);
        }
    }
    Ok(())
}

/// Whether the API server refuses it whatever else becomes of the object. Validation says so in these words, for selectors, types and
/// `roleRef` (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#clusterrolebinding-example>).
fn is_for_good(why: &str) -> bool {
    ["immutable", "cannot change", "may not change"]
        .into_iter()
        .any(|words| why.contains(words))
}

/// What the server would make of the template were there no such object: a dry run under a name that nobody has. None where it refuses that.
async fn fresh(objects: &Objects<'_>, manifest: &Manifest) -> Result<Option<DynamicObject>, CallError> {
    const NOBODYS: &str = "adoption-dry-run";
    let mut object = manifest.object.clone();
    object.metadata.name = Some(NOBODYS.to_owned());
    let parameters = PatchParams {
        dry_run: true,
        ..PatchParams::apply(labels::FIELD_MANAGER)
    };
    let (api, body) = (objects.api(manifest.kind), Patch::Apply(&object));
    let what = format!("apply (dry run) {} as though it were new", manifest.reference());
    let made = objects
        .calls
        .make(what, || api.patch(NOBODYS, &parameters, &body))
        .await;
    match made {
        Ok(mut made) => {
            made.metadata.name.clone_from(&manifest.object.metadata.name);
            Ok(Some(made))
        }
        Err(error) if error.status().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

fn refuse(adoption: Adoption) -> Result<Adoption, AdoptError> {
    let refused = adoption
        .difference
        .objects
        .iter()
        .filter_map(|it| match &it.state {
            State::Refused { why } => Some((it.object.clone(), why.clone())),
            _ => None,
        });
    let refused: Vec<(ObjectRef, String)> = refused.collect();
    if refused.is_empty() {
        return Ok(adoption);
    }
    Err(AdoptError::Refused {
        namespace: adoption.id.namespace(),
        refused,
    })
}

/// Takes the namespace over. What it does it can do again: after a failure the same command goes on.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn adopt(
    client: &Client,
    adoption: &Adoption,
    progress: &dyn Progress,
) -> Result<Applied, AdoptError> {
    let options = ApplyOptions {
        force_conflicts: true,
        ..ApplyOptions::default()
    };
    let calls = Calls::new(options.patience, progress);
    let owner = Owner::Tenant(&adoption.id);
    let objects = Objects::new(client, &calls, owner, options.force_conflicts);
    // Between the look and the answer to what it showed, somebody may have taken it or made it anew.
    if to_take_over(&objects, &adoption.id).await?.metadata.uid != adoption.uid {
        return Err(AdoptError::Foreign {
            namespace: adoption.id.namespace(),
            why: "it was deleted and made anew since it was looked at".to_owned(),
        });
    }
    for manifest in &adoption.manifests {
        handover::record(&objects, manifest, |entries| {
            handover::received(manifest, entries)
        })
        .await?;
    }
    let labelled = label(&objects, &adoption.manifests).await?;
    let mut applied = apply::apply(client, &adoption.manifests, &adoption.id, &options, progress).await?;
    // It was changed before the rest was looked at.
    let place = applied
        .unchanged
        .iter()
        .position(|it| Some(it) == labelled.as_ref());
    applied
        .changed
        .extend(place.map(|place| applied.unchanged.remove(place)));
    let calls = Calls::new(options.patience, progress);
    let objects = Objects::new(client, &calls, owner, options.force_conflicts);
    for manifest in &adoption.manifests {
        handover::record(&objects, manifest, handover::released).await?;
    }
    Ok(applied)
}

/// Applies the namespace itself, labels and what is left out included, so that the rest finds it to be ours; which it was, if it changed.
async fn label(objects: &Objects<'_>, manifests: &[Manifest]) -> Result<Option<ObjectRef>, AdoptError> {
    let of_namespace = manifests.iter().find(|it| it.kind.phase == Phase::Namespace);
    let Some(manifest) = of_namespace else {
        return Ok(None);
    };
    let before = objects
        .get(manifest)
        .await?
        .and_then(|live| live.metadata.resource_version);
    let applied = objects.apply(manifest).await.map_err(|failure| failure.error)?;
    Ok((applied.metadata.resource_version != before).then(|| manifest.reference()))
}

impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.difference.show_details(f)?;
        for (object, managers) in &self.managers {
            writeln!(f, "taken    {object}: from {}", managers.join(", "))?;
        }
        let namespace = self.id.namespace();
        if self.is_done() {
            return writeln!(
                f,
                "namespace {namespace} is ours already, and as its templates say"
            );
        }
        let differing = self
            .difference
            .objects
            .iter()
            .filter(|it| it.state != State::Same);
        writeln!(
            f,
            "taking namespace {namespace} over changes {} of {} objects",
            differing.count(),
            self.difference.objects.len()
        )
    }
}

//! Carries manifests to the cluster: server-side apply without force, in order, unchanged objects left alone, objects of
//! ours that the manifests no longer contain deleted.
//!
//! On a namespace that exists, everything is first tried by a dry run, all of it, before anything is written: a conflict or a
//! refusal therefore changes nothing.

pub(crate) mod conflict;
mod fields;
pub(crate) mod objects;
pub(crate) mod plan;

pub use conflict::Conflict;

use crate::calls::{self, CallError, Calls};
use crate::credentials;
use crate::hardening;
use crate::kinds::Phase;
use crate::manifest::{Manifest, ObjectRef};
use crate::names::TenantId;
use crate::ownership::{self, Ownership};
use crate::progress::{Progress, Step};
use crate::ready::{self, Expected, Missing, NotReady, Reason};
use futures::FutureExt;
use kube::Client;
use kube::core::DynamicObject;
use objects::{Objects, Owner};
use plan::{Action, Look, Plan};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How to apply.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// Take fields back from whoever else set them. Without it such a conflict is an error and nothing is changed.
    pub force_conflicts: bool,
    /// Wait this long at most until the tenant is ready; none does not wait.
    pub readiness: Option<Duration>,
    /// How long passing failures (429, 5xx, lost connections) are ridden out, a namespace that is being deleted and a quota that
    /// is not yet in force are waited for.
    pub patience: Duration,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            force_conflicts: false,
            readiness: None,
            patience: Duration::from_secs(30),
        }
    }
}

/// What an apply did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// Made.
    pub created: Vec<ObjectRef>,
    /// Changed.
    pub changed: Vec<ObjectRef>,
    /// As wanted already; nothing was written.
    pub unchanged: Vec<ObjectRef>,
    /// Ours, no longer wanted, deleted.
    pub pruned: Vec<ObjectRef>,
    /// Left out: this server has no such kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<ObjectRef>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.created.len(), "created"),
            (self.changed.len(), "changed"),
            (self.unchanged.len(), "unchanged"),
            (self.pruned.len(), "pruned"),
            (self.skipped.len(), "skipped"),
        ];
        let shown: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        f.write_str(&shown.join(", "))
    }
}

/// Why an apply failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The namespace exists and is somebody else's. Nothing was changed.
    #[error("apply Namespace {namespace}: it exists and is not ours: {why}")]
    Foreign {
        /// The namespace.
        namespace: String,
        /// What tells so.
        why: String,
    },
    /// The namespace is being deleted and did not go in time. Nothing was changed.
    #[error("apply Namespace {namespace}: it is being deleted and was still there after {waited:.0?}")]
    Terminating {
        /// The namespace.
        namespace: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The namespace went while it was applied: somebody deletes it at the same time.
    #[error("apply Namespace {namespace}: it {state} by somebody else in the meantime")]
    Deleted {
        /// The namespace.
        namespace: String,
        /// `is being deleted`, or `was deleted`.
        state: &'static str,
    },
    /// Fields are somebody else's. Nothing was changed.
    #[error("{}", conflict::listing(.0))]
    Conflicts(Vec<Conflict>),
    /// The shared services' namespace is not there to put policies into. Nothing was changed.
    #[error("find Namespace {namespace} of the shared services: it {state}")]
    NoNamespace {
        /// The namespace.
        namespace: String,
        /// `does not exist`, or `is being deleted`.
        state: &'static str,
    },
    /// Objects of the platform's names exist and are somebody else's. Nothing was changed.
    #[error("apply platform: there are objects that are not ours:{}", .0.iter().map(|line| format!("\n  {line}")).collect::<String>())]
    Taken(Vec<String>),
    /// A request failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The quota is not in force: admission reads only its status. Workloads were not applied.
    #[error("apply {quota}: not in force after {waited:.0?}: {detail}")]
    QuotaNotLive {
        /// The quota.
        quota: ObjectRef,
        /// What its status says, and its spec.
        detail: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Everything was applied, and something did not become ready in time.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

impl ApplyError {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Foreign { .. } => Some(
                "choose another tenant id; or, where somebody made it by hand for this tenant, take it over: `provisioner adopt` shows what that changes, and asks".to_owned(),
            ),
            Self::Terminating { namespace, .. } => Some(format!(
                "`kubectl get namespace {namespace} -o jsonpath='{{.status.conditions}}'` says what holds it; then apply again"
            )),
            Self::Deleted { .. } => Some(
                "somebody deletes this tenant; if it is to be there, apply again when that is done".to_owned(),
            ),
            Self::Conflicts(_) => {
                Some("nothing was changed; settle who sets these fields, or take them back with --force-conflicts".to_owned())
            }
            Self::NoNamespace { namespace, .. } => Some(format!(
                "put up the shared services first, `kubectl create namespace {namespace}` at least; or name the namespace they are in as sharedServices.namespace in a settings file, and pass it with -f"
            )),
            Self::Taken(_) => Some(
                "nothing was changed; delete or rename them, or take them over with --force-conflicts: from then on they are ours, and go when the templates no longer contain them"
                    .to_owned(),
            ),
            Self::Call(error) => error.hint(),
            Self::QuotaNotLive { .. } => Some("check that kube-controller-manager runs; then apply again".to_owned()),
            Self::NotReady(not_ready) => not_ready.hint(),
        }
    }
}

/// Brings the tenant's namespace to what the manifests say. What a namespace was adopted without ([`hardening`]) stays left out.
///
/// # Errors
/// See [`ApplyError`]. After a conflict or a refusal by ownership nothing was changed; after other errors the same call again
/// converges.
pub async fn apply(
    client: &Client,
    manifests: &[Manifest],
    tenant: &TenantId,
    options: &ApplyOptions,
    progress: &dyn Progress,
) -> Result<Applied, ApplyError> {
    let calls = Calls::new(options.patience, progress);
    let objects = Objects::new(client, &calls, Owner::Tenant(tenant), options.force_conflicts);
    let applied = match bring_up_to_date(&objects, tenant, manifests).await {
        Err(error) => return Err(in_view_of_the_namespace(&objects, error).await),
        Ok(applied) => applied,
    };
    if let Some(deadline) = options.readiness {
        ready::wait(
            client,
            &Expected::of_manifests(tenant, manifests),
            deadline,
            progress,
        )
        .await?;
    }
    Ok(applied)
}

async fn bring_up_to_date(
    objects: &Objects<'_>,
    tenant: &TenantId,
    manifests: &[Manifest],
) -> Result<Applied, ApplyError> {
    let plan = loop {
        if let Some(annotations) = settle_ownership(objects, tenant).await? {
            let manifests = hardening::honour(manifests, &annotations);
            let mut look = plan::look(objects, &manifests).await?;
            if completed_record(objects, &look).await? {
                look = plan::look(objects, &manifests).await?;
            }
            let plan = plan::settle(objects, look).await?;
            return carry_out(objects, plan).await;
        }
        if made_namespace(objects, manifests).await? {
            break Plan::fresh(manifests);
        }
    };
    carry_out(objects, plan).await
}

/// The annotations of the namespace, where it exists and is ours; waits for one that is on its way out.
async fn settle_ownership(
    objects: &Objects<'_>,
    tenant: &TenantId,
) -> Result<Option<BTreeMap<String, String>>, ApplyError> {
    let started = Instant::now();
    let namespace = tenant.namespace();
    let mut told = false;
    loop {
        match ownership::look(objects.calls, objects.client, tenant).await? {
            Ownership::Absent => return Ok(None),
            Ownership::Foreign { why } => return Err(ApplyError::Foreign { namespace, why }),
            Ownership::Ours {
                terminating: false,
                annotations,
                ..
            } => return Ok(Some(annotations)),
            Ownership::Ours { .. } if Instant::now() > objects.calls.deadline() => {
                return Err(ApplyError::Terminating {
                    namespace,
                    waited: started.elapsed(),
                });
            }
            Ownership::Ours { .. } => {}
        }
        if !std::mem::replace(&mut told, true) {
            objects.calls.progress.step(&Step::Waiting(vec![Missing {
                object: ObjectRef {
                    kind: "Namespace".to_owned(),
                    name: namespace.clone(),
                    namespace: None,
                },
                reason: Reason::Starting,
                detail: "it is being deleted; waiting until it is gone".to_owned(),
            }]));
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// False if somebody else made it since we looked.
async fn made_namespace(objects: &Objects<'_>, manifests: &[Manifest]) -> Result<bool, ApplyError> {
    let mut of_namespace = manifests.iter().filter(|it| it.kind.phase == Phase::Namespace);
    let Some(manifest) = of_namespace.next() else {
        return Ok(true);
    };
    match objects.create(manifest).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_conflict() && Instant::now() < objects.calls.deadline() => {
            sleep(Duration::from_millis(100)).await;
            Ok(false)
        }
        Err(error) if error.is_conflict() => Err(objects.calls.given_up(error).into()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the namespace was left half made by somebody who was interrupted, and is recorded as applied by now.
async fn completed_record(objects: &Objects<'_>, look: &Look<'_>) -> Result<bool, CallError> {
    let of_namespace = |tried: &&plan::Tried<'_>| tried.manifest.kind.phase == Phase::Namespace;
    let Some(tried) = look.tried.iter().find(of_namespace) else {
        return Ok(false);
    };
    match &tried.live {
        Some(live) => objects.record_as_applied(tried.manifest, live.clone()).await,
        None => Ok(false),
    }
}

/// What fails because the namespace went in the meantime says so.
async fn in_view_of_the_namespace(objects: &Objects<'_>, error: ApplyError) -> ApplyError {
    let suspected = match &error {
        ApplyError::Call(error) => error.is_from_the_end_of_a_namespace() || error.is_absence(),
        _ => false,
    };
    if suspected && let Err(gone) = still_there(objects).await {
        return gone;
    }
    error
}

/// Fails where the namespace is gone, or going.
async fn still_there(objects: &Objects<'_>) -> Result<(), ApplyError> {
    let state = match objects.namespace().await? {
        None => "was deleted",
        Some(live) if live.metadata.deletion_timestamp.is_some() => "is being deleted",
        Some(_) => return Ok(()),
    };
    Err(ApplyError::Deleted {
        namespace: objects.namespace_name(),
        state,
    })
}

pub(crate) async fn carry_out(objects: &Objects<'_>, plan: Plan<'_>) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    for phase in Phase::ALL {
        if phase == Phase::Workload {
            quotas_in_force(objects, &plan).await?;
        }
        write(objects, plan.of_phase(phase), &mut applied).await?;
    }
    for leftover in plan.leftovers {
        let object = leftover.reference.clone();
        if objects.remove(leftover).await? {
            objects.calls.progress.step(&Step::Pruned(object.clone()));
            applied.pruned.push(object);
        }
    }
    Ok(applied)
}

/// Writes what one phase has to write. All of it is attempted, whatever fails, so that the next attempt has less to do.
async fn write(
    objects: &Objects<'_>,
    actions: Vec<(&Manifest, &Action)>,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let writes = actions.into_iter();
    let written =
        calls::all(writes.map(|(manifest, action)| carry_out_one(objects, manifest, action).boxed())).await;
    let mut failed = Vec::new();
    for result in written {
        match result {
            Ok((manifest, outcome)) => record(objects, manifest, outcome, applied),
            Err(error) => failed.push(error),
        }
    }
    conflict::settle(objects, failed).await
}

/// Whether the object was made (true), changed (false) or left as it is.
async fn carry_out_one<'m>(
    objects: &Objects<'_>,
    manifest: &'m Manifest,
    action: &Action,
) -> Result<(&'m Manifest, Option<bool>), objects::Failure<'m>> {
    let (outcome, live) = match action {
        Action::Leave { live } => (None, (**live).clone()),
        Action::Create => (Some(true), objects.apply(manifest).await?),
        Action::Change { version } => {
            let object = objects.apply(manifest).await?;
            let same = object.metadata.resource_version.as_ref() == Some(version);
            ((!same).then_some(false), object)
        }
    };
    let failed = |error| objects::Failure { manifest, error };
    let filled = generate_credentials(objects, manifest, live)
        .await
        .map_err(failed)?;
    Ok((manifest, outcome.or(filled.then_some(false))))
}

/// Whether a value was generated.
async fn generate_credentials(
    objects: &Objects<'_>,
    manifest: &Manifest,
    live: DynamicObject,
) -> Result<bool, CallError> {
    if manifest.kind.kind != "Secret" {
        return Ok(false);
    }
    let keys =
        credentials::wanted(&manifest.object).map_err(|problem| credentials::unusable(manifest, &problem))?;
    if keys.is_empty() {
        return Ok(false);
    }
    objects.fill(manifest, &keys, live).await
}

fn record(objects: &Objects<'_>, manifest: &Manifest, made: Option<bool>, applied: &mut Applied) {
    let object = manifest.reference();
    let (step, list): (fn(ObjectRef) -> Step, _) = match made {
        Some(true) => (Step::Created, &mut applied.created),
        Some(false) => (Step::Updated, &mut applied.changed),
        None => (Step::Unchanged, &mut applied.unchanged),
    };
    objects.calls.progress.step(&step(object.clone()));
    list.push(object);
}

/// Nothing may run before the quota counts it.
async fn quotas_in_force(objects: &Objects<'_>, plan: &Plan<'_>) -> Result<(), ApplyError> {
    let started = Instant::now();
    let guards = plan.of_phase(Phase::Guard).into_iter();
    for (manifest, action) in guards.filter(|(manifest, _)| manifest.kind.kind == "ResourceQuota") {
        if let Action::Leave { live } = action
            && ready::quota_gap(Some(&live.data)).is_none()
        {
            continue;
        }
        let mut pause = Duration::from_millis(20);
        loop {
            let live = objects.get(manifest).await?;
            let Some(detail) = ready::quota_gap(live.as_ref().map(|live| &live.data)) else {
                break;
            };
            if live.is_none() {
                still_there(objects).await?;
            }
            if Instant::now() > objects.calls.deadline() {
                let quota = manifest.reference();
                return Err(ApplyError::QuotaNotLive {
                    quota,
                    detail,
                    waited: started.elapsed(),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
    Ok(())
}

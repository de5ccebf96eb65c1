//! Takes a tenant's namespace away: rights first, then workloads, and only when their pods are gone the namespace.
//!
//! Network policies are never deleted one by one. They go with the namespace, which by then is being deleted and admits no pod:
//! so no pod of the tenant ever runs without them. (A namespace that is deleted with pods in it may lose its policies first:
//! CVE-2024-7598.)

mod held;
mod inventory;
mod workloads;

pub use inventory::{DnsEntry, Inventory, inventory};

use crate::calls::{CallError, Calls};
use crate::manifest::ObjectRef;
use crate::names::TenantId;
use crate::needs::Need;
use crate::ownership::{self, Ownership};
use crate::progress::{Progress, Step};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use workloads::Workloads;

/// How often it is looked at what keeps a namespace.
const EXPLAIN_EVERY: Duration = Duration::from_secs(5);

/// How to delete.
#[derive(Debug, Clone)]
pub struct DeleteOptions {
    /// How long the whole deletion may take.
    pub deadline: Duration,
}

impl Default for DeleteOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(120),
        }
    }
}

/// What a deletion did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Deleted {
    /// The namespace was there when we came.
    pub existed: bool,
    /// What was told to go, in this order; the rest went with the namespace.
    pub deleted: Vec<ObjectRef>,
}

/// Why a deletion failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// The namespace exists and is somebody else's. It was not deleted.
    #[error("delete Namespace {namespace}: it is not ours: {why}")]
    Foreign {
        /// The namespace.
        namespace: String,
        /// What tells so.
        why: String,
    },
    /// A request failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Pods did not end in time. The namespace and its policies are still there.
    #[error("delete Namespace {namespace}: pods are still there after {waited:.0?}: {}", pods.join(", "))]
    PodsStay {
        /// The namespace.
        namespace: String,
        /// How long was waited.
        waited: Duration,
        /// The pods, each with what holds it where that is known.
        pods: Vec<String>,
    },
    /// The namespace did not go in time.
    #[error("delete Namespace {namespace}: still there after {waited:.0?}{}", remaining.iter().map(|line| format!("\n  {line}")).collect::<String>())]
    NamespaceStays {
        /// The namespace.
        namespace: String,
        /// How long was waited.
        waited: Duration,
        /// What the server says is left, and which finalizers hold it.
        remaining: Vec<String>,
    },
}

impl DeleteError {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Foreign { .. } => Some(
                "delete it by hand if it is to go; or take it over first: `provisioner adopt`"
                    .to_owned(),
            ),
            Self::Call(error) => error.hint(),
            Self::PodsStay { .. } => Some(
                "a pod that stays has a finalizer, or its node does not answer; when it is gone, delete again".to_owned(),
            ),
            Self::NamespaceStays { .. } => Some(
                "a finalizer is taken away by whoever put it there; see that this controller runs, then delete again"
                    .to_owned(),
            ),
        }
    }
}

/// Deletes the tenant's namespace and everything in it, and returns when it is gone. A namespace that does not exist is success.
///
/// # Errors
/// See [`DeleteError`]. The same call again continues.
pub async fn delete(
    client: &Client,
    tenant: &TenantId,
    options: &DeleteOptions,
    progress: &dyn Progress,
) -> Result<Deleted, DeleteError> {
    let calls = Calls::new(options.deadline, progress);
    let namespace = tenant.namespace();
    let started = Instant::now();
    let mut result = Deleted::default();
    loop {
        let (uid, terminating) = match ownership::look(&calls, client, tenant).await? {
            Ownership::Absent => return Ok(result),
            Ownership::Foreign { why } => return Err(DeleteError::Foreign { namespace, why }),
            Ownership::Ours { uid, terminating, .. } => (uid, terminating),
        };
        result.existed = true;
        let workloads = Workloads::new(client, &calls, tenant);
        workloads
            .remove(&mut result.deleted)
            .await
            .map_err(|stay| stay.into_error(&namespace, started.elapsed()))?;
        if !terminating {
            match remove_namespace(client, &calls, &namespace, &uid).await {
                Ok(()) => {}
                // It is another one by now.
                Err(error) if error.is_conflict() && Instant::now() < calls.deadline() => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(error) if error.is_conflict() => return Err(calls.given_up(error).into()),
                Err(error) => return Err(error.into()),
            }
            let object = ObjectRef {
                kind: "Namespace".to_owned(),
                name: namespace.clone(),
                namespace: None,
            };
            progress.step(&Step::Deleted(object.clone()));
            result.deleted.push(object);
        }
        until_gone(client, &calls, &namespace, &uid, started).await?;
        return Ok(result);
    }
}

/// What a deletion needs: kinds that we may not list are passed over, but for pods, whose end is waited for.
pub(crate) fn needs(namespace: &str) -> Vec<Need> {
    let pods = ["list", "delete"].map(|verb| Need::new(verb, ("", "pods"), Some(namespace)));
    let itself = ["get", "delete"].map(|verb| Need::new(verb, ("", "namespaces"), None));
    [pods, itself].concat()
}

/// The uid makes sure that it is the namespace whose owner we looked at; where it is not, this fails with 409.
async fn remove_namespace(
    client: &Client,
    calls: &Calls<'_>,
    namespace: &str,
    uid: &str,
) -> Result<(), CallError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match calls
        .make_unless_conflict(format!("delete Namespace {namespace}"), || {
            api.delete(namespace, &parameters)
        })
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn until_gone(
    client: &Client,
    calls: &Calls<'_>,
    namespace: &str,
    uid: &str,
    started: Instant,
) -> Result<(), DeleteError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut told = Vec::new();
    let mut explain_at = Instant::now() + EXPLAIN_EVERY;
    let mut explained = Vec::new();
    loop {
        let live = calls
            .make(format!("get Namespace {namespace}"), || api.get_opt(namespace))
            .await?;
        let Some(live) = live.filter(|live| live.metadata.uid.as_deref() == Some(uid)) else {
            return Ok(());
        };
        if Instant::now() > calls.deadline() {
            let remaining = [held::objects(client, &live).await, remaining(&live)].concat();
            return Err(DeleteError::NamespaceStays {
                namespace: namespace.to_owned(),
                waited: started.elapsed(),
                remaining,
            });
        }
        if Instant::now() > explain_at {
            let held = held::objects(client, &live).await;
            let new = held.iter().filter(|line| !explained.contains(*line));
            new.for_each(|line| calls.progress.step(&Step::Note(format!("held up by {line}"))));
            explained = held;
            explain_at = Instant::now() + EXPLAIN_EVERY;
        }
        let now = vec![ObjectRef {
            kind: "Namespace".to_owned(),
            name: namespace.to_owned(),
            namespace: None,
        }];
        if now != told {
            calls.progress.step(&Step::Leaving(now.clone()));
            told = now;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What the namespace's conditions say is left and holds it.
fn remaining(namespace: &Namespace) -> Vec<String> {
    let conditions = namespace
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut lines: Vec<String> = conditions
        .filter(|condition| condition.status == "True")
        .map(|condition| {
            format!(
                "{}: {}",
                condition.type_,
                condition.message.as_deref().unwrap_or_default()
            )
        })
        .collect();
    let finalizers = namespace.metadata.finalizers.as_deref().unwrap_or_default();
    if !finalizers.is_empty() {
        lines.push(format!("the namespace itself: {}", held::describe(finalizers)));
    }
    lines
}

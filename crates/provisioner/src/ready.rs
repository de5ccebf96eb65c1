//! Waits until a tenant is complete, and says what is missing and why. Judging one Deployment is in [`diagnose`].

mod diagnose;
mod observe;

use crate::list::Rollout;
use crate::manifest::{Manifest, ObjectRef};
use crate::names::TenantId;
use crate::needs::Need;
use crate::progress::{Progress, Step};
use crate::quantity::Quantity;
use crate::tenant::Tenant;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use observe::{Observer, Unobserved};
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Something that a tenant still lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The object that is not as it must be.
    pub object: ObjectRef,
    /// Which sort of trouble it is.
    pub reason: Reason,
    /// What was expected and seen, from conditions, pods and events.
    pub detail: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.detail)
    }
}

/// Why something is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The object does not exist.
    Absent,
    /// On its way, without a sign of trouble.
    Starting,
    /// The quota's status is not its spec yet: admission reads only the status.
    QuotaNotLive,
    /// No node has the image, or none can fetch it.
    Image,
    /// A pod was refused by the quota.
    Quota,
    /// A pod was refused by the LimitRange.
    LimitRange,
    /// A pod was refused by Pod Security.
    PodSecurity,
    /// A pod was refused by something else in admission.
    Refused,
    /// No node has room, or none may be used.
    Scheduling,
    /// The node could not set the pod up: sandbox, network, volume, container.
    Node,
    /// The container ended.
    Crash,
    /// The container runs, and its probe does not pass.
    Probe,
    /// The Service has no ready endpoint.
    NoEndpoints,
    /// The API server would not tell.
    Unknown,
}

impl Reason {
    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Image => {
                "load the image onto the nodes, or set api.image and worker.image to one that they can fetch"
            }
            Self::Quota => "raise the quota in the tenant file, or remove what uses it up",
            Self::LimitRange | Self::PodSecurity => {
                "change the workload's template so that its pods are allowed"
            }
            Self::Scheduling => "add a node, or lower what the workloads request",
            Self::Crash => "`kubectl logs --previous` of the pod says how the container ended",
            Self::Probe => "`kubectl logs` of the pod says what the container is doing",
            Self::Refused => {
                "change the workload's template so that the named policy or webhook allows its pods"
            }
            Self::Node => "`kubectl describe` of the pod says what its node could not set up",
            Self::QuotaNotLive | Self::Absent => "check that kube-controller-manager runs",
            _ => return None,
        })
    }
}

/// What was missing when the time was over.
#[derive(Debug)]
pub struct NotReady {
    /// The namespace.
    pub namespace: String,
    /// How long was waited.
    pub waited: Duration,
    /// All that was missing at the end; never empty.
    pub missing: Vec<Missing>,
}

impl NotReady {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        // Missing endpoints follow from pods that are not ready; what is wrong with those says more.
        let hint = self.missing.iter().find_map(|missing| missing.reason.hint());
        let starts = |missing: &Missing| missing.reason == Reason::Starting;
        let longer = "no sign of trouble: give it longer with --timeout, as in --timeout 5m";
        hint.or_else(|| self.missing.iter().any(starts).then_some(longer))
            .map(str::to_owned)
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "wait for Namespace {}: not ready after {:.1?}:",
            self.namespace, self.waited
        )?;
        self.missing
            .iter()
            .try_for_each(|missing| write!(f, "\n  {missing}"))
    }
}

impl std::error::Error for NotReady {}

/// Waits until the tenant is complete: the quota in force, its accounts there, API and worker rolled out, the API's Service with
/// a ready endpoint. Takes the names of the standard templates; [`wait_ready_for`] takes those of manifests.
///
/// # Errors
/// What was missing when `deadline` was over.
pub async fn wait_ready(
    client: &Client,
    tenant: &Tenant,
    deadline: Duration,
    progress: &dyn Progress,
) -> Result<(), NotReady> {
    wait(
        client,
        &Expected::of_standard_templates(&tenant.id),
        deadline,
        progress,
    )
    .await
}

/// Like [`wait_ready`], for the objects of these manifests.
///
/// # Errors
/// What was missing when `deadline` was over.
pub async fn wait_ready_for(
    client: &Client,
    tenant: &TenantId,
    manifests: &[Manifest],
    deadline: Duration,
    progress: &dyn Progress,
) -> Result<(), NotReady> {
    wait(
        client,
        &Expected::of_manifests(tenant, manifests),
        deadline,
        progress,
    )
    .await
}

/// What the wait for these manifests' objects needs.
pub(crate) fn needs(manifests: &[Manifest], namespace: &str) -> Vec<Need> {
    let runs = |manifest: &Manifest| matches!(manifest.kind.kind, "Deployment" | "Service");
    let workloads: &[(&str, &str)] = if manifests.iter().any(runs) {
        &observe::WORKLOADS
    } else {
        &[]
    };
    let lists = observe::GUARDS.iter().chain(workloads);
    lists
        .map(|resource| Need::new("list", *resource, Some(namespace)))
        .collect()
}

/// The objects that have to be there.
pub(crate) struct Expected {
    namespace: String,
    quotas: Vec<String>,
    accounts: Vec<String>,
    deployments: Vec<String>,
    services: Vec<String>,
}

/// Pods of a namespace without it are refused, whichever account they name.
const DEFAULT_ACCOUNT: &str = "default";

impl Expected {
    fn of_standard_templates(id: &TenantId) -> Self {
        Self {
            namespace: id.namespace(),
            quotas: vec![format!("tenant-{id}-quota")],
            accounts: vec![DEFAULT_ACCOUNT.to_owned(), format!("sa-{id}")],
            deployments: vec!["ai-agents-api".to_owned(), "ai-agents-worker".to_owned()],
            services: vec!["ai-agents-api".to_owned()],
        }
    }

    pub(crate) fn of_manifests(id: &TenantId, manifests: &[Manifest]) -> Self {
        let names = |kind: &str| {
            let of_kind = manifests.iter().filter(|manifest| manifest.kind.kind == kind);
            of_kind
                .map(|manifest| manifest.name().to_owned())
                .collect::<Vec<_>>()
        };
        let mut accounts = vec![DEFAULT_ACCOUNT.to_owned()];
        accounts.extend(names("ServiceAccount"));
        Self {
            namespace: id.namespace(),
            quotas: names("ResourceQuota"),
            accounts,
            deployments: names("Deployment"),
            services: names("Service"),
        }
    }

    fn object(&self, kind: &str, name: &str) -> ObjectRef {
        ObjectRef {
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: Some(self.namespace.clone()),
        }
    }
}

pub(crate) async fn wait(
    client: &Client,
    expected: &Expected,
    deadline: Duration,
    progress: &dyn Progress,
) -> Result<(), NotReady> {
    let started = Instant::now();
    let mut observer = Observer::new(client, expected);
    let mut pause = Duration::from_millis(100);
    let mut told = Vec::new();
    loop {
        let last = started.elapsed() >= deadline;
        let (missing, hopeless) = match observer.observe(last).await {
            Ok(missing) => (missing, false),
            Err(Unobserved { missing, passing }) => (vec![missing], !passing),
        };
        if missing.is_empty() {
            progress.step(&Step::Ready);
            return Ok(());
        }
        if last || hopeless {
            return Err(NotReady {
                namespace: expected.namespace.clone(),
                waited: started.elapsed(),
                missing,
            });
        }
        if missing != told {
            progress.step(&Step::Waiting(missing.clone()));
            told = missing;
        }
        sleep(pause.min(deadline.saturating_sub(started.elapsed()))).await;
        pause = (pause * 5 / 4).min(Duration::from_millis(500));
    }
}

/// All that the tenant lacks now of what these manifests say: one look, without waiting.
///
/// # Errors
/// What could not be looked at, and why.
pub async fn missing_now(
    client: &Client,
    tenant: &TenantId,
    manifests: &[Manifest],
) -> Result<Vec<Missing>, Missing> {
    const WITH_EVENTS: bool = true;
    let expected = Expected::of_manifests(tenant, manifests);
    let seen = Observer::new(client, &expected).observe(WITH_EVENTS).await;
    seen.map_err(|Unobserved { missing, .. }| missing)
}

/// How far a Deployment is.
pub(crate) fn rollout(deployment: &Deployment) -> Rollout {
    let (ready, wanted, complete) = diagnose::counts(deployment);
    Rollout {
        name: deployment.metadata.name.clone().unwrap_or_default(),
        ready,
        wanted,
        complete,
    }
}

/// What a quota's status lacks of its spec; none when it is in force. Amounts are compared by value: the server may write
/// `2` for `2000m`.
pub(crate) fn quota_gap(quota: Option<&Value>) -> Option<String> {
    let Some(quota) = quota else {
        return Some("it does not exist".to_owned());
    };
    let amount = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let same = |a: &str, b: &str| match (a.parse::<Quantity>(), b.parse::<Quantity>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    let gaps: Vec<String> = quota["spec"]["hard"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(dimension, hard)| {
            let hard = amount(hard);
            match quota["status"]["hard"].get(dimension).map(amount) {
                Some(live) if same(&hard, &live) => None,
                Some(live) => Some(format!("{dimension} is {live} in its status, {hard} in its spec")),
                None => Some(format!("{dimension} is not in its status, {hard} in its spec")),
            }
        })
        .collect();
    (!gaps.is_empty()).then(|| gaps.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::in_force(json!({"spec": {"hard": {"pods": "10"}}, "status": {"hard": {"pods": "10"}}}), None)]
    #[case::other_writing(json!({"spec": {"hard": {"cpu": "2000m"}}, "status": {"hard": {"cpu": "2"}}}), None)]
    #[case::number(json!({"spec": {"hard": {"pods": 10}}, "status": {"hard": {"pods": "10"}}}), None)]
    #[case::no_status(json!({"spec": {"hard": {"pods": "10"}}}), Some("pods is not in its status, 10 in its spec"))]
    #[case::older(json!({"spec": {"hard": {"pods": "10"}}, "status": {"hard": {"pods": "5"}}}), Some("pods is 5 in its status, 10 in its spec"))]
    fn a_quota_is_in_force_when_its_status_says_what_its_spec_says(
        #[case] quota: Value,
        #[case] gap: Option<&str>,
    ) {
        assert_eq!(quota_gap(Some(&quota)).as_deref(), gap);
    }
}

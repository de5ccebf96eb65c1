//! Which tenants a cluster has, and how they are, as far as that shows in three lists: namespaces, quotas, Deployments. Why something
//! is not ready is left to [`crate::status`].

use crate::calls::{CallError, Calls};
use crate::labels;
use crate::names::TenantId;
use crate::progress::Progress;
use crate::quantity::Quantity;
use crate::ready::{quota_gap, rollout};
use futures::future::try_join3;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long passing failures are ridden out.
const PATIENCE: Duration = Duration::from_secs(30);

/// What can be said of a tenant from its namespace, its quotas and its Deployments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The tenant.
    pub id: TenantId,
    /// Its namespace.
    pub namespace: String,
    /// Its name for people, where the namespace tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its tier, where the namespace tells it: namespaces of before there were tiers do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// When the namespace was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The namespace is being deleted.
    pub deleting: bool,
    /// Every quota is in force and every Deployment of ours is rolled out, and it is not being deleted.
    pub ready: bool,
    /// What is used of its quotas.
    pub quota: Vec<Usage>,
    /// Its Deployments of ours.
    pub workloads: Vec<Rollout>,
}

/// What is used of one dimension of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The dimension, as in `limits.cpu`.
    pub dimension: String,
    /// What is used, where the quota's status tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    /// What there may be.
    pub hard: String,
}

/// How far a Deployment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// The Deployment.
    pub name: String,
    /// How many of its pods are available.
    pub ready: i32,
    /// How many it is to have.
    pub wanted: i32,
    /// All of them are there, of this version, and none of an older one.
    pub complete: bool,
}

/// All tenants of the cluster, in the order of their ids.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn list(client: &Client, progress: &dyn Progress) -> Result<Vec<Standing>, CallError> {
    let calls = Calls::new(PATIENCE, progress);
    let (namespaces, quotas, deployments) = try_join3(
        all::<Namespace>(client, &calls, "Namespaces"),
        all::<ResourceQuota>(client, &calls, "ResourceQuotas"),
        all::<Deployment>(client, &calls, "Deployments"),
    )
    .await?;
    let mut quotas = by_namespace(quotas);
    let mut deployments = by_namespace(deployments);
    let mut found: Vec<Standing> = namespaces
        .iter()
        .filter_map(|namespace| {
            let name = namespace.metadata.name.as_deref()?;
            let quotas = quotas.remove(name).unwrap_or_default();
            standing(namespace, &quotas, &deployments.remove(name).unwrap_or_default())
        })
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// Those with our labels, in the whole cluster.
async fn all<K>(client: &Client, calls: &Calls<'_>, plural: &str) -> Result<Vec<K>, CallError>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let params = ListParams::default().labels(labels::TENANTS_SELECTOR);
    let what = format!("list {plural} with the labels {}", labels::TENANTS_SELECTOR);
    Ok(calls.make(what, || api.list(&params)).await?.items)
}

fn by_namespace<K: Resource>(objects: Vec<K>) -> BTreeMap<String, Vec<K>> {
    let mut sorted: BTreeMap<String, Vec<K>> = BTreeMap::new();
    for object in objects {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        sorted.entry(namespace).or_default().push(object);
    }
    sorted
}

/// How the tenant of this namespace is; none where the namespace is no tenant's.
pub(crate) fn standing(
    namespace: &Namespace,
    quotas: &[ResourceQuota],
    deployments: &[Deployment],
) -> Option<Standing> {
    let metadata = &namespace.metadata;
    let name = metadata.name.as_deref()?;
    let id: TenantId = metadata.labels.as_ref()?.get(labels::TENANT)?.parse().ok()?;
    // A namespace of another name wears the labels of a tenant and is none.
    if id.namespace() != name {
        return None;
    }
    let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
    let workloads: Vec<Rollout> = deployments.iter().map(rollout).collect();
    let in_force = quotas
        .iter()
        .all(|quota| quota_gap(serde_json::to_value(quota).ok().as_ref()).is_none());
    let deleting = metadata.deletion_timestamp.is_some();
    let complete = workloads.iter().all(|workload| workload.complete);
    Some(Standing {
        namespace: name.to_owned(),
        name: annotation(labels::TENANT_NAME),
        tier: annotation(labels::TIER),
        created: metadata.creation_timestamp.as_ref().map(|time| time.0),
        deleting,
        ready: !quotas.is_empty() && in_force && complete && !deleting,
        quota: quotas.iter().flat_map(usage).collect(),
        workloads,
        id,
    })
}

/// In the order in which people name them: what is asked for, what may be used, then how many.
fn usage(quota: &ResourceQuota) -> Vec<Usage> {
    let hard = quota
        .spec
        .as_ref()
        .and_then(|spec| spec.hard.clone())
        .unwrap_or_default();
    let used = quota
        .status
        .as_ref()
        .and_then(|status| status.used.clone())
        .unwrap_or_default();
    let mut usage: Vec<Usage> = hard
        .into_iter()
        .map(|(dimension, hard)| Usage {
            used: used.get(&dimension).map(|used| used.0.clone()),
            hard: hard.0,
            dimension,
        })
        .collect();
    let place = |it: &Usage| {
        let known = ["requests.cpu", "limits.cpu", "requests.memory", "limits.memory"];
        known
            .iter()
            .position(|dimension| *dimension == it.dimension)
            .unwrap_or(known.len())
    };
    usage.sort_by_key(place);
    usage
}

impl Usage {
    /// How much of it is used, in per cent; none where that is not known, or nothing may be used.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let (used, hard) = (
            self.used.as_deref()?.parse::<Quantity>().ok()?,
            self.hard.parse::<Quantity>().ok()?,
        );
        let percent = used.nanos().checked_mul(100)?.checked_div(hard.nanos())?;
        u8::try_from(percent.min(255)).ok()
    }
}

impl Standing {
    /// One word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.deleting, self.ready) {
            (true, _) => "deleting",
            (false, true) => "ready",
            (false, false) => "not ready",
        }
    }

    /// The usage of one dimension.
    #[must_use]
    pub fn used(&self, dimension: &str) -> Option<&Usage> {
        self.quota.iter().find(|usage| usage.dimension == dimension)
    }
}

/// How long ago, in the two units that matter: `3d 4h`, `5m 12s`.
#[must_use]
pub fn age(created: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(created.as_second()).max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) if days < 10 => format!("{days}d {hours}h"),
        (days, ..) => format!("{days}d"),
    }
}

/// The tenants as a table for people.
#[must_use]
pub fn table(tenants: &[Standing], now: Timestamp) -> String {
    const HEAD: [&str; 8] = [
        "TENANT",
        "TIER",
        "AGE",
        "STATE",
        "WORKLOADS",
        "CPU",
        "MEMORY",
        "PODS",
    ];
    let cell = |tenant: &Standing, dimension: &str| {
        tenant.used(dimension).map_or_else(
            || "-".to_owned(),
            |usage| format!("{}/{}", usage.used.as_deref().unwrap_or("?"), usage.hard),
        )
    };
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(tenants.iter().map(|tenant| {
        let done = tenant
            .workloads
            .iter()
            .filter(|workload| workload.complete)
            .count();
        [
            tenant.id.to_string(),
            tenant.tier.clone().unwrap_or_else(|| "-".to_owned()),
            tenant
                .created
                .map_or_else(|| "-".to_owned(), |created| age(created, now)),
            tenant.word().to_owned(),
            format!("{done}/{}", tenant.workloads.len()),
            cell(tenant, "limits.cpu"),
            cell(tenant, "limits.memory"),
            cell(tenant, "pods"),
        ]
    }));
    aligned(&rows)
}

/// Columns as wide as their widest cell, two spaces between them, none at the end of a line.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;

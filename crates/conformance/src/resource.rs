//! What checks ask a run to put up, by name. The objects behind each are described in `manifest`; making them is left to `stage`.

use provisioner::TenantId;
use std::fmt;

/// Something that a run puts up once and that checks share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// The tenant, provisioned; its workloads may still be starting.
    Tenant(TenantId),
    /// The tenant's workloads, started or known not to start.
    Workloads(TenantId),
    /// A probe agent.
    Agent(Place),
    /// The proof that this cluster enforces network policies.
    Enforcement,
}

/// Where an agent stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In a namespace of the run without any policy: nothing but the target's own rules can keep it out.
    Outsider,
    /// In another such namespace: nothing but the source's own rules can keep anyone from it.
    Sink,
    /// In a tenant.
    Tenant(TenantId, Costume),
}

/// Whose labels an agent in a tenant wears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Costume {
    /// The API's.
    Api,
    /// The worker's.
    Worker,
    /// Nobody's.
    Unlabelled,
}

impl Costume {
    /// All three.
    pub const ALL: [Costume; 3] = [Costume::Api, Costume::Worker, Costume::Unlabelled];

    /// As part of a pod's name.
    pub fn word(self) -> &'static str {
        match self {
            Costume::Api => "api",
            Costume::Worker => "worker",
            Costume::Unlabelled => "unlabelled",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Outsider => write!(out, "outsider"),
            Place::Sink => write!(out, "sink"),
            Place::Tenant(tenant, costume) => write!(out, "{tenant} {}", costume.word()),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Tenant(tenant) => write!(out, "tenant {tenant}"),
            Resource::Workloads(tenant) => write!(out, "workloads of {tenant}"),
            Resource::Agent(place) => write!(out, "agent {place}"),
            Resource::Enforcement => write!(out, "enforcement canary"),
        }
    }
}

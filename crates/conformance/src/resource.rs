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
    /// The tenant's role in PostgreSQL and its user in Redis, with the credentials that its workloads have for them.
    Registration(TenantId),
    /// PostgreSQL and Redis as they are found: nothing is put up.
    SharedServices,
    /// A probe agent.
    Agent(Place),
    /// The proof that this cluster enforces network policies.
    Enforcement,
    /// What it takes to send webhooks to the tenants and to see what becomes of them.
    Webhooks,
    /// A batch of webhooks to all tenants, seen to its end.
    Deliveries,
}

impl Resource {
    /// Whether it is a tenant, something in one, or made after one.
    pub fn is_tenants(&self) -> bool {
        matches!(
            self,
            Resource::Tenant(_)
                | Resource::Workloads(_)
                | Resource::Registration(_)
                | Resource::Agent(Place::Tenant(..) | Place::Sealed(..))
                | Resource::Webhooks
                | Resource::Deliveries
        )
    }
}

/// Where an agent stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In a namespace of the run without any policy: nothing but the target's own rules can keep it out.
    Outsider,
    /// In another such namespace: nothing but the source's own rules can keep anyone from it.
    Sink,
    /// In a namespace of the run that wears labels which any namespace's owner can set: those of an ingress controller's, and
    /// half of those of a tenant's.
    Impostor,
    /// In a tenant of the run's own that is deliberately open: no policies, no quota.
    Open,
    /// In the ingress controller's namespace, which others share.
    Ingress,
    /// In the shared services' namespace, in PostgreSQL's labels.
    SharedServices,
    /// In a namespace of the run under those policies of a tenant's that allow nothing outward: see `sealed`. With the tenant's number in
    /// the run.
    Sealed(TenantId, usize),
    /// In a tenant.
    Tenant(TenantId, Costume),
}

impl Place {
    /// Whether it is a namespace that the run neither makes nor has to itself.
    pub fn is_shared(&self) -> bool {
        matches!(self, Place::Ingress | Place::SharedServices)
    }
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
    /// Labels that no policy knows, in the pod of a Job.
    Stranger,
}

impl Costume {
    /// Those that a tenant's policies know, and none.
    pub const ALL: [Costume; 3] = [Costume::Api, Costume::Worker, Costume::Unlabelled];

    /// As part of a pod's name.
    pub fn word(self) -> &'static str {
        match self {
            Costume::Api => "api",
            Costume::Worker => "worker",
            Costume::Unlabelled => "unlabelled",
            Costume::Stranger => "stranger",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Outsider => write!(out, "outsider"),
            Place::Sink => write!(out, "sink"),
            Place::Impostor => write!(out, "impostor"),
            Place::Open => write!(out, "open"),
            Place::Ingress => write!(out, "ingress"),
            Place::SharedServices => write!(out, "shared-services"),
            Place::Sealed(tenant, _) => write!(out, "{tenant} without allow rules"),
            Place::Tenant(tenant, costume) => write!(out, "{tenant} {}", costume.word()),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Tenant(tenant) => write!(out, "tenant {tenant}"),
            Resource::Workloads(tenant) => write!(out, "workloads of {tenant}"),
            Resource::Registration(tenant) => write!(out, "registration of {tenant}"),
            Resource::Agent(place) => write!(out, "agent {place}"),
            Resource::SharedServices => write!(out, "shared services"),
            Resource::Enforcement => write!(out, "enforcement canary"),
            Resource::Webhooks => write!(out, "webhooks"),
            Resource::Deliveries => write!(out, "batch of webhooks"),
        }
    }
}

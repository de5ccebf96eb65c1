//! What a check is about: the whole cluster, one tenant, or one tenant towards another.

use crate::error::HarnessError;
use provisioner::TenantId;
use serde::{Serialize, Serializer};
use std::fmt;

/// The subject of a planned item. Its text is part of the item's name in every report: `test-tenant-a -> test-tenant-b`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The cluster as a whole.
    Cluster,
    /// One tenant.
    Tenant(TenantId),
    /// What the first can do to the second.
    Pair(TenantId, TenantId),
}

impl Subject {
    /// The tenant it is about.
    ///
    /// # Errors
    /// It is not about one tenant: a check was given a subject that it did not ask for, a fault of ours.
    pub fn tenant(&self) -> Result<&TenantId, HarnessError> {
        match self {
            Subject::Tenant(tenant) => Ok(tenant),
            Subject::Cluster | Subject::Pair(..) => {
                Err(HarnessError::new(format!("{self} is not one tenant")))
            }
        }
    }

    /// The first tenant and the one that it acts on.
    ///
    /// # Errors
    /// It is not about a pair, as before.
    pub fn pair(&self) -> Result<(&TenantId, &TenantId), HarnessError> {
        match self {
            Subject::Pair(from, to) => Ok((from, to)),
            Subject::Cluster | Subject::Tenant(_) => {
                Err(HarnessError::new(format!("{self} is not a pair of tenants")))
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Cluster => write!(out, "cluster"),
            Subject::Tenant(tenant) => write!(out, "{tenant}"),
            Subject::Pair(from, to) => write!(out, "{from} -> {to}"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One subject, the cluster.
pub fn cluster(_tenants: &[TenantId]) -> Vec<Subject> {
    vec![Subject::Cluster]
}

/// One subject per tenant.
pub fn each(tenants: &[TenantId]) -> Vec<Subject> {
    tenants.iter().cloned().map(Subject::Tenant).collect()
}

/// Every ordered pair of different tenants.
pub fn ordered_pairs(tenants: &[TenantId]) -> Vec<Subject> {
    let mut pairs = Vec::new();
    for from in tenants {
        for to in tenants.iter().filter(|to| *to != from) {
            pairs.push(Subject::Pair(from.clone(), to.clone()));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_go_in_both_directions_and_never_to_oneself() {
        let ids: Vec<TenantId> = ["a", "b"]
            .iter()
            .map(|id| TenantId::try_from(*id).unwrap())
            .collect();
        let names: Vec<String> = ordered_pairs(&ids).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a -> b", "b -> a"]);
    }
}

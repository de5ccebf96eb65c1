//! What the platform's admission policies hold, as settings: each can be turned off, and what they let through named. The policies
//! themselves are templates (`templates/platform/4…`, and their bindings `5…`); whether a server has such policies at all is left to
//! [`crate::platform`].

use crate::names::{DnsName, DomainName, LabelValue};
use crate::tenant::fixed;
use serde::{Deserialize, Serialize};

/// Which of the platform's admission policies are in force, and what they let through. All are, by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "one switch for each policy, each by itself"
)]
pub struct Admission {
    /// Owner labels, names and Pod Security labels of tenants' namespaces are the platform's alone.
    pub namespaces: bool,
    /// Tenants' Services are of type ClusterIP, without externalIPs.
    pub services: bool,
    /// No Secret in a tenant's namespace holds a token that never expires.
    pub token_secrets: bool,
    /// ConfigMaps and environments in a tenant's namespace name no other tenant.
    pub identity: bool,
    /// Tenants' pods outrank nobody.
    pub priority_classes: bool,
    /// Classes of priority that tenants' pods may have all the same.
    pub allowed_priority_classes: Vec<DomainName>,
    /// Values of the label `name` that only the namespace of that name wears: those that network policies trust.
    pub reserved_names: Vec<LabelValue>,
    /// Tenants' namespaces in which Services, Secrets, identity and priority are left alone.
    pub exempt_namespaces: Vec<DnsName>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            namespaces: true,
            services: true,
            token_secrets: true,
            identity: true,
            priority_classes: true,
            allowed_priority_classes: Vec::new(),
            reserved_names: ["ingress-nginx"].map(fixed).to_vec(),
            exempt_namespaces: Vec::new(),
        }
    }
}

//! Names that the provisioner writes on objects and recognises them by: labels, annotations and the
//! field manager. Fixed: operators, dashboards, policies and the application select by them.

use crate::names::TenantId;

/// Label: which application an object or namespace belongs to.
pub const APP: &str = "app";
/// The value of [`APP`] on every tenant's namespace.
pub const APP_VALUE: &str = "ai-agents";
/// Label: the tenant's id.
pub const TENANT: &str = "tenant";
/// Label: who looks after the object.
pub const MANAGED_BY: &str = "managed-by";
/// The value of [`MANAGED_BY`] on everything that this crate writes.
pub const MANAGED_BY_VALUE: &str = "ai-agents-platform";
/// The name under which the API server records our fields in `metadata.managedFields`.
pub const FIELD_MANAGER: &str = "ai-agents-provisioner";

/// The name under which the API server records the values that were generated ([`GENERATE`]).
pub const CREDENTIALS_MANAGER: &str = "ai-agents-credentials";

/// Annotation on a Secret of the templates: keys that get a random value where they have none, each with how many bytes, as in
/// `WEBHOOK_SECRET=32 REDIS_PASSWORD=24`. Values are written in hexadecimal.
pub const GENERATE: &str = "ai-agents-platform/generate";

/// Label on what a conformance run made: the run's id.
pub const RUN_ID: &str = "ai-agents-platform/run-id";
/// Annotation on what a conformance run made: when it counts as left behind (RFC 3339).
pub const EXPIRES: &str = "ai-agents-platform/expires";
/// Annotation on a tenant's namespace: its name for people.
pub const TENANT_NAME: &str = "ai-agents-platform/tenant-name";

/// Annotation on a tenant's namespace: its tier. Not a label: a network plugin would make another identity of the pods of every tenant
/// whose tier changes.
pub const TIER: &str = "ai-agents-platform/tier";

/// What the keys of the platform's own labels and annotations begin with.
pub const PREFIX: &str = "ai-agents-platform/";

/// The selector of what belongs to the tenant.
#[must_use]
pub fn owner_selector(tenant: &TenantId) -> String {
    format!("{MANAGED_BY}={MANAGED_BY_VALUE},{TENANT}={tenant}")
}

/// The selector of what belongs to tenants, whichever.
pub const TENANTS_SELECTOR: &str = "managed-by=ai-agents-platform,tenant";

/// The selector of what belongs to the platform, and to no tenant.
pub const PLATFORM_SELECTOR: &str = "managed-by=ai-agents-platform,!tenant";

/// The prefix of every tenant's namespace; the tenant's id follows.
pub const NAMESPACE_PREFIX: &str = "ai-agents-";

//! The variables that templates may use: one table, from which rendering, its error messages and
//! `docs/templates.md` derive. Values come out of validated types only.

use crate::tenant::{Autoscaling, Egress, Platform, SharedServices, Tenant};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One variable of a template.
pub struct Variable<T> {
    /// Its name, as in `{{NAME}}`.
    pub name: &'static str,
    /// What it holds.
    pub about: &'static str,
    /// The field of the tenant file (or of the platform's settings) that it comes from.
    pub field: &'static str,
    /// Its value: a string, a number, yes or no, or a list of strings or objects.
    pub value: fn(&T) -> Value,
}

const fn variable<T>(
    name: &'static str,
    field: &'static str,
    about: &'static str,
    value: fn(&T) -> Value,
) -> Variable<T> {
    Variable {
        name,
        about,
        field,
        value,
    }
}

/// The values of all variables of a table.
pub(crate) fn values<T>(table: &[Variable<T>], of: &T) -> Map<String, Value> {
    table
        .iter()
        .map(|variable| (variable.name.to_owned(), (variable.value)(of)))
        .collect()
}

/// What a tenant's templates may use.
#[rustfmt::skip] // A table: one line each.
pub static TENANT: &[Variable<Tenant>] = &[
    variable("TENANT_ID", "id", "the tenant's id", |t| json!(t.id)),
    variable("TENANT_NAME", "name", "its name for people; the id where none is given", |t| json!(t.display_name())),
    variable("TIER", "tier", "where the values come from that the tenant file leaves out", |t| json!(t.tier)),
    variable("NAMESPACE", "id", "its namespace, `ai-agents-{id}`", |t| json!(t.namespace())),
    variable("RESOURCE_QUOTA_CPU_REQUESTS", "quota.requestsCpu", "quota: `requests.cpu`", |t| json!(t.quota.requests_cpu)),
    variable("RESOURCE_QUOTA_CPU_LIMITS", "quota.limitsCpu", "quota: `limits.cpu`", |t| json!(t.quota.limits_cpu)),
    variable("RESOURCE_QUOTA_MEMORY_REQUESTS", "quota.requestsMemory", "quota: `requests.memory`", |t| json!(t.quota.requests_memory)),
    variable("RESOURCE_QUOTA_MEMORY_LIMITS", "quota.limitsMemory", "quota: `limits.memory`", |t| json!(t.quota.limits_memory)),
    variable("RESOURCE_QUOTA_STORAGE", "quota.requestsStorage", "quota: `requests.storage`", |t| json!(t.quota.requests_storage)),
    variable("RESOURCE_QUOTA_PODS", "quota.pods", "quota: `pods`", |t| json!(t.quota.pods)),
    variable("CONTAINER_DEFAULT_CPU_REQUEST", "containerDefaults.cpuRequest", "CPU request of a container that names none", |t| json!(t.container_defaults.cpu_request)),
    variable("CONTAINER_DEFAULT_CPU_LIMIT", "containerDefaults.cpuLimit", "CPU limit of a container that names none", |t| json!(t.container_defaults.cpu_limit)),
    variable("CONTAINER_DEFAULT_MEMORY_REQUEST", "containerDefaults.memoryRequest", "memory request of a container that names none", |t| json!(t.container_defaults.memory_request)),
    variable("CONTAINER_DEFAULT_MEMORY_LIMIT", "containerDefaults.memoryLimit", "memory limit of a container that names none", |t| json!(t.container_defaults.memory_limit)),
    variable("IMAGE_API", "api.image", "image of the API", |t| json!(t.api.image)),
    variable("API_COMMAND", "api.command", "list: entry point of the API; the image's own where empty", |t| json!(t.api.command)),
    variable("API_ARGS", "api.args", "list: arguments of the API; the image's own where empty", |t| json!(t.api.args)),
    variable("API_REPLICAS", "api.replicas", "pods of the API, at least 1", |t| json!(t.api.replicas)),
    variable("API_CPU_REQUEST", "api.size.cpuRequest", "CPU request of an API pod", |t| json!(t.api.size.cpu_request)),
    variable("API_CPU_LIMIT", "api.size.cpuLimit", "CPU limit of an API pod", |t| json!(t.api.size.cpu_limit)),
    variable("API_MEMORY_REQUEST", "api.size.memoryRequest", "memory request of an API pod", |t| json!(t.api.size.memory_request)),
    variable("API_MEMORY_LIMIT", "api.size.memoryLimit", "memory limit of an API pod", |t| json!(t.api.size.memory_limit)),
    variable("IMAGE_WORKER", "worker.image", "image of the worker", |t| json!(t.worker.image)),
    variable("WORKER_COMMAND", "worker.command", "list: entry point of the worker; the image's own where empty", |t| json!(t.worker.command)),
    variable("WORKER_ARGS", "worker.args", "list: arguments of the worker; the image's own where empty", |t| json!(t.worker.args)),
    variable("WORKER_READINESS_COMMAND", "worker.readinessCommand", "list: what is run in the worker to see whether it is ready; no probe where empty", |t| json!(t.worker.readiness_command)),
    variable("WORKER_REPLICAS", "worker.replicas", "pods of the worker, 1 to 3", |t| json!(t.worker.replicas)),
    variable("WORKER_MIN_REPLICAS", "autoscaling.minReplicas", "pods of the worker at least, where it is autoscaled; else empty", |t| autoscaled(t, |it| json!(it.min_replicas))),
    variable("WORKER_MAX_REPLICAS", "autoscaling.maxReplicas", "pods of the worker at most, where it is autoscaled; else empty", |t| autoscaled(t, |it| json!(it.max_replicas))),
    variable("WORKER_TARGET_CPU", "autoscaling.cpu", "CPU of a worker pod, on average, that the autoscaler aims at; empty where it is off", |t| autoscaled(t, |it| json!(it.cpu))),
    variable("WORKER_CPU_REQUEST", "worker.size.cpuRequest", "CPU request of a worker pod", |t| json!(t.worker.size.cpu_request)),
    variable("WORKER_CPU_LIMIT", "worker.size.cpuLimit", "CPU limit of a worker pod", |t| json!(t.worker.size.cpu_limit)),
    variable("WORKER_MEMORY_REQUEST", "worker.size.memoryRequest", "memory request of a worker pod", |t| json!(t.worker.size.memory_request)),
    variable("WORKER_MEMORY_LIMIT", "worker.size.memoryLimit", "memory limit of a worker pod", |t| json!(t.worker.size.memory_limit)),
    variable("IMAGE_PULL_POLICY", "imagePullPolicy", "when nodes fetch images", |t| json!(t.image_pull_policy)),
    variable("RUN_AS_USER", "runAsUser", "user and group id of API and worker, not 0", |t| json!(t.run_as_user)),
    variable("SHARED_SERVICES_NAMESPACE", "sharedServices.namespace", "namespace of PostgreSQL and Redis", |t| json!(t.shared_services.namespace)),
    variable("POSTGRESQL_SERVICE", "sharedServices.postgresql.service", "name of PostgreSQL's Service", |t| json!(t.shared_services.postgresql.service)),
    variable("POSTGRESQL_PORT", "sharedServices.postgresql.port", "PostgreSQL's port", |t| json!(t.shared_services.postgresql.port)),
    variable("POSTGRESQL_POD_APP", "sharedServices.postgresql.podApp", "label `app` of PostgreSQL's pods", |t| json!(t.shared_services.postgresql.pod_app)),
    variable("POSTGRESQL_DATABASE", "sharedServices.postgresql.database", "the application's database", |t| json!(t.shared_services.postgresql.database)),
    variable("REDIS_SERVICE", "sharedServices.redis.service", "name of Redis' Service", |t| json!(t.shared_services.redis.service)),
    variable("REDIS_PORT", "sharedServices.redis.port", "Redis' port", |t| json!(t.shared_services.redis.port)),
    variable("REDIS_POD_APP", "sharedServices.redis.podApp", "label `app` of Redis' pods", |t| json!(t.shared_services.redis.pod_app)),
    variable("INGRESS_NAMESPACE", "ingress.namespace", "namespace of the ingress controller", |t| json!(t.ingress.namespace)),
    variable("INGRESS_NAMESPACE_LABEL", "ingress.selector", "label by which policies recognise that namespace: `metadataName` or `nameLabel`", |t| json!(t.ingress.selector.label())),
    variable("INGRESS_CLASS", "ingress.className", "class of the Ingress object; none is made where empty", |t| optional(t.ingress.class_name.as_ref())),
    variable("INGRESS_HOST", "ingress.host", "host that the Ingress object is for; any where empty", |t| optional(t.ingress.host.as_ref())),
    variable("INTERNET_EXCEPT", "internet.except", "list: address ranges that are not the internet", |t| json!(t.internet.except)),
    variable("EGRESS_RULES", "egress", "list: what the tenant reaches besides, each a rule of a NetworkPolicy; no such policy is made where empty", egress_rules),
    variable("DNS_NAMESPACE", "dns.namespace", "namespace of the cluster's DNS pods", |t| json!(t.dns.namespace)),
    variable("DNS_POD_APP", "dns.podApp", "label `k8s-app` of the cluster's DNS pods", |t| json!(t.dns.pod_app)),
    variable("CLUSTER_DOMAIN", "dns.clusterDomain", "domain that names of Services end in", |t| json!(t.dns.cluster_domain)),
];

/// One rule for each destination: within one rule, every peer goes with every port
/// (<https://kubernetes.io/docs/concepts/services-networking/network-policies/#networkpolicy-resource>).
fn egress_rules(tenant: &Tenant) -> Value {
    let rule = |egress: &Egress| {
        let port = |port| json!({"protocol": egress.protocol, "port": port});
        let ports: Vec<Value> = egress.ports.iter().map(port).collect();
        json!({"to": [{"ipBlock": {"cidr": egress.cidr}}], "ports": ports})
    };
    tenant.egress.iter().map(rule).collect()
}

/// A value that may be left out; `{{#if}}` takes an empty string for no.
fn optional<T: Serialize>(value: Option<&T>) -> Value {
    value.map_or_else(|| json!(""), |value| json!(value))
}

fn autoscaled(tenant: &Tenant, value: fn(&Autoscaling) -> Value) -> Value {
    if tenant.autoscaling.enabled {
        value(&tenant.autoscaling)
    } else {
        json!("")
    }
}

fn shared(platform: &Platform) -> &SharedServices {
    &platform.shared_services
}

/// What the platform's templates may use.
#[rustfmt::skip] // A table: one line each.
pub static PLATFORM: &[Variable<Platform>] = &[
    variable("SHARED_SERVICES_NAMESPACE", "sharedServices.namespace", "namespace of PostgreSQL and Redis", |p| json!(shared(p).namespace)),
    variable("POSTGRESQL_PORT", "sharedServices.postgresql.port", "PostgreSQL's port", |p| json!(shared(p).postgresql.port)),
    variable("POSTGRESQL_POD_APP", "sharedServices.postgresql.podApp", "label `app` of PostgreSQL's pods", |p| json!(shared(p).postgresql.pod_app)),
    variable("REDIS_PORT", "sharedServices.redis.port", "Redis' port", |p| json!(shared(p).redis.port)),
    variable("REDIS_POD_APP", "sharedServices.redis.podApp", "label `app` of Redis' pods", |p| json!(shared(p).redis.pod_app)),
    variable("DATABASE_CLIENT_NAMESPACES", "databaseClientNamespaces", "list: further namespaces whose pods may reach the shared services", |p| json!(p.database_client_namespaces)),
    variable("ADMISSION_NAMESPACES", "admission.namespaces", "whether tenants' namespaces and their labels are the platform's alone", |p| json!(p.admission.namespaces)),
    variable("ADMISSION_SERVICES", "admission.services", "whether tenants' Services stay inside of the cluster", |p| json!(p.admission.services)),
    variable("ADMISSION_TOKEN_SECRETS", "admission.tokenSecrets", "whether Secrets that hold tokens are refused in tenants", |p| json!(p.admission.token_secrets)),
    variable("ADMISSION_IDENTITY", "admission.identity", "whether settings and environments that name another tenant are refused", |p| json!(p.admission.identity)),
    variable("ADMISSION_PRIORITY_CLASSES", "admission.priorityClasses", "whether pods that outrank others are refused in tenants", |p| json!(p.admission.priority_classes)),
    variable("ADMISSION_ALLOWED_PRIORITY_CLASSES", "admission.allowedPriorityClasses", "list: classes of priority that tenants' pods may have all the same", |p| json!(p.admission.allowed_priority_classes)),
    variable("ADMISSION_RESERVED_NAMES", "admission.reservedNames", "list: values of a namespace's label `name` that only the namespace of that name wears", |p| json!(p.admission.reserved_names)),
    variable("ADMISSION_EXEMPT_NAMESPACES", "admission.exemptNamespaces", "list: tenants' namespaces that only the policy about namespaces is in force for", |p| json!(p.admission.exempt_namespaces)),
];

//! The kinds that templates may make, where the API serves them, and in which order they are applied.
//! A table instead of discovery: the kinds are few and, but for those that say otherwise, stable since Kubernetes 1.28, and a template
//! must not make others.

use kube::core::ApiResource;

/// When an object is applied. Everything of one phase may go at once, and is there before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The namespace itself.
    Namespace,
    /// What limits the tenant: quota, rights, policies. In force before anything runs.
    Guard,
    /// Who has the rights: only once everything that limits is there, and since the server looks for the role that is bound.
    Binding,
    /// What workloads read and are reached by.
    Config,
    /// What runs.
    Workload,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 5] = [
        Self::Namespace,
        Self::Guard,
        Self::Binding,
        Self::Config,
        Self::Workload,
    ];
}

/// Where objects of a kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// One kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name, as in `Deployment`.
    pub kind: &'static str,
    /// Its API group; empty for the core group.
    pub group: &'static str,
    /// The version that we write.
    pub version: &'static str,
    /// Its name in paths, as in `deployments`.
    pub plural: &'static str,
    /// Where its objects live.
    pub scope: Scope,
    /// When its objects are applied.
    pub phase: Phase,
    /// The first version of Kubernetes that has it, where not every supported one does: whether a server has it is asked before it is used.
    pub since: Option<&'static str>,
}

impl Kind {
    /// `v1`, `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// For `kube::Api::namespaced_with` and `all_with`.
    #[must_use]
    pub fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

const fn kind(
    kind: &'static str,
    (group, version): (&'static str, &'static str),
    plural: &'static str,
    scope: Scope,
    phase: Phase,
) -> Kind {
    Kind {
        kind,
        group,
        version,
        plural,
        scope,
        phase,
        since: None,
    }
}

/// The same, of a kind that older servers do not have.
const fn since(version: &'static str, kind: Kind) -> Kind {
    Kind {
        since: Some(version),
        ..kind
    }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const NETWORKING: (&str, &str) = ("networking.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");
/// Its policies in the language CEL are there since 1.30 (<https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>).
const ADMISSION: (&str, &str) = ("admissionregistration.k8s.io", "v1");

/// The namespace.
pub static NAMESPACE: Kind = kind("Namespace", CORE, "namespaces", Scope::Cluster, Phase::Namespace);

/// Every kind that a tenant's templates may make, the namespace first.
pub static TENANT: &[&Kind] = &[
    &NAMESPACE,
    &kind(
        "ResourceQuota",
        CORE,
        "resourcequotas",
        Scope::Namespaced,
        Phase::Guard,
    ),
    &kind("LimitRange", CORE, "limitranges", Scope::Namespaced, Phase::Guard),
    &kind(
        "ServiceAccount",
        CORE,
        "serviceaccounts",
        Scope::Namespaced,
        Phase::Guard,
    ),
    &kind("Role", RBAC, "roles", Scope::Namespaced, Phase::Guard),
    &kind(
        "RoleBinding",
        RBAC,
        "rolebindings",
        Scope::Namespaced,
        Phase::Binding,
    ),
    &kind(
        "NetworkPolicy",
        NETWORKING,
        "networkpolicies",
        Scope::Namespaced,
        Phase::Guard,
    ),
    &kind("ConfigMap", CORE, "configmaps", Scope::Namespaced, Phase::Config),
    &kind("Secret", CORE, "secrets", Scope::Namespaced, Phase::Config),
    &kind(
        "PersistentVolumeClaim",
        CORE,
        "persistentvolumeclaims",
        Scope::Namespaced,
        Phase::Config,
    ),
    &kind("Service", CORE, "services", Scope::Namespaced, Phase::Config),
    &kind(
        "Ingress",
        NETWORKING,
        "ingresses",
        Scope::Namespaced,
        Phase::Config,
    ),
    &kind(
        "Deployment",
        APPS,
        "deployments",
        Scope::Namespaced,
        Phase::Workload,
    ),
    &kind(
        "HorizontalPodAutoscaler",
        ("autoscaling", "v2"),
        "horizontalpodautoscalers",
        Scope::Namespaced,
        Phase::Workload,
    ),
    &kind(
        "PodDisruptionBudget",
        ("policy", "v1"),
        "poddisruptionbudgets",
        Scope::Namespaced,
        Phase::Workload,
    ),
];

/// Every kind that the platform's templates may make.
pub static PLATFORM: &[&Kind] = &[
    &kind("ClusterRole", RBAC, "clusterroles", Scope::Cluster, Phase::Guard),
    &kind(
        "ClusterRoleBinding",
        RBAC,
        "clusterrolebindings",
        Scope::Cluster,
        Phase::Binding,
    ),
    &kind(
        "NetworkPolicy",
        NETWORKING,
        "networkpolicies",
        Scope::Namespaced,
        Phase::Guard,
    ),
    &since(
        "1.30",
        kind(
            "ValidatingAdmissionPolicy",
            ADMISSION,
            "validatingadmissionpolicies",
            Scope::Cluster,
            Phase::Guard,
        ),
    ),
    &since(
        "1.30",
        kind(
            "ValidatingAdmissionPolicyBinding",
            ADMISSION,
            "validatingadmissionpolicybindings",
            Scope::Cluster,
            Phase::Binding,
        ),
    ),
];

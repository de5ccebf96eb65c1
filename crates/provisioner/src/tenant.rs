//! What a tenant is: everything that its templates can vary, with the platform's standard values. Pure;
//! reading a tenant file is left to [`crate::yaml`], filling templates to [`crate::render`].

mod blank;
mod changes;
mod tiers;

use crate::admission::Admission;
use crate::names::{
    AnnotationValue, Argument, DatabaseName, DisplayName, DnsName, DomainName, ImageReference, InvalidValue,
    Ipv4Range, LabelValue, MetadataKey, TenantId, TierName,
};
use crate::quantity::Quantity;
use crate::yaml::{self, YamlError};
pub use blank::blank;
pub use changes::{ByKey, TenantFile, Tier};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
pub use tiers::{STANDARD_TIER, Tiers, TiersFile};

/// One tenant and everything about it that templates can vary. Only `id` is required in a tenant file; the rest has the values
/// of its tier ([`Tiers`]), and what the tier leaves out those of [`Tenant::standard`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// The id: namespace, labels and object names derive from it.
    pub id: TenantId,
    /// The name for people; the id where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<DisplayName>,
    /// Where the values come from that the tenant file leaves out.
    pub tier: TierName,
    /// Labels of every object of the tenant, besides the platform's; pods do not get them.
    pub labels: BTreeMap<MetadataKey, LabelValue>,
    /// Annotations of every object of the tenant, besides the platform's; pods do not get them.
    pub annotations: BTreeMap<MetadataKey, AnnotationValue>,
    /// The limits of the whole namespace.
    pub quota: Quota,
    /// What a container gets that says nothing about its resources.
    pub container_defaults: WorkloadSize,
    /// The API.
    pub api: Workload,
    /// The worker.
    pub worker: Workload,
    /// How many workers there are, by what they use.
    pub autoscaling: Autoscaling,
    /// When nodes fetch images.
    pub image_pull_policy: ImagePullPolicy,
    /// The user and group that API and worker run as; root is not possible.
    pub run_as_user: NonZeroU32,
    /// PostgreSQL and Redis.
    pub shared_services: SharedServices,
    /// Whether an apply makes the tenant's role in PostgreSQL and its user in Redis ([`crate::registration`]). Not so where somebody
    /// else does.
    pub registration: bool,
    /// Who may call the API from outside.
    pub ingress: Ingress,
    /// What the tenant reaches outside of the cluster.
    pub internet: Internet,
    /// What the tenant reaches besides the shared services, DNS and the internet.
    pub egress: Vec<Egress>,
    /// How the cluster resolves names.
    pub dns: Dns,
}

impl Tenant {
    /// A tenant with the platform's standard values.
    #[must_use]
    pub fn standard(id: TenantId) -> Self {
        Self {
            id,
            name: None,
            tier: fixed(STANDARD_TIER),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            quota: Quota::default(),
            container_defaults: WorkloadSize::container_defaults(),
            api: Workload::api(),
            worker: Workload::worker(),
            autoscaling: Autoscaling::default(),
            image_pull_policy: ImagePullPolicy::default(),
            run_as_user: nobody(),
            shared_services: SharedServices::default(),
            registration: true,
            ingress: Ingress::default(),
            internet: Internet::default(),
            egress: Vec::new(),
            dns: Dns::default(),
        }
    }

    /// Reads a tenant file, with the tiers that are built in. What neither it nor its tier says has the standard values; unknown and
    /// doubled fields are errors.
    ///
    /// # Errors
    /// The field and line, and what is wrong there.
    pub fn from_yaml(text: &str) -> Result<Self, YamlError> {
        Tiers::embedded().tenant(text)
    }

    /// The tenant's namespace.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.id.namespace()
    }

    /// The labels and annotations of its own, as they are written on objects.
    pub(crate) fn metadata(&self) -> Stamp {
        let labels = self.labels.iter();
        let annotations = self.annotations.iter();
        Stamp {
            labels: labels
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            annotations: annotations
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
        }
    }

    /// The name for people.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), DisplayName::as_str)
    }
}

/// The user of images without one of their own, by custom.
fn nobody() -> NonZeroU32 {
    const { NonZeroU32::new(65532).unwrap() }
}

/// Metadata put on objects besides the platform's own. On the namespace: a conformance run marks what it made with its
/// id ([`crate::labels::RUN_ID`]) and expiry ([`crate::labels::EXPIRES`]). Empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Labels, added to the object's.
    pub labels: BTreeMap<String, String>,
    /// Annotations, added to the object's.
    pub annotations: BTreeMap<String, String>,
}

/// The ResourceQuota `tenant-{id}-quota`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// `requests.cpu`
    pub requests_cpu: Quantity,
    /// `limits.cpu`
    pub limits_cpu: Quantity,
    /// `requests.memory`
    pub requests_memory: Quantity,
    /// `limits.memory`
    pub limits_memory: Quantity,
    /// `requests.storage`
    pub requests_storage: Quantity,
    /// `pods`
    pub pods: u32,
}

/// A constant; that each is valid is tested.
pub(crate) fn fixed<T: std::str::FromStr<Err = InvalidValue>>(text: &str) -> T {
    #[allow(
        clippy::panic,
        reason = "constants of this file and of the admission settings only; the tests of the standard tenant and platform read each"
    )]
    text.parse()
        .unwrap_or_else(|error: InvalidValue| panic!("{error}"))
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            requests_cpu: fixed("2"),
            limits_cpu: fixed("4"),
            requests_memory: fixed("4Gi"),
            limits_memory: fixed("8Gi"),
            requests_storage: fixed("20Gi"),
            pods: 10,
        }
    }
}

/// What one container asks for and may use at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSize {
    /// CPU that the scheduler sets aside.
    pub cpu_request: Quantity,
    /// CPU at most.
    pub cpu_limit: Quantity,
    /// Memory that the scheduler sets aside.
    pub memory_request: Quantity,
    /// Memory at most.
    pub memory_limit: Quantity,
}

impl WorkloadSize {
    fn of(cpu_request: &str, cpu_limit: &str, memory_request: &str, memory_limit: &str) -> Self {
        Self {
            cpu_request: fixed(cpu_request),
            cpu_limit: fixed(cpu_limit),
            memory_request: fixed(memory_request),
            memory_limit: fixed(memory_limit),
        }
    }

    fn container_defaults() -> Self {
        Self::of("50m", "500m", "64Mi", "512Mi")
    }
}

/// One Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// How many pods.
    pub replicas: u16,
    /// The size of each pod's one container.
    pub size: WorkloadSize,
    /// The image.
    pub image: ImageReference,
    /// The entry point; the image's own where empty.
    pub command: Vec<Argument>,
    /// Its arguments; the image's own where empty.
    pub args: Vec<Argument>,
    /// What is run inside to see whether it is ready. The API is asked over HTTP instead and ignores it; a worker without one is
    /// ready as soon as it runs.
    pub readiness_command: Vec<Argument>,
}

impl Workload {
    fn api() -> Self {
        Self {
            replicas: 1,
            size: WorkloadSize::of("50m", "500m", "64Mi", "1Gi"),
            image: fixed("ai-agents.local/enhancer:1"),
            command: Vec::new(),
            args: ["api"].map(fixed).to_vec(),
            readiness_command: Vec::new(),
        }
    }

    fn worker() -> Self {
        Self {
            size: WorkloadSize::of("100m", "500m", "128Mi", "1Gi"),
            args: ["worker"].map(fixed).to_vec(),
            readiness_command: ["/enhancer", "worker", "--ready"].map(fixed).to_vec(),
            ..Self::api()
        }
    }
}

/// The HorizontalPodAutoscaler of the worker. Where it is on, the number of workers is its own, and `worker.replicas` is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Whether there is one.
    pub enabled: bool,
    /// How many workers there are at least.
    pub min_replicas: u16,
    /// How many workers there are at most.
    pub max_replicas: u16,
    /// CPU of a worker, on average, that is aimed at: where they use more, there will be more of them.
    pub cpu: Quantity,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            enabled: false,
            min_replicas: 1,
            max_replicas: 3,
            cpu: fixed("400m"),
        }
    }
}

/// When nodes fetch images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// Unless the node has the image.
    #[default]
    IfNotPresent,
    /// On every start.
    Always,
    /// Never: the image was loaded onto the nodes.
    Never,
}

/// The services that all tenants share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedServices {
    /// The namespace they live in.
    pub namespace: DnsName,
    /// PostgreSQL.
    pub postgresql: Postgresql,
    /// Redis.
    pub redis: SharedService,
}

impl Default for SharedServices {
    fn default() -> Self {
        Self {
            namespace: fixed("database"),
            postgresql: Postgresql {
                service: fixed("postgresql"),
                port: port(5432),
                pod_app: fixed("ai-agents-postgresql"),
                admin_secret: fixed("postgresql-admin"),
                database: fixed("ai_agents"),
                connection_limit: const { NonZeroU16::new(10).unwrap() },
            },
            redis: SharedService {
                service: fixed("redis"),
                port: port(6379),
                pod_app: fixed("ai-agents-redis"),
                admin_secret: fixed("redis-admin"),
            },
        }
    }
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

/// One shared service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedService {
    /// The name of its Service.
    pub service: DnsName,
    /// Its port, the same on Service and pods.
    pub port: NonZeroU16,
    /// The label `app` of its pods.
    pub pod_app: LabelValue,
    /// The Secret in its namespace with the keys `username` and `password` of its administrator, by whom tenants are registered.
    pub admin_secret: DnsName,
}

/// PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Postgresql {
    /// The name of its Service.
    pub service: DnsName,
    /// Its port, the same on Service and pods.
    pub port: NonZeroU16,
    /// The label `app` of its pods.
    pub pod_app: LabelValue,
    /// The Secret in its namespace with the keys `username` and `password` of its administrator, by whom tenants are registered.
    pub admin_secret: DnsName,
    /// The application's database.
    pub database: DatabaseName,
    /// How many connections the tenant may have at once.
    pub connection_limit: NonZeroU16,
}

impl Postgresql {
    /// What it has in common with other services.
    #[must_use]
    pub fn as_service(&self) -> SharedService {
        SharedService {
            service: self.service.clone(),
            port: self.port,
            pod_app: self.pod_app.clone(),
            admin_secret: self.admin_secret.clone(),
        }
    }
}

/// What the platform's templates vary, besides what tenants do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Platform {
    /// PostgreSQL and Redis.
    pub shared_services: SharedServices,
    /// Namespaces whose pods may reach the shared services, besides the tenants' and the services' own.
    pub database_client_namespaces: Vec<DnsName>,
    /// What admission policies hold.
    pub admission: Admission,
}

impl Platform {
    /// Reads a file of the platform's settings. What it leaves out has the standard values; unknown and doubled fields are errors.
    ///
    /// # Errors
    /// The field and line, and what is wrong there.
    pub fn from_yaml(text: &str) -> Result<Self, YamlError> {
        yaml::read(text)
    }
}

/// Who may call the API from outside of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// The ingress controller's namespace.
    pub namespace: DnsName,
    /// How that namespace is recognised.
    pub selector: NamespaceSelector,
    /// The class of the Ingress object that the tenant gets; none where the ingress routes without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<DomainName>,
    /// The host that the Ingress object is for; any where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<DomainName>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self {
            namespace: fixed("ingress-nginx"),
            selector: NamespaceSelector::default(),
            class_name: None,
            host: None,
        }
    }
}

/// The label by which a policy selects a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceSelector {
    /// `kubernetes.io/metadata.name`, which the API server sets: nobody else can wear it.
    #[default]
    MetadataName,
    /// `name`, which whoever owns a namespace can set: for clusters whose rules are written so.
    NameLabel,
}

impl NamespaceSelector {
    /// The label's key.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MetadataName => "kubernetes.io/metadata.name",
            Self::NameLabel => "name",
        }
    }
}

/// What the tenant reaches outside of the cluster, on TCP 80 and 443.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Internet {
    /// Ranges that are not the internet: the cluster's pods, services and nodes, private networks, the cloud's metadata service.
    pub except: Vec<Ipv4Range>,
}

impl Default for Internet {
    fn default() -> Self {
        let except = [
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
        ];
        Self {
            except: except.map(fixed).to_vec(),
        }
    }
}

/// A destination of the tenant's own, in the cluster's network or outside of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Egress {
    /// The addresses: a host's, as in `192.0.2.10/32`, or a network's.
    pub cidr: Ipv4Range,
    /// The ports, at least one.
    #[schemars(length(min = 1))]
    pub ports: Vec<NonZeroU16>,
    /// What is spoken there.
    #[serde(default)]
    pub protocol: Protocol,
}

/// What is spoken at a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// How the cluster resolves names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// The namespace of its DNS pods.
    pub namespace: DnsName,
    /// The label `k8s-app` of its DNS pods.
    pub pod_app: LabelValue,
    /// The domain that names of Services end in.
    pub cluster_domain: DomainName,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            namespace: fixed("kube-system"),
            pod_app: fixed("kube-dns"),
            cluster_domain: fixed("cluster.local"),
        }
    }
}

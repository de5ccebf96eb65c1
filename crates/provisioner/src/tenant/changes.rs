//! What tenant files and tiers say: every field may be left out, and has then the value of what they are put onto. API and worker
//! (PostgreSQL and Redis) differ in what that is, so a part that is named only in part is put onto the whole field by field.

use super::{
    Autoscaling, Dns, Egress, ImagePullPolicy, Ingress, Internet, NamespaceSelector, Postgresql, Quota,
    SharedService, SharedServices, Tenant, Workload, WorkloadSize,
};
use crate::names::{
    AnnotationValue, Argument, DatabaseName, DisplayName, DnsName, DomainName, ImageReference, Ipv4Range,
    LabelValue, MetadataKey, TenantId, TierName,
};
use crate::quantity::Quantity;
use crate::yaml::distinct;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

/// Declares a struct of options for another struct, and what it changes there: fields that are replaced, then those that are
/// changed in turn.
macro_rules! changes {
    ($(#[$about:meta])* $name:ident of $whole:ident
        { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? }
        { $($(#[$nested_doc:meta])* $nested:ident: $changes:ident),* $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "camelCase", default)]
        pub(super) struct $name {
            $($(#[$doc])* $field: Option<$type>,)*
            $($(#[$nested_doc])* $nested: Option<$changes>,)*
        }

        impl $name {
            fn onto(self, whole: &mut $whole) {
                $(if let Some(value) = self.$field { whole.$field = value.into(); })*
                $(if let Some(changes) = self.$nested { changes.onto(&mut whole.$nested); })*
            }
        }
    };
}

changes!(
    /// The limits of the whole namespace.
    QuotaChanges of Quota {
        /// CPU that all pods together may have set aside.
        requests_cpu: Quantity,
        /// CPU that all pods together may use at most.
        limits_cpu: Quantity,
        /// Memory that all pods together may have set aside.
        requests_memory: Quantity,
        /// Memory that all pods together may use at most.
        limits_memory: Quantity,
        /// Storage that all volumes together may claim.
        requests_storage: Quantity,
        /// How many pods there may be.
        pods: u32,
    } {}
);

changes!(
    /// What one container asks for and may use at most.
    SizeChanges of WorkloadSize {
        /// CPU that the scheduler sets aside.
        cpu_request: Quantity,
        /// CPU at most.
        cpu_limit: Quantity,
        /// Memory that the scheduler sets aside.
        memory_request: Quantity,
        /// Memory at most.
        memory_limit: Quantity,
    } {}
);

changes!(
    /// One Deployment.
    WorkloadChanges of Workload {
        /// How many pods: at least 1; of the worker at most 3.
        #[schemars(range(min = 1))]
        replicas: u16,
        /// The image.
        image: ImageReference,
        /// The entry point; the image's own where empty.
        command: Vec<Argument>,
        /// Its arguments; the image's own where empty.
        args: Vec<Argument>,
        /// What is run inside to see whether it is ready. The API is asked over HTTP instead and ignores it.
        readiness_command: Vec<Argument>,
    } {
        /// The size of each pod's one container.
        size: SizeChanges,
    }
);

changes!(
    /// How many workers there are, by what they use: a HorizontalPodAutoscaler. Takes the metrics API.
    AutoscalingChanges of Autoscaling {
        /// Whether there is one; `worker.replicas` is not used then.
        enabled: bool,
        /// How many workers there are at least: 1 to 3.
        #[schemars(range(min = 1, max = 3))]
        min_replicas: u16,
        /// How many workers there are at most: 1 to 3.
        #[schemars(range(min = 1, max = 3))]
        max_replicas: u16,
        /// CPU of a worker, on average, that is aimed at; less than its limit.
        cpu: Quantity,
    } {}
);

changes!(
    /// One shared service.
    ServiceChanges of SharedService {
        /// The name of its Service.
        service: DnsName,
        /// Its port, the same on Service and pods.
        port: NonZeroU16,
        /// The label `app` of its pods.
        pod_app: LabelValue,
        /// The Secret in its namespace with the keys `username` and `password` of its administrator, by whom tenants are registered.
        admin_secret: DnsName,
    } {}
);

changes!(
    /// PostgreSQL.
    PostgresqlChanges of Postgresql {
        /// The name of its Service.
        service: DnsName,
        /// Its port, the same on Service and pods.
        port: NonZeroU16,
        /// The label `app` of its pods.
        pod_app: LabelValue,
        /// The Secret in its namespace with the keys `username` and `password` of its administrator, by whom tenants are registered.
        admin_secret: DnsName,
        /// The application's database.
        database: DatabaseName,
        /// How many connections the tenant may have at once.
        connection_limit: NonZeroU16,
    } {}
);

changes!(
    /// PostgreSQL and Redis.
    SharedServicesChanges of SharedServices {
        /// The namespace they live in.
        namespace: DnsName,
    } {
        /// PostgreSQL.
        postgresql: PostgresqlChanges,
        /// Redis.
        redis: ServiceChanges,
    }
);

changes!(
    /// Who may call the API from outside of the namespace.
    IngressChanges of Ingress {
        /// The ingress controller's namespace.
        namespace: DnsName,
        /// How that namespace is recognised: by the label `kubernetes.io/metadata.name`, which the API server sets, or by `name`.
        selector: NamespaceSelector,
        /// The class of the Ingress object that the tenant gets; none where the ingress routes without one.
        class_name: DomainName,
        /// The host that the Ingress object is for; any where none is given.
        host: DomainName,
    } {}
);

changes!(
    /// What the tenant reaches outside of the cluster, on TCP 80 and 443.
    InternetChanges of Internet {
        /// Ranges that are not the internet: the cluster's pods, services and nodes, private networks, the cloud's metadata service.
        except: Vec<Ipv4Range>,
    } {}
);

changes!(
    /// How the cluster resolves names.
    DnsChanges of Dns {
        /// The namespace of its DNS pods.
        namespace: DnsName,
        /// The label `k8s-app` of its DNS pods.
        pod_app: LabelValue,
        /// The domain that names of Services end in.
        cluster_domain: DomainName,
    } {}
);

impl<'de> Deserialize<'de> for SharedServices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut whole = Self::default();
        SharedServicesChanges::deserialize(deserializer)?.onto(&mut whole);
        Ok(whole)
    }
}

impl JsonSchema for SharedServices {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "SharedServices".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        SharedServicesChanges::json_schema(generator)
    }
}

/// Declares what a tier says, and a tenant file with the same fields and those that only a tenant has.
macro_rules! tier_and_file {
    (
        { $($(#[$map_doc:meta])* $map:ident: $value:ty),* $(,)? }
        { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? }
        { $($(#[$nested_doc:meta])* $nested:ident: $changes:ident),* $(,)? }
    ) => {
        /// What the tenants of one tier have: a part of a tenant file. What it leaves out has the standard values.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "camelCase", default)]
        pub struct Tier {
            $($(#[$map_doc])* $map: ByKey<MetadataKey, $value>,)*
            $($(#[$doc])* $field: Option<$type>,)*
            $($(#[$nested_doc])* $nested: Option<$changes>,)*
        }

        /// A tenant file: only `id` is required. What it leaves out has the values of its tier.
        #[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        pub struct TenantFile {
            /// The tenant's id: namespace, labels and object names derive from it.
            pub(super) id: TenantId,
            /// The name for people; the id where none is given.
            #[serde(default)]
            pub(super) name: Option<DisplayName>,
            /// Where the values come from that are left out: `standard`, `premium`, or one of a tiers file.
            #[serde(default)]
            pub(super) tier: Option<TierName>,
            $($(#[$map_doc])* #[serde(default)] $map: ByKey<MetadataKey, $value>,)*
            $($(#[$doc])* #[serde(default)] $field: Option<$type>,)*
            $($(#[$nested_doc])* #[serde(default)] $nested: Option<$changes>,)*
        }

        impl Tier {
            /// Changes what the tier names.
            pub(super) fn onto(self, whole: &mut Tenant) {
                $(whole.$map.extend(self.$map.0);)*
                $(if let Some(value) = self.$field { whole.$field = value; })*
                $(if let Some(changes) = self.$nested { changes.onto(&mut whole.$nested); })*
            }
        }

        impl TenantFile {
            /// Changes what the file names, but for its tier.
            pub(super) fn onto(self, whole: &mut Tenant) {
                whole.id = self.id;
                whole.name = self.name;
                let named = Tier {
                    $($map: self.$map,)*
                    $($field: self.$field,)*
                    $($nested: self.$nested,)*
                };
                named.onto(whole);
            }
        }
    };
}

tier_and_file!(
    {
        /// Labels of every object of the tenant, besides the platform's; pods do not get them.
        labels: LabelValue,
        /// Annotations of every object of the tenant, besides the platform's; pods do not get them.
        annotations: AnnotationValue,
    }
    {
        /// When nodes fetch images.
        image_pull_policy: ImagePullPolicy,
        /// The user and group that API and worker run as; root is not possible.
        run_as_user: NonZeroU32,
        /// Whether `apply` makes the tenant's role in PostgreSQL and its user in Redis; `false` where somebody else does.
        registration: bool,
        /// What the tenant reaches besides the shared services, DNS and the internet.
        egress: Vec<Egress>,
    }
    {
        /// The limits of the whole namespace.
        quota: QuotaChanges,
        /// What a container gets that says nothing about its resources.
        container_defaults: SizeChanges,
        /// The API.
        api: WorkloadChanges,
        /// The worker.
        worker: WorkloadChanges,
        /// How many workers there are, by what they use.
        autoscaling: AutoscalingChanges,
        /// PostgreSQL and Redis.
        shared_services: SharedServicesChanges,
        /// Who may call the API from outside.
        ingress: IngressChanges,
        /// What the tenant reaches outside of the cluster.
        internet: InternetChanges,
        /// How the cluster resolves names.
        dns: DnsChanges,
    }
);

/// A map whose keys keep to a rule of their own, and of which none is given twice.
#[derive(Debug, Clone, PartialEq)]
pub struct ByKey<K, V>(pub(super) BTreeMap<K, V>);

impl<K, V> Default for ByKey<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, K, V> Deserialize<'de> for ByKey<K, V>
where
    K: Deserialize<'de> + Ord + std::fmt::Display,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        distinct(deserializer).map(Self)
    }
}

impl<K: JsonSchema, V: JsonSchema> JsonSchema for ByKey<K, V> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("By{}", K::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (keys, values) = (generator.subschema_for::<K>(), generator.subschema_for::<V>());
        json_schema!({"type": "object", "propertyNames": keys, "additionalProperties": values})
    }
}

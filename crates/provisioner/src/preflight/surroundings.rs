//! What a tenant is put into: the namespaces, Services and pods that its policies select by label, what all tenants share, and what an
//! autoscaler measures by.

use super::{Check, Finding, Look, State};
use crate::apply::objects::{Objects, Owner};
use crate::calls::{CallError, Calls, Cause};
use crate::labels;
use crate::manifest::Manifest;
use crate::ownership::unlike;
use crate::tenant::{Dns, Ingress, Platform, SharedService, SharedServices};
use crate::{Templates, render_platform};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::core::Status;
use kube::{Api, Client};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// Where the resource metrics of pods are served
/// (<https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/#metrics-api>).
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// Each that differs from those before it.
pub(super) fn distinct<'v, T: PartialEq>(values: impl Iterator<Item = &'v T>) -> Vec<&'v T> {
    let mut distinct: Vec<&T> = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// One look for each thing that any of the tenants names.
pub(super) fn looks<'l>(look: &'l Look<'_>) -> Vec<BoxFuture<'l, Vec<Finding>>> {
    let mut looks: Vec<BoxFuture<'l, Vec<Finding>>> = Vec::new();
    let one = |finding: Finding| vec![finding];
    let cluster = Cluster {
        client: look.client,
        calls: &look.calls,
    };
    if look.wants(Check::Ingress) {
        for ingress in distinct(look.tenants().map(|tenant| &tenant.ingress)) {
            looks.push(ingress_namespace(cluster, ingress).map(one).boxed());
        }
    }
    for shared in distinct(look.tenants().map(|tenant| &tenant.shared_services)) {
        let services = [
            (Check::Postgresql, "postgresql", shared.postgresql.as_service()),
            (Check::Redis, "redis", shared.redis.clone()),
        ];
        for (check, field, service) in services {
            if look.wants(check) {
                looks.push(
                    shared_service(cluster, check, field, shared, service)
                        .map(one)
                        .boxed(),
                );
            }
        }
        if look.wants(Check::Platform) {
            looks.push(platform(cluster, shared).map(one).boxed());
        }
    }
    if look.wants(Check::Dns) {
        for dns in distinct(look.tenants().map(|tenant| &tenant.dns)) {
            looks.push(name_service(cluster, dns).map(one).boxed());
        }
    }
    if look.wants(Check::Metrics) {
        let mut manifests = look.request.tenants.iter().flat_map(|(_, manifests)| manifests);
        if manifests.any(|manifest| manifest.kind.kind == "HorizontalPodAutoscaler") {
            looks.push(metrics(cluster).map(one).boxed());
        } else {
            let none = Finding::skipped(Check::Metrics, "no HorizontalPodAutoscaler is asked for");
            looks.push(async { vec![none] }.boxed());
        }
    }
    looks
}

#[derive(Clone, Copy)]
struct Cluster<'a> {
    client: &'a Client,
    calls: &'a Calls<'a>,
}

impl Cluster<'_> {
    async fn list<K>(self, namespace: &str, plural: &str, selector: &str) -> Result<Vec<K>, CallError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let parameters = ListParams::default().labels(selector);
        let which = if selector.is_empty() {
            String::new()
        } else {
            format!(" with {selector}")
        };
        let what = format!("list {plural}{which} in {namespace}");
        Ok(self.calls.make(what, || api.list(&parameters)).await?.items)
    }
}

async fn ingress_namespace(cluster: Cluster<'_>, ingress: &Ingress) -> Finding {
    let name = ingress.namespace.as_str();
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let found = cluster
        .calls
        .make(format!("get Namespace {name}"), || api.get_opt(name))
        .await;
    match found {
        Ok(found) => judge_ingress(ingress, found.as_ref()),
        Err(error) => Finding::undecided(Check::Ingress, name, &error),
    }
}

fn judge_ingress(ingress: &Ingress, found: Option<&Namespace>) -> Finding {
    let (name, label) = (ingress.namespace.as_str(), ingress.selector.label());
    let finding = |state, detail: String| Finding::new(Check::Ingress, name, state, detail);
    let Some(namespace) = found else {
        return finding(State::Missing, format!("Namespace {name} does not exist: nobody would reach the tenant's API")).mend(
            "put up the ingress controller (fixtures/shared-services/services.sh up brings one), or name its namespace as ingress.namespace in the tenant file",
        );
    };
    let labels = namespace.metadata.labels.clone().unwrap_or_default();
    match unlike(&labels, label, name) {
        None => finding(State::Ok, format!("wears {label}={name}, which policies select")),
        Some(why) => finding(State::Missing, format!("{why}: policies would not recognise it")).mend(format!(
            "kubectl label namespace {name} {label}={name} --overwrite; or `ingress: {{selector: metadataName}}` in the tenant file, which needs no label of yours"
        )),
    }
}

/// A Service, and the pods that policies let tenants reach.
struct Wanted<'a> {
    check: Check,
    namespace: &'a str,
    service: Option<Service>,
    /// What is said where there is no such Service, and what mends it.
    absent: (String, String),
    port: i32,
    pod_label: String,
    /// What mends pods without the label, and a port that is another.
    label_remedy: String,
    port_remedy: String,
}

async fn shared_service(
    cluster: Cluster<'_>,
    check: Check,
    field: &str,
    shared: &SharedServices,
    wanted: SharedService,
) -> Finding {
    let (namespace, name) = (shared.namespace.as_str(), wanted.service.as_str());
    let api: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let found = cluster
        .calls
        .make(format!("get Service {name} in {namespace}"), || api.get_opt(name))
        .await;
    let service = match found {
        Ok(service) => service,
        Err(error) => return Finding::undecided(check, &format!("{namespace}/{name}"), &error),
    };
    let pod_app = &wanted.pod_app;
    let wanted = Wanted {
        check,
        namespace,
        service,
        absent: (
            format!("Service {name} does not exist in {namespace}"),
            format!(
                "put up the shared services (fixtures/shared-services/services.sh up), or name where they are by sharedServices.namespace and sharedServices.{field}.service in the tenant file"
            ),
        ),
        port: wanted.port.get().into(),
        pod_label: format!("app={pod_app}"),
        label_remedy: format!(
            "give the template of these pods the label app={pod_app}, or name theirs as sharedServices.{field}.podApp in the tenant file and the platform's settings"
        ),
        port_remedy: format!("name its port as sharedServices.{field}.port in the tenant file"),
    };
    served(cluster, &format!("{namespace}/{name}"), wanted).await
}

async fn name_service(cluster: Cluster<'_>, dns: &Dns) -> Finding {
    let (namespace, pod_app) = (dns.namespace.as_str(), dns.pod_app.as_str());
    let services = match cluster.list::<Service>(namespace, "services", "").await {
        Ok(services) => services,
        Err(error) => return Finding::undecided(Check::Dns, namespace, &error),
    };
    let leads_there = |service: &Service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector
            .and_then(|selector| selector.get("k8s-app"))
            .is_some_and(|app| app == pod_app)
    };
    let service = services
        .into_iter()
        .find(|service| leads_there(service) && has_port(service, 53));
    let of = match service
        .as_ref()
        .and_then(|service| service.metadata.name.as_deref())
    {
        Some(name) => format!("{namespace}/{name}"),
        None => namespace.to_owned(),
    };
    let named = "name where the cluster's DNS is by dns.namespace and dns.podApp in the tenant file";
    let wanted = Wanted {
        check: Check::Dns,
        namespace,
        service,
        absent: (
            format!("no Service in {namespace} leads to pods with k8s-app={pod_app} on port 53"),
            format!("kubectl get services,pods --namespace {namespace} --show-labels; then {named}"),
        ),
        port: 53,
        pod_label: format!("k8s-app={pod_app}"),
        label_remedy: named.to_owned(),
        port_remedy: named.to_owned(),
    };
    served(cluster, &of, wanted).await
}

async fn served(cluster: Cluster<'_>, of: &str, wanted: Wanted<'_>) -> Finding {
    let Some(name) = wanted
        .service
        .as_ref()
        .and_then(|service| service.metadata.name.clone())
    else {
        let (detail, remedy) = wanted.absent;
        return Finding::new(wanted.check, of, State::Missing, detail).mend(remedy);
    };
    let slices = format!("kubernetes.io/service-name={name}");
    let found = try_join(
        cluster.list::<EndpointSlice>(wanted.namespace, "endpointslices", &slices),
        cluster.list::<Pod>(wanted.namespace, "pods", &wanted.pod_label),
    )
    .await;
    match found {
        Ok((slices, pods)) => judge_service(of, &wanted, &slices, &pods),
        Err(error) => Finding::undecided(wanted.check, of, &error),
    }
}

fn judge_service(of: &str, wanted: &Wanted<'_>, slices: &[EndpointSlice], pods: &[Pod]) -> Finding {
    let Wanted {
        check,
        namespace,
        pod_label,
        port,
        ..
    } = wanted;
    let missing = |detail: String| Finding::new(*check, of, State::Missing, detail);
    if !wanted
        .service
        .as_ref()
        .is_some_and(|service| has_port(service, *port))
    {
        return missing(format!("its Service has no port {port}")).mend(&wanted.port_remedy);
    }
    let labelled: BTreeSet<&str> = pods
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    if labelled.is_empty() {
        return missing(format!(
            "no pod in {namespace} has the label {pod_label}, which policies select"
        ))
        .mend(&wanted.label_remedy);
    }
    let ready = ready_pods(slices);
    if ready.is_empty() {
        return missing(format!(
            "its Service has no ready endpoint; pods with {pod_label}: {}",
            labelled.into_iter().collect::<Vec<_>>().join(", ")
        ))
        .mend(format!(
            "kubectl describe pods --namespace {namespace} --selector {pod_label}"
        ));
    }
    let strangers: Vec<&str> = ready
        .iter()
        .copied()
        .filter(|pod| !labelled.contains(pod))
        .collect();
    if strangers.is_empty() {
        let count = ready.len();
        let pods = if count == 1 { "pod" } else { "pods" };
        return Finding::new(
            *check,
            of,
            State::Ok,
            format!("leads to {count} ready {pods} with {pod_label}"),
        );
    }
    missing(format!(
        "its Service leads to {}, without the label {pod_label}: policies would not let tenants reach it",
        strangers.join(", ")
    ))
    .mend(&wanted.label_remedy)
}

fn has_port(service: &Service, port: i32) -> bool {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.into_iter().any(|it| it.port == port)
}

/// The names of the ready endpoints' pods; an endpoint that is no pod by its address.
fn ready_pods(slices: &[EndpointSlice]) -> BTreeSet<&str> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.is_none_or(|now| now.ready != Some(false))
    });
    ready
        .filter_map(|endpoint| {
            let target = endpoint.target_ref.as_ref();
            let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
            pod.and_then(|pod| pod.name.as_deref())
                .or_else(|| endpoint.addresses.first().map(String::as_str))
        })
        .collect()
}

/// Whether the platform's objects are there, and ours. Whether each says what its template does is what `platform diff` is for: that takes
/// the right to write them.
async fn platform(cluster: Cluster<'_>, shared: &SharedServices) -> Finding {
    let namespace = shared.namespace.as_str();
    let settings = Platform {
        shared_services: shared.clone(),
        ..Platform::default()
    };
    let manifests = match render_platform(&settings, &Templates::embedded_platform()) {
        Ok(manifests) => manifests,
        Err(error) => {
            return Finding::new(Check::Platform, namespace, State::Unknown, error.to_string());
        }
    };
    let objects = Objects::new(
        cluster.client,
        cluster.calls,
        Owner::Platform { namespace },
        false,
    );
    let looks = manifests.iter().map(|manifest| {
        let objects = &objects;
        async move { (manifest, platform_object(cluster, objects, manifest).await) }.boxed()
    });
    let looks = crate::calls::all(looks).await;
    judge_platform(namespace, &looks)
}

/// How one object of the platform stands.
enum Stands {
    There,
    /// This server has no such kind, and `platform apply` leaves it out.
    Unserved,
    Absent,
    Foreign(String),
    Unread(CallError),
}

async fn platform_object(cluster: Cluster<'_>, objects: &Objects<'_>, manifest: &Manifest) -> Stands {
    let live = match objects.get(manifest).await {
        Ok(live) => live,
        Err(error) => return Stands::Unread(error),
    };
    if let Some(live) = live {
        let live_labels = live.metadata.labels.unwrap_or_default();
        return match unlike(&live_labels, labels::MANAGED_BY, labels::MANAGED_BY_VALUE) {
            None => Stands::There,
            Some(why) => Stands::Foreign(why),
        };
    }
    let kind = manifest.kind;
    let path = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    match served_kinds(cluster, &path).await {
        Ok(Some(plurals)) if plurals.contains_key(kind.plural) => Stands::Absent,
        Ok(_) => Stands::Unserved,
        Err(error) => Stands::Unread(error),
    }
}

/// The plurals that this version of a group has; none where it is not served.
async fn served_kinds(
    cluster: Cluster<'_>,
    path: &str,
) -> Result<Option<BTreeMap<String, String>>, CallError> {
    let asked = cluster
        .calls
        .make(format!("get {path}"), || async {
            let request = http::Request::get(path)
                .body(Vec::new())
                .map_err(kube::Error::HttpError)?;
            cluster.client.request::<serde_json::Value>(request).await
        })
        .await;
    match asked {
        Ok(document) => {
            let resources = document["resources"].as_array().into_iter().flatten();
            let named = resources.filter_map(|it| {
                let name = it["name"].as_str()?.to_owned();
                Some((name, it["kind"].as_str().unwrap_or_default().to_owned()))
            });
            Ok(Some(named.collect()))
        }
        Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn judge_platform(namespace: &str, looks: &[(&Manifest, Stands)]) -> Finding {
    let finding = |state, detail: String| Finding::new(Check::Platform, namespace, state, detail);
    let (mut there, mut unserved, mut lacking) = (0, 0, Vec::new());
    let mut unread: Option<&CallError> = None;
    let mut unreadable = 0;
    for (manifest, stands) in looks {
        match stands {
            Stands::There => there += 1,
            Stands::Unserved => unserved += 1,
            Stands::Absent => lacking.push(format!("{} does not exist", manifest.reference())),
            Stands::Foreign(why) => lacking.push(format!("{}: {why}", manifest.reference())),
            Stands::Unread(error) => {
                unreadable += 1;
                unread = Some(error);
            }
        }
    }
    if !lacking.is_empty() {
        return finding(State::Missing, lacking.join("; "))
            .mend("provisioner platform apply, with your -f FILE and --templates DIR where the platform has settings or templates of its own (as a cluster administrator; `provisioner platform diff` says first what it does)");
    }
    if let Some(error) = unread {
        let detail = format!(
            "{there} of {} objects are there; {unreadable} cannot be read: {}",
            looks.len(),
            crate::calls::chain(error)
        );
        return finding(State::Unknown, detail).mend("provisioner platform diff, as a cluster administrator");
    }
    let left_out = if unserved > 0 {
        format!("; {unserved} of kinds that this version of Kubernetes does not serve")
    } else {
        String::new()
    };
    finding(
        State::Ok,
        format!("{there} objects are there, and ours{left_out}"),
    )
}

async fn metrics(cluster: Cluster<'_>) -> Finding {
    judge_metrics(served_kinds(cluster, METRICS).await)
}

fn judge_metrics(served: Result<Option<BTreeMap<String, String>>, CallError>) -> Finding {
    let finding = |state, detail: &str| Finding::new(Check::Metrics, "", state, detail);
    match served {
        Ok(Some(plurals)) if plurals.contains_key("pods") => finding(State::Ok, "the metrics API serves pods"),
        Ok(_) => finding(
            State::Missing,
            "the metrics API is not served: a HorizontalPodAutoscaler would never scale by CPU",
        )
        .mend("install metrics-server: kubectl apply -f https://github.com/kubernetes-sigs/metrics-server/releases/latest/download/components.yaml"),
        // An aggregated API whose server does not answer.
        Err(CallError { cause: Cause::Refused(status), .. }) if is_unavailable(&status) => finding(
            State::Missing,
            &format!("the metrics API does not answer: {} (status {})", status.message, status.code),
        )
        .mend("kubectl describe apiservice v1beta1.metrics.k8s.io"),
        Err(error) => Finding::undecided(Check::Metrics, "", &error),
    }
}

fn is_unavailable(status: &Status) -> bool {
    status.code == 503
}

#[cfg(test)]
mod tests;

//! A tenant's own workloads as they are found: pods, their accounts and addresses, the API's Service, and what keeps them from serving.
//! Only reads; what that means for a promise is left to the checks.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::names::{PROBE, workload};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use provisioner::tenant::Stamp;
use provisioner::{Manifest, NotReady, Silent, Templates, Tenant};
use std::time::Duration;

/// A pod of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPod {
    /// Its name.
    pub name: String,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// The ServiceAccount it runs as.
    pub account: String,
    /// Whether the kubelet finds it ready: its own listener answers.
    pub ready: bool,
    /// How often its containers were restarted.
    pub restarts: i32,
}

/// What a tenant runs.
#[derive(Debug)]
pub struct Workloads {
    /// The API's pods.
    pub api: Vec<WorkloadPod>,
    /// The worker's pods.
    pub worker: Vec<WorkloadPod>,
    /// The API's Service address.
    pub service_ip: Option<String>,
    /// How many endpoints of that Service are ready.
    pub ready_endpoints: usize,
    /// What kept the tenant from serving, and for how long it was waited.
    pub not_ready: Option<NotReady>,
}

/// Waits until a tenant serves, or the limit of time for it is over, and looks at what is there.
///
/// # Errors
/// The API server does not say what is there.
pub async fn await_serving(
    client: &kube::Client,
    tenant: &Tenant,
    limit: Duration,
) -> Result<Workloads, HarnessError> {
    let rendered = provisioner::render(tenant, &Templates::embedded(), &Stamp::default());
    let rendered =
        rendered.map_err(|error| HarnessError::during(format!("render tenant {}", tenant.id), &error))?;
    // Only what runs and what leads to it: a quota that is missing is for other checks to find.
    let workloads: Vec<Manifest> = rendered
        .into_iter()
        .filter(|manifest| matches!(manifest.kind.kind, "Deployment" | "Service"))
        .collect();
    let not_ready = provisioner::ready::wait_ready_for(client, &tenant.id, &workloads, limit, &Silent)
        .await
        .err();
    Ok(Workloads {
        not_ready,
        ..look(client, tenant).await?
    })
}

/// Looks at what is there now.
///
/// # Errors
/// As for [`await_serving`].
pub async fn look(client: &kube::Client, tenant: &Tenant) -> Result<Workloads, HarnessError> {
    let namespace = tenant.namespace();
    let services = Api::<Service>::namespaced(client.clone(), &namespace);
    let service = within(
        ANSWER,
        format!("get service {} in namespace {namespace}", workload::API),
        services.get_opt(workload::API),
    )
    .await?;
    let service_ip = service
        .and_then(|service| service.spec)
        .and_then(|spec| spec.cluster_ip)
        .filter(|ip| ip != "None");
    Ok(Workloads {
        api: pods(client, &namespace, workload::API).await?,
        worker: pods(client, &namespace, workload::WORKER).await?,
        service_ip,
        ready_endpoints: ready_endpoints(client, &namespace).await?,
        not_ready: None,
    })
}

/// The workload's pods; our agents wear its labels and are left out.
async fn pods(client: &kube::Client, namespace: &str, app: &str) -> Result<Vec<WorkloadPod>, HarnessError> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&format!("app={app},!{PROBE}"));
    let list = within(
        ANSWER,
        format!("list pods of {app} in namespace {namespace}"),
        pods.list(&params),
    )
    .await?;
    Ok(list
        .items
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(workload_pod)
        .collect())
}

fn workload_pod(pod: Pod) -> WorkloadPod {
    let status = pod.status.unwrap_or_default();
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|each| each.type_ == "Ready" && each.status == "True");
    let restarts = status
        .container_statuses
        .iter()
        .flatten()
        .map(|each| each.restart_count)
        .sum();
    WorkloadPod {
        restarts,
        name: pod.metadata.name.unwrap_or_default(),
        ip: status.pod_ip,
        account: pod
            .spec
            .and_then(|spec| spec.service_account_name)
            .unwrap_or_default(),
        ready,
    }
}

async fn ready_endpoints(client: &kube::Client, namespace: &str) -> Result<usize, HarnessError> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&format!("kubernetes.io/service-name={}", workload::API));
    let list = within(
        ANSWER,
        format!("list endpointslices in namespace {namespace}"),
        slices.list(&params),
    )
    .await?;
    let endpoints = list.items.into_iter().flat_map(|slice| slice.endpoints);
    Ok(endpoints
        .filter(|each| each.conditions.as_ref().and_then(|all| all.ready).unwrap_or(true))
        .count())
}

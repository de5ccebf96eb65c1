//! PostgreSQL and Redis as they are found: their Services and the pods behind them. Only reads; what that means for a promise is left to
//! the checks.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use probe::protocol::Protocol;
use provisioner::tenant::{Dns, SharedService};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// `PostgreSQL` or `Redis`.
    pub title: &'static str,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
    /// Its Service's name, absolute.
    pub name: String,
    /// Its Service's address, where there is one.
    pub service_ip: Option<String>,
    /// The addresses of its ready pods.
    pub pods: Vec<String>,
}

/// Both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedServices {
    /// The namespace they live in.
    pub namespace: String,
    /// PostgreSQL, then Redis.
    pub backends: [Backend; 2],
}

/// Looks at what is there now.
///
/// # Errors
/// The API server does not say.
pub async fn look(
    client: &kube::Client,
    services: &provisioner::tenant::SharedServices,
    dns: &Dns,
) -> Result<SharedServices, HarnessError> {
    let namespace = services.namespace.to_string();
    let backend = |title, protocol, service| backend(client, &namespace, dns, title, protocol, service);
    let postgresql = services.postgresql.as_service();
    let (postgresql, redis) = futures::try_join!(
        backend("PostgreSQL", Protocol::Postgresql, &postgresql),
        backend("Redis", Protocol::Redis, &services.redis),
    )?;
    Ok(SharedServices {
        backends: [postgresql, redis],
        namespace,
    })
}

async fn backend(
    client: &kube::Client,
    namespace: &str,
    dns: &Dns,
    title: &'static str,
    protocol: Protocol,
    service: &SharedService,
) -> Result<Backend, HarnessError> {
    let name = service.service.to_string();
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    let found = within(
        ANSWER,
        format!("get service {name} in namespace {namespace}"),
        services.get_opt(&name),
    );
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&format!("app={},!{}", service.pod_app, crate::names::PROBE));
    let listed = within(
        ANSWER,
        format!("list pods of {name} in namespace {namespace}"),
        pods.list(&params),
    );
    let (found, listed) = futures::try_join!(found, listed)?;
    Ok(Backend {
        title,
        protocol,
        port: service.port.get(),
        name: format!("{name}.{namespace}.svc.{}.", dns.cluster_domain),
        service_ip: found
            .and_then(|service| service.spec?.cluster_ip)
            .filter(|ip| ip != "None"),
        pods: listed.items.into_iter().filter_map(ready_address).collect(),
    })
}

fn ready_address(pod: Pod) -> Option<String> {
    let status = pod.status?;
    let ready = status
        .conditions?
        .iter()
        .any(|each| each.type_ == "Ready" && each.status == "True");
    status
        .pod_ip
        .filter(|_| ready && pod.metadata.deletion_timestamp.is_none())
}

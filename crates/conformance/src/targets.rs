//! What there is to probe, as cells: a tenant's API by each of its addresses, its workers, an agent on every port, the shared services,
//! the internet. Who probes and what that means is left to the checks.

use crate::agent::{Agent, Try};
use crate::context::{Context, own_listener, to_agent};
use crate::error::HarnessError;
use crate::names::AGENT_PORTS;
use crate::names::workload::{API, API_PORT};
use crate::probing::Cell;
use crate::probing::DENIAL_TIMEOUT;
use crate::settings::Internet;
use crate::shared_services::Backend;
use crate::verdict::{Control, Observation, Observed};
use crate::workloads::{WorkloadPod, Workloads};
use probe::protocol::Protocol;
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;

/// What a name takes to resolve comes on top of what an attempt waits.
const NAME: Duration = Duration::from_millis(300);
/// The ports of tenants' policies on the internet (spec: TCP 80 and 443).
pub const OPEN_INTERNET_PORTS: [u16; 2] = [80, 443];

/// A tenant's API by every address it has. A Service without a ready endpoint is left out: it refuses whoever asks, which is no denial.
pub fn api(cx: &Context, source: &str, to: &TenantId, workloads: &Workloads, timeout: Duration) -> Vec<Cell> {
    let http = |host: String, timeout| Try {
        protocol: Protocol::Http,
        host,
        port: API_PORT,
        timeout,
        query: None,
    };
    let cell = |what: String, attempt| Cell {
        what: format!("{source} -> {to} API {what}"),
        attempt,
        witness: None,
        answers_others: false,
    };
    let mut cells: Vec<Cell> = Vec::new();
    for ip in workloads
        .api
        .iter()
        .filter(|pod| pod.ready)
        .filter_map(|pod| pod.ip.as_ref())
    {
        cells.push(cell(
            format!("{ip}:{API_PORT} (pod IP)"),
            http(ip.clone(), timeout),
        ));
    }
    if let (Some(ip), 1..) = (&workloads.service_ip, workloads.ready_endpoints) {
        cells.push(cell(
            format!("{ip}:{API_PORT} (Service IP)"),
            http(ip.clone(), timeout),
        ));
        if let Ok(tenant) = cx.site.tenant(to) {
            let name = format!("{API}.{}.svc.{}.", to.namespace(), tenant.dns.cluster_domain);
            cells.push(cell(
                format!("{name}:{API_PORT} (name)"),
                http(name.clone(), timeout + NAME),
            ));
        }
    }
    cells
}

/// That B's API was alive all the time: the kubelet, which policies let through, found its listener ready before the probes and after
/// them, in the same pods, which did not restart.
pub(crate) fn api_alive(
    to: &TenantId,
    before: &Workloads,
    after: Result<Workloads, HarnessError>,
) -> Control {
    let claim = format!("{to} API is alive, before and after");
    let ready = |workloads: &Workloads| -> Vec<WorkloadPod> {
        workloads.api.iter().filter(|pod| pod.ready).cloned().collect()
    };
    let holds = match after {
        Err(error) => Err(error.to_string()),
        Ok(_) if ready(before).is_empty() => Err("no pod of it was ready: see PROV-13".to_owned()),
        Ok(after) if ready(&after) != ready(before) => {
            Err("its pods were replaced, restarted or lost readiness meanwhile".to_owned())
        }
        Ok(after) if after.ready_endpoints == 0 && before.ready_endpoints > 0 => {
            Err("its Service lost its endpoints meanwhile".to_owned())
        }
        Ok(after) => Ok(format!(
            "{} pod(s) ready, {} endpoint(s)",
            ready(&after).len(),
            after.ready_endpoints
        )),
    };
    Control { claim, holds }
}

/// Addresses of a tenant's API that should have been probed, and could not be.
pub fn unprobed_api(to: &TenantId, workloads: &Workloads) -> Vec<Observed> {
    let mut missing = Vec::new();
    let mut note = |what: &str, why: &str| {
        let observation = Observation::Broken(why.to_owned());
        missing.push(Observed {
            what: format!("{to} API {what}"),
            observation,
        });
    };
    if !workloads.api.iter().any(|pod| pod.ready && pod.ip.is_some()) {
        note("by pod IP", "no pod of it is ready");
    }
    if workloads.service_ip.is_none() || workloads.ready_endpoints == 0 {
        note(
            "by Service IP and name",
            "its Service has no ready endpoint, and would refuse whoever asks",
        );
    }
    missing
}

/// An agent on every port that agents listen on, TCP and UDP each.
pub fn every_port(source: &str, target: &Arc<Agent>, timeout: Duration) -> Vec<Cell> {
    let mut cells = Vec::new();
    for port in AGENT_PORTS {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            cells.push(to_agent(source, target, protocol, port, timeout));
        }
    }
    cells
}

/// That an agent listens on every port, asked by itself.
pub fn own_listeners(target: &Arc<Agent>) -> Vec<Cell> {
    let both = AGENT_PORTS
        .iter()
        .flat_map(|port| [(Protocol::Tcp, *port), (Protocol::Udp, *port)]);
    both.map(|(protocol, port)| own_listener(target, protocol, port))
        .collect()
}

/// A tenant's own worker pods. They may listen to nobody, so what is refused there shows nothing more than the agents do; what answers does.
pub fn workers(source: &str, to: &TenantId, workloads: &Workloads) -> Vec<Cell> {
    let mut cells = Vec::new();
    for ip in workloads.worker.iter().filter_map(|pod| pod.ip.clone()) {
        cells.push(Cell {
            what: format!("{source} -> {to} worker {ip}:{API_PORT}/tcp (pod IP)"),
            attempt: Try {
                protocol: Protocol::Tcp,
                host: ip,
                port: API_PORT,
                timeout: DENIAL_TIMEOUT,
                query: None,
            },
            witness: None,
            answers_others: false,
        });
    }
    cells
}

/// A tenant's workers, where there are none to probe.
pub fn unprobed_workers(to: &TenantId, workloads: &Workloads) -> Option<Observed> {
    let none = !workloads.worker.iter().any(|pod| pod.ip.is_some());
    none.then(|| Observed {
        what: format!("{to} worker by pod IP"),
        observation: Observation::Broken("no pod of it has an address".to_owned()),
    })
}

/// A shared service in its own protocol, by name, Service address and each ready pod's. Without a ready pod there is nothing to ask.
pub fn backend(source: &str, backend: &Backend, timeout: Duration) -> Vec<Cell> {
    if backend.pods.is_empty() {
        return Vec::new();
    }
    let cell = |host: &str, how: &str, timeout| Cell {
        what: format!("{source} -> {} {host}:{} ({how})", backend.title, backend.port),
        attempt: Try {
            protocol: backend.protocol,
            host: host.to_owned(),
            port: backend.port,
            timeout,
            query: None,
        },
        witness: None,
        answers_others: true,
    };
    let mut cells: Vec<Cell> = backend
        .pods
        .iter()
        .map(|ip| cell(ip, "pod IP", timeout))
        .collect();
    if let Some(ip) = &backend.service_ip {
        cells.push(cell(ip, "Service IP", timeout));
        cells.push(cell(&backend.name, "name", timeout + NAME));
    }
    cells
}

/// What could not be probed of a shared service, where that is so.
pub fn unprobed_backend(backend: &Backend, namespace: &str) -> Option<Observed> {
    let why = match (backend.pods.is_empty(), &backend.service_ip) {
        (true, _) => format!("no pod of it is ready in namespace {namespace}"),
        (false, None) => format!("it has no Service {} with an address", backend.name),
        (false, Some(_)) => return None,
    };
    Some(Observed {
        what: backend.title.to_owned(),
        observation: Observation::Broken(why),
    })
}

/// The host on the internet at one port.
pub fn internet(source: &str, internet: &Internet, protocol: Protocol, port: u16, timeout: Duration) -> Cell {
    let word = if protocol == Protocol::Udp { "udp" } else { "tcp" };
    Cell {
        what: format!("{source} -> internet {}:{port}/{word}", internet.host),
        attempt: Try {
            protocol,
            host: internet.host.to_string(),
            port,
            timeout,
            query: None,
        },
        witness: None,
        answers_others: true,
    }
}

/// The same on every port that tenants may not reach there, TCP and UDP each.
pub fn closed_internet(source: &str, host: &Internet, timeout: Duration) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &port in &host.ports {
        if !OPEN_INTERNET_PORTS.contains(&port) {
            cells.push(internet(source, host, Protocol::Tcp, port, timeout));
        }
        cells.push(internet(source, host, Protocol::Udp, port, timeout));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn pod(name: &str, ready: bool, restarts: i32) -> WorkloadPod {
        WorkloadPod {
            name: name.into(),
            ip: Some("10.0.0.1".into()),
            account: "sa-b".into(),
            ready,
            restarts,
        }
    }
    fn workloads(api: WorkloadPod, ready_endpoints: usize) -> Workloads {
        let service_ip = Some("10.96.0.9".into());
        Workloads {
            api: vec![api],
            worker: vec![],
            service_ip,
            ready_endpoints,
            not_ready: None,
        }
    }
    fn alive() -> Workloads {
        workloads(pod("p", true, 0), 1)
    }

    #[rstest]
    #[case::alive(alive(), Ok(alive()), true)]
    #[case::dead(workloads(pod("p", false, 0), 0), Ok(workloads(pod("p", false, 0), 0)), false)]
    #[case::died_meanwhile(alive(), Ok(workloads(pod("p", false, 0), 0)), false)]
    #[case::restarted_meanwhile(alive(), Ok(workloads(pod("p", true, 1), 1)), false)]
    #[case::replaced_meanwhile(alive(), Ok(workloads(pod("q", true, 0), 1)), false)]
    #[case::lost_its_endpoints(alive(), Ok(workloads(pod("p", true, 0), 0)), false)]
    #[case::not_to_be_asked(alive(), Err(HarnessError::new("500")), false)]
    fn a_dead_api_is_never_an_isolated_one(
        #[case] before: Workloads,
        #[case] after: Result<Workloads, HarnessError>,
        #[case] expected: bool,
    ) {
        let to = TenantId::try_from("b").unwrap();
        assert_eq!(api_alive(&to, &before, after).holds.is_ok(), expected);
    }

    #[rstest]
    #[case::alive(alive(), 0)]
    #[case::without_endpoints(workloads(pod("p", true, 0), 0), 1)]
    #[case::dead(workloads(pod("p", false, 0), 0), 2)]
    fn an_address_that_cannot_be_probed_is_undecided(#[case] workloads: Workloads, #[case] gaps: usize) {
        assert_eq!(
            unprobed_api(&TenantId::try_from("b").unwrap(), &workloads).len(),
            gaps
        );
    }
}

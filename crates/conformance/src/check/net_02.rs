//! NET-02: one tenant's pods cannot reach another's API. Three legs, since two rules stand in the way and losing either would be hidden by
//! the other: A to B; an outsider to B, whom only B's ingress can stop; A to an open sink, from which only A's egress can keep it.

use crate::agent::Try;
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::{Context, own_listener, to_agent};
use crate::error::HarnessError;
use crate::names::workload::{API, API_PORT};
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT, Seen};
use crate::resource::{Costume, Place, Resource};
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use crate::workloads::Workloads;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use probe::protocol::Protocol;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Net02;

static INFO: CheckInfo = CheckInfo {
    id: "NET-02",
    title: "one tenant's pods cannot reach another tenant's API",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "The API trusts the ingress in front of it: who reaches its port directly speaks to it without TLS, rate limits or the ingress's routing by tenant.",
    how: "Agents in all of A's costumes try B's API on 8000 by pod IP, Service IP and name, an outsider without policies does the same, and A's agents try an open sink on 8000. Controls: the outsider reaches the sink, A's agents reach DNS, B's API is ready and its agent's listener answers, policies are enforced; B's agent witnesses that no nonce arrived.",
    remedy: "compare the tenant's policies with the templates (provisioner apply brings them back): an `outsider ->` line means that B's ingress is open, a `-> sink` line that A's egress is",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(90),
};

impl Check for Net02 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::ordered_pairs(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        let Subject::Pair(from, to) = subject else {
            return Vec::new();
        };
        let mut needs: Vec<Resource> = Costume::ALL
            .map(|costume| Resource::Agent(Place::Tenant(from.clone(), costume)))
            .into_iter()
            .chain([
                Resource::Agent(Place::Tenant(to.clone(), Costume::Api)),
                Resource::Workloads(to.clone()),
            ])
            .collect();
        needs.extend([
            Resource::Agent(Place::Outsider),
            Resource::Agent(Place::Sink),
            Resource::Enforcement,
        ]);
        needs
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            match subject {
                Subject::Pair(from, to) => judge(cx, from, to).await,
                Subject::Cluster | Subject::Tenant(_) => {
                    Ok(Verdict::inconclusive("this check is about a pair of tenants"))
                }
            }
        }
        .boxed()
    }
}

async fn judge(cx: &Context, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    let sources = cx.agents(from).await?;
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let target = cx.stage.agent(&Place::Tenant(to.clone(), Costume::Api)).await?;
    let workloads = cx.workloads(to).await?;

    let cells = |source: &str| {
        let mut cells = api_cells(cx, source, to, &workloads);
        cells.push(to_agent(source, &target, Protocol::Tcp, API_PORT, DENIAL_TIMEOUT));
        cells
    };
    let from_tenant = sources.iter().map(|source| {
        let name = source.place.to_string();
        let mut probes = cells(&name);
        probes.push(to_agent(&name, &sink, Protocol::Tcp, API_PORT, DENIAL_TIMEOUT));
        let controls = [cx.dns_control(source)];
        async move { probing::probe(source, &controls, &probes).await }
    });
    let outside_control = [to_agent(
        "outsider",
        &sink,
        Protocol::Tcp,
        API_PORT,
        CONTROL_TIMEOUT,
    )];
    let outside_cells = cells("outsider");
    let listener = [own_listener(&target, Protocol::Tcp, API_PORT)];
    let (tenant, outside, alive) = futures::join!(
        join_all(from_tenant),
        probing::probe(&outsider, &outside_control, &outside_cells),
        probing::probe(&target, &listener, &[]),
    );

    let mut seen = Seen::default();
    seen.merge(outside);
    seen.merge(alive);
    tenant.into_iter().for_each(|each| seen.merge(each));
    seen.controls
        .extend([api_ready(to, &workloads), cx.enforcement().await]);
    seen.probes.extend(unprobed(to, &workloads));
    Ok(judge_denied(&prove(&seen.controls), &seen.probes))
}

/// B's API by every address it has.
fn api_cells(cx: &Context, source: &str, to: &TenantId, workloads: &Workloads) -> Vec<Cell> {
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
            http(ip.clone(), DENIAL_TIMEOUT),
        ));
    }
    // Without a ready endpoint a Service refuses whoever asks: that would be no denial.
    if let (Some(ip), 1..) = (&workloads.service_ip, workloads.ready_endpoints) {
        cells.push(cell(
            format!("{ip}:{API_PORT} (Service IP)"),
            http(ip.clone(), DENIAL_TIMEOUT),
        ));
        if let Ok(tenant) = cx.site.tenant(to) {
            let name = format!("{API}.{}.svc.{}.", to.namespace(), tenant.dns.cluster_domain);
            cells.push(cell(
                format!("{name}:{API_PORT} (name)"),
                http(name.clone(), 2 * DENIAL_TIMEOUT),
            ));
        }
    }
    cells
}

/// That B's API is alive: the kubelet, which policies let through, finds its listener ready.
fn api_ready(to: &TenantId, workloads: &Workloads) -> Control {
    let ready = workloads.api.iter().filter(|pod| pod.ready).count();
    let claim = format!("{to} API is alive");
    match (ready, workloads.ready_endpoints) {
        (0, _) => Control {
            claim,
            holds: Err("no pod of it is ready: see PROV-13".to_owned()),
        },
        (pods, endpoints) => Control {
            claim,
            holds: Ok(format!("{pods} pod(s) ready, {endpoints} endpoint(s)")),
        },
    }
}

/// Addresses that should have been probed, and could not be.
fn unprobed(to: &TenantId, workloads: &Workloads) -> Vec<Observed> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::WorkloadPod;
    use rstest::rstest;

    fn workloads(ready: bool, endpoints: usize) -> Workloads {
        let pod = WorkloadPod {
            name: "p".into(),
            ip: Some("10.0.0.1".into()),
            account: "sa-b".into(),
            ready,
        };
        Workloads {
            api: vec![pod],
            worker: vec![],
            service_ip: Some("10.96.0.9".into()),
            ready_endpoints: endpoints,
            not_ready: None,
        }
    }

    #[rstest]
    #[case::alive(workloads(true, 1), true, 0)]
    #[case::dead(workloads(false, 0), false, 2)]
    #[case::without_endpoints(workloads(true, 0), true, 1)]
    fn a_dead_api_is_never_an_isolated_one(
        #[case] workloads: Workloads,
        #[case] alive: bool,
        #[case] gaps: usize,
    ) {
        let to = TenantId::try_from("b").unwrap();
        assert_eq!(api_ready(&to, &workloads).holds.is_ok(), alive);
        assert_eq!(unprobed(&to, &workloads).len(), gaps);
    }
}

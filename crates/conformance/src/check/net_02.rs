//! NET-02: one tenant's pods cannot reach another's API. Three legs, since two rules stand in the way and losing either would be hidden by
//! the other: A to B; an outsider to B, whom only B's ingress can stop; A to an open sink, from which only A's egress can keep it.

use crate::agent::{Agent, Try};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::{Context, own_listener, to_agent};
use crate::error::HarnessError;
use crate::names::workload::{API, API_PORT};
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT};
use crate::resource::{Costume, Place, Resource};
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use crate::workloads::{self, WorkloadPod, Workloads};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use probe::protocol::Protocol;
use provisioner::TenantId;
use std::sync::Arc;
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
    how: "Agents in all of A's costumes try B's API on 8000 by pod IP, Service IP and name, an outsider without policies does the same, and A's agents try an open sink on 8000. Controls: the outsider reaches the sink, A's agents reach DNS, B's API is ready before and after and its agent's listener answers, policies are enforced; B's agent witnesses that no nonce arrived.",
    remedy: "compare the tenant's policies with the templates (provisioner apply brings them back): an `outsider ->` line means that B's ingress is open, a `-> sink` line that A's egress is",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

/// What a name takes to resolve comes on top of what a denied attempt waits.
const NAME_TIMEOUT: Duration = DENIAL_TIMEOUT.saturating_add(Duration::from_millis(300));

impl Check for Net02 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::ordered_pairs(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        let Ok((from, to)) = subject.pair() else {
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
            let (from, to) = subject.pair()?;
            judge(cx, from, to).await
        }
        .boxed()
    }
}

async fn judge(cx: &Context, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let (sources, mut missing) = cx.agents(from, &Costume::ALL).await;
    let (targets, without) = cx.agents(to, &[Costume::Api]).await;
    missing.extend(without);
    let workloads = cx.workloads(to).await?;

    let cells = |source: &str| {
        let mut cells = api_cells(cx, source, to, &workloads);
        cells.extend(
            targets
                .iter()
                .map(|target| to_agent(source, target, Protocol::Tcp, API_PORT, DENIAL_TIMEOUT)),
        );
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
    let alive = targets.iter().map(|target| async move {
        probing::probe(target, &[own_listener(target, Protocol::Tcp, API_PORT)], &[]).await
    });
    let (tenant, outside, alive) = futures::join!(
        join_all(from_tenant),
        probing::probe(&outsider, &outside_control, &outside_cells),
        join_all(alive),
    );

    let mut seen = outside;
    tenant.into_iter().chain(alive).for_each(|each| seen.merge(each));
    let agents: Vec<&Arc<Agent>> = sources.iter().chain(&targets).chain([&outsider, &sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.controls.push(api_alive(
        to,
        &workloads,
        workloads::look(&cx.site.cluster.client, cx.site.tenant(to)?).await,
    ));
    seen.probes.extend(missing);
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
                http(name.clone(), NAME_TIMEOUT),
            ));
        }
    }
    cells
}

/// That B's API was alive all the time: the kubelet, which policies let through, found its listener ready before the probes and after
/// them, in the same pods, which did not restart.
fn api_alive(to: &TenantId, before: &Workloads, after: Result<Workloads, HarnessError>) -> Control {
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
            unprobed(&TenantId::try_from("b").unwrap(), &workloads).len(),
            gaps
        );
    }
}

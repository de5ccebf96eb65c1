//! NET-02: one tenant's pods cannot reach another's API. Three legs, since two rules stand in the way and losing either would be hidden by
//! the other: A to B; an outsider to B, whom only B's ingress can stop; A to an open sink, from which only A's egress can keep it.

use crate::agent::Agent;
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::{Context, own_listener, to_agent};
use crate::error::HarnessError;
use crate::names::workload::API_PORT;
use crate::probing::{self, CONTROL_TIMEOUT, DENIAL_TIMEOUT};
use crate::resource::{Costume, Place, Resource};
use crate::subject::{self, Subject};
use crate::targets;
use crate::verdict::{Verdict, judge_denied, prove};
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

    fn second_try(&self) -> bool {
        true
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
        let mut cells = targets::api(cx, source, to, &workloads, DENIAL_TIMEOUT);
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
    seen.controls.push(cx.api_alive(to, &workloads).await);
    seen.probes.extend(missing);
    seen.probes.extend(targets::unprobed_api(to, &workloads));
    Ok(judge_denied(&prove(&seen.controls), &seen.probes))
}

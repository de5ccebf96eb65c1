//! NET-03: what is not the API is closed too. Workers and pods that no rule names have no allow rule at all: only the tenant's
//! default-deny keeps others out, which probing the API alone would never notice.

use crate::agent::Agent;
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT};
use crate::resource::{Costume, Place, Resource};
use crate::subject::{self, Subject};
use crate::targets;
use crate::verdict::{Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;

/// The check.
pub(super) struct Net03;

static INFO: CheckInfo = CheckInfo {
    id: "NET-03",
    title: "nobody reaches another tenant's workers or unlabelled pods",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "Workers hold the tenant's queue and database credentials and expect no callers; a pod without labels is whatever the tenant starts next. Only default-deny-ingress protects them.",
    how: "A's agents and an outsider without policies try agents in B that wear the worker's labels or none, on 53, 80, 443, 5432, 6379, 8000 and 31337, TCP and UDP, and the worker's own listener. Controls: the outsider reaches the sink on the same ports, A's agents reach DNS, B's agents' listeners answer, policies are enforced; B's agents witness that no nonce arrived.",
    remedy: "bring back the policy default-deny-ingress with an empty podSelector in B's namespace (provisioner apply does), and look for policies that allow more: kubectl get networkpolicy",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

const CLOSED: [Costume; 2] = [Costume::Worker, Costume::Unlabelled];

impl Check for Net03 {
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
        let sources = Costume::ALL.map(|costume| Resource::Agent(Place::Tenant(from.clone(), costume)));
        let targets = CLOSED.map(|costume| Resource::Agent(Place::Tenant(to.clone(), costume)));
        let mut needs: Vec<Resource> = sources.into_iter().chain(targets).collect();
        needs.extend([
            Resource::Workloads(to.clone()),
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
    let (targets, without) = cx.agents(to, &CLOSED).await;
    missing.extend(without);
    let workloads = cx.workloads(to).await?;

    let cells = |source: &str| {
        let mut cells: Vec<Cell> = targets
            .iter()
            .flat_map(|target| targets::every_port(source, target, DENIAL_TIMEOUT))
            .collect();
        cells.extend(targets::workers(source, to, &workloads));
        cells
    };
    let from_tenant = sources.iter().map(|source| {
        let (controls, probes) = ([cx.dns_control(source)], cells(&source.place.to_string()));
        async move { probing::probe(source, &controls, &probes).await }
    });
    let outside_controls = targets::every_port("outsider", &sink, CONTROL_TIMEOUT);
    let outside_cells = cells("outsider");
    let alive = targets
        .iter()
        .map(|target| async move { probing::probe(target, &targets::own_listeners(target), &[]).await });
    let (tenant, outside, alive) = futures::join!(
        join_all(from_tenant),
        probing::probe(&outsider, &outside_controls, &outside_cells),
        join_all(alive),
    );

    let mut seen = outside;
    tenant.into_iter().chain(alive).for_each(|each| seen.merge(each));
    let agents: Vec<&Arc<Agent>> = sources.iter().chain(&targets).chain([&outsider, &sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(missing);
    seen.probes.extend(targets::unprobed_workers(to, &workloads));
    Ok(judge_denied(&prove(&seen.controls), &seen.probes))
}

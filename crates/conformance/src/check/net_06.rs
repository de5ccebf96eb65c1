//! NET-06: the rule that lets the ingress controller in works, and is no wider than it says: the API on 8000, no other port of it and no
//! other pod.

use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::{Context, own_listener, to_agent};
use crate::error::HarnessError;
use crate::names::workload::API_PORT;
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT};
use crate::resource::{Costume, Place, Resource};
use crate::subject::{self, Subject};
use crate::targets;
use crate::verdict::{Control, Promised, Verdict, judge, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use probe::protocol::Protocol;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Net06;

static INFO: CheckInfo = CheckInfo {
    id: "NET-06",
    title: "the ingress controller's namespace reaches a tenant's API on 8000, and nothing else of the tenant",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::SharedNamespace,
    why: "All tenants' traffic comes through the ingress controller: without the rule nobody is served, and a rule that is too wide makes the controller, once broken into, a way to every worker.",
    how: "An agent in the ingress controller's namespace asks the API on 8000 by pod IP, Service IP and name, and must be answered; it tries every other port of an agent in the API's labels, and all ports of agents in the worker's labels or none. Controls: it reaches the sink on the same ports, the agents' listeners answer, the API is ready before and after, policies are enforced.",
    remedy: "compare allow-ingress-from-nginx with the template: it names podSelector app=ai-agents-api and TCP 8000. Where the API is not reached: does the controller run with hostNetwork? Then no namespaceSelector matches it",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

const CLOSED: [Costume; 2] = [Costume::Worker, Costume::Unlabelled];

impl Check for Net06 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::IngressNamespace]
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        subject.tenant().map(needs).unwrap_or_default()
    }

    fn second_try(&self) -> bool {
        true
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { decide(cx, subject.tenant()?).await }.boxed()
    }
}

fn needs(tenant: &TenantId) -> Vec<Resource> {
    let agents = Costume::ALL.map(|costume| Resource::Agent(Place::Tenant(tenant.clone(), costume)));
    let mut needs = Vec::from(agents);
    needs.extend([
        Resource::Workloads(tenant.clone()),
        Resource::Agent(Place::Ingress),
        Resource::Agent(Place::Sink),
        Resource::Enforcement,
    ]);
    needs
}

async fn decide(cx: &Context, to: &TenantId) -> Result<Verdict, HarnessError> {
    let ingress = cx.stage.agent(&Place::Ingress).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let (api, mut missing) = cx.agents(to, &[Costume::Api]).await;
    let (closed, without) = cx.agents(to, &CLOSED).await;
    missing.extend(without);
    let workloads = cx.workloads(to).await?;

    let served = targets::api(cx, "ingress", to, &workloads, CONTROL_TIMEOUT);
    let costumed: Vec<Cell> = api
        .iter()
        .map(|target| to_agent("ingress", target, Protocol::Tcp, API_PORT, CONTROL_TIMEOUT))
        .collect();
    let mut cells: Vec<Cell> = api
        .iter()
        .flat_map(|target| targets::every_port("ingress", target, DENIAL_TIMEOUT))
        .filter(|cell| (cell.attempt.protocol, cell.attempt.port) != (Protocol::Tcp, API_PORT))
        .collect();
    cells.extend(
        closed
            .iter()
            .flat_map(|target| targets::every_port("ingress", target, DENIAL_TIMEOUT)),
    );
    cells.extend(targets::workers("ingress", to, &workloads));
    let controls = targets::every_port("ingress", &sink, CONTROL_TIMEOUT);

    let listening = api
        .iter()
        .chain(&closed)
        .map(|target| async move { probing::probe(target, &targets::own_listeners(target), &[]).await });
    let own = api.iter().map(|target| async move {
        probing::reach(target, &[own_listener(target, Protocol::Tcp, API_PORT)]).await
    });
    let (mut seen, served, costumed, listening, own) = futures::join!(
        probing::probe(&ingress, &controls, &cells),
        probing::promised(&ingress, &served),
        probing::promised(&ingress, &costumed),
        join_all(listening),
        join_all(own),
    );
    // What keeps the agent from the sink too is not the tenant's doing.
    let able = seen.controls.clone();
    listening.into_iter().for_each(|each| seen.merge(each));
    let alive = cx.api_alive(to, &workloads).await;
    let promised = |answers: &Control, probe| Promised {
        probe,
        answers: answers.clone().given(&able),
    };
    let mut open: Vec<Promised> = served.into_iter().map(|probe| promised(&alive, probe)).collect();
    for (probe, own) in costumed.into_iter().zip(own.iter().flatten()) {
        open.push(promised(&Control::reached(own), probe));
    }
    seen.controls.push(alive);
    let agents: Vec<_> = api.iter().chain(&closed).chain([&ingress, &sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(missing);
    seen.probes.extend(targets::unprobed_workers(to, &workloads));
    seen.probes.extend(targets::unprobed_api(to, &workloads));
    Ok(judge(&prove(&seen.controls), &seen.probes, &open))
}

//! NET-08: a tenant's API and worker reach PostgreSQL and Redis, each on its port, and nothing else there; and their ports nowhere else.

use crate::agent::Agent;
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::{Context, to_agent};
use crate::error::HarnessError;
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT};
use crate::resource::{Costume, Place, Resource};
use crate::shared_services::SharedServices;
use crate::subject::{self, Subject};
use crate::targets;
use crate::verdict::{Control, Promised, Verdict, judge, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use probe::protocol::Protocol;
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;

/// The check.
pub(super) struct Net08;

static INFO: CheckInfo = CheckInfo {
    id: "NET-08",
    title: "a tenant reaches PostgreSQL and Redis, and nothing else beside them",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "Without its database a tenant does not work, so a platform that closes too much is opened by hand, and then too far. A rule that names the port and not the namespace lets data out to anybody's database.",
    how: "Agents in the API's and the worker's labels are answered by PostgreSQL (SSLRequest) and Redis (PING) in their own protocol, by pod IP, Service IP and name; they try the same ports at a sink that is open to all, and every other port of an agent in PostgreSQL's labels, where one is allowed in that namespace. Controls: an outsider reaches the sink on these ports, that agent's listeners answer, policies are enforced; PostgreSQL and Redis answer another client too, or nothing is said.",
    remedy: "where they are not reached: the tenant's allow-egress-shared-services, then the policies of the shared services' namespace (provisioner platform diff). Where too much is: a rule without `to` or without `ports`",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

const SOURCES: [Costume; 2] = [Costume::Api, Costume::Worker];

impl Check for Net08 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        let Ok(tenant) = subject.tenant() else {
            return Vec::new();
        };
        let sources = SOURCES.map(|costume| Resource::Agent(Place::Tenant(tenant.clone(), costume)));
        let mut needs = Vec::from(sources);
        needs.extend(
            tenants
                .iter()
                .map(|other| Resource::Agent(Place::Tenant(other.clone(), Costume::Api))),
        );
        needs.extend([
            Resource::SharedServices,
            Resource::Agent(Place::SharedServices),
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
        async move { decide(cx, subject.tenant()?).await }.boxed()
    }
}

async fn decide(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    let services = cx.stage.shared_services().await?;
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let (sources, missing) = cx.agents(tenant, &SOURCES).await;
    let (beside, gap) = cx.shared_agent_or_gap(&Place::SharedServices).await;
    let others = others(cx, tenant, beside.as_ref()).await;

    let closed = |source: &str| {
        let mut cells = at_sink(&services, source, &sink, DENIAL_TIMEOUT);
        if let Some(beside) = &beside {
            let own = (Protocol::Tcp, services.backends[0].port);
            let every = targets::every_port(source, beside, DENIAL_TIMEOUT).into_iter();
            cells.extend(every.filter(|cell| (cell.attempt.protocol, cell.attempt.port) != own));
        }
        cells
    };
    let probed = sources.iter().map(|source| {
        let name = source.place.to_string();
        let (control, cells, open) = (cx.dns_control(source), closed(&name), all(&services, &name));
        async move {
            futures::join!(
                probing::probe(source, std::slice::from_ref(&control), &cells),
                probing::promised(source, &open)
            )
        }
    });
    let outside_controls = at_sink(&services, "outsider", &sink, CONTROL_TIMEOUT);
    let listening = beside
        .iter()
        .map(|agent| async move { probing::probe(agent, &targets::own_listeners(agent), &[]).await });
    let (probed, mut seen, listening, answers) = futures::join!(
        join_all(probed),
        probing::probe(&outsider, &outside_controls, &[]),
        join_all(listening),
        answers(&services, &others)
    );
    listening.into_iter().for_each(|each| seen.merge(each));
    let mut open = Vec::new();
    for (closed, reached) in probed {
        seen.merge(closed);
        open.extend(
            reached
                .into_iter()
                .zip(&answers)
                .map(|(probe, answers)| Promised {
                    probe,
                    answers: answers.clone(),
                }),
        );
    }
    let agents: Vec<&Arc<Agent>> = sources.iter().chain(&beside).chain([&outsider, &sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(missing);
    seen.probes.extend(gap);
    let namespace = &services.namespace;
    let backends = services.backends.iter();
    seen.probes
        .extend(backends.filter_map(|backend| targets::unprobed_backend(backend, namespace)));
    Ok(judge(&prove(&seen.controls), &seen.probes, &open))
}

/// Who else may reach the shared services: their own namespace, and the other tenants.
async fn others(cx: &Context, tenant: &TenantId, beside: Option<&Arc<Agent>>) -> Vec<Arc<Agent>> {
    let mut others: Vec<Arc<Agent>> = beside.cloned().into_iter().collect();
    for other in cx.site.settings.tenant_ids() {
        if other != *tenant {
            others.extend(cx.agents(&other, &[Costume::Api]).await.0);
        }
    }
    others
}

/// Every address of both, in one order for all who ask.
pub(super) fn all(services: &SharedServices, source: &str) -> Vec<Cell> {
    let backends = services.backends.iter();
    backends
        .flat_map(|backend| targets::backend(source, backend, CONTROL_TIMEOUT))
        .collect()
}

/// The shared services' ports at a sink, where nobody but the source's own rules can close them.
pub(super) fn at_sink(
    services: &SharedServices,
    source: &str,
    sink: &Arc<Agent>,
    timeout: Duration,
) -> Vec<Cell> {
    let ports = services.backends.iter().map(|backend| backend.port);
    ports
        .map(|port| to_agent(source, sink, Protocol::Tcp, port, timeout))
        .collect()
}

/// For each address whether it answers one of these clients at least.
pub(super) async fn answers(services: &SharedServices, clients: &[Arc<Agent>]) -> Vec<Control> {
    let asked = clients.iter().map(|client| {
        let cells = all(services, &client.place.to_string());
        async move { probing::promised(client, &cells).await }
    });
    let by_client = join_all(asked).await;
    let mut controls: Vec<Control> = all(services, "another client")
        .iter()
        .map(|cell| Control {
            claim: cell.what.clone(),
            holds: Err("there is no other client".to_owned()),
        })
        .collect();
    for seen in &by_client {
        for (control, observed) in controls.iter_mut().zip(seen) {
            if control.holds.is_err() {
                *control = Control::reached(observed);
            }
        }
    }
    controls
}

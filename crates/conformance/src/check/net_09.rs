//! NET-09: who is no tenant does not reach the shared services, nor anything beside them; wearing one label of a tenant's namespace is not
//! enough.

use crate::agent::Agent;
use crate::check::net_08;
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::probing::{self, CONTROL_TIMEOUT, DENIAL_TIMEOUT};
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
pub(super) struct Net09;

static INFO: CheckInfo = CheckInfo {
    id: "NET-09",
    title: "who is no tenant does not reach PostgreSQL and Redis",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "The shared services hold every tenant's data, and a password is one leak away from not being one: the network is to keep out who has no business there before it is asked for a password.",
    how: "An outsider, and a namespace of the run that carries app=ai-agents and not managed-by=ai-agents-platform, try PostgreSQL and Redis by pod IP, Service IP and name, and every port of an agent in PostgreSQL's labels, where one is allowed in that namespace. Controls: both reach the sink on 5432 and 6379; each address answers a tenant or the shared services' own namespace; that agent's listeners answer; policies are enforced.",
    remedy: "provisioner platform apply brings the policies of the shared services' namespace back; provisioner platform diff shows what differs",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

impl Check for Net09 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::cluster(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        let clients = tenants
            .iter()
            .map(|tenant| Resource::Agent(Place::Tenant(tenant.clone(), Costume::Api)));
        let mut needs: Vec<Resource> = clients.collect();
        needs.extend([
            Resource::SharedServices,
            Resource::Agent(Place::SharedServices),
            Resource::Agent(Place::Outsider),
            Resource::Agent(Place::Impostor),
            Resource::Agent(Place::Sink),
            Resource::Enforcement,
        ]);
        needs
    }

    fn second_try(&self) -> bool {
        true
    }

    fn run<'a>(
        &self,
        cx: &'a Context,
        _subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx).await }.boxed()
    }
}

async fn judge(cx: &Context) -> Result<Verdict, HarnessError> {
    let services = cx.stage.shared_services().await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let sources = [
        cx.stage.agent(&Place::Outsider).await?,
        cx.stage.agent(&Place::Impostor).await?,
    ];
    let (beside, gap) = cx.shared_agent_or_gap(&Place::SharedServices).await;
    let mut clients: Vec<Arc<Agent>> = beside.iter().cloned().collect();
    for tenant in cx.site.settings.tenant_ids() {
        clients.extend(cx.agents(&tenant, &[Costume::Api]).await.0);
    }

    let probed = sources.iter().map(|source| {
        let name = source.place.to_string();
        let controls = net_08::at_sink(&services, &name, &sink, CONTROL_TIMEOUT);
        let backends = services.backends.iter();
        let mut cells: Vec<_> = backends
            .flat_map(|backend| targets::backend(&name, backend, DENIAL_TIMEOUT))
            .collect();
        cells.extend(
            beside
                .iter()
                .flat_map(|agent| targets::every_port(&name, agent, DENIAL_TIMEOUT)),
        );
        async move { probing::probe(source, &controls, &cells).await }
    });
    let listening = beside
        .iter()
        .map(|agent| async move { probing::probe(agent, &targets::own_listeners(agent), &[]).await });
    let (probed, listening, answers) = futures::join!(
        join_all(probed),
        join_all(listening),
        net_08::answers(&services, &clients)
    );
    let mut seen = probing::Seen::default();
    probed
        .into_iter()
        .chain(listening)
        .for_each(|each| seen.merge(each));
    seen.controls.extend(answers);
    let agents: Vec<&Arc<Agent>> = sources.iter().chain(&beside).chain([&sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(gap);
    let namespace = &services.namespace;
    let backends = services.backends.iter();
    seen.probes
        .extend(backends.filter_map(|backend| targets::unprobed_backend(backend, namespace)));
    Ok(judge_denied(&prove(&seen.controls), &seen.probes))
}

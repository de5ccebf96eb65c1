//! NET-05: the ingress controller's namespace alone reaches a tenant's API. Who else is in the cluster, be it a stranger or a namespace that
//! all tenants talk to, does not.

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
use std::time::Duration;

/// The check.
pub(super) struct Net05;

static INFO: CheckInfo = CheckInfo {
    id: "NET-05",
    title: "only the ingress controller's namespace reaches a tenant's API",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "Whatever runs in the cluster beside the tenants, a dashboard, a job, a database that was broken into, must not speak to a tenant's API past the ingress.",
    how: "An outsider without policies and, where that is allowed, an agent in the shared services' namespace try the API on 8000 by pod IP, Service IP and name. Controls: both reach the sink; the API answers an agent in the ingress controller's namespace, where one is allowed there; it is ready before and after; policies are enforced.",
    remedy: "compare allow-ingress-from-nginx with the template (provisioner apply brings it back): a list with two items is OR, one item with both selectors is AND",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

impl Check for Net05 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        subject.tenant().map(needs).unwrap_or_default()
    }

    fn second_try(&self) -> bool {
        true
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

fn needs(tenant: &TenantId) -> Vec<Resource> {
    vec![
        Resource::Workloads(tenant.clone()),
        Resource::Agent(Place::Tenant(tenant.clone(), Costume::Api)),
        Resource::Agent(Place::Outsider),
        Resource::Agent(Place::SharedServices),
        Resource::Agent(Place::Ingress),
        Resource::Agent(Place::Sink),
        Resource::Enforcement,
    ]
}

async fn judge(cx: &Context, to: &TenantId) -> Result<Verdict, HarnessError> {
    let sink = cx.stage.agent(&Place::Sink).await?;
    let mut sources = vec![cx.stage.agent(&Place::Outsider).await?];
    let (beside, gap) = cx.shared_agent_or_gap(&Place::SharedServices).await;
    sources.extend(beside);
    let (targets, missing) = cx.agents(to, &[Costume::Api]).await;
    let workloads = cx.workloads(to).await?;

    let probed = sources.iter().map(|source| {
        let name = source.place.to_string();
        let control = [to_agent(&name, &sink, Protocol::Tcp, API_PORT, CONTROL_TIMEOUT)];
        let mut cells = targets::api(cx, &name, to, &workloads, DENIAL_TIMEOUT);
        let agents = targets.iter();
        cells.extend(agents.map(|target| to_agent(&name, target, Protocol::Tcp, API_PORT, DENIAL_TIMEOUT)));
        async move { probing::probe(source, &control, &cells).await }
    });
    let alive = targets.iter().map(|target| async move {
        probing::probe(target, &[own_listener(target, Protocol::Tcp, API_PORT)], &[]).await
    });
    let (probed, alive, answers) = futures::join!(
        join_all(probed),
        join_all(alive),
        cx.answers_ingress(to, &workloads)
    );

    let mut seen = probing::Seen::default();
    probed.into_iter().chain(alive).for_each(|each| seen.merge(each));
    seen.controls.extend(answers);
    seen.controls.push(cx.api_alive(to, &workloads).await);
    let agents: Vec<_> = sources.iter().chain(&targets).chain([&sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(missing);
    seen.probes.extend(gap);
    seen.probes.extend(targets::unprobed_api(to, &workloads));
    Ok(judge_denied(&prove(&seen.controls), &seen.probes))
}

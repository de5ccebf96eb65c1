//! NET-07: labels that any namespace's owner can set open nothing: a namespace that calls itself the ingress controller's is not it.

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
pub(super) struct Net07;

static INFO: CheckInfo = CheckInfo {
    id: "NET-07",
    title: "a namespace that wears the ingress controller's labels does not reach a tenant's API",
    profile: Profile::Baseline,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "A label such as name=ingress-nginx can be set by whoever may make a namespace; kubernetes.io/metadata.name is set by the API server and cannot be chosen (KEP-2161).",
    how: "An agent in a namespace of the run labelled name=ingress-nginx and app.kubernetes.io/name=ingress-nginx, itself in the controller's labels, tries the API on 8000 by pod IP, Service IP and name. Controls: it reaches the sink; the API answers an agent in the ingress controller's namespace, where one is allowed there; it is ready before and after; policies are enforced.",
    remedy: "select the ingress controller's namespace by kubernetes.io/metadata.name (ingress.selector in the tenant file; the template's default)",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

impl Check for Net07 {
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
        Resource::Agent(Place::Impostor),
        Resource::Agent(Place::Ingress),
        Resource::Agent(Place::Sink),
        Resource::Enforcement,
    ]
}

async fn judge(cx: &Context, to: &TenantId) -> Result<Verdict, HarnessError> {
    let impostor = cx.stage.agent(&Place::Impostor).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let (targets, missing) = cx.agents(to, &[Costume::Api]).await;
    let workloads = cx.workloads(to).await?;

    let control = [to_agent(
        "impostor",
        &sink,
        Protocol::Tcp,
        API_PORT,
        CONTROL_TIMEOUT,
    )];
    let mut cells = targets::api(cx, "impostor", to, &workloads, DENIAL_TIMEOUT);
    let agents = targets.iter();
    cells.extend(agents.map(|target| to_agent("impostor", target, Protocol::Tcp, API_PORT, DENIAL_TIMEOUT)));
    let alive = targets.iter().map(|target| async move {
        probing::probe(target, &[own_listener(target, Protocol::Tcp, API_PORT)], &[]).await
    });
    let (mut seen, alive, answers) = futures::join!(
        probing::probe(&impostor, &control, &cells),
        join_all(alive),
        cx.answers_ingress(to, &workloads)
    );
    alive.into_iter().for_each(|each| seen.merge(each));
    seen.controls.extend(answers);
    seen.controls.push(cx.api_alive(to, &workloads).await);
    let agents: Vec<_> = targets.iter().chain([&impostor, &sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(missing);
    seen.probes.extend(targets::unprobed_api(to, &workloads));
    Ok(judge_denied(&prove(&seen.controls), &seen.probes))
}

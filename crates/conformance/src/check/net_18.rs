//! NET-18: the policies hold for every pod of a tenant, also for those that wear labels which no policy knows, or none.

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
pub(super) struct Net18;

static INFO: CheckInfo = CheckInfo {
    id: "NET-18",
    title: "a tenant's policies hold for pods of any labels",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "A policy whose podSelector names the API or the worker leaves every other pod of the namespace open both ways: a Job, a debugging pod, whatever an attacker starts. A policy holds for a whole pod, init and ephemeral containers included.",
    how: "An agent without labels and one in a Job's pod with app=other try every port of a sink that is open to all, and the ports of a host on the internet that are not 80 and 443, where one is known; an outsider tries every port of theirs. Controls: the outsider reaches sink and host on the same ports, the agents reach DNS and their listeners answer, policies are enforced.",
    remedy: "default-deny-ingress, default-deny-egress and allow-egress-shared-services select every pod: podSelector: {} (provisioner apply brings that back)",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

const PODS: [Costume; 2] = [Costume::Unlabelled, Costume::Stranger];

impl Check for Net18 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        let Ok(tenant) = subject.tenant() else {
            return Vec::new();
        };
        let mut needs =
            Vec::from(PODS.map(|costume| Resource::Agent(Place::Tenant(tenant.clone(), costume))));
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
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let (pods, missing) = cx.agents(tenant, &PODS).await;

    let outward = |source: &str, timeout| -> Vec<Cell> {
        let mut cells = targets::every_port(source, &sink, timeout);
        if let Some(host) = &cx.site.settings.internet {
            cells.extend(targets::closed_internet(source, host, timeout));
        }
        cells
    };
    let from_pods = pods.iter().map(|pod| {
        let mut controls = targets::own_listeners(pod);
        controls.push(cx.dns_control(pod));
        let cells = outward(&pod.place.to_string(), DENIAL_TIMEOUT);
        async move { probing::probe(pod, &controls, &cells).await }
    });
    let outside_controls = outward("outsider", CONTROL_TIMEOUT);
    let inward: Vec<Cell> = pods
        .iter()
        .flat_map(|pod| targets::every_port("outsider", pod, DENIAL_TIMEOUT))
        .collect();
    let (from_pods, mut seen) = futures::join!(
        join_all(from_pods),
        probing::probe(&outsider, &outside_controls, &inward)
    );
    from_pods.into_iter().for_each(|each| seen.merge(each));
    let agents: Vec<&Arc<Agent>> = pods.iter().chain([&outsider, &sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(missing);
    Ok(judge_denied(&prove(&seen.controls), &seen.probes))
}

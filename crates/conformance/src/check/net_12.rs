//! NET-12: a tenant reaches the internet on TCP 80 and 443, and on no other port.

use crate::agent::Agent;
use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::probing::{self, CONTROL_TIMEOUT, DENIAL_TIMEOUT};
use crate::resource::{Costume, Place, Resource};
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
pub(super) struct Net12;

static INFO: CheckInfo = CheckInfo {
    id: "NET-12",
    title: "a tenant reaches the internet on TCP 80 and 443 only",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::OwnObjects,
    why: "The API and the worker call services on the web; a mail port, SSH or an odd port outward is how a broken-into pod sends spam, tunnels home and carries data off.",
    how: "Agents in the API's and the worker's labels reach a host outside of the cluster on TCP 80 and 443, and try its other ports, TCP, and all of them by UDP. That host runs our agent and gives nonces back. Controls: an outsider reaches every one of these ports, agents reach DNS, policies are enforced.",
    remedy: "where 80 or 443 is not reached: the ipBlock rule of allow-egress-shared-services, and whether the host lies in one of its `except` ranges (internet.except in the tenant file). Where more is reached: that rule lacks its ports, or another policy adds to it",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

const SOURCES: [Costume; 2] = [Costume::Api, Costume::Worker];

impl Check for Net12 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::Internet]
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        let Ok(tenant) = subject.tenant() else {
            return Vec::new();
        };
        let mut needs =
            Vec::from(SOURCES.map(|costume| Resource::Agent(Place::Tenant(tenant.clone(), costume))));
        needs.extend([Resource::Agent(Place::Outsider), Resource::Enforcement]);
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
    let host = cx.site.settings.internet.as_ref();
    let host = host.ok_or_else(|| HarnessError::new("no host on the internet is known"))?;
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let (sources, missing) = cx.agents(tenant, &SOURCES).await;

    let open = |source: &str| {
        targets::OPEN_INTERNET_PORTS
            .map(|port| targets::internet(source, host, Protocol::Tcp, port, CONTROL_TIMEOUT))
    };
    let probed = sources.iter().map(|source| {
        let name = source.place.to_string();
        let (control, open) = (cx.dns_control(source), open(&name));
        let cells = targets::closed_internet(&name, host, DENIAL_TIMEOUT);
        async move {
            futures::join!(
                probing::promised(source, &open),
                probing::probe(source, std::slice::from_ref(&control), &cells)
            )
        }
    });
    let outside_controls = targets::closed_internet("outsider", host, CONTROL_TIMEOUT);
    let outside_open = open("outsider");
    let (probed, answers, mut seen) = futures::join!(
        join_all(probed),
        probing::promised(&outsider, &outside_open),
        probing::probe(&outsider, &outside_controls, &[])
    );
    let mut open = Vec::new();
    for (reached, closed) in probed {
        let able = closed.controls.clone();
        seen.merge(closed);
        open.extend(reached.into_iter().zip(&answers).map(|(probe, answer)| Promised {
            probe,
            answers: Control::reached(answer).given(&able),
        }));
    }
    let agents: Vec<&Arc<Agent>> = sources.iter().chain([&outsider]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(missing);
    Ok(judge(&prove(&seen.controls), &seen.probes, &open))
}

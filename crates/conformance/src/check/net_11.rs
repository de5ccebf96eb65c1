//! NET-11: names resolve, by UDP and TCP, and port 53 leads nowhere but to the cluster's DNS.

use crate::agent::Agent;
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::{Context, to_agent};
use crate::error::HarnessError;
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT};
use crate::resource::{Costume, Place, Resource};
use crate::subject::{self, Subject};
use crate::targets;
use crate::verdict::{Control, Observation, Observed, Promised, Verdict, judge, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use probe::protocol::Protocol;
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;

/// The check.
pub(super) struct Net11;

static INFO: CheckInfo = CheckInfo {
    id: "NET-11",
    title: "a tenant resolves names, and sends nothing else to port 53",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::OwnObjects,
    why: "Without DNS nothing works; and a rule for port 53 that names no destination is the usual way out for data, since nobody looks at DNS.",
    how: "Agents in all of the tenant's costumes ask the cluster's DNS by UDP and TCP and are answered; they try port 53 of a sink that is open to all, and of a host on the internet where one is known, UDP and TCP. Controls: an outsider reaches these, and is answered by DNS; policies are enforced.",
    remedy: "where DNS is not reached: the rule for port 53 in allow-egress-shared-services needs UDP and TCP, and the DNS pods' namespace and label (NodeLocal DNSCache is no pod behind that label). Where too much is: that rule lacks its `to`",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

const PORT: u16 = 53;
const BOTH: [Protocol; 2] = [Protocol::Dns, Protocol::DnsTcp];

impl Check for Net11 {
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
            Vec::from(Costume::ALL.map(|costume| Resource::Agent(Place::Tenant(tenant.clone(), costume))));
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
        async move { decide(cx, subject.tenant()?).await }.boxed()
    }
}

async fn decide(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let (sources, missing) = cx.agents(tenant, &Costume::ALL).await;

    let dns = |source: &str| BOTH.map(|protocol| cx.dns(source, protocol, CONTROL_TIMEOUT));
    let probed = sources.iter().map(|source| {
        let name = source.place.to_string();
        let (open, cells) = (dns(&name), elsewhere(cx, &name, &sink, DENIAL_TIMEOUT));
        let control = cx.dns_control(source);
        async move {
            futures::join!(
                probing::promised(source, &open),
                probing::probe(source, std::slice::from_ref(&control), &cells)
            )
        }
    });
    let (outside_dns, outside_controls) =
        (dns("outsider"), elsewhere(cx, "outsider", &sink, CONTROL_TIMEOUT));
    let (probed, answers, mut seen) = futures::join!(
        join_all(probed),
        probing::promised(&outsider, &outside_dns),
        probing::probe(&outsider, &outside_controls, &[])
    );
    let mut open = Vec::new();
    let answers: Vec<Observed> = answers.into_iter().map(resolved).collect();
    for (reached, closed) in probed {
        let reached: Vec<Observed> = reached.into_iter().map(resolved).collect();
        seen.merge(closed);
        open.extend(reached.into_iter().zip(&answers).map(|(probe, answer)| Promised {
            probe,
            answers: Control::reached(answer),
        }));
    }
    let agents: Vec<&Arc<Agent>> = sources.iter().chain([&outsider, &sink]).collect();
    seen.controls.push(cx.enforcement(&agents).await);
    seen.probes.extend(missing);
    Ok(judge(&prove(&seen.controls), &seen.probes, &open))
}

/// An answer that is no address (SERVFAIL, NXDOMAIN) reached a server, and resolves nothing.
fn resolved(seen: Observed) -> Observed {
    match &seen.observation {
        Observation::Reached(how) if !how.starts_with("NOERROR ") => Observed {
            observation: Observation::Broken(format!("DNS answered {how}")),
            ..seen
        },
        _ => seen,
    }
}

/// Port 53 of who is not the cluster's DNS.
fn elsewhere(cx: &Context, source: &str, sink: &Arc<Agent>, timeout: Duration) -> Vec<Cell> {
    let mut cells = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        cells.push(to_agent(source, sink, protocol, PORT, timeout));
        if let Some(host) = cx
            .site
            .settings
            .internet
            .as_ref()
            .filter(|host| host.ports.contains(&PORT))
        {
            cells.push(targets::internet(source, host, protocol, PORT, timeout));
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::an_address("NOERROR 10.96.0.1 in 2 ms", true)]
    #[case::failed("SERVFAIL in 2 ms", false)]
    #[case::unknown("NXDOMAIN in 2 ms", false)]
    fn a_name_resolves_to_an_address_or_not_at_all(#[case] how: &str, #[case] expected: bool) {
        let seen = resolved(Observed {
            what: "a -> cluster DNS (udp)".into(),
            observation: Observation::Reached(how.into()),
        });
        assert_eq!(matches!(seen.observation, Observation::Reached(_)), expected);
    }
}

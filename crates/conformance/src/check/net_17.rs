//! NET-17: a tenant's way out stays closed without its allow rules. While `allow-egress-shared-services` is there it isolates, and hides
//! that nothing else does: whoever deletes or narrows it, to mend something, opens everything. So the policies that allow nothing are looked
//! at by themselves, as copies in a namespace of the run's own.

use crate::agent::Agent;
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT, Seen};
use crate::resource::{Place, Resource};
use crate::sealed;
use crate::subject::{self, Subject};
use crate::targets;
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The check.
pub(super) struct Net17;

static INFO: CheckInfo = CheckInfo {
    id: "NET-17",
    title: "a tenant's way out stays closed without its allow rules",
    profile: Profile::Baseline,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "A policy that allows also isolates, so a tenant whose only egress policy is the one that allows looks closed; delete or narrow that one, and its pods send anywhere. Isolation must not hang on an object that is there to open something.",
    how: "The tenant's network policies that isolate outward and allow nothing are copied into a namespace of the run's own, and an agent without labels is started there: it is what the tenant's pods are once every allow rule is gone. It must reach no port of a sink that is open to all, nor the ports of a host on the internet that are not 80 and 443, where one is known. Controls: its listeners answer, an outsider reaches sink and host on the same ports, policies are enforced; and once the copies are taken away the same agent reaches every port of the sink: so it was they that kept it from it.",
    remedy: "the tenant lacks default-deny-egress, or it does not select every pod (podSelector: {}): provisioner apply brings it back. Policies of a network plugin's own kinds are not counted",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

/// While a policy is awaited, what is not answered in this time is asked again.
const GLANCE: Duration = Duration::from_millis(300);
/// How long copies may take to be in force, and to be forgotten.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

impl Check for Net17 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        let (Ok(tenant), Ok(number)) = (subject.tenant(), number(subject, tenants)) else {
            return Vec::new();
        };
        vec![
            Resource::Agent(Place::Sealed(tenant.clone(), number)),
            Resource::Agent(Place::Outsider),
            Resource::Agent(Place::Sink),
            Resource::Enforcement,
        ]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let number = number(subject, &cx.site.settings.tenant_ids())?;
            judge(cx, subject.tenant()?, number).await
        }
        .boxed()
    }
}

/// The tenant's number in the run, after which the namespace is named.
fn number(subject: &Subject, tenants: &[TenantId]) -> Result<usize, HarnessError> {
    let tenant = subject.tenant()?;
    let number = tenants.iter().position(|each| each == tenant);
    number.ok_or_else(|| HarnessError::new(format!("{tenant} is no tenant of this run")))
}

async fn judge(cx: &Context, tenant: &TenantId, number: usize) -> Result<Verdict, HarnessError> {
    let place = Place::Sealed(tenant.clone(), number);
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let sealed = cx.stage.agent(&place).await?;
    let outward = |source: &str, timeout| -> Vec<Cell> {
        let mut cells = targets::every_port(source, &sink, timeout);
        if let Some(host) = &cx.site.settings.internet {
            cells.extend(targets::closed_internet(source, host, timeout));
        }
        cells
    };
    let cells = outward(&place.to_string(), DENIAL_TIMEOUT);
    let outside_controls = outward("outsider", CONTROL_TIMEOUT);
    let (mut seen, outside) = futures::join!(
        sealed_off(cx, number, (&sealed, &cells), SETTLED_WITHIN),
        probing::probe(&outsider, &outside_controls, &[]),
    );
    seen.merge(outside);
    if !seen.probes.iter().any(reached) {
        seen.controls
            .push(opens(cx, number, (&sealed, &sink), SETTLED_WITHIN).await);
    }
    seen.controls
        .push(cx.enforcement(&[&sealed, &outsider, &sink]).await);
    Ok(judge_denied(&prove(&seen.controls), &seen.probes))
}

/// What the agent sees of these while the copies stand. Where there are copies and something gets through, they are given the time that
/// a policy may take.
async fn sealed_off(
    cx: &Context,
    number: usize,
    (agent, cells): (&Arc<Agent>, &[Cell]),
    limit: Duration,
) -> Seen {
    let controls = targets::own_listeners(agent);
    let seen = probing::probe(agent, &controls, cells).await;
    let is_open = seen.probes.iter().any(reached);
    let may_close = is_open && !sealed::copies(&cx.site, number).is_empty();
    if may_close && settles(agent, cells, limit, |seen| !reached(seen)).await {
        return probing::probe(agent, &controls, cells).await;
    }
    seen
}

/// Takes the copies away: the same agent must reach then what it did not. Something else keeps it from it where it does not.
async fn opens(
    cx: &Context,
    number: usize,
    (agent, sink): (&Arc<Agent>, &Arc<Agent>),
    limit: Duration,
) -> Control {
    let cells = targets::every_port(&agent.place.to_string(), sink, GLANCE);
    let holds = match sealed::unseal(&cx.site, number).await {
        Ok(()) if settles(agent, &cells, limit, reached).await => Ok(format!("{} ports", cells.len())),
        Ok(()) => Err(format!("not within {} s", limit.as_secs())),
        Err(error) => Err(error.to_string()),
    };
    Control {
        claim: format!(
            "{} reaches the sink once the copied policies are gone",
            agent.place
        ),
        holds,
    }
}

fn reached(seen: &Observed) -> bool {
    matches!(seen.observation, Observation::Reached(_))
}

/// Whether all cells come to be so.
async fn settles(
    agent: &Arc<Agent>,
    cells: &[Cell],
    limit: Duration,
    so: impl Fn(&Observed) -> bool,
) -> bool {
    let glances: Vec<Cell> = cells.iter().map(glance).collect();
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if probing::reach(agent, &glances).await.iter().all(&so) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

fn glance(cell: &Cell) -> Cell {
    let mut cell = cell.clone();
    cell.attempt.timeout = GLANCE;
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Kind};
    use crate::scripted::{self, ok, refuse, respond};
    use probe::protocol::Ending;
    use rstest::rstest;
    use serde_json::json;
    use std::collections::BTreeSet;

    /// A context with one copied policy, before a server that lets it be deleted, or does not.
    async fn with_a_copy(deletes: bool) -> (scripted::Server, Context) {
        let server = respond(move |asked| match asked.method.as_str() {
            "DELETE" if deletes => ok(&json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })),
            "DELETE" => refuse(403, "Forbidden", "not today"),
            _ if deletes => refuse(404, "NotFound", "gone"),
            _ => ok(&json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": { "name": "copy-0", "labels": { "ai-agents-platform/run-id": "0a1b2c3d" } },
            })),
        })
        .await;
        let cx = server.context(&BTreeSet::new());
        let copy = Entry {
            kind: Kind::NetworkPolicy,
            namespace: Some(sealed::namespace(&cx.site.mark.run, 0)),
            name: "copy-0".to_owned(),
        };
        cx.site.ledger.made(copy).unwrap();
        (server, cx)
    }

    #[rstest]
    #[case::open_at_once(true, |_, _| Some(Ending::Reached), true)]
    #[case::open_after_a_while(true, |_, round| Some(if round < 3 { Ending::TimedOut } else { Ending::Reached }), true)]
    #[case::one_port_stays_closed(true, |port, _| Some(if port == 443 { Ending::TimedOut } else { Ending::Reached }), false)]
    #[case::something_else_closes_it(true, |_, _| Some(Ending::TimedOut), false)]
    #[case::the_agent_is_gone(true, |_, _| None, false)]
    #[case::the_copies_stay(false, |_, _| Some(Ending::Reached), false)]
    #[tokio::test]
    async fn the_copies_closed_it_where_it_opens_without_them(
        #[case] deletes: bool,
        #[case] script: fn(u16, usize) -> Option<Ending>,
        #[case] holds: bool,
    ) {
        let (_api, cx) = with_a_copy(deletes).await;
        let (_server, agent) = scripted::agent(script, &[]).await;
        let control = opens(&cx, 0, (&agent, &agent), SOON).await;
        assert_eq!(control.holds.is_ok(), holds, "{control:?}");
    }

    const CLOSED_AT: u16 = 31337;
    /// The agents of these tests answer at once.
    const SOON: Duration = Duration::from_millis(1500);

    #[rstest]
    #[case::closed(|_, _| Some(Ending::TimedOut), "denied")]
    #[case::closed_a_little_late(|_, round| Some(if round < 4 { Ending::Reached } else { Ending::TimedOut }), "denied")]
    #[case::never_closed(|_, _| Some(Ending::Reached), "reached")]
    #[case::the_agent_is_gone(|_, _| None, "broken")]
    #[tokio::test]
    async fn copies_are_given_the_time_that_a_policy_may_take(
        #[case] script: fn(u16, usize) -> Option<Ending>,
        #[case] word: &str,
    ) {
        let (_api, cx) = with_a_copy(true).await;
        assert_eq!(seen_by(&cx, script, SOON).await, word);
    }

    /// Without a copy there is nothing to wait for.
    #[tokio::test]
    async fn a_tenant_without_such_a_policy_is_open_at_once() {
        let server = respond(|_| refuse(500, "InternalError", "nobody asks")).await;
        let cx = server.context(&BTreeSet::new());
        let never = Duration::from_secs(3600);
        let seen = seen_by(&cx, |_, _| Some(Ending::Reached), never);
        let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
        assert_eq!(seen.unwrap(), "reached");
    }

    async fn seen_by(
        cx: &Context,
        script: fn(u16, usize) -> Option<Ending>,
        limit: Duration,
    ) -> &'static str {
        let (_server, agent) = scripted::agent(script, &[]).await;
        let cells = [crate::context::to_agent(
            "a sealed",
            &agent,
            probe::protocol::Protocol::Tcp,
            CLOSED_AT,
            DENIAL_TIMEOUT,
        )];
        let seen = sealed_off(cx, 0, (&agent, &cells), limit).await;
        match seen.probes[0].observation {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        }
    }

    #[test]
    fn each_tenant_has_a_namespace_of_its_own() {
        let tenants = ["a", "b"].map(|id| TenantId::try_from(id).unwrap());
        let places: BTreeSet<Resource> = Net17
            .subjects(&tenants)
            .iter()
            .filter_map(|subject| Net17.needs(subject, &tenants).into_iter().next())
            .collect();
        let expected = tenants
            .into_iter()
            .enumerate()
            .map(|(number, tenant)| Resource::Agent(Place::Sealed(tenant, number)))
            .collect();
        assert_eq!(places, expected);
    }
}

//! NET-15: a tenant's pods do not reach the cloud's metadata server, which gives whoever asks the credentials of the node.

use crate::agent::{Agent, Try};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT};
use crate::resource::{Costume, Place, Resource};
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Proven, Unproven, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use probe::protocol::Protocol;
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;

/// The check.
pub(super) struct Net15;

static INFO: CheckInfo = CheckInfo {
    id: "NET-15",
    title: "a tenant's pods do not reach the cloud's metadata server",
    profile: Profile::Baseline,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "At 169.254.169.254 clouds give credentials to whoever asks from the node's network, without a password: the node's own, which often may read every image, every volume, or all of the account. A rule that opens port 80 of the whole internet opens that address too, unless it excepts it.",
    how: "Agents in the API's and the worker's labels connect to 169.254.169.254 (and to fd00:ec2::254) on port 80 and ask for `GET /`: no header that a metadata server wants, no path that holds a credential, and the answer's status line is all that is read. Controls: an outsider without policies reaches the same address by the same request, before and after, agents reach DNS, policies are enforced. Where the outsider reaches nothing there is no metadata server to be kept from, and the check is skipped.",
    remedy: "internet.except in the tenant file holds 169.254.0.0/16 by default; provisioner apply brings allow-egress-shared-services back, and another policy that allows more is found by kubectl get networkpolicies -n NAMESPACE. A metadata server that wants a hop limit of 1 and a session (IMDSv2) is a second lock, not the first",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

const SOURCES: [Costume; 2] = [Costume::Api, Costume::Worker];
/// Where metadata servers are: the link-local address that clouds share (RFC 3927 keeps it on the link), and Amazon's for IPv6.
const ADDRESSES: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];
const PORT: u16 = 80;

impl Check for Net15 {
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
            Vec::from(SOURCES.map(|costume| Resource::Agent(Place::Tenant(tenant.clone(), costume))));
        needs.extend([Resource::Agent(Place::Outsider), Resource::Enforcement]);
        needs
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { decide(cx, subject.tenant()?).await }.boxed()
    }
}

/// One address, from outside of the tenant and from inside.
struct Address {
    before: Observed,
    /// From outside again, where it was reached before.
    after: Option<Observed>,
    inside: Vec<Observed>,
}

async fn decide(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let (sources, missing) = cx.agents(tenant, &SOURCES).await;
    let outside = ADDRESSES.map(|host| cell("outsider", host, CONTROL_TIMEOUT));
    let from_tenant = sources.iter().map(|source| {
        let name = source.place.to_string();
        let cells = ADDRESSES.map(|host| cell(&name, host, DENIAL_TIMEOUT));
        let control = cx.dns_control(source);
        async move { probing::probe(source, &[control], &cells).await }
    });
    let control = [cx.dns_control(&outsider)];
    let (from_tenant, before) = futures::join!(
        join_all(from_tenant),
        probing::probe(&outsider, &control, &outside)
    );
    let (sends, before) = (prove(&before.controls), before.probes);
    let there: Vec<Cell> = outside
        .iter()
        .zip(&before)
        .filter(|(_, seen)| reached(seen))
        .map(|(cell, _)| cell.clone())
        .collect();
    let mut after = probing::reach(&outsider, &there).await.into_iter();

    let mut controls = Vec::new();
    let mut inside = Vec::new();
    for seen in from_tenant {
        controls.extend(seen.controls);
        inside.push(seen.probes);
    }
    let addresses = before
        .into_iter()
        .enumerate()
        .map(|(index, before)| Address {
            after: reached(&before).then(|| after.next()).flatten(),
            inside: inside
                .iter()
                .filter_map(|probes| probes.get(index))
                .cloned()
                .collect(),
            before,
        })
        .collect();
    let agents: Vec<&Arc<Agent>> = sources.iter().chain([&outsider]).collect();
    controls.push(cx.enforcement(&agents).await);
    Ok(conclude(addresses, &sends, controls, missing))
}

/// A request to a metadata server. The outsider is answered at the same port, so a refusal is no dead listener's.
fn cell(source: &str, host: &str, timeout: Duration) -> Cell {
    Cell {
        what: format!("{source} -> metadata server {host}:{PORT}"),
        attempt: Try {
            protocol: Protocol::Http,
            host: host.to_owned(),
            port: PORT,
            timeout,
            query: None,
        },
        witness: None,
        answers_others: true,
    }
}

fn reached(seen: &Observed) -> bool {
    matches!(seen.observation, Observation::Reached(_))
}

/// What is reached from inside fails, whatever else is so. Being kept out counts where somebody else is let in: an address that nobody
/// reaches is no metadata server, where whoever tried it can send (`sends`), and an outsider who could not try leaves that open.
fn conclude(
    addresses: Vec<Address>,
    sends: &Result<Proven, Unproven>,
    mut controls: Vec<Control>,
    missing: Vec<Observed>,
) -> Verdict {
    let open: Vec<Observed> = addresses
        .iter()
        .flat_map(|address| &address.inside)
        .filter(|seen| reached(seen))
        .cloned()
        .collect();
    let (there, elsewhere): (Vec<Address>, Vec<Address>) = addresses
        .into_iter()
        .partition(|address| reached(&address.before));
    if there.is_empty() && open.is_empty() {
        // On a node without IPv6 no agent can try the second address, which says nothing of the first.
        let first = elsewhere.into_iter().next().map(|first| first.before);
        let unknown = match (sends, first) {
            (Ok(_), Some(first)) if matches!(first.observation, Observation::Denied(_)) => {
                return Verdict::Skipped {
                    reason: format!("there is no metadata server here: {first}"),
                };
            }
            (Err(unproven), _) => unproven.to_string(),
            (Ok(_), Some(first)) => first.to_string(),
            (Ok(_), None) => "nothing was asked".to_owned(),
        };
        return Verdict::inconclusive(format!(
            "whether there is a metadata server here could not be found out: {unknown}"
        ));
    }
    let mut probes = missing;
    for address in there {
        controls.push(Control::reached(&address.before));
        controls.extend(address.after.as_ref().map(|after| Control {
            claim: format!("{} afterwards", after.what),
            ..Control::reached(after)
        }));
        probes.extend(address.inside);
    }
    probes.extend(
        elsewhere
            .into_iter()
            .flat_map(|address| address.inside)
            .filter(reached),
    );
    judge_denied(&prove(&controls), &probes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted;
    use probe::protocol::Ending;
    use rstest::rstest;

    fn seen(observation: Observation) -> Observed {
        Observed {
            what: "somebody -> metadata server".into(),
            observation,
        }
    }
    fn open() -> Observed {
        seen(Observation::Reached("HTTP/1.1 200 OK in 2 ms".into()))
    }
    fn closed() -> Observed {
        seen(Observation::Denied("timed out".into()))
    }
    fn broken() -> Observed {
        seen(Observation::Broken("the agent could not try".into()))
    }
    fn address(before: Observed, after: Option<Observed>, inside: &[Observed]) -> Address {
        Address {
            before,
            after,
            inside: inside.to_vec(),
        }
    }
    /// Where no agent has IPv6.
    fn no_ipv6() -> Address {
        address(broken(), None, &[broken(), broken()])
    }
    fn held() -> Vec<Control> {
        vec![Control::reached(&open())]
    }
    fn not_held() -> Vec<Control> {
        vec![Control::reached(&closed())]
    }

    #[rstest]
    #[case::kept_out(address(open(), Some(open()), &[closed(), closed()]), held(), vec![], "passed")]
    #[case::the_worker_gets_in(address(open(), Some(open()), &[closed(), open()]), held(), vec![], "failed")]
    #[case::in_though_the_outsider_is_not(address(closed(), None, &[open(), closed()]), held(), vec![], "failed")]
    #[case::in_though_the_outsider_could_not_try(address(broken(), None, &[open(), closed()]), not_held(), vec![], "failed")]
    #[case::nobody_gets_in(address(closed(), None, &[closed(), closed()]), held(), vec![], "skipped")]
    #[case::nobody_gets_in_and_an_agent_is_missing(address(closed(), None, &[closed()]), held(), vec![broken()], "skipped")]
    #[case::the_outsider_could_not_try(address(broken(), None, &[closed(), closed()]), held(), vec![], "inconclusive")]
    #[case::it_went_meanwhile(address(open(), Some(closed()), &[closed(), closed()]), held(), vec![], "inconclusive")]
    #[case::the_agents_send_nothing_at_all(address(open(), Some(open()), &[closed(), closed()]), not_held(), vec![], "inconclusive")]
    #[case::somebody_answers_in_its_stead(address(open(), Some(open()), &[closed(), broken()]), held(), vec![], "inconclusive")]
    #[case::an_agent_is_missing(address(open(), Some(open()), &[closed()]), held(), vec![broken()], "inconclusive")]
    #[case::no_agent_came_up(address(open(), Some(open()), &[]), held(), vec![], "inconclusive")]
    fn being_kept_out_counts_where_somebody_else_is_let_in(
        #[case] first: Address,
        #[case] controls: Vec<Control>,
        #[case] missing: Vec<Observed>,
        #[case] word: &str,
    ) {
        let verdict = conclude(vec![first, no_ipv6()], &prove(&held()), controls, missing);
        assert_eq!(verdict.word(), word, "{verdict:?}");
    }

    #[test]
    fn an_outsider_who_can_send_nothing_shows_nothing() {
        let verdict = conclude(
            vec![address(closed(), None, &[closed()])],
            &prove(&not_held()),
            held(),
            vec![],
        );
        assert_eq!(verdict.word(), "inconclusive", "{verdict:?}");
    }

    #[test]
    fn a_skip_says_what_was_looked_for() {
        let Verdict::Skipped { reason } = conclude(
            vec![address(closed(), None, &[])],
            &prove(&held()),
            held(),
            vec![],
        ) else {
            panic!("expected a skip")
        };
        assert!(reason.contains("metadata server: denied (timed out)"), "{reason}");
    }

    #[test]
    fn the_second_address_counts_where_it_is_there() {
        let second = address(open(), Some(open()), &[open()]);
        let verdict = conclude(
            vec![address(closed(), None, &[closed()]), second],
            &prove(&held()),
            held(),
            vec![],
        );
        assert_eq!(verdict.word(), "failed", "{verdict:?}");
    }

    #[rstest]
    #[case::dropped(|_, _| Some(Ending::TimedOut), "denied")]
    #[case::rejected(|_, _| Some(Ending::Refused), "denied")]
    #[case::answered(|_, _| Some(Ending::Reached), "reached")]
    // A server whose answers do not get here was connected to all the same.
    #[case::connected(|_, _| Some(Ending::ConnectedWithoutEcho), "broken")]
    #[tokio::test]
    async fn only_no_connection_at_all_is_a_denial(
        #[case] script: fn(u16, usize) -> Option<Ending>,
        #[case] word: &str,
    ) {
        let (_server, agent) = scripted::agent(script, &[]).await;
        let cells = [cell("a api", ADDRESSES[0], DENIAL_TIMEOUT)];
        let seen = probing::probe(&agent, &[], &cells).await;
        let found = match seen.probes[0].observation {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        assert_eq!(found, word);
    }
}

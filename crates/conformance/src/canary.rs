//! Proves that a cluster enforces network policies at all: on every node a listener that is open, then closed by a policy, beside one
//! that no policy selects and stays open; the same for a client whose egress is closed. Without this no denial means anything.

use crate::agent::{Agent, Try};
use crate::error::HarnessError;
use crate::manifest::{self, AgentPod};
use crate::names::workload::API_PORT;
use crate::probing::{self, CONTROL_TIMEOUT, Cell, DENIAL_TIMEOUT};
use crate::resource::Place;
use crate::stage::{Site, make_namespace, start};
use crate::verdict::{Control, Figure, Observation, Observed, Verdict, judge_denied, prove};
use futures::future::{join_all, try_join_all};
use probe::protocol::Protocol;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// While a policy is awaited, what is not answered in this time counts as dropped: short, since it bounds how exact the figure is.
const GLANCE: Duration = Duration::from_millis(250);
/// How long a policy may take to be enforced.
const ENFORCED_WITHIN: Duration = Duration::from_secs(30);
const CANARY: &str = "ai-agents-platform/canary";

/// What the canary showed.
pub struct Enforcement {
    /// NET-01's verdict.
    pub verdict: Verdict,
    /// The nodes that it covers, and between which packets were seen to pass.
    pub nodes: Vec<String>,
}

impl Enforcement {
    /// The canary as a control of every other denial: policies are enforced, and between the nodes of these agents packets pass but for
    /// them.
    pub fn control(&self, agents: &[&Arc<Agent>]) -> Control {
        let outside = agents.iter().find(|agent| !self.nodes.contains(&agent.node));
        let holds = match (&self.verdict, outside) {
            (Verdict::Passed(_), Some(agent)) => Err(format!(
                "agent {} stands on node {}, which the canary does not cover",
                agent.place, agent.node
            )),
            (Verdict::Passed(evidence), None) => Ok(evidence.summary.clone()),
            (Verdict::Failed { .. }, _) => Err("NET-01 failed: policies are not enforced here".to_owned()),
            (Verdict::Skipped { .. } | Verdict::Inconclusive(_), _) => {
                Err("NET-01 could not be judged".to_owned())
            }
        };
        Control {
            claim: "policies are enforced".to_owned(),
            holds,
        }
    }
}

/// The three agents of one node.
struct Trio {
    node: String,
    open: Arc<Agent>,
    closed: Arc<Agent>,
    mute: Arc<Agent>,
}

/// Puts the canary up and watches it.
///
/// # Errors
/// It could not be put up.
pub async fn observe(site: Arc<Site>) -> Result<Enforcement, HarnessError> {
    if site.cluster.nodes.is_empty() {
        return Err(HarnessError::new("no node is ready and takes pods").hint("kubectl get nodes"));
    }
    let namespace = site.mark.run.namespace("canary");
    make_namespace(&site, &namespace, &BTreeMap::new()).await?;
    let trios = site
        .cluster
        .nodes
        .iter()
        .enumerate()
        .map(|(index, node)| trio(&site, &namespace, index, node));
    let trios = try_join_all(trios).await?;
    site.events
        .progress(format!("enforcement canary listens on {} node(s)", trios.len()));

    let open_before: Vec<Control> = reach(&trios).await.iter().map(Control::reached).collect();
    close(&site, &namespace).await?;
    let enforced_after = await_denied(&trios, Instant::now()).await;
    let mut seen = judge_round(&trios).await;
    seen.controls.extend(open_before);
    let verdict = conclude(
        judge_denied(&prove(&seen.controls), &seen.probes),
        enforced_after,
        trios.len(),
    );
    let nodes = trios.iter().map(|trio| trio.open.node.clone()).collect();
    Ok(Enforcement { verdict, nodes })
}

async fn trio(site: &Site, namespace: &str, index: usize, node: &str) -> Result<Trio, HarnessError> {
    let role = |role: &'static str| async move {
        let pod = AgentPod {
            mark: &site.mark,
            name: format!("{role}-{index}"),
            namespace: namespace.to_owned(),
            image: &site.settings.agent_image,
            labels: BTreeMap::from([(CANARY.to_owned(), role.to_owned())]),
            owner: None,
            node: Some(node.to_owned()),
            may_become_ready: true,
        };
        start(site, Place::Sink, pod).await.map(Arc::new)
    };
    let (open, closed, mute) = futures::try_join!(role("open"), role("closed"), role("mute"))?;
    Ok(Trio {
        node: node.to_owned(),
        open,
        closed,
        mute,
    })
}

fn cell(what: String, target: &Arc<Agent>, timeout: Duration) -> Cell {
    let attempt = Try {
        protocol: Protocol::Tcp,
        host: target.ip.clone(),
        port: API_PORT,
        timeout,
        query: None,
    };
    Cell {
        what,
        attempt,
        witness: Some(Arc::clone(target)),
        answers_others: false,
    }
}

/// Before any policy the listener and the client are both open, on each node and from each node to every other.
async fn reach(trios: &[Trio]) -> Vec<Observed> {
    let before = |trio: &Trio, other: &Trio, target: &Arc<Agent>, what: &str| {
        cell(
            format!("before the policy, {} -> {}: {what}", trio.node, other.node),
            target,
            CONTROL_TIMEOUT,
        )
    };
    let per_node = trios.iter().map(|trio| async move {
        let listeners: Vec<Cell> = trios
            .iter()
            .map(|other| before(trio, other, &other.closed, "open -> closed"))
            .collect();
        let client = [before(trio, trio, &trio.open, "mute -> open")];
        let (mut one, two) = futures::join!(
            probing::reach(&trio.open, &listeners),
            probing::reach(&trio.mute, &client)
        );
        one.extend(two);
        one
    });
    join_all(per_node).await.into_iter().flatten().collect()
}

async fn close(site: &Site, namespace: &str) -> Result<(), HarnessError> {
    for (name, direction, role) in [
        ("deny-ingress", "Ingress", "closed"),
        ("deny-egress", "Egress", "mute"),
    ] {
        let pods = BTreeMap::from([(CANARY.to_owned(), role.to_owned())]);
        let policy = manifest::deny(&site.mark, name, namespace, direction, &pods);
        site.ledger.create(&site.cluster.client, policy).await?;
    }
    Ok(())
}

/// Polls until every cell is denied; how long that took, or nothing where it never came to be.
async fn await_denied(trios: &[Trio], begin: Instant) -> Option<Duration> {
    while begin.elapsed() < ENFORCED_WITHIN {
        let asked = begin.elapsed();
        let observed = join_all(trios.iter().map(once)).await;
        if observed
            .iter()
            .flatten()
            .all(|each| matches!(each.observation, Observation::Denied(_)))
        {
            return Some(asked);
        }
    }
    None
}

/// What is closed now: every node's `closed` from this node, and this node's `mute` towards the listener beside it.
fn closed_cells(trio: &Trio, trios: &[Trio], timeout: Duration) -> (Vec<Cell>, Vec<Cell>) {
    let to_closed = trios
        .iter()
        .map(|other| {
            cell(
                format!("{} -> {}: open -> closed", trio.node, other.node),
                &other.closed,
                timeout,
            )
        })
        .collect();
    let from_mute = vec![cell(format!("{}: mute -> open", trio.node), &trio.open, timeout)];
    (to_closed, from_mute)
}

async fn once(trio: &Trio) -> Vec<Observed> {
    let (to_closed, from_mute) = closed_cells(trio, std::slice::from_ref(trio), GLANCE);
    let (mut one, two) = futures::join!(
        probing::reach(&trio.open, &to_closed),
        probing::reach(&trio.mute, &from_mute)
    );
    one.extend(two);
    one
}

/// With the policies in force: what they close is denied, what no policy selects stays open.
async fn judge_round(trios: &[Trio]) -> probing::Seen {
    let per_node = trios.iter().map(|trio| async move {
        let (to_closed, from_mute) = closed_cells(trio, trios, DENIAL_TIMEOUT);
        // `closed` may still send, and nothing selects `open`: this shows that the policies closed what they name and no more.
        let stays_open = [cell(
            format!("{}: closed -> open, selected by no policy", trio.node),
            &trio.open,
            CONTROL_TIMEOUT,
        )];
        // `mute` may still be reached, on every node: packets pass between the nodes, and it is alive.
        let mute_lives: Vec<Cell> = trios
            .iter()
            .map(|other| {
                cell(
                    format!("{} -> {}: open -> mute", trio.node, other.node),
                    &other.mute,
                    CONTROL_TIMEOUT,
                )
            })
            .collect();
        let (mut seen, from_mute, still_open) = futures::join!(
            probing::probe(&trio.open, &mute_lives, &to_closed),
            probing::probe(&trio.mute, &[], &from_mute),
            probing::probe(&trio.closed, &stays_open, &[]),
        );
        seen.merge(from_mute);
        seen.merge(still_open);
        seen
    });
    let mut all = probing::Seen::default();
    for seen in join_all(per_node).await {
        all.merge(seen);
    }
    all
}

/// The verdict with its figures. A policy that was not in force in time is no pass, even if it came to be just then.
fn conclude(verdict: Verdict, enforced_after: Option<Duration>, nodes: usize) -> Verdict {
    let figure = |name: &str, value: f64, unit| Figure {
        name: name.to_owned(),
        value,
        unit,
    };
    match (verdict, enforced_after) {
        (Verdict::Passed(mut evidence), Some(after)) => {
            evidence.figures.push(figure(
                "time to enforce",
                (after.as_secs_f64() * 1000.0).round(),
                "ms",
            ));
            evidence
                .figures
                .push(figure("nodes covered", nodes as f64, "count"));
            Verdict::Passed(evidence)
        }
        (Verdict::Passed(_), None) => Verdict::inconclusive(format!(
            "the policies were not in force everywhere within {} s, and are now: this engine is too slow to be judged",
            ENFORCED_WITHIN.as_secs()
        )),
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Evidence;
    use rstest::rstest;

    #[rstest]
    #[case::in_time(
        Verdict::Passed(Evidence::default()),
        Some(Duration::from_millis(120)),
        "passed"
    )]
    #[case::too_late(Verdict::Passed(Evidence::default()), None, "inconclusive")]
    #[case::never(Verdict::failed("denied", "reached"), None, "failed")]
    fn enforcement_that_came_too_late_is_no_pass(
        #[case] verdict: Verdict,
        #[case] after: Option<Duration>,
        #[case] word: &str,
    ) {
        assert_eq!(conclude(verdict, after, 1).word(), word);
    }
}

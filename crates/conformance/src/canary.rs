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
}

impl Enforcement {
    /// The canary as a control of every other denial.
    pub fn control(&self) -> Control {
        let holds = match &self.verdict {
            Verdict::Passed(evidence) => Ok(evidence.summary.clone()),
            Verdict::Failed { .. } => Err("NET-01 failed: policies are not enforced here".to_owned()),
            Verdict::Skipped { .. } | Verdict::Inconclusive(_) => {
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
    make_namespace(&site, &namespace).await?;
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
    let begin = Instant::now();
    let enforced_after = await_denied(&trios, begin).await;
    let mut seen = judge_round(&trios).await;
    seen.controls.extend(open_before);
    let verdict = with_figures(
        judge_denied(&prove(&seen.controls), &seen.probes),
        enforced_after,
        trios.len(),
    );
    Ok(Enforcement { verdict })
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
    }
}

/// Before any policy: the listener and the client are both open.
async fn reach(trios: &[Trio]) -> Vec<Observed> {
    let per_node = trios.iter().map(|trio| async move {
        let listener = cell(
            format!("before the policy, {}: open -> closed", trio.node),
            &trio.closed,
            CONTROL_TIMEOUT,
        );
        let client = cell(
            format!("before the policy, {}: mute -> open", trio.node),
            &trio.open,
            CONTROL_TIMEOUT,
        );
        let (mut one, two) = (
            probing::reach(&trio.open, &[listener]).await,
            probing::reach(&trio.mute, &[client]).await,
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

fn closed_cells(trio: &Trio, trios: &[Trio], timeout: Duration) -> (Vec<Cell>, Vec<Cell>) {
    let mut to_closed = vec![cell(
        format!("{}: open -> closed", trio.node),
        &trio.closed,
        timeout,
    )];
    if let Some(other) = trios.iter().find(|other| other.node != trio.node) {
        let what = format!("{} -> {}: open -> closed", trio.node, other.node);
        to_closed.push(cell(what, &other.closed, timeout));
    }
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
        // `mute` may still be reached: its listener, its address and its agent are alive.
        let mute_lives = [cell(
            format!("{}: open -> mute", trio.node),
            &trio.mute,
            CONTROL_TIMEOUT,
        )];
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

fn with_figures(verdict: Verdict, enforced_after: Option<Duration>, nodes: usize) -> Verdict {
    match verdict {
        Verdict::Passed(mut evidence) => {
            let millis = enforced_after
                .map_or(f64::NAN, |after| after.as_secs_f64() * 1000.0)
                .round();
            evidence.figures.push(Figure {
                name: "time to enforce".to_owned(),
                value: millis,
                unit: "ms",
            });
            evidence.figures.push(Figure {
                name: "nodes covered".to_owned(),
                value: nodes as f64,
                unit: "count",
            });
            Verdict::Passed(evidence)
        }
        other => other,
    }
}

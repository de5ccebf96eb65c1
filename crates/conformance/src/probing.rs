//! Turns an agent's attempts into observations. A denial is two fresh attempts that were both kept out and that the target's witness
//! did not see; controls are made with them and after them. Which cells to probe is left to the checks.

use crate::agent::{Agent, Tried, Try};
use crate::error::HarnessError;
use crate::verdict::{Control, Observation, Observed};
use futures::future::join_all;
use probe::protocol::{Ending, Outcome, Protocol};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// What a denied attempt waits before it counts as dropped.
pub const DENIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A time-out after a name's resolution counts as dropped only if at least this was left for the target.
const LEAST_WAIT: Duration = Duration::from_millis(200);
/// What a control may take: a lost first packet is sent again after one second.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(4);

/// One address to probe.
#[derive(Clone)]
pub struct Cell {
    /// For people: `outsider -> sink 10.244.0.9:8000/tcp (pod IP)`.
    pub what: String,
    /// What is spoken, and to whom.
    pub attempt: Try,
    /// The agent behind that address, where it is one: its listeners are asked for the nonce.
    pub witness: Option<Arc<Agent>>,
}

/// What a source saw.
#[derive(Default)]
pub struct Seen {
    /// Its controls, each made before and after.
    pub controls: Vec<Control>,
    /// Its probes.
    pub probes: Vec<Observed>,
}

impl Seen {
    /// Takes in what another source saw.
    pub fn merge(&mut self, other: Seen) {
        self.controls.extend(other.controls);
        self.probes.extend(other.probes);
    }
}

/// Probes cells that are expected to be denied, twice each, between two rounds of controls. An agent that cannot be asked leaves its cells
/// undecided and its controls unproven; it is no error here, since another source may have got through.
pub async fn probe(source: &Arc<Agent>, controls: &[Cell], cells: &[Cell]) -> Seen {
    let tries = |cells: &[Cell]| -> Vec<Try> { cells.iter().map(|cell| cell.attempt.clone()).collect() };
    // Both attempts wait together: each has a socket and a source port of its own.
    let first = source
        .attempt(&[tries(controls), tries(cells), tries(cells)].concat())
        .await;
    let first = match first {
        Ok(first) => first,
        Err(error) => return unable(controls, cells, &error),
    };
    let (before, twice) = first.split_at(controls.len());
    let (one, two) = twice.split_at(cells.len());
    // What could not be decided is tried once more, beside the second round of controls: a lost datagram of DNS is no verdict.
    let undecided: Vec<Cell> = cells
        .iter()
        .zip(one.iter().zip(two))
        .filter(|(cell, pair)| is_undecided(cell, pair))
        .map(|(cell, _)| cell.clone())
        .collect();
    let after = again(
        source,
        &[tries(controls), tries(&undecided), tries(&undecided)].concat(),
    )
    .await;
    let (after, retried) = match after {
        Ok(mut after) => {
            let retried = after.split_off(controls.len());
            (Ok(after), retried)
        }
        Err(error) => (Err(error), Vec::new()),
    };
    let witnessed = ask_witnesses(cells).await;
    let mut retries = retried
        .iter()
        .take(undecided.len())
        .zip(retried.iter().skip(undecided.len()));
    let mut probes = Vec::with_capacity(cells.len());
    for (cell, pair) in cells.iter().zip(one.iter().zip(two)) {
        let seen = judge(cell, pair, &witnessed);
        let retry = if is_undecided(cell, &pair) {
            retries.next()
        } else {
            None
        };
        probes.push(match (&seen.observation, retry) {
            (Observation::Broken(_), Some(retry)) => judge(cell, retry, &witnessed),
            _ => seen,
        });
    }
    distrust_refusals(cells, &mut probes);
    let controls = match after {
        Ok(after) => sandwich(controls, before, &after),
        // What the probes reached counts, whatever became of the controls.
        Err(error) => unable(controls, &[], &error).controls,
    };
    Seen { controls, probes }
}

fn is_undecided(cell: &Cell, (one, two): &(&Tried, &Tried)) -> bool {
    matches!(
        combine(observe(cell, &one.outcome), observe(cell, &two.outcome)),
        Observation::Broken(_)
    )
}

/// The second round; where there is nothing to try it needs no exec.
async fn again(source: &Arc<Agent>, tries: &[Try]) -> Result<Vec<Tried>, HarnessError> {
    if tries.is_empty() {
        Ok(Vec::new())
    } else {
        source.attempt(tries).await
    }
}

/// A refusal where nobody can be asked for the nonce may come from a dead listener. It counts only where the policy engine refuses at
/// the agents beside it too; one that drops there does not refuse here.
fn distrust_refusals(cells: &[Cell], probes: &mut [Observed]) {
    let refused =
        |probe: &Observed| matches!(&probe.observation, Observation::Denied(how) if how.contains("refused"));
    let engine_refuses = cells
        .iter()
        .zip(probes.iter())
        .any(|(cell, probe)| cell.witness.is_some() && refused(probe));
    for (cell, probe) in cells.iter().zip(probes) {
        if cell.witness.is_none() && refused(probe) && !engine_refuses {
            probe.observation =
                Observation::Broken("refused, though policies drop here: nobody may be listening".to_owned());
        }
    }
}

/// Makes attempts that are expected to get through, once.
pub async fn reach(source: &Arc<Agent>, cells: &[Cell]) -> Vec<Observed> {
    let tries: Vec<Try> = cells.iter().map(|cell| cell.attempt.clone()).collect();
    match source.attempt(&tries).await {
        Ok(tried) => cells
            .iter()
            .zip(&tried)
            .map(|(cell, tried)| observed(cell, observe(cell, &tried.outcome)))
            .collect(),
        Err(error) => cells
            .iter()
            .map(|cell| observed(cell, Observation::Broken(error.to_string())))
            .collect(),
    }
}

fn observed(cell: &Cell, observation: Observation) -> Observed {
    Observed {
        what: cell.what.clone(),
        observation,
    }
}

fn unable(controls: &[Cell], cells: &[Cell], error: &HarnessError) -> Seen {
    let broken = |cell: &Cell| observed(cell, Observation::Broken(error.to_string()));
    Seen {
        controls: controls
            .iter()
            .map(|cell| Control::reached(&broken(cell)))
            .collect(),
        probes: cells.iter().map(broken).collect(),
    }
}

fn sandwich(cells: &[Cell], before: &[Tried], after: &[Tried]) -> Vec<Control> {
    let mut controls = Vec::with_capacity(cells.len());
    for (cell, (before, after)) in cells.iter().zip(before.iter().zip(after)) {
        let mut control = Control::reached(&observed(cell, observe(cell, &before.outcome)));
        let again = Control::reached(&observed(cell, observe(cell, &after.outcome)));
        if control.holds.is_ok()
            && let Err(why) = again.holds
        {
            control.holds = Err(format!("reached before the probes, afterwards {why}"));
        }
        controls.push(control);
    }
    controls
}

type Witnessed = HashMap<String, Result<HashSet<String>, HarnessError>>;

/// What each target's witness saw, by pod name.
async fn ask_witnesses(cells: &[Cell]) -> Witnessed {
    let mut agents: HashMap<String, Arc<Agent>> = HashMap::new();
    for agent in cells.iter().filter_map(|cell| cell.witness.as_ref()) {
        agents
            .entry(witness_key(agent))
            .or_insert_with(|| Arc::clone(agent));
    }
    let asked = agents.into_iter().map(|(key, agent)| async move {
        let nonces = agent
            .sightings()
            .await
            .map(|seen| seen.into_iter().map(|sighting| sighting.nonce).collect());
        (key, nonces)
    });
    join_all(asked).await.into_iter().collect()
}

fn witness_key(agent: &Agent) -> String {
    format!("{}/{}", agent.namespace, agent.pod)
}

fn judge(cell: &Cell, (one, two): (&Tried, &Tried), witnessed: &Witnessed) -> Observed {
    let seen = cell
        .witness
        .as_ref()
        .and_then(|agent| witnessed.get(&witness_key(agent)));
    let observation = match (
        combine(observe(cell, &one.outcome), observe(cell, &two.outcome)),
        seen,
    ) {
        (Observation::Reached(how), _) => Observation::Reached(how),
        (_, Some(Ok(nonces))) if nonces.contains(&one.nonce) || nonces.contains(&two.nonce) => {
            Observation::Reached("the target's listener saw the nonce, though no answer came back".to_owned())
        }
        (Observation::Denied(_), Some(Err(error))) => {
            Observation::Broken(format!("the target's witness could not be asked: {error}"))
        }
        (combined, _) => combined,
    };
    observed(cell, observation)
}

/// Two attempts as one observation: one that got through decides, one that was undecided leaves both so.
pub(crate) fn combine(one: Observation, two: Observation) -> Observation {
    match (one, two) {
        (Observation::Reached(how), _) | (_, Observation::Reached(how)) => Observation::Reached(how),
        (Observation::Broken(why), _) | (_, Observation::Broken(why)) => Observation::Broken(why),
        (Observation::Denied(one), Observation::Denied(two)) if one == two => Observation::Denied(one),
        (Observation::Denied(one), Observation::Denied(two)) => {
            Observation::Denied(format!("{one}, then {two}"))
        }
    }
}

/// What one outcome says. A connection without the target's own answer may be a proxy's: it decides nothing.
fn observe(cell: &Cell, outcome: &Outcome) -> Observation {
    let detail = outcome.error.clone().or_else(|| outcome.answer.clone());
    match outcome.ending {
        Ending::Reached => Observation::Reached(reached_how(cell.attempt.protocol, outcome)),
        Ending::TimedOut if waited(outcome) < LEAST_WAIT => Observation::Broken(
            "the name took so long to resolve that no time was left to connect".to_owned(),
        ),
        Ending::TimedOut => Observation::Denied("timed out".to_owned()),
        Ending::Refused => Observation::Denied("refused".to_owned()),
        Ending::Unreachable => Observation::Denied("unreachable".to_owned()),
        Ending::ConnectedWithoutEcho => Observation::Broken(format!(
            "connected, but the target itself did not answer: {}",
            detail.unwrap_or_else(|| "silence".to_owned())
        )),
        Ending::DnsFailed => Observation::Broken(format!(
            "the name did not resolve: {}",
            detail.unwrap_or_default()
        )),
        Ending::LocalError => {
            Observation::Broken(format!("the agent could not try: {}", detail.unwrap_or_default()))
        }
    }
}

/// How long the target was waited for, the name's resolution left out.
fn waited(outcome: &Outcome) -> Duration {
    Duration::from_millis(outcome.total_ms.saturating_sub(outcome.resolve_ms.unwrap_or(0)))
}

fn reached_how(protocol: Protocol, outcome: &Outcome) -> String {
    let answer = outcome.answer.as_deref().unwrap_or("answered");
    let said = match protocol {
        Protocol::Tcp | Protocol::Udp => "nonce echoed".to_owned(),
        Protocol::Http | Protocol::Dns | Protocol::DnsTcp | Protocol::Postgresql | Protocol::Redis => {
            answer.to_owned()
        }
    };
    format!("{said} in {} ms", outcome.total_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn reached() -> Observation {
        Observation::Reached("r".into())
    }
    fn denied(how: &str) -> Observation {
        Observation::Denied(how.into())
    }
    fn broken() -> Observation {
        Observation::Broken("b".into())
    }
    fn cell(protocol: Protocol) -> Cell {
        let attempt = Try {
            protocol,
            host: "10.0.0.1".into(),
            port: 8000,
            timeout: DENIAL_TIMEOUT,
            query: None,
        };
        Cell {
            what: "a -> b".into(),
            attempt,
            witness: None,
        }
    }
    fn tried(ending: Ending) -> Tried {
        let outcome = Outcome {
            id: 1,
            ending,
            echoed: ending == Ending::Reached,
            peer: None,
            local: None,
            answer: None,
            error: None,
            resolve_ms: None,
            connect_ms: None,
            total_ms: 1000,
        };
        Tried {
            outcome,
            nonce: "n".into(),
        }
    }

    #[rstest]
    #[case::both_denied(denied("timed out"), denied("timed out"), denied("timed out"))]
    #[case::denied_in_two_ways(denied("timed out"), denied("refused"), denied("timed out, then refused"))]
    #[case::second_reached(denied("timed out"), reached(), reached())]
    #[case::reached_outranks_broken(broken(), reached(), reached())]
    #[case::one_broken(denied("timed out"), broken(), broken())]
    fn two_attempts_make_one_observation(
        #[case] one: Observation,
        #[case] two: Observation,
        #[case] both: Observation,
    ) {
        assert_eq!(combine(one, two), both);
    }

    #[rstest]
    #[case::reached(Ending::Reached, "reached")]
    #[case::dropped(Ending::TimedOut, "denied")]
    #[case::rejected(Ending::Refused, "denied")]
    #[case::prohibited(Ending::Unreachable, "denied")]
    #[case::a_proxy_accepted(Ending::ConnectedWithoutEcho, "broken")]
    #[case::no_name(Ending::DnsFailed, "broken")]
    #[case::no_socket(Ending::LocalError, "broken")]
    fn an_outcome_is_one_of_three_observations(#[case] ending: Ending, #[case] expected: &str) {
        let word = match observe(&cell(Protocol::Tcp), &tried(ending).outcome) {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        assert_eq!(word, expected);
    }

    #[rstest]
    #[case::held(Ending::Reached, Ending::Reached, Ok(()))]
    #[case::lost_on_the_way(
        Ending::Reached,
        Ending::TimedOut,
        Err("reached before the probes, afterwards denied (timed out)")
    )]
    #[case::never_held(Ending::TimedOut, Ending::Reached, Err("denied (timed out)"))]
    fn a_control_must_hold_before_and_after(
        #[case] before: Ending,
        #[case] after: Ending,
        #[case] expected: Result<(), &str>,
    ) {
        let controls = sandwich(&[cell(Protocol::Tcp)], &[tried(before)], &[tried(after)]);
        assert_eq!(
            controls[0].holds.as_ref().map(|_| ()).map_err(String::as_str),
            expected
        );
    }

    #[rstest]
    #[case::the_engine_drops("timed out", "broken")]
    #[case::the_engine_refuses("refused", "denied")]
    #[tokio::test]
    async fn a_refusal_without_a_witness_is_believed_where_the_engine_refuses(
        #[case] beside: &str,
        #[case] expected: &str,
    ) {
        let cells = [
            Cell {
                witness: Some(agent()),
                ..cell(Protocol::Tcp)
            },
            cell(Protocol::Http),
        ];
        let seen = |how: &str| Observed {
            what: "a -> b".into(),
            observation: denied(how),
        };
        let mut probes = [seen(beside), seen("refused")];
        distrust_refusals(&cells, &mut probes);
        let word = if matches!(probes[1].observation, Observation::Denied(_)) {
            "denied"
        } else {
            "broken"
        };
        assert_eq!(word, expected);
    }

    #[test]
    fn a_name_that_leaves_no_time_to_connect_is_no_denial() {
        let mut slow = tried(Ending::TimedOut).outcome;
        slow.resolve_ms = Some(950);
        assert!(matches!(
            observe(&cell(Protocol::Http), &slow),
            Observation::Broken(_)
        ));
    }

    fn agent() -> Arc<Agent> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let place = crate::resource::Place::Sink;
        Arc::new(Agent::new(
            client,
            place,
            "n".into(),
            "p".into(),
            "10.0.0.1".into(),
            "node".into(),
        ))
    }

    #[rstest]
    #[case::unseen(Ok(&[][..]), "denied")]
    #[case::seen(Ok(&["n"][..]), "reached")]
    #[case::not_to_be_asked(Err(()), "broken")]
    #[tokio::test]
    async fn the_witness_has_the_last_word_on_a_denial(
        #[case] seen: Result<&[&str], ()>,
        #[case] expected: &str,
    ) {
        let agent = agent();
        let nonces = seen.map(|seen| seen.iter().map(|nonce| (*nonce).to_owned()).collect());
        let witnessed = HashMap::from([(witness_key(&agent), nonces.map_err(|()| HarnessError::new("cut")))]);
        let cell = Cell {
            witness: Some(agent),
            ..cell(Protocol::Tcp)
        };
        let (one, two) = (tried(Ending::TimedOut), tried(Ending::TimedOut));
        let word = match judge(&cell, (&one, &two), &witnessed).observation {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        assert_eq!(word, expected);
    }
}

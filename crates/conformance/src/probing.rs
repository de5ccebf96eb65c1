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

/// What a denial that is a refusal says.
const REFUSED: &str = "refused";

/// One address to probe.
#[derive(Clone)]
pub struct Cell {
    /// For people: `outsider -> sink 10.244.0.9:8000/tcp (pod IP)`.
    pub what: String,
    /// What is spoken, and to whom.
    pub attempt: Try,
    /// The agent behind that address, where it is one: its listeners are asked for the nonce.
    pub witness: Option<Arc<Agent>>,
    /// Whether a control of the same check is answered at the same address and port: a refusal is no dead listener's then.
    pub answers_others: bool,
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

/// How often cells that could not be decided are tried again.
const AGAIN: usize = 3;
/// What is waited before that but for the first time: a Service answers up to a second after its endpoints are ready (Cilium gathers such
/// changes for half a second), and until then refuses whoever asks.
const PAUSE: Duration = Duration::from_millis(600);

/// Probes cells that are expected to be denied, twice each, between two rounds of controls. What could not be decided is tried again
/// beside further rounds: a lost datagram of DNS is no verdict. An agent that cannot be asked leaves its cells undecided and its controls
/// unproven; it is no error here, since another source may have got through.
pub async fn probe(source: &Arc<Agent>, controls: &[Cell], cells: &[Cell]) -> Seen {
    // Both attempts wait together: each has a socket and a source port of its own.
    let first = source
        .attempt(&[tries(controls), tries(cells), tries(cells)].concat())
        .await;
    let mut first = match first {
        Ok(first) => first,
        Err(error) => return unable(controls, cells, &error),
    };
    let attempts = first.split_off(controls.len());
    let mut controls_seen = reached_each(controls, &first);
    let mut tried: Vec<Pair> = pairs(attempts, cells.len()).map(Pair::of).collect();
    for round in 0..AGAIN {
        let undecided = undecided(cells, &tried);
        if round > 0 {
            if undecided.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let again: Vec<Cell> = undecided.iter().map(|&index| cells[index].clone()).collect();
        let asked = [tries(controls), tries(&again), tries(&again)].concat();
        // Where there is nothing to try there is nothing to ask.
        let seen = match asked.is_empty() {
            true => Ok(Vec::new()),
            false => source.attempt(&asked).await,
        };
        let mut seen = match seen {
            Ok(seen) => seen,
            // What the probes reached counts, whatever became of the controls.
            Err(error) => {
                controls_seen = unable(controls, &[], &error).controls;
                break;
            }
        };
        let attempts = seen.split_off(controls.len());
        sandwich(&mut controls_seen, &reached_each(controls, &seen));
        for (index, pair) in undecided.into_iter().zip(pairs(attempts, again.len())) {
            tried[index].again(pair);
        }
    }
    let witnessed = ask_witnesses(cells).await;
    let mut probes: Vec<Observed> = cells
        .iter()
        .zip(&tried)
        .map(|(cell, pair)| judge(cell, pair, &witnessed))
        .collect();
    for (index, why) in distrusted(cells, &tried) {
        if let Observation::Denied(_) = probes[index].observation {
            probes[index].observation = Observation::Broken(why.to_owned());
        }
    }
    Seen {
        controls: controls_seen,
        probes,
    }
}

fn tries(cells: &[Cell]) -> Vec<Try> {
    cells.iter().map(|cell| cell.attempt.clone()).collect()
}

/// The last two attempts at a cell, and the nonces of all.
struct Pair {
    one: Outcome,
    two: Outcome,
    nonces: Vec<String>,
}

impl Pair {
    fn of((one, two): (Tried, Tried)) -> Self {
        Pair {
            one: one.outcome,
            two: two.outcome,
            nonces: vec![one.nonce, two.nonce],
        }
    }

    fn again(&mut self, pair: (Tried, Tried)) {
        let mut pair = Pair::of(pair);
        pair.nonces.append(&mut self.nonces);
        *self = pair;
    }

    fn observation(&self, cell: &Cell) -> Observation {
        combine(observe(cell, &self.one), observe(cell, &self.two))
    }
}

/// The first `count` attempts with the `count` that follow.
fn pairs(mut attempts: Vec<Tried>, count: usize) -> impl Iterator<Item = (Tried, Tried)> {
    let second = attempts.split_off(count.min(attempts.len()));
    attempts.into_iter().zip(second)
}

/// The places of the cells that another attempt may decide.
fn undecided(cells: &[Cell], tried: &[Pair]) -> Vec<usize> {
    let distrusted = distrusted(cells, tried);
    let is_open = |index: &usize| {
        matches!(tried[*index].observation(&cells[*index]), Observation::Broken(_))
            || distrusted.iter().any(|(distrusted, _)| distrusted == index)
    };
    (0..tried.len()).filter(is_open).collect()
}

/// A refusal where nobody can be asked for the nonce may come from a dead listener, or from a Service that is not set up yet. It counts
/// only where the policy engine refuses at the agents beside it too; one that drops there does not refuse here.
fn distrusted(cells: &[Cell], tried: &[Pair]) -> Vec<(usize, &'static str)> {
    let refused = |cell: &Cell, pair: &Pair| matches!(pair.observation(cell), Observation::Denied(how) if how.contains(REFUSED));
    let both = || cells.iter().zip(tried);
    if both().any(|(cell, pair)| cell.witness.is_some() && refused(cell, pair)) {
        return Vec::new();
    }
    both()
        .enumerate()
        .filter(|(_, (cell, pair))| cell.witness.is_none() && !cell.answers_others && refused(cell, pair))
        .map(|(index, _)| {
            (
                index,
                "refused, though policies drop here: nobody may be listening",
            )
        })
        .collect()
}

/// How often a Service that refuses is asked again.
const SET_UP: usize = 5;

/// Makes attempts that must get through, and those that did not once more; those that are refused until the Service in front of the target
/// has had the time to be set up.
pub async fn promised(source: &Arc<Agent>, cells: &[Cell]) -> Vec<Observed> {
    let mut seen = reach(source, cells).await;
    for round in 0..SET_UP {
        let refused =
            |index: &usize| matches!(&seen[*index].observation, Observation::Denied(how) if how == REFUSED);
        let missed: Vec<usize> = (0..seen.len())
            .filter(|&index| !matches!(seen[index].observation, Observation::Reached(_)))
            .filter(|index| round == 0 || refused(index))
            .collect();
        if missed.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let again: Vec<Cell> = missed.iter().map(|&index| cells[index].clone()).collect();
        for (index, observed) in missed.into_iter().zip(reach(source, &again).await) {
            seen[index] = observed;
        }
    }
    seen
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

fn reached_each(cells: &[Cell], tried: &[Tried]) -> Vec<Control> {
    cells
        .iter()
        .zip(tried)
        .map(|(cell, tried)| Control::reached(&observed(cell, observe(cell, &tried.outcome))))
        .collect()
}

/// What held before must hold afterwards.
fn sandwich(before: &mut [Control], after: &[Control]) {
    for (control, after) in before.iter_mut().zip(after) {
        if control.holds.is_ok()
            && let Err(why) = &after.holds
        {
            control.holds = Err(format!("reached before the probes, afterwards {why}"));
        }
    }
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
        let nonces = agent.sightings().await;
        (key, nonces)
    });
    join_all(asked).await.into_iter().collect()
}

fn witness_key(agent: &Agent) -> String {
    format!("{}/{}", agent.namespace, agent.pod)
}

fn judge(cell: &Cell, pair: &Pair, witnessed: &Witnessed) -> Observed {
    let seen = cell
        .witness
        .as_ref()
        .and_then(|agent| witnessed.get(&witness_key(agent)));
    let observation = match (pair.observation(cell), seen) {
        (Observation::Reached(how), _) => Observation::Reached(how),
        (_, Some(Ok(nonces))) if pair.nonces.iter().any(|nonce| nonces.contains(nonce)) => {
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
        Ending::Reached if answered_by_a_proxy(cell.attempt.protocol, outcome) => {
            Observation::Broken(format!(
                "answered, and maybe by a proxy in the target's stead: {}",
                detail.unwrap_or_default()
            ))
        }
        Ending::Reached => Observation::Reached(reached_how(cell.attempt.protocol, outcome)),
        Ending::TimedOut if waited(outcome) < LEAST_WAIT => Observation::Broken(
            "the name took so long to resolve that no time was left to connect".to_owned(),
        ),
        Ending::TimedOut => Observation::Denied("timed out".to_owned()),
        Ending::Refused => Observation::Denied(REFUSED.to_owned()),
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

/// What proxies and gateways say where they refuse or cannot reach the target themselves (RFC 9110, 15.5.4, 15.5.8, 15.6.3 to 15.6.5).
fn answered_by_a_proxy(protocol: Protocol, outcome: &Outcome) -> bool {
    let status = outcome.answer.as_deref().and_then(|line| line.split(' ').nth(1));
    protocol == Protocol::Http
        && !outcome.echoed
        && status.is_some_and(|status| ["403", "407", "502", "503", "504"].contains(&status))
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
            answers_others: false,
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
        let cells = [cell(Protocol::Tcp)];
        let mut controls = reached_each(&cells, &[tried(before)]);
        sandwich(&mut controls, &reached_each(&cells, &[tried(after)]));
        assert_eq!(
            controls[0].holds.as_ref().map(|_| ()).map_err(String::as_str),
            expected
        );
    }

    fn pair(one: Ending, two: Ending) -> Pair {
        Pair::of((tried(one), tried(two)))
    }

    #[rstest]
    #[case::the_engine_drops(Ending::TimedOut, true)]
    #[case::the_engine_refuses(Ending::Refused, false)]
    #[tokio::test]
    async fn a_refusal_without_a_witness_is_believed_where_the_engine_refuses(
        #[case] beside: Ending,
        #[case] distrusts: bool,
    ) {
        let cells = [
            Cell {
                witness: Some(agent()),
                ..cell(Protocol::Tcp)
            },
            cell(Protocol::Http),
        ];
        let tried = [pair(beside, beside), pair(Ending::Refused, Ending::TimedOut)];
        let expected: &[usize] = if distrusts { &[1] } else { &[] };
        assert_eq!(undecided(&cells, &tried), expected);
    }

    #[test]
    fn a_refusal_is_believed_where_others_are_answered() {
        let cells = [Cell {
            answers_others: true,
            ..cell(Protocol::Tcp)
        }];
        assert!(undecided(&cells, &[pair(Ending::Refused, Ending::Refused)]).is_empty());
    }

    #[rstest]
    #[case::the_api("HTTP/1.1 404 Not Found", false, "reached")]
    #[case::a_gateway("HTTP/1.1 503 Service Unavailable", false, "broken")]
    #[case::a_sidecar("HTTP/1.1 403 Forbidden", false, "broken")]
    #[case::our_agent("HTTP/1.1 503 Service Unavailable", true, "reached")]
    fn a_proxys_answer_is_not_the_targets(#[case] line: &str, #[case] echoed: bool, #[case] expected: &str) {
        let mut outcome = tried(Ending::Reached).outcome;
        outcome.answer = Some(line.into());
        outcome.echoed = echoed;
        let word = match observe(&cell(Protocol::Http), &outcome) {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        assert_eq!(word, expected);
    }

    #[test]
    fn what_was_tried_again_keeps_the_nonces_of_all_attempts() {
        let mut pair = pair(Ending::DnsFailed, Ending::TimedOut);
        let mut later = tried(Ending::TimedOut);
        later.nonce = "later".into();
        pair.again((later.clone(), later));
        assert_eq!(pair.nonces, ["later", "later", "n", "n"]);
        let cell = cell(Protocol::Tcp);
        assert!(matches!(pair.observation(&cell), Observation::Denied(_)));
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
        let pair = pair(Ending::TimedOut, Ending::TimedOut);
        let word = match judge(&cell, &pair, &witnessed).observation {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        assert_eq!(word, expected);
    }

    const CONTROL: u16 = 1;
    const WITNESSED: u16 = 2;
    const ALONE: u16 = 3;

    fn at(port: u16, witness: Option<&Arc<Agent>>) -> Cell {
        let mut cell = cell(Protocol::Tcp);
        cell.attempt.port = port;
        cell.witness = witness.cloned();
        cell
    }

    /// What a control and two cells come to, one of which has a witness, by the words of a verdict's parts.
    async fn probed(
        script: fn(u16, usize) -> Option<Ending>,
        seen: &'static [u16],
    ) -> (bool, [&'static str; 2]) {
        let (_server, agent) = crate::scripted::agent(script, seen).await;
        let cells = [at(WITNESSED, Some(&agent)), at(ALONE, None)];
        let seen = probe(&agent, &[at(CONTROL, None)], &cells).await;
        let word = |probe: &Observed| match probe.observation {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        let held = seen.controls.iter().all(|control| control.holds.is_ok());
        (held, [word(&seen.probes[0]), word(&seen.probes[1])])
    }

    fn control_or(port: u16, otherwise: Ending) -> Option<Ending> {
        Some(if port == CONTROL {
            Ending::Reached
        } else {
            otherwise
        })
    }

    #[rstest]
    #[case::an_engine_that_drops(|port, _| control_or(port, Ending::TimedOut), &[], (true, ["denied", "denied"]))]
    #[case::an_engine_that_rejects(|port, _| control_or(port, Ending::Refused), &[], (true, ["denied", "denied"]))]
    #[case::an_engine_that_prohibits(|port, _| control_or(port, Ending::Unreachable), &[], (true, ["denied", "denied"]))]
    #[case::a_dead_listener_beside_drops(|port, _| control_or(port, if port == ALONE { Ending::Refused } else { Ending::TimedOut }), &[], (true, ["denied", "broken"]))]
    #[case::a_service_that_is_set_up_late(|port, round| control_or(port, if port == ALONE && round < 2 { Ending::Refused } else { Ending::TimedOut }), &[], (true, ["denied", "denied"]))]
    #[case::a_name_that_resolves_at_the_second_try(|port, round| control_or(port, if port == ALONE && round < 1 { Ending::DnsFailed } else { Ending::TimedOut }), &[], (true, ["denied", "denied"]))]
    #[case::open_once_it_is_set_up(|port, round| control_or(port, match (port, round) { (ALONE, 0) => Ending::Refused, (ALONE, _) => Ending::Reached, _ => Ending::TimedOut }), &[], (true, ["denied", "reached"]))]
    #[case::the_way_there_is_open_and_the_way_back_is_not(|port, _| control_or(port, Ending::TimedOut), &[WITNESSED], (true, ["reached", "denied"]))]
    #[case::a_control_that_is_lost_meanwhile(|port, round| Some(if port == CONTROL && round == 0 { Ending::Reached } else { Ending::TimedOut }), &[], (false, ["denied", "denied"]))]
    #[case::an_agent_that_is_lost_meanwhile(|port, round| if round == 0 { control_or(port, if port == ALONE { Ending::Reached } else { Ending::TimedOut }) } else { None }, &[], (false, ["denied", "reached"]))]
    #[case::an_agent_that_cannot_be_asked(|_, _| None, &[], (false, ["broken", "broken"]))]
    #[tokio::test]
    async fn a_probe_between_controls(
        #[case] script: fn(u16, usize) -> Option<Ending>,
        #[case] seen: &'static [u16],
        #[case] expected: (bool, [&'static str; 2]),
    ) {
        assert_eq!(probed(script, seen).await, expected);
    }

    #[tokio::test]
    async fn what_must_be_reached_has_a_second_try() {
        let late = |port, round| {
            control_or(
                port,
                if round == 0 {
                    Ending::Refused
                } else {
                    Ending::Reached
                },
            )
        };
        let (_server, agent) = crate::scripted::agent(late, &[]).await;
        let seen = promised(&agent, &[at(CONTROL, None), at(ALONE, None)]).await;
        assert!(
            seen.iter()
                .all(|each| matches!(each.observation, Observation::Reached(_))),
            "{seen:?}"
        );
    }
}

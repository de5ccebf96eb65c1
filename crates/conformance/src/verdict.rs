//! What a check may conclude, and what it needs in order to conclude it. A denial passes only with
//! [`Proven`], and the only way to a `Proven` is a set of controls that all hold. Pure: how observations
//! are made is left to `agent` and to the checks.

use crate::error::HarnessError;
use serde::Serialize;
use std::fmt;

/// What one probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "detail")]
pub enum Observation {
    /// The target itself answered, or saw the probe.
    Reached(String),
    /// The probe was kept out, in this way.
    Denied(String),
    /// The probe could not tell: it is neither isolated nor broken.
    Broken(String),
}

/// An observation and what was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// From where to where and how, as a reader would say it: `outsider -> test-tenant-b api 10.0.0.7:8000 (pod IP)`.
    pub what: String,
    /// What was seen.
    pub observation: Observation,
}

impl Observed {
    /// What was asked, and is not known: beside other probes it decides nothing, and hides none of them.
    pub fn unknown(what: impl Into<String>, error: &HarnessError) -> Self {
        Observed {
            what: what.into(),
            observation: Observation::Broken(error.what.clone()),
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, detail) = match &self.observation {
            Observation::Reached(detail) => ("reached", detail),
            Observation::Denied(detail) => ("denied", detail),
            Observation::Broken(detail) => ("undecided", detail),
        };
        write!(out, "{}: {word} ({detail})", self.what)
    }
}

/// Something that must hold before a denial means anything: the same probe got through where it may, or the target was alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// What must hold.
    pub claim: String,
    /// What showed it, or why it does not hold.
    pub holds: Result<String, String>,
}

impl Control {
    /// A control that holds when the probe got through.
    pub fn reached(observed: &Observed) -> Self {
        let holds = match &observed.observation {
            Observation::Reached(how) => Ok(how.clone()),
            Observation::Denied(how) => Err(format!("denied ({how})")),
            Observation::Broken(why) => Err(why.clone()),
        };
        Control {
            claim: observed.what.clone(),
            holds,
        }
    }
}

impl Control {
    /// The same, which holds only where these do too.
    #[must_use]
    pub fn given(mut self, others: &[Control]) -> Self {
        let broken = others
            .iter()
            .find_map(|other| Some((&other.claim, other.holds.as_ref().err()?)));
        if let (Ok(_), Some((claim, why))) = (&self.holds, broken) {
            self.holds = Err(format!("{claim}: {why}"));
        }
        self
    }
}

/// The proof that a probe works: cannot be had but from [`prove`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    controls: Vec<String>,
}

impl Proven {
    /// The controls that held, one line each.
    pub fn controls(&self) -> &[String] {
        &self.controls
    }
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproven {
    /// The controls that did not hold: the claim, and why.
    pub broken: Vec<(String, String)>,
}

impl fmt::Display for Unproven {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "control did not hold: {}", grouped(&self.broken))
    }
}

/// `a (and 3 more): why; b: another reason`: one reason is told once, with the first that it befell.
fn grouped(lines: &[(String, String)]) -> String {
    let mut groups: Vec<(&str, &str, usize)> = Vec::new();
    for (what, why) in lines {
        match groups.iter_mut().find(|(_, reason, _)| reason == why) {
            Some((_, _, count)) => *count += 1,
            None => groups.push((what, why, 1)),
        }
    }
    let line = |(what, why, count): &(&str, &str, usize)| match count {
        1 => format!("{what}: {why}"),
        count => format!("{what} (and {} more): {why}", count - 1),
    };
    groups.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// The proof, where every control holds and there is at least one.
///
/// # Errors
/// [`Unproven`] names each control that does not hold.
pub fn prove(controls: &[Control]) -> Result<Proven, Unproven> {
    if controls.is_empty() {
        return Err(Unproven {
            broken: vec![("no control".to_owned(), "none was made".to_owned())],
        });
    }
    let mut held = Vec::new();
    let mut broken = Vec::new();
    for control in controls {
        match &control.holds {
            Ok(seen) => held.push(format!("{}: {seen}", control.claim)),
            Err(why) => broken.push((control.claim.clone(), why.clone())),
        }
    }
    if broken.is_empty() {
        Ok(Proven { controls: held })
    } else {
        Err(Unproven { broken })
    }
}

/// A number that a check measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The value, in `unit`.
    pub value: f64,
    /// The unit: `ms`, `count`.
    pub unit: &'static str,
}

/// What a pass rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Evidence {
    /// One line for people: what was seen, and the control that gives it meaning.
    pub summary: String,
    /// The controls that held.
    pub controls: Vec<String>,
    /// All that was observed.
    pub observed: Vec<String>,
    /// What was measured.
    pub figures: Vec<Figure>,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What the promise asks for.
    pub expected: String,
    /// What was seen instead.
    pub seen: String,
}

/// Why nothing could be concluded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What stood in the way.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Cause {
    /// A cause without advice.
    pub fn new(what: impl Into<String>) -> Self {
        Cause {
            what: what.into(),
            hint: None,
        }
    }
}

/// What a check concluded.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// The promise was seen to hold.
    Passed(Evidence),
    /// The promise was seen broken.
    Failed {
        /// Each way in which it is.
        findings: Vec<Finding>,
        /// All that was observed, the findings included.
        observed: Vec<String>,
    },
    /// Not judged, on purpose.
    Skipped {
        /// Why, and how to have it judged.
        reason: String,
    },
    /// Could not be judged.
    Inconclusive(Cause),
}

impl Verdict {
    /// A failure with one finding.
    pub fn failed(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        let finding = Finding {
            expected: expected.into(),
            seen: seen.into(),
        };
        Verdict::Failed {
            findings: vec![finding],
            observed: Vec::new(),
        }
    }

    /// An undecided verdict.
    pub fn inconclusive(what: impl Into<String>) -> Self {
        Verdict::Inconclusive(Cause::new(what))
    }

    /// The same with more broken promises, which no denial shows: a tenant that gets less than it was promised. Whatever else was concluded,
    /// these fail it.
    #[must_use]
    pub fn with_findings(self, more: Vec<Finding>) -> Self {
        if more.is_empty() {
            return self;
        }
        let (mut findings, observed) = match self {
            Verdict::Failed { findings, observed } => (findings, observed),
            Verdict::Passed(evidence) => (Vec::new(), evidence.observed),
            Verdict::Skipped { .. } | Verdict::Inconclusive(_) => (Vec::new(), Vec::new()),
        };
        findings.extend(more);
        Verdict::Failed { findings, observed }
    }

    /// One word: `passed`, `failed`, `skipped`, `inconclusive`.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Passed(_) => "passed",
            Verdict::Failed { .. } => "failed",
            Verdict::Skipped { .. } => "skipped",
            Verdict::Inconclusive(_) => "inconclusive",
        }
    }
}

/// A probe that must get through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// What was seen.
    pub probe: Observed,
    /// That the same target answers another client, which may reach it: one that answers nobody is no broken promise.
    pub answers: Control,
}

/// Judges probes that must all be denied. In this order: what got through is a failure whatever else went wrong; without proof
/// nothing is concluded; an undecided probe leaves it undecided; else it is a pass.
pub fn judge_denied(proof: &Result<Proven, Unproven>, probes: &[Observed]) -> Verdict {
    judge(proof, probes, &[])
}

/// The same for probes that must be denied beside others that must get through. One of those that was kept out is a failure too, where
/// its target answers somebody else.
pub fn judge(proof: &Result<Proven, Unproven>, closed: &[Observed], open: &[Promised]) -> Verdict {
    let probes = open.iter().map(|each| &each.probe).chain(closed);
    let observed: Vec<String> = probes.map(ToString::to_string).collect();
    let findings = [reached(closed), kept_out(open)].concat();
    if !findings.is_empty() {
        return Verdict::Failed { findings, observed };
    }
    let proven = match proof {
        Ok(proven) => proven,
        Err(unproven) => return Verdict::inconclusive(unproven.to_string()),
    };
    let undecided = [undecided(closed), unanswered(open)].concat();
    if !undecided.is_empty() {
        return Verdict::inconclusive(format!("could not be decided: {}", grouped(&undecided)));
    }
    if observed.is_empty() {
        return Verdict::inconclusive("nothing was probed");
    }
    Verdict::Passed(Evidence {
        summary: summary(proven, closed, open),
        controls: proven.controls.clone(),
        observed,
        figures: Vec::new(),
    })
}

fn kept_out(open: &[Promised]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Promised { probe, answers } in open {
        if let (Observation::Denied(how), Ok(seen)) = (&probe.observation, &answers.holds) {
            findings.push(Finding {
                expected: format!("{} is reached", probe.what),
                seen: format!("denied ({how}), though it answers: {}: {seen}", answers.claim),
            });
        }
    }
    findings
}

/// Promises that were not seen to hold, and are not seen broken.
fn unanswered(open: &[Promised]) -> Vec<(String, String)> {
    let mut undecided = Vec::new();
    for Promised { probe, answers } in open {
        let why = match (&probe.observation, &answers.holds) {
            (Observation::Reached(_), _) => continue,
            (Observation::Broken(why), _) => why.clone(),
            (Observation::Denied(how), Ok(_)) => how.clone(),
            (Observation::Denied(how), Err(why)) => {
                format!(
                    "denied ({how}), and so is everybody else: {}: {why}",
                    answers.claim
                )
            }
        };
        undecided.push((probe.what.clone(), why));
    }
    undecided
}

fn reached(probes: &[Observed]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for probe in probes {
        if let Observation::Reached(how) = &probe.observation {
            findings.push(Finding {
                expected: format!("{} is denied", probe.what),
                seen: format!("reached ({how})"),
            });
        }
    }
    findings
}

fn undecided(probes: &[Observed]) -> Vec<(String, String)> {
    let mut undecided = Vec::new();
    for probe in probes {
        if let Observation::Broken(why) = &probe.observation {
            undecided.push((probe.what.clone(), why.clone()));
        }
    }
    undecided
}

/// `2 of 2 reached; 6 of 6 denied (timed out); control: outsider -> sink 10.0.0.9:8000: reached (echo in 1 ms), and 3 more`.
fn summary(proven: &Proven, closed: &[Observed], open: &[Promised]) -> String {
    let mut ways: Vec<&str> = Vec::new();
    for probe in closed {
        if let Observation::Denied(how) = &probe.observation
            && !ways.contains(&how.as_str())
        {
            ways.push(how);
        }
    }
    let shown = ways.iter().take(2).copied().collect::<Vec<_>>().join(" / ");
    let first = proven.controls.first().map_or("", String::as_str);
    let more = match proven.controls.len() {
        0 | 1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    let mut parts = Vec::new();
    if !open.is_empty() {
        parts.push(format!("{0} of {0} reached", open.len()));
    }
    if !closed.is_empty() {
        parts.push(format!("{0} of {0} denied ({shown})", closed.len()));
    }
    format!("{}; control: {first}{more}", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn seen(observation: Observation) -> Observed {
        Observed {
            what: "a -> b".into(),
            observation,
        }
    }
    fn denied() -> Observed {
        seen(Observation::Denied("timed out".into()))
    }
    fn open() -> Observed {
        seen(Observation::Reached("echo".into()))
    }
    fn broken() -> Observed {
        seen(Observation::Broken("exec cut".into()))
    }
    fn proof() -> Result<Proven, Unproven> {
        prove(&[Control::reached(&open())])
    }
    fn no_proof() -> Result<Proven, Unproven> {
        prove(&[Control::reached(&open()), Control::reached(&denied())])
    }

    #[test]
    fn what_was_seen_is_told_in_full() {
        let lines = [open(), denied(), broken()].map(|seen| seen.to_string());
        assert_eq!(
            lines,
            [
                "a -> b: reached (echo)",
                "a -> b: denied (timed out)",
                "a -> b: undecided (exec cut)"
            ]
        );
        assert_eq!(proof().unwrap().controls(), ["a -> b: echo"]);
        let unproven = no_proof().unwrap_err();
        assert_eq!(
            unproven.to_string(),
            "control did not hold: a -> b: denied (timed out)"
        );
    }

    #[rstest]
    #[case::all_denied_with_proof(proof(), vec![denied(), denied()], "passed")]
    #[case::one_reached(proof(), vec![denied(), open()], "failed")]
    #[case::reached_outranks_a_failed_control(no_proof(), vec![open()], "failed")]
    #[case::reached_outranks_a_broken_probe(proof(), vec![broken(), open()], "failed")]
    #[case::denied_without_proof_is_nothing(no_proof(), vec![denied()], "inconclusive")]
    #[case::a_broken_probe_is_not_a_denial(proof(), vec![denied(), broken()], "inconclusive")]
    #[case::nothing_probed_is_nothing_proven(proof(), vec![], "inconclusive")]
    fn denials_are_judged_in_order(
        #[case] proof: Result<Proven, Unproven>,
        #[case] probes: Vec<Observed>,
        #[case] word: &str,
    ) {
        assert_eq!(judge_denied(&proof, &probes).word(), word);
    }

    fn promised(probe: Observed, answers: Result<&str, &str>) -> Promised {
        let answers = Control {
            claim: "c -> b".into(),
            holds: answers.map(Into::into).map_err(Into::into),
        };
        Promised { probe, answers }
    }

    #[rstest]
    #[case::reached(proof(), promised(open(), Ok("echo")), vec![], "passed")]
    #[case::reached_beside_denied(proof(), promised(open(), Ok("echo")), vec![denied()], "passed")]
    #[case::kept_out(proof(), promised(denied(), Ok("echo")), vec![], "failed")]
    #[case::kept_out_outranks_a_failed_control(no_proof(), promised(denied(), Ok("echo")), vec![], "failed")]
    #[case::kept_out_outranks_a_broken_probe(proof(), promised(denied(), Ok("echo")), vec![broken()], "failed")]
    #[case::it_answers_nobody(proof(), promised(denied(), Err("timed out")), vec![], "inconclusive")]
    #[case::could_not_try(proof(), promised(broken(), Ok("echo")), vec![], "inconclusive")]
    #[case::reached_without_proof(no_proof(), promised(open(), Ok("echo")), vec![], "inconclusive")]
    #[case::too_much_is_open(proof(), promised(open(), Ok("echo")), vec![open()], "failed")]
    fn what_must_be_reached_is_judged_in_order(
        #[case] proof: Result<Proven, Unproven>,
        #[case] promise: Promised,
        #[case] closed: Vec<Observed>,
        #[case] word: &str,
    ) {
        assert_eq!(judge(&proof, &closed, &[promise]).word(), word);
    }

    #[rstest]
    #[case::both_hold(Ok("echo"), Ok("up"), true)]
    #[case::the_source_sends_nothing_at_all(Ok("echo"), Err("timed out"), false)]
    #[case::it_answers_nobody(Err("timed out"), Ok("up"), false)]
    fn an_answer_to_others_counts_only_where_the_source_can_send(
        #[case] answers: Result<&str, &str>,
        #[case] able: Result<&str, &str>,
        #[case] expected: bool,
    ) {
        let able = promised(denied(), able).answers;
        assert_eq!(
            promised(denied(), answers).answers.given(&[able]).holds.is_ok(),
            expected
        );
    }

    #[test]
    fn a_broken_promise_says_who_is_answered_instead() {
        let Verdict::Failed { findings, .. } = judge(&proof(), &[], &[promised(denied(), Ok("echo"))]) else {
            panic!("expected a failure")
        };
        assert_eq!(findings[0].expected, "a -> b is reached");
        assert_eq!(
            findings[0].seen,
            "denied (timed out), though it answers: c -> b: echo"
        );
    }

    #[test]
    fn a_pass_counts_what_was_reached_and_what_was_denied() {
        let Verdict::Passed(evidence) = judge(&proof(), &[denied()], &[promised(open(), Ok("echo"))]) else {
            panic!("expected a pass")
        };
        assert_eq!(
            evidence.summary,
            "1 of 1 reached; 1 of 1 denied (timed out); control: a -> b: echo"
        );
    }

    #[rstest]
    #[case::a_pass(judge_denied(&proof(), &[denied()]), 1)]
    #[case::a_failure(judge_denied(&proof(), &[open()]), 2)]
    #[case::undecided(judge_denied(&no_proof(), &[denied()]), 1)]
    fn another_finding_fails_whatever_else_was_concluded(#[case] verdict: Verdict, #[case] expected: usize) {
        let word = verdict.word();
        assert_eq!(verdict.clone().with_findings(Vec::new()).word(), word);
        let finding = Finding {
            expected: "x".into(),
            seen: "y".into(),
        };
        let Verdict::Failed { findings, .. } = verdict.with_findings(vec![finding]) else {
            panic!("expected a failure")
        };
        assert_eq!(findings.len(), expected);
    }

    #[test]
    fn no_controls_prove_nothing() {
        assert!(prove(&[]).is_err());
    }

    #[rstest]
    #[case::denied(denied(), "denied (timed out)")]
    #[case::broken(broken(), "exec cut")]
    fn a_control_that_did_not_get_through_is_named_with_its_cause(
        #[case] observed: Observed,
        #[case] why: &str,
    ) {
        let unproven = prove(&[Control::reached(&observed)]).unwrap_err();
        assert_eq!(unproven.broken, [("a -> b".to_owned(), why.to_owned())]);
    }

    #[test]
    fn one_cause_is_told_once() {
        let pair = |what: &str, why: &str| (what.to_owned(), why.to_owned());
        let lines = [
            pair("a", "cut"),
            pair("b", "cut"),
            pair("c", "late"),
            pair("d", "cut"),
        ];
        assert_eq!(grouped(&lines), "a (and 2 more): cut; c: late");
    }

    #[test]
    fn a_pass_names_its_control_and_what_was_seen() {
        let Verdict::Passed(evidence) = judge_denied(&proof(), &[denied()]) else {
            panic!("expected a pass")
        };
        assert_eq!(
            evidence.summary,
            "1 of 1 denied (timed out); control: a -> b: echo"
        );
    }

    #[test]
    fn a_failure_says_what_was_expected_and_seen() {
        let Verdict::Failed { findings, observed } = judge_denied(&no_proof(), &[denied(), open()]) else {
            panic!("expected a failure")
        };
        assert_eq!(
            findings,
            [Finding {
                expected: "a -> b is denied".into(),
                seen: "reached (echo)".into()
            }]
        );
        assert_eq!(observed.len(), 2);
    }
}

//! What a selftest came to: a fold over its steps. Every document about it is a pure function of the matrix.

use super::{Beginning, Outcome, Planned, Step, Trial};
use crate::fault::NotPassed;
use crate::report::Ending;
use crate::verdict::Cause;
use std::collections::BTreeSet;

/// An item whose result is not the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `NET-02 a -> b`.
    pub item: String,
    /// `failed`, `inconclusive` or `passed`.
    pub expected: &'static str,
    /// The same.
    pub seen: &'static str,
    /// What was found there, in a line; empty where it passed.
    pub why: String,
}

/// Where a fault stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// What was seen is what was expected, item for item.
    Exact,
    /// It is not.
    Differs(Vec<Difference>),
    /// It is a state of the cluster, and judged on one that has it.
    Elsewhere(String),
    /// It could not be planted, and should have been.
    NotPlantable(Cause),
    /// The harness could not do its work.
    Trouble(Cause),
    /// It was not come to.
    NotJudged,
}

/// One fault, and what came of it.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was planned.
    pub planned: Planned,
    /// What came of it, once something did.
    pub trial: Option<Trial>,
    /// What came of it before, where not everything could be judged then.
    pub first: Option<Trial>,
}

impl Row {
    /// Where it stands.
    pub fn standing(&self) -> Standing {
        if let Some(state) = &self.planned.cluster {
            return Standing::Elsewhere(state.clone());
        }
        match self.trial.as_ref().map(|trial| &trial.outcome) {
            None | Some(Outcome::Interrupted) => Standing::NotJudged,
            Some(Outcome::NotPlantable(cause)) => Standing::NotPlantable(cause.clone()),
            Some(Outcome::Trouble(cause)) => Standing::Trouble(cause.clone()),
            Some(Outcome::Judged { seen, why }) => {
                let expected = &self.planned.expected;
                let reason = |item: &String| {
                    why.iter()
                        .find(|(name, _)| name == item)
                        .map(|(_, why)| why.clone())
                };
                let differences = differing(expected, seen).map(|item| Difference {
                    item: item.clone(),
                    expected: expected.of(item),
                    seen: seen.of(item),
                    why: reason(item).unwrap_or_default(),
                });
                let differences: Vec<Difference> = differences.collect();
                if differences.is_empty() {
                    Standing::Exact
                } else {
                    Standing::Differs(differences)
                }
            }
        }
    }
}

/// The items whose results are not the same, in order.
pub(super) fn differing<'a>(
    expected: &'a NotPassed,
    seen: &'a NotPassed,
) -> impl Iterator<Item = &'a String> {
    let items: BTreeSet<&String> = expected.items().into_iter().chain(seen.items()).collect();
    items
        .into_iter()
        .filter(|item| expected.of(item) != seen.of(item))
}

/// What a selftest came to.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    /// What it said of itself; absent when it never began.
    pub beginning: Option<Beginning>,
    /// A row for every fault, the clean pass first.
    pub rows: Vec<Row>,
    /// What is worth knowing.
    pub notices: Vec<String>,
    /// What stopped it, where something did.
    pub interrupted: Option<String>,
    /// Why nothing was planted at all, where nothing was.
    pub failure: Option<String>,
}

/// How many faults, the clean pass aside, came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exact.
    pub exact: usize,
    /// Of those, how many only when they were planted once more.
    pub at_second: usize,
    /// Judged, or to be judged, here.
    pub here: usize,
    /// Of those, how many break something.
    pub faults: usize,
    /// Of those, how many break nothing.
    pub harmless: usize,
    /// States of the cluster.
    pub elsewhere: usize,
}

impl Matrix {
    /// Takes in one step.
    pub fn absorb(&mut self, step: &Step) {
        match step {
            Step::Began(beginning) => {
                let row = |planned: &Planned| Row {
                    planned: planned.clone(),
                    trial: None,
                    first: None,
                };
                self.rows = beginning.faults.iter().map(row).collect();
                self.beginning = Some(beginning.as_ref().clone());
            }
            Step::Finished(trial) => {
                if let Some(row) = self.rows.iter_mut().find(|row| row.planned.fault == trial.fault) {
                    row.first = row.trial.replace(trial.clone());
                }
            }
            Step::Notice(what) => self.notices.push(what.clone()),
            Step::Interrupted(by) => self.interrupted = Some(by.clone()),
            Step::Started(_) | Step::Ended => {}
        }
    }

    /// The row of a fault.
    pub fn row(&self, fault: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.planned.fault == fault)
    }

    /// Whether the clean pass was clean: before it nothing may be claimed.
    pub fn is_clean(&self) -> bool {
        self.rows
            .first()
            .is_some_and(|row| row.standing() == Standing::Exact)
    }

    /// How many faults came to what.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for row in self.rows.iter().skip(1) {
            match row.standing() {
                Standing::Elsewhere(_) => {
                    counts.elsewhere += 1;
                    continue;
                }
                Standing::Exact => {
                    counts.exact += 1;
                    counts.at_second += usize::from(row.first.is_some());
                }
                _ => {}
            }
            counts.here += 1;
            let kind = if row.planned.expected.is_empty() {
                &mut counts.harmless
            } else {
                &mut counts.faults
            };
            *kind += 1;
        }
        counts
    }

    /// How it ends. A fault that was not seen as expected outranks trouble, but not a clean pass that was not clean.
    pub fn ending(&self) -> Ending {
        let counts = self.counts();
        let is_red = |row: &Row| matches!(row.standing(), Standing::Differs(_) | Standing::NotPlantable(_));
        if self.interrupted.is_some() {
            Ending::Interrupted
        } else if !self.is_clean() {
            Ending::Inconclusive
        } else if self.rows.iter().any(is_red) {
            Ending::Broken
        } else if counts.exact < counts.here {
            Ending::Inconclusive
        } else {
            Ending::Conformant
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use std::time::Duration;

    pub(crate) fn not_passed(failed: &[&str], inconclusive: &[&str]) -> NotPassed {
        let set = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        NotPassed {
            failed: set(failed),
            inconclusive: set(inconclusive),
        }
    }
    pub(crate) fn judged(failed: &[&str], inconclusive: &[&str]) -> Outcome {
        let seen = not_passed(failed, inconclusive);
        let why = seen
            .items()
            .into_iter()
            .map(|item| (item.clone(), "expected a denial; seen reached".to_owned()))
            .collect();
        Outcome::Judged { seen, why }
    }
    fn cause() -> Cause {
        Cause {
            what: "no answer".into(),
            hint: Some("ask again".into()),
        }
    }

    /// A clean pass, a fault that breaks NET-03, a harmless change and a state of the cluster, with these outcomes of the first three.
    pub(crate) fn matrix(outcomes: [Option<Outcome>; 3]) -> Matrix {
        let planned = |fault: &str, breaks: &str, expected, cluster: Option<&str>| Planned {
            fault: fault.into(),
            breaks: breaks.into(),
            expected,
            cluster: cluster.map(ToOwned::to_owned),
        };
        let faults = vec![
            planned("clean-pass", "nothing", NotPassed::default(), None),
            planned(
                "no-default-deny",
                "b's default-deny-ingress is gone",
                not_passed(&["NET-03 a -> b"], &[]),
                None,
            ),
            planned(
                "extra-labels",
                "nothing: more labels | on everything",
                NotPassed::default(),
                None,
            ),
            planned(
                "ignores-policies",
                "the network plugin",
                not_passed(&["NET-01 cluster"], &[]),
                Some("cni-none"),
            ),
        ];
        let beginning = Beginning {
            cluster: "lab".into(),
            server: "https://127.0.0.1:16443".into(),
            version: "v1.34.4".into(),
            user: "lab-admin".into(),
            jobs: 4,
            faults,
            at: "2026-01-02T03:04:05Z".into(),
        };
        let mut matrix = Matrix::default();
        matrix.absorb(&Step::Began(Box::new(beginning)));
        for (outcome, fault) in outcomes
            .into_iter()
            .zip(["clean-pass", "no-default-deny", "extra-labels"])
        {
            if let Some(outcome) = outcome {
                matrix.absorb(&Step::Finished(Trial {
                    fault: fault.into(),
                    outcome,
                    took: Duration::from_millis(14200),
                }));
            }
        }
        matrix
    }

    fn net_03() -> Option<Outcome> {
        Some(judged(&["NET-03 a -> b"], &[]))
    }
    fn all_passed() -> Option<Outcome> {
        Some(judged(&[], &[]))
    }

    #[rstest]
    #[case::all_exact([all_passed(), net_03(), all_passed()], 0)]
    #[case::a_fault_is_not_seen([all_passed(), all_passed(), all_passed()], 1)]
    #[case::a_fault_is_seen_elsewhere_too([all_passed(), Some(judged(&["NET-03 a -> b", "QUO-01 a"], &[])), all_passed()], 1)]
    #[case::undecided_is_not_failed([all_passed(), Some(judged(&[], &["NET-03 a -> b"])), all_passed()], 1)]
    #[case::a_harmless_change_turns_red([all_passed(), net_03(), net_03()], 1)]
    #[case::not_plantable([all_passed(), Some(Outcome::NotPlantable(cause())), all_passed()], 1)]
    #[case::trouble([all_passed(), Some(Outcome::Trouble(cause())), all_passed()], 3)]
    #[case::a_difference_outranks_trouble([all_passed(), all_passed(), Some(Outcome::Trouble(cause()))], 1)]
    #[case::one_without_a_result([all_passed(), net_03(), None], 3)]
    #[case::the_clean_pass_is_not_clean([net_03(), all_passed(), all_passed()], 3)]
    #[case::no_clean_pass([None, net_03(), all_passed()], 3)]
    fn only_equal_sets_are_exact(#[case] outcomes: [Option<Outcome>; 3], #[case] code: u8) {
        assert_eq!(matrix(outcomes).ending().code(), code);
    }

    #[rstest]
    #[case::one_more_could_not_be_judged(judged(&["NET-03 a -> b"], &["APP-17 a -> b"]), true)]
    #[case::the_item_itself_could_not_be_judged(judged(&[], &["NET-03 a -> b"]), true)]
    #[case::trouble(Outcome::Trouble(cause()), true)]
    #[case::exact(judged(&["NET-03 a -> b"], &[]), false)]
    #[case::the_fault_was_not_seen(judged(&[], &[]), false)]
    #[case::something_else_failed(judged(&["NET-03 a -> b", "QUO-01 a"], &[]), false)]
    #[case::something_else_failed_too(judged(&["QUO-01 a"], &["NET-03 a -> b"]), false)]
    #[case::not_plantable(Outcome::NotPlantable(cause()), false)]
    fn only_what_could_not_be_judged_is_asked_again(#[case] outcome: Outcome, #[case] again: bool) {
        assert_eq!(outcome.is_undecided(&not_passed(&["NET-03 a -> b"], &[])), again);
    }

    #[test]
    fn the_second_planting_decides_and_the_first_is_kept() {
        let undecided = judged(&["NET-03 a -> b"], &["APP-17 a -> b"]);
        let mut matrix = matrix([all_passed(), Some(undecided), all_passed()]);
        assert_eq!(matrix.ending().code(), 1);
        matrix.absorb(&Step::Finished(Trial {
            fault: "no-default-deny".into(),
            outcome: judged(&["NET-03 a -> b"], &[]),
            took: Duration::from_secs(30),
        }));
        assert_eq!(matrix.ending().code(), 0);
        assert_eq!((matrix.counts().exact, matrix.counts().at_second), (2, 1));
    }

    #[test]
    fn a_difference_names_item_and_both_results() {
        let matrix = matrix([
            all_passed(),
            Some(judged(&["QUO-01 a"], &["NET-03 a -> b"])),
            None,
        ]);
        let Standing::Differs(differences) = matrix.rows[1].standing() else {
            panic!("it differs")
        };
        let told: Vec<_> = differences
            .iter()
            .map(|each| (each.item.as_str(), each.expected, each.seen))
            .collect();
        assert_eq!(
            told,
            [
                ("NET-03 a -> b", "failed", "inconclusive"),
                ("QUO-01 a", "passed", "failed")
            ]
        );
    }

    #[test]
    fn a_state_of_the_cluster_counts_as_neither() {
        let counts = matrix([all_passed(), net_03(), all_passed()]).counts();
        assert_eq!(
            counts,
            Counts {
                exact: 2,
                at_second: 0,
                here: 2,
                faults: 1,
                harmless: 1,
                elsewhere: 1
            }
        );
    }

    #[test]
    fn an_interrupted_one_says_so_whatever_was_seen() {
        let mut matrix = matrix([all_passed(), all_passed(), None]);
        matrix.absorb(&Step::Interrupted("SIGINT".into()));
        assert_eq!(matrix.ending().code(), 130);
    }
}

//! What a run came to: a fold over its events. Every document is a pure function of it.

use crate::check::{self, Profile};
use crate::event::{Beginning, Event};
use crate::retry::Retried;
use crate::settings::Waiver;
use crate::verdict::Verdict;
use jiff::civil::Date;
use serde::Serialize;
use std::time::Duration;

/// How a run ends, as the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Every promise that was judged holds.
    Conformant,
    /// At least one promise is broken.
    Broken,
    /// None was seen broken, and at least one could not be judged.
    Inconclusive,
    /// There was nothing to judge.
    NothingToRun,
    /// Interrupted, after clean-up.
    Interrupted,
}

/// 0: conformant.
pub const EXIT_CONFORMANT: u8 = 0;
/// 1: isolation is broken.
pub const EXIT_BROKEN: u8 = 1;
/// 2: usage or configuration.
pub const EXIT_USAGE: u8 = 2;
/// 3: inconclusive, or the harness could not do its work.
pub const EXIT_INCONCLUSIVE: u8 = 3;
/// 4: nothing to run.
pub const EXIT_NOTHING: u8 = 4;
/// 130: interrupted, after clean-up.
pub const EXIT_INTERRUPTED: u8 = 130;

impl Ending {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Ending::Conformant => EXIT_CONFORMANT,
            Ending::Broken => EXIT_BROKEN,
            Ending::Inconclusive => EXIT_INCONCLUSIVE,
            Ending::NothingToRun => EXIT_NOTHING,
            Ending::Interrupted => EXIT_INTERRUPTED,
        }
    }
}

/// One item's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemResult {
    /// `NET-02 test-tenant-a -> test-tenant-b`.
    pub name: String,
    /// The check's id.
    pub check: &'static str,
    /// What was concluded.
    pub verdict: Verdict,
    /// How long it took.
    #[serde(skip)]
    pub took: Duration,
    /// The waiver that covers it, where one does.
    pub waived: Option<String>,
    done: bool,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it said of itself; absent when it never began.
    pub beginning: Option<Beginning>,
    /// A result for every planned item, in the plan's order.
    pub results: Vec<ItemResult>,
    /// What is worth knowing.
    pub notices: Vec<String>,
    /// How long its parts took.
    pub times: Vec<(&'static str, Duration)>,
    /// What failed in passing and was asked again.
    pub retried: Vec<Retried>,
    /// What could not be removed.
    pub left_behind: Vec<String>,
    /// What stopped it, where something did.
    pub interrupted: Option<String>,
    /// Why it came to no verdicts at all, where it did not.
    pub failure: Option<String>,
    waivers: Vec<Waiver>,
    today: Date,
}

/// How many items came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed and not waived.
    pub failed: usize,
    /// Inconclusive and not waived.
    pub inconclusive: usize,
    /// Left out.
    pub skipped: usize,
    /// Failed or inconclusive, and waived.
    pub waived: usize,
}

impl Counts {
    /// All items.
    pub fn all(self) -> usize {
        self.passed + self.failed + self.inconclusive + self.skipped + self.waived
    }
}

impl Report {
    /// An empty one. Waivers hold up to and including the day on which they expire.
    pub fn new(waivers: Vec<Waiver>, today: Date) -> Self {
        Report {
            beginning: None,
            results: Vec::new(),
            notices: Vec::new(),
            times: Vec::new(),
            retried: Vec::new(),
            left_behind: Vec::new(),
            interrupted: None,
            failure: None,
            waivers,
            today,
        }
    }

    /// Takes in one event.
    pub fn absorb(&mut self, event: &Event) {
        match event {
            Event::Began(beginning) => self.begin(beginning),
            Event::Notice(line) => self.notices.push(line.clone()),
            Event::Finished { item, verdict, took } => self.finish(item, verdict, *took),
            Event::Took(part, took) => self.times.push((part, *took)),
            Event::Retried(retried) => self.retried.clone_from(retried),
            Event::LeftBehind(what) => self.left_behind.push(what.clone()),
            Event::Interrupted(by) => self.interrupted = Some(by.clone()),
            Event::Progress(_) | Event::Started(_) | Event::CleaningUp(_) | Event::Ended => {}
        }
    }

    fn begin(&mut self, beginning: &Beginning) {
        for item in &beginning.items {
            let verdict = match &item.left_out {
                // A promise of the platform is not kept by a cluster on which it cannot be judged.
                Some(reason) if item.lacking && is_core(item.check) => Verdict::inconclusive(reason),
                Some(reason) => Verdict::Skipped {
                    reason: reason.clone(),
                },
                None => Verdict::inconclusive("the run ended before this item had a result"),
            };
            let waived = self.waiver(item.check);
            let done = item.left_out.is_some();
            let (name, check) = (item.name.clone(), item.check);
            self.results.push(ItemResult {
                name,
                check,
                verdict,
                took: Duration::ZERO,
                waived,
                done,
            });
        }
        self.beginning = Some(beginning.clone());
    }

    fn waiver(&mut self, check: &str) -> Option<String> {
        let waiver = self
            .waivers
            .iter()
            .find(|waiver| waiver.check.eq_ignore_ascii_case(check))?;
        let (reason, owner, expires) = (&waiver.reason, &waiver.owner, waiver.expires);
        if expires < self.today {
            let lapsed =
                format!("the waiver of {check} by {owner} lapsed on {expires}: the check counts again");
            if !self.notices.contains(&lapsed) {
                self.notices.push(lapsed);
            }
            return None;
        }
        Some(format!("{reason} ({owner}, until {expires})"))
    }

    /// The first result of an item counts; another is a fault of ours, which no verdict may hide.
    fn finish(&mut self, item: &str, verdict: &Verdict, took: Duration) {
        match self.results.iter_mut().find(|result| result.name == item) {
            Some(result) if !result.done => {
                result.verdict = verdict.clone();
                result.took = took;
                result.done = true;
            }
            Some(result) => {
                result.verdict = Verdict::inconclusive("this item had two results: a fault of the harness");
            }
            None => self.notices.push(format!(
                "a result for {item}, which was not planned: a fault of the harness"
            )),
        }
    }

    /// How many items came to what.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for result in &self.results {
            let slot = match (&result.verdict, &result.waived) {
                (Verdict::Passed(_), _) => &mut counts.passed,
                (Verdict::Skipped { .. }, _) => &mut counts.skipped,
                (Verdict::Failed { .. } | Verdict::Inconclusive(_), Some(_)) => &mut counts.waived,
                (Verdict::Failed { .. }, None) => &mut counts.failed,
                (Verdict::Inconclusive(_), None) => &mut counts.inconclusive,
            };
            *slot += 1;
        }
        counts
    }

    /// How the run ends. A broken promise outranks all else but an interruption.
    pub fn ending(&self) -> Ending {
        let counts = self.counts();
        if self.interrupted.is_some() {
            Ending::Interrupted
        } else if counts.failed > 0 {
            Ending::Broken
        } else if counts.inconclusive > 0 || !self.left_behind.is_empty() || self.beginning.is_none() {
            Ending::Inconclusive
        } else if counts.passed + counts.waived == 0 {
            Ending::NothingToRun
        } else {
            Ending::Conformant
        }
    }

    /// The verdict in one line. The word "isolated" is kept for a run in which the whole core passed, and the gate against escape to the
    /// node: who gets there is held by nothing else. A run in which one of these was left out or waived is "conformant".
    pub fn headline(&self) -> String {
        let counts = self.counts();
        let (passed, all) = (counts.passed, counts.all());
        let partial = if self.skipped_core() {
            format!(", partial: {} of {all} judged", all - counts.skipped)
        } else {
            String::new()
        };
        let waived = if counts.waived > 0 {
            format!(", {} waived", counts.waived)
        } else {
            String::new()
        };
        match self.ending() {
            Ending::Conformant => {
                let word = if self.shows_isolation() {
                    "isolated"
                } else {
                    "conformant"
                };
                format!("{word}: {passed} of {all} checks{partial}{waived}")
            }
            Ending::Broken => format!(
                "not conformant: {} failed, {passed} of {all} passed, {} inconclusive{partial}{waived}",
                counts.failed, counts.inconclusive
            ),
            Ending::Inconclusive => {
                format!(
                    "inconclusive: {} undecided, {passed} of {all} passed{partial}{waived}",
                    counts.inconclusive
                )
            }
            Ending::NothingToRun => "nothing to run: every check was left out".to_owned(),
            Ending::Interrupted => {
                let by = self.interrupted.as_deref().unwrap_or("a signal");
                format!(
                    "interrupted by {by}: {passed} of {all} passed before, {} failed",
                    counts.failed
                )
            }
        }
    }

    /// Whether every check of the core and of the gate against escape to the node was judged, and all of their items passed.
    fn shows_isolation(&self) -> bool {
        let needed = check::ALL.iter().map(|check| check.info());
        let mut needed =
            needed.filter(|info| info.profile == Profile::Core || check::is_of_the_gate(info.id));
        needed.all(|info| {
            let mut items = self
                .results
                .iter()
                .filter(|result| result.check == info.id)
                .peekable();
            items.peek().is_some() && items.all(|item| matches!(item.verdict, Verdict::Passed(_)))
        })
    }

    fn skipped_core(&self) -> bool {
        self.results
            .iter()
            .any(|result| matches!(result.verdict, Verdict::Skipped { .. }) && is_core(result.check))
    }
}

fn is_core(id: &str) -> bool {
    check::find(id).is_some_and(|check| check.info().profile == Profile::Core)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::{PlannedItem, TenantBefore};
    use crate::verdict::{Evidence, Figure, Finding};
    use rstest::rstest;

    /// A report with these verdicts for the items of a small plan.
    pub(crate) fn report(verdicts: &[Option<Verdict>], waivers: Vec<Waiver>) -> Report {
        let checks = ["NET-01", "NET-02", "QUO-01"];
        let name = |index: usize| format!("{} subject", checks[index]);
        let items = verdicts.iter().enumerate().map(|(index, verdict)| PlannedItem {
            name: name(index),
            check: checks[index],
            left_out: match verdict {
                Some(Verdict::Skipped { reason }) => Some(reason.clone()),
                _ => None,
            },
            lacking: false,
        });
        let beginning = Beginning {
            run: "0a1b2c3d".into(),
            cluster: "lab".into(),
            server: "https://127.0.0.1:16443".into(),
            version: "v1.34.4".into(),
            user: "lab-admin".into(),
            local: Some("lab".into()),
            nodes: vec!["lab".into()],
            tenants: vec![TenantBefore {
                id: "test-tenant-a".into(),
                existed: false,
            }],
            items: items.collect(),
            kept: false,
            at: "2026-01-02T03:04:05Z".into(),
        };
        let mut report = Report::new(waivers, jiff::civil::date(2026, 6, 1));
        report.absorb(&Event::Began(Box::new(beginning)));
        for (index, verdict) in verdicts.iter().enumerate() {
            if let Some(verdict) = verdict.clone()
                && !matches!(verdict, Verdict::Skipped { .. })
            {
                let took = Duration::from_millis(1500);
                report.absorb(&Event::Finished {
                    item: name(index),
                    verdict,
                    took,
                });
            }
        }
        report
    }

    #[rstest]
    #[case::a_promise_of_the_platform("NET-12", "inconclusive")]
    #[case::another("NET-07", "skipped")]
    fn what_the_cluster_lacks_leaves_a_core_check_undecided(#[case] check: &'static str, #[case] word: &str) {
        let mut beginning = report(&[passed()], vec![]).beginning.unwrap();
        beginning.items = vec![PlannedItem {
            name: format!("{check} a"),
            check,
            left_out: Some("needs a host on the internet".into()),
            lacking: true,
        }];
        let mut report = Report::new(vec![], jiff::civil::date(2026, 6, 1));
        report.absorb(&Event::Began(Box::new(beginning)));
        assert_eq!(report.results[0].verdict.word(), word);
    }

    pub(crate) fn passed() -> Option<Verdict> {
        Some(Verdict::Passed(Evidence {
            summary: "2 of 2 denied (timed out); control: a -> sink: nonce echoed in 1 ms".into(),
            controls: vec!["a -> sink: nonce echoed in 1 ms".into()],
            observed: vec!["a -> b: denied (timed out)".into()],
            figures: vec![Figure {
                name: "time to enforce".into(),
                value: 120.0,
                unit: "ms",
            }],
        }))
    }
    pub(crate) fn failed() -> Option<Verdict> {
        let findings = vec![Finding {
            expected: "a -> b is denied".into(),
            seen: "reached (\u{1b}[31m]]>)".into(),
        }];
        Some(Verdict::Failed {
            findings,
            observed: vec!["a -> b: reached".into()],
        })
    }
    pub(crate) fn inconclusive() -> Option<Verdict> {
        Some(Verdict::inconclusive("exec in pod x: cut off"))
    }
    pub(crate) fn skipped() -> Option<Verdict> {
        Some(Verdict::Skipped {
            reason: "left out by --skip".into(),
        })
    }
    fn waiver(expires: Date) -> Vec<Waiver> {
        vec![Waiver {
            check: "NET-01".into(),
            reason: "known".into(),
            owner: "me".into(),
            expires,
        }]
    }

    /// A run of every check, one item each, in which these came to something else.
    fn whole(others: &[(&'static str, Option<Verdict>)], waived: &[&str]) -> Report {
        let mut beginning = report(&[passed()], vec![]).beginning.unwrap();
        let name = |id: &str| format!("{id} a");
        let verdict = |id: &str| {
            let other = others.iter().find(|(check, _)| *check == id);
            other.map_or_else(passed, |(_, verdict)| verdict.clone())
        };
        let ids = check::ALL.iter().map(|check| check.info().id);
        beginning.items = ids
            .clone()
            .map(|id| PlannedItem {
                name: name(id),
                check: id,
                left_out: match verdict(id) {
                    Some(Verdict::Skipped { reason }) => Some(reason),
                    _ => None,
                },
                lacking: false,
            })
            .collect();
        let waivers = waived.iter().map(|check| Waiver {
            check: (*check).to_owned(),
            ..waiver(jiff::civil::date(2026, 12, 31)).remove(0)
        });
        let mut report = Report::new(waivers.collect(), jiff::civil::date(2026, 6, 1));
        report.absorb(&Event::Began(Box::new(beginning)));
        for id in ids {
            let verdict = verdict(id).unwrap();
            if !matches!(verdict, Verdict::Skipped { .. }) {
                report.absorb(&Event::Finished {
                    item: name(id),
                    verdict,
                    took: Duration::ZERO,
                });
            }
        }
        report
    }

    #[rstest]
    #[case::everything_passed(&[], &[], "isolated: ")]
    #[case::one_of_the_core_left_out(&[("NET-02", skipped())], &[], "conformant: ")]
    #[case::one_of_the_gate_left_out(&[("ADM-05", skipped())], &[], "conformant: ")]
    #[case::another_left_out(&[("NET-10", skipped())], &[], "isolated: ")]
    #[case::one_of_the_core_waived(&[("QUO-01", failed())], &["QUO-01"], "conformant: ")]
    #[case::one_of_the_gate_waived(&[("ADM-02", failed())], &["ADM-02"], "conformant: ")]
    #[case::another_waived(&[("NET-10", failed())], &["NET-10"], "isolated: ")]
    #[case::a_waiver_that_was_not_needed(&[], &["ADM-02"], "isolated: ")]
    #[case::one_failed(&[("NET-10", failed())], &[], "not conformant: 1 failed, ")]
    #[case::one_of_the_gate_undecided(&[("ADM-03", inconclusive())], &[], "inconclusive: 1 undecided, ")]
    fn only_the_whole_core_and_the_gate_make_it_isolated(
        #[case] others: &[(&'static str, Option<Verdict>)],
        #[case] waived: &[&str],
        #[case] begins: &str,
    ) {
        let headline = whole(others, waived).headline();
        assert!(headline.starts_with(begins), "{headline}");
    }

    /// No one item passes for the others of its check.
    #[test]
    fn one_item_of_the_gate_that_has_no_result_is_enough() {
        let mut report = whole(&[], &[]);
        assert!(
            report.headline().starts_with("isolated: "),
            "{}",
            report.headline()
        );
        let mut more = report
            .results
            .iter()
            .find(|result| result.check == "ADM-02")
            .unwrap()
            .clone();
        more.name = "ADM-02 b".to_owned();
        more.verdict = skipped().unwrap();
        report.results.push(more);
        assert!(
            report.headline().starts_with("conformant: "),
            "{}",
            report.headline()
        );
    }

    #[rstest]
    #[case::all_passed(&[passed(), passed()], 0, "conformant: 2 of 2 checks")]
    #[case::one_left_out(&[passed(), skipped()], 0, "conformant: 1 of 2 checks, partial: 1 of 2 judged")]
    #[case::one_failed(&[passed(), failed(), inconclusive()], 1, "not conformant: 1 failed, 1 of 3 passed, 1 inconclusive")]
    #[case::one_undecided(&[passed(), inconclusive()], 3, "inconclusive: 1 undecided, 1 of 2 passed")]
    #[case::one_without_a_result(&[passed(), None], 3, "inconclusive: 1 undecided, 1 of 2 passed")]
    #[case::all_left_out(&[skipped()], 4, "nothing to run: every check was left out")]
    fn the_worst_result_decides(
        #[case] verdicts: &[Option<Verdict>],
        #[case] code: u8,
        #[case] headline: &str,
    ) {
        let report = report(verdicts, Vec::new());
        assert_eq!(
            (report.ending().code(), report.headline().as_str()),
            (code, headline)
        );
    }

    #[test]
    fn a_waived_failure_is_counted_and_named() {
        let report = report(&[failed(), passed()], waiver(jiff::civil::date(2026, 6, 1)));
        assert_eq!(report.headline(), "conformant: 1 of 2 checks, 1 waived");
        assert_eq!(
            report.results[0].waived.as_deref(),
            Some("known (me, until 2026-06-01)")
        );
    }

    #[test]
    fn an_expired_waiver_lapses_and_says_so() {
        let report = report(&[failed(), passed()], waiver(jiff::civil::date(2026, 5, 31)));
        assert_eq!(report.ending(), Ending::Broken);
        assert!(
            report.notices[0].contains("lapsed on 2026-05-31"),
            "{:?}",
            report.notices
        );
    }

    #[test]
    fn what_was_left_behind_makes_a_pass_inconclusive() {
        let mut report = report(&[passed()], Vec::new());
        report.absorb(&Event::LeftBehind("pod x".into()));
        assert_eq!(report.ending(), Ending::Inconclusive);
    }

    #[test]
    fn an_interrupted_run_says_by_what() {
        let mut report = report(&[failed(), None], Vec::new());
        report.absorb(&Event::Interrupted("SIGINT".into()));
        assert_eq!(report.ending().code(), 130);
        assert!(report.headline().starts_with("interrupted by SIGINT"));
    }

    #[test]
    fn a_second_result_never_hides_the_first() {
        let mut report = report(&[failed()], Vec::new());
        let (verdict, took) = (passed().unwrap(), Duration::ZERO);
        report.absorb(&Event::Finished {
            item: "NET-01 subject".into(),
            verdict,
            took,
        });
        assert_eq!(report.results[0].verdict.word(), "inconclusive");
    }

    #[test]
    fn a_run_that_never_began_is_inconclusive() {
        assert_eq!(
            Report::new(Vec::new(), jiff::civil::date(2026, 6, 1)).ending(),
            Ending::Inconclusive
        );
    }
}

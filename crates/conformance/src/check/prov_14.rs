//! PROV-14: a run leaves nothing behind. Judged when all is removed, by the search that `conformance clean` uses; its control is that the
//! same search found the run's objects before.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::ledger::Entry;
use crate::registrations;
use crate::removal::{self, Leftover};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Prov14;

static INFO: CheckInfo = CheckInfo {
    id: "PROV-14",
    title: "the run leaves nothing behind",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::Read,
    why: "A test that leaves pods, namespaces or rights behind is itself a hole in the cluster it certifies, and its next run measures its own remains.",
    how: "After clean-up every kind that a run makes is listed in the whole cluster by the run's mark, and PostgreSQL and Redis are asked for its tenants' roles, rows, users and keys; nothing is found. Control: the same search found the run's objects before clean-up.",
    remedy: "look at what is named: a finalizer that nobody serves, or an API server that went away; then conformance clean",
    schedule: Schedule::AfterCleanUp,
    timeout: Duration::from_secs(60),
};

impl Check for Prov14 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::cluster(tenants)
    }

    fn needs(&self, _subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        Vec::new()
    }

    fn run<'a>(
        &self,
        cx: &'a Context,
        _subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let Some(before) = cx.before_clean_up.get() else {
                return Err(HarnessError::new("nobody looked before clean-up"));
            };
            let (found, registered) = futures::join!(
                removal::left_by(&cx.site.cluster.client, cx.site.mark.run.as_str()),
                registrations_left(cx, &before.registrations)
            );
            let found = [found?, registered?].concat();
            Ok(judge(before.found.clone().map_err(|error| error.what), &found))
        }
        .boxed()
    }
}

/// Registrations that PostgreSQL or Redis know still.
async fn registrations_left(cx: &Context, entries: &[Entry]) -> Result<Vec<Leftover>, HarnessError> {
    let site = &cx.site;
    let states = entries
        .iter()
        .map(|entry| registrations::state(&site.cluster.client, &site.settings, entry));
    let states = try_join_all(states).await?;
    let left = entries.iter().zip(states).filter(|(_, state)| !state.is_empty());
    let left = left.map(|(entry, _)| Leftover {
        entry: entry.clone(),
        run: site.mark.run.to_string(),
        expires: None,
        going: false,
        registered: false,
    });
    Ok(left.collect())
}

/// How many of the run's objects the search found before clean-up; an error where it missed one that the ledger had.
pub(crate) fn seen_before(found: &[Entry], ledger: &[Entry]) -> Result<usize, HarnessError> {
    match ledger.iter().find(|entry| !found.contains(entry)) {
        None => Ok(found.len()),
        Some(missed) => Err(HarnessError::new(format!(
            "it did not find {missed}, which was there"
        ))),
    }
}

/// What is there still and may stay is a failure. What is being deleted, and held by nothing but a node or a controller that does not do its
/// work, is no doing of the run's, and not known to go either.
fn judge(before: Result<usize, String>, after: &[Leftover]) -> Verdict {
    let holds = match before {
        Ok(0) => Err("it found nothing of this run then, though there was something".to_owned()),
        Ok(count) => Ok(format!("all {count} object(s) of this run found before clean-up")),
        Err(why) => Err(why),
    };
    let control = Control {
        claim: "the search sees what a run makes".to_owned(),
        holds,
    };
    let mut probes: Vec<Observed> = after
        .iter()
        .map(|leftover| Observed {
            what: leftover.entry.to_string(),
            observation: if leftover.going {
                Observation::Broken("its deletion was accepted, and is not carried out yet".to_owned())
            } else {
                Observation::Reached("still there".to_owned())
            },
        })
        .collect();
    if probes.is_empty() {
        let observation = Observation::Denied("nothing found".to_owned());
        probes.push(Observed {
            what: "search for what carries this run's mark".to_owned(),
            observation,
        });
    }
    let verdict = judge_denied(&prove(&[control]), &probes);
    match verdict {
        Verdict::Passed(mut evidence) => {
            let control = evidence.controls.first().cloned().unwrap_or_default();
            evidence.summary = format!("nothing is left; control: {control}");
            Verdict::Passed(evidence)
        }
        Verdict::Failed {
            mut findings,
            observed,
        } => {
            let staying = after.iter().filter(|leftover| !leftover.going);
            for (finding, leftover) in findings.iter_mut().zip(staying) {
                finding.expected = format!("{} is gone", leftover.entry);
            }
            Verdict::Failed { findings, observed }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Kind;
    use rstest::rstest;

    fn entry() -> Entry {
        Entry {
            kind: Kind::Pod,
            namespace: Some("n".into()),
            name: "p".into(),
        }
    }

    fn left(going: bool) -> Leftover {
        Leftover {
            entry: entry(),
            run: "0a1b2c3d".into(),
            expires: None,
            going,
            registered: false,
        }
    }

    #[rstest]
    #[case::clean(Ok(12), vec![], "passed")]
    #[case::a_leftover(Ok(12), vec![left(false)], "failed")]
    #[case::a_node_that_does_not_do_its_work(Ok(12), vec![left(true)], "inconclusive")]
    #[case::one_of_each(Ok(12), vec![left(true), left(false)], "failed")]
    #[case::a_search_that_sees_nothing(Ok(0), vec![], "inconclusive")]
    #[case::a_search_that_failed(Err("list pods: 500".to_owned()), vec![], "inconclusive")]
    fn nothing_found_counts_only_for_a_search_that_finds(
        #[case] before: Result<usize, String>,
        #[case] after: Vec<Leftover>,
        #[case] expected: &str,
    ) {
        assert_eq!(judge(before, &after).word(), expected);
    }

    #[test]
    fn a_search_that_misses_one_object_of_the_ledger_is_no_control() {
        let other = Entry {
            kind: Kind::Namespace,
            namespace: None,
            name: "n".into(),
        };
        assert_eq!(seen_before(&[entry(), other.clone()], &[entry()]), Ok(2));
        assert!(seen_before(&[entry()], &[entry(), other]).is_err());
    }

    #[test]
    fn a_leftover_is_named() {
        let Verdict::Failed { findings, .. } = judge(Ok(1), &[left(false)]) else {
            panic!("expected a failure")
        };
        assert_eq!(findings[0].expected, "pod p in namespace n is gone");
    }
}

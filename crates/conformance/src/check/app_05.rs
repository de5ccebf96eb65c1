//! APP-05: a webhook holds for its moment, and once.

use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use crate::webhook::{self, Answer, Effects, Forged, Logs, Message, Webhooks};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::{SignedDuration, Timestamp};
use provisioner::TenantId;
use std::time::Duration;
use tokio::time::Instant;

/// The check.
pub(super) struct App05;

static INFO: CheckInfo = CheckInfo {
    id: "APP-05",
    title: "a webhook is refused outside of its time, and has one effect however often it comes",
    profile: Profile::Baseline,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "Whoever saw one webhook has its signature too. Without a time that is signed with it, and without a memory of what was done, it can be sent again for ever.",
    how: "Where the contract has a timestamp: webhooks signed for twice its tolerance ago and ahead, and one whose timestamp was changed after signing, must be answered 401 or 403 and never be enhanced. And eight valid webhooks are sent twice, byte by byte: each must be enhanced once, whether the second is accepted as a repetition or refused; that is looked at once a webhook sent after them was enhanced. Controls: valid webhooks before and after are accepted and enhanced, and all tenants' logs were read.",
    remedy: "put the timestamp into what is signed and refuse what is older or younger than some minutes; store under the webhook's own id so that a second one changes nothing (on conflict do nothing)",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

/// What overtakes a webhook that was enhanced gets so long.
const SETTLE: Duration = Duration::from_millis(500);
/// So many webhooks are sent twice: where any of several workers may take one, a single one could go well by chance.
const REPEATED: usize = 8;
const NOT_COVERED: &str = "not covered: the contract has no timestamp, so nothing is said of webhooks that are old, ahead of time or redated";

impl Check for App05 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        webhook::needs(tenants)
    }

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::Webhooks]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let webhooks = cx.stage.webhooks().await?;
            let tenant = subject.tenant()?;
            webhooks.awake(tenant).await;
            let (valid, redated) = ([tenant], redated(&webhooks, tenant)?);
            let (refused, repeated) = futures::join!(
                webhook::refused(&webhooks, &valid, redated),
                repeated(&webhooks, tenant)
            );
            let (mut probes, mut controls) = (Vec::new(), Vec::new());
            for (what, seen) in [("stale", refused), ("repeated", repeated)] {
                match seen {
                    Ok(seen) => {
                        probes.extend(seen.probes);
                        controls.extend(seen.controls);
                    }
                    Err(error) => probes.push(Observed::unknown(
                        format!("what became of {what} webhooks to {tenant}"),
                        &error,
                    )),
                }
            }
            let verdict = judge_denied(&prove(&controls), &probes);
            Ok(told(verdict, webhooks.application().timestamp.is_some()))
        }
        .boxed()
    }
}

/// Webhooks of another time than now; none where the contract has no timestamp.
fn redated(webhooks: &Webhooks, tenant: &TenantId) -> Result<Vec<Forged>, HarnessError> {
    let application = webhooks.application();
    let Some(form) = &application.timestamp else {
        return Ok(Vec::new());
    };
    let away = SignedDuration::try_from(form.tolerance * 2)
        .map_err(|error| HarnessError::during("compute a moment outside of the tolerance", &error))?;
    let now = Timestamp::now();
    let signed_at = |what: &str, at| {
        let message = webhooks.message(tenant)?.at(application, at);
        let what = format!("webhook to {tenant} {what}");
        Ok::<_, HarnessError>(Forged::new(what, webhooks.signed(message, tenant)?))
    };
    let minutes = away.as_secs() / 60;
    let redated = webhooks
        .valid(tenant)?
        .at(application, now - SignedDuration::from_secs(1));
    Ok(vec![
        signed_at(&format!("signed {minutes} min ago"), now - away)?,
        signed_at(&format!("signed for in {minutes} min"), now + away)?,
        Forged::new(
            format!("webhook to {tenant} redated after it was signed"),
            redated,
        ),
    ])
}

/// Webhooks sent twice, and what came of them.
async fn repeated(webhooks: &Webhooks, tenant: &TenantId) -> Result<webhook::Seen, HarnessError> {
    let messages = (0..REPEATED).map(|_| webhooks.valid(tenant));
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    let claim = format!("webhooks to {tenant} that are repeated are enhanced the first time");
    let first = enhanced(webhooks, &messages, claim).await;
    let again = join_all(messages.iter().map(|message| webhooks.send(message))).await;
    // One that comes after it has been enhanced: what the repetitions set off has had its turn.
    let claim = format!("a webhook to {tenant} after the repetitions is enhanced");
    let last = enhanced(webhooks, &[webhooks.valid(tenant)?], claim).await;
    tokio::time::sleep(SETTLE).await;
    let nonces: Vec<String> = messages.into_iter().map(|message| message.nonce).collect();
    let effects = webhooks.await_anywhere(&nonces, Instant::now()).await?;
    let namespaces: Vec<String> = webhooks.tenants().map(TenantId::namespace).collect();
    let mut logs = webhooks.logs().await;
    if logs.gap(namespaces.iter().map(String::as_str)).is_some() {
        // It may pass.
        tokio::time::sleep(SETTLE).await;
        logs = webhooks.logs().await;
    }
    let readable = logs.readable(namespaces.iter().map(String::as_str));
    let probes = nonces.iter().zip(&again).map(|(nonce, answer)| Observed {
        what: format!("second effect of webhook {nonce} to {tenant}, sent again"),
        observation: observe(answer, nonce, &effects, &logs),
    });
    Ok(webhook::Seen {
        probes: probes.collect(),
        controls: vec![first, last, readable],
    })
}

/// Sends valid webhooks and waits until they are enhanced, for whomever: whose they become is for other checks to say.
async fn enhanced(webhooks: &Webhooks, messages: &[Message], claim: String) -> Control {
    let within = webhooks.application().within;
    let answers = join_all(messages.iter().map(|message| webhooks.send(message))).await;
    if let Some(answer) = answers.iter().find(|answer| !answer.is_accepted()) {
        let holds = Err(answer.to_string());
        return Control { claim, holds };
    }
    let nonces: Vec<String> = messages.iter().map(|message| message.nonce.clone()).collect();
    let effects = webhooks.await_anywhere(&nonces, Instant::now() + within);
    let holds = match effects.await {
        Ok(effects) if effects.len() == nonces.len() => Ok(format!("{} of {}", effects.len(), nonces.len())),
        Ok(effects) => Err(format!(
            "{} of {} within {} s",
            effects.len(),
            nonces.len(),
            within.as_secs()
        )),
        Err(error) => Err(error.what),
    };
    Control { claim, holds }
}

/// What a repetition's fate says: rows, and lines of workers that say that it was enhanced.
fn observe(answer: &Answer, nonce: &str, effects: &Effects, logs: &Logs) -> Observation {
    let rows = effects.get(nonce).map_or(0, Vec::len);
    let lines = logs.enhanced(nonce).count();
    if rows > 1 || lines > 1 {
        return Observation::Reached(format!(
            "{answer}; seen {rows} time(s), logged as enhanced {lines} time(s)"
        ));
    }
    match answer {
        Answer::Unavailable(why) => Observation::Broken(why.clone()),
        _ if rows == 0 => Observation::Broken(format!("{answer}; not even the first is seen")),
        // A repetition that overwrites a row shows in the log alone.
        _ if lines == 0 => Observation::Broken(format!(
            "{answer}; no worker's line says that it was enhanced (application.log.enhanced)"
        )),
        _ => Observation::Denied(format!("{answer}; enhanced once")),
    }
}

/// The verdict with what it does not cover.
fn told(verdict: Verdict, has_timestamp: bool) -> Verdict {
    match verdict {
        Verdict::Passed(mut evidence) if !has_timestamp => {
            evidence.summary = format!("{}; {NOT_COVERED}", evidence.summary);
            evidence.observed.push(NOT_COVERED.to_owned());
            Verdict::Passed(evidence)
        }
        Verdict::Failed {
            findings,
            mut observed,
        } if !has_timestamp => {
            observed.push(NOT_COVERED.to_owned());
            Verdict::Failed { findings, observed }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Evidence;
    use crate::webhook::Line;
    use rstest::rstest;
    use std::collections::BTreeSet;

    fn logs(lines: usize) -> Logs {
        let line = Line {
            namespace: "ai-agents-a".into(),
            pod: "w".into(),
            by_worker: true,
            nonces: BTreeSet::from(["n".to_owned()]),
            enhanced: Some("n".into()),
        };
        Logs {
            lines: vec![line; lines],
            ..Logs::default()
        }
    }

    #[rstest]
    #[case::accepted_as_a_repetition(Answer::Accepted(202), 1, 1, "denied")]
    #[case::refused(Answer::Refused(401), 1, 1, "denied")]
    #[case::a_conflict(Answer::Refused(409), 1, 1, "denied")]
    #[case::enhanced_twice(Answer::Accepted(202), 1, 2, "reached")]
    #[case::stored_twice(Answer::Accepted(202), 2, 1, "reached")]
    #[case::refused_and_enhanced_twice(Answer::Refused(401), 1, 2, "reached")]
    #[case::no_answer_and_enhanced_twice(Answer::Unavailable("no answer".into()), 1, 2, "reached")]
    #[case::no_answer(Answer::Unavailable("no answer".into()), 1, 1, "broken")]
    #[case::never_seen(Answer::Accepted(202), 0, 0, "broken")]
    #[case::never_logged(Answer::Accepted(202), 1, 0, "broken")]
    fn a_repetition_may_have_no_second_effect(
        #[case] answer: Answer,
        #[case] rows: usize,
        #[case] lines: usize,
        #[case] expected: &str,
    ) {
        let effects = Effects::from([("n".to_owned(), vec![None; rows])]);
        let word = match observe(&answer, "n", &effects, &logs(lines)) {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        assert_eq!(word, expected);
    }

    #[test]
    fn what_is_not_covered_is_told() {
        let passed = || Verdict::Passed(Evidence::default());
        let Verdict::Passed(evidence) = told(passed(), false) else {
            panic!("expected a pass")
        };
        assert!(evidence.summary.contains("no timestamp") && evidence.observed == [NOT_COVERED]);
        assert_eq!(told(passed(), true), passed());
    }
}

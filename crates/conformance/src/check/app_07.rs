//! APP-07: a tenant's own valid webhook stays its own, whatever tenant it claims to be.

use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use crate::webhook::{self, Answer, Effects, Logs, Message, Webhooks};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The check.
pub(super) struct App07;

static INFO: CheckInfo = CheckInfo {
    id: "APP-07",
    title: "a tenant's webhook that claims to be another tenant's stays its own",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "Which tenant a webhook is of must follow from the key that signed it. Where a header or a field of the body says it, every tenant writes into every other's data with a signature of its own.",
    how: "Webhooks to A, validly signed with A's key, that claim B in each header and in each field of the body that the settings name (application.claims): each must be processed as A's, or be refused. B must not see it with its own credentials, and none of its pods may log it. Controls: A's webhooks without a claim are enhanced for A, before and after; B's own are enhanced, seen and logged with B.",
    remedy: "take the tenant from the installation that was addressed (TENANT_ID) and from nothing that a sender writes: neither header nor body",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

/// Webhooks for each claim: where any of several workers may take one, a single one could go well by chance.
const EACH: usize = 3;
/// What overtakes a webhook that was enhanced gets so long.
const SETTLE: Duration = Duration::from_millis(500);

impl Check for App07 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::ordered_pairs(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        webhook::needs(tenants)
    }

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::Webhooks]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let (from, to) = subject.pair()?;
            decide(cx.stage.webhooks().await?.as_ref(), from, to).await
        }
        .boxed()
    }
}

/// A webhook that was sent.
struct Sent {
    /// By what it claims to be the other's; for one without a claim which one it is.
    what: String,
    nonce: String,
    answer: Answer,
}

/// All that was sent: those that claim, and those between which they were.
struct Batch {
    claims: Vec<Sent>,
    /// Of the tenant that claims, before and after.
    plain: [Sent; 2],
    /// Of the tenant that is claimed.
    own: Sent,
}

/// What came of them.
struct Seen {
    by_from: Effects,
    by_to: Effects,
    logs: Arc<Logs>,
    /// What could not be looked at.
    unknown: Vec<Observed>,
}

async fn decide(webhooks: &Webhooks, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    futures::join!(webhooks.awake(from), webhooks.awake(to));
    let batch = send(webhooks, from, to).await?;
    let seen = look(webhooks, from, to, &batch).await;
    Ok(judge(from, to, &batch, &seen))
}

async fn send(webhooks: &Webhooks, from: &TenantId, to: &TenantId) -> Result<Batch, HarnessError> {
    let plain = |what: &str, tenant| Ok::<_, HarnessError>((what.to_owned(), webhooks.valid(tenant)?));
    let claims = claims(webhooks, from, to)?;
    let (before, own) = futures::join!(
        sent(webhooks, plain("before", from)?),
        sent(webhooks, plain("of its own", to)?)
    );
    let claims = join_all(claims.into_iter().map(|claim| sent(webhooks, claim))).await;
    let after = sent(webhooks, plain("after", from)?).await;
    Ok(Batch {
        claims,
        plain: [before, after],
        own,
    })
}

async fn sent(webhooks: &Webhooks, (what, message): (String, Message)) -> Sent {
    let answer = webhooks.send(&message).await;
    Sent {
        what,
        nonce: message.nonce,
        answer,
    }
}

/// Valid webhooks of one tenant that claim another, one claim each, some of each.
fn claims(
    webhooks: &Webhooks,
    from: &TenantId,
    to: &TenantId,
) -> Result<Vec<(String, Message)>, HarnessError> {
    let application = webhooks.application();
    let mut claims = Vec::new();
    for _ in 0..EACH {
        for name in &application.claims.headers {
            let mut message = webhooks.valid(from)?;
            message.more.push((name.clone(), to.to_string()));
            claims.push((format!("header {name}"), message));
        }
        for field in &application.claims.fields {
            if let Some(message) = webhooks.message(from)?.claiming(field, to.as_str()) {
                claims.push((format!("field {field}"), webhooks.signed(message, from)?));
            }
        }
    }
    Ok(claims)
}

/// What each of the two sees, once all that was accepted is enhanced or the time for it is over.
async fn look(webhooks: &Webhooks, from: &TenantId, to: &TenantId, batch: &Batch) -> Seen {
    let deadline = Instant::now() + webhooks.application().within;
    let accepted = |sent: &&Sent| sent.answer.is_accepted();
    let nonce = |sent: &Sent| sent.nonce.clone();
    let of_from = batch.claims.iter().chain(&batch.plain).filter(accepted);
    let awaited: Vec<String> = of_from.map(nonce).collect();
    let own: Vec<String> = Some(&batch.own).filter(accepted).map(nonce).into_iter().collect();
    let (by_from, by_to) = futures::join!(
        webhooks.await_effects(from, &awaited, deadline),
        webhooks.await_effects(to, &own, deadline)
    );
    tokio::time::sleep(SETTLE).await;
    let claimed: Vec<String> = batch.claims.iter().map(|sent| sent.nonce.clone()).collect();
    let crossed = webhooks.effects(to, &claimed).await;
    let mut unknown = Vec::new();
    let mut known = |tenant: &TenantId, seen: Result<Effects, HarnessError>| {
        seen.unwrap_or_else(|error| {
            unknown.push(Observed::unknown(
                format!("what {tenant} sees of these webhooks"),
                &error,
            ));
            Effects::default()
        })
    };
    let (by_from, by_to, crossed) = (known(from, by_from), known(to, by_to), known(to, crossed));
    Seen {
        by_from,
        by_to: by_to.into_iter().chain(crossed).collect(),
        logs: webhooks.logs().await,
        unknown,
    }
}

fn judge(from: &TenantId, to: &TenantId, batch: &Batch, seen: &Seen) -> Verdict {
    let claim = |sent: &Sent| Observed {
        what: format!(
            "way to {to} of a webhook of {from} that claims it by {}",
            sent.what
        ),
        observation: observe(
            &sent.answer,
            seen.by_from.contains_key(&sent.nonce),
            crossed(&sent.nonce, to, seen),
        ),
    };
    let claims = batch.claims.iter().map(claim);
    let probes: Vec<Observed> = claims.chain(seen.unknown.iter().cloned()).collect();
    let namespaces = [from.namespace(), to.namespace()];
    let mut own = seen.logs.of(&batch.own.nonce);
    let logged = own.any(|line| line.namespace == to.namespace());
    let mut controls: Vec<Control> = batch
        .plain
        .iter()
        .map(|sent| plain_control(from, sent, &seen.by_from))
        .collect();
    controls.extend([
        plain_control(to, &batch.own, &seen.by_to),
        Control {
            claim: format!("{to}'s own webhook is logged in {}", to.namespace()),
            holds: logged
                .then(|| "it is".to_owned())
                .ok_or_else(|| "no line names it".to_owned()),
        },
        seen.logs.readable(namespaces.iter().map(String::as_str)),
    ]);
    judge_denied(&prove(&controls), &probes)
}

/// What shows that a webhook has become the other tenant's.
fn crossed(nonce: &str, to: &TenantId, seen: &Seen) -> Option<String> {
    if seen.by_to.contains_key(nonce) {
        return Some(format!("{to} sees it enhanced"));
    }
    let namespace = to.namespace();
    let line = seen.logs.of(nonce).find(|line| line.namespace == namespace);
    line.map(|line| format!("logged by {line}"))
}

/// What a claim's fate says: any refusal will do, since it is the tenant's own to make.
fn observe(answer: &Answer, own: bool, crossed: Option<String>) -> Observation {
    match (answer, crossed) {
        (answer, Some(crossed)) => Observation::Reached(format!("{answer}, and {crossed}")),
        (Answer::Accepted(_), None) if own => Observation::Denied("processed as its own".to_owned()),
        (Answer::Accepted(_), None) => {
            Observation::Broken(format!("{answer}, and enhanced for neither of the two"))
        }
        (Answer::Refused(_), None) => Observation::Denied(answer.to_string()),
        (Answer::Unavailable(why), None) => Observation::Broken(why.clone()),
    }
}

fn plain_control(tenant: &TenantId, sent: &Sent, seen: &Effects) -> Control {
    let Sent { what, nonce, answer } = sent;
    let holds = match (answer, seen.contains_key(nonce)) {
        (Answer::Accepted(_), true) => Ok(format!("{answer}, and enhanced")),
        (Answer::Accepted(_), false) => Err(format!("{answer}, and never enhanced")),
        _ => Err(answer.to_string()),
    };
    Control {
        claim: format!("a webhook of {tenant} without a claim is enhanced for it ({what})"),
        holds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::Line;
    use rstest::rstest;
    use std::collections::{BTreeMap, BTreeSet};

    fn id(text: &str) -> TenantId {
        TenantId::try_from(text).unwrap()
    }
    fn accepted(nonce: &str) -> Sent {
        Sent {
            what: nonce.to_owned(),
            nonce: nonce.to_owned(),
            answer: Answer::Accepted(202),
        }
    }
    fn enhanced(nonces: &[&str]) -> Effects {
        nonces
            .iter()
            .map(|nonce| ((*nonce).to_owned(), vec![None]))
            .collect()
    }
    fn line(namespace: &str, nonce: &str) -> Line {
        Line {
            namespace: namespace.into(),
            pod: "w".into(),
            by_worker: true,
            nonces: BTreeSet::from([nonce.to_owned()]),
            enhanced: None,
        }
    }

    /// One claim, processed as it must be.
    fn whole() -> (Batch, Seen) {
        let batch = Batch {
            claims: vec![accepted("claim")],
            plain: [accepted("before"), accepted("after")],
            own: accepted("own"),
        };
        let logs = Logs {
            lines: vec![line("ai-agents-a", "claim"), line("ai-agents-b", "own")],
            ..Logs::default()
        };
        let seen = Seen {
            unknown: Vec::new(),
            by_from: enhanced(&["before", "claim", "after"]),
            by_to: enhanced(&["own"]),
            logs: Arc::new(logs),
        };
        (batch, seen)
    }

    fn logged(seen: &mut Seen, namespace: &str, nonce: &str) {
        let mut logs = seen.logs.as_ref().clone();
        logs.lines.push(line(namespace, nonce));
        seen.logs = Arc::new(logs);
    }

    fn unread(seen: &mut Seen) {
        let mut logs = seen.logs.as_ref().clone();
        logs.gaps = BTreeMap::from([("ai-agents-b".to_owned(), vec!["403".to_owned()])]);
        seen.logs = Arc::new(logs);
    }

    fn refused(code: u16) -> Answer {
        Answer::of(http::StatusCode::from_u16(code).unwrap())
    }

    #[rstest]
    #[case::processed_as_its_own(|_: &mut Batch, _: &mut Seen| {}, "passed")]
    #[case::refused(|batch: &mut Batch, seen: &mut Seen| { batch.claims[0].answer = refused(403); seen.by_from.remove("claim"); }, "passed")]
    #[case::refused_as_malformed(|batch: &mut Batch, seen: &mut Seen| { batch.claims[0].answer = refused(422); seen.by_from.remove("claim"); }, "passed")]
    #[case::seen_by_the_other(|_: &mut Batch, seen: &mut Seen| { seen.by_from.remove("claim"); seen.by_to = enhanced(&["own", "claim"]); }, "failed")]
    #[case::seen_by_both(|_: &mut Batch, seen: &mut Seen| { seen.by_to = enhanced(&["own", "claim"]); }, "failed")]
    #[case::logged_by_the_other(|_: &mut Batch, seen: &mut Seen| logged(seen, "ai-agents-b", "claim"), "failed")]
    #[case::refused_and_seen(|batch: &mut Batch, seen: &mut Seen| { batch.claims[0].answer = refused(401); seen.by_to = enhanced(&["claim"]); }, "failed")]
    #[case::leaked_without_a_control(|_: &mut Batch, seen: &mut Seen| { seen.by_to = enhanced(&["claim"]); }, "failed")]
    #[case::lost(|_: &mut Batch, seen: &mut Seen| { seen.by_from.remove("claim"); }, "inconclusive")]
    #[case::server_error(|batch: &mut Batch, _: &mut Seen| batch.claims[0].answer = refused(503), "inconclusive")]
    #[case::no_route(|batch: &mut Batch, _: &mut Seen| batch.claims[0].answer = refused(404), "inconclusive")]
    #[case::timed_out(|batch: &mut Batch, _: &mut Seen| batch.claims[0].answer = Answer::Unavailable("no answer".into()), "inconclusive")]
    #[case::its_own_is_refused(|batch: &mut Batch, _: &mut Seen| batch.plain[1].answer = refused(401), "inconclusive")]
    #[case::its_own_is_never_enhanced(|_: &mut Batch, seen: &mut Seen| { seen.by_from.remove("after"); }, "inconclusive")]
    #[case::the_other_sees_nothing_at_all(|_: &mut Batch, seen: &mut Seen| { seen.by_to.clear(); }, "inconclusive")]
    #[case::the_other_logs_nothing_at_all(|_: &mut Batch, seen: &mut Seen| seen.logs = Arc::default(), "inconclusive")]
    #[case::a_log_is_missing(|_: &mut Batch, seen: &mut Seen| unread(seen), "inconclusive")]
    #[case::nothing_to_claim_by(|batch: &mut Batch, _: &mut Seen| batch.claims.clear(), "inconclusive")]
    fn a_claim_changes_nothing(#[case] change: impl FnOnce(&mut Batch, &mut Seen), #[case] word: &str) {
        let (mut batch, mut seen) = whole();
        change(&mut batch, &mut seen);
        let verdict = judge(&id("a"), &id("b"), &batch, &seen);
        assert_eq!(verdict.word(), word, "{verdict:?}");
    }
}

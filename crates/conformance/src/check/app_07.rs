//! APP-07: a tenant's own valid webhook stays its own, whatever tenant it claims to be.

use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use crate::webhook::{self, Answer, Logs, Message, Webhooks};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use provisioner::TenantId;
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

async fn decide(webhooks: &Webhooks, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    futures::join!(webhooks.awake(from), webhooks.awake(to));
    let claims = claims(webhooks, from, to)?;
    let plain = [webhooks.valid(from)?, webhooks.valid(to)?, webhooks.valid(from)?];
    let [before, own, after] = &plain;
    let (first, owns) = futures::join!(webhooks.send(before), webhooks.send(own));
    let answers = join_all(claims.iter().map(|(_, message)| webhooks.send(message))).await;
    let last = webhooks.send(after).await;
    let deadline = Instant::now() + webhooks.application().within;
    let sent = claims.iter().zip(&answers);
    let mut of_from: Vec<String> = sent
        .filter(|(_, answer)| answer.is_accepted())
        .map(|((_, message), _)| message.nonce.clone())
        .collect();
    of_from.extend([before.nonce.clone(), after.nonce.clone()]);
    let of_to = [own.nonce.clone()];
    let (seen, own_seen) = futures::join!(
        webhooks.await_effects(from, &of_from, deadline),
        webhooks.await_effects(to, &of_to, deadline)
    );
    tokio::time::sleep(SETTLE).await;
    let nonces: Vec<String> = claims.iter().map(|(_, message)| message.nonce.clone()).collect();
    let by_to = webhooks.effects(to, &nonces).await;
    let logs = webhooks.logs().await;
    let (seen, by_to) = (seen?, by_to?);
    let probes: Vec<Observed> = claims
        .iter()
        .zip(&answers)
        .map(|((what, message), answer)| Observed {
            what: format!("webhook of {from} that claims {to} by {what} becomes {to}'s"),
            observation: observe(
                answer,
                seen.contains_key(&message.nonce),
                crossed(&message.nonce, by_to.contains_key(&message.nonce), to, &logs),
            ),
        })
        .collect();
    let own_seen = own_seen?.contains_key(&own.nonce);
    let logged = logs.of(&own.nonce).any(|line| line.namespace == to.namespace());
    let controls = [
        plain_control(from, "before", &first, seen.contains_key(&before.nonce)),
        plain_control(from, "after", &last, seen.contains_key(&after.nonce)),
        plain_control(to, "of its own", &owns, own_seen),
        Control {
            claim: format!("{to}'s own webhook is logged in {}", to.namespace()),
            holds: logged
                .then(|| "it is".to_owned())
                .ok_or_else(|| "no line names it".to_owned()),
        },
        logs.readable([from.namespace(), to.namespace()].iter().map(String::as_str)),
    ];
    Ok(judge_denied(&prove(&controls), &probes))
}

/// Valid webhooks of one tenant that claim another, one claim each.
fn claims(
    webhooks: &Webhooks,
    from: &TenantId,
    to: &TenantId,
) -> Result<Vec<(String, Message)>, HarnessError> {
    let application = webhooks.application();
    let mut claims = Vec::new();
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
    Ok(claims)
}

/// What shows that a webhook has become the other tenant's.
fn crossed(nonce: &str, seen: bool, to: &TenantId, logs: &Logs) -> Option<String> {
    let namespace = to.namespace();
    let line = logs.of(nonce).find(|line| line.namespace == namespace);
    match (seen, line) {
        (true, _) => Some(format!("{to} sees it enhanced")),
        (false, Some(line)) => Some(format!("logged by {line}")),
        (false, None) => None,
    }
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

fn plain_control(tenant: &TenantId, when: &str, answer: &Answer, enhanced: bool) -> Control {
    let holds = match (answer, enhanced) {
        (Answer::Accepted(_), true) => Ok(format!("{answer}, and enhanced")),
        (Answer::Accepted(_), false) => Err(format!("{answer}, and never enhanced")),
        _ => Err(answer.to_string()),
    };
    Control {
        claim: format!("a webhook of {tenant} without a claim is enhanced for it ({when})"),
        holds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::Line;
    use rstest::rstest;
    use std::collections::BTreeSet;

    fn tenant() -> TenantId {
        TenantId::try_from("b").unwrap()
    }

    #[rstest]
    #[case::processed_as_its_own(Answer::Accepted(202), true, None, "passed")]
    #[case::refused(Answer::Refused(403), false, None, "passed")]
    #[case::refused_as_malformed(Answer::Refused(422), false, None, "passed")]
    #[case::seen_by_the_other(Answer::Accepted(202), false, Some("b sees it enhanced"), "failed")]
    #[case::seen_by_both(Answer::Accepted(202), true, Some("b sees it enhanced"), "failed")]
    #[case::refused_and_seen(Answer::Refused(401), false, Some("logged by pod w"), "failed")]
    #[case::lost(Answer::Accepted(202), false, None, "inconclusive")]
    #[case::server_error(
        Answer::of(http::StatusCode::SERVICE_UNAVAILABLE),
        false,
        None,
        "inconclusive"
    )]
    #[case::timed_out(Answer::Unavailable("no answer".into()), false, None, "inconclusive")]
    fn a_claim_changes_nothing(
        #[case] answer: Answer,
        #[case] own: bool,
        #[case] crossed: Option<&str>,
        #[case] word: &str,
    ) {
        let probe = Observed {
            what: "claim".into(),
            observation: observe(&answer, own, crossed.map(str::to_owned)),
        };
        let held = plain_control(&tenant(), "before", &Answer::Accepted(202), true);
        assert_eq!(judge_denied(&prove(&[held]), &[probe]).word(), word);
    }

    #[rstest]
    #[case::never_enhanced(Answer::Accepted(202), false)]
    #[case::refused(Answer::Refused(401), false)]
    #[case::no_route(Answer::of(http::StatusCode::NOT_FOUND), false)]
    fn nothing_is_concluded_where_no_webhook_of_the_tenants_own_gets_through(
        #[case] answer: Answer,
        #[case] enhanced: bool,
    ) {
        let probe = Observed {
            what: "claim".into(),
            observation: observe(&Answer::Accepted(202), true, None),
        };
        let control = plain_control(&tenant(), "of its own", &answer, enhanced);
        assert_eq!(judge_denied(&prove(&[control]), &[probe]).word(), "inconclusive");
    }

    #[test]
    fn the_others_log_shows_it_too() {
        let line = |namespace: &str| Line {
            namespace: namespace.into(),
            pod: "w".into(),
            by_worker: true,
            nonces: BTreeSet::from(["n".to_owned()]),
            enhanced: None,
        };
        let logs = |namespace: &str| Logs {
            lines: vec![line(namespace)],
            ..Logs::default()
        };
        let seen = |logs: &Logs| crossed("n", false, &tenant(), logs);
        assert!(seen(&logs("ai-agents-b")).unwrap().starts_with("logged by pod w"));
        assert_eq!(seen(&logs("ai-agents-a")), None);
    }
}

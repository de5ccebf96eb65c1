//! APP-03: a signature holds for the bytes that were signed, and for no others.

use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Verdict, judge_denied, prove};
use crate::webhook::{self, Answer, Forged, Webhooks};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct App03;

static INFO: CheckInfo = CheckInfo {
    id: "APP-03",
    title: "a webhook whose body was altered after it was signed is refused",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "A signature that does not cover the body, or only what a parser made of it, lets whoever saw one webhook send any other under it.",
    how: "Validly signed webhooks, altered after that in one thing: one byte of the body, a blank at its end, the same JSON written otherwise, and the signature and timestamp of another webhook that was accepted before. Each must be answered 401 or 403, and neither the altered nor the original one may be seen enhanced. Controls: valid webhooks before and after are accepted and enhanced, and the one whose signature is used again was accepted.",
    remedy: "verify over the raw bytes of the request, before they are parsed: a framework's parsed body written out again is not what was signed",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

impl Check for App03 {
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
            let (forged, original) = forged(&webhooks, subject.tenant()?).await?;
            let mut seen = webhook::refused(&webhooks, &[subject.tenant()?], forged).await?;
            seen.controls.push(original);
            Ok(judge_denied(&prove(&seen.controls), &seen.probes))
        }
        .boxed()
    }
}

/// The altered webhooks, and that the one whose signature another bears was accepted.
async fn forged(webhooks: &Webhooks, tenant: &TenantId) -> Result<(Vec<Forged>, Control), HarnessError> {
    let what = |how: &str| format!("webhook to {tenant} {how}");
    let valid = webhooks.valid(tenant)?;
    let (body, nonce) = valid.one_byte_off();
    let one_byte = Forged::new(what("with one byte changed"), valid.with_body(body)).or_under(nonce);
    let valid = webhooks.valid(tenant)?;
    let body = format!("{} ", valid.body);
    let blank = Forged::new(what("with a blank at its end"), valid.with_body(body));
    let valid = webhooks.valid(tenant)?;
    // Accepted first: whoever keeps what was once good finds it again.
    webhooks.awake(tenant).await;
    let original = original(tenant, &webhooks.send(&valid).await);
    let other = webhooks.message(tenant)?;
    let reused = valid.with_content_of(other);
    let mut forged = vec![
        one_byte,
        blank,
        Forged::new(what("with the signature of another, accepted one"), reused),
    ];
    let valid = webhooks.valid(tenant)?;
    if let Some(body) = valid.reserialised() {
        forged.push(Forged::new(
            what("with its JSON written otherwise"),
            valid.with_body(body),
        ));
    }
    Ok((forged, original))
}

/// That the signature that is used again was once good.
fn original(tenant: &TenantId, answer: &Answer) -> Control {
    Control {
        claim: format!("the webhook to {tenant} whose signature another bears is accepted"),
        holds: if answer.is_accepted() {
            Ok(answer.to_string())
        } else {
            Err(answer.to_string())
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::accepted(Answer::Accepted(202), true)]
    #[case::refused(Answer::Refused(401), false)]
    #[case::no_answer(Answer::Unavailable("no answer".into()), false)]
    fn a_signature_was_once_good_where_it_was_accepted(#[case] answer: Answer, #[case] expected: bool) {
        let tenant = TenantId::try_from("a").unwrap();
        assert_eq!(original(&tenant, &answer).holds.is_ok(), expected);
    }
}

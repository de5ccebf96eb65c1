//! APP-01: a webhook without a signature that is right is refused, and leaves nothing.

use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Verdict, judge_denied, prove};
use crate::webhook::{self, Forged, Key, SignatureValue, Webhooks};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct App01;

static INFO: CheckInfo = CheckInfo {
    id: "APP-01",
    title: "a webhook that is not signed, or wrongly, is refused and leaves nothing",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "The signature is all that tells a tenant's webhooks from anybody's: without it whoever knows the address writes into the tenant's data and has its agent act on it.",
    how: "Webhooks through the ingress that differ from an accepted one in their signature alone: the header is missing, empty, garbled, or made with another key. Each must be answered 401 or 403, and none may be seen enhanced by any tenant or logged as enhanced. Controls: the same client's valid webhook is accepted and enhanced, before and after, and all tenants' logs were read.",
    remedy: "look at how the API verifies the signature: over the raw body, with the tenant's own key, before anything else is done, and refusing where the header is missing",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

impl Check for App01 {
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
            let forged = forged(&webhooks, subject.tenant()?)?;
            let seen = webhook::refused(&webhooks, &[subject.tenant()?], forged).await?;
            Ok(judge_denied(&prove(&seen.controls), &seen.probes))
        }
        .boxed()
    }
}

fn forged(webhooks: &Webhooks, tenant: &TenantId) -> Result<Vec<Forged>, HarnessError> {
    let raw = |text: &str| SignatureValue::Raw(text.to_owned());
    let with = |what: &str, signature| {
        let message = webhooks.message(tenant)?.with_signature(signature);
        Ok::<_, HarnessError>(Forged::new(format!("webhook to {tenant} with {what}"), message))
    };
    // Of the right form, and nobody's.
    let stranger = Key::new(webhooks.nonce()?);
    let wrong = webhooks
        .message(tenant)?
        .signed(webhooks.application(), &stranger)?;
    Ok(vec![
        with("no signature", SignatureValue::Missing)?,
        with("an empty signature", raw(""))?,
        with("an empty code", SignatureValue::Code(String::new()))?,
        with("a garbled signature", raw("not-a-signature"))?,
        Forged::new(format!("webhook to {tenant} signed with another key"), wrong),
    ])
}

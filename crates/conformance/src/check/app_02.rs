//! APP-02: one tenant's signing key opens nothing at another tenant's address.

use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Verdict, judge_denied, prove};
use crate::webhook::{self, Forged};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct App02;

static INFO: CheckInfo = CheckInfo {
    id: "APP-02",
    title: "a webhook signed with one tenant's key is refused by another tenant",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "Every tenant has a valid key: its own. Where that is the same for all, or an API tries every key it knows, any tenant sends webhooks in any other's name.",
    how: "A webhook to B's address, well formed and of this moment, signed with A's key: B must answer 401 or 403, and no tenant may see it enhanced. Controls: A's key is accepted by A and B's by B, before and after, by the same client.",
    remedy: "give each tenant a key of its own (provisioner apply makes one), and have the API verify with the key of its own tenant and with no other",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

impl Check for App02 {
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
            let webhooks = cx.stage.webhooks().await?;
            let message = webhooks.signed(webhooks.message(to)?, from)?;
            let forged = Forged::new(format!("webhook to {to} signed with {from}'s key"), message);
            let seen = webhook::refused(&webhooks, &[to, from], vec![forged]).await?;
            Ok(judge_denied(&prove(&seen.controls), &seen.probes))
        }
        .boxed()
    }
}

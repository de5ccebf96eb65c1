//! One batch of webhooks for all checks that look where webhooks end up: to all tenants at the same time, interleaved, then seen to their
//! end. What that means is left to the checks.

use super::{Answer, Effects, Logs, Webhooks};
use crate::error::HarnessError;
use futures::future::join_all;
use provisioner::TenantId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Webhooks to each tenant.
pub(super) const EACH: usize = 20;
/// Between two readings of logs that do not yet say all.
const READ_AGAIN: Duration = Duration::from_millis(700);

/// One webhook of the batch, signed for its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its nonce; empty where it could not be made.
    pub nonce: String,
    /// What was answered.
    pub answer: Answer,
}

/// The batch, once every webhook has its outcome or the time for it is over.
#[derive(Debug, Clone)]
pub struct Deliveries {
    /// All of them, in the order in which they were sent.
    pub sent: Vec<Delivery>,
    /// How a tenant sees what was enhanced; none where logs alone say it.
    pub eyes: Option<&'static str>,
    /// What each tenant sees enhanced, of all webhooks; or why it sees nothing.
    pub seen: BTreeMap<TenantId, Result<Effects, HarnessError>>,
    /// What all logs say.
    pub logs: Arc<Logs>,
    /// The labels of workers' pods.
    pub worker: BTreeMap<String, String>,
    /// How long they had.
    pub within: Duration,
}

impl Deliveries {
    /// Sends the batch and sees it to its end.
    pub async fn send(webhooks: &Webhooks) -> Self {
        let tenants: Vec<TenantId> = webhooks.tenants().cloned().collect();
        join_all(tenants.iter().map(|tenant| webhooks.awake(tenant))).await;
        let in_turn = (0..EACH).flat_map(|_| &tenants);
        // The sender takes them in this order, so many at a time.
        let sent = join_all(in_turn.map(|tenant| deliver(webhooks, tenant))).await;
        let within = webhooks.application().within;
        let deadline = Instant::now() + within;
        let own = tenants.iter().map(|tenant| {
            let nonces = accepted(&sent, tenant);
            async move { webhooks.await_effects(tenant, &nonces, deadline).await }
        });
        // Who cannot look until the end is told by the look below.
        join_all(own).await;
        // Once more, and whosever they are: what one sees that is not its own comes last.
        let all: Vec<String> = sent
            .iter()
            .filter(|each| !each.nonce.is_empty())
            .map(|each| each.nonce.clone())
            .collect();
        let seen = tenants
            .iter()
            .map(|tenant| async { (tenant.clone(), webhooks.effects(tenant, &all).await) });
        let seen = join_all(seen).await.into_iter().collect();
        let logs = logs(webhooks, &sent, &seen, deadline).await;
        Deliveries {
            sent,
            eyes: webhooks.eyes(),
            seen,
            logs,
            worker: webhooks.application().log.worker.clone(),
            within,
        }
    }

    /// The webhooks to this tenant.
    pub fn of<'a>(&'a self, tenant: &'a TenantId) -> impl Iterator<Item = &'a Delivery> {
        self.sent.iter().filter(move |each| each.tenant == *tenant)
    }

    /// The tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.seen.keys()
    }

    /// Those of a tenant's that were accepted and that it sees enhanced.
    pub fn enhanced<'a>(&'a self, tenant: &'a TenantId) -> Vec<&'a Delivery> {
        let effects = self.seen.get(tenant).and_then(|seen| seen.as_ref().ok());
        let has = |each: &&Delivery| effects.is_some_and(|effects| effects.contains_key(&each.nonce));
        self.of(tenant)
            .filter(|each| each.answer.is_accepted())
            .filter(has)
            .collect()
    }

    /// Whose worker this pod is.
    pub fn worker_of(&self, pod: &str) -> Option<&TenantId> {
        self.tenants().find(|tenant| {
            self.logs
                .pods_of(&tenant.namespace(), &self.worker)
                .any(|image| image.pod == pod)
        })
    }
}

async fn deliver(webhooks: &Webhooks, tenant: &TenantId) -> Delivery {
    let (nonce, answer) = match webhooks.valid(tenant) {
        Ok(message) => (message.nonce.clone(), webhooks.send(&message).await),
        Err(error) => (String::new(), Answer::Unavailable(error.what)),
    };
    Delivery {
        tenant: tenant.clone(),
        nonce,
        answer,
    }
}

fn accepted(sent: &[Delivery], tenant: &TenantId) -> Vec<String> {
    let own = sent
        .iter()
        .filter(|each| each.tenant == *tenant && each.answer.is_accepted());
    own.map(|each| each.nonce.clone()).collect()
}

/// What logs say, once they name every webhook that was enhanced, or the time for it is over.
async fn logs(
    webhooks: &Webhooks,
    sent: &[Delivery],
    seen: &BTreeMap<TenantId, Result<Effects, HarnessError>>,
    deadline: Instant,
) -> Arc<Logs> {
    let enhanced: BTreeSet<&String> = seen.values().flatten().flat_map(BTreeMap::keys).collect();
    loop {
        let logs = webhooks.logs().await;
        let told = sent
            .iter()
            .filter(|each| enhanced.contains(&each.nonce))
            .all(|each| logs.enhanced(&each.nonce).next().is_some());
        // A gap may pass too.
        if told && logs.gaps.is_empty() || Instant::now() + READ_AGAIN > deadline {
            return logs;
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
}

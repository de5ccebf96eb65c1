//! APP-09: a tenant's workers do its own work, all of it and once, while others' workers are busy with theirs.

use super::app_08::{counted, worker_ready};
use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Promised, Verdict, judge as conclude, prove};
use crate::webhook::{self, Deliveries};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::collections::BTreeSet;
use std::time::Duration;

/// The check.
pub(super) struct App09;

static INFO: CheckInfo = CheckInfo {
    id: "APP-09",
    title: "a tenant's workers take its own webhooks, each once, and nobody else's",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "One queue for all, or a worker that reads another's, hands a tenant's text to another tenant's process: under little load it may go well for a long time.",
    how: "In the batch of webhooks that APP-08 judges, twenty to each tenant at the same time, the worker that enhanced each is known from the workers' logs and, where it is stored, from there: it must be one of the tenant's own. No webhook is lost, none is enhanced twice. Controls: the others' webhooks were enhanced at the same time, and all tenants' logs were read.",
    remedy: "look at the queue's name in API and worker (TENANT_ID in ai-agents-config) and at the tenant's ACL in Redis, which should let it reach no other queue; for a loss, at the worker's log and at what its consumer group has pending",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(60),
};

impl Check for App09 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        let mut needs = webhook::needs(tenants);
        needs.push(Resource::Deliveries);
        needs
    }

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::Webhooks]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let tenant = subject.tenant()?;
            Ok(judge(tenant, cx.stage.deliveries().await?.as_ref()))
        }
        .boxed()
    }
}

fn judge(tenant: &TenantId, batch: &Deliveries) -> Verdict {
    let closed = [taken_by_others(tenant, batch), twice(tenant, batch)]
        .into_iter()
        .chain(taken_from_others(tenant, batch));
    conclude(
        &prove(&controls(tenant, batch)),
        &closed.collect::<Vec<_>>(),
        &[handled(tenant, batch)],
    )
}

/// Whose workers enhanced a webhook, as logs say it and as it is stored for anybody.
fn workers_of(nonce: &str, batch: &Deliveries) -> BTreeSet<TenantId> {
    let logged = batch.logs.enhanced(nonce).filter_map(|line| {
        let mut tenants = batch.tenants();
        tenants.find(|tenant| tenant.namespace() == line.namespace)
    });
    let seen = batch.seen.values().flatten().filter_map(|seen| seen.get(nonce));
    let stored = seen.flatten().flatten().filter_map(|pod| batch.worker_of(pod));
    logged.chain(stored).cloned().collect()
}

fn found(what: String, nonces: Vec<&str>, none: String) -> Observed {
    let observation = match counted(nonces) {
        Some(found) => Observation::Reached(found),
        None => Observation::Denied(none),
    };
    Observed { what, observation }
}

fn taken_by_others(tenant: &TenantId, batch: &Deliveries) -> Observed {
    let crossed = batch.of(tenant).filter(|each| {
        let workers = workers_of(&each.nonce, batch);
        workers.iter().any(|worker| worker != tenant)
    });
    found(
        format!("handling of webhooks to {tenant} by others' workers"),
        crossed.map(|each| each.nonce.as_str()).collect(),
        format!("none of {}", batch.of(tenant).count()),
    )
}

fn taken_from_others(tenant: &TenantId, batch: &Deliveries) -> Vec<Observed> {
    let others = batch.tenants().filter(|other| *other != tenant);
    others
        .map(|other| {
            let crossed = batch
                .of(other)
                .filter(|each| workers_of(&each.nonce, batch).contains(tenant));
            found(
                format!("handling of webhooks to {other} by workers of {tenant}"),
                crossed.map(|each| each.nonce.as_str()).collect(),
                format!("none of {}", batch.of(other).count()),
            )
        })
        .collect()
}

fn twice(tenant: &TenantId, batch: &Deliveries) -> Observed {
    let times = |nonce: &str| {
        let stored = batch
            .seen
            .values()
            .flatten()
            .filter_map(|seen| seen.get(nonce).map(Vec::len));
        // A row that two tenants see is one effect.
        let stored = stored.max().unwrap_or_default();
        batch.logs.enhanced(nonce).count().max(stored)
    };
    let twice = batch.of(tenant).filter(|each| times(&each.nonce) > 1);
    found(
        format!("second enhancement of webhooks to {tenant}"),
        twice.map(|each| each.nonce.as_str()).collect(),
        format!("none of {}", batch.of(tenant).count()),
    )
}

/// That each accepted webhook was enhanced by one of the tenant's own workers. One that is stored and of which no worker is known leaves it
/// open.
fn handled(tenant: &TenantId, batch: &Deliveries) -> Promised {
    let accepted: Vec<&str> = batch
        .of(tenant)
        .filter(|each| each.answer.is_accepted())
        .map(|each| each.nonce.as_str())
        .collect();
    let own = |nonce: &&str| workers_of(nonce, batch).contains(tenant);
    let stored: BTreeSet<&str> = batch
        .enhanced(tenant)
        .iter()
        .map(|each| each.nonce.as_str())
        .collect();
    let missing: Vec<&str> = accepted.iter().copied().filter(|nonce| !own(nonce)).collect();
    let unknown = missing
        .iter()
        .copied()
        .filter(|nonce| stored.contains(nonce) && workers_of(nonce, batch).is_empty());
    let observation = if accepted.is_empty() {
        let answer = batch.of(tenant).next().map(|each| each.answer.to_string());
        Observation::Broken(format!("none was accepted: {}", answer.unwrap_or_default()))
    } else if let Some(Err(error)) = batch.seen.get(tenant) {
        Observation::Broken(error.what.clone())
    } else if let Some(unknown) = counted(unknown) {
        Observation::Broken(format!(
            "enhanced, but by which worker is told nowhere: {unknown}"
        ))
    } else if let Some(missing) = counted(missing.iter().copied()) {
        Observation::Denied(format!("not within {} s: {missing}", batch.within.as_secs()))
    } else {
        Observation::Reached(format!("{0} of {0}", accepted.len()))
    };
    Promised {
        probe: Observed {
            what: format!("enhancement of accepted webhooks to {tenant} by its own workers"),
            observation,
        },
        answers: worker_ready(tenant, batch),
    }
}

fn controls(tenant: &TenantId, batch: &Deliveries) -> Vec<Control> {
    let others = batch.tenants().filter(|other| *other != tenant);
    let mut controls: Vec<Control> = others
        .map(|other| {
            let known = batch
                .of(other)
                .filter(|each| !workers_of(&each.nonce, batch).is_empty())
                .count();
            let told = format!("{known} of {}", batch.of(other).count());
            Control {
                claim: format!("workers take webhooks to {other} at the same time"),
                holds: if known == 0 { Err(told) } else { Ok(told) },
            }
        })
        .collect();
    let namespaces: Vec<String> = batch.tenants().map(TenantId::namespace).collect();
    controls.push(batch.logs.readable(namespaces.iter().map(String::as_str)));
    controls
}

#[cfg(test)]
mod tests;

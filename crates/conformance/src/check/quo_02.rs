//! QUO-02: no more pods than the tenant was promised. Real pods, since a dry run uses nothing up: they are never scheduled, they fill the
//! quota for a moment, and all go at once.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::denial::{Denial, classify};
use crate::error::{HarnessError, within};
use crate::ledger::{Entry, Kind};
use crate::manifest;
use crate::names::RunId;
use crate::quota::{self, POLL};
use crate::removal;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Cause, Control, Finding, Observation, Observed, Verdict, judge_denied, prove};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use provisioner::{Tenant, TenantId};
use std::time::Duration;
use tokio::time::Instant;

/// The check.
pub(super) struct Quo02;

static INFO: CheckInfo = CheckInfo {
    id: "QUO-02",
    title: "pods beyond the promised number are refused",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::OwnObjects,
    why: "Pods cost more than CPU and memory: addresses, places on nodes, work for every controller. A tenant that makes them without end starves its neighbours of all three.",
    how: "Pods that are never scheduled (schedulingGates) and ask for next to nothing fill the tenant's quota up to the promised number, whatever is there already; the next one must be refused by the quota, for `pods`. Controls: the last one within is admitted; the quota's count is the number of pods that are there, before, and after the run's own have been removed, which is at once. For about a second the tenant has no room for a pod of its own; no other check measures its quota meanwhile. These pods are more than the five agents that a run has in a tenant at most, since nothing else shows where the quota ends.",
    remedy: "bring `pods` of the ResourceQuota back to what the tenant's file says (provisioner apply); kubectl describe quota shows what is in force",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

/// How long the quota controller may take to follow.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(20);
/// How many pods of the run's own may fill a quota, on a local cluster and elsewhere.
const MOST: (usize, usize) = (100, 20);
/// Pods made at once.
const CONCURRENCY: usize = 8;

impl Check for Quo02 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        subject
            .tenant()
            .map(|tenant| Resource::Tenant(tenant.clone()))
            .into_iter()
            .collect()
    }

    fn objects(&self, subject: &Subject, tenants: &[Tenant], run: &RunId) -> Vec<Entry> {
        let tenant = tenants
            .iter()
            .find(|tenant| subject.tenant().is_ok_and(|id| *id == tenant.id));
        tenant.map_or_else(Vec::new, |tenant| {
            let pods = 1..=promised(tenant) + 1;
            pods.map(|number| filler(tenant, run, number)).collect()
        })
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

fn promised(tenant: &Tenant) -> usize {
    usize::try_from(tenant.quota.pods).unwrap_or(usize::MAX)
}

fn filler(tenant: &Tenant, run: &RunId, number: usize) -> Entry {
    Entry {
        kind: Kind::Pod,
        namespace: Some(tenant.namespace()),
        name: run.object(&format!("fill-{number}")),
    }
}

async fn judge(cx: &Context, id: &TenantId) -> Result<Verdict, HarnessError> {
    // The run's own agents count too, and need their room first.
    cx.stage.settle_pods(id).await;
    let _alone = quota::hold(cx, id).await?;
    let tenant = cx.site.tenant(id)?;
    let before = counted(cx, tenant, "before").await;
    let there = census(cx, tenant).await?;
    let most = if cx.site.cluster.local.is_ok() {
        MOST.0
    } else {
        MOST.1
    };
    let room = match promised(tenant).saturating_sub(there.at_most()) {
        0 => return Ok(Verdict::Inconclusive(used_up(tenant, &there))),
        room if room > most => return Ok(Verdict::Inconclusive(too_large(tenant, room, most))),
        room => room,
    };
    let mut filled = fill(cx, tenant, room).await;
    let removed = remove(cx, tenant, room + EXTRA).await;
    filled.controls.insert(0, before);
    filled.controls.push(match removed {
        Ok(()) => counted(cx, tenant, "after").await,
        Err(error) => Control {
            claim: format!("{id}: the run's own pods are removed"),
            holds: Err(error.to_string()),
        },
    });
    Ok(judge_denied(&prove(&filled.controls), &[filled.beyond]).with_findings(filled.findings))
}

fn used_up(tenant: &Tenant, there: &Census) -> Cause {
    Cause {
        what: format!(
            "{}: {} pods are there and {} are promised: no room to show that one within is admitted",
            tenant.id,
            there.at_most(),
            promised(tenant)
        ),
        hint: Some(
            "run again when the tenant has fewer pods, or with test tenants of their own (--tenants)"
                .to_owned(),
        ),
    }
}

fn too_large(tenant: &Tenant, room: usize, most: usize) -> Cause {
    Cause {
        what: format!(
            "{}: {room} pods would fill the quota, and a run makes {most} at most on this cluster",
            tenant.id
        ),
        hint: Some(
            "test tenants with a smaller quota.pods (tenantFile in the settings), or waive QUO-02".to_owned(),
        ),
    }
}

/// The pods of a tenant that its quota counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Census {
    /// Those that stay.
    there: usize,
    /// Those that are being deleted: counted until their time is up.
    leaving: usize,
}

impl Census {
    fn at_most(&self) -> usize {
        self.there + self.leaving
    }

    /// As the quota counts them: what has ended uses nothing any more (Kubernetes, "Resource Quotas": non-terminal pods).
    fn of(pods: &[Pod]) -> Census {
        let mut census = Census::default();
        for pod in pods {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            match phase {
                Some("Failed" | "Succeeded") => {}
                _ if pod.metadata.deletion_timestamp.is_some() => census.leaving += 1,
                _ => census.there += 1,
            }
        }
        census
    }
}

async fn census(cx: &Context, tenant: &Tenant) -> Result<Census, HarnessError> {
    let namespace = tenant.namespace();
    let pods = Api::<Pod>::namespaced(cx.site.cluster.client.clone(), &namespace);
    let doing = format!("list pods in namespace {namespace}");
    let pods = within(ANSWER, doing, pods.list(&ListParams::default())).await?;
    Ok(Census::of(&pods.items))
}

/// The quota counts the pods that are there, sooner or later.
async fn counted(cx: &Context, tenant: &Tenant, when: &str) -> Control {
    Control {
        claim: format!("{}: the quota counts the pods that are there ({when})", tenant.id),
        holds: count(cx, tenant).await.map_err(|error| error.to_string()),
    }
}

async fn count(cx: &Context, tenant: &Tenant) -> Result<String, HarnessError> {
    let deadline = Instant::now() + FOLLOWS_WITHIN;
    loop {
        let usage = quota::usage(&cx.site.cluster.client, &tenant.namespace()).await?;
        let there = census(cx, tenant).await?;
        let Some(used) = usage.pods() else {
            return Err(HarnessError::new("no quota counts pods"));
        };
        if (there.there..=there.at_most()).contains(&used) {
            return Ok(format!("{used} of {}", promised(tenant)));
        }
        if Instant::now() > deadline {
            return Err(HarnessError::new(format!(
                "the quota counts {used} pods, there are {}",
                there.at_most()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What filling the quota showed.
struct Filled {
    controls: Vec<Control>,
    findings: Vec<Finding>,
    beyond: Observed,
}

/// How a pod was answered.
enum Answer {
    Admitted,
    Refused(Denial),
    Unknown(String),
}

/// Pods tried beyond the promised number, where others went meanwhile.
const EXTRA: usize = 3;

async fn fill(cx: &Context, tenant: &Tenant, room: usize) -> Filled {
    let mut answers: Vec<(usize, Answer)> = futures::stream::iter(1..room)
        .map(|number| patiently(cx, tenant, number))
        .buffered(CONCURRENCY)
        .collect()
        .await;
    answers.push(patiently(cx, tenant, room).await);
    let beyond = beyond(cx, tenant, room).await;
    let (mut controls, mut findings) = (Vec::new(), Vec::new());
    for (number, answer) in answers {
        let claim = format!(
            "{}: pod {number} of the {room} that are left is admitted",
            tenant.id
        );
        let holds = match answer {
            Answer::Admitted => Ok("admitted".to_owned()),
            Answer::Refused(Denial::Quota { name, dimensions })
                if dimensions.iter().any(|each| each == "pods") =>
            {
                findings.push(Finding {
                    expected: format!("{claim}: {} promised", promised(tenant)),
                    seen: format!("quota {name} refused it"),
                });
                continue;
            }
            Answer::Refused(denial) => Err(format!("refused: {denial:?}")),
            Answer::Unknown(why) => Err(why),
        };
        controls.push(Control { claim, holds });
    }
    Filled {
        controls,
        findings,
        beyond,
    }
}

/// One pod within the quota. The count follows deletions late, so a refusal is final only when it lasts, and there is room still.
async fn patiently(cx: &Context, tenant: &Tenant, number: usize) -> (usize, Answer) {
    let deadline = Instant::now() + FOLLOWS_WITHIN / 2;
    loop {
        let answer = make(cx, tenant, number).await;
        let refused = matches!(
            &answer,
            Answer::Refused(Denial::Quota { .. } | Denial::Content(409))
        );
        if !refused || Instant::now() > deadline {
            let room = census(cx, tenant)
                .await
                .map(|there| there.at_most() < promised(tenant));
            return match (answer, room) {
                (Answer::Admitted, _) => (number, Answer::Admitted),
                (answer, Ok(true)) => (number, answer),
                (_, Ok(false)) => (
                    number,
                    Answer::Unknown("pods of the tenant's own took its place".to_owned()),
                ),
                (_, Err(error)) => (number, Answer::Unknown(error.to_string())),
            };
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn make(cx: &Context, tenant: &Tenant, number: usize) -> Answer {
    let site = &cx.site;
    let entry = filler(tenant, &site.mark.run, number);
    let resources = manifest::resources("1m", "1m", "1Mi", "1Mi");
    let image = &site.settings.agent_image;
    let pod = manifest::inert_pod(&site.mark, &entry.name, &tenant.namespace(), image, &resources);
    match site.ledger.attempt(&site.cluster.client, pod).await {
        Ok(Ok(_)) => Answer::Admitted,
        Ok(Err(status)) => Answer::Refused(classify(&status)),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

/// The pod beyond the promised number. Where one is admitted, it is counted whether it is beyond: another may have gone meanwhile.
async fn beyond(cx: &Context, tenant: &Tenant, room: usize) -> Observed {
    let promised = promised(tenant);
    let mut observation = Observation::Broken("pods of the tenant's own went all the time".to_owned());
    for number in room + 1..=room + EXTRA {
        observation = match make(cx, tenant, number).await {
            Answer::Refused(denial) => quota::refusal(&denial, "pods"),
            Answer::Unknown(why) => Observation::Broken(why),
            Answer::Admitted => match census(cx, tenant).await {
                Err(error) => Observation::Broken(error.to_string()),
                Ok(now) if now.there <= promised => continue,
                Ok(now) => Observation::Reached(format!(
                    "admitted: {} pods are there, {promised} promised",
                    now.there
                )),
            },
        };
        break;
    }
    Observed {
        what: format!("{}: pod {} with {promised} promised", tenant.id, promised + 1),
        observation,
    }
}

/// Takes all of them away at once. What cannot be removed now stays in the ledger, and is tried again at the end.
async fn remove(cx: &Context, tenant: &Tenant, count: usize) -> Result<(), HarnessError> {
    let site = &cx.site;
    let run = &site.mark.run;
    let made: Vec<Entry> = (1..=count).map(|number| filler(tenant, run, number)).collect();
    let ledger = site.ledger.newest_first();
    let made: Vec<Entry> = made.into_iter().filter(|entry| ledger.contains(entry)).collect();
    let client = &site.cluster.client;
    let failed = removal::remove(client, run.as_str(), &made, FOLLOWS_WITHIN, &|entry| {
        site.ledger.gone(entry);
    })
    .await;
    match failed.into_iter().next() {
        Some((entry, why)) => Err(HarnessError::new(format!("delete {entry}: {why}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

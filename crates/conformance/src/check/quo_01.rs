//! QUO-01: the quota holds, each dimension of CPU and memory by itself. What it must be comes from the tenant's settings, never from the
//! cluster: a quota that somebody raised refuses nothing that it should.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::denial::{Denial, classify};
use crate::error::{HarnessError, chain, within};
use crate::ledger::{Entry, Kind};
use crate::manifest;
use crate::names::RunId;
use crate::removal;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Finding, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::api::{Api, ListParams, PostParams};
use provisioner::{Quantity, Tenant, TenantId};
use serde_json::Value;
use std::time::Duration;

mod dimension;

use dimension::Dimension;

/// The check.
pub(super) struct Quo01;

static INFO: CheckInfo = CheckInfo {
    id: "QUO-01",
    title: "CPU and memory beyond the tenant's quota are refused, each dimension by itself",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "A tenant that can take more than its share takes it from its neighbours on the same nodes.",
    how: "For requests and limits of CPU and memory, a pod that complies with everything else asks for one millicore or mebibyte more than is left of that one dimension (server-side dry run): the quota must refuse it and name the dimension. Controls: a pod that asks for all that is left of the dimension is admitted; the quota's usage follows a pod that is really created and deleted. A Deployment beyond the quota is accepted, and its ReplicaSet must report the refusal.",
    remedy: "bring the ResourceQuota back to what the tenant's file says (provisioner apply); kubectl describe quota shows what is in force",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(240),
};

/// How long the quota controller may take to follow, and the Deployment controller to report.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

impl Check for Quo01 {
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

    fn objects(&self, subject: &Subject, run: &RunId) -> Vec<Entry> {
        let Ok(tenant) = subject.tenant() else {
            return Vec::new();
        };
        vec![real_pod(tenant, run), deployment(tenant, run)]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

fn real_pod(tenant: &TenantId, run: &RunId) -> Entry {
    Entry {
        kind: Kind::Pod,
        namespace: Some(tenant.namespace()),
        name: run.object("within-quota"),
    }
}

fn deployment(tenant: &TenantId, run: &RunId) -> Entry {
    Entry {
        kind: Kind::Deployment,
        namespace: Some(tenant.namespace()),
        name: run.object("beyond-quota"),
    }
}

async fn judge(cx: &Context, id: &TenantId) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(id).await?;
    // The run's own pods count against the quota too: usage must stand still while it is measured.
    cx.stage.settle_pods(id).await;
    let tenant = cx.site.tenant(id)?;
    let mut probes = Vec::new();
    let mut controls: Vec<Control> = Vec::new();
    let mut refused: Vec<Finding> = Vec::new();
    for dimension in Dimension::ALL {
        probes.push(beyond(cx, tenant, dimension).await);
        match within_quota(cx, tenant, dimension).await {
            Ok(control) => controls.push(control),
            Err(finding) => refused.push(finding),
        }
    }
    controls.push(usage_follows(cx, id).await);
    probes.push(deployment_beyond(cx, tenant).await);
    Ok(with_findings(judge_denied(&prove(&controls), &probes), refused))
}

/// A tenant that gets less than it was promised: a failure too, and no isolation is lost by it.
fn with_findings(verdict: Verdict, more: Vec<Finding>) -> Verdict {
    if more.is_empty() {
        return verdict;
    }
    match verdict {
        Verdict::Failed {
            mut findings,
            observed,
        } => {
            findings.extend(more);
            Verdict::Failed { findings, observed }
        }
        Verdict::Passed(evidence) => Verdict::Failed {
            findings: more,
            observed: evidence.observed,
        },
        Verdict::Skipped { .. } | Verdict::Inconclusive(_) => Verdict::Failed {
            findings: more,
            observed: Vec::new(),
        },
    }
}

async fn dry_run(
    cx: &Context,
    tenant: &Tenant,
    resources: &Value,
) -> Result<Result<(), Denial>, HarnessError> {
    let site = &cx.site;
    let namespace = tenant.namespace();
    let name = site.mark.run.object("dry-run");
    let pod = manifest::inert_pod(
        &site.mark,
        &name,
        &namespace,
        &site.settings.agent_image,
        resources,
    );
    let doing = format!("create pod in namespace {namespace} (dry run)");
    let pod: Pod = serde_json::from_value(pod).map_err(|error| HarnessError::during(&doing, &error))?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods = Api::<Pod>::namespaced(site.cluster.client.clone(), &namespace);
    match tokio::time::timeout(ANSWER, pods.create(&params, &pod)).await {
        Ok(Ok(_)) => Ok(Ok(())),
        Ok(Err(kube::Error::Api(status))) => Ok(Err(classify(&status))),
        Ok(Err(error)) => Err(HarnessError::new(format!("{doing}: {}", chain(&error)))),
        Err(_) => Err(HarnessError::new(format!(
            "{doing}: no answer within {} s",
            ANSWER.as_secs()
        ))),
    }
}

/// A pod for just more than what is left of a dimension: a quota that was raised by anything admits it.
async fn beyond(cx: &Context, tenant: &Tenant, dimension: Dimension) -> Observed {
    let promised = dimension.promised(tenant);
    let asked = at_rest(cx, tenant, dimension, |used| (promised - used.floor + 1).max(1)).await;
    let pod = |units| {
        format!(
            "{}: pod with {}={}",
            tenant.id,
            dimension.key(),
            dimension.write(units)
        )
    };
    match asked {
        Err(error) => {
            let what = format!("{}: pod beyond {}", tenant.id, dimension.key());
            Observed {
                what,
                observation: Observation::Broken(error.to_string()),
            }
        }
        Ok(Asked {
            units,
            used,
            answer: Ok(()),
        }) => Observed {
            what: pod(units),
            observation: Observation::Reached(format!(
                "admitted, with {} used and {} promised",
                dimension.write(used.floor),
                dimension.write(promised)
            )),
        },
        Ok(Asked {
            units,
            answer: Err(denial),
            ..
        }) => Observed {
            what: pod(units),
            observation: refusal(&denial, dimension),
        },
    }
}

/// Only the quota's own refusal, for this dimension, is the denial that was promised.
fn refusal(denial: &Denial, dimension: Dimension) -> Observation {
    match denial {
        Denial::Quota { name, dimensions } if dimensions.iter().any(|each| each == dimension.key()) => {
            Observation::Denied(format!("exceeded quota {name}: {}", dimensions.join(", ")))
        }
        Denial::Quota { dimensions, .. } => Observation::Broken(format!(
            "the quota refused it for {} instead",
            dimensions.join(", ")
        )),
        other => Observation::Broken(format!("something else than the quota refused it: {other:?}")),
    }
}

/// A pod for all that is left of a dimension: admitted it is a control; refused by the quota, the tenant has less than promised.
async fn within_quota(cx: &Context, tenant: &Tenant, dimension: Dimension) -> Result<Control, Finding> {
    let promised = dimension.promised(tenant);
    let claim = |what: String| format!("{}: {what}", tenant.id);
    let broken = |why: String| {
        Ok(Control {
            claim: claim(format!("a pod within {}", dimension.key())),
            holds: Err(why),
        })
    };
    let asked = match at_rest(cx, tenant, dimension, |used| (promised - used.ceiling).max(1)).await {
        Ok(asked) => asked,
        Err(error) => return broken(error.to_string()),
    };
    let used = dimension.write(asked.used.floor);
    let pod = claim(format!(
        "a pod with all that is left, {}={}",
        dimension.key(),
        dimension.write(asked.units)
    ));
    match asked.answer {
        _ if asked.used.ceiling >= promised => broken(format!(
            "the quota is used up already: {used} of {}",
            dimension.write(promised)
        )),
        Ok(()) => Ok(Control {
            claim: pod,
            holds: Ok("admitted".to_owned()),
        }),
        Err(Denial::Quota { name, dimensions }) if dimensions.iter().any(|each| each == dimension.key()) => {
            Err(Finding {
                expected: format!(
                    "{pod} is admitted: {} promised, {used} used",
                    dimension.write(promised)
                ),
                seen: format!("quota {name} refused it"),
            })
        }
        Err(Denial::Quota { dimensions, .. }) => broken(format!(
            "it cannot be asked for by itself: less is left of {}",
            dimensions.join(", ")
        )),
        Err(denial) => broken(format!("refused: {denial:?}")),
    }
}

/// A dry run, and the usage that stood still around it.
struct Asked {
    units: i128,
    used: Used,
    answer: Result<(), Denial>,
}

/// Asks for an amount that follows from the usage, and again where the usage moved meanwhile: a tenant may be at work.
async fn at_rest(
    cx: &Context,
    tenant: &Tenant,
    dimension: Dimension,
    amount: impl Fn(Used) -> i128,
) -> Result<Asked, HarnessError> {
    const TRIES: usize = 5;
    let (client, namespace) = (&cx.site.cluster.client, tenant.namespace());
    for _ in 0..TRIES {
        let used = usage(client, &namespace, dimension).await?.unwrap_or_default();
        let units = amount(used);
        let answer = dry_run(cx, tenant, &dimension.resources(units)).await?;
        if usage(client, &namespace, dimension).await?.unwrap_or_default() == used {
            return Ok(Asked { units, used, answer });
        }
        tokio::time::sleep(POLL).await;
    }
    Err(HarnessError::new(format!(
        "the use of {} moved during each of {TRIES} tries: the tenant is busy",
        dimension.key()
    )))
}

/// What is used of a dimension, in its unit, rounded down and up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    floor: i128,
    ceiling: i128,
}

/// What the quotas count as used; several may count the same, and the largest binds. Nothing where none counts it.
async fn usage(
    client: &kube::Client,
    namespace: &str,
    dimension: Dimension,
) -> Result<Option<Used>, HarnessError> {
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), namespace);
    let doing = format!("list resourcequotas in namespace {namespace}");
    let list = within(ANSWER, doing, quotas.list(&ListParams::default())).await?;
    let mut most = None;
    for quota in list.items {
        let used = quota.status.and_then(|status| status.used).unwrap_or_default();
        if let Some(quantity) = used
            .get(dimension.key())
            .and_then(|quantity| quantity.0.parse::<Quantity>().ok())
        {
            let floor = dimension.units(&quantity);
            most = most.max(Some(Used {
                floor,
                ceiling: dimension.units_rounded_up(&quantity),
            }));
        }
    }
    Ok(most)
}

/// Usage follows a pod that is really created, and its deletion.
async fn usage_follows(cx: &Context, tenant: &TenantId) -> Control {
    let claim = format!("{tenant}: the quota's usage follows a pod's creation and deletion");
    Control {
        claim,
        holds: follow(cx, tenant).await.map_err(|error| error.to_string()),
    }
}

async fn follow(cx: &Context, tenant: &TenantId) -> Result<String, HarnessError> {
    const TRIES: usize = 3;
    let mut moved = None;
    for _ in 0..TRIES {
        match follow_once(cx, tenant).await? {
            Ok(seen) => return Ok(seen),
            Err(late) => moved = Some(late),
        }
    }
    Err(moved.unwrap_or_else(|| HarnessError::new("not tried")))
}

/// One pod's life, as the quota counts it; the inner error is usage that went elsewhere, which another pod of the tenant may have caused.
async fn follow_once(cx: &Context, tenant: &TenantId) -> Result<Result<String, HarnessError>, HarnessError> {
    const AMOUNT: i128 = 7;
    let (site, namespace) = (&cx.site, tenant.namespace());
    let client = &site.cluster.client;
    let entry = real_pod(tenant, &site.mark.run);
    let resources = Dimension::LimitsCpu.resources(AMOUNT);
    let image = &site.settings.agent_image;
    let pod = manifest::inert_pod(&site.mark, &entry.name, &namespace, image, &resources);
    let nothing = || HarnessError::new(format!("no quota in namespace {namespace} counts limits.cpu"));
    let before = usage(client, &namespace, Dimension::LimitsCpu)
        .await?
        .ok_or_else(nothing)?
        .floor;
    site.ledger.create(client, pod).await?;
    let created = await_used(client, &namespace, before + AMOUNT).await;
    let run = site.mark.run.as_str();
    let failed = removal::remove(client, run, &[entry], FOLLOWS_WITHIN, &|entry| {
        site.ledger.gone(entry);
    })
    .await;
    if let Some((entry, why)) = failed.into_iter().next() {
        return Err(HarnessError::new(format!("delete {entry}: {why}")));
    }
    let deleted = await_used(client, &namespace, before).await;
    Ok(created
        .and(deleted)
        .map(|()| format!("limits.cpu {before}m, {}m, {before}m", before + AMOUNT)))
}

async fn await_used(client: &kube::Client, namespace: &str, expected: i128) -> Result<(), HarnessError> {
    let deadline = tokio::time::Instant::now() + FOLLOWS_WITHIN / 3;
    loop {
        let seen = usage(client, namespace, Dimension::LimitsCpu)
            .await?
            .unwrap_or_default()
            .floor;
        if seen == expected {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(HarnessError::new(format!(
                "limits.cpu used: expected {expected}m, still {seen}m"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A Deployment beyond the quota: accepted, and its ReplicaSet reports the quota's refusal.
async fn deployment_beyond(cx: &Context, tenant: &Tenant) -> Observed {
    let (site, namespace) = (&cx.site, tenant.namespace());
    let (client, run) = (&site.cluster.client, site.mark.run.as_str());
    let entry = deployment(&tenant.id, &site.mark.run);
    let dimension = Dimension::LimitsCpu;
    let units = dimension.promised(tenant) + 1;
    let (image, resources) = (&site.settings.agent_image, dimension.resources(units));
    let object = manifest::inert_deployment(&site.mark, &entry.name, &namespace, image, &resources);
    let what = format!(
        "{}: Deployment of a pod with {}={}",
        tenant.id,
        dimension.key(),
        dimension.write(units)
    );
    if let Err(error) = site.ledger.create(client, object).await {
        return Observed {
            what,
            observation: Observation::Broken(error.to_string()),
        };
    }
    let observation = await_refusal(client, &namespace, &entry.name).await;
    // What cannot be removed now stays in the ledger, and is tried again at the end.
    removal::remove(client, run, &[entry], FOLLOWS_WITHIN, &|entry| {
        site.ledger.gone(entry);
    })
    .await;
    Observed { what, observation }
}

async fn await_refusal(client: &kube::Client, namespace: &str, name: &str) -> Observation {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let deadline = tokio::time::Instant::now() + FOLLOWS_WITHIN;
    loop {
        if let Ok(Ok(deployment)) = tokio::time::timeout(ANSWER, deployments.get(name)).await
            && let Some(decided) = reported(&deployment)
        {
            return decided;
        }
        if tokio::time::Instant::now() > deadline {
            let seconds = FOLLOWS_WITHIN.as_secs();
            return Observation::Broken(format!(
                "within {seconds} s neither a pod nor a refusal was reported"
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a Deployment's status says of its pod: made, refused by quota, refused by something else, or nothing yet.
fn reported(deployment: &Deployment) -> Option<Observation> {
    let status = deployment.status.as_ref()?;
    if status.replicas.unwrap_or(0) > 0 {
        return Some(Observation::Reached("its pod was created".to_owned()));
    }
    let failure = status
        .conditions
        .iter()
        .flatten()
        .find(|each| each.type_ == "ReplicaFailure" && each.status == "True")?;
    let message = failure.message.clone().unwrap_or_default();
    if message.contains("exceeded quota") {
        Some(Observation::Denied(
            "its ReplicaSet reports `exceeded quota`".to_owned(),
        ))
    } else {
        Some(Observation::Broken(format!(
            "its ReplicaSet reports something else: {message}"
        )))
    }
}

#[cfg(test)]
mod tests;

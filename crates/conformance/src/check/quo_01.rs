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
    how: "For requests and limits of CPU and memory, a pod that complies with everything else asks for just more than that one dimension allows (server-side dry run): the quota must refuse it and name the dimension. Controls: a pod that asks for all that is left of the dimension is admitted; the quota's usage follows a pod that is really created and deleted. A Deployment beyond the quota is accepted, and its ReplicaSet must report the refusal.",
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
        match subject {
            Subject::Tenant(tenant) => vec![Resource::Tenant(tenant.clone())],
            Subject::Cluster | Subject::Pair(..) => Vec::new(),
        }
    }

    fn objects(&self, subject: &Subject, run: &RunId) -> Vec<Entry> {
        let Subject::Tenant(tenant) = subject else {
            return Vec::new();
        };
        vec![real_pod(tenant, run), deployment(tenant, run)]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            match subject {
                Subject::Tenant(tenant) => judge(cx, tenant).await,
                Subject::Cluster | Subject::Pair(..) => {
                    Ok(Verdict::inconclusive("this check is about one tenant"))
                }
            }
        }
        .boxed()
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
    cx.stage.drive().await;
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
    probes.push(deployment_beyond(cx, tenant).await?);
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

/// A pod for just more than a dimension allows.
async fn beyond(cx: &Context, tenant: &Tenant, dimension: Dimension) -> Observed {
    let units = dimension.promised(tenant) + 1;
    let what = format!(
        "{}: pod with {}={}",
        tenant.id,
        dimension.key(),
        dimension.write(units)
    );
    let observation = match dry_run(cx, tenant, &dimension.resources(units)).await {
        Ok(Ok(())) => Observation::Reached(format!(
            "admitted, though {} is promised",
            dimension.write(units - 1)
        )),
        Ok(Err(denial)) => refusal(&denial, dimension),
        Err(error) => Observation::Broken(error.to_string()),
    };
    Observed { what, observation }
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
    let claim = |what: &str| format!("{}: {what}", tenant.id);
    let broken = |why: String| {
        Ok(Control {
            claim: claim(&format!("a pod within {}", dimension.key())),
            holds: Err(why),
        })
    };
    let used = match used(&cx.site.cluster.client, &tenant.namespace(), dimension).await {
        Ok(used) => used,
        Err(error) => return broken(error.to_string()),
    };
    let left = dimension.promised(tenant) - used;
    if left < 1 {
        let (used, promised) = (dimension.write(used), dimension.write(dimension.promised(tenant)));
        return broken(format!("the quota is used up already: {used} of {promised}"));
    }
    let asked = format!(
        "a pod with all that is left, {}={}",
        dimension.key(),
        dimension.write(left)
    );
    match dry_run(cx, tenant, &dimension.resources(left)).await {
        Ok(Ok(())) => Ok(Control {
            claim: claim(&asked),
            holds: Ok("admitted".to_owned()),
        }),
        Ok(Err(Denial::Quota { name, dimensions }))
            if dimensions.iter().any(|each| each == dimension.key()) =>
        {
            let promised = dimension.write(dimension.promised(tenant));
            Err(Finding {
                expected: format!(
                    "{} is admitted: {promised} promised, {} used",
                    claim(&asked),
                    dimension.write(used)
                ),
                seen: format!("quota {name} refused it"),
            })
        }
        Ok(Err(denial)) => broken(format!("refused: {denial:?}")),
        Err(error) => broken(error.to_string()),
    }
}

/// What the quotas count as used. Several may count the same: the largest is the one that binds.
async fn used(client: &kube::Client, namespace: &str, dimension: Dimension) -> Result<i128, HarnessError> {
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), namespace);
    let list = within(
        ANSWER,
        format!("list resourcequotas in namespace {namespace}"),
        quotas.list(&ListParams::default()),
    )
    .await?;
    let mut most = None;
    for quota in list.items {
        let used = quota.status.and_then(|status| status.used).unwrap_or_default();
        if let Some(quantity) = used
            .get(dimension.key())
            .and_then(|quantity| quantity.0.parse::<Quantity>().ok())
        {
            // Rounded up, so that "all that is left" never asks for a fraction too much.
            let exact = dimension.units(&quantity);
            let rounded = if dimension.is_cpu() { exact } else { exact + 1 };
            most = most.max(Some(rounded));
        }
    }
    most.ok_or_else(|| {
        HarnessError::new(format!(
            "no quota in namespace {namespace} counts {}",
            dimension.key()
        ))
    })
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
    const AMOUNT: i128 = 7;
    let (site, namespace) = (&cx.site, tenant.namespace());
    let client = &site.cluster.client;
    let entry = real_pod(tenant, &site.mark.run);
    let resources = Dimension::LimitsCpu.resources(AMOUNT);
    let pod = manifest::inert_pod(
        &site.mark,
        &entry.name,
        &namespace,
        &site.settings.agent_image,
        &resources,
    );
    let before = used(client, &namespace, Dimension::LimitsCpu).await?;
    site.ledger.create(client, pod).await?;
    let created = await_used(client, &namespace, before + AMOUNT).await;
    let failed = removal::remove(
        client,
        site.mark.run.as_str(),
        &[entry],
        FOLLOWS_WITHIN,
        &|entry| site.ledger.gone(entry),
    )
    .await;
    created?;
    if let Some((entry, why)) = failed.into_iter().next() {
        return Err(HarnessError::new(format!("delete {entry}: {why}")));
    }
    await_used(client, &namespace, before).await?;
    Ok(format!("limits.cpu {before}m, {}m, {before}m", before + AMOUNT))
}

async fn await_used(client: &kube::Client, namespace: &str, expected: i128) -> Result<(), HarnessError> {
    let deadline = tokio::time::Instant::now() + FOLLOWS_WITHIN;
    loop {
        let seen = used(client, namespace, Dimension::LimitsCpu).await?;
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
async fn deployment_beyond(cx: &Context, tenant: &Tenant) -> Result<Observed, HarnessError> {
    let (site, namespace) = (&cx.site, tenant.namespace());
    let entry = deployment(&tenant.id, &site.mark.run);
    let dimension = Dimension::LimitsCpu;
    let units = dimension.promised(tenant) + 1;
    let resources = dimension.resources(units);
    let object = manifest::inert_deployment(
        &site.mark,
        &entry.name,
        &namespace,
        &site.settings.agent_image,
        &resources,
    );
    site.ledger.create(&site.cluster.client, object).await?;
    let observation = await_refusal(&site.cluster.client, &namespace, &entry.name).await;
    let run = site.mark.run.as_str();
    // What cannot be removed now stays in the ledger, and is tried again at the end.
    removal::remove(&site.cluster.client, run, &[entry], FOLLOWS_WITHIN, &|entry| {
        site.ledger.gone(entry);
    })
    .await;
    let what = format!(
        "{}: Deployment of a pod with {}={}",
        tenant.id,
        dimension.key(),
        dimension.write(units)
    );
    Ok(Observed { what, observation })
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

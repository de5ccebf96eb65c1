//! QUO-01: the quota holds, each dimension of CPU and memory by itself. What it must be comes from the tenant's settings, never from the
//! cluster: a quota that somebody raised refuses nothing that it should.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::error::HarnessError;
use crate::ledger::{Entry, Kind};
use crate::manifest;
use crate::names::RunId;
use crate::quota::{self, Dimension, POLL, beyond, usage, within_quota};
use crate::removal;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Finding, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use provisioner::{Tenant, TenantId};
use std::time::Duration;

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
    timeout: Duration::from_secs(300),
};

/// How long the quota controller may take to follow, and the Deployment controller to report.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(30);

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

    fn objects(&self, subject: &Subject, _tenants: &[Tenant], run: &RunId) -> Vec<Entry> {
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
    // The run's own pods count against the quota too: usage must stand still while it is measured.
    cx.stage.settle_pods(id).await;
    let _alone = quota::hold(cx, id).await?;
    let tenant = cx.site.tenant(id)?;
    let mut probes = Vec::new();
    let mut controls: Vec<Control> = Vec::new();
    let mut refused: Vec<Finding> = Vec::new();
    // Dry runs use nothing up, so the dimensions do not mislead each other.
    let asked = Dimension::COMPUTE
        .map(|dimension| future::join(beyond(cx, tenant, dimension), within_quota(cx, tenant, dimension)));
    for (probe, control) in future::join_all(asked).await {
        probes.push(probe);
        match control {
            Ok(control) => controls.push(control),
            Err(finding) => refused.push(finding),
        }
    }
    let (follows, deployment) = futures::join!(usage_follows(cx, id), deployment_beyond(cx, tenant));
    controls.push(follows);
    probes.push(deployment);
    Ok(judge_denied(&prove(&controls), &probes).with_findings(refused))
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
    let before = usage(client, &namespace)
        .await?
        .of(Dimension::LimitsCpu)
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
        let seen = usage(client, namespace)
            .await?
            .of(Dimension::LimitsCpu)
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

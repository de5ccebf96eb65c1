//! QUO-04: no container runs without bounds. One that leaves a request or a limit out is refused, or gets no more than the tenant's settings
//! give to such containers.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::denial::Denial;
use crate::error::HarnessError;
use crate::manifest;
use crate::quota::{self, Dimension};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use provisioner::{Quantity, Tenant, TenantId};
use serde_json::{Value, json};
use std::time::Duration;

/// The check.
pub(super) struct Quo04;

static INFO: CheckInfo = CheckInfo {
    id: "QUO-04",
    title: "a container without requests or limits is refused, or bounded",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::DryRun,
    why: "A container without a limit takes what its node has. A quota counts only what is written down.",
    how: "Pods whose container, or init container, leaves out one of the two requests and two limits, or all four, are made in a dry run. Each must be refused for what is missing (the quota's `must specify`, or a LimitRange), or come back with values for it, no larger than the tenant's settings give to containers that say nothing (containerDefaults), or than the container's own limit. Control: the same pod with all four is admitted.",
    remedy: "bring the ResourceQuota and the LimitRange back (provisioner apply): the quota refuses what has no values, the LimitRange gives them",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

impl Check for Quo04 {
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

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

/// Which of a pod's containers leaves something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Main,
    Init,
}

impl Container {
    fn list(self) -> &'static str {
        match self {
            Container::Main => "containers",
            Container::Init => "initContainers",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Container::Main => "a container",
            Container::Init => "an init container",
        }
    }
}

async fn judge(cx: &Context, id: &TenantId) -> Result<Verdict, HarnessError> {
    // It needs room for one pod, which whoever fills the quota would take.
    let _alone = quota::hold(cx, id).await?;
    let tenant = cx.site.tenant(id)?;
    let mut asked = Vec::new();
    for container in [Container::Main, Container::Init] {
        for dimension in Dimension::COMPUTE {
            asked.push(probe(cx, tenant, container, vec![dimension]));
        }
        asked.push(probe(cx, tenant, container, Dimension::COMPUTE.into()));
    }
    let (control, probes) = futures::join!(complete(cx, tenant), future::join_all(asked));
    Ok(judge_denied(&prove(&[control]), &probes))
}

/// A pod of two containers that are complete but for what one of them leaves out.
fn pod(cx: &Context, tenant: &Tenant, container: Container, missing: &[Dimension]) -> Value {
    let site = &cx.site;
    let name = site.mark.run.object("without-values");
    let resources = manifest::resources("1m", "1m", "1Mi", "1Mi");
    let image = &site.settings.agent_image;
    let mut pod = manifest::inert_pod(&site.mark, &name, &tenant.namespace(), image, &resources);
    pod["spec"]["initContainers"] = pod["spec"]["containers"].clone();
    pod["spec"]["initContainers"][0]["name"] = json!("first");
    for dimension in missing {
        let (kind, what) = parts(*dimension);
        let values = &mut pod["spec"][container.list()][0]["resources"][kind];
        if let Some(values) = values.as_object_mut() {
            values.remove(what);
        }
    }
    pod
}

/// `requests.cpu` as `requests` and `cpu`.
fn parts(dimension: Dimension) -> (&'static str, &'static str) {
    dimension.key().split_once('.').unwrap_or_default()
}

async fn complete(cx: &Context, tenant: &Tenant) -> Control {
    let holds = match quota::dry_run(cx, tenant, pod(cx, tenant, Container::Main, &[])).await {
        Ok(Ok(_)) => Ok("admitted".to_owned()),
        Ok(Err(denial)) => Err(format!("refused: {denial:?}")),
        Err(error) => Err(error.to_string()),
    };
    Control {
        claim: format!("{}: the same pod with all requests and limits", tenant.id),
        holds,
    }
}

async fn probe(cx: &Context, tenant: &Tenant, container: Container, missing: Vec<Dimension>) -> Observed {
    let keys: Vec<&str> = missing.iter().map(|dimension| dimension.key()).collect();
    let observation = match quota::dry_run(cx, tenant, pod(cx, tenant, container, &missing)).await {
        Err(error) => Observation::Broken(error.to_string()),
        Ok(Err(denial)) => refused(&denial, &keys),
        Ok(Ok(pod)) => bounded(
            &pod.data["spec"][container.list()][0]["resources"],
            tenant,
            &missing,
        ),
    };
    Observed {
        what: format!(
            "{}: unbounded {} of {}",
            tenant.id,
            keys.join(", "),
            container.word()
        ),
        observation,
    }
}

/// Only a refusal for what is missing shows that it may not be: a quota that is used up would refuse the pod with all its values too.
fn refused(denial: &Denial, missing: &[&str]) -> Observation {
    match denial {
        Denial::QuotaOther(message)
            if message.contains("must specify") && missing.iter().any(|key| message.contains(key)) =>
        {
            Observation::Denied("the quota refuses what has no values".to_owned())
        }
        Denial::LimitRange => Observation::Denied("a LimitRange refuses it".to_owned()),
        other => Observation::Broken(format!("refused for another reason: {other:?}")),
    }
}

/// What an admitted container got for what it left out.
fn bounded(resources: &Value, tenant: &Tenant, missing: &[Dimension]) -> Observation {
    let mut given = Vec::new();
    for dimension in missing {
        let (kind, what) = parts(*dimension);
        let text = resources[kind][what].as_str().unwrap_or_default();
        let most = default(*dimension, tenant);
        match text.parse::<Quantity>() {
            Err(_) => return Observation::Reached(format!("admitted without {}", dimension.key())),
            Ok(value) if value > *most => {
                return Observation::Reached(format!(
                    "admitted with {}={text}, more than the {most} of the tenant's containerDefaults",
                    dimension.key()
                ));
            }
            Ok(_) => given.push(format!("{}={text}", dimension.key())),
        }
    }
    Observation::Denied(format!("it gets {}", given.join(", ")))
}

/// What the tenant's settings give to a container that says nothing.
fn default(dimension: Dimension, tenant: &Tenant) -> &Quantity {
    let defaults = &tenant.container_defaults;
    match dimension {
        Dimension::RequestsCpu => &defaults.cpu_request,
        Dimension::LimitsCpu => &defaults.cpu_limit,
        Dimension::RequestsMemory => &defaults.memory_request,
        Dimension::LimitsMemory | Dimension::RequestsStorage => &defaults.memory_limit,
    }
}

#[cfg(test)]
mod tests;

//! QUO-03: storage is limited by the quota, for claims and for the claims that a pod's ephemeral volumes bring along. A tenant may not make
//! claims, but it may make pods: the second way is its own.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::denial::classify;
use crate::error::{HarnessError, within};
use crate::ledger::{Entry, Kind};
use crate::manifest;
use crate::names::RunId;
use crate::quota::{self, Dimension};
use crate::removal;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use kube::core::Status;
use provisioner::{Tenant, TenantId};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// The check.
pub(super) struct Quo03;

static INFO: CheckInfo = CheckInfo {
    id: "QUO-03",
    title: "storage beyond the tenant's quota is refused, that of ephemeral volumes too",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::OwnObjects,
    why: "Storage is shared and costs money. A tenant may not make claims itself, but a pod with a generic ephemeral volume has one made for it, with the rights of a controller.",
    how: "A PersistentVolumeClaim for one mebibyte more than is left is made in a dry run by the harness, since the tenant itself may not: the quota must refuse it for requests.storage. Control: one for all that is left is admitted. Then a real pod that is never scheduled asks for more than all that is promised by a generic ephemeral volume: the pod is admitted, and its claim must not appear, with the quota's refusal in the pod's events. The claims are of a storage class that does not exist, so that no volume is made in any case.",
    remedy: "bring `requests.storage` of the ResourceQuota back to what the tenant's file says (provisioner apply); kubectl describe quota shows what is in force",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

/// How long the controller of ephemeral volumes may take.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// The volume's name in its pod.
const VOLUME: &str = "scratch";
const DIMENSION: Dimension = Dimension::RequestsStorage;

impl Check for Quo03 {
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
        subject
            .tenant()
            .map_or_else(|_| Vec::new(), |tenant| made(tenant, run).into())
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

/// The pod, and the claim that a controller would make for it.
fn made(tenant: &TenantId, run: &RunId) -> [Entry; 2] {
    let pod = run.object("storage");
    let claim = format!("{pod}-{VOLUME}");
    [(Kind::Pod, pod), (Kind::PersistentVolumeClaim, claim)].map(|(kind, name)| Entry {
        kind,
        namespace: Some(tenant.namespace()),
        name,
    })
}

async fn judge(cx: &Context, id: &TenantId) -> Result<Verdict, HarnessError> {
    let _alone = quota::hold(cx, id).await?;
    let tenant = cx.site.tenant(id)?;
    let (beyond, within) = futures::join!(
        quota::beyond(cx, tenant, DIMENSION),
        quota::within_quota(cx, tenant, DIMENSION)
    );
    let ephemeral = ephemeral(cx, tenant).await;
    let (controls, refused) = match within {
        Ok(control) => (vec![control], Vec::new()),
        Err(finding) => (Vec::new(), vec![finding]),
    };
    Ok(judge_denied(&prove(&controls), &[beyond, ephemeral]).with_findings(refused))
}

/// A pod whose ephemeral volume is larger than all that is promised.
async fn ephemeral(cx: &Context, tenant: &Tenant) -> Observed {
    let site = &cx.site;
    let units = DIMENSION.promised(tenant) + 1;
    let amount = DIMENSION.write(units);
    let entries = made(&tenant.id, &site.mark.run);
    let observation = match claimed(cx, tenant, &entries, &amount).await {
        Ok(observation) => observation,
        Err(error) => Observation::Broken(error.to_string()),
    };
    // What cannot be removed now stays in the ledger, and is tried again at the end.
    let (client, run) = (&site.cluster.client, site.mark.run.as_str());
    removal::remove(client, run, &entries, FOLLOWS_WITHIN, &|entry| {
        site.ledger.gone(entry);
    })
    .await;
    Observed {
        what: format!(
            "{}: a pod's ephemeral volume with {}={amount}",
            tenant.id,
            DIMENSION.key()
        ),
        observation,
    }
}

async fn claimed(
    cx: &Context,
    tenant: &Tenant,
    [pod, claim]: &[Entry; 2],
    amount: &str,
) -> Result<Observation, HarnessError> {
    let (site, namespace) = (&cx.site, tenant.namespace());
    let client = &site.cluster.client;
    let resources = manifest::resources("1m", "1m", "1Mi", "1Mi");
    let image = &site.settings.agent_image;
    let mut object = manifest::inert_pod(&site.mark, &pod.name, &namespace, image, &resources);
    object["spec"]["volumes"] = json!([manifest::ephemeral_volume(&site.mark, VOLUME, amount)]);
    // The claim is made by a controller, but on our behalf.
    site.ledger
        .made(claim.clone())
        .map_err(|error| site.ledger.unwritable(&error))?;
    site.ledger.create(client, object).await?;
    let deadline = Instant::now() + FOLLOWS_WITHIN;
    loop {
        let (appeared, refused) = futures::join!(
            removal::exists(client, claim),
            refusal(client, &namespace, &pod.name)
        );
        match (appeared, refused) {
            (Ok(true), _) => return Ok(Observation::Reached(format!("{claim} was made"))),
            (Ok(false), Ok(Some(refused))) => return Ok(refused),
            (appeared, refused) if Instant::now() > deadline => {
                appeared?;
                refused?;
                return Ok(Observation::Broken(format!(
                    "within {} s neither a claim nor a refusal was reported",
                    FOLLOWS_WITHIN.as_secs()
                )));
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// What the pod's events say of its claim, where they say something.
async fn refusal(
    client: &kube::Client,
    namespace: &str,
    pod: &str,
) -> Result<Option<Observation>, HarnessError> {
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    let of_pod = ListParams::default().fields(&format!("involvedObject.name={pod}"));
    let doing = format!("list events in namespace {namespace}");
    let events = within(ANSWER, doing, events.list(&of_pod)).await?;
    Ok(events
        .items
        .into_iter()
        .filter_map(|event| event.message)
        .find_map(|message| told(&message)))
}

/// `ephemeral volume scratch: create PVC x: persistentvolumeclaims "x" is forbidden: exceeded quota: …`
fn told(message: &str) -> Option<Observation> {
    let (_, refusal) = message.split_once("create PVC ")?;
    let status = Status {
        code: 403,
        message: refusal.to_owned(),
        ..Status::default()
    };
    let refused = refusal
        .contains("forbidden: ")
        .then(|| quota::refusal(&classify(&status), DIMENSION.key()));
    Some(refused.unwrap_or_else(|| Observation::Broken(message.to_owned())))
}

#[cfg(test)]
mod tests;

//! QUO-08: a tenant's own account cannot change what limits the tenant. Asked about the objects that really limit it, by dry runs that would
//! change nothing even where they were taken for more.

use crate::access::{self, Access, Resource as ApiResource};
use crate::account::{self, act_as, own_control};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::error::{HarnessError, within};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use provisioner::TenantId;
use serde_json::{Value, json};
use std::time::Duration;

/// The check.
pub(super) struct Quo08;

static INFO: CheckInfo = CheckInfo {
    id: "QUO-08",
    title: "a tenant's account cannot change its own quota and LimitRange",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::DryRun,
    why: "A quota that the tenant may raise is no quota; its status decides as much as its specification, and one that is deleted refuses nothing.",
    how: "A token is minted for the tenant's account and asked who it is; then create, update, patch, delete and deletecollection of resourcequotas and limitranges, and update and patch of resourcequotas/status, must each be refused by RBAC itself: for a name of the run's own, and for every quota and LimitRange that the namespace has, since a rule may name them. Controls: the same token lists pods, and creates one in a dry run. All are dry runs, and would be refused for their preconditions if they were not.",
    remedy: "take resourcequotas and limitranges out of what the tenant's account may change: bring its Role back (provisioner apply), and look for other bindings of the account with kubectl get rolebindings,clusterrolebindings -A -o wide",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

/// No object has it: whoever takes a dry run for more is stopped by this.
const NOBODYS_UID: &str = "00000000-0000-0000-0000-000000000000";
const QUOTAS: ApiResource = ApiResource::core("resourcequotas");
const QUOTA_STATUS: ApiResource = ApiResource::core("resourcequotas/status");
const LIMIT_RANGES: ApiResource = ApiResource::core("limitranges");

impl Check for Quo08 {
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

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(tenant).await?;
    let site = &cx.site;
    let client = act_as(cx, tenant).await?;
    let lists = own_control(&client, tenant, site).await;
    let creates = creates_a_pod(cx, &client, tenant).await;
    let (quotas, ranges) = names(cx, tenant).await?;
    let namespace = tenant.namespace();
    let mut asked = Vec::new();
    for (resource, names) in [
        (QUOTAS, &quotas),
        (QUOTA_STATUS, &quotas),
        (LIMIT_RANGES, &ranges),
    ] {
        asked.extend(accesses(tenant, &namespace, resource, names));
    }
    let probes = access::ask_all(&client, asked, site).await;
    Ok(judge_denied(&prove(&[lists, creates]), &probes))
}

/// The quotas and LimitRanges of the tenant's namespace, and a name that only the run uses.
async fn names(cx: &Context, tenant: &TenantId) -> Result<(Vec<String>, Vec<String>), HarnessError> {
    let (client, namespace) = (&cx.site.cluster.client, tenant.namespace());
    let own = cx.site.mark.run.object("limits");
    let all = ListParams::default();
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), &namespace);
    let ranges = Api::<LimitRange>::namespaced(client.clone(), &namespace);
    let (quotas, ranges) = futures::try_join!(
        within(
            ANSWER,
            format!("list resourcequotas in namespace {namespace}"),
            quotas.list(&all)
        ),
        within(
            ANSWER,
            format!("list limitranges in namespace {namespace}"),
            ranges.list(&all)
        ),
    )?;
    let (mut quota_names, mut range_names) = (vec![own.clone()], vec![own]);
    quota_names.extend(quotas.items.iter().map(ResourceExt::name_any));
    range_names.extend(ranges.items.iter().map(ResourceExt::name_any));
    Ok((quota_names, range_names))
}

/// Every way to change one of these.
fn accesses<'a>(
    tenant: &TenantId,
    namespace: &'a str,
    resource: ApiResource,
    names: &'a [String],
) -> Vec<(String, Access<'a>)> {
    let mut asked = Vec::new();
    let mut ask = |verb: &'static str, name: &'a str, body: Value| {
        let one = if ["create", "deletecollection"].contains(&verb) {
            String::new()
        } else {
            format!(" {name}")
        };
        let what = format!("sa-{tenant} may {verb} {resource}{one} in {namespace}");
        asked.push((
            what,
            Access::new(verb, resource, Some(namespace), name).with(body),
        ));
    };
    let stale = json!({ "metadata": { "uid": NOBODYS_UID, "resourceVersion": "1" } });
    let options = json!({ "preconditions": { "uid": NOBODYS_UID } });
    if resource != QUOTA_STATUS {
        ask("create", "", json!({}));
        ask("deletecollection", "", options.clone());
    }
    for name in names {
        ask("update", name, stale.clone());
        ask("patch", name, stale.clone());
        if resource != QUOTA_STATUS {
            ask("delete", name, options.clone());
        }
    }
    asked
}

/// The same token creates a pod, which the Role allows: in a dry run, and let through even where a quota that is used up refuses it.
async fn creates_a_pod(cx: &Context, client: &kube::Client, tenant: &TenantId) -> Control {
    let (site, namespace) = (&cx.site, tenant.namespace());
    let pods = access::TENANT_RESOURCES[0];
    let name = site.mark.run.object("limits");
    let pod = access::compliant(pods, &name, &namespace, &site.mark, &site.settings.agent_image);
    let access = Access::new("create", pods, Some(&namespace), &name).with(pod);
    Control::reached(&Observed {
        what: format!("{} creates a pod in {namespace} (dry run)", account::name(tenant)),
        observation: access::ask(client, &access, site).await,
    })
}

#[cfg(test)]
mod tests;

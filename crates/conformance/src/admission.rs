//! What admission makes of requests: one that differs in one thing from another, which is admitted, must be refused by the one control that is
//! there for it. Pods that would escape to their node are judged here whole, since they differ only in what they ask for; other requests
//! are made by the checks. Everything is a dry run, which admission treats like any other request (Kubernetes, "Kubernetes API Concepts":
//! dry-run).

use crate::access::{self, Access, Refusal, TENANT_RESOURCES};
use crate::account::{act_as, own_control};
use crate::check::{Check, CheckInfo};
use crate::context::Context;
use crate::denial::Denial;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use provisioner::TenantId;
use serde_json::Value;

/// What must refuse a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Pod Security, for one of these reasons. It lists all that it has, of the namespace's level
    /// (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).
    PodSecurity(&'static [&'static str]),
    /// The ValidatingAdmissionPolicy of this name.
    Policy(&'static str),
}

/// That a request is refused, and by whom it must be: only that is the promised denial. Quotas are asked after all other admission
/// (k8s.io/kubernetes, pkg/kubeapiserver/options/plugins.go), so what a quota refuses was let through.
pub fn refused(answer: &Result<Value, Refusal>, guard: Guard) -> Observation {
    let (denial, message) = match answer {
        Ok(_) => return Observation::Reached("admitted".to_owned()),
        Err(Refusal::NoAnswer(why)) => return Observation::Broken(why.clone()),
        Err(Refusal::Refused(denial, message)) => (denial, message),
    };
    match (denial, guard) {
        (Denial::PodSecurity, Guard::PodSecurity(reasons)) => match violated(message, reasons) {
            Some((level, reason)) => Observation::Denied(format!("Pod Security {level}: {reason}")),
            None => Observation::Broken(format!("Pod Security refused it for another reason: {message}")),
        },
        (Denial::Policy(name), Guard::Policy(expected)) if name == expected => {
            Observation::Denied(format!("admission policy {name}"))
        }
        (Denial::Quota { .. } | Denial::QuotaOther(_), _) => {
            Observation::Reached("let through: only the quota refused it, which is asked last".to_owned())
        }
        _ => Observation::Broken(format!("something else refused it ({denial:?}): {message}")),
    }
}

/// That a request is admitted. One that the quota refuses came past all that is asked before it.
pub fn admitted(claim: String, answer: &Result<Value, Refusal>) -> Control {
    let holds = match answer {
        Ok(_) => Ok("admitted".to_owned()),
        Err(Refusal::Refused(Denial::Quota { .. } | Denial::QuotaOther(_), _)) => {
            Ok("let through to the quota, which is asked last".to_owned())
        }
        Err(Refusal::Refused(denial, message)) => Err(format!("refused ({denial:?}): {message}")),
        Err(Refusal::NoAnswer(why)) => Err(why.clone()),
    };
    Control { claim, holds }
}

/// Reads `violates PodSecurity "restricted:latest": privileged (…), host namespaces (…)`: the level, and which of these reasons is there.
fn violated<'a>(message: &'a str, reasons: &[&'static str]) -> Option<(&'a str, &'static str)> {
    let (_, rest) = message.split_once("violates PodSecurity \"")?;
    let (level, list) = rest.split_once("\": ")?;
    let given = |reason: &&&'static str| {
        let detailed = format!("{reason} (");
        list == **reason || list.starts_with(&detailed) || list.contains(&format!(", {detailed}"))
    };
    reasons.iter().find(given).map(|reason| (level, *reason))
}

/// A way for a pod to ask for what is the node's.
pub struct Ask {
    /// As in "a pod with …".
    pub with: &'static str,
    /// Makes a compliant pod's specification ask for it.
    pub change: fn(&mut Value),
}

/// A check that pods which ask for something of the node's are refused in a tenant, whoever makes them there.
pub struct NodeGate {
    /// What it is.
    pub info: &'static CheckInfo,
    /// How Pod Security calls what it refuses.
    pub reasons: &'static [&'static str],
    /// The ways to ask for it.
    pub asks: &'static [Ask],
}

impl Check for NodeGate {
    fn info(&self) -> &'static CheckInfo {
        self.info
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
        let (reasons, asks) = (self.reasons, self.asks);
        async move { judge(cx, subject.tenant()?, reasons, asks).await }.boxed()
    }
}

async fn judge(
    cx: &Context,
    tenant: &TenantId,
    reasons: &'static [&'static str],
    asks: &[Ask],
) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(tenant).await?;
    // Pod Security may exempt users (the plugin's configuration: exemptions), so it is the tenant's own account that asks.
    let client = act_as(cx, tenant).await?;
    let lists = own_control(&client, tenant, &cx.site).await;
    let before = compliant(cx, &client, tenant).await;
    let asked = asks.iter().map(|ask| async {
        let answer = create(cx, &client, tenant, ask.change).await;
        Observed {
            what: format!("sa-{tenant} creates a pod with {}", ask.with),
            observation: refused(&answer, Guard::PodSecurity(reasons)),
        }
    });
    let probes = join_all(asked).await;
    let after = compliant(cx, &client, tenant).await;
    Ok(judge_denied(&prove(&[before, lists, after]), &probes))
}

/// The same pod without anything of the node's.
async fn compliant(cx: &Context, client: &kube::Client, tenant: &TenantId) -> Control {
    let answer = create(cx, client, tenant, |_| {}).await;
    admitted(format!("sa-{tenant} creates the same pod without it"), &answer)
}

/// What the API server answers to the creation of a pod that complies with everything but for this change, and would run nothing.
async fn create(
    cx: &Context,
    client: &kube::Client,
    tenant: &TenantId,
    change: fn(&mut Value),
) -> Result<Value, Refusal> {
    let (site, namespace) = (&cx.site, tenant.namespace());
    let pods = TENANT_RESOURCES[0];
    let name = site.mark.run.object("gate");
    let mut pod = access::compliant(pods, &name, &namespace, &site.mark, &site.settings.agent_image);
    change(&mut pod["spec"]);
    let access = Access::new("create", pods, Some(&namespace), &name).with(pod);
    access::send(client, &access, site).await
}

#[cfg(test)]
mod tests;

//! RBAC-05: what runs in a pod is out of reach of a tenant's account, in its own namespace and in those of others. Subresources are rights
//! of their own, and an exec by websocket is a get: whoever asks about create alone sees half of them.

use crate::access::{self, Access, SUBRESOURCES};
use crate::account::{self, act_as, own_control};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::rules::{self, Rule};
use crate::subject::{self, Subject};
use crate::verdict::{Finding, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Rbac05;

static INFO: CheckInfo = CheckInfo {
    id: "RBAC-05",
    title: "a tenant's account gets into no running pod: no exec, attach, port-forward or proxy, by get or by create",
    profile: Profile::Baseline,
    severity: Severity::High,
    footprint: Footprint::DryRun,
    why: "An exec is the pod's identity, its credentials and its place in the network, whatever policies say; and one by websocket is a get, so a Role that looks as if it only read is enough.",
    how: "A token is minted for the tenant's account and asked who it is. With it exec, attach, portforward and proxy of pods and proxy of services, each by get and by create, and log, eviction, binding, ephemeralcontainers, resize, status, scale and token must be refused by RBAC itself in the tenant's own namespace, in every other tenant's and in that of the shared services: twice, since API servers learn of bindings late. The names are the run's own, and authorization comes before an object is looked for. The API server's own list of the account's rights in each of these namespaces (SelfSubjectRulesReview) must hold none of them either. Control: the same token lists pods in its own namespace, and the other tenants' in theirs.",
    remedy: "take pods/exec, pods/attach, pods/portforward, pods/proxy and the like out of the Role (provisioner apply brings it back), and look for other bindings of the account with kubectl get rolebindings,clusterrolebindings -A -o wide",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

impl Check for Rbac05 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        tenants.iter().cloned().map(Resource::Tenant).collect()
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    let site = &cx.site;
    for each in &site.settings.tenants {
        cx.stage.tenant(&each.id).await?;
    }
    let client = act_as(cx, tenant).await?;
    let mut controls = vec![own_control(&client, tenant, site).await];
    // The neighbours' own rights are in force: so would a right be that was given in their namespaces to somebody else.
    for other in site.settings.tenants.iter().filter(|other| other.id != *tenant) {
        let neighbour = act_as(cx, &other.id).await?;
        controls.push(own_control(&neighbour, &other.id, site).await);
    }
    // Nothing has this name: what is let through finds nothing.
    let (namespaces, nothing) = (namespaces(cx, tenant), site.mark.run.object("nothing"));
    let me = account::name(tenant);
    let (mut probes, (findings, unknown)) = futures::join!(
        access::ask_all_twice(&client, asked(tenant, &namespaces, &nothing), site),
        rules::sift(&client, &me, &namespaces, |namespace, rules| {
            held_but_forbidden(tenant, namespace, rules)
        }),
    );
    controls.push(own_control(&client, tenant, site).await);
    probes.extend(unknown);
    Ok(judge_denied(&prove(&controls), &probes).with_findings(findings))
}

/// The tenant's own namespace, the other tenants', and that of the services that all of them use.
fn namespaces(cx: &Context, tenant: &TenantId) -> Vec<String> {
    let tenants = &cx.site.settings.tenants;
    let others = tenants.iter().filter(|other| other.id != *tenant);
    let shared = tenants
        .first()
        .map(|first| first.shared_services.namespace.to_string());
    let mut all = vec![tenant.namespace()];
    all.extend(others.map(provisioner::Tenant::namespace));
    all.extend(shared);
    all
}

fn asked<'a>(tenant: &TenantId, namespaces: &'a [String], name: &'a str) -> Vec<(String, Access<'a>)> {
    let mut asked = Vec::new();
    for namespace in namespaces {
        for (verbs, resource) in SUBRESOURCES {
            for verb in verbs {
                let what = format!("sa-{tenant} may {verb} {resource} in {namespace}");
                asked.push((what, Access::new(verb, resource, Some(namespace), name)));
            }
        }
    }
    asked
}

/// What the API server's list of rights in a namespace holds of subresources. It knows rules that name one object, and verbs that are not
/// asked for.
fn held_but_forbidden(tenant: &TenantId, namespace: &str, rules: &[Rule]) -> Vec<Finding> {
    let of_these = |rule: &&Rule| {
        let named = SUBRESOURCES
            .iter()
            .any(|(_, resource)| rule.resource == resource.name);
        // `*` stands for subresources too, and `*/exec` for those of every resource.
        named || rule.resource == "*" || rule.resource.starts_with("*/")
    };
    let held: Vec<String> = rules.iter().filter(of_these).map(ToString::to_string).collect();
    if held.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        expected: format!(
            "the rights of sa-{tenant} in {namespace} hold no subresource of pods, services, deployments or accounts"
        ),
        seen: held.join(", "),
    }]
}

#[cfg(test)]
mod tests;

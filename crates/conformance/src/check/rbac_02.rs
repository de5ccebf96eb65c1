//! RBAC-02: in its own namespace a tenant's account may do what its Role says, and nothing else. What it may do is done, with its real token,
//! to objects of the run's own; what it may not is asked for by dry runs, and by the API server's own list of its rights, which knows
//! resources that this file does not.

use crate::access::{
    self, Access, Resource as ApiResource, SUBRESOURCES, TENANT_RESOURCES, VERBS, compliant, send,
};
use crate::account::{act_as, name, own_control};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::ledger::{Entry, Kind};
use crate::names::RunId;
use crate::quota;
use crate::removal;
use crate::resource::Resource;
use crate::rules::{self, Rule};
use crate::subject::{self, Subject};
use crate::verdict::{Control, Finding, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use provisioner::{Tenant, TenantId};
use serde_json::{Value, json};
use std::time::Duration;

/// The check.
pub(super) struct Rbac02;

static INFO: CheckInfo = CheckInfo {
    id: "RBAC-02",
    title: "a tenant's account has exactly the promised rights in its own namespace",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::OwnObjects,
    why: "A right too many is a way out: an exec into a neighbour's node agent, a policy taken away, a Role of one's own. A right too few is an application that does not run.",
    how: "A token is minted for the tenant's account and asked who it is. With it an object of the run's own of each of pods, deployments, services, configmaps and secrets is created, read, listed, watched, updated, patched and deleted: each must be let through. Everything else must be refused by RBAC itself: deletecollection, subresources (exec, log, scale, token and others), jobs, statefulsets, claims, ingresses, policies, roles and others; and the API server's own list of the account's rights in that namespace (SelfSubjectRulesReview) must hold nothing more. What is refused is asked for by dry runs.",
    remedy: "bring the Role tenant-ID-role back to what the template says (provisioner apply), and look for other bindings of the account with kubectl get rolebindings,clusterrolebindings -A -o wide",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

/// How long removing the run's objects may take.
const REMOVED_WITHIN: Duration = Duration::from_secs(30);
/// What is asked of resources that the Role does not name; the list of rights covers the other verbs.
const CHANGES: [&str; 4] = ["list", "create", "patch", "delete"];
/// Resources that the Role does not name.
const OTHERS: [ApiResource; 22] = [
    ApiResource::core("persistentvolumeclaims"),
    ApiResource::core("endpoints"),
    ApiResource::core("events"),
    ApiResource::core("serviceaccounts"),
    ApiResource::core("resourcequotas"),
    ApiResource::core("limitranges"),
    ApiResource::core("podtemplates"),
    ApiResource::core("replicationcontrollers"),
    ApiResource::of("apps/v1", "statefulsets"),
    ApiResource::of("apps/v1", "daemonsets"),
    ApiResource::of("apps/v1", "replicasets"),
    ApiResource::of("apps/v1", "controllerrevisions"),
    ApiResource::of("batch/v1", "jobs"),
    ApiResource::of("batch/v1", "cronjobs"),
    ApiResource::of("networking.k8s.io/v1", "ingresses"),
    ApiResource::of("networking.k8s.io/v1", "networkpolicies"),
    ApiResource::of("discovery.k8s.io/v1", "endpointslices"),
    ApiResource::of("coordination.k8s.io/v1", "leases"),
    ApiResource::of("autoscaling/v2", "horizontalpodautoscalers"),
    ApiResource::of("policy/v1", "poddisruptionbudgets"),
    ApiResource::of("rbac.authorization.k8s.io/v1", "roles"),
    ApiResource::of("rbac.authorization.k8s.io/v1", "rolebindings"),
];

impl Check for Rbac02 {
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
            .map_or_else(|_| Vec::new(), |tenant| canaries(tenant, run).into())
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

/// One object for each of [`TENANT_RESOURCES`], in that order.
fn canaries(tenant: &TenantId, run: &RunId) -> [Entry; 5] {
    let kinds = [
        Kind::Pod,
        Kind::Service,
        Kind::ConfigMap,
        Kind::Secret,
        Kind::Deployment,
    ];
    kinds.map(|kind| Entry {
        kind,
        namespace: Some(tenant.namespace()),
        name: run.object("rights"),
    })
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(tenant).await?;
    let site = &cx.site;
    let client = act_as(cx, tenant).await?;
    // Its binding is in force before anything is concluded from a refusal.
    let in_force = own_control(&client, tenant, site).await;
    let (namespace, nothing) = (tenant.namespace(), site.mark.run.object("nothing"));
    let (me, home) = (name(tenant), [namespace.clone()]);
    let (granted, mut probes, (mut findings, unknown)) = futures::join!(
        use_rights(cx, &client, tenant),
        access::ask_all(&client, forbidden(tenant, &namespace, &nothing), site),
        rules::sift(&client, &me, &home, |_, rules| excess(tenant, rules)),
    );
    probes.extend(unknown);
    let mut controls = vec![in_force];
    match granted {
        Err(error) => probes.push(Observed::unknown(
            format!("what {me} may do in {namespace}"),
            &error,
        )),
        Ok(granted) => {
            for observed in granted {
                match &observed.observation {
                    Observation::Denied(how) => findings.push(Finding {
                        expected: observed.what.clone(),
                        seen: format!("denied ({how})"),
                    }),
                    _ => controls.push(Control::reached(&observed)),
                }
            }
        }
    }
    Ok(judge_denied(&prove(&controls), &probes).with_findings(findings))
}

/// Does all that the account may do to objects of the run's own, and removes them.
async fn use_rights(
    cx: &Context,
    client: &kube::Client,
    tenant: &TenantId,
) -> Result<Vec<Observed>, HarnessError> {
    // One of them is a pod.
    let _alone = quota::hold(cx, tenant).await?;
    let site = &cx.site;
    let entries = canaries(tenant, &site.mark.run);
    for entry in &entries {
        site.ledger
            .made(entry.clone())
            .map_err(|error| site.ledger.unwritable(&error))?;
    }
    let lives = TENANT_RESOURCES.map(|resource| live(cx, client, tenant, resource));
    let observed = future::join_all(lives).await;
    // What cannot be removed now stays in the ledger, and is tried again at the end.
    let run = site.mark.run.as_str();
    removal::remove(&site.cluster.client, run, &entries, REMOVED_WITHIN, &|entry| {
        site.ledger.gone(entry);
    })
    .await;
    Ok(observed.into_iter().flatten().collect())
}

/// The life of one object, by the tenant's own hand.
async fn live(
    cx: &Context,
    client: &kube::Client,
    tenant: &TenantId,
    resource: ApiResource,
) -> Vec<Observed> {
    let (site, namespace) = (&cx.site, tenant.namespace());
    let name = site.mark.run.object("rights");
    let mut object = compliant(
        resource,
        &name,
        &namespace,
        &site.mark,
        &site.settings.agent_image,
    );
    let mut observed = Vec::new();
    for verb in ["create", "get", "list", "watch", "update", "patch", "delete"] {
        let mut access = Access::new(verb, resource, Some(&namespace), &name);
        access.really = true;
        match verb {
            "create" => access = access.with(object.clone()),
            "update" => access = access.with(labelled(&object)),
            _ => {}
        }
        let answer = send(client, &access, site).await;
        let observation = match &answer {
            Ok(_) => Observation::Reached("done".to_owned()),
            Err(refusal) => refusal.as_authorization(),
        };
        if let (Ok(created), "create") = (answer, verb) {
            object = created;
        }
        observed.push(Observed {
            what: format!("sa-{tenant} may {verb} {resource} in {namespace}"),
            observation,
        });
    }
    observed
}

/// The object as an update has it. The version is left out: controllers write to it too.
fn labelled(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["labels"]["ai-agents-platform/updated"] = json!("yes");
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    }
    object
}

/// All that is not the tenant's to do.
fn forbidden<'a>(tenant: &TenantId, namespace: &'a str, name: &'a str) -> Vec<(String, Access<'a>)> {
    let collections = TENANT_RESOURCES.map(|resource| (&["deletecollection"][..], resource));
    let others = OTHERS.map(|resource| (&CHANGES[..], resource));
    let all = collections.into_iter().chain(others).chain(SUBRESOURCES);
    all.flat_map(|(verbs, resource)| {
        verbs.iter().map(move |verb| {
            let what = format!("sa-{tenant} may {verb} {resource} in {namespace}");
            (what, Access::new(verb, resource, Some(namespace), name))
        })
    })
    .collect()
}

/// What the API server's list of rights holds beyond the promise.
fn excess(tenant: &TenantId, rules: &[Rule]) -> Vec<Finding> {
    let promised = |rule: &Rule| {
        let named = TENANT_RESOURCES
            .iter()
            .any(|resource| resource.group() == rule.group && resource.name == rule.resource);
        (named && VERBS.contains(&rule.verb.as_str())) || rule.is_about_oneself()
    };
    let more: Vec<String> = rules
        .iter()
        .filter(|rule| !promised(rule))
        .map(ToString::to_string)
        .collect();
    if more.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        expected: format!(
            "the rights of {} in its own namespace are {} on {}",
            name(tenant),
            VERBS.join(", "),
            TENANT_RESOURCES.map(|resource| resource.name).join(", ")
        ),
        seen: format!("more: {}", more.join(", ")),
    }]
}

#[cfg(test)]
mod tests;

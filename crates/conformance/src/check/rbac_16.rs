//! RBAC-16: a tenant's identity is not the tenant's to choose. API and worker read it from objects that the tenant's own account may write, so
//! admission compares what is written there with the namespace. That another identity would get at nothing anyway, since PostgreSQL and
//! Redis go by the credentials, is left to PG-01, PG-04 and RD-02. By dry runs.

use crate::access::{self, Access, Refusal, Resource as ApiResource, TENANT_RESOURCES};
use crate::account::{act_as, own_control};
use crate::admission::{Guard, admitted, refused};
use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::error::{HarnessError, within};
use crate::names::workload::WORKER;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use provisioner::TenantId;
use serde_json::{Value, json};
use std::time::Duration;

/// The check.
pub(super) struct Rbac16;

static INFO: CheckInfo = CheckInfo {
    id: "RBAC-16",
    title: "a tenant's account cannot give its workloads another tenant's identity",
    profile: Profile::Baseline,
    severity: Severity::Critical,
    footprint: Footprint::DryRun,
    why: "API and worker take tenant, queue and user from a ConfigMap and their environment, which the tenant's account may write: whoever holds its token says there which tenant they are. What trusts that, a log, a metric, a service that knows no credentials of each tenant, takes one tenant for another.",
    how: "With a token of the tenant's account, as dry runs: TENANT_ID of another tenant in a new ConfigMap, in the one that its workloads read, in a Secret, and in the environment of a pod, of a Deployment, and of its own worker; another tenant's user of PostgreSQL and Redis in a ConfigMap and in an environment. The platform's admission policies themselves must refuse each. Controls: the same objects with the tenant's own identity are admitted.",
    remedy: "bring the admission policies ai-agents-identity-settings and ai-agents-identity-workloads and their bindings back, with the action Deny (provisioner platform apply), and look whether the tenant is among admission.exemptNamespaces of the platform's settings",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

/// The policies that compare identities (`templates/platform`).
const SETTINGS: Guard = Guard::Policy("ai-agents-identity-settings");
const WORKLOADS: Guard = Guard::Policy("ai-agents-identity-workloads");
const PODS: ApiResource = TENANT_RESOURCES[0];
const CONFIG_MAPS: ApiResource = TENANT_RESOURCES[2];
const SECRETS: ApiResource = TENANT_RESOURCES[3];
const DEPLOYMENTS: ApiResource = TENANT_RESOURCES[4];
/// The ConfigMap that API and worker read (`templates/tenant`).
const CONFIG: &str = "ai-agents-config";

impl Check for Rbac16 {
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

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::AdmissionPolicies]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

/// Something that says who a tenant is: written with a name of the tenant's own it is admitted, with another's it must be refused.
struct Claim<'a> {
    /// As in "TENANT_ID in a new ConfigMap".
    what: &'static str,
    guard: Guard,
    /// The request that makes a workload this tenant's.
    of: Box<dyn Fn(&str) -> Access<'a> + Send + Sync + 'a>,
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(tenant).await?;
    let client = act_as(cx, tenant).await?;
    let lists = own_control(&client, tenant, &cx.site).await;
    let namespace = tenant.namespace();
    let worker = containers(&client, &namespace).await?;
    let name = cx.site.mark.run.object("identity");
    let claims = claims(cx, &namespace, &name, &worker);
    let other = another(cx, tenant);
    let asked = claims.iter().map(|claim| async {
        let (own, theirs) = futures::join!(
            send(cx, &client, claim, tenant.as_str()),
            send(cx, &client, claim, &other)
        );
        (
            admitted(format!("sa-{tenant} writes its own {}", claim.what), &own),
            Observed {
                what: format!("sa-{tenant} writes {other} as {}", claim.what),
                observation: refused(&theirs, claim.guard),
            },
        )
    });
    let (mut controls, probes): (Vec<Control>, Vec<Observed>) = join_all(asked).await.into_iter().unzip();
    controls.push(lists);
    Ok(judge_denied(&prove(&controls), &probes))
}

/// Another tenant of the run, or a name that none has.
fn another(cx: &Context, tenant: &TenantId) -> String {
    let ids = cx.site.settings.tenant_ids();
    let other = ids.into_iter().find(|id| id != tenant);
    other.map_or_else(|| format!("{tenant}-2"), |id| id.to_string())
}

async fn send(
    cx: &Context,
    client: &kube::Client,
    claim: &Claim<'_>,
    tenant: &str,
) -> Result<Value, Refusal> {
    access::send(client, &(claim.of)(tenant), &cx.site).await
}

/// The containers of the tenant's worker, as they are: a patch of a list replaces it whole (RFC 7386).
async fn containers(client: &kube::Client, namespace: &str) -> Result<Vec<Value>, HarnessError> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let doing = format!("get deployment {WORKER} in namespace {namespace}");
    let found = within(ANSWER, &doing, deployments.get(WORKER)).await?;
    let spec = found.spec.and_then(|spec| spec.template.spec);
    let containers = spec.map(|spec| spec.containers).unwrap_or_default();
    let values = containers
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>();
    values.map_err(|error| HarnessError::during(doing, &error))
}

/// Every place that says who a tenant is, and that the tenant's account may write.
fn claims<'a>(cx: &'a Context, namespace: &'a str, name: &'a str, worker: &'a [Value]) -> Vec<Claim<'a>> {
    let create = move |resource: ApiResource, change: &dyn Fn(&mut Value)| {
        let (mark, image) = (&cx.site.mark, &cx.site.settings.agent_image);
        let mut object = access::compliant(resource, name, namespace, mark, image);
        change(&mut object);
        Access::new("create", resource, Some(namespace), name).with(object)
    };
    let set = move |key: &'static str, prefix: &'static str| {
        move |tenant: &str| {
            create(CONFIG_MAPS, &|object| {
                object["data"] = json!({ key: format!("{prefix}{tenant}") });
            })
        }
    };
    let run = move |resource: ApiResource, key: &'static str, prefix: &'static str| {
        move |tenant: &str| {
            create(resource, &|object| {
                let spec = match resource {
                    PODS => &mut object["spec"],
                    _ => &mut object["spec"]["template"]["spec"],
                };
                spec["containers"][0]["env"] = json!([{ "name": key, "value": format!("{prefix}{tenant}") }]);
            })
        }
    };
    let hide = move |tenant: &str| {
        create(SECRETS, &|object| {
            // The tenant's own is in no Secret: what is admitted there instead is another key.
            let key = if namespace == format!("ai-agents-{tenant}") {
                "OTHER"
            } else {
                "TENANT_ID"
            };
            object["data"] = json!({ key: ByteString(tenant.as_bytes().to_vec()) });
        })
    };
    let patch = move |tenant: &str| {
        Access::new("patch", CONFIG_MAPS, Some(namespace), CONFIG)
            .with(json!({ "data": { "TENANT_ID": tenant } }))
    };
    let environment = move |tenant: &str| {
        let mut containers = worker.to_vec();
        if let Some(first) = containers.first_mut() {
            add_variable(first, "TENANT_ID", tenant);
        }
        let body = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
        Access::new("patch", DEPLOYMENTS, Some(namespace), WORKER).with(body)
    };
    vec![
        Claim {
            what: "TENANT_ID in a new ConfigMap",
            guard: SETTINGS,
            of: Box::new(set("TENANT_ID", "")),
        },
        Claim {
            what: "TENANT_ID in the ConfigMap of its workloads",
            guard: SETTINGS,
            of: Box::new(patch),
        },
        Claim {
            what: "TENANT_ID in a Secret",
            guard: SETTINGS,
            of: Box::new(hide),
        },
        Claim {
            what: "POSTGRESQL_USER in a ConfigMap",
            guard: SETTINGS,
            of: Box::new(set("POSTGRESQL_USER", "tenant-")),
        },
        Claim {
            what: "REDIS_USER in a ConfigMap",
            guard: SETTINGS,
            of: Box::new(set("REDIS_USER", "tenant-")),
        },
        Claim {
            what: "TENANT_ID in a pod's environment",
            guard: WORKLOADS,
            of: Box::new(run(PODS, "TENANT_ID", "")),
        },
        Claim {
            what: "POSTGRESQL_USER in a pod's environment",
            guard: WORKLOADS,
            of: Box::new(run(PODS, "POSTGRESQL_USER", "tenant-")),
        },
        Claim {
            what: "TENANT_ID in a Deployment's environment",
            guard: WORKLOADS,
            of: Box::new(run(DEPLOYMENTS, "TENANT_ID", "")),
        },
        Claim {
            what: "TENANT_ID in its worker's environment",
            guard: WORKLOADS,
            of: Box::new(environment),
        },
    ]
}

/// Sets a variable of a container, in the place of one of that name.
fn add_variable(container: &mut Value, name: &str, value: &str) {
    let variable = json!({ "name": name, "value": value });
    match container["env"].as_array_mut() {
        Some(variables) => {
            variables.retain(|each| each["name"] != name);
            variables.push(variable);
        }
        None => container["env"] = json!([variable]),
    }
}

#[cfg(test)]
mod tests;

//! PROV-01: a tenant's namespace, account, Role and binding are called and labelled as promised. Operators, dashboards, policies and the
//! application find them by that and nothing else.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::error::{HarnessError, within};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Evidence, Finding, Verdict};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject};
use provisioner::kinds::{self, Scope};
use provisioner::{TenantId, labels};
use std::time::Duration;

/// The check.
pub(super) struct Prov01;

static INFO: CheckInfo = CheckInfo {
    id: "PROV-01",
    title: "a tenant's namespace, account, Role and binding have the promised names and labels",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::Read,
    why: "The shared services let in whoever wears these labels, deletion and pruning select by them, runbooks and dashboards name these objects: one that is called otherwise is left out of what everybody believes to be whole, or taken for another tenant's.",
    how: "The namespace ai-agents-ID carries app=ai-agents, tenant=ID and managed-by=ai-agents-platform, and the label kubernetes.io/metadata.name, which only the API server sets; in it are the ServiceAccount sa-ID, the Role tenant-ID-role and the RoleBinding tenant-ID-rolebinding, which carry tenant and managed-by. Further labels are anybody's own.",
    remedy: "provisioner apply brings names and labels of the templates back; templates of your own keep metadata.name of these four as it is",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(60),
};

/// Set by the API server from the namespace's name, and by nobody else (Kubernetes, "Well-Known Labels, Annotations and Taints").
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

impl Check for Prov01 {
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

/// An object as the platform promises it.
struct Promised {
    kind: &'static str,
    name: String,
    labels: Vec<(&'static str, String)>,
}

fn promised(tenant: &TenantId) -> [Promised; 4] {
    let owner = || {
        vec![
            (labels::TENANT, tenant.to_string()),
            (labels::MANAGED_BY, labels::MANAGED_BY_VALUE.to_owned()),
        ]
    };
    let of_namespace = [
        (labels::APP, labels::APP_VALUE.to_owned()),
        (METADATA_NAME, tenant.namespace()),
    ];
    let object = |kind, name: String| Promised {
        kind,
        name,
        labels: owner(),
    };
    [
        Promised {
            labels: [&of_namespace[..], &owner()].concat(),
            ..object("Namespace", tenant.namespace())
        },
        object("ServiceAccount", format!("sa-{tenant}")),
        object("Role", format!("tenant-{tenant}-role")),
        object("RoleBinding", format!("tenant-{tenant}-rolebinding")),
    ]
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(tenant).await?;
    let promised = promised(tenant);
    let found = future::try_join_all(promised.iter().map(|object| look(cx, tenant, object))).await?;
    // It was there when the run began, or the run made it: who takes it away meanwhile breaks no promise of the platform's.
    let state = match found.first() {
        Some(Some(metadata)) if metadata.deletion_timestamp.is_some() => Some("is being deleted"),
        Some(Some(_)) => None,
        _ => Some("is gone: somebody deleted it"),
    };
    if let Some(state) = state {
        return Ok(Verdict::inconclusive(format!(
            "namespace {} {state}",
            tenant.namespace()
        )));
    }
    Ok(conclude(tenant, &promised, &found))
}

/// The object's metadata; none where there is no such object.
async fn look(
    cx: &Context,
    tenant: &TenantId,
    object: &Promised,
) -> Result<Option<ObjectMeta>, HarnessError> {
    let doing = format!("get {} {}", object.kind.to_lowercase(), object.name);
    let kind = kinds::TENANT.iter().find(|kind| kind.kind == object.kind);
    let kind = kind.ok_or_else(|| HarnessError::new(format!("{doing}: tenants have no such kind")))?;
    let client = cx.site.cluster.client.clone();
    let objects: Api<DynamicObject> = match kind.scope {
        Scope::Namespaced => Api::namespaced_with(client, &tenant.namespace(), &kind.resource()),
        Scope::Cluster => Api::all_with(client, &kind.resource()),
    };
    let found = within(ANSWER, doing, objects.get_metadata_opt(&object.name)).await?;
    Ok(found.map(|found| found.metadata))
}

fn conclude(tenant: &TenantId, promised: &[Promised], found: &[Option<ObjectMeta>]) -> Verdict {
    let namespace = tenant.namespace();
    let mut findings = Vec::new();
    let mut observed = Vec::new();
    for (object, found) in promised.iter().zip(found) {
        let (kind, name) = (object.kind, &object.name);
        let Some(metadata) = found else {
            findings.push(Finding {
                expected: format!("{kind} {name} is in {namespace}"),
                seen: "there is none of that name".to_owned(),
            });
            continue;
        };
        for (label, value) in &object.labels {
            let worn = metadata.labels.as_ref().and_then(|all| all.get(*label));
            if worn != Some(value) {
                findings.push(Finding {
                    expected: format!("{kind} {name} carries {label}={value}"),
                    seen: worn.map_or_else(|| "no such label".to_owned(), |worn| format!("{label}={worn}")),
                });
            }
        }
        let labels: Vec<String> = object
            .labels
            .iter()
            .map(|(label, value)| format!("{label}={value}"))
            .collect();
        observed.push(format!("{kind} {name}: {}", labels.join(", ")));
    }
    if !findings.is_empty() {
        return Verdict::Failed {
            findings,
            observed: Vec::new(),
        };
    }
    let names: Vec<&str> = promised.iter().map(|object| object.name.as_str()).collect();
    Verdict::Passed(Evidence {
        summary: format!("{} with the promised labels", names.join(", ")),
        observed,
        ..Evidence::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Asked, judged, ok, rbac_403, refuse, silence};
    use axum::response::Response;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn labels() -> Value {
        json!({
            "app": "ai-agents",
            "tenant": "a",
            "managed-by": "ai-agents-platform",
            "kubernetes.io/metadata.name": "ai-agents-a",
            "team": "somebody's own",
        })
    }

    fn with(path: &str, value: Value) -> Value {
        let mut labels = labels();
        if value.is_null() {
            labels.as_object_mut().unwrap().remove(path);
        } else {
            labels[path] = value;
        }
        labels
    }

    /// What there is, by the last part of the path: its labels, or nothing.
    fn answer(asked: &Asked, changed: &str, labels_then: Option<Value>) -> Response {
        let there = ["ai-agents-a", "sa-a", "tenant-a-role", "tenant-a-rolebinding"];
        let name = asked.last();
        let found = match labels_then {
            changed_labels if name == changed => changed_labels,
            _ => there.contains(&name).then(labels),
        };
        match found {
            Some(labels) => ok(&json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": { "name": name, "labels": labels },
            })),
            None => refuse(404, "NotFound", "not found"),
        }
    }

    #[rstest]
    #[case::as_promised("", None, "passed", "sa-a, tenant-a-role, tenant-a-rolebinding")]
    #[case::no_account("sa-a", None, "failed", "ServiceAccount sa-a is in ai-agents-a")]
    #[case::a_role_of_another_name("tenant-a-role", None, "failed", "Role tenant-a-role is in ai-agents-a")]
    #[case::another_tenants("ai-agents-a", Some(with("tenant", json!("b"))), "failed", "tenant=b")]
    #[case::nobodys(
        "ai-agents-a",
        Some(with("managed-by", Value::Null)),
        "failed",
        "no such label"
    )]
    #[case::not_the_applications("ai-agents-a", Some(with("app", json!("other"))), "failed", "app=other")]
    #[case::a_name_that_the_server_does_not_know(
        "ai-agents-a",
        Some(with("kubernetes.io/metadata.name", Value::Null)),
        "failed",
        "kubernetes.io/metadata.name=ai-agents-a"
    )]
    #[case::a_binding_of_anothers("tenant-a-rolebinding", Some(with("tenant", json!("b"))), "failed", "RoleBinding tenant-a-rolebinding carries tenant=a")]
    #[case::without_labels("sa-a", Some(json!({})), "failed", "ServiceAccount sa-a carries tenant=a")]
    #[case::the_namespace_went("ai-agents-a", None, "inconclusive", "is gone")]
    #[tokio::test]
    async fn names_and_labels_are_exact(
        #[case] changed: &'static str,
        #[case] labels: Option<Value>,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let (seen, all) = judged(&Prov01, move |asked| answer(asked, changed, labels.clone())).await;
        assert_eq!(seen, word, "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[tokio::test]
    async fn a_namespace_on_its_way_out_is_not_judged() {
        let script = |asked: &Asked| {
            ok(&json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": { "name": asked.last(), "labels": {}, "deletionTimestamp": "2026-01-01T00:00:00Z" },
            }))
        };
        let (word, text) = judged(&Prov01, script).await;
        assert_eq!(word, "inconclusive", "{text}");
        assert!(text.contains("is being deleted"), "{text}");
    }

    #[rstest]
    #[case::not_allowed(rbac_403, "get ")]
    #[case::not_authenticated(|| refuse(401, "Unauthorized", "who"), "who")]
    #[case::server_error(|| refuse(500, "InternalError", "etcd"), "etcd")]
    #[case::no_answer(silence, "no answer within 15 s")]
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_not_judged(#[case] answer: fn() -> Response, #[case] text: &str) {
        let (word, all) = judged(&Prov01, move |_| answer()).await;
        assert_eq!(word, "inconclusive", "{all}");
        assert!(all.contains(text), "{all}");
    }
}

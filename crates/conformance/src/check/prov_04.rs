//! PROV-04: to provision a tenant that is as it should be writes nothing. A tenant of the run's own is provisioned a second time; one that
//! was there before is left as it is, and only asked about by dry runs.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::error::{HarnessError, within};
use crate::names;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Cause, Control, Evidence, Finding, Verdict, prove};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use provisioner::kinds::Scope;
use provisioner::{Applied, ApplyOptions, Manifest, ObjectRef, Silent, TenantId, hardening, labels};
use serde_json::Value;
use std::time::Duration;

/// The check.
pub(super) struct Prov04;

static INFO: CheckInfo = CheckInfo {
    id: "PROV-04",
    title: "provisioning a tenant again writes nothing",
    profile: Profile::Core,
    severity: Severity::Medium,
    footprint: Footprint::OwnObjects,
    why: "Whoever provisions on a schedule, or after each change of a tenant file, must not thereby restart workloads, draw new passwords or leave a moment without a policy; and where every run writes something, nobody sees the one that changed something.",
    how: "A tenant that the run made is applied a second time, from the same templates: nothing may be created, changed or pruned, every object keeps its uid and generation and what the provisioner decides of it, and those that no controller writes to (Secrets among them) their resourceVersion. A tenant that was there before is not written to: each object is applied by a dry run, which must not raise its generation. Control: every object of the templates is there, written by the provisioner's field manager before.",
    remedy: "the template of the object that is named says something that the API server does not keep as it is said, an empty list for instance: write what kubectl get -o yaml shows. What others set is found by kubectl get --show-managed-fields",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

/// Kinds that no controller writes to, so that each version is somebody's own doing.
const QUIET: [&str; 7] = [
    "ConfigMap",
    "LimitRange",
    "NetworkPolicy",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
];
/// Annotations of the Deployment controller's own.
const OF_CONTROLLERS: &str = "deployment.kubernetes.io/";

impl Check for Prov04 {
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
    let is_ours = site.absent.contains(tenant);
    let manifests = as_adopted(cx, site.manifests(tenant)?).await?;
    let before = look(cx, &manifests).await?;
    if let Some(cause) = gone(&manifests, &before) {
        return Ok(Verdict::Inconclusive(cause));
    }
    let control = written_before(&before);
    if is_ours {
        let client = &site.cluster.client;
        let options = ApplyOptions::default();
        let applied = provisioner::apply(client, &manifests, tenant, &options, &Silent).await;
        let applied = applied
            .map_err(|error| HarnessError::during(format!("provision tenant {tenant} again"), &error))?;
        let after = look(cx, &manifests).await?;
        return Ok(conclude(control, applied, &before, &after));
    }
    let tried = manifests.iter().map(|manifest| dry_run(cx, manifest));
    let tried = future::try_join_all(tried).await?;
    Ok(conclude_dry(control, &manifests, &before, &tried))
}

/// Without what the namespace was adopted without.
async fn as_adopted(cx: &Context, manifests: Vec<Manifest>) -> Result<Vec<Manifest>, HarnessError> {
    let namespaces = manifests
        .iter()
        .filter(|manifest| manifest.kind.kind == "Namespace");
    let namespaces: Vec<Manifest> = namespaces.cloned().collect();
    let found = look(cx, &namespaces).await?;
    let annotations = found
        .into_iter()
        .flatten()
        .find_map(|namespace| namespace.metadata.annotations);
    Ok(hardening::honour(&manifests, &annotations.unwrap_or_default()).into_owned())
}

fn api(cx: &Context, manifest: &Manifest) -> Api<DynamicObject> {
    let (client, resource) = (cx.site.cluster.client.clone(), manifest.kind.resource());
    match (manifest.kind.scope, &manifest.object.metadata.namespace) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client, namespace, &resource),
        _ => Api::all_with(client, &resource),
    }
}

/// Each object as it is; none where it is not there.
async fn look(cx: &Context, manifests: &[Manifest]) -> Result<Vec<Option<DynamicObject>>, HarnessError> {
    let looked = manifests.iter().map(|manifest| async move {
        let _turn = cx.site.cluster.pace.one_of_many().await;
        let doing = format!("get {}", manifest.reference());
        within(ANSWER, doing, api(cx, manifest).get_opt(manifest.name())).await
    });
    future::try_join_all(looked).await
}

/// What applying the object would make of it. By force, since a field that somebody else holds says nothing about a second apply.
async fn dry_run(cx: &Context, manifest: &Manifest) -> Result<DynamicObject, HarnessError> {
    let _turn = cx.site.cluster.pace.one_of_many().await;
    let params = PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some(labels::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let (objects, patch) = (api(cx, manifest), Patch::Apply(&manifest.object));
    let doing = format!("apply {} (dry run)", manifest.reference());
    within(ANSWER, doing, objects.patch(manifest.name(), &params, &patch)).await
}

/// Objects of the templates that are not there: applying would make them, and that is no second time.
fn gone(manifests: &[Manifest], found: &[Option<DynamicObject>]) -> Option<Cause> {
    let missing: Vec<String> = manifests
        .iter()
        .zip(found)
        .filter(|(_, found)| found.is_none())
        .map(|(manifest, _)| manifest.reference().to_string())
        .collect();
    (!missing.is_empty()).then(|| Cause {
        what: format!(
            "there is nothing to apply a second time to: {} not there",
            missing.join(", ")
        ),
        hint: Some("the tenant is not as its templates say: provisioner apply, then run again".to_owned()),
    })
}

/// That there was a first time.
fn written_before(found: &[Option<DynamicObject>]) -> Control {
    let ours = |object: &&DynamicObject| {
        let mut managers = object.metadata.managed_fields.iter().flatten();
        managers.any(|entry| entry.manager.as_deref() == Some(labels::FIELD_MANAGER))
    };
    let all = found.len();
    let written = found.iter().flatten().filter(ours).count();
    Control {
        claim: format!("{all} objects were applied by {} before", labels::FIELD_MANAGER),
        holds: if written == all && all > 0 {
            Ok(format!("{written} of {all} say so"))
        } else {
            Err(format!("{written} of {all} say so"))
        },
    }
}

/// Of a tenant that was provisioned a second time.
fn conclude(
    control: Control,
    applied: Applied,
    before: &[Option<DynamicObject>],
    after: &[Option<DynamicObject>],
) -> Verdict {
    let count = before.len();
    let told = [
        ("created", applied.created),
        ("changed", applied.changed),
        ("pruned", applied.pruned),
    ];
    let expected = "provisioning again writes nothing".to_owned();
    let mut findings: Vec<Finding> = Vec::new();
    for (what, objects) in told {
        findings.extend(objects.into_iter().map(|object: ObjectRef| Finding {
            expected: expected.clone(),
            seen: format!("{object} was {what}"),
        }));
    }
    let named = |name: &str| findings.iter().any(|finding| finding.seen.starts_with(name));
    let unsaid: Vec<Finding> = before
        .iter()
        .flatten()
        .zip(after.iter().map(Option::as_ref))
        .filter_map(|(before, after)| {
            let what = match after {
                Some(after) => difference(before, after)?,
                None => "it is gone".to_owned(),
            };
            let name = reference(before);
            (!named(&name)).then(|| Finding {
                expected: expected.clone(),
                seen: format!("{name}: {what}, though the provisioner says that it left it alone"),
            })
        })
        .collect();
    findings.extend(unsaid);
    verdict(
        control,
        findings,
        &format!("{count} of {count} objects left alone by a second apply"),
    )
}

/// Of a tenant that is not written to. An apply that would change what an object says is about another tenant file or templates than those
/// it was made from, or about what somebody changed since; one that changes nothing and raises the generation writes each time.
fn conclude_dry(
    control: Control,
    manifests: &[Manifest],
    before: &[Option<DynamicObject>],
    tried: &[DynamicObject],
) -> Verdict {
    let (mut findings, mut drifted) = (Vec::new(), Vec::new());
    for ((manifest, before), tried) in manifests.iter().zip(before.iter().flatten()).zip(tried) {
        if decided(before) != decided(tried) {
            drifted.push(manifest.reference().to_string());
        } else if before.metadata.generation != tried.metadata.generation {
            findings.push(Finding {
                expected: "provisioning again writes nothing".to_owned(),
                seen: format!(
                    "{} would be written, though it would say the same as before",
                    manifest.reference()
                ),
            });
        }
    }
    if findings.is_empty() && !drifted.is_empty() {
        return Verdict::Inconclusive(Cause {
            what: format!(
                "what a second apply does cannot be seen without a first, which would change {}",
                drifted.join(", ")
            ),
            hint: Some(
                "name the tenant file that the tenants were made from (tenantFile in the settings), or provisioner apply, then run again"
                    .to_owned(),
            ),
        });
    }
    let count = tried.len();
    verdict(
        control,
        findings,
        &format!("{count} of {count} objects as an apply would leave them (dry run)"),
    )
}

fn verdict(control: Control, findings: Vec<Finding>, summary: &str) -> Verdict {
    if !findings.is_empty() {
        return Verdict::Failed {
            findings,
            observed: Vec::new(),
        };
    }
    match prove(&[control]) {
        Err(unproven) => Verdict::inconclusive(unproven.to_string()),
        Ok(proven) => Verdict::Passed(Evidence {
            summary: format!("{summary}; control: {}", proven.controls().join("; ")),
            controls: proven.controls().to_vec(),
            ..Evidence::default()
        }),
    }
}

fn reference(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("", |types| types.kind.as_str());
    let reference = ObjectRef {
        kind: kind.to_owned(),
        name: object.metadata.name.clone().unwrap_or_default(),
        namespace: object.metadata.namespace.clone(),
    };
    reference.to_string()
}

/// What became of an object, in words that show nothing of what it holds.
fn difference(before: &DynamicObject, after: &DynamicObject) -> Option<String> {
    let (old, new) = (&before.metadata, &after.metadata);
    let kind = before.types.as_ref().map_or("", |types| types.kind.as_str());
    if old.uid != new.uid {
        return Some("it was made anew".to_owned());
    }
    if old.generation != new.generation {
        return Some("its generation rose".to_owned());
    }
    if decided(before) != decided(after) {
        return Some("what it says changed".to_owned());
    }
    (QUIET.contains(&kind) && old.resource_version != new.resource_version)
        .then(|| "its resourceVersion changed".to_owned())
}

/// What the provisioner decides of an object: without its status and version, and without what controllers write.
fn decided(object: &DynamicObject) -> DynamicObject {
    let mut object = object.clone();
    object.metadata.resource_version = None;
    object.metadata.generation = None;
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.retain(|key, _| !key.starts_with(OF_CONTROLLERS) && key != names::REGISTERED);
        if annotations.is_empty() {
            object.metadata.annotations = None;
        }
    }
    if let Value::Object(fields) = &mut object.data {
        fields.remove("status");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Asked, judged, ok, rbac_403, refuse, silence};
    use axum::response::Response;
    use rstest::rstest;
    use serde_json::json;

    /// An object after the name in the request's path, as the provisioner once applied it.
    fn live(name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": name, "namespace": "ai-agents-a", "uid": "u", "resourceVersion": "7", "generation": 1,
                "managedFields": [{ "manager": "ai-agents-provisioner", "operation": "Apply" }],
            },
            "data": { "key": "value" },
        })
    }

    fn with(path: &str, value: Value) -> Value {
        let mut object = live("x");
        *object.pointer_mut(path).unwrap() = value;
        object
    }

    /// What a dry run makes of one of the objects; all others stay as they are.
    fn script(asked: &Asked, changed: fn(Value) -> Value) -> Response {
        let name = asked.last().to_owned();
        match asked.method.as_str() {
            "PATCH" if !asked.is_dry() => panic!("{} was written to", asked.path),
            "PATCH" if name == "default-deny-ingress" => ok(&changed(live(&name))),
            "PATCH" | "GET" => ok(&live(&name)),
            other => panic!("{other} {}", asked.path),
        }
    }

    fn higher(mut object: Value) -> Value {
        object["metadata"]["generation"] = json!(2);
        object
    }
    fn other(mut object: Value) -> Value {
        object["data"]["key"] = json!("other");
        higher(object)
    }

    #[rstest]
    #[case::as_it_was(|object| object, "passed", "objects as an apply would leave them (dry run)")]
    #[case::written_anew_each_time(
        higher,
        "failed",
        "NetworkPolicy default-deny-ingress in ai-agents-a would be written"
    )]
    #[case::another_tenant_file(
        other,
        "inconclusive",
        "which would change NetworkPolicy default-deny-ingress in ai-agents-a"
    )]
    #[tokio::test]
    async fn a_tenant_that_was_there_is_asked_about_and_not_written_to(
        #[case] changed: fn(Value) -> Value,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let (seen, all) = judged(&Prov04, move |asked| script(asked, changed)).await;
        assert_eq!(seen, word, "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[tokio::test]
    async fn what_a_namespace_was_adopted_without_is_not_missed() {
        let script = |asked: &Asked| {
            let name = asked.last();
            if name == "default-deny-egress" || name.ends_with("-limits") {
                return refuse(404, "NotFound", "not found");
            }
            let mut object = live(name);
            object["metadata"]["annotations"] = json!({ "ai-agents-platform/hardening": "none" });
            ok(&object)
        };
        let (word, text) = judged(&Prov04, script).await;
        assert_eq!(word, "passed", "{text}");
    }

    #[rstest]
    #[case::not_there(|| refuse(404, "NotFound", "not found"), "there is nothing to apply a second time to")]
    #[case::not_allowed(rbac_403, "get ")]
    #[case::not_authenticated(|| refuse(401, "Unauthorized", "who"), "who")]
    #[case::server_error(|| refuse(500, "InternalError", "etcd"), "etcd")]
    #[case::no_answer(silence, "no answer within 15 s")]
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_not_judged(#[case] answer: fn() -> Response, #[case] text: &str) {
        let (word, all) = judged(&Prov04, move |_| answer()).await;
        assert_eq!(word, "inconclusive", "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[tokio::test]
    async fn objects_that_somebody_else_made_prove_nothing() {
        let script = |asked: &Asked| {
            let mut object = live(asked.last());
            object["metadata"]["managedFields"][0]["manager"] = json!("kubectl");
            ok(&object)
        };
        let (word, text) = judged(&Prov04, script).await;
        assert_eq!(word, "inconclusive", "{text}");
        assert!(text.contains("control did not hold"), "{text}");
    }

    fn found(object: Value) -> Vec<Option<DynamicObject>> {
        vec![Some(serde_json::from_value(object).unwrap())]
    }
    fn of_kind(kind: &str, path: &str, value: Value) -> (Value, Value) {
        let (mut before, mut after) = (live("x"), with(path, value));
        before["kind"] = json!(kind);
        after["kind"] = json!(kind);
        (before, after)
    }

    #[rstest]
    #[case::left_alone(of_kind("ConfigMap", "/data/key", json!("value")), "passed", "1 of 1 objects left alone")]
    #[case::made_anew(of_kind("Secret", "/metadata/uid", json!("v")), "failed", "it was made anew")]
    #[case::written(of_kind("Secret", "/metadata/resourceVersion", json!("8")), "failed", "its resourceVersion changed")]
    #[case::a_controller_wrote_its_status(of_kind("Deployment", "/metadata/resourceVersion", json!("8")), "passed", "1 of 1")]
    #[case::of_another_generation(of_kind("Deployment", "/metadata/generation", json!(2)), "failed", "its generation rose")]
    #[case::of_another_content(of_kind("Secret", "/data/key", json!("c2VjcmV0")), "failed", "what it says changed")]
    fn what_the_server_shows_counts_whatever_the_provisioner_says(
        #[case] (before, after): (Value, Value),
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let (before, after) = (found(before), found(after));
        let applied = Applied::default();
        let verdict = conclude(written_before(&before), applied, &before, &after);
        let all = format!("{verdict:?}");
        assert_eq!(verdict.word(), word, "{all}");
        assert!(all.contains(text), "{all}");
        assert!(!all.contains("c2VjcmV0"), "{all}");
    }

    #[rstest]
    #[case::created(|applied: &mut Applied, object| applied.created.push(object), "was created")]
    #[case::changed(|applied: &mut Applied, object| applied.changed.push(object), "was changed")]
    #[case::pruned(|applied: &mut Applied, object| applied.pruned.push(object), "was pruned")]
    fn what_the_provisioner_says_that_it_wrote_counts_once(
        #[case] wrote: fn(&mut Applied, ObjectRef),
        #[case] text: &str,
    ) {
        let mut applied = Applied::default();
        let object = ObjectRef {
            kind: "ConfigMap".into(),
            name: "x".into(),
            namespace: Some("ai-agents-a".into()),
        };
        wrote(&mut applied, object);
        let (before, after) = (
            found(live("x")),
            found(with("/metadata/resourceVersion", json!("8"))),
        );
        let Verdict::Failed { findings, .. } = conclude(written_before(&before), applied, &before, &after)
        else {
            panic!("expected a failure")
        };
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].seen.contains(text), "{findings:?}");
    }

    #[test]
    fn what_a_deployments_controller_notes_is_not_the_provisioners() {
        let noted = |revision: &str| {
            let mut object = live("x");
            object["metadata"]["annotations"] = json!({ "deployment.kubernetes.io/revision": revision });
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let bare = serde_json::from_value::<DynamicObject>(live("x")).unwrap();
        assert_eq!(decided(&noted("1")), decided(&bare));
        assert_eq!(difference(&noted("1"), &noted("2")), None);
    }
}

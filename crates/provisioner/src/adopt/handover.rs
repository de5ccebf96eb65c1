//! Whose fields are whose, before and after: in `metadata.managedFields`, which may be written by whoever may write the object
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership>). Nothing else of an object is changed here.

use super::fields::Fields;
use crate::apply::objects::Objects;
use crate::calls::CallError;
use crate::labels;
use crate::manifest::Manifest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// By these names kubectl writes whole objects: `create`, `apply` and `apply --server-side`.
const KUBECTL: [&str; 3] = ["kubectl-create", "kubectl-client-side-apply", "kubectl"];
const APPLY: &str = "Apply";

/// Whether the values that kubectl wrote to objects of the kind stay, though no template has them: labels of the namespace, and what an
/// application reads.
fn keeps_the_rest(manifest: &Manifest) -> bool {
    matches!(manifest.kind.kind, "Namespace" | "Secret" | "ConfigMap")
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    let manager = entry.manager.as_deref();
    manager == Some(labels::FIELD_MANAGER) || manager == Some(labels::CREDENTIALS_MANAGER)
}

fn is_applied_by_us(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(labels::FIELD_MANAGER) && entry.operation.as_deref() == Some(APPLY)
}

fn is_kubectls(entry: &ManagedFieldsEntry) -> bool {
    let manager = entry.manager.as_deref();
    entry.subresource.is_none() && manager.is_some_and(|manager| KUBECTL.contains(&manager))
}

/// Who else set fields of the object, without those who report its state.
pub(super) fn others(entries: &[ManagedFieldsEntry]) -> Vec<String> {
    let others = entries
        .iter()
        .filter(|entry| entry.subresource.is_none() && !is_ours(entry));
    let mut names: Vec<String> = others.filter_map(|entry| entry.manager.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// What kubectl wrote of the object, and what we applied: as though we had applied both. Labels and annotations stay kubectl's, so that
/// those which no template has stay.
pub(super) fn received(
    manifest: &Manifest,
    entries: &[ManagedFieldsEntry],
) -> Option<Vec<ManagedFieldsEntry>> {
    if keeps_the_rest(manifest) {
        return None;
    }
    let version = manifest.kind.api_version();
    let (mut all, mut kept) = (Fields::default(), Vec::new());
    let mut taken = false;
    for entry in entries {
        let fields = Fields::of(entry);
        // Paths mean something in their version only.
        if is_kubectls(entry) && entry.api_version.as_deref() == Some(&version) {
            let (body, metadata) = fields.split_metadata();
            taken |= !body.is_empty();
            all = all.union(&body);
            if !metadata.is_empty() {
                kept.push(with(entry, metadata));
            }
        } else if is_applied_by_us(entry) {
            all = all.union(&fields);
        } else {
            kept.push(entry.clone());
        }
    }
    kept.push(ManagedFieldsEntry {
        manager: Some(labels::FIELD_MANAGER.to_owned()),
        operation: Some(APPLY.to_owned()),
        api_version: Some(version),
        fields_type: Some("FieldsV1".to_owned()),
        fields_v1: Some(all.written()),
        ..ManagedFieldsEntry::default()
    });
    taken.then_some(kept)
}

/// What we applied is nobody else's any more, so that no later apply is in conflict with it.
pub(super) fn released(entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let ours = Fields::of(entries.iter().find(|entry| is_applied_by_us(entry))?);
    let mut changed = false;
    let mut kept = Vec::new();
    for entry in entries {
        if is_ours(entry) || entry.subresource.is_some() {
            kept.push(entry.clone());
            continue;
        }
        let before = Fields::of(entry);
        let after = before.clone().without(&ours);
        changed |= after != before;
        if !after.is_empty() {
            kept.push(with(entry, after));
        }
    }
    changed.then_some(kept)
}

fn with(entry: &ManagedFieldsEntry, fields: Fields) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        fields_v1: Some(fields.written()),
        ..entry.clone()
    }
}

/// What of the object goes, by path and value: what kubectl wrote, no template has, and nobody else set. `fresh` is what the server would
/// make of the template alone: what it fills in by itself comes back.
pub(super) fn going(
    manifest: &Manifest,
    (live, fresh): (&Value, &Value),
    before: &[ManagedFieldsEntry],
    after: &[ManagedFieldsEntry],
) -> Vec<(String, Value)> {
    let Some(received) = received(manifest, before) else {
        return Vec::new();
    };
    let of_ours = |entries: &[ManagedFieldsEntry]| {
        let ours = entries.iter().find(|entry| is_applied_by_us(entry));
        ours.map(Fields::of).unwrap_or_default()
    };
    let others = received.iter().filter(|entry| !is_applied_by_us(entry));
    let staying = others.fold(of_ours(after), |fields, entry| fields.union(&Fields::of(entry)));
    let going = of_ours(&received).without(&staying);
    let coming_back = going.values(fresh);
    let mut values = going.values(live);
    values.retain(|value| !coming_back.contains(value));
    values
}

/// Writes whose fields are whose, once `change` has something to change; whether it had.
pub(super) async fn record(
    objects: &Objects<'_>,
    manifest: &Manifest,
    change: impl Fn(&[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>>,
) -> Result<bool, CallError> {
    let api = objects.api(manifest.kind);
    let what = format!("record whose fields are whose in {}", manifest.reference());
    let parameters = PatchParams {
        field_manager: Some(labels::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    loop {
        let Some(live) = objects.get(manifest).await? else {
            return Ok(false);
        };
        let entries = live.metadata.managed_fields.unwrap_or_default();
        let Some(entries) = change(&entries) else {
            return Ok(false);
        };
        let body = Patch::Merge(json!({"metadata": {
            "managedFields": entries,
            "resourceVersion": live.metadata.resource_version,
        }}));
        let written = objects
            .calls
            .make_unless_conflict(&what, || api.patch(manifest.name(), &parameters, &body))
            .await;
        match written {
            Ok(_) => return Ok(true),
            Err(error) if error.is_conflict() && Instant::now() < objects.calls.deadline() => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Stamp, Templates, Tenant, render};
    use rstest::rstest;

    fn manifest(kind: &str) -> Manifest {
        let tenant = Tenant::standard("acme".parse().unwrap());
        let all = render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap();
        all.into_iter().find(|it| it.kind.kind == kind).unwrap()
    }

    fn entry(manager: &str, operation: &str, version: &str, fields: &Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({
            "manager": manager, "operation": operation, "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields,
        }))
        .unwrap()
    }

    fn written(entries: &[ManagedFieldsEntry]) -> Vec<(String, Value)> {
        let one = |entry: &ManagedFieldsEntry| {
            let who = format!(
                "{} {}",
                entry.manager.clone().unwrap(),
                entry.operation.clone().unwrap()
            );
            (who, entry.fields_v1.clone().unwrap().0)
        };
        entries.iter().map(one).collect()
    }

    #[test]
    fn what_kubectl_wrote_counts_as_applied_by_us_but_for_metadata() {
        let entries = [
            entry(
                "kubectl-create",
                "Update",
                "v1",
                &json!({"f:metadata": {"f:labels": {"f:team": {}}}, "f:spec": {"f:type": {}}}),
            ),
            entry(
                "kubectl-edit",
                "Update",
                "v1",
                &json!({"f:spec": {"f:externalIPs": {}}}),
            ),
            entry("kubectl", "Apply", "v1", &json!({"f:spec": {"f:ports": {}}})),
        ];
        let received = received(&manifest("Service"), &entries).unwrap();
        assert_eq!(
            written(&received),
            [
                (
                    "kubectl-create Update".to_owned(),
                    json!({"f:metadata": {"f:labels": {"f:team": {}}}})
                ),
                (
                    "kubectl-edit Update".to_owned(),
                    json!({"f:spec": {"f:externalIPs": {}}})
                ),
                (
                    "ai-agents-provisioner Apply".to_owned(),
                    json!({"f:spec": {"f:type": {}, "f:ports": {}}})
                ),
            ]
        );
    }

    #[rstest]
    #[case::what_an_application_reads("ConfigMap", "kubectl-create", "v1")]
    #[case::a_secret("Secret", "kubectl-create", "v1")]
    #[case::the_namespace("Namespace", "kubectl-create", "v1")]
    #[case::somebody_else("Service", "helm", "v1")]
    #[case::another_version("Service", "kubectl-create", "v0")]
    fn what_is_left_as_it_is(#[case] kind: &str, #[case] manager: &str, #[case] version: &str) {
        let entries = [entry(manager, "Update", version, &json!({"f:data": {"f:a": {}}}))];
        assert_eq!(received(&manifest(kind), &entries), None);
    }

    #[test]
    fn what_became_ours_is_nobody_elses_and_the_rest_stays_theirs() {
        let entries = [
            entry(
                "ai-agents-provisioner",
                "Apply",
                "v1",
                &json!({"f:spec": {"f:type": {}}, "f:metadata": {"f:labels": {"f:tenant": {}}}}),
            ),
            entry(
                "kubectl-create",
                "Update",
                "v1",
                &json!({"f:spec": {"f:type": {}}}),
            ),
            entry(
                "kubectl-label",
                "Update",
                "v1",
                &json!({"f:metadata": {"f:labels": {"f:tenant": {}, "f:team": {}}}}),
            ),
        ];
        let released = released(&entries).unwrap();
        assert_eq!(
            written(&released)[1..],
            [(
                "kubectl-label Update".to_owned(),
                json!({"f:metadata": {"f:labels": {"f:team": {}}}})
            )]
        );
        assert_eq!(super::released(&released), None, "there is nothing left to do");
        assert_eq!(others(&released), ["kubectl-label"]);
    }

    #[test]
    fn what_goes_is_what_kubectl_wrote_and_neither_template_nor_anybody_else_sets() {
        let before = [
            entry(
                "kubectl-create",
                "Update",
                "v1",
                &json!({"f:spec": {"f:type": {}, "f:sessionAffinity": {}, "f:selector": {}, "f:externalIPs": {}}}),
            ),
            entry(
                "kubectl-edit",
                "Update",
                "v1",
                &json!({"f:spec": {"f:externalIPs": {}}}),
            ),
        ];
        let after = [entry(
            "ai-agents-provisioner",
            "Apply",
            "v1",
            &json!({"f:spec": {"f:selector": {}}}),
        )];
        let spec = |kind: &str| {
            json!({"spec": {
                "type": kind, "sessionAffinity": "None", "selector": {"app": "x"}, "externalIPs": ["192.0.2.1"],
            }})
        };
        let (live, fresh) = (spec("NodePort"), spec("ClusterIP"));
        assert_eq!(
            going(&manifest("Service"), (&live, &fresh), &before, &after),
            [(".spec.type".to_owned(), json!("NodePort"))]
        );
    }
}

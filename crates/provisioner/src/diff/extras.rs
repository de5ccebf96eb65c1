//! What others put into a tenant's namespace, or bind to it, that makes the tenant less isolated. Looks at what is there; what it opens is
//! found out without a client.

use super::objects::kubectl_delete;
use super::{Extras, bindings, pods, policies, routes};
use crate::calls::{CallError, Calls, Cause};
use crate::kinds::{self, Kind, Scope};
use crate::manifest::{Manifest, ObjectRef};
use futures::FutureExt;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::core::{DynamicObject, ObjectMeta};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// An object that is not ours, or a part of ours that is somebody else's, and that makes the tenant less isolated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Extra {
    /// The object.
    pub object: ObjectRef,
    /// What it opens, one line each.
    pub opens: Vec<String>,
    /// The field manager that wrote it first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
    /// When it was made (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_at: Option<String>,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "extra    {}", self.object)?;
        for line in &self.opens {
            writeln!(f, "         opens {line}")?;
        }
        let by = self.made_by.as_deref().unwrap_or("nobody known");
        match &self.made_at {
            Some(at) => writeln!(f, "         made by {by:?} at {at}")?,
            None => writeln!(f, "         made by {by:?}")?,
        }
        writeln!(f, "         {}", self.remedy)
    }
}

/// The kinds in the namespace whose objects can open something.
const OPENING: [&str; 7] = [
    "Deployment",
    "Ingress",
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "RoleBinding",
    "Service",
];

/// All that there is of these kinds, whoever made it.
pub(super) struct Around {
    namespace: String,
    objects: Vec<(&'static Kind, DynamicObject)>,
    /// What could not be looked at, and why.
    pub(super) unseen: Vec<String>,
}

/// Looks at everything that could widen the tenant. What we may not look at is named, and is no error.
pub(super) async fn look(
    client: &Client,
    calls: &Calls<'_>,
    namespace: &str,
    extras: Extras,
) -> Result<Around, CallError> {
    let in_namespace = kinds::TENANT
        .iter()
        .filter(|kind| extras != Extras::Nowhere && OPENING.contains(&kind.kind));
    let in_cluster = kinds::PLATFORM
        .iter()
        .filter(|kind| extras == Extras::InCluster && kind.kind == "ClusterRoleBinding");
    let lists = in_namespace.chain(in_cluster).map(|kind| {
        let kind: &'static Kind = kind;
        async move {
            let list = list(client, calls, kind, namespace).await;
            (kind, list)
        }
        .boxed()
    });
    let mut around = Around {
        namespace: namespace.to_owned(),
        objects: Vec::new(),
        unseen: Vec::new(),
    };
    for (kind, result) in crate::calls::all(lists).await {
        match result {
            Ok(list) => around
                .objects
                .extend(list.into_iter().map(|object| (kind, object))),
            Err(CallError {
                what,
                cause: Cause::Refused(status),
                ..
            }) if status.code == 403 => {
                let refusal = format!("{what}: {}", status.message);
                around.unseen.push(unseen(kind, &refusal));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(around)
}

/// What is said of a kind that we may not look at: the refusal, and who may.
pub(super) fn unseen(kind: &Kind, refusal: &str) -> String {
    let may = match kind.scope {
        Scope::Namespaced => {
            "a member of platform-admins may, once `provisioner platform apply` has brought their rights up to date"
        }
        Scope::Cluster => {
            "a cluster administrator may, and --namespace-only leaves the cluster's bindings out"
        }
    };
    format!("{refusal}; {may}")
}

/// All objects of the kind, whoever made them.
pub(crate) async fn list(
    client: &Client,
    calls: &Calls<'_>,
    kind: &Kind,
    namespace: &str,
) -> Result<Vec<DynamicObject>, CallError> {
    let resource = kind.resource();
    let everything = ListParams::default();
    match kind.scope {
        Scope::Namespaced => {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            let what = format!("list {} in {namespace}", kind.plural);
            Ok(calls.make(what, || api.list(&everything)).await?.items)
        }
        Scope::Cluster if kind.kind == "Namespace" => {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let what = format!("get Namespace {namespace}");
            Ok(calls
                .make(what, || api.get_opt(namespace))
                .await?
                .into_iter()
                .collect())
        }
        Scope::Cluster => {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let what = format!("list {}", kind.plural);
            Ok(calls.make(what, || api.list(&everything)).await?.items)
        }
    }
}

impl Around {
    /// How many objects of each kind there are.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (kind, _) in &self.objects {
            *counts.entry(kind.kind).or_default() += 1;
        }
        counts
    }

    /// What widens the tenant, and is neither wanted nor about to be pruned: `known`.
    pub(super) fn extras(&self, manifests: &[Manifest], known: &BTreeSet<ObjectRef>) -> Vec<Extra> {
        let ours: Vec<NetworkPolicy> = manifests
            .iter()
            .filter_map(|manifest| policy(&manifest.object))
            .collect();
        let mut extras = Vec::new();
        for (kind, object) in &self.objects {
            let reference = ObjectRef {
                kind: kind.kind.to_owned(),
                name: object.metadata.name.clone().unwrap_or_default(),
                namespace: object.metadata.namespace.clone(),
            };
            let manifest = manifests
                .iter()
                .find(|manifest| manifest.reference() == reference);
            let opens = match (manifest, kind.kind) {
                (Some(manifest), _) => added(kind, object, manifest),
                (None, _) if known.contains(&reference) => Vec::new(),
                (None, "NetworkPolicy") => policy(object)
                    .map(|policy| policies::opened(&policy, &ours, &self.namespace))
                    .unwrap_or_default(),
                (None, "RoleBinding") => bindings::given(object),
                (None, "ClusterRoleBinding") => bindings::given_to_tenants(object),
                (None, "Service") => ways_in(&object.data, &Value::Null),
                (None, "Ingress") => routes::led_in(&object.data, &Value::Null),
                (None, "Deployment") => pods::of_the_node(&object.data, &Value::Null),
                // A further quota can only take away: what each of them counts must be within each.
                _ => Vec::new(),
            };
            if !opens.is_empty() {
                extras.push(extra(reference, &object.metadata, opens, manifest.is_some()));
            }
        }
        extras.sort_by(|a, b| a.object.cmp(&b.object));
        extras
    }
}

fn policy(object: &DynamicObject) -> Option<NetworkPolicy> {
    // Lists leave the kind of their items out; of others' kinds nothing fits.
    let is_policy = object.data.pointer("/spec/podSelector").is_some();
    is_policy.then(|| serde_json::to_value(object).and_then(serde_json::from_value).ok())?
}

/// An object that opens something, and what to do about it: of ours, the part that is somebody else's.
pub(crate) fn extra(object: ObjectRef, live: &ObjectMeta, opens: Vec<String>, is_ours: bool) -> Extra {
    let delete = kubectl_delete(&object);
    let remedy = if is_ours {
        let edit = delete.replacen("delete", "edit", 1);
        format!("take that out: {edit}; or, if it is meant, say it in a template (--templates)")
    } else if object.namespace.is_none() {
        format!("unless a cluster administrator means it: {delete}")
    } else {
        format!("unless it is meant: {delete}; if it is, make it a template (--templates)")
    };
    Extra {
        opens,
        made_by: first_manager(live),
        made_at: live.creation_timestamp.as_ref().map(|time| time.0.to_string()),
        remedy,
        object,
    }
}

/// Who wrote the object first. A later write of the same manager moves its time, so this is the best guess that the server leaves.
fn first_manager(object: &ObjectMeta) -> Option<String> {
    let entries = object.managed_fields.iter().flatten();
    let of_the_object = entries.filter(|entry| entry.subresource.is_none());
    of_the_object
        .min_by_key(|entry| entry.time.as_ref().map(|time| time.0))?
        .manager
        .clone()
}

/// What others added to an object of ours in fields that our template does not name: an apply neither sees nor undoes that
/// (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>).
fn added(kind: &Kind, live: &DynamicObject, manifest: &Manifest) -> Vec<String> {
    let ours = &manifest.object.data;
    match kind.kind {
        "Service" => ways_in(&live.data, ours),
        "Ingress" => routes::led_in(&live.data, ours),
        "Deployment" => pods::of_the_node(&live.data, ours),
        "ResourceQuota" => scopes(live, ours),
        "Namespace" => pinned_pod_security(live, manifest),
        _ => Vec::new(),
    }
}

/// The value at this place, where `ours` has none.
pub(crate) fn unnamed<'l>(live: &'l Value, ours: &Value, path: &str) -> Option<&'l Value> {
    let is_named = ours.pointer(path).is_some_and(|value| !value.is_null());
    let value = live.pointer(path).filter(|value| !value.is_null())?;
    (!is_named).then_some(value)
}

/// Ways by which a Service is reached from outside of the cluster, or leads there, that `ours` does not name:
/// <https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types>.
fn ways_in(live: &Value, ours: &Value) -> Vec<String> {
    let mut ways = Vec::new();
    let kind = unnamed(live, ours, "/spec/type").and_then(Value::as_str);
    ways.extend(kind.and_then(|kind| by_type(live, kind)));
    let addresses: Vec<&str> = unnamed(live, ours, "/spec/externalIPs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !addresses.is_empty() {
        ways.push(format!(
            "traffic for {} to the Service's pods, also that of other tenants to whoever has these addresses: externalIPs",
            addresses.join(", ")
        ));
    }
    ways
}

fn by_type(live: &Value, kind: &str) -> Option<String> {
    match kind {
        "NodePort" | "LoadBalancer" => {
            let ports = live.pointer("/spec/ports").and_then(Value::as_array);
            let ports: Vec<String> = ports
                .into_iter()
                .flatten()
                .filter_map(|port| port.get("nodePort").map(Value::to_string))
                .collect();
            let at = if ports.is_empty() {
                String::new()
            } else {
                format!(", every node's port {}", ports.join(", "))
            };
            Some(format!(
                "the Service's pods to clients outside of the cluster: type {kind}{at}"
            ))
        }
        "ExternalName" => {
            let name = live.pointer("/spec/externalName").and_then(Value::as_str);
            Some(format!(
                "a way to {} for the ingress and whoever else asks for the Service: type {kind}",
                name.unwrap_or_default()
            ))
        }
        _ => None,
    }
}

/// A quota with scopes counts only what they select: <https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-scopes>.
fn scopes(live: &DynamicObject, ours: &Value) -> Vec<String> {
    let fields = ["scopes", "scopeSelector"].map(|field| format!("/spec/{field}"));
    let added = fields.iter().filter_map(|path| {
        let value = unnamed(&live.data, ours, path)?;
        let field = path.trim_start_matches('/').replace('/', ".");
        Some(format!(
            "the quota to pods that it no longer counts: {field} is {value}"
        ))
    });
    added.collect()
}

/// The level is compared with ours field by field; an old version of its rules is a label of its own:
/// <https://kubernetes.io/docs/concepts/security/pod-security-admission/#pod-security-admission-labels-for-namespaces>.
fn pinned_pod_security(live: &DynamicObject, manifest: &Manifest) -> Vec<String> {
    const VERSION: &str = "pod-security.kubernetes.io/enforce-version";
    const LATEST: &str = "latest";
    let label = |object: &DynamicObject| object.metadata.labels.as_ref()?.get(VERSION).cloned();
    match (label(live), label(&manifest.object)) {
        (Some(version), None) if version != LATEST => {
            vec![format!(
                "what Pod Security forbids since {version}: label {VERSION} pins the rules to that version"
            )]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;

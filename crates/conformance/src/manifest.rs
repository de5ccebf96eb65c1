//! The objects a run makes beside its tenants, as JSON. Pure: creating them is left to `ledger`.

use crate::names::{self, AGENT_PORTS, RunId};
use crate::resource::Costume;
use jiff::Timestamp;
use provisioner::TenantId;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What marks everything of one run.
#[derive(Debug, Clone)]
pub struct Mark {
    /// The run.
    pub run: RunId,
    /// When what it made counts as left over.
    pub expires: Timestamp,
}

impl Mark {
    fn annotations(&self) -> Value {
        json!({ names::RUN_ID: self.run.as_str(), names::EXPIRES: self.expires.to_string() })
    }

    /// Labels and annotations of a namespace or another object that is not a pod.
    pub fn metadata(&self, name: &str, namespace: Option<&str>) -> Value {
        json!({
            "name": name,
            "namespace": namespace,
            "labels": { names::RUN_ID: self.run.as_str() },
            "annotations": self.annotations(),
        })
    }
}

/// A namespace of the run's own with these labels beside the run's, at the strictest Pod Security level.
pub fn namespace(mark: &Mark, name: &str, labels: &BTreeMap<String, String>) -> Value {
    let mut metadata = mark.metadata(name, None);
    metadata["labels"]["pod-security.kubernetes.io/enforce"] = json!("restricted");
    for (label, value) in labels {
        metadata["labels"][label] = json!(value);
    }
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
}

/// The object that owns the run's pods in a namespace that is not its own: with a controller of their own no ReplicaSet adopts them, and
/// they go when it goes.
pub fn owner(mark: &Mark, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": mark.metadata(&mark.run.owner(), Some(namespace)),
    })
}

/// A pod that listens on all agent ports and makes attempts when asked.
pub struct AgentPod<'a> {
    /// The run.
    pub mark: &'a Mark,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The image.
    pub image: &'a str,
    /// Labels beside the run's own.
    pub labels: BTreeMap<String, String>,
    /// Name and uid of the ConfigMap that owns it, in a tenant.
    pub owner: Option<(String, String)>,
    /// The node it must run on.
    pub node: Option<String>,
    /// Whether a Service may send it traffic.
    pub may_become_ready: bool,
}

impl AgentPod<'_> {
    /// A hundred connections at once are a burst that must not be throttled into time-outs. In a tenant it counts against the quota, where
    /// there must remain as much of limits as of requests, or QUO-01 could not ask for a request by itself.
    fn cpu_limit(&self) -> &'static str {
        if self.may_become_ready { "1" } else { "260m" }
    }

    /// The Pod.
    pub fn manifest(&self) -> Value {
        let mut metadata = json!({
            "name": self.name,
            "namespace": self.namespace,
            "labels": self.all_labels(),
            "annotations": self.mark.annotations(),
        });
        if let Some((name, uid)) = &self.owner {
            metadata["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "controller": true,
            }]);
        }
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.spec() })
    }

    /// A Job of one such pod, which is never made again.
    pub fn job(&self) -> Value {
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self.mark.metadata(&self.name, Some(&self.namespace)),
            "spec": {
                "backoffLimit": 0,
                "template": {
                    "metadata": { "labels": self.all_labels(), "annotations": self.mark.annotations() },
                    "spec": self.spec(),
                },
            },
        })
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert(names::PROBE.to_owned(), names::PROBE_VALUE.to_owned());
        labels
    }

    fn spec(&self) -> Value {
        let ports = AGENT_PORTS.map(|port| port.to_string()).join(",");
        let mut spec = json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
                // A safe sysctl (Pod Security Standards): lets a non-root process listen on 53, 80 and 443.
                "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }],
            },
            "containers": [{
                "name": "probe",
                "image": self.image,
                "imagePullPolicy": "IfNotPresent",
                "args": ["serve", "--tcp", ports, "--udp", ports],
                "resources": resources("10m", self.cpu_limit(), "16Mi", "64Mi"),
                "securityContext": container_security(),
            }],
        });
        if !self.may_become_ready {
            spec["readinessGates"] = json!([{ "conditionType": names::NEVER_READY }]);
        }
        if let Some(node) = &self.node {
            spec["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
        }
        spec
    }
}

/// Requests and limits of one container.
pub fn resources(cpu_request: &str, cpu_limit: &str, memory_request: &str, memory_limit: &str) -> Value {
    json!({
        "requests": { "cpu": cpu_request, "memory": memory_request },
        "limits": { "cpu": cpu_limit, "memory": memory_limit },
    })
}

/// What the Pod Security level `restricted` asks of a container.
pub fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

/// A pod that complies with everything and never runs: its only purpose is to be admitted or refused.
pub fn inert_pod(mark: &Mark, name: &str, namespace: &str, image: &str, resources: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": { names::PROBE: names::PROBE_VALUE },
            "annotations": mark.annotations(),
        },
        "spec": inert_spec(image, resources),
    })
}

/// A claim of storage of a class that nobody has, so that no volume is ever made for it or bound to it.
pub fn claim(mark: &Mark, name: &str, namespace: &str, storage: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": mark.metadata(name, Some(namespace)),
        "spec": claim_spec(storage),
    })
}

fn claim_spec(storage: &str) -> Value {
    json!({
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": names::NO_STORAGE_CLASS,
        "resources": { "requests": { "storage": storage } },
    })
}

/// A generic ephemeral volume of a pod: a controller makes a claim for it, `POD-NAME`, in the pod's namespace and with the run's mark.
pub fn ephemeral_volume(mark: &Mark, name: &str, storage: &str) -> Value {
    let mut metadata = mark.metadata("", None);
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|key, _| key == "labels" || key == "annotations");
    }
    json!({
        "name": name,
        "ephemeral": { "volumeClaimTemplate": { "metadata": metadata, "spec": claim_spec(storage) } },
    })
}

/// The specification of a pod that is never scheduled (`schedulingGates`, Kubernetes 1.30 and later).
pub fn inert_spec(image: &str, resources: &Value) -> Value {
    json!({
        "schedulingGates": [{ "name": names::NEVER_READY }],
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "inert",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "resources": resources,
            "securityContext": container_security(),
        }],
    })
}

/// A Deployment of one inert pod.
pub fn inert_deployment(mark: &Mark, name: &str, namespace: &str, image: &str, resources: &Value) -> Value {
    let selector =
        json!({ names::PROBE: names::PROBE_VALUE, "ai-agents-platform/deployment": "beyond-quota" });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": mark.metadata(name, Some(namespace)),
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": selector },
            "template": {
                "metadata": { "labels": selector, "annotations": mark.annotations() },
                "spec": inert_spec(image, resources),
            },
        },
    })
}

/// Forbids one direction for the pods with these labels.
pub fn deny(
    mark: &Mark,
    name: &str,
    namespace: &str,
    direction: &str,
    pods: &BTreeMap<String, String>,
) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": mark.metadata(name, Some(namespace)),
        "spec": { "podSelector": { "matchLabels": pods }, "policyTypes": [direction] },
    })
}

/// The labels that the pods of a tenant's workload wear.
pub fn costume(tenant: &TenantId, costume: Costume) -> BTreeMap<String, String> {
    let app = match costume {
        Costume::Api => names::workload::API,
        Costume::Worker => names::workload::WORKER,
        Costume::Unlabelled => return BTreeMap::new(),
        Costume::Stranger => return BTreeMap::from([("app".to_owned(), "other".to_owned())]),
    };
    BTreeMap::from([
        ("app".to_owned(), app.to_owned()),
        ("tenant".to_owned(), tenant.to_string()),
    ])
}

/// The labels of a namespace and a pod that pass themselves off as an ingress controller's, and of a namespace that is half a tenant's.
/// Anybody who may make a namespace can set them.
pub fn impostor() -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let own = |labels: &[(&str, &str)]| {
        let pair = |(label, value): &(&str, &str)| ((*label).to_owned(), (*value).to_owned());
        labels.iter().map(pair).collect()
    };
    let controller = ("app.kubernetes.io/name", "ingress-nginx");
    (
        own(&[("name", "ingress-nginx"), controller, ("app", "ai-agents")]),
        own(&[controller, ("app.kubernetes.io/component", "controller")]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            run: RunId::parse("0a1b2c3d").unwrap(),
            expires: "2026-01-02T03:04:05Z".parse().unwrap(),
        }
    }

    fn agent(owner: Option<(String, String)>, may_become_ready: bool) -> Value {
        let tenant = TenantId::try_from("a").unwrap();
        let pod = AgentPod {
            mark: &mark(),
            name: "x".into(),
            namespace: tenant.namespace(),
            image: "ai-agents.local/probe:1",
            labels: costume(&tenant, Costume::Api),
            owner,
            node: None,
            may_become_ready,
        };
        pod.manifest()
    }

    #[test]
    fn an_agent_in_a_tenant_is_owned_and_can_never_serve() {
        let pod = agent(Some(("o".into(), "u".into())), false);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["controller"], true);
        assert_eq!(
            pod["spec"]["readinessGates"][0]["conditionType"],
            names::NEVER_READY
        );
        assert_eq!(pod["metadata"]["labels"]["app"], "ai-agents-api");
    }

    #[test]
    fn no_pod_carries_the_run_in_a_label() {
        for pod in [
            agent(None, true),
            inert_pod(&mark(), "x", "n", "i", &resources("1", "1", "1", "1")),
        ] {
            assert!(pod["metadata"]["labels"].get(names::RUN_ID).is_none(), "{pod}");
            assert_eq!(pod["metadata"]["annotations"][names::RUN_ID], "0a1b2c3d");
        }
    }
}

//! ADM-05: no pod of a tenant's has its node's files.

use crate::admission::{Ask, NodeGate};
use crate::check::{CheckInfo, Footprint, Profile, Schedule, Severity};
use serde_json::{Value, json};
use std::time::Duration;

/// The check.
pub(super) static CHECK: NodeGate = NodeGate {
    info: &INFO,
    // As the level baseline calls it, and restricted, which lists the volumes that it allows.
    reasons: &["hostPath volumes", "restricted volume types"],
    asks: &[
        Ask {
            with: "the node's / to read",
            change: |pod| {
                mount(pod, "/");
                pod["containers"][0]["volumeMounts"][0]["readOnly"] = json!(true);
            },
        },
        Ask {
            with: "the node's / to write",
            change: |pod| mount(pod, "/"),
        },
        // The kubelet follows symbolic links there when logs are asked for.
        Ask {
            with: "the node's /var/log",
            change: |pod| mount(pod, "/var/log"),
        },
        Ask {
            with: "the container runtime's socket",
            change: |pod| mount(pod, "/run/containerd/containerd.sock"),
        },
    ],
};

static INFO: CheckInfo = CheckInfo {
    id: "ADM-05",
    title: "no pod with its node's files is admitted in a tenant",
    profile: Profile::Baseline,
    severity: Severity::Critical,
    footprint: Footprint::DryRun,
    why: "Who writes its node's files is root there, who reads them has the volumes and tokens of every pod on it, and who speaks to the container runtime starts what it likes.",
    how: "With a token of the tenant's account, which may create pods, pods with hostPath volumes are created in a dry run: the node's / to read and to write, /var/log, the container runtime's socket. Pod Security itself must refuse each, and name the volume. Control: the same pod without it is admitted, before and after.",
    remedy: "bring the label pod-security.kubernetes.io/enforce back to the tenant's namespace (provisioner apply), and look for exemptions in the configuration of the API server's PodSecurity plugin",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

fn mount(pod: &mut Value, path: &str) {
    pod["volumes"] = json!([{ "name": "node", "hostPath": { "path": path } }]);
    pod["containers"][0]["volumeMounts"] = json!([{ "name": "node", "mountPath": "/node" }]);
}

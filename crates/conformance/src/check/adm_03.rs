//! ADM-03: no pod of a tenant's is in its node's network.

use crate::admission::{Ask, NodeGate};
use crate::check::{CheckInfo, Footprint, Profile, Schedule, Severity};
use serde_json::json;
use std::time::Duration;

/// The check.
pub(super) static CHECK: NodeGate = NodeGate {
    info: &INFO,
    reasons: &["host namespaces"],
    asks: &[Ask {
        with: "hostNetwork",
        change: |pod| pod["hostNetwork"] = json!(true),
    }],
};

static INFO: CheckInfo = CheckInfo {
    id: "ADM-03",
    title: "no pod in its node's network is admitted in a tenant",
    profile: Profile::Baseline,
    severity: Severity::Critical,
    footprint: Footprint::DryRun,
    why: "Network policies do not hold pods in their node's network: such a pod reaches every pod on that node, the kubelet, and what listens on the node's loopback.",
    how: "With a token of the tenant's account, which may create pods, a pod with hostNetwork is created in a dry run: Pod Security itself must refuse it, and name the host namespaces. Control: the same pod without it is admitted, before and after.",
    remedy: "bring the label pod-security.kubernetes.io/enforce back to the tenant's namespace (provisioner apply), and look for exemptions in the configuration of the API server's PodSecurity plugin",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

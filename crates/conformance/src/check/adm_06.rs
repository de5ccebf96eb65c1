//! ADM-06: no pod of a tenant's takes a port of its node's.

use crate::admission::{Ask, NodeGate};
use crate::check::{CheckInfo, Footprint, Profile, Schedule, Severity};
use serde_json::json;
use std::time::Duration;

/// The check.
pub(super) static CHECK: NodeGate = NodeGate {
    info: &INFO,
    reasons: &["hostPort"],
    asks: &[Ask {
        with: "a hostPort",
        change: |pod| {
            pod["containers"][0]["ports"] =
                json!([{ "name": "http", "containerPort": 8000, "hostPort": 31337, "protocol": "TCP" }]);
        },
    }],
};

static INFO: CheckInfo = CheckInfo {
    id: "ADM-06",
    title: "no pod that takes a port of its node's is admitted in a tenant",
    profile: Profile::Baseline,
    severity: Severity::High,
    footprint: Footprint::DryRun,
    why: "A hostPort makes a pod reachable past the ingress, on an address that network policies of other namespaces may trust, and takes a port from whoever else needs it on that node.",
    how: "With a token of the tenant's account, which may create pods, a pod with a hostPort is created in a dry run: Pod Security itself must refuse it, and name `hostPort`. Control: the same pod without it is admitted, before and after.",
    remedy: "bring the label pod-security.kubernetes.io/enforce back to the tenant's namespace (provisioner apply), and look for exemptions in the configuration of the API server's PodSecurity plugin",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

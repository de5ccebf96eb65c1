//! ADM-04: no pod of a tenant's is among its node's processes.

use crate::admission::{Ask, NodeGate};
use crate::check::{CheckInfo, Footprint, Profile, Schedule, Severity};
use serde_json::json;
use std::time::Duration;

/// The check.
pub(super) static CHECK: NodeGate = NodeGate {
    info: &INFO,
    reasons: &["host namespaces"],
    asks: &[
        Ask {
            with: "hostPID",
            change: |pod| pod["hostPID"] = json!(true),
        },
        Ask {
            with: "hostIPC",
            change: |pod| pod["hostIPC"] = json!(true),
        },
    ],
};

static INFO: CheckInfo = CheckInfo {
    id: "ADM-04",
    title: "no pod among its node's processes is admitted in a tenant",
    profile: Profile::Baseline,
    severity: Severity::Critical,
    footprint: Footprint::DryRun,
    why: "A pod that sees its node's processes reads their environments and files, tokens and passwords of other tenants among them, and one in the node's IPC namespace reads their shared memory.",
    how: "With a token of the tenant's account, which may create pods, a pod with hostPID and one with hostIPC are created in a dry run: Pod Security itself must refuse each, and name the host namespaces. Control: the same pod without it is admitted, before and after.",
    remedy: "bring the label pod-security.kubernetes.io/enforce back to the tenant's namespace (provisioner apply), and look for exemptions in the configuration of the API server's PodSecurity plugin",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

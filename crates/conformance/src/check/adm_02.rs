//! ADM-02: no pod of a tenant's is privileged.

use crate::admission::{Ask, NodeGate};
use crate::check::{CheckInfo, Footprint, Profile, Schedule, Severity};
use serde_json::{Value, json};
use std::time::Duration;

/// The check.
pub(super) static CHECK: NodeGate = NodeGate {
    info: &INFO,
    reasons: &["privileged"],
    asks: &[
        Ask {
            with: "a privileged container",
            change: |pod| privileged(&mut pod["containers"][0]),
        },
        Ask {
            with: "a privileged init container",
            change: |pod| {
                let mut first = pod["containers"][0].clone();
                first["name"] = json!("first");
                privileged(&mut first);
                pod["initContainers"] = json!([first]);
            },
        },
    ],
};

static INFO: CheckInfo = CheckInfo {
    id: "ADM-02",
    title: "no privileged container is admitted in a tenant",
    profile: Profile::Baseline,
    severity: Severity::Critical,
    footprint: Footprint::DryRun,
    why: "A privileged container is root on its node: it reads every other tenant's memory, files and tokens there, and neither quota, RBAC nor network policies hold it.",
    how: "With a token of the tenant's account, which may create pods, a pod with a privileged container, and one with a privileged init container, are created in a dry run: Pod Security itself must refuse each, and name `privileged`. Control: the same pod without it is admitted, before and after.",
    remedy: "bring the label pod-security.kubernetes.io/enforce back to the tenant's namespace (provisioner apply), and look for exemptions in the configuration of the API server's PodSecurity plugin",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

/// Privileged means that it may escalate too: a container that says otherwise is invalid (core/v1 SecurityContext).
fn privileged(container: &mut Value) {
    if let Some(security) = container["securityContext"].as_object_mut() {
        security.remove("allowPrivilegeEscalation");
        security.insert("privileged".to_owned(), json!(true));
    }
}

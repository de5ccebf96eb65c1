//! PROV-13: a provisioned tenant's workloads run under the policies, quota and Pod Security level it was given, as its own account, and
//! serve. Without this every later denial would be empty.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Cause, Evidence, Finding, Verdict};
use crate::workloads::{WorkloadPod, Workloads};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::{NotReady, Reason, TenantId};
use std::time::Duration;

/// The check.
pub(super) struct Prov13;

static INFO: CheckInfo = CheckInfo {
    id: "PROV-13",
    title: "the tenant's workloads are ready, serve, and run as the tenant's own account",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::Read,
    why: "Templates that keep their own workloads from running isolate nothing: a dead API is denied to everybody. And a pod that runs as another account has another's rights.",
    how: "API and worker Deployments are rolled out, the API's Service has a ready endpoint (the kubelet's probe reached the listener), and every pod of both runs as sa-{tenant}.",
    remedy: "read the reason: kubectl describe deployment and events in the tenant's namespace; provisioner apply brings templates back",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(30),
};

impl Check for Prov13 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        subject
            .tenant()
            .map(|tenant| Resource::Workloads(tenant.clone()))
            .into_iter()
            .collect()
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let tenant = subject.tenant()?;
            Ok(judge(tenant, cx.workloads(tenant).await?.as_ref()))
        }
        .boxed()
    }
}

fn judge(tenant: &TenantId, workloads: &Workloads) -> Verdict {
    let mut findings = foreign_accounts(tenant, workloads);
    if let Some(not_ready) = &workloads.not_ready {
        findings.extend(own_faults(not_ready));
        if findings.is_empty() {
            return Verdict::Inconclusive(Cause {
                what: not_ready.to_string(),
                hint: Some(advice(not_ready).to_owned()),
            });
        }
    }
    if !findings.is_empty() {
        return Verdict::Failed {
            findings,
            observed: observed(workloads),
        };
    }
    if workloads.api.is_empty() || workloads.worker.is_empty() {
        return Verdict::inconclusive(
            "no pod of API or worker was found, though both Deployments are rolled out",
        );
    }
    Verdict::Passed(Evidence {
        summary: format!(
            "{} API and {} worker pod(s) ready as sa-{tenant}; {} endpoint(s) serve",
            ready(&workloads.api),
            ready(&workloads.worker),
            workloads.ready_endpoints
        ),
        observed: observed(workloads),
        ..Evidence::default()
    })
}

fn ready(pods: &[WorkloadPod]) -> usize {
    pods.iter().filter(|pod| pod.ready).count()
}

fn foreign_accounts(tenant: &TenantId, workloads: &Workloads) -> Vec<Finding> {
    let expected = format!("sa-{tenant}");
    let mut findings = Vec::new();
    for pod in workloads
        .api
        .iter()
        .chain(&workloads.worker)
        .filter(|pod| pod.account != expected)
    {
        findings.push(Finding {
            expected: format!("pod {} runs as {expected}", pod.name),
            seen: format!("it runs as {}", pod.account),
        });
    }
    findings
}

/// What the workload or the templates are to blame for: its container ran and does not serve, or the tenant's own rules refused it. What
/// node, scheduler or registry do is nobody's broken promise; pods that run behind a Service that finds none of them are.
fn own_faults(not_ready: &NotReady) -> Vec<Finding> {
    let only_endpoints = not_ready
        .missing
        .iter()
        .all(|missing| missing.reason == Reason::NoEndpoints);
    let mut findings = Vec::new();
    for missing in &not_ready.missing {
        let own = match missing.reason {
            Reason::Quota | Reason::LimitRange | Reason::PodSecurity | Reason::Crash | Reason::Probe => true,
            Reason::NoEndpoints => only_endpoints,
            _ => false,
        };
        if own {
            findings.push(Finding {
                expected: format!("{} is ready", missing.object),
                seen: missing.detail.clone(),
            });
        }
    }
    findings
}

/// What to do where nothing can be concluded.
fn advice(not_ready: &NotReady) -> &'static str {
    let elsewhere = |reason| matches!(reason, Reason::Image | Reason::Scheduling | Reason::Node);
    if not_ready.missing.iter().any(|missing| elsewhere(missing.reason)) {
        "this is the node's, the scheduler's or the registry's doing, and says nothing about the tenant"
    } else {
        "kubectl describe what is named, and look at its events"
    }
}

fn observed(workloads: &Workloads) -> Vec<String> {
    let pods = workloads.api.iter().chain(&workloads.worker);
    pods.map(|pod| {
        let state = if pod.ready { "ready" } else { "not ready" };
        let ip = pod.ip.as_deref().unwrap_or("no address");
        format!("pod {} ({ip}): {state}, runs as {}", pod.name, pod.account)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use provisioner::{Missing, ObjectRef};
    use rstest::rstest;

    fn workloads(account: &str, reason: Option<Reason>) -> Workloads {
        let pod = |name: &str| WorkloadPod {
            restarts: 0,
            name: name.into(),
            ip: Some("10.0.0.1".into()),
            account: account.into(),
            ready: reason.is_none(),
        };
        let object = ObjectRef {
            kind: "Deployment".into(),
            name: "ai-agents-api".into(),
            namespace: Some("n".into()),
        };
        let missing = reason.map(|reason| Missing {
            object,
            reason,
            detail: "d".into(),
        });
        Workloads {
            api: vec![pod("api")],
            worker: vec![pod("worker")],
            service_ip: None,
            ready_endpoints: 1,
            not_ready: missing.map(|missing| NotReady {
                namespace: "n".into(),
                waited: Duration::from_secs(60),
                missing: vec![missing],
            }),
        }
    }

    #[rstest]
    #[case::serves("sa-a", None, "passed")]
    #[case::another_account("default", None, "failed")]
    #[case::crashes("sa-a", Some(Reason::Crash), "failed")]
    #[case::does_not_serve("sa-a", Some(Reason::Probe), "failed")]
    #[case::refused_by_quota("sa-a", Some(Reason::Quota), "failed")]
    #[case::refused_by_pod_security("sa-a", Some(Reason::PodSecurity), "failed")]
    #[case::no_endpoints("sa-a", Some(Reason::NoEndpoints), "failed")]
    #[case::refused_by_others("sa-a", Some(Reason::Refused), "inconclusive")]
    #[case::no_image("sa-a", Some(Reason::Image), "inconclusive")]
    #[case::no_room("sa-a", Some(Reason::Scheduling), "inconclusive")]
    #[case::bad_node("sa-a", Some(Reason::Node), "inconclusive")]
    #[case::another_account_outranks_the_node("default", Some(Reason::Node), "failed")]
    fn the_workload_is_judged_for_its_own_faults_only(
        #[case] account: &str,
        #[case] reason: Option<Reason>,
        #[case] expected: &str,
    ) {
        let tenant = TenantId::try_from("a").unwrap();
        assert_eq!(judge(&tenant, &workloads(account, reason)).word(), expected);
    }
}

//! NET-10: a tenant's labels are the platform's to give. Somebody who may make namespaces, and nothing else, asks for them by dry runs, since
//! an administrator, whom the platform's policy lets through, would show nothing.

use crate::access::{self, Access, Refusal, Resource as ApiResource};
use crate::account;
use crate::admission::{Guard, admitted, refused};
use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::ledger::{Entry, Kind};
use crate::names::RunId;
use crate::probing::combine;
use crate::removal;
use crate::resource::{Place, Resource};
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::{Tenant, TenantId, labels};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// The check.
pub(super) struct Net10;

static INFO: CheckInfo = CheckInfo {
    id: "NET-10",
    title: "whoever may only make namespaces cannot give one a tenant's labels",
    profile: Profile::Baseline,
    severity: Severity::High,
    footprint: Footprint::LabOnly,
    why: "Labels are the only selector that network policies have: a namespace that wears a tenant's reaches PostgreSQL and Redis, whoever made it. RBAC cannot say which labels somebody may set.",
    how: "An account of the run's own gets the right to make namespaces, and to patch the one that it is in, and nothing else. By its token, as dry runs, it makes a namespace with all labels of an existing tenant's, makes one with those that the shared services' policies select, and puts these on its own: the platform's admission policy itself must refuse each, at two askings in a row two seconds apart, since API servers learn of policies with a delay. Controls: the same account makes a namespace without these labels, and sets another label on its own, before and after.",
    remedy: "bring the admission policy ai-agents-namespaces and its binding back, with the action Deny (provisioner platform apply); where something else reserves these labels, waive NET-10 and name it",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

/// The policy that reserves the labels (`templates/platform`).
const RESERVED_BY: Guard = Guard::Policy("ai-agents-namespaces");
const NAMESPACES: ApiResource = ApiResource::core("namespaces");
/// How long a binding may take until the authorizer knows it.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(250);
/// API servers look for new policies once a second (k8s.io/apiserver, plugin/policy/generic: PolicyRefreshInterval).
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is asked again until two answers are the same.
const TRIES: usize = 3;
const REMOVED_WITHIN: Duration = Duration::from_secs(10);

impl Check for Net10 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::cluster(tenants)
    }

    // The account is the one that every namespace has: the outsider's.
    fn needs(&self, _subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        vec![Resource::Agent(Place::Outsider)]
    }

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::AdmissionPolicies]
    }

    fn objects(&self, _subject: &Subject, _tenants: &[Tenant], run: &RunId) -> Vec<Entry> {
        rights(run).into()
    }

    fn run<'a>(
        &self,
        cx: &'a Context,
        _subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let home = cx.stage.agent(&Place::Outsider).await?.namespace.clone();
            judge(cx, &home).await
        }
        .boxed()
    }
}

/// The ClusterRole and its binding.
fn rights(run: &RunId) -> [Entry; 2] {
    [Kind::ClusterRole, Kind::ClusterRoleBinding].map(|kind| Entry {
        kind,
        namespace: None,
        name: run.object("makes-namespaces"),
    })
}

async fn judge(cx: &Context, home: &str) -> Result<Verdict, HarnessError> {
    let site = &cx.site;
    let entries = rights(&site.mark.run);
    let verdict = match grant(cx, home).await {
        Ok(()) => try_labels(cx, home).await,
        Err(error) => Err(error),
    };
    // What cannot be removed now stays in the ledger, and is tried again at the end.
    let mut made = site.ledger.newest_first();
    made.retain(|entry| entries.contains(entry));
    removal::remove(
        &site.cluster.client,
        site.mark.run.as_str(),
        &made,
        REMOVED_WITHIN,
        &|entry| site.ledger.gone(entry),
    )
    .await;
    verdict
}

/// Lets the account of this namespace make namespaces, and patch its own.
async fn grant(cx: &Context, home: &str) -> Result<(), HarnessError> {
    let (client, ledger, mark) = (&cx.site.cluster.client, &cx.site.ledger, &cx.site.mark);
    let name = mark.run.object("makes-namespaces");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": mark.metadata(&name, None),
        "rules": [
            { "apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"] },
            { "apiGroups": [""], "resources": ["namespaces"], "verbs": ["patch"], "resourceNames": [home] },
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": mark.metadata(&name, None),
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": account::DEFAULT, "namespace": home }],
    });
    ledger.create(client, role).await?;
    ledger.create(client, binding).await?;
    Ok(())
}

async fn try_labels(cx: &Context, home: &str) -> Result<Verdict, HarnessError> {
    let client = account::act_as_account(cx, home, account::DEFAULT).await?;
    let mut controls = in_force(cx, &client, home).await;
    let probes = at_two_askings(|| ask(cx, &client, home)).await;
    controls.extend(unlabelled(cx, &client, home).await);
    Ok(judge_denied(&prove(&controls), &probes))
}

/// What the account may do without the labels, once the authorizer knows its rights.
async fn in_force(cx: &Context, client: &kube::Client, home: &str) -> Vec<Control> {
    let deadline = Instant::now() + IN_FORCE_WITHIN;
    loop {
        let controls = unlabelled(cx, client, home).await;
        let hold = controls.iter().all(|control| control.holds.is_ok());
        if hold || Instant::now() > deadline {
            return controls;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn unlabelled(cx: &Context, client: &kube::Client, home: &str) -> Vec<Control> {
    let (none, label) = (json!({}), json!({ "ai-agents-platform/unreserved": "net-10" }));
    let (made, patched) = futures::join!(make(cx, client, &none), relabel(cx, client, home, &label));
    vec![
        admitted(
            "the account makes a namespace without a tenant's labels".to_owned(),
            &made,
        ),
        admitted(
            "the account sets another label on its namespace".to_owned(),
            &patched,
        ),
    ]
}

/// Labels of a tenant's namespace: all of them, and those that the shared services' policies select.
fn reserved(tenant: &str) -> [Value; 2] {
    let selected = json!({ labels::APP: labels::APP_VALUE, labels::MANAGED_BY: labels::MANAGED_BY_VALUE });
    let mut all = selected.clone();
    all[labels::TENANT] = json!(tenant);
    [all, selected]
}

async fn ask(cx: &Context, client: &kube::Client, home: &str) -> Vec<Observed> {
    let tenants = cx.site.settings.tenant_ids();
    let tenant = tenants.first().map(TenantId::as_str).unwrap_or_default();
    let [all, selected] = reserved(tenant);
    let (impostor, half, relabelled) = futures::join!(
        make(cx, client, &all),
        make(cx, client, &selected),
        relabel(cx, client, home, &selected)
    );
    [
        (
            format!("the account makes a namespace with all labels of {tenant}'s"),
            impostor,
        ),
        (
            "the account makes a namespace with app=ai-agents and managed-by=ai-agents-platform".to_owned(),
            half,
        ),
        (
            "the account puts these labels on its namespace".to_owned(),
            relabelled,
        ),
    ]
    .map(|(what, answer)| Observed {
        what,
        observation: refused(&answer, RESERVED_BY),
    })
    .into()
}

async fn make(cx: &Context, client: &kube::Client, labels: &Value) -> Result<Value, Refusal> {
    let name = cx.site.mark.run.namespace("impostor-tenant");
    let body =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } });
    let access = Access::new("create", NAMESPACES, None, &name).with(body);
    access::send(client, &access, &cx.site).await
}

async fn relabel(cx: &Context, client: &kube::Client, home: &str, labels: &Value) -> Result<Value, Refusal> {
    let access =
        Access::new("patch", NAMESPACES, None, home).with(json!({ "metadata": { "labels": labels } }));
    access::send(client, &access, &cx.site).await
}

/// Asks until two askings in a row come to the same; where they never do, the worst of the last two.
async fn at_two_askings<Asked>(ask: impl Fn() -> Asked) -> Vec<Observed>
where
    Asked: Future<Output = Vec<Observed>>,
{
    let mut last = ask().await;
    for _ in 1..TRIES {
        tokio::time::sleep(AGAIN).await;
        let now = ask().await;
        if last
            .iter()
            .zip(&now)
            .all(|(one, two)| same(&one.observation, &two.observation))
        {
            return now;
        }
        last = now;
    }
    tokio::time::sleep(AGAIN).await;
    let both = last.into_iter().zip(ask().await);
    let both = both.map(|(one, two)| Observed {
        observation: combine(one.observation, two.observation),
        what: one.what,
    });
    both.collect()
}

fn same(one: &Observation, two: &Observation) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(two)
}

#[cfg(test)]
mod tests;

//! RBAC-13: a tenant's namespace is closed to those who are in it by no right of their own: who says nothing of himself, whose token nobody
//! issued, and the accounts that every namespace has by default, which are in all of the broad groups.

use crate::access::{self, Access, Refusal, Resource as ApiResource};
use crate::account::{DEFAULT, act_as, act_as_default, own_control, username};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::denial::Denial;
use crate::error::{HarnessError, chain};
use crate::resource::Resource;
use crate::rules::{self, Rule};
use crate::subject::{self, Subject};
use crate::verdict::{Control, Finding, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use http::Request;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Rbac13;

static INFO: CheckInfo = CheckInfo {
    id: "RBAC-13",
    title: "the anonymous, and the groups of all accounts and all users, have no rights in a tenant",
    profile: Profile::Baseline,
    severity: Severity::Critical,
    footprint: Footprint::DryRun,
    why: "One binding to system:serviceaccounts or system:authenticated opens every tenant to every pod of the cluster, and one to system:unauthenticated to whoever reaches the API server.",
    how: "Requests without credentials, with a token that nobody issued, and with tokens of the accounts that the tenants' namespaces have by default: these are in system:serviceaccounts, in the group of their own namespace and in system:authenticated, and hold nothing but what those do. Reading pods and Secrets, exec, bindings, deployments, quotas and tokens in the tenant's namespace, and namespaces and Secrets of the whole cluster, must be refused by RBAC itself, or with 401 where there is no identity: twice, since API servers learn of bindings late. The API server's own list of the default accounts' rights in that namespace must hold nothing but questions about oneself. Controls: the server answers /version, or does not take the anonymous at all; each account is told who it is and answered discovery; the tenant's own rights are in force. Changes are dry runs.",
    remedy: "find the binding: kubectl get rolebindings,clusterrolebindings -A -o wide | grep -E 'system:(serviceaccounts|authenticated|unauthenticated|anonymous)'; beyond discovery and public information Kubernetes binds nothing to these",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

/// What is tried in the tenant's namespace.
const HERE: [(&str, ApiResource); 7] = [
    ("list", ApiResource::core("pods")),
    ("list", ApiResource::core("secrets")),
    ("get", ApiResource::core("pods/exec")),
    (
        "create",
        ApiResource::of("rbac.authorization.k8s.io/v1", "rolebindings"),
    ),
    ("delete", ApiResource::of("apps/v1", "deployments")),
    ("patch", ApiResource::core("resourcequotas")),
    ("create", ApiResource::core("serviceaccounts/token")),
];
/// What is tried in the whole cluster.
const EVERYWHERE: [ApiResource; 2] = [ApiResource::core("namespaces"), ApiResource::core("secrets")];

impl Check for Rbac13 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        tenants.iter().cloned().map(Resource::Tenant).collect()
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

/// Somebody without rights of his own.
struct Stranger {
    /// For people, and as the API server calls him.
    name: String,
    client: kube::Client,
    /// Whether 401 is a refusal: where there is no identity there is nobody to authorize (Kubernetes, "Authenticating", "Anonymous requests").
    may_be_unknown: bool,
    /// What shows that he is heard.
    control: Control,
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    let site = &cx.site;
    for each in &site.settings.tenants {
        cx.stage.tenant(&each.id).await?;
    }
    // The tenant's own rights are in force: so would those be that were given in its namespace to everybody.
    let in_force = own_control(&act_as(cx, tenant).await?, tenant, site).await;
    let mut strangers = vec![anonymous(cx).await?, made_up(cx).await?];
    let mut accounts = Vec::new();
    for each in &site.settings.tenants {
        let (stranger, client) = default_account(cx, &each.id).await?;
        accounts.push((stranger.name.clone(), client));
        strangers.push(stranger);
    }
    let namespace = tenant.namespace();
    let (tried, listed) = futures::join!(
        future::join_all(
            strangers
                .iter()
                .map(|stranger| access::twice(|| try_all(cx, stranger, &namespace)))
        ),
        future::join_all(accounts.iter().map(|(name, client)| {
            rules::sift(
                client,
                name,
                std::slice::from_ref(&namespace),
                |namespace, rules| held_but_forbidden(name, namespace, rules),
            )
        })),
    );
    let mut controls = vec![in_force];
    controls.extend(strangers.into_iter().map(|stranger| stranger.control));
    let (findings, unknown): (Vec<_>, Vec<_>) = listed.into_iter().unzip();
    let probes = tried.into_iter().chain(unknown).flatten().collect::<Vec<_>>();
    Ok(judge_denied(&prove(&controls), &probes).with_findings(findings.concat()))
}

/// Who says nothing of himself: `system:anonymous`, in `system:unauthenticated`, where the server takes him at all.
async fn anonymous(cx: &Context) -> Result<Stranger, HarnessError> {
    let client = cx.site.cluster.anonymous()?;
    let control = answers(
        &client,
        "/version",
        "the API server answers the anonymous",
        &[401, 403],
    )
    .await;
    Ok(Stranger {
        name: "system:anonymous".to_owned(),
        client,
        may_be_unknown: true,
        control,
    })
}

/// Whose token nobody issued.
async fn made_up(cx: &Context) -> Result<Stranger, HarnessError> {
    let client = cx.site.cluster.client_with_token(cx.site.mark.run.owner())?;
    let control = answers(
        &client,
        "/version",
        "the API server answers a token that nobody issued",
        &[401],
    )
    .await;
    Ok(Stranger {
        name: "a token that nobody issued".to_owned(),
        client,
        may_be_unknown: true,
        control,
    })
}

async fn default_account(cx: &Context, of: &TenantId) -> Result<(Stranger, kube::Client), HarnessError> {
    let client = act_as_default(cx, of).await?;
    let name = username(&of.namespace(), DEFAULT);
    let control = answers(&client, "/api", &format!("{name} is answered discovery"), &[]).await;
    let stranger = Stranger {
        name,
        client: client.clone(),
        may_be_unknown: false,
        control,
    };
    Ok((stranger, client))
}

/// That the server hears this client: it answers, or refuses with one of these codes, which is its word too.
async fn answers(client: &kube::Client, path: &str, claim: &str, refusals: &[u16]) -> Control {
    let asked = async {
        let request = Request::get(path)
            .body(Vec::new())
            .map_err(|error| chain(&error))?;
        match tokio::time::timeout(ANSWER, client.request_text(request)).await {
            Ok(Ok(_)) => Ok(format!("{path} is answered")),
            Ok(Err(kube::Error::Api(status))) if refusals.contains(&status.code) => {
                Ok(format!("{path} is refused with {}", status.code))
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
        }
    };
    Control {
        claim: claim.to_owned(),
        holds: asked.await,
    }
}

/// All that a stranger tries.
async fn try_all(cx: &Context, stranger: &Stranger, namespace: &str) -> Vec<Observed> {
    let nothing = cx.site.mark.run.object("nothing");
    let here = HERE.map(|(verb, resource)| (verb, resource, Some(namespace)));
    let everywhere = EVERYWHERE.map(|resource| ("list", resource, None));
    let tried = here
        .into_iter()
        .chain(everywhere)
        .map(|(verb, resource, namespace)| {
            let access = Access::new(verb, resource, namespace, &nothing);
            let place = namespace.unwrap_or("the whole cluster");
            async move {
                Observed {
                    what: format!("{} may {verb} {resource} in {place}", stranger.name),
                    observation: judged(access::send(&stranger.client, &access, &cx.site).await, stranger),
                }
            }
        });
    future::join_all(tried).await
}

fn judged(answer: Result<serde_json::Value, Refusal>, stranger: &Stranger) -> Observation {
    match answer {
        Ok(_) => Observation::Reached("allowed".to_owned()),
        Err(Refusal::Refused(Denial::Unauthenticated, _)) if stranger.may_be_unknown => {
            Observation::Denied("401".to_owned())
        }
        Err(refusal) => refusal.as_authorization(),
    }
}

fn held_but_forbidden(account: &str, namespace: &str, rules: &[Rule]) -> Vec<Finding> {
    let more = rules.iter().filter(|rule| !rule.is_about_oneself());
    let held: Vec<String> = more.map(ToString::to_string).collect();
    if held.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        expected: format!("the rights of {account} in {namespace} are questions about itself"),
        seen: format!("more: {}", held.join(", ")),
    }]
}

#[cfg(test)]
mod tests;

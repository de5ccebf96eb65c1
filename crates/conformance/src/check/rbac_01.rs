//! RBAC-01: one tenant's account has no rights in another's namespace. Real requests with a real token, since an access review may say
//! something else than the authorizer does; whatever could change something is a dry run, at names that only this run uses.

use crate::access::{self, Access, TENANT_RESOURCES, VERBS};
use crate::account::{act_as, own_control};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Rbac01;

static INFO: CheckInfo = CheckInfo {
    id: "RBAC-01",
    title: "one tenant's account has no rights in another tenant's namespace",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::DryRun,
    why: "Whoever holds A's token and may read B's Secrets or change B's Deployments is B; one RoleBinding too many is enough.",
    how: "A token is minted for A's account and asked who it is; then get, list, watch, create, update, patch and delete of pods, deployments, services, configmaps and secrets in B's namespace must each be refused by RBAC itself (403 that names the user): a 404, a quota's or Pod Security's refusal comes from behind authorization and fails. Control: the same token lists pods in A's own namespace. Changes are dry runs.",
    remedy: "find the binding that grants it: kubectl get rolebindings,clusterrolebindings -A -o wide | grep the account, system:serviceaccounts or system:authenticated",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

impl Check for Rbac01 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::ordered_pairs(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        let Ok((from, to)) = subject.pair() else {
            return Vec::new();
        };
        vec![Resource::Tenant(from.clone()), Resource::Tenant(to.clone())]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let (from, to) = subject.pair()?;
            judge(cx, from, to).await
        }
        .boxed()
    }
}

async fn judge(cx: &Context, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(from).await?;
    cx.stage.tenant(to).await?;
    let site = &cx.site;
    let client = act_as(cx, from).await?;
    // The neighbour's own rights are in force: so would a right be that was given in its namespace to somebody else.
    let neighbour = own_control(&act_as(cx, to).await?, to, site).await;
    let before = own_control(&client, from, site).await;
    let seen = ask_everything(cx, &client, from, to).await;
    let after = own_control(&client, from, site).await;
    Ok(judge_denied(&prove(&[before, neighbour, after]), &seen))
}

/// Every verb on every resource.
async fn ask_everything(
    cx: &Context,
    client: &kube::Client,
    from: &TenantId,
    to: &TenantId,
) -> Vec<Observed> {
    let (site, namespace) = (&cx.site, to.namespace());
    let (mark, name) = (&site.mark, site.mark.run.owner());
    let mut asked = Vec::new();
    for resource in TENANT_RESOURCES {
        for verb in VERBS {
            let what = format!("sa-{from} may {verb} {resource} in {namespace}");
            let mut access = Access::new(verb, resource, Some(&namespace), &name);
            if ["create", "update"].contains(&verb) {
                let image = &site.settings.agent_image;
                access = access.with(access::compliant(resource, &name, &namespace, mark, image));
            }
            asked.push((what, access));
        }
    }
    access::ask_all_twice(client, asked, site).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{answer, ok, pair, refuse, word_and_text};
    use axum::extract::Request as Incoming;
    use axum::response::Response;
    use rstest::rstest;
    use serde_json::json;
    use std::collections::BTreeSet;

    const ACCOUNT: &str = "system:serviceaccount:ai-agents-a:sa-a";

    /// The tenant whose token a request carries: the scripted tokens are the tenants' ids.
    fn bearer(request: &Incoming) -> &str {
        let header = request
            .headers()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        header
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default()
    }

    fn rbac_403() -> Response {
        let message = format!("x is forbidden: User \"{ACCOUNT}\" cannot do this");
        refuse(403, "Forbidden", &message)
    }

    /// Everything but the requests in question: tokens, whose they are, and what each account may do at home.
    fn preamble(request: &Incoming, account: Option<&str>) -> Option<Response> {
        let path = request.uri().path();
        let tenant = bearer(request);
        if path.ends_with("/token") {
            let minted = if path.contains("sa-a") { "a" } else { "b" };
            return Some(ok(&json!({
                "metadata": {}, "spec": { "audiences": [] }, "status": { "token": minted, "expirationTimestamp": "2026-01-01T00:00:00Z" },
            })));
        }
        if path.ends_with("/selfsubjectreviews") {
            let own = format!("system:serviceaccount:ai-agents-{tenant}:sa-{tenant}");
            return Some(ok(
                &json!({ "metadata": {}, "status": { "userInfo": { "username": account.unwrap_or(&own) } } }),
            ));
        }
        path.contains(&format!("/ai-agents-{tenant}/"))
            .then(|| ok(&json!({ "items": [] })))
    }

    async fn verdict(
        script: impl Fn(&Incoming) -> Response + Clone + Send + Sync + 'static,
    ) -> Result<Verdict, HarnessError> {
        let server = answer(script).await;
        let tenants = ["a", "b"].map(|id| TenantId::try_from(id).unwrap());
        let needs: BTreeSet<Resource> = Rbac01.needs(&pair(), &tenants).into_iter().collect();
        let cx = server.context(&needs);
        Rbac01.run(&cx, &pair()).await
    }

    #[rstest]
    #[case::refused_by_rbac(rbac_403 as fn() -> Response, "passed", "RBAC 403")]
    #[case::allowed(|| ok(&json!({ "items": [] })), "failed", "allowed")]
    #[case::looked_up(|| refuse(404, "NotFound", "pods x not found"), "failed", "looked for the object")]
    #[case::refused_by_quota(|| refuse(403, "Forbidden", "exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10"), "failed", "the quota that refused")]
    #[case::refused_by_pod_security(|| refuse(403, "Forbidden", "violates PodSecurity \"restricted:latest\""), "failed", "Pod Security")]
    #[case::not_authenticated(|| refuse(401, "Unauthorized", "Unauthorized"), "inconclusive", "401")]
    #[case::throttled(|| refuse(429, "TooManyRequests", "slow down"), "inconclusive", "429")]
    #[case::server_error(|| refuse(500, "InternalError", "etcd"), "inconclusive", "500")]
    #[tokio::test(start_paused = true)]
    async fn only_rbacs_own_refusal_passes(
        #[case] at_b: fn() -> Response,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let script = move |request: &Incoming| match preamble(request, None) {
            Some(response) => response,
            None if request.uri().path().contains("/ai-agents-b/") => at_b(),
            None => ok(&json!({ "items": [] })),
        };
        let (seen, all) = word_and_text(&verdict(script).await.unwrap());
        assert_eq!(seen, word, "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_right_too_many_is_a_failure_that_names_it() {
        let script = |request: &Incoming| match preamble(request, None) {
            Some(response) => response,
            None if request.uri().path().contains("/ai-agents-b/secrets") && request.method() == "GET" => {
                ok(&json!({ "items": [] }))
            }
            None if request.uri().path().contains("/ai-agents-b/") => rbac_403(),
            None => ok(&json!({ "items": [] })),
        };
        let Verdict::Failed { findings, .. } = verdict(script).await.unwrap() else {
            panic!("expected a failure")
        };
        let expected: Vec<&str> = findings.iter().map(|finding| finding.expected.as_str()).collect();
        let names =
            ["get", "list", "watch"].map(|verb| format!("sa-a may {verb} secrets in ai-agents-b is denied"));
        assert_eq!(expected, names);
    }

    #[rstest]
    #[case::the_tenants("a")]
    #[case::the_neighbours("b")]
    #[tokio::test(start_paused = true)]
    async fn a_token_without_rights_of_its_own_proves_nothing(#[case] without: &'static str) {
        let script = move |request: &Incoming| {
            let at_home = request
                .uri()
                .path()
                .contains(&format!("/ai-agents-{without}/pods"));
            if at_home && bearer(request) == without {
                rbac_403()
            } else {
                preamble(request, None).unwrap_or_else(rbac_403)
            }
        };
        let (word, text) = word_and_text(&verdict(script).await.unwrap());
        assert_eq!(word, "inconclusive");
        assert!(text.contains("control did not hold"), "{text}");
    }

    /// A binding that one API server already knows and another does not: allowed at the second asking only.
    #[tokio::test(start_paused = true)]
    async fn a_right_that_shows_at_the_second_asking_is_a_failure() {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let script = move |request: &Incoming| match preamble(request, None) {
            Some(response) => response,
            None if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                < VERBS.len() * TENANT_RESOURCES.len() =>
            {
                rbac_403()
            }
            None => ok(&json!({ "items": [] })),
        };
        assert_eq!(verdict(script).await.unwrap().word(), "failed");
    }

    #[tokio::test]
    async fn somebody_elses_token_proves_nothing() {
        let script = |request: &Incoming| preamble(request, Some("system:admin")).unwrap_or_else(rbac_403);
        let error = verdict(script).await.unwrap_err();
        assert!(
            error.what.contains("the minted token is system:admin's"),
            "{error}"
        );
    }
}

//! RBAC-01: one tenant's account has no rights in another's namespace. Real requests with a real token, since an access review may say
//! something else than the authorizer does; whatever could change something is a dry run, at names that only this run uses.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::{ANSWER, user};
use crate::context::Context;
use crate::denial::classify;
use crate::error::{HarnessError, chain, within};
use crate::manifest::{self, Mark};
use crate::probing::combine;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::Request;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use provisioner::TenantId;
use serde_json::{Value, json};
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
    timeout: Duration::from_secs(90),
};

/// How long the minted token lives: the shortest that the API server grants.
const TOKEN_SECONDS: i64 = 600;
/// How long a binding may take until the authorizer knows it.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);
/// Between the two rounds of requests.
const AGAIN: Duration = Duration::from_secs(1);
/// Requests under way at once: on clusters that are not local they wait for their turn, which counts against their time.
const CONCURRENCY: usize = 8;
/// The verbs of a tenant's Role.
const VERBS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];
/// The resources of a tenant's Role, with the path of their API.
const RESOURCES: [(&str, &str); 5] = [
    ("pods", "/api/v1"),
    ("services", "/api/v1"),
    ("configmaps", "/api/v1"),
    ("secrets", "/api/v1"),
    ("deployments", "/apis/apps/v1"),
];

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
    let client = act_as(cx, from).await?;
    // The neighbour's own rights are in force: so would a right be that was given in its namespace to somebody else.
    let neighbour = own_control(cx, &act_as(cx, to).await?, to).await;
    let before = own_control(cx, &client, from).await;
    let first = ask_all(cx, &client, from, to).await;
    // API servers learn of bindings one after the other, and late.
    tokio::time::sleep(AGAIN).await;
    let second = ask_all(cx, &client, from, to).await;
    let after = own_control(cx, &client, from).await;
    let both = first.into_iter().zip(second).map(|(first, second)| Observed {
        observation: combine(first.observation, second.observation),
        what: first.what,
    });
    Ok(judge_denied(
        &prove(&[before, neighbour, after]),
        &both.collect::<Vec<_>>(),
    ))
}

/// A client of the tenant's account, which the API server takes for that account.
async fn act_as(cx: &Context, tenant: &TenantId) -> Result<kube::Client, HarnessError> {
    let token = mint(&cx.site.cluster.client, tenant).await?;
    let client = cx.site.cluster.client_with_token(token)?;
    identity(&client, tenant).await?;
    Ok(client)
}

/// A tenant's account lists pods in its own namespace, soon after the binding was made.
async fn own_control(cx: &Context, client: &kube::Client, tenant: &TenantId) -> Control {
    let namespace = tenant.namespace();
    let what = format!("system:serviceaccount:{namespace}:sa-{tenant} lists pods in {namespace}");
    let deadline = tokio::time::Instant::now() + IN_FORCE_WITHIN;
    loop {
        let access = Access {
            namespace: &namespace,
            verb: "list",
            resource: RESOURCES[0],
        };
        let observation = ask(client, &access, cx).await;
        if matches!(observation, Observation::Reached(_)) || tokio::time::Instant::now() > deadline {
            return Control::reached(&Observed { what, observation });
        }
        tokio::time::sleep(AGAIN / 4).await;
    }
}

/// Every verb on every resource, once.
async fn ask_all(cx: &Context, client: &kube::Client, from: &TenantId, to: &TenantId) -> Vec<Observed> {
    let namespace = to.namespace();
    let mut asked: Vec<BoxFuture<'_, Observed>> = Vec::new();
    for resource in RESOURCES {
        for verb in VERBS {
            let namespace = namespace.as_str();
            let what = format!("sa-{from} may {verb} {} in {namespace}", resource.0);
            let access = Access {
                namespace,
                verb,
                resource,
            };
            asked.push(
                async move {
                    Observed {
                        observation: ask(client, &access, cx).await,
                        what,
                    }
                }
                .boxed(),
            );
        }
    }
    futures::stream::iter(asked).buffered(CONCURRENCY).collect().await
}

/// A token for the tenant's account.
async fn mint(client: &kube::Client, tenant: &TenantId) -> Result<String, HarnessError> {
    let (account, namespace) = (format!("sa-{tenant}"), tenant.namespace());
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &namespace);
    let spec = TokenRequestSpec {
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest {
        spec,
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let minted = accounts.create_token_request(&account, &params, &request);
    let minted = within(
        ANSWER,
        format!("mint a token for serviceaccount {account} in namespace {namespace}"),
        minted,
    )
    .await?;
    minted
        .status
        .map(|status| status.token)
        .ok_or_else(|| HarnessError::new(format!("no token came for {account}")))
}

/// The token is the tenant's account's: anybody else's would make every answer worthless.
async fn identity(client: &kube::Client, tenant: &TenantId) -> Result<(), HarnessError> {
    let expected = format!("system:serviceaccount:{}:sa-{tenant}", tenant.namespace());
    let found = user(client).await?;
    if found == expected {
        return Ok(());
    }
    Err(HarnessError::new(format!(
        "the minted token is {found}'s, expected {expected}'s"
    )))
}

struct Access<'a> {
    namespace: &'a str,
    verb: &'static str,
    resource: (&'static str, &'static str),
}

async fn ask(client: &kube::Client, access: &Access<'_>, cx: &Context) -> Observation {
    let request = match request(access, &cx.site.mark, &cx.site.settings.agent_image) {
        Ok(request) => request,
        Err(error) => return Observation::Broken(chain(&error)),
    };
    // A watch that is allowed goes on until the server ends it after a second.
    match tokio::time::timeout(ANSWER, client.request_text(request)).await {
        Ok(Ok(_)) => Observation::Reached("allowed".to_owned()),
        Ok(Err(kube::Error::Api(status))) => classify(&status).as_authorization(&status.message),
        Ok(Err(error)) => Observation::Broken(chain(&error)),
        Err(_) => Observation::Broken(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// The request: reads are real, of metadata only, and of the run's own name or one object; changes are dry runs, at the run's own name.
fn request(access: &Access<'_>, mark: &Mark, image: &str) -> Result<Request<Vec<u8>>, http::Error> {
    let (plural, prefix) = access.resource;
    let all = format!("{prefix}/namespaces/{}/{plural}", access.namespace);
    let one = format!("{all}/{}", mark.run.owner());
    let body = || {
        body(plural, access.namespace, mark, image)
            .to_string()
            .into_bytes()
    };
    // Metadata only, and never anything else: where a Secret may be read, its content must not come here.
    let metadata = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v=v1");
    let (object, list) = (
        metadata("PartialObjectMetadata"),
        metadata("PartialObjectMetadataList"),
    );
    let request = Request::builder().header("Content-Type", "application/json");
    match access.verb {
        "get" => request
            .method("GET")
            .uri(one)
            .header("Accept", object)
            .body(Vec::new()),
        "list" => request
            .method("GET")
            .uri(format!("{all}?limit=1"))
            .header("Accept", list)
            .body(Vec::new()),
        "watch" => request
            .method("GET")
            .uri(format!(
                "{all}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3D{}",
                mark.run.owner()
            ))
            .header("Accept", object)
            .body(Vec::new()),
        "create" => request
            .method("POST")
            .uri(format!("{all}?dryRun=All"))
            .body(body()),
        "update" => request
            .method("PUT")
            .uri(format!("{one}?dryRun=All"))
            .body(body()),
        "patch" => Request::builder()
            .header("Content-Type", "application/merge-patch+json")
            .method("PATCH")
            .uri(format!("{one}?dryRun=All"))
            .body(b"{}".to_vec()),
        _ => request
            .method("DELETE")
            .uri(format!("{one}?dryRun=All"))
            .body(Vec::new()),
    }
}

/// An object that complies with everything, so that only authorization can refuse it.
fn body(plural: &str, namespace: &str, mark: &Mark, image: &str) -> Value {
    let name = mark.run.owner();
    let resources = manifest::resources("1m", "1m", "1Mi", "1Mi");
    let metadata = mark.metadata(&name, Some(namespace));
    match plural {
        "pods" => manifest::inert_pod(mark, &name, namespace, image, &resources),
        "deployments" => manifest::inert_deployment(mark, &name, namespace, image, &resources),
        "services" => {
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": { "ports": [{ "port": 80 }] } })
        }
        "secrets" => json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata }),
        _ => json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RunId;
    use crate::scripted::{answer, ok, pair, refuse, word_and_text};
    use axum::extract::Request as Incoming;
    use axum::response::Response;
    use rstest::rstest;
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
                < VERBS.len() * RESOURCES.len() =>
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

    #[test]
    fn nothing_that_changes_anything_is_more_than_a_dry_run() {
        let mark = Mark {
            run: RunId::parse("0a1b2c3d").unwrap(),
            expires: jiff::Timestamp::UNIX_EPOCH,
        };
        for resource in RESOURCES {
            for verb in VERBS {
                let access = Access {
                    namespace: "ai-agents-b",
                    verb,
                    resource,
                };
                let request = request(&access, &mark, "i").unwrap();
                let reads = request.method() == "GET";
                let query = request.uri().query().unwrap_or_default();
                assert!(reads || query == "dryRun=All", "{verb} {}", resource.0);
                assert_eq!(reads, ["get", "list", "watch"].contains(&verb), "{verb}");
                let names_one = request.uri().path().ends_with("/conformance-0a1b2c3d");
                assert_eq!(
                    names_one,
                    ["get", "update", "patch", "delete"].contains(&verb),
                    "{verb}"
                );
            }
        }
    }
}

//! RBAC-01: one tenant's account has no rights in another's namespace. Real requests with a real token, since an access review may say
//! something else than the authorizer does; whatever could change something is a dry run, at names that only this run uses.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::{ANSWER, user};
use crate::context::Context;
use crate::denial::classify;
use crate::error::{HarnessError, chain, within};
use crate::manifest::{self, Mark};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
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
        match subject {
            Subject::Pair(from, to) => vec![Resource::Tenant(from.clone()), Resource::Tenant(to.clone())],
            Subject::Cluster | Subject::Tenant(_) => Vec::new(),
        }
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            match subject {
                Subject::Pair(from, to) => judge(cx, from, to).await,
                Subject::Cluster | Subject::Tenant(_) => {
                    Ok(Verdict::inconclusive("this check is about a pair of tenants"))
                }
            }
        }
        .boxed()
    }
}

async fn judge(cx: &Context, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(from).await?;
    cx.stage.tenant(to).await?;
    let token = mint(&cx.site.cluster.client, from).await?;
    let client = cx.site.cluster.client_with_token(token)?;
    let account = identity(&client, from).await?;

    let own = ask(
        &client,
        &Access {
            namespace: &from.namespace(),
            verb: "list",
            resource: RESOURCES[0],
        },
        cx,
    )
    .await;
    let claim = format!("{account} lists pods in {}", from.namespace());
    let control = Control::reached(&Observed {
        what: claim,
        observation: own,
    });

    let namespace = to.namespace();
    let accesses = RESOURCES
        .iter()
        .flat_map(|resource| VERBS.iter().map(|verb| (*verb, *resource)));
    let asked = accesses.map(|(verb, resource)| {
        let (client, namespace) = (client.clone(), namespace.as_str());
        async move {
            let observation = ask(
                &client,
                &Access {
                    namespace,
                    verb,
                    resource,
                },
                cx,
            )
            .await;
            Observed {
                what: format!("sa-{from} may {verb} {} in {namespace}", resource.0),
                observation,
            }
        }
    });
    let observed = join_all(asked).await;
    Ok(judge_denied(&prove(&[control]), &observed))
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

/// Who the token is taken for; anybody but the tenant's account would make every answer worthless.
async fn identity(client: &kube::Client, tenant: &TenantId) -> Result<String, HarnessError> {
    let expected = format!("system:serviceaccount:{}:sa-{tenant}", tenant.namespace());
    let found = user(client).await?;
    if found == expected {
        return Ok(found);
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

/// The request: reads are real and short (`limit=1`, metadata only), changes are dry runs, and the name is the run's own.
fn request(access: &Access<'_>, mark: &Mark, image: &str) -> Result<Request<Vec<u8>>, http::Error> {
    let (plural, prefix) = access.resource;
    let all = format!("{prefix}/namespaces/{}/{plural}", access.namespace);
    let one = format!("{all}/{}", mark.run.owner());
    let body = || {
        body(plural, access.namespace, mark, image)
            .to_string()
            .into_bytes()
    };
    let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
    let request = Request::builder().header("Content-Type", "application/json");
    match access.verb {
        "get" => request.method("GET").uri(one).body(Vec::new()),
        "list" => request
            .method("GET")
            .uri(format!("{all}?limit=1"))
            .header("Accept", metadata)
            .body(Vec::new()),
        "watch" => request
            .method("GET")
            .uri(format!("{all}?watch=1&timeoutSeconds=1"))
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

    fn rbac_403() -> Response {
        let message = format!("x is forbidden: User \"{ACCOUNT}\" cannot do this");
        refuse(403, "Forbidden", &message)
    }

    /// Everything before the requests in question: the token, and whose it is.
    fn preamble(request: &Incoming, account: &str) -> Option<Response> {
        let path = request.uri().path();
        if path.ends_with("/token") {
            return Some(ok(
                &json!({ "metadata": {}, "spec": { "audiences": [] }, "status": { "token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z" } }),
            ));
        }
        path.ends_with("/selfsubjectreviews")
            .then(|| ok(&json!({ "metadata": {}, "status": { "userInfo": { "username": account } } })))
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
    #[tokio::test]
    async fn only_rbacs_own_refusal_passes(
        #[case] at_b: fn() -> Response,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let script = move |request: &Incoming| match preamble(request, ACCOUNT) {
            Some(response) => response,
            None if request.uri().path().contains("/ai-agents-b/") => at_b(),
            None => ok(&json!({ "items": [] })),
        };
        let (seen, all) = word_and_text(&verdict(script).await.unwrap());
        assert_eq!(seen, word, "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[tokio::test]
    async fn one_right_too_many_is_a_failure_that_names_it() {
        let script = |request: &Incoming| match preamble(request, ACCOUNT) {
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

    #[tokio::test]
    async fn a_token_without_rights_of_its_own_proves_nothing() {
        let script = |request: &Incoming| preamble(request, ACCOUNT).unwrap_or_else(rbac_403);
        let (word, text) = word_and_text(&verdict(script).await.unwrap());
        assert_eq!(word, "inconclusive");
        assert!(text.contains("control did not hold"), "{text}");
    }

    #[tokio::test]
    async fn somebody_elses_token_proves_nothing() {
        let script = |request: &Incoming| preamble(request, "system:admin").unwrap_or_else(rbac_403);
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

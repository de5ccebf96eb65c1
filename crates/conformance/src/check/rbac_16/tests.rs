//! RBAC-16 against a scripted API server that compares identities as the platform's policies do, or does not.

use super::*;
use crate::scripted::{ACCOUNT, Asked, judged, ok, quota_403, rbac_403, refuse, silence, token};
use axum::response::Response;
use rstest::rstest;

fn by(policy: &str) -> Response {
    let message = format!(
        "x is forbidden: ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: it names another tenant"
    );
    refuse(403, "Forbidden", &message)
}

/// The policy that has a say, and whether the object names another tenant than `a`.
fn weighed(asked: &Asked) -> (&'static str, bool) {
    let text = asked.body.to_string();
    let (secret, workload) = (asked.path.contains("/secrets"), text.contains("\"containers\""));
    let policy = if workload {
        "ai-agents-identity-workloads"
    } else {
        "ai-agents-identity-settings"
    };
    // "b", "tenant-b", and TENANT_ID in any Secret.
    let offends =
        text.contains("\"b\"") || text.contains("\"tenant-b\"") || (secret && text.contains("TENANT_ID"));
    (policy, offends)
}

fn server(asked: &Asked, account: &str, offending: impl Fn(&'static str) -> Response) -> Response {
    if let Some(response) = token(asked, account) {
        return response;
    }
    assert_eq!(asked.header("authorization"), Some("Bearer a"));
    match (asked.method.as_str(), asked.last()) {
        ("GET", "ai-agents-worker") => ok(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "ai-agents-worker" },
            "spec": { "selector": {}, "template": { "spec": { "containers": [
                { "name": "worker", "image": "x", "env": [{ "name": "KEPT", "value": "1" }, { "name": "TENANT_ID", "value": "a" }] },
            ] } } },
        })),
        ("GET", _) => ok(&json!({ "items": [] })),
        _ => {
            assert!(asked.is_dry(), "{} {}", asked.method, asked.path);
            match weighed(asked) {
                (policy, true) => offending(policy),
                (_, false) => ok(&asked.body),
            }
        }
    }
}

#[rstest]
#[case::compared(by as fn(&'static str) -> Response, "passed", "9 of 9 denied (admission policy ai-agents-identity-settings / admission policy ai-agents-identity-workloads)")]
#[case::not_compared(|_| ok(&json!({})), "failed", "sa-a writes b as TENANT_ID in the ConfigMap of its workloads is denied")]
#[case::only_the_quota(|_| quota_403("pods"), "failed", "let through")]
#[case::another_policy(|_| by("somebody-elses"), "inconclusive", "something else refused it")]
#[case::the_other_policy(|policy: &'static str| by(if policy.ends_with("settings") { "ai-agents-identity-workloads" } else { "ai-agents-identity-settings" }), "inconclusive", "something else refused it")]
#[case::a_policy_that_could_not_be_evaluated(|policy: &'static str| refuse(422, "Invalid", &format!("x is forbidden: ValidatingAdmissionPolicy '{policy}' with binding 'b' denied request: no such key")), "inconclusive", "something else refused it")]
#[case::a_webhook(|_| refuse(403, "Forbidden", "admission webhook \"w\" denied the request: no"), "inconclusive", "something else refused it")]
#[case::rbac(|_| rbac_403(), "inconclusive", "something else refused it")]
#[case::conflict(|_| refuse(409, "Conflict", "changed"), "inconclusive", "409")]
#[case::not_authenticated(|_| refuse(401, "Unauthorized", "who"), "inconclusive", "Unauthenticated")]
#[case::server_error(|_| refuse(500, "InternalError", "etcd"), "inconclusive", "500")]
#[case::no_answer(|_| silence(), "inconclusive", "no answer within 15 s")]
#[tokio::test(start_paused = true)]
async fn only_the_platforms_own_policies_pass(
    #[case] answer: fn(&'static str) -> Response,
    #[case] expected: &str,
    #[case] says: &str,
) {
    let (word, text) = judged(&Rbac16, move |asked| server(asked, ACCOUNT, answer)).await;
    assert_eq!(word, expected, "{text}");
    assert!(text.contains(says), "{text}");
}

#[rstest]
#[case::secrets("/secrets", "POST", "sa-a writes b as TENANT_ID in a Secret is denied")]
#[case::changes_of_settings(
    "/configmaps/ai-agents-config",
    "PATCH",
    "sa-a writes b as TENANT_ID in the ConfigMap of its workloads is denied"
)]
#[case::changes_of_workloads(
    "/deployments/ai-agents-worker",
    "PATCH",
    "sa-a writes b as TENANT_ID in its worker's environment is denied"
)]
#[case::new_workloads(
    "/deployments",
    "POST",
    "sa-a writes b as TENANT_ID in a Deployment's environment is denied"
)]
#[tokio::test(start_paused = true)]
async fn one_place_that_is_overlooked_fails(
    #[case] path: &'static str,
    #[case] method: &'static str,
    #[case] finding: &str,
) {
    let script = move |asked: &Asked| {
        if asked.method == method && asked.path.ends_with(path) {
            return ok(&asked.body);
        }
        server(asked, ACCOUNT, by)
    };
    let (word, text) = judged(&Rbac16, script).await;
    assert_eq!(word, "failed", "{text}");
    assert!(text.contains(finding), "{text}");
    assert_eq!(text.matches("expected:").count(), 1, "{text}");
}

/// A policy that refuses whatever it sees shows nothing.
#[tokio::test(start_paused = true)]
async fn a_policy_that_refuses_its_own_too_proves_nothing() {
    let script = |asked: &Asked| {
        if asked.is_dry() && asked.method == "POST" {
            return by(weighed(asked).0);
        }
        server(asked, ACCOUNT, by)
    };
    let (word, text) = judged(&Rbac16, script).await;
    assert_eq!(word, "inconclusive");
    assert!(
        text.contains("control did not hold: sa-a writes its own TENANT_ID in a new ConfigMap"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_token_proves_nothing() {
    let (word, text) = judged(&Rbac16, |asked| server(asked, "system:admin", by)).await;
    assert_eq!(word, "inconclusive");
    assert!(text.contains("the minted token is system:admin's"), "{text}");
}

#[test]
fn a_variable_takes_the_place_of_one_of_its_name() {
    let mut container = json!({ "env": [{ "name": "A", "value": "1" }, { "name": "T", "value": "2" }] });
    add_variable(&mut container, "T", "3");
    assert_eq!(
        container["env"],
        json!([{ "name": "A", "value": "1" }, { "name": "T", "value": "3" }])
    );
    let mut bare = json!({});
    add_variable(&mut bare, "T", "3");
    assert_eq!(bare["env"], json!([{ "name": "T", "value": "3" }]));
}

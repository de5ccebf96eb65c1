//! QUO-08 against a scripted API server that refuses by RBAC, or does not.

use super::*;
use crate::scripted::{ACCOUNT, Asked, judged, ok, pod_security_403, rbac_403, refuse, silence, token};
use axum::response::Response;
use rstest::rstest;

/// Everything but the requests in question: the token, what is there, and what the account may do.
fn preamble(asked: &Asked, account: &str) -> Option<Response> {
    if let Some(response) = token(asked, account) {
        return Some(response);
    }
    let own = asked.header("authorization") == Some("Bearer a");
    match (asked.method.as_str(), asked.last()) {
        ("GET", "resourcequotas") if !own => Some(ok(
            &json!({ "metadata": {}, "items": [{ "metadata": { "name": "quota" } }] }),
        )),
        ("GET", "limitranges") if !own => Some(ok(
            &json!({ "metadata": {}, "items": [{ "metadata": { "name": "limits" } }] }),
        )),
        ("GET", "pods") if own => Some(ok(&json!({ "items": [] }))),
        ("POST", "pods") if own && asked.is_dry() => Some(ok(&asked.body)),
        _ => None,
    }
}

#[rstest]
#[case::refused_by_rbac(rbac_403 as fn() -> Response, "passed", "20 of 20 denied (RBAC 403)")]
#[case::allowed(|| ok(&json!({})), "failed", "sa-a may deletecollection resourcequotas in ai-agents-a is denied")]
#[case::looked_up(|| refuse(404, "NotFound", "x not found"), "failed", "looked for the object")]
#[case::precondition(|| refuse(409, "Conflict", "uid"), "failed", "refused for its content (409)")]
#[case::wrong_reason(pod_security_403, "failed", "Pod Security")]
#[case::not_authenticated(|| refuse(401, "Unauthorized", "who"), "inconclusive", "401")]
#[case::server_error(|| refuse(500, "InternalError", "etcd"), "inconclusive", "500")]
#[case::no_answer(silence, "inconclusive", "no answer within 15 s")]
#[tokio::test(start_paused = true)]
async fn only_rbacs_own_refusal_passes(
    #[case] answer: fn() -> Response,
    #[case] word: &str,
    #[case] text: &str,
) {
    let script = move |asked: &Asked| preamble(asked, ACCOUNT).unwrap_or_else(answer);
    let (seen, all) = judged(&Quo08, script).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.contains(text), "{all}");
}

/// A rule that names the quota is no right to another.
#[tokio::test(start_paused = true)]
async fn a_right_to_the_one_quota_that_is_there_is_found() {
    let script = |asked: &Asked| {
        preamble(asked, ACCOUNT).unwrap_or_else(|| {
            if asked.method == "PATCH" && asked.last() == "quota" {
                ok(&json!({}))
            } else {
                rbac_403()
            }
        })
    };
    let (word, text) = judged(&Quo08, script).await;
    assert_eq!(word, "failed");
    assert!(
        text.contains("sa-a may patch resourcequotas quota in ai-agents-a is denied"),
        "{text}"
    );
    assert_eq!(text.matches("expected:").count(), 1, "{text}");
}

#[rstest]
#[case::lists_nothing(
    "GET",
    "control did not hold: system:serviceaccount:ai-agents-a:sa-a lists pods"
)]
#[case::creates_nothing(
    "POST",
    "control did not hold: system:serviceaccount:ai-agents-a:sa-a creates a pod"
)]
#[tokio::test(start_paused = true)]
async fn an_account_that_may_nothing_proves_nothing(#[case] method: &'static str, #[case] text: &str) {
    let script = move |asked: &Asked| {
        if asked.last() == "pods" && asked.method == method {
            return rbac_403();
        }
        preamble(asked, ACCOUNT).unwrap_or_else(rbac_403)
    };
    let (word, all) = judged(&Quo08, script).await;
    assert_eq!(word, "inconclusive");
    assert!(all.contains(text), "{all}");
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_token_proves_nothing() {
    let (word, text) = judged(&Quo08, |asked| {
        preamble(asked, "system:admin").unwrap_or_else(rbac_403)
    })
    .await;
    assert_eq!(word, "inconclusive");
    assert!(text.contains("the minted token is system:admin's"), "{text}");
}

#[test]
fn what_is_taken_for_more_than_a_dry_run_would_change_nothing() {
    let tenant = TenantId::try_from("a").unwrap();
    let names = ["q".to_owned()];
    for resource in [QUOTAS, QUOTA_STATUS, LIMIT_RANGES] {
        for (what, access) in accesses(&tenant, "n", resource, &names) {
            let guarded = access
                .body
                .pointer("/preconditions/uid")
                .or(access.body.pointer("/metadata/uid"));
            assert!(!access.really, "{what}");
            assert!(
                access.verb == "create" || guarded == Some(&json!(NOBODYS_UID)),
                "{what}"
            );
        }
    }
}

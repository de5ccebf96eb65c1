//! NET-10 against a scripted API server that reserves labels, or does not.

use super::*;
use crate::scripted::{Asked, ok, rbac_403, refuse, respond, silence, word_and_text};
use axum::response::Response;
use rstest::rstest;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const HOME: &str = "conformance-0a1b2c3d-outsider";
const HOLDER: &str = "system:serviceaccount:conformance-0a1b2c3d-outsider:default";

fn policy(name: &str) -> Response {
    let message = format!(
        "namespaces \"x\" is forbidden: ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: the labels are the platform's"
    );
    refuse(403, "Forbidden", &message)
}

fn reserved_by_the_platform() -> Response {
    policy("ai-agents-namespaces")
}

/// Everything but the requests in question: the rights, the token, and whose it is.
fn preamble(asked: &Asked, account: &str) -> Option<Response> {
    let rbac = asked
        .path
        .starts_with("/apis/rbac.authorization.k8s.io/v1/clusterrole");
    match asked.last() {
        "token"
            if asked
                .path
                .ends_with("/namespaces/conformance-0a1b2c3d-outsider/serviceaccounts/default/token") =>
        {
            Some(ok(&json!({
                "metadata": {}, "spec": { "audiences": [] },
                "status": { "token": "maker", "expirationTimestamp": "2026-01-01T00:00:00Z" },
            })))
        }
        "selfsubjectreviews" => Some(ok(
            &json!({ "metadata": {}, "status": { "userInfo": { "username": account } } }),
        )),
        _ if rbac && asked.method == "POST" => {
            let text = asked.body.to_string();
            assert!(
                !text.contains('*') && !text.contains("escalate") && !text.contains("bind\""),
                "{text}"
            );
            Some(ok(&asked.body))
        }
        _ if rbac && asked.method == "DELETE" => Some(ok(
            &json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }),
        )),
        _ if rbac => Some(refuse(404, "NotFound", "not found")),
        _ => None,
    }
}

/// Whether the request asks for labels of the platform's.
fn offends(asked: &Asked) -> bool {
    assert!(asked.is_dry(), "{} {}", asked.method, asked.path);
    assert_eq!(asked.header("authorization"), Some("Bearer maker"));
    asked.body["metadata"]["labels"]["managed-by"] == "ai-agents-platform"
}

async fn verdict(
    script: impl Fn(&Asked) -> Response + Clone + Send + Sync + 'static,
) -> (&'static str, String) {
    let server = respond(script).await;
    let cx = server.context(&std::collections::BTreeSet::new());
    let verdict = match judge(&cx, HOME).await {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Inconclusive(error.into()),
    };
    assert!(
        cx.site.ledger.newest_first().is_empty(),
        "left behind: {:?}",
        cx.site.ledger.newest_first()
    );
    word_and_text(&verdict)
}

#[rstest]
#[case::reserved(reserved_by_the_platform as fn() -> Response, "passed", "3 of 3 denied (admission policy ai-agents-namespaces)")]
#[case::admitted(|| ok(&json!({})), "failed", "the account makes a namespace with all labels of a's is denied")]
#[case::another_policy(|| policy("somebody-elses"), "inconclusive", "something else refused it")]
#[case::a_policy_that_could_not_be_evaluated(|| refuse(422, "Invalid", "x is forbidden: ValidatingAdmissionPolicy 'ai-agents-namespaces' with binding 'b' denied request: expression 'x' resulted in error: no such key"), "inconclusive", "something else refused it")]
#[case::a_webhook(|| refuse(403, "Forbidden", "admission webhook \"w\" denied the request: no"), "inconclusive", "something else refused it")]
#[case::rbac(rbac_403, "inconclusive", "something else refused it")]
#[case::not_authenticated(|| refuse(401, "Unauthorized", "who"), "inconclusive", "Unauthenticated")]
#[case::server_error(|| refuse(500, "InternalError", "etcd"), "inconclusive", "500")]
#[case::no_answer(silence, "inconclusive", "no answer within 15 s")]
#[tokio::test(start_paused = true)]
async fn only_the_platforms_own_policy_passes(
    #[case] answer: fn() -> Response,
    #[case] expected: &str,
    #[case] says: &str,
) {
    let script = move |asked: &Asked| {
        preamble(asked, HOLDER).unwrap_or_else(|| if offends(asked) { answer() } else { ok(&asked.body) })
    };
    let (word, text) = verdict(script).await;
    assert_eq!(word, expected, "{text}");
    assert!(text.contains(says), "{text}");
}

/// A policy that was turned off, or on, a moment ago, and that one API server still goes by.
#[rstest]
#[case::turned_off(3, reserved_by_the_platform, || ok(&json!({})), "failed")]
#[case::turned_on(3, || ok(&json!({})), reserved_by_the_platform, "passed")]
#[tokio::test(start_paused = true)]
async fn what_changes_between_two_askings_is_asked_again(
    #[case] first: usize,
    #[case] before: fn() -> Response,
    #[case] after: fn() -> Response,
    #[case] expected: &str,
) {
    let count = Arc::new(AtomicUsize::new(0));
    let script = move |asked: &Asked| {
        preamble(asked, HOLDER).unwrap_or_else(|| match offends(asked) {
            true if count.fetch_add(1, Ordering::Relaxed) < first => before(),
            true => after(),
            false => ok(&asked.body),
        })
    };
    let (word, text) = verdict(script).await;
    assert_eq!(word, expected, "{text}");
}

#[tokio::test(start_paused = true)]
async fn servers_that_never_agree_leave_it_open() {
    let count = Arc::new(AtomicUsize::new(0));
    let script = move |asked: &Asked| {
        preamble(asked, HOLDER).unwrap_or_else(|| match offends(asked) {
            true if (count.fetch_add(1, Ordering::Relaxed) / 3).is_multiple_of(2) => {
                reserved_by_the_platform()
            }
            true => ok(&json!({})),
            false => ok(&asked.body),
        })
    };
    assert_eq!(verdict(script).await.0, "failed");
}

/// Labels that come later count as those that come at once.
#[tokio::test(start_paused = true)]
async fn a_policy_that_looks_at_new_namespaces_only_fails() {
    let script = |asked: &Asked| {
        preamble(asked, HOLDER).unwrap_or_else(|| {
            if offends(asked) && asked.method == "POST" {
                reserved_by_the_platform()
            } else {
                ok(&asked.body)
            }
        })
    };
    let (word, text) = verdict(script).await;
    assert_eq!(word, "failed");
    assert!(
        text.contains("the account puts these labels on its namespace is denied"),
        "{text}"
    );
    assert_eq!(text.matches("expected:").count(), 1, "{text}");
}

#[rstest]
#[case::makes_none("POST", "the account makes a namespace without a tenant's labels")]
#[case::patches_none("PATCH", "the account sets another label on its namespace")]
#[tokio::test(start_paused = true)]
async fn an_account_without_rights_proves_nothing(#[case] method: &'static str, #[case] claim: &str) {
    let script = move |asked: &Asked| {
        preamble(asked, HOLDER).unwrap_or_else(|| match offends(asked) {
            true => reserved_by_the_platform(),
            false if asked.method == method => rbac_403(),
            false => ok(&asked.body),
        })
    };
    let (word, text) = verdict(script).await;
    assert_eq!(word, "inconclusive");
    assert!(
        text.contains("control did not hold") && text.contains(claim),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_token_proves_nothing() {
    let (word, text) = verdict(|asked| preamble(asked, "system:admin").unwrap_or_else(rbac_403)).await;
    assert_eq!(word, "inconclusive");
    assert!(text.contains("the minted token is system:admin's"), "{text}");
}

/// The rights may not be ours to give.
#[tokio::test(start_paused = true)]
async fn who_may_not_give_the_rights_learns_so() {
    let script = |asked: &Asked| match asked.method.as_str() {
        "GET" => refuse(404, "NotFound", "not found"),
        _ => rbac_403(),
    };
    let (word, text) = verdict(script).await;
    assert_eq!(word, "inconclusive");
    assert!(
        text.contains("create clusterrole conformance-0a1b2c3d-makes-namespaces"),
        "{text}"
    );
}

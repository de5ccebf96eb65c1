//! RBAC-13 against a scripted API server that knows who asks.

use super::*;
use crate::scripted::{Asked, judged as verdict, ok, pod_security_403, refuse, silence};
use axum::response::Response;
use rstest::rstest;
use serde_json::{Value, json};

const ANONYMOUS: &str = "system:anonymous";
const MADE_UP: &str = "a token that nobody issued";

/// Who asks. The harness itself has no credentials in these tests, and neither has the anonymous: what only the former asks for is told
/// apart by its path.
fn asks(asked: &Asked) -> &'static str {
    match asked.header("authorization") {
        Some("Bearer a") => "system:serviceaccount:ai-agents-a:sa-a",
        Some("Bearer default-a") => "system:serviceaccount:ai-agents-a:default",
        Some("Bearer default-b") => "system:serviceaccount:ai-agents-b:default",
        Some(_) => MADE_UP,
        None => ANONYMOUS,
    }
}

fn rbac_403(who: &str) -> Response {
    refuse(
        403,
        "Forbidden",
        &format!("x is forbidden: User \"{who}\" cannot do this"),
    )
}

#[derive(Clone)]
struct Fake {
    /// Who is let through, to what: the last part of the path.
    allows: fn(&str, &Asked) -> bool,
    /// What answers the anonymous, where it is not RBAC.
    anonymous: Option<fn() -> Response>,
    /// What answers accounts, where it is not RBAC.
    refusal: Option<fn() -> Response>,
    /// What answers a token that nobody issued.
    made_up: fn() -> Response,
    rules: fn(&str) -> Value,
    discovery: fn() -> Response,
}

fn unauthorized() -> Response {
    refuse(401, "Unauthorized", "Unauthorized")
}

fn fake() -> Fake {
    Fake {
        allows: |_, _| false,
        anonymous: None,
        refusal: None,
        made_up: unauthorized,
        rules: |_| json!([{ "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectrulesreviews"], "verbs": ["create"] }]),
        discovery: || ok(&json!({ "versions": ["v1"] })),
    }
}

fn minted(asked: &Asked) -> Option<Response> {
    let account = asked.path.strip_suffix("/token")?.rsplit('/').next()?;
    let token = match (account, asked.path.contains("ai-agents-a/")) {
        ("sa-a", _) => "a",
        ("default", true) => "default-a",
        ("default", false) => "default-b",
        _ => return None,
    };
    Some(ok(&json!({
        "metadata": {}, "spec": { "audiences": [] },
        "status": { "token": token, "expirationTimestamp": "2026-01-01T00:00:00Z" },
    })))
}

impl Fake {
    fn answer(&self, asked: &Asked) -> Response {
        let who = asks(asked);
        if who == ANONYMOUS
            && let Some(response) = minted(asked)
        {
            return response;
        }
        match asked.last() {
            _ if who == MADE_UP => (self.made_up)(),
            "version" => self
                .anonymous
                .map_or_else(|| ok(&json!({ "gitVersion": "v1.34.4" })), |answer| answer()),
            "api" => (self.discovery)(),
            "selfsubjectreviews" => {
                ok(&json!({ "metadata": {}, "status": { "userInfo": { "username": who } } }))
            }
            "selfsubjectrulesreviews" => {
                let status = json!({ "incomplete": false, "nonResourceRules": [], "resourceRules": (self.rules)(who) });
                ok(&json!({ "metadata": {}, "spec": {}, "status": status }))
            }
            "pods" if who.ends_with("sa-a") => ok(&json!({ "items": [] })),
            _ if (self.allows)(who, asked) => ok(&json!({ "items": [] })),
            _ => match (who, self.anonymous, self.refusal) {
                (ANONYMOUS, Some(answer), _) => answer(),
                (ANONYMOUS, None, _) | (_, _, None) => rbac_403(who),
                (_, _, Some(answer)) => answer(),
            },
        }
    }
}

fn neighbours_default(who: &str, asked: &Asked) -> bool {
    who.ends_with("ai-agents-b:default") && asked.last() == "secrets" && asked.path.contains("namespaces")
}
fn neighbours_rules(who: &str) -> Value {
    let rule = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
    if who.ends_with("ai-agents-b:default") {
        rule
    } else {
        json!([])
    }
}

#[rstest]
#[case::kept(fake(), "passed", "36 of 36 denied (RBAC 403 / 401)")]
#[case::no_anonymous_at_all(Fake { anonymous: Some(unauthorized), ..fake() }, "passed", "/version is refused with 401")]
#[case::anonymous_reads(Fake { allows: |who, asked| who == ANONYMOUS && asked.last() == "pods", ..fake() }, "failed", "system:anonymous may list pods in ai-agents-a is denied")]
#[case::anonymous_lists_all(Fake { allows: |who, asked| who == ANONYMOUS && asked.last() == "namespaces", ..fake() }, "failed", "system:anonymous may list namespaces in the whole cluster is denied")]
#[case::any_token_will_do(Fake { made_up: || ok(&json!({ "items": [] })), ..fake() }, "failed", "a token that nobody issued may list pods in ai-agents-a is denied")]
#[case::a_group_of_accounts(Fake { allows: neighbours_default, ..fake() }, "failed", "system:serviceaccount:ai-agents-b:default may list secrets in ai-agents-a is denied")]
#[case::a_right_that_nobody_asks_for(Fake { rules: neighbours_rules, ..fake() }, "failed", "more: get secrets")]
#[case::refused_by_something_else(Fake { refusal: Some(pod_security_403), ..fake() }, "failed", "Pod Security")]
#[case::an_account_that_is_not_known(Fake { refusal: Some(unauthorized), ..fake() }, "inconclusive", "401, the identity was not accepted")]
#[case::server_error(Fake { refusal: Some(|| refuse(500, "InternalError", "etcd")), ..fake() }, "inconclusive", "500")]
#[case::no_answer(Fake { refusal: Some(silence), ..fake() }, "inconclusive", "no answer within 15 s")]
#[case::the_anonymous_are_not_heard(Fake { anonymous: Some(|| refuse(500, "InternalError", "etcd")), ..fake() }, "inconclusive", "the API server answers the anonymous")]
#[case::no_discovery(Fake { discovery: || refuse(403, "Forbidden", "forbidden: User \"x\" cannot get path \"/api\""), ..fake() }, "inconclusive", "control did not hold: system:serviceaccount:ai-agents-a:default is answered discovery")]
#[tokio::test(start_paused = true)]
async fn who_has_no_right_of_his_own_has_none(#[case] fake: Fake, #[case] word: &str, #[case] text: &str) {
    let (seen, all) = verdict(&Rbac13, move |asked| fake.answer(asked)).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.replace("\\\"", "\"").contains(text), "{all}");
}

/// A binding that one API server knows and another does not yet.
#[tokio::test(start_paused = true)]
async fn a_right_that_shows_at_the_second_asking_is_a_failure() {
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let script = move |asked: &Asked| {
        let is_it = asks(asked).ends_with("ai-agents-b:default") && asked.last() == "resourcequotas";
        let names_one = asks(asked).ends_with("ai-agents-b:default") && asked.method == "PATCH";
        if (is_it || names_one) && seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 {
            return ok(&json!({}));
        }
        fake().answer(asked)
    };
    let (word, text) = verdict(&Rbac13, script).await;
    assert_eq!(word, "failed", "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_own_rights_are_not_in_force_proves_nothing() {
    let script = |asked: &Asked| {
        if asks(asked).ends_with("sa-a") && asked.last() == "pods" {
            return rbac_403("system:serviceaccount:ai-agents-a:sa-a");
        }
        fake().answer(asked)
    };
    let (word, text) = verdict(&Rbac13, script).await;
    assert_eq!(word, "inconclusive", "{text}");
}

//! RBAC-05 against a scripted API server whose authorizer follows a rule.

use super::*;
use crate::scripted::{Asked, judged, ok, quota_403, rbac_403, refuse, silence};
use axum::response::Response;
use rstest::rstest;
use serde_json::{Value, json};

/// The namespace that a request is about.
fn namespace(asked: &Asked) -> &str {
    let mut parts = asked.path.split('/').skip_while(|part| *part != "namespaces");
    parts.nth(1).unwrap_or_default()
}

/// Tokens, whose they are, and what each account may do at home: the scripted tokens are the tenants' ids.
fn preamble(asked: &Asked, account: Option<&'static str>) -> Option<Response> {
    let own = asked
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    match (asked.last(), own) {
        ("token", None) => {
            let minted = if asked.path.contains("sa-a") { "a" } else { "b" };
            Some(ok(&json!({
                "metadata": {}, "spec": { "audiences": [] },
                "status": { "token": minted, "expirationTimestamp": "2026-01-01T00:00:00Z" },
            })))
        }
        ("selfsubjectreviews", Some(tenant)) => {
            let name = format!("system:serviceaccount:ai-agents-{tenant}:sa-{tenant}");
            let info = json!({ "username": account.unwrap_or(&name) });
            Some(ok(&json!({ "metadata": {}, "status": { "userInfo": info } })))
        }
        ("pods", Some(tenant)) if namespace(asked) == format!("ai-agents-{tenant}") => {
            Some(ok(&json!({ "items": [] })))
        }
        _ => None,
    }
}

#[derive(Clone)]
struct Fake {
    /// Who is let through: the method, the namespace, the subresource.
    allows: fn(&str, &str, &str) -> bool,
    /// What answers who is not.
    refusal: fn() -> Response,
    /// The list of rights in a namespace.
    rules: fn(&str) -> Value,
    account: Option<&'static str>,
}

fn fake() -> Fake {
    Fake {
        allows: |_, _, _| false,
        refusal: rbac_403,
        rules: |_| json!([]),
        account: None,
    }
}

impl Fake {
    fn answer(&self, asked: &Asked) -> Response {
        if asked.last() == "selfsubjectrulesreviews" {
            let place = asked.body["spec"]["namespace"].as_str().unwrap_or_default();
            let status =
                json!({ "incomplete": false, "nonResourceRules": [], "resourceRules": (self.rules)(place) });
            return ok(&json!({ "metadata": {}, "spec": {}, "status": status }));
        }
        if let Some(response) = preamble(asked, self.account) {
            return response;
        }
        if (self.allows)(&asked.method, namespace(asked), asked.last()) {
            refuse(404, "NotFound", "pods \"nothing\" not found")
        } else {
            (self.refusal)()
        }
    }
}

/// The right to exec by websocket, which is a get, in the neighbour's namespace only.
fn get_exec_in_b(method: &str, namespace: &str, subresource: &str) -> bool {
    (method, namespace, subresource) == ("GET", "ai-agents-b", "exec")
}
fn create_portforward_in_database(method: &str, namespace: &str, subresource: &str) -> bool {
    (method, namespace, subresource) == ("POST", "database", "portforward")
}
fn exec_rule_in_b(namespace: &str) -> Value {
    let rule = json!([{ "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"], "resourceNames": ["postgresql-0"] }]);
    if namespace == "ai-agents-b" {
        rule
    } else {
        json!([])
    }
}

#[rstest]
#[case::refused_everywhere(fake(), "passed", "63 of 63 denied (RBAC 403)")]
#[case::exec_by_get(Fake { allows: get_exec_in_b, ..fake() }, "failed", "sa-a may get pods/exec in ai-agents-b is denied")]
#[case::into_the_shared_services(Fake { allows: create_portforward_in_database, ..fake() }, "failed", "sa-a may create pods/portforward in database is denied")]
#[case::everything(Fake { allows: |_, _, _| true, ..fake() }, "failed", "sa-a may create serviceaccounts/token in ai-agents-a is denied")]
#[case::a_rule_that_names_one_pod(Fake { rules: exec_rule_in_b, ..fake() }, "failed", "get pods/exec (postgresql-0)")]
#[case::every_resource(Fake { rules: |_| json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["get"] }]), ..fake() }, "failed", "get *.*")]
#[case::every_exec(Fake { rules: |_| json!([{ "apiGroups": [""], "resources": ["*/exec"], "verbs": ["get"] }]), ..fake() }, "failed", "get */exec")]
#[case::rights_that_are_none_of_these(Fake { rules: |_| json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["*"] }]), ..fake() }, "passed", "63 of 63")]
#[case::refused_by_something_else(Fake { refusal: || quota_403("pods"), ..fake() }, "failed", "the quota that refused")]
#[case::not_authenticated(Fake { refusal: || refuse(401, "Unauthorized", "who"), ..fake() }, "inconclusive", "401")]
#[case::server_error(Fake { refusal: || refuse(500, "InternalError", "etcd"), ..fake() }, "inconclusive", "500")]
#[case::no_answer(Fake { refusal: silence, ..fake() }, "inconclusive", "no answer within 15 s")]
#[case::somebody_elses_token(Fake { account: Some("system:admin"), ..fake() }, "inconclusive", "the minted token is system:admin's")]
#[tokio::test(start_paused = true)]
async fn a_right_to_pods_is_none_to_what_runs_in_them(
    #[case] fake: Fake,
    #[case] word: &str,
    #[case] text: &str,
) {
    let (seen, all) = judged(&Rbac05, move |asked| fake.answer(asked)).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.contains(text), "{all}");
}

#[rstest]
#[case::the_tenants("a")]
#[case::the_neighbours("b")]
#[tokio::test(start_paused = true)]
async fn rights_that_are_not_in_force_prove_nothing(#[case] without: &'static str) {
    let script = move |asked: &Asked| {
        let at_home =
            asked.last() == "pods" && asked.header("authorization") == Some(&format!("Bearer {without}"));
        if at_home { rbac_403() } else { fake().answer(asked) }
    };
    let (word, text) = judged(&Rbac05, script).await;
    assert_eq!(word, "inconclusive", "{text}");
    assert!(text.contains("control did not hold"), "{text}");
}

#[test]
fn exec_is_asked_for_by_get_and_by_create() {
    let (tenant, namespaces) = (TenantId::try_from("a").unwrap(), ["n".to_owned()]);
    let asked = asked(&tenant, &namespaces, "own");
    for subresource in ["exec", "attach", "portforward", "proxy"] {
        for verb in ["get", "create"] {
            let what = format!("sa-a may {verb} pods/{subresource} in n");
            assert!(
                asked.iter().any(|(text, access)| *text == what && !access.really),
                "{what}"
            );
        }
    }
}

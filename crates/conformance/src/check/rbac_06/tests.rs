//! RBAC-06 against a scripted API server that impersonates for whom its rule says, and keeps lists of rights.

use super::*;
use crate::scripted::{ACCOUNT, Asked, judged, ok, rbac_403, refuse, silence};
use axum::response::Response;
use rstest::rstest;
use serde_json::Value;

/// Who asks, by the token: the scripted tokens are the tenants' ids; we ourselves have none.
fn asks(asked: &Asked) -> String {
    let token = asked
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    token.map_or("tester".to_owned(), |id| {
        format!("system:serviceaccount:ai-agents-{id}:sa-{id}")
    })
}

#[derive(Clone)]
struct Fake {
    /// Who may impersonate whom.
    impersonates: fn(&str, &str) -> bool,
    /// What answers an impersonation that is not allowed.
    refusal: fn() -> Response,
    /// What an access review says, by its attributes.
    says: fn(&Value) -> bool,
    /// The status of an access review.
    review: fn(bool) -> Value,
    /// The list of rights in a namespace.
    rules: fn(&str) -> Value,
    /// Whether there are such lists.
    lists: bool,
    /// Whether headers arrive.
    heard: bool,
}

fn only_the_administrator(who: &str, _: &str) -> bool {
    who == "tester"
}

fn fake() -> Fake {
    Fake {
        impersonates: only_the_administrator,
        refusal: rbac_403,
        says: |_| false,
        review: |allowed| json!({ "allowed": allowed }),
        rules: |_| json!([]),
        lists: true,
        heard: true,
    }
}

impl Fake {
    fn answer(&self, asked: &Asked) -> Response {
        let who = asks(asked);
        match asked.last() {
            "token" => {
                let minted = if asked.path.contains("sa-a") { "a" } else { "b" };
                ok(&json!({
                    "metadata": {}, "spec": { "audiences": [] },
                    "status": { "token": minted, "expirationTimestamp": "2026-01-01T00:00:00Z" },
                }))
            }
            "selfsubjectreviews" => {
                let guise = asked.header("impersonate-user").filter(|_| self.heard);
                let taken_for = match guise {
                    Some(guise) if !(self.impersonates)(&who, guise) => return (self.refusal)(),
                    Some(guise) => guise,
                    None => &who,
                };
                let info = json!({ "username": taken_for });
                ok(&json!({ "metadata": {}, "status": { "userInfo": info } }))
            }
            "selfsubjectaccessreviews" => {
                let way = &asked.body["spec"]["resourceAttributes"];
                let at_home = way["verb"] == "list" && way["resource"] == "pods";
                let status = (self.review)(at_home || (self.says)(way));
                ok(&json!({ "metadata": {}, "spec": {}, "status": status }))
            }
            "selfsubjectrulesreviews" if !self.lists => refuse(500, "InternalError", "etcd"),
            "selfsubjectrulesreviews" => {
                let place = asked.body["spec"]["namespace"].as_str().unwrap_or_default();
                let status = json!({ "incomplete": false, "nonResourceRules": [], "resourceRules": (self.rules)(place) });
                ok(&json!({ "metadata": {}, "spec": {}, "status": status }))
            }
            _ => ok(&json!({ "items": [] })),
        }
    }
}

fn the_neighbour(who: &str, whom: &str) -> bool {
    only_the_administrator(who, whom) || (who == ACCOUNT && whom.ends_with("ai-agents-b:sa-b"))
}
fn a_rule_in_b(namespace: &str) -> Value {
    let rule = json!([{ "apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"], "resourceNames": ["other"] }]);
    if namespace == "ai-agents-b" {
        rule
    } else {
        json!([])
    }
}

#[rstest]
#[case::nobody(fake(), "passed", "19 of 19 denied (RBAC 403 / its access review says no)")]
#[case::anybody(Fake { impersonates: |_, _| true, ..fake() }, "failed", "may impersonate conformance-0a1b2c3d in group system:masters is denied")]
#[case::the_neighbour(Fake { impersonates: the_neighbour, ..fake() }, "failed", "may impersonate system:serviceaccount:ai-agents-b:sa-b is denied")]
#[case::refused_as_another(Fake { refusal: || refuse(403, "Forbidden", "x is forbidden: User \"conformance-0a1b2c3d\" cannot create resource"), ..fake() }, "failed", "refused as another")]
#[case::a_group_that_is_of_no_use_alone(Fake { says: |way| way["resource"] == "groups" && way["name"] == "system:masters", ..fake() }, "failed", "sa-a may impersonate groups system:masters is denied")]
#[case::extra_fields(Fake { says: |way| way["subresource"] == "scopes", ..fake() }, "failed", "sa-a may impersonate userextras scopes is denied")]
#[case::bind(Fake { says: |way| way["verb"] == "bind" && way["resource"] == "roles", ..fake() }, "failed", "sa-a may bind roles in ai-agents-a is denied")]
#[case::a_rule_that_names_another(Fake { rules: a_rule_in_b, ..fake() }, "failed", "impersonate serviceaccounts (other)")]
#[case::every_verb(Fake { rules: |_| json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]), ..fake() }, "failed", "* *.*")]
#[case::constrained_impersonation(Fake { rules: |_| json!([{ "apiGroups": ["authentication.k8s.io"], "resources": ["users"], "verbs": ["impersonate:user-info"] }]), ..fake() }, "failed", "impersonate:user-info users")]
#[case::headers_do_not_arrive(Fake { heard: false, ..fake() }, "inconclusive", "headers did not arrive")]
#[case::we_may_not_either(Fake { impersonates: |_, _| false, ..fake() }, "inconclusive", "control did not hold: tester is taken for")]
#[case::not_authenticated(Fake { refusal: || refuse(401, "Unauthorized", "who"), ..fake() }, "inconclusive", "401")]
#[case::server_error(Fake { refusal: || refuse(500, "InternalError", "etcd"), ..fake() }, "inconclusive", "500")]
#[case::no_answer(Fake { refusal: silence, ..fake() }, "inconclusive", "no answer within 15 s")]
#[case::reviews_that_never_say_yes(Fake { review: |_| json!({ "allowed": false }), ..fake() }, "inconclusive", "control did not hold: sa-a may list pods in ai-agents-a")]
#[case::an_authorizer_that_fails(Fake { review: |allowed| json!({ "allowed": allowed, "evaluationError": "timed out" }), ..fake() }, "inconclusive", "timed out")]
#[case::no_list_of_rights(Fake { lists: false, ..fake() }, "inconclusive", "the rights of")]
#[case::no_list_of_rights_hides_nothing(Fake { lists: false, impersonates: |_, _| true, ..fake() }, "failed", "in group system:masters is denied")]
#[tokio::test(start_paused = true)]
async fn nobody_is_taken_for_anybody_else(#[case] fake: Fake, #[case] word: &str, #[case] text: &str) {
    let (seen, all) = judged(&Rbac06, move |asked| fake.answer(asked)).await;
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
    let (word, text) = judged(&Rbac06, script).await;
    assert_eq!(word, "inconclusive", "{text}");
    assert!(text.contains("control did not hold"), "{text}");
}

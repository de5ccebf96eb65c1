//! RBAC-15 against a scripted API server that knows impersonated users by their groups.

use super::*;
use crate::scripted::{Asked, judged, ok, pod_security_403, refuse, silence};
use axum::response::Response;
use rstest::rstest;

fn rbac_403() -> Response {
    refuse(
        403,
        "Forbidden",
        "x is forbidden: User \"conformance-0a1b2c3d\" cannot do this",
    )
}

fn escalation_403() -> Response {
    let message = "roles \"x\" is forbidden: user \"conformance-0a1b2c3d\" (groups=[\"platform-admins\"]) is attempting to grant RBAC permissions not currently held:\n{}";
    refuse(403, "Forbidden", message)
}

/// The rights that the platform promises, as the API server lists them.
fn promised() -> Vec<Value> {
    let rule = |verbs: &[&str], resource: ApiResource| json!({ "apiGroups": [resource.group()], "resources": [resource.name], "verbs": verbs });
    let whole = HELD
        .into_iter()
        .chain([NAMESPACES])
        .map(|resource| rule(&VERBS, resource));
    whole
        .chain(HELD_IN_PART.map(|(verbs, resource)| rule(verbs, resource)))
        .collect()
}

#[derive(Clone)]
struct Fake {
    /// The group that has the rights.
    bound: &'static str,
    rules: Vec<Value>,
    /// What answers an impersonation.
    impersonation: Option<fn() -> Response>,
    /// Groups that the impersonated user has beside those that were asked for.
    more_groups: &'static [&'static str],
    /// Whether Roles of all rights may be written.
    escalates: bool,
    /// Something that a member is let through to, beside what is promised.
    also: &'static str,
    /// What answers strangers.
    refusal: fn() -> Response,
}

fn fake(bound: &'static str) -> Fake {
    Fake {
        bound,
        rules: promised(),
        impersonation: None,
        more_groups: &[],
        escalates: false,
        also: "nothing else",
        refusal: rbac_403,
    }
}

impl Fake {
    fn answer(&self, asked: &Asked) -> Response {
        let groups: Vec<&str> = asked
            .headers
            .get_all("impersonate-group")
            .iter()
            .map(|group| group.to_str().unwrap())
            .collect();
        let user = asked
            .header("impersonate-user")
            .expect("every request is somebody else's");
        let member = groups.contains(&self.bound);
        match asked.last() {
            "selfsubjectreviews" => {
                let all: Vec<&str> = groups
                    .into_iter()
                    .chain([AUTHENTICATED])
                    .chain(self.more_groups.iter().copied())
                    .collect();
                let info = json!({ "username": user, "groups": all });
                self.impersonation.map_or_else(
                    || ok(&json!({ "metadata": {}, "status": { "userInfo": info } })),
                    |answer| answer(),
                )
            }
            "selfsubjectrulesreviews" => {
                let rules = if member { self.rules.clone() } else { Vec::new() };
                let status = json!({ "incomplete": true, "nonResourceRules": [], "resourceRules": rules });
                ok(&json!({ "metadata": {}, "spec": {}, "status": status }))
            }
            "selfsubjectaccessreviews" => {
                ok(&json!({ "metadata": {}, "spec": {}, "status": { "allowed": false } }))
            }
            _ if !member => (self.refusal)(),
            _ if asked.path.contains(self.also) => ok(&json!({})),
            _ if NOT_HELD
                .iter()
                .any(|(_, resource)| asked.path.contains(resource.name)) =>
            {
                rbac_403()
            }
            "roles" | "rolebindings" if asked.method == "POST" && !self.escalates => escalation_403(),
            _ => {
                assert!(
                    asked.method == "GET" || asked.is_dry(),
                    "{} {}",
                    asked.method,
                    asked.path
                );
                ok(&json!({ "apiVersion": "v1", "kind": "Any", "metadata": {}, "items": [] }))
            }
        }
    }
}

fn without(name: &str) -> Vec<Value> {
    promised()
        .into_iter()
        .filter(|rule| rule["resources"][0] != name)
        .collect()
}

fn with(rule: Value) -> Vec<Value> {
    promised().into_iter().chain([rule]).collect()
}

#[rstest]
#[case::kept(
    fake("platform-admins"),
    "passed",
    "a member of platform-admins is let through in ai-agents-a"
)]
#[case::group_mistyped(
    fake("platform-admin"),
    "failed",
    "a user in group platform-admin may list secrets in ai-agents-a is denied"
)]
#[case::group_in_other_letters(
    fake("Platform-Admins"),
    "failed",
    "a user in group Platform-Admins may list secrets in ai-agents-a is denied"
)]
#[case::everybody(Fake { refusal: || ok(&json!({})), ..fake("platform-admins") }, "failed", "a user in no group may list namespaces is denied")]
#[case::not_there(
    fake("nobody"),
    "failed",
    "the ClusterRole is not there, or not bound to this group"
)]
#[case::a_right_is_missing(Fake { rules: without("limitranges"), ..fake("platform-admins") }, "failed", "missing: get limitranges, list limitranges")]
#[case::a_wildcard(Fake { rules: with(json!({ "apiGroups": ["apps"], "resources": ["*"], "verbs": ["get"] })), ..fake("platform-admins") }, "failed", "get *.apps")]
#[case::escalate(Fake { rules: with(json!({ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"] })), ..fake("platform-admins") }, "failed", "escalate roles.rbac.authorization.k8s.io")]
#[case::nodes_proxy(Fake { rules: with(json!({ "apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"] })), ..fake("platform-admins") }, "failed", "get nodes/proxy")]
#[case::may_list_nodes(Fake { also: "/nodes", ..fake("platform-admins") }, "failed", "a member of platform-admins may list nodes is denied")]
#[case::may_write_any_role(Fake { escalates: true, ..fake("platform-admins") }, "failed", "a member of platform-admins may create a Role of all rights in ai-agents-a is denied")]
#[case::strangers_refused_by_something_else(Fake { refusal: pod_security_403, ..fake("platform-admins") }, "failed", "Pod Security")]
#[case::strangers_not_authenticated(Fake { refusal: || refuse(401, "Unauthorized", "who"), ..fake("platform-admins") }, "inconclusive", "401")]
#[case::server_error(Fake { refusal: || refuse(500, "InternalError", "etcd"), ..fake("platform-admins") }, "inconclusive", "500")]
#[case::no_answer(Fake { refusal: silence, ..fake("platform-admins") }, "inconclusive", "no answer within 15 s")]
#[case::may_not_impersonate(Fake { impersonation: Some(|| refuse(403, "Forbidden", "users \"x\" is forbidden: User \"tester\" cannot impersonate resource \"users\"")), ..fake("platform-admins") }, "inconclusive", "let tester impersonate users and groups")]
#[case::impersonation_fails(Fake { impersonation: Some(|| refuse(500, "InternalError", "etcd")), ..fake("platform-admins") }, "inconclusive", "impersonate conformance-0a1b2c3d in group platform-admins")]
#[case::a_masters_groups(Fake { more_groups: &["system:masters"], ..fake("platform-admins") }, "inconclusive", "the API server takes us for conformance-0a1b2c3d in")]
#[tokio::test(start_paused = true)]
async fn the_rights_are_the_groups_and_no_more(#[case] fake: Fake, #[case] word: &str, #[case] text: &str) {
    let (seen, all) = judged(&Rbac15, move |asked| fake.answer(asked)).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.replace("\\\"", "\"").contains(text), "{all}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_at_all_is_told_once_for_each_tenant() {
    let (_, text) = judged(&Rbac15, move |asked| fake("nobody").answer(asked)).await;
    assert_eq!(text.matches("expected:").count(), 2, "{text}");
}

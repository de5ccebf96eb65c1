//! RBAC-02 against a scripted API server whose authorizer follows a rule, and which keeps what is created.

use super::*;
use crate::scripted::{ACCOUNT, Asked, judged, ok, quota_403, rbac_403, refuse, silence, token};
use axum::response::Response;
use rstest::rstest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What a request asks for: verb and resource, with its subresource.
fn attributes(asked: &Asked) -> (String, String) {
    let parts: Vec<&str> = asked
        .path
        .split('/')
        .skip_while(|part| *part != "ai-agents-a")
        .skip(1)
        .collect();
    let resource = match parts.as_slice() {
        [resource, _, subresource] => format!("{resource}/{subresource}"),
        [resource, ..] => (*resource).to_owned(),
        [] => String::new(),
    };
    let verb = match (asked.method.as_str(), parts.len()) {
        ("GET", 1) if asked.query.contains("watch=1") => "watch",
        ("GET", 1) => "list",
        ("GET", _) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", 1) => "deletecollection",
        _ => "delete",
    };
    (verb.to_owned(), resource)
}

fn promised(verb: &str, resource: &str) -> bool {
    VERBS.contains(&verb) && TENANT_RESOURCES.iter().any(|each| each.name == resource)
}

type Allows = fn(&str, &str) -> bool;

#[derive(Clone)]
struct Fake {
    allows: Allows,
    /// What the list of rights holds.
    rules: Value,
    /// What answers what the authorizer does not allow.
    refusal: fn() -> Response,
    /// What answers a tenant's creation of an object that it may create.
    creation: Option<fn() -> Response>,
    account: &'static str,
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
}

fn role() -> Value {
    json!([
        { "apiGroups": [""], "resources": ["pods", "services", "configmaps", "secrets"], "verbs": VERBS },
        { "apiGroups": ["apps"], "resources": ["deployments"], "verbs": VERBS },
        { "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectrulesreviews"], "verbs": ["create"] },
    ])
}

fn fake(allows: Allows) -> Fake {
    Fake {
        allows,
        rules: role(),
        refusal: rbac_403,
        creation: None,
        account: ACCOUNT,
        objects: Arc::default(),
    }
}

impl Fake {
    fn answer(&self, asked: &Asked) -> Response {
        let own = asked.header("authorization") == Some("Bearer a");
        if asked.last() == "selfsubjectrulesreviews" {
            let status = json!({ "incomplete": false, "nonResourceRules": [], "resourceRules": self.rules });
            return ok(&json!({ "metadata": {}, "spec": {}, "status": status }));
        }
        if !(own && asked.path.contains("/namespaces/"))
            && let Some(response) = token(asked, self.account)
        {
            return response;
        }
        if !own && asked.last() == "resourcequotas" {
            return ok(&json!({ "metadata": {}, "items": [] }));
        }
        let (verb, resource) = attributes(asked);
        if own && !(self.allows)(&verb, &resource) {
            return (self.refusal)();
        }
        let mut objects = self.objects.lock().unwrap();
        let one = asked.path.clone();
        match verb.as_str() {
            "create" if self.creation.is_some() => self.creation.map(|answer| answer()).unwrap(),
            "create" if !asked.is_dry() => {
                let name = asked.body["metadata"]["name"].as_str().unwrap();
                objects.insert(format!("{one}/{name}"), asked.body.clone());
                ok(&asked.body)
            }
            "list" | "watch" => ok(&json!({ "items": [] })),
            "delete" if !asked.is_dry() && objects.remove(&one).is_some() => {
                ok(&json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
            }
            _ => match objects.get(&one) {
                Some(object) => ok(object),
                None => refuse(404, "NotFound", "not found"),
            },
        }
    }
}

fn exec_too(verb: &str, resource: &str) -> bool {
    promised(verb, resource) || (verb, resource) == ("get", "pods/exec")
}
fn all_verbs(verb: &str, resource: &str) -> bool {
    promised(verb, resource) || (verb == "deletecollection" && promised("get", resource))
}
fn no_patch_of_secrets(verb: &str, resource: &str) -> bool {
    promised(verb, resource) && (verb, resource) != ("patch", "secrets")
}
fn no_delete(verb: &str, resource: &str) -> bool {
    promised(verb, resource) && verb != "delete"
}

#[rstest]
#[case::exactly_the_promise(fake(promised), "passed", "114 of 114 denied (RBAC 403)")]
#[case::everything(fake(|_, _| true), "failed", "sa-a may create roles in ai-agents-a is denied")]
#[case::exec_by_get(fake(exec_too), "failed", "sa-a may get pods/exec in ai-agents-a is denied")]
#[case::all_verbs(
    fake(all_verbs),
    "failed",
    "sa-a may deletecollection secrets in ai-agents-a is denied"
)]
#[case::a_verb_too_few(fake(no_patch_of_secrets), "failed", "sa-a may patch secrets in ai-agents-a")]
#[case::may_not_delete(fake(no_delete), "failed", "sa-a may delete deployments in ai-agents-a")]
#[case::a_resource_that_nobody_asks_for(Fake { rules: json!([{ "apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"] }]), ..fake(promised) }, "failed", "more: get widgets.example.com")]
#[case::wildcards(Fake { rules: json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]), ..fake(promised) }, "failed", "more: * *.*")]
#[case::refused_by_something_else(Fake { refusal: || quota_403("pods"), ..fake(promised) }, "failed", "the quota that refused")]
#[case::not_authenticated(Fake { refusal: || refuse(401, "Unauthorized", "who"), ..fake(promised) }, "inconclusive", "401")]
#[case::server_error(Fake { refusal: || refuse(500, "InternalError", "etcd"), ..fake(promised) }, "inconclusive", "500")]
#[case::no_answer(Fake { refusal: silence, ..fake(promised) }, "inconclusive", "no answer within 15 s")]
#[case::creation_fails(Fake { creation: Some(|| refuse(500, "InternalError", "etcd")), ..fake(promised) }, "inconclusive", "control did not hold: sa-a may create")]
#[case::creation_is_authorized_and_refused(Fake { creation: Some(|| quota_403("pods")), ..fake(promised) }, "passed", "the quota that refused")]
#[case::no_rights_at_all(fake(|_, _| false), "failed", "sa-a may get pods in ai-agents-a")]
#[case::somebody_elses_token(Fake { account: "system:admin", ..fake(promised) }, "inconclusive", "the minted token is system:admin's")]
#[tokio::test(start_paused = true)]
async fn rights_are_exactly_the_promise(#[case] fake: Fake, #[case] word: &str, #[case] text: &str) {
    let server = fake.clone();
    let (seen, all) = judged(&Rbac02, move |asked| server.answer(asked)).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.contains(text), "{all}");
    assert!(
        fake.objects.lock().unwrap().is_empty(),
        "the run's objects are gone"
    );
}

#[tokio::test(start_paused = true)]
async fn one_verb_too_few_is_one_finding() {
    let fake = fake(no_patch_of_secrets);
    let (_, text) = judged(&Rbac02, move |asked| fake.answer(asked)).await;
    assert_eq!(text.matches("expected:").count(), 1, "{text}");
}

#[test]
fn what_is_not_the_tenants_is_only_tried() {
    let tenant = TenantId::try_from("a").unwrap();
    for (what, access) in forbidden(&tenant, "n", "own") {
        assert!(!access.really, "{what}");
        assert!(!promised(access.verb, access.resource.name), "{what}");
    }
}

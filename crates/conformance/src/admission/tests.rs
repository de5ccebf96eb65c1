//! Admission's answers by themselves, and every check of escape to the node against a scripted API server that admits pods as Pod Security
//! would.

use super::*;
use crate::check::{self, ALL};
use crate::scripted::{
    ACCOUNT, Asked, judged, ok, pod_security_403, quota_403, rbac_403, refuse, silence, token,
};
use axum::response::Response;
use rstest::rstest;
use serde_json::json;

const ORIGIN: Guard = Guard::PodSecurity(&["privileged", "hostPath volumes"]);

fn pod_security(list: &str) -> Result<Value, Refusal> {
    let message = format!("pods \"x\" is forbidden: violates PodSecurity \"restricted:v1.34\": {list}");
    Err(Refusal::Refused(Denial::PodSecurity, message))
}

fn by(denial: Denial) -> Result<Value, Refusal> {
    Err(Refusal::Refused(denial, "no".to_owned()))
}

fn quota() -> Denial {
    Denial::Quota {
        name: "q".to_owned(),
        dimensions: vec!["pods".to_owned()],
    }
}

#[rstest]
#[case::admitted(Ok(json!({})), ORIGIN, "reached (admitted)")]
#[case::for_this_reason(
    pod_security("privileged (container \"x\" must not set securityContext.privileged=true)"),
    ORIGIN,
    "denied (Pod Security restricted:v1.34: privileged)"
)]
#[case::among_others(
    pod_security("seccompProfile (pod), hostPath volumes (volume \"x\")"),
    ORIGIN,
    "denied (Pod Security restricted:v1.34: hostPath volumes)"
)]
#[case::for_another_reason(
    pod_security("seccompProfile (pod or container \"privileged (\" must set it)"),
    ORIGIN,
    "undecided (Pod Security refused it for another reason"
)]
#[case::by_the_quota(by(quota()), ORIGIN, "reached (let through")]
#[case::by_a_quota_without_values(by(Denial::QuotaOther("must specify".into())), ORIGIN, "reached (let through")]
#[case::by_a_policy(by(Denial::Policy("p".into())), ORIGIN, "undecided (something else refused it")]
#[case::by_rbac(by(Denial::Rbac), ORIGIN, "undecided (something else refused it")]
#[case::by_a_limit_range(by(Denial::LimitRange), ORIGIN, "undecided")]
#[case::for_its_content(by(Denial::Content(422)), ORIGIN, "undecided")]
#[case::throttled(by(Denial::Server(429)), ORIGIN, "undecided")]
#[case::unauthenticated(by(Denial::Unauthenticated), ORIGIN, "undecided")]
#[case::no_answer(Err(Refusal::NoAnswer("cut".into())), ORIGIN, "undecided (cut)")]
#[case::the_policy(by(Denial::Policy("p".into())), Guard::Policy("p"), "denied (admission policy p)")]
#[case::another_policy(by(Denial::Policy("q".into())), Guard::Policy("p"), "undecided (something else refused it")]
#[case::some_webhook(by(Denial::Admission), Guard::Policy("p"), "undecided")]
#[case::past_the_policy(by(quota()), Guard::Policy("p"), "reached (let through")]
fn only_the_control_that_is_there_for_it_refuses(
    #[case] answer: Result<Value, Refusal>,
    #[case] guard: Guard,
    #[case] expected: &str,
) {
    let observed = Observed {
        what: "x".to_owned(),
        observation: refused(&answer, guard),
    };
    let text = observed.to_string();
    assert!(text.starts_with(&format!("x: {expected}")), "{text}");
}

#[rstest]
#[case::admitted(Ok(json!({})), true)]
#[case::the_quota_is_used_up(by(quota()), true)]
#[case::pod_security(by(Denial::PodSecurity), false)]
#[case::a_policy(by(Denial::Policy("p".into())), false)]
#[case::a_limit_range(by(Denial::LimitRange), false)]
#[case::rbac(by(Denial::Rbac), false)]
#[case::no_answer(Err(Refusal::NoAnswer("cut".into())), false)]
fn what_comes_to_the_quota_was_let_through(#[case] answer: Result<Value, Refusal>, #[case] holds: bool) {
    assert_eq!(admitted("x".to_owned(), &answer).holds.is_ok(), holds);
}

/// The checks of the gate, which are told by their ids.
fn gate() -> Vec<&'static dyn Check> {
    let gate = ALL.iter().copied();
    gate.filter(|check| check::is_of_the_gate(check.info().id))
        .collect()
}

/// What Pod Security's level `restricted` says of a pod, for what these checks ask for, as API servers write it.
fn violations(pod: &Value) -> Vec<String> {
    let mut violations = Vec::new();
    let lists = [&pod["containers"], &pod["initContainers"]];
    for container in lists.into_iter().filter_map(Value::as_array).flatten() {
        let (name, security) = (&container["name"], &container["securityContext"]);
        if security["privileged"] == true {
            violations.push(format!(
                "privileged (container {name} must not set securityContext.privileged=true)"
            ));
        }
        if security["allowPrivilegeEscalation"] != false {
            violations.push(format!(
                "allowPrivilegeEscalation != false (container {name} must set securityContext.allowPrivilegeEscalation=false)"
            ));
        }
        for port in container["ports"].as_array().into_iter().flatten() {
            if let Some(port) = port["hostPort"].as_u64() {
                violations.push(format!("hostPort (container {name} uses hostPort {port})"));
            }
        }
    }
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[field] == true {
            violations.push(format!("host namespaces ({field}=true)"));
        }
    }
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        if volume["hostPath"].is_object() {
            let name = &volume["name"];
            violations.push(format!(
                "restricted volume types (volume {name} uses restricted volume type \"hostPath\")"
            ));
        }
    }
    violations
}

/// What the API server refuses before admission.
fn is_valid(pod: &Value) -> bool {
    let mounts = pod["containers"][0]["volumeMounts"].as_array();
    let mounted = |mount: &Value| {
        let volumes = pod["volumes"].as_array();
        volumes.is_some_and(|all| all.iter().any(|volume| volume["name"] == mount["name"]))
    };
    let lists = [&pod["containers"], &pod["initContainers"]];
    let contradicts = |container: &Value| {
        let security = &container["securityContext"];
        security["privileged"] == true && security["allowPrivilegeEscalation"] == false
    };
    let containers: Vec<&Value> = lists.into_iter().filter_map(Value::as_array).flatten().collect();
    let names: std::collections::BTreeSet<_> = containers.iter().map(|each| each["name"].as_str()).collect();
    mounts.is_none_or(|mounts| mounts.iter().all(mounted))
        && names.len() == containers.len()
        && !containers.into_iter().any(contradicts)
}

/// A server with Pod Security; `offending` answers every pod that violates it.
fn server(asked: &Asked, account: &str, offending: impl Fn(&[String]) -> Response) -> Response {
    if let Some(response) = token(asked, account) {
        return response;
    }
    if asked.method == "GET" {
        return ok(&json!({ "items": [] }));
    }
    assert!(asked.is_dry() && asked.last() == "pods" && asked.method == "POST");
    assert_eq!(asked.header("authorization"), Some("Bearer a"));
    let pod = &asked.body["spec"];
    assert!(is_valid(pod), "{pod}");
    match violations(pod) {
        none if none.is_empty() => ok(&asked.body),
        violations => offending(&violations),
    }
}

fn restricted(violations: &[String]) -> Response {
    let list = violations.join(", ");
    let message = format!("pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": {list}");
    refuse(403, "Forbidden", &message)
}

#[tokio::test(start_paused = true)]
async fn pods_that_pod_security_refuses_for_what_they_ask_for_pass() {
    assert_eq!(gate().len(), 5);
    for check in gate() {
        let (word, text) = judged(check, |asked| server(asked, ACCOUNT, restricted)).await;
        assert_eq!(word, "passed", "{}: {text}", check.info().id);
        assert!(text.contains("Pod Security restricted:latest: "), "{text}");
    }
}

#[rstest]
#[case::pod_security_is_off((|| ok(&json!({}))) as fn() -> Response, "failed", "admitted")]
#[case::only_the_quota_refuses(|| quota_403("pods"), "failed", "let through")]
#[case::for_another_reason(|| refuse(403, "Forbidden", "violates PodSecurity \"restricted:latest\": seccompProfile (pod)"), "inconclusive", "for another reason")]
#[case::a_webhook(|| refuse(403, "Forbidden", "admission webhook \"w\" denied the request: no"), "inconclusive", "something else refused it")]
#[case::rbac(|| rbac_403(), "inconclusive", "something else refused it")]
#[case::invalid(|| refuse(422, "Invalid", "spec: Invalid value"), "inconclusive", "422")]
#[case::not_authenticated(|| refuse(401, "Unauthorized", "who"), "inconclusive", "Unauthenticated")]
#[case::server_error(|| refuse(500, "InternalError", "etcd"), "inconclusive", "500")]
#[case::no_answer(|| silence(), "inconclusive", "no answer within 15 s")]
#[tokio::test(start_paused = true)]
async fn any_other_answer_is_no_pass(
    #[case] answer: fn() -> Response,
    #[case] expected: &str,
    #[case] says: &str,
) {
    for check in gate() {
        let (word, text) = judged(check, move |asked| server(asked, ACCOUNT, |_| answer())).await;
        assert_eq!(word, expected, "{}: {text}", check.info().id);
        assert!(text.contains(says), "{text}");
    }
}

/// Of several ways to ask, one that is open is enough.
#[rstest]
#[case(
    "ADM-02",
    "initContainers",
    "a pod with a privileged init container is denied"
)]
#[case("ADM-04", "hostIPC", "a pod with hostIPC is denied")]
#[case("ADM-05", "readOnly", "a pod with the node's / to read is denied")]
#[tokio::test(start_paused = true)]
async fn one_way_that_is_open_fails(
    #[case] id: &str,
    #[case] overlooked: &'static str,
    #[case] finding: &str,
) {
    let check = check::find(id).unwrap();
    let script = move |asked: &Asked| {
        if asked.method == "POST"
            && asked.body["spec"]
                .to_string()
                .contains(&format!("\"{overlooked}\""))
        {
            return ok(&asked.body);
        }
        server(asked, ACCOUNT, restricted)
    };
    let (word, text) = judged(check, script).await;
    assert_eq!(word, "failed", "{text}");
    assert!(text.contains(finding), "{text}");
    assert_eq!(text.matches("expected:").count(), 1, "{text}");
}

#[rstest]
#[case::compliant_pods_are_refused("POST", pod_security_403, "creates the same pod without it")]
#[case::no_rights("GET", rbac_403, "lists pods in ai-agents-a")]
#[tokio::test(start_paused = true)]
async fn an_account_that_gets_nothing_admitted_proves_nothing(
    #[case] method: &'static str,
    #[case] refusal: fn() -> Response,
    #[case] claim: &str,
) {
    for check in gate() {
        let script = move |asked: &Asked| {
            let compliant = asked.last() == "pods" && violations(&asked.body["spec"]).is_empty();
            if compliant && asked.method == method {
                return refusal();
            }
            server(asked, ACCOUNT, restricted)
        };
        let (word, text) = judged(check, script).await;
        assert_eq!(word, "inconclusive", "{text}");
        assert!(text.contains("control did not hold"), "{text}");
        assert!(text.contains(claim), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_token_proves_nothing() {
    for check in gate() {
        let (word, text) = judged(check, |asked| server(asked, "system:admin", restricted)).await;
        assert_eq!(word, "inconclusive");
        assert!(text.contains("the minted token is system:admin's"), "{text}");
    }
}

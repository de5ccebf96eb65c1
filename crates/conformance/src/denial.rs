//! Decides, once and purely, what refused a request. RBAC, quota, Pod Security, LimitRange and webhooks all answer 403 or near it;
//! what tells them apart is the reason and the message. What a denial means for a check is left to the check.

use crate::verdict::Observation;
use kube::core::Status;

/// What an API server's refusal was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The authorizer: `User "…" cannot <verb> resource "…"` (Kubernetes, "Authorization Overview").
    Rbac,
    /// RBAC's guard behind the authorizer: who writes a Role or a binding must hold the rights that it gives (Kubernetes, "Privilege escalation
    /// prevention and bootstrapping").
    Escalation,
    /// The quota of this name, for these dimensions: `exceeded quota: <name>, requested: …` (plugin resourcequota).
    Quota {
        /// The ResourceQuota's name.
        name: String,
        /// The dimensions that would be exceeded: `requests.cpu`.
        dimensions: Vec<String>,
    },
    /// A quota that did not decide on usage: a resource without a value (`must specify`), or a status not known yet.
    QuotaOther(String),
    /// Pod Security admission: `violates PodSecurity "<level>"`.
    PodSecurity,
    /// A LimitRange: `maximum cpu usage per Container is …`.
    LimitRange,
    /// The ValidatingAdmissionPolicy of this name judged the request and refused it as Forbidden, which is what the platform's policies give as
    /// reason: `ValidatingAdmissionPolicy '<name>' with binding '<binding>' denied request: …`. Where a policy could not be evaluated the API
    /// server gives another (Kubernetes, "Validating Admission Policy": reason, failurePolicy).
    Policy(String),
    /// An admission webhook said no, or a policy for another reason.
    Admission,
    /// A webhook that could not be called decided nothing.
    WebhookFailed,
    /// 401: the identity was not accepted, so nothing was authorized or refused.
    Unauthenticated,
    /// 404: authorized, no such object.
    NotFound,
    /// 409, 422, 400 and others of this kind: authorized, and refused for its content.
    Content(u16),
    /// 429, 5xx: the server could not.
    Server(u16),
}

/// What refused, from the status that the API server answered.
pub fn classify(status: &Status) -> Denial {
    let message = status.message.as_str();
    match status.code {
        401 => Denial::Unauthenticated,
        403 => policy(status).unwrap_or_else(|| classify_forbidden(message)),
        404 => Denial::NotFound,
        429 => Denial::Server(429),
        code if code >= 500 => {
            if message.contains("failed calling webhook") {
                Denial::WebhookFailed
            } else {
                Denial::Server(code)
            }
        }
        _ if message.contains("admission webhook") || message.contains(BY_A_POLICY) => Denial::Admission,
        code => Denial::Content(code),
    }
}

/// How the refusal of a policy begins (k8s.io/apiserver, plugin/policy/validating/dispatcher.go).
const BY_A_POLICY: &str = "ValidatingAdmissionPolicy '";

/// The policy that refused as Forbidden. Its own text comes behind its name, and may quote anything.
fn policy(status: &Status) -> Option<Denial> {
    if status.message.starts_with("admission webhook") {
        return None;
    }
    let (name, rest) = reason_of(&status.message)
        .strip_prefix(BY_A_POLICY)?
        .split_once('\'')?;
    let judged = rest.starts_with(" with binding '") && rest.contains("' denied request: ");
    (judged && status.reason == "Forbidden").then(|| Denial::Policy(name.to_owned()))
}

/// What comes behind `x "y" is forbidden: `.
fn reason_of(message: &str) -> &str {
    message
        .split_once("forbidden: ")
        .map_or(message, |(_, reason)| reason)
}

fn classify_forbidden(message: &str) -> Denial {
    // A webhook's text may quote any other refusal, so the form that names its author comes first.
    if message.contains("admission webhook") || message.contains("ValidatingAdmissionPolicy") {
        return Denial::Admission;
    }
    let reason = reason_of(message);
    if reason.starts_with("User \"") && reason.contains("\" cannot ") {
        return Denial::Rbac;
    }
    if message.contains("is attempting to grant RBAC permissions not currently held") {
        return Denial::Escalation;
    }
    if let Some(rest) = message.split_once("exceeded quota: ").map(|(_, rest)| rest) {
        return exceeded_quota(rest);
    }
    if message.contains("failed quota: ") || message.contains("status unknown for quota") {
        return Denial::QuotaOther(message.to_owned());
    }
    if message.contains("violates PodSecurity") {
        return Denial::PodSecurity;
    }
    let limit = ["maximum ", "minimum ", "max limit to request ratio"];
    if limit.iter().any(|word| message.contains(word)) && message.contains(" per ") {
        return Denial::LimitRange;
    }
    Denial::Admission
}

/// Reads `<name>, requested: requests.cpu=3, used: requests.cpu=1, limited: requests.cpu=2`.
fn exceeded_quota(rest: &str) -> Denial {
    let (name, rest) = rest.split_once(',').unwrap_or((rest, ""));
    let limited = rest.split_once("limited: ").map_or("", |(_, limited)| limited);
    let dimensions = limited
        .split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(key, _)| key.trim().to_owned())
        .collect();
    Denial::Quota {
        name: name.trim().to_owned(),
        dimensions,
    }
}

impl Denial {
    /// What the answer says about authorization in somebody else's namespace. Authorization comes before admission and before the
    /// object is looked up, so an answer from behind it means that the request was let through.
    pub fn as_authorization(&self, message: &str) -> Observation {
        match self {
            Denial::Rbac => Observation::Denied("RBAC 403".to_owned()),
            Denial::Unauthenticated => {
                Observation::Broken(format!("401, the identity was not accepted: {message}"))
            }
            Denial::Server(code) => Observation::Broken(format!("the API server answered {code}: {message}")),
            Denial::WebhookFailed => Observation::Broken(format!("a webhook could not be called: {message}")),
            Denial::NotFound => {
                Observation::Reached("authorized: the server looked for the object (404)".to_owned())
            }
            Denial::Content(code) => {
                Observation::Reached(format!("authorized: refused for its content ({code})"))
            }
            Denial::Quota { .. } | Denial::QuotaOther(_) => {
                Observation::Reached("authorized: it was the quota that refused".to_owned())
            }
            Denial::Escalation => Observation::Reached(
                "authorized: it was RBAC's guard against escalation that refused".to_owned(),
            ),
            Denial::PodSecurity => {
                Observation::Reached("authorized: it was Pod Security that refused".to_owned())
            }
            Denial::LimitRange => {
                Observation::Reached("authorized: it was a LimitRange that refused".to_owned())
            }
            Denial::Policy(name) => Observation::Reached(format!(
                "authorized: it was the admission policy {name} that refused"
            )),
            Denial::Admission => {
                Observation::Reached(format!("authorized: it was admission that refused: {message}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn status(code: u16, message: &str) -> Status {
        Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        }
    }

    // Messages as API servers of 1.34 wrote them, where the case has one.
    #[rstest]
    #[case::rbac(403, r#"pods is forbidden: User "system:serviceaccount:ai-agents-a:sa-a" cannot list resource "pods" in API group "" in the namespace "ai-agents-b""#, Denial::Rbac)]
    #[case::rbac_of_an_object_with_a_name(
        403,
        r#"configmaps "exceeded quota" is forbidden: User "x" cannot get resource "configmaps""#,
        Denial::Rbac
    )]
    #[case::quota(403, r#"pods "x" is forbidden: exceeded quota: q, requested: requests.cpu=2001m, used: requests.cpu=150m, limited: requests.cpu=2"#, Denial::Quota { name: "q".into(), dimensions: vec!["requests.cpu".into()] })]
    #[case::quota_two(403, r#"exceeded quota: q, requested: limits.cpu=5,requests.cpu=5, used: limits.cpu=1,requests.cpu=1, limited: limits.cpu=4,requests.cpu=2"#, Denial::Quota { name: "q".into(), dimensions: vec!["limits.cpu".into(), "requests.cpu".into()] })]
    #[case::pod_security(
        403,
        r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged"#,
        Denial::PodSecurity
    )]
    #[case::limit_range(
        403,
        r#"pods "x" is forbidden: maximum cpu usage per Container is 1, but limit is 2"#,
        Denial::LimitRange
    )]
    #[case::webhook(
        403,
        r#"admission webhook "w" denied the request: User "a" cannot do"#,
        Denial::Admission
    )]
    #[case::webhook_with_a_code_of_its_own(
        400,
        r#"admission webhook "w" denied the request: no"#,
        Denial::Admission
    )]
    #[case::policy(
        403,
        r#"ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"#,
        Denial::Admission
    )]
    #[case::webhook_that_quotes_a_quota(
        403,
        r#"admission webhook "w" denied the request: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"#,
        Denial::Admission
    )]
    #[case::policy_that_quotes_pod_security(
        403,
        r#"ValidatingAdmissionPolicy 'p' with binding 'b' denied request: violates PodSecurity"#,
        Denial::Admission
    )]
    #[case::webhook_unreachable(
        500,
        r#"Internal error occurred: failed calling webhook "w": timeout"#,
        Denial::WebhookFailed
    )]
    #[case::escalation(
        403,
        "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"u\" (groups=[\"g\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"*\"]}",
        Denial::Escalation
    )]
    #[case::unauthorized(401, "Unauthorized", Denial::Unauthenticated)]
    #[case::not_found(404, r#"pods "x" not found"#, Denial::NotFound)]
    #[case::conflict(409, "already exists", Denial::Content(409))]
    #[case::invalid(422, "is invalid", Denial::Content(422))]
    #[case::throttled(429, "too many requests", Denial::Server(429))]
    #[case::unavailable(503, "apiserver is shutting down", Denial::Server(503))]
    #[case::an_unknown_403_is_not_taken_for_rbac(403, "no", Denial::Admission)]
    #[case::no_account_that_cannot_do_it(
        403,
        r#"pods "x" is forbidden: User "u" is locked"#,
        Denial::Admission
    )]
    #[case::something_else_that_cannot(
        403,
        r#"pods "x" is forbidden: the name "x" cannot be used"#,
        Denial::Admission
    )]
    #[case::a_maximum_of_nothing_in_particular(403, "maximum retries are used up", Denial::Admission)]
    #[case::one_per_tenant(403, "one per tenant", Denial::Admission)]
    fn refusals_are_told_apart(#[case] code: u16, #[case] message: &str, #[case] expected: Denial) {
        assert_eq!(classify(&status(code, message)), expected);
    }

    #[rstest]
    #[case::judged(403, "Forbidden", r#"namespaces "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"#, Denial::Policy("p".into()))]
    #[case::it_quotes_another_refusal(403, "Forbidden", r#"pods "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: admission webhook "w" denied the request"#, Denial::Policy("p".into()))]
    #[case::not_evaluated(
        422,
        "Invalid",
        r#"pods "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: expression 'x' resulted in error: no such key"#,
        Denial::Admission
    )]
    #[case::of_another_reason(
        403,
        "Unauthorized",
        r#"pods "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"#,
        Denial::Admission
    )]
    #[case::a_webhook_quotes_one(
        403,
        "Forbidden",
        r#"admission webhook "w" denied the request: x is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"#,
        Denial::Admission
    )]
    #[case::its_binding_never_got_that_far(
        403,
        "Forbidden",
        r#"pods "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' is not ready"#,
        Denial::Admission
    )]
    #[case::without_a_binding(
        403,
        "Forbidden",
        r#"pods "x" is forbidden: ValidatingAdmissionPolicy 'p' of nobody' denied request: no"#,
        Denial::Admission
    )]
    #[case::it_never_got_that_far(
        403,
        "Forbidden",
        r#"pods "x" is forbidden: ValidatingAdmissionPolicy 'p' is not ready"#,
        Denial::Admission
    )]
    fn a_policy_is_told_by_its_name_where_it_judged(
        #[case] code: u16,
        #[case] reason: &str,
        #[case] message: &str,
        #[case] expected: Denial,
    ) {
        let status = Status {
            reason: reason.to_owned(),
            ..status(code, message)
        };
        assert_eq!(classify(&status), expected);
    }

    #[rstest]
    #[case::quota_must_specify("failed quota: q: must specify limits.cpu")]
    #[case::quota_status_unknown("status unknown for quota: q, resources: pods")]
    fn a_quota_that_did_not_weigh_usage_is_another_denial(#[case] message: &str) {
        assert_eq!(
            classify(&status(403, message)),
            Denial::QuotaOther(message.into())
        );
    }

    #[rstest]
    #[case::rbac(Denial::Rbac, "denied")]
    #[case::unauthenticated(Denial::Unauthenticated, "broken")]
    #[case::throttled(Denial::Server(429), "broken")]
    #[case::webhook_failed(Denial::WebhookFailed, "broken")]
    #[case::not_found(Denial::NotFound, "reached")]
    #[case::conflict(Denial::Content(409), "reached")]
    #[case::pod_security(Denial::PodSecurity, "reached")]
    #[case::quota(Denial::QuotaOther(String::new()), "reached")]
    #[case::limit_range(Denial::LimitRange, "reached")]
    #[case::escalation(Denial::Escalation, "reached")]
    #[case::policy(Denial::Policy("p".into()), "reached")]
    #[case::admission(Denial::Admission, "reached")]
    fn only_rbac_denies_at_another_tenant(#[case] denial: Denial, #[case] expected: &str) {
        let seen = match denial.as_authorization("m") {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        assert_eq!(seen, expected);
    }
}

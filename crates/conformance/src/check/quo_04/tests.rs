//! QUO-04 by its parts, and whole against a scripted API server that admits pods as quota and LimitRange would.

use super::*;
use crate::scripted::{Asked, judged, ok, pod_security_403, quota_403, refuse, silence};
use axum::response::Response;
use rstest::rstest;

#[rstest]
#[case::for_what_is_missing(Denial::QuotaOther("failed quota: q: must specify limits.cpu for: inert".into()), "denied")]
#[case::for_something_else(Denial::QuotaOther("failed quota: q: must specify requests.cpu for: inert".into()), "broken")]
#[case::quota_not_known_yet(Denial::QuotaOther("status unknown for quota: q, resources: limits.cpu".into()), "broken")]
#[case::used_up(Denial::Quota { name: "q".into(), dimensions: vec!["limits.cpu".into()] }, "broken")]
#[case::limit_range(Denial::LimitRange, "denied")]
#[case::pod_security(Denial::PodSecurity, "broken")]
#[case::rbac(Denial::Rbac, "broken")]
fn only_a_refusal_for_what_is_missing_counts(#[case] denial: Denial, #[case] expected: &str) {
    let word = match refused(&denial, &["limits.cpu"]) {
        Observation::Reached(_) => "reached",
        Observation::Denied(_) => "denied",
        Observation::Broken(_) => "broken",
    };
    assert_eq!(word, expected);
}

#[rstest]
#[case::the_promised(json!({ "limits": { "cpu": "500m" } }), "denied")]
#[case::less(json!({ "limits": { "cpu": "100m" } }), "denied")]
#[case::more(json!({ "limits": { "cpu": "501m" } }), "reached")]
#[case::nothing(json!({ "limits": { "memory": "1Mi" } }), "reached")]
#[case::no_resources(Value::Null, "reached")]
fn what_it_gets_is_measured_by_the_tenants_settings(#[case] resources: Value, #[case] expected: &str) {
    let tenant = Tenant::standard(TenantId::try_from("a").unwrap());
    let word = match bounded(&resources, &tenant, &[Dimension::LimitsCpu]) {
        Observation::Reached(_) => "reached",
        Observation::Denied(_) => "denied",
        Observation::Broken(_) => "broken",
    };
    assert_eq!(word, expected);
}

#[derive(Clone)]
struct Fake {
    quota: bool,
    /// What a LimitRange gives, as limits.cpu.
    limit_range: Option<&'static str>,
    /// Init containers are left alone.
    overlooks_init: bool,
    /// What answers every pod.
    instead: Option<fn() -> Response>,
}

const KEPT: Fake = Fake {
    quota: true,
    limit_range: Some("500m"),
    overlooks_init: false,
    instead: None,
};

impl Fake {
    fn answer(&self, asked: &Asked) -> Response {
        if asked.last() == "resourcequotas" {
            return ok(&json!({ "metadata": {}, "items": [] }));
        }
        assert!(asked.is_dry() && asked.method == "POST" && asked.last() == "pods");
        if let Some(instead) = self.instead {
            return instead();
        }
        let mut pod = asked.body.clone();
        let lists = ["containers", "initContainers"];
        for list in &lists[..if self.overlooks_init { 1 } else { 2 }] {
            let resources = &mut pod["spec"][*list][0]["resources"];
            if let Some(limit) = self.limit_range {
                for (kind, what, value) in [
                    ("limits", "cpu", limit),
                    ("limits", "memory", "512Mi"),
                    ("requests", "cpu", "50m"),
                    ("requests", "memory", "64Mi"),
                ] {
                    if resources[kind][what].is_null() {
                        resources[kind][what] = json!(value);
                    }
                }
            }
            for key in Dimension::COMPUTE {
                let (kind, what) = parts(key);
                if self.quota && resources[kind][what].is_null() {
                    let message = format!(
                        "pods \"x\" is forbidden: failed quota: q: must specify {} for: inert",
                        key.key()
                    );
                    return refuse(403, "Forbidden", &message);
                }
            }
        }
        ok(&pod)
    }
}

#[rstest]
#[case::kept(KEPT, "passed", "it gets limits.cpu=500m")]
#[case::no_limit_range(Fake { limit_range: None, ..KEPT }, "passed", "the quota refuses what has no values")]
#[case::no_quota(Fake { quota: false, ..KEPT }, "passed", "it gets requests.cpu=50m, limits.cpu=500m")]
#[case::neither(Fake { quota: false, limit_range: None, ..KEPT }, "failed", "admitted without limits.memory")]
#[case::gives_too_much(Fake { limit_range: Some("4"), ..KEPT }, "failed", "admitted with limits.cpu=4, more than the 500m")]
#[case::init_containers_overlooked(Fake { overlooks_init: true, ..KEPT }, "failed", "unbounded limits.cpu of an init container")]
#[case::used_up(Fake { instead: Some(|| quota_403("pods")), ..KEPT }, "inconclusive", "control did not hold")]
#[case::wrong_reason(Fake { instead: Some(pod_security_403), ..KEPT }, "inconclusive", "PodSecurity")]
#[case::not_authenticated(Fake { instead: Some(|| refuse(401, "Unauthorized", "who")), ..KEPT }, "inconclusive", "Unauthenticated")]
#[case::server_error(Fake { instead: Some(|| refuse(500, "InternalError", "etcd")), ..KEPT }, "inconclusive", "500")]
#[case::no_answer(Fake { instead: Some(silence), ..KEPT }, "inconclusive", "no answer within 15 s")]
#[tokio::test(start_paused = true)]
async fn nothing_runs_without_bounds(#[case] fake: Fake, #[case] word: &str, #[case] text: &str) {
    let (seen, all) = judged(&Quo04, move |asked| fake.answer(asked)).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.contains(text), "{all}");
}

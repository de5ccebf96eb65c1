//! QUO-01 by its parts, and whole against a scripted API server whose quota counts like the real one.

use super::*;
use crate::scripted::{ok, refuse, serve, word_and_text};
use axum::response::Response;
use provisioner::Quantity;
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

#[rstest]
#[case::made(json!({ "replicas": 1 }), Some("reached"))]
#[case::refused(json!({ "conditions": [{ "type": "ReplicaFailure", "status": "True", "message": "pods \"x\" is forbidden: exceeded quota: q" }] }), Some("denied"))]
#[case::refused_by_something_else(json!({ "conditions": [{ "type": "ReplicaFailure", "status": "True", "message": "violates PodSecurity" }] }), Some("broken"))]
#[case::nothing_yet(json!({}), None)]
fn a_deployments_status_tells_made_from_refused(#[case] status: Value, #[case] expected: Option<&str>) {
    let spec = json!({ "selector": {}, "template": {} });
    let deployment: Deployment =
        serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": status })).unwrap();
    let word = reported(&deployment).map(|observation| match observation {
        Observation::Reached(_) => "reached",
        Observation::Denied(_) => "denied",
        Observation::Broken(_) => "broken",
    });
    assert_eq!(word, expected);
}

/// A namespace whose quota counts like the real one. What is asked for and what is used is in millicores and mebibytes, in the order of
/// [`Dimension::COMPUTE`].
#[derive(Clone)]
struct Fake {
    hard: [i128; 4],
    used: Arc<Mutex<[i128; 4]>>,
    /// What answers a pod's creation in the quota's stead.
    instead: Option<fn() -> Response>,
    /// Usage stands still, whatever is created.
    stuck: bool,
    /// The Deployment gets its pod.
    lenient: bool,
}

const HARD: [i128; 4] = [2000, 4000, 4096, 8192];

fn fake(hard: [i128; 4]) -> Fake {
    let used = Arc::new(Mutex::new([150, 1000, 192, 2048]));
    Fake {
        hard,
        used,
        instead: None,
        stuck: false,
        lenient: false,
    }
}

impl Fake {
    fn answer(&self, method: &str, path: &str, query: &str, body: &Value) -> Response {
        let last = path.rsplit('/').next().unwrap_or_default();
        match (method, last) {
            ("GET", "resourcequotas") => ok(
                &json!({ "metadata": {}, "items": [{ "metadata": { "name": "q" }, "status": { "used": self.shown() } }] }),
            ),
            ("POST", "pods") => self.pod(body, query.contains("dryRun=All")),
            ("DELETE", _) => {
                if path.contains("/pods/") {
                    self.count(-7);
                }
                ok(&json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
            }
            // The deletion that follows a creation finds the object gone.
            ("GET", _) if path.contains("/pods/") => {
                self.count(-7);
                refuse(404, "NotFound", "gone")
            }
            ("POST", "deployments") => ok(body),
            ("GET", _) if self.lenient => ok(
                &json!({ "metadata": { "name": "d" }, "spec": { "selector": {}, "template": {} }, "status": { "replicas": 1 } }),
            ),
            ("GET", "conformance-0a1b2c3d-beyond-quota") => {
                let condition = json!({ "type": "ReplicaFailure", "status": "True", "message": "forbidden: exceeded quota: q" });
                let spec = json!({ "selector": {}, "template": {} });
                ok(
                    &json!({ "metadata": { "name": "d" }, "spec": spec, "status": { "conditions": [condition] } }),
                )
            }
            _ => refuse(404, "NotFound", "not scripted"),
        }
    }

    fn shown(&self) -> Value {
        let used = *self.used.lock().unwrap();
        let pairs = Dimension::COMPUTE
            .iter()
            .zip(used)
            .map(|(dimension, used)| (dimension.key().to_owned(), json!(dimension.write(used))));
        Value::Object(pairs.collect())
    }

    fn count(&self, millicores: i128) {
        let mut used = self.used.lock().unwrap();
        // Deleting what is gone already counts nothing.
        if !self.stuck && (millicores > 0 || used[1] > 1000) {
            used[1] += millicores;
        }
    }

    fn pod(&self, pod: &Value, dry: bool) -> Response {
        if let Some(instead) = self.instead {
            return instead();
        }
        let resources = &pod["spec"]["containers"][0]["resources"];
        let asked =
            |kind: &str, what: &str| -> Quantity { resources[kind][what].as_str().unwrap().parse().unwrap() };
        let asked = [
            asked("requests", "cpu"),
            asked("limits", "cpu"),
            asked("requests", "memory"),
            asked("limits", "memory"),
        ];
        let used = *self.used.lock().unwrap();
        let over: Vec<&str> = (0..4)
            .filter(|&at| used[at] + Dimension::COMPUTE[at].units(&asked[at]) > self.hard[at])
            .map(|at| Dimension::COMPUTE[at].key())
            .collect();
        if !over.is_empty() {
            let list = |value: &str| {
                over.iter()
                    .map(|key| format!("{key}={value}"))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            let message = format!(
                "pods \"x\" is forbidden: exceeded quota: q, requested: {}, used: {}, limited: {}",
                list("9"),
                list("1"),
                list("2")
            );
            return refuse(403, "Forbidden", &message);
        }
        if !dry {
            self.count(7);
        }
        ok(pod)
    }
}

async fn verdict(fake: Fake) -> (&'static str, String) {
    let route = move |request: axum::extract::Request| {
        let fake = fake.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            fake.answer(
                parts.method.as_str(),
                parts.uri.path(),
                parts.uri.query().unwrap_or_default(),
                &body,
            )
        }
    };
    let server = serve(axum::Router::new().fallback(route)).await;
    let tenant = TenantId::try_from("a").unwrap();
    let subject = Subject::Tenant(tenant.clone());
    let needs = Quo01.needs(&subject, &[tenant]).into_iter().collect();
    word_and_text(&Quo01.run(&server.context(&needs), &subject).await.unwrap())
}

fn pod_security() -> Response {
    refuse(
        403,
        "Forbidden",
        "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": privileged",
    )
}

#[rstest]
#[case::kept(fake(HARD), "passed", "exceeded quota q: requests.cpu")]
#[case::missing(fake([i128::MAX; 4]), "failed", "admitted, with 150m used and 2000m promised")]
#[case::raised_by_one_millicore(fake([2001, 4000, 4096, 8192]), "failed", "pod with requests.cpu=1851m")]
#[case::raised_by_one_mebibyte(fake([2000, 4000, 4096, 8193]), "failed", "pod with limits.memory=6145Mi")]
#[case::requests_cpu_raised(fake([9000, 4000, 4096, 8192]), "failed", "pod with requests.cpu=1851m")]
#[case::limits_memory_raised(fake([2000, 4000, 4096, 99_000]), "failed", "pod with limits.memory=6145Mi")]
#[case::lower_than_promised(fake([1000, 4000, 4096, 8192]), "failed", "quota q refused it")]
#[case::another_refusal(Fake { instead: Some(pod_security), ..fake(HARD) }, "inconclusive", "control did not hold")]
#[case::not_authenticated(Fake { instead: Some(|| refuse(401, "Unauthorized", "who")), ..fake(HARD) }, "inconclusive", "Unauthenticated")]
#[case::server_error(Fake { instead: Some(|| refuse(500, "InternalError", "etcd")), ..fake(HARD) }, "inconclusive", "500")]
#[case::deployment_gets_its_pod(Fake { lenient: true, ..fake(HARD) }, "failed", "its pod was created")]
#[tokio::test]
async fn the_quota_is_judged_by_its_own_refusals(#[case] fake: Fake, #[case] word: &str, #[case] text: &str) {
    let (seen, all) = verdict(fake).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.contains(text), "{all}");
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_counts_nothing_proves_nothing() {
    let (word, text) = verdict(Fake {
        stuck: true,
        ..fake(HARD)
    })
    .await;
    assert_eq!(word, "inconclusive");
    assert!(
        text.contains("limits.cpu used: expected 1007m, still 1000m"),
        "{text}"
    );
}

//! QUO-02 against a scripted API server that keeps pods, and a quota that counts them.

use super::*;
use crate::scripted::{Asked, judged, ok, pod_security_403, quota_403, refuse, silence};
use axum::response::Response;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

#[rstest]
#[case::running(json!({ "status": { "phase": "Running" } }), (1, 0))]
#[case::gated(json!({}), (1, 0))]
#[case::ended(json!({ "status": { "phase": "Succeeded" } }), (0, 0))]
#[case::evicted(json!({ "status": { "phase": "Failed" } }), (0, 0))]
#[case::on_its_way_out(json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" }, "status": { "phase": "Running" } }), (0, 1))]
fn pods_are_counted_as_a_quota_does(#[case] pod: Value, #[case] expected: (usize, usize)) {
    let mut object = json!({ "metadata": {} });
    object
        .as_object_mut()
        .unwrap()
        .extend(pod.as_object().unwrap().clone());
    let census = Census::of(&[serde_json::from_value(object).unwrap()]);
    assert_eq!((census.there, census.leaving), expected);
}

#[test]
fn every_pod_that_may_be_made_is_named_beforehand() {
    let tenant = Tenant::standard(TenantId::try_from("a").unwrap());
    let run = RunId::parse("0a1b2c3d").unwrap();
    let objects = Quo02.objects(&Subject::Tenant(tenant.id.clone()), &[tenant], &run);
    assert_eq!(objects.len(), 11);
    assert_eq!(objects[10].name, "conformance-0a1b2c3d-fill-11");
}

/// A namespace with pods, and a quota that allows so many of them.
#[derive(Clone)]
struct Fake {
    hard: Option<usize>,
    pods: Arc<Mutex<BTreeSet<String>>>,
    /// What answers a pod's creation in the quota's stead.
    instead: Option<fn() -> Response>,
    /// What the quota says of its use, whatever is there.
    stuck: Option<usize>,
    /// A pod of the tenant's own goes whenever the quota is full.
    shrinks: bool,
}

fn fake(there: usize, hard: Option<usize>) -> Fake {
    Fake {
        hard,
        pods: Arc::new(Mutex::new(
            (0..there).map(|number| format!("own-{number}")).collect(),
        )),
        instead: None,
        stuck: None,
        shrinks: false,
    }
}

impl Fake {
    fn answer(&self, asked: &Asked) -> Response {
        let mut pods = self.pods.lock().unwrap();
        let name = asked.last().to_owned();
        let run = json!({ "ai-agents-platform/run-id": "0a1b2c3d" });
        match (asked.method.as_str(), asked.last()) {
            ("GET", "resourcequotas") => {
                let used = json!({ "pods": self.stuck.unwrap_or(pods.len()).to_string() });
                let quota = json!({ "metadata": { "name": "q" }, "status": { "used": used } });
                ok(
                    &json!({ "metadata": {}, "items": self.hard.map(|_| quota).into_iter().collect::<Vec<_>>() }),
                )
            }
            ("GET", "pods") => {
                let items: Vec<Value> = pods
                    .iter()
                    .map(|name| json!({ "metadata": { "name": name } }))
                    .collect();
                ok(&json!({ "metadata": {}, "items": items }))
            }
            ("POST", "pods") => {
                if let Some(instead) = self.instead {
                    return instead();
                }
                if self.hard.is_some_and(|hard| pods.len() >= hard) {
                    if !self.shrinks {
                        return quota_403("pods");
                    }
                    pods.pop_last();
                }
                pods.insert(asked.body["metadata"]["name"].as_str().unwrap().to_owned());
                ok(&asked.body)
            }
            ("GET", _) if pods.contains(&name) => {
                ok(&json!({ "metadata": { "name": name, "annotations": run } }))
            }
            ("DELETE", _) if pods.remove(&name) => {
                ok(&json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
            }
            _ => refuse(404, "NotFound", "gone"),
        }
    }
}

#[rstest]
#[case::kept(fake(3, Some(10)), "passed", "exceeded quota q: pods")]
#[case::nothing_is_there(fake(0, Some(10)), "passed", "pod 10 of the 10 that are left is admitted")]
#[case::missing(fake(3, None), "failed", "admitted: 11 pods are there, 10 promised")]
#[case::raised_by_one(fake(3, Some(11)), "failed", "admitted: 11 pods are there, 10 promised")]
#[case::lower_than_promised(fake(3, Some(9)), "failed", "quota q refused it")]
#[case::used_up(fake(10, Some(10)), "inconclusive", "no room to show")]
#[case::wrong_reason(Fake { instead: Some(pod_security_403), ..fake(3, Some(10)) }, "inconclusive", "PodSecurity")]
#[case::for_another_dimension(Fake { instead: Some(|| quota_403("limits.cpu")), ..fake(3, Some(10)) }, "inconclusive", "limits.cpu")]
#[case::not_authenticated(Fake { instead: Some(|| refuse(401, "Unauthorized", "who")), ..fake(3, Some(10)) }, "inconclusive", "Unauthenticated")]
#[case::server_error(Fake { instead: Some(|| refuse(500, "InternalError", "etcd")), ..fake(3, Some(10)) }, "inconclusive", "500")]
#[case::no_answer(Fake { instead: Some(silence), ..fake(3, Some(10)) }, "inconclusive", "no answer within 15 s")]
#[case::counts_nothing(Fake { stuck: Some(3), ..fake(4, Some(10)) }, "inconclusive", "the quota counts 3 pods, there are 4")]
#[case::pods_go_meanwhile(Fake { shrinks: true, ..fake(3, Some(10)) }, "inconclusive", "went all the time")]
#[tokio::test(start_paused = true)]
async fn the_number_of_pods_is_judged_by_the_quotas_own_refusal(
    #[case] fake: Fake,
    #[case] word: &str,
    #[case] text: &str,
) {
    let server = fake.clone();
    let (seen, all) = judged(&Quo02, move |asked| server.answer(asked)).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.contains(text), "{all}");
    let left: Vec<String> = fake
        .pods
        .lock()
        .unwrap()
        .iter()
        .filter(|name| name.contains("fill"))
        .cloned()
        .collect();
    assert_eq!(left, Vec::<String>::new(), "all of the run's pods go at once");
}

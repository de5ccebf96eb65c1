//! QUO-03 against a scripted API server with a quota of storage, and a controller of ephemeral volumes.

use super::*;
use crate::scripted::{Asked, judged, ok, quota_403, rbac_403, refuse, silence};
use axum::response::Response;
use provisioner::Quantity;
use rstest::rstest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[rstest]
#[case::refused_by_the_quota(
    "ephemeral volume scratch: create PVC p-scratch: persistentvolumeclaims \"p-scratch\" is forbidden: exceeded quota: q, requested: requests.storage=20481Mi, used: requests.storage=0, limited: requests.storage=20Gi",
    Some("denied")
)]
#[case::refused_for_another_dimension(
    "ephemeral volume scratch: create PVC p-scratch: persistentvolumeclaims \"p-scratch\" is forbidden: exceeded quota: q, requested: persistentvolumeclaims=1, used: persistentvolumeclaims=0, limited: persistentvolumeclaims=0",
    Some("broken")
)]
#[case::refused_by_something_else(
    "ephemeral volume scratch: create PVC p-scratch: persistentvolumeclaims \"p-scratch\" is forbidden: admission webhook \"w\" denied the request: no",
    Some("broken")
)]
#[case::not_made_for_another_reason(
    "ephemeral volume scratch: create PVC p-scratch: etcdserver: request timed out",
    Some("broken")
)]
#[case::another_event("0/1 nodes are available", None)]
fn a_pods_events_tell_of_its_claim(#[case] message: &str, #[case] expected: Option<&str>) {
    let word = told(message).map(|observation| match observation {
        Observation::Reached(_) => "reached",
        Observation::Denied(_) => "denied",
        Observation::Broken(_) => "broken",
    });
    assert_eq!(word, expected);
}

#[derive(Clone)]
struct Fake {
    /// In mebibytes.
    hard: i128,
    /// What answers a claim in the quota's stead.
    instead: Option<fn() -> Response>,
    /// What the controller comes to, if it acts.
    controller: Controller,
    pod: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq)]
enum Controller {
    AsTheQuotaSays,
    Unlimited,
    Asleep,
}

fn fake(hard: i128) -> Fake {
    Fake {
        hard,
        instead: None,
        controller: Controller::AsTheQuotaSays,
        pod: Arc::new(AtomicBool::new(false)),
    }
}

impl Fake {
    fn answer(&self, asked: &Asked) -> Response {
        let run = json!({ "ai-agents-platform/run-id": "0a1b2c3d" });
        let there = self.pod.load(Ordering::Relaxed);
        let over = Dimension::RequestsStorage.promised(&Tenant::standard(TenantId::try_from("a").unwrap()))
            + 1
            > self.hard;
        let claimed = match self.controller {
            Controller::AsTheQuotaSays => there && !over,
            Controller::Unlimited => there,
            Controller::Asleep => false,
        };
        match (asked.method.as_str(), asked.last()) {
            ("GET", "resourcequotas") => {
                let status = json!({ "used": { "requests.storage": "0" } });
                ok(&json!({ "metadata": {}, "items": [{ "metadata": { "name": "q" }, "status": status }] }))
            }
            ("POST", "persistentvolumeclaims") => {
                assert!(asked.is_dry());
                if let Some(instead) = self.instead {
                    return instead();
                }
                let storage = asked.body["spec"]["resources"]["requests"]["storage"]
                    .as_str()
                    .unwrap();
                let storage: Quantity = storage.parse().unwrap();
                if DIMENSION.units(&storage) > self.hard {
                    return quota_403("requests.storage");
                }
                ok(&asked.body)
            }
            ("POST", "pods") => {
                self.pod.store(true, Ordering::Relaxed);
                ok(&asked.body)
            }
            ("GET", "events") => {
                let message = "ephemeral volume scratch: create PVC x: persistentvolumeclaims \"x\" is forbidden: exceeded quota: q, requested: requests.storage=9, used: requests.storage=1, limited: requests.storage=2";
                let event = json!({ "metadata": {}, "involvedObject": {}, "message": message });
                let told = there && over && self.controller == Controller::AsTheQuotaSays;
                ok(&json!({ "metadata": {}, "items": told.then_some(event).into_iter().collect::<Vec<_>>() }))
            }
            ("GET", "conformance-0a1b2c3d-storage") if there => {
                ok(&json!({ "metadata": { "annotations": run } }))
            }
            ("GET", "conformance-0a1b2c3d-storage-scratch") if claimed => {
                ok(&json!({ "metadata": { "labels": run } }))
            }
            ("DELETE", _) => {
                self.pod.store(false, Ordering::Relaxed);
                ok(&json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
            }
            _ => refuse(404, "NotFound", "gone"),
        }
    }
}

#[rstest]
#[case::kept(fake(20 * 1024), "passed", "exceeded quota q: requests.storage")]
#[case::missing(
    fake(i128::MAX),
    "failed",
    "storage-scratch in namespace ai-agents-a was made"
)]
#[case::raised_by_one_mebibyte(fake(20 * 1024 + 1), "failed", "PersistentVolumeClaim with requests.storage=20481Mi is denied")]
#[case::lower_than_promised(fake(1024), "failed", "quota q refused it")]
#[case::claims_of_pods_are_not_limited(Fake { controller: Controller::Unlimited, ..fake(20 * 1024) }, "failed", "was made")]
#[case::no_controller(Fake { controller: Controller::Asleep, ..fake(20 * 1024) }, "inconclusive", "neither a claim nor a refusal")]
#[case::rbac_is_not_the_quota(Fake { instead: Some(rbac_403), ..fake(20 * 1024) }, "inconclusive", "Rbac")]
#[case::another_dimension(Fake { instead: Some(|| quota_403("persistentvolumeclaims")), ..fake(20 * 1024) }, "inconclusive", "persistentvolumeclaims")]
#[case::not_authenticated(Fake { instead: Some(|| refuse(401, "Unauthorized", "who")), ..fake(20 * 1024) }, "inconclusive", "Unauthenticated")]
#[case::server_error(Fake { instead: Some(|| refuse(500, "InternalError", "etcd")), ..fake(20 * 1024) }, "inconclusive", "500")]
#[case::no_answer(Fake { instead: Some(silence), ..fake(20 * 1024) }, "inconclusive", "no answer within 15 s")]
#[tokio::test(start_paused = true)]
async fn storage_is_judged_by_the_quotas_own_refusals(
    #[case] fake: Fake,
    #[case] word: &str,
    #[case] text: &str,
) {
    let server = fake.clone();
    let (seen, all) = judged(&Quo03, move |asked| server.answer(asked)).await;
    assert_eq!(seen, word, "{all}");
    assert!(all.contains(text), "{all}");
    assert!(!fake.pod.load(Ordering::Relaxed), "the pod is gone");
}

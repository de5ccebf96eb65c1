//! All checks of webhooks against an application on loopback, whole and broken in one way each, under two contracts.

use super::*;
use crate::check;
use crate::context::Context;
use crate::scripted::{Asked, Server, log, ok, refuse, respond, serve};
use crate::settings::{self, Overrides};
use crate::subject::Subject;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How an application is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Whole,
    SignatureNotChecked,
    AnyTenantsKey,
    BodyTrimmed,
    SignaturesRemembered,
    TimestampIgnored,
    EnhancesAgain,
    TenantAsClaimed,
    QueuesSwapped,
    LogsToDatabase,
    NeverEnhances,
    RefusesWith400,
    Down,
    /// So many looks at an outcome fail.
    Unseen(usize),
}

/// How it takes webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contract {
    /// `fixtures/enhancer`'s, seen by logs.
    Enhancer,
    /// Like GitHub's, with SHA-512 in base 64 and the tenant in the Host header; seen at an address.
    Hub,
}

const HUB: &str = r#"
application:
  url: "{ingress}/hooks"
  host: "{tenant}.example.com"
  signature: { header: X-Hub-Signature-512, algorithm: hmac-sha512, encoding: base64, value: "sha512={signature}", signed: "{body}" }
  outcome: { http: { url: "{ingress}/status/{tenant}/{nonce}", expect: '"done":"{nonce}","by":"(?<worker>[a-z-]+)"' } }
  within: 2s
"#;
const ENHANCER: &str = "application: { outcome: { log: true }, within: 2s }";

/// An application of both tenants, and what it has written.
struct Application {
    contract: Contract,
    fault: Fault,
    /// The signatures of webhooks that were accepted.
    once_good: Mutex<BTreeSet<String>>,
    /// Who enhanced what, for whom.
    done: Mutex<BTreeMap<(String, String), String>>,
    looks: AtomicUsize,
    /// By pod.
    logs: Mutex<BTreeMap<String, Vec<String>>>,
}

fn key(tenant: &str) -> String {
    format!("key-of-{tenant}")
}

impl Application {
    fn log(&self, pod: &str, event: &str, nonce: &str) {
        let line = format!(r#"{{"event":"{event}","id":"{nonce}","pod":"{pod}"}}"#);
        let mut logs = self.logs.lock().unwrap();
        logs.entry(pod.to_owned()).or_default().push(line);
    }

    fn code(&self, key: &str, headers: &HeaderMap, body: &str) -> String {
        match self.contract {
            Contract::Enhancer => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
                mac.update(headers["x-webhook-timestamp"].as_bytes());
                mac.update(b".");
                mac.update(body.as_bytes());
                format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
            }
            Contract::Hub => {
                let mut mac = Hmac::<Sha512>::new_from_slice(key.as_bytes()).unwrap();
                mac.update(body.as_bytes());
                format!("sha512={}", STANDARD.encode(mac.finalize().into_bytes()))
            }
        }
    }

    fn is_timely(&self, headers: &HeaderMap) -> bool {
        if self.contract == Contract::Hub || self.fault == Fault::TimestampIgnored {
            return true;
        }
        let sent: i64 = headers["x-webhook-timestamp"].to_str().unwrap().parse().unwrap();
        (Timestamp::now().as_second() - sent).abs() <= 300
    }

    fn is_signed(&self, tenant: &str, headers: &HeaderMap, body: &str) -> bool {
        let name = match self.contract {
            Contract::Enhancer => "x-webhook-signature",
            Contract::Hub => "x-hub-signature-512",
        };
        let given = headers.get(name).and_then(|value| value.to_str().ok());
        let body = match self.fault {
            Fault::BodyTrimmed => body.trim(),
            _ => body,
        };
        let keys = match self.fault {
            Fault::AnyTenantsKey => vec!["a", "b"],
            _ => vec![tenant],
        };
        let good = keys
            .into_iter()
            .any(|tenant| given == Some(&self.code(&key(tenant), headers, body)));
        let mut once_good = self.once_good.lock().unwrap();
        if good {
            once_good.extend(given.map(str::to_owned));
        }
        let remembered = given.is_some_and(|given| once_good.contains(given));
        good || self.fault == Fault::SignaturesRemembered && remembered
    }

    fn take(&self, tenant: &str, headers: &HeaderMap, body: &str) -> StatusCode {
        if self.fault == Fault::Down {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let signed = self.fault == Fault::SignatureNotChecked || self.is_signed(tenant, headers, body);
        if !signed || !self.is_timely(headers) {
            return match self.fault {
                Fault::RefusesWith400 => StatusCode::BAD_REQUEST,
                _ => StatusCode::UNAUTHORIZED,
            };
        }
        let Ok(body) = serde_json::from_str::<Value>(body) else {
            return StatusCode::BAD_REQUEST;
        };
        let nonce = body["id"].as_str().unwrap();
        self.log(&format!("api-{tenant}"), "webhook accepted", nonce);
        let claimed = body["tenant"].as_str();
        let tenant = match (self.fault, claimed, tenant) {
            (Fault::TenantAsClaimed, Some(claimed), _) => claimed,
            (Fault::QueuesSwapped, _, "a") => "b",
            (Fault::QueuesSwapped, _, _) => "a",
            (_, _, tenant) => tenant,
        };
        self.enhance(tenant, nonce);
        StatusCode::ACCEPTED
    }

    fn enhance(&self, tenant: &str, nonce: &str) {
        if self.fault == Fault::NeverEnhances {
            return;
        }
        let worker = format!("worker-{tenant}");
        let mut done = self.done.lock().unwrap();
        let before = done.insert((tenant.to_owned(), nonce.to_owned()), worker.clone());
        if before.is_some() && self.fault != Fault::EnhancesAgain {
            return self.log(&worker, "webhook repeated", nonce);
        }
        self.log(&worker, "webhook enhanced", nonce);
        if self.fault == Fault::LogsToDatabase {
            self.log("postgresql", "webhook enhanced", nonce);
        }
    }
}

async fn hook(
    State(application): State<Arc<Application>>,
    tenant: Option<Path<String>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let host = headers["host"]
        .to_str()
        .unwrap()
        .split('.')
        .next()
        .unwrap()
        .to_owned();
    let tenant = tenant.map_or(host, |Path(tenant)| tenant);
    if !["a", "b"].contains(&tenant.as_str()) {
        return StatusCode::NOT_FOUND;
    }
    application.take(&tenant, &headers, std::str::from_utf8(&body).unwrap())
}

async fn status(
    State(application): State<Arc<Application>>,
    Path((tenant, nonce)): Path<(String, String)>,
) -> Response {
    let looks = application.looks.fetch_add(1, Ordering::SeqCst);
    if matches!(application.fault, Fault::Unseen(fail) if looks < fail) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let done = application.done.lock().unwrap();
    match done.get(&(tenant, nonce.clone())) {
        Some(worker) => format!(r#"{{"done":"{nonce}","by":"{worker}"}}"#).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The API server's side: the tenants' keys, pods and logs.
fn cluster(application: &Application, asked: &Asked) -> Response {
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    let pods: &[&str] = match parts.get(3) {
        Some(&"ai-agents-a") => &["api-a", "worker-a"],
        Some(&"ai-agents-b") => &["api-b", "worker-b"],
        Some(&"database") => &["postgresql"],
        _ => &[],
    };
    match parts[4..] {
        ["secrets", "ai-agents-credentials"] => {
            let key = STANDARD.encode(key(parts[3].trim_start_matches("ai-agents-")));
            ok(
                &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "data": { "WEBHOOK_SECRET": key } }),
            )
        }
        ["pods"] => {
            let pod = |name: &&str| {
                let app = format!("ai-agents-{}", name.split('-').next().unwrap());
                json!({
                    "metadata": { "name": name, "labels": { "app": app } },
                    "status": {
                        "conditions": [{ "type": "Ready", "status": "True" }],
                        "containerStatuses": [{ "name": "c", "image": "i", "imageID": "i@sha256:0", "ready": true, "restartCount": 0, "state": { "running": {} } }],
                    },
                })
            };
            let pods: Vec<Value> = pods.iter().map(pod).collect();
            ok(&json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods }))
        }
        ["pods", name, "log"] => {
            let logs = application.logs.lock().unwrap();
            log(&logs.get(name).cloned().unwrap_or_default().join("\n"))
        }
        _ => refuse(404, "NotFound", &asked.path),
    }
}

/// Both servers, and a context that knows them.
async fn context(contract: Contract, fault: Fault) -> ([Server; 2], Context) {
    let application = Arc::new(Application {
        contract,
        fault,
        once_good: Mutex::default(),
        done: Mutex::default(),
        looks: AtomicUsize::new(0),
        logs: Mutex::default(),
    });
    let router = Router::new()
        .route("/webhook/{tenant}", post(hook))
        .route("/hooks", post(hook))
        .route("/status/{tenant}/{nonce}", get(status))
        .with_state(Arc::clone(&application));
    let ingress = serve(router).await;
    let server = respond(move |asked| cluster(&application, asked)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("settings.yaml");
    let text = match contract {
        Contract::Enhancer => ENHANCER,
        Contract::Hub => HUB,
    };
    std::fs::write(&file, text).unwrap();
    let overrides = Overrides {
        config: Some(file),
        ..Overrides::default()
    };
    let resolved = settings::resolve("scripted", &overrides).unwrap().application;
    let tenants = ["a", "b"].map(|id| Resource::Tenant(TenantId::try_from(id).unwrap()));
    let mut needs = BTreeSet::from(tenants);
    needs.extend([Resource::Webhooks, Resource::Deliveries]);
    let cx = server.context_with(&needs, |settings| {
        settings.application = resolved;
        settings.application.ingress = Some(ingress.url().to_owned());
    });
    ([ingress, server], cx)
}

const CHECKS: [&str; 7] = [
    "APP-01", "APP-02", "APP-03", "APP-05", "APP-07", "APP-08", "APP-09",
];

/// What each check concludes of `a`, or of `a` towards `b`: its initial in the order of [`CHECKS`], and its text.
async fn judged(cx: &Context) -> (String, Vec<String>) {
    let tenants = ["a", "b"].map(|id| TenantId::try_from(id).unwrap());
    let verdicts = CHECKS.map(|id| {
        let check = check::find(id).unwrap();
        let subject: Subject = check.subjects(&tenants).remove(0);
        async move { check.run(cx, &subject).await.unwrap() }
    });
    let verdicts = futures::future::join_all(verdicts).await;
    let initials = verdicts
        .iter()
        .filter_map(|verdict| verdict.word().chars().next());
    let texts = CHECKS
        .iter()
        .zip(&verdicts)
        .map(|(id, verdict)| format!("{id} {verdict:?}"));
    (initials.collect(), texts.collect())
}

#[rstest]
#[case::whole(Contract::Enhancer, Fault::Whole, "ppppppp")]
#[case::signature_not_checked(Contract::Enhancer, Fault::SignatureNotChecked, "ffffppp")]
#[case::any_tenants_key(Contract::Enhancer, Fault::AnyTenantsKey, "pfppppp")]
#[case::body_trimmed(Contract::Enhancer, Fault::BodyTrimmed, "ppfpppp")]
#[case::signatures_remembered(Contract::Enhancer, Fault::SignaturesRemembered, "ppfpppp")]
#[case::timestamp_ignored(Contract::Enhancer, Fault::TimestampIgnored, "pppfppp")]
#[case::enhances_again(Contract::Enhancer, Fault::EnhancesAgain, "pppfppp")]
#[case::tenant_as_claimed(Contract::Enhancer, Fault::TenantAsClaimed, "ppppfpp")]
#[case::queues_swapped(Contract::Enhancer, Fault::QueuesSwapped, "ppppfff")]
#[case::logs_to_the_database(Contract::Enhancer, Fault::LogsToDatabase, "pppppfp")]
#[case::never_enhances(Contract::Enhancer, Fault::NeverEnhances, "iiiiiff")]
#[case::refuses_for_another_reason(Contract::Enhancer, Fault::RefusesWith400, "iiiippp")]
#[case::down(Contract::Enhancer, Fault::Down, "iiiiiii")]
#[case::another_contract(Contract::Hub, Fault::Whole, "ppppppp")]
#[case::another_contract_not_checked(Contract::Hub, Fault::SignatureNotChecked, "fffpppp")]
#[case::another_contract_swapped(Contract::Hub, Fault::QueuesSwapped, "ppppfff")]
#[tokio::test]
async fn each_fault_is_seen_by_the_checks_that_it_concerns(
    #[case] contract: Contract,
    #[case] fault: Fault,
    #[case] expected: &str,
) {
    let (_servers, cx) = context(contract, fault).await;
    let (initials, texts) = judged(&cx).await;
    assert_eq!(initials, expected, "{texts:#?}");
    for text in &texts {
        assert!(!text.contains("key-of-"), "a key is shown: {text}");
    }
    assert_eq!(
        texts.iter().any(|text| text.contains("not covered")),
        contract == Contract::Hub && initials.as_bytes()[3] == b'p'
    );
}

#[rstest]
#[case::at_first(2, true)]
#[case::until_the_end(usize::MAX, false)]
#[tokio::test]
async fn a_look_that_fails_is_repeated_until_the_time_is_over(#[case] fail: usize, #[case] expected: bool) {
    let (_servers, cx) = context(Contract::Hub, Fault::Unseen(fail)).await;
    let webhooks = cx.stage.webhooks().await.unwrap();
    let tenant = TenantId::try_from("a").unwrap();
    let message = webhooks.valid(&tenant).unwrap();
    assert!(webhooks.send(&message).await.is_accepted());
    let deadline = Instant::now() + Duration::from_secs(2);
    let nonces = [message.nonce];
    let seen = webhooks.await_effects(&tenant, &nonces, deadline).await;
    assert_eq!(seen.is_ok_and(|seen| seen.contains_key(&nonces[0])), expected);
}

#[rstest]
#[case::enhanced(Fault::Whole, false)]
#[case::queued(Fault::NeverEnhances, true)]
#[case::refused(Fault::RefusesWith400, false)]
#[case::perhaps_taken(Fault::Down, true)]
#[tokio::test]
async fn webhooks_that_may_be_enhanced_yet_are_known(#[case] fault: Fault, #[case] expected: bool) {
    let (_servers, cx) = context(Contract::Hub, fault).await;
    let webhooks = cx.stage.webhooks().await.unwrap();
    assert!(!webhooks.any_unseen().await);
    let tenant = TenantId::try_from("a").unwrap();
    let message = match fault {
        Fault::RefusesWith400 => webhooks.message(&tenant),
        _ => webhooks.valid(&tenant),
    };
    webhooks.send(&message.unwrap()).await;
    assert_eq!(webhooks.any_unseen().await, expected);
}

#[rstest]
#[case::all_seen(false, &[Some(3)], 1, 0)]
#[case::it_fails_once(false, &[None, Some(3)], 2, 1)]
#[case::it_fails_to_the_end(false, &[None; 7], 7, 6)]
#[case::nothing_comes(true, &[Some(3), Some(0), Some(0)], 3, 2)]
#[case::it_fails_first(true, &[None, None, Some(0), Some(0)], 4, 3)]
#[case::more_comes(true, &[Some(3), Some(0), Some(1), Some(0), Some(0)], 5, 4)]
#[case::it_never_ends(true, &[Some(1); 7], 7, 6)]
#[tokio::test(start_paused = true)]
async fn what_may_come_yet_is_removed_again(
    #[case] late: bool,
    #[case] rows: &[Option<u64>],
    #[case] rounds: usize,
    #[case] seconds: u64,
) {
    let (begin, count) = (Instant::now(), AtomicUsize::new(0));
    let failed = removed(late, || {
        let round = count.fetch_add(1, Ordering::SeqCst);
        let failed = rows[round].is_none().then(|| format!("round {round}"));
        std::future::ready((rows[round].unwrap_or_default(), Vec::from_iter(failed)))
    })
    .await;
    assert_eq!(count.into_inner(), rounds);
    assert_eq!(
        failed.first(),
        rows[rounds - 1]
            .is_none()
            .then(|| format!("round {}", rounds - 1))
            .as_ref()
    );
    assert_eq!(begin.elapsed().as_secs(), seconds);
}

#[tokio::test]
async fn a_tenant_without_a_key_leaves_its_checks_undecided_with_the_place() {
    let server = respond(|asked| refuse(404, "NotFound", &asked.path)).await;
    let tenants = ["a", "b"].map(|id| Resource::Tenant(TenantId::try_from(id).unwrap()));
    let mut needs = BTreeSet::from(tenants);
    needs.insert(Resource::Webhooks);
    let cx = server.context(&needs);
    let check = check::find("APP-01").unwrap();
    let subject = Subject::Tenant(TenantId::try_from("a").unwrap());
    let error = check.run(&cx, &subject).await.unwrap_err();
    assert!(
        error
            .what
            .contains("secret ai-agents-credentials in namespace ai-agents-a"),
        "{error}"
    );
    assert!(error.hint.is_some());
}

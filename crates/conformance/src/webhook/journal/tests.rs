use super::*;
use crate::scripted::{Asked, Server, log, ok, refuse, respond};
use crate::settings::application::Outcome;
use crate::settings::template::Template;
use axum::response::{IntoResponse, Response};
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

const NONCE: &str = "conformance-0a1b2c3d-0123456789abcdef";

fn container(name: &str, restarts: i32, state: &str) -> Value {
    json!({ "name": name, "image": "i", "imageID": "i@sha256:0", "ready": true, "restartCount": restarts, "state": { state: {} } })
}

/// The one before it ended so many seconds ago.
fn restarted(name: &str, state: &str, ago: i64) -> Value {
    let mut container = container(name, 1, state);
    let ended = Timestamp::now() - SignedDuration::from_secs(ago);
    container["lastState"] = json!({ "terminated": { "exitCode": 1, "finishedAt": ended.to_string() } });
    container
}

fn pod(name: &str, app: &str, containers: &[Value]) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app": app } },
        "status": { "containerStatuses": containers, "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

fn listed(pods: &[Value]) -> Response {
    ok(&json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods }))
}

async fn journal(script: impl Fn(&Asked) -> Response + Clone + Send + Sync + 'static) -> (Server, Journal) {
    let server = respond(script).await;
    let cx = server.context(&BTreeSet::new());
    let journal = Journal::new(Arc::clone(&cx.site), vec!["ai-agents-a".into(), "default".into()]).unwrap();
    (server, journal)
}

fn worker_log() -> String {
    [
        format!(r#"{{"event":"webhook enhanced","tenant":"a","id":"{NONCE}","worker":"w"}}"#),
        r#"{"event":"webhook enhanced","id":"conformance-99999999-0123456789abcdef"}"#.to_owned(),
        format!("LOG:  statement: {OWN_STATEMENT} select '{NONCE}'"),
        "started".to_owned(),
    ]
    .join("\n")
}

/// A worker that was restarted, and in `default` something else.
fn cluster(asked: &Asked) -> Response {
    let previous = asked.query.contains("previous=true");
    match (asked.path.as_str(), previous) {
        ("/api/v1/namespaces/ai-agents-a/pods", _) => {
            assert!(
                asked
                    .query
                    .contains("labelSelector=%21ai-agents-platform%2Fprobe"),
                "{}",
                asked.query
            );
            listed(&[
                pod("w", "ai-agents-worker", &[restarted("worker", "running", 1)]),
                pod("new", "ai-agents-worker", &[container("worker", 0, "waiting")]),
            ])
        }
        ("/api/v1/namespaces/default/pods", _) => {
            listed(&[pod("other", "x", &[container("c", 0, "running")])])
        }
        ("/api/v1/namespaces/ai-agents-a/pods/w/log", false) => {
            assert!(
                asked
                    .query
                    .contains("container=worker&limitBytes=8388608&sinceTime="),
                "{}",
                asked.query
            );
            log(&worker_log())
        }
        ("/api/v1/namespaces/ai-agents-a/pods/w/log", true) => log(&format!("accepted {NONCE}")),
        ("/api/v1/namespaces/default/pods/other/log", false) => log("nothing"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_log_is_read_and_only_lines_of_the_runs_webhooks_are_kept() {
    let (_server, journal) = journal(cluster).await;
    let logs = journal.read().await;
    assert_eq!(logs.gaps, BTreeMap::new());
    assert_eq!(
        logs.read,
        BTreeMap::from([("ai-agents-a".into(), 2), ("default".into(), 1)])
    );
    assert_eq!(logs.of(NONCE).count(), 2, "{:?}", logs.lines);
    let enhanced: Vec<&Line> = logs.enhanced(NONCE).collect();
    assert_eq!((enhanced.len(), enhanced[0].pod.as_str()), (1, "w"));
    let image = &logs.pods["ai-agents-a"][0];
    assert_eq!(
        (image.ids.as_slice(), image.ready),
        (&["i@sha256:0".to_owned()][..], true)
    );
    assert!(
        logs.readable(["ai-agents-a", "default"].into_iter())
            .holds
            .is_ok()
    );
}

#[rstest]
#[case::in_the_path("{ingress}/status/{tenant}/{nonce}?brief", "GET /status/b/NONCE 404", 0)]
#[case::in_the_query("{ingress}/status/{tenant}?id={nonce}", "GET /status/b?id=NONCE 404", 0)]
#[case::elsewhere("{ingress}/status/{tenant}?id={nonce}", "POST /webhook/b NONCE 202", 1)]
#[case::at_nobodys("{ingress}/status/{tenant}/{nonce}", "GET /status/c/NONCE 404", 1)]
#[case::of_another(
    "{ingress}/status/{tenant}/{nonce}",
    "GET /status/b/conformance-0a1b2c3d-ffffffffffffffff NONCE",
    1
)]
#[case::enhanced(
    "{ingress}/status/{tenant}/{nonce}",
    r#"{"event":"webhook enhanced","id":"NONCE","see":"/status/a/NONCE"}"#,
    1
)]
#[tokio::test]
async fn the_runs_own_looks_are_not_the_applications_words(
    #[case] url: &str,
    #[case] line: &str,
    #[case] expected: usize,
) {
    let line = line.replace("NONCE", NONCE);
    let server = respond(move |asked| match asked.path.as_str() {
        "/api/v1/namespaces/ai-agents-a/pods/api/log" => log(&line),
        _ => listed(&[pod("api", "ai-agents-api", &[container("api", 0, "running")])]),
    })
    .await;
    let cx = server.context_with(&BTreeSet::new(), |settings| {
        settings.application.ingress = Some("http://127.0.0.1:8080".into());
        settings.application.outcome = Outcome::Http {
            url: Template::parse(url, &["ingress", "tenant", "nonce"]).unwrap(),
            host: None,
            expect: Regex::new("done").unwrap(),
        };
    });
    let journal = Journal::new(Arc::clone(&cx.site), vec!["ai-agents-a".into()]).unwrap();
    let logs = journal.read().await;
    assert_eq!(logs.gaps, BTreeMap::new());
    assert_eq!(logs.of(NONCE).count(), expected, "{:?}", logs.lines);
}

#[rstest]
#[case::never_restarted(container("c", 0, "running"), &[false])]
#[case::restarted(restarted("c", "running", 1), &[false, true])]
#[case::restarted_long_ago(restarted("c", "running", 3600), &[false])]
#[case::collected(container("c", 1, "running"), &[false])]
#[case::to_be_restarted(restarted("c", "waiting", 1), &[false])]
#[case::not_started(container("c", 0, "waiting"), &[])]
fn a_container_has_the_logs_that_the_kubelet_has(#[case] container: Value, #[case] expected: &[bool]) {
    let pod: Pod = serde_json::from_value(pod("p", "x", &[container])).unwrap();
    let since = Timestamp::now() - MARGIN;
    let previous: Vec<bool> = sources("n", &pod, &BTreeMap::new(), since)
        .iter()
        .map(|source| source.previous)
        .collect();
    assert_eq!(previous, expected);
}

#[rstest]
#[case::no_list("/api/v1/namespaces/default/pods", "list pods in namespace default")]
#[case::no_log(
    "/api/v1/namespaces/default/pods/other/log",
    "read the log of container c of pod other in namespace default"
)]
#[tokio::test]
async fn what_cannot_be_read_is_a_gap(#[case] path: &'static str, #[case] expected: &str) {
    let (_server, journal) = journal(move |asked| {
        if asked.path == path {
            refuse(403, "Forbidden", "no")
        } else {
            cluster(asked)
        }
    })
    .await;
    let logs = journal.read().await;
    let gap = logs.gap(["default"]).unwrap();
    assert!(gap.starts_with(expected), "{gap}");
    assert_eq!(logs.gap(["ai-agents-a"]), None);
    assert!(
        logs.readable(["ai-agents-a", "default"].into_iter())
            .holds
            .is_err()
    );
}

#[tokio::test]
async fn a_log_that_is_too_long_is_a_gap() {
    let (_server, journal) = journal(|asked| {
        if asked.path.ends_with("/other/log") {
            "x".repeat(LONGEST).into_response()
        } else {
            cluster(asked)
        }
    })
    .await;
    let gap = journal.read().await.gap(["default"]).unwrap();
    assert!(gap.contains("longer than 8388608 bytes"), "{gap}");
}

#[tokio::test]
async fn a_pod_that_goes_takes_its_log_along() {
    let asked_for = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_for);
    let (_server, journal) = journal(move |asked| {
        if asked.path == "/api/v1/namespaces/default/pods" && count.fetch_add(1, Ordering::SeqCst) > 0 {
            listed(&[])
        } else {
            cluster(asked)
        }
    })
    .await;
    assert_eq!(journal.read().await.gap(["default"]), None);
    let gap = journal.read().await.gap(["default"]).unwrap();
    assert_eq!(
        gap,
        "pod other in namespace default has gone, and its log with it: run again"
    );
}

#[tokio::test]
async fn many_that_ask_at_the_same_time_are_one_reading() {
    let lists = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lists);
    let (_server, journal) = journal(move |asked| {
        if asked.path == "/api/v1/namespaces/default/pods" {
            count.fetch_add(1, Ordering::SeqCst);
        }
        cluster(asked)
    })
    .await;
    let readings = (0..10).map(|_| journal.read());
    join_all(readings).await;
    assert!(lists.load(Ordering::SeqCst) <= 2, "{lists:?}");
}

/// One container of the pod `other`, at a reading.
#[derive(Clone, Copy)]
struct At {
    uid: &'static str,
    restarts: i32,
    state: &'static str,
    /// How many seconds ago the one before it ended.
    ended: Option<i64>,
    /// What can be read, and of the one before it.
    log: &'static str,
    previous: &'static str,
}

const BEGUN: At = At {
    uid: "u",
    restarts: 3,
    state: "running",
    ended: None,
    log: "first\n",
    previous: "",
};
const GREW: At = At {
    log: "first\nsecond\n",
    ..BEGUN
};
const RESTARTED: At = At {
    restarts: 4,
    ended: Some(0),
    log: "another\n",
    previous: "first\n",
    ..BEGUN
};
const BACK_OFF: At = At {
    state: "waiting",
    ended: Some(0),
    ..BEGUN
};

#[rstest]
#[case::it_grows(BEGUN, GREW, None)]
#[case::rotated(BEGUN, At { log: "second", ..BEGUN }, Some("it was rotated"))]
#[case::rotated_and_nothing_since(BEGUN, At { log: "", ..BEGUN }, Some("it was rotated"))]
#[case::restarted(BEGUN, RESTARTED, None)]
#[case::restarted_and_the_one_before_was_rotated(BEGUN, At { previous: "second", ..RESTARTED }, Some("it was rotated"))]
#[case::restarted_and_the_one_before_was_collected(BEGUN, At { ended: None, ..RESTARTED }, Some("it was restarted"))]
#[case::restarted_twice(BEGUN, At { restarts: 5, ..RESTARTED }, Some("it was restarted"))]
#[case::restarted_and_in_back_off(BEGUN, At { restarts: 4, ..BACK_OFF }, Some("it was restarted"))]
#[case::in_back_off(BEGUN, BACK_OFF, None)]
#[case::in_back_off_from_the_beginning(BACK_OFF, RESTARTED, None)]
#[case::in_back_off_from_the_beginning_and_restarted_twice(BACK_OFF, At { restarts: 5, previous: "second", ..RESTARTED }, None)]
#[case::in_back_off_from_the_beginning_and_restarted_thrice(BACK_OFF, At { restarts: 6, ..RESTARTED }, Some("it was restarted"))]
#[case::in_a_long_back_off_from_the_beginning(At { ended: Some(300), ..BACK_OFF }, RESTARTED, None)]
#[case::never_started_at_first(At { restarts: 0, ended: None, ..BACK_OFF }, At { restarts: 0, ..BEGUN }, None)]
#[case::never_started_at_first_and_restarted_twice(At { restarts: 0, ended: None, ..BACK_OFF }, At { restarts: 2, ..RESTARTED }, Some("it was restarted"))]
#[case::another_of_the_same_name(BEGUN, At { uid: "v", ..BEGUN }, Some("has gone"))]
#[tokio::test]
async fn a_log_that_lost_something_between_two_readings_is_a_gap(
    #[case] first: At,
    #[case] then: At,
    #[case] expected: Option<&str>,
) {
    let lists = Arc::new(AtomicUsize::new(0));
    let (_server, journal) = journal(move |asked| {
        let (path, previous) = (asked.path.as_str(), asked.query.contains("previous=true"));
        if path == "/api/v1/namespaces/default/pods" {
            lists.fetch_add(1, Ordering::SeqCst);
        }
        let now = if lists.load(Ordering::SeqCst) == 1 {
            first
        } else {
            then
        };
        match path {
            "/api/v1/namespaces/default/pods" => {
                let mut container = match now.ended {
                    Some(ago) => restarted("c", now.state, ago),
                    None => container("c", 0, now.state),
                };
                container["restartCount"] = json!(now.restarts);
                let mut pod = pod("other", "other", &[container]);
                pod["metadata"]["uid"] = json!(now.uid);
                listed(&[pod])
            }
            "/api/v1/namespaces/default/pods/other/log" if previous => log(now.previous),
            "/api/v1/namespaces/default/pods/other/log" => log(now.log),
            _ => cluster(asked),
        }
    })
    .await;
    assert_eq!(journal.read().await.gap(["default"]), None);
    for reading in 2..4 {
        let gap = journal.read().await.gap(["default"]);
        match (gap, expected) {
            (None, None) => {}
            (Some(gap), Some(expected)) => assert!(gap.contains(expected), "{reading}: {gap}"),
            other => panic!("{reading}: {other:?}"),
        }
    }
}

/// What is wrong with one reading, of all pods or of a log.
#[rstest]
#[case::a_log_at_first("log", 1, [true, false, false])]
#[case::a_log_later("log", 2, [false, true, false])]
#[case::a_log_that_was_collected("collected", 2, [false, true, false])]
#[case::a_log_whose_end_cannot_be_read("cut", 2, [false, true, false])]
#[case::the_pods_at_first("pods", 1, [true, true, true])]
#[case::the_pods_later("pods", 2, [false, true, false])]
#[tokio::test]
async fn what_could_not_be_read_once_is_a_gap_for_as_long_as_it_matters(
    #[case] what: &'static str,
    #[case] reading: usize,
    #[case] expected: [bool; 3],
) {
    let lists = Arc::new(AtomicUsize::new(0));
    let (_server, journal) = journal(move |asked| {
        let is_list = asked.path == "/api/v1/namespaces/default/pods";
        let now = match is_list {
            true => lists.fetch_add(1, Ordering::SeqCst) + 1,
            false => lists.load(Ordering::SeqCst),
        };
        match (asked.path.as_str(), what) {
            (_, "pods") if is_list && now == reading => refuse(403, "Forbidden", "no pods"),
            _ if is_list => listed(&[pod("other", "other", &[container("c", 0, "running")])]),
            ("/api/v1/namespaces/default/pods/other/log", "log") if now == reading => {
                refuse(403, "Forbidden", "no log")
            }
            ("/api/v1/namespaces/default/pods/other/log", "collected") if now == reading => {
                "unable to retrieve container logs for containerd://0a1b".into_response()
            }
            ("/api/v1/namespaces/default/pods/other/log", "cut") if now == reading => {
                "2026-11-22T10:00:00.1Z first\nfailed to read log file".into_response()
            }
            ("/api/v1/namespaces/default/pods/other/log", _) => log("first"),
            _ => cluster(asked),
        }
    })
    .await;
    for (index, expected) in expected.into_iter().enumerate() {
        let gap = journal.read().await.gap(["default"]);
        assert_eq!(gap.is_some(), expected, "reading {}: {gap:?}", index + 1);
    }
}

#[tokio::test]
async fn what_had_ended_before_the_run_may_go() {
    let lists = Arc::new(AtomicUsize::new(0));
    let (_server, journal) = journal(move |asked| {
        if asked.path != "/api/v1/namespaces/default/pods" {
            return cluster(asked);
        }
        let mut ended = container("c", 0, "terminated");
        ended["state"]["terminated"] = json!({ "exitCode": 0, "finishedAt": "2026-01-01T00:00:00Z" });
        let mut job = pod("job", "job", &[ended]);
        job["status"]["phase"] = json!("Succeeded");
        let is_first = lists.fetch_add(1, Ordering::SeqCst) == 0;
        listed(if is_first { std::slice::from_ref(&job) } else { &[] })
    })
    .await;
    for _ in 0..2 {
        assert_eq!(journal.read().await.gap(["default"]), None);
    }
}

#[rstest]
#[case::the_kubelets("2026-11-22T10:00:00.123456789Z {\"event\":\"e\"}", Some("{\"event\":\"e\"}"))]
#[case::of_an_empty_line("2026-11-22T10:00:00.123456789Z ", Some(""))]
#[case::one_of_its_own(
    "2026-11-22T10:00:00.1Z 2026-11-22T10:00:00Z said",
    Some("2026-11-22T10:00:00Z said")
)]
#[case::none("failed to get parse function: unsupported log format", None)]
#[case::nothing("", None)]
fn the_kubelets_times_are_not_the_containers_words(#[case] line: &str, #[case] expected: Option<&str>) {
    assert_eq!(without_time(line), expected);
}

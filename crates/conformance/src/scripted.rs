//! For tests: an API server on loopback that answers what a test says, HTTP and websockets, and a [`Context`] that talks to it. Two tenants,
//! `a` and `b`, count as being there already.

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::context::Context;
use crate::event::Events;
use crate::ledger::Ledger;
use crate::manifest::Mark;
use crate::names::RunId;
use crate::resource::Place;
use crate::settings::{self, Overrides};
use crate::stage::{Site, Stage, Surroundings};
use crate::subject::Subject;
use axum::Router;
use axum::extract::Request;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use probe::protocol::{Ask, Ending, Question};
use provisioner::TenantId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// A server, and the directory of the ledger of the run that talks to it.
pub(crate) struct Server {
    url: String,
    state: tempfile::TempDir,
}

/// Serves this router until the test ends.
pub(crate) async fn serve(router: Router) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server {
        url,
        state: tempfile::tempdir().unwrap(),
    }
}

/// Serves what a function answers to each request.
pub(crate) async fn answer(script: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static) -> Server {
    serve(Router::new().fallback(move |request: Request| std::future::ready(script(&request)))).await
}

impl Server {
    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::try_from(self.config()).unwrap()
    }

    fn config(&self) -> kube::Config {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = kube::Config::new(self.url.parse().unwrap());
        config.default_retry = false;
        config
    }

    /// A context for a run of everything that these subjects' tenants need.
    pub(crate) fn context(&self, needs: &BTreeSet<crate::resource::Resource>) -> Context {
        self.context_with(needs, |_| {})
    }

    /// The same with settings of the test's own.
    pub(crate) fn context_with(
        &self,
        needs: &BTreeSet<crate::resource::Resource>,
        change: impl FnOnce(&mut settings::Settings),
    ) -> Context {
        let overrides = Overrides {
            tenants: Some(vec!["a".into(), "b".into()]),
            ..Overrides::default()
        };
        let mut settings = settings::resolve("scripted", &overrides).unwrap();
        change(&mut settings);
        let run = RunId::parse("0a1b2c3d").unwrap();
        let ledger = Ledger::open(self.state.path(), &run, "uid").unwrap();
        let mark = Mark {
            run,
            expires: jiff::Timestamp::MAX,
        };
        let (events, _) = Events::channel();
        let cluster = Cluster::unseen(self.client(), self.config());
        let site = Arc::new(Site {
            cluster,
            settings,
            mark,
            ledger,
            events,
            absent: Vec::new(),
            shared: Vec::new(),
            templates: std::collections::BTreeMap::new(),
            services: crate::fault::Services::default(),
            by_hand: crate::fault::ByHand::default(),
        });
        let stage = Stage::new(&site, needs, &Surroundings::default());
        Context {
            site,
            stage,
            before_clean_up: OnceLock::new(),
        }
    }
}

/// What a test expects of a verdict: its word, and something that its text says.
pub(crate) fn word_and_text(verdict: &crate::verdict::Verdict) -> (&'static str, String) {
    (verdict.word(), format!("{verdict:?}"))
}

/// `a` towards `b`.
pub(crate) fn pair() -> Subject {
    Subject::Pair(TenantId::try_from("a").unwrap(), TenantId::try_from("b").unwrap())
}

/// A body with status 200.
pub(crate) fn ok(body: &Value) -> Response {
    reply(200, body)
}

/// A log as the kubelet gives it, with times.
pub(crate) fn log(text: &str) -> Response {
    let line = |line| format!("2026-11-22T10:00:00.123456789Z {line}\n");
    text.lines().map(line).collect::<String>().into_response()
}

/// A `Status` with this code, reason and message.
pub(crate) fn refuse(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    reply(code, &body)
}

fn reply(code: u16, body: &Value) -> Response {
    let status = axum::http::StatusCode::from_u16(code).unwrap();
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

/// A request as a script sees it.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: Value,
}

impl Asked {
    /// The last part of the path: a resource, a name or a subresource.
    pub(crate) fn last(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether nothing is to be changed. A deletion's options are its body's, where it has one.
    pub(crate) fn is_dry(&self) -> bool {
        if self.method == "DELETE" && !self.body.is_null() {
            return self.body["dryRun"] == json!(["All"]);
        }
        self.query.contains("dryRun=All")
    }

    /// A header that occurs once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Serves what a function answers to each request, its body included; [`silence`] is never answered.
pub(crate) async fn respond(script: impl Fn(&Asked) -> Response + Clone + Send + Sync + 'static) -> Server {
    let route = move |request: Request| {
        let script = script.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let asked = Asked {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            };
            let response = script(&asked);
            if response.extensions().get::<Silence>().is_some() {
                std::future::pending::<()>().await;
            }
            response
        }
    };
    serve(Router::new().fallback(route)).await
}

#[derive(Clone)]
struct Silence;

/// An answer that never comes.
pub(crate) fn silence() -> Response {
    let mut response = reply(200, &Value::Null);
    response.extensions_mut().insert(Silence);
    response
}

/// What a check concludes of `a`, or of the cluster, before this server; an error of its own as the undecided verdict that the runner makes of it.
pub(crate) async fn judged(
    check: &dyn crate::check::Check,
    script: impl Fn(&Asked) -> Response + Clone + Send + Sync + 'static,
) -> (&'static str, String) {
    let server = respond(script).await;
    let tenants = ["a", "b"].map(|id| TenantId::try_from(id).unwrap());
    let subject = check.subjects(&tenants).remove(0);
    let needs = check.needs(&subject, &tenants).into_iter().collect();
    let cx = server.context(&needs);
    let verdict = match check.run(&cx, &subject).await {
        Ok(verdict) => verdict,
        Err(error) => crate::verdict::Verdict::Inconclusive(error.into()),
    };
    assert!(
        !verdict.word().eq("passed") || cx.site.ledger.newest_first().is_empty(),
        "left behind: {:?}",
        cx.site.ledger.newest_first()
    );
    word_and_text(&verdict)
}

/// Answers the requests by which a tenant's account gets its token and is asked who it is; `account` is what the token turns out to be.
pub(crate) fn token(asked: &Asked, account: &str) -> Option<Response> {
    match asked.last() {
        "token" if asked.path.ends_with("/sa-a/token") => Some(ok(&json!({
            "metadata": {}, "spec": { "audiences": [] },
            "status": { "token": "a", "expirationTimestamp": "2026-01-01T00:00:00Z" },
        }))),
        "selfsubjectreviews" => Some(ok(
            &json!({ "metadata": {}, "status": { "userInfo": { "username": account } } }),
        )),
        _ => None,
    }
}

/// What `a`'s account is called.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:ai-agents-a:sa-a";

/// RBAC's own refusal.
pub(crate) fn rbac_403() -> Response {
    let message = format!("x is forbidden: User \"{ACCOUNT}\" cannot do this");
    refuse(403, "Forbidden", &message)
}

/// A quota's refusal for one dimension.
pub(crate) fn quota_403(dimension: &str) -> Response {
    let message = format!(
        "x is forbidden: exceeded quota: q, requested: {dimension}=9, used: {dimension}=1, limited: {dimension}=2"
    );
    refuse(403, "Forbidden", &message)
}

/// Pod Security's.
pub(crate) fn pod_security_403() -> Response {
    refuse(
        403,
        "Forbidden",
        "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": privileged",
    )
}

/// An agent in a pod of this script: each attempt ends as it says, by its port and the number of the question (from zero), and where it says
/// nothing the connection is cut. Its listeners saw the nonces of the attempts that were made at the ports `seen`.
pub(crate) async fn agent(
    script: fn(u16, usize) -> Option<Ending>,
    seen: &'static [u16],
) -> (Server, Arc<Agent>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let sightings = Arc::new(Mutex::new(Vec::new()));
    let route = any(move |upgrade: WebSocketUpgrade| async move {
        let converse = move |socket| converse(socket, script, seen, asked, sightings);
        upgrade.protocols(["v5.channel.k8s.io"]).on_upgrade(converse)
    });
    let server = serve(Router::new().fallback(route)).await;
    let agent = Agent::new(
        server.client(),
        Place::Sink,
        "n".into(),
        "p".into(),
        "10.0.0.1".into(),
        "node".into(),
    );
    (server, Arc::new(agent))
}

async fn converse(
    mut socket: WebSocket,
    script: fn(u16, usize) -> Option<Ending>,
    seen: &[u16],
    asked: Arc<AtomicUsize>,
    sightings: Arc<Mutex<Vec<String>>>,
) {
    while let Some(Ok(Message::Binary(frame))) = socket.recv().await {
        let Ask { ask, question } = serde_json::from_slice(&frame[1..]).unwrap();
        let mut parts = Vec::new();
        match question {
            Question::Attempt(request) => {
                let round = asked.fetch_add(1, Ordering::Relaxed);
                for attempt in request.attempts {
                    let Some(ending) = script(attempt.port, round) else {
                        return;
                    };
                    if seen.contains(&attempt.port) {
                        sightings.lock().unwrap().push(attempt.nonce.clone());
                    }
                    parts.push(
                        json!({ "outcome": { "id": attempt.id, "ending": ending, "echoed": false, "total_ms": attempt.timeout_ms } }),
                    );
                }
            }
            Question::Witness(_) => {
                let nonces = sightings.lock().unwrap().clone();
                parts.extend(nonces.iter().map(|nonce| {
                    json!({ "sighting": { "nonce": nonce, "from": "10.0.0.2:1", "to": "10.0.0.1:1", "protocol": "tcp", "at_ms": 1 } })
                }));
            }
            // What PostgreSQL and Redis answer is judged by itself.
            Question::Sql(_) | Question::Redis(_) | Question::Release(_) => return,
        }
        let end = json!({ "end": { "done": parts.len() } });
        for mut part in parts.into_iter().chain([end]) {
            part["ask"] = json!(ask);
            let frame = [&[1], part.to_string().as_bytes(), b"\n"].concat();
            if socket.send(Message::Binary(frame.into())).await.is_err() {
                return;
            }
        }
    }
}

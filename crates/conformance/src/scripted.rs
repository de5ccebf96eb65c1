//! For tests: an API server on loopback that answers what a test says, HTTP and websockets, and a [`Context`] that talks to it. Two tenants,
//! `a` and `b`, count as being there already.

use crate::cluster::Cluster;
use crate::context::Context;
use crate::event::Events;
use crate::ledger::Ledger;
use crate::manifest::Mark;
use crate::names::RunId;
use crate::settings::{self, Overrides};
use crate::stage::{Site, Stage};
use crate::subject::Subject;
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use provisioner::TenantId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

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
        let overrides = Overrides {
            tenants: Some(vec!["a".into(), "b".into()]),
            ..Overrides::default()
        };
        let settings = settings::resolve("scripted", &overrides).unwrap();
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
        });
        let stage = Stage::new(&site, needs);
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

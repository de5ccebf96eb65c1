//! A proxy of ours between `conformance` and the API server. It passes everything on, watches and websockets included, and fails where a test
//! says so. Requests with a bearer token go on with that and nothing else, all others with the test's own credentials.

use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, UPGRADE};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::config::AuthInfo;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

type Body = UnsyncBoxBody<Bytes, Lost>;

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
pub struct Lost;

/// A request as rules look at it.
#[derive(Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    /// The Authorization header.
    pub authorization: Option<String>,
}

impl Seen {
    pub fn is_exec(&self) -> bool {
        self.path.ends_with("/exec")
    }
}

type Matcher = Box<dyn Fn(&Seen) -> bool + Send + Sync>;
type Done = Shared<BoxFuture<'static, ()>>;
type Deed = Box<dyn Fn(Seen) -> BoxFuture<'static, ()> + Send + Sync>;

/// What becomes of a request.
pub enum Fault {
    /// It is not passed on.
    Answer { status: u16, retry_after: u32 },
    /// It is passed on, and its answer is lost: the client gets this status.
    LoseAnswer(u16),
    /// It is passed on after so long.
    Delay(Duration),
    /// Its answer ends without an end after so long.
    Cut(Duration),
    /// Its websocket is closed soon after the client has said something long.
    CutExec,
    /// It is passed on when this has been done, once, by whoever comes first.
    After(Deed, OnceLock<Done>),
}

/// How long a rule holds from the first request that it applies to.
#[derive(Clone, Copy)]
pub enum Lasts {
    Always,
    Times(usize),
    For(Duration),
}

/// Requests of one sort share a fate.
pub struct Rule {
    from: Matcher,
    applies: Matcher,
    lasts: Lasts,
    fault: Fault,
    begun: Mutex<Option<(Instant, usize)>>,
}

impl Rule {
    /// For these requests.
    pub fn new(
        applies: impl Fn(&Seen) -> bool + Send + Sync + 'static,
        lasts: Lasts,
        fault: Fault,
    ) -> Arc<Rule> {
        Rule::from(|_| true, applies, lasts, fault)
    }

    /// For these requests, once one of another sort was seen.
    pub fn from(
        from: impl Fn(&Seen) -> bool + Send + Sync + 'static,
        applies: impl Fn(&Seen) -> bool + Send + Sync + 'static,
        lasts: Lasts,
        fault: Fault,
    ) -> Arc<Rule> {
        Arc::new(Rule {
            from: Box::new(from),
            applies: Box::new(applies),
            lasts,
            fault,
            begun: Mutex::new(None),
        })
    }

    fn holds(&self, seen: &Seen) -> bool {
        let mut begun = self.begun.lock().unwrap();
        if begun.is_none() && !(self.from)(seen) || !(self.applies)(seen) {
            return false;
        }
        let (since, times) = begun.get_or_insert_with(|| (Instant::now(), 0));
        *times += 1;
        match self.lasts {
            Lasts::Always => true,
            Lasts::Times(most) => *times <= most,
            Lasts::For(time) => since.elapsed() < time,
        }
    }
}

/// A deed that is done once, before the first of these requests is passed on.
pub fn after<F: Future<Output = ()> + Send + 'static>(
    deed: impl Fn(Seen) -> F + Send + Sync + 'static,
) -> Fault {
    Fault::After(Box::new(move |seen| Box::pin(deed(seen))), OnceLock::new())
}

struct Upstream {
    own: Client,
    bare: Client,
    rules: Mutex<Vec<Arc<Rule>>>,
}

pub struct Proxy {
    upstream: Arc<Upstream>,
    address: String,
}

impl Proxy {
    pub async fn start() -> Proxy {
        let connection = super::connection().await;
        let mut config = connection.config;
        config.auth_info = AuthInfo::default();
        let upstream = Arc::new(Upstream {
            own: connection.client,
            bare: Client::try_from(config).unwrap(),
            rules: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&upstream);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                // An error is a connection that a rule or the client has closed.
                tokio::spawn(async move { connection.await.ok() });
            }
        });
        Proxy { upstream, address }
    }

    pub fn add(&self, rule: Arc<Rule>) {
        self.upstream.rules.lock().unwrap().push(rule);
    }

    /// From now on everything is passed on.
    pub fn lift(&self) {
        self.upstream.rules.lock().unwrap().clear();
    }

    /// A kubeconfig that leads here, with this token or without credentials.
    pub fn kubeconfig(&self, directory: &Path, token: Option<&str>) -> PathBuf {
        let path = directory.join(if token.is_some() { "token" } else { "kubeconfig" });
        let name = super::cluster();
        let config = json!({
            "apiVersion": "v1", "kind": "Config",
            "clusters": [{ "name": "proxy", "cluster": { "server": self.address } }],
            "contexts": [{ "name": name, "context": { "cluster": "proxy", "user": "test" } }],
            "users": [{ "name": "test", "user": { "token": token } }],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

async fn answer(upstream: Arc<Upstream>, request: Request<Incoming>) -> Result<Response<Body>, Lost> {
    let header = request.headers().get(AUTHORIZATION);
    let seen = Seen {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        authorization: header.map(|value| value.to_str().unwrap().to_owned()),
    };
    let rule = {
        let rules = upstream.rules.lock().unwrap();
        rules.iter().find(|rule| rule.holds(&seen)).cloned()
    };
    let fault = rule.as_ref().map(|rule| &rule.fault);
    match fault {
        Some(Fault::Answer { status, retry_after }) => return Ok(refusal(*status, *retry_after)),
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Fault::After(deed, done)) => {
            // It is carried through, though whoever asked may have gone.
            let begin = || {
                let deed = tokio::spawn(deed(seen.clone()));
                async { deed.await.unwrap() }.boxed().shared()
            };
            done.get_or_init(begin).clone().await;
        }
        _ => {}
    }
    let cut_exec = matches!(fault, Some(Fault::CutExec));
    let response = pass_on(&upstream, request, cut_exec).await?;
    Ok(match fault {
        Some(Fault::LoseAnswer(status)) => refusal(*status, 0),
        Some(Fault::Cut(after)) => cut(response, *after),
        _ => response,
    })
}

async fn pass_on(
    upstream: &Upstream,
    mut request: Request<Incoming>,
    cut_exec: bool,
) -> Result<Response<Body>, Lost> {
    let client = if request.headers().contains_key(AUTHORIZATION) {
        &upstream.bare
    } else {
        &upstream.own
    };
    let upgrade = request
        .headers()
        .contains_key(UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Lost)?.to_bytes();
    parts.headers.remove(HOST);
    parts.headers.remove(CONTENT_LENGTH);
    let onward = Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    let mut response = client.send(onward).await.map_err(|_| Lost)?;
    if let Some(upgrade) = upgrade
        && response.status() == http::StatusCode::SWITCHING_PROTOCOLS
    {
        let far = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            if let (Ok(near), Ok(far)) = futures::join!(upgrade, far) {
                connect(TokioIo::new(near), TokioIo::new(far), cut_exec).await;
            }
        });
    }
    Ok(response.map(|body| body.map_err(|_| Lost).boxed_unsync()))
}

/// What a client says at once that is longer than this is a list of attempts.
const LONG: usize = 200;

/// Carries bytes both ways until one side ends, or the middle of what is asked.
async fn connect(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite, cut: bool) {
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let onward = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_near.read(&mut buffer).await {
            if to_far.write_all(&buffer[..length]).await.is_err() {
                return;
            }
            if cut && length > LONG {
                return tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    };
    tokio::select! {
        () = onward => {}
        _ = tokio::io::copy(&mut from_far, &mut to_near) => {}
    }
}

fn cut(response: Response<Body>, after: Duration) -> Response<Body> {
    response.map(|body| {
        let data = body.into_data_stream().take_until(tokio::time::sleep(after));
        let lost = futures::stream::once(async { Err(Lost) });
        let frames = data.chain(lost).map(|data| data.map(Frame::data));
        StreamBody::new(frames).boxed_unsync()
    })
}

fn refusal(status: u16, retry_after: u32) -> Response<Body> {
    let reason = if status == 429 {
        "TooManyRequests"
    } else {
        "InternalError"
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason,
        "message": format!("a fault on purpose ({status})"),
    });
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    if retry_after > 0 {
        response = response.header("retry-after", retry_after.to_string());
    }
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    response.body(body.boxed_unsync()).unwrap()
}

//! An API server on loopback with as much of Kubernetes in it as the provisioner leans on: it stores objects, applies them
//! server-side, fills in the status that controllers would, and answers otherwise where a test says so. It remembers
//! every request.

use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use provisioner::{ConnectOptions, connect};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, oneshot};

/// An answer that a test wants instead of the usual one.
struct Script {
    method: &'static str,
    path: String,
    times: usize,
    reply: Reply,
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// With this code and document.
    Json(u16, Value),
    /// With a line of text, and when to ask again, in seconds: as the API server does before it looks at a request.
    Text(u16, &'static str, Option<u32>),
    /// Not at all.
    Silence,
    /// The connection is closed instead, and nothing is done.
    Reset,
    /// Everything is done, and then the connection is closed.
    Lost,
    /// The connection is closed in the middle of this document, whatever it is about.
    Half,
}

/// Where a request is held until the test lets it go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Before anything is done about it.
    Before,
    /// When all is done, and nothing is answered.
    After,
}

struct Gate {
    hold: Hold,
    left: usize,
    arrived: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

/// A request that will be held, or is.
pub(crate) struct Held {
    /// Comes when it is held.
    pub(crate) arrived: oneshot::Receiver<()>,
    /// Lets it go on, when it is dropped as well.
    pub(crate) release: oneshot::Sender<()>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Value>,
    /// `PATCH /api/v1/namespaces/x`, with ` (dry run)` behind it where it was one.
    pub(crate) requests: Vec<String>,
    /// The credentials of every request.
    pub(crate) credentials: Vec<String>,
    /// Requests that took fields from others.
    pub(crate) forced: usize,
    /// What was asked for behind the path, of every request.
    pub(crate) queries: Vec<String>,
    gate: Option<Gate>,
    /// By which labels objects were looked for.
    pub(crate) selectors: Vec<String>,
    /// What was applied last, by path.
    applied: BTreeMap<String, Value>,
    scripts: Vec<Script>,
    version: u64,
    /// Objects that a deletion does not remove at once, by a part of their path.
    pub(crate) sticky: Vec<String>,
    /// It is one of before 1.30.
    pub(crate) has_no_admission_policies: bool,
    /// Quotas get no status.
    pub(crate) quota_controller_is_down: bool,
    /// Deployments get this status instead of a complete one.
    pub(crate) deployment_status: Option<Value>,
    /// Pods get this status.
    pub(crate) pod_status: Option<Value>,
    /// What whoever asks may not do, as in `patch deployments`.
    pub(crate) forbidden: Vec<String>,
    /// What whoever asks wanted to know about their rights, likewise.
    pub(crate) asked: Vec<String>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    directory: tempfile::TempDir,
    /// Made when it is first asked for: reading the system's certificates takes a while.
    client: OnceCell<kube::Client>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self {
            address,
            state,
            directory: tempfile::tempdir().unwrap(),
            client: OnceCell::new(),
        }
    }

    /// Another one, which has the same objects.
    pub(crate) async fn like(other: &Self) -> Self {
        let server = Self::start().await;
        {
            let (mut state, other) = (server.state(), other.state());
            state.objects = other.objects.clone();
            state.applied = other.applied.clone();
            state.version = other.version;
        }
        server
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A kubeconfig with one context, `test`, for this server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.directory.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test-cluster", "cluster": {"server": format!("http://{}", self.address)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test-cluster", "user": "me"}}],
            "users": [{"name": "me", "user": {"token": "t0ken"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub(crate) async fn client(&self) -> kube::Client {
        let options = ConnectOptions {
            kubeconfig: Some(self.kubeconfig()),
            context: None,
        };
        let made = self
            .client
            .get_or_init(async || connect(&options).await.unwrap().client);
        made.await.clone()
    }

    /// Answers requests of this method whose path has this end otherwise, so many times. [`SILENCE`] does not answer at all.
    pub(crate) fn script(&self, method: &'static str, path: &str, times: usize, status: u16, body: Value) {
        let reply = if status == SILENCE {
            Reply::Silence
        } else {
            Reply::Json(status, body)
        };
        self.reply(method, path, times, reply);
    }

    /// The same for any reply; an empty method is every method.
    pub(crate) fn reply(&self, method: &'static str, path: &str, times: usize, reply: Reply) {
        self.state().scripts.push(Script {
            method,
            path: path.to_owned(),
            times,
            reply,
        });
    }

    /// Lets so many requests pass, from now on, and holds the next.
    pub(crate) fn hold(&self, hold: Hold, left: usize) -> Held {
        let (arrived, was_held) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.state().gate = Some(Gate {
            hold,
            left,
            arrived,
            released,
        });
        Held {
            arrived: was_held,
            release,
        }
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().store(path, object);
    }

    /// The requests so far that are no reading and no dry run; forgets all.
    pub(crate) fn writes(&self) -> Vec<String> {
        let requests = std::mem::take(&mut self.state().requests);
        requests
            .into_iter()
            .filter(|line| !line.starts_with("GET") && !line.ends_with("(dry run)"))
            .collect()
    }

    /// All objects, without what differs each time: who they are, when they were written, and values that were generated.
    pub(crate) fn objects(&self) -> BTreeMap<String, Value> {
        let mut objects = self.state().objects.clone();
        for object in objects.values_mut() {
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.remove("uid");
            metadata.remove("resourceVersion");
            let entries = metadata.get_mut("managedFields").and_then(Value::as_array_mut);
            for entry in entries.into_iter().flatten() {
                entry.as_object_mut().unwrap().remove("time");
            }
            if object["kind"] == "Secret" {
                let keys: Vec<String> = object["data"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, _)| key.clone())
                    .collect();
                object["data"] = json!(keys);
            }
        }
        objects
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.state().objects.contains_key(path)
    }
}

/// No answer, ever.
pub(crate) const SILENCE: u16 = 0;

/// A Status as the API server writes it.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> io::Result<Response<Body>> {
    let credentials = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let credentials = credentials.unwrap_or_default().to_owned();
    let gate = {
        let mut state = state.lock().unwrap();
        state.credentials.push(credentials);
        state.gate_for_this()
    };
    let method = request.method().to_string();
    let uri = request.uri().clone();
    let body = request.into_body().collect().await;
    // Whoever asked was killed.
    let body = body.map_err(io::Error::other)?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let hold = gate.as_ref().map(|gate| gate.hold);
    let held = async || {
        if let Some(gate) = gate {
            let _ = gate.arrived.send(());
            let _ = gate.released.await;
        }
    };
    let respond = || {
        let query = uri.query().unwrap_or_default();
        let mut state = state.lock().unwrap();
        state.queries.push(query.to_owned());
        state.respond(&method, uri.path(), query, &body)
    };
    let reply = match hold {
        None => respond(),
        Some(Hold::Before) => {
            held().await;
            respond()
        }
        Some(Hold::After) => {
            let reply = respond();
            held().await;
            reply
        }
    };
    send(reply).await
}

async fn send(reply: Reply) -> io::Result<Response<Body>> {
    let whole = |text: String| Full::from(text).map_err(|never| match never {}).boxed_unsync();
    let json = || Response::builder().header("content-type", "application/json");
    match reply {
        // What is no JSON document: a log.
        Reply::Json(code, Value::String(text)) => {
            Ok(Response::builder().status(code).body(whole(text)).unwrap())
        }
        Reply::Json(code, body) => Ok(json().status(code).body(whole(body.to_string())).unwrap()),
        Reply::Text(code, text, retry_after) => {
            let response = Response::builder()
                .status(code)
                .header("content-type", "text/plain; charset=utf-8");
            let response = match retry_after {
                Some(seconds) => response.header("retry-after", seconds),
                None => response,
            };
            Ok(response.body(whole(format!("{text}\n"))).unwrap())
        }
        Reply::Silence => std::future::pending().await,
        Reply::Reset | Reply::Lost => Err(io::Error::other("the connection is closed")),
        Reply::Half => {
            let half = Ok(Frame::data(Bytes::from_static(br#"{"kind":"List","apiVer"#)));
            let cut = Err(io::Error::other("the connection is closed"));
            let body = StreamBody::new(stream::iter([half, cut]));
            Ok(json().status(200).body(body.boxed_unsync()).unwrap())
        }
    }
}

/// The few characters that a selector has encoded.
fn decoded(text: &str) -> String {
    [("%3D", "="), ("%2C", ","), ("%21", "!"), ("%2F", "/")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| {
            text.replace(code, character)
        })
}

/// Whether the object is in the list over all namespaces that this path is of: `/apis/apps/v1/deployments`.
fn is_one_of(object: &str, path: &str) -> bool {
    let Some((group, plural)) = path.rsplit_once('/') else {
        return false;
    };
    let namespaced = object.strip_prefix(&format!("{group}/namespaces/"));
    let parts: Vec<&str> = namespaced.into_iter().flat_map(|rest| rest.split('/')).collect();
    matches!(parts.as_slice(), [_, of, _] if *of == plural)
}

/// Whether labels are as `a=b,c,!d` wants them.
fn selects(selector: &str, labels: &Value) -> bool {
    let mut parts = selector.split(',').filter(|part| !part.is_empty());
    parts.all(|part| match (part.split_once('='), part.strip_prefix('!')) {
        (Some((key, value)), _) => labels[key] == value,
        (None, Some(absent)) => labels[absent].is_null(),
        (None, None) => !labels[part].is_null(),
    })
}

/// Whether a field that is applied has another value by now.
fn edited(existing: Option<&Value>, body: &Value) -> bool {
    let mut fields = body.as_object().into_iter().flatten();
    fields.any(|(name, value)| name != "metadata" && existing.is_some_and(|object| object[name] != *value))
}

/// What a body sets, as the server records it. (Of a list it is the whole list here.)
fn fields(value: &Value) -> Value {
    match value {
        Value::Object(fields_of) if !fields_of.is_empty() => fields_of
            .iter()
            .map(|(name, value)| (format!("f:{name}"), fields(value)))
            .collect(),
        _ => json!({}),
    }
}

fn fields_of_object(body: &Value) -> Value {
    let mut body = body.clone();
    let object = body.as_object_mut().unwrap();
    object.retain(|name, _| name != "apiVersion" && name != "kind");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| name != "name" && name != "namespace");
    }
    fields(&body)
}

impl State {
    fn gate_for_this(&mut self) -> Option<Gate> {
        let gate = self.gate.as_mut()?;
        if gate.left == 0 {
            return self.gate.take();
        }
        gate.left -= 1;
        None
    }

    fn respond(&mut self, method: &str, path: &str, query: &str, body: &Value) -> Reply {
        let dry = query.contains("dryRun=All");
        let marked = if dry { " (dry run)" } else { "" };
        self.requests.push(format!("{method} {path}{marked}"));
        self.forced += usize::from(query.contains("force=true"));
        let scripted = self.scripts.iter_mut().find(|it| {
            it.times > 0 && (it.method.is_empty() || it.method == method) && path.ends_with(&it.path)
        });
        if let Some(script) = scripted {
            script.times -= 1;
            let reply = script.reply.clone();
            if matches!(reply, Reply::Lost) {
                self.usual(method, path, query, body);
            }
            return reply;
        }
        self.usual(method, path, query, body)
    }

    fn usual(&mut self, method: &str, path: &str, query: &str, body: &Value) -> Reply {
        let dry = query.contains("dryRun=All");
        if let Some(refusal) = self.refused_by_the_namespace(method, path, body) {
            return refusal;
        }
        let (code, body) = match method {
            "POST" if path.ends_with("/selfsubjectaccessreviews") => self.review(body),
            "POST" if path.ends_with("/selfsubjectreviews") => (
                201,
                json!({"metadata": {}, "status": {"userInfo": {"username": "jane"}}}),
            ),
            "POST" => self.create(path, query, body),
            "PATCH" if body["kind"].is_null() => self.merge(path, body),
            "PATCH" => self.apply(path, dry, query.contains("force=true"), body),
            "DELETE" => self.delete(path, body),
            "GET" => self.get(path, query),
            _ => (405, status(405, "MethodNotAllowed", "not here")),
        };
        Reply::Json(code, body)
    }

    /// Nothing is made in a namespace that does not exist, or is being deleted.
    fn refused_by_the_namespace(&self, method: &str, path: &str, body: &Value) -> Option<Reply> {
        let makes = method == "POST" || (method == "PATCH" && !body["kind"].is_null());
        let (_, inside) = path.split_once("/namespaces/")?;
        let (name, _) = inside.split_once('/')?;
        if !makes || self.objects.contains_key(path) {
            return None;
        }
        let Some(namespace) = self.objects.get(&format!("/api/v1/namespaces/{name}")) else {
            let mut missing = status(404, "NotFound", &format!("namespaces {name:?} not found"));
            missing["details"] = json!({"name": name, "kind": "namespaces"});
            return Some(Reply::Json(404, missing));
        };
        if namespace["metadata"]["deletionTimestamp"].is_null() {
            return None;
        }
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut ending = status(403, "Forbidden", &why);
        ending["details"] = json!({"causes": [{"reason": "NamespaceTerminating", "message": why}]});
        Some(Reply::Json(403, ending))
    }

    /// Whether they may; all is allowed that is not forbidden.
    fn review(&mut self, body: &Value) -> (u16, Value) {
        let wanted = &body["spec"]["resourceAttributes"];
        let text = |field: &str| wanted[field].as_str().unwrap_or_default();
        let mut what = format!("{} {}", text("verb"), text("resource"));
        if !text("subresource").is_empty() {
            what = format!("{what}/{}", text("subresource"));
        }
        let allowed = !self.forbidden.contains(&what);
        self.asked.push(what);
        let mut review = body.clone();
        review["status"] = json!({"allowed": allowed});
        (201, review)
    }

    fn get(&mut self, path: &str, query: &str) -> (u16, Value) {
        if path == "/version" {
            let fields = [
                "buildDate",
                "compiler",
                "gitCommit",
                "gitTreeState",
                "goVersion",
                "platform",
            ];
            let mut version = json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0"});
            fields.iter().for_each(|field| version[field] = json!(""));
            return (200, version);
        }
        if let Some(object) = self.objects.get(path) {
            return (200, object.clone());
        }
        if path == "/apis/admissionregistration.k8s.io/v1" {
            return (200, self.admission_resources());
        }
        if self.has_no_admission_policies && path.contains("/validatingadmissionpolic") {
            return (
                404,
                status(
                    404,
                    "NotFound",
                    "the server could not find the requested resource",
                ),
            );
        }
        // Collections have even places in /api/v1/namespaces/x/pods, objects odd ones.
        let place = path
            .trim_start_matches("/apis/")
            .trim_start_matches("/api/")
            .split('/')
            .count();
        let is_collection = if path.starts_with("/api/") {
            place.is_multiple_of(2)
        } else {
            !place.is_multiple_of(2)
        };
        if !is_collection {
            return (404, status(404, "NotFound", "not found"));
        }
        let selector = query
            .split('&')
            .find_map(|part| part.strip_prefix("labelSelector="));
        self.selectors.extend(selector.map(decoded));
        let selector = selector.map(decoded).unwrap_or_default();
        let prefix = format!("{path}/");
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(key, _)| {
                key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')) || is_one_of(key, path)
            })
            .map(|(_, object)| object)
            .filter(|object| selects(&selector, &object["metadata"]["labels"]))
            .collect();
        (
            200,
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
        )
    }

    /// The discovery document of admission.
    fn admission_resources(&self) -> Value {
        let policies = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
        let mut kinds = vec!["ValidatingWebhookConfiguration"];
        if !self.has_no_admission_policies {
            kinds.extend(policies);
        }
        let resources: Vec<Value> = kinds
            .into_iter()
            .map(|kind| {
                let plural = format!("{}s", kind.to_lowercase()).replace("policys", "policies");
                json!({"name": plural, "singularName": "", "kind": kind, "namespaced": false, "verbs": ["get", "list", "patch"]})
            })
            .collect();
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "admissionregistration.k8s.io/v1", "resources": resources})
    }

    fn create(&mut self, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
        if self.objects.contains_key(&path) {
            return (409, status(409, "AlreadyExists", "already exists"));
        }
        let mut object = body.clone();
        let manager = query
            .split('&')
            .find_map(|part| part.strip_prefix("fieldManager="));
        object["metadata"]["managedFields"] = json!([{
            "manager": manager.unwrap_or("unknown"), "operation": "Update", "apiVersion": body["apiVersion"],
            "fieldsType": "FieldsV1", "fieldsV1": fields_of_object(body),
        }]);
        (201, self.store(&path, object))
    }

    /// Of a merge only what is written about managers, and data.
    fn merge(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return (404, status(404, "NotFound", "not found"));
        };
        if object["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
            return (409, status(409, "Conflict", "the object has been modified"));
        }
        if !body["metadata"]["managedFields"].is_null() {
            object["metadata"]["managedFields"] = body["metadata"]["managedFields"].clone();
        }
        if let Some(data) = body["data"].as_object() {
            if object["data"].is_null() {
                object["data"] = json!({});
            }
            object["data"].as_object_mut().unwrap().extend(data.clone());
        }
        (200, self.store(path, object))
    }

    fn apply(&mut self, path: &str, dry: bool, force: bool, body: &Value) -> (u16, Value) {
        let existing = self.objects.get(path).cloned();
        let before = self.applied.get(path).cloned();
        let applied_before = before.as_ref() == Some(body) && !(force && edited(existing.as_ref(), body));
        if !dry {
            self.applied.insert(path.to_owned(), body.clone());
        }
        let mut object = body.clone();
        let metadata = &mut object["metadata"];
        let time = format!("2026-01-01T00:00:{:02}Z", self.requests.len() % 60);
        metadata["managedFields"] = json!([{
            "manager": "ai-agents-provisioner", "operation": "Apply", "apiVersion": body["apiVersion"], "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": fields_of_object(body),
        }]);
        match existing {
            None if dry => {
                metadata["uid"] = json!("dry");
                (200, object)
            }
            None => (201, self.store(path, object)),
            Some(existing) if applied_before => (200, existing),
            Some(existing) => {
                let entries = metadata["managedFields"].as_array_mut().unwrap();
                let others = existing["metadata"]["managedFields"]
                    .as_array()
                    .into_iter()
                    .flatten();
                entries.extend(others.filter(|entry| entry["operation"] != "Apply").cloned());
                metadata["uid"] = existing["metadata"]["uid"].clone();
                metadata["resourceVersion"] = existing["metadata"]["resourceVersion"].clone();
                // Keys that others wrote stay.
                for (key, value) in existing["data"].as_object().into_iter().flatten() {
                    let ours = before
                        .as_ref()
                        .is_some_and(|before| !before["data"][key].is_null());
                    if !ours && object["data"][key].is_null() {
                        object["data"][key] = value.clone();
                    }
                }
                (200, if dry { object } else { self.store(path, object) })
            }
        }
    }

    /// Stores the object, with what the server and its controllers add.
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        if metadata["name"].is_null() {
            metadata["name"] = json!(path.rsplit('/').next());
        }
        metadata["generation"] = json!(1);
        match object["kind"].as_str().unwrap_or_default() {
            "Namespace" => {
                let account = format!("{path}/serviceaccounts/default");
                self.objects
                    .entry(account)
                    .or_insert_with(|| json!({"metadata": {"name": "default"}}));
            }
            "Pod" if object["status"].is_null() => {
                object["status"] = self.pod_status.clone().unwrap_or_default();
            }
            "ResourceQuota" if !self.quota_controller_is_down => {
                object["status"] = json!({"hard": object["spec"]["hard"]});
            }
            "Deployment" => {
                let replicas = &object["spec"]["replicas"];
                let complete = json!({"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas});
                object["status"] = self.deployment_status.clone().unwrap_or(complete);
            }
            "Service" => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let slice = json!({
                    "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                    "addressType": "IPv4",
                    "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
                });
                let slices = path
                    .replace("/api/v1/", "/apis/discovery.k8s.io/v1/")
                    .replace("/services/", "/endpointslices/");
                self.objects.insert(slices, slice);
            }
            _ => {}
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn delete(&mut self, path: &str, options: &Value) -> (u16, Value) {
        let Some(object) = self.objects.get_mut(path) else {
            return (404, status(404, "NotFound", "not found"));
        };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return (
                409,
                status(409, "Conflict", "the UID in the precondition does not match"),
            );
        }
        if self.sticky.iter().any(|part| path.contains(part.as_str())) {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            return (200, object.clone());
        }
        let gone = self.objects.remove(path).unwrap_or_default();
        let inside = format!("{path}/");
        self.objects.retain(|key, _| {
            !(key.starts_with(&inside) || key.contains(&format!("{}/", path.replace("/api/v1", ""))))
        });
        let left = &self.objects;
        self.applied.retain(|key, _| left.contains_key(key));
        (200, gone)
    }
}

//! An API server on loopback with as much of Kubernetes in it as the provisioner leans on: it stores objects, applies them
//! server-side, fills in the status that controllers would, and answers otherwise where a test says so. It remembers
//! every request.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use provisioner::{ConnectOptions, connect};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;

/// An answer that a test wants instead of the usual one.
struct Script {
    method: &'static str,
    path: String,
    times: usize,
    status: u16,
    body: Value,
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
    /// By which labels objects were looked for.
    pub(crate) selectors: Vec<String>,
    /// What was applied last, by path.
    applied: BTreeMap<String, Value>,
    scripts: Vec<Script>,
    version: u64,
    /// Objects that a deletion does not remove at once, by a part of their path.
    pub(crate) sticky: Vec<String>,
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
        }
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
        connect(&options).await.unwrap().client
    }

    /// Answers requests of this method whose path has this end otherwise, so many times. [`SILENCE`] does not answer at all.
    pub(crate) fn script(&self, method: &'static str, path: &str, times: usize, status: u16, body: Value) {
        self.state().scripts.push(Script {
            method,
            path: path.to_owned(),
            times,
            status,
            body,
        });
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

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let credentials = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let credentials = credentials.unwrap_or_default().to_owned();
    state.lock().unwrap().credentials.push(credentials);
    let method = request.method().to_string();
    let uri = request.uri().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (code, body) =
        state
            .lock()
            .unwrap()
            .respond(&method, uri.path(), uri.query().unwrap_or_default(), &body);
    if code == SILENCE {
        std::future::pending::<()>().await;
    }
    let response = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    // What is no JSON document: a log.
    let text = match body {
        Value::String(text) => text,
        document => document.to_string(),
    };
    Ok(response.body(Full::from(text)).unwrap())
}

/// The few characters that a selector has encoded.
fn decoded(text: &str) -> String {
    [("%3D", "="), ("%2C", ","), ("%21", "!"), ("%2F", "/")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| {
            text.replace(code, character)
        })
}

/// Whether labels are as `a=b,c` wants them.
fn selects(selector: &str, labels: &Value) -> bool {
    let mut parts = selector.split(',').filter(|part| !part.is_empty());
    parts.all(|part| match part.split_once('=') {
        Some((key, value)) => labels[key] == value,
        None => !labels[part].is_null(),
    })
}

/// Whether a field that is applied has another value by now.
fn edited(existing: Option<&Value>, body: &Value) -> bool {
    let mut fields = body.as_object().into_iter().flatten();
    fields.any(|(name, value)| name != "metadata" && existing.is_some_and(|object| object[name] != *value))
}

impl State {
    fn respond(&mut self, method: &str, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let dry = if query.contains("dryRun=All") {
            " (dry run)"
        } else {
            ""
        };
        self.requests.push(format!("{method} {path}{dry}"));
        self.forced += usize::from(query.contains("force=true"));
        let scripted = self
            .scripts
            .iter_mut()
            .find(|it| it.times > 0 && it.method == method && path.ends_with(&it.path));
        if let Some(script) = scripted {
            script.times -= 1;
            return (script.status, script.body.clone());
        }
        match method {
            "POST" if path.ends_with("/selfsubjectaccessreviews") => self.review(body),
            "POST" if path.ends_with("/selfsubjectreviews") => (
                201,
                json!({"metadata": {}, "status": {"userInfo": {"username": "jane"}}}),
            ),
            "POST" => self.create(path, body),
            "PATCH" if body["kind"].is_null() => self.merge(path, body),
            "PATCH" => {
                let force = query.contains("force=true");
                self.apply(path, !dry.is_empty(), force, body)
            }
            "DELETE" => self.delete(path),
            "GET" => self.get(path, query),
            _ => (405, status(405, "MethodNotAllowed", "not here")),
        }
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
            .filter(|(key, _)| key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')))
            .map(|(_, object)| object)
            .filter(|object| selects(&selector, &object["metadata"]["labels"]))
            .collect();
        (
            200,
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
        )
    }

    fn create(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
        if self.objects.contains_key(&path) {
            return (409, status(409, "AlreadyExists", "already exists"));
        }
        let mut object = body.clone();
        object["metadata"]["managedFields"] =
            json!([{"manager": "ai-agents-provisioner", "operation": "Update"}]);
        (201, self.store(&path, object))
    }

    /// Of a merge only what is written about managers, and data.
    fn merge(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let mut object = self.objects[path].clone();
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
        metadata["managedFields"] =
            json!([{"manager": "ai-agents-provisioner", "operation": "Apply", "time": time}]);
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

    fn delete(&mut self, path: &str) -> (u16, Value) {
        let Some(object) = self.objects.get_mut(path) else {
            return (404, status(404, "NotFound", "not found"));
        };
        if self.sticky.iter().any(|part| path.contains(part.as_str())) {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            return (200, object.clone());
        }
        let gone = self.objects.remove(path).unwrap_or_default();
        let inside = format!("{path}/");
        self.objects.retain(|key, _| {
            !(key.starts_with(&inside) || key.contains(&format!("{}/", path.replace("/api/v1", ""))))
        });
        (200, gone)
    }
}

//! A connection to a ready pod of a shared service, through the API server.
//!
//! Where the pod refuses, kube's stream stays silent and the reason arrives beside it; and its `join` waits for the other end. So both
//! are watched here, and the forwarder is dropped and not joined.

use super::RegistrationError;
use super::account::Account;
use crate::calls::{CallError, Calls, Cause};
use crate::names::DnsName;
use crate::tenant::{SharedService, SharedServices};
use futures::future::{BoxFuture, Fuse};
use futures::{FutureExt, future};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Portforwarder};
use kube::{Api, Client};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::time::{sleep, timeout};

/// How long a connection may take, the login included.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long after a connection broke off the reason may come.
const REASON_WITHIN: Duration = Duration::from_millis(500);
/// How long the last bytes of a connection may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_millis(300);

/// One of the shared services, and how it is reached.
pub(super) struct Server<'a> {
    client: &'a Client,
    /// `PostgreSQL` or `Redis`.
    pub(super) title: &'static str,
    namespace: &'a str,
    service: SharedService,
}

/// A connection to the service's port in a pod.
pub(super) struct Forward {
    stream: DuplexStream,
    line: Line,
}

/// What a connection lives on.
pub(super) struct Line {
    forwarder: Portforwarder,
    refused: Fuse<BoxFuture<'static, Option<String>>>,
    place: String,
}

impl<'a> Server<'a> {
    pub(super) fn postgresql(client: &'a Client, shared: &'a SharedServices) -> Self {
        Self {
            client,
            title: "PostgreSQL",
            namespace: shared.namespace.as_str(),
            service: shared.postgresql.as_service(),
        }
    }

    pub(super) fn redis(client: &'a Client, shared: &'a SharedServices) -> Self {
        Self {
            client,
            title: "Redis",
            namespace: shared.namespace.as_str(),
            service: shared.redis.clone(),
        }
    }

    /// The administrator whose name and password are in that Secret. Without the Secret it is told first where there is no service either.
    pub(super) async fn admin(
        &self,
        calls: &Calls<'_>,
        shared: &SharedServices,
        secret: &DnsName,
    ) -> Result<Account, RegistrationError> {
        match Account::of_admin(self.client, calls, shared, secret).await {
            Err(error) if error.lacks_admin() => Err(self.absence().await?.unwrap_or(error)),
            account => account,
        }
    }

    /// There was no connection, or it is lost.
    pub(super) fn unreachable(&self, problem: impl Into<String>) -> RegistrationError {
        RegistrationError::Unreachable {
            service: self.title,
            namespace: self.namespace.to_owned(),
            problem: problem.into(),
            tried_for: None,
        }
    }

    /// Opens a connection and lets `log_in` speak on it; gives what that gives, and whoever has to be driven for it to go on.
    pub(super) async fn connect<T, D, F>(
        &self,
        log_in: impl FnOnce(DuplexStream) -> F,
    ) -> Result<T, RegistrationError>
    where
        F: Future<Output = Result<(T, D), RegistrationError>>,
        D: Future<Output = ()> + Send + 'static,
    {
        let opened = async {
            let Forward { stream, mut line } = self.open().await?;
            let place = line.place.clone();
            tokio::select! {
                logged_in = log_in(stream) => match logged_in {
                    Ok((session, driver)) => Ok((session, driver, line)),
                    // The reason comes beside the stream, and may come after its end.
                    Err(error @ RegistrationError::Unreachable { .. }) => {
                        match timeout(REASON_WITHIN, line.refusal()).await {
                            Ok(why) => Err(self.refused(&place, &why)),
                            Err(_) => Err(error),
                        }
                    }
                    Err(error) => Err(error),
                },
                why = line.refusal() => Err(self.refused(&place, &why)),
            }
        };
        let silent = || self.unreachable(format!("no answer within {CONNECT_WITHIN:.0?}"));
        let opened = timeout(CONNECT_WITHIN, opened).await;
        let (session, driver, line) = opened.unwrap_or_else(|_| Err(silent()))?;
        tokio::spawn(line.drive(driver));
        Ok(session)
    }

    async fn open(&self) -> Result<Forward, RegistrationError> {
        let pod = self.ready_pod().await?;
        let port = self.service.port.get();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let place = format!("port {port} of Pod {pod} in {}", self.namespace);
        let opened = pods.portforward(&pod, &[port]).await;
        let mut forwarder = opened.map_err(|error| {
            let cause = Cause::from(error);
            // The pod went since we looked; there may be another.
            if let Cause::Refused(status) = &cause
                && status.code == 404
            {
                return self.unreachable(format!("{place}: the pod is gone"));
            }
            RegistrationError::Call(CallError {
                what: format!("forward {place}"),
                tried_for: None,
                cause,
            })
        })?;
        let (Some(stream), Some(refused)) = (forwarder.take_stream(port), forwarder.take_error(port)) else {
            return Err(self.unreachable(format!("{place}: the forwarder has no such port")));
        };
        let line = Line {
            forwarder,
            refused: refused.boxed().fuse(),
            place,
        };
        Ok(Forward { stream, line })
    }

    fn refused(&self, place: &str, why: &str) -> RegistrationError {
        let problem = if why.contains("connection refused") {
            format!("{place}: connection refused")
        } else {
            format!("{place}: {}", why.trim())
        };
        self.unreachable(problem)
    }

    /// A ready pod behind the Service: that Service may lead to one instance among several, the one that writes.
    async fn ready_pod(&self) -> Result<String, RegistrationError> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), self.namespace);
        let service = &self.service.service;
        let parameters = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let what = format!("list endpointslices of Service {service} in {}", self.namespace);
        let found = Calls::once(what, slices.list(&parameters)).await?;
        let endpoints = found.items.into_iter().flat_map(|slice| slice.endpoints);
        let mut ready = endpoints.filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.is_none_or(|now| now.ready != Some(false) && now.terminating != Some(true))
        });
        let pod = ready.find_map(|endpoint| {
            let target = endpoint.target_ref?;
            target.name.filter(|_| target.kind.as_deref() == Some("Pod"))
        });
        match pod {
            Some(pod) => Ok(pod),
            None => Err(self.missing().await?),
        }
    }

    /// That there is no namespace, or no Service in it.
    async fn absence(&self) -> Result<Option<RegistrationError>, CallError> {
        let absent = |problem: String| RegistrationError::Absent {
            service: self.title,
            namespace: self.namespace.to_owned(),
            problem,
        };
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let what = format!("get Namespace {}", self.namespace);
        let namespace = Calls::once(what, namespaces.get_opt(self.namespace)).await?;
        if namespace.is_none() {
            let problem = format!("Namespace {} does not exist", self.namespace);
            return Ok(Some(absent(problem)));
        }
        let services: Api<Service> = Api::namespaced(self.client.clone(), self.namespace);
        let name = self.service.service.as_str();
        let what = format!("get Service {name} in {}", self.namespace);
        let service = Calls::once(what, services.get_opt(name)).await?;
        Ok(service
            .is_none()
            .then(|| absent(format!("Service {name} does not exist"))))
    }

    /// Why there is no pod.
    async fn missing(&self) -> Result<RegistrationError, CallError> {
        if let Some(absence) = self.absence().await? {
            return Ok(absence);
        }
        let name = self.service.service.as_str();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let label = format!("app={}", self.service.pod_app);
        let what = format!("list pods with {label} in {}", self.namespace);
        let pods = Calls::once(what, pods.list(&ListParams::default().labels(&label))).await?;
        let seen: Vec<String> = pods.items.iter().map(describe).collect();
        let seen = if seen.is_empty() {
            format!("there is no pod with the label {label}")
        } else {
            seen.join(", ")
        };
        Ok(self.unreachable(format!("Service {name} has no ready pod: {seen}")))
    }
}

fn describe(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref();
    if pod.metadata.deletion_timestamp.is_some() {
        return format!("{name} is ending");
    }
    let waiting = status
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = status.and_then(|status| status.phase.clone());
    let seen = waiting.or(phase).unwrap_or_else(|| "Unknown".to_owned());
    format!("{name} is not ready ({seen})")
}

impl Line {
    /// Why the port cannot be used; pending for as long as it can, and where the connection ends without a reason.
    async fn refusal(&mut self) -> String {
        match (&mut self.refused).await {
            Some(why) => why,
            None => future::pending().await,
        }
    }

    /// Keeps the connection until its driver ends, or the port can no longer be used.
    async fn drive(mut self, driver: impl Future<Output = ()> + Send + 'static) {
        tokio::select! {
            () = driver => sleep(LEAVE_WITHIN).await,
            why = self.refusal() => tracing::debug!("{}: {}", self.place, why.trim()),
        }
        self.forwarder.abort();
    }
}

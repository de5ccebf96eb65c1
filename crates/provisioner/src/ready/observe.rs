//! Looks at everything that is expected, a few requests a round.

use super::{Expected, Missing, Reason, diagnose, quota_gap};
use crate::calls::{CallError, Calls};
use futures::future::{try_join, try_join4};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Debug;

/// Group and plural of what is listed until it is there.
pub(super) const GUARDS: [(&str, &str); 2] = [("", "resourcequotas"), ("", "serviceaccounts")];
/// So many lines of a log are read, of which the last that is not empty is told.
const LOG_LINES: i64 = 20;
/// The same of what runs. Events and logs are read where that is allowed.
pub(super) const WORKLOADS: [(&str, &str); 4] = [
    ("apps", "deployments"),
    ("", "pods"),
    ("", "services"),
    ("discovery.k8s.io", "endpointslices"),
];

pub(super) struct Observer<'a> {
    client: &'a Client,
    expected: &'a Expected,
    /// Quotas and accounts stay once they are there; they need not be asked for again.
    settled: bool,
}

/// A look that did not succeed.
pub(super) struct Unobserved {
    pub(super) missing: Missing,
    /// It may work in a moment.
    pub(super) passing: bool,
}

impl<'a> Observer<'a> {
    pub(super) fn new(client: &'a Client, expected: &'a Expected) -> Self {
        Self {
            client,
            expected,
            settled: false,
        }
    }

    /// All that is missing now; at the last look events are asked for as well.
    pub(super) async fn observe(&mut self, last: bool) -> Result<Vec<Missing>, Unobserved> {
        match self.look(last).await {
            Ok((guards, workloads)) => {
                self.settled = guards.is_empty();
                Ok([guards, workloads].concat())
            }
            Err(error) => {
                let object = self.expected.object("Namespace", &self.expected.namespace);
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                let missing = Missing {
                    object,
                    reason: Reason::Unknown,
                    detail: format!("{error}: {cause}"),
                };
                Err(Unobserved {
                    missing,
                    passing: error.is_passing(),
                })
            }
        }
    }

    async fn look(&self, last: bool) -> Result<(Vec<Missing>, Vec<Missing>), CallError> {
        try_join(self.guards(), self.workloads(last)).await
    }

    async fn guards(&self) -> Result<Vec<Missing>, CallError> {
        if self.settled {
            return Ok(Vec::new());
        }
        let (quotas, accounts) = try_join(
            self.list::<ResourceQuota>("resourcequotas"),
            self.list::<ServiceAccount>("serviceaccounts"),
        )
        .await?;
        let mut missing = Vec::new();
        for name in &self.expected.quotas {
            let live = quotas
                .iter()
                .find(|quota| quota.metadata.name.as_ref() == Some(name));
            let live = live.and_then(|quota| serde_json::to_value(quota).ok());
            let reason = if live.is_some() {
                Reason::QuotaNotLive
            } else {
                Reason::Absent
            };
            let gap = quota_gap(live.as_ref());
            missing.extend(gap.map(|detail| self.missing("ResourceQuota", name, reason, detail)));
        }
        for name in &self.expected.accounts {
            if !accounts
                .iter()
                .any(|account| account.metadata.name.as_ref() == Some(name))
            {
                missing.push(self.missing(
                    "ServiceAccount",
                    name,
                    Reason::Absent,
                    "it does not exist".to_owned(),
                ));
            }
        }
        Ok(missing)
    }

    async fn workloads(&self, last: bool) -> Result<Vec<Missing>, CallError> {
        if self.expected.deployments.is_empty() && self.expected.services.is_empty() {
            return Ok(Vec::new());
        }
        let (deployments, pods, services, slices) = try_join4(
            self.list::<Deployment>("deployments"),
            self.list::<Pod>("pods"),
            self.list::<Service>("services"),
            self.list::<EndpointSlice>("endpointslices"),
        )
        .await?;
        // Events tell why a pod is not set up, and say it again and again: only the last look is worth the list.
        let events = if last {
            self.list::<Event>("events").await.unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut missing = Vec::new();
        for name in &self.expected.deployments {
            let live = deployments
                .iter()
                .find(|deployment| deployment.metadata.name.as_ref() == Some(name));
            let trouble = match live {
                None => Some((Reason::Absent, "it does not exist".to_owned())),
                Some(deployment) => diagnose::deployment(deployment, &pods, &events),
            };
            let Some((reason, mut detail)) = trouble else {
                continue;
            };
            if let (true, Reason::Crash, Some(deployment)) = (last, reason, live) {
                detail.push_str(&self.last_words(deployment, &pods).await);
            }
            missing.push(self.missing("Deployment", name, reason, detail));
        }
        for name in &self.expected.services {
            let live = services
                .iter()
                .find(|service| service.metadata.name.as_ref() == Some(name));
            let trouble = match live {
                None => Some((Reason::Absent, "it does not exist".to_owned())),
                Some(service) => endpoint_gap(service, &deployments, &slices),
            };
            missing.extend(trouble.map(|(reason, detail)| self.missing("Service", name, reason, detail)));
        }
        Ok(missing)
    }

    /// What a container that ended wrote last; nothing where that cannot be read.
    async fn last_words(&self, deployment: &Deployment, pods: &[Pod]) -> String {
        let Some(log) = diagnose::log(deployment, pods) else {
            return String::new();
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.expected.namespace);
        let parameters = LogParams {
            container: Some(log.container),
            previous: log.previous,
            tail_lines: Some(LOG_LINES),
            ..LogParams::default()
        };
        let what = format!("read the log of Pod {}", log.pod);
        let text = Calls::once(what, api.logs(&log.pod, &parameters)).await;
        let line = text.ok().and_then(|text| diagnose::last_line(&text));
        line.map(|line| format!("; last line of its log: {line}"))
            .unwrap_or_default()
    }

    fn missing(&self, kind: &str, name: &str, reason: Reason, detail: String) -> Missing {
        Missing {
            object: self.expected.object(kind, name),
            reason,
            detail,
        }
    }

    async fn list<K>(&self, plural: &str) -> Result<Vec<K>, CallError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.expected.namespace);
        let what = format!("list {plural} in {}", self.expected.namespace);
        Ok(Calls::once(what, api.list(&ListParams::default())).await?.items)
    }
}

/// A Service without pods to serve is complete as it is.
fn endpoint_gap(
    service: &Service,
    deployments: &[Deployment],
    slices: &[EndpointSlice],
) -> Option<(Reason, String)> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    let serves = |deployment: &&Deployment| {
        let spec = deployment.spec.as_ref();
        let labels = spec.and_then(|spec| spec.template.metadata.as_ref()?.labels.as_ref());
        labels.is_some_and(|labels| selects(selector, labels))
    };
    let sleeps = |deployment: &Deployment| {
        let spec = deployment.spec.as_ref();
        spec.is_none_or(|spec| spec.replicas == Some(0))
    };
    // Where nothing runs there is nothing to serve. One that selects no Deployment's pods, and others are there, is not complete.
    let of_it: Vec<&Deployment> = deployments.iter().filter(serves).collect();
    let asleep = !of_it.is_empty() && of_it.into_iter().all(sleeps);
    if asleep || deployments.iter().all(sleeps) {
        return None;
    }
    let name = service.metadata.name.as_deref()?;
    let belongs = |slice: &&EndpointSlice| {
        slice
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("kubernetes.io/service-name"))
            .map(String::as_str)
            == Some(name)
    };
    let mut endpoints = slices.iter().filter(belongs).flat_map(|slice| &slice.endpoints);
    let ready = endpoints.any(|endpoint| {
        endpoint
            .conditions
            .as_ref()
            .is_none_or(|now| now.ready != Some(false))
    });
    (!ready).then(|| (Reason::NoEndpoints, "it has no ready endpoint".to_owned()))
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

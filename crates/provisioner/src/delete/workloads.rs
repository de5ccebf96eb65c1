//! The first part of a deletion: nobody may start anything any more, and what runs ends.

use super::{DeleteError, held};
use crate::calls::{self, CallError, Calls, Cause};
use crate::labels;
use crate::manifest::ObjectRef;
use crate::names::TenantId;
use crate::progress::Step;
use futures::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What makes pods, and would make new ones for those that are deleted; makers of makers first.
const CONTROLLERS: [&[Resource]; 2] = [
    &[
        (
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        ),
        ("batch", "v1", "CronJob", "cronjobs"),
        ("apps", "v1", "Deployment", "deployments"),
    ],
    &[
        ("apps", "v1", "ReplicaSet", "replicasets"),
        ("apps", "v1", "StatefulSet", "statefulsets"),
        ("apps", "v1", "DaemonSet", "daemonsets"),
        ("batch", "v1", "Job", "jobs"),
        ("", "v1", "ReplicationController", "replicationcontrollers"),
    ],
];

const PODS: Resource = ("", "v1", "Pod", "pods");
const RIGHTS: Resource = ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings");

/// Group, version, kind and plural.
type Resource = (&'static str, &'static str, &'static str, &'static str);

pub(super) struct Workloads<'a> {
    client: &'a Client,
    calls: &'a Calls<'a>,
    tenant: &'a TenantId,
    namespace: String,
}

/// Why workloads could not be removed.
pub(super) enum Stay {
    Call(CallError),
    Pods(Vec<String>),
}

impl From<CallError> for Stay {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Stay {
    pub(super) fn into_error(self, namespace: &str, waited: Duration) -> DeleteError {
        match self {
            Self::Call(error) => error.into(),
            Self::Pods(pods) => DeleteError::PodsStay {
                namespace: namespace.to_owned(),
                waited,
                pods,
            },
        }
    }
}

impl<'a> Workloads<'a> {
    pub(super) fn new(client: &'a Client, calls: &'a Calls<'a>, tenant: &'a TenantId) -> Self {
        Self {
            client,
            calls,
            tenant,
            namespace: tenant.namespace(),
        }
    }

    /// Takes the tenant's rights, deletes what makes pods, then the pods, and returns when none is left.
    pub(super) async fn remove(&self, deleted: &mut Vec<ObjectRef>) -> Result<(), Stay> {
        self.remove_makers(deleted).await?;
        self.remove_pods(deleted).await
    }

    async fn remove_makers(&self, deleted: &mut Vec<ObjectRef>) -> Result<(), CallError> {
        // Without it the tenant's own account could go on making pods while we wait for them to end.
        deleted.extend(self.remove_all(&resource(&RIGHTS), true).await?);
        for controllers in CONTROLLERS {
            let resources: Vec<ApiResource> = controllers.iter().map(resource).collect();
            let removed = calls::all(resources.iter().map(|it| self.remove_all(it, false).boxed())).await;
            deleted.extend(removed.into_iter().collect::<Result<Vec<_>, _>>()?.concat());
        }
        Ok(())
    }

    async fn remove_all(&self, resource: &ApiResource, ours_only: bool) -> Result<Vec<ObjectRef>, CallError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, resource);
        let mut parameters = ListParams::default();
        if ours_only {
            parameters = parameters.labels(&labels::owner_selector(self.tenant));
        }
        let what = format!("list {} in {}", resource.plural, self.namespace);
        let list = match self.calls.make(&what, || api.list_metadata(&parameters)).await {
            Ok(list) => list,
            // A kind that the server does not have, or that we have no rights on. Its pods, if any, are seen all the same.
            Err(CallError {
                cause: Cause::Refused(status),
                ..
            }) if matches!(status.code, 403 | 404) => {
                tracing::debug!("{what}: {}", status.message);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let names = list
            .items
            .into_iter()
            .filter(|item| item.metadata.deletion_timestamp.is_none());
        let names: Vec<String> = names.filter_map(|item| item.metadata.name).collect();
        let removed = calls::all(
            names
                .iter()
                .map(|name| self.remove_one(&api, resource, name).boxed()),
        )
        .await;
        removed.into_iter().collect()
    }

    async fn remove_one(
        &self,
        api: &Api<DynamicObject>,
        resource: &ApiResource,
        name: &str,
    ) -> Result<ObjectRef, CallError> {
        let object = self.object(&resource.kind, name);
        let parameters = DeleteParams::background();
        match self
            .calls
            .make(format!("delete {object}"), || api.delete(name, &parameters))
            .await
        {
            Ok(_) => {}
            Err(error) if error.status().is_some_and(|status| status.code == 404) => {}
            Err(error) => return Err(error),
        }
        self.calls.progress.step(&Step::Deleted(object.clone()));
        Ok(object)
    }

    /// Deletes pods as they are seen: a controller may have made one more before it went.
    async fn remove_pods(&self, deleted: &mut Vec<ObjectRef>) -> Result<(), Stay> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let everything = ListParams::default();
        let mut asked = HashSet::new();
        let mut told = Vec::new();
        let mut first = true;
        loop {
            let what = format!("list pods in {}", self.namespace);
            let pods = self.calls.make(&what, || api.list(&everything)).await?.items;
            if pods.is_empty() {
                return Ok(());
            }
            if Instant::now() > self.calls.deadline() {
                return Err(Stay::Pods(pods.iter().map(describe).collect()));
            }
            let new: Vec<&Pod> = pods
                .iter()
                .filter(|pod| asked.insert(pod.metadata.uid.clone()))
                .collect();
            // Who is still making pods may have been made meanwhile: by an apply that runs beside this.
            if !std::mem::replace(&mut first, false) && !new.is_empty() {
                self.remove_makers(deleted).await?;
            }
            let names = new.iter().filter_map(|pod| pod.metadata.name.as_deref());
            let removed = calls::all(names.map(|name| self.remove_pod(&api, name).boxed())).await;
            removed.into_iter().collect::<Result<(), _>>()?;
            let now: Vec<ObjectRef> = pods
                .iter()
                .filter_map(|pod| pod.metadata.name.as_deref())
                .map(|name| self.object("Pod", name))
                .collect();
            deleted.extend(
                new.iter()
                    .filter_map(|pod| Some(self.object("Pod", pod.metadata.name.as_deref()?))),
            );
            if now != told {
                self.calls.progress.step(&Step::Leaving(now.clone()));
                told = now;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn remove_pod(&self, api: &Api<Pod>, name: &str) -> Result<(), CallError> {
        let what = format!("delete Pod {name} in {}", self.namespace);
        let gracefully = DeleteParams::default();
        match self.calls.make(&what, || api.delete(name, &gracefully)).await {
            Ok(_) => Ok(()),
            Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn object(&self, kind: &str, name: &str) -> ObjectRef {
        ObjectRef {
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: Some(self.namespace.clone()),
        }
    }
}

fn describe(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    if !finalizers.is_empty() {
        return format!("{name} ({})", held::describe(&finalizers));
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    format!("{name} (node {})", node.unwrap_or("none"))
}

/// Pods, and all that makes some.
pub(super) fn resources() -> Vec<ApiResource> {
    let makers = CONTROLLERS.into_iter().flatten();
    makers.chain(&[PODS]).map(resource).collect()
}

fn resource((group, version, kind, plural): &Resource) -> ApiResource {
    let api_version = if group.is_empty() {
        (*version).to_owned()
    } else {
        format!("{group}/{version}")
    };
    ApiResource {
        group: (*group).to_owned(),
        version: (*version).to_owned(),
        api_version,
        kind: (*kind).to_owned(),
        plural: (*plural).to_owned(),
    }
}

//! The requests that an apply makes, one function each.

use super::{conflict, fields};
use crate::calls::{CallError, Calls, Cause};
use crate::credentials::{self, Generated};
use crate::kinds::{self, Kind, Phase, Scope};
use crate::labels;
use crate::manifest::{Manifest, ObjectRef};
use crate::names::TenantId;
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, ValidationDirective,
};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the server may take to see a role that was just made.
const ROLE_SEEN_WITHIN: Duration = Duration::from_secs(3);

/// The verbs of the requests of this file on objects that templates make. Server-side apply is a `patch`, and takes `create` as well
/// where the object does not exist (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#rbac-and-permissions>).
pub(crate) const VERBS: [&str; 5] = ["get", "list", "create", "patch", "delete"];
/// The same on the namespace, which is neither looked for nor pruned.
pub(crate) const NAMESPACE_VERBS: [&str; 3] = ["get", "create", "patch"];

/// Whose objects are applied: which namespace they are in, and which are looked at to find what is no longer wanted.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'a> {
    /// The tenant's namespace and all in it.
    Tenant(&'a TenantId),
    /// The policies in the shared services' namespace, which is not ours, and the platform's objects in the cluster.
    Platform {
        /// The shared services' namespace.
        namespace: &'a str,
    },
}

impl Owner<'_> {
    fn namespace(self) -> String {
        match self {
            Self::Tenant(id) => id.namespace(),
            Self::Platform { namespace } => namespace.to_owned(),
        }
    }

    fn selector(self) -> String {
        match self {
            Self::Tenant(id) => labels::owner_selector(id),
            Self::Platform { .. } => labels::PLATFORM_SELECTOR.to_owned(),
        }
    }

    /// The kinds whose objects are looked for by the owner's labels. A tenant has nothing in the cluster but its namespace.
    fn searched(self) -> impl Iterator<Item = &'static Kind> {
        let kinds = match self {
            Self::Tenant(_) => kinds::TENANT,
            Self::Platform { .. } => kinds::PLATFORM,
        };
        let in_cluster = matches!(self, Self::Platform { .. });
        kinds
            .iter()
            .copied()
            .filter(move |kind| in_cluster || kind.scope == Scope::Namespaced)
    }
}

/// Makes requests for one owner.
pub(crate) struct Objects<'a> {
    pub(super) client: &'a Client,
    pub(crate) calls: &'a Calls<'a>,
    owner: Owner<'a>,
    force: bool,
}

/// An object of ours that is no longer wanted.
pub(crate) struct Leftover {
    pub(crate) reference: ObjectRef,
    kind: &'static Kind,
    uid: Option<String>,
}

/// What there is of a kind.
pub(super) enum Owned {
    /// All of it.
    Listed(Vec<DynamicObject>),
    /// We may not know: what was asked for, and the API server's words.
    Forbidden(String),
}

/// Why applying one object failed.
pub(crate) struct Failure<'m> {
    pub(super) manifest: &'m Manifest,
    pub(crate) error: CallError,
}

impl<'a> Objects<'a> {
    pub(crate) fn new(client: &'a Client, calls: &'a Calls<'a>, owner: Owner<'a>, force: bool) -> Self {
        Self {
            client,
            calls,
            owner,
            force,
        }
    }

    pub(crate) fn api(&self, kind: &Kind) -> Api<DynamicObject> {
        match kind.scope {
            Scope::Namespaced => {
                Api::namespaced_with(self.client.clone(), &self.owner.namespace(), &kind.resource())
            }
            Scope::Cluster => Api::all_with(self.client.clone(), &kind.resource()),
        }
    }

    /// Applies the object; returns it as it then is.
    pub(crate) async fn apply<'m>(&self, manifest: &'m Manifest) -> Result<DynamicObject, Failure<'m>> {
        let until = Instant::now() + ROLE_SEEN_WITHIN;
        loop {
            match self.patch(manifest, "apply", self.parameters()).await {
                Err(failure) if failure.lacks_role() && Instant::now() < until => {
                    sleep(Duration::from_millis(50)).await;
                }
                result => return result,
            }
        }
    }

    /// What applying the object would make of it.
    pub(super) async fn try_apply<'m>(&self, manifest: &'m Manifest) -> Result<DynamicObject, Failure<'m>> {
        let parameters = PatchParams {
            dry_run: true,
            ..self.parameters()
        };
        self.patch(manifest, "apply (dry run)", parameters).await
    }

    /// What applying the object would make of it, were fields taken from whoever else set them.
    pub(crate) async fn try_force<'m>(&self, manifest: &'m Manifest) -> Result<DynamicObject, Failure<'m>> {
        let parameters = PatchParams {
            dry_run: true,
            force: true,
            ..self.parameters()
        };
        self.patch(manifest, "apply (dry run)", parameters).await
    }

    fn parameters(&self) -> PatchParams {
        PatchParams {
            dry_run: false,
            force: self.force,
            field_manager: Some(labels::FIELD_MANAGER.to_owned()),
            field_validation: Some(ValidationDirective::Strict),
        }
    }

    async fn patch<'m>(
        &self,
        manifest: &'m Manifest,
        verb: &str,
        parameters: PatchParams,
    ) -> Result<DynamicObject, Failure<'m>> {
        let api = self.api(manifest.kind);
        let body = Patch::Apply(&manifest.object);
        let what = format!("{verb} {}", manifest.reference());
        let mut result = self
            .calls
            .make(&what, || api.patch(manifest.name(), &parameters, &body))
            .await;
        if result.as_ref().is_err_and(conflict::only_generated) {
            let taking = PatchParams {
                force: true,
                ..parameters
            };
            result = self
                .calls
                .make(&what, || api.patch(manifest.name(), &taking, &body))
                .await;
        }
        result.map_err(|error| Failure { manifest, error })
    }

    /// Fills in the keys that the Secret lacks, and leaves all others as they are; whether there were any. `live` is how it was last seen.
    /// Of two that do this at once, one finds that the other has.
    pub(super) async fn fill(
        &self,
        manifest: &Manifest,
        keys: &[Generated],
        mut live: DynamicObject,
    ) -> Result<bool, CallError> {
        let api = self.api(manifest.kind);
        let what = format!("generate credentials in {}", manifest.reference());
        let parameters = PatchParams {
            field_manager: Some(labels::CREDENTIALS_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        loop {
            let missing = credentials::missing(keys, &live).map_err(|error| CallError {
                what: what.clone(),
                tried_for: None,
                cause: Cause::Unsent(format!("no random bytes: {error}")),
            })?;
            let Some(missing) = missing else { return Ok(false) };
            let body = Patch::Merge(json!({
                "metadata": {"resourceVersion": live.metadata.resource_version},
                "data": missing,
            }));
            let filled = self
                .calls
                .make_unless_conflict(&what, || api.patch(manifest.name(), &parameters, &body))
                .await;
            match filled {
                Ok(_) => return Ok(true),
                Err(error) if error.is_conflict() => self.settle_conflict(error).await?,
                Err(error) => return Err(error),
            }
            let Some(now) = self.get(manifest).await? else {
                return Ok(false);
            };
            live = now;
        }
    }

    /// Makes the object, and fails with 409 where one of that name is there already: an apply would make it ours, whoever's it is.
    pub(super) async fn create(&self, manifest: &Manifest) -> Result<(), CallError> {
        let api = self.api(manifest.kind);
        let manager = Some(labels::FIELD_MANAGER.to_owned());
        let parameters = PostParams {
            field_manager: manager.clone(),
            ..PostParams::default()
        };
        let what = format!("create {}", manifest.reference());
        let made = self
            .calls
            .make_unless_conflict(&what, || api.create(&parameters, &manifest.object))
            .await?;
        self.record_as_applied(manifest, made).await.map(drop)
    }

    /// The server records a create as an update, which later applies would conflict with; it was the first apply, and this has it recorded
    /// as one. Whether there was anything to do: whoever was interrupted between the two is made up for by the next apply. Of two that do
    /// this at once, one finds that the other has.
    pub(super) async fn record_as_applied(
        &self,
        manifest: &Manifest,
        mut live: DynamicObject,
    ) -> Result<bool, CallError> {
        let api = self.api(manifest.kind);
        let parameters = PatchParams {
            field_manager: Some(labels::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let what = format!("record who made {}", manifest.reference());
        let mut changed = false;
        while let Some(entries) = fields::as_applied(live.metadata.managed_fields.as_deref()) {
            changed = true;
            let recorded = Patch::Merge(json!({"metadata": {
                "managedFields": entries,
                "resourceVersion": live.metadata.resource_version,
            }}));
            let recorded = self
                .calls
                .make_unless_conflict(&what, || api.patch(manifest.name(), &parameters, &recorded))
                .await;
            match recorded {
                Ok(_) => break,
                Err(error) if error.is_conflict() => self.settle_conflict(error).await?,
                Err(error) => return Err(error),
            }
            let Some(now) = self.get(manifest).await? else {
                break;
            };
            live = now;
        }
        Ok(changed)
    }

    /// Somebody else wrote at the same time: a moment later it can be read what.
    async fn settle_conflict(&self, error: CallError) -> Result<(), CallError> {
        if Instant::now() > self.calls.deadline() {
            return Err(self.calls.given_up(error));
        }
        sleep(Duration::from_millis(50)).await;
        Ok(())
    }

    /// The object as it is; none if it does not exist.
    pub(crate) async fn get(&self, manifest: &Manifest) -> Result<Option<DynamicObject>, CallError> {
        let api = self.api(manifest.kind);
        let what = format!("get {}", manifest.reference());
        self.calls.make(&what, || api.get_opt(manifest.name())).await
    }

    pub(super) fn namespace_name(&self) -> String {
        self.owner.namespace()
    }

    /// The owner's namespace as it is; none if it does not exist.
    pub(crate) async fn namespace(&self) -> Result<Option<DynamicObject>, CallError> {
        let api = self.api(&kinds::NAMESPACE);
        let name = self.owner.namespace();
        let what = format!("get Namespace {name}");
        self.calls.make(&what, || api.get_opt(&name)).await
    }

    /// The kinds whose objects are looked for by the owner's labels.
    pub(super) fn searched(&self) -> impl Iterator<Item = &'static Kind> {
        self.owner.searched()
    }

    /// All objects of the kind that wear the owner's labels, in its namespace where the kind lives in one. A kind that the server
    /// does not have has none. One that we may not look at is an error where a template makes such objects (`wanted`).
    pub(super) async fn owned(&self, kind: &Kind, wanted: bool) -> Result<Owned, CallError> {
        let api = self.api(kind);
        let parameters = ListParams::default().labels(&self.owner.selector());
        let what = match kind.scope {
            Scope::Namespaced => format!("list {} in {}", kind.plural, self.owner.namespace()),
            Scope::Cluster => format!("list {}", kind.plural),
        };
        match self.calls.make(&what, || api.list(&parameters)).await {
            Ok(list) => Ok(Owned::Listed(list.items)),
            Err(CallError {
                cause: Cause::Refused(status),
                ..
            }) if !wanted && matches!(status.code, 403 | 404) => {
                let refusal = format!("{what}: {}", status.message);
                tracing::debug!("{refusal}; objects of this kind are not looked for");
                Ok(match status.code {
                    403 => Owned::Forbidden(refusal),
                    _ => Owned::Listed(Vec::new()),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes what is no longer wanted; false if it was gone already, or is another object by now.
    pub(super) async fn remove(&self, leftover: Leftover) -> Result<bool, CallError> {
        let Leftover { reference, kind, uid } = leftover;
        let api = self.api(kind);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let what = format!("delete {reference}");
        loop {
            let removed = self
                .calls
                .make_unless_conflict(&what, || api.delete(&reference.name, &parameters))
                .await;
            match removed {
                Ok(_) => return Ok(true),
                Err(error) if error.is_absence() => return Ok(false),
                // Somebody wrote in between, or it is another object of that name: a look tells.
                Err(error) if error.is_conflict() => self.settle_conflict(error).await?,
                Err(error) => return Err(error),
            }
            let what = format!("get {reference}");
            let live = self.calls.make(&what, || api.get_opt(&reference.name)).await?;
            if live.is_none_or(|live| live.metadata.uid != uid) {
                return Ok(false);
            }
        }
    }
}

impl Leftover {
    /// None for what is not to be pruned: what is on its way out, what others applied, and a namespace.
    pub(super) fn of(kind: &'static Kind, object: &DynamicObject) -> Option<Self> {
        let name = object.metadata.name.clone()?;
        let namespace = object.metadata.namespace.clone();
        let reference = ObjectRef {
            kind: kind.kind.to_owned(),
            name,
            namespace,
        };
        let going = object.metadata.deletion_timestamp.is_some();
        (kind.phase != Phase::Namespace && !going && was_applied_by_us(object)).then(|| Self {
            reference,
            kind,
            uid: object.metadata.uid.clone(),
        })
    }
}

/// Labels can be copied by anybody, and by controllers; who applied an object is recorded by the server.
pub(crate) fn was_applied_by_us(object: &DynamicObject) -> bool {
    object.metadata.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(labels::FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    })
}

impl Failure<'_> {
    /// Who is not allowed everything may bind only a role whose rules the server knows, and it looks for it in a cache.
    pub(crate) fn lacks_role(&self) -> bool {
        self.manifest.kind.phase == Phase::Binding
            && self.error.status().is_some_and(|status| status.code == 404)
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.error
            .status()
            .is_some_and(|status| conflict::causes(status).next().is_some())
    }
}

//! What a fault puts into the tenants by somebody else's hand, once they are provisioned: objects that no template has, and fields of those
//! that templates have. They go with the tenants.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::settings::{SettingsError, invalid};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use provisioner::TenantId;
use provisioner::kinds::{self, Kind, Scope};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const HINT: &str = "by-hand/ holds objects, one a file, of kinds that a tenant's templates may make: in a tenant's namespace, metadata.namespace: ai-agents-@A@ or ai-agents-@B@, or that namespace itself; of an object that exists already only the fields that are to change";
/// Who it is that does this, as the API server records it.
const SOMEBODY: &str = "somebody-else";
/// How long a quota may take until it is in force. Until then it refuses every pod.
const IN_FORCE: Duration = Duration::from_secs(10);

/// Objects, each with its kind, in the order of their files.
#[derive(Debug, Clone, Default)]
pub struct ByHand(Vec<(&'static Kind, DynamicObject)>);

impl ByHand {
    /// The files of a fault's `by-hand/`.
    ///
    /// # Errors
    /// A file that is no object, or one that would not be in a tenant of the fault.
    pub(super) fn read(
        files: &[(PathBuf, String)],
        tenants: &[TenantId; 2],
    ) -> Result<ByHand, SettingsError> {
        let objects = files.iter().map(|(path, text)| object(path, text, tenants));
        objects.collect::<Result<_, _>>().map(ByHand)
    }

    /// Does what is to be done in this tenant: server-side, taking fields from whoever set them, as an editor does.
    ///
    /// # Errors
    /// The API server refused, or a quota does not come into force.
    pub async fn plant(&self, client: &Client, tenant: &TenantId) -> Result<(), HarnessError> {
        let namespace = tenant.namespace();
        for (kind, object) in self.0.iter().filter(|(_, object)| place(object) == namespace) {
            let resource = kind.resource();
            let objects: Api<DynamicObject> = match kind.scope {
                Scope::Namespaced => Api::namespaced_with(client.clone(), &namespace, &resource),
                Scope::Cluster => Api::all_with(client.clone(), &resource),
            };
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let doing = format!("plant {} {name} by hand in {namespace}", kind.kind);
            let params = PatchParams::apply(SOMEBODY).force();
            within(
                ANSWER,
                &doing,
                objects.patch(name, &params, &Patch::Apply(object)),
            )
            .await?;
            if kind.kind == "ResourceQuota" {
                in_force(&objects, name, &doing).await?;
            }
        }
        Ok(())
    }
}

/// The namespace that the object is in, or is.
fn place(object: &DynamicObject) -> &str {
    let metadata = &object.metadata;
    metadata
        .namespace
        .as_deref()
        .or(metadata.name.as_deref())
        .unwrap_or_default()
}

fn object(
    path: &Path,
    text: &str,
    tenants: &[TenantId; 2],
) -> Result<(&'static Kind, DynamicObject), SettingsError> {
    let wrong = |problem: String| invalid(path.display().to_string(), problem, HINT);
    let object: DynamicObject = serde_yaml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let types = object.types.clone().unwrap_or_default();
    let mut known = kinds::TENANT.iter().copied();
    let kind = known.find(|kind| kind.kind == types.kind && kind.api_version() == types.api_version);
    let kind = kind.ok_or_else(|| wrong(format!("makes {} of {}", types.kind, types.api_version)))?;
    let metadata = &object.metadata;
    let fits = metadata.name.is_some()
        && metadata.namespace.is_some() == (kind.scope == Scope::Namespaced)
        && tenants.iter().any(|tenant| tenant.namespace() == place(&object));
    if fits {
        return Ok((kind, object));
    }
    Err(wrong(format!(
        "makes {} {} in namespace {}",
        kind.kind,
        metadata.name.as_deref().unwrap_or("without a name"),
        metadata.namespace.as_deref().unwrap_or("none")
    )))
}

async fn in_force(quotas: &Api<DynamicObject>, name: &str, doing: &str) -> Result<(), HarnessError> {
    let deadline = Instant::now() + IN_FORCE;
    loop {
        let quota = within(ANSWER, doing, quotas.get(name)).await?;
        if quota.data.pointer("/status/hard") == quota.data.pointer("/spec/hard") {
            return Ok(());
        }
        if Instant::now() > deadline {
            let seconds = IN_FORCE.as_secs();
            return Err(HarnessError::new(format!(
                "{doing}: not in force after {seconds} s"
            )));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

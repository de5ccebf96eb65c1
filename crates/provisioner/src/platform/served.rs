//! Which kinds the server has, where not every supported one has them all. Asked of its discovery documents, never of its version: a
//! distribution may turn an API off, or have it early.

use crate::calls::{CallError, Calls, Cause};
use crate::kinds::Kind;
use crate::manifest::{Manifest, ObjectRef};
use kube::Client;

/// Manifests sorted by whether the server can have them.
pub(super) struct Served {
    /// Those of kinds that it has.
    pub(super) manifests: Vec<Manifest>,
    /// The others, each with the reason.
    pub(super) skipped: Vec<(ObjectRef, String)>,
}

/// Sorts them. Discovery is open to everybody who is authenticated (ClusterRole `system:discovery`).
///
/// # Errors
/// The server did not answer.
pub(super) async fn of(
    client: &Client,
    calls: &Calls<'_>,
    manifests: &[Manifest],
) -> Result<Served, CallError> {
    let mut kinds: Vec<(&Kind, Option<String>)> = Vec::new();
    let (mut served, mut skipped) = (Vec::new(), Vec::new());
    for manifest in manifests {
        let known = kinds.iter().find(|(kind, _)| *kind == manifest.kind);
        let lacks = match known {
            Some((_, lacks)) => lacks.clone(),
            None => {
                let lacks = lacks(client, calls, manifest.kind).await?;
                kinds.push((manifest.kind, lacks.clone()));
                lacks
            }
        };
        match lacks {
            None => served.push(manifest.clone()),
            Some(why) => skipped.push((manifest.reference(), why)),
        }
    }
    Ok(Served {
        manifests: served,
        skipped,
    })
}

/// Why the server cannot have objects of this kind; none where it can.
async fn lacks(client: &Client, calls: &Calls<'_>, kind: &Kind) -> Result<Option<String>, CallError> {
    let Some(since) = kind.since else { return Ok(None) };
    let version = kind.api_version();
    let what = format!("ask which kinds the server has in {version}");
    let found = calls
        .make(&what, || client.list_api_group_resources(&version))
        .await;
    let has = match found {
        Ok(list) => list.resources.iter().any(|each| each.name == kind.plural),
        Err(CallError {
            cause: Cause::Refused(status),
            ..
        }) if status.code == 404 => false,
        Err(error) => return Err(error),
    };
    Ok((!has).then(|| {
        format!(
            "this server has no {} in {version}: Kubernetes has them since {since}; what they hold is not held here",
            kind.plural
        )
    }))
}

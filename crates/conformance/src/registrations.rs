//! The run's own tenants with PostgreSQL and Redis: registered for the run, written into the ledger before, and removed with all that was
//! stored for them. How that is done is `provisioner::registration`.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::ledger::{Entry, Kind};
use crate::names::{FIELD_MANAGER, REGISTERED};
use crate::removal::belongs;
use crate::settings::Settings;
use crate::stage::Site;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use provisioner::registration::{self, RegistrationError, State};
use provisioner::tenant::SharedServices;
use provisioner::{Silent, Tenant, TenantId};
use serde_json::json;
use std::time::Duration;

/// How long PostgreSQL and Redis may take to answer, when it is looked for what they hold: on a busy machine a port-forward takes seconds.
const LOOK: Duration = Duration::from_secs(30);

/// A tenant's registration, as it is in a ledger.
pub fn entry(id: &TenantId) -> Entry {
    Entry {
        kind: Kind::Registration,
        namespace: None,
        name: id.to_string(),
    }
}

/// Registers a tenant of the run's own. One that PostgreSQL or Redis know already is somebody's, whose namespace is gone: it is left alone,
/// since what the run registers it purges.
///
/// # Errors
/// That there is such a one; PostgreSQL or Redis is not there, or refuses.
pub async fn register(site: &Site, id: &TenantId) -> Result<(), HarnessError> {
    let (client, tenant, patience) = (&site.cluster.client, site.tenant(id)?, site.settings.start_within);
    let doing = format!("register tenant {id}");
    let found = registration::state(client, &tenant.shared_services, id, &Silent, patience).await;
    let found = found.map_err(|error| told(&doing, &error))?;
    if !found.is_empty() {
        return Err(HarnessError::new(format!(
            "{doing}: expected that PostgreSQL and Redis hold nothing of it, found {found}; nothing was changed there"
        ))
        .hint(format!(
            "choose other tenants with --tenants, or, where nobody needs it: provisioner delete --tenant-id {id} --purge-data"
        )));
    }
    let made = site.ledger.made(entry(id));
    made.map_err(|error| site.ledger.unwritable(&error))?;
    mark(site, id).await?;
    let registered = registration::register(client, tenant, &Silent, patience).await;
    registered.map(drop).map_err(|error| told(&doing, &error))
}

/// Says on the tenant's namespace that its registration is the run's, for whoever cleans up without this ledger.
async fn mark(site: &Site, id: &TenantId) -> Result<(), HarnessError> {
    let namespaces = Api::<Namespace>::all(site.cluster.client.clone());
    let name = id.namespace();
    let patch = Patch::Merge(json!({"metadata": {"annotations": {REGISTERED: site.mark.run.as_str()}}}));
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let doing = format!("mark namespace {name} as registered");
    let marked = within(ANSWER, doing, namespaces.patch_metadata(&name, &params, &patch)).await;
    marked.map(drop)
}

/// Removes registrations of a run's tenants; answers with what could not be removed, and why. Where a tenant's namespace is there and does
/// not carry this run's mark, the tenant is somebody's since.
pub async fn remove(
    client: &kube::Client,
    settings: &Settings,
    run: &str,
    entries: &[Entry],
    limit: Duration,
    gone: &(dyn Fn(&Entry) + Sync),
) -> Vec<(Entry, String)> {
    let purged = entries.iter().map(|entry| async move {
        let purged = purge(client, settings, run, entry, limit).await;
        (entry, purged)
    });
    let mut failed = Vec::new();
    for (entry, purged) in join_all(purged).await {
        match purged {
            Ok(()) => gone(entry),
            Err(error) => failed.push((entry.clone(), error.to_string())),
        }
    }
    failed
}

async fn purge(
    client: &kube::Client,
    settings: &Settings,
    run: &str,
    entry: &Entry,
    limit: Duration,
) -> Result<(), HarnessError> {
    let id = tenant(entry)?;
    let namespaces = Api::<Namespace>::all(client.clone());
    let doing = format!("get namespace {}", id.namespace());
    let namespace = within(ANSWER, doing, namespaces.get_metadata_opt(&id.namespace())).await?;
    if namespace.is_some_and(|namespace| !belongs(&namespace.metadata, run)) {
        return Ok(());
    }
    let purged = registration::purge(client, &services(settings, &id), &id, &Silent, limit).await;
    purged
        .map(drop)
        .map_err(|error| told(&format!("remove the registration of tenant {id}"), &error))
}

/// What PostgreSQL and Redis hold of a tenant.
///
/// # Errors
/// They do not say.
pub async fn state(client: &kube::Client, settings: &Settings, entry: &Entry) -> Result<State, HarnessError> {
    let id = tenant(entry)?;
    let state = registration::state(client, &services(settings, &id), &id, &Silent, LOOK).await;
    state.map_err(|error| told(&format!("look for the registration of tenant {id}"), &error))
}

/// Those that the run has written down.
pub fn written(site: &Site) -> Vec<Entry> {
    let mut entries = site.ledger.newest_first();
    entries.retain(|entry| entry.kind == Kind::Registration);
    entries
}

/// Those of them that are there now, as far as PostgreSQL and Redis say: nobody finds them by a label.
pub async fn standing(site: &Site) -> Vec<Entry> {
    let entries = written(site);
    let (client, settings) = (&site.cluster.client, &site.settings);
    let states = join_all(entries.iter().map(|entry| state(client, settings, entry))).await;
    let found = entries.into_iter().zip(states);
    let found = found.filter(|(_, state)| state.as_ref().is_ok_and(|state| !state.is_empty()));
    found.map(|(entry, _)| entry).collect()
}

fn tenant(entry: &Entry) -> Result<TenantId, HarnessError> {
    TenantId::try_from(entry.name.as_str()).map_err(|error| HarnessError::new(error.to_string()))
}

/// Where a tenant is registered: all tenants of a platform share the same services.
fn services(settings: &Settings, id: &TenantId) -> SharedServices {
    let own = pattern(settings, id);
    own.map(|tenant| tenant.shared_services.clone())
        .unwrap_or_default()
}

/// The tenant of this id, or one that is like it.
fn pattern<'s>(settings: &'s Settings, id: &TenantId) -> Option<&'s Tenant> {
    let tenants = &settings.tenants;
    tenants.iter().find(|tenant| tenant.id == *id).or(tenants.first())
}

fn told(doing: &str, error: &RegistrationError) -> HarnessError {
    HarnessError {
        hint: error.hint(),
        ..HarnessError::during(doing, error)
    }
}

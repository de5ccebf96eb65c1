//! The run's own tenants with PostgreSQL and Redis: registered for the run, written into the ledger before, and removed with all that was
//! stored for them. How that is done is `provisioner::registration`.

use crate::error::HarnessError;
use crate::ledger::{Entry, Kind};
use crate::settings::Settings;
use crate::stage::Site;
use futures::future::join_all;
use provisioner::registration::{self, RegistrationError, State};
use provisioner::tenant::SharedServices;
use provisioner::{Silent, TenantId};
use std::time::Duration;

/// How long PostgreSQL and Redis may take to answer, when it is looked for what they hold.
const LOOK: Duration = Duration::from_secs(10);

/// A tenant's registration, as it is in a ledger.
pub fn entry(id: &TenantId) -> Entry {
    Entry {
        kind: Kind::Registration,
        namespace: None,
        name: id.to_string(),
    }
}

/// Registers a tenant of the run's own.
///
/// # Errors
/// PostgreSQL or Redis is not there, or refuses.
pub async fn register(site: &Site, id: &TenantId) -> Result<(), HarnessError> {
    let made = site.ledger.made(entry(id));
    made.map_err(|error| site.ledger.unwritable(&error))?;
    let within = site.settings.start_within;
    let client = &site.cluster.client;
    let registered = registration::register(client, site.tenant(id)?, &Silent, within).await;
    if let Err(error) = registered {
        // What was never reached holds nothing.
        if let RegistrationError::Absent { .. } | RegistrationError::Secret { .. } = error {
            site.ledger.gone(&entry(id));
        }
        return Err(told(format!("register tenant {id}"), &error));
    }
    Ok(())
}

/// Removes registrations; answers with what could not be removed, and why.
pub async fn remove(
    client: &kube::Client,
    settings: &Settings,
    entries: &[Entry],
    limit: Duration,
    gone: &(dyn Fn(&Entry) + Sync),
) -> Vec<(Entry, String)> {
    let purged = entries.iter().map(|entry| async move {
        let purged = purge(client, settings, entry, limit).await;
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
    entry: &Entry,
    limit: Duration,
) -> Result<(), HarnessError> {
    let id = tenant(entry)?;
    match registration::purge(client, &services(settings, &id), &id, &Silent, limit).await {
        Ok(_) => Ok(()),
        // Neither PostgreSQL nor Redis, or nobody of ours who may do anything there.
        Err(RegistrationError::Absent { .. } | RegistrationError::Secret { of_tenant: false, .. }) => Ok(()),
        Err(error) => Err(told(format!("remove the registration of tenant {id}"), &error)),
    }
}

/// What PostgreSQL and Redis hold of a tenant.
///
/// # Errors
/// They do not say.
pub async fn state(client: &kube::Client, settings: &Settings, entry: &Entry) -> Result<State, HarnessError> {
    let id = tenant(entry)?;
    let state = registration::state(client, &services(settings, &id), &id, &Silent, LOOK).await;
    state.map_err(|error| told(format!("look for the registration of tenant {id}"), &error))
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

/// These entries, and the registration of each tenant among them: what is found by label alone does not tell of it.
pub fn with_those_of_tenants(mut entries: Vec<Entry>) -> Vec<Entry> {
    let tenants: Vec<TenantId> = entries
        .iter()
        .filter(|entry| entry.kind == Kind::Tenant)
        .filter_map(|entry| tenant(entry).ok())
        .collect();
    for id in tenants {
        if !entries.contains(&self::entry(&id)) {
            entries.push(self::entry(&id));
        }
    }
    entries
}

fn tenant(entry: &Entry) -> Result<TenantId, HarnessError> {
    TenantId::try_from(entry.name.as_str()).map_err(|error| HarnessError::new(error.to_string()))
}

/// Where a tenant is registered: all tenants of a platform share the same services.
fn services(settings: &Settings, id: &TenantId) -> SharedServices {
    let tenants = &settings.tenants;
    let own = tenants.iter().find(|tenant| tenant.id == *id).or(tenants.first());
    own.map(|tenant| tenant.shared_services.clone())
        .unwrap_or_default()
}

fn told(doing: String, error: &RegistrationError) -> HarnessError {
    HarnessError {
        hint: error.hint(),
        ..HarnessError::during(doing, error)
    }
}

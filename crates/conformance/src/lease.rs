//! One Lease per tenant guards it against a second run: taken in the order of names, renewed while the run lasts, released last. A Lease
//! that is not renewed is taken over.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::event::Events;
use crate::ledger::{Entry, Kind, Ledger};
use crate::manifest::Mark;
use crate::names;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use provisioner::TenantId;
use serde_json::{Value, json};
use std::time::Duration;

/// Where the Leases are: a namespace that every cluster has.
pub const NAMESPACE: &str = "default";
const DURATION_SECONDS: i32 = 60;
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// After so long without a renewal the tenants count as lost, well before the Leases lapse.
const LOST_AFTER: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_secs(1);

/// The Lease of a tenant.
pub fn entry(tenant: &TenantId) -> Entry {
    Entry {
        kind: Kind::Lease,
        namespace: Some(NAMESPACE.to_owned()),
        name: names::lease(tenant),
    }
}

/// The Lease of a tenant, held by this run from now on.
fn manifest(tenant: &TenantId, mark: &Mark, version: Option<&str>) -> Value {
    let mut metadata = mark.metadata(&names::lease(tenant), Some(NAMESPACE));
    metadata["resourceVersion"] = json!(version);
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": mark.run.as_str(),
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": micro(Timestamp::now()),
            "renewTime": micro(Timestamp::now()),
        },
    })
}

/// Kubernetes' MicroTime.
fn micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// Takes the Leases of all tenants, waiting for a run that holds one; the caller bounds the wait.
///
/// # Errors
/// The API server refused, or a Lease that was taken already was lost meanwhile.
pub async fn acquire(
    client: &kube::Client,
    tenants: &[TenantId],
    mark: &Mark,
    ledger: &Ledger,
    events: &Events,
) -> Result<(), HarnessError> {
    let mut ordered = tenants.to_vec();
    // One order for every run: two that share tenants never wait for each other.
    ordered.sort();
    for (index, tenant) in ordered.iter().enumerate() {
        tokio::select! {
            taken = wait_for(client, tenant, mark, ledger, events) => taken?,
            lost = keep(client, &ordered[..index], mark) => return Err(lost),
        }
    }
    Ok(())
}

async fn wait_for(
    client: &kube::Client,
    tenant: &TenantId,
    mark: &Mark,
    ledger: &Ledger,
    events: &Events,
) -> Result<(), HarnessError> {
    let mut told = false;
    while let Some(holder) = take(client, tenant, mark, ledger).await? {
        if !told {
            events.notice(format!(
                "tenant {tenant} is in use by run {holder}: waiting for it (or choose others with --tenants)"
            ));
            told = true;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Takes one Lease; answers who holds it where somebody does.
async fn take(
    client: &kube::Client,
    tenant: &TenantId,
    mark: &Mark,
    ledger: &Ledger,
) -> Result<Option<String>, HarnessError> {
    let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    let entry = entry(tenant);
    let found = within(ANSWER, format!("get {entry}"), leases.get_opt(&entry.name)).await?;
    let Some(lease) = found else {
        return match ledger.create(client, manifest(tenant, mark, None)).await {
            Ok(_) => Ok(None),
            Err(error) if error.what.contains("AlreadyExists") || error.what.contains("already exists") => {
                Ok(Some("another".to_owned()))
            }
            Err(error) => Err(error),
        };
    };
    let holder = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.clone())
        .unwrap_or_default();
    if !lapsed(&lease, Timestamp::now()) || still_renewed(&leases, &lease).await? {
        return Ok(Some(holder));
    }
    ledger
        .made(entry.clone())
        .map_err(|error| ledger.unwritable(&error))?;
    let mine: Lease =
        serde_json::from_value(manifest(tenant, mark, lease.metadata.resource_version.as_deref()))
            .map_err(|error| HarnessError::during("write a Lease", &error))?;
    match leases.replace(&entry.name, &PostParams::default(), &mine).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
            ledger.gone(&entry);
            Ok(Some(holder))
        }
        Err(error) => Err(HarnessError::during(format!("take over {entry}"), &error)),
    }
}

/// Whether somebody renews it all the same: its holder's clock may differ from ours.
async fn still_renewed(leases: &Api<Lease>, lease: &Lease) -> Result<bool, HarnessError> {
    tokio::time::sleep(RENEW_EVERY + RENEW_EVERY / 3).await;
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let now = within(ANSWER, format!("get lease {name}"), leases.get_opt(name)).await?;
    Ok(now.is_some_and(|now| now.metadata.resource_version != lease.metadata.resource_version))
}

fn lapsed(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return true };
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(DURATION_SECONDS));
    match &spec.renew_time {
        Some(renewed) => renewed.0 + jiff::SignedDuration::from_secs(seconds) < now,
        None => true,
    }
}

/// Renews the Leases for as long as it is polled.
///
/// # Errors
/// One is somebody else's now, or could not be renewed for so long that it may be soon.
pub async fn keep(client: &kube::Client, tenants: &[TenantId], mark: &Mark) -> HarnessError {
    let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let mut failure = None;
        for tenant in tenants {
            match renew(&leases, tenant, mark).await {
                Ok(true) => {}
                Ok(false) => {
                    return HarnessError::new(format!("{} is not this run's any more", entry(tenant)));
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => renewed = tokio::time::Instant::now(),
            Some(error) if renewed.elapsed() > LOST_AFTER => return error,
            Some(_) => {}
        }
    }
}

/// Whether it is ours still, and then renewed.
async fn renew(leases: &Api<Lease>, tenant: &TenantId, mark: &Mark) -> Result<bool, HarnessError> {
    let entry = entry(tenant);
    let Some(mut lease) = within(ANSWER, format!("get {entry}"), leases.get_opt(&entry.name)).await? else {
        return Ok(false);
    };
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(mark.run.as_str()) {
        return Ok(false);
    }
    spec.renew_time = Some(MicroTime(Timestamp::now()));
    // The version that was read is part of the request: a Lease that was taken meanwhile is not taken back.
    let params = PostParams::default();
    within(
        ANSWER,
        format!("renew {entry}"),
        leases.replace(&entry.name, &params, &lease),
    )
    .await
    .map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::fresh("2026-01-01T00:00:59.000000Z", false)]
    #[case::lapsed("2026-01-01T00:01:01.000000Z", true)]
    fn a_lease_lapses_a_minute_after_its_renewal(#[case] now: &str, #[case] expected: bool) {
        let lease: Lease = serde_json::from_value(json!({
            "spec": { "holderIdentity": "x", "leaseDurationSeconds": 60, "renewTime": "2026-01-01T00:00:00.000000Z" },
        }))
        .unwrap();
        assert_eq!(lapsed(&lease, now.parse().unwrap()), expected);
    }

    #[test]
    fn times_are_written_as_kubernetes_reads_them() {
        assert_eq!(
            micro("2026-01-01T00:00:00Z".parse().unwrap()),
            "2026-01-01T00:00:00.000000Z"
        );
    }
}

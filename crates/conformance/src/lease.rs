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
use kube::api::{Api, Patch, PatchParams, PostParams};
use provisioner::TenantId;
use serde_json::{Value, json};
use std::time::Duration;

/// Where the Leases are: a namespace that every cluster has.
pub const NAMESPACE: &str = "default";
const DURATION_SECONDS: i32 = 60;
const RENEW_EVERY: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_secs(1);

fn entry(tenant: &TenantId) -> Entry {
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
/// The API server refused.
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
    for tenant in &ordered {
        let mut told = false;
        while let Some(holder) = take(client, tenant, mark, ledger).await? {
            if !told {
                events.notice(format!("tenant {tenant} is in use by run {holder}: waiting for it (or choose others with --tenants)"));
                told = true;
            }
            tokio::time::sleep(POLL).await;
        }
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
    if !lapsed(&lease, Timestamp::now()) {
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
/// One could not be renewed for as long as it is valid: somebody else may take the tenant now.
pub async fn keep(client: &kube::Client, tenants: &[TenantId]) -> HarnessError {
    let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let mut failure = None;
        for tenant in tenants {
            let patch = Patch::Merge(json!({ "spec": { "renewTime": micro(Timestamp::now()) } }));
            let name = names::lease(tenant);
            let params = PatchParams::default();
            let answer = leases.patch(&name, &params, &patch);
            if let Err(error) = within(ANSWER, format!("renew {}", entry(tenant)), answer).await {
                failure = Some(error);
            }
        }
        match failure {
            None => renewed = tokio::time::Instant::now(),
            Some(error)
                if renewed.elapsed() > Duration::from_secs(DURATION_SECONDS.unsigned_abs().into()) =>
            {
                return error;
            }
            Some(_) => {}
        }
    }
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

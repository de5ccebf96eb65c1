//! What the checks of quotas share: what a quota counts as used, objects for just more than is left of one dimension and for all that is
//! left, and the right to have a tenant's quota for oneself meanwhile. What a quota must be comes from the tenant's settings, never from
//! the cluster; what its refusals mean for a promise is left to the checks.

use crate::cluster::ANSWER;
use crate::context::Context;
use crate::denial::{Denial, classify};
use crate::error::{HarnessError, chain, within};
use crate::ledger::{self, Entry};
use crate::verdict::{Control, Finding, Observation, Observed};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use provisioner::{Quantity, Tenant, TenantId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

mod dimension;

pub use dimension::Dimension;

/// How often a quota is looked at while it is waited for.
pub const POLL: Duration = Duration::from_millis(200);
/// How long a quota may take until it is in force: admission reads its status, which a controller fills.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);
/// Until what was admitted is asked for again: API servers learn of a quota one after the other.
const AGAIN: Duration = Duration::from_millis(500);

/// The tenant's quota for oneself, in force, until the guard is dropped. Checks that measure a quota, or use some of it up, would mislead
/// each other: one at a time for each tenant.
///
/// # Errors
/// The tenant was not put up, or its quotas cannot be listed.
pub async fn hold<'a>(cx: &'a Context, tenant: &TenantId) -> Result<MutexGuard<'a, ()>, HarnessError> {
    cx.stage.tenant(tenant).await?;
    let guard = cx.stage.quota(tenant)?.lock().await;
    let deadline = Instant::now() + IN_FORCE_WITHIN;
    // Where it is not in force in time, the probes show what that means.
    while !in_force(&list(&cx.site.cluster.client, &tenant.namespace()).await?) && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
    Ok(guard)
}

fn in_force(quotas: &[ResourceQuota]) -> bool {
    quotas.iter().all(|quota| {
        let spec = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
        spec == quota.status.as_ref().and_then(|status| status.hard.as_ref())
    })
}

async fn list(client: &kube::Client, namespace: &str) -> Result<Vec<ResourceQuota>, HarnessError> {
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), namespace);
    let doing = format!("list resourcequotas in namespace {namespace}");
    Ok(within(ANSWER, doing, quotas.list(&ListParams::default()))
        .await?
        .items)
}

/// What is used of a dimension, in its unit, rounded down and up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    /// Rounded down.
    pub floor: i128,
    /// Rounded up.
    pub ceiling: i128,
}

/// What the quotas of a namespace count as used, by their keys. Several may count the same, and the largest binds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usage(BTreeMap<String, Quantity>);

impl Usage {
    /// What is used of a dimension; nothing where no quota counts it.
    pub fn of(&self, dimension: Dimension) -> Option<Used> {
        let quantity = self.0.get(dimension.key())?;
        Some(Used {
            floor: dimension.units(quantity),
            ceiling: dimension.units_rounded_up(quantity),
        })
    }

    /// How many pods are counted; nothing where no quota counts them.
    pub fn pods(&self) -> Option<usize> {
        usize::try_from(self.0.get("pods")?.nanos() / 1_000_000_000).ok()
    }
}

/// What is used in a namespace now.
///
/// # Errors
/// The quotas cannot be listed.
pub async fn usage(client: &kube::Client, namespace: &str) -> Result<Usage, HarnessError> {
    let mut usage = BTreeMap::new();
    for quota in list(client, namespace).await? {
        for (key, used) in quota.status.and_then(|status| status.used).unwrap_or_default() {
            let Ok(used) = used.0.parse::<Quantity>() else {
                continue;
            };
            if usage.get(&key).is_none_or(|most| *most < used) {
                usage.insert(key, used);
            }
        }
    }
    Ok(Usage(usage))
}

/// What the API server makes of an object in a dry run: the object as it would be stored, or why it is refused.
///
/// # Errors
/// No answer.
pub async fn dry_run(
    cx: &Context,
    tenant: &Tenant,
    object: Value,
) -> Result<Result<DynamicObject, Denial>, HarnessError> {
    let kind = ledger::Kind::of(&object)
        .ok_or_else(|| HarnessError::new(format!("no kind of ours: {}", object["kind"])))?;
    let entry = Entry {
        kind,
        namespace: Some(tenant.namespace()),
        name: String::new(),
    };
    let doing = format!(
        "create {} in namespace {} (dry run)",
        object["kind"].as_str().unwrap_or_default(),
        tenant.namespace()
    );
    let object: DynamicObject =
        serde_json::from_value(object).map_err(|error| HarnessError::during(&doing, &error))?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let objects = ledger::api(&cx.site.cluster.client, &entry);
    let _turn = cx.site.cluster.pace.one_of_many().await;
    match tokio::time::timeout(ANSWER, objects.create(&params, &object)).await {
        Ok(Ok(object)) => Ok(Ok(object)),
        Ok(Err(kube::Error::Api(status))) => Ok(Err(classify(&status))),
        Ok(Err(error)) => Err(HarnessError::new(format!("{doing}: {}", chain(&error)))),
        Err(_) => Err(HarnessError::new(format!(
            "{doing}: no answer within {} s",
            ANSWER.as_secs()
        ))),
    }
}

/// An object for just more than what is left of a dimension: a quota that was raised by anything admits it, at the second asking too.
pub async fn beyond(cx: &Context, tenant: &Tenant, dimension: Dimension) -> Observed {
    let promised = dimension.promised(tenant);
    let more = |usage: &Usage| (promised - usage.of(dimension).unwrap_or_default().floor + 1).max(1);
    let mut asked = at_rest(cx, tenant, dimension, more).await;
    if matches!(&asked, Ok(Asked { answer: Ok(()), .. })) {
        tokio::time::sleep(AGAIN).await;
        asked = at_rest(cx, tenant, dimension, more).await;
    }
    let asker = dimension.asker();
    let what = |amount: String| format!("{}: {asker} {amount}", tenant.id);
    match asked {
        Err(error) => Observed {
            what: what(format!("beyond {}", dimension.key())),
            observation: Observation::Broken(error.to_string()),
        },
        Ok(Asked { units, used, answer }) => Observed {
            what: what(format!("with {}={}", dimension.key(), dimension.write(units))),
            observation: match answer {
                Ok(()) => Observation::Reached(format!(
                    "admitted, with {} used and {} promised",
                    dimension.write(used.floor),
                    dimension.write(promised)
                )),
                Err(denial) => refusal(&denial, dimension.key()),
            },
        },
    }
}

/// Only the quota's own refusal, for what `key` names in it, is the denial that was promised.
pub fn refusal(denial: &Denial, key: &str) -> Observation {
    match denial {
        Denial::Quota { name, dimensions } if dimensions.iter().any(|each| each == key) => {
            Observation::Denied(format!("exceeded quota {name}: {}", dimensions.join(", ")))
        }
        Denial::Quota { dimensions, .. } => Observation::Broken(format!(
            "the quota refused it for {} instead",
            dimensions.join(", ")
        )),
        other => Observation::Broken(format!("something else than the quota refused it: {other:?}")),
    }
}

/// An object for all that is left of a dimension, or as much of it as the limit that it brings along leaves room for: admitted it is a
/// control; refused by the quota, the tenant has less than promised.
///
/// # Errors
/// The broken promise.
pub async fn within_quota(cx: &Context, tenant: &Tenant, dimension: Dimension) -> Result<Control, Finding> {
    let (promised, asker) = (dimension.promised(tenant), dimension.asker());
    let claim = |what: String| format!("{}: {what}", tenant.id);
    let broken = |why: String| {
        Ok(Control {
            claim: claim(format!("a {asker} within {}", dimension.key())),
            holds: Err(why),
        })
    };
    let left = |usage: &Usage, dimension: Dimension| {
        dimension.promised(tenant) - usage.of(dimension).unwrap_or_default().ceiling
    };
    let all = |usage: &Usage| {
        let bound = dimension.limit().map_or(i128::MAX, |limit| left(usage, limit));
        left(usage, dimension).min(bound).max(1)
    };
    let asked = match at_rest(cx, tenant, dimension, all).await {
        Ok(asked) => asked,
        Err(error) => return broken(error.to_string()),
    };
    let used = dimension.write(asked.used.floor);
    let object = claim(format!(
        "a {asker} with all that is left, {}={}",
        dimension.key(),
        dimension.write(asked.units)
    ));
    match asked.answer {
        _ if asked.used.ceiling >= promised => broken(format!(
            "the quota is used up already: {used} of {}",
            dimension.write(promised)
        )),
        Ok(()) => Ok(Control {
            claim: object,
            holds: Ok("admitted".to_owned()),
        }),
        Err(Denial::Quota { name, dimensions }) if dimensions.iter().any(|each| each == dimension.key()) => {
            Err(Finding {
                expected: format!(
                    "{object} is admitted: {} promised, {used} used",
                    dimension.write(promised)
                ),
                seen: format!("quota {name} refused it"),
            })
        }
        Err(Denial::Quota { dimensions, .. }) => broken(format!(
            "it cannot be asked for by itself: less is left of {}",
            dimensions.join(", ")
        )),
        Err(denial) => broken(format!("refused: {denial:?}")),
    }
}

/// A dry run, and the usage that stood still around it.
struct Asked {
    units: i128,
    used: Used,
    answer: Result<(), Denial>,
}

/// Asks for an amount that follows from the usage, and again where the usage moved meanwhile: a tenant may be at work.
async fn at_rest(
    cx: &Context,
    tenant: &Tenant,
    dimension: Dimension,
    amount: impl Fn(&Usage) -> i128,
) -> Result<Asked, HarnessError> {
    const TRIES: usize = 5;
    let (site, namespace) = (&cx.site, tenant.namespace());
    for _ in 0..TRIES {
        let before = usage(&site.cluster.client, &namespace).await?;
        let units = amount(&before);
        let object = dimension.object(units, tenant, &site.mark, &site.settings.agent_image);
        let answer = dry_run(cx, tenant, object).await?.map(|_| ());
        if usage(&site.cluster.client, &namespace).await? == before {
            let used = before.of(dimension).unwrap_or_default();
            return Ok(Asked { units, used, answer });
        }
        tokio::time::sleep(POLL).await;
    }
    Err(HarnessError::new(format!(
        "the quota's usage moved during each of {TRIES} tries to measure {}: the tenant is busy",
        dimension.key()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::requests_cpu(Dimension::RequestsCpu, 2001, json!({"cpu": "2001m", "memory": "1Mi"}), json!({"cpu": "2001m", "memory": "1Mi"}))]
    #[case::limits_cpu(Dimension::LimitsCpu, 4001, json!({"cpu": "1m", "memory": "1Mi"}), json!({"cpu": "4001m", "memory": "1Mi"}))]
    #[case::requests_memory(Dimension::RequestsMemory, 4097, json!({"cpu": "1m", "memory": "4097Mi"}), json!({"cpu": "1m", "memory": "4097Mi"}))]
    #[case::limits_memory(Dimension::LimitsMemory, 8193, json!({"cpu": "1m", "memory": "1Mi"}), json!({"cpu": "1m", "memory": "8193Mi"}))]
    fn one_dimension_is_asked_for_by_itself(
        #[case] dimension: Dimension,
        #[case] units: i128,
        #[case] requests: Value,
        #[case] limits: Value,
    ) {
        assert_eq!(
            dimension.resources(units),
            json!({ "requests": requests, "limits": limits })
        );
    }

    #[test]
    fn what_is_promised_comes_from_the_tenants_settings() {
        let tenant = Tenant::standard(TenantId::try_from("a").unwrap());
        assert_eq!(
            Dimension::COMPUTE.map(|dimension| dimension.promised(&tenant)),
            [2000, 4000, 4096, 8192]
        );
        assert_eq!(Dimension::RequestsStorage.promised(&tenant), 20 * 1024);
    }

    #[rstest]
    #[case::this_dimension(Denial::Quota { name: "q".into(), dimensions: vec!["limits.cpu".into()] }, "denied")]
    #[case::another_dimension(Denial::Quota { name: "q".into(), dimensions: vec!["limits.memory".into()] }, "broken")]
    #[case::pod_security(Denial::PodSecurity, "broken")]
    #[case::rbac(Denial::Rbac, "broken")]
    #[case::limit_range(Denial::LimitRange, "broken")]
    #[case::quota_without_values(Denial::QuotaOther(String::new()), "broken")]
    #[case::server(Denial::Server(500), "broken")]
    fn only_the_quotas_refusal_for_the_dimension_counts(#[case] denial: Denial, #[case] expected: &str) {
        let word = match refusal(&denial, "limits.cpu") {
            Observation::Reached(_) => "reached",
            Observation::Denied(_) => "denied",
            Observation::Broken(_) => "broken",
        };
        assert_eq!(word, expected);
    }

    #[rstest]
    #[case::synced(json!({ "spec": { "hard": { "pods": "1" } }, "status": { "hard": { "pods": "1" } } }), true)]
    #[case::not_looked_at_yet(json!({ "spec": { "hard": { "pods": "1" } } }), false)]
    #[case::changed_since(json!({ "spec": { "hard": { "pods": "2" } }, "status": { "hard": { "pods": "1" } } }), false)]
    fn a_quota_is_in_force_once_its_status_says_so(#[case] quota: Value, #[case] expected: bool) {
        let quota = serde_json::from_value(quota).unwrap();
        assert_eq!(in_force(&[quota]), expected);
    }
}

//! Takes away what a run made, all at once and Leases last, each waited for until it is gone; and finds what runs left behind, by
//! label among the kinds that runs make. What is written down where is left to `ledger`.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::ledger::{Entry, Kind, api};
use crate::names::{self, EXPIRES, PROBE, PROBE_VALUE, REGISTERED, RUN_ID};
use crate::registrations;
use crate::settings::Settings;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Preconditions, PropagationPolicy};
use provisioner::TenantId;
use provisioner::labels;
use provisioner::{DeleteOptions, Silent};
use std::collections::BTreeMap;
use std::iter;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(150);
/// Later on, and on clusters that are not local, where requests wait for their turn, there is no hurry.
const MAX_POLL: Duration = Duration::from_secs(2);

/// Something a run left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub entry: Entry,
    /// The run that made it.
    pub run: String,
    /// When it was to be gone at the latest.
    pub expires: Option<Timestamp>,
    /// Its deletion was accepted and nothing holds it: the cluster has not carried it out yet.
    pub going: bool,
    /// It is a tenant whose registration is the run's too: nobody finds that by a label.
    pub registered: bool,
}

impl Leftover {
    /// What is to be removed.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let tenant = TenantId::try_from(self.entry.name.as_str()).ok();
        let registration = tenant
            .filter(|_| self.registered)
            .as_ref()
            .map(registrations::entry);
        iter::once(self.entry.clone()).chain(registration)
    }

    /// Whether its time is up. One without a readable time is not: it may be in use.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires < now)
    }
}

/// Everything in the cluster that carries a run's mark.
///
/// # Errors
/// A kind could not be listed: then nothing is known of it.
pub async fn leftovers(client: &kube::Client) -> Result<Vec<Leftover>, HarnessError> {
    let lists = Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::Tenant)
        .map(|kind| list(client, kind));
    let mut found = Vec::new();
    for list in join_all(lists).await {
        found.extend(list?);
    }
    Ok(found)
}

/// Everything in the cluster that carries the mark of this run.
///
/// # Errors
/// As for [`leftovers`].
pub async fn of_run(client: &kube::Client, run: &str) -> Result<Vec<Entry>, HarnessError> {
    let found = left_by(client, run).await?;
    Ok(found.into_iter().map(|leftover| leftover.entry).collect())
}

/// The same, with how each fares.
///
/// # Errors
/// As for [`leftovers`].
pub async fn left_by(client: &kube::Client, run: &str) -> Result<Vec<Leftover>, HarnessError> {
    let mut found = leftovers(client).await?;
    found.retain(|leftover| leftover.run == run);
    for leftover in &mut found {
        match leftover.entry.kind {
            // A tenant's namespace is told to go when its pods have gone.
            Kind::Tenant if !leftover.going => {
                leftover.going = waits_for_pods(client, &leftover.entry).await?;
            }
            Kind::Tenant | Kind::Namespace => {
                leftover.going = leftover.going && !holds_foreign_finalizers(client, &leftover.entry).await?;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Whether pods of a tenant are being deleted, and held by nothing but their node.
async fn waits_for_pods(client: &kube::Client, tenant: &Entry) -> Result<bool, HarnessError> {
    let Ok(id) = TenantId::try_from(tenant.name.as_str()) else {
        return Ok(false);
    };
    let namespace = id.namespace();
    let pods = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &Kind::Pod.resource());
    let doing = format!("list pods in namespace {namespace}");
    let listed = within(ANSWER, doing, pods.list_metadata(&ListParams::default())).await?;
    Ok(listed.items.iter().any(|pod| is_going(&pod.metadata)))
}

/// Finalizers whose controllers are Kubernetes' own: they are on the way, not in it.
const OWN_FINALIZERS: [&str; 4] = [
    "batch.kubernetes.io/job-tracking",
    "foregroundDeletion",
    "kubernetes.io/pvc-protection",
    "orphan",
];

/// Whether something in a namespace that is being deleted has a finalizer that is not Kubernetes' own.
async fn holds_foreign_finalizers(client: &kube::Client, entry: &Entry) -> Result<bool, HarnessError> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let found = within(
        ANSWER,
        format!("get {entry}"),
        namespaces.get_opt(&name_of(entry)),
    )
    .await?;
    let conditions = found
        .and_then(|namespace| namespace.status?.conditions)
        .unwrap_or_default();
    Ok(conditions
        .iter()
        .filter(|each| each.type_ == "NamespaceFinalizersRemaining" && each.status == "True")
        .any(|each| names_foreign_finalizer(each.message.as_deref().unwrap_or_default())))
}

/// `Some content in the namespace has finalizers remaining: example.com/nobody in 1 resource instances, …` (namespace controller,
/// pkg/controller/namespace/deletion/status_condition_utils.go).
fn names_foreign_finalizer(message: &str) -> bool {
    let list = message.split_once(": ").map_or("", |(_, list)| list);
    list.split(", ")
        .filter_map(|part| part.split_once(" in "))
        .any(|(finalizer, _)| !OWN_FINALIZERS.contains(&finalizer))
}

/// The name under which an entry is found; a tenant's is its namespace's.
fn name_of(entry: &Entry) -> String {
    match entry.kind {
        Kind::Tenant => {
            TenantId::try_from(entry.name.as_str()).map_or_else(|_| entry.name.clone(), |id| id.namespace())
        }
        _ => entry.name.clone(),
    }
}

/// Its deletion was accepted and nothing holds it.
fn is_going(metadata: &ObjectMeta) -> bool {
    let foreign = |finalizer: &String| !OWN_FINALIZERS.contains(&finalizer.as_str());
    let held = metadata.finalizers.iter().flatten().any(foreign);
    metadata.deletion_timestamp.is_some() && !held
}

/// The same by run, in the order of runs. Which of a run's is newest is not known, and not needed: all go at once.
pub fn by_run(leftovers: Vec<Leftover>) -> BTreeMap<String, Vec<Entry>> {
    let mut runs: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for leftover in leftovers {
        let entries = leftover.entries();
        runs.entry(leftover.run.clone()).or_default().extend(entries);
    }
    runs
}

async fn list(client: &kube::Client, kind: Kind) -> Result<Vec<Leftover>, HarnessError> {
    let api = Api::<DynamicObject>::all_with(client.clone(), &kind.resource());
    let selector = match kind {
        Kind::Pod => format!("{PROBE}={PROBE_VALUE}"),
        _ => RUN_ID.to_owned(),
    };
    let params = ListParams::default().labels(&selector);
    let doing = format!("list {} by label {selector}", kind.resource().plural);
    let listing = async {
        match api.list_metadata(&params).await {
            // Whoever may not even list them has not made any.
            Err(kube::Error::Api(status)) if kind.takes_all_rights() && status.code == 403 => Ok(Vec::new()),
            listed => listed.map(|listed| listed.items),
        }
    };
    Ok(within(ANSWER, doing, listing)
        .await?
        .into_iter()
        .filter_map(|object| leftover(kind, object.metadata))
        .collect())
}

fn leftover(kind: Kind, metadata: ObjectMeta) -> Option<Leftover> {
    let going = is_going(&metadata);
    let labels = metadata.labels.unwrap_or_default();
    let annotations = metadata.annotations.unwrap_or_default();
    let run = annotations.get(RUN_ID).or_else(|| labels.get(RUN_ID))?.clone();
    let expires = annotations.get(EXPIRES).and_then(|text| text.parse().ok());
    let name = metadata.name?;
    let tenant = (kind == Kind::Namespace)
        .then(|| tenant_of(&name, &labels))
        .flatten();
    // Whoever may label namespaces could put a run's mark on another.
    if kind == Kind::Namespace && tenant.is_none() && !names::is_of_run(&name, &run) {
        return None;
    }
    let registered = tenant.is_some() && annotations.get(REGISTERED) == Some(&run);
    let entry = match tenant {
        Some(id) => Entry {
            kind: Kind::Tenant,
            namespace: None,
            name: id.to_string(),
        },
        None => Entry {
            kind,
            namespace: metadata.namespace,
            name,
        },
    };
    Some(Leftover {
        entry,
        run,
        expires,
        going,
        registered,
    })
}

/// The tenant whose namespace this is: its name and its label say the same.
fn tenant_of(namespace: &str, labels: &BTreeMap<String, String>) -> Option<TenantId> {
    let id = TenantId::try_from(labels.get(labels::TENANT)?.as_str()).ok()?;
    (id.namespace() == namespace).then_some(id)
}

/// Removes these, which belong to `run`, and waits until they are gone; what is gone already is fine. Answers what could not be removed
/// and why; `gone` is told of each that is.
pub async fn remove(
    client: &kube::Client,
    run: &str,
    entries: &[Entry],
    limit: Duration,
    gone: &(dyn Fn(&Entry) + Sync),
) -> Vec<(Entry, String)> {
    // Leases guard the tenants until all else is gone.
    let (leases, rest): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.kind == Kind::Lease);
    let deadline = Instant::now() + limit;
    let mut failed = Vec::new();
    // All at once: a namespace takes five seconds of the namespace controller's own before anything in it is touched, the objects in it are
    // deleted meanwhile, and one that will not go does not keep the others. A tenant's pods go before its policies all the same
    // (`provisioner::delete`).
    for (group, deadline) in [(rest, deadline), (leases, deadline + ANSWER)] {
        let removals: Vec<BoxFuture<'_, (Entry, Result<(), String>)>> = group
            .into_iter()
            .map(|entry| remove_before(client, run, entry.clone(), deadline).boxed())
            .collect();
        for (entry, result) in join_all(removals).await {
            match result {
                Ok(()) => gone(&entry),
                Err(why) => failed.push((entry, why)),
            }
        }
    }
    failed
}

/// Removes what a run made: objects, and at the same time the registrations of its tenants. Answers as [`remove`].
pub async fn remove_run(
    client: &kube::Client,
    settings: &Settings,
    run: &str,
    entries: &[Entry],
    gone: &(dyn Fn(&Entry) + Sync),
) -> Vec<(Entry, String)> {
    let (registered, objects): (Vec<Entry>, Vec<Entry>) = entries
        .iter()
        .cloned()
        .partition(|entry| entry.kind == Kind::Registration);
    let limit = settings.clean_up_within;
    let (mut failed, more) = futures::join!(
        remove(client, run, &objects, limit, gone),
        registrations::remove(client, settings, run, &registered, limit, gone),
    );
    failed.extend(more);
    failed
}

/// Removes what requests that were under way made after their object was looked for; what `failed` before is left alone.
///
/// # Errors
/// It could not be looked for.
pub async fn latecomers(
    client: &kube::Client,
    run: &str,
    failed: &[(Entry, String)],
    limit: Duration,
) -> Result<Vec<(Entry, String)>, HarnessError> {
    let mut found = of_run(client, run).await?;
    found.retain(|entry| !failed.iter().any(|(failed, _)| failed == entry));
    Ok(remove(client, run, &found, limit, &|_| {}).await)
}

async fn remove_before(
    client: &kube::Client,
    run: &str,
    entry: Entry,
    deadline: Instant,
) -> (Entry, Result<(), String>) {
    let unknown = Mutex::new(None);
    let removal = remove_one(client, run, &entry, deadline, &unknown);
    let result = match tokio::time::timeout_at(deadline, removal).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(
            match unknown.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(error) => format!("not known to be gone when the time for clean-up was over: {error}"),
                None => "still there when the time for clean-up was over".to_owned(),
            },
        ),
    };
    (entry, result)
}

/// Whether it is there.
///
/// # Errors
/// The API server does not say.
pub async fn exists(client: &kube::Client, entry: &Entry) -> Result<bool, HarnessError> {
    let name = name_of(entry);
    let found = within(
        ANSWER,
        format!("get {entry}"),
        api(client, entry).get_metadata_opt(&name),
    )
    .await?;
    Ok(found.is_some())
}

/// Deletes until it is gone. An API server that does not answer may do so again before the deadline, which ends this from outside; what it
/// said last, where it did not say whether it is there, is `unknown`.
async fn remove_one(
    client: &kube::Client,
    run: &str,
    entry: &Entry,
    deadline: Instant,
    unknown: &Mutex<Option<HarnessError>>,
) -> Result<(), HarnessError> {
    let id = match entry.kind {
        Kind::Tenant => Some(
            TenantId::try_from(entry.name.as_str()).map_err(|error| HarnessError::new(error.to_string()))?,
        ),
        _ => None,
    };
    let name = id
        .as_ref()
        .map_or_else(|| entry.name.clone(), TenantId::namespace);
    let objects = api(client, entry);
    let mut pause = POLL;
    let mut asked = false;
    loop {
        let found = within(ANSWER, format!("get {entry}"), objects.get_metadata_opt(&name)).await;
        *unknown.lock().unwrap_or_else(PoisonError::into_inner) = found.as_ref().err().cloned();
        if let Ok(found) = found {
            // What does not carry the run's mark was there before, or is somebody's since.
            let Some(object) = found.filter(|object| belongs(&object.metadata, run)) else {
                return Ok(());
            };
            if let Some(id) = &id {
                return remove_tenant(client, id, deadline).await;
            }
            if !asked || object.metadata.deletion_timestamp.is_none() {
                asked = delete(&objects, entry, object.metadata.uid).await;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(MAX_POLL);
    }
}

/// Whether it carries this run's mark.
pub(crate) fn belongs(metadata: &ObjectMeta, run: &str) -> bool {
    let carries = |map: &Option<BTreeMap<String, String>>| {
        map.as_ref()
            .and_then(|map| map.get(RUN_ID))
            .is_some_and(|value| value == run)
    };
    carries(&metadata.labels) || carries(&metadata.annotations)
}

/// Whether the server took the request.
async fn delete(objects: &Api<DynamicObject>, entry: &Entry, uid: Option<String>) -> bool {
    let params = DeleteParams {
        grace_period_seconds: (entry.kind == Kind::Pod).then_some(1),
        preconditions: uid.map(|uid| Preconditions {
            uid: Some(uid),
            resource_version: None,
        }),
        // A Job's pod is not in the ledger: the Job has to stay until its pod is gone.
        propagation_policy: Some(match entry.kind {
            Kind::Job => PropagationPolicy::Foreground,
            _ => PropagationPolicy::Background,
        }),
        ..DeleteParams::default()
    };
    tokio::time::timeout(ANSWER, objects.delete(&entry.name, &params))
        .await
        .is_ok_and(|result| result.is_ok())
}

async fn remove_tenant(client: &kube::Client, id: &TenantId, deadline: Instant) -> Result<(), HarnessError> {
    let options = DeleteOptions {
        deadline: deadline.saturating_duration_since(Instant::now()),
    };
    let deleted = provisioner::delete(client, id, &options, &Silent).await;
    deleted
        .map(|_| ())
        .map_err(|error| HarnessError::during(format!("delete tenant {id}"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(value: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_namespace_of_a_tenant_is_a_tenant() {
        let namespace = metadata(json!({
            "name": "ai-agents-a",
            "labels": { RUN_ID: "0a1b2c3d", "tenant": "a" },
            "annotations": { EXPIRES: "2026-01-01T00:00:00Z" },
        }));
        let leftover = leftover(Kind::Namespace, namespace).unwrap();
        assert_eq!(
            (leftover.entry.kind, leftover.entry.name.as_str()),
            (Kind::Tenant, "a")
        );
        assert!(leftover.expired("2026-01-01T00:00:01Z".parse().unwrap()));
        assert!(!leftover.expired("2025-12-31T00:00:00Z".parse().unwrap()));
    }

    /// A namespace as somebody labelled it.
    fn namespace(name: &str, tenant: Option<&str>, registered: Option<&str>) -> ObjectMeta {
        let mut namespace = json!({ "name": name, "labels": { RUN_ID: "0a1b2c3d" }, "annotations": {} });
        if let Some(tenant) = tenant {
            namespace["labels"]["tenant"] = json!(tenant);
        }
        if let Some(run) = registered {
            namespace["annotations"][REGISTERED] = json!(run);
        }
        metadata(namespace)
    }

    #[rstest::rstest]
    #[case::a_tenants("ai-agents-a", Some("a"), Some("tenant a"))]
    #[case::that_says_another("ai-agents-a", Some("b"), None)]
    #[case::of_another_name("x", Some("a"), None)]
    #[case::the_runs(
        "conformance-0a1b2c3d-sink",
        None,
        Some("namespace conformance-0a1b2c3d-sink")
    )]
    #[case::beside_a_fault("beside-x", None, Some("namespace beside-x"))]
    #[case::another_runs("conformance-ffffffff-sink", None, None)]
    #[case::anybodys("database", None, None)]
    fn a_mark_alone_makes_no_namespace_a_runs(
        #[case] name: &str,
        #[case] tenant: Option<&str>,
        #[case] expected: Option<&str>,
    ) {
        let found = leftover(Kind::Namespace, namespace(name, tenant, None));
        let found = found.map(|leftover| leftover.entry.to_string());
        assert_eq!(found.as_deref(), expected);
    }

    #[rstest::rstest]
    #[case::by_the_run(Some("0a1b2c3d"), 2)]
    #[case::by_another(Some("ffffffff"), 1)]
    #[case::by_nobody(None, 1)]
    fn a_registration_goes_with_its_tenant_where_the_run_made_it(
        #[case] by: Option<&str>,
        #[case] entries: usize,
    ) {
        let found = leftover(Kind::Namespace, namespace("ai-agents-a", Some("a"), by)).unwrap();
        assert_eq!(found.entries().count(), entries);
    }

    #[rstest::rstest]
    #[case::not_deleted(json!({}), false)]
    #[case::deleted(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }), true)]
    #[case::by_kubernetes_itself(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"] }), true)]
    #[case::held(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/nobody"] }), false)]
    fn what_is_deleted_and_not_held_is_on_its_way(#[case] more: serde_json::Value, #[case] going: bool) {
        let mut map = json!({ "name": "m", "namespace": "n", "labels": { RUN_ID: "0a1b2c3d" } });
        map.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        assert_eq!(leftover(Kind::ConfigMap, metadata(map)).unwrap().going, going);
    }

    #[rstest::rstest]
    #[case::foreign(
        "Some content in the namespace has finalizers remaining: example.com/nobody in 1 resource instances",
        true
    )]
    #[case::beside_our_own(
        "Some content in the namespace has finalizers remaining: batch.kubernetes.io/job-tracking in 1 resource instances, example.com/nobody in 2 resource instances",
        true
    )]
    #[case::of_a_job(
        "Some content in the namespace has finalizers remaining: batch.kubernetes.io/job-tracking in 1 resource instances",
        false
    )]
    #[case::none("", false)]
    fn a_foreign_finalizer_in_a_namespace_is_told_from_kubernetes_own(
        #[case] message: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(names_foreign_finalizer(message), expected);
    }

    #[test]
    fn without_a_readable_time_nothing_expires() {
        let pod = metadata(
            json!({ "name": "p", "namespace": "n", "annotations": { RUN_ID: "0a1b2c3d", EXPIRES: "soon" } }),
        );
        assert!(!leftover(Kind::Pod, pod).unwrap().expired(Timestamp::MAX));
    }

    #[test]
    fn what_carries_no_run_is_nobodys_leftover() {
        assert_eq!(
            leftover(
                Kind::Pod,
                metadata(json!({ "name": "p", "labels": { PROBE: PROBE_VALUE } }))
            ),
            None
        );
    }

    #[test]
    fn an_object_belongs_to_the_run_it_names_and_to_no_other() {
        let object = metadata(json!({ "labels": { RUN_ID: "0a1b2c3d" } }));
        assert!(belongs(&object, "0a1b2c3d") && !belongs(&object, "ffffffff"));
    }
}

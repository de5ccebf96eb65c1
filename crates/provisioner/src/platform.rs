//! The platform's own objects: rights of platform admins and admission policies in the cluster, network policies in the shared services'
//! namespace.
//! Says what would change and which pods that isolates ([`diff`]), and carries it out ([`apply`]). What the objects are is left to
//! [`crate::render_platform`]; the shared services and their namespace are not made here.
//!
//! Overrides are templates like others: an apply of manifests rendered with them plants them, an apply of manifests rendered
//! without takes everything back, what was added included.
//!
//! ```no_run
//! # async fn example(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use provisioner::{ApplyOptions, Platform, Silent, Templates, platform, render_platform};
//! let settings = Platform::default();
//! let standard = render_platform(&settings, &Templates::embedded_platform())?;
//! let changed = Templates::embedded_platform().changed_by("fixtures/faults/open-database/platform".as_ref())?;
//! let changed = render_platform(&settings, &changed)?;
//! platform::apply(&client, &settings, &changed, &ApplyOptions::default(), &Silent).await?;
//! platform::apply(&client, &settings, &standard, &ApplyOptions::default(), &Silent).await?;
//! assert!(platform::diff(&client, &settings, &standard, &Silent).await?.is_same());
//! # Ok(())
//! # }
//! ```

mod extras;
pub(crate) mod ingress;
mod served;

pub use crate::diff::{Extra, FieldChange, ObjectDifference, State};
pub use ingress::{Allowed, Ingress, PodIngress};

use crate::apply::objects::{Objects, Owner, was_applied_by_us};
use crate::apply::plan::{self, Look};
use crate::apply::{self, Applied, ApplyError, ApplyOptions};
use crate::calls::{CallError, Calls, Cause};
use crate::diff::objects;
use crate::labels;
use crate::manifest::{Manifest, ObjectRef};
use crate::ownership;
use crate::progress::{Progress, Step};
use crate::tenant::Platform;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::{Api, Client};
use served::Served;
use std::collections::BTreeSet;
use std::fmt;

/// What an apply would do to the platform's objects, and to the pods of the shared services' namespace.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Difference {
    /// Every object: those of the templates in the order in which they are applied, then those that this server cannot have, then those
    /// to be pruned.
    pub objects: Vec<ObjectDifference>,
    /// The shared services' namespace.
    pub namespace: String,
    /// Who may reach its pods, now and then; by name. Pods that have ended are left out.
    pub pods: Vec<PodIngress>,
    /// What others put into that namespace that opens it, and added to our admission policies so that they judge less. An apply leaves it
    /// alone.
    pub extras: Vec<Extra>,
    /// What could not be looked at, and why: nothing is said about it.
    pub unseen: Vec<String>,
}

impl Difference {
    /// Whether an apply would write nothing, and nothing of others opens what is ours. What could not be looked at is not counted.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.extras.is_empty() && self.is_applied()
    }

    /// Whether an apply would write nothing.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        let stays = |it: &ObjectDifference| matches!(it.state, State::Same | State::Skip { .. });
        self.objects.iter().all(stays)
    }
}

/// Compares what the templates say with what is on the cluster, by the server's own dry run. Changes nothing.
///
/// # Errors
/// [`ApplyError::NoNamespace`] without the shared services' namespace; [`ApplyError::Call`] where the API server refused or did not
/// answer. What others own is no error here: it is in the result, with its manager.
pub async fn diff(
    client: &Client,
    platform: &Platform,
    manifests: &[Manifest],
    progress: &dyn Progress,
) -> Result<Difference, ApplyError> {
    let options = ApplyOptions::default();
    let calls = Calls::new(options.patience, progress);
    let namespace = platform.shared_services.namespace.as_str();
    let objects = Objects::new(
        client,
        &calls,
        Owner::Platform { namespace },
        options.force_conflicts,
    );
    require_namespace(&objects, namespace).await?;
    let Served { manifests, skipped } = served::of(client, &calls, manifests).await?;
    let Look {
        tried,
        leftovers,
        unlisted,
        ..
    } = plan::look(&objects, &manifests).await?;
    let (mut compared, mut wanted) = (Vec::new(), Vec::new());
    let mut found: Vec<Extra> = Vec::new();
    for one in tried {
        let object = one.manifest.reference();
        let live = one.live.as_ref();
        found.extend(live.and_then(|live| extras::of_admission(one.manifest, live)));
        let (state, outcome) = objects::compare(&objects, one, foreign).await?;
        wanted.extend(outcome);
        compared.push(ObjectDifference { object, state });
    }
    let pruned: Vec<ObjectRef> = leftovers.into_iter().map(|it| it.reference).collect();
    let policies = policies(client, &calls, namespace).await?;
    let pods = pods(client, &calls, namespace, &policies, &wanted, &pruned).await?;
    found.extend(opened(&policies, &manifests, &pruned, namespace)?);
    let (given, mut unseen) = extras::of_bindings(client, &calls, namespace).await?;
    found.extend(given);
    unseen.extend(unlisted.iter().map(|(_, refusal)| extras::unseen(refusal)));
    found.sort_by(|a, b| a.object.cmp(&b.object));
    compared.extend(skipped.into_iter().map(|(object, why)| ObjectDifference {
        object,
        state: State::Skip { why },
    }));
    compared.extend(pruned.into_iter().map(|object| ObjectDifference {
        object,
        state: State::Prune,
    }));
    Ok(Difference {
        objects: compared,
        namespace: namespace.to_owned(),
        pods,
        extras: found,
        unseen,
    })
}

/// Brings the platform's objects to what the manifests say, as [`crate::apply()`] does with a tenant's: server-side, without
/// taking fields that others set, nothing written that is as wanted, and what is ours and no longer wanted deleted. Nothing is
/// waited for: `options.readiness` is not used.
///
/// # Errors
/// [`ApplyError::NoNamespace`], [`ApplyError::Taken`] and [`ApplyError::Conflicts`], after which nothing was changed;
/// [`ApplyError::Call`], after which the same call again converges.
pub async fn apply(
    client: &Client,
    platform: &Platform,
    manifests: &[Manifest],
    options: &ApplyOptions,
    progress: &dyn Progress,
) -> Result<Applied, ApplyError> {
    let calls = Calls::new(options.patience, progress);
    let namespace = platform.shared_services.namespace.as_str();
    let objects = Objects::new(
        client,
        &calls,
        Owner::Platform { namespace },
        options.force_conflicts,
    );
    require_namespace(&objects, namespace).await?;
    let Served { manifests, skipped } = served::of(client, &calls, manifests).await?;
    let look = plan::look(&objects, &manifests).await?;
    if !options.force_conflicts {
        refuse_foreign(&look)?;
    }
    let mut applied = apply::carry_out(&objects, plan::settle(&objects, look).await?).await?;
    for (object, why) in skipped {
        progress.step(&Step::Skipped {
            object: object.clone(),
            why,
        });
        applied.skipped.push(object);
    }
    Ok(applied)
}

async fn require_namespace(objects: &Objects<'_>, namespace: &str) -> Result<(), ApplyError> {
    let found = objects.namespace().await?;
    let state = match found {
        None => "does not exist",
        Some(found) if found.metadata.deletion_timestamp.is_some() => "is being deleted",
        Some(_) => return Ok(()),
    };
    Err(ApplyError::NoNamespace {
        namespace: namespace.to_owned(),
        state,
    })
}

fn refuse_foreign(look: &Look<'_>) -> Result<(), ApplyError> {
    let taken = look.tried.iter().filter_map(|one| {
        let why = foreign(one.live.as_ref()?)?;
        Some(format!("{}: {why}", one.manifest.reference()))
    });
    let taken: Vec<String> = taken.collect();
    if taken.is_empty() {
        Ok(())
    } else {
        Err(ApplyError::Taken(taken))
    }
}

/// What tells that the object is not ours: it lacks our label, and was never applied by us. One whose label somebody took away is
/// still ours.
fn foreign(live: &DynamicObject) -> Option<String> {
    let labels = live.metadata.labels.clone().unwrap_or_default();
    ownership::unlike(&labels, labels::MANAGED_BY, labels::MANAGED_BY_VALUE)
        .filter(|_| !was_applied_by_us(live))
}

/// What policies in the namespace let in that is neither the templates' nor about to be pruned.
fn opened(
    policies: &[NetworkPolicy],
    manifests: &[Manifest],
    pruned: &[ObjectRef],
    namespace: &str,
) -> Result<Vec<Extra>, CallError> {
    let known: BTreeSet<ObjectRef> = manifests
        .iter()
        .map(Manifest::reference)
        .chain(pruned.iter().cloned())
        .collect();
    let ours: Vec<NetworkPolicy> = manifests
        .iter()
        .filter(|manifest| manifest.kind.kind == "NetworkPolicy")
        .map(|manifest| policy(&manifest.object))
        .collect::<Result<_, _>>()?;
    Ok(extras::of_policies(policies, &ours, &known, namespace))
}

async fn policies(
    client: &Client,
    calls: &Calls<'_>,
    namespace: &str,
) -> Result<Vec<NetworkPolicy>, CallError> {
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let all = ListParams::default();
    let what = format!("list networkpolicies in {namespace}");
    Ok(calls.make(what, || policies.list(&all)).await?.items)
}

async fn pods(
    client: &Client,
    calls: &Calls<'_>,
    namespace: &str,
    now: &[NetworkPolicy],
    wanted: &[DynamicObject],
    pruned: &[ObjectRef],
) -> Result<Vec<PodIngress>, CallError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let all = ListParams::default();
    let pods = calls
        .make(format!("list pods in {namespace}"), || pods.list(&all))
        .await?;
    let mut then = Vec::new();
    for object in wanted.iter().filter(|object| is_policy(object)) {
        then.push(policy(object)?);
    }
    let replaced = |policy: &NetworkPolicy| {
        let name = policy.metadata.name.as_deref();
        then.iter().any(|other| other.metadata.name.as_deref() == name)
            || pruned
                .iter()
                .any(|object| object.kind == "NetworkPolicy" && Some(object.name.as_str()) == name)
    };
    let staying: Vec<NetworkPolicy> = now.iter().filter(|it| !replaced(it)).cloned().collect();
    then.extend(staying);
    Ok(ingress::of_pods(&pods.items, now, &then, namespace))
}

fn is_policy(object: &DynamicObject) -> bool {
    object
        .types
        .as_ref()
        .is_some_and(|types| types.kind == "NetworkPolicy")
}

fn policy(object: &DynamicObject) -> Result<NetworkPolicy, CallError> {
    let read = serde_json::to_value(object).and_then(serde_json::from_value);
    read.map_err(|error| CallError {
        what: format!(
            "read NetworkPolicy {}",
            object.metadata.name.as_deref().unwrap_or_default()
        ),
        tried_for: None,
        cause: Cause::Broken(kube::Error::SerdeError(error)),
    })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        objects::show(&self.objects, f)?;
        self.extras.iter().try_for_each(|extra| write!(f, "{extra}"))?;
        self.unseen
            .iter()
            .try_for_each(|what| writeln!(f, "unseen   {what}"))?;
        writeln!(f, "\npods of {}", self.namespace)?;
        ingress::show(&self.pods, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::label_alone(json!({"labels": {"managed-by": "ai-agents-platform"}}), None)]
    #[case::label_taken_away(json!({"managedFields": [{"manager": "ai-agents-provisioner", "operation": "Apply"}]}), None)]
    #[case::no_label(json!({"labels": {"app": "x"}}), Some("label managed-by is missing, expected \"ai-agents-platform\""))]
    #[case::other_owner(json!({"labels": {"managed-by": "helm"}}), Some("label managed-by is \"helm\", not \"ai-agents-platform\""))]
    #[case::applied_by_others(json!({"managedFields": [{"manager": "kubectl", "operation": "Apply"}]}), Some("label managed-by is missing, expected \"ai-agents-platform\""))]
    fn an_object_without_our_label_that_we_never_applied_is_foreign(
        #[case] metadata: Value,
        #[case] why: Option<&str>,
    ) {
        let object = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        assert_eq!(foreign(&object).as_deref(), why);
    }

    fn object(name: &str, state: State) -> ObjectDifference {
        ObjectDifference {
            object: ObjectRef {
                kind: "NetworkPolicy".to_owned(),
                name: name.to_owned(),
                namespace: Some("database".to_owned()),
            },
            state,
        }
    }

    fn change(path: &str, on_cluster: Option<Value>, in_template: Option<Value>) -> FieldChange {
        FieldChange {
            path: path.to_owned(),
            on_cluster,
            in_template,
            manager: None,
        }
    }

    #[test]
    fn the_text_says_object_by_object_what_an_apply_would_do() {
        let mut taken = change(".spec.ingress", Some(json!([{}])), None);
        taken.manager = Some("kubectl-edit".to_owned());
        let only = |from: &str, ports: &str, policy: &str| {
            Ingress::Only(vec![Allowed {
                from: from.to_owned(),
                ports: ports.to_owned(),
                policy: policy.to_owned(),
            }])
        };
        let pod = |name: &str, now: Ingress, then: Ingress| PodIngress {
            pod: name.to_owned(),
            now,
            then,
        };
        let inside = || only("pods of database", "any port", "allow-same-namespace");
        let difference = Difference {
            objects: vec![
                object("new", State::Create),
                object("edited", State::Change(vec![taken])),
                object("only-managers", State::Change(Vec::new())),
                object(
                    "theirs",
                    State::Foreign {
                        why: "label managed-by is missing".to_owned(),
                        changes: vec![change(
                            ".spec.podSelector.matchLabels.app",
                            None,
                            Some(json!("x")),
                        )],
                    },
                ),
                object("as-wanted", State::Same),
                object(
                    "too-new",
                    State::Skip {
                        why: "this server has no validatingadmissionpolicies".to_owned(),
                    },
                ),
                object("extra", State::Prune),
            ],
            namespace: "database".to_owned(),
            pods: vec![
                pod("agent", Ingress::NodeNetwork, Ingress::NodeNetwork),
                pod("backup-0", Ingress::Open, inside()),
                pod("backup-1", Ingress::Open, inside()),
                pod("freed", inside(), Ingress::Open),
                pod("postgresql-0", inside(), inside()),
                pod("redis-0", inside(), Ingress::Only(Vec::new())),
            ],
            extras: Vec::new(),
            unseen: Vec::new(),
        };
        insta::assert_snapshot!(difference);
        assert!(!difference.is_same());
    }
}

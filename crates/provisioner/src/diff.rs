//! What an apply would change of one tenant, field by field, and what others put beside its objects that makes it less isolated. Nothing
//! is written: the server's own dry run says what would be (<https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run>), so
//! that what it fills in by itself is no difference. Values of Secrets are never shown.
//!
//! ```no_run
//! # async fn example(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use provisioner::{Silent, Stamp, Templates, Tenant, diff, render};
//! let tenant = Tenant::standard("acme-corp".parse()?);
//! let manifests = render(&tenant, &Templates::embedded(), &Stamp::default())?;
//! let difference = diff::tenant(&client, &manifests, &tenant.id, &diff::Options::default(), &Silent).await?;
//! print!("{difference}");
//! assert!(difference.is_same());
//! # Ok(())
//! # }
//! ```

pub(crate) mod bindings;
pub(crate) mod extras;
pub(crate) mod fields;
pub(crate) mod objects;
mod pods;
pub(crate) mod policies;
mod routes;

pub use extras::Extra;
pub use fields::FieldChange;
pub use objects::{ObjectDifference, State};

use crate::apply::objects::{Objects, Owner};
use crate::apply::plan::{self, Look};
use crate::apply::{ApplyError, ApplyOptions};
use crate::calls::Calls;
use crate::hardening::{self, Hardened, Hardening};
use crate::kinds::Kind;
use crate::manifest::{Manifest, ObjectRef};
use crate::names::TenantId;
use crate::ownership::{self, Ownership};
use crate::progress::Progress;
use kube::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Where extras are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extras {
    /// Nowhere: only what an apply would change is found out.
    Nowhere,
    /// In the tenant's namespace.
    InNamespace,
    /// There and among the cluster's bindings, which takes the right to list `clusterrolebindings`; platform admins do not have it.
    InCluster,
}

/// How to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where extras are looked for.
    pub extras: Extras,
    /// How long passing failures (429, 5xx, lost connections) are ridden out.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            extras: Extras::InCluster,
            patience: ApplyOptions::default().patience,
        }
    }
}

/// How a tenant's namespace differs from its templates.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The tenant.
    pub id: TenantId,
    /// Its namespace.
    pub namespace: String,
    /// Every object: those of the templates in the order in which they are applied, then those to be pruned.
    pub objects: Vec<ObjectDifference>,
    /// What others made that makes the tenant less isolated. An apply leaves it alone.
    pub extras: Vec<Extra>,
    /// What the namespace was adopted without; an apply leaves it out.
    pub left_out: Vec<Hardening>,
    /// What could not be looked at, and why: nothing is said about it.
    pub unseen: Vec<String>,
    /// How many objects of each kind were looked at for extras, ours included.
    pub looked_at: BTreeMap<&'static str, usize>,
}

impl Difference {
    /// Whether an apply would write nothing, and nothing of others widens the tenant. What could not be looked at is not counted.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.extras.is_empty() && self.is_applied()
    }

    /// Whether an apply would write nothing.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.objects.iter().all(|it| it.state == State::Same)
    }

    /// Whether fields are somebody else's, so that an apply refuses unless conflicts are forced.
    #[must_use]
    pub fn is_in_conflict(&self) -> bool {
        self.objects.iter().any(|it| it.state.is_in_conflict())
    }

    /// What the API server refuses, each with its words: an apply fails, and forcing conflicts does not help.
    pub fn refused(&self) -> impl Iterator<Item = (&ObjectRef, &str)> {
        self.objects.iter().filter_map(|it| match &it.state {
            State::Refused { why } => Some((&it.object, why.as_str())),
            _ => None,
        })
    }

    /// How many objects an apply would create, change and delete, and how many of those to change have fields that others hold: then
    /// it refuses, unless conflicts are forced.
    fn counts(&self) -> [(usize, &'static str); 6] {
        let count = |is: fn(&State) -> bool| self.objects.iter().filter(|it| is(&it.state)).count();
        [
            (count(|state| matches!(state, State::Create)), "to create"),
            (
                count(|state| matches!(state, State::Change(_) | State::Foreign { .. })),
                "to change",
            ),
            (
                count(State::is_in_conflict),
                "in conflict with others: apply refuses these without --force-conflicts",
            ),
            (count(|state| matches!(state, State::Prune)), "to prune"),
            (
                count(|state| matches!(state, State::Refused { .. })),
                "refused by the API server",
            ),
            (
                self.extras.len(),
                "of others that widen: apply leaves these alone",
            ),
        ]
    }
}

/// Compares what the templates say with what is on the cluster, and looks for what widens the tenant. Changes nothing.
///
/// # Errors
/// [`ApplyError::Foreign`] and [`ApplyError::Terminating`] where there is nothing of ours to compare with; [`ApplyError::Call`] where the
/// API server refused or did not answer. What others own is no error here: it is in the result, with its manager.
pub async fn tenant(
    client: &Client,
    manifests: &[Manifest],
    tenant: &TenantId,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Difference, ApplyError> {
    let calls = Calls::new(options.patience, progress);
    let namespace = tenant.namespace();
    let annotations = match ownership::look(&calls, client, tenant).await? {
        Ownership::Absent => return Ok(absent(manifests, tenant)),
        Ownership::Foreign { why } => return Err(ApplyError::Foreign { namespace, why }),
        Ownership::Ours {
            terminating: true, ..
        } => {
            let waited = Duration::ZERO;
            return Err(ApplyError::Terminating { namespace, waited });
        }
        Ownership::Ours { annotations, .. } => annotations,
    };
    let manifests = hardening::honour(manifests, &annotations);
    let left_out = Hardened::of(&annotations).map(|hardened| hardened.left_out());
    let objects = Objects::new(client, &calls, Owner::Tenant(tenant), false);
    let difference = compare(client, &objects, &manifests, tenant, options).await?;
    Ok(Difference {
        left_out: left_out.unwrap_or_default(),
        ..difference
    })
}

/// The same of a namespace that exists, whoever's it is.
pub(crate) async fn compare(
    client: &Client,
    objects: &Objects<'_>,
    manifests: &[Manifest],
    tenant: &TenantId,
    options: &Options,
) -> Result<Difference, ApplyError> {
    let namespace = tenant.namespace();
    let look = Box::pin(plan::look(objects, manifests));
    let around = Box::pin(extras::look(client, objects.calls, &namespace, options.extras));
    let (look, around) = futures::future::try_join(look, around).await?;
    let Look {
        tried,
        leftovers,
        unlisted,
        ..
    } = look;
    let pruned: Vec<ObjectRef> = leftovers.into_iter().map(|it| it.reference).collect();
    let known: BTreeSet<ObjectRef> = manifests
        .iter()
        .map(Manifest::reference)
        .chain(pruned.iter().cloned())
        .collect();
    let mut compared = Vec::new();
    for one in tried {
        let object = one.manifest.reference();
        let (state, _) = objects::compare(objects, one, |_| None).await?;
        compared.push(ObjectDifference { object, state });
    }
    compared.extend(pruned.into_iter().map(|object| ObjectDifference {
        object,
        state: State::Prune,
    }));
    Ok(Difference {
        id: tenant.clone(),
        namespace,
        objects: compared,
        extras: around.extras(manifests, &known),
        left_out: Vec::new(),
        looked_at: around.counts(),
        unseen: unseen(around.unseen, &unlisted),
    })
}

/// Beside what could not be looked at: the kinds of which nobody knows whether something of ours is left over.
fn unseen(mut unseen: Vec<String>, unlisted: &[(&Kind, String)]) -> Vec<String> {
    for (kind, refusal) in unlisted {
        let line = extras::unseen(kind, refusal);
        if !unseen.contains(&line) {
            unseen.push(line);
        }
    }
    unseen
}

/// Everything is to be made, and nobody can have put anything beside it.
fn absent(manifests: &[Manifest], tenant: &TenantId) -> Difference {
    let create = |manifest: &Manifest| ObjectDifference {
        object: manifest.reference(),
        state: State::Create,
    };
    Difference {
        id: tenant.clone(),
        namespace: tenant.namespace(),
        objects: manifests.iter().map(create).collect(),
        extras: Vec::new(),
        left_out: Vec::new(),
        unseen: Vec::new(),
        looked_at: BTreeMap::new(),
    }
}

impl Difference {
    /// All but the last line, which says what follows.
    pub(crate) fn show_details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        objects::show(&self.objects, f)?;
        self.extras.iter().try_for_each(|extra| write!(f, "{extra}"))?;
        for hardening in &self.left_out {
            writeln!(
                f,
                "left out {hardening}: the namespace is adopted without it, so {}",
                hardening.without()
            )?;
            writeln!(
                f,
                "         provisioner adopt --tenant-id {} --harden {hardening} adds it",
                self.id
            )?;
        }
        self.unseen
            .iter()
            .try_for_each(|what| writeln!(f, "unseen   {what}"))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_details(f)?;
        let counts: Vec<String> = self
            .counts()
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if counts.is_empty() {
            writeln!(f, "namespace {} is as its templates say", self.namespace)
        } else {
            writeln!(f, "namespace {} differs: {}", self.namespace, counts.join("; "))
        }
    }
}

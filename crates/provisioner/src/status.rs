//! How one tenant is: whose its namespace is, what is used of its quota, what it lacks and why, and whether PostgreSQL and Redis know
//! it. Changes nothing.

use crate::calls::{CallError, Calls};
use crate::labels;
use crate::list::{self, Standing};
use crate::manifest::{Manifest, ObjectRef};
use crate::names::TenantId;
use crate::ownership::{Ownership, look};
use crate::progress::Progress;
use crate::ready::{self, Missing};
use crate::registration;
use crate::tenant::Tenant;
use futures::future::{join, try_join3};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// How long passing failures are ridden out.
const PATIENCE: Duration = Duration::from_secs(15);

/// How a tenant is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The tenant.
    pub id: TenantId,
    /// Its namespace.
    pub namespace: String,
    /// In one word; the rest says why.
    pub state: State,
    /// What shows in its namespace; none where it is absent or somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// What it lacks; empty where it is ready.
    pub missing: Vec<Lacking>,
    /// What PostgreSQL and Redis know of it.
    pub registration: Registration,
}

/// How a tenant is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Everything is there, and serves.
    Ready,
    /// Something is missing.
    NotReady,
    /// Its namespace is being deleted.
    Deleting,
    /// It has no namespace.
    Absent,
    /// There is a namespace of its name, and it is not ours.
    Foreign,
    /// What was seen is well, and something could not be looked at.
    Unknown,
}

/// Something that a tenant lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lacking {
    /// The object that is not as it must be.
    pub object: ObjectRef,
    /// What was expected and seen.
    pub detail: String,
}

impl From<Missing> for Lacking {
    fn from(Missing { object, detail, .. }: Missing) -> Self {
        Self { object, detail }
    }
}

/// What PostgreSQL and Redis know of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Registration {
    /// It has a role in PostgreSQL and a user in Redis.
    Registered {
        /// How many rows are its own.
        rows: u64,
        /// How many keys are its own.
        keys: u64,
    },
    /// One of them does not know it.
    Incomplete {
        /// Its role exists in PostgreSQL.
        role: bool,
        /// Its user exists in Redis.
        user: bool,
    },
    /// Its file says that somebody else registers it.
    Elsewhere,
    /// It was not asked for.
    NotAsked,
    /// It could not be found out.
    Unknown {
        /// Why.
        why: String,
    },
}

/// How the tenant is, that is to hold what these manifests say.
///
/// # Errors
/// The API server did not answer, or refused. What else cannot be found out is said in the [`Status`].
pub async fn status(
    client: &Client,
    tenant: &Tenant,
    manifests: &[Manifest],
    ask_services: bool,
    progress: &dyn Progress,
) -> Result<Status, CallError> {
    let calls = Calls::new(PATIENCE, progress);
    let ownership = look(&calls, client, &tenant.id).await?;
    let mut status = Status::absent(tenant);
    match ownership {
        Ownership::Absent => status.missing.push(status.lacks("it does not exist".to_owned())),
        Ownership::Foreign { why } => {
            status.state = State::Foreign;
            status
                .missing
                .push(status.lacks(format!("it is not ours: {why}")));
        }
        Ownership::Ours { .. } => {
            let standing = standing(client, &calls, &status.namespace);
            let missing = ready::missing_now(client, &tenant.id, manifests);
            let known = registered(client, tenant, ask_services, progress);
            let ((standing, missing), known) = join(join(standing, missing), known).await;
            status.standing = standing?;
            status.registration = known;
            status.judge(missing);
        }
    }
    Ok(status)
}

/// What shows in the namespace; none where it went away in the meantime.
async fn standing(client: &Client, calls: &Calls<'_>, name: &str) -> Result<Option<Standing>, CallError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), name);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), name);
    let ours = ListParams::default().labels(labels::TENANTS_SELECTOR);
    let (namespace, quotas, deployments) = try_join3(
        calls.make(format!("get Namespace {name}"), || namespaces.get_opt(name)),
        calls.make(format!("list ResourceQuotas in {name}"), || quotas.list(&ours)),
        calls.make(format!("list Deployments in {name}"), || deployments.list(&ours)),
    )
    .await?;
    Ok(namespace.and_then(|namespace| list::standing(&namespace, &quotas.items, &deployments.items)))
}

async fn registered(client: &Client, tenant: &Tenant, ask: bool, progress: &dyn Progress) -> Registration {
    if !tenant.registration {
        return Registration::Elsewhere;
    }
    if !ask {
        return Registration::NotAsked;
    }
    let found = registration::state(client, &tenant.shared_services, &tenant.id, progress, PATIENCE).await;
    match found {
        Ok(state) if state.role && state.user => Registration::Registered {
            rows: state.rows,
            keys: state.keys,
        },
        Ok(state) => Registration::Incomplete {
            role: state.role,
            user: state.user,
        },
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Registration::Unknown {
                why: format!("{error}{}", cause.unwrap_or_default()),
            }
        }
    }
}

impl Status {
    /// That of a tenant of which nothing could be found out.
    pub fn unknown(tenant: &Tenant, error: &CallError) -> Self {
        let mut status = Status::absent(tenant);
        status.state = State::Unknown;
        status.missing.push(status.lacks(error.to_string()));
        status
    }

    fn absent(tenant: &Tenant) -> Self {
        Status {
            id: tenant.id.clone(),
            namespace: tenant.namespace(),
            state: State::Absent,
            standing: None,
            missing: Vec::new(),
            registration: Registration::NotAsked,
        }
    }

    fn lacks(&self, detail: String) -> Lacking {
        Lacking {
            object: ObjectRef {
                kind: "Namespace".to_owned(),
                name: self.namespace.clone(),
                namespace: None,
            },
            detail,
        }
    }

    /// Concludes from what was seen in the namespace and of the registration.
    fn judge(&mut self, seen: Result<Vec<Missing>, Missing>) {
        let unseen = seen.is_err();
        self.missing = match seen {
            Ok(missing) => missing.into_iter().map(Lacking::from).collect(),
            Err(unseen) => vec![unseen.into()],
        };
        let deleting = self.standing.as_ref().is_some_and(|standing| standing.deleting);
        let incomplete = matches!(self.registration, Registration::Incomplete { .. });
        let not_told = matches!(self.registration, Registration::Unknown { .. });
        self.state = if deleting {
            State::Deleting
        } else if self.standing.is_none() {
            State::Absent
        } else if incomplete || (!unseen && !self.missing.is_empty()) {
            State::NotReady
        } else if unseen || not_told {
            State::Unknown
        } else {
            State::Ready
        };
    }

    /// What people read; `now` is what the age is counted to.
    #[must_use]
    pub fn text(&self, now: Timestamp) -> String {
        let mut text = format!("tenant {}: {}\n", self.id, self.state);
        // Writing to a String does not fail.
        let _ = self.write_standing(&mut text, now);
        let _ = writeln!(text, "  registration  {}", self.registration);
        for Lacking { object, detail } in &self.missing {
            let _ = writeln!(text, "  missing       {object}: {detail}");
        }
        text
    }

    fn write_standing(&self, text: &mut String, now: Timestamp) -> fmt::Result {
        let Some(standing) = &self.standing else {
            return writeln!(text, "  namespace     {}", self.namespace);
        };
        let age = standing
            .created
            .map(|created| format!(", {} old", list::age(created, now)));
        let tier = standing.tier.as_ref().map(|tier| format!(", tier {tier}"));
        let (age, tier) = (age.unwrap_or_default(), tier.unwrap_or_default());
        writeln!(text, "  namespace     {}{age}{tier}", self.namespace)?;
        for (index, usage) in standing.quota.iter().enumerate() {
            let head = if index == 0 { "quota" } else { "" };
            let used = usage.used.as_deref().unwrap_or("?");
            let percent = usage
                .percent()
                .map(|percent| format!(" ({percent} %)"))
                .unwrap_or_default();
            writeln!(
                text,
                "  {head:<13} {}: {used} of {}{percent}",
                usage.dimension, usage.hard
            )?;
        }
        for (index, workload) in standing.workloads.iter().enumerate() {
            let head = if index == 0 { "workloads" } else { "" };
            writeln!(
                text,
                "  {head:<13} {}: {} of {} ready",
                workload.name, workload.ready, workload.wanted
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::NotReady => "not ready",
            Self::Deleting => "being deleted",
            Self::Absent => "not there",
            Self::Foreign => "not ours",
            Self::Unknown => "not known",
        })
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { rows, keys } => {
                write!(f, "PostgreSQL and Redis know it; {rows} row(s), {keys} key(s)")
            }
            Self::Incomplete { role, user } => {
                let lacking = match (role, user) {
                    (false, false) => "no role in PostgreSQL, no user in Redis",
                    (false, true) => "no role in PostgreSQL",
                    (true, _) => "no user in Redis",
                };
                write!(f, "{lacking}; `provisioner apply` registers it")
            }
            Self::Elsewhere => f.write_str("by somebody else: its file says `registration: false`"),
            Self::NotAsked => f.write_str("not asked for"),
            Self::Unknown { why } => write!(f, "not known: {why}"),
        }
    }
}

#[cfg(test)]
mod tests;

//! Says before an apply whether the cluster has what it takes, and for each thing that is missing what mends it. Changes nothing, but for
//! the canary, which has a namespace of its own and removes it. Applying, and judging isolation, are left to others.

mod canary;
mod permissions;
mod report;
mod surroundings;

pub use report::{Finding, Report, State};

use crate::calls::{self, CallError, Calls, chain};
use crate::manifest::Manifest;
use crate::ownership::{self, Ownership};
use crate::progress::Progress;
use crate::registration::{self, Known, RegistrationError};
use crate::tenant::Tenant;
use futures::FutureExt;
use futures::future::{self, BoxFuture, Either};
use kube::Client;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The image of the pods that stand in for tenants' where none is named.
pub const AGENT_IMAGE: &str = "ai-agents.local/probe:1";
/// Minor versions of Kubernetes that the templates were written for, first and last.
pub const VERSIONS: (u32, u32) = (28, 36);
/// How long passing failures are ridden out.
const PATIENCE: Duration = Duration::from_secs(15);

/// One thing that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The API server answers.
    Cluster,
    /// Whoever runs this may do what is necessary.
    Permissions,
    /// The tenant's namespace is not somebody else's.
    Namespace,
    /// The ingress controller's namespace is recognised.
    Ingress,
    /// PostgreSQL.
    Postgresql,
    /// Redis.
    Redis,
    /// The cluster's DNS.
    Dns,
    /// What all tenants share.
    Platform,
    /// The tenant's role and user.
    Registration,
    /// What an autoscaler measures by.
    Metrics,
    /// Network policies are enforced.
    Enforcement,
}

impl Check {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 11] = [
        Self::Cluster,
        Self::Permissions,
        Self::Namespace,
        Self::Ingress,
        Self::Postgresql,
        Self::Redis,
        Self::Dns,
        Self::Platform,
        Self::Registration,
        Self::Metrics,
        Self::Enforcement,
    ];

    /// Its name, as in `--skip enforcement`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Permissions => "permissions",
            Self::Namespace => "namespace",
            Self::Ingress => "ingress",
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
            Self::Dns => "dns",
            Self::Platform => "platform",
            Self::Registration => "registration",
            Self::Metrics => "metrics",
            Self::Enforcement => "enforcement",
        }
    }

    /// What has to be there.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Cluster => {
                "the API server answers; its version is one of 1.28 to 1.36, or there is a warning"
            }
            Self::Permissions => "you may do all that apply, registration and delete do",
            Self::Namespace => "the tenant's namespace is free, or ours already",
            Self::Ingress => "the ingress controller's namespace wears the label that policies select",
            Self::Postgresql => "its Service leads to ready pods with the label that policies select",
            Self::Redis => "likewise",
            Self::Dns => {
                "the cluster's DNS has a Service, ready endpoints, and pods with the label that policies select"
            }
            Self::Platform => {
                "`provisioner platform apply` was run: rights of platform admins, database policies"
            }
            Self::Registration => "PostgreSQL and Redis take the tenant, or know it already",
            Self::Metrics => "the metrics API answers, where the tenant's worker is autoscaled",
            Self::Enforcement => {
                "network policies are enforced: two pods in a namespace of their own, before and after a policy"
            }
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl serde::Serialize for Check {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A name that no check has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no check {name:?}; there are: {}", Check::ALL.map(Check::name).join(", "))]
pub struct UnknownCheck {
    /// The name.
    pub name: String,
}

impl FromStr for Check {
    type Err = UnknownCheck;

    fn from_str(name: &str) -> Result<Self, UnknownCheck> {
        let unknown = || UnknownCheck {
            name: name.to_owned(),
        };
        Self::ALL
            .into_iter()
            .find(|check| check.name() == name)
            .ok_or_else(unknown)
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The tenants that are to be applied, each with its manifests.
    pub tenants: &'a [(Tenant, Vec<Manifest>)],
    /// What is not looked at.
    pub skip: BTreeSet<Check>,
    /// The permissions of `platform apply` are asked for as well.
    pub platform_apply: bool,
    /// The image of the canary's pods.
    pub agent_image: &'a str,
}

/// Looks at everything that is asked for. Ends early, with what was found until then and all that it made removed, once `interrupted` does.
pub async fn preflight(
    client: &Client,
    request: &Request<'_>,
    interrupted: impl Future<Output = ()> + Send + 'static,
    progress: &dyn Progress,
) -> Report {
    let interrupted = interrupted.boxed().shared();
    let look = Look {
        client,
        calls: Calls::new(PATIENCE, progress),
        request,
        progress,
    };
    let mut report = Report::default();
    for check in Check::ALL
        .into_iter()
        .filter(|check| request.skip.contains(check))
    {
        report.findings.push(Finding::skipped(check, "--skip"));
    }
    let Either::Left(((cluster, version), _)) =
        future::select(look.cluster().boxed(), interrupted.clone()).await
    else {
        report.interrupted = true;
        return report.in_order();
    };
    let unreachable = cluster.state == State::Unknown;
    if look.wants(Check::Cluster) {
        report.findings.push(cluster);
    }
    if unreachable {
        report.findings.extend(look.unseen());
        return report.in_order();
    }
    let looks = calls::all(look.looks(version));
    let looks = future::select(looks.boxed(), interrupted.clone()).map(|first| match first {
        Either::Left((findings, _)) => Some(findings),
        Either::Right(_) => None,
    });
    let canary = async {
        if !look.wants(Check::Enforcement) {
            return None;
        }
        Some(canary::watch(client, request.agent_image, interrupted.clone(), progress).await)
    };
    let (found, canary) = future::join(looks.boxed(), canary.boxed()).await;
    report.interrupted = interrupted.peek().is_some();
    report.findings.extend(found.into_iter().flatten().flatten());
    if let Some(canary::Watched { finding, left }) = canary {
        report.findings.extend(finding);
        report.left = left;
    }
    report.in_order()
}

/// What all checks share.
struct Look<'a> {
    client: &'a Client,
    calls: Calls<'a>,
    request: &'a Request<'a>,
    progress: &'a dyn Progress,
}

impl<'a> Look<'a> {
    fn wants(&self, check: Check) -> bool {
        !self.request.skip.contains(&check)
    }

    fn tenants(&self) -> impl Iterator<Item = &'a Tenant> {
        self.request.tenants.iter().map(|(tenant, _)| tenant)
    }

    /// What cannot be known where the cluster does not answer.
    fn unseen(&self) -> impl Iterator<Item = Finding> {
        let rest = Check::ALL.into_iter().filter(|check| *check != Check::Cluster);
        let unseen = |check| Finding::new(check, "", State::Unknown, "the cluster does not answer");
        rest.filter(|check| self.wants(*check)).map(unseen)
    }

    /// Everything but the cluster itself and the canary.
    fn looks(&self, version: Option<u32>) -> Vec<BoxFuture<'_, Vec<Finding>>> {
        let mut looks: Vec<BoxFuture<'_, Vec<Finding>>> = Vec::new();
        let one = |finding: Finding| vec![finding];
        if self.wants(Check::Permissions) {
            looks.push(permissions::look(self, version).boxed());
        }
        for tenant in self.tenants() {
            if self.wants(Check::Namespace) {
                looks.push(self.namespace(tenant).map(one).boxed());
            }
            if self.wants(Check::Registration) {
                looks.push(self.registration(tenant).map(one).boxed());
            }
        }
        looks.extend(surroundings::looks(self));
        looks
    }

    /// Whether it answers; and its minor version, where it tells one.
    async fn cluster(&self) -> (Finding, Option<u32>) {
        let asked = self
            .calls
            .make("get the version of the API server", || {
                self.client.apiserver_version()
            })
            .await;
        match asked {
            Ok(version) => {
                let minor = minor(&version.major, &version.minor);
                (judge_version(&version.git_version, minor), minor)
            }
            Err(error) => (Finding::undecided(Check::Cluster, "", &error), None),
        }
    }

    async fn namespace(&self, tenant: &Tenant) -> Finding {
        let namespace = tenant.namespace();
        let finding = |state, detail: String| Finding::new(Check::Namespace, &namespace, state, detail);
        match ownership::look(&self.calls, self.client, &tenant.id).await {
            Ok(Ownership::Absent) => finding(State::Ok, "does not exist yet: apply makes it".to_owned()),
            Ok(Ownership::Ours { terminating: true, .. }) => {
                finding(State::Missing, "it is being deleted".to_owned()).mend(format!(
                    "wait until it is gone; `kubectl get namespace {namespace} -o jsonpath='{{.status.conditions}}'` says what holds it"
                ))
            }
            Ok(Ownership::Ours { .. }) => finding(State::Ok, "ours: apply brings it up to date".to_owned()),
            Ok(Ownership::Foreign { why }) => {
                finding(State::Missing, format!("it exists and is not ours: {why}")).mend(format!(
                    "take it over (`provisioner adopt --tenant-id {}` shows what changes), or choose another tenant id",
                    tenant.id
                ))
            }
            Err(error) => Finding::undecided(Check::Namespace, &namespace, &error),
        }
    }

    async fn registration(&self, tenant: &Tenant) -> Finding {
        let known = registration::known(self.client, tenant, self.progress, PATIENCE).await;
        judge_registration(tenant, known)
    }
}

/// The minor version out of `1` and `34` or `34+`.
fn minor(major: &str, minor: &str) -> Option<u32> {
    let digits = minor
        .split(|character: char| !character.is_ascii_digit())
        .next()?;
    (major == "1").then_some(())?;
    digits.parse().ok()
}

fn judge_version(version: &str, minor: Option<u32>) -> Finding {
    let (first, last) = VERSIONS;
    let finding = |detail: String| Finding::new(Check::Cluster, "", State::Ok, detail);
    match minor {
        Some(minor) if (first..=last).contains(&minor) => finding(format!("Kubernetes {version}")),
        _ => finding(format!(
            "Kubernetes {version}; the templates were written for 1.{first} to 1.{last}"
        ))
        .warn(format!(
            "`provisioner apply --dry-run=server` says what this version makes of them; or use a cluster of 1.{first} to 1.{last}"
        )),
    }
}

/// Before the first apply nobody knows a tenant that we register ourselves; one that somebody else registers has to be known.
fn judge_registration(tenant: &Tenant, known: Result<Known, RegistrationError>) -> Finding {
    let login = registration::login(&tenant.id);
    let finding =
        |state, detail: String| Finding::new(Check::Registration, tenant.id.as_str(), state, detail);
    match known {
        Ok(Known {
            role: true,
            user: true,
        }) => finding(
            State::Ok,
            format!("PostgreSQL's role and Redis' user {login} exist"),
        ),
        Ok(_) if tenant.registration => finding(
            State::Ok,
            format!("PostgreSQL and Redis take tenants; apply makes or completes role and user {login}"),
        ),
        Ok(Known { role, user }) => {
            let missing = [(role, "PostgreSQL has no role"), (user, "Redis has no user")];
            let missing = missing.into_iter().filter(|(there, _)| !there);
            let missing: Vec<String> = missing.map(|(_, what)| format!("{what} {login}")).collect();
            finding(State::Missing, missing.join(", ")).mend(
                "have it registered by whoever does that, since the tenant file says `registration: false`; without that line apply does it",
            )
        }
        Err(error @ RegistrationError::Secret { .. }) if !tenant.registration => finding(
            State::Skipped,
            format!(
                "the tenant file says `registration: false`, and there is no account to look with: {error}"
            ),
        ),
        Err(RegistrationError::Call(error)) => {
            Finding::undecided(Check::Registration, tenant.id.as_str(), &error)
        }
        Err(error) => {
            let state = if error.is_passing() {
                State::Unknown
            } else {
                State::Missing
            };
            let hint = error.hint();
            finding(state, chain(&error)).mend_with(hint)
        }
    }
}

impl Finding {
    /// The API server did not answer, or refused.
    fn undecided(check: Check, of: &str, error: &CallError) -> Self {
        Self::new(check, of, State::Unknown, chain(error)).mend_with(error.hint())
    }
}

#[cfg(test)]
mod tests;

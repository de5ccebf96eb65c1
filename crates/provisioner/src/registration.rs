//! The tenant's role in PostgreSQL and its user in Redis, made with the passwords of its Secret, and taken away again with what they
//! hold. Both servers are reached as their administrators, by a port-forward to a ready pod of each: nothing has to be open to whoever
//! runs this but the API server.
//!
//! Every operation may be repeated, and two at once do no harm. No password is sent in the clear but those of logins (SCRAM sends none,
//! Redis' AUTH goes inside of the port-forward): roles get a SCRAM verifier, users of Redis a hash.

mod account;
mod forward;
mod redis;
mod roles;

use crate::calls::{CallError, Calls};
use crate::names::TenantId;
use crate::needs::Need;
use crate::progress::{Progress, Silent, Step};
use crate::tenant::{SharedServices, Tenant};
use account::Account;
use forward::Server;
use futures::FutureExt;
use futures::future::{join, try_join3};
use kube::Client;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The Secret in a tenant's namespace that holds its passwords.
pub const CREDENTIALS: &str = "ai-agents-credentials";
/// The key of [`CREDENTIALS`] with the password of the tenant's role in PostgreSQL.
pub const POSTGRESQL_PASSWORD: &str = "POSTGRESQL_PASSWORD";
/// The key of [`CREDENTIALS`] with the password of the tenant's user in Redis.
pub const REDIS_PASSWORD: &str = "REDIS_PASSWORD";
/// The role whose members are the tenants' roles, and that holds their rights. The application's migrations make it.
pub const GROUP_ROLE: &str = "ai_agents_tenant";
/// The schema of the application's tables. A row belongs to the tenant that its column [`TENANT_COLUMN`] names.
pub const SCHEMA: &str = "ai_agents";
/// The column that tells whose a row is.
pub const TENANT_COLUMN: &str = "tenant_id";

/// The name of the tenant's role in PostgreSQL and of its user in Redis.
#[must_use]
pub fn login(id: &TenantId) -> String {
    format!("tenant-{id}")
}

/// What all of the tenant's keys in Redis begin with.
#[must_use]
pub fn key_prefix(id: &TenantId) -> String {
    format!("tenant:{id}:")
}

/// What a registration did to one of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It did not exist.
    Created,
    /// It existed, and something about it was otherwise.
    Changed,
    /// It was as it must be.
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        })
    }
}

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Registered {
    /// The role in PostgreSQL.
    pub role: Change,
    /// The user in Redis.
    pub user: Change,
}

/// What there is of a tenant in PostgreSQL and Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct State {
    /// Its role exists.
    pub role: bool,
    /// Its rows in the application's tables.
    pub rows: u64,
    /// Its user exists.
    pub user: bool,
    /// Its keys.
    pub keys: u64,
}

impl State {
    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn of_postgresql((role, rows): (bool, u64)) -> Self {
        Self {
            role,
            rows,
            ..Self::default()
        }
    }

    fn of_redis((user, keys): (bool, u64)) -> Self {
        Self {
            user,
            keys,
            ..Self::default()
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.role {
            parts.push("a role in PostgreSQL".to_owned());
        }
        if self.rows > 0 {
            parts.push(format!("{} row(s)", self.rows));
        }
        if self.user {
            parts.push("a user in Redis".to_owned());
        }
        if self.keys > 0 {
            parts.push(format!("{} key(s)", self.keys));
        }
        if parts.is_empty() {
            parts.push("nothing".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

/// Why a registration, or its removal, failed. The same call again continues.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// A request to the API server failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A Secret is missing, or lacks what it must hold.
    #[error("read Secret {name} in {namespace}: {problem}")]
    Secret {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// What was expected and seen, without values.
        problem: String,
        /// It is the tenant's own, and not an administrator's.
        of_tenant: bool,
    },
    /// There is no such namespace, or no such Service in it.
    #[error("find {service} in {namespace}: {problem}")]
    Absent {
        /// `PostgreSQL` or `Redis`.
        service: &'static str,
        /// The namespace it was looked for in.
        namespace: String,
        /// What does not exist.
        problem: String,
    },
    /// No connection.
    #[error("reach {service} in {namespace}{}: {problem}", given_up(*tried_for))]
    Unreachable {
        /// `PostgreSQL` or `Redis`.
        service: &'static str,
        /// Its namespace.
        namespace: String,
        /// What was seen.
        problem: String,
        /// How long it was tried again and again; none if there was no second time.
        tried_for: Option<Duration>,
    },
    /// The role that tenants' roles are members of does not exist.
    #[error("make role {role} in PostgreSQL: the role {GROUP_ROLE}, whose member it must be, does not exist")]
    NoGroupRole {
        /// The tenant's role.
        role: String,
    },
    /// PostgreSQL refused.
    #[error("{what}{}: {message} (SQLSTATE {code})", given_up(*tried_for))]
    Postgresql {
        /// What was attempted.
        what: String,
        /// PostgreSQL's error code, as in `42501`.
        code: String,
        /// PostgreSQL's message.
        message: String,
        /// How long it was tried again and again; none if there was no second time.
        tried_for: Option<Duration>,
    },
    /// Redis refused.
    #[error("{what}{}: {message}", given_up(*tried_for))]
    Redis {
        /// What was attempted.
        what: String,
        /// Redis' message, as in `NOPERM …`.
        message: String,
        /// How long it was tried again and again; none if there was no second time.
        tried_for: Option<Duration>,
    },
}

fn given_up(tried_for: Option<Duration>) -> String {
    tried_for.map_or_else(String::new, |time| format!(": given up after {time:.1?}"))
}

impl RegistrationError {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Call(error) => return error.hint(),
            Self::Secret { of_tenant: true, .. } => {
                "`provisioner apply` makes this Secret with its keys; templates that leave it out go with `registration: false` in the tenant file"
            }
            Self::Secret { .. } => {
                "an administrator's name and password are its keys username and password; another Secret is named by sharedServices.postgresql.adminSecret and sharedServices.redis.adminSecret in the tenant file; where somebody else registers tenants: `registration: false`"
            }
            Self::Absent { .. } => {
                "put up the shared services (fixtures/shared-services/services.sh up), or name where they are by sharedServices in the tenant file; where somebody else registers tenants: `registration: false`"
            }
            Self::NoGroupRole { .. } => {
                "run the application's migrations (`enhancer migrate`, as fixtures/shared-services/migrate.yaml does), then apply again"
            }
            Self::Unreachable {
                service, namespace, ..
            } => {
                return Some(format!(
                    "`kubectl get pods --namespace {namespace}` says whether {service} runs; then the same again"
                ));
            }
            Self::Postgresql { code, .. } => roles::hint(code)?,
            Self::Redis { message, .. } => redis::hint(message)?,
        };
        Some(hint.to_owned())
    }

    /// Whether the same may work in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Call(error) => error.is_passing(),
            Self::Unreachable { .. } => true,
            Self::Postgresql { code, message, .. } => roles::is_passing(code, message),
            Self::Redis { message, .. } => redis::is_passing(message),
            _ => false,
        }
    }

    /// Whether there is no such service.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// Whether an administrator's Secret does not exist.
    fn lacks_admin(&self) -> bool {
        matches!(self, Self::Secret { problem, of_tenant: false, .. } if problem == account::MISSING)
    }

    fn after(mut self, time: Duration) -> Self {
        match &mut self {
            Self::Unreachable { tried_for, .. }
            | Self::Postgresql { tried_for, .. }
            | Self::Redis { tried_for, .. }
            | Self::Call(CallError { tried_for, .. }) => *tried_for = Some(time),
            _ => {}
        }
        self
    }
}

/// Since this minor version whoever forwards a port needs `create` beside `get`
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authorization/#authorization-for-pods-exec>, KEP-4006).
const CREATE_SINCE: u32 = 35;

/// What a registration of the tenant needs, in this minor version of Kubernetes.
pub(crate) fn needs(tenant: &Tenant, version: Option<u32>) -> Vec<Need> {
    let shared = &tenant.shared_services;
    let there = Some(shared.namespace.as_str());
    let secret = |name: &str, namespace| Need::new("get", ("", "secrets"), namespace).named(name);
    let forward = |verb| Need::new(verb, ("", "pods"), there).of("portforward");
    let mut needs = vec![
        secret(CREDENTIALS, Some(&tenant.namespace())),
        secret(shared.postgresql.admin_secret.as_str(), there),
        secret(shared.redis.admin_secret.as_str(), there),
        Need::new("list", ("discovery.k8s.io", "endpointslices"), there),
        forward("get"),
    ];
    if version.is_none_or(|version| version >= CREATE_SINCE) {
        needs.push(forward("create"));
    }
    needs
}

/// What PostgreSQL and Redis know of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its role exists.
    pub role: bool,
    /// Its user exists.
    pub user: bool,
}

/// Whether PostgreSQL and Redis know the tenant. Where they do not, a registration would find what it needs: the administrators' accounts,
/// the application's database and the role that tenants are members of. Changes nothing.
///
/// # Errors
/// See [`RegistrationError`]: those that [`register`] would end with.
pub async fn known(
    client: &Client,
    tenant: &Tenant,
    progress: &dyn Progress,
    deadline: Duration,
) -> Result<Known, RegistrationError> {
    let calls = Calls::new(deadline, progress);
    let patience = Patience::new(deadline, progress);
    let shared = &tenant.shared_services;
    let role = async {
        let server = Server::postgresql(client, shared);
        let admin = server
            .admin(&calls, shared, &shared.postgresql.admin_secret)
            .await?;
        let what = format!("look for role {} in PostgreSQL", login(&tenant.id));
        let attempt = || roles::known(&server, &admin, tenant);
        patience.attempt(&what, attempt).await
    };
    let user = async {
        let server = Server::redis(client, shared);
        let admin = server.admin(&calls, shared, &shared.redis.admin_secret).await?;
        let what = format!("look for user {} in Redis", login(&tenant.id));
        let attempt = || redis::known(&server, &admin, &tenant.id);
        patience.attempt(&what, attempt).await
    };
    let (role, user) = join(role.boxed(), user.boxed()).await;
    Ok(Known {
        role: role?,
        user: user?,
    })
}

/// How long a single connection for somebody else's use is tried for.
const ADMIN_WITHIN: Duration = Duration::from_secs(15);

/// Makes the tenant's role in PostgreSQL and its user in Redis, or brings them to what they must be: rights, and the passwords that are in
/// the tenant's Secret. `deadline` is how long passing failures (a server that is just starting, a lost connection) are ridden out.
///
/// # Errors
/// See [`RegistrationError`]. What was done until then stays, and the same call again completes it.
pub async fn register(
    client: &Client,
    tenant: &Tenant,
    progress: &dyn Progress,
    deadline: Duration,
) -> Result<Registered, RegistrationError> {
    let calls = Calls::new(deadline, progress);
    let shared = &tenant.shared_services;
    let (own, postgresql, redis) = try_join3(
        account::of_tenant(client, &calls, &tenant.id),
        Account::of_admin(client, &calls, shared, &shared.postgresql.admin_secret),
        Account::of_admin(client, &calls, shared, &shared.redis.admin_secret),
    )
    .await?;
    let patience = Patience::new(deadline, progress);
    let role = async {
        let server = Server::postgresql(client, shared);
        let what = format!("register role {} in PostgreSQL", login(&tenant.id));
        let attempt = || roles::register(&server, &postgresql, tenant, &own.postgresql);
        let change = patience.attempt(&what, attempt).await?;
        let what = format!("role {} in PostgreSQL", login(&tenant.id));
        progress.step(&Step::Registered { what, change });
        Ok::<_, RegistrationError>(change)
    };
    let user = async {
        let server = Server::redis(client, shared);
        let what = format!("register user {} in Redis", login(&tenant.id));
        let attempt = || redis::register(&server, &redis, &tenant.id, &own.redis);
        let change = patience.attempt(&what, attempt).await?;
        let what = format!("user {} in Redis", login(&tenant.id));
        progress.step(&Step::Registered { what, change });
        Ok::<_, RegistrationError>(change)
    };
    // Whatever becomes of one, the other is made: the next call has less to do.
    let (role, user) = join(role.boxed(), user.boxed()).await;
    Ok(Registered {
        role: role?,
        user: user?,
    })
}

/// Removes all that PostgreSQL and Redis hold of a tenant: ends its connections, then its rows, its role, its user and its keys go.
/// Returns what there was: nothing in one whose namespace or Service does not exist.
///
/// # Errors
/// See [`RegistrationError`]. What is left goes by the same call again; whatever becomes of one, the other is purged.
pub async fn purge(
    client: &Client,
    shared: &SharedServices,
    id: &TenantId,
    progress: &dyn Progress,
    deadline: Duration,
) -> Result<State, RegistrationError> {
    let calls = Calls::new(deadline, progress);
    let patience = Patience::new(deadline, progress);
    let purged = |was| {
        let login = login(id);
        progress.step(&Step::Purged { login, was });
        was
    };
    let roles = async {
        let server = Server::postgresql(client, shared);
        let admin = server
            .admin(&calls, shared, &shared.postgresql.admin_secret)
            .await?;
        let what = format!("remove role {} in PostgreSQL and its rows", login(id));
        let attempt = || roles::purge(&server, &admin, shared, id);
        let held = patience.attempt(&what, attempt).await?;
        Ok(purged(State::of_postgresql(held)))
    };
    let users = async {
        let server = Server::redis(client, shared);
        let admin = server.admin(&calls, shared, &shared.redis.admin_secret).await?;
        let what = format!("remove user {} in Redis and its keys", login(id));
        let attempt = || redis::purge(&server, &admin, id);
        let held = patience.attempt(&what, attempt).await?;
        Ok(purged(State::of_redis(held)))
    };
    both(roles, users).await
}

/// What PostgreSQL and Redis hold of a tenant: nothing in one whose namespace or Service does not exist. Changes nothing.
///
/// # Errors
/// See [`RegistrationError`].
pub async fn state(
    client: &Client,
    shared: &SharedServices,
    id: &TenantId,
    progress: &dyn Progress,
    deadline: Duration,
) -> Result<State, RegistrationError> {
    let calls = Calls::new(deadline, progress);
    let patience = Patience::new(deadline, progress);
    let roles = async {
        let server = Server::postgresql(client, shared);
        let admin = server
            .admin(&calls, shared, &shared.postgresql.admin_secret)
            .await?;
        let what = format!("look for role {} in PostgreSQL", login(id));
        let attempt = || roles::state(&server, &admin, shared, id);
        patience.attempt(&what, attempt).await.map(State::of_postgresql)
    };
    let users = async {
        let server = Server::redis(client, shared);
        let admin = server.admin(&calls, shared, &shared.redis.admin_secret).await?;
        let what = format!("look for user {} in Redis", login(id));
        let attempt = || redis::state(&server, &admin, id);
        patience.attempt(&what, attempt).await.map(State::of_redis)
    };
    both(roles, users).await
}

/// What PostgreSQL holds and what Redis does, each asked to its end. What does not exist holds nothing.
async fn both<F, G>(roles: F, users: G) -> Result<State, RegistrationError>
where
    F: Future<Output = Result<State, RegistrationError>> + Send,
    G: Future<Output = Result<State, RegistrationError>> + Send,
{
    let there = |held: Result<State, RegistrationError>| match held {
        Err(error) if error.is_absence() => {
            tracing::warn!("nothing is there to hold data: {error}");
            Ok(State::default())
        }
        held => held,
    };
    let (roles, users) = join(roles.boxed(), users.boxed()).await;
    let (roles, users) = (there(roles)?, there(users)?);
    Ok(State {
        user: users.user,
        keys: users.keys,
        ..roles
    })
}

/// A session of PostgreSQL's administrator in that database, over a port-forward that lives as long as the client.
///
/// # Errors
/// See [`RegistrationError`]. Passing failures are ridden out for 15 seconds.
pub async fn postgresql_admin(
    client: &Client,
    shared: &SharedServices,
    database: &str,
) -> Result<tokio_postgres::Client, RegistrationError> {
    let calls = Calls::new(ADMIN_WITHIN, &Silent);
    let admin = Account::of_admin(client, &calls, shared, &shared.postgresql.admin_secret).await?;
    let server = Server::postgresql(client, shared);
    Patience::new(ADMIN_WITHIN, &Silent)
        .attempt("connect to PostgreSQL", || {
            roles::connect(&server, &admin, database)
        })
        .await
}

/// A connection of Redis' administrator, over a port-forward that lives as long as the connection and its clones.
///
/// # Errors
/// See [`RegistrationError`]. Passing failures are ridden out for 15 seconds.
pub async fn redis_admin(
    client: &Client,
    shared: &SharedServices,
) -> Result<::redis::aio::MultiplexedConnection, RegistrationError> {
    let calls = Calls::new(ADMIN_WITHIN, &Silent);
    let admin = Account::of_admin(client, &calls, shared, &shared.redis.admin_secret).await?;
    let server = Server::redis(client, shared);
    Patience::new(ADMIN_WITHIN, &Silent)
        .attempt("connect to Redis", || redis::connect(&server, &admin))
        .await
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Attempts what may be repeated, from its connection on, until it works, fails for good, or the time is over.
struct Patience<'a> {
    started: Instant,
    deadline: Duration,
    progress: &'a dyn Progress,
}

impl<'a> Patience<'a> {
    fn new(deadline: Duration, progress: &'a dyn Progress) -> Self {
        Self {
            started: Instant::now(),
            deadline,
            progress,
        }
    }

    async fn attempt<T, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> Result<T, RegistrationError>
    where
        F: Future<Output = Result<T, RegistrationError>>,
    {
        let mut pause = FIRST_PAUSE;
        let mut last: Option<RegistrationError> = None;
        loop {
            // A silent server gets at least a moment, however little time is left.
            let left = self.deadline.saturating_sub(self.started.elapsed());
            let error = match timeout(left.max(Duration::from_secs(1)), attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => {
                    return Err(last.unwrap_or_else(|| self.silence(what)));
                }
            };
            if !error.is_passing() {
                return Err(error);
            }
            if self.started.elapsed() + pause > self.deadline {
                let tried = last.is_some();
                return Err(if tried {
                    error.after(self.started.elapsed())
                } else {
                    error
                });
            }
            self.progress.step(&Step::Retrying {
                what: what.to_owned(),
                why: error.to_string(),
            });
            last = Some(error.after(self.started.elapsed()));
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn silence(&self, what: &str) -> RegistrationError {
        RegistrationError::Call(CallError {
            what: what.to_owned(),
            tried_for: None,
            cause: crate::calls::Cause::Silence(self.started.elapsed()),
        })
    }
}

#[cfg(test)]
mod tests;

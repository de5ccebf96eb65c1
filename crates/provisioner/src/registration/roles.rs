//! The tenant's role in PostgreSQL and its rows. One transaction each, under an advisory lock of the tenant's.

use super::account::{Account, Password};
use super::forward::Server;
use super::{Change, GROUP_ROLE, RegistrationError, SCHEMA, TENANT_COLUMN, login};
use crate::names::TenantId;
use crate::tenant::{SharedServices, Tenant};
use postgres_protocol::password::scram_sha_256;
use std::error::Error as _;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls, Transaction};

/// What is there whatever the application does.
const MAINTENANCE: &str = "postgres";

/// What a tenant's role may do by itself: log in.
const ATTRIBUTES: &str =
    "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT VALID UNTIL 'infinity'";

/// Whether the role is as [`ATTRIBUTES`] says, and the roles that it is a member of. `$1` is its name, `$2` its connection limit.
const LOOK: &str = "
SELECT r.rolcanlogin AND r.rolinherit AND r.rolconnlimit = $2
       AND NOT (r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls)
       AND coalesce(r.rolvaliduntil, 'infinity') = 'infinity',
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY 1)
FROM pg_roles r WHERE r.rolname = $1";

/// The tables whose rows are tenants'.
const TABLES: &str = "
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = $1 AND a.attname = $2 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY 1";

/// No statement in the server's log: neither for its failure nor for its kind or its time.
const UNLOGGED: &str = "
SET LOCAL log_min_error_statement = panic;
SET LOCAL log_statement = 'none';
SET LOCAL log_min_duration_statement = -1";

pub(super) fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" | "28000" => {
            "the administrator's Secret does not hold the name and password that PostgreSQL knows; put them in again"
        }
        "3D000" | "3F000" | "42P01" => {
            "run the application's migrations (`enhancer migrate`, as fixtures/shared-services/migrate.yaml does), or name its database as sharedServices.postgresql.database in the tenant file"
        }
        "42501" => {
            "the administrator needs the right to make roles and to see all rows: a superuser's. Where it is the tenant that may not connect, run the application's migrations (`enhancer migrate`)"
        }
        "2BP01" => {
            "the role owns something in another database; give that to somebody else, then the same again"
        }
        "53300" => "PostgreSQL has no connection left; end some, or raise its max_connections",
        _ => return None,
    })
}

/// Failures of the server's state, not of what was asked.
pub(super) fn is_passing(code: &str, message: &str) -> bool {
    // 08: connection; 40: rolled back for others' sake; 53: resources; 57P: the server is starting, stopping, or ended the session.
    let class = ["08", "40", "53", "57P"]
        .iter()
        .any(|class| code.starts_with(class));
    class || code == "55P03" || (code == "XX000" && message.contains("concurrently"))
}

/// A session in that database. It lives as long as the client.
pub(super) async fn connect(
    server: &Server<'_>,
    account: &Account,
    database: &str,
) -> Result<Client, RegistrationError> {
    let mut config = Config::new();
    config
        .user(&account.user)
        .password(account.password.expose())
        .dbname(database)
        .application_name("ai-agents-provisioner")
        .ssl_mode(SslMode::Disable);
    server
        .connect(async |stream| {
            let what = format!(
                "log in to database {database} of PostgreSQL as {} ({})",
                account.user, account.secret
            );
            let (client, connection) = config
                .connect_raw(stream, NoTls)
                .await
                .map_err(|error| failed(server, &what, &error))?;
            let driver = async {
                if let Err(error) = connection.await {
                    tracing::debug!("connection to PostgreSQL: {error}");
                }
            };
            Ok((client, driver))
        })
        .await
}

/// The error without what was sent.
fn failed(server: &Server<'_>, what: &str, error: &Error) -> RegistrationError {
    match error.as_db_error() {
        Some(refusal) => RegistrationError::Postgresql {
            what: what.to_owned(),
            code: refusal.code().code().to_owned(),
            message: refusal.message().to_owned(),
            tried_for: None,
        },
        None => {
            let cause = error.source().map(|source| format!(": {source}"));
            server.unreachable(format!("{what}: {error}{}", cause.unwrap_or_default()))
        }
    }
}

/// Makes the role, or brings it to what it must be.
pub(super) async fn register(
    server: &Server<'_>,
    admin: &Account,
    tenant: &Tenant,
    password: &Password,
) -> Result<Change, RegistrationError> {
    let role = login(&tenant.id);
    let what = format!("register role {role} in PostgreSQL");
    let failed = |error| failed(server, &what, &error);
    let settings = &tenant.shared_services.postgresql;
    let mut client = connect(server, admin, settings.database.as_str()).await?;
    let transaction = locked(&mut client, &tenant.id).await.map_err(failed)?;
    if !exists(&transaction, GROUP_ROLE).await.map_err(failed)? {
        return Err(RegistrationError::NoGroupRole { role });
    }
    let limit = i32::from(settings.connection_limit.get());
    let found = look(&transaction, &role, limit).await.map_err(failed)?;
    let quoted = identifier(&role);
    let rights = format!("{ATTRIBUTES} CONNECTION LIMIT {limit}");
    let (statement, change) = match found {
        None => {
            let verifier = verifier(password);
            let made = format!("CREATE ROLE {quoted} {rights} PASSWORD {verifier} IN ROLE {GROUP_ROLE}");
            (made, Change::Created)
        }
        Some(Found { as_wanted, groups }) => {
            let strange = groups.iter().filter(|group| *group != GROUP_ROLE);
            let mut statements: Vec<String> = strange
                .map(|group| format!("REVOKE {} FROM {quoted}", identifier(group)))
                .collect();
            let member = groups.iter().any(|group| group == GROUP_ROLE);
            if !member {
                statements.push(format!("GRANT {GROUP_ROLE} TO {quoted}"));
            }
            if !(as_wanted && member) {
                let verifier = verifier(password);
                statements.push(format!("ALTER ROLE {quoted} {rights} PASSWORD {verifier}"));
            } else if !logs_in(server, &role, password, settings.database.as_str()).await? {
                // Only this: for the rest it takes a superuser.
                statements.push(format!("ALTER ROLE {quoted} PASSWORD {}", verifier(password)));
            }
            let change = if statements.is_empty() {
                Change::Unchanged
            } else {
                Change::Changed
            };
            (statements.join(";\n"), change)
        }
    };
    if change != Change::Unchanged {
        keep_out_of_log(&transaction).await.map_err(failed)?;
        transaction.batch_execute(&statement).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(change)
}

/// Whether the tenant's role exists, in a database where it could be made.
pub(super) async fn known(
    server: &Server<'_>,
    admin: &Account,
    tenant: &Tenant,
) -> Result<bool, RegistrationError> {
    let role = login(&tenant.id);
    let what = format!("look for role {role} in PostgreSQL");
    let failed = |error| failed(server, &what, &error);
    let database = tenant.shared_services.postgresql.database.as_str();
    let client = connect(server, admin, database).await?;
    if !exists(&client, GROUP_ROLE).await.map_err(failed)? {
        return Err(RegistrationError::NoGroupRole { role });
    }
    exists(&client, &role).await.map_err(failed)
}

/// Removes the tenant's rows and its role. Returns whether there was a role, and how many rows there were.
pub(super) async fn purge(
    server: &Server<'_>,
    admin: &Account,
    shared: &SharedServices,
    id: &TenantId,
) -> Result<(bool, u64), RegistrationError> {
    let role = login(id);
    let quoted = identifier(&role);
    let what = format!("remove role {role} in PostgreSQL and its rows");
    let failed = |error| failed(server, &what, &error);
    let mut client = connect_anyhow(server, admin, shared).await?;
    // Before all else, and for all to see at once: from here on the role opens no session.
    if exists(&client, &role).await.map_err(failed)? {
        let shut = format!("ALTER ROLE {quoted} NOLOGIN");
        match client.batch_execute(&shut).await {
            Err(error) if error.code() != Some(&SqlState::UNDEFINED_OBJECT) => return Err(failed(error)),
            _ => {}
        }
        let ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1";
        client.query(ended, &[&role]).await.map_err(failed)?;
    }
    let transaction = locked(&mut client, id).await.map_err(failed)?;
    let mut rows = 0;
    for table in tables(&transaction).await.map_err(failed)? {
        let statement = format!("DELETE FROM {table} WHERE {TENANT_COLUMN} = $1");
        rows += transaction
            .execute(&statement, &[&id.as_str()])
            .await
            .map_err(failed)?;
    }
    let existed = exists(&transaction, &role).await.map_err(failed)?;
    if existed {
        // What it was granted directly, and what it owns in this database.
        let statements = format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}");
        transaction.batch_execute(&statements).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok((existed, rows))
}

/// Whether the tenant's role exists, and how many rows it has.
pub(super) async fn state(
    server: &Server<'_>,
    admin: &Account,
    shared: &SharedServices,
    id: &TenantId,
) -> Result<(bool, u64), RegistrationError> {
    let role = login(id);
    let what = format!("look for role {role} in PostgreSQL");
    let failed = |error| failed(server, &what, &error);
    let mut client = connect_anyhow(server, admin, shared).await?;
    let existed = exists(&client, &role).await.map_err(failed)?;
    let transaction = all_rows(&mut client).await.map_err(failed)?;
    let mut rows: u64 = 0;
    for table in tables(&transaction).await.map_err(failed)? {
        let statement = format!("SELECT count(*) FROM {table} WHERE {TENANT_COLUMN} = $1");
        let counted = transaction
            .query_one(&statement, &[&id.as_str()])
            .await
            .map_err(failed)?;
        rows += u64::try_from(counted.try_get::<_, i64>(0).map_err(failed)?).unwrap_or_default();
    }
    Ok((existed, rows))
}

/// A session in the application's database, or in the one that is always there: roles belong to all of them.
async fn connect_anyhow(
    server: &Server<'_>,
    admin: &Account,
    shared: &SharedServices,
) -> Result<Client, RegistrationError> {
    match connect(server, admin, shared.postgresql.database.as_str()).await {
        Err(RegistrationError::Postgresql { code, .. }) if code == SqlState::INVALID_CATALOG_NAME.code() => {
            connect(server, admin, MAINTENANCE).await
        }
        connected => connected,
    }
}

/// Whether the role logs in with that password. What is refused after the login says that it does.
async fn logs_in(
    server: &Server<'_>,
    role: &str,
    password: &Password,
    database: &str,
) -> Result<bool, RegistrationError> {
    let account = Account {
        user: role.to_owned(),
        password: password.clone(),
        secret: super::CREDENTIALS.to_owned(),
    };
    accepted(role, connect(server, &account, database).await)
}

/// Whether an attempt to log in shows that the password is the role's; an error where it shows nothing.
fn accepted<T>(role: &str, attempt: Result<T, RegistrationError>) -> Result<bool, RegistrationError> {
    match attempt {
        Ok(_) => Ok(true),
        Err(RegistrationError::Postgresql { code, .. }) if code == "28P01" || code == "28000" => Ok(false),
        // Its own connections are used up. That the server's are is said before the login, and names no role.
        Err(RegistrationError::Postgresql { code, message, .. })
            if code == "53300" && message.contains(role) =>
        {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// A transaction that another one for the same tenant waits for.
async fn locked<'c>(client: &'c mut Client, id: &TenantId) -> Result<Transaction<'c>, Error> {
    let transaction = all_rows(client).await?;
    let lock = "SELECT pg_advisory_xact_lock(hashtext('ai-agents-registration'), hashtext($1))";
    transaction.query(lock, &[&id.as_str()]).await?;
    Ok(transaction)
}

/// A transaction that fails where row-level security would keep rows from it, and does not pass them over.
async fn all_rows(client: &mut Client) -> Result<Transaction<'_>, Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute("SET LOCAL row_security = off").await?;
    Ok(transaction)
}

/// Keeps what the transaction says from here on out of the server's log, where the administrator may: a verifier can be tried against
/// guesses. A setting that it may not change would end the transaction, so it is asked before.
async fn keep_out_of_log(transaction: &Transaction<'_>) -> Result<(), Error> {
    let superuser = transaction
        .query_opt(
            "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolsuper",
            &[],
        )
        .await?;
    if superuser.is_some() {
        transaction.batch_execute(UNLOGGED).await?;
    }
    Ok(())
}

/// A role as it is.
struct Found {
    as_wanted: bool,
    /// The roles that it is a member of.
    groups: Vec<String>,
}

async fn look(transaction: &Transaction<'_>, role: &str, limit: i32) -> Result<Option<Found>, Error> {
    let row = transaction.query_opt(LOOK, &[&role, &limit]).await?;
    row.map(|row| {
        Ok(Found {
            as_wanted: row.try_get(0)?,
            groups: row.try_get(1)?,
        })
    })
    .transpose()
}

async fn exists(client: &impl tokio_postgres::GenericClient, role: &str) -> Result<bool, Error> {
    let found = client
        .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])
        .await?;
    Ok(found.is_some())
}

async fn tables(transaction: &Transaction<'_>) -> Result<Vec<String>, Error> {
    let rows = transaction.query(TABLES, &[&SCHEMA, &TENANT_COLUMN]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// The name in SQL. Names are validated; quoted they are all the same, since they have dashes.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The password as PostgreSQL keeps it, in SQL: the server's log never sees the password itself.
fn verifier(password: &Password) -> String {
    format!(
        "'{}'",
        scram_sha_256(password.expose().as_bytes()).replace('\'', "''")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn names_do_not_leave_their_quotes() {
        assert_eq!(identifier("tenant-acme"), "\"tenant-acme\"");
        assert_eq!(identifier("a\"; DROP ROLE x; --"), "\"a\"\"; DROP ROLE x; --\"");
    }

    #[test]
    fn a_verifier_is_no_password() {
        let sent = verifier(&"s3cret".to_owned().into());
        assert!(
            sent.starts_with("'SCRAM-SHA-256$4096:") && !sent.contains("s3cret"),
            "{sent}"
        );
    }

    fn refused(code: &str, message: &str) -> Result<(), RegistrationError> {
        Err(RegistrationError::Postgresql {
            what: "log in".to_owned(),
            code: code.to_owned(),
            message: message.to_owned(),
            tried_for: None,
        })
    }

    #[rstest]
    #[case::logged_in(Ok(()), Some(true))]
    #[case::password(
        refused("28P01", "password authentication failed for user \"tenant-acme\""),
        Some(false)
    )]
    #[case::kept_out(
        refused("28000", "role \"tenant-acme\" is not permitted to log in"),
        Some(false)
    )]
    #[case::its_connections(refused("53300", "too many connections for role \"tenant-acme\""), Some(true))]
    #[case::all_connections(refused("53300", "sorry, too many clients already"), None)]
    #[case::starting(refused("57P03", "the database system is starting up"), None)]
    fn what_a_login_shows(#[case] attempt: Result<(), RegistrationError>, #[case] expected: Option<bool>) {
        match accepted("tenant-acme", attempt) {
            Ok(shown) => assert_eq!(Some(shown), expected),
            Err(error) => assert!(expected.is_none() && error.is_passing(), "{error}"),
        }
    }

    #[rstest]
    #[case::starting("57P03", "the database system is starting up", true)]
    #[case::ended("57P01", "terminating connection due to administrator command", true)]
    #[case::full("53300", "too many connections", true)]
    #[case::at_once("XX000", "tuple concurrently updated", true)]
    #[case::broken("XX000", "cache lookup failed", false)]
    #[case::password("28P01", "password authentication failed", false)]
    #[case::right("42501", "permission denied", false)]
    fn what_passes(#[case] code: &str, #[case] message: &str, #[case] passing: bool) {
        assert_eq!(is_passing(code, message), passing);
    }
}

//! The tenant's user in Redis and its keys.

use super::account::{Account, Password};
use super::forward::Server;
use super::{Change, RegistrationError, key_prefix, login};
use crate::names::TenantId;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, Value, cmd};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How long an answer may take: longer than any of these commands.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How many keys are looked at, and removed, at once.
const BATCH: u64 = 500;
/// How often all keys are looked through, at most, until there is none of a tenant's.
const PASSES: usize = 5;

/// What a tenant's user may do, on the keys that begin with its prefix: what the application does with its queue, and no more. Of what
/// belongs to a connection, nothing that reaches further than that connection: no list of clients, no other database, and no tracking,
/// which in broadcast names the keys of all tenants.
const COMMANDS: &[&str] = &[
    "-@all",
    "+@connection",
    "-@admin",
    "-@dangerous",
    "-select",
    "-client|tracking",
    "+@stream",
    "-xinfo",
    "+get",
    "+set",
    "+del",
    "+exists",
    "+expire",
    "+ttl",
];

pub(super) fn hint(message: &str) -> Option<&'static str> {
    let is = |text: &str| message.contains(text);
    Some(
        if is("WRONGPASS") || is("NOAUTH") || is("authentication failed") {
            "the administrator's Secret does not hold the name and password that Redis knows; put them in again"
        } else if is("not configured to use an ACL file") {
            "start Redis with --aclfile: users that are made otherwise are gone when it restarts"
        } else if is("NOPERM") {
            "the administrator needs the right to everything: +@all ~* &*"
        } else if is("READONLY") {
            "the Service leads to a replica; name the one that writes as sharedServices.redis.service in the tenant file"
        } else if is("unknown subcommand") || is("modifier") {
            "Redis 7.0 or later is needed"
        } else {
            return None;
        },
    )
}

/// Failures of the server's state, not of what was asked.
pub(super) fn is_passing(message: &str) -> bool {
    ["LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN", "OOM"]
        .iter()
        .any(|code| message.starts_with(code))
}

/// A connection. It lives as long as it, or a clone of it.
pub(super) async fn connect(
    server: &Server<'_>,
    account: &Account,
) -> Result<MultiplexedConnection, RegistrationError> {
    let login = RedisConnectionInfo::default()
        .set_username(&account.user)
        .set_password(account.password.expose())
        .set_skip_set_lib_name();
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_WITHIN));
    let what = format!("log in to Redis as {} ({})", account.user, account.secret);
    server
        .connect(async |stream| {
            MultiplexedConnection::new_with_config(&login, stream, config)
                .await
                .map_err(|error| failed(server, &what, &error))
        })
        .await
}

/// The error without what was sent.
fn failed(server: &Server<'_>, what: &str, error: &RedisError) -> RegistrationError {
    if error.kind() == ErrorKind::Io {
        return server.unreachable(format!("{what}: {error}"));
    }
    let text = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    RegistrationError::Redis {
        what: what.to_owned(),
        message: without_hashes(&text),
        tried_for: None,
    }
}

/// Redis quotes the rule that it does not take, and one of them is the password's hash.
fn without_hashes(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let long = word.chars().filter(char::is_ascii_hexdigit).count() >= 32;
        if long { "(hidden)" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Makes the user, or brings it to what it must be; then the users are written to their file, whatever happened: who was interrupted
/// before that is made up for.
pub(super) async fn register(
    server: &Server<'_>,
    admin: &Account,
    id: &TenantId,
    password: &Password,
) -> Result<Change, RegistrationError> {
    let user = login(id);
    let what = format!("register user {user} in Redis");
    let failed = |error| failed(server, &what, &error);
    let mut connection = connect(server, admin).await?;
    let before = ask(&mut connection, &["GETUSER", &user]).await.map_err(failed)?;
    let mut change = vec!["SETUSER".to_owned(), user.clone()];
    change.extend(rules(id, password));
    ask(&mut connection, &change).await.map_err(failed)?;
    let after = ask(&mut connection, &["GETUSER", &user]).await.map_err(failed)?;
    ask(&mut connection, &["SAVE"]).await.map_err(failed)?;
    Ok(match before {
        Value::Nil => Change::Created,
        before if before == after => Change::Unchanged,
        _ => Change::Changed,
    })
}

/// Whether the tenant's user exists.
pub(super) async fn known(
    server: &Server<'_>,
    admin: &Account,
    id: &TenantId,
) -> Result<bool, RegistrationError> {
    let what = format!("look for user {} in Redis", login(id));
    let mut connection = connect(server, admin).await?;
    let found = ask(&mut connection, &["GETUSER", &login(id)]).await;
    let found = found.map_err(|error| failed(server, &what, &error))?;
    Ok(found != Value::Nil)
}

/// One command of ACL.
async fn ask<S: AsRef<str>>(
    connection: &mut MultiplexedConnection,
    command: &[S],
) -> Result<Value, RedisError> {
    let mut acl = cmd("ACL");
    for word in command {
        acl.arg(word.as_ref());
    }
    acl.query_async(connection).await
}

/// All that the user may do, and how it logs in. A SETUSER is taken as a whole or not at all.
fn rules(id: &TenantId, password: &Password) -> Vec<String> {
    let hash = Sha256::digest(password.expose());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let prefix = key_prefix(id);
    let mut rules = vec![
        "reset".to_owned(),
        "on".to_owned(),
        format!("#{hash}"),
        "resetchannels".to_owned(),
        format!("~{prefix}*"),
        format!("&{prefix}*"),
    ];
    rules.extend(COMMANDS.iter().map(|&rule| rule.to_owned()));
    rules
}

/// Removes the user, which ends its connections, then its keys. Returns whether there was a user, and how many keys there were.
pub(super) async fn purge(
    server: &Server<'_>,
    admin: &Account,
    id: &TenantId,
) -> Result<(bool, u64), RegistrationError> {
    let what = format!("remove user {} in Redis and its keys", login(id));
    let failed = |error| failed(server, &what, &error);
    let mut connection = connect(server, admin).await?;
    let removed = ask(&mut connection, &["DELUSER", &login(id)])
        .await
        .map_err(failed)?;
    ask(&mut connection, &["SAVE"]).await.map_err(failed)?;
    let (keys, clean) = unlink(&mut connection, id).await.map_err(failed)?;
    if !clean {
        return Err(RegistrationError::Redis {
            what,
            message: format!("somebody goes on writing keys {}*", key_prefix(id)),
            tried_for: None,
        });
    }
    Ok((removed != Value::Int(0), keys))
}

/// Removes the tenant's keys until a pass finds none: somebody may write one behind the scan. Returns how many there were, and whether
/// the last pass found none.
async fn unlink(connection: &mut MultiplexedConnection, id: &TenantId) -> Result<(u64, bool), RedisError> {
    let mut keys = 0;
    for _ in 0..PASSES {
        let mut clean = true;
        let mut scan = Scan::new(id);
        while let Some(found) = scan.next(connection).await? {
            if !found.is_empty() {
                clean = false;
                let unlinked: u64 = cmd("UNLINK").arg(&found).query_async(connection).await?;
                keys += unlinked;
            }
        }
        if clean {
            return Ok((keys, true));
        }
    }
    Ok((keys, false))
}

/// Whether the tenant's user exists, and how many keys it has.
pub(super) async fn state(
    server: &Server<'_>,
    admin: &Account,
    id: &TenantId,
) -> Result<(bool, u64), RegistrationError> {
    let what = format!("look for user {} in Redis", login(id));
    let failed = |error| failed(server, &what, &error);
    let mut connection = connect(server, admin).await?;
    let user = ask(&mut connection, &["GETUSER", &login(id)])
        .await
        .map_err(failed)?;
    // A scan may name a key twice.
    let mut keys = std::collections::HashSet::new();
    let mut scan = Scan::new(id);
    while let Some(found) = scan.next(&mut connection).await.map_err(failed)? {
        keys.extend(found);
    }
    let keys = u64::try_from(keys.len()).unwrap_or(u64::MAX);
    Ok((user != Value::Nil, keys))
}

/// The tenant's keys, some at a time.
struct Scan {
    pattern: String,
    cursor: Option<String>,
}

impl Scan {
    fn new(id: &TenantId) -> Self {
        Self {
            // Ids have none of the characters that patterns give a meaning.
            pattern: format!("{}*", key_prefix(id)),
            cursor: Some("0".to_owned()),
        }
    }

    async fn next(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<Vec<Vec<u8>>>, RedisError> {
        let Some(cursor) = self.cursor.take() else {
            return Ok(None);
        };
        let (next, keys): (String, Vec<Vec<u8>>) = cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(&self.pattern)
            .arg("COUNT")
            .arg(BATCH)
            .query_async(connection)
            .await?;
        self.cursor = Some(next).filter(|next| next != "0");
        Ok(Some(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_user_reaches_its_own_keys_and_its_password_is_not_sent() {
        let rules = rules(&"acme".parse().unwrap(), &"s3cret".to_owned().into());
        assert_eq!(
            rules.join(" "),
            "reset on #1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0 resetchannels ~tenant:acme:* &tenant:acme:* \
             -@all +@connection -@admin -@dangerous -select -client|tracking +@stream -xinfo +get +set +del +exists +expire +ttl"
        );
    }

    #[test]
    fn a_hash_in_a_message_is_hidden() {
        let hash = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0";
        let text = without_hashes(&format!(
            "ERR Error in ACL SETUSER modifier '#{hash}': Syntax error"
        ));
        assert_eq!(text, "ERR Error in ACL SETUSER modifier (hidden) Syntax error");
    }

    /// A connection to a Redis that answers with these, one after the other, and how many of them are left.
    async fn scripted(
        answers: &[&'static str],
    ) -> (MultiplexedConnection, Arc<Mutex<VecDeque<&'static str>>>) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect::<VecDeque<_>>()));
        let left = Arc::clone(&answers);
        tokio::spawn(async move {
            let mut command = [0; 4096];
            while theirs.read(&mut command).await.is_ok_and(|read| read > 0) {
                let Some(answer) = answers.lock().unwrap().pop_front() else {
                    return;
                };
                theirs.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let login = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new();
        let opened = MultiplexedConnection::new_with_config(&login, ours, config).await;
        let (connection, driver) = opened.unwrap();
        tokio::spawn(driver);
        (connection, left)
    }

    const NO_KEY: &str = "*2\r\n$1\r\n0\r\n*0\r\n";
    const ONE_KEY: &str = "*2\r\n$1\r\n0\r\n*1\r\n$13\r\ntenant:acme:a\r\n";
    const ONE_REMOVED: &str = ":1\r\n";

    #[rstest]
    #[case::none(&[NO_KEY], (0, true))]
    #[case::one(&[ONE_KEY, ONE_REMOVED, NO_KEY], (1, true))]
    #[case::one_came_back(&[ONE_KEY, ONE_REMOVED, ONE_KEY, ONE_REMOVED, NO_KEY], (2, true))]
    #[case::always(&[ONE_KEY, ONE_REMOVED, ONE_KEY, ONE_REMOVED, ONE_KEY, ONE_REMOVED, ONE_KEY, ONE_REMOVED, ONE_KEY, ONE_REMOVED], (5, false))]
    #[tokio::test]
    async fn keys_are_removed_until_there_is_none(
        #[case] answers: &[&'static str],
        #[case] expected: (u64, bool),
    ) {
        let (mut connection, left) = scripted(answers).await;
        let removed = unlink(&mut connection, &"acme".parse().unwrap()).await.unwrap();
        assert_eq!(removed, expected);
        assert!(left.lock().unwrap().is_empty());
    }
}

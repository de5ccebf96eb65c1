//! A tenant at Redis, with its own credentials and from inside of its namespace: what it says on a connection, keys of the run's own that
//! it writes and removes, and what an answer means. What is promised is left to the checks.

use crate::agent::{Again, Agent, no_redis};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::{Costume, Place};
use crate::verdict::Observation;
use probe::protocol::{CommandResult, RedisCommand, RedisError, RedisRequest};
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;

/// How long all that is said on one connection may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How long a key of the run's own lives at most, in seconds, whatever becomes of the run.
pub const EXPIRES_AFTER: &str = "600";

/// A tenant that can say something to Redis.
pub struct Client {
    /// The tenant.
    pub tenant: TenantId,
    /// Its queue.
    pub queue: String,
    /// What its keys of this run begin with.
    pub keys: String,
    agent: Arc<Agent>,
    /// One conversation after the other, each to its end, also where the check is given up meanwhile: what is removed after it stays so.
    busy: Arc<tokio::sync::Mutex<()>>,
    /// Everything but the commands.
    request: RedisRequest,
}

impl Client {
    /// This tenant, in its worker's costume.
    ///
    /// # Errors
    /// It has no agent or no credential.
    pub async fn of(cx: &Context, tenant: &TenantId) -> Result<Arc<Client>, HarnessError> {
        let place = Place::Tenant(tenant.clone(), Costume::Worker);
        let agent = cx.stage.agent(&place).await?;
        let services = cx.stage.shared_services().await?;
        let password = cx.stage.registration(tenant).await?.redis.clone()?;
        let [_, backend] = &services.backends;
        let settings = &cx.site.settings.redis;
        Ok(Arc::new(Client {
            tenant: tenant.clone(),
            queue: settings.queue.of(tenant),
            keys: format!("{}{}", settings.prefix.of(tenant), cx.site.mark.run.object("")),
            agent,
            busy: Arc::default(),
            request: RedisRequest {
                host: backend.name.clone(),
                port: backend.port,
                user: settings.user.of(tenant),
                password,
                timeout_ms: u64::try_from(WITHIN.as_millis()).unwrap_or(u64::MAX),
                commands: Vec::new(),
            },
        }))
    }

    /// Says these, in this order, on one connection. After a lost connection to the agent they are said once more: they must bear that.
    ///
    /// # Errors
    /// There was no connection, or the agent does not answer.
    pub async fn say(&self, commands: &[RedisCommand]) -> Result<Vec<CommandResult>, HarnessError> {
        let request = RedisRequest {
            commands: commands.to_vec(),
            ..self.request.clone()
        };
        let (agent, busy) = (Arc::clone(&self.agent), Arc::clone(&self.busy));
        let asked = tokio::spawn(async move {
            let _alone = busy.lock().await;
            let said = agent.redis_session(&request, Again::Once).await?;
            said.map_err(|why| no_redis(&agent.place, &request, &why))
        });
        asked
            .await
            .map_err(|error| HarnessError::during("speak with Redis", &error))?
    }
}

/// Keys of the run's own under these tenants. They are removed when that is asked for, and else, where the check is given up, in passing;
/// what that misses expires.
pub struct Canaries {
    held: Vec<(Arc<Client>, Vec<String>)>,
}

impl Canaries {
    /// These, there or not yet: each tenant's by itself, since it may touch no others.
    pub fn of(held: Vec<(Arc<Client>, Vec<String>)>) -> Self {
        Canaries { held }
    }

    /// Removes them.
    ///
    /// # Errors
    /// One could not be.
    pub async fn remove(mut self) -> Result<(), HarnessError> {
        let held = std::mem::take(&mut self.held);
        let removed = held.iter().map(|(client, keys)| remove(client, keys));
        futures::future::join_all(removed).await.into_iter().collect()
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for (client, keys) in std::mem::take(&mut self.held) {
            runtime.spawn(async move { drop(remove(&client, &keys).await) });
        }
    }
}

async fn remove(client: &Client, keys: &[String]) -> Result<(), HarnessError> {
    // One by one: a key too many for a user must not keep the others.
    let commands: Vec<RedisCommand> = keys.iter().map(|key| RedisCommand::once(["DEL", key])).collect();
    let doing = || format!("remove the run's keys of {} from Redis", client.tenant);
    let results = client.say(&commands).await.map_err(|error| HarnessError {
        what: format!("{}: {}", doing(), error.what),
        ..error
    })?;
    match results.into_iter().find_map(Result::err) {
        None => Ok(()),
        Some(error) => Err(
            HarnessError::new(format!("{}: {}", doing(), error.message)).hint(format!(
                "they expire within {EXPIRES_AFTER} s; or delete what begins with {}",
                client.keys
            )),
        ),
    }
}

/// What Redis says where nothing may be touched. The ACL is looked at before the command is: every answer that is not its refusal comes
/// from behind it, but for those that come before.
pub fn kept_out(result: &CommandResult) -> Observation {
    let error = match result {
        Ok(_) => return Observation::Reached("answered".to_owned()),
        Err(error) => error,
    };
    let Some(code) = error.code.as_deref() else {
        return Observation::Broken(error.message.clone());
    };
    match code {
        "NOPERM" => Observation::Denied(refusal(error)),
        // A script may be run and its commands be refused.
        _ if SCRIPT_REFUSED.iter().any(|words| error.message.contains(words)) => {
            Observation::Denied("NOPERM in the script".to_owned())
        }
        "ERR" if error.message.starts_with("ERR unknown command") => {
            Observation::Denied("no such command".to_owned())
        }
        // Before the ACL, or of a server that answers nobody now.
        "ERR" if error.message.starts_with("ERR wrong number of arguments") => {
            Observation::Broken(error.message.clone())
        }
        _ if NOT_NOW.contains(&code) => Observation::Broken(error.message.clone()),
        _ => Observation::Reached(format!("past the ACL: {}", error.message)),
    }
}

/// How scripts that are refused a command end, in Redis 7 and 6.
const SCRIPT_REFUSED: [&str; 2] = ["ACL failure in script", "The user executing the script can't"];
/// Errors that say nothing of what one may.
const NOT_NOW: [&str; 13] = [
    "NOAUTH",
    "WRONGPASS",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CROSSSLOT",
    "NOREPLICAS",
    "OOM",
    "MISCONF",
];

/// A refusal in short: its words name user and command.
fn refusal(error: &RedisError) -> String {
    let of = if error.message.contains(" command") {
        "command"
    } else {
        "key"
    };
    format!("NOPERM {of}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// A reply.
    pub(crate) fn said(value: &serde_json::Value) -> CommandResult {
        Ok(value.clone())
    }
    /// An error of the server's.
    pub(crate) fn refused(message: &str) -> CommandResult {
        Err(RedisError {
            code: message.split(' ').next().map(str::to_owned),
            message: message.to_owned(),
        })
    }
    /// Nobody's error.
    pub(crate) fn lost() -> CommandResult {
        Err(RedisError {
            code: None,
            message: "no answer in time".to_owned(),
        })
    }

    #[rstest]
    #[case::key_7(refused("NOPERM No permissions to access a key"), "denied (NOPERM key)")]
    #[case::key_6(
        refused("NOPERM this user has no permissions to access one of the keys used as arguments"),
        "denied (NOPERM key)"
    )]
    #[case::command(
        refused("NOPERM User tenant-a has no permissions to run the 'eval' command"),
        "denied (NOPERM command)"
    )]
    #[case::script_7(
        refused("ERR ACL failure in script: No permissions to access a key script: 0, on @user_script:1."),
        "denied (NOPERM in the script)"
    )]
    #[case::no_command(
        refused("ERR unknown command 'COPY', with args beginning with: "),
        "denied (no such command)"
    )]
    #[case::a_value(said(&json!("nonce")), "reached (answered)")]
    #[case::nothing_there(said(&json!(null)), "reached (answered)")]
    #[case::another_type(
        refused("WRONGTYPE Operation against a key"),
        "reached (past the ACL: WRONGTYPE Operation against a key)"
    )]
    #[case::an_id_too_small(
        refused("ERR The ID specified in XADD must be greater than 0-0"),
        "reached (past the ACL: ERR The ID specified in XADD must be greater than 0-0)"
    )]
    #[case::our_mistake(
        refused("ERR wrong number of arguments for 'get' command"),
        "undecided (ERR wrong number of arguments for 'get' command)"
    )]
    #[case::nobody(
        refused("NOAUTH Authentication required."),
        "undecided (NOAUTH Authentication required.)"
    )]
    #[case::loading(
        refused("LOADING Redis is loading the dataset in memory"),
        "undecided (LOADING Redis is loading the dataset in memory)"
    )]
    #[case::elsewhere(refused("MOVED 1 10.0.0.1:6379"), "undecided (MOVED 1 10.0.0.1:6379)")]
    #[case::lost(lost(), "undecided (no answer in time)")]
    fn only_the_acls_own_refusal_is_one(#[case] result: CommandResult, #[case] expected: &str) {
        let observed = crate::verdict::Observed {
            what: "x".into(),
            observation: kept_out(&result),
        };
        assert_eq!(observed.to_string(), format!("x: {expected}"));
    }
}

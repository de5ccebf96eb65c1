//! What a fault changes inside PostgreSQL and Redis: statements and commands that an administrator gives. Changes of a tenant's own role
//! and user go with the tenant; what would outlast it is taken back by statements of its own.

use crate::error::HarnessError;
use crate::settings::{SettingsError, invalid};
use provisioner::registration;
use provisioner::tenant::SharedServices;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

const HINT: &str = "services/ holds plant.sql and plant.redis (a command a line), and restore.sql and restore.redis for what outlasts the tenants";
/// How long a script may take, and within it each statement for a lock that somebody holds.
const SCRIPT: Duration = Duration::from_secs(15);
const LOCK: &str = "SET lock_timeout = '5s';";
/// How often a fault is taken back until it is.
const TRIES: usize = 3;

/// What is done inside the shared services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    plant: Script,
    restore: Script,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Script {
    sql: Option<String>,
    redis: Vec<Vec<String>>,
}

impl Services {
    /// The files of a fault's `services/`.
    ///
    /// # Errors
    /// A file that is not known, or says nothing; or something to take back that was never planted.
    pub(super) fn read(files: Vec<(PathBuf, String)>) -> Result<Services, SettingsError> {
        let mut services = Services::default();
        for (path, text) in files {
            let place = path.display().to_string();
            if text.trim().is_empty() {
                return Err(invalid(place, "says nothing", HINT));
            }
            match path.file_name().and_then(|name| name.to_str()) {
                Some("plant.sql") => services.plant.sql = Some(text),
                Some("restore.sql") => services.restore.sql = Some(text),
                Some("plant.redis") => services.plant.redis = commands(&text),
                Some("restore.redis") => services.restore.redis = commands(&text),
                _ => return Err(invalid(place, "is no part of a fault", HINT)),
            }
        }
        if services.restore.sql.is_some() && services.plant.sql.is_none() {
            return Err(invalid("restore.sql", "takes back what no plant.sql does", HINT));
        }
        if !services.restore.redis.is_empty() && services.plant.redis.is_empty() {
            return Err(invalid(
                "restore.redis",
                "takes back what no plant.redis does",
                HINT,
            ));
        }
        Ok(services)
    }

    /// Whether it changes what other tenants use too, until it is taken back.
    pub fn outlast_tenants(&self) -> bool {
        self.restore.sql.is_some()
    }

    /// Whether nothing is done.
    pub fn is_empty(&self) -> bool {
        *self == Services::default()
    }

    /// Does it. Roles and users of the tenants have to be there.
    ///
    /// # Errors
    /// A service that cannot be reached, or refuses.
    pub async fn plant(&self, client: &kube::Client, services: &SharedServices) -> Result<(), HarnessError> {
        if let Some(sql) = &self.plant.sql {
            execute(client, services, sql, "plant a fault in PostgreSQL").await?;
        }
        say(client, services, &self.plant.redis, "plant a fault in Redis").await
    }

    /// Takes back what others would see, once there are verdicts. It may be done at any time, and again.
    ///
    /// # Errors
    /// As for [`Services::plant`]: the fault stands still.
    pub async fn restore(
        &self,
        client: &kube::Client,
        services: &SharedServices,
    ) -> Result<(), HarnessError> {
        let Some(sql) = &self.restore.sql else {
            return Ok(());
        };
        let mut taken = Ok(());
        for _ in 0..TRIES {
            taken = execute(client, services, sql, "take a fault in PostgreSQL back").await;
            if taken.is_ok() {
                break;
            }
        }
        taken.map_err(|error| {
            error.hint(format!(
                "run these statements as PostgreSQL's administrator, in the application's database: {}",
                sql.trim()
            ))
        })
    }

    /// Removes what is left in Redis once the tenants are gone.
    ///
    /// # Errors
    /// As for [`Services::plant`].
    pub async fn sweep(&self, client: &kube::Client, services: &SharedServices) -> Result<(), HarnessError> {
        let doing = "remove what a fault left in Redis";
        say(client, services, &self.restore.redis, doing).await
    }
}

fn commands(text: &str) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(words)
        .collect()
}

async fn say(
    client: &kube::Client,
    services: &SharedServices,
    commands: &[Vec<String>],
    doing: &str,
) -> Result<(), HarnessError> {
    if commands.is_empty() {
        return Ok(());
    }
    let said = async {
        let mut redis = registration::redis_admin(client, services)
            .await
            .map_err(|error| HarnessError::during(doing, &error))?;
        for words in commands {
            let mut command = redis::Cmd::new();
            for word in words {
                command.arg(word);
            }
            let said = command.exec_async(&mut redis).await;
            said.map_err(|error| HarnessError::during(doing, &error))?;
        }
        Ok(())
    };
    timeout(SCRIPT, said).await.unwrap_or_else(|_| Err(late(doing)))
}

async fn execute(
    client: &kube::Client,
    services: &SharedServices,
    sql: &str,
    doing: &str,
) -> Result<(), HarnessError> {
    let database = services.postgresql.database.as_str();
    let executed = async {
        let admin = registration::postgresql_admin(client, services, database)
            .await
            .map_err(|error| HarnessError::during(doing, &error))?;
        let sql = format!("{LOCK} {sql}");
        let executed = admin.batch_execute(&sql).await;
        executed.map_err(|error| HarnessError::during(doing, &error))
    };
    timeout(SCRIPT, executed)
        .await
        .unwrap_or_else(|_| Err(late(doing)))
}

fn late(doing: &str) -> HarnessError {
    HarnessError::new(format!("{doing}: not done within {} s", SCRIPT.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(files: &[(&str, &str)]) -> Result<Services, SettingsError> {
        Services::read(
            files
                .iter()
                .map(|(name, text)| (PathBuf::from(name), (*text).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn commands_are_lines_and_a_restored_fault_stands_alone() {
        let services = read(&[("plant.redis", "ACL SETUSER x ~*\n\nACL SAVE\n")]).unwrap();
        assert_eq!(
            services.plant.redis,
            [vec!["ACL", "SETUSER", "x", "~*"], vec!["ACL", "SAVE"]]
        );
        assert!(!services.outlast_tenants());
        assert!(
            read(&[("plant.sql", "a"), ("restore.sql", "b")])
                .unwrap()
                .outlast_tenants()
        );
    }

    #[rstest]
    #[case::unknown(&[("plant.txt", "a")], "is no part of a fault")]
    #[case::empty(&[("plant.sql", " ")], "says nothing")]
    #[case::nothing_to_take_back(&[("restore.sql", "a")], "takes back what no plant.sql does")]
    #[case::nothing_to_sweep(&[("restore.redis", "a")], "takes back what no plant.redis does")]
    fn what_cannot_be_used_is_refused(#[case] files: &[(&str, &str)], #[case] expected: &str) {
        assert_eq!(read(files).unwrap_err().problem, expected);
    }
}

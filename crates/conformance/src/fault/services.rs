//! What a fault changes inside PostgreSQL and Redis: statements and commands that an administrator gives. Changes of a tenant's own role
//! and user go with the tenant; what would outlast it is taken back by statements of its own.

use crate::error::HarnessError;
use crate::settings::{SettingsError, invalid};
use provisioner::registration;
use provisioner::tenant::SharedServices;
use std::path::PathBuf;

const HINT: &str = "services/ holds plant.sql and plant.redis (a command a line), and restore.sql for what outlasts the tenants";

/// What is done inside the shared services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    plant: Script,
    restore: Option<String>,
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
                Some("restore.sql") => services.restore = Some(text),
                Some("plant.redis") => {
                    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
                    services.plant.redis = text
                        .lines()
                        .filter(|line| !line.trim().is_empty())
                        .map(words)
                        .collect();
                }
                _ => return Err(invalid(place, "is no part of a fault", HINT)),
            }
        }
        if services.restore.is_some() && services.plant.sql.is_none() {
            return Err(invalid("restore.sql", "takes back what no plant.sql does", HINT));
        }
        Ok(services)
    }

    /// Whether it changes what other tenants use too, until it is taken back.
    pub fn outlast_tenants(&self) -> bool {
        self.restore.is_some()
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
        if !self.plant.redis.is_empty() {
            let doing = "plant a fault in Redis";
            let mut redis = registration::redis_admin(client, services)
                .await
                .map_err(|error| HarnessError::during(doing, &error))?;
            for words in &self.plant.redis {
                let (name, arguments) = words
                    .split_first()
                    .map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
                let mut command = redis::cmd(name);
                for argument in arguments {
                    command.arg(argument);
                }
                command
                    .exec_async(&mut redis)
                    .await
                    .map_err(|error| HarnessError::during(doing, &error))?;
            }
        }
        Ok(())
    }

    /// Takes back what would outlast the tenants.
    ///
    /// # Errors
    /// As for [`Services::plant`]: the fault stands still.
    pub async fn restore(
        &self,
        client: &kube::Client,
        services: &SharedServices,
    ) -> Result<(), HarnessError> {
        match &self.restore {
            None => Ok(()),
            Some(sql) => execute(client, services, sql, "take a fault in PostgreSQL back").await.map_err(|error| {
                let hint = format!("run these statements as PostgreSQL's administrator, in the application's database: {}", sql.trim());
                HarnessError { hint: Some(hint), ..error }
            }),
        }
    }
}

async fn execute(
    client: &kube::Client,
    services: &SharedServices,
    sql: &str,
    doing: &str,
) -> Result<(), HarnessError> {
    let failed = |error: &dyn std::error::Error| HarnessError::during(doing, error);
    let database = services.postgresql.database.as_str();
    let admin = registration::postgresql_admin(client, services, database)
        .await
        .map_err(|error| failed(&error))?;
    admin.batch_execute(sql).await.map_err(|error| failed(&error))
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
    fn what_cannot_be_used_is_refused(#[case] files: &[(&str, &str)], #[case] expected: &str) {
        assert_eq!(read(files).unwrap_err().problem, expected);
    }
}

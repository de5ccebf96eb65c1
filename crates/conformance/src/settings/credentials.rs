//! How tenants get at what they share, and what is theirs there: the sections `postgresql` and `redis`. A file names only what differs.

use super::{SettingsError, any_part, invalid};
use provisioner::TenantId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_yaml::Value;
use std::fmt;

/// What stands for the tenant's id.
const TENANT: &str = "{tenant}";
/// Longest name that PostgreSQL takes, in bytes (`NAMEDATALEN`).
const MAX_IDENTIFIER: usize = 63;

/// One value of a Secret in a tenant's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = any_part)]
pub struct SecretRef {
    /// The Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

impl SecretRef {
    /// Whether an API server could have such a Secret.
    ///
    /// # Errors
    /// It could not; `place` is the section.
    pub fn check(&self, place: &str) -> Result<(), SettingsError> {
        let hint = "write it as secret: { name: ai-agents-credentials, key: POSTGRESQL_PASSWORD }";
        let of = |text: &str, allowed: fn(u8) -> bool| {
            (1..=253).contains(&text.len()) && text.bytes().all(allowed)
        };
        let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let in_key = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        for (field, text, fits) in [
            ("name", &self.name, of(&self.name, in_name)),
            ("key", &self.key, of(&self.key, in_key)),
        ] {
            if !fits {
                let problem = format!("{text:?} is no {field} of a Secret");
                return Err(invalid(format!("{place}.secret.{field}"), problem, hint));
            }
        }
        Ok(())
    }
}

/// A name that is another one for each tenant: `{tenant}` stands for the id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// The name for this tenant.
    pub fn of(&self, tenant: &TenantId) -> String {
        self.0.replace(TENANT, tenant.as_str())
    }

    /// `{tenant}` is the only thing in braces, and nothing is a control character; where it `must` tell tenants apart, it is there.
    fn check(&self, place: &str, must: bool) -> Result<(), SettingsError> {
        let rest = self.0.replace(TENANT, "");
        let problem = if self.0.is_empty() {
            "is empty"
        } else if rest.contains(['{', '}']) || rest.chars().any(char::is_control) {
            "holds something in braces that is not {tenant}, or a control character"
        } else if must && rest == self.0 {
            "is the same for every tenant"
        } else {
            return Ok(());
        };
        let hint = "{tenant} stands for the tenant's id, as in tenant:{tenant}:";
        Err(invalid(place, format!("{:?} {problem}", self.0), hint))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// PostgreSQL, as tenants use it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = any_part)]
pub struct Postgresql {
    /// The password of the tenant's role.
    pub secret: SecretRef,
    /// The tenant's role.
    pub user: Pattern,
    /// The database.
    pub database: String,
    /// The table that holds rows of all tenants: `schema.table`, or a table on the role's search path.
    pub table: String,
    /// Its columns.
    pub columns: Columns,
    /// The setting that says which tenant is at work.
    pub context: String,
}

/// The columns of the table that checks use. The others must have defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = any_part)]
pub struct Columns {
    /// A row's id, text; unique by itself or with the tenant.
    pub id: String,
    /// Whose it is: the tenant's id.
    pub tenant: String,
    /// Some text.
    pub text: String,
}

impl Postgresql {
    /// The defaults with what a file says instead.
    ///
    /// # Errors
    /// A value that cannot be used.
    pub(super) fn resolve(defaults: Option<Value>, file: Option<Value>) -> Result<Self, SettingsError> {
        let found: Postgresql = section("postgresql", defaults, file)?;
        found.secret.check("postgresql")?;
        found.user.check("postgresql.user", false)?;
        if found.database.is_empty() || found.database.chars().any(char::is_control) {
            return Err(invalid(
                "postgresql.database",
                format!("{:?} is no name of a database", found.database),
                "name the database that the application uses",
            ));
        }
        let Columns { id, tenant, text } = &found.columns;
        let hint = "write the name as the database has it, without quotes: letters, digits and underscores";
        for (place, name, parts) in [
            ("table", &found.table, 1..=2),
            ("columns.id", id, 1..=1),
            ("columns.tenant", tenant, 1..=1),
            ("columns.text", text, 1..=1),
        ] {
            let names: Vec<&str> = name.split('.').collect();
            if !parts.contains(&names.len()) || !names.iter().all(|name| is_identifier(name)) {
                let problem = format!("{name:?} is no name of a table or column");
                return Err(invalid(format!("postgresql.{place}"), problem, hint));
            }
        }
        let names: Vec<&str> = found.context.split('.').collect();
        if names.len() < 2 || !names.iter().all(|name| is_identifier(name)) {
            return Err(invalid(
                "postgresql.context",
                format!("{:?} is no setting of an application's own", found.context),
                "such a setting has a dot in its name, as in app.tenant",
            ));
        }
        Ok(found)
    }
}

fn is_identifier(name: &str) -> bool {
    let begins = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    name.len() <= MAX_IDENTIFIER
        && name.as_bytes().first().is_some_and(begins)
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Redis, as tenants use it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = any_part)]
pub struct Redis {
    /// The password of the tenant's user.
    pub secret: SecretRef,
    /// The tenant's ACL user.
    pub user: Pattern,
    /// What all keys of the tenant begin with.
    pub prefix: Pattern,
    /// The tenant's queue, a stream.
    pub queue: Pattern,
}

impl Redis {
    /// As [`Postgresql::resolve`].
    pub(super) fn resolve(defaults: Option<Value>, file: Option<Value>) -> Result<Self, SettingsError> {
        let found: Redis = section("redis", defaults, file)?;
        found.secret.check("redis")?;
        found.user.check("redis.user", false)?;
        found.prefix.check("redis.prefix", true)?;
        found.queue.check("redis.queue", true)?;
        Ok(found)
    }
}

/// A section: field by field what the file says, else the default.
fn section<T: DeserializeOwned>(
    place: &str,
    defaults: Option<Value>,
    file: Option<Value>,
) -> Result<T, SettingsError> {
    let mut whole = defaults.unwrap_or_default();
    overlay(&mut whole, file.unwrap_or_default());
    serde_yaml::from_value(whole).map_err(|error| {
        invalid(
            place,
            error.to_string(),
            "crates/conformance/src/settings.yaml documents every field of it",
        )
    })
}

fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (_, Value::Null) => {}
        (Value::Mapping(below), Value::Mapping(above)) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(place) => overlay(place, value),
                    None => drop(below.insert(key, value)),
                }
            }
        }
        (below, above) => *below = above,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{DEFAULTS, File, parse};
    use rstest::rstest;

    fn resolved(text: &str) -> Result<(Postgresql, Redis), SettingsError> {
        let (file, defaults): (File, File) = (parse(text, "test")?, parse(DEFAULTS, "defaults")?);
        Ok((
            Postgresql::resolve(defaults.postgresql, file.postgresql)?,
            Redis::resolve(defaults.redis, file.redis)?,
        ))
    }

    #[test]
    fn the_defaults_are_the_platforms_names() {
        let (postgresql, redis) = resolved("{}").unwrap();
        let tenant = TenantId::try_from("acme").unwrap();
        assert_eq!(postgresql.user.of(&tenant), "tenant-acme");
        assert_eq!(postgresql.table, "ai_agents.webhook");
        assert_eq!(postgresql.secret.key, "POSTGRESQL_PASSWORD");
        assert_eq!(redis.prefix.of(&tenant), "tenant:acme:");
        assert_eq!(redis.queue.of(&tenant), "tenant:acme:webhooks");
        assert_eq!(redis.secret.name, "ai-agents-credentials");
    }

    #[test]
    fn a_file_names_only_what_differs() {
        let text = "{postgresql: {columns: {text: title}, secret: {name: db}}, redis: {user: app}}";
        let (postgresql, redis) = resolved(text).unwrap();
        assert_eq!(
            (postgresql.columns.text.as_str(), postgresql.columns.id.as_str()),
            ("title", "id")
        );
        assert_eq!(
            (postgresql.secret.name.as_str(), postgresql.secret.key.as_str()),
            ("db", "POSTGRESQL_PASSWORD")
        );
        assert_eq!(redis.user.to_string(), "app");
    }

    #[rstest]
    #[case::unknown_field("{postgresql: {tables: t}}", "postgresql: unknown field `tables`")]
    #[case::not_a_section("{postgresql: app}", "postgresql: invalid type")]
    #[case::no_secret(
        "{redis: {secret: {name: ''}}}",
        "redis.secret.name: \"\" is no name of a Secret"
    )]
    #[case::no_key(
        "{redis: {secret: {key: 'a b'}}}",
        "redis.secret.key: \"a b\" is no key of a Secret"
    )]
    #[case::database("{postgresql: {database: ''}}", "postgresql.database: \"\" is no name")]
    #[case::injection(
        "{postgresql: {table: 'a; drop table b'}}",
        "postgresql.table: \"a; drop table b\" is no"
    )]
    #[case::three_parts("{postgresql: {table: a.b.c}}", "postgresql.table: \"a.b.c\" is no name")]
    #[case::column(
        "{postgresql: {columns: {id: 'a.b'}}}",
        "postgresql.columns.id: \"a.b\" is no name"
    )]
    #[case::context(
        "{postgresql: {context: role}}",
        "postgresql.context: \"role\" is no setting of"
    )]
    #[case::braces(
        "{postgresql: {user: 'u-{id}'}}",
        "postgresql.user: \"u-{id}\" holds something in braces"
    )]
    #[case::no_user("{redis: {user: ''}}", "redis.user: \"\" is empty")]
    #[case::one_prefix(
        "{redis: {prefix: 'celery:'}}",
        "redis.prefix: \"celery:\" is the same for every tenant"
    )]
    #[case::one_queue(
        "{redis: {queue: celery}}",
        "redis.queue: \"celery\" is the same for every tenant"
    )]
    fn what_cannot_be_used_names_place_and_remedy(#[case] text: &str, #[case] problem: &str) {
        let error = resolved(text).unwrap_err();
        assert!(error.to_string().starts_with(problem), "{error}");
        assert!(!error.hint.is_empty());
    }
}

//! Names and passwords out of Secrets.

use super::{CREDENTIALS, POSTGRESQL_PASSWORD, REDIS_PASSWORD, RegistrationError};
use crate::calls::Calls;
use crate::names::{DnsName, TenantId};
use crate::tenant::SharedServices;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use std::fmt;

/// The problem with a Secret that is not there.
pub(super) const MISSING: &str = "it does not exist";

/// A password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(String);

impl Password {
    /// The password itself: for the protocols of the two servers only.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Who logs in.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) password: Password,
    /// Where it comes from, for messages.
    pub(super) secret: String,
}

impl Account {
    /// The administrator whose name and password are in that Secret of the shared services' namespace.
    pub(super) async fn of_admin(
        client: &Client,
        calls: &Calls<'_>,
        shared: &SharedServices,
        secret: &DnsName,
    ) -> Result<Self, RegistrationError> {
        let held = Held::read(client, calls, shared.namespace.as_str(), secret.as_str(), false).await?;
        Ok(Self {
            user: held.value("username")?,
            password: held.value("password")?.into(),
            secret: secret.to_string(),
        })
    }
}

/// The tenant's passwords.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) postgresql: Password,
    pub(super) redis: Password,
}

/// The tenant's passwords, out of its Secret.
pub(super) async fn of_tenant(
    client: &Client,
    calls: &Calls<'_>,
    id: &TenantId,
) -> Result<Own, RegistrationError> {
    let namespace = id.namespace();
    let held = Held::read(client, calls, &namespace, CREDENTIALS, true).await?;
    Ok(Own {
        postgresql: held.value(POSTGRESQL_PASSWORD)?.into(),
        redis: held.value(REDIS_PASSWORD)?.into(),
    })
}

/// A Secret as it is.
struct Held<'a> {
    namespace: &'a str,
    name: &'a str,
    of_tenant: bool,
    secret: Secret,
}

impl<'a> Held<'a> {
    async fn read(
        client: &Client,
        calls: &Calls<'_>,
        namespace: &'a str,
        name: &'a str,
        of_tenant: bool,
    ) -> Result<Self, RegistrationError> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = calls
            .make(format!("get Secret {name} in {namespace}"), || {
                secrets.get_opt(name)
            })
            .await?;
        let held = Self {
            namespace,
            name,
            of_tenant,
            secret: Secret::default(),
        };
        match found {
            Some(secret) => Ok(Self { secret, ..held }),
            None => Err(held.unusable(MISSING.to_owned())),
        }
    }

    /// What the key holds: text, and not empty.
    fn value(&self, key: &str) -> Result<String, RegistrationError> {
        let held = self.secret.data.as_ref().and_then(|data| data.get(key));
        let text = held.map(|bytes| std::str::from_utf8(&bytes.0));
        match text {
            None => Err(self.unusable(format!("it has no key {key}"))),
            Some(Err(_)) => Err(self.unusable(format!("its key {key} is no text"))),
            Some(Ok("")) => Err(self.unusable(format!("its key {key} is empty"))),
            Some(Ok(text)) if text.contains('\0') => {
                Err(self.unusable(format!("its key {key} has a NUL in it")))
            }
            Some(Ok(text)) => Ok(text.to_owned()),
        }
    }

    fn unusable(&self, problem: String) -> RegistrationError {
        RegistrationError::Secret {
            name: self.name.to_owned(),
            namespace: self.namespace.to_owned(),
            problem,
            of_tenant: self.of_tenant,
        }
    }
}

//! Tiers: named sets of values between the platform's standard and a tenant's own. `standard` and `premium` are built in; a tiers
//! file replaces them or adds others. Pure.

use super::changes::{ByKey, TenantFile, Tier};
use super::{Tenant, fixed};
use crate::fit::{self, InvalidTenant};
use crate::names::{TenantId, TierName};
use crate::yaml::{self, YamlError};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The tier of a tenant that names none.
pub const STANDARD_TIER: &str = "standard";

const EMBEDDED: &str = include_str!("tiers.yaml");

/// A tiers file.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TiersFile {
    /// The tiers by their names. `standard` is the tier of tenants that name none.
    tiers: ByKey<TierName, Tier>,
}

/// All tiers that there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiers(BTreeMap<TierName, Tier>);

impl Default for Tiers {
    fn default() -> Self {
        Self::embedded()
    }
}

impl Tiers {
    /// The tiers that are built in.
    #[must_use]
    pub fn embedded() -> Self {
        #[allow(
            clippy::panic,
            reason = "a file of this crate; the test of the built-in tiers reads it"
        )]
        Self::default_of(EMBEDDED).unwrap_or_else(|error| panic!("{error}"))
    }

    fn default_of(text: &str) -> Result<Self, YamlError> {
        Self(BTreeMap::new()).with_yaml(text)
    }

    /// These tiers and those of a tiers file, which replace those of the same name.
    ///
    /// # Errors
    /// The field and line, and what is wrong there: also where the values of a tier contradict each other.
    pub fn with_yaml(mut self, text: &str) -> Result<Self, YamlError> {
        let file: TiersFile = yaml::read(text)?;
        for (name, tier) in file.tiers.0 {
            let mut tenant = Tenant::standard(fixed("any"));
            tier.clone().onto(&mut tenant);
            fit::check(&tenant).map_err(|error| {
                let path = format!("tiers.{name}.{}", error.field);
                yaml::wrong(text, &path, &said(&error))
            })?;
            self.0.insert(name, tier);
        }
        Ok(self)
    }

    /// The names of the tiers.
    pub fn names(&self) -> impl Iterator<Item = &TierName> {
        self.0.keys()
    }

    /// A tenant of which nothing is known but its id: it has the values of the tier `standard`.
    #[must_use]
    pub fn standard(&self, id: TenantId) -> Tenant {
        let mut tenant = Tenant::standard(id);
        if let Some(tier) = self.0.get(&fixed(STANDARD_TIER)) {
            tier.clone().onto(&mut tenant);
        }
        tenant
    }

    /// A tenant of the tier, with its values; none where there is no such tier.
    #[must_use]
    pub fn of_tier(&self, id: TenantId, name: &TierName) -> Option<Tenant> {
        let tier = self.0.get(name)?;
        let mut tenant = Tenant::standard(id);
        tenant.tier = name.clone();
        tier.clone().onto(&mut tenant);
        Some(tenant)
    }

    /// Reads a tenant file: its own values, onto those of its tier, onto the standard ones.
    ///
    /// # Errors
    /// The field and line, and what is wrong there; a tier that does not exist, and those that do.
    pub fn tenant(&self, text: &str) -> Result<Tenant, YamlError> {
        let file: TenantFile = yaml::read(text)?;
        let name = file.tier.clone().unwrap_or_else(|| fixed(STANDARD_TIER));
        let Some(mut tenant) = self.of_tier(file.id.clone(), &name) else {
            let known: Vec<&str> = self.names().map(TierName::as_str).collect();
            let problem = format!("tier {name} does not exist; there are: {}", known.join(", "));
            return Err(yaml::wrong(text, "tier", &problem));
        };
        file.onto(&mut tenant);
        Ok(tenant)
    }

    /// The same, and its values agree with each other.
    ///
    /// # Errors
    /// As those of [`Tiers::tenant`], and the first contradiction.
    pub fn fitting_tenant(&self, text: &str) -> Result<Tenant, YamlError> {
        let tenant = self.tenant(text)?;
        fit::check(&tenant).map_err(|error| {
            let problem = said(&error);
            // What the file does not say comes from its tier.
            match yaml::place(text, &error.field) {
                Some(_) => yaml::wrong(text, &error.field, &problem),
                None => YamlError {
                    line: None,
                    problem: format!("{}: {problem} (of tier {})", error.field, tenant.tier),
                },
            }
        })?;
        Ok(tenant)
    }
}

/// The error without the field, which stands before it.
fn said(error: &InvalidTenant) -> String {
    format!("{} {}; {}", error.value, error.problem, error.remedy)
}

#[cfg(test)]
mod tests;

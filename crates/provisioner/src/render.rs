//! Fills templates and checks what comes out: strictly, so that a mistake in a template is an error here and not an object
//! in a cluster. Pure.

mod fill;
mod object;

use crate::fit::{self, InvalidTenant};
use crate::labels;
use crate::manifest::Manifest;
use crate::names::TenantId;
use crate::template::{Template, Templates};
use crate::tenant::{Platform, Stamp, Tenant};
use crate::{kinds, variables};
use object::Rules;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

/// A template that cannot be filled, or that makes something it must not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The tenant's values contradict each other.
    #[error(transparent)]
    Tenant(#[from] InvalidTenant),
    /// A variable that does not exist.
    #[error("{file}:{line}: variable {name} does not exist{}", similar.map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    Variable {
        /// The template.
        file: String,
        /// The line in it.
        line: usize,
        /// The variable.
        name: String,
        /// One that is spelled nearly so.
        similar: Option<&'static str>,
    },
    /// Braces that do not make sense.
    #[error("{file}:{line}: {problem}")]
    Syntax {
        /// The template.
        file: String,
        /// The line in it.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// What comes out is no YAML, or no single object.
    #[error("{file}: what it renders to {problem}{}", context.as_deref().unwrap_or_default())]
    Yaml {
        /// The template.
        file: String,
        /// What is wrong.
        problem: String,
        /// The offending line of the rendered text.
        context: Option<String>,
    },
    /// An object that a template must not make.
    #[error("{file}: {problem}; {remedy}")]
    Object {
        /// The template.
        file: String,
        /// What was expected and seen.
        problem: String,
        /// What to change.
        remedy: String,
    },
}

/// The tenant's objects, in the order in which they are applied.
///
/// # Errors
/// A variable that does not exist, YAML that does not parse, a kind or namespace that is not the tenant's to make: each with
/// file, line and remedy.
pub fn render(tenant: &Tenant, templates: &Templates, stamp: &Stamp) -> Result<Vec<Manifest>, RenderError> {
    fit::check(tenant)?;
    let namespace = tenant.namespace();
    let rules = Rules {
        kinds: kinds::TENANT,
        namespace: &namespace,
        labels: BTreeMap::from([
            (labels::MANAGED_BY, labels::MANAGED_BY_VALUE.to_owned()),
            (labels::TENANT, tenant.id.to_string()),
        ]),
        every: tenant.metadata(),
        stamp,
    };
    let known: Vec<&str> = variables::TENANT.iter().map(|variable| variable.name).collect();
    let values = variables::values(variables::TENANT, tenant);
    manifests(templates, &known, &values, &rules, Some(&tenant.id))
}

/// The platform's objects, in the order in which they are applied.
///
/// # Errors
/// As those of [`render`].
pub fn render_platform(platform: &Platform, templates: &Templates) -> Result<Vec<Manifest>, RenderError> {
    let rules = Rules {
        kinds: kinds::PLATFORM,
        namespace: platform.shared_services.namespace.as_str(),
        labels: BTreeMap::from([(labels::MANAGED_BY, labels::MANAGED_BY_VALUE.to_owned())]),
        every: Stamp::default(),
        stamp: &Stamp::default(),
    };
    let known: Vec<&str> = variables::PLATFORM.iter().map(|variable| variable.name).collect();
    let values = variables::values(variables::PLATFORM, platform);
    manifests(templates, &known, &values, &rules, None)
}

fn manifests(
    templates: &Templates,
    known: &[&'static str],
    values: &Map<String, Value>,
    rules: &Rules<'_>,
    tenant: Option<&TenantId>,
) -> Result<Vec<Manifest>, RenderError> {
    let engine = fill::Engine::new();
    let mut manifests = Vec::new();
    for template in templates.in_order() {
        let text = engine.fill(template, known, values)?;
        if let Some((kind, object)) = object::read(template, &text, rules)? {
            let file_name = file_name(template, tenant);
            manifests.push(Manifest {
                file_name,
                template: template.name.clone(),
                kind,
                object,
            });
        }
    }
    manifests.sort_by_key(|manifest| manifest.kind.phase);
    refuse_doubles(&manifests, templates)?;
    Ok(manifests)
}

fn file_name(template: &Template, tenant: Option<&TenantId>) -> String {
    match tenant {
        Some(id) => format!("{}-{id}.yaml", template.name),
        None => format!("{}.yaml", template.name),
    }
}

fn refuse_doubles(manifests: &[Manifest], templates: &Templates) -> Result<(), RenderError> {
    let file = |name: &str| {
        templates
            .in_order()
            .into_iter()
            .find(|template| template.name == name)
            .map(|template| template.file.clone())
    };
    let mut seen = HashMap::new();
    for manifest in manifests {
        if let Some(first) = seen.insert(manifest.reference(), manifest.template.as_str()) {
            return Err(RenderError::Object {
                file: file(&manifest.template).unwrap_or_default(),
                problem: format!(
                    "makes {}, and so does {}",
                    manifest.reference(),
                    file(first).unwrap_or_default()
                ),
                remedy: "rename one, or replace the template instead of adding one".to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

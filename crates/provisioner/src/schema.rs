//! JSON Schemas of the files that people write, out of the types that read them: for editors, and for checks before anything is
//! applied. Checked in under `schemas/`. What a schema cannot say (that values agree with each other) is said when the file is read.

use crate::tenant::{Platform, TenantFile, TiersFile};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

/// The schema of a tenant file.
#[must_use]
pub fn tenant() -> Value {
    of::<TenantFile>("Tenant file")
}

/// The schema of a tiers file.
#[must_use]
pub fn tiers() -> Value {
    of::<TiersFile>("Tiers file")
}

/// The schema of the platform's settings.
#[must_use]
pub fn platform() -> Value {
    of::<Platform>("Settings of the platform")
}

/// The schema of a type (draft 2020-12), under this title.
#[must_use]
pub fn of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

/// As it is checked in: indented, with a newline at its end.
#[must_use]
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

/// What the schema says of the field at this path, and what of its fields; `None` where it has no such field.
pub(crate) fn about<'s>(root: &'s Value, path: &[&str]) -> Option<&'s str> {
    let mut node = root;
    for name in path {
        node = &fields(root, node)?[*name];
    }
    node["description"].as_str()
}

/// The properties of an object's schema, wherever they are said: in it, where it refers to, or in one of its alternatives.
fn fields<'s>(root: &'s Value, node: &'s Value) -> Option<&'s Value> {
    if node["properties"].is_object() {
        return Some(&node["properties"]);
    }
    if let Some(reference) = node["$ref"].as_str() {
        return fields(root, root.pointer(reference.strip_prefix('#')?)?);
    }
    let alternatives = node["anyOf"].as_array()?;
    alternatives.iter().find_map(|node| fields(root, node))
}

#[cfg(test)]
mod tests;

//! Reads what a template rendered to, and refuses what it must not make: another kind, another namespace, another owner.

use super::RenderError;
use crate::credentials;
use crate::kinds::{Kind, Scope};
use crate::labels;
use crate::template::Template;
use crate::tenant::Stamp;
use crate::yaml;
use kube::core::DynamicObject;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What the objects of a set of templates have to keep to.
pub(super) struct Rules<'a> {
    /// The kinds they may be of.
    pub(super) kinds: &'static [&'static Kind],
    /// The one namespace that they may be in, or be.
    pub(super) namespace: &'a str,
    /// Labels that tell the owner; put on every object.
    pub(super) labels: BTreeMap<&'static str, String>,
    /// Further metadata of every object; what a template says itself gives way to it.
    pub(super) every: Stamp,
    /// Further metadata of the namespace.
    pub(super) stamp: &'a Stamp,
}

/// The object, or none when the template rendered to nothing.
pub(super) fn read(
    template: &Template,
    text: &str,
    rules: &Rules<'_>,
) -> Result<Option<(&'static Kind, DynamicObject)>, RenderError> {
    let document = yaml::document(text).map_err(|error| RenderError::Yaml {
        file: template.file.clone(),
        problem: format!("is not usable: {}", error.problem),
        context: error
            .line
            .and_then(|line| text.lines().nth(line - 1))
            .map(|line| format!(", at `{}`", line.trim())),
    })?;
    let Some(document) = document else { return Ok(None) };
    let reader = Reader { template, rules };
    let Value::Object(object) = document else {
        return Err(reader.wrong("makes no object", "begin with apiVersion and kind"));
    };
    reader.object(object).map(Some)
}

struct Reader<'a> {
    template: &'a Template,
    rules: &'a Rules<'a>,
}

impl Reader<'_> {
    fn wrong(&self, problem: impl Into<String>, remedy: impl Into<String>) -> RenderError {
        RenderError::Object {
            file: self.template.file.clone(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    fn object(&self, object: Map<String, Value>) -> Result<(&'static Kind, DynamicObject), RenderError> {
        let kind = self.kind(&object)?;
        let written = metadata_fields(&object);
        let mut object: DynamicObject = serde_json::from_value(Value::Object(object))
            .map_err(|error| self.wrong(format!("has unusable metadata: {error}"), "mend it"))?;
        // The server would refuse unknown fields, but it never sees those that our type of metadata leaves out.
        let kept = serde_json::to_value(&object.metadata).unwrap_or_default();
        if let Some(lost) = written.into_iter().find(|field| kept.get(field).is_none()) {
            return Err(self.wrong(
                format!("has an unknown field metadata.{lost}"),
                "remove or correct it",
            ));
        }
        self.name(kind, &object)?;
        self.own(kind, &mut object)?;
        if kind.kind == "Secret" {
            let wrong = |problem| self.wrong(problem, "mend it");
            credentials::settle_string_data(&mut object).map_err(wrong)?;
            credentials::wanted(&object).map_err(wrong)?;
        }
        Ok((kind, object))
    }

    fn kind(&self, object: &Map<String, Value>) -> Result<&'static Kind, RenderError> {
        let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        let (version, name) = (field("apiVersion"), field("kind"));
        let found = self
            .rules
            .kinds
            .iter()
            .find(|kind| kind.kind == name && kind.api_version() == version);
        found.copied().ok_or_else(|| {
            let allowed: Vec<String> = self
                .rules
                .kinds
                .iter()
                .map(|kind| format!("{} {}", kind.api_version(), kind.kind))
                .collect();
            self.wrong(
                format!("makes kind {name:?} of apiVersion {version:?}"),
                format!("these templates may make: {}", allowed.join(", ")),
            )
        })
    }

    fn name(&self, kind: &Kind, object: &DynamicObject) -> Result<(), RenderError> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(self.wrong(
                format!("makes a {} without a name", kind.kind),
                "set metadata.name",
            ));
        }
        let namespace = object.metadata.namespace.as_deref();
        let expected = self.rules.namespace;
        match kind.scope {
            Scope::Namespaced if namespace != Some(expected) => Err(self.wrong(
                format!(
                    "makes {} {name} in namespace {:?}, not in {expected:?}",
                    kind.kind,
                    namespace.unwrap_or_default()
                ),
                "set metadata.namespace to the template's namespace variable",
            )),
            Scope::Cluster if namespace.is_some() => Err(self.wrong(
                format!("makes {} {name} in a namespace", kind.kind),
                "remove metadata.namespace",
            )),
            Scope::Cluster if kind.kind == "Namespace" && name != expected => Err(self.wrong(
                format!("makes Namespace {name}, not {expected}"),
                "set metadata.name to {{NAMESPACE}}; a tenant has one namespace",
            )),
            _ => Ok(()),
        }
    }

    /// Puts the owner's labels on and the tenant's own, and the stamp on the namespace.
    fn own(&self, kind: &Kind, object: &mut DynamicObject) -> Result<(), RenderError> {
        let mut owner = self.rules.labels.clone();
        put(&self.rules.every, object);
        if kind.kind == "Namespace" {
            owner.insert(labels::APP, labels::APP_VALUE.to_owned());
            put(self.rules.stamp, object);
        }
        let present = object.metadata.labels.get_or_insert_default();
        for (key, value) in owner {
            match present.insert(key.to_owned(), value.clone()) {
                Some(other) if other != value => {
                    let problem = format!("sets the owner's label {key} to {other:?}, not {value:?}");
                    return Err(self.wrong(problem, "remove the label; it is put on by the provisioner"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn put(stamp: &Stamp, object: &mut DynamicObject) {
    let metadata = &mut object.metadata;
    if !stamp.labels.is_empty() {
        metadata
            .labels
            .get_or_insert_default()
            .extend(stamp.labels.clone());
    }
    if !stamp.annotations.is_empty() {
        metadata
            .annotations
            .get_or_insert_default()
            .extend(stamp.annotations.clone());
    }
}

fn metadata_fields(object: &Map<String, Value>) -> Vec<String> {
    let metadata = object.get("metadata").and_then(Value::as_object);
    metadata
        .map(|fields| fields.keys().cloned().collect())
        .unwrap_or_default()
}

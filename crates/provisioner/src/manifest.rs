//! One object as it will be sent, and how an object is named in messages. Making manifests is left to
//! [`crate::render`], sending them to [`crate::apply`].

use crate::credentials;
use crate::kinds::Kind;
use crate::yaml;
pub use crate::yaml::YamlError;
use kube::core::DynamicObject;
use std::fmt;

/// One object out of a template, checked: its kind is one that we know, its namespace the tenant's.
#[derive(Clone, PartialEq)]
pub struct Manifest {
    /// The file it is written to, as in `namespace-acme.yaml`.
    pub file_name: String,
    /// The template it comes from, as in `namespace`.
    pub template: String,
    /// Its kind.
    pub kind: &'static Kind,
    /// The object: typed metadata, the rest as JSON.
    pub object: DynamicObject,
}

impl Manifest {
    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// The object as YAML, the same for the same object. A Secret is written without its values.
    ///
    /// # Errors
    /// The object has a value that YAML cannot hold; none that comes out of a template does.
    pub fn to_yaml(&self) -> Result<String, YamlError> {
        yaml::write(&credentials::without_values(self))
    }

    /// The object as JSON, a Secret without its values.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        serde_json::to_value(credentials::without_values(self)).unwrap_or_default()
    }

    /// How messages name it.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind.kind.to_owned(),
            name: self.name().to_owned(),
            namespace: self.object.metadata.namespace.clone(),
        }
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("file_name", &self.file_name)
            .field("template", &self.template)
            .field("object", &credentials::without_values(self))
            .finish()
    }
}

/// Names an object in messages and results: `Deployment ai-agents-api in ai-agents-acme`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct ObjectRef {
    /// Its kind, as in `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace; none for cluster-scoped kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

//! The templates: the embedded set, and directories that replace, add to or take from it. Pure but for
//! reading a directory; filling them is left to [`crate::render`].

use std::path::Path;

/// A set of templates, in the order in which their objects are applied.
#[derive(Debug, Clone)]
pub struct Templates {}

/// A template, or a directory of them, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("template")]
pub struct TemplateError {}

impl Templates {
    /// The templates of a tenant that come with the binary.
    #[must_use]
    pub fn embedded() -> Self {
        Self {}
    }

    /// The embedded templates, changed by a directory: `NAME.yaml.hbs` (or `NN-NAME.yaml.hbs`) replaces the template of that name
    /// or is added, `NAME.delete` removes one.
    ///
    /// # Errors
    /// The directory cannot be read, holds a file that is neither, or removes a template that does not exist.
    pub fn with_overrides(_directory: &Path) -> Result<Self, TemplateError> {
        Err(TemplateError {})
    }
}

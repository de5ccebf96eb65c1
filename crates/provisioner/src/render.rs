//! Fills templates and checks what comes out. Pure.

use crate::manifest::Manifest;
use crate::template::Templates;
use crate::tenant::{Stamp, Tenant};

/// A template that cannot be filled, or that makes something it must not.
#[derive(Debug, thiserror::Error)]
#[error("render")]
pub struct RenderError {}

/// The tenant's objects, in the order in which they are applied.
///
/// # Errors
/// A variable that does not exist, YAML that does not parse, a kind or namespace that is not the tenant's to make: each with
/// file, line and remedy.
pub fn render(
    _tenant: &Tenant,
    _templates: &Templates,
    _stamp: &Stamp,
) -> Result<Vec<Manifest>, RenderError> {
    Err(RenderError {})
}

//! What a person reads when the agent cannot do what was asked. Printing is left to `main`.

use std::fmt;

/// A message for a person: what was expected and what was seen, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    hint: String,
}

impl Failure {
    /// `message` says what was expected and what was seen, `hint` what to do next.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.message, self.hint)
    }
}

impl std::error::Error for Failure {}

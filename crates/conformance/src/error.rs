//! Errors of the harness itself: what it tried, at which object, and what came back. Cloneable, since one that befalls a shared
//! resource concerns every check that needs it.

use crate::verdict::Cause;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Something the harness needed did not work. Never evidence for or against isolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HarnessError {
    /// What was tried and what came of it: `create pod x in namespace y: 403 Forbidden: …`.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl HarnessError {
    /// An error without advice.
    pub fn new(what: impl Into<String>) -> Self {
        HarnessError {
            what: what.into(),
            hint: None,
        }
    }

    /// What was being done, and the error with all its causes.
    pub fn during(doing: impl fmt::Display, error: &dyn Error) -> Self {
        HarnessError::new(format!("{doing}: {}", chain(error)))
    }

    /// The same, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for HarnessError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.what)
    }
}

impl Error for HarnessError {}

impl From<HarnessError> for Cause {
    fn from(error: HarnessError) -> Self {
        Cause {
            what: error.what,
            hint: error.hint,
        }
    }
}

/// An error and its causes in one line; a cause that its parent already quotes is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// The result within a limit of time; after it an error that names what was being waited for.
///
/// # Errors
/// What `work` answers, or the time-out.
pub async fn within<T, E: Error>(
    limit: Duration,
    doing: impl fmt::Display,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, HarnessError> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(HarnessError::during(doing, &error)),
        Err(_) => Err(HarnessError::new(format!(
            "{doing}: no answer within {} s",
            limit.as_secs_f64()
        ))),
    }
}

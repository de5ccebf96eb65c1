//! How a command fails: what is said, the remedy, and the exit code.

use provisioner::fleet::SelectionError;
use provisioner::generate::GenerateError;
use provisioner::{
    ApplyError, CallError, ConnectError, DeleteError, NotReady, RegistrationError, RenderError, TemplateError,
};
use std::error::Error;

/// The operation did not succeed.
const FAILED: u8 = 1;
/// What was given cannot be used.
const USAGE: u8 = 2;
/// What was asked for could not be found out.
const UNKNOWN: u8 = 3;

pub(crate) struct Failure {
    pub(crate) error: Box<dyn Error>,
    pub(crate) hint: Option<String>,
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn usage(error: impl Into<Box<dyn Error>>, hint: &str) -> Self {
        Self {
            code: USAGE,
            ..Self::failed(error, hint)
        }
    }

    pub(crate) fn failed(error: impl Into<Box<dyn Error>>, hint: &str) -> Self {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        Self {
            error: error.into(),
            hint,
            code: FAILED,
        }
    }

    /// The same failure of a command that was to find something out.
    pub(crate) fn unknown(error: impl Into<Self>) -> Self {
        Self {
            code: UNKNOWN,
            ..error.into()
        }
    }

    /// The same failure of a command whose 1 says something else.
    pub(crate) fn of_a_comparison(error: impl Into<Self>) -> Self {
        Self {
            code: USAGE,
            ..error.into()
        }
    }

    /// The error and its causes in one line; a cause that its parent quotes already is not said twice.
    pub(crate) fn text(&self) -> String {
        let mut text = self.error.to_string();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text
    }
}

macro_rules! failures {
    ($($type:ty, $code:expr, $hint:expr;)*) => {
        $(impl From<$type> for Failure {
            fn from(error: $type) -> Self {
                let hint: fn(&$type) -> Option<String> = $hint;
                Self { hint: hint(&error), error: Box::new(error), code: $code }
            }
        })*
    };
}

failures! {
    ApplyError, FAILED, ApplyError::hint;
    DeleteError, FAILED, DeleteError::hint;
    CallError, FAILED, CallError::hint;
    NotReady, FAILED, NotReady::hint;
    RegistrationError, FAILED, RegistrationError::hint;
    GenerateError, FAILED, |_| None;
    ConnectError, USAGE, ConnectError::hint;
    SelectionError, USAGE, SelectionError::hint;
    TemplateError, USAGE, |_| None;
    RenderError, USAGE, |_| None;
}

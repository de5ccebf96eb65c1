//! A program in a pod that one talks to line by line: the provisioner's, with the harness' errors.

use crate::error::HarnessError;
pub use provisioner::exec::{CUT_OFF, Command, ExecError, Input, Output, start};

impl From<ExecError> for HarnessError {
    fn from(error: ExecError) -> Self {
        HarnessError::new(error.what)
    }
}

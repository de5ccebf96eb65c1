//! `provisioner generate`.

use super::{GeneratedArgs, OutputArgs, SelectionArgs};
use clap::Args;

/// Write the tenants' manifests to files, without a cluster. Prints the files' names.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) generated: GeneratedArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

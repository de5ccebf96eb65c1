//! `provisioner tenant`.

use clap::{Args, Subcommand};
use provisioner::TenantId;
use provisioner::names::{DisplayName, TierName};
use std::path::PathBuf;

/// Make tenant files.
#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    #[command(subcommand)]
    pub(crate) command: TenantCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    New(TenantNewArgs),
}

/// Write a tenant file: with the id, and every other field as a comment that says what it is for and which value it has without.
///
/// A file that exists is never overwritten. No cluster is asked.
#[derive(Debug, Args)]
pub(crate) struct TenantNewArgs {
    /// The tenant's id: 1 to 53 of a-z, 0-9 and '-'.
    pub(crate) id: TenantId,
    /// The tier that the tenant's values come from.
    #[arg(long, value_name = "NAME", default_value = "standard")]
    pub(crate) tier: TierName,
    /// The name for people.
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<DisplayName>,
    /// A tiers file: tiers besides `standard` and `premium`, or in their place.
    #[arg(long, value_name = "FILE")]
    pub(crate) tiers: Option<PathBuf>,
    /// The file to write [default: ID.yaml].
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
}

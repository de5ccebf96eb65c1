//! `provisioner list`.

use super::{ClusterArgs, OutputArgs};
use clap::Args;

/// List the tenants of the cluster: tier, age, whether ready, and what is used of the quota. Changes nothing.
///
/// Tenants are the namespaces with our labels. Ready is one whose quota is in force and whose Deployments of ours are rolled out;
/// `provisioner status` looks closer.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

//! `provisioner delete`.

use super::{ClusterArgs, GeneratedArgs, TenantsArgs, duration};
use clap::Args;
use std::time::Duration;

/// Delete a tenant's namespace with everything in it, and its generated files.
///
/// Workloads go first; the namespace and with it the network policies only when no pod is left. A namespace that is not ours is
/// refused. What goes and what stays is said first, and asked for on a terminal. DNS entries that lead to the tenant are named, not
/// touched; nor, without --purge-data, is what PostgreSQL and Redis hold of the tenant.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) tenants: TenantsArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) generated: GeneratedArgs,
    /// Remove what PostgreSQL and Redis hold of the tenant too: its rows, its queue, its role and its user. Also where the namespace
    /// is gone already.
    #[arg(long)]
    pub(crate) purge_data: bool,
    /// Do not ask. Required where there is no terminal to ask on.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How long the deletion may take, as in 90s or 2m, and how long the removal of data.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

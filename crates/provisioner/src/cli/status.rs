//! `provisioner status`.

use super::{ClusterArgs, OutputArgs, SelectionArgs};
use clap::Args;

const EXIT_CODES: &str = "\
Examples:
  provisioner status --tenant-id acme-corp
  provisioner status -f tenants/ -o json

Exit codes:
  0  every tenant is ready
  1  one tenant at least is not
  2  the command line, tenant file, tiers, templates or kubeconfig cannot be used
  3  it could not be found out, of one tenant at least";

/// Say how a tenant is: what is used of its quota, whether its workloads are ready, and whether PostgreSQL and Redis know it.
///
/// Of what is not ready the reason is named, from conditions, pods and events. Changes nothing.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Do not ask PostgreSQL and Redis: for those who may not read their administrators' Secrets.
    #[arg(long)]
    pub(crate) no_registration: bool,
}

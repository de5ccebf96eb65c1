//! `provisioner diff`.

use super::{ClusterArgs, OutputArgs, SelectionArgs};
use clap::Args;

const EXIT_CODES: &str = "\
Examples:
  provisioner diff --tenant-id acme-corp
  provisioner diff -f tenants/ -o json

Exit codes:
  0  every tenant is as its templates say, and nothing of others widens it
  1  something differs
  2  the command line, tenant file, templates or kubeconfig cannot be used
  3  it could not be found out, of one tenant at least";

/// Say what `apply` would change of a tenant, field by field, and what others made that widens it. Changes nothing.
///
/// Of each object that differs every field is named, with its value on the cluster and in the template, and who set it where that stands
/// in the way of an apply. Then extras: what is not ours and makes the tenant less isolated, such as another NetworkPolicy that allows,
/// a binding that gives rights in the namespace, a Service that is reached from outside, with who made it and what to do. Of
/// ClusterRoleBindings those count that reach tenants' accounts or everybody. Policies of a network plugin's own kinds are not counted.
/// Values of Secrets are never shown.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Do not look at ClusterRoleBindings: for those who may not list them, as platform admins may not.
    #[arg(long)]
    pub(crate) namespace_only: bool,
}

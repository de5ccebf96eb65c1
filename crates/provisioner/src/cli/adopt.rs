//! `provisioner adopt`.

use super::{ClusterArgs, GeneratedArgs, SelectionArgs, duration};
use clap::Args;
use provisioner::Hardened;
use std::time::Duration;

const HARDENING: &str = "\
Hardening, left out of a namespace that is adopted unless --harden names it:
  pod-security         enforce Pod Security restricted; without it the namespace warns and writes to the audit log only
  default-deny-egress  the policy of that name
  limitrange           requests and limits for containers that name none
  internet-except      private ranges and the cloud's metadata service do not count as the internet
  all                  all of these, and what a later version adds

What is left out stays left out: the annotation ai-agents-platform/hardening on the namespace says so to every later
apply. The same command with another --harden adds.

Examples:
  provisioner adopt --tenant-id acme-corp
  provisioner adopt -f tenants/acme-corp.yaml --harden limitrange,internet-except
  provisioner adopt --tenant-id default --harden all --yes

Exit codes:
  0  adopted, and ready
  1  failed: refused, not ready in time, or the cluster did not answer
  2  not confirmed; or the command line, tenant file, templates or kubeconfig cannot be used";

/// Take over a namespace that was made by hand, or by the former kubectl procedure.
///
/// Says what would change, field by field, and who set what; asks; then does what `apply` does. What kubectl create and kubectl apply wrote
/// becomes ours, and goes where the templates do not have it; labels, annotations and what an application reads (ConfigMaps, Secrets) stay.
/// Of other managers only fields that the templates set are taken. No later apply is in conflict with any of them. Objects that the
/// templates do not know stay as well; those that widen the tenant are named. A namespace that is another tenant's or another platform's is
/// refused.
#[derive(Debug, Args)]
#[command(after_long_help = HARDENING)]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) generated: GeneratedArgs,
    /// Hardening that the namespace gets beside what it has, divided by commas.
    #[arg(long, value_name = "NAME,…", default_value_t)]
    pub(crate) harden: Hardened,
    /// Do not ask. Required where there is no terminal to ask on.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How long to wait for the tenant to be ready, as in 90s or 2m; 0s does not wait.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

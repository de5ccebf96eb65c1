//! `provisioner preflight`.

use super::{ClusterArgs, OutputArgs, SelectionArgs};
use clap::Args;
use provisioner::preflight::{AGENT_IMAGE, Check};

/// Say before an apply whether the cluster has what it takes, and of each thing that is missing what mends it.
///
/// Changes nothing, but for the enforcement canary: two pods in a namespace of its own, which is removed again, on Ctrl-C too.
#[derive(Debug, Args)]
#[command(after_long_help = after_help())]
pub(crate) struct PreflightArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// What not to look at: names of the list below, separated by commas.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) skip: Vec<Check>,
    /// Ask for the permissions of `platform apply` too.
    #[arg(long)]
    pub(crate) platform_apply: bool,
    /// The image of the enforcement canary's pods.
    #[arg(long, value_name = "IMAGE", default_value = AGENT_IMAGE)]
    pub(crate) agent_image: String,
}

fn after_help() -> String {
    let mut text = "What is looked at, by the names for --skip:\n".to_owned();
    for check in Check::ALL {
        text.push_str(&format!("  {check:12}  {}\n", check.about()));
    }
    text.push_str(
        "
Examples:
  provisioner preflight --tenant-id acme-corp --context staging
  provisioner preflight -f tenants/ --skip enforcement,registration
  provisioner preflight --tenant-id acme-corp -o json

Exit codes:
  0    all that was looked at is there
  1    something is missing, or could not be found out, or something of the canary was left behind: it is named
  2    the command line, tenant file, templates or kubeconfig cannot be used
  130, 143  interrupted; what the canary had made is removed",
    );
    text
}

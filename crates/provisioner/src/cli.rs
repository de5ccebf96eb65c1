//! The command line: what may be said, and its help. What is done is in [`crate::commands`].

use clap::{Args, Parser, Subcommand};
use provisioner::{ConnectOptions, TenantId};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  provisioner apply --tenant-id acme-corp
  provisioner apply -f fixtures/tenants/premium.yaml --context staging
  provisioner generate --tenant-id acme-corp
  provisioner delete --tenant-id acme-corp --yes
  provisioner delete --tenant-id acme-corp --purge-data
  provisioner platform diff --context staging

Exit codes:
  0  done; for apply: everything is as the templates say, and ready
  1  failed: refused, in conflict, not ready in time, or the cluster did not answer; for platform diff: something differs
  2  the command line, tenant file, templates or kubeconfig cannot be used

Logs go to stderr, results to stdout. RUST_LOG filters the logs.";

/// Makes a tenant's namespace out of templates, keeps it as they say, and takes it away again.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say more; twice: say everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say only what goes wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

impl Cli {
    /// The filter of the logs, unless the environment has another.
    pub(crate) fn verbosity(&self) -> &'static str {
        match (self.quiet, self.verbose) {
            (true, _) => "warn",
            (false, 0) => "info,kube=warn,hyper_util=warn",
            (false, 1) => "debug,kube=info,hyper_util=info,rustls=info",
            // The transport would log what it carries, credentials included.
            (false, _) => "trace,kube=debug,hyper=info,hyper_util=info,rustls=info,tower=info",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Apply(ApplyArgs),
    Delete(DeleteArgs),
    Generate(GenerateArgs),
    Platform(PlatformArgs),
}

/// Make or update a tenant's namespace, register the tenant with PostgreSQL and Redis, and wait until it is ready.
///
/// Applies server-side, in order, without taking fields that others set; writes nothing that is already as wanted; removes what
/// the templates no longer contain. A namespace that is not ours is refused. Credentials are made on the cluster, kept from then on,
/// and never shown; the tenant's role in PostgreSQL and its user in Redis get them (not so with `registration: false` in the tenant file).
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) tenant: TenantArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Take fields back from whoever else set them.
    #[arg(long)]
    pub(crate) force_conflicts: bool,
    /// How long to wait for the tenant to be ready, as in 90s or 2m; 0s does not wait.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// Delete a tenant's namespace with everything in it, and its generated files.
///
/// Workloads go first; the namespace and with it the network policies only when no pod is left. A namespace that is not ours is
/// refused. DNS entries are not touched; nor, without --purge-data, is what PostgreSQL and Redis hold of the tenant.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The tenant's id.
    #[arg(long, value_name = "ID")]
    pub(crate) tenant_id: TenantId,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Remove what PostgreSQL and Redis hold of the tenant too: its rows, its queue, its role and its user. Also where the namespace
    /// is gone already.
    #[arg(long)]
    pub(crate) purge_data: bool,
    /// The tenant file: says where PostgreSQL and Redis are, for --purge-data, unless that is the standard.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Do not ask. Required where there is no terminal to ask on.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How long the deletion may take, as in 90s or 2m, and how long the removal of data.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// Write a tenant's manifests to files, without a cluster. Prints the files' names.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) tenant: TenantArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Compare or apply what all tenants share: rights of platform admins, policies of the shared services.
///
/// These are the ClusterRole of platform admins and its binding, and the NetworkPolicies in the namespace of PostgreSQL and Redis.
/// The namespace itself and what runs in it are not made here.
#[derive(Debug, Args)]
pub(crate) struct PlatformArgs {
    #[command(subcommand)]
    pub(crate) command: PlatformCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlatformCommand {
    Diff(PlatformDiffArgs),
    Apply(PlatformApplyArgs),
}

const PLATFORM_DIFF: &str = "\
Examples:
  provisioner platform diff --context staging
  provisioner platform diff -f platform.yaml --templates overrides/platform

Exit codes:
  0  everything is as the templates say
  1  something differs
  2  it could not be found out";

/// Say what `platform apply` would do, object by object, and which pods it would isolate. Changes nothing.
///
/// Of each object that differs every field is named, with its value on the cluster and in the template, and who set it where that
/// stands in the way. Then, of all pods in the shared services' namespace: who may reach them now, and who then. A pod that no
/// NetworkPolicy selects is open to everybody; the first one that selects it closes it for all whom no policy names. Policies of a
/// network plugin's own kinds are not counted.
#[derive(Debug, Args)]
#[command(after_long_help = PLATFORM_DIFF)]
pub(crate) struct PlatformDiffArgs {
    #[command(flatten)]
    pub(crate) settings: PlatformSettingsArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

const PLATFORM_APPLY: &str = "\
Examples:
  provisioner platform apply --context staging
  provisioner platform apply -f platform.yaml --yes

Exit codes:
  0  everything is as the templates say
  1  failed: refused, in conflict, or the cluster did not answer
  2  not confirmed; or the command line, settings, templates or kubeconfig cannot be used";

/// Say what would be done, as `platform diff` does, ask, and do it.
///
/// Applies server-side, without taking fields that others set; writes nothing that is already as wanted; removes what is ours and the
/// templates no longer contain. Objects of the same names that are not ours are refused. Where nothing is to be done, nothing is asked.
#[derive(Debug, Args)]
#[command(after_long_help = PLATFORM_APPLY)]
pub(crate) struct PlatformApplyArgs {
    #[command(flatten)]
    pub(crate) settings: PlatformSettingsArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Do not ask. Required where there is no terminal to ask on.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Take fields back from whoever else set them, and objects of the same names over.
    #[arg(long)]
    pub(crate) force_conflicts: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlatformSettingsArgs {
    /// A file of the platform's settings (sharedServices, databaseClientNamespaces); what it does not name has the standard values.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A directory that replaces, adds or removes templates (NAME.yaml.hbs, NAME.delete).
    #[arg(long, value_name = "DIR")]
    pub(crate) templates: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    /// The tenant's id: 1 to 53 of a-z, 0-9 and '-'.
    #[arg(long, value_name = "ID", required_unless_present = "file")]
    pub(crate) tenant_id: Option<TenantId>,
    /// A tenant file; what it does not name has the standard values.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A directory that replaces, adds or removes templates (NAME.yaml.hbs, NAME.delete).
    #[arg(long, value_name = "DIR")]
    pub(crate) templates: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// The kubeconfig context to use [default: the current one].
    #[arg(long, visible_alias = "cluster", value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig [default: the files in KUBECONFIG, else ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl From<ClusterArgs> for ConnectOptions {
    fn from(args: ClusterArgs) -> Self {
        Self {
            kubeconfig: args.kubeconfig,
            context: args.context,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Where manifests are written; each tenant has a directory there.
    #[arg(long, value_name = "DIR", default_value = "generated")]
    pub(crate) output: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    let positive = parsed.ok().and_then(|duration| Duration::try_from(duration).ok());
    positive.ok_or_else(|| "use a time with its unit, as in 90s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

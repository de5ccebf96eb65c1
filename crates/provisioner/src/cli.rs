//! The command line: what may be said, and its help; each command has a file of its own, and what several of them take is here.
//! What is done is in [`crate::commands`].

mod apply;
mod delete;
mod generate;
mod list;
mod platform;
mod preflight;
mod status;
mod tenant;

pub(crate) use apply::ApplyArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use delete::DeleteArgs;
pub(crate) use generate::GenerateArgs;
pub(crate) use list::ListArgs;
pub(crate) use platform::{
    PlatformApplyArgs, PlatformArgs, PlatformCommand, PlatformDiffArgs, PlatformSettingsArgs,
};
pub(crate) use preflight::PreflightArgs;
use provisioner::fleet::Selection;
use provisioner::{ConnectOptions, TenantId};
pub(crate) use status::StatusArgs;
use std::path::PathBuf;
use std::time::Duration;
pub(crate) use tenant::{TenantArgs, TenantCommand, TenantNewArgs};

const EXAMPLES: &str = "\
Examples:
  provisioner apply --tenant-id acme-corp
  provisioner apply -f fixtures/tenants/premium.yaml --context staging
  provisioner apply -f tenants/ --tiers tiers.yaml
  provisioner tenant new acme-corp --tier premium
  provisioner list
  provisioner status --tenant-id acme-corp
  provisioner generate --tenant-id acme-corp
  provisioner delete --tenant-id acme-corp --yes
  provisioner delete --tenant-id acme-corp --purge-data
  provisioner platform diff --context staging
  provisioner preflight --tenant-id acme-corp

Exit codes:
  0  done; for apply: everything is as the templates say, and ready; for status: ready
  1  failed, of one tenant at least: refused, in conflict, not ready in time, or the cluster did not answer;
     for platform diff: something differs; for status: not ready
  2  the command line, tenant file, tiers, templates or kubeconfig cannot be used
  3  for status: it could not be found out

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
    List(ListArgs),
    Platform(PlatformArgs),
    Preflight(PreflightArgs),
    Status(StatusArgs),
    Tenant(TenantArgs),
}

// Which tenants a command is about: one or several.
#[derive(Debug, Args)]
pub(crate) struct TenantsArgs {
    /// The tenant's id: 1 to 53 of a-z, 0-9 and '-'. With -f: the one of this id.
    #[arg(long, value_name = "ID", required_unless_present = "file")]
    pub(crate) tenant_id: Option<TenantId>,
    /// A tenant file, or a directory of them (every *.yaml and *.yml in it); what a file does not name has the values of its tier.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    pub(crate) file: Option<PathBuf>,
    /// A tiers file: tiers besides `standard` and `premium`, or in their place.
    #[arg(long, value_name = "FILE")]
    pub(crate) tiers: Option<PathBuf>,
}

// Which tenants a command is about, and what they are made of.
#[derive(Debug, Args)]
pub(crate) struct SelectionArgs {
    #[command(flatten)]
    pub(crate) tenants: TenantsArgs,
    /// A directory that replaces, adds or removes templates (NAME.yaml.hbs, NAME.delete).
    #[arg(long, value_name = "DIR")]
    pub(crate) templates: Option<PathBuf>,
}

impl From<TenantsArgs> for Selection {
    fn from(args: TenantsArgs) -> Self {
        Self {
            tenant_id: args.tenant_id,
            file: args.file,
            tiers: args.tiers,
        }
    }
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
pub(crate) struct GeneratedArgs {
    /// Where manifests are written; each tenant has a directory there.
    #[arg(long, value_name = "DIR", default_value = "generated")]
    pub(crate) generated: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// What results are written as, on stdout.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

/// What a result is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
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

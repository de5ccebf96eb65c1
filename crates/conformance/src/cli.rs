//! The command line: one struct per subcommand. What the arguments come to is left to `settings` and `main`.

use clap::{Args, Parser, Subcommand};
use std::num::NonZeroU32;
use std::path::PathBuf;

/// The exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0    conformant: every promise that was judged holds
  1    isolation is broken: at least one check failed
  2    usage or configuration; nothing was changed
  3    inconclusive: at least one check could not be judged, or the harness could not do its work
  4    nothing to run: every check was left out
  130  interrupted, after clean-up (143 by SIGTERM)";

const SELFTEST_HELP: &str = "\
Examples:
  conformance selftest --cluster lab
  conformance selftest --cluster lab --only no-default-deny-ingress,quota-missing
  conformance selftest --cluster lab --faults my/faults --junit selftest.xml --markdown matrix.md

Exit codes:
  0    every fault was seen exactly as expected
  1    at least one was not
  2    usage or configuration; nothing was changed
  3    the clean pass did not pass, or the harness could not do its work
  130  interrupted, after clean-up (143 by SIGTERM)";

/// Proves by behaviour that tenants of one cluster are isolated.
#[derive(Debug, Parser)]
#[command(name = "conformance", version, after_long_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Log more: -v requests, -vv everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set up test tenants, judge the promises, remove everything, report.
    #[command(after_long_help = concat!("Examples:\n  conformance run --cluster lab\n  conformance run --cluster kind-kind --junit junit.xml\n  conformance run --cluster prod-staging --allow-cluster prod-staging --only NET-01,NET-02\n  conformance run --cluster lab --dry-run\n\nSettings and their defaults: crates/conformance/src/settings.yaml\n"))]
    Run(Box<Run>),
    /// Plant every known fault on tenants of its own, and look whether the checks see exactly that. On local clusters only.
    #[command(after_long_help = SELFTEST_HELP)]
    Selftest(Selftest),
    /// List the checks, or the planted faults.
    List(List),
    /// Explain a check: what it promises, how it is shown, what to do where it fails.
    Explain(Explain),
    /// Remove what runs left behind.
    Clean(Clean),
}

/// Which cluster, and how to reach it.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// The cluster: an entry of `clusters:` in the settings, else a kubeconfig context. Never assumed.
    #[arg(long, value_name = "NAME", env = "CONFORMANCE_CLUSTER")]
    pub cluster: String,
    /// A kubeconfig file. Default: the files in KUBECONFIG, then ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Test this cluster although it is not a local one. Must repeat its name.
    #[arg(long, value_name = "NAME")]
    pub allow_cluster: Vec<String>,
    /// A namespace of a cluster that is not local in which a run may put a pod of its own beside those of others.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub allow_shared_namespaces: Vec<String>,
    /// Send webhooks to the tenants' applications although the cluster is not a local one.
    #[arg(long)]
    pub allow_webhooks: bool,
    /// A settings file. Default: ./conformance.yaml, then $XDG_CONFIG_HOME/ai-agents-conformance/settings.yaml.
    #[arg(long, value_name = "FILE", env = "CONFORMANCE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `conformance run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The test tenants, two or more. Absent ones are provisioned and removed again.
    #[arg(long, value_name = "A,B", value_delimiter = ',', env = "CONFORMANCE_TENANTS")]
    pub tenants: Option<Vec<String>>,
    /// Only these checks.
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Not these checks.
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    pub skip: Vec<String>,
    /// Do not show first that the probes see an open tenant as open (SEN-01).
    #[arg(long)]
    pub no_sensitivity: bool,
    /// Write a JUnit report.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Leave everything in place, for a day, to look at it.
    #[arg(long)]
    pub keep: bool,
    /// How long the run may take, clean-up not included: 90s, 10m.
    #[arg(long, value_name = "DURATION", env = "CONFORMANCE_TIMEOUT")]
    pub timeout: Option<String>,
    /// The image of the probe agents.
    #[arg(long, value_name = "IMAGE", env = "CONFORMANCE_AGENT_IMAGE")]
    pub agent_image: Option<String>,
    /// Show the plan: every object it would create, where, and the permissions it needs. Changes nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `conformance selftest`.
#[derive(Debug, Args)]
pub struct Selftest {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// A directory of faults, instead of those that come with the binary.
    #[arg(long, value_name = "DIR")]
    pub faults: Option<PathBuf>,
    /// Only these faults; the clean pass comes first all the same.
    #[arg(long, value_name = "FAULT,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// How many faults are judged at once.
    #[arg(long, value_name = "N", default_value = "3")]
    pub jobs: NonZeroU32,
    /// Write a JUnit report: a test case per fault.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the matrix of checks and faults as Markdown.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// The image of the probe agents.
    #[arg(long, value_name = "IMAGE", env = "CONFORMANCE_AGENT_IMAGE")]
    pub agent_image: Option<String>,
}

/// `conformance list`.
#[derive(Debug, Args)]
pub struct List {
    /// The planted faults instead: those that come with the binary, or those of a directory.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub faults: Option<Option<PathBuf>>,
}

/// `conformance explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The check's id: NET-02.
    pub id: String,
}

/// `conformance clean`.
#[derive(Debug, Args)]
pub struct Clean {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// What this run left, whether or not its time is up.
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub run: Option<String>,
    /// What every run left, also runs that are under way.
    #[arg(long)]
    pub all: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}

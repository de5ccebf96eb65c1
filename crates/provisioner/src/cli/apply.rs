//! `provisioner apply`.

use super::{ClusterArgs, GeneratedArgs, OutputArgs, SelectionArgs, duration};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Make or update a tenant's namespace, register the tenant with PostgreSQL and Redis, and wait until it is ready.
///
/// Applies server-side, in order, without taking fields that others set; writes nothing that is already as wanted; removes what
/// the templates no longer contain. A namespace that is not ours is refused. Credentials are made on the cluster, kept from then on,
/// and never shown; the tenant's role in PostgreSQL and its user in Redis get them (not so with `registration: false` in the tenant file).
///
/// Of several tenants (-f DIR) a few are worked on at once; that one fails does not keep the others from being done.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) generated: GeneratedArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Change nothing: client renders, checks and shows what would be sent, without a cluster; server asks the cluster and shows what
    /// would change, as `diff` does.
    #[arg(long, value_name = "WHERE", value_enum)]
    pub(crate) dry_run: Option<DryRun>,
    /// Take fields back from whoever else set them.
    #[arg(long)]
    pub(crate) force_conflicts: bool,
    /// How many tenants are worked on at once.
    #[arg(long, value_name = "COUNT", default_value = "16", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) jobs: u8,
    /// How long to wait for the tenant to be ready, as in 90s or 2m; 0s does not wait.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// Where an apply ends that changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Before the cluster.
    Client,
    /// In the cluster's API server.
    Server,
}

//! `provisioner platform`.

use super::ClusterArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Compare or apply what all tenants share: rights of platform admins, policies of the shared services, admission policies.
///
/// These are the ClusterRole of platform admins and its binding, the NetworkPolicies in the namespace of PostgreSQL and Redis, and, where
/// the server has such (Kubernetes 1.30), the ValidatingAdmissionPolicies of tenants' namespaces with their bindings.
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
    /// A file of the platform's settings (sharedServices, databaseClientNamespaces, admission); what it does not name has the standard values.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A directory that replaces, adds or removes templates (NAME.yaml.hbs, NAME.delete).
    #[arg(long, value_name = "DIR")]
    pub(crate) templates: Option<PathBuf>,
}

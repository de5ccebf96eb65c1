//! What each subcommand does: settings into library calls, outcomes into results; each command has a file of its own, and what
//! several of them do is here.

mod apply;
mod delete;
mod generate;
mod list;
mod platform;
mod preflight;
mod status;
mod tenant;

use crate::cli::{Cli, ClusterArgs, Command, PlatformCommand, SelectionArgs, TenantCommand};
use crate::failure::Failure;
use provisioner::fleet::{Member, Selection};
use provisioner::manifest::YamlError;
use provisioner::{Connection, Manifest, Stamp, Templates, Tenant, connect, render};
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

pub(crate) async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let done = match cli.command {
        Command::Apply(args) => apply::run(args).await,
        Command::Delete(args) => delete::run(args).await,
        Command::Generate(args) => generate::run(args),
        Command::List(args) => list::run(args).await,
        Command::Platform(args) => match args.command {
            PlatformCommand::Diff(args) => return platform::diff(args).await,
            PlatformCommand::Apply(args) => platform::apply(args).await,
        },
        Command::Preflight(args) => return preflight::run(args).await,
        Command::Status(args) => return status::run(args).await,
        Command::Tenant(args) => match args.command {
            TenantCommand::New(args) => tenant::new(args),
        },
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// One tenant, and what its namespace is to hold.
struct Prepared {
    tenant: Tenant,
    manifests: Vec<Manifest>,
}

/// All tenants that are meant, rendered: a mistake in any of them is found before anything is done for one.
fn prepare(args: SelectionArgs) -> Result<Vec<Prepared>, Failure> {
    let templates = match &args.templates {
        Some(directory) => Templates::with_overrides(directory)?,
        None => Templates::embedded(),
    };
    let members = Selection::from(args.tenants).members()?;
    let prepared = members.into_iter().map(|Member { tenant, .. }| {
        let manifests = render(&tenant, &templates, &Stamp::default())?;
        Ok(Prepared { tenant, manifests })
    });
    prepared.collect()
}

fn read_file<T>(what: &str, file: &Path, read: impl Fn(&str) -> Result<T, YamlError>) -> Result<T, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| unusable(what, file, error))?;
    read(&text).map_err(|error| unusable(what, file, error))
}

fn unusable(what: &str, file: &Path, problem: impl Display) -> Failure {
    Failure::usage(format!("read {what} {}: {problem}", file.display()), "")
}

async fn open(args: ClusterArgs) -> Result<Connection, Failure> {
    let connection = connect(&args.into()).await?;
    tracing::info!("using context {} ({})", connection.context, connection.server);
    Ok(connection)
}

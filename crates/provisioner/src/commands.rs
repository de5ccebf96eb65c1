//! What each subcommand does: settings into library calls, outcomes into results.

use crate::cli::{
    ApplyArgs, Cli, ClusterArgs, Command, DeleteArgs, GenerateArgs, PlatformApplyArgs, PlatformCommand,
    PlatformDiffArgs, PlatformSettingsArgs, TenantArgs,
};
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::manifest::YamlError;
use provisioner::tenant::SharedServices;
use provisioner::{
    ApplyOptions, Connection, DeleteError, DeleteOptions, Manifest, Ownership, Platform, Stamp, Templates,
    Tenant, TenantId, apply, connect, delete, generate, ownership, platform, registration, remove_generated,
    render, render_platform, wait_ready_for,
};
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long PostgreSQL and Redis are tried for.
const REGISTER_WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let done = match cli.command {
        Command::Apply(args) => run_apply(args).await,
        Command::Delete(args) => run_delete(args).await,
        Command::Generate(args) => run_generate(&args),
        Command::Platform(args) => match args.command {
            PlatformCommand::Diff(args) => return run_platform_diff(args).await,
            PlatformCommand::Apply(args) => run_platform_apply(args).await,
        },
    };
    done.map(|()| ExitCode::SUCCESS)
}

async fn run_apply(args: ApplyArgs) -> Result<(), Failure> {
    let (tenant, manifests) = prepare(&args.tenant)?;
    let connection = open(args.cluster).await?;
    write(&args.output.output, &tenant, &manifests)?;
    let options = ApplyOptions {
        force_conflicts: args.force_conflicts,
        ..ApplyOptions::default()
    };
    let (client, log) = (&connection.client, Log::default());
    let applied = apply(client, &manifests, &tenant.id, &options, &log).await?;
    // What API and worker log in with; they are not ready without.
    if tenant.registration {
        registration::register(client, &tenant, &log, REGISTER_WITHIN).await?;
    } else {
        tracing::info!("not registered with PostgreSQL and Redis: the tenant file says so");
    }
    let state = if args.timeout.is_zero() {
        "applied"
    } else {
        wait_ready_for(client, &tenant.id, &manifests, args.timeout, &log).await?;
        "ready"
    };
    console::result(format_args!(
        "namespace {} is {state}: {applied}",
        tenant.namespace()
    ));
    Ok(())
}

async fn run_delete(args: DeleteArgs) -> Result<(), Failure> {
    let namespace = args.tenant_id.namespace();
    if !args.yes && !console::can_ask() {
        let error = format!("delete Namespace {namespace}: there is no terminal to ask on");
        return Err(Failure::usage(error, "add --yes if you are sure"));
    }
    let shared = shared_services(&args)?;
    let connection = open(args.cluster).await?;
    match ownership(&connection.client, &args.tenant_id).await? {
        Ownership::Foreign { why } => return Err(DeleteError::Foreign { namespace, why }.into()),
        Ownership::Ours { .. } | Ownership::Absent if !args.yes && args.purge_data => {
            let question = format!(
                "delete namespace {namespace} and everything in it, and all that PostgreSQL and Redis hold of the tenant, on context {} ({})?",
                connection.context, connection.server
            );
            confirm(&question, &args.tenant_id)?;
        }
        Ownership::Ours { .. } if !args.yes => {
            let question = format!(
                "delete namespace {namespace} and everything in it, on context {} ({})?",
                connection.context, connection.server
            );
            confirm(&question, &args.tenant_id)?;
        }
        _ => {}
    }
    let options = DeleteOptions {
        deadline: args.timeout,
    };
    let (client, log) = (&connection.client, Log::default());
    let deleted = delete(client, &args.tenant_id, &options, &log).await?;
    if remove_generated(&args.output.output, &args.tenant_id)? {
        tracing::info!(
            "removed {}",
            args.output.output.join(args.tenant_id.as_str()).display()
        );
    }
    console::result(if deleted.existed {
        format!("namespace {namespace} is deleted")
    } else {
        format!("namespace {namespace} does not exist")
    });
    let id = &args.tenant_id;
    if args.purge_data {
        let was = registration::purge(client, &shared, id, &log, args.timeout).await?;
        console::result(format_args!("removed from PostgreSQL and Redis: {was}"));
    } else {
        console::result(format_args!(
            "kept: what PostgreSQL and Redis hold of the tenant, rows, queue and accounts; it is removed by: provisioner delete --tenant-id {id} --purge-data"
        ));
    }
    Ok(())
}

/// Where the tenant's data is. The platform's standard without a tenant file.
fn shared_services(args: &DeleteArgs) -> Result<SharedServices, Failure> {
    let tenant = TenantArgs {
        tenant_id: Some(args.tenant_id.clone()),
        file: args.file.clone(),
        templates: None,
    };
    tenant_of(&tenant).map(|tenant| tenant.shared_services)
}

fn confirm(question: &str, id: &TenantId) -> Result<(), Failure> {
    if console::confirm(question, id.as_str()) {
        return Ok(());
    }
    let error = format!(
        "delete Namespace {}: not confirmed; nothing was deleted",
        id.namespace()
    );
    Err(Failure::usage(error, ""))
}

fn run_generate(args: &GenerateArgs) -> Result<(), Failure> {
    let (tenant, manifests) = prepare(&args.tenant)?;
    for file in generate(&args.output.output, &tenant.id, &manifests)? {
        console::result(file.display());
    }
    Ok(())
}

async fn run_platform_diff(args: PlatformDiffArgs) -> Result<ExitCode, Failure> {
    let (settings, manifests) = prepare_platform(&args.settings)?;
    let connection = open(args.cluster).await?;
    let difference = platform::diff(&connection.client, &settings, &manifests, &Log::default())
        .await
        .map_err(Failure::of_a_comparison)?;
    console::results(&difference);
    Ok(ExitCode::from(u8::from(!difference.is_same())))
}

async fn run_platform_apply(args: PlatformApplyArgs) -> Result<(), Failure> {
    let (settings, manifests) = prepare_platform(&args.settings)?;
    let Connection {
        client,
        context,
        server,
        ..
    } = open(args.cluster).await?;
    let log = Log::default();
    let difference = platform::diff(&client, &settings, &manifests, &log).await?;
    console::results(&difference);
    if !difference.is_same() && !args.yes {
        let unchanged = |why| format!("apply platform: {why}; nothing was changed");
        if !console::can_ask() {
            let error = unchanged("there is no terminal to ask on");
            return Err(Failure::usage(error, "add --yes if you are sure"));
        }
        let question = format!("do this on context {context} ({server})?");
        if !console::confirm(question, "yes") {
            return Err(Failure::usage(unchanged("not confirmed"), ""));
        }
    }
    let options = ApplyOptions {
        force_conflicts: args.force_conflicts,
        ..ApplyOptions::default()
    };
    let applied = platform::apply(&client, &settings, &manifests, &options, &log).await?;
    console::result(format_args!("platform is applied: {applied}"));
    Ok(())
}

fn prepare_platform(args: &PlatformSettingsArgs) -> Result<(Platform, Vec<Manifest>), Failure> {
    let settings = match &args.file {
        None => Platform::default(),
        Some(file) => read_file("platform settings", file, Platform::from_yaml)?,
    };
    let templates = match &args.templates {
        Some(directory) => Templates::embedded_platform().changed_by(directory)?,
        None => Templates::embedded_platform(),
    };
    let manifests = render_platform(&settings, &templates)?;
    Ok((settings, manifests))
}

fn prepare(args: &TenantArgs) -> Result<(Tenant, Vec<Manifest>), Failure> {
    let tenant = tenant_of(args)?;
    let templates = match &args.templates {
        Some(directory) => Templates::with_overrides(directory)?,
        None => Templates::embedded(),
    };
    let manifests = render(&tenant, &templates, &Stamp::default())?;
    Ok((tenant, manifests))
}

fn tenant_of(args: &TenantArgs) -> Result<Tenant, Failure> {
    let Some(file) = &args.file else {
        let id = args.tenant_id.clone();
        let none = || Failure::usage("no tenant is named", "name it with --tenant-id ID or -f FILE");
        return id.map(Tenant::standard).ok_or_else(none);
    };
    let tenant = read_file("tenant file", file, Tenant::from_yaml)?;
    match &args.tenant_id {
        Some(id) if *id != tenant.id => {
            let problem = format!("its id is {}, --tenant-id says {id}", tenant.id);
            Err(unusable("tenant file", file, problem))
        }
        _ => Ok(tenant),
    }
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

fn write(root: &Path, tenant: &Tenant, manifests: &[Manifest]) -> Result<(), Failure> {
    let files = generate(root, &tenant.id, manifests)?;
    tracing::info!(
        "generated {} manifests in {}",
        files.len(),
        root.join(tenant.id.as_str()).display()
    );
    Ok(())
}

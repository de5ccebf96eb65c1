//! What each subcommand does: settings into library calls, outcomes into results.

use crate::cli::{ApplyArgs, Cli, ClusterArgs, Command, DeleteArgs, GenerateArgs, TenantArgs};
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::{
    ApplyOptions, Connection, DeleteError, DeleteOptions, Manifest, Ownership, Stamp, Templates, Tenant,
    apply, connect, delete, generate, ownership, remove_generated, render,
};
use std::path::Path;

pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Apply(args) => run_apply(args).await,
        Command::Delete(args) => run_delete(args).await,
        Command::Generate(args) => run_generate(&args),
    }
}

async fn run_apply(args: ApplyArgs) -> Result<(), Failure> {
    let (tenant, manifests) = prepare(&args.tenant)?;
    let connection = open(args.cluster).await?;
    write(&args.output.output, &tenant, &manifests)?;
    let options = ApplyOptions {
        force_conflicts: args.force_conflicts,
        readiness: (!args.timeout.is_zero()).then_some(args.timeout),
        ..ApplyOptions::default()
    };
    let applied = apply(
        &connection.client,
        &manifests,
        &tenant.id,
        &options,
        &Log::default(),
    )
    .await?;
    let state = if options.readiness.is_some() {
        "ready"
    } else {
        "applied"
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
    let connection = open(args.cluster).await?;
    match ownership(&connection.client, &args.tenant_id).await? {
        Ownership::Foreign { why } => return Err(DeleteError::Foreign { namespace, why }.into()),
        Ownership::Ours { .. } if !args.yes => {
            let question = format!(
                "delete namespace {namespace} and everything in it, on context {} ({})?",
                connection.context, connection.server
            );
            if !console::confirm(question, args.tenant_id.as_str()) {
                return Err(Failure::usage(
                    format!("delete Namespace {namespace}: not confirmed; nothing was deleted"),
                    "",
                ));
            }
        }
        _ => {}
    }
    let options = DeleteOptions {
        deadline: args.timeout,
    };
    let deleted = delete(&connection.client, &args.tenant_id, &options, &Log::default()).await?;
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
    Ok(())
}

fn run_generate(args: &GenerateArgs) -> Result<(), Failure> {
    let (tenant, manifests) = prepare(&args.tenant)?;
    for file in generate(&args.output.output, &tenant.id, &manifests)? {
        console::result(file.display());
    }
    Ok(())
}

fn prepare(args: &TenantArgs) -> Result<(Tenant, Vec<Manifest>), Failure> {
    let tenant = tenant(args)?;
    let templates = match &args.templates {
        Some(directory) => Templates::with_overrides(directory)?,
        None => Templates::embedded(),
    };
    let manifests = render(&tenant, &templates, &Stamp::default())?;
    Ok((tenant, manifests))
}

fn tenant(args: &TenantArgs) -> Result<Tenant, Failure> {
    let Some(file) = &args.file else {
        let id = args.tenant_id.clone();
        let none = || Failure::usage("no tenant is named", "name it with --tenant-id ID or -f FILE");
        return id.map(Tenant::standard).ok_or_else(none);
    };
    let unusable =
        |problem: String| Failure::usage(format!("read tenant file {}: {problem}", file.display()), "");
    let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    let tenant = Tenant::from_yaml(&text).map_err(|error| unusable(error.to_string()))?;
    match &args.tenant_id {
        Some(id) if *id != tenant.id => Err(unusable(format!(
            "its id is {}, --tenant-id says {id}",
            tenant.id
        ))),
        _ => Ok(tenant),
    }
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

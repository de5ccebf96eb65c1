//! `provisioner adopt`.

use super::apply::{REGISTER_WITHIN, write};
use super::{open, prepare};
use crate::cli::AdoptArgs;
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::{Connection, adopt, registration, wait_ready_for};

pub(super) async fn run(args: AdoptArgs) -> Result<(), Failure> {
    let prepared = prepare(args.selection)?;
    let [one] = prepared.as_slice() else {
        return Err(Failure::usage(
            format!("adopt: {} tenants are named, expected one", prepared.len()),
            "name one of them with --tenant-id",
        ));
    };
    let connection = open(args.cluster).await?;
    let (client, log) = (&connection.client, Log::default());
    let id = &one.tenant.id;
    let adoption = adopt::look(client, &one.manifests, id, &args.harden, &log).await?;
    console::results(&adoption);
    if !adoption.is_done() && !args.yes {
        confirm(&connection, &one.tenant.namespace())?;
    }
    tracing::info!(
        "{}",
        write(&args.generated.generated, &one.tenant, &adoption.manifests)?
    );
    let applied = provisioner::adopt(client, &adoption, &log).await?;
    if one.tenant.registration {
        registration::register(client, &one.tenant, &log, REGISTER_WITHIN).await?;
    }
    let state = if args.timeout.is_zero() {
        "adopted"
    } else {
        wait_ready_for(client, id, &adoption.manifests, args.timeout, &log).await?;
        "adopted and ready"
    };
    console::result(format_args!(
        "namespace {} is {state}: {applied}",
        one.tenant.namespace()
    ));
    Ok(())
}

fn confirm(connection: &Connection, namespace: &str) -> Result<(), Failure> {
    let unchanged = |why| format!("adopt Namespace {namespace}: {why}; nothing was changed");
    if !console::can_ask() {
        let error = unchanged("there is no terminal to ask on");
        return Err(Failure::usage(error, "add --yes if you are sure"));
    }
    let question = format!(
        "take namespace {namespace} over, on context {} ({})?",
        connection.context, connection.server
    );
    if console::confirm(question, namespace) {
        return Ok(());
    }
    Err(Failure::usage(unchanged("not confirmed"), ""))
}

//! `provisioner delete`.

use super::open;
use crate::cli::DeleteArgs;
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::fleet::Selection;
use provisioner::{
    Connection, DeleteError, DeleteOptions, Ownership, Tenant, delete, ownership, registration,
    remove_generated,
};
use std::path::Path;
use std::time::Duration;

/// What is removed besides the namespaces, and how long that may take for each tenant.
struct Removal<'a> {
    generated: &'a Path,
    purge_data: bool,
    timeout: Duration,
}

pub(super) async fn run(args: DeleteArgs) -> Result<(), Failure> {
    let members = Selection::from(args.tenants).members()?;
    let tenants: Vec<&Tenant> = members.iter().map(|member| &member.tenant).collect();
    if !args.yes && !console::can_ask() {
        let error = format!("{}: there is no terminal to ask on", heading(&tenants));
        return Err(Failure::usage(error, "add --yes if you are sure"));
    }
    let connection = open(args.cluster).await?;
    let existing = existing(&connection, &tenants).await?;
    if !args.yes && (args.purge_data || !existing.is_empty()) {
        let asked = if args.purge_data { &tenants } else { &existing };
        confirm(&connection, asked, args.purge_data)?;
    }
    let removal = Removal {
        generated: &args.generated.generated,
        purge_data: args.purge_data,
        timeout: args.timeout,
    };
    for tenant in tenants {
        delete_one(&connection, tenant, &removal).await?;
    }
    Ok(())
}

fn heading(tenants: &[&Tenant]) -> String {
    match tenants {
        [tenant] => format!("delete Namespace {}", tenant.namespace()),
        tenants => format!("delete {} namespaces", tenants.len()),
    }
}

/// Those that have a namespace. One that is not ours is refused before any other goes.
async fn existing<'t>(connection: &Connection, tenants: &[&'t Tenant]) -> Result<Vec<&'t Tenant>, Failure> {
    let mut existing = Vec::new();
    for tenant in tenants {
        match ownership(&connection.client, &tenant.id).await? {
            Ownership::Foreign { why } => {
                let namespace = tenant.namespace();
                return Err(DeleteError::Foreign { namespace, why }.into());
            }
            Ownership::Ours { .. } => existing.push(*tenant),
            Ownership::Absent => {}
        }
    }
    Ok(existing)
}

/// Asks once, for all of them.
fn confirm(connection: &Connection, tenants: &[&Tenant], purge_data: bool) -> Result<(), Failure> {
    let (which, word) = match tenants {
        [tenant] => (
            format!("namespace {} and everything in it", tenant.namespace()),
            tenant.id.to_string(),
        ),
        tenants => {
            let names: String = tenants
                .iter()
                .map(|tenant| format!("\n  {}", tenant.namespace()))
                .collect();
            (
                format!("{} namespaces and everything in them{names}\n", tenants.len()),
                tenants.len().to_string(),
            )
        }
    };
    let (data, of) = match (purge_data, tenants.len()) {
        (false, _) => ("", ""),
        (true, 1) => (", and all that PostgreSQL and Redis hold of ", "the tenant"),
        (true, _) => (", and all that PostgreSQL and Redis hold of ", "these tenants"),
    };
    let question = format!(
        "delete {which}{data}{of}, on context {} ({})?",
        connection.context, connection.server
    );
    if console::confirm(&question, &word) {
        return Ok(());
    }
    let error = format!("{}: not confirmed; nothing was deleted", heading(tenants));
    Err(Failure::usage(error, ""))
}

async fn delete_one(connection: &Connection, tenant: &Tenant, removal: &Removal<'_>) -> Result<(), Failure> {
    let (id, namespace) = (&tenant.id, tenant.namespace());
    let options = DeleteOptions {
        deadline: removal.timeout,
    };
    let (client, log) = (&connection.client, Log::default());
    let deleted = delete(client, id, &options, &log).await?;
    if remove_generated(removal.generated, id)? {
        tracing::info!("removed {}", removal.generated.join(id.as_str()).display());
    }
    console::result(if deleted.existed {
        format!("namespace {namespace} is deleted")
    } else {
        format!("namespace {namespace} does not exist")
    });
    if removal.purge_data {
        let was = registration::purge(client, &tenant.shared_services, id, &log, removal.timeout).await?;
        console::result(format_args!("removed from PostgreSQL and Redis: {was}"));
    } else {
        console::result(format_args!(
            "kept: what PostgreSQL and Redis hold of the tenant, rows, queue and accounts; it is removed by: provisioner delete --tenant-id {id} --purge-data"
        ));
    }
    Ok(())
}

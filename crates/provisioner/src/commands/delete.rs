//! `provisioner delete`.

use super::open;
use crate::cli::DeleteArgs;
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::fleet::{Member, Selection};
use provisioner::{
    Connection, DeleteError, DeleteOptions, DnsEntry, Inventory, Ownership, Tenant, delete, inventory,
    ownership, registration, remove_generated,
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
    let tiers = args.tenants.tiers.clone();
    let members = Selection::from(args.tenants).members()?;
    let tenants: Vec<&Tenant> = members.iter().map(|member| &member.tenant).collect();
    if !args.yes && !console::can_ask() {
        let error = format!("{}: there is no terminal to ask on", heading(&tenants));
        return Err(Failure::usage(error, "add --yes if you are sure"));
    }
    let connection = open(args.cluster).await?;
    let existing = existing(&connection, &tenants).await?;
    let removal = Removal {
        generated: &args.generated.generated,
        purge_data: args.purge_data,
        timeout: args.timeout,
    };
    let mut goings = Vec::new();
    for member in &members {
        goings.push(Going::of(&connection, member, tiers.as_deref(), &existing).await?);
    }
    let plan: Vec<String> = goings.iter().flat_map(|going| going.plan(&removal)).collect();
    if !args.yes && (args.purge_data || !existing.is_empty()) {
        let asked: Vec<&Tenant> = if args.purge_data {
            goings.iter().map(|going| going.tenant).collect()
        } else {
            existing
        };
        confirm(&connection, &asked, &plan, args.purge_data)?;
    } else {
        plan.iter().for_each(|line| tracing::info!("{line}"));
    }
    let mut failed = Vec::new();
    for going in &goings {
        match delete_one(&connection, going, &removal).await {
            Ok(()) => {}
            Err(failure) if goings.len() == 1 => return Err(failure),
            Err(failure) => {
                console::complain_of(&going.tenant.namespace(), &failure);
                failed.push(going.tenant.id.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let error = format!(
        "{} of {} tenants are not deleted: {}",
        failed.len(),
        goings.len(),
        failed.join(", ")
    );
    Err(Failure::failed(
        error,
        "mend what is said of each; the same command goes on where it stopped",
    ))
}

/// A tenant that is deleted, and what was there before.
struct Going<'t> {
    tenant: &'t Tenant,
    /// The arguments that name it.
    named: String,
    inventory: Option<Inventory>,
}

impl<'t> Going<'t> {
    async fn of(
        connection: &Connection,
        member: &'t Member,
        tiers: Option<&Path>,
        existing: &[&Tenant],
    ) -> Result<Self, Failure> {
        let tenant = &member.tenant;
        let exists = existing.iter().any(|it| it.id == tenant.id);
        let inventory = match exists {
            true => Some(inventory(&connection.client, &tenant.id).await?),
            false => None,
        };
        // Where its data is, is in its file.
        let mut named = match &member.file {
            Some(file) => format!("-f {}", file.display()),
            None => format!("--tenant-id {}", tenant.id),
        };
        if let Some(tiers) = tiers {
            named = format!("{named} --tiers {}", tiers.display());
        }
        Ok(Self {
            tenant,
            named,
            inventory,
        })
    }

    /// What goes and what stays, line by line.
    fn plan(&self, removal: &Removal<'_>) -> Vec<String> {
        let login = registration::login(&self.tenant.id);
        let mut lines = Vec::new();
        if let Some(inventory) = &self.inventory {
            lines.push(format!("goes: Namespace {}, with", self.tenant.namespace()));
            lines.extend(inventory.lines().into_iter().map(|line| format!("  {line}")));
        }
        let files = removal.generated.join(self.tenant.id.as_str());
        if files.exists() {
            lines.push(format!("goes: generated files in {}", files.display()));
        }
        lines.push(if removal.purge_data {
            format!("goes: role {login} in PostgreSQL with its rows, user {login} in Redis with its keys")
        } else {
            format!(
                "stays: role {login} in PostgreSQL with its rows, user {login} in Redis with its keys (they go with --purge-data)"
            )
        });
        let entries = self.dns_entries();
        lines.extend(entries.iter().map(|entry| {
            format!(
                "stays, yours to remove: DNS entry {} ({})",
                entry.name, entry.from
            )
        }));
        lines
    }

    /// Those that lead to what is there, and the one that the tenant file names.
    fn dns_entries(&self) -> Vec<DnsEntry> {
        let found = self.inventory.iter().flat_map(|inventory| &inventory.dns_entries);
        let mut entries: Vec<DnsEntry> = found.cloned().collect();
        if let Some(host) = &self.tenant.ingress.host {
            let name = host.to_string();
            if !entries.iter().any(|entry| entry.name == name) {
                let from = "ingress.host of the tenant file".to_owned();
                entries.push(DnsEntry { name, from });
            }
        }
        entries
    }
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
fn confirm(
    connection: &Connection,
    tenants: &[&Tenant],
    plan: &[String],
    purge_data: bool,
) -> Result<(), Failure> {
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
    let plan = plan.join("\n");
    let question = format!(
        "{plan}\ndelete {which}{data}{of}, on context {} ({})?",
        connection.context, connection.server
    );
    if console::confirm(&question, &word) {
        return Ok(());
    }
    let error = format!("{}: not confirmed; nothing was deleted", heading(tenants));
    Err(Failure::usage(error, ""))
}

async fn delete_one(
    connection: &Connection,
    going: &Going<'_>,
    removal: &Removal<'_>,
) -> Result<(), Failure> {
    let tenant = going.tenant;
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
    for entry in going.dns_entries() {
        console::result(format_args!(
            "DNS entry {} ({}) leads nowhere now: remove it where your zone is kept",
            entry.name, entry.from
        ));
    }
    if removal.purge_data {
        let was = registration::purge(client, &tenant.shared_services, id, &log, removal.timeout).await?;
        console::result(format_args!("removed from PostgreSQL and Redis: {was}"));
    } else {
        console::result(format_args!(
            "kept: what PostgreSQL and Redis hold of the tenant, rows, queue and accounts; it is removed by: provisioner delete {} --purge-data",
            going.named
        ));
    }
    Ok(())
}

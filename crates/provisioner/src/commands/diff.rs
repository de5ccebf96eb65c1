//! `provisioner diff`, and `provisioner apply --dry-run`.

use super::{Prepared, open, prepare};
use crate::cli::{ClusterArgs, DiffArgs, OutputFormat};
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::diff::{self, Difference, Extras, Options};
use provisioner::{Manifest, TenantId};
use serde::Serialize;
use std::process::ExitCode;

/// Everything that was found out, and what could not be.
#[derive(Serialize)]
struct Differences {
    tenants: Vec<Compared>,
    failed: Vec<Unknown>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared {
    same: bool,
    #[serde(flatten)]
    difference: Difference,
}

/// A tenant about which nothing could be found out.
#[derive(Serialize)]
struct Unknown {
    id: TenantId,
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Something differs.
const DRIFT: u8 = 1;
/// It could not be found out.
const UNKNOWN: u8 = 3;

pub(super) async fn run(args: DiffArgs) -> Result<ExitCode, Failure> {
    let prepared = prepare(args.selection)?;
    let options = Options {
        extras: if args.namespace_only {
            Extras::InNamespace
        } else {
            Extras::InCluster
        },
        ..Options::default()
    };
    let found = compare(args.cluster, &prepared, &options, args.output.output).await?;
    let differs = found.tenants.iter().any(|compared| !compared.same);
    let unseen = found
        .tenants
        .iter()
        .any(|compared| !compared.difference.unseen.is_empty());
    let code = if differs {
        DRIFT
    } else if unseen || !found.failed.is_empty() {
        UNKNOWN
    } else {
        0
    };
    if args.output.output == OutputFormat::Json {
        console::document("Differences", &found);
    }
    Ok(ExitCode::from(code))
}

/// Compares every tenant, whatever becomes of the others; says so at once where that is for people.
async fn compare(
    cluster: ClusterArgs,
    prepared: &[Prepared],
    options: &Options,
    format: OutputFormat,
) -> Result<Differences, Failure> {
    let connection = open(cluster).await?;
    let mut found = Differences {
        tenants: Vec::new(),
        failed: Vec::new(),
    };
    for Prepared { tenant, manifests } in prepared {
        let log = Log::default();
        match diff::tenant(&connection.client, manifests, &tenant.id, options, &log).await {
            Ok(difference) => {
                if format == OutputFormat::Text {
                    console::results(&difference);
                }
                let same = difference.is_same();
                found.tenants.push(Compared { same, difference });
            }
            Err(error) => {
                let failure = Failure::from(error);
                console::complain(&failure);
                found.failed.push(Unknown {
                    id: tenant.id.clone(),
                    error: failure.text(),
                    hint: failure.hint,
                });
            }
        }
    }
    Ok(found)
}

/// Shows what would be sent; asks no cluster.
pub(super) fn client(prepared: &[Prepared], format: OutputFormat) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Sent<'p> {
        id: &'p TenantId,
        objects: Vec<serde_json::Value>,
    }
    #[derive(Serialize)]
    struct Rendered<'p> {
        tenants: Vec<Sent<'p>>,
    }
    let mut tenants = Vec::new();
    for Prepared { tenant, manifests } in prepared {
        if format == OutputFormat::Text {
            for manifest in manifests {
                console::results(format_args!("---\n{}", yaml(manifest)?));
            }
        }
        tenants.push(Sent {
            id: &tenant.id,
            objects: manifests.iter().map(Manifest::shown).collect(),
        });
        let count = manifests.len();
        let namespace = tenant.namespace();
        tracing::info!(
            "dry run: {count} objects are valid for namespace {namespace}; no cluster was asked, and nothing was changed"
        );
    }
    if format == OutputFormat::Json {
        console::document("Rendered", &Rendered { tenants });
    }
    Ok(())
}

fn yaml(manifest: &Manifest) -> Result<String, Failure> {
    let text = manifest.to_yaml();
    text.map_err(|error| Failure::usage(format!("write {} as YAML: {error}", manifest.reference()), ""))
}

/// Shows what an apply would change; fails where it would be refused.
pub(super) async fn server(
    cluster: ClusterArgs,
    prepared: &[Prepared],
    force_conflicts: bool,
    format: OutputFormat,
) -> Result<(), Failure> {
    // What others put beside our objects is nothing that an apply changes.
    let options = Options {
        extras: Extras::Nowhere,
        ..Options::default()
    };
    let found = compare(cluster, prepared, &options, format).await?;
    if format == OutputFormat::Json {
        console::document("Differences", &found);
    }
    tracing::info!("dry run: nothing was changed");
    let in_conflict = found
        .tenants
        .iter()
        .filter(|it| it.difference.is_in_conflict() && !force_conflicts);
    let in_conflict: Vec<&str> = in_conflict.map(|it| it.difference.namespace.as_str()).collect();
    if let Some(unknown) = found.failed.first() {
        let count = found.failed.len();
        let error = format!(
            "dry run: {count} tenant(s) could not be compared, the first is {}: {}",
            unknown.id, unknown.error
        );
        return Err(Failure::failed(error, ""));
    }
    refused_by_the_server(&found)?;
    if in_conflict.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(
        format!(
            "dry run: apply would be refused, since others set fields of {}",
            in_conflict.join(", ")
        ),
        "settle who sets these fields, or take them back with --force-conflicts",
    ))
}

/// Whether conflicts are forced or not.
fn refused_by_the_server(found: &Differences) -> Result<(), Failure> {
    let refused = found.tenants.iter().flat_map(|it| it.difference.refused());
    let refused: Vec<String> = refused.map(|(object, why)| format!("{object}: {why}")).collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(
        format!(
            "dry run: apply would be refused by the API server: {}",
            refused.join("; ")
        ),
        "mend the template; where a field cannot be changed, delete the object as is said above, and apply makes it anew",
    ))
}

//! `provisioner apply`.

use super::{Prepared, open, prepare};
use crate::cli::{ApplyArgs, OutputFormat};
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::{
    Applied, ApplyOptions, Connection, Manifest, Tenant, TenantId, apply, generate, registration,
    wait_ready_for,
};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// How long PostgreSQL and Redis are tried for.
const REGISTER_WITHIN: Duration = Duration::from_secs(30);

/// What became of one tenant.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    id: TenantId,
    namespace: String,
    /// `ready`, or `applied` where that was not awaited.
    state: &'static str,
    #[serde(flatten)]
    applied: Applied,
}

pub(super) async fn run(args: ApplyArgs) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Document {
        tenants: Vec<Outcome>,
    }
    let prepared = prepare(args.selection)?;
    let connection = open(args.cluster).await?;
    let options = ApplyOptions {
        force_conflicts: args.force_conflicts,
        ..ApplyOptions::default()
    };
    let mut tenants = Vec::new();
    for one in &prepared {
        write(&args.generated.generated, &one.tenant, &one.manifests)?;
        let outcome = apply_one(&connection, one, &options, args.timeout).await?;
        if args.output.output == OutputFormat::Text {
            let Outcome {
                namespace,
                state,
                applied,
                ..
            } = &outcome;
            console::result(format_args!("namespace {namespace} is {state}: {applied}"));
        }
        tenants.push(outcome);
    }
    if args.output.output == OutputFormat::Json {
        console::document("Applied", &Document { tenants });
    }
    Ok(())
}

async fn apply_one(
    connection: &Connection,
    Prepared { tenant, manifests }: &Prepared,
    options: &ApplyOptions,
    timeout: Duration,
) -> Result<Outcome, Failure> {
    let (client, log) = (&connection.client, Log::default());
    let applied = apply(client, manifests, &tenant.id, options, &log).await?;
    // What API and worker log in with; they are not ready without.
    if tenant.registration {
        registration::register(client, tenant, &log, REGISTER_WITHIN).await?;
    } else {
        tracing::info!("not registered with PostgreSQL and Redis: the tenant file says so");
    }
    let state = if timeout.is_zero() {
        "applied"
    } else {
        wait_ready_for(client, &tenant.id, manifests, timeout, &log).await?;
        "ready"
    };
    Ok(Outcome {
        id: tenant.id.clone(),
        namespace: tenant.namespace(),
        state,
        applied,
    })
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

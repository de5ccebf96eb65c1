//! `provisioner generate`.

use super::{Prepared, prepare};
use crate::cli::{GenerateArgs, OutputFormat};
use crate::console;
use crate::failure::Failure;
use provisioner::{TenantId, generate};
use serde::Serialize;
use std::path::PathBuf;

/// One tenant's files, in the order in which they are applied.
#[derive(Serialize)]
struct Files {
    id: TenantId,
    files: Vec<PathBuf>,
}

pub(super) fn run(args: GenerateArgs) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Generated {
        tenants: Vec<Files>,
    }
    let mut tenants = Vec::new();
    for Prepared { tenant, manifests } in prepare(args.selection)? {
        let files = generate(&args.generated.generated, &tenant.id, &manifests)?;
        if args.output.output == OutputFormat::Text {
            files.iter().for_each(|file| console::result(file.display()));
        }
        tenants.push(Files { id: tenant.id, files });
    }
    if args.output.output == OutputFormat::Json {
        console::document("Generated", &Generated { tenants });
    }
    Ok(())
}

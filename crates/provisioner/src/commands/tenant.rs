//! `provisioner tenant`.

use crate::cli::TenantNewArgs;
use crate::console;
use crate::failure::Failure;
use provisioner::fleet::Selection;
use provisioner::names::TierName;
use provisioner::tenant;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

pub(super) fn new(args: TenantNewArgs) -> Result<(), Failure> {
    let selection = Selection {
        tiers: args.tiers,
        ..Selection::default()
    };
    let tiers = selection.all_tiers()?;
    let file = args
        .file
        .unwrap_or_else(|| PathBuf::from(format!("{}.yaml", args.id)));
    let Some(mut tenant) = tiers.of_tier(args.id, &args.tier) else {
        let known: Vec<&str> = tiers.names().map(TierName::as_str).collect();
        let error = format!(
            "use tier {}: it does not exist; there are: {}",
            args.tier,
            known.join(", ")
        );
        return Err(Failure::usage(
            error,
            "name one of these, or a tiers file that has it with --tiers FILE",
        ));
    };
    tenant.name = args.name;
    let text = tenant::blank(&tenant).map_err(|error| Failure::failed(error, ""))?;
    let wrong = |error: std::io::Error| {
        let problem = format!("write tenant file {}: {error}", file.display());
        match error.kind() {
            ErrorKind::AlreadyExists => Failure::usage(
                problem,
                "a file that exists is kept; name another with --file PATH",
            ),
            ErrorKind::NotFound => {
                let directory = file.parent().unwrap_or(&file).display();
                Failure::usage(
                    problem,
                    &format!("make its directory first: mkdir -p {directory}"),
                )
            }
            _ => Failure::failed(problem, ""),
        }
    };
    let mut open = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&file)
        .map_err(wrong)?;
    open.write_all(text.as_bytes()).map_err(wrong)?;
    console::result(file.display());
    Ok(())
}

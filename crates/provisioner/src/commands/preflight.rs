//! `provisioner preflight`.

use super::{Prepared, open, prepare};
use crate::cli::{OutputFormat, PreflightArgs};
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::preflight::{Report, Request};
use provisioner::{Manifest, Tenant, preflight};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Something is missing.
const INCOMPLETE: u8 = 1;
/// 128 and the signal's number, as shells have it.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// The exit code of the signal that came.
static CAME: AtomicU8 = AtomicU8::new(INTERRUPTED);

pub(super) async fn run(args: PreflightArgs) -> Result<ExitCode, Failure> {
    let prepared = prepare(args.selection)?;
    let tenants: Vec<(Tenant, Vec<Manifest>)> = prepared
        .into_iter()
        .map(|Prepared { tenant, manifests }| (tenant, manifests))
        .collect();
    let connection = open(args.cluster).await?;
    let request = Request {
        tenants: &tenants,
        skip: args.skip.into_iter().collect(),
        platform_apply: args.platform_apply,
        agent_image: &args.agent_image,
    };
    let report = preflight(&connection.client, &request, interrupted(), &Log::default()).await;
    match args.output.output {
        OutputFormat::Text => console::results(&report),
        OutputFormat::Json => console::document("Preflight", &report),
    }
    Ok(exit_code(&report))
}

fn exit_code(report: &Report) -> ExitCode {
    if report.interrupted {
        return ExitCode::from(CAME.load(Ordering::Relaxed));
    }
    ExitCode::from(if report.is_complete() { 0 } else { INCOMPLETE })
}

/// Ends at the first SIGINT or SIGTERM; the second ends the process and says how to clean up.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without signal handling a signal ends the process.
        return std::future::pending().await;
    };
    let first = tokio::select! {
        _ = interrupt.recv() => INTERRUPTED,
        _ = terminate.recv() => TERMINATED,
    };
    CAME.store(first, Ordering::Relaxed);
    tracing::warn!("interrupted: removing what the canary made; once more leaves it where it is");
    tokio::spawn(async move {
        let code = tokio::select! {
            _ = interrupt.recv() => INTERRUPTED,
            _ = terminate.recv() => TERMINATED,
        };
        tracing::error!(
            "left at once; remove what is left by: kubectl delete namespaces --selector ai-agents-platform/preflight"
        );
        std::process::exit(code.into());
    });
}

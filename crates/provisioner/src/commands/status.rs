//! `provisioner status`.

use super::{Prepared, open, prepare};
use crate::cli::{OutputFormat, StatusArgs};
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::status::{self, State, Status};
use serde::Serialize;
use std::process::ExitCode;

/// A tenant at least is not ready.
const NOT_READY: u8 = 1;
/// It could not be found out, of one tenant at least.
const UNKNOWN: u8 = 3;

pub(super) async fn run(args: StatusArgs) -> Result<ExitCode, Failure> {
    #[derive(Serialize)]
    struct Statuses {
        tenants: Vec<Status>,
    }
    let prepared = prepare(args.selection)?;
    let connection = open(args.cluster).await?;
    let mut tenants = Vec::new();
    for Prepared { tenant, manifests } in &prepared {
        let ask = !args.no_registration;
        let status = status::status(&connection.client, tenant, manifests, ask, &Log::default()).await;
        let status = match status {
            Ok(status) => status,
            Err(error) if prepared.len() == 1 => return Err(Failure::unknown(error)),
            Err(error) => Status::unknown(tenant, &error),
        };
        if args.output.output == OutputFormat::Text {
            console::results(status.text(jiff::Timestamp::now()));
        }
        tenants.push(status);
    }
    let code = exit_code(tenants.iter().map(|status| status.state));
    if args.output.output == OutputFormat::Json {
        console::document("Statuses", &Statuses { tenants });
    }
    Ok(ExitCode::from(code))
}

/// What is known to be missing outranks what is not known.
fn exit_code(mut states: impl Iterator<Item = State>) -> u8 {
    states
        .try_fold(0, |code, state| match state {
            State::Ready => Ok(code),
            State::Unknown => Ok(UNKNOWN),
            _ => Err(NOT_READY),
        })
        .unwrap_or_else(|code| code)
}

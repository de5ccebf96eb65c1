//! `provisioner platform`.

use super::{open, read_file};
use crate::cli::{PlatformApplyArgs, PlatformDiffArgs, PlatformSettingsArgs};
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::{ApplyOptions, Connection, Manifest, Platform, Templates, platform, render_platform};
use std::process::ExitCode;

/// Something differs.
const DRIFT: u8 = 1;
/// It could not be found out.
const UNKNOWN: u8 = 2;

pub(super) async fn diff(args: PlatformDiffArgs) -> Result<ExitCode, Failure> {
    let (settings, manifests) = prepare(&args.settings)?;
    let connection = open(args.cluster).await?;
    let difference = platform::diff(&connection.client, &settings, &manifests, &Log::default())
        .await
        .map_err(Failure::of_a_comparison)?;
    console::results(&difference);
    let code = match (difference.is_same(), difference.unseen.is_empty()) {
        (true, true) => 0,
        (true, false) => UNKNOWN,
        (false, _) => DRIFT,
    };
    Ok(ExitCode::from(code))
}

pub(super) async fn apply(args: PlatformApplyArgs) -> Result<(), Failure> {
    let (settings, manifests) = prepare(&args.settings)?;
    let Connection {
        client,
        context,
        server,
        ..
    } = open(args.cluster).await?;
    let log = Log::default();
    let difference = platform::diff(&client, &settings, &manifests, &log).await?;
    console::results(&difference);
    if !difference.is_applied() && !args.yes {
        let unchanged = |why| format!("apply platform: {why}; nothing was changed");
        if !console::can_ask() {
            let error = unchanged("there is no terminal to ask on");
            return Err(Failure::usage(error, "add --yes if you are sure"));
        }
        let question = format!("do this on context {context} ({server})?");
        if !console::confirm(question, "yes") {
            return Err(Failure::usage(unchanged("not confirmed"), ""));
        }
    }
    let options = ApplyOptions {
        force_conflicts: args.force_conflicts,
        ..ApplyOptions::default()
    };
    let applied = platform::apply(&client, &settings, &manifests, &options, &log).await?;
    console::result(format_args!("platform is applied: {applied}"));
    Ok(())
}

fn prepare(args: &PlatformSettingsArgs) -> Result<(Platform, Vec<Manifest>), Failure> {
    let settings = match &args.file {
        None => Platform::default(),
        Some(file) => read_file("platform settings", file, Platform::from_yaml)?,
    };
    let templates = match &args.templates {
        Some(directory) => Templates::embedded_platform().changed_by(directory)?,
        None => Templates::embedded_platform(),
    };
    let manifests = render_platform(&settings, &templates)?;
    Ok((settings, manifests))
}

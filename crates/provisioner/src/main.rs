//! The command `provisioner`: parses, runs, and maps to an exit code.

mod cli;
mod commands;
mod console;
mod failure;

use clap::Parser;
use cli::Cli;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    console::start_logging(cli.verbosity());
    match commands::run(cli).await {
        Ok(code) => code,
        Err(failure) => {
            console::complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}

//! The command line of the agent: parses, runs, and maps to an exit code.

use clap::{Args, Parser, Subcommand};
use probe::attempt::{self, Finished};
use probe::protocol::MAX_CONCURRENCY;
use probe::serve::{Config, Server};
use probe::{Failure, session, witness};
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a request that was refused, as of a command line that is wrong.
const REFUSED: u8 = 2;

/// The agent that runs inside pods: listens, connects, and reports what it saw as JSON lines.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(ServeArgs),
    Attempt(AttemptArgs),
    Witness(WitnessArgs),
    Session(SessionArgs),
}

/// Listen, give nonces back, and remember who sent them.
///
/// Prints one JSON line once it listens on every port, and serves until SIGTERM or SIGINT. Every TCP port
/// answers `PROBE/1 <nonce>` lines and HTTP/1 requests of any path; every UDP port answers `PROBE/1 <nonce>`.
#[derive(Args)]
struct ServeArgs {
    /// TCP ports, separated by commas; 0 takes any free one.
    #[arg(long, env = "PROBE_TCP", value_name = "PORTS", default_value = "", hide_default_value = true, value_parser = parse_ports)]
    tcp: Ports,
    /// UDP ports, separated by commas; 0 takes any free one.
    #[arg(long, env = "PROBE_UDP", value_name = "PORTS", default_value = "", hide_default_value = true, value_parser = parse_ports)]
    udp: Ports,
    /// Address to listen on [default: any]. With several addresses, UDP needs one agent for each.
    #[arg(long, env = "PROBE_BIND", value_name = "ADDR")]
    bind: Option<IpAddr>,
    #[command(flatten)]
    control: ControlArgs,
}

/// Make the attempts that one line of JSON on stdin asks for.
///
/// Prints one JSON line for each attempt as it ends, then a summary. Exit codes: 0 all were made, 1 their
/// outcomes could not be written, 2 the request was refused and nothing was sent (the summary says why).
#[derive(Args)]
struct AttemptArgs {}

/// Print the nonces that the agent serving in this pod has seen.
///
/// Prints one JSON line for each, oldest first, then a summary. Exit codes: 0 that is all of them, 1 no agent
/// answered, 2 it no longer has all (the summary says why).
#[derive(Args)]
struct WitnessArgs {
    /// Only those from this moment on, in milliseconds since the Unix epoch.
    #[arg(long, value_name = "N", default_value_t = 0)]
    since_ms: u64,
    #[command(flatten)]
    control: ControlArgs,
}

/// Answer many questions, one a line of JSON on stdin, until stdin ends.
///
/// A question is `{"ask": N, "attempt": REQUEST}`, `{"ask": N, "witness": SINCE_MS}`, or what to say to PostgreSQL or Redis:
/// `{"ask": N, "sql": REQUEST}`, `{"ask": N, "redis": REQUEST}`. Every line of the answer repeats N; its last has `end`. Exit codes: 0 stdin ended, 1 the answers could not be written.
#[derive(Args)]
struct SessionArgs {
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Args)]
struct ControlArgs {
    /// Name of the abstract unix socket between `serve` and who asks it.
    #[arg(long = "control", env = "PROBE_CONTROL", value_name = "NAME", default_value = witness::DEFAULT_CONTROL)]
    name: String,
}

#[derive(Debug, Clone)]
struct Ports(Vec<u16>);

fn parse_ports(list: &str) -> Result<Ports, String> {
    let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
    let parse = |word: &str| {
        word.parse()
            .map_err(|_| format!("expected port numbers separated by commas, got {word:?}"))
    };
    words.map(parse).collect::<Result<_, _>>().map(Ports)
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let result = match command {
        Command::Serve(args) => runtime.block_on(serve(args)),
        Command::Attempt(AttemptArgs {}) => runtime
            .block_on(attempt::run(tokio::io::stdin(), io::stdout()))
            .map(|finished| match finished {
                Finished::Done => ExitCode::SUCCESS,
                Finished::Refused => ExitCode::from(REFUSED),
            }),
        Command::Witness(args) => witness::ask(&args.control.name, args.since_ms, &mut io::stdout().lock())
            .map(|summary| {
                if summary.refused.is_some() {
                    ExitCode::from(REFUSED)
                } else {
                    ExitCode::SUCCESS
                }
            }),
        Command::Session(args) => runtime
            .block_on(session::run(tokio::io::stdin(), io::stdout(), &args.control.name))
            .map(|()| ExitCode::SUCCESS),
    };
    // A name that is still being resolved, or a stdin that stays open, must not hold up the end.
    runtime.shutdown_background();
    result.unwrap_or_else(|failure| failed(&failure))
}

/// Threads are for names being resolved, which may last longer than the attempts that wanted them: twice as
/// many as attempts at once, and not as many as a small pod's limit of processes.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2 * MAX_CONCURRENCY)
        .build()
}

async fn serve(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = Config {
        tcp: args.tcp.0,
        udp: args.udp.0,
        bind: args.bind,
        control: args.control.name,
    };
    let server = Server::bind(&config).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| no_signals(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| no_signals(&error))?;
    if let Ok(ready) = serde_json::to_string(&server.listening()) {
        // Who started it need not read on; the ports are open all the same.
        let _ = writeln!(io::stdout(), "{ready}");
    }
    tokio::select! {
        () = server.serve() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn no_signals(error: &io::Error) -> Failure {
    Failure::new(
        format!("cannot listen for SIGTERM and SIGINT: {error}"),
        "check the limit of open files (ulimit -n)",
    )
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    // If stderr is gone too, the exit code is what is left.
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::FAILURE
}

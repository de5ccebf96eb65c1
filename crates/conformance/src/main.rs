//! `conformance`: parses the command line, runs, writes documents, maps to an exit code.

mod selftest_command;

use clap::Parser;
use conformance::check::sen_01;
use conformance::clean::{self, Which};
use conformance::cli::{Clean, Cli, ClusterArgs, Command, Explain, Run};
use conformance::describe;
use conformance::document::file::ReportFile;
use conformance::document::{junit, terminal};
use conformance::event::{Event, Events};
use conformance::fault::{ByHand, Services};
use conformance::names::RunId;
use conformance::plan::Selection;
use conformance::report::{EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_USAGE, Report};
use conformance::run::{self, Request, RunError};
use conformance::settings::{self, Overrides, Settings, known_check};
use conformance::signal;
use conformance::stage::Surroundings;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    // The only TLS provider there is: a second call would be a fault, the first cannot fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    log(cli.verbose);
    let result = match cli.command {
        Command::Run(args) => run(*args).await,
        Command::Selftest(args) => selftest_command::selftest(args).await,
        Command::List(args) => selftest_command::list(&args),
        Command::Explain(args) => explain(&args),
        Command::Clean(args) => clean(args).await,
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

fn log(verbose: u8) {
    let filter = match verbose {
        // What fails is said by the events: the client's own account of each failed call would drown them.
        0 => "error,kube_client=off",
        1 => "info,conformance=debug,provisioner=debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
}

/// An error as the user sees it.
struct Failure {
    what: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    fn report(self) -> ExitCode {
        let mut stderr = anstream::stderr();
        // stderr gone: the exit code says it all the same.
        let _ = writeln!(stderr, "error: {}", self.what);
        if let Some(hint) = self.hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = if error.is_usage() {
            EXIT_USAGE
        } else {
            EXIT_INCONCLUSIVE
        };
        Failure {
            what: error.to_string(),
            hint: error.hint(),
            code,
        }
    }
}

impl From<settings::SettingsError> for Failure {
    fn from(error: settings::SettingsError) -> Self {
        RunError::from(error).into()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure {
            what: format!("write the output: {error}"),
            hint: None,
            code: EXIT_INCONCLUSIVE,
        }
    }
}

/// Prints a result on stdout. A reader that has gone away wants no more of it.
fn print(text: &str) -> io::Result<()> {
    match write!(anstream::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn explain(args: &Explain) -> Result<u8, Failure> {
    print(&describe::explain(known_check(&args.id)?))?;
    Ok(0)
}

/// The settings, with what flags say: of the cluster, and `overrides`.
fn resolve(cluster: &ClusterArgs, overrides: Overrides) -> Result<Settings, settings::SettingsError> {
    let overrides = Overrides {
        config: cluster.config.clone(),
        kubeconfig: cluster.kubeconfig.clone(),
        allow_clusters: cluster.allow_cluster.clone(),
        allow_shared_namespaces: cluster.allow_shared_namespaces.clone(),
        allow_webhooks: cluster.allow_webhooks,
        ..overrides
    };
    settings::resolve(&cluster.cluster, &overrides)
}

/// Where ledgers are kept: state, by the XDG Base Directory Specification.
fn ledgers() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("ai-agents-conformance")
}

async fn run(args: Run) -> Result<u8, Failure> {
    let overrides = Overrides {
        tenants: args.tenants,
        timeout: args.timeout,
        agent_image: args.agent_image,
        ..Overrides::default()
    };
    let settings = resolve(&args.cluster, overrides)?;
    let mut skip = args.skip;
    if args.no_sensitivity {
        skip.push(sen_01::ID.to_owned());
    }
    let selection = Selection {
        only: args.only,
        skip,
        keep: args.keep,
    };
    let request = Request {
        settings,
        selection,
        ledgers: ledgers(),
        templates: BTreeMap::new(),
        services: Services::default(),
        by_hand: ByHand::default(),
        around: Surroundings::default(),
    };
    if args.dry_run {
        return dry_run(&request).await;
    }
    // Opened before anything is made: a report that cannot be written is found out now.
    let junit = args.junit.map(open).transpose()?;
    let waivers = request.settings.waivers.clone();
    let (events, received) = Events::channel();
    let cancel = CancellationToken::new();
    let told = events.clone();
    let signal = signal::watch(
        move |by| told.send(Event::Interrupted(by.to_owned())),
        cancel.clone(),
    );
    let shown = tokio::spawn(follow(received, Report::new(waivers, jiff::Zoned::now().date())));
    let outcome = run::run(request, events.clone(), cancel).await;
    events.send(Event::Ended);
    let (mut report, begin) = shown.await.map_err(|error| io::Error::other(error.to_string()))?;
    let signalled = signal.interrupted_by();
    report.failure = outcome.as_ref().err().map(ToString::to_string);
    // The verdict is shown first: a full disk must not take it away too.
    if outcome.is_ok() {
        print(&format!("{}\n", terminal::closing(&report, begin.elapsed())))?;
    }
    if let Some(file) = junit {
        let xml = junit::document(&report).map_err(|error| io::Error::other(error.to_string()))?;
        file.write(&xml)?;
    }
    let code = match outcome.map_err(Failure::from) {
        Ok(()) => report.ending().code(),
        Err(failure) if signalled.is_none() => return Err(failure),
        Err(failure) => {
            failure.report();
            EXIT_INTERRUPTED
        }
    };
    Ok(match signalled {
        Some(signal) if code == EXIT_INTERRUPTED => signal.exit_code(),
        _ => code,
    })
}

async fn dry_run(request: &Request) -> Result<u8, Failure> {
    let preview = run::preview(request).await?;
    let run = RunId::random().map_err(|error| io::Error::other(error.to_string()))?;
    print(&describe::preview(&preview, &run))?;
    Ok(if preview.refused.is_some() || !preview.missing.is_empty() {
        EXIT_USAGE
    } else {
        0
    })
}

fn open(path: PathBuf) -> Result<ReportFile, Failure> {
    let shown = path.display().to_string();
    ReportFile::open(path).map_err(|error| Failure {
        what: format!("open the report {shown}: {error}"),
        hint: Some(
            "name a file in a directory that exists and can be written: --junit FILE; nothing was run"
                .to_owned(),
        ),
        code: EXIT_USAGE,
    })
}

/// The one consumer of events: shows each, and folds them into the report.
async fn follow(mut events: UnboundedReceiver<Event>, mut report: Report) -> (Report, Instant) {
    let begin = Instant::now();
    while let Some(event) = events.recv().await {
        if event == Event::Ended {
            break;
        }
        report.absorb(&event);
        if let Some(line) = terminal::line(&event, begin.elapsed()) {
            // stderr gone: the run goes on, and the reports and the exit code tell its end.
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    }
    (report, begin)
}

async fn clean(args: Clean) -> Result<u8, Failure> {
    let settings = resolve(&args.cluster, Overrides::default())?;
    let which = match (args.run, args.all) {
        (Some(run), _) => Which::Run(checked_run(run)?),
        (None, true) => Which::All,
        (None, false) => Which::Abandoned,
    };
    let cleaned = clean::clean(&settings, &ledgers(), &which).await?;
    let mut text = String::new();
    for (run, entry) in &cleaned.removed {
        text.push_str(&format!("removed  {run}  {entry}\n"));
    }
    for (run, entry) in &cleaned.spared {
        text.push_str(&format!(
            "kept     {run}  {entry} (its time is not up: --run {run} removes it all the same)\n"
        ));
    }
    for (run, entry, why) in &cleaned.failed {
        text.push_str(&format!("failed   {run}  {entry}: {why}\n"));
    }
    let (removed, failed, kept) = (cleaned.removed.len(), cleaned.failed.len(), cleaned.spared.len());
    print(&format!(
        "{text}{removed} removed, {failed} failed, {kept} kept\n"
    ))?;
    Ok(if cleaned.failed.is_empty() {
        0
    } else {
        EXIT_INCONCLUSIVE
    })
}

fn checked_run(run: String) -> Result<String, Failure> {
    match RunId::parse(&run) {
        Some(_) => Ok(run),
        None => Err(Failure {
            what: format!("--run {run:?} is no run id: expected eight hexadecimal digits"),
            hint: Some("a run's id is in its banner, in its report, and in what it left: conformance clean without --run lists that".to_owned()),
            code: EXIT_USAGE,
        }),
    }
}

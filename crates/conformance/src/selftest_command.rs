//! `conformance selftest`: arguments into a request, steps onto the terminal and into the matrix, the matrix into documents and an exit code.

use crate::{Failure, ledgers, open, print, resolve};
use conformance::cli::{List, Selftest};
use conformance::document::matrix::{self as shown, junit, markdown};
use conformance::fault::{self, Fault};
use conformance::report::EXIT_INTERRUPTED;
use conformance::selftest::matrix::Matrix;
use conformance::selftest::{self, Request, Step, Steps};
use conformance::settings::{Overrides, SettingsError};
use conformance::signal;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

pub(crate) fn list(args: &List) -> Result<u8, Failure> {
    match &args.faults {
        None => print(&conformance::describe::list())?,
        Some(directory) => print(&shown::list(&faults(directory.as_deref())?))?,
    }
    Ok(0)
}

fn faults(directory: Option<&Path>) -> Result<Vec<Fault>, SettingsError> {
    directory.map_or_else(fault::embedded, fault::read)
}

pub(crate) async fn selftest(args: Selftest) -> Result<u8, Failure> {
    let overrides = Overrides {
        agent_image: args.agent_image,
        ..Overrides::default()
    };
    let request = Request {
        settings: resolve(&args.cluster, overrides)?,
        faults: fault::choose(faults(args.faults.as_deref())?, &args.only)?,
        jobs: args.jobs,
        ledgers: ledgers(),
    };
    let junit = args.junit.map(open).transpose()?;
    let markdown = args.markdown.map(open).transpose()?;
    let begin = Instant::now();
    let (steps, received) = Steps::channel();
    let cancel = CancellationToken::new();
    let told = steps.clone();
    let signal = signal::watch(
        move |by| told.send(Step::Interrupted(by.to_owned())),
        cancel.clone(),
    );
    let followed = tokio::spawn(follow(received, begin));
    let outcome = selftest::run(request, steps.clone(), cancel).await;
    steps.send(Step::Ended);
    let mut matrix = followed
        .await
        .map_err(|error| io::Error::other(error.to_string()))?;
    matrix.failure = outcome.as_ref().err().map(ToString::to_string);
    let took = begin.elapsed();
    if outcome.is_ok() {
        print(&format!("{}\n", shown::closing(&matrix, took)))?;
    }
    if let Some(file) = junit {
        let xml = junit::document(&matrix, took).map_err(|error| io::Error::other(error.to_string()))?;
        file.write(&xml)?;
    }
    if let Some(file) = markdown {
        file.write(markdown::document(&matrix, took).as_bytes())?;
    }
    outcome?;
    let code = matrix.ending().code();
    Ok(match signal.interrupted_by() {
        Some(signal) if code == EXIT_INTERRUPTED => signal.exit_code(),
        _ => code,
    })
}

/// The one consumer of steps: shows each, and folds them into the matrix.
async fn follow(mut steps: UnboundedReceiver<Step>, begin: Instant) -> Matrix {
    let mut matrix = Matrix::default();
    let mut screen = Screen::default();
    while let Some(step) = steps.recv().await {
        if step == Step::Ended {
            break;
        }
        matrix.absorb(&step);
        let line = line(&matrix, &step, begin.elapsed());
        match step {
            Step::Started(fault) => screen.under_way.push(fault),
            Step::Finished(trial) => screen.under_way.retain(|fault| *fault != trial.fault),
            _ => {}
        }
        let done = matrix.rows.iter().filter(|row| row.trial.is_some()).count();
        let all = matrix
            .rows
            .iter()
            .filter(|row| row.planned.cluster.is_none())
            .count();
        screen.show(line.as_deref(), done, all);
    }
    screen.clear();
    matrix
}

fn line(matrix: &Matrix, step: &Step, elapsed: Duration) -> Option<String> {
    match step {
        Step::Began(beginning) => Some(shown::banner(beginning)),
        Step::Finished(trial) => {
            let cluster = matrix
                .beginning
                .as_ref()
                .map_or("", |beginning| &beginning.cluster);
            matrix
                .row(&trial.fault)
                .map(|row| shown::line(row, cluster, elapsed))
        }
        Step::Notice(what) => Some(shown::notice(what, elapsed)),
        Step::Interrupted(by) => Some(shown::interrupted(by, elapsed)),
        Step::Started(_) | Step::Ended => None,
    }
}

/// The terminal: finished lines, and below them, where somebody watches, one that says what is under way.
#[derive(Default)]
struct Screen {
    under_way: Vec<String>,
    drawn: bool,
}

impl Screen {
    // stderr gone: the selftest goes on, and the reports and the exit code tell its end. So below.
    fn show(&mut self, line: Option<&str>, done: usize, all: usize) {
        self.clear();
        if let Some(line) = line {
            let _ = writeln!(anstream::stderr(), "{line}");
        }
        if io::stderr().is_terminal() && !self.under_way.is_empty() {
            let _ = write!(
                anstream::stderr(),
                "{}",
                shown::under_way(done, all, &self.under_way)
            );
            self.drawn = true;
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}

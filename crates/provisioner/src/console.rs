//! Everything that the command prints: logs and complaints on stderr, results on stdout.

use crate::failure::Failure;
use provisioner::{Progress, Step};
use serde::Serialize;
use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::EnvFilter;

pub(crate) fn start_logging(verbosity: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(verbosity));
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_writer(|| Stderr)
        .with_ansi(io::stderr().is_terminal() && !plain)
        .with_target(false)
        .without_time()
        .with_env_filter(filter)
        .init();
}

/// A line of the result. A reader that has gone away is no failure of the operation.
pub(crate) fn result(line: impl Display) {
    results(format_args!("{line}\n"));
}

pub(crate) fn complain(failure: &Failure) {
    complain_about("", failure);
}

/// The failure of one of several.
pub(crate) fn complain_of(namespace: &str, failure: &Failure) {
    complain_about(&format!("namespace {namespace}: "), failure);
}

fn complain_about(whom: &str, failure: &Failure) {
    around_the_line(|| {
        let mut stderr = anstream::stderr();
        let _ = writeln!(stderr, "error: {whom}{}", failure.text());
        if let Some(hint) = &failure.hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
    });
}

/// Several lines of the result.
pub(crate) fn results(lines: impl Display) {
    around_the_line(|| {
        let _ = write!(anstream::stdout(), "{lines}");
    });
}

/// Whether somebody watches.
pub(crate) fn has_terminal() -> bool {
    io::stderr().is_terminal()
}

/// The one line at the end of the terminal that says how far the work is; empty where there is none.
static LINE: Mutex<String> = Mutex::new(String::new());

const ERASE: &str = "\r\x1b[2K";

/// Writes something else: the line makes way for it and comes again behind it.
fn around_the_line<T>(write: impl FnOnce() -> T) -> T {
    let line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    if line.is_empty() {
        return write();
    }
    let _ = write!(io::stderr(), "{ERASE}");
    let written = write();
    let _ = write!(io::stderr(), "{line}");
    written
}

/// Where the log is written to: each of its lines comes in one piece.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        around_the_line(|| io::stderr().write_all(bytes)).map(|()| bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Counts the tenants that are done, in the one line at the end of a terminal; where there is none it says nothing.
pub(crate) struct Tally {
    total: usize,
    done: usize,
    failed: usize,
}

impl Tally {
    /// Of no tenant there is nothing to be told.
    pub(crate) fn new(total: usize) -> Self {
        let tally = Self {
            total: if has_terminal() { total } else { 0 },
            done: 0,
            failed: 0,
        };
        tally.draw();
        tally
    }

    pub(crate) fn done(&mut self, failed: bool) {
        self.done += 1;
        self.failed += usize::from(failed);
        self.draw();
    }

    fn draw(&self) {
        if self.total == 0 {
            return;
        }
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        self.set(format!("{} of {} tenants done{failed}", self.done, self.total));
    }

    fn set(&self, text: String) {
        let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = write!(io::stderr(), "{ERASE}{text}");
        *line = text;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.total > 0 {
            self.set(String::new());
        }
    }
}

/// A result as one JSON document that says what it is.
pub(crate) fn document(kind: &'static str, body: &impl Serialize) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a, T> {
        api_version: &'static str,
        kind: &'static str,
        #[serde(flatten)]
        body: &'a T,
    }
    let document = Document {
        api_version: "ai-agents-platform/v1",
        kind,
        body,
    };
    match serde_json::to_string_pretty(&document) {
        Ok(text) => result(text),
        Err(error) => tracing::error!("write {kind} as JSON: {error}"),
    }
}

/// Whether somebody is there to answer.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for this very word; anything else is a no.
pub(crate) fn confirm(question: impl Display, word: &str) -> bool {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{question}\ntype {word} to go on: ");
    let _ = stderr.flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == word
}

/// Writes every step to the log.
#[derive(Default)]
pub(crate) struct Log {
    /// What is being waited for, as far as it was said already.
    said: Mutex<HashSet<String>>,
    /// Steps are only for those who ask for them; what goes wrong is for everybody.
    brief: bool,
}

impl Log {
    pub(crate) fn of_steps(brief: bool) -> Self {
        Self {
            brief,
            ..Self::default()
        }
    }

    /// Of what is waited for, only what is new is worth a line.
    fn waiting(&self, lines: impl Iterator<Item = String>) {
        let now: HashSet<String> = lines.collect();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<&String> = now.difference(&said).collect();
        new.sort();
        for line in new {
            tracing::info!("waiting {line}");
        }
        *said = now;
    }
}

impl Progress for Log {
    fn step(&self, step: &Step) {
        match step {
            Step::Retrying { what, why } => tracing::warn!("trying again: {what}: {why}"),
            step if self.brief => tracing::debug!("{step:?}"),
            Step::Created(object) => tracing::info!("created {object}"),
            Step::Updated(object) => tracing::info!("changed {object}"),
            Step::Unchanged(object) => tracing::info!("unchanged {object}"),
            Step::Pruned(object) => tracing::info!("pruned {object}: the templates no longer contain it"),
            Step::Skipped { object, why } => tracing::warn!("skipped {object}: {why}"),
            Step::Deleted(object) => tracing::info!("deleted {object}"),
            Step::Waiting(missing) => {
                self.waiting(missing.iter().map(|missing| format!("for {missing}")));
            }
            Step::Leaving(objects) => {
                self.waiting(objects.iter().map(|object| format!("until {object} is gone")));
            }
            Step::Ready => {
                tracing::info!("verified: quota in force, accounts there, workloads rolled out and serving");
            }
            Step::Registered { what, change } => tracing::info!("{change} {what}"),
            Step::Purged { login, was } => tracing::info!("removed of {login}: {was}"),
            Step::Note(text) => tracing::info!("{text}"),
            other => tracing::debug!("{other:?}"),
        }
    }
}

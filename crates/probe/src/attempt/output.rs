//! JSON lines to stdout from a thread of its own: a slow reader holds up no attempt and distorts no timing,
//! and a reader that is gone is noticed.

use serde::Serialize;
use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the reader may take, after the last line, to read the rest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where lines go; each is flushed. What waits to be written is bounded by the attempts of the requests under way.
#[derive(Clone)]
pub(crate) struct Lines(mpsc::Sender<String>);

/// Tells when lines can no longer be written.
pub(crate) struct End(oneshot::Receiver<io::Result<()>>);

pub(crate) fn start(mut sink: impl Write + Send + 'static) -> (Lines, End) {
    let (lines, waiting) = mpsc::channel::<String>();
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let mut write = |line: String| sink.write_all(line.as_bytes()).and_then(|()| sink.flush());
        // Nobody listens for the end if the process is ending anyway.
        let _ = end.send(waiting.into_iter().try_for_each(&mut write));
    });
    (Lines(lines), End(ended))
}

impl Lines {
    /// Hands over a line; if the reader is gone, [`End::broken`] tells.
    pub(crate) fn line(&self, document: &impl Serialize) {
        if let Ok(text) = serde_json::to_string(document) {
            let _ = self.0.send(text + "\n");
        }
    }
}

impl End {
    /// Ends only if the lines can no longer be written. May be dropped and called again.
    pub(crate) async fn broken(&mut self) -> io::Error {
        error_of((&mut self.0).await)
    }

    /// Waits, within reason, until all lines are written. `last` is the last of the line's senders.
    pub(crate) async fn finish(self, last: Lines) -> io::Result<()> {
        drop(last);
        match timeout(PATIENCE, self.0).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn error_of(ended: Result<io::Result<()>, oneshot::error::RecvError>) -> io::Error {
    match ended {
        Ok(Err(error)) => error,
        _ => io::ErrorKind::BrokenPipe.into(),
    }
}

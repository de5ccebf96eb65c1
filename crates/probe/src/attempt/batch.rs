//! `probe attempt`: one request in, an outcome a line as each attempt ends, then a summary.

use super::output::Output;
use super::{attempt, request};
use crate::Failure;
use crate::protocol::{Request, Summary};
use std::io::Write;
use tokio::io::AsyncRead;
use tokio::task::JoinSet;

/// How a whole request ended; the caller knows from the [`Summary`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// Every attempt was made and reported.
    Done,
    /// The request was refused and nothing was sent.
    Refused,
}

/// Reads one request line from `input`, makes its attempts, and writes what became of them to `sink`. It ends
/// by itself: the line has its time, every attempt has its own, and the reader has 30 seconds after the last.
///
/// # Errors
/// If the lines cannot be written: attempts that were not begun are dropped, those under way abandoned.
pub async fn run(
    input: impl AsyncRead + Unpin,
    sink: impl Write + Send + 'static,
) -> Result<Finished, Failure> {
    let mut output = Output::start(sink);
    let (finished, summary) = match request::read(input).await {
        Ok(request) => (
            Finished::Done,
            Summary {
                done: attempt_all(request, &mut output).await?,
                refused: None,
            },
        ),
        Err(why) => (
            Finished::Refused,
            Summary {
                done: 0,
                refused: Some(why),
            },
        ),
    };
    output.line(&summary);
    output.finish().await.map_err(|error| lost(&error))?;
    Ok(finished)
}

async fn attempt_all(request: Request, output: &mut Output) -> Result<usize, Failure> {
    let mut waiting = request.attempts.into_iter();
    let mut under_way = JoinSet::new();
    let mut done = 0;
    loop {
        let free = request.concurrency - under_way.len();
        for next in waiting.by_ref().take(free) {
            under_way.spawn(async move { attempt(&next).await });
        }
        tokio::select! {
            ended = under_way.join_next() => match ended {
                None => return Ok(done),
                Some(Ok(outcome)) => {
                    output.line(&outcome);
                    done += 1;
                }
                // Without a summary the output proves nothing, which is the truth here.
                Some(Err(error)) => return Err(Failure::new(format!("an attempt broke off: {error}"), "this is a defect of the agent: please report it")),
            },
            error = output.broken() => return Err(lost(&error)),
        }
    }
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(
        format!("cannot write the outcomes to stdout: {error}"),
        "keep reading stdout until the summary line has come",
    )
}

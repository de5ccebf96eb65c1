//! `probe attempt`: one request in, an outcome a line as each attempt ends, then a summary.

use super::{attempt, output, request};
use crate::Failure;
use crate::protocol::{Outcome, Request, Summary};
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
    let (lines, mut end) = output::start(sink);
    let (finished, summary) = match request::read(input).await {
        Ok(request) => {
            let done = tokio::select! {
                done = attempt_all(request, |outcome| lines.line(&outcome)) => done?,
                error = end.broken() => return Err(lost(&error)),
            };
            (Finished::Done, Summary { done, refused: None })
        }
        Err(why) => (
            Finished::Refused,
            Summary {
                done: 0,
                refused: Some(why),
            },
        ),
    };
    lines.line(&summary);
    end.finish(lines).await.map_err(|error| lost(&error))?;
    Ok(finished)
}

/// Makes all attempts of a request and hands over each outcome as it comes; how many there were.
///
/// # Errors
/// One broke off. Without a summary the output proves nothing, which is the truth then.
pub(crate) async fn attempt_all(request: Request, mut ended: impl FnMut(Outcome)) -> Result<usize, Failure> {
    let mut waiting = request.attempts.into_iter();
    let mut under_way = JoinSet::new();
    let mut done = 0;
    loop {
        let free = request.concurrency - under_way.len();
        for next in waiting.by_ref().take(free) {
            under_way.spawn(async move { attempt(&next).await });
        }
        match under_way.join_next().await {
            None => return Ok(done),
            Some(Ok(outcome)) => {
                ended(outcome);
                done += 1;
            }
            Some(Err(error)) => {
                return Err(Failure::new(
                    format!("an attempt broke off: {error}"),
                    "this is a defect of the agent: please report it",
                ));
            }
        }
    }
}

/// Who reads stdout is gone.
pub(crate) fn lost(error: &std::io::Error) -> Failure {
    Failure::new(
        format!("cannot write the outcomes to stdout: {error}"),
        "keep reading stdout until the last line has come",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Ending, Line, VERSION};
    use std::io::{self, ErrorKind};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};
    use tokio::io::AsyncWriteExt;
    use tokio::net::UdpSocket;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Write::write(&mut *self.0.lock().unwrap(), bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn lines(&self) -> Vec<Line> {
            let bytes = self.0.lock().unwrap();
            assert!(bytes.ends_with(b"\n"));
            bytes
                .trim_ascii_end()
                .split(|&b| b == b'\n')
                .map(|l| serde_json::from_slice(l).unwrap())
                .collect()
        }
    }

    /// A request for datagrams to a peer that never answers.
    fn request(silent: &UdpSocket, count: u32, concurrency: usize, timeout_ms: u64) -> Vec<u8> {
        let port = silent.local_addr().unwrap().port();
        let attempt = |id| {
            serde_json::json!({"id": id, "protocol": "udp", "host": "127.0.0.1", "port": port,
                               "nonce": format!("nonce-{id:04}"), "timeout_ms": timeout_ms})
        };
        let attempts: Vec<_> = (0..count).map(attempt).collect();
        let request =
            serde_json::json!({"version": VERSION, "concurrency": concurrency, "attempts": attempts});
        format!("{request}\n").into_bytes()
    }

    async fn silent() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test]
    async fn each_attempt_has_one_outcome_and_the_summary_is_last_while_stdin_stays_open() {
        let (mut caller, stdin) = tokio::io::duplex(1 << 16);
        let (silent, sink) = (silent().await, Sink::default());
        caller.write_all(&request(&silent, 9, 4, 20)).await.unwrap();
        assert_eq!(run(stdin, sink.clone()).await, Ok(Finished::Done));
        drop(caller);
        let mut lines = sink.lines();
        assert_eq!(
            lines.pop(),
            Some(Line::Summary(Summary {
                done: 9,
                refused: None
            }))
        );
        let mut ids: Vec<_> = lines.iter().map(|line| id_of(line, Ending::TimedOut)).collect();
        ids.sort_unstable();
        assert_eq!(ids, Vec::from_iter(0..9));
    }

    fn id_of(line: &Line, ending: Ending) -> u32 {
        match line {
            Line::Outcome(outcome) if outcome.ending == ending => outcome.id,
            line => panic!("expected an outcome that ended {ending:?}: {line:?}"),
        }
    }

    #[tokio::test]
    async fn no_more_are_under_way_than_asked() {
        let (silent, begun) = (silent().await, Instant::now());
        run(request(&silent, 9, 3, 30).as_slice(), Sink::default())
            .await
            .unwrap();
        assert!(
            begun.elapsed() >= Duration::from_millis(3 * 30),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test]
    async fn a_refused_request_sends_nothing() {
        let (silent, sink) = (silent().await, Sink::default());
        let finished = run(request(&silent, 2, 129, 100).as_slice(), sink.clone()).await;
        assert_eq!(finished, Ok(Finished::Refused));
        let refused = Some("expected a concurrency from 1 to 128, got 129".to_owned());
        assert_eq!(sink.lines(), [Line::Summary(Summary { done: 0, refused })]);
        assert_eq!(
            silent.try_recv(&mut [0]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }

    /// A reader that is gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn it_stops_when_nobody_reads() {
        let (silent, begun) = (silent().await, Instant::now());
        let failure = run(request(&silent, 2000, 1, 100).as_slice(), Gone)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            failure.starts_with("cannot write the outcomes to stdout: broken pipe"),
            "{failure}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(100),
            "all 2000 would take 200 s"
        );
    }
}

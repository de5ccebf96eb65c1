//! How one process in the pod asks another what it saw: an abstract unix socket. It needs no file, so a
//! read-only root file system will do, and belongs to the network namespace, so to the pod alone: pods never
//! clash nor hear each other, and agents that share one (the host's, or two containers) need different names.

use super::Ring;
use crate::Failure;
use crate::protocol::{Summary, WitnessLine};
use std::io::{self, BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The name of the socket unless told.
pub const DEFAULT_CONTROL: &str = "probe-witness";
/// How long one who asks may take in all, and how long the agent may take between two lines.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many are answered at once; each may hold a copy of all sightings.
const MAX_ASKING: usize = 4;
/// The longest question: a number of 20 digits and a line end.
const MAX_QUESTION: u64 = 32;

/// The answering end.
pub(crate) struct Control {
    listener: tokio::net::UnixListener,
}

impl Control {
    /// # Errors
    /// If the name is taken or not possible.
    pub(crate) fn bind(name: &str) -> Result<Self, Failure> {
        let bound = SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .and_then(tokio::net::UnixListener::from_std);
        let listener = bound.map_err(|error| {
            Failure::new(
                format!("cannot listen on the control socket @{name}: {error}"),
                "another agent in this network namespace may have the name: give each its own by --control",
            )
        })?;
        Ok(Self { listener })
    }

    /// Answers all who ask, each in bounded time; never ends.
    pub(crate) async fn serve(self, ring: Arc<Ring>) {
        let places = Arc::new(Semaphore::new(MAX_ASKING));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of files, most likely: they come back as connections end.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let ring = Arc::clone(&ring);
            tokio::spawn(async move {
                // One that goes away or is too slow has no answer coming.
                let _ = timeout(PATIENCE, answer(stream, &ring)).await;
                drop(place);
            });
        }
    }
}

async fn answer(stream: tokio::net::UnixStream, ring: &Ring) -> io::Result<()> {
    let mut stream = tokio::io::BufStream::new(stream);
    let mut question = String::new();
    (&mut stream).take(MAX_QUESTION).read_line(&mut question).await?;
    let since = question.trim_end().parse().map_err(io::Error::other)?;
    let (sightings, refused) = match ring.since(since) {
        Ok(sightings) => (sightings, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let done = sightings.len();
    for sighting in sightings {
        write_line(&mut stream, &WitnessLine::Sighting(sighting)).await?;
    }
    write_line(&mut stream, &WitnessLine::Summary(Summary { done, refused })).await?;
    stream.shutdown().await
}

async fn write_line(stream: &mut (impl AsyncWriteExt + Unpin), line: &WitnessLine) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    stream.write_all(&text).await
}

/// `probe witness`: asks the agent that serves under this name for its sightings since this moment (in
/// milliseconds since the Unix epoch), and copies them and their summary to `sink`. Blocks.
///
/// # Errors
/// If no agent serves, its answer is not complete, or `sink` cannot be written.
pub fn ask(name: &str, since_ms: u64, sink: &mut impl Write) -> Result<Summary, Failure> {
    let stream = connect(name, since_ms).map_err(|error| {
        Failure::new(
            format!("expected an agent that serves on the control socket @{name}: {error}"),
            "run this in the same pod as `probe serve`, with the same --control",
        )
    })?;
    copy(stream, sink).map_err(|error| {
        Failure::new(
            format!("the sightings from @{name} are not complete: {error}"),
            "ask again; if it stays so, the agent may have been stopped: see its log",
        )
    })
}

fn connect(name: &str, since_ms: u64) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{since_ms}\n").as_bytes())?;
    Ok(stream)
}

fn copy(stream: UnixStream, sink: &mut impl Write) -> io::Result<Summary> {
    let mut last = String::new();
    for line in BufReader::new(stream).lines() {
        last = line?;
        writeln!(sink, "{last}")?;
    }
    sink.flush()?;
    serde_json::from_str(&last).map_err(|_| io::Error::other("expected a summary as the last line"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Protocol, Sighting};
    use std::process;

    /// An agent's end of the control socket, with these sightings, and room for two.
    fn serve(name: &str, times: &[u64]) -> String {
        let name = format!("probe-test-{}-{name}", process::id());
        let ring = Ring::new(2);
        for &at_ms in times {
            let address = "127.0.0.1:1".parse().unwrap();
            let nonce = format!("nonce-{at_ms}");
            ring.record(Sighting {
                nonce,
                from: address,
                to: address,
                protocol: Protocol::Tcp,
                at_ms,
            });
        }
        tokio::spawn(Control::bind(&name).unwrap().serve(Arc::new(ring)));
        name
    }

    async fn asked(name: &str, since: u64) -> (Result<Summary, Failure>, Vec<u64>) {
        let name = name.to_owned();
        let ask_here = move || {
            let mut sink = Vec::new();
            (ask(&name, since, &mut sink), sink)
        };
        let (result, lines) = tokio::task::spawn_blocking(ask_here).await.unwrap();
        let sightings = lines
            .split(|&b| b == b'\n')
            .flat_map(serde_json::from_slice::<Sighting>);
        (result, sightings.map(|sighting| sighting.at_ms).collect())
    }

    #[tokio::test]
    async fn all_sightings_come_oldest_first_then_their_number() {
        let name = serve("all", &[1, 2]);
        assert_eq!(
            asked(&name, 0).await,
            (
                Ok(Summary {
                    done: 2,
                    refused: None
                }),
                vec![1, 2]
            )
        );
        assert_eq!(
            asked(&name, 2).await,
            (
                Ok(Summary {
                    done: 1,
                    refused: None
                }),
                vec![2]
            )
        );
    }

    #[tokio::test]
    async fn a_witness_that_forgot_refuses() {
        let name = serve("forgot", &[1, 2, 3]);
        let (summary, sightings) = asked(&name, 0).await;
        let refused = summary.unwrap().refused.unwrap();
        assert!(
            refused.starts_with("sightings up to 1 ms were dropped"),
            "{refused}"
        );
        assert!(sightings.is_empty());
        assert_eq!(asked(&name, 2).await.1, [2, 3]);
    }

    #[tokio::test]
    async fn without_an_agent_the_remedy_is_named() {
        let message = asked("probe-test-nobody", 0).await.0.unwrap_err().to_string();
        assert!(
            message.starts_with("expected an agent that serves on the control socket @probe-test-nobody")
        );
        assert!(
            message.contains("\nhint: run this in the same pod as `probe serve`"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn an_answer_without_its_summary_is_an_error() {
        let name = format!("probe-test-{}-cut", process::id());
        let control = Control::bind(&name).unwrap();
        let cut = tokio::spawn(async move {
            let (mut stream, _) = control.listener.accept().await.unwrap();
            stream.write_all(b"{\"nonce\":").await.unwrap();
            let _ = stream.read(&mut [0; 32]).await;
        });
        let message = asked(&name, 0).await.0.unwrap_err().to_string();
        cut.await.unwrap();
        assert!(
            message.contains("are not complete: expected a summary as the last line"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_name_that_is_taken_is_an_error_with_a_remedy() {
        let name = serve("taken", &[]);
        let message = Control::bind(&name).err().unwrap().to_string();
        assert!(
            message.contains(&format!("control socket @{name}: Address already in use")),
            "{message}"
        );
        assert!(
            message.contains("hint: another agent in this network namespace"),
            "{message}"
        );
    }
}

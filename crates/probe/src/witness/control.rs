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
use tokio::time::timeout;

/// The name of the socket unless told.
pub const DEFAULT_CONTROL: &str = "probe-witness";
/// How long one who asks may take, and how long the agent may take between two lines.
const PATIENCE: Duration = Duration::from_secs(10);
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

    /// Answers one after another, each in bounded time; never ends.
    pub(crate) async fn serve(self, ring: Arc<Ring>) {
        loop {
            match self.listener.accept().await {
                // One that goes away or is too slow has no answer coming.
                Ok((stream, _)) => drop(timeout(PATIENCE, answer(stream, &ring)).await),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
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
    writeln!(stream, "{since_ms}")?;
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

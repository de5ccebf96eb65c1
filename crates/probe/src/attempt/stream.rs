//! A conversation over a new TCP connection: connect, ask, hear until it can be judged.

use super::{Heard, Judgement, Script, ending, millis_since};
use crate::protocol::{Ending, Outcome};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The most that is heard of one answer.
const MAX_HEARD: usize = 16 * 1024;

/// Fills in the outcome; returns by the deadline.
pub(super) async fn exchange(peer: SocketAddr, deadline: Instant, script: Script, outcome: &mut Outcome) {
    let begun = Instant::now();
    let mut stream = match timeout_at(deadline, TcpStream::connect(peer)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return outcome.end(ending::of(&error), Some(error.to_string())),
        Err(_) => return outcome.end(Ending::TimedOut, None),
    };
    outcome.connect_ms = Some(millis_since(begun));
    outcome.local = stream.local_addr().ok();
    let mut heard = Vec::new();
    let (judgement, stopped) = match timeout_at(deadline, talk(&mut stream, &script, &mut heard)).await {
        Ok(Ok(judgement)) => (judgement, None),
        Ok(Err(error)) => ((script.judge)(&heard, Heard::All), Some(error.to_string())),
        Err(_) => (
            (script.judge)(&heard, Heard::All),
            Some("connected, but no valid answer in time".to_owned()),
        ),
    };
    outcome.conclude(judgement, &heard, stopped);
}

async fn talk(stream: &mut TcpStream, script: &Script, heard: &mut Vec<u8>) -> io::Result<Judgement> {
    stream.write_all(&script.request).await?;
    while heard.len() < MAX_HEARD {
        if stream.read_buf(heard).await? == 0 {
            return Err(io::Error::other(
                "the peer closed the connection without a valid answer",
            ));
        }
        match (script.judge)(heard, Heard::SoFar) {
            Judgement::More => {}
            judgement => return Ok(judgement),
        }
    }
    Err(io::Error::other("the answer has no end"))
}

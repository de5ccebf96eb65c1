//! One attempt after another or many at once, each on a socket of its own: resolve, connect, ask, judge.
//! What is asked and what counts as an answer is in one module a protocol, as pure functions.

pub(crate) mod batch;
mod datagram;
mod dns;
pub(crate) mod ending;
mod http;
pub(crate) mod output;
mod postgresql;
mod redis;
pub(crate) mod request;
pub(crate) mod resolve;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;

pub use batch::{Finished, run};

use crate::protocol::{Attempt, Ending, Outcome, Protocol};
use crate::wire;
use std::time::Duration;
use tokio::time::Instant;

/// What a protocol says first, and how it judges what came back.
struct Script {
    request: Vec<u8>,
    judge: Judge,
}

type Judge = Box<dyn Fn(&[u8], Heard) -> Judgement + Send + Sync>;

/// Whether more may come after what was heard so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    SoFar,
    All,
}

/// What the bytes that came back are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    /// Nothing wrong yet, and not complete.
    More,
    /// The target's own answer.
    Valid { echoed: bool, answer: String },
    /// Not an answer that this protocol gives.
    Wrong,
}

/// Makes one attempt. Ends within the attempt's time, whatever the target does.
pub async fn attempt(attempt: &Attempt) -> Outcome {
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(attempt.timeout_ms);
    let mut outcome = Outcome {
        id: attempt.id,
        ending: Ending::LocalError,
        echoed: false,
        peer: None,
        local: None,
        answer: None,
        error: None,
        resolve_ms: None,
        connect_ms: None,
        total_ms: 0,
    };
    converse(attempt, deadline, &mut outcome).await;
    outcome.total_ms = millis_since(begun);
    outcome
}

async fn converse(attempt: &Attempt, deadline: Instant, outcome: &mut Outcome) {
    let Some(peer) = resolve::peer(attempt, deadline, outcome).await else {
        return;
    };
    outcome.peer = Some(peer);
    let nonce = attempt.nonce.as_str();
    let name = attempt.query.as_deref().unwrap_or_default();
    match attempt.protocol {
        Protocol::Tcp => stream::exchange(peer, deadline, tcp::script(nonce), outcome).await,
        Protocol::Http => stream::exchange(peer, deadline, http::script(attempt), outcome).await,
        Protocol::Postgresql => stream::exchange(peer, deadline, postgresql::script(), outcome).await,
        Protocol::Redis => stream::exchange(peer, deadline, redis::script(), outcome).await,
        Protocol::Udp => datagram::exchange(peer, deadline, tcp::datagram_script(nonce), outcome).await,
        Protocol::Dns => datagram::exchange(peer, deadline, dns::script(name), outcome).await,
        Protocol::DnsTcp => stream::exchange(peer, deadline, dns::stream_script(name), outcome).await,
    }
}

impl Outcome {
    fn end(&mut self, ending: Ending, error: Option<String>) {
        self.ending = ending;
        self.error = error;
    }

    /// The conversation is over: `heard` is all that came back, `stopped` why nothing more did.
    fn conclude(&mut self, judgement: Judgement, heard: &[u8], stopped: Option<String>) {
        if let Judgement::Valid { echoed, answer } = judgement {
            self.echoed = echoed;
            self.answer = Some(answer);
            self.end(Ending::Reached, None);
        } else {
            self.answer = (!heard.is_empty()).then(|| wire::printable(heard));
            self.end(Ending::ConnectedWithoutEcho, stopped);
        }
    }
}

fn millis_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

//! The documents an agent and its caller exchange: one [`Request`] as a JSON line on stdin, one
//! [`Outcome`] a line on stdout as each attempt ends, then one [`Summary`]; in a session many [`Ask`]s and
//! their [`Reply`]s. Types only; connecting, listening and interpreting are left to the other modules and to the caller.

mod conversation;

pub use conversation::{
    CommandResult, Held, Hold, MAX_CONNECTIONS, MAX_CONVERSATION_MS, MAX_REPEAT, MAX_ROWS, MAX_STATEMENTS,
    RedisCommand, RedisError, RedisRequest, Rows, Secret, SqlError, SqlRequest, StatementResult, Unconnected,
};

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// The version of these documents. An agent refuses a request of another version.
pub const VERSION: u32 = 1;

/// Most attempts that an agent takes in one request.
pub const MAX_ATTEMPTS: usize = 2000;
/// Most attempts that an agent has under way at once, whatever is asked.
pub const MAX_CONCURRENCY: usize = 128;
/// The longest an attempt may be given, in milliseconds.
pub const MAX_TIMEOUT_MS: u64 = 10_000;

/// What a caller asks of `probe attempt`: one line of JSON on stdin, ended by a newline, at most 4 MiB. It is taken as a whole or not
/// at all, and lasts at most the sum of all times divided by `concurrency`, plus the longest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// How many attempts may be under way at once: 1 to [`MAX_CONCURRENCY`].
    pub concurrency: usize,
    /// The attempts, 1 to [`MAX_ATTEMPTS`]; ids unique, nonces unique.
    pub attempts: Vec<Attempt>,
}

/// One new connection (or datagram exchange, repeated every 300 ms as datagrams may be lost) from a new socket to one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The caller's number for it, repeated in the [`Outcome`].
    pub id: u32,
    /// What is spoken.
    pub protocol: Protocol,
    /// An IP address, or a name that the pod's resolver is asked for; of several addresses the first IPv4 one is tried, else the
    /// first. For [`Protocol::Dns`] and [`Protocol::DnsTcp`] the server's address; empty there means the first nameserver of the pod's `/etc/resolv.conf`.
    pub host: String,
    /// The port, 1 to 65535.
    pub port: u16,
    /// Unique to this attempt: what the listener has to give back. 8 to 64 characters of `[A-Za-z0-9-]`.
    pub nonce: String,
    /// How long the whole attempt may take, name resolution included, in milliseconds: 1 to [`MAX_TIMEOUT_MS`].
    pub timeout_ms: u64,
    /// For [`Protocol::Dns`] and [`Protocol::DnsTcp`] the name to look up (an A record), taken as absolute: no search list; unused otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// What an attempt speaks once it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The nonce on a TCP connection; reached when another agent echoes it.
    Tcp,
    /// The nonce in a datagram; reached when another agent echoes it.
    Udp,
    /// `GET /` with the nonce in a header; reached on any well-formed HTTP status line ([`Outcome::answer`]: the status line), since
    /// the target may be a web server that is not ours. An agent also echoes the nonce in a header ([`Outcome::echoed`]).
    Http,
    /// A DNS query over UDP for the A records of [`Attempt::query`]; reached on any answer with the query's id ([`Outcome::answer`]: the
    /// response code, and the addresses).
    Dns,
    /// The same over TCP (RFC 7766).
    DnsTcp,
    /// PostgreSQL's `SSLRequest`; reached on `S` or `N` and nothing else (PostgreSQL documentation, 55.2 "Message Flow"), or on an
    /// ErrorResponse (`E`): then too it is PostgreSQL that answers, whatever it says.
    Postgresql,
    /// Redis' `PING`; reached on `+PONG`, `-NOAUTH` or another RESP simple string or error.
    Redis,
}

impl Protocol {
    /// Whether it asks a DNS server.
    pub fn is_dns(self) -> bool {
        matches!(self, Protocol::Dns | Protocol::DnsTcp)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The target itself answered: it echoed the nonce, or spoke the protocol asked for.
    Reached,
    /// Connected, and no valid answer came, be it silence, another protocol, an end or a reset: a proxy may have accepted on the
    /// target's behalf, or the target speaks something else. Over UDP, which has no connection: something came back, nothing valid.
    ConnectedWithoutEcho,
    /// Actively refused: a TCP reset, or ICMP port unreachable (ECONNREFUSED).
    Refused,
    /// The network said there is no way: ICMP host/network unreachable or administratively prohibited (EHOSTUNREACH, ENETUNREACH, EACCES on connect).
    Unreachable,
    /// Nothing came back in time, name resolution having succeeded.
    TimedOut,
    /// The name did not resolve (or not in time); nothing was sent to the target.
    DnsFailed,
    /// This agent could not even try: no socket, no port, a bad argument.
    LocalError,
}

/// The result of one [`Attempt`]: one line of JSON on stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The attempt's id.
    pub id: u32,
    /// How it ended.
    pub ending: Ending,
    /// Whether the nonce came back.
    pub echoed: bool,
    /// The address tried, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// The address tried from, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// What the target said, in printable characters, cut at 200: an echoing agent's name, a status line, a response code; or
    /// whatever it was that is no valid answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The operating system's words for an error, with its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Milliseconds the name took to resolve; absent for an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_ms: Option<u64>,
    /// Milliseconds from the start of the connection to its establishment; absent where it was not, and over UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// Milliseconds from beginning to end.
    pub total_ms: u64,
}

/// The last line of `probe attempt`: without it the output is truncated and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How many outcomes came before.
    pub done: usize,
    /// Why the request was refused; then `done` is zero. A witness refuses when it no longer has all that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One line of `probe attempt`'s stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// An attempt ended.
    Outcome(Outcome),
    /// All have ended.
    Summary(Summary),
}

/// One nonce that a listener saw: one line of `probe witness`'s stdout, oldest first, then a [`Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The nonce.
    pub nonce: String,
    /// Who sent it.
    pub from: SocketAddr,
    /// The address and port it was sent to; over UDP the address is the one the listener is bound to, possibly "any".
    pub to: SocketAddr,
    /// What was spoken.
    pub protocol: Protocol,
    /// When, in milliseconds since the Unix epoch, by the clock of the listener's node.
    pub at_ms: u64,
}

/// One line of `probe witness`'s stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WitnessLine {
    /// A nonce that was seen.
    Sighting(Sighting),
    /// The end: `done` counts the sightings before it.
    Summary(Summary),
}

/// One line of `probe session`'s stdin: a question with the caller's number for it. Questions may be asked before earlier ones are
/// answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Unique in the session; every [`Reply`] to it repeats it.
    pub ask: u32,
    /// What is asked.
    #[serde(flatten)]
    pub question: Question,
}

/// What can be asked in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// To make attempts, as `probe attempt` does.
    Attempt(Request),
    /// For the nonces seen since this moment in milliseconds since the Unix epoch, as `probe witness` does.
    Witness(u64),
    /// To say something to PostgreSQL.
    Sql(SqlRequest),
    /// To say something to Redis.
    Redis(RedisRequest),
    /// To let go of the connections that the question with this number holds: that one's end comes once they are closed.
    Release(u32),
}

/// One line of `probe session`'s stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The question's number; zero where a line could not be read as a question.
    pub ask: u32,
    /// A part of the answer.
    #[serde(flatten)]
    pub part: Part,
}

/// A part of an answer in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// An attempt ended.
    Outcome(Outcome),
    /// A nonce was seen.
    Sighting(Sighting),
    /// There was no conversation: nothing else comes before the end.
    Unconnected(Unconnected),
    /// PostgreSQL's answer to a statement: one for each, in their order.
    Rows(StatementResult),
    /// How many further connections are open now; the end comes when they have been held.
    Held(Held),
    /// Redis' answer to a command: one for each, in their order.
    Answer(CommandResult),
    /// The answer is complete; without it it is truncated and proves nothing.
    End(Summary),
}

/// What a listening agent prints on stdout once it listens everywhere: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The addresses it listens on are any; these are the TCP ports.
    pub tcp: Vec<u16>,
    /// The UDP ports.
    pub udp: Vec<u16>,
    /// The address bound, `0.0.0.0` or `::` unless told.
    pub bind: IpAddr,
}

#[cfg(test)]
mod tests;

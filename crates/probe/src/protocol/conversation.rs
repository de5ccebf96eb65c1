//! The documents of a conversation with PostgreSQL or Redis: who one is, what is said, and what was answered to each of it.

use super::Ending;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::fmt;

/// Most statements or commands of one conversation, repetitions not counted.
pub const MAX_STATEMENTS: usize = 200;
/// How often a command may be repeated.
pub const MAX_REPEAT: usize = 5_000;
/// Most further connections that are held.
pub const MAX_CONNECTIONS: usize = 128;
/// The longest a conversation may be given, and connections be held, in milliseconds.
pub const MAX_CONVERSATION_MS: u64 = 30_000;
/// Most rows of a statement that are handed over.
pub const MAX_ROWS: usize = 1_000;

/// A password or a key. Written only to whom it is for: its `Debug` does not show it, and what cannot be read as one is not quoted.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// This text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Somebody's words without the secret.
    pub fn redact(&self, words: &str) -> String {
        if self.0.is_empty() {
            words.to_owned()
        } else {
            words.replace(&self.0, "[redacted]")
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[redacted]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from);
        text.map(Secret)
            .map_err(|_| D::Error::custom("expected a secret as a string"))
    }
}

/// SQL in a session of its own, without TLS; one statement after the other, also after one that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    /// An IP address, or a name that the pod's resolver is asked for.
    pub host: String,
    /// The port, 1 to 65535.
    pub port: u16,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The database.
    pub database: String,
    /// How long all of it may take, but for what is held, in milliseconds: 1 to [`MAX_CONVERSATION_MS`]. What a statement was doing when
    /// the time was over may still be done.
    pub timeout_ms: u64,
    /// At most [`MAX_STATEMENTS`], in the simple query protocol: each answer is in text. Lines after `COPY … FROM STDIN` are its data; one
    /// that fails ends the session, as does what answers otherwise (`COPY … TO STDOUT`).
    #[serde(default)]
    pub statements: Vec<String>,
    /// Further connections to open after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// Connections beside the session's own, one after the other until one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// How many to open: 1 to [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// How long to hold them at most, in milliseconds, up to [`MAX_CONVERSATION_MS`]; [`super::Question::Release`] ends it before. The
    /// session's own is held too.
    pub for_ms: u64,
}

/// What came of [`Hold`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many are open.
    pub accepted: usize,
    /// How long it took until no more was to be opened, in milliseconds since the first was asked for.
    pub after_ms: u64,
    /// Why there is no further one, where one did not come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Unconnected>,
}

/// Why there is no conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconnected {
    /// As for an attempt; [`Ending::Reached`] where the server itself refused.
    pub ending: Ending,
    /// Why, where the server says: an SQLSTATE (`28P01`), or the first word of Redis' error (`WRONGPASS`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Its words, or the operating system's, in printable characters.
    pub message: String,
}

/// PostgreSQL's answer to a statement.
pub type StatementResult = Result<Rows, SqlError>;

/// What a statement gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The first [`MAX_ROWS`], each a value a column, as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many rows it concerned: those inserted, updated, deleted or selected.
    pub affected: u64,
}

/// Why a statement failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlError {
    /// The SQLSTATE; absent where it is not the server that says so: the connection was lost, or the time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// Words, in printable characters.
    pub message: String,
}

/// Commands on a connection of its own, without TLS, in RESP2; one after the other, also after one that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisRequest {
    /// As in [`SqlRequest`].
    pub host: String,
    /// The port, 1 to 65535.
    pub port: u16,
    /// The ACL user; empty: nobody authenticates.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// How long all of it may take, in milliseconds: 1 to [`MAX_CONVERSATION_MS`]. What a command was doing when the time was over may
    /// still be done.
    pub timeout_ms: u64,
    /// One to [`MAX_STATEMENTS`].
    pub commands: Vec<RedisCommand>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisCommand {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// How often it is said, all at once without waiting for replies: 1 to [`MAX_REPEAT`]. Where it is more than once, `{n}` in an argument
    /// stands for the number, from zero. The result is the first error, else the last reply.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub repeat: usize,
}

fn once() -> usize {
    1
}

// serde hands it over so.
fn is_once(repeat: &usize) -> bool {
    *repeat == 1
}

impl RedisCommand {
    /// A command that is said once.
    pub fn once<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        RedisCommand {
            args: args.into_iter().map(str::to_owned).collect(),
            repeat: 1,
        }
    }
}

/// Redis' answer to a command: nil as null, a status or a string as a string, arrays as arrays.
pub type CommandResult = Result<Value, RedisError>;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisError {
    /// The first word of the server's error: `NOPERM`; absent where it is not the server that says so: the connection was lost, or the time
    /// was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Words, in printable characters; the server's begin with the code.
    pub message: String,
}

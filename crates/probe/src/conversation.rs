//! What conversations with PostgreSQL and Redis have in common: limits, and the way to the server.

use crate::attempt::{ending, resolve};
use crate::protocol::{Ending, MAX_CONVERSATION_MS, Secret, Unconnected};
use crate::wire;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The longest statement or argument, in bytes.
pub(crate) const MAX_TEXT: usize = 64 * 1024;
/// The longest name of a user or a database, in bytes.
const MAX_NAME: usize = 256;
/// What is said where the time is over.
pub(crate) const LATE: &str = "no answer in time";

/// Whether these may be taken.
///
/// # Errors
/// Why not, for [`crate::protocol::Summary::refused`].
pub(crate) fn check_target(host: &str, port: u16, timeout_ms: u64) -> Result<(), String> {
    if !wire::is_host(host) {
        return Err(format!("expected a host name or an IP address, got {host:?}"));
    }
    if port == 0 {
        return Err("expected a port from 1 to 65535, got 0".to_owned());
    }
    wire::within("timeout_ms", timeout_ms, MAX_CONVERSATION_MS)
}

/// Whether this may be a user's or a database's name: no control character.
///
/// # Errors
/// Why not, as before.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(format!(
            "expected a {what} of at most {MAX_NAME} bytes without control characters"
        ));
    }
    Ok(())
}

/// When a conversation of so many milliseconds that begins now is over.
pub(crate) fn deadline(timeout_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(timeout_ms)
}

/// A connection to the server.
///
/// # Errors
/// Why there is none.
pub(crate) async fn connect(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, Unconnected> {
    let peer = match host.parse() {
        Ok(ip) => SocketAddr::new(ip, port),
        Err(_) => timeout_at(deadline, resolve::by_name(host, port))
            .await
            .unwrap_or_else(|_| Err("the name did not resolve in time".to_owned()))
            .map_err(|why| unconnected(Ending::DnsFailed, &why))?,
    };
    match timeout_at(deadline, TcpStream::connect(peer)).await {
        Ok(Ok(stream)) => {
            // Small messages, each of which is waited for.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(unconnected(ending::of(&error), &error.to_string())),
        Err(_) => Err(unconnected(Ending::TimedOut, LATE)),
    }
}

/// Why there is no conversation, where it is not the server that says so.
pub(crate) fn unconnected(ending: Ending, why: &str) -> Unconnected {
    Unconnected {
        ending,
        code: None,
        message: wire::printable(why.as_bytes()),
    }
}

/// What the server says, as a report may show it.
pub(crate) fn words(text: &str, secret: &Secret) -> String {
    wire::printable(secret.redact(text).as_bytes())
}

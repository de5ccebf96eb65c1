//! Reading and checking a request: one line, in time, of a bounded size, every field within its limits.
//! A request is taken as a whole or not at all.

use super::dns;
use crate::protocol::{Attempt, MAX_ATTEMPTS, MAX_CONCURRENCY, MAX_TIMEOUT_MS, Protocol, Request, VERSION};
use crate::wire;
use std::collections::HashSet;
use std::fmt::Display;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

/// The longest request line, in bytes.
const MAX_LINE: u64 = 4 * 1024 * 1024;
/// How long the line may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads one line, never waiting for more than its end, and checks it.
///
/// # Errors
/// Why the request is refused, for [`crate::protocol::Summary::refused`].
pub(super) async fn read(input: impl AsyncRead + Unpin) -> Result<Request, String> {
    let mut line = Vec::new();
    let mut input = BufReader::new(input).take(MAX_LINE);
    match timeout(PATIENCE, input.read_until(b'\n', &mut line)).await {
        Err(_) => {
            return Err(format!(
                "no request within {} s: expected a line of JSON",
                PATIENCE.as_secs()
            ));
        }
        Ok(Err(error)) => return Err(format!("cannot read the request: {error}")),
        Ok(Ok(_)) if line.trim_ascii().is_empty() => {
            return Err("the request is empty: expected a line of JSON".to_owned());
        }
        Ok(Ok(_)) if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") => {
            return Err(format!("the request is longer than {MAX_LINE} bytes"));
        }
        Ok(Ok(_)) => {}
    }
    let request = serde_json::from_slice(&line).map_err(|error| format!("not a request: {error}"))?;
    check(&request)?;
    Ok(request)
}

fn check(request: &Request) -> Result<(), String> {
    if request.version != VERSION {
        return Err(format!("expected version {VERSION}, got {}", request.version));
    }
    within("concurrency", request.concurrency, MAX_CONCURRENCY)?;
    within("number of attempts", request.attempts.len(), MAX_ATTEMPTS)?;
    let (mut ids, mut nonces) = (HashSet::new(), HashSet::new());
    for attempt in &request.attempts {
        check_attempt(attempt).map_err(|why| format!("attempt {}: {why}", attempt.id))?;
        if !ids.insert(attempt.id) {
            return Err(format!("attempt {}: the id is used twice", attempt.id));
        }
        if !nonces.insert(&attempt.nonce) {
            return Err(format!(
                "attempt {}: the nonce {} is used twice",
                attempt.id, attempt.nonce
            ));
        }
    }
    Ok(())
}

fn check_attempt(attempt: &Attempt) -> Result<(), String> {
    if !wire::is_nonce(&attempt.nonce) {
        return Err("expected a nonce of 8 to 64 characters of [A-Za-z0-9-]".to_owned());
    }
    if attempt.port == 0 {
        return Err("expected a port from 1 to 65535, got 0".to_owned());
    }
    within("timeout_ms", attempt.timeout_ms, MAX_TIMEOUT_MS)?;
    let own_resolver = attempt.protocol == Protocol::Dns && attempt.host.is_empty();
    if !own_resolver && !is_host(&attempt.host) {
        return Err(format!(
            "expected a host name or an IP address, got {:?}",
            attempt.host
        ));
    }
    match (attempt.protocol, attempt.query.as_deref()) {
        (Protocol::Dns, None) => Err("a dns attempt needs a query".to_owned()),
        (Protocol::Dns, Some(name)) if !dns::is_name(name) => Err(format!("expected a name, got {name:?}")),
        _ => Ok(()),
    }
}

/// What may go to the resolver and into an HTTP header: no control character, no blank.
fn is_host(host: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    (1..=254).contains(&host.len()) && host.bytes().all(allowed)
}

fn within<N: PartialOrd + From<u8> + Copy + Display>(what: &str, number: N, most: N) -> Result<(), String> {
    if number < N::from(1) || number > most {
        return Err(format!("expected a {what} from 1 to {most}, got {number}"));
    }
    Ok(())
}

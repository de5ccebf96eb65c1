//! Reading and checking a request: one line, in time, of a bounded size, every field within its limits.
//! A request is taken as a whole or not at all.

use super::dns;
use crate::protocol::{Attempt, MAX_ATTEMPTS, MAX_CONCURRENCY, MAX_TIMEOUT_MS, Request, VERSION};
use crate::wire::{self, is_host, within};
use std::collections::HashSet;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

/// The longest request line, in bytes.
pub(crate) const MAX_LINE: u64 = 4 * 1024 * 1024;
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

/// Whether a request may be taken.
///
/// # Errors
/// Why not, as before.
pub(crate) fn check(request: &Request) -> Result<(), String> {
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
    let own_resolver = attempt.protocol.is_dns() && attempt.host.is_empty();
    if !own_resolver && !is_host(&attempt.host) {
        return Err(format!(
            "expected a host name or an IP address, got {:?}",
            attempt.host
        ));
    }
    match (attempt.protocol, attempt.query.as_deref()) {
        (protocol, None) if protocol.is_dns() => Err("a dns attempt needs a query".to_owned()),
        (protocol, Some(name)) if protocol.is_dns() && !dns::is_name(name) => {
            Err(format!("expected a name, got {name:?}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    /// A good request with two attempts, and one thing changed.
    fn with(pointer: &str, value: Value) -> Vec<u8> {
        let attempt = |id: u32| {
            json!({"id": id, "protocol": "tcp", "host": "127.0.0.1", "port": 1,
                   "nonce": format!("nonce-{id:04}"), "timeout_ms": 1000})
        };
        let mut request = json!({"version": 1, "concurrency": 1, "attempts": [attempt(1), attempt(2)]});
        match request.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => request["attempts"][0][pointer] = value,
        }
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    #[rstest]
    #[case::version(with("/version", json!(2)), "expected version 1, got 2")]
    #[case::no_concurrency(with("/concurrency", json!(0)), "expected a concurrency from 1 to 128, got 0")]
    #[case::concurrency(with("/concurrency", json!(129)), "expected a concurrency from 1 to 128, got 129")]
    #[case::no_attempts(with("/attempts", json!([])), "expected a number of attempts from 1 to 2000, got 0")]
    #[case::port(with("/attempts/0/port", json!(0)), "attempt 1: expected a port from 1 to 65535, got 0")]
    #[case::large_port(with("/attempts/0/port", json!(65536)), "not a request: invalid value")]
    #[case::nonce(with("/attempts/0/nonce", json!("a b c d e")), "attempt 1: expected a nonce of 8 to 64")]
    #[case::nonce_twice(with("/attempts/0/nonce", json!("nonce-0002")), "attempt 2: the nonce nonce-0002 is used")]
    #[case::id_twice(with("/attempts/0/id", json!(2)), "attempt 2: the id is used twice")]
    #[case::no_time(with("/attempts/0/timeout_ms", json!(0)), "attempt 1: expected a timeout_ms from 1 to 10000")]
    #[case::long_time(with("/attempts/0/timeout_ms", json!(10_001)), "attempt 1: expected a timeout_ms")]
    #[case::no_host(with("/attempts/0/host", json!("")), "attempt 1: expected a host name or an IP address")]
    #[case::header(with("/attempts/0/host", json!("a\r\nB: c")), "attempt 1: expected a host name")]
    #[case::long_host(with("/attempts/0/host", json!("a".repeat(255))), "attempt 1: expected a host name")]
    #[case::protocol(with("/attempts/0/protocol", json!("gopher")), "not a request: unknown variant `gopher`")]
    #[case::no_query(with("/attempts/0/protocol", json!("dns")), "attempt 1: a dns attempt needs a query")]
    #[case::unknown_field(with("speed", json!(9)), "not a request: unknown field `speed`")]
    #[case::not_json(b"attempt all\n".to_vec(), "not a request: expected value")]
    #[case::two_documents(b"{} {}\n".to_vec(), "not a request: missing field")]
    #[case::not_text(b"\xff\n".to_vec(), "not a request:")]
    #[case::empty_line(b"\n".to_vec(), "the request is empty")]
    #[case::nothing(vec![], "the request is empty")]
    #[tokio::test]
    async fn a_bad_request_is_refused_with_the_reason(#[case] line: Vec<u8>, #[case] reason: &str) {
        let refused = read(line.as_slice()).await.unwrap_err();
        assert!(refused.starts_with(reason), "{refused}");
    }

    #[rstest]
    #[case::as_it_is(with("/version", json!(1)))]
    #[case::name(with("/attempts/0/host", json!("api.tenant-b.svc.cluster.local.")))]
    #[case::ipv6(with("/attempts/0/host", json!("fd00::1")))]
    #[tokio::test]
    async fn a_good_request_is_taken(#[case] line: Vec<u8>) {
        assert_eq!(read(line.as_slice()).await.unwrap().attempts.len(), 2);
    }

    #[test]
    fn only_dns_may_leave_the_host_to_the_pod_and_only_for_a_name_that_can_be_asked() {
        let mut attempt: Attempt = serde_json::from_value(json!({"id": 1, "protocol": "dns", "host": "",
            "port": 53, "nonce": "nonce-0001", "timeout_ms": 1, "query": "a.svc."}))
        .unwrap();
        assert_eq!(check_attempt(&attempt), Ok(()));
        attempt.query = Some("a..svc".to_owned());
        assert_eq!(
            check_attempt(&attempt),
            Err("expected a name, got \"a..svc\"".to_owned())
        );
    }

    #[tokio::test]
    async fn the_end_of_the_line_is_enough() {
        let (mut caller, stdin) = tokio::io::duplex(4096);
        caller.write_all(&with("/version", json!(1))).await.unwrap();
        assert!(read(stdin).await.is_ok());
        drop(caller);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_does_not_come_is_not_awaited_for_long() {
        let (caller, stdin) = tokio::io::duplex(64);
        let begun = Instant::now();
        assert_eq!(
            read(stdin).await.unwrap_err(),
            "no request within 30 s: expected a line of JSON"
        );
        assert_eq!(begun.elapsed().as_secs(), 30);
        drop(caller);
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_read_for_ever() {
        let refused = read(tokio::io::repeat(b'x')).await.unwrap_err();
        assert_eq!(refused, "the request is longer than 4194304 bytes");
    }
}

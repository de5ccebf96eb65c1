//! One TCP port, two protocols told apart by their first bytes: a question line, or a request of HTTP/1.

use super::Shared;
use crate::protocol::Protocol;
use crate::wire;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// The longest head of a request.
const MAX_HEAD: usize = 8 * 1024;
/// The longest name of an HTTP method.
const MAX_METHOD: usize = 16;
/// How long a connection may last in all, however busy.
const MAX_DURATION: Duration = Duration::from_secs(10);
/// How much is read after the answer, and for how long, so that closing does not reset what was answered.
const MAX_REST: u64 = 64 * 1024;
const REST_DURATION: Duration = Duration::from_secs(1);

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Opening<'a> {
    /// Not complete yet.
    More,
    Question(&'a str),
    Http(&'a [u8]),
    Other,
}

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Out of files, most likely: they come back as connections end.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        // One too many is closed at once: "connected without echo" is the truth, where leaving it in the queue
        // would look like a network that drops packets.
        let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Too slow, or gone: nobody is left to tell.
            let _ = timeout(MAX_DURATION, converse(stream, from, &shared)).await;
            drop(permit);
        });
    }
}

async fn converse(mut stream: TcpStream, from: SocketAddr, shared: &Shared) -> io::Result<()> {
    let to = stream.local_addr()?;
    let mut heard = Vec::new();
    let answer = loop {
        if stream.read_buf(&mut heard).await? == 0 {
            return Ok(());
        }
        match opening(&heard) {
            Opening::More => {}
            Opening::Question(nonce) => {
                shared.saw(nonce, from, to, Protocol::Tcp);
                break wire::answer(nonce, &shared.name) + "\n";
            }
            Opening::Http(head) => {
                let nonce = header_nonce(head);
                if let Some(nonce) = nonce {
                    shared.saw(nonce, from, to, Protocol::Http);
                }
                break page(head, nonce, &shared.name);
            }
            Opening::Other => return Ok(()),
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let (mut rest, mut nowhere) = (stream.take(MAX_REST), tokio::io::sink());
    let _ = timeout(REST_DURATION, tokio::io::copy(&mut rest, &mut nowhere)).await;
    Ok(())
}

fn opening(heard: &[u8]) -> Opening<'_> {
    let line_end = heard.iter().position(|&b| b == b'\n');
    if heard.starts_with(wire::GREETING.as_bytes()) {
        return match line_end.map(|end| wire::asked(&heard[..end])) {
            Some(Some(nonce)) => Opening::Question(nonce),
            None if heard.len() < wire::MAX_QUESTION => Opening::More,
            _ => Opening::Other,
        };
    }
    if wire::GREETING.as_bytes().starts_with(heard) {
        return Opening::More;
    }
    let method = heard.iter().take_while(|b| b.is_ascii_uppercase()).count();
    let is_method = (1..=MAX_METHOD).contains(&method) && heard.get(method).is_none_or(|&b| b == b' ');
    if !is_method || line_end.is_some_and(|end| !is_request_line(&heard[..end])) {
        return Opening::Other;
    }
    match heard.windows(4).position(|w| w == b"\r\n\r\n") {
        Some(end) => Opening::Http(&heard[..end]),
        None if heard.len() < MAX_HEAD => Opening::More,
        None => Opening::Other,
    }
}

fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.trim_ascii_end().split(|&b| b == b' ').skip(1);
    let (target, version) = (words.next(), words.next());
    target.is_some_and(|t| !t.is_empty())
        && matches!(version, Some(b"HTTP/1.0" | b"HTTP/1.1"))
        && words.next().is_none()
}

fn header_nonce(head: &[u8]) -> Option<&str> {
    let lines = head
        .split(|&b| b == b'\n')
        .skip(1)
        .filter_map(|line| std::str::from_utf8(line).ok());
    let mut pairs = lines.filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(wire::NONCE_HEADER))?;
    Some(value.trim()).filter(|nonce| wire::is_nonce(nonce))
}

/// Every path is there: the agent stands in for servers whose health is asked at different ones.
fn page(head: &[u8], nonce: Option<&str>, name: &str) -> String {
    let header = nonce.map_or_else(String::new, |nonce| {
        format!("{}: {nonce}\r\n", wire::NONCE_HEADER)
    });
    let length = name.len() + 1;
    let body = if head.starts_with(b"HEAD ") {
        String::new()
    } else {
        format!("{name}\n")
    };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{header}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing(b"", Opening::More)]
    #[case::either(b"P", Opening::More)]
    #[case::greeting_begun(b"PROBE/", Opening::More)]
    #[case::question_begun(b"PROBE/1 abcd-1234", Opening::More)]
    #[case::question(b"PROBE/1 abcd-1234\n", Opening::Question("abcd-1234"))]
    #[case::question_and_more(b"PROBE/1 abcd-1234\r\nmore", Opening::Question("abcd-1234"))]
    #[case::bad_nonce(b"PROBE/1 abc\n", Opening::Other)]
    #[case::an_answer(b"PROBE/1 abcd-1234 name\n", Opening::Other)]
    #[case::question_without_end(&[b"PROBE/1 ".as_slice(), &[b'a'; 120]].concat(), Opening::Other)]
    #[case::method_begun(b"GE", Opening::More)]
    #[case::post(b"POST /", Opening::More)]
    #[case::head_not_complete(b"GET / HTTP/1.1\r\nA: b\r\n", Opening::More)]
    #[case::http(b"GET / HTTP/1.1\r\n\r\nbody", Opening::Http(b"GET / HTTP/1.1"))]
    #[case::http_2(b"PRI * HTTP/2.0\r\n", Opening::Other)]
    #[case::no_version(b"GET /\r\n", Opening::Other)]
    #[case::blanks(b"GET / / HTTP/1.1\r\n", Opening::Other)]
    #[case::lower_case(b"get / HTTP/1.1\r\n", Opening::Other)]
    #[case::long_method(b"ABCDEFGHIJKLMNOPQ", Opening::Other)]
    #[case::tls(b"\x16\x03\x01", Opening::Other)]
    #[case::redis(b"*1\r\n$4\r\nPING\r\n", Opening::Other)]
    #[case::head_without_end(&[b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; MAX_HEAD]].concat(), Opening::Other)]
    fn the_first_bytes_tell_what_is_spoken(#[case] heard: &[u8], #[case] expected: Opening<'_>) {
        assert_eq!(opening(heard), expected);
    }

    #[rstest]
    #[case::usual("X-Probe-Nonce: abcd-1234", Some("abcd-1234"))]
    #[case::other_case("x-probe-nonce:abcd-1234  ", Some("abcd-1234"))]
    #[case::bad("X-Probe-Nonce: abcd\t1234", None)]
    #[case::none("Host: abcd-1234", None)]
    fn the_nonce_is_in_its_header_or_nowhere(#[case] header: &str, #[case] nonce: Option<&str>) {
        let head = format!("GET /X-Probe-Nonce:abcd-9999 HTTP/1.1\r\nA: b\r\n{header}\r\n");
        assert_eq!(header_nonce(head.as_bytes()), nonce);
    }
}

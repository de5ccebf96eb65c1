//! `GET /`: reached on any well-formed status line of HTTP/1; an agent gives the nonce back in a header.

use super::{Heard, Judgement, Script};
use crate::protocol::Attempt;
use crate::wire;
use std::net::Ipv6Addr;

pub(super) fn script(attempt: &Attempt) -> Script {
    let host = match attempt.host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => attempt.host.clone(),
    };
    let (port, nonce, header) = (attempt.port, attempt.nonce.clone(), wire::NONCE_HEADER);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}:{port}\r\n{header}: {nonce}\r\nUser-Agent: probe\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    let judge = Box::new(move |heard: &[u8], more| judge(heard, &nonce, more));
    Script {
        request: request.into_bytes(),
        judge,
    }
}

/// The header may come after the status line, so the head is awaited; a valid status line alone will do when
/// nothing more comes.
fn judge(heard: &[u8], nonce: &str, more: Heard) -> Judgement {
    let head = head(heard);
    if head.is_none() && more == Heard::SoFar && could_be_http(heard) {
        return Judgement::More;
    }
    let text = String::from_utf8_lossy(head.unwrap_or(heard));
    let Some((status, headers)) = text.split_once('\n') else {
        return Judgement::Wrong;
    };
    if !is_status_line(status.trim_end()) {
        return Judgement::Wrong;
    }
    Judgement::Valid {
        echoed: has_nonce(headers, nonce),
        answer: wire::printable(status.as_bytes()),
    }
}

fn head(heard: &[u8]) -> Option<&[u8]> {
    let end = heard.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some(&heard[..end + 4])
}

fn could_be_http(heard: &[u8]) -> bool {
    let shared = heard.len().min(5);
    heard[..shared] == b"HTTP/"[..shared]
}

fn is_status_line(line: &str) -> bool {
    let Some(rest) = line
        .strip_prefix("HTTP/1.0 ")
        .or_else(|| line.strip_prefix("HTTP/1.1 "))
    else {
        return false;
    };
    let (code, _reason) = rest.split_once(' ').unwrap_or((rest, ""));
    code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()) && matches!(code.as_bytes()[0], b'1'..=b'5')
}

fn has_nonce(headers: &str, nonce: &str) -> bool {
    let mut pairs = headers.lines().filter_map(|line| line.split_once(':'));
    pairs.any(|(name, value)| name.eq_ignore_ascii_case(wire::NONCE_HEADER) && value.trim() == nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn valid(echoed: bool, answer: &str) -> Judgement {
        Judgement::Valid {
            echoed,
            answer: answer.to_owned(),
        }
    }

    #[rstest]
    #[case::nothing_yet("", Judgement::More)]
    #[case::begun("HTT", Judgement::More)]
    #[case::head_not_complete("HTTP/1.1 200 OK\r\nA: b\r\n", Judgement::More)]
    #[case::another_protocol("SSH-2.0-", Judgement::Wrong)]
    #[case::other_server("HTTP/1.1 404 Not Found\r\n\r\n", valid(false, "HTTP/1.1 404 Not Found"))]
    #[case::agent(
        "HTTP/1.1 200 OK\r\nx-probe-nonce: abcd-1234\r\n\r\nbody",
        valid(true, "HTTP/1.1 200 OK")
    )]
    #[case::nonce_in_the_body(
        "HTTP/1.0 200\r\n\r\nX-Probe-Nonce: abcd-1234\r\n",
        valid(false, "HTTP/1.0 200")
    )]
    #[case::other_nonce("HTTP/1.0 200 \r\nX-Probe-Nonce: abcd\r\n\r\n", valid(false, "HTTP/1.0 200"))]
    #[case::no_code("HTTP/1.1 OK\r\n\r\n", Judgement::Wrong)]
    #[case::long_code("HTTP/1.1 2000 OK\r\n\r\n", Judgement::Wrong)]
    #[case::version_2("HTTP/2 200\r\n\r\n", Judgement::Wrong)]
    fn a_head_is_judged(#[case] heard: &str, #[case] expected: Judgement) {
        assert_eq!(judge(heard.as_bytes(), "abcd-1234", Heard::SoFar), expected);
    }

    #[test]
    fn a_status_line_alone_will_do_when_nothing_more_comes() {
        let status = b"HTTP/1.1 503 Busy\r\nA: ";
        assert_eq!(
            judge(status, "abcd-1234", Heard::All),
            valid(false, "HTTP/1.1 503 Busy")
        );
        assert_eq!(judge(b"HTTP/1.1 50", "abcd-1234", Heard::All), Judgement::Wrong);
        assert_eq!(judge(b"", "abcd-1234", Heard::All), Judgement::Wrong);
    }
}

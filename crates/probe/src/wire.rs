//! What agents say to each other: `PROBE/1 <nonce>` and back `PROBE/1 <nonce> <name>`, as a line on TCP and
//! as a datagram on UDP. An answer is never a valid question, so two agents cannot be made to talk forever.

use std::fmt::Display;

/// How questions and answers begin; no HTTP method has a slash.
pub(crate) const GREETING: &str = "PROBE/1 ";
/// The header that carries the nonce over HTTP, both ways.
pub(crate) const NONCE_HEADER: &str = "X-Probe-Nonce";
/// More than any valid question: greeting, 64 characters, line end.
pub(crate) const MAX_QUESTION: usize = 128;
/// The longest agent name in an answer, which bounds how much longer an answer is than its question.
const MAX_NAME: usize = 63;

/// Whether this is a nonce: 8 to 64 characters of `[A-Za-z0-9-]`.
pub(crate) fn is_nonce(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The question, without a line end.
pub(crate) fn question(nonce: &str) -> String {
    format!("{GREETING}{nonce}")
}

/// The answer, without a line end.
pub(crate) fn answer(nonce: &str, name: &str) -> String {
    format!("{GREETING}{nonce} {name}")
}

/// The nonce of a question, with or without its line end.
pub(crate) fn asked(message: &[u8]) -> Option<&str> {
    let nonce = line(message)?.strip_prefix(GREETING)?;
    is_nonce(nonce).then_some(nonce)
}

/// The name in an answer to this nonce, with or without its line end.
pub(crate) fn answered<'a>(message: &'a [u8], nonce: &str) -> Option<&'a str> {
    let name = line(message)?
        .strip_prefix(GREETING)?
        .strip_prefix(nonce)?
        .strip_prefix(' ')?;
    (!name.is_empty()).then_some(name)
}

fn line(message: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(message).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Some(text.strip_suffix('\r').unwrap_or(text))
}

/// This machine's (the pod's) name, safe to put into an answer.
pub(crate) fn own_name() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let raw = from_kernel
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    tame_name(&raw)
}

fn tame_name(raw: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name: String = raw.trim().chars().filter(allowed).take(MAX_NAME).collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

/// Bytes from anywhere, fit for a report: one line of printable ASCII, cut at 200 characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let shown = bytes.trim_ascii().iter().take(200);
    shown
        .map(|&b| {
            if matches!(b, b' '..=b'~') {
                char::from(b)
            } else {
                '.'
            }
        })
        .collect()
}

/// What may go to the resolver and into an HTTP header: no control character, no blank.
pub(crate) fn is_host(host: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    (1..=254).contains(&host.len()) && host.bytes().all(allowed)
}

/// Whether a number is from 1 to `most`.
///
/// # Errors
/// Which was expected and which was given.
pub(crate) fn within<N: PartialOrd + From<u8> + Copy + Display>(
    what: &str,
    number: N,
    most: N,
) -> Result<(), String> {
    if number < N::from(1) || number > most {
        return Err(format!("expected a {what} from 1 to {most}, got {number}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::bare(b"PROBE/1 abcd-1234", Some("abcd-1234"))]
    #[case::line(b"PROBE/1 abcd-1234\n", Some("abcd-1234"))]
    #[case::carriage_return(b"PROBE/1 abcd-1234\r\n", Some("abcd-1234"))]
    #[case::an_answer_is_not_a_question(b"PROBE/1 abcd-1234 host", None)]
    #[case::short(b"PROBE/1 abc", None)]
    #[case::two_lines(b"PROBE/1 abcd-1234\n\n", None)]
    #[case::other_version(b"PROBE/2 abcd-1234", None)]
    #[case::not_text(b"PROBE/1 abcd\xff1234", None)]
    #[case::empty(b"", None)]
    fn a_question_is_recognised_or_not(#[case] message: &[u8], #[case] nonce: Option<&str>) {
        assert_eq!(asked(message), nonce);
    }

    #[rstest]
    #[case::named(b"PROBE/1 abcd-1234 host-1\n", Some("host-1"))]
    #[case::plain_echo_server(b"PROBE/1 abcd-1234\n", None)]
    #[case::nameless(b"PROBE/1 abcd-1234 \n", None)]
    #[case::other_nonce(b"PROBE/1 abcd-12345 host-1\n", None)]
    fn an_answer_needs_the_nonce_and_a_name(#[case] message: &[u8], #[case] name: Option<&str>) {
        assert_eq!(answered(message, "abcd-1234"), name);
    }

    #[test]
    fn a_nonce_of_8_to_64_characters_is_valid() {
        for (length, valid) in [(7, false), (8, true), (64, true), (65, false)] {
            assert_eq!(is_nonce(&"n".repeat(length)), valid, "{length}");
        }
        assert!(!is_nonce("nonce with blanks"));
    }

    #[test]
    fn an_answer_is_bounded_whatever_the_name() {
        let name = tame_name(&"x\r\n y".repeat(1000));
        assert_eq!(name.len(), MAX_NAME);
        assert!(answer(&"n".repeat(64), &name).len() <= 160);
        assert_eq!(tame_name(" \n"), "unnamed");
    }

    #[test]
    fn a_report_shows_one_short_printable_line() {
        assert_eq!(printable(b"\x00a\r\nb\xff \n"), ".a..b.");
        assert_eq!(printable(&[b'x'; 500]).len(), 200);
    }
}

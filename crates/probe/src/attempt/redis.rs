//! `PING`: a Redis answers with a simple string (`+PONG`) or an error (`-NOAUTH …`, `-DENIED …`), the only
//! replies that PING has. No credential is sent.

use super::{Heard, Judgement, Script};
use crate::wire;

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// The longest first line that is waited for.
const MAX_LINE: usize = 1024;

pub(super) fn script() -> Script {
    Script {
        request: PING.to_vec(),
        judge: Box::new(judge),
    }
}

fn judge(heard: &[u8], _: Heard) -> Judgement {
    if !matches!(heard, [] | [b'+' | b'-'] | [b'+' | b'-', b'A'..=b'Z', ..]) {
        return Judgement::Wrong;
    }
    match heard.windows(2).position(|w| w == b"\r\n") {
        Some(end) => Judgement::Valid {
            echoed: false,
            answer: wire::printable(&heard[..end]),
        },
        None if heard.len() < MAX_LINE => Judgement::More,
        None => Judgement::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn valid(answer: &str) -> Judgement {
        Judgement::Valid {
            echoed: false,
            answer: answer.to_owned(),
        }
    }

    #[rstest]
    #[case::nothing_yet("", Judgement::More)]
    #[case::begun("+PON", Judgement::More)]
    #[case::pong("+PONG\r\n", valid("+PONG"))]
    #[case::password_wanted(
        "-NOAUTH Authentication required.\r\n",
        valid("-NOAUTH Authentication required.")
    )]
    #[case::protected(
        "-DENIED Redis is running in protected mode\r\n",
        valid("-DENIED Redis is running in protected mode")
    )]
    #[case::http("HTTP/1.1 400 Bad Request\r\n", Judgement::Wrong)]
    #[case::smtp("220 mail\r\n", Judgement::Wrong)]
    #[case::pop3_is_not_told_apart("+OK ready\r\n", valid("+OK ready"))]
    #[case::dashes("---\r\n", Judgement::Wrong)]
    fn a_reply_is_judged(#[case] heard: &str, #[case] expected: Judgement) {
        assert_eq!(judge(heard.as_bytes(), Heard::SoFar), expected);
    }

    #[test]
    fn a_line_without_an_end_is_wrong() {
        assert_eq!(
            judge(&[b"+".as_slice(), &[b'A'; MAX_LINE]].concat(), Heard::SoFar),
            Judgement::Wrong
        );
    }
}

//! `SSLRequest` (PostgreSQL documentation, 55.2.11 and 55.7): the server says `S` or `N`, one byte and no
//! more, or sends an ErrorResponse. No session is begun and no credential sent.

use super::{Heard, Judgement, Script};
use crate::wire;

/// Length 8, then the code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Kind, length, and the code of the first field, which is always the severity.
const ERROR_HEAD: usize = 6;
const MAX_ERROR: u32 = 30_000;

pub(super) fn script() -> Script {
    Script {
        request: SSL_REQUEST.to_vec(),
        judge: Box::new(judge),
    }
}

fn judge(heard: &[u8], more: Heard) -> Judgement {
    match heard {
        [] => Judgement::More,
        [b'S'] => valid("S"),
        [b'N'] => valid("N"),
        [b'E', ..] if heard.len() < ERROR_HEAD && more == Heard::SoFar => Judgement::More,
        [b'E', a, b, c, d, b'S', fields @ ..] if is_length([*a, *b, *c, *d]) => {
            valid(&format!("E {}", wire::printable(fields)))
        }
        _ => Judgement::Wrong,
    }
}

fn is_length(bytes: [u8; 4]) -> bool {
    (ERROR_HEAD as u32..=MAX_ERROR).contains(&u32::from_be_bytes(bytes))
}

fn valid(answer: &str) -> Judgement {
    Judgement::Valid {
        echoed: false,
        answer: wire::printable(answer.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing_yet(b"", Judgement::More)]
    #[case::with_tls(b"S", valid("S"))]
    #[case::without_tls(b"N", valid("N"))]
    #[case::text_that_begins_alike(b"Sorry", Judgement::Wrong)]
    #[case::http(b"HTTP/1.1 400 Bad Request\r\n\r\n", Judgement::Wrong)]
    #[case::error_begun(b"E\0\0", Judgement::More)]
    #[case::error(b"E\0\0\0\x11SFATAL\0C53300\0\0", valid("E FATAL.C53300.."))]
    #[case::text_with_e(b"Error: no", Judgement::Wrong)]
    #[case::error_too_long(b"E\xff\0\0\x11SFATAL\0", Judgement::Wrong)]
    fn a_reply_is_judged(#[case] heard: &[u8], #[case] expected: Judgement) {
        assert_eq!(judge(heard, Heard::SoFar), expected);
    }

    #[test]
    fn the_request_is_the_documented_code() {
        assert_eq!(SSL_REQUEST[4..], 80_877_103_u32.to_be_bytes());
    }
}

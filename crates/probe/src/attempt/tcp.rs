//! The agents' own protocol, from the asking side: the nonce has to come back with the other agent's name.

use super::{Heard, Judgement, Script};
use crate::wire;

/// On a connection: one line each way.
pub(super) fn script(nonce: &str) -> Script {
    let request = format!("{}\n", wire::question(nonce)).into_bytes();
    let nonce = nonce.to_owned();
    Script {
        request,
        judge: Box::new(move |heard, _| judge_line(heard, &nonce)),
    }
}

/// As datagrams: one each way.
pub(super) fn datagram_script(nonce: &str) -> Script {
    let request = wire::question(nonce).into_bytes();
    let nonce = nonce.to_owned();
    Script {
        request,
        judge: Box::new(move |heard, _: Heard| judge(heard, &nonce)),
    }
}

fn judge_line(heard: &[u8], nonce: &str) -> Judgement {
    if let Some(end) = heard.iter().position(|&b| b == b'\n') {
        return judge(&heard[..=end], nonce);
    }
    let expected = format!("{} ", wire::question(nonce));
    let shared = heard.len().min(expected.len());
    if heard[..shared] == expected.as_bytes()[..shared] {
        Judgement::More
    } else {
        Judgement::Wrong
    }
}

fn judge(message: &[u8], nonce: &str) -> Judgement {
    match wire::answered(message, nonce) {
        Some(name) => Judgement::Valid {
            echoed: true,
            answer: wire::printable(name.as_bytes()),
        },
        None => Judgement::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing_yet(b"", Judgement::More)]
    #[case::begun(b"PROBE/1 abcd", Judgement::More)]
    #[case::name_not_complete(b"PROBE/1 abcd-1234 hos", Judgement::More)]
    #[case::another_protocol(b"SSH-", Judgement::Wrong)]
    #[case::another_nonce(b"PROBE/1 abcd-9999 host\n", Judgement::Wrong)]
    #[case::echo_server(b"PROBE/1 abcd-1234\n", Judgement::Wrong)]
    #[case::complete(
        b"PROBE/1 abcd-1234 host\nrest",
        Judgement::Valid { echoed: true, answer: "host".to_owned() }
    )]
    fn a_line_is_judged_as_soon_as_it_can_be(#[case] heard: &[u8], #[case] expected: Judgement) {
        assert_eq!((script("abcd-1234").judge)(heard, Heard::SoFar), expected);
    }
}

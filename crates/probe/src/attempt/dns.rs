//! A query for A records over UDP (RFC 1035, 4.1) or TCP (4.2.2) and what came back: the response code and the addresses.
//! The parser reads what anybody may have sent: every access is checked, and pointers only ever lead backwards.

use super::{Heard, Judgement, Script};
use crate::wire;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
/// Set in an answer.
const RESPONSE: u16 = 1 << 15;
/// "Please ask others for me", as every stub resolver says.
const RECURSION_DESIRED: u16 = 1 << 8;
const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// Whether a name can be asked for: labels of 1 to 63 bytes, 253 in all, a trailing dot or not.
pub(super) fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic());
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Asks for exactly this name: no search list is applied.
pub(super) fn script(name: &str) -> Script {
    let (id, question) = (id(name), question(name));
    Script {
        request: query(id, &question),
        judge: Box::new(move |heard, _| judge(heard, id, &question)),
    }
}

/// The same over TCP, where two bytes before each message tell its length.
pub(super) fn stream_script(name: &str) -> Script {
    let (id, question) = (id(name), question(name));
    let query = query(id, &question);
    let mut request = (query.len() as u16).to_be_bytes().to_vec();
    request.extend(query);
    Script {
        request,
        judge: Box::new(move |heard, more| {
            let message = heard.split_at_checked(2);
            let whole = message.and_then(|(_, message)| message.get(..usize::from(word(heard, 0)?)));
            match whole {
                Some(message) => judge(message, id, &question),
                None if more == Heard::SoFar => Judgement::More,
                None => Judgement::Wrong,
            }
        }),
    }
}

fn id(name: &str) -> u16 {
    let [low, high, ..] = RandomState::new().hash_one(name).to_le_bytes();
    u16::from_be_bytes([high, low])
}

fn query(id: u16, question: &[u8]) -> Vec<u8> {
    let mut query = Vec::with_capacity(HEADER + question.len());
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        query.extend(word.to_be_bytes());
    }
    query.extend(question);
    query
}

fn question(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        // Checked by `is_name`; a longer label would be cut, never overrun the message.
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes.extend(TYPE_A.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes
}

fn judge(message: &[u8], id: u16, question: &[u8]) -> Judgement {
    match parse(message, id, question) {
        Some(answer) => Judgement::Valid {
            echoed: false,
            answer: wire::printable(answer.as_bytes()),
        },
        None => Judgement::Wrong,
    }
}

/// `NOERROR 10.96.0.1 …`, or `None` if this is not a whole answer to the question.
fn parse(message: &[u8], id: u16, question: &[u8]) -> Option<String> {
    let flags = word(message, 2)?;
    if word(message, 0)? != id || flags & RESPONSE == 0 {
        return None;
    }
    let mut at = HEADER;
    // An error may come without the question.
    if word(message, 4)? != 0 {
        let end = at + question.len();
        message
            .get(at..end)?
            .eq_ignore_ascii_case(question)
            .then_some(())?;
        at = end;
    }
    let code = usize::from(flags & 0xf);
    let mut answer = RCODES
        .get(code)
        .map_or_else(|| format!("RCODE{code}"), |&name| name.to_owned());
    for _ in 0..word(message, 6)? {
        let address;
        (at, address) = record(message, at)?;
        if let Some(ip) = address {
            answer.push_str(&format!(" {ip}"));
        }
    }
    Some(answer)
}

/// Where the record ends, and its address if it is an A record.
fn record(message: &[u8], at: usize) -> Option<(usize, Option<Ipv4Addr>)> {
    let at = after_name(message, at)?;
    let length = usize::from(word(message, at + 8)?);
    let data = message.get(at + 10..at + 10 + length)?;
    let is_a = word(message, at)? == TYPE_A && word(message, at + 2)? == CLASS_IN;
    let address = if is_a {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?))
    } else {
        None
    };
    Some((at + 10 + length, address))
}

/// Where a name ends: after its zero byte or its pointer. Pointers are not followed: the owner's name is not used.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const ID: u16 = 0x1234;

    /// An answer to a query for `db.svc`, with these flags and records.
    fn message(flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [ID, flags, 1, records.len() as u16, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(question("DB.svc"));
        for (kind, data) in records {
            bytes.extend([0xc0, HEADER as u8]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 30]);
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    fn parsed(message: &[u8]) -> Option<String> {
        parse(message, ID, &question("db.svc."))
    }

    #[rstest]
    #[case::one(message(RESPONSE, &[(1, &[10, 96, 0, 1])]), Some("NOERROR 10.96.0.1"))]
    #[case::two_after_an_alias(
        message(RESPONSE, &[(5, b"\x01a\xc0\x0c"), (1, &[10, 0, 0, 1]), (1, &[10, 0, 0, 2])]),
        Some("NOERROR 10.0.0.1 10.0.0.2")
    )]
    #[case::no_such_name(message(RESPONSE | 3, &[]), Some("NXDOMAIN"))]
    #[case::code_without_a_name(message(RESPONSE | 9, &[]), Some("RCODE9"))]
    #[case::a_query_is_no_answer(message(0, &[]), None)]
    #[case::address_of_three_bytes(message(RESPONSE, &[(1, &[10, 0, 0])]), None)]
    #[case::empty(vec![], None)]
    fn an_answer_is_read(#[case] message: Vec<u8>, #[case] expected: Option<&str>) {
        assert_eq!(parsed(&message).as_deref(), expected);
    }

    #[test]
    fn over_tcp_an_answer_is_whole_only_with_all_the_bytes_its_length_announces() {
        let script = stream_script("db.svc.");
        assert_eq!(
            script.request[..2],
            ((script.request.len() - 2) as u16).to_be_bytes()
        );
        let mut answer = message(RESPONSE, &[(1, &[10, 0, 0, 1])]);
        answer[..2].copy_from_slice(&script.request[2..4]);
        let mut heard = (answer.len() as u16).to_be_bytes().to_vec();
        heard.extend(&answer);
        let last = heard.len() - 1;
        assert_eq!((script.judge)(&heard[..last], Heard::SoFar), Judgement::More);
        assert_eq!((script.judge)(&heard[..last], Heard::All), Judgement::Wrong);
        let expected = Judgement::Valid {
            echoed: false,
            answer: "NOERROR 10.0.0.1".to_owned(),
        };
        assert_eq!((script.judge)(&heard, Heard::SoFar), expected);
    }

    #[test]
    fn another_id_or_question_is_no_answer() {
        let message = message(RESPONSE, &[]);
        assert_eq!(parse(&message, ID + 1, &question("db.svc")), None);
        assert_eq!(parse(&message, ID, &question("db.sv1")), None);
    }

    #[test]
    fn an_error_without_the_question_is_an_answer() {
        let header = [0x12, 0x34, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parsed(&header).as_deref(), Some("REFUSED"));
    }

    #[test]
    fn no_cut_and_no_changed_byte_makes_the_parser_fail_otherwise_than_by_none() {
        let whole = message(RESPONSE, &[(5, b"\x01a\xc0\x0c"), (1, &[10, 0, 0, 1])]);
        for cut in 0..whole.len() {
            assert_eq!(parsed(&whole[..cut]), None, "cut at {cut}");
        }
        for (position, value) in (0..whole.len()).flat_map(|p| (0..=255).map(move |v| (p, v))) {
            let mut changed = whole.clone();
            changed[position] = value;
            let _ = parsed(&changed);
        }
    }

    #[rstest]
    #[case::absolute("kubernetes.default.svc.cluster.local.", true)]
    #[case::underscore("_dns._udp.kube-dns", true)]
    #[case::empty("", false)]
    #[case::root(".", false)]
    #[case::empty_label("a..b", false)]
    #[case::long_label("a123456789012345678901234567890123456789012345678901234567890123.b", false)]
    #[case::blank("a b", false)]
    fn a_name_can_be_asked_for_or_not(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(is_name(name), valid);
    }

    #[test]
    fn the_query_is_the_documented_layout() {
        let request = script("a.bc.").request;
        assert_eq!(
            request[2..],
            *b"\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01"
        );
    }
}

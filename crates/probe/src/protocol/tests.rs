//! The JSON form is what two builds of different age have in common: it is pinned here, letter by letter.

use super::*;
use rstest::rstest;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fn is_written_and_read_as<T>(document: &T, json: &str)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    assert_eq!(serde_json::to_string(document).unwrap(), json);
    assert_eq!(&serde_json::from_str::<T>(json).unwrap(), document);
}

fn outcome() -> Outcome {
    Outcome {
        id: 7,
        ending: Ending::TimedOut,
        echoed: false,
        peer: None,
        local: None,
        answer: None,
        error: None,
        resolve_ms: None,
        connect_ms: None,
        total_ms: 1000,
    }
}

#[test]
fn a_request_keeps_its_form() {
    let attempt = Attempt {
        id: 1,
        protocol: Protocol::Dns,
        host: String::new(),
        port: 53,
        nonce: "abcd-1234".to_owned(),
        timeout_ms: 1000,
        query: Some("a.svc.".to_owned()),
    };
    let request = Request {
        version: VERSION,
        concurrency: 16,
        attempts: vec![attempt],
    };
    let json = r#"{"version":1,"concurrency":16,"attempts":[{"id":1,"protocol":"dns","host":"","port":53,"nonce":"abcd-1234","timeout_ms":1000,"query":"a.svc."}]}"#;
    is_written_and_read_as(&request, json);
}

#[test]
fn a_lean_and_a_full_outcome_keep_their_form() {
    let lean = r#"{"id":7,"ending":"timed-out","echoed":false,"total_ms":1000}"#;
    is_written_and_read_as(&Line::Outcome(outcome()), lean);
    let full = Outcome {
        ending: Ending::Reached,
        echoed: true,
        peer: Some("10.0.0.1:80".parse().unwrap()),
        local: Some("[fd00::1]:40000".parse().unwrap()),
        answer: Some("agent-1".to_owned()),
        error: Some("none".to_owned()),
        resolve_ms: Some(1),
        connect_ms: Some(2),
        ..outcome()
    };
    let json = r#"{"id":7,"ending":"reached","echoed":true,"peer":"10.0.0.1:80","local":"[fd00::1]:40000","answer":"agent-1","error":"none","resolve_ms":1,"connect_ms":2,"total_ms":1000}"#;
    is_written_and_read_as(&Line::Outcome(full), json);
}

#[test]
fn a_summary_is_told_from_other_lines() {
    let done = Summary {
        done: 3,
        refused: None,
    };
    is_written_and_read_as(&Line::Summary(done.clone()), r#"{"done":3}"#);
    is_written_and_read_as(&WitnessLine::Summary(done), r#"{"done":3}"#);
    let refused = Summary {
        done: 0,
        refused: Some("why".to_owned()),
    };
    is_written_and_read_as(&Line::Summary(refused), r#"{"done":0,"refused":"why"}"#);
}

#[test]
fn a_sighting_keeps_its_form() {
    let sighting = Sighting {
        nonce: "abcd-1234".to_owned(),
        from: "10.0.0.1:40000".parse().unwrap(),
        to: "[::]:53".parse().unwrap(),
        protocol: Protocol::Udp,
        at_ms: 5,
    };
    let json = r#"{"nonce":"abcd-1234","from":"10.0.0.1:40000","to":"[::]:53","protocol":"udp","at_ms":5}"#;
    is_written_and_read_as(&WitnessLine::Sighting(sighting), json);
}

#[test]
fn the_line_of_a_listener_keeps_its_form() {
    let listening = Listening {
        tcp: vec![80, 443],
        udp: vec![],
        bind: "::".parse().unwrap(),
    };
    is_written_and_read_as(&listening, r#"{"tcp":[80,443],"udp":[],"bind":"::"}"#);
}

#[test]
fn conversations_keep_their_form() {
    let sql = Question::Sql(SqlRequest {
        host: "db".into(),
        port: 5432,
        user: "tenant-a".into(),
        password: Secret::new("p"),
        database: "d".into(),
        timeout_ms: 1000,
        statements: vec!["select 1".into()],
        hold: Some(Hold {
            connections: 2,
            for_ms: 5,
        }),
    });
    let json = r#"{"ask":1,"sql":{"host":"db","port":5432,"user":"tenant-a","password":"p","database":"d","timeout_ms":1000,"statements":["select 1"],"hold":{"connections":2,"for_ms":5}}}"#;
    is_written_and_read_as(
        &Ask {
            ask: 1,
            question: sql,
        },
        json,
    );
    let flood = RedisCommand {
        repeat: 2,
        ..RedisCommand::once(["XADD"])
    };
    let redis = Question::Redis(RedisRequest {
        host: "r".into(),
        port: 6379,
        user: "tenant-a".into(),
        password: Secret::new("p"),
        timeout_ms: 1000,
        commands: vec![RedisCommand::once(["GET", "k"]), flood],
    });
    let json = r#"{"ask":2,"redis":{"host":"r","port":6379,"user":"tenant-a","password":"p","timeout_ms":1000,"commands":[{"args":["GET","k"]},{"args":["XADD"],"repeat":2}]}}"#;
    is_written_and_read_as(
        &Ask {
            ask: 2,
            question: redis,
        },
        json,
    );
    let release = Ask {
        ask: 3,
        question: Question::Release(1),
    };
    is_written_and_read_as(&release, r#"{"ask":3,"release":1}"#);
}

#[test]
fn what_is_answered_in_conversations_keeps_its_form() {
    let replied = |part| Reply { ask: 3, part };
    let rows = Rows {
        rows: vec![vec![Some("1".into()), None]],
        affected: 1,
    };
    let json = r#"{"ask":3,"rows":{"Ok":{"rows":[["1",null]],"affected":1}}}"#;
    is_written_and_read_as(&replied(Part::Rows(Ok(rows))), json);
    let error = SqlError {
        sqlstate: Some("42501".into()),
        message: "no".into(),
    };
    let json = r#"{"ask":3,"rows":{"Err":{"sqlstate":"42501","message":"no"}}}"#;
    is_written_and_read_as(&replied(Part::Rows(Err(error))), json);
    let error = RedisError {
        code: None,
        message: "late".into(),
    };
    is_written_and_read_as(
        &replied(Part::Answer(Err(error))),
        r#"{"ask":3,"answer":{"Err":{"message":"late"}}}"#,
    );
    is_written_and_read_as(
        &replied(Part::Answer(Ok(serde_json::json!(["a", null])))),
        r#"{"ask":3,"answer":{"Ok":["a",null]}}"#,
    );
    let refused = Unconnected {
        ending: Ending::Reached,
        code: Some("53300".into()),
        message: "full".into(),
    };
    let held = Held {
        accepted: 9,
        after_ms: 40,
        refused: Some(refused),
    };
    let json = r#"{"ask":3,"held":{"accepted":9,"after_ms":40,"refused":{"ending":"reached","code":"53300","message":"full"}}}"#;
    is_written_and_read_as(&replied(Part::Held(held)), json);
}

#[rstest]
#[case::tcp(Protocol::Tcp, "tcp")]
#[case::udp(Protocol::Udp, "udp")]
#[case::http(Protocol::Http, "http")]
#[case::dns(Protocol::Dns, "dns")]
#[case::dns_over_tcp(Protocol::DnsTcp, "dns-tcp")]
#[case::postgresql(Protocol::Postgresql, "postgresql")]
#[case::redis(Protocol::Redis, "redis")]
fn every_protocol_has_its_word(#[case] protocol: Protocol, #[case] word: &str) {
    is_written_and_read_as(&protocol, &format!("{word:?}"));
}

#[rstest]
#[case::reached(Ending::Reached, "reached")]
#[case::connected(Ending::ConnectedWithoutEcho, "connected-without-echo")]
#[case::refused(Ending::Refused, "refused")]
#[case::unreachable(Ending::Unreachable, "unreachable")]
#[case::timed_out(Ending::TimedOut, "timed-out")]
#[case::dns_failed(Ending::DnsFailed, "dns-failed")]
#[case::local_error(Ending::LocalError, "local-error")]
fn every_ending_has_its_word(#[case] ending: Ending, #[case] word: &str) {
    is_written_and_read_as(&ending, &format!("{word:?}"));
}

#[rstest]
#[case::request(r#"{"version":1,"concurrency":1,"attempts":[],"more":1}"#)]
#[case::attempt(
    r#"{"version":1,"concurrency":1,"attempts":[{"id":1,"protocol":"tcp","host":"a","port":1,"nonce":"abcd-1234","timeout_ms":1,"more":1}]}"#
)]
fn an_unknown_field_is_refused_rather_than_ignored(#[case] json: &str) {
    assert!(
        serde_json::from_str::<Request>(json)
            .unwrap_err()
            .to_string()
            .contains("unknown field `more`")
    );
}

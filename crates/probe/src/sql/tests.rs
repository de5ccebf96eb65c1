//! Sessions with a server on loopback that says what a test says.

use super::*;
use crate::protocol::Question;
use futures::FutureExt;
use rstest::rstest;
use serde_json::json;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Long enough on a busy machine where an answer is expected, short where the time-out is.
const AMPLE_MS: u64 = 10_000;
const SHORT_MS: u64 = 150;
const PASSWORD: &str = "hunter2-hunter2";

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}
fn error(severity: &str, state: &str, words: &str) -> Vec<u8> {
    message(
        b'E',
        format!("S{severity}\0V{severity}\0C{state}\0M{words}\0\0").as_bytes(),
    )
}
/// One row of these values.
fn row(values: &[Option<&str>]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    let column = [b"c\0".as_slice(), &[0; 18]].concat();
    let mut data = count.to_vec();
    for value in values {
        match value {
            None => data.extend((-1_i32).to_be_bytes()),
            Some(text) => {
                data.extend(i32::try_from(text.len()).unwrap().to_be_bytes());
                data.extend(text.as_bytes());
            }
        }
    }
    let description = [&count[..], &column.repeat(values.len())].concat();
    [message(b'T', &description), message(b'D', &data)].concat()
}
fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}
fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// What the server says to a statement; nothing: it closes the connection.
type Script = fn(&str) -> Option<Vec<u8>>;

/// A server that greets each connection (counted from zero) so, and then answers by the script.
async fn server(greet: fn(usize) -> Vec<u8>, script: Script) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let greeting = greet(count.fetch_add(1, Ordering::Relaxed));
            tokio::spawn(serve(stream, greeting, script));
        }
    });
    port
}

async fn serve(mut stream: TcpStream, greeting: Vec<u8>, script: Script) -> Option<()> {
    let length = stream.read_u32().await.ok()?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await.ok()?;
    stream.write_all(&greeting).await.ok()?;
    loop {
        let kind = stream.read_u8().await.ok()?;
        let length = stream.read_u32().await.ok()?;
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await.ok()?;
        match kind {
            b'Q' => {
                let statement = String::from_utf8(body).unwrap();
                let answer = script(statement.trim_end_matches('\0'))?;
                stream.write_all(&answer).await.ok()?;
            }
            b'p' => {
                // A server that gives away what it was told.
                let password = String::from_utf8(body).unwrap();
                let words = format!("no: {}", password.trim_end_matches('\0'));
                stream.write_all(&error("FATAL", "28P01", &words)).await.ok()?;
            }
            _ => return None,
        }
    }
}

fn welcome(_: usize) -> Vec<u8> {
    [message(b'R', &[0; 4]), ready()].concat()
}

fn request(port: u16, statements: &[&str]) -> SqlRequest {
    SqlRequest {
        host: "127.0.0.1".into(),
        port,
        user: "tenant-a".into(),
        password: Secret::new(PASSWORD),
        database: "ai_agents".into(),
        timeout_ms: AMPLE_MS,
        statements: statements.iter().map(|text| (*text).to_owned()).collect(),
        hold: None,
    }
}

async fn said(request: &SqlRequest) -> Vec<Part> {
    let mut parts = Vec::new();
    converse(request, pending(), |part| parts.push(part)).await;
    parts
}

fn answers(statement: &str) -> Option<Vec<u8>> {
    let answer = match statement {
        "row" => [row(&[Some("1"), None]), complete("SELECT 1")].concat(),
        "write" => complete("UPDATE 3"),
        "nothing" => message(b'I', b""),
        "refused" => error("ERROR", "42501", "permission denied"),
        "many" => [row(&[Some("x")]).repeat(MAX_ROWS + 1), complete("SELECT 1001")].concat(),
        "silent" => return Some(Vec::new()),
        _ => return None,
    };
    Some([answer, ready()].concat())
}

fn rows(rows: &[&[Option<&str>]], affected: u64) -> Part {
    let row = |row: &&[Option<&str>]| row.iter().map(|value| value.map(str::to_owned)).collect();
    Part::Rows(Ok(Rows {
        rows: rows.iter().map(row).collect(),
        affected,
    }))
}
fn failed_with(sqlstate: Option<&str>, message: &str) -> Part {
    Part::Rows(Err(SqlError {
        sqlstate: sqlstate.map(str::to_owned),
        message: message.to_owned(),
    }))
}

#[tokio::test]
async fn each_statement_is_answered_in_order_and_one_that_failed_is_no_end() {
    let port = server(welcome, answers).await;
    let parts = said(&request(port, &["row", "refused", "write", "nothing"])).await;
    let expected = [
        rows(&[&[Some("1"), None]], 1),
        failed_with(Some("42501"), "permission denied"),
        rows(&[], 3),
        rows(&[], 0),
    ];
    assert_eq!(parts, expected);
}

#[tokio::test]
async fn more_rows_than_anybody_reads_are_counted_only() {
    let port = server(welcome, answers).await;
    let parts = said(&request(port, &["many"])).await;
    let [Part::Rows(Ok(heard))] = &parts[..] else {
        panic!("expected rows: {parts:?}")
    };
    assert_eq!((heard.rows.len(), heard.affected), (MAX_ROWS, 1001));
}

#[tokio::test]
async fn what_was_to_be_said_after_the_end_is_named_as_not_said() {
    let port = server(welcome, answers).await;
    let parts = said(&request(port, &["row", "bye", "row"])).await;
    let lost = "connection closed";
    assert_eq!(parts[1], failed_with(None, lost));
    assert_eq!(parts[2], failed_with(None, &format!("not said: {lost}")));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_awaited_for_long() {
    let port = server(welcome, answers).await;
    let short = SqlRequest {
        timeout_ms: SHORT_MS,
        ..request(port, &["silent", "row"])
    };
    let expected = [
        failed_with(None, "no answer in time"),
        failed_with(None, "not said: no answer in time"),
    ];
    assert_eq!(said(&short).await, expected);
}

#[rstest]
#[case::wrong_password(|_| error("FATAL", "28P01", "password authentication failed"), Ending::Reached, Some("28P01"), "password authentication failed")]
#[case::too_many(|_| error("FATAL", "53300", "too many connections"), Ending::Reached, Some("53300"), "too many connections")]
#[case::starting(|_| error("FATAL", "57P03", "the database system is starting up"), Ending::Reached, Some("57P03"), "the database system is starting up")]
#[case::the_password_comes_back(|_| message(b'R', &[0, 0, 0, 3]), Ending::Reached, Some("28P01"), "no: [redacted]")]
#[case::another_program(|_| b"SSH-2.0-OpenSSH\r\n".to_vec(), Ending::ConnectedWithoutEcho, None, "")]
#[case::silence(|_| Vec::new(), Ending::ConnectedWithoutEcho, None, "connected, but no answer in time")]
#[tokio::test]
async fn without_a_session_there_is_the_reason_and_nothing_else(
    #[case] greet: fn(usize) -> Vec<u8>,
    #[case] ending: Ending,
    #[case] code: Option<&str>,
    #[case] words: &str,
) {
    let port = server(greet, answers).await;
    let request = SqlRequest {
        timeout_ms: 500,
        ..request(port, &["row"])
    };
    let parts = said(&request).await;
    let [Part::Unconnected(why)] = &parts[..] else {
        panic!("expected no session: {parts:?}")
    };
    assert_eq!((why.ending, why.code.as_deref()), (ending, code));
    assert!(why.message.starts_with(words), "{why:?}");
}

#[rstest]
#[case::nobody_listens("127.77.0.2", 1, Ending::Refused)]
#[case::no_such_name("no-such-name.invalid", 5432, Ending::DnsFailed)]
#[tokio::test]
async fn without_a_connection_it_says_how_it_failed(
    #[case] host: &str,
    #[case] port: u16,
    #[case] ending: Ending,
) {
    let request = SqlRequest {
        host: host.into(),
        ..request(port, &["row"])
    };
    let parts = said(&request).await;
    assert!(
        matches!(&parts[..], [Part::Unconnected(why)] if why.ending == ending),
        "{parts:?}"
    );
}

/// The session itself and two more.
fn three(number: usize) -> Vec<u8> {
    match number {
        0..3 => welcome(number),
        _ => error("FATAL", "53300", "too many connections for role"),
    }
}

#[rstest]
#[case::all(2, 2, None)]
#[case::too_many(5, 2, Some("53300"))]
#[tokio::test]
async fn further_connections_are_counted_until_one_is_refused(
    #[case] connections: usize,
    #[case] accepted: usize,
    #[case] refused: Option<&str>,
) {
    let port = server(three, answers).await;
    let hold = Some(Hold {
        connections,
        for_ms: 10,
    });
    let request = SqlRequest {
        hold,
        ..request(port, &["row"])
    };
    let parts = said(&request).await;
    let [Part::Rows(Ok(_)), Part::Held(held)] = &parts[..] else {
        panic!("expected rows, then connections: {parts:?}")
    };
    let code = held.refused.as_ref().and_then(|why| why.code.as_deref());
    assert_eq!((held.accepted, code), (accepted, refused));
}

#[tokio::test]
async fn connections_are_let_go_once_they_are_released() {
    let port = server(three, answers).await;
    let hold = Some(Hold {
        connections: 2,
        for_ms: MAX_CONVERSATION_MS,
    });
    let request = SqlRequest {
        hold,
        ..request(port, &[])
    };
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let mut release = Some(release);
    let mut held = false;
    let conversation = converse(&request, released.map(drop), |part| {
        held = matches!(part, Part::Held(_));
        drop(release.take());
    });
    let ended = timeout(Duration::from_millis(AMPLE_MS), conversation).await;
    assert!(ended.is_ok() && held);
}

#[rstest]
#[case::a_copy(
    "COPY t (a) FROM STDIN;\nx\n\\.\n",
    Some(("COPY t (a) FROM STDIN", "x\n\\.\n"))
)]
#[case::without_lines("copy t from stdin", Some(("copy t from stdin", "")))]
#[case::a_query("select 1", None)]
#[case::outwards("copy t to stdout", None)]
#[case::from_a_file("copy t from '/x'", None)]
fn a_copys_lines_come_after_it(#[case] statement: &str, #[case] expected: Option<(&str, &str)>) {
    assert_eq!(copied_in(statement), expected);
}

#[rstest]
#[case::host(|it: &mut SqlRequest| it.host = "a b".into(), "expected a host name")]
#[case::port(|it: &mut SqlRequest| it.port = 0, "expected a port from 1 to 65535, got 0")]
#[case::user(|it: &mut SqlRequest| it.user = String::new(), "expected a user")]
#[case::database(|it: &mut SqlRequest| it.database = "a\0b".into(), "expected a database of at most 256 bytes")]
#[case::time(|it: &mut SqlRequest| it.timeout_ms = 30_001, "expected a timeout_ms from 1 to 30000, got 30001")]
#[case::statements(|it: &mut SqlRequest| it.statements = vec![String::new(); 201], "expected at most 200 statements, got 201")]
#[case::statement(|it: &mut SqlRequest| it.statements = vec!["x".repeat(65_537)], "statement 0: expected at most 65536 bytes")]
#[case::connections(|it: &mut SqlRequest| it.hold = Some(Hold { connections: 129, for_ms: 1 }), "expected a number of connections from 1 to 128, got 129")]
#[case::held_for(|it: &mut SqlRequest| it.hold = Some(Hold { connections: 1, for_ms: 0 }), "expected a for_ms from 1 to 30000, got 0")]
fn a_bad_request_is_refused_with_the_reason(#[case] spoil: fn(&mut SqlRequest), #[case] reason: &str) {
    let mut request = request(5432, &["row"]);
    assert_eq!(check(&request), Ok(()));
    spoil(&mut request);
    let refused = check(&request).unwrap_err();
    assert!(refused.starts_with(reason), "{refused}");
}

#[test]
fn the_password_is_neither_shown_nor_quoted() {
    let shown = format!("{:?}", Question::Sql(request(1, &[])));
    assert!(!shown.contains(PASSWORD), "{shown}");
    let mut wrong = serde_json::to_value(request(1, &[])).unwrap();
    wrong["password"] = json!([PASSWORD]);
    let error = serde_json::from_value::<SqlRequest>(wrong).unwrap_err();
    assert_eq!(error.to_string(), "expected a secret as a string");
}

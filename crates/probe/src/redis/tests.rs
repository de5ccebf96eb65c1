//! Connections with a server on loopback that says what a test says.

use super::*;
use crate::protocol::Question;
use rstest::rstest;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const PASSWORD: &str = "hunter2-hunter2";

/// A server that says all of this at once, and then nothing, or closes; what it heard.
async fn server(says: impl AsRef<[u8]> + Send + 'static, hold: bool) -> (u16, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, heard) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 1024];
        let first = stream.read(&mut bytes).await.unwrap();
        bytes.truncate(first);
        // The other side may have heard enough already.
        let _ = stream.write_all(says.as_ref()).await;
        if hold {
            let _ = stream.read_to_end(&mut bytes).await;
        }
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    (port, heard)
}

fn request(port: u16, commands: Vec<RedisCommand>) -> RedisRequest {
    RedisRequest {
        host: "127.0.0.1".into(),
        port,
        user: String::new(),
        password: Secret::new(PASSWORD),
        timeout_ms: 10_000,
        commands,
    }
}

fn pings(count: usize) -> Vec<RedisCommand> {
    vec![RedisCommand::once(["PING"]); count]
}

async fn said(request: &RedisRequest) -> Vec<Part> {
    let mut parts = Vec::new();
    converse(request, |part| parts.push(part)).await;
    parts
}

fn value(value: &Value) -> Part {
    Part::Answer(Ok(value.clone()))
}
fn failed(code: Option<&str>, message: &str) -> Part {
    Part::Answer(Err(RedisError {
        code: code.map(str::to_owned),
        message: message.to_owned(),
    }))
}

#[tokio::test]
async fn every_kind_of_reply_is_told_and_an_error_is_no_end() {
    let replies = "+PONG\r\n-NOPERM no key\r\n:7\r\n$5\r\na\r\nbc\r\n$-1\r\n*3\r\n:1\r\n*1\r\n$1\r\nx\r\n-ERR in it\r\n*-1\r\n*0\r\n";
    let (port, _) = server(replies, true).await;
    let expected = [
        value(&json!("PONG")),
        failed(Some("NOPERM"), "NOPERM no key"),
        value(&json!(7)),
        value(&json!("a\r\nbc")),
        value(&json!(null)),
        value(&json!([1, ["x"], "ERR in it"])),
        value(&json!(null)),
        value(&json!([])),
    ];
    assert_eq!(said(&request(port, pings(8))).await, expected);
}

#[tokio::test]
async fn who_has_a_user_authenticates_first() {
    let (port, heard) = server("+OK\r\n+PONG\r\n", false).await;
    let request = RedisRequest {
        user: "tenant-a".into(),
        ..request(port, pings(1))
    };
    assert_eq!(said(&request).await, [value(&json!("PONG"))]);
    let auth = format!("*3\r\n$4\r\nAUTH\r\n$8\r\ntenant-a\r\n$15\r\n{PASSWORD}\r\n");
    assert!(heard.await.unwrap().starts_with(&auth));
}

#[rstest]
#[case::refused(
    "-WRONGPASS invalid username-password pair\r\n",
    Ending::Reached,
    Some("WRONGPASS"),
    "WRONGPASS invalid"
)]
#[case::the_password_comes_back(
    "-ERR unknown command, with args 'hunter2-hunter2'\r\n",
    Ending::Reached,
    Some("ERR"),
    "ERR unknown command, with args '[redacted]'"
)]
#[case::another_program(
    "SSH-2.0-OpenSSH\r\n",
    Ending::ConnectedWithoutEcho,
    None,
    "no reply of Redis: \"SSH-2.0-OpenSSH\""
)]
#[case::an_end("", Ending::ConnectedWithoutEcho, None, "the peer closed the connection")]
#[tokio::test]
async fn without_its_user_there_is_the_reason_and_nothing_else(
    #[case] says: &'static str,
    #[case] ending: Ending,
    #[case] code: Option<&str>,
    #[case] words: &str,
) {
    let (port, _) = server(says, false).await;
    let request = RedisRequest {
        user: "tenant-a".into(),
        ..request(port, pings(1))
    };
    let parts = said(&request).await;
    let [Part::Unconnected(why)] = &parts[..] else {
        panic!("expected no connection: {parts:?}")
    };
    assert_eq!((why.ending, why.code.as_deref()), (ending, code));
    assert!(why.message.starts_with(words), "{why:?}");
}

#[rstest]
#[case::cut("$5\r\nab", false, "the peer closed the connection")]
#[case::no_number("$x\r\n", false, "no reply of Redis: \"$x\"")]
#[case::too_long("$9999999\r\n", true, "the replies are longer than 2097152 bytes")]
#[case::too_deep(
    "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
    true,
    "no reply of Redis: \"*1\""
)]
#[case::silence("", true, "no answer in time")]
#[tokio::test]
async fn what_is_no_reply_ends_it(#[case] says: &'static str, #[case] hold: bool, #[case] why: &str) {
    let (port, _) = server(says, hold).await;
    let request = RedisRequest {
        timeout_ms: 500,
        ..request(port, pings(2))
    };
    let expected = [failed(None, why), failed(None, &format!("not said: {why}"))];
    assert_eq!(said(&request).await, expected);
}

#[tokio::test]
async fn a_reply_without_an_end_is_not_heard_for_ever() {
    let (port, _) = server([b"+".as_slice(), &vec![b'x'; 4 << 20]].concat(), true).await;
    let parts = said(&request(port, pings(1))).await;
    assert_eq!(parts, [failed(None, "the replies are longer than 2097152 bytes")]);
}

#[tokio::test]
async fn a_flood_is_said_at_once_and_its_first_error_told() {
    let replies = ["+OK\r\n".repeat(4_998), "-OOM full\r\n+OK\r\n".to_owned()].concat();
    let (port, heard) = server(replies, true).await;
    let flood = RedisCommand {
        repeat: 5_000,
        ..RedisCommand::once(["XADD", "q", "*", "id", "x-{n}"])
    };
    let request = request(port, vec![flood]);
    assert_eq!(said(&request).await, [failed(Some("OOM"), "OOM full")]);
    let heard = heard.await.unwrap();
    assert!(heard.contains("$3\r\nx-0\r\n") && heard.ends_with("$6\r\nx-4999\r\n"));
}

#[tokio::test]
async fn nobody_listens() {
    let request = RedisRequest {
        host: "127.77.0.3".into(),
        ..request(1, pings(1))
    };
    let parts = said(&request).await;
    assert!(
        matches!(&parts[..], [Part::Unconnected(why)] if why.ending == Ending::Refused),
        "{parts:?}"
    );
}

#[rstest]
#[case::host(|it: &mut RedisRequest| it.host = String::new(), "expected a host name")]
#[case::port(|it: &mut RedisRequest| it.port = 0, "expected a port from 1 to 65535, got 0")]
#[case::time(|it: &mut RedisRequest| it.timeout_ms = 0, "expected a timeout_ms from 1 to 30000, got 0")]
#[case::user(|it: &mut RedisRequest| it.user = "a\nb".into(), "expected a user of at most 256 bytes")]
#[case::no_commands(|it: &mut RedisRequest| it.commands.clear(), "expected a number of commands from 1 to 200, got 0")]
#[case::no_words(|it: &mut RedisRequest| it.commands[0].args.clear(), "command 0: expected a number of words from 1 to 64, got 0")]
#[case::repeat(|it: &mut RedisRequest| it.commands[0].repeat = 5_001, "command 0: expected a repeat from 1 to 5000, got 5001")]
#[case::word(|it: &mut RedisRequest| it.commands[0].args[0] = "x".repeat(65_537), "command 0: expected words of at most 65536 bytes")]
fn a_bad_request_is_refused_with_the_reason(#[case] spoil: fn(&mut RedisRequest), #[case] reason: &str) {
    let mut request = request(6379, pings(1));
    assert_eq!(check(&request), Ok(()));
    spoil(&mut request);
    let refused = check(&request).unwrap_err();
    assert!(refused.starts_with(reason), "{refused}");
}

#[test]
fn the_password_is_not_shown() {
    let shown = format!("{:?}", Question::Redis(request(1, pings(1))));
    assert!(!shown.contains(PASSWORD), "{shown}");
}

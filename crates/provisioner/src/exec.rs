//! A program in a pod that one talks to line by line, over the API server's websocket. Does not use `AttachedProcess` of kube 5.0: its
//! pipes hang when output is unread or the connection is lost (tokio issues 6914 and 8177). What the lines mean is left to those who ask.

use crate::calls::chain;
use futures::stream::BoxStream;
use futures::{Sink, SinkExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::AttachParams;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use tokio_tungstenite::tungstenite::{Error, Message};

// Channel numbers of the `v5.channel.k8s.io` protocol (k8s.io/apimachinery, pkg/util/remotecommand).
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// More output without a line's end is not ours: the agent's lines are bounded.
const MAX_LINE: usize = 8 << 20;

/// What an error says where the connection was lost, and not the program ended.
pub const CUT_OFF: &str = "cut off";

/// A program in a pod that cannot be started, or that one cannot talk to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecError {
    /// What was tried and what came of it.
    pub what: String,
}

impl ExecError {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }

    fn during(doing: impl fmt::Display, error: &dyn StdError) -> Self {
        Self::new(format!("{doing}: {}", chain(error)))
    }

    /// Whether the connection was lost, and the program did not end.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.what.contains(CUT_OFF)
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for ExecError {}

/// Where and what to run.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The program and its arguments.
    pub command: &'a [&'a str],
}

/// The program's stdin. The program goes on when it is dropped; it ends with the connection.
pub struct Input {
    doing: String,
    socket: Pin<Box<dyn Sink<Message, Error = Error> + Send>>,
}

/// The program's stdout.
pub struct Output {
    doing: String,
    socket: BoxStream<'static, Result<Message, Error>>,
    heard: Vec<u8>,
    stderr: Vec<u8>,
}

/// Starts a program.
///
/// # Errors
/// No connection, or a refusal. A program that cannot be started is an error of [`Output::line`].
pub async fn start(client: &kube::Client, command: Command<'_>) -> Result<(Input, Output), ExecError> {
    let doing = format!("exec in pod {} in namespace {}", command.pod, command.namespace);
    let params = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let path = format!("/api/v1/namespaces/{}/pods", command.namespace);
    let request = kube::core::Request::new(path)
        .exec(command.pod, command.command.iter().copied(), &params)
        .map_err(|error| ExecError::during(&doing, &error))?;
    let connection = client
        .connect(request)
        .await
        .map_err(|error| ExecError::during(&doing, &error))?;
    let (to, from) = connection.into_stream().split();
    let input = Input {
        doing: doing.clone(),
        socket: Box::pin(to),
    };
    let output = Output {
        doing,
        socket: from.boxed(),
        heard: Vec::new(),
        stderr: Vec::new(),
    };
    Ok((input, output))
}

impl Input {
    /// Writes a line, its end included.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn line(&mut self, line: &[u8]) -> Result<(), ExecError> {
        let mut frame = Vec::with_capacity(line.len() + 2);
        frame.push(STDIN);
        frame.extend_from_slice(line);
        frame.push(b'\n');
        let sent = self.socket.send(Message::Binary(frame.into())).await;
        sent.map_err(|error| ExecError::during(format!("{}: send a line", self.doing), &error))
    }
}

impl Output {
    /// The next line, without its end.
    ///
    /// # Errors
    /// The program ended or could not be started, the connection was lost, or a line has no end. There are no more lines then.
    pub async fn line(&mut self) -> Result<Vec<u8>, ExecError> {
        let mut searched = 0;
        loop {
            let end = self.heard[searched..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end {
                let rest = self.heard.split_off(searched + end + 1);
                let mut line = std::mem::replace(&mut self.heard, rest);
                line.pop();
                return Ok(line);
            }
            searched = self.heard.len();
            if searched + self.stderr.len() > MAX_LINE {
                return Err(ExecError::new(format!(
                    "{}: more than {MAX_LINE} bytes without a line's end",
                    self.doing
                )));
            }
            self.hear().await?;
        }
    }

    /// Takes in one message.
    async fn hear(&mut self) -> Result<(), ExecError> {
        let cut_off = |doing: &str, why: &str| ExecError::new(format!("{doing}: {CUT_OFF}: {why}"));
        let frame = match self.socket.next().await {
            Some(Ok(Message::Binary(frame))) if !frame.is_empty() => frame,
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => return Err(cut_off(&self.doing, &chain(&error))),
            None => return Err(cut_off(&self.doing, "the connection ended")),
        };
        match frame[0] {
            STDOUT => self.heard.extend_from_slice(&frame[1..]),
            STDERR => self.stderr.extend_from_slice(&frame[1..]),
            STATUS => return Err(self.ended(&frame[1..])),
            _ => {}
        }
        Ok(())
    }

    fn ended(&self, status: &[u8]) -> ExecError {
        let how = match exit_code(status) {
            Ok(code) => format!(
                "ended with exit code {code}: {}",
                String::from_utf8_lossy(&self.stderr).trim()
            ),
            Err(why) => why,
        };
        ExecError::new(format!("{}: {how}", self.doing))
    }
}

/// The exit code, from the status that ends a command; an error where the command never ran.
fn exit_code(status: &[u8]) -> Result<i32, String> {
    let status: Status =
        serde_json::from_slice(status).map_err(|error| format!("unreadable status: {error}"))?;
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let message = status.message.unwrap_or_default();
    let causes = status
        .details
        .and_then(|details| details.causes)
        .unwrap_or_default();
    let code = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match code
        .and_then(|cause| cause.message.as_deref())
        .and_then(|code| code.parse().ok())
    {
        Some(code) => Ok(code),
        None => Err(format!("the command did not run: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::success(r#"{"status":"Success"}"#, Ok(0))]
    #[case::code(r#"{"status":"Failure","reason":"NonZeroExitCode","message":"exit 2","details":{"causes":[{"reason":"ExitCode","message":"2"}]}}"#, Ok(2))]
    #[case::never_ran(r#"{"status":"Failure","reason":"InternalError","message":"executable file not found"}"#, Err("the command did not run: executable file not found".to_owned()))]
    fn the_status_tells_code_or_failure(#[case] status: &str, #[case] expected: Result<i32, String>) {
        assert_eq!(exit_code(status.as_bytes()), expected);
    }

    use axum::Router;
    use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade};
    use axum::http::StatusCode;
    use axum::routing::any;
    use kube::Client;

    /// A client of an API server on loopback that answers everything by this router until the test ends.
    async fn client_of(router: Router) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut config = kube::Config::new(url.parse().unwrap());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    fn frame(channel: u8, text: &str) -> Frame {
        let mut bytes = vec![channel];
        bytes.extend_from_slice(text.as_bytes());
        Frame::Binary(bytes.into())
    }

    /// A kubelet that waits for one line on stdin, sends these frames, and then goes silent.
    async fn kubelet(frames: Vec<Frame>) -> Client {
        let converse = move |mut socket: WebSocket| async move {
            let asked = socket.recv().await;
            assert_eq!(asked.unwrap().unwrap(), frame(STDIN, "question\n"));
            for frame in frames {
                if socket.send(frame).await.is_err() {
                    return;
                }
            }
            while socket.recv().await.is_some_and(|message| message.is_ok()) {}
        };
        let route = any(move |upgrade: WebSocketUpgrade| async move {
            upgrade.protocols(["v5.channel.k8s.io"]).on_upgrade(converse)
        });
        client_of(Router::new().fallback(route)).await
    }

    const COMMAND: Command = Command {
        namespace: "n",
        pod: "p",
        command: &["/probe"],
    };

    async fn asked(frames: Vec<Frame>) -> (Input, Output) {
        let (mut input, output) = start(&kubelet(frames).await, COMMAND).await.unwrap();
        input.line(b"question").await.unwrap();
        (input, output)
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut() {
        let long = "x".repeat(400_000);
        let frames = vec![
            frame(STDOUT, "one\ntw"),
            frame(STDERR, "warn"),
            frame(STDOUT, "o\n"),
            frame(STDOUT, &long),
            frame(STDOUT, "\n"),
        ];
        let (_input, mut output) = asked(frames).await;
        assert_eq!(output.line().await.unwrap(), b"one");
        assert_eq!(output.line().await.unwrap(), b"two");
        assert_eq!(output.line().await.unwrap().len(), 400_000);
    }

    #[rstest]
    #[case::the_connection_ends(vec![frame(STDOUT, "half"), Frame::Close(None)], "cut off")]
    #[case::the_connection_is_closed_with_a_reason(vec![Frame::Close(Some(CloseFrame { code: 1011, reason: "gone".into() }))], "cut off")]
    #[case::it_ended(vec![frame(STDERR, "no such option"), frame(STATUS, r#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"2"}]}}"#)], "ended with exit code 2: no such option")]
    #[case::it_never_ran(vec![frame(STATUS, r#"{"status":"Failure","message":"no such file"}"#)], "the command did not run: no such file")]
    #[case::an_unreadable_status(vec![frame(STATUS, "oops")], "unreadable status")]
    #[case::too_much(vec![frame(STDOUT, &"x".repeat(MAX_LINE + 1))], "more than")]
    #[tokio::test]
    async fn an_end_is_an_error_that_says_how(#[case] frames: Vec<Frame>, #[case] expected: &str) {
        let (_input, mut output) = asked(frames).await;
        let error = output.line().await.unwrap_err();
        assert!(error.what.contains(expected), "{error}");
    }

    #[tokio::test]
    async fn a_refused_exec_is_an_error_that_says_by_whom() {
        let refusal = any(async || {
            let message = "pods is forbidden: User \"u\" cannot create resource \"pods/exec\"";
            let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message});
            (StatusCode::FORBIDDEN, body.to_string())
        });
        let client = client_of(Router::new().fallback(refusal)).await;
        let error = start(&client, COMMAND).await.err().unwrap();
        assert!(error.what.contains("cannot create resource"), "{error}");
    }

    #[test]
    fn a_status_that_is_not_json_is_an_error() {
        assert!(exit_code(b"oops").unwrap_err().starts_with("unreadable status"));
    }
}

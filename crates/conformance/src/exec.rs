//! Runs a command in a pod over the API server's websocket, with a request on stdin. Does not use `AttachedProcess` of kube 5.0: its
//! pipes hang when output is unread or the connection is lost (tokio issues 6914 and 8177). Interpreting the output is left to `agent`.

use crate::error::{HarnessError, chain};
use futures::{SinkExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::AttachParams;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

// Channel numbers of the `v5.channel.k8s.io` protocol (k8s.io/apimachinery, pkg/util/remotecommand).
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// More output than this is not ours: the agent's answers are bounded.
const MAX_OUTPUT: usize = 8 << 20;

/// Where and what to run.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The program and its arguments.
    pub command: &'a [&'a str],
    /// What it reads; stdin stays open behind it.
    pub stdin: Option<&'a [u8]>,
    /// How long the whole may take.
    pub limit: Duration,
}

/// What a command that ran to its end left behind.
#[derive(Debug, Default)]
pub struct Output {
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr, lossily.
    pub stderr: String,
    /// The exit code.
    pub code: i32,
}

/// Runs a command to its end.
///
/// # Errors
/// No connection, a refusal, an end without a status (the connection was lost: the output is truncated and proves nothing), a program
/// that could not be started, or no end within the limit.
pub async fn exec(client: &kube::Client, command: &Command<'_>) -> Result<Output, HarnessError> {
    let doing = format!("exec in pod {} in namespace {}", command.pod, command.namespace);
    match tokio::time::timeout(command.limit, converse(client, command, &doing)).await {
        Ok(result) => result,
        Err(_) => Err(HarnessError::new(format!(
            "{doing}: not ended within {} s",
            command.limit.as_secs_f64()
        ))),
    }
}

async fn converse(client: &kube::Client, command: &Command<'_>, doing: &str) -> Result<Output, HarnessError> {
    let params = AttachParams::default()
        .stdin(command.stdin.is_some())
        .stdout(true)
        .stderr(true);
    let path = format!("/api/v1/namespaces/{}/pods", command.namespace);
    let request = kube::core::Request::new(path)
        .exec(command.pod, command.command.iter().copied(), &params)
        .map_err(|error| HarnessError::during(doing, &error))?;
    let connection = client
        .connect(request)
        .await
        .map_err(|error| HarnessError::during(doing, &error))?;
    let mut socket = connection.into_stream();
    if let Some(stdin) = command.stdin {
        let mut frame = Vec::with_capacity(stdin.len() + 1);
        frame.push(STDIN);
        frame.extend_from_slice(stdin);
        let sent = socket.send(Message::Binary(frame.into())).await;
        sent.map_err(|error| HarnessError::during(format!("{doing}: send the request"), &error))?;
    }
    let mut output = Output::default();
    let mut stderr = Vec::new();
    while let Some(message) = socket.next().await {
        let frame = match message {
            Ok(Message::Binary(frame)) if !frame.is_empty() => frame,
            Ok(_) => continue,
            Err(error) => return Err(truncated(doing, &chain(&error))),
        };
        match frame[0] {
            STDOUT => output.stdout.extend_from_slice(&frame[1..]),
            STDERR => stderr.extend_from_slice(&frame[1..]),
            STATUS => {
                // Best effort: the command has ended either way.
                let _ = socket.close(None).await;
                output.stderr = String::from_utf8_lossy(&stderr).into_owned();
                output.code =
                    exit_code(&frame[1..]).map_err(|why| HarnessError::new(format!("{doing}: {why}")))?;
                return Ok(output);
            }
            _ => {}
        }
        if output.stdout.len() + stderr.len() > MAX_OUTPUT {
            return Err(HarnessError::new(format!(
                "{doing}: more than {MAX_OUTPUT} bytes of output"
            )));
        }
    }
    Err(truncated(doing, "the connection ended"))
}

fn truncated(doing: &str, why: &str) -> HarnessError {
    HarnessError::new(format!("{doing}: cut off before the command's status: {why}"))
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

    use crate::scripted::{Server, refuse, serve};
    use axum::Router;
    use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade};
    use axum::routing::any;

    const SUCCESS: &str = r#"{"status":"Success"}"#;

    fn frame(channel: u8, text: &str) -> Frame {
        let mut bytes = vec![channel];
        bytes.extend_from_slice(text.as_bytes());
        Frame::Binary(bytes.into())
    }

    /// A kubelet that waits for one line on stdin, sends these frames, and then goes silent.
    async fn kubelet(frames: Vec<Frame>) -> Server {
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
        serve(Router::new().fallback(route)).await
    }

    async fn ask(server: &Server) -> Result<Output, HarnessError> {
        let command = Command {
            namespace: "n",
            pod: "p",
            command: &["/probe"],
            stdin: Some(b"question\n"),
            limit: Duration::from_secs(1),
        };
        exec(&server.client(), &command).await
    }

    #[tokio::test]
    async fn output_comes_whole_with_its_code() {
        let long = "x".repeat(400_000);
        let server = kubelet(vec![
            frame(STDOUT, &long),
            frame(STDERR, "warn"),
            frame(STDOUT, "end"),
            frame(STATUS, SUCCESS),
        ])
        .await;
        let output = ask(&server).await.unwrap();
        assert_eq!(
            (output.stdout.len(), output.stderr.as_str(), output.code),
            (400_003, "warn", 0)
        );
    }

    #[rstest]
    #[case::the_connection_ends(vec![frame(STDOUT, "half"), Frame::Close(None)], "cut off before the command's status")]
    #[case::the_connection_is_closed_with_a_reason(vec![Frame::Close(Some(CloseFrame { code: 1011, reason: "gone".into() }))], "cut off before the command's status")]
    #[case::nothing_more_comes(vec![frame(STDOUT, "half")], "not ended within 1 s")]
    #[case::it_never_ran(vec![frame(STATUS, r#"{"status":"Failure","message":"no such file"}"#)], "the command did not run: no such file")]
    #[case::an_unreadable_status(vec![frame(STATUS, "oops")], "unreadable status")]
    #[case::too_much(vec![frame(STDOUT, &"x".repeat(MAX_OUTPUT + 1))], "more than")]
    #[tokio::test]
    async fn an_exec_without_its_end_is_an_error(#[case] frames: Vec<Frame>, #[case] expected: &str) {
        let error = ask(&kubelet(frames).await).await.unwrap_err();
        assert!(error.what.contains(expected), "{error}");
    }

    #[tokio::test]
    async fn a_refused_exec_is_an_error_that_says_by_whom() {
        let server = crate::scripted::answer(|_| {
            refuse(
                403,
                "Forbidden",
                "pods is forbidden: User \"u\" cannot create resource \"pods/exec\"",
            )
        })
        .await;
        let error = ask(&server).await.unwrap_err();
        assert!(error.what.contains("cannot create resource"), "{error}");
    }

    #[test]
    fn a_status_that_is_not_json_is_an_error() {
        assert!(exit_code(b"oops").unwrap_err().starts_with("unreadable status"));
    }
}

//! The binary as a pod runs it: what it prints, how it ends, what it does with many at once.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may stop at the first surprise too"
)]

use assert_cmd::cargo::cargo_bin;
use probe::protocol::{Ending, Line, Listening, MAX_CONCURRENCY, Part, Reply, Summary, VERSION, WitnessLine};
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

fn probe(args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin!("probe"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A serving agent of one test, stopped with it.
struct Agent {
    process: Child,
    listening: Listening,
    control: String,
    // Kept open: its end is the agent's end.
    stdout: BufReader<ChildStdout>,
}

impl Agent {
    fn serve(test: &str) -> Self {
        let control = format!("probe-test-{}-{test}", std::process::id());
        let mut command = probe(&[
            "serve",
            "--tcp",
            "0,0",
            "--bind",
            "127.0.0.1",
            "--control",
            &control,
        ]);
        let mut process = command.env("PROBE_UDP", "0").spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        Self {
            process,
            listening: serde_json::from_str(&line).unwrap(),
            control,
            stdout,
        }
    }

    fn witness(&self) -> Output {
        probe(&["witness", "--control", &self.control]).output().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn attempt(id: u32, protocol: &str, port: u16, timeout_ms: u64) -> Value {
    json!({"id": id, "protocol": protocol, "host": "127.0.0.1", "port": port,
           "nonce": format!("nonce-{id:06}"), "timeout_ms": timeout_ms})
}

/// `probe attempt` with its request written and stdin still open.
fn asked(concurrency: usize, attempts: &[Value]) -> Child {
    let child = probe(&["attempt"]).stdin(Stdio::piped()).spawn().unwrap();
    let request = json!({"version": VERSION, "concurrency": concurrency, "attempts": attempts});
    writeln!(child.stdin.as_ref().unwrap(), "{request}").unwrap();
    child
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn five_hundred_attempts_at_once_are_all_reached_and_all_witnessed() {
    let agent = Agent::serve("many");
    let (tcp, udp) = (agent.listening.tcp[1], agent.listening.udp[0]);
    let kinds = [("tcp", tcp), ("udp", udp), ("http", tcp)];
    let attempts: Vec<_> = (0..500)
        .zip(kinds.iter().cycle())
        .map(|(id, (kind, port))| attempt(id, kind, *port, 10_000))
        .collect();
    let mut child = asked(MAX_CONCURRENCY, &attempts);
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let lines: Vec<Line> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.last(),
        Some(&Line::Summary(Summary {
            done: 500,
            refused: None
        }))
    );
    let reached = |line: &&Line| matches!(line, Line::Outcome(o) if o.ending == Ending::Reached && o.echoed);
    assert_eq!(lines.iter().filter(reached).count(), 500);

    let witness = agent.witness();
    assert_eq!((witness.status.code(), text(&witness.stderr)), (Some(0), ""));
    let lines = text(&witness.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let nonces = lines.filter_map(|line| match line {
        WitnessLine::Sighting(sighting) => Some(sighting.nonce),
        WitnessLine::Summary(_) => None,
    });
    assert_eq!(nonces.collect::<HashSet<_>>().len(), 500);
}

#[rstest]
#[case::terminate("TERM")]
#[case::interrupt("INT")]
fn a_signal_ends_serving_at_once_with_success(#[case] name: &str) {
    let mut agent = Agent::serve(name);
    // A connection that is open does not hold it up.
    let _open = TcpStream::connect(("127.0.0.1", agent.listening.tcp[0])).unwrap();
    let pid = agent.process.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    agent.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(
        (agent.process.wait().unwrap().code(), rest.as_str()),
        (Some(0), "")
    );
}

#[test]
fn a_connection_too_many_is_closed_at_once_and_room_comes_back() {
    let agent = Agent::serve("crowd");
    let connect = || TcpStream::connect(("127.0.0.1", agent.listening.tcp[0])).unwrap();
    let mut crowd: Vec<_> = (0..512).map(|_| connect()).collect();
    assert_eq!(connect().read(&mut [0]).unwrap(), 0);
    // Those inside are served, and one that leaves makes room.
    assert!(answer(crowd.remove(0)).starts_with("PROBE/1 nonce-0001 "));
    while answer(connect()).is_empty() {}
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    // Fails on a connection that was closed at once: no answer either.
    let _ = stream
        .write_all(b"PROBE/1 nonce-0001\n")
        .and_then(|()| stream.read_to_string(&mut answer));
    answer
}

#[test]
fn it_stops_when_its_reader_goes_away() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let attempts: Vec<_> = (0..2000).map(|id| attempt(id, "udp", port, 100)).collect();
    let mut child = asked(1, &attempts);
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(first.contains("timed-out"), "{first}");
    // All of them would take 200 seconds.
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = "error: cannot write the outcomes to stdout: Broken pipe (os error 32)\nhint: keep reading";
    assert!(
        text(&output.stderr).starts_with(message),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_refused_request_says_why_on_stdout_and_ends_with_2() {
    let output = asked(1, &[attempt(1, "tcp", 0, 100)]).wait_with_output().unwrap();
    let expected = r#"{"done":0,"refused":"attempt 1: expected a port from 1 to 65535, got 0"}"#;
    assert_eq!(
        (output.status.code(), text(&output.stdout).trim_end()),
        (Some(2), expected)
    );
}

#[rstest]
#[case::no_agent(&["witness", "--control", "probe-test-nobody"], 1, "error: expected an agent that serves on")]
#[case::no_port(&["serve", "--tcp", ""], 1, "error: no port to listen on\nhint: give --tcp or --udp")]
#[case::bad_port(&["serve", "--tcp", "80,http"], 2, "error: invalid value '80,http' for '--tcp <PORTS>'")]
#[case::large_port(&["serve", "--udp", "65536"], 2, "error: invalid value '65536' for '--udp <PORTS>'")]
#[case::bad_since(&["witness", "--since-ms", "-1"], 2, "error: unexpected argument '-1' found")]
#[case::unknown(&["listen"], 2, "error: unrecognized subcommand 'listen'")]
fn a_command_that_cannot_be_done_says_why(#[case] args: &[&str], #[case] code: i32, #[case] message: &str) {
    let output = probe(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code));
    assert!(
        text(&output.stderr).starts_with(message),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stdout), "");
}

#[rstest]
#[case::probe(&["--help"], "Usage: probe <COMMAND>")]
#[case::serve(&["serve", "--help"], "--tcp <PORTS>")]
#[case::attempt(&["attempt", "--help"], "Exit codes: 0 all were made")]
#[case::witness(&["witness", "--help"], "--since-ms <N>")]
#[case::session(&["session", "--help"], "until stdin ends")]
#[case::version(&["--version"], concat!("probe ", env!("CARGO_PKG_VERSION")))]
fn help_and_version_are_printed(#[case] args: &[&str], #[case] shows: &str) {
    let output = probe(args).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains(shows), "{}", text(&output.stdout));
}

/// A session, and its questions and answers.
struct Session(Child, BufReader<ChildStdout>);

impl Session {
    fn open(agent: &Agent) -> Self {
        let mut child = probe(&["session", "--control", &agent.control])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self(child, stdout)
    }

    fn ask(&self, line: &Value) {
        writeln!(self.0.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    /// The next answer: its number, its parts before the end, and the end.
    fn answer(&mut self) -> (u32, Vec<Part>, Summary) {
        let mut parts = Vec::new();
        loop {
            let mut line = String::new();
            self.1.read_line(&mut line).unwrap();
            let reply: Reply = serde_json::from_str(&line).unwrap();
            match reply.part {
                Part::End(summary) => return (reply.ask, parts, summary),
                part => parts.push(part),
            }
        }
    }
}

fn attempts(ask: u32, attempts: &[Value]) -> Value {
    json!({"ask": ask, "attempt": {"version": VERSION, "concurrency": 8, "attempts": attempts}})
}

#[test]
fn a_session_answers_each_question_as_soon_as_it_can_and_ends_with_its_input() {
    let agent = Agent::serve("session");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut session = Session::open(&agent);
    session.ask(&attempts(
        1,
        &[attempt(1, "udp", silent.local_addr().unwrap().port(), 500)],
    ));
    session.ask(&attempts(2, &[attempt(2, "tcp", agent.listening.tcp[0], 5_000)]));
    let (ask, parts, summary) = session.answer();
    assert_eq!((ask, summary.done), (2, 1), "the slow one does not hold it up");
    assert!(matches!(&parts[..], [Part::Outcome(outcome)] if outcome.ending == Ending::Reached));

    session.ask(&json!({"ask": 3, "witness": 0}));
    let (ask, parts, summary) = session.answer();
    assert_eq!((ask, summary.done), (3, 1));
    assert!(matches!(&parts[..], [Part::Sighting(sighting)] if sighting.nonce == "nonce-000002"));

    let (ask, parts, _) = session.answer();
    assert_eq!(ask, 1);
    assert!(matches!(&parts[..], [Part::Outcome(outcome)] if outcome.ending == Ending::TimedOut));

    drop(session.0.stdin.take());
    assert_eq!(session.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_question_that_cannot_be_answered_is_refused_and_the_session_goes_on() {
    let agent = Agent::serve("session-refuses");
    let mut session = Session::open(&agent);
    for (line, ask, why) in [
        (json!("what?"), 0, "not a question: "),
        (
            attempts(7, &[]),
            7,
            "expected a number of attempts from 1 to 2000, got 0",
        ),
        (
            json!({"ask": 9, "release": 7}),
            9,
            "expected the number of a question that holds connections, got 7",
        ),
    ] {
        session.ask(&line);
        let (number, parts, summary) = session.answer();
        assert_eq!((number, parts.len(), summary.done), (ask, 0, 0));
        assert!(summary.refused.as_ref().unwrap().starts_with(why), "{summary:?}");
    }
    session.ask(&json!({"ask": 8, "witness": 0}));
    assert_eq!(session.answer().0, 8);
}

#[test]
fn a_session_speaks_with_servers_and_keeps_passwords_to_itself() {
    let agent = Agent::serve("session-speaks");
    let mut session = Session::open(&agent);
    let port = agent.listening.tcp[0];
    // An agent is neither, and says so in its own way.
    session.ask(&json!({"ask": 1, "sql": {"host": "127.0.0.1", "port": port, "user": "u", "password": "hunter2-hunter2",
                "database": "d", "timeout_ms": 5_000, "statements": ["select 1"]}}));
    let (ask, parts, summary) = session.answer();
    assert_eq!((ask, summary.done), (1, 1));
    assert!(
        matches!(&parts[..], [Part::Unconnected(why)] if why.ending == Ending::ConnectedWithoutEcho),
        "{parts:?}"
    );
    session.ask(&json!({"ask": 2, "redis": {"host": "127.0.0.1", "port": port, "user": "u", "password": "hunter2-hunter2",
                "timeout_ms": 5_000, "commands": [{"args": ["PING"]}]}}));
    let (ask, parts, summary) = session.answer();
    assert_eq!((ask, summary.done), (2, 1));
    assert!(!format!("{parts:?}").contains("hunter2"), "{parts:?}");
    session.ask(&json!({"ask": 3, "redis": {"host": "127.0.0.1", "port": port, "user": "u", "password": ["hunter2-hunter2"],
                "timeout_ms": 5_000, "commands": []}}));
    let (ask, _, summary) = session.answer();
    let refused = summary.refused.unwrap();
    assert_eq!((ask, refused.contains("hunter2")), (0, false), "{refused}");
}

#[test]
fn a_session_without_an_agent_beside_it_says_so() {
    let mut agent = Agent::serve("session-alone");
    let mut session = Session::open(&agent);
    agent.process.kill().unwrap();
    agent.process.wait().unwrap();
    session.ask(&json!({"ask": 1, "witness": 0}));
    let (_, _, summary) = session.answer();
    let refused = summary.refused.unwrap();
    assert!(
        refused.starts_with("expected an agent that serves on the control socket"),
        "{refused}"
    );
}

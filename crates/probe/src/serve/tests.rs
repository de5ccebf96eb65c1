//! A listening agent, asked right, asked wrong, and held up, on loopback.

use super::*;
use crate::witness;
use rstest::rstest;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn config() -> Config {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let control = format!(
        "probe-test-{}-serve-{}",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    Config {
        tcp: vec![0],
        udp: vec![0],
        bind: Some(LOOPBACK),
        control,
    }
}

/// A serving agent's TCP and UDP address.
async fn serve(config: &Config) -> (SocketAddr, SocketAddr) {
    let server = Server::bind(config).await.unwrap();
    let listening = server.listening();
    tokio::spawn(server.serve());
    (
        (LOOPBACK, listening.tcp[0]).into(),
        (LOOPBACK, listening.udp[0]).into(),
    )
}

/// All that the agent says to this on a new connection, until it closes.
async fn told(address: SocketAddr, says: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(says).await.unwrap();
    let mut heard = Vec::new();
    // A reset is an end too: the agent closes on garbage without reading all of it.
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn a_question_is_answered_with_the_name() {
    let (tcp, _) = serve(&config()).await;
    let name = wire::own_name();
    assert_eq!(
        told(tcp, b"PROBE/1 abcd-1234\n").await,
        format!("PROBE/1 abcd-1234 {name}\n")
    );
}

#[rstest]
#[case::root("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None)]
#[case::health("GET /healthz HTTP/1.1\r\n\r\n", None)]
#[case::ready("GET /readyz HTTP/1.0\r\n\r\n", None)]
#[case::nonce("GET / HTTP/1.1\r\nX-Probe-Nonce: abcd-1234\r\n\r\n", Some("abcd-1234"))]
#[case::bad_nonce("GET / HTTP/1.1\r\nX-Probe-Nonce: <script>\r\n\r\n", None)]
#[case::body("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", None)]
#[tokio::test]
async fn http_is_answered_on_every_path(#[case] request: &str, #[case] nonce: Option<&str>) {
    let (tcp, _) = serve(&config()).await;
    let page = told(tcp, request.as_bytes()).await;
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nConnection: close"),
        "{head}"
    );
    assert_eq!(body, format!("{}\n", wire::own_name()));
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{head}"
    );
    let echoed = head.lines().find_map(|line| line.strip_prefix("X-Probe-Nonce: "));
    assert_eq!(echoed, nonce);
}

#[tokio::test]
async fn head_has_no_body() {
    let (tcp, _) = serve(&config()).await;
    assert!(
        told(tcp, b"HEAD / HTTP/1.1\r\n\r\n")
            .await
            .ends_with("close\r\n\r\n")
    );
}

#[rstest]
#[case::tls(b"\x16\x03\x01\x02\x00\x01")]
#[case::lower_case(b"hello\n")]
#[case::bad_nonce(b"PROBE/1 a\n")]
#[case::endless_question(&[b'P'; 5000])]
#[case::endless_head(&[b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'x'; 100_000]].concat())]
#[tokio::test]
async fn anything_else_on_tcp_is_closed_without_a_word(#[case] garbage: &[u8]) {
    let (tcp, _) = serve(&config()).await;
    assert_eq!(told(tcp, garbage).await, "");
}

// Time is paused: it passes as soon as both sides do nothing but wait.
#[rstest]
#[case::silent(b"")]
#[case::half_a_question(b"PROBE/1 ab")]
#[case::half_a_head(b"GET / HTTP/1.1\r\nA: ")]
#[tokio::test(start_paused = true)]
async fn a_slow_client_is_not_awaited_for_long(#[case] says: &[u8]) {
    let (tcp, _) = serve(&config()).await;
    let begun = Instant::now();
    assert_eq!(told(tcp, says).await, "");
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn only_questions_are_answered_on_udp() {
    let (_, udp) = serve(&config()).await;
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    socket.connect(udp).await.unwrap();
    let long = [b"PROBE/1 ".as_slice(), &[b'n'; 1000]].concat();
    for garbage in [
        b"".as_slice(),
        b"hello",
        b"PROBE/1 short",
        b"PROBE/1 abcd-1234 an-answer",
        &long,
    ] {
        socket.send(garbage).await.unwrap();
    }
    socket.send(b"PROBE/1 abcd-1234").await.unwrap();
    let mut heard = [0; 1024];
    let length = socket.recv(&mut heard).await.unwrap();
    assert_eq!(
        heard[..length],
        *format!("PROBE/1 abcd-1234 {}", wire::own_name()).as_bytes()
    );
    assert!(socket.try_recv(&mut heard).is_err(), "nothing else was answered");
}

#[tokio::test]
async fn the_witness_knows_who_asked_what_where() {
    let config = config();
    let (tcp, udp) = serve(&config).await;
    told(tcp, b"PROBE/1 by-tcp-00\n").await;
    told(tcp, b"GET / HTTP/1.1\r\nX-Probe-Nonce: by-http-0\r\n\r\n").await;
    told(tcp, b"GET / HTTP/1.1\r\n\r\n").await;
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    socket.send_to(b"PROBE/1 by-udp-00", udp).await.unwrap();
    socket.recv(&mut [0; 128]).await.unwrap();

    let ask = move || {
        let mut sink = Vec::new();
        let summary = witness::ask(&config.control, 0, &mut sink).unwrap();
        (summary, sink)
    };
    let (summary, lines) = tokio::task::spawn_blocking(ask).await.unwrap();
    assert_eq!(summary.done, 3);
    let seen: Vec<Sighting> = lines
        .split(|&b| b == b'\n')
        .take(3)
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let what: Vec<_> = seen
        .iter()
        .map(|s| (s.nonce.as_str(), s.to, s.protocol))
        .collect();
    let expected = [
        ("by-tcp-00", tcp, Protocol::Tcp),
        ("by-http-0", tcp, Protocol::Http),
        ("by-udp-00", udp, Protocol::Udp),
    ];
    assert_eq!(what, expected);
    assert_eq!(seen[2].from, socket.local_addr().unwrap());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_the_remedy() {
    let (tcp, udp) = serve(&config()).await;
    let second = Config {
        tcp: vec![tcp.port()],
        ..config()
    };
    let message = Server::bind(&second).await.err().unwrap().to_string();
    assert!(
        message.starts_with(&format!("cannot listen on TCP port {} (127.0.0.1): ", tcp.port())),
        "{message}"
    );
    assert!(
        message.contains("\nhint: another process has the port"),
        "{message}"
    );
    let third = Config {
        udp: vec![udp.port()],
        ..config()
    };
    let message = Server::bind(&third).await.err().unwrap().to_string();
    assert!(
        message.starts_with(&format!("cannot listen on UDP port {} (127.0.0.1): ", udp.port())),
        "{message}"
    );
}

#[rstest]
#[case::low_port(13, "ip_unprivileged_port_start")]
#[case::taken(98, "free it")]
#[case::foreign_address(99, "--bind an address that this machine has")]
#[case::other(22, "check --bind")]
fn every_reason_not_to_listen_has_its_remedy(#[case] number: i32, #[case] remedy: &str) {
    let failure = cannot_listen("TCP", LOOPBACK, 80, &io::Error::from_raw_os_error(number));
    assert!(failure.to_string().contains(remedy), "{failure}");
}

#[tokio::test]
async fn an_agent_that_listens_on_any_address_sees_ipv4_peers_as_what_they_are() {
    let server = Server::bind(&Config {
        bind: None,
        ..config()
    })
    .await
    .unwrap();
    let (port, ring) = (server.listening().tcp[0], Arc::clone(&server.shared.ring));
    tokio::spawn(server.serve());
    told((LOOPBACK, port).into(), b"PROBE/1 abcd-1234\n").await;
    let seen = ring.since(0).unwrap();
    assert_eq!(
        (seen[0].from.ip(), seen[0].to),
        (LOOPBACK, (LOOPBACK, port).into())
    );
    assert!(Duration::from_millis(seen[0].at_ms) > Duration::from_secs(1_700_000_000));
}

//! Every ending of every protocol, against peers on loopback that answer right, wrong, or not at all.

use super::*;
use crate::serve::{Config, Server};
use rstest::rstest;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// Long enough on a busy machine where an answer is expected, short where the time-out is.
const AMPLE_MS: u64 = 10_000;
const SHORT_MS: u64 = 150;

fn to(protocol: Protocol, host: &str, port: u16, timeout_ms: u64) -> Attempt {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let query = protocol.is_dns().then(|| "db.svc.".to_owned());
    Attempt {
        id,
        protocol,
        host: host.to_owned(),
        port,
        nonce: format!("nonce-{id:06}"),
        timeout_ms,
        query,
    }
}

fn to_address(protocol: Protocol, address: SocketAddr, timeout_ms: u64) -> Attempt {
    to(protocol, &address.ip().to_string(), address.port(), timeout_ms)
}

/// What a peer does after it has sent its answer.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Hold,
}

/// A TCP peer that hears something, says `answer`, and then closes or keeps the connection.
async fn peer(answer: impl AsRef<[u8]> + Send + 'static, then: Then) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        // The other side may have heard enough already.
        let _ = stream.write_all(answer.as_ref()).await;
        if let Then::Hold = then {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    address
}

/// A UDP peer that answers every datagram by this function's result, if any.
async fn datagram_peer(answer: impl Fn(usize, &[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut heard = [0; 1024];
        for number in 0.. {
            let (length, from) = socket.recv_from(&mut heard).await.unwrap();
            if let Some(answer) = answer(number, &heard[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    address
}

#[rstest]
#[case::tcp(Protocol::Tcp)]
#[case::udp(Protocol::Udp)]
#[case::http(Protocol::Http)]
#[tokio::test]
async fn an_agent_is_reached_and_echoes(#[case] protocol: Protocol) {
    let config = Config {
        tcp: vec![0],
        udp: vec![0],
        bind: Some("127.0.0.1".parse().unwrap()),
        control: format!("probe-test-{}-echo-{protocol:?}", std::process::id()),
    };
    let server = Server::bind(&config).await.unwrap();
    let listening = server.listening();
    tokio::spawn(server.serve());
    let port = if protocol == Protocol::Udp {
        listening.udp[0]
    } else {
        listening.tcp[0]
    };
    let outcome = attempt(&to(protocol, "localhost", port, AMPLE_MS)).await;
    assert_eq!(
        (outcome.ending, outcome.echoed),
        (Ending::Reached, true),
        "{outcome:?}"
    );
    assert_eq!(outcome.peer, Some(SocketAddr::from(([127, 0, 0, 1], port))));
    assert!(outcome.local.is_some() && outcome.answer.is_some() && outcome.resolve_ms.is_some());
    assert_eq!(outcome.connect_ms.is_some(), protocol != Protocol::Udp);
}

#[rstest]
#[case::http(Protocol::Http, "HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 404 Not Found")]
#[case::http_without_an_end(Protocol::Http, "HTTP/1.1 200 OK\r\nA: b", "HTTP/1.1 200 OK")]
#[case::postgresql(Protocol::Postgresql, "N", "N")]
#[case::postgresql_tls(Protocol::Postgresql, "S", "S")]
#[case::postgresql_error(Protocol::Postgresql, "E\0\0\0\x11SFATAL\0C53300\0\0", "E FATAL.C53300..")]
#[case::redis(Protocol::Redis, "+PONG\r\n", "+PONG")]
#[case::redis_password(Protocol::Redis, "-NOAUTH no\r\n", "-NOAUTH no")]
#[tokio::test]
async fn a_server_that_speaks_the_protocol_is_reached(
    #[case] protocol: Protocol,
    #[case] says: &'static str,
    #[case] answer: &str,
) {
    let address = peer(says, Then::Close).await;
    let outcome = attempt(&to_address(protocol, address, AMPLE_MS)).await;
    assert_eq!(
        (outcome.ending, outcome.echoed),
        (Ending::Reached, false),
        "{outcome:?}"
    );
    assert_eq!(outcome.answer.as_deref(), Some(answer));
    assert_eq!(outcome.error, None);
}

#[rstest]
#[tokio::test]
async fn silence_garbage_and_an_early_end_are_connected_without_echo(
    #[values(Protocol::Tcp, Protocol::Http, Protocol::Postgresql, Protocol::Redis)] protocol: Protocol,
    #[values(
        ("", Then::Hold, "no valid answer in time"),
        ("", Then::Close, "closed the connection without a valid answer"),
        ("SSH-2.0-OpenSSH\r\n", Then::Close, ""),
        ("\u{16}\u{3}", Then::Hold, "")
    )]
    peer_does: (&'static str, Then, &str),
) {
    let (says, then, error) = peer_does;
    let address = peer(says, then).await;
    let outcome = attempt(&to_address(
        protocol,
        address,
        if says.is_empty() { SHORT_MS } else { AMPLE_MS },
    ))
    .await;
    assert_eq!(
        (outcome.ending, outcome.echoed),
        (Ending::ConnectedWithoutEcho, false),
        "{outcome:?}"
    );
    assert!(outcome.connect_ms.is_some());
    assert_eq!(outcome.answer.is_some(), !says.is_empty());
    assert!(outcome.error.unwrap_or_default().contains(error));
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_not_heard_for_ever() {
    let address = peer([b"HTTP/1.1 ".as_slice(), &[b'x'; 1 << 20]].concat(), Then::Hold).await;
    let outcome = attempt(&to_address(Protocol::Http, address, AMPLE_MS)).await;
    assert_eq!(outcome.ending, Ending::ConnectedWithoutEcho);
    assert_eq!(outcome.error.as_deref(), Some("the answer has no end"));
    assert_eq!(outcome.answer.map(|answer| answer.len()), Some(200));
}

#[tokio::test]
async fn a_reset_after_the_connection_is_not_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Closing with something unread resets.
        stream.readable().await.unwrap();
    });
    let outcome = attempt(&to_address(Protocol::Tcp, address, AMPLE_MS)).await;
    assert_eq!(outcome.ending, Ending::ConnectedWithoutEcho);
    assert!(outcome.error.unwrap().starts_with("Connection reset by peer"));
}

#[rstest]
#[tokio::test]
async fn a_closed_port_refuses(
    #[values(
        Protocol::Tcp,
        Protocol::Http,
        Protocol::Postgresql,
        Protocol::Redis,
        Protocol::Udp,
        Protocol::Dns,
        Protocol::DnsTcp
    )]
    protocol: Protocol,
) {
    // Free a moment ago, on an address that no other test uses.
    let bound = (
        TcpListener::bind("127.77.0.1:0").await.unwrap(),
        UdpSocket::bind("127.77.0.1:0").await.unwrap(),
    );
    let address = match protocol {
        Protocol::Udp | Protocol::Dns => bound.1.local_addr().unwrap(),
        _ => bound.0.local_addr().unwrap(),
    };
    drop(bound);
    let outcome = attempt(&to_address(protocol, address, AMPLE_MS)).await;
    assert_eq!(outcome.ending, Ending::Refused, "{outcome:?}");
    assert!(outcome.error.unwrap().starts_with("Connection refused"));
}

#[tokio::test]
async fn a_peer_that_drops_the_handshake_times_out() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    let short = Duration::from_millis(SHORT_MS);
    while let Ok(stream) = tokio::time::timeout(short, TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    let outcome = attempt(&to_address(Protocol::Tcp, address, SHORT_MS)).await;
    assert_eq!(outcome.ending, Ending::TimedOut, "{outcome:?}");
    assert_eq!((outcome.connect_ms, outcome.answer), (None, None));
    assert!(outcome.total_ms >= SHORT_MS);
}

#[rstest]
#[tokio::test]
async fn a_silent_datagram_peer_times_out(#[values(Protocol::Udp, Protocol::Dns)] protocol: Protocol) {
    let address = datagram_peer(|_, _| None).await;
    let outcome = attempt(&to_address(protocol, address, SHORT_MS)).await;
    assert_eq!((outcome.ending, outcome.answer), (Ending::TimedOut, None));
}

#[rstest]
#[tokio::test]
async fn a_datagram_that_is_no_answer_is_connected_without_echo(
    #[values(Protocol::Udp, Protocol::Dns)] protocol: Protocol,
) {
    // The question itself, sent back, is no answer either.
    let address = datagram_peer(|_, heard| Some(heard.to_vec())).await;
    let outcome = attempt(&to_address(protocol, address, SHORT_MS)).await;
    assert_eq!(outcome.ending, Ending::ConnectedWithoutEcho);
    assert!(outcome.answer.is_some());
    assert_eq!(
        outcome.error.as_deref(),
        Some("datagrams came back, but no valid answer in time")
    );
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again_and_a_strange_one_does_not_hide_the_answer() {
    let address = datagram_peer(|number, heard| match number {
        0 => None,
        1 => Some(b"strange".to_vec()),
        _ => Some([heard, b" late"].concat()),
    })
    .await;
    let outcome = attempt(&to_address(Protocol::Udp, address, AMPLE_MS)).await;
    assert_eq!(
        (outcome.ending, outcome.answer.as_deref()),
        (Ending::Reached, Some("late")),
        "{outcome:?}"
    );
}

#[rstest]
#[case::address(
    0x8000,
    b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\x60\0\x01",
    "NOERROR 10.96.0.1"
)]
#[case::no_such_name(0x8003, b"", "NXDOMAIN")]
#[tokio::test]
async fn a_dns_server_is_reached_whatever_it_says(
    #[case] flags: u16,
    #[case] record: &'static [u8],
    #[case] answer: &str,
) {
    let address = datagram_peer(move |_, query| {
        let mut message = [query, record].concat();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[7] = u8::from(!record.is_empty());
        Some(message)
    })
    .await;
    let outcome = attempt(&to_address(Protocol::Dns, address, AMPLE_MS)).await;
    assert_eq!(
        (outcome.ending, outcome.answer.as_deref()),
        (Ending::Reached, Some(answer))
    );
}

#[rstest]
#[case::no_such_name("no-such-name.invalid", 2000)]
#[case::not_in_time("no-such-name.invalid", 1)]
#[case::not_a_name("a..b", 2000)]
#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_failure_of_dns(#[case] host: &str, #[case] timeout_ms: u64) {
    let outcome = attempt(&to(Protocol::Tcp, host, 80, timeout_ms)).await;
    assert_eq!(outcome.ending, Ending::DnsFailed);
    assert_eq!((outcome.peer, outcome.connect_ms), (None, None));
    assert!(outcome.error.is_some() && outcome.resolve_ms.is_some());
}

// Neither of these sends a packet: the kernel refuses the address.
#[rstest]
#[case::broadcast_tcp(Protocol::Tcp, "255.255.255.255", Ending::Unreachable)]
#[case::broadcast_udp(Protocol::Udp, "255.255.255.255", Ending::Unreachable)]
#[case::link_local_without_a_link_tcp(Protocol::Tcp, "fe80::1", Ending::LocalError)]
#[case::link_local_without_a_link_udp(Protocol::Udp, "fe80::1", Ending::LocalError)]
#[tokio::test]
async fn what_the_kernel_refuses_is_told_apart(
    #[case] protocol: Protocol,
    #[case] host: &str,
    #[case] ending: Ending,
) {
    let outcome = attempt(&to(protocol, host, 80, AMPLE_MS)).await;
    assert_eq!(outcome.ending, ending, "{outcome:?}");
    assert!(outcome.error.unwrap().contains("(os error "));
}

//! A conversation in datagrams from a new socket: ask, ask again (a datagram may be lost), hear until one
//! can be judged.

use super::{Heard, Judgement, Script, ending};
use crate::protocol::{Ending, Outcome};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// How long an answer is awaited before the question is sent again.
const RESEND: Duration = Duration::from_millis(300);
/// The most that is heard of one datagram; DNS without extensions is at most 512.
const MAX_HEARD: usize = 4096;

/// Fills in the outcome; returns by the deadline. There is no connection: silence is a time-out, and only a
/// datagram that is no valid answer makes it [`Ending::ConnectedWithoutEcho`].
pub(super) async fn exchange(peer: SocketAddr, deadline: Instant, script: Script, outcome: &mut Outcome) {
    let socket = match open(peer).await {
        Ok(socket) => socket,
        Err(error) => return outcome.end(ending::of(&error), Some(error.to_string())),
    };
    outcome.local = socket.local_addr().ok();
    let mut strange = Vec::new();
    match timeout_at(deadline, talk(&socket, &script, &mut strange)).await {
        Ok(Ok(judgement)) => outcome.conclude(judgement, &[], None),
        Ok(Err(error)) => outcome.end(ending::of(&error), Some(error.to_string())),
        Err(_) if strange.is_empty() => outcome.end(Ending::TimedOut, None),
        Err(_) => {
            let why = "datagrams came back, but no valid answer in time".to_owned();
            outcome.conclude(Judgement::Wrong, &strange, Some(why));
        }
    }
}

async fn open(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if peer.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, it hears of ICMP errors, and nothing but the peer.
    socket.connect(peer).await?;
    Ok(socket)
}

/// Returns at the first valid answer or error; keeps the last other datagram in `strange`.
async fn talk(socket: &UdpSocket, script: &Script, strange: &mut Vec<u8>) -> io::Result<Judgement> {
    let mut resend = interval(RESEND);
    resend.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut datagram = [0; MAX_HEARD];
    loop {
        tokio::select! {
            _ = resend.tick() => {
                socket.send(&script.request).await?;
            }
            received = socket.recv(&mut datagram) => {
                let heard = &datagram[..received?];
                match (script.judge)(heard, Heard::All) {
                    valid @ Judgement::Valid { .. } => return Ok(valid),
                    _ => *strange = heard.to_vec(),
                }
            }
        }
    }
}

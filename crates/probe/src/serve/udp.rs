//! One UDP port: a question is answered, anything else is not. An answer is a few bytes longer than its
//! question at most, and is itself no question: nothing to amplify, no loop between two agents.

use super::Shared;
use crate::protocol::Protocol;
use crate::wire;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

pub(super) async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    // The address asked is not known here, only the one bound.
    let Ok(to) = socket.local_addr() else { return };
    let mut datagram = [0; wire::MAX_QUESTION];
    loop {
        match socket.recv_from(&mut datagram).await {
            Ok((length, from)) => {
                if let Some(nonce) = wire::asked(&datagram[..length]) {
                    shared.saw(nonce, from, to, Protocol::Udp);
                    // An answer may be lost here as in the network: the one who asks asks again.
                    let _ = socket
                        .send_to(wire::answer(nonce, &shared.name).as_bytes(), from)
                        .await;
                }
            }
            // Somebody's ICMP error; the pause keeps a lasting one from turning into a busy loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

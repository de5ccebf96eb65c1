//! `probe serve`: listens on many ports, gives nonces back, and remembers who sent them. It answers anybody,
//! so everything is bounded: connections at once, bytes and time of each, the length of an answer, memory.

mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use crate::protocol::{Listening, Protocol, Sighting};
use crate::witness::{Control, Ring};
use crate::{Failure, wire};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once, over all ports: under the usual 1024 files of a process.
const MAX_CONNECTIONS: usize = 512;

/// What to listen on.
#[derive(Debug, Clone)]
pub struct Config {
    /// TCP ports; 0 takes any free one.
    pub tcp: Vec<u16>,
    /// UDP ports; 0 takes any free one.
    pub udp: Vec<u16>,
    /// The address, or any address of any family. UDP answers come from the address asked only if the machine
    /// has just one or this names it.
    pub bind: Option<IpAddr>,
    /// The name of the control socket that the witness is asked through.
    pub control: String,
}

/// An agent that is bound everywhere and ready to serve.
pub struct Server {
    bind: IpAddr,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    control: Control,
    shared: Arc<Shared>,
}

/// What all listeners of an agent have in common.
struct Shared {
    name: String,
    ring: Arc<Ring>,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Binds every port, or fails with none kept.
    ///
    /// # Errors
    /// Names the port (or the control socket) that cannot be had, and the remedy.
    pub async fn bind(config: &Config) -> Result<Self, Failure> {
        if config.tcp.is_empty() && config.udp.is_empty() {
            return Err(Failure::new(
                "no port to listen on",
                "give --tcp or --udp, or set PROBE_TCP or PROBE_UDP",
            ));
        }
        let bind = config.bind.unwrap_or_else(any_address);
        let control = Control::bind(&config.control)?;
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for &port in &config.tcp {
            let bound = TcpListener::bind((bind, port)).await;
            tcp.push(bound.map_err(|error| cannot_listen("TCP", bind, port, &error))?);
        }
        for &port in &config.udp {
            let bound = UdpSocket::bind((bind, port)).await;
            udp.push(bound.map_err(|error| cannot_listen("UDP", bind, port, &error))?);
        }
        let shared = Shared {
            name: wire::own_name(),
            ring: Arc::default(),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        };
        Ok(Self {
            bind,
            tcp,
            udp,
            control,
            shared: Arc::new(shared),
        })
    }

    /// Where it listens, in the order asked for.
    pub fn listening(&self) -> Listening {
        let port = |address: io::Result<SocketAddr>| address.map_or(0, |a| a.port());
        Listening {
            tcp: self
                .tcp
                .iter()
                .map(|listener| port(listener.local_addr()))
                .collect(),
            udp: self.udp.iter().map(|socket| port(socket.local_addr())).collect(),
            bind: self.bind,
        }
    }

    /// Serves until dropped.
    pub async fn serve(self) {
        let mut tasks = JoinSet::new();
        for listener in self.tcp {
            tasks.spawn(tcp::serve(listener, Arc::clone(&self.shared)));
        }
        for socket in self.udp {
            tasks.spawn(udp::serve(socket, Arc::clone(&self.shared)));
        }
        tasks.spawn(self.control.serve(Arc::clone(&self.shared.ring)));
        while tasks.join_next().await.is_some() {}
    }
}

impl Shared {
    fn saw(&self, nonce: &str, from: SocketAddr, to: SocketAddr, protocol: Protocol) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.ring.record(Sighting {
            nonce: nonce.to_owned(),
            from: canonical(from),
            to: canonical(to),
            protocol,
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

/// An IPv4 peer of an IPv6 socket appears as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `::` takes both families, unless the kernel has no IPv6 or keeps the two apart.
fn any_address() -> IpAddr {
    let apart = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1");
    let has_v6 = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    if has_v6 && !apart {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

fn cannot_listen(kind: &str, bind: IpAddr, port: u16, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => {
            "set the pod's sysctl net.ipv4.ip_unprivileged_port_start=0, or take a port from 1024 on"
        }
        ErrorKind::AddrInUse => {
            "another process has the port (or it is listed twice): free it or leave it out"
        }
        ErrorKind::AddrNotAvailable => "give --bind an address that this machine has",
        _ => "check --bind and the port",
    };
    Failure::new(
        format!("cannot listen on {kind} port {port} ({bind}): {error}"),
        hint,
    )
}

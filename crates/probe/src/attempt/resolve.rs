//! The address to try: given, asked of the pod's resolver, or (for DNS attempts) the resolver itself.

use super::millis_since;
use crate::protocol::{Attempt, Ending, Outcome};
use std::net::{IpAddr, SocketAddr};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// The peer of an attempt, or `None` with the outcome ended.
pub(super) async fn peer(attempt: &Attempt, deadline: Instant, outcome: &mut Outcome) -> Option<SocketAddr> {
    if let Ok(ip) = attempt.host.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, attempt.port));
    }
    if attempt.protocol.is_dns() && attempt.host.is_empty() {
        return own_resolver(attempt.port, outcome);
    }
    look_up(attempt, deadline, outcome).await
}

fn own_resolver(port: u16, outcome: &mut Outcome) -> Option<SocketAddr> {
    let found = match std::fs::read_to_string(RESOLVER_FILE) {
        Ok(text) => first_nameserver(&text).ok_or_else(|| format!("no nameserver in {RESOLVER_FILE}")),
        Err(error) => Err(format!("cannot read {RESOLVER_FILE}: {error}")),
    };
    match found {
        Ok(ip) => Some(SocketAddr::new(ip, port)),
        Err(why) => {
            outcome.end(Ending::LocalError, Some(why));
            None
        }
    }
}

fn first_nameserver(text: &str) -> Option<IpAddr> {
    let servers = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    servers
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .next()
}

async fn look_up(attempt: &Attempt, deadline: Instant, outcome: &mut Outcome) -> Option<SocketAddr> {
    let begun = Instant::now();
    let found = timeout_at(deadline, by_name(&attempt.host, attempt.port)).await;
    outcome.resolve_ms = Some(millis_since(begun));
    let late = || {
        Err(format!(
            "the name did not resolve within {} ms",
            attempt.timeout_ms
        ))
    };
    match found.unwrap_or_else(|_| late()) {
        Ok(peer) => Some(peer),
        Err(why) => {
            outcome.end(Ending::DnsFailed, Some(why));
            None
        }
    }
}

/// Asks the system's resolver (`getaddrinfo`: hosts file, search list and all) and takes the first IPv4
/// address, else the first of any kind: one attempt is one address.
///
/// # Errors
/// What the resolver says.
pub(crate) async fn by_name(host: &str, port: u16) -> Result<SocketAddr, String> {
    match lookup_host((host, port)).await {
        Ok(addresses) => preferred(addresses).ok_or_else(|| "the name has no address".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn preferred(addresses: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    let mut first = None;
    for address in addresses {
        if address.is_ipv4() {
            return Some(address);
        }
        first = first.or(Some(address));
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::usual("search a.svc\nnameserver 10.96.0.10\noptions ndots:5\n", Some("10.96.0.10"))]
    #[case::first_of_two("nameserver 10.0.0.1\nnameserver 10.0.0.2\n", Some("10.0.0.1"))]
    #[case::tabs_and_comment("# nameserver 10.0.0.1\n\tnameserver\tfd00::a # main\n", Some("fd00::a"))]
    #[case::not_an_address("nameserver dns.example\n", None)]
    #[case::no_word_boundary("nameservers 10.0.0.1x\n", None)]
    #[case::empty("", None)]
    fn the_first_nameserver_is_taken(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(first_nameserver(text), expected.map(|ip| ip.parse().unwrap()));
    }

    #[test]
    fn the_first_ipv4_address_comes_before_any_other() {
        let parse = |list: &[&str]| {
            list.iter()
                .map(|a| a.parse().unwrap())
                .collect::<Vec<SocketAddr>>()
        };
        let mixed = parse(&["[fd00::1]:80", "10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(preferred(mixed.into_iter()), Some("10.0.0.1:80".parse().unwrap()));
        let sixes = parse(&["[fd00::1]:80", "[fd00::2]:80"]);
        assert_eq!(
            preferred(sixes.into_iter()),
            Some("[fd00::1]:80".parse().unwrap())
        );
        assert_eq!(preferred(std::iter::empty()), None);
    }
}

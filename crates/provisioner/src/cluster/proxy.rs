//! Whether a cluster is reached through a proxy. The client library compares `NO_PROXY` with the proxy's own address; what
//! everybody else means by it is the address that is to be reached.

use std::net::IpAddr;

/// The value of `NO_PROXY`, in either spelling.
pub(super) fn exceptions() -> String {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    value("NO_PROXY")
        .or_else(|| value("no_proxy"))
        .unwrap_or_default()
}

/// Whether the host is reached without a proxy: this machine always, and what `NO_PROXY` lists by name, domain, address or
/// range, each with an optional port.
pub(super) fn is_direct(host: &str, port: Option<u16>, exceptions: &str) -> bool {
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    let entries = exceptions
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    entries.map(str::to_ascii_lowercase).any(|entry| match address {
        _ if entry == "*" => true,
        Some(address) => covers(&entry, address) || with_port(&entry, port, |entry| covers(entry, address)),
        None => with_port(&entry, port, |entry| names(entry, &host)),
    })
}

fn with_port(entry: &str, port: Option<u16>, matches: impl Fn(&str) -> bool) -> bool {
    match entry
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
    {
        Some((host, wanted)) => port == Some(wanted) && matches(host.trim_matches(['[', ']'])),
        None => matches(entry),
    }
}

fn names(entry: &str, host: &str) -> bool {
    let domain = entry.trim_start_matches('*').trim_start_matches('.');
    let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    // With a dot in front only what is below the domain is meant.
    below || (!entry.starts_with(['.', '*']) && host == domain)
}

fn covers(entry: &str, address: IpAddr) -> bool {
    let (network, length) = match entry.split_once('/') {
        Some((network, length)) => (network, length.parse::<u32>().ok()),
        None => (entry, Some(128)),
    };
    let same_start = |a: u128, b: u128, length: u32, bits: u32| {
        let rest = bits.saturating_sub(length);
        a.checked_shr(rest).unwrap_or(0) == b.checked_shr(rest).unwrap_or(0)
    };
    match (network.parse(), address, length) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(address), Some(length)) => {
            same_start(network.to_bits().into(), address.to_bits().into(), length, 32)
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(address), Some(length)) => {
            same_start(network.to_bits(), address.to_bits(), length, 128)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::loopback("127.0.0.1", "", true)]
    #[case::loopback_v6("[::1]", "", true)]
    #[case::localhost("localhost", "", true)]
    #[case::elsewhere("10.1.2.3", "", false)]
    #[case::address("10.1.2.3", "10.1.2.3", true)]
    #[case::range("10.1.2.3", "10.0.0.0/8", true)]
    #[case::other_range("11.1.2.3", "10.0.0.0/8", false)]
    #[case::everything("11.1.2.3", "0.0.0.0/0", true)]
    #[case::range_v6("[fd00::1]", "fd00::/8", true)]
    #[case::name("api.example.org", "api.example.org", true)]
    #[case::domain("api.example.org", "example.org", true)]
    #[case::domain_with_dot("api.example.org", ".example.org", true)]
    #[case::domain_with_star("api.example.org", "*.example.org", true)]
    #[case::dot_is_only_below("example.org", ".example.org", false)]
    #[case::not_a_label("badexample.org", "example.org", false)]
    #[case::port("api.example.org", "api.example.org:6443", true)]
    #[case::other_port("api.example.org", "api.example.org:443", false)]
    #[case::spaces_and_empty_entries("api.example.org", " , a.b , example.org,", true)]
    #[case::star("api.example.org", "*", true)]
    fn hosts_that_need_no_proxy(#[case] host: &str, #[case] exceptions: &str, #[case] direct: bool) {
        assert_eq!(is_direct(host, Some(6443), exceptions), direct);
    }
}

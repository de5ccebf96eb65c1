//! Which ending an operating system error is, before anything came back from the target.

use crate::protocol::Ending;
use std::io::{Error, ErrorKind};

// Linux numbers that std has no kind for; what ICMP's rarer "unreachable" codes become.
const ENONET: i32 = 64;
const ENOPROTOOPT: i32 = 92;
const EHOSTDOWN: i32 = 112;

/// The ending of a connection (or a datagram) that failed with this error.
pub(crate) fn of(error: &Error) -> Ending {
    match error.kind() {
        ErrorKind::ConnectionRefused => Ending::Refused,
        // A filter on this host says EPERM, a filter on the way EACCES (ICMPv6) or EHOSTUNREACH (ICMP).
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied => {
            Ending::Unreachable
        }
        ErrorKind::TimedOut => Ending::TimedOut,
        // The handshake was complete before the reset came: a refused connection has its own number.
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ending::ConnectedWithoutEcho,
        _ => match error.raw_os_error() {
            Some(ENONET | ENOPROTOOPT | EHOSTDOWN) => Ending::Unreachable,
            _ => Ending::LocalError,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::eperm(1, Ending::Unreachable)]
    #[case::eacces(13, Ending::Unreachable)]
    #[case::einval(22, Ending::LocalError)]
    #[case::enfile(23, Ending::LocalError)]
    #[case::emfile(24, Ending::LocalError)]
    #[case::epipe(32, Ending::ConnectedWithoutEcho)]
    #[case::enonet(64, Ending::Unreachable)]
    #[case::enoprotoopt(92, Ending::Unreachable)]
    #[case::eafnosupport(97, Ending::LocalError)]
    #[case::eaddrnotavail(99, Ending::LocalError)]
    #[case::enetdown(100, Ending::LocalError)]
    #[case::enetunreach(101, Ending::Unreachable)]
    #[case::econnreset(104, Ending::ConnectedWithoutEcho)]
    #[case::enobufs(105, Ending::LocalError)]
    #[case::etimedout(110, Ending::TimedOut)]
    #[case::econnrefused(111, Ending::Refused)]
    #[case::ehostdown(112, Ending::Unreachable)]
    #[case::ehostunreach(113, Ending::Unreachable)]
    fn every_error_number_has_its_ending(#[case] number: i32, #[case] ending: Ending) {
        assert_eq!(of(&Error::from_raw_os_error(number)), ending);
    }
}

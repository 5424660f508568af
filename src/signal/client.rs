//! Whose request it is that comes through a proxy.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

/// Entries of `X-Forwarded-For` that are looked at, from its end.
const HOPS_MAX: usize = 32;

/// The client of a request that a trusted proxy passes on: the last address in `X-Forwarded-For`
/// that is no trusted proxy itself. What stands before it anybody could have written.
pub(super) fn forwarded_for(
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for").into_iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    for hop in hops.take(HOPS_MAX) {
        // A hop that can't be read hides what is before it.
        let address = address(hop.trim())?.to_canonical();
        if !is_trusted(address) {
            return Some(address);
        }
    }
    None
}

/// Some proxies write the port too, and brackets around IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    bare.unwrap_or(text).parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(lines: &[&str]) -> Option<IpAddr> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        forwarded_for(&headers, |ip| ip.is_loopback())
    }

    #[test]
    fn the_last_hop_that_is_no_proxy_is_the_client() {
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(forwarded(&["203.0.113.1"]), ip("203.0.113.1"));
        assert_eq!(forwarded(&["10.0.0.1, 203.0.113.1"]), ip("203.0.113.1"));
        assert_eq!(forwarded(&["203.0.113.1, 127.0.0.1"]), ip("203.0.113.1"));
        assert_eq!(
            forwarded(&["10.0.0.1", "203.0.113.1,::1"]),
            ip("203.0.113.1")
        );
        assert_eq!(forwarded(&["[2001:db8::1]:4711"]), ip("2001:db8::1"));
        assert_eq!(forwarded(&["203.0.113.1:4711"]), ip("203.0.113.1"));
        assert_eq!(forwarded(&["::ffff:203.0.113.1"]), ip("203.0.113.1"));
        assert_eq!(forwarded(&["203.0.113.1, unknown"]), None);
        assert_eq!(forwarded(&["127.0.0.1"]), None);
        assert_eq!(forwarded(&[]), None);
    }
}

//! The ICE candidates of a shard: where it receives, and what clients are told of it.
//!
//! The two differ behind a NAT. str0m gets to know only where we receive, since it takes a check
//! for its own by the address that it came to; in its offers and answers its candidates are
//! replaced by ours. So are its user name fragments: ours name the worker.

use std::fmt::Write as _;
use std::net::SocketAddr;

use str0m::error::IceError;
use str0m::net::{Protocol, TcpType};
use str0m::{Candidate, IceCreds};

use super::{ShardConfig, demux};

/// Where a shard is reached.
#[derive(Debug)]
pub struct Candidates {
    /// The beginning of the user name fragments of its peers.
    prefix: String,
    /// Where its worker receives.
    local: Vec<SocketAddr>,
    /// Where its worker takes TCP connections.
    local_tcp: Vec<SocketAddr>,
    /// Lines of SDP.
    lines: String,
}

impl Candidates {
    /// Those of a shard.
    pub fn new(config: &ShardConfig) -> Self {
        let mut lines = String::new();
        let udp = ranked(&config.told, Protocol::Udp);
        let tcp = ranked(&config.told_tcp, Protocol::Tcp);
        for (number, (address, protocol, priority)) in udp.chain(tcp).enumerate() {
            let (ip, port) = (address.ip(), address.port());
            // Clients connect, never we (RFC 6544 section 4.5).
            let role = match protocol {
                Protocol::Udp => "",
                _ => " tcptype passive",
            };
            let _ = write!(
                lines,
                "a=candidate:{} 1 {protocol} {priority} {ip} {port} typ host{role}\r\n",
                number + 1
            );
        }
        Self {
            prefix: demux::worker_prefix(config.worker),
            local: config.local.clone(),
            local_tcp: config.local_tcp.clone(),
            lines,
        }
    }

    /// What str0m is to know: where its worker receives.
    pub fn local(&self) -> impl Iterator<Item = Result<Candidate, IceError>> {
        let udp = |address: &SocketAddr| Candidate::host(*address, Protocol::Udp);
        let tcp = |address: &SocketAddr| {
            let passive = Candidate::builder().tcp().host(*address);
            passive.tcptype(TcpType::Passive).build()
        };
        let local_tcp = self.local_tcp.iter().map(tcp);
        self.local.iter().map(udp).chain(local_tcp)
    }

    /// What goes over one of our addresses.
    pub fn protocol(&self, local: SocketAddr) -> Protocol {
        match self.local_tcp.contains(&local) {
            true => Protocol::Tcp,
            false => Protocol::Udp,
        }
    }

    /// Credentials whose fragment names the worker, in place of `drawn` if that doesn't.
    pub fn own(&self, drawn: &IceCreds) -> Option<IceCreds> {
        let foreign = !drawn.ufrag.starts_with(&self.prefix);
        foreign.then(|| IceCreds {
            ufrag: format!("{}{}", self.prefix, drawn.ufrag),
            pass: drawn.pass.clone(),
        })
    }

    /// An offer or answer of str0m with these candidates in place of its own, and fragments as
    /// [`Self::own`] makes them.
    pub fn replace(&self, from_str0m: &str) -> String {
        let mut out = String::with_capacity(from_str0m.len() + self.lines.len());
        let mut written = false;
        for line in from_str0m.split_inclusive('\n') {
            if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:") {
                out.push_str("a=ice-ufrag:");
                if !ufrag.starts_with(&self.prefix) {
                    out.push_str(&self.prefix);
                }
                out.push_str(ufrag);
            } else if !line.starts_with("a=candidate:") {
                out.push_str(line);
            } else if !written {
                // One section of a BUNDLE tells for all.
                written = true;
                out.push_str(&self.lines);
            }
        }
        out
    }
}

/// Addresses with their priorities. Each family counts for itself, so that they take turns however
/// many addresses of one there are.
fn ranked(
    told: &[SocketAddr],
    protocol: Protocol,
) -> impl Iterator<Item = (&SocketAddr, Protocol, u32)> {
    let mut places = [0, 0];
    told.iter().map(move |address| {
        let place = &mut places[usize::from(address.is_ipv4())];
        let priority = priority(address, protocol, *place);
        *place += 1;
        (address, protocol, priority)
    })
}

/// The priority of a host candidate (RFC 8445 section 5.1.2.1), the `place`th of its family. IPv6
/// comes before IPv4, which has more NATs on its way, and then they take turns (RFC 8421 section
/// 4). TCP comes last, as in browsers.
fn priority(address: &SocketAddr, protocol: Protocol, place: usize) -> u32 {
    const COMPONENT: u32 = 1;
    let kind = match protocol {
        Protocol::Udp => 126,
        _ => 90,
    };
    let family = u32::from(address.is_ipv4());
    let preference = 65_535 - (2 * place as u32 + family).min(65_535);
    kind << 24 | preference << 8 | (256 - COMPONENT)
}

#[cfg(test)]
mod tests {
    use super::super::tests::call;
    use super::*;
    use crate::ids::WorkerId;

    #[test]
    fn clients_are_told_other_addresses_than_str0m_knows() {
        let told = ["203.0.113.5:7882", "[2001:db8::5]:7882"].map(|it| it.parse().unwrap());
        let mut config = call::config();
        (config.worker, config.told) = (WorkerId(37), told.to_vec());
        config.told_tcp = vec!["203.0.113.5:7881".parse().unwrap()];
        let candidates = Candidates::new(&config);
        let shown = candidates.replace(
            "v=0\r\nm=audio 9 X 0\r\na=candidate:77 1 udp 5 10.0.0.5 7882 typ host ufrag abc\r\n\
             a=candidate:78 1 udp 4 10.0.0.6 7882 typ host ufrag abc\r\na=mid:0\r\n\
             m=video 9 X 0\r\na=ice-ufrag:abc\r\na=ice-ufrag:11abc\r\na=mid:1\r\n",
        );
        assert_eq!(
            shown,
            "v=0\r\nm=audio 9 X 0\r\n\
             a=candidate:1 1 udp 2130706175 203.0.113.5 7882 typ host\r\n\
             a=candidate:2 1 udp 2130706431 2001:db8::5 7882 typ host\r\n\
             a=candidate:3 1 tcp 1526726399 203.0.113.5 7881 typ host tcptype passive\r\n\
             a=mid:0\r\nm=video 9 X 0\r\na=ice-ufrag:11abc\r\na=ice-ufrag:11abc\r\na=mid:1\r\n"
        );
        for line in shown.lines().filter_map(|line| line.strip_prefix("a=")) {
            if line.starts_with("candidate:") {
                str0m::Candidate::from_sdp_string(line).expect("a candidate");
            }
        }
    }

    #[test]
    fn the_families_take_turns() {
        let told = [
            "192.0.2.1:1",
            "192.0.2.2:1",
            "[2001:db8::1]:1",
            "[2001:db8::2]:1",
        ];
        let told = told.map(|address| address.parse().unwrap());
        let mut order: Vec<_> = ranked(&told, Protocol::Udp).collect();
        order.sort_unstable_by_key(|(_, _, priority)| std::cmp::Reverse(*priority));
        let order = order.into_iter().map(|(address, ..)| *address);
        assert!(order.eq([2, 0, 3, 1].map(|place: usize| told[place])));
    }

    #[test]
    fn priorities_differ_and_ipv6_comes_first() {
        let four = "192.0.2.1:1".parse().unwrap();
        let six = "[2001:db8::1]:1".parse().unwrap();
        assert!(priority(&six, Protocol::Udp, 0) > priority(&four, Protocol::Udp, 0));
        assert!(priority(&four, Protocol::Udp, 0) > priority(&six, Protocol::Udp, 1));
        assert!(priority(&six, Protocol::Tcp, 0) < HOST_LEAST);
        assert!(priority(&six, Protocol::Udp, 99_999) >= HOST_LEAST);
    }

    const HOST_LEAST: u32 = 126 << 24;
}

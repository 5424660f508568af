//! The ICE candidates of a shard: where it receives, and what clients are told of it.
//!
//! The two differ behind a NAT. str0m gets to know only where we receive, since it takes a check
//! for its own by the address that it came to; in its offers and answers its candidates are
//! replaced by ours. So are its user name fragments: ours name the worker.

use std::fmt::Write as _;
use std::net::SocketAddr;

use str0m::IceCreds;

use super::demux;
use crate::ids::WorkerId;

/// Where a shard is reached.
#[derive(Debug)]
pub struct Candidates {
    /// The beginning of the user name fragments of its peers.
    prefix: String,
    /// Where its worker receives.
    local: Vec<SocketAddr>,
    /// Lines of SDP.
    lines: String,
}

impl Candidates {
    /// For a worker that receives on `local`, and whose clients are to send to `told`.
    pub fn new(worker: WorkerId, local: &[SocketAddr], told: &[SocketAddr]) -> Self {
        let mut lines = String::new();
        for (place, address) in told.iter().enumerate() {
            let priority = priority(address, place);
            let (number, ip, port) = (place + 1, address.ip(), address.port());
            let _ = write!(
                lines,
                "a=candidate:{number} 1 udp {priority} {ip} {port} typ host\r\n"
            );
        }
        Self {
            prefix: demux::worker_prefix(worker),
            local: local.to_owned(),
            lines,
        }
    }

    /// Where its worker receives.
    pub fn local(&self) -> &[SocketAddr] {
        &self.local
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

/// The priority of a host candidate (RFC 8445 section 5.1.2.1). IPv6 comes before IPv4, which has
/// more NATs on its way, and by turns after it (RFC 8421).
fn priority(address: &SocketAddr, place: usize) -> u32 {
    const HOST: u32 = 126;
    const COMPONENT: u32 = 1;
    let family = u32::from(address.is_ipv4());
    let preference = 65_535 - (2 * place as u32 + family).min(65_535);
    HOST << 24 | preference << 8 | (256 - COMPONENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_other_addresses_than_str0m_knows() {
        let told = ["203.0.113.5:7882", "[2001:db8::5]:7882"].map(|it| it.parse().unwrap());
        let candidates = Candidates::new(WorkerId(37), &[], &told);
        let shown = candidates.replace(
            "v=0\r\nm=audio 9 X 0\r\na=candidate:77 1 udp 5 10.0.0.5 7882 typ host ufrag abc\r\n\
             a=candidate:78 1 udp 4 10.0.0.6 7882 typ host ufrag abc\r\na=mid:0\r\n\
             m=video 9 X 0\r\na=ice-ufrag:abc\r\na=ice-ufrag:11abc\r\na=mid:1\r\n",
        );
        assert_eq!(
            shown,
            "v=0\r\nm=audio 9 X 0\r\n\
             a=candidate:1 1 udp 2130706175 203.0.113.5 7882 typ host\r\n\
             a=candidate:2 1 udp 2130705919 2001:db8::5 7882 typ host\r\n\
             a=mid:0\r\nm=video 9 X 0\r\na=ice-ufrag:11abc\r\na=ice-ufrag:11abc\r\na=mid:1\r\n"
        );
        for line in shown.lines().filter_map(|line| line.strip_prefix("a=")) {
            if line.starts_with("candidate:") {
                str0m::Candidate::from_sdp_string(line).expect("a candidate");
            }
        }
    }

    #[test]
    fn priorities_differ_and_ipv6_comes_first() {
        let four = "192.0.2.1:1".parse().unwrap();
        let six = "[2001:db8::1]:1".parse().unwrap();
        assert!(priority(&six, 0) > priority(&four, 0));
        assert!(priority(&four, 0) > priority(&six, 1));
        assert!(priority(&six, usize::MAX >> 8) >= HOST_LEAST);
    }

    const HOST_LEAST: u32 = 126 << 24;
}

//! Which addresses may be connected to on a stranger's word: those of the public internet.
//!
//! Whoever asks for a token names a server, unauthenticated, and this host would knock at whatever
//! that name resolves to: the neighbour's printer, the cloud's metadata. So an address is looked
//! at after it was resolved, and what was looked at is what is connected to. The lists are those of
//! the IANA special-purpose registries (RFC 6890), and what passes for an address of the other
//! family inside. What is not here: configured homeservers, which may be anywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What of IPv4 is not a host of the public internet: first address and length of the prefix.
const FOREIGN_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network, RFC 791
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private, RFC 1918
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carriers' NAT, RFC 6598; a cloud's metadata too
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback, RFC 1122
    (Ipv4Addr::new(168, 63, 129, 16), 32), // metadata of Azure, inside a public network
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, RFC 3927; metadata of most clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private, RFC 1918
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments, RFC 6890
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation, RFC 5737
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // relays of 6to4, RFC 7526
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private, RFC 1918
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks, RFC 2544
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation, RFC 5737
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation, RFC 5737
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast, RFC 5771
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, RFC 1112, and broadcast
];

/// All that is handed out as public IPv6. Outside are loopback, unique local, link-local and
/// site-local addresses, multicast, discard, and the forms that wrap an IPv4 address.
const PUBLIC_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What of that is no host all the same.
const FOREIGN_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // Teredo, benchmarks, ORCHID, RFC 2928
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation, RFC 3849
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4: any IPv4 address, RFC 7526
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation, RFC 9637
];

/// What a network without IPv4 reaches an IPv4 address by (NAT64, RFC 6052): it counts as that
/// address. The prefix for local use (64:ff9b:1::/48, RFC 8215) doesn't say where in it the
/// address stands, and is refused.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether this is the address of a host on the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) if within_v6(address, NAT64) => {
            is_public_v4(Ipv4Addr::from_bits(address.to_bits() as u32))
        }
        IpAddr::V6(address) => {
            let foreign = FOREIGN_V6.iter().any(|net| within_v6(address, *net));
            within_v6(address, PUBLIC_V6) && !foreign
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !FOREIGN_V4.iter().any(|(net, length)| {
        let differing = address.to_bits() ^ net.to_bits();
        differing >> (Ipv4Addr::BITS - length) == 0
    })
}

fn within_v6(address: Ipv6Addr, (net, length): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ net.to_bits()) >> (Ipv6Addr::BITS - length) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn hosts_of_the_internet_are_public() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700:4700::1111",
            "3ffe::1",
            "3fff:1000::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(public(text), "{text}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!public(text), "{text}");
            assert!(!public(&format!("::ffff:{text}")), "mapped {text}");
            assert!(!public(&format!("::{text}")), "compatible {text}");
            assert!(!public(&format!("64:ff9b::{text}")), "by NAT64 {text}");
        }
        for text in [
            "::",
            "::1",
            "::ffff:1.1.1.1",
            "::1.1.1.1",
            "::ffff:0:1.1.1.1",
            "64:ff9b:1::1.1.1.1",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "2002:101:101::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ffff::1",
        ] {
            assert!(!public(text), "{text}");
        }
    }
}

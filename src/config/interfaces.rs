//! Which of the host's own addresses media is received on when none are named.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use toml::Value;

use super::value::Parameter;

/// Interfaces by name: `eth0`, `eth*`; with `!` before it, all but these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd)]
pub struct Interfaces {
    /// What a name is or begins with.
    name: String,
    /// Anything may follow.
    open: bool,
    /// These are left out.
    excluded: bool,
}

impl Interfaces {
    fn covers(&self, name: &str) -> bool {
        match self.open {
            true => name.starts_with(&self.name),
            false => name == self.name,
        }
    }
}

impl Parameter for Interfaces {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let read = |text: &str| {
            let (excluded, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, text),
            };
            let (open, name) = match text.strip_suffix('*') {
                Some(name) => (true, name),
                None => (false, text),
            };
            let of_a_name = |c: char| c.is_ascii_graphic() && !"*!/".contains(c);
            let right = !text.is_empty() && name.chars().all(of_a_name);
            right.then(|| Self {
                name: name.to_owned(),
                open,
                excluded,
            })
        };
        value.as_str().and_then(read).ok_or_else(|| {
            format!(
                "{value} is no name of an interface; write \"eth0\", or \"eth*\" for all that \
                 begin so, or \"!docker*\" for all but these"
            )
        })
    }
}

/// Whether media may come in by that interface: one that no entry leaves out and, where any entry
/// names interfaces, one that is named.
fn is_wanted(name: &str, filter: &[Interfaces]) -> bool {
    let covers = |excluded| {
        let mut those = filter.iter().filter(move |it| it.excluded == excluded);
        those.any(|it| it.covers(name))
    };
    !covers(true) && (filter.iter().all(|it| it.excluded) || covers(false))
}

/// Whether an address is one to be reached at from elsewhere. Link-local ones need a zone, which a
/// candidate can't have.
fn is_reachable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !link_local && !address.is_unspecified()
}

/// Where media is received.
#[derive(Debug)]
pub struct LocalAddresses {
    /// Sorted, if they are the host's.
    pub ready: Vec<IpAddr>,
    /// How many more the host has that can't be bound yet.
    pub tentative: usize,
}

/// The addresses of the host's interfaces that pass the filter.
pub(super) fn host_addresses(filter: &[Interfaces]) -> io::Result<LocalAddresses> {
    // Without the file there is no IPv6.
    let unfit = unfit(&fs::read_to_string(IPV6_ADDRESSES).unwrap_or_default());
    let mut ready: Vec<IpAddr> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter(|interface| is_wanted(&interface.name, filter))
        .map(|interface| interface.ip())
        .filter(|address| is_reachable(*address))
        .collect();
    ready.sort_unstable();
    ready.dedup();
    let is_tentative = |address: &&IpAddr| unfit.get(address) == Some(&TENTATIVE);
    let tentative = ready.iter().filter(is_tentative).count();
    ready.retain(|address| !unfit.contains_key(address));
    Ok(LocalAddresses { ready, tentative })
}

/// Where Linux lists its IPv6 addresses with their flags.
const IPV6_ADDRESSES: &str = "/proc/self/net/if_inet6";

/// Flags of addresses that are not for serving (Linux, `if_addr.h`): temporary ones, which change
/// within hours; those that turned out to be somebody else's; deprecated ones, whose prefix is
/// about to go; and tentative ones, which can't be bound yet.
const UNFIT_FLAGS: u8 = 0x01 | 0x08 | 0x20 | TENTATIVE;

/// Somebody else on the network is being asked whether the address is theirs: for a second or two
/// after it was assigned.
const TENTATIVE: u8 = 0x40;

/// The addresses with such flags, and which of them they have, in the text of [`IPV6_ADDRESSES`]:
/// lines of address, index, prefix length, scope, flags and name.
fn unfit(text: &str) -> HashMap<IpAddr, u8> {
    let read = |line: &str| {
        let mut columns = line.split_whitespace();
        let address = u128::from_str_radix(columns.next()?, 16).ok()?;
        let flags = u8::from_str_radix(columns.nth(3)?, 16).ok()?;
        let flags = flags & UNFIT_FLAGS;
        (flags != 0).then(|| (IpAddr::V6(Ipv6Addr::from(address)), flags))
    };
    text.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Vec<Interfaces> {
        Vec::from_toml(&Vec::<Interfaces>::from_text(text)).expect("a list of interfaces")
    }

    #[test]
    fn interfaces_are_named_or_left_out() {
        let wanted = |name, text| is_wanted(name, &filter(text));
        assert!(wanted("eth0", "") && wanted("eth0", "eth0") && wanted("eth0", "e*,wlan0"));
        assert!(!wanted("eth0", "eth") && !wanted("eth0", "wlan*"));
        assert!(wanted("eth0", "!docker*") && !wanted("docker0", "!docker*"));
        assert!(!wanted("br-12ab", "!br-*") && wanted("br0", "!br-*"));
        assert!(!wanted("eth1", "eth*,!eth1") && wanted("eth0", "eth*,!eth1"));
        for wrong in ["!", "", "e*h", "a b", "!!a", "eth0/1"] {
            let value = Value::String(wrong.to_owned());
            assert!(Interfaces::from_toml(&value).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_that_leads_nowhere_from_outside_is_none() {
        for address in ["127.0.0.1", "::1", "169.254.7.7", "fe80::1", "0.0.0.0"] {
            assert!(!is_reachable(address.parse().unwrap()), "{address}");
        }
        for address in ["192.168.1.4", "203.0.113.5", "2001:db8::5", "fd00::1"] {
            assert!(is_reachable(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn addresses_that_will_not_last_are_not_for_serving() {
        let text = "20010db8000000000000000000000005 02 40 00 80     eth0\n\
            20010db8000000000000000000000006 02 40 00 01     eth0\n\
            20010db8000000000000000000000007 02 40 00 20     eth0\n\
            20010db8000000000000000000000008 02 40 00 c0     eth0\n\
            20010db8000000000000000000000009 02 40 00 c8     eth0\n\
            nonsense\n";
        let unfit = unfit(text);
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let flags = |last| unfit.get(&address(last)).copied();
        assert_eq!([5, 6, 7].map(flags), [None, Some(0x01), Some(0x20)]);
        assert_eq!(flags(8), Some(TENTATIVE), "it will be fit soon");
        assert_eq!(flags(9), Some(TENTATIVE | 0x08), "it never will be");
        assert_eq!(unfit.len(), 4);
    }
}

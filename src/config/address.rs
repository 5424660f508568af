//! Types of parameters that say where something is: servers of Matrix, networks, paths.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use hyper::Uri;
use toml::Value;

use super::value::{LIST_MAX, Parameter, WebUrl};

/// A name of a Matrix server: a host as in a URL, with a port or without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerName(String);

impl ServerName {
    /// `*`, which stands for all of them.
    pub const ALL: &'static str = "*";

    /// A name, unless `text` is none, or `*`.
    pub fn new(text: &str) -> Option<Self> {
        (text == Self::ALL || is_server_name(text)).then(|| Self(text.to_owned()))
    }

    /// The name as Matrix writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Parameter for ServerName {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value.as_str().and_then(Self::new).ok_or_else(|| {
            format!(
                "{value} is no name of a Matrix server; write what stands behind the colon of its \
                 users, \"example.org\""
            )
        })
    }
}

/// Whether Matrix would take this for the name of a server (Matrix specification, appendices,
/// server name).
pub fn is_server_name(text: &str) -> bool {
    const BYTES_MAX: usize = 230;
    if text.is_empty() || text.len() > BYTES_MAX {
        return false;
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            ("", port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_is_right = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|port| port > 0)
        });
    let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let bracketed = text.starts_with('[');
    port_is_right && (bracketed || !host.is_empty()) && host.bytes().all(of_a_name)
}

/// Addresses of web servers by name of a Matrix server.
pub type ServerMap = BTreeMap<ServerName, WebUrl>;

/// In the environment: `example.org=http://127.0.0.1:8008,example.net=...`.
impl Parameter for ServerMap {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let table = match value {
            Value::Table(table) if table.len() <= LIST_MAX => table,
            Value::Table(_) => return Err(format!("has more than {LIST_MAX} entries")),
            _ => {
                return Err(format!(
                    "{value} is not a table; write \
                     {{ \"example.org\" = \"http://127.0.0.1:8008\" }}"
                ));
            }
        };
        let entry = |(name, url): (&String, &Value)| {
            let name = Value::String(name.clone());
            match ServerName::from_toml(&name)? {
                all if all.as_str() == ServerName::ALL => Err("\"*\" has no address".to_owned()),
                name => Ok((name, WebUrl::from_toml(url)?)),
            }
        };
        table.iter().map(entry).collect()
    }

    fn from_text(text: &str) -> Value {
        let entry = |item: &str| {
            let (name, url) = item.split_once('=').unwrap_or((item, ""));
            (name.trim().to_owned(), Value::String(url.trim().to_owned()))
        };
        let items = text.split(',').map(str::trim);
        Value::Table(items.filter(|item| !item.is_empty()).map(entry).collect())
    }
}

/// The address clients find signalling at, `ws` or `wss`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd)]
pub struct SocketUrl(String);

impl SocketUrl {
    /// The address, byte for byte as configured: clients compare it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An empty text is none.
impl Parameter for Option<SocketUrl> {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = value.as_str();
        if text == Some("") {
            return Ok(None);
        }
        let uri: Option<Uri> = text.and_then(|text| text.parse().ok());
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        let named = uri.as_ref().and_then(Uri::host).is_some();
        match (text, scheme) {
            (Some(text), Some("ws" | "wss")) if named => Ok(Some(SocketUrl(text.to_owned()))),
            _ => Err(format!(
                "{value} is no address for WebSockets; write \"wss://rtc.example.org\""
            )),
        }
    }
}

/// An IP address or all of a network: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub struct Network {
    address: IpAddr,
    /// Leading bits that count.
    bits: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address may come as a mapped one.
    pub fn contains(&self, address: IpAddr) -> bool {
        let leading = |value: u128, width: u8| value.checked_shr((width - self.bits).into());
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let [own, other] = [own, other].map(|ip| u128::from(u32::from(ip)));
                leading(own, 32) == leading(other, 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let [own, other] = [own, other].map(u128::from);
                leading(own, 128) == leading(other, 128)
            }
            _ => false,
        }
    }
}

impl Parameter for Network {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let read = |text: &str| {
            let (address, bits) = match text.split_once('/') {
                Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.unwrap_or(width);
            (bits <= width).then_some(Self { address, bits })
        };
        value.as_str().and_then(read).ok_or_else(|| {
            format!("{value} is no IP address or network; write \"10.0.0.7\" or \"10.0.0.0/8\"")
        })
    }
}

/// What may stand before a path: `/livekit/jwt`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// What follows the prefix in `path`; it begins with a slash.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.0)?;
        rest.starts_with('/').then_some(rest)
    }
}

impl Parameter for PathPrefix {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let of_a_path = |byte: u8| byte.is_ascii_graphic() && !b"?#%\"\\".contains(&byte);
        match value.as_str() {
            Some(path)
                if path.len() > 1
                    && path.starts_with('/')
                    && !path.ends_with('/')
                    && !path.contains("//")
                    && path.bytes().all(of_a_path) =>
            {
                Ok(Self(path.to_owned()))
            }
            _ => Err(format!(
                "{value} is no beginning of a path; write \"/livekit/jwt\", without a slash at \
                 the end"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Parameter>(text: &str) -> Result<T, String> {
        T::from_toml(&T::from_text(text))
    }

    #[test]
    fn names_of_servers_are_told_from_others() {
        for name in [
            "example.org",
            "a-b.example:8448",
            "127.0.0.1",
            "[::1]",
            "[2001:db8::1]:1",
        ] {
            assert!(is_server_name(name), "{name}");
        }
        let long = "a".repeat(231);
        for name in [
            "", ":8448", "a:", "a:0", "a:65536", "a:+1", "[::1", "[x]", "a/b", "a@b", "a b", "é",
            "[::1]x", "a:1:2", &long,
        ] {
            assert!(!is_server_name(name), "{name}");
        }
    }

    #[test]
    fn servers_have_addresses() {
        let map = text::<ServerMap>("a.example=http://127.0.0.1:8008, b.example = https://b/");
        assert_eq!(map.unwrap().len(), 2);
        assert!(text::<ServerMap>("a.example").is_err());
        assert!(text::<ServerMap>("*=http://a/").is_err());
        assert!(text::<Option<SocketUrl>>("https://a/").is_err());
        assert!(text::<Option<SocketUrl>>("wss://a/b").unwrap().is_some());
    }

    #[test]
    fn networks_hold_their_addresses() {
        let holds = |network: &str, address: &str| {
            let network: Network = text(network).unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(!holds("10.0.0.0/8", "::a00:1"));
        assert!(holds("127.0.0.1", "127.0.0.1") && !holds("127.0.0.1", "127.0.0.2"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("0.0.0.0/0", "203.0.113.5") && holds("::/0", "2001:db8::1"));
        for wrong in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "host",
            "10.0.0.0/-1",
            "",
        ] {
            assert!(text::<Network>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn prefixes_end_where_a_segment_ends() {
        let prefix: PathPrefix = text("/livekit/sfu").unwrap();
        assert_eq!(prefix.strip("/livekit/sfu/rtc/v1"), Some("/rtc/v1"));
        assert_eq!(prefix.strip("/livekit/sfu"), None);
        assert_eq!(prefix.strip("/livekit/sfux/rtc"), None);
        for wrong in ["", "/", "a", "/a/", "//a", "/a?b", "/a b"] {
            assert!(text::<PathPrefix>(wrong).is_err(), "{wrong}");
        }
    }
}

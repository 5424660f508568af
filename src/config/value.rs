//! How a TOML value or a text of the environment becomes a typed value, and what to say if not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use toml::Value;

use crate::media::message::Codec;

/// A parameter's type. `Err` says what would have been right.
pub(super) trait Parameter: Sized {
    /// From a TOML value.
    fn from_toml(value: &Value) -> Result<Self, String>;

    /// The TOML value that a text of the environment or the command line stands for.
    fn from_text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    /// For "at least" and "at most" in messages.
    fn show(&self) -> String {
        String::new()
    }
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub usize);

impl ByteSize {
    /// From units of 1024 bytes.
    pub const fn kib(count: usize) -> Self {
        Self(count * 1024)
    }

    /// From units of 1024 * 1024 bytes.
    pub const fn mib(count: usize) -> Self {
        Self(count * 1024 * 1024)
    }

    /// Bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes % (1 << 20) == 0 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes > 0 && bytes % (1 << 10) == 0 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes}"),
        }
    }
}

/// An absolute `http` or `https` address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd)]
pub struct WebUrl(String);

impl WebUrl {
    /// The address as an HTTP client wants it.
    pub fn uri(&self) -> Uri {
        self.0.parse().expect("it was one when it was read")
    }

    /// Whether it needs TLS.
    pub fn is_https(&self) -> bool {
        self.uri().scheme_str() == Some("https")
    }
}

/// The least severe messages to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Splits `15 KiB` into `15` and `KiB`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

impl Parameter for Duration {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let wrong =
            || format!("{value} is not a duration; write \"500ms\", \"10s\", \"5m\" or \"6h\"");
        let text = value.as_str().ok_or_else(wrong)?;
        let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        number
            .checked_mul(factor)
            .map(Duration::from_millis)
            .ok_or_else(wrong)
    }

    fn show(&self) -> String {
        match self.as_millis() {
            ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
            ms => format!("{ms}ms"),
        }
    }
}

impl Parameter for ByteSize {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let wrong =
            || format!("{value} is not a size; write bytes as a number, or \"64 KiB\", \"2 MiB\"");
        let (number, unit) = match value {
            Value::Integer(number) => (u64::try_from(*number).map_err(|_| wrong())?, ""),
            Value::String(text) => number_and_unit(text).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        let factor: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        let bytes = number.checked_mul(factor).ok_or_else(wrong)?;
        usize::try_from(bytes).map(Self).map_err(|_| wrong())
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Parameter for bool {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| format!("{value} is neither true nor false"))
    }

    fn from_text(text: &str) -> Value {
        text.parse()
            .map_or_else(|_| Value::String(text.to_owned()), Value::Boolean)
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Parameter for $type {
            fn from_toml(value: &Value) -> Result<Self, String> {
                value
                    .as_integer()
                    .and_then(|number| Self::try_from(number).ok())
                    .ok_or_else(|| format!("{value} is not a whole number in range"))
            }

            fn from_text(text: &str) -> Value {
                text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_numbers!(u16, u32, usize);

impl Parameter for SocketAddr {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| {
                format!(
                    "{value} is not an IP address with port; write \"127.0.0.1:7880\", \
                 \"0.0.0.0:7880\" or \"[::]:7880\""
                )
            })
    }
}

impl Parameter for IpAddr {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = value.as_str().unwrap_or_default();
        match text.parse::<IpAddr>() {
            // Clients are told this address: a wildcard would send them nowhere.
            Ok(address) if address.is_unspecified() => Err(format!(
                "{value} stands for every address, and clients need one to send to; write \
                 \"192.0.2.1\" or \"2001:db8::1\", or leave the list empty to use those of this \
                 host"
            )),
            Ok(address) if address.is_multicast() => Err(format!(
                "{value} is a multicast address; write that of one host, \"192.0.2.1\" or \
                 \"2001:db8::1\""
            )),
            Ok(address) => Ok(address),
            Err(_) if text.parse::<SocketAddr>().is_ok() => Err(format!(
                "{value} has a port; write the address alone, the port is media.port's"
            )),
            Err(_) => Err(format!(
                "{value} is not an IP address clients can send to; write \"192.0.2.1\" or \
                 \"2001:db8::1\", or leave the list empty to use those of this host"
            )),
        }
    }
}

impl Parameter for String {
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(format!("{value} is not a text in quotes")),
        }
    }
}

/// An empty text is none.
impl Parameter for Option<String> {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = value.as_str();
        let text = text.ok_or_else(|| format!("{value} is not a text in quotes"))?;
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    }
}

/// An empty text is none.
impl Parameter for Option<PathBuf> {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = Option::<String>::from_toml(value)?.map(PathBuf::from);
        match text {
            Some(path) if !path.is_absolute() => Err(format!(
                "{value} is no absolute path; write \"/run/stellwerk/control\""
            )),
            text => Ok(text),
        }
    }
}

impl Parameter for WebUrl {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let uri: Option<Uri> = value.as_str().and_then(|text| text.parse().ok());
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        let named = uri.as_ref().and_then(Uri::host).is_some();
        match (uri.as_ref(), scheme) {
            (Some(uri), Some("http" | "https")) if named => Ok(Self(uri.to_string())),
            _ => Err(format!(
                "{value} is no address of a web server; write \"https://example.org/path\""
            )),
        }
    }
}

/// Entries of a list parameter; a longer list is a mistake.
pub(super) const LIST_MAX: usize = 64;

impl<T: Parameter> Parameter for Vec<T> {
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value.as_array() {
            Some(items) if items.len() <= LIST_MAX => items.iter().map(T::from_toml).collect(),
            Some(_) => Err(format!("has more than {LIST_MAX} entries")),
            None => Err(format!(
                "{value} is not a list; put it in brackets: [{value}]"
            )),
        }
    }

    fn from_text(text: &str) -> Value {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        Value::Array(items.map(T::from_text).collect())
    }
}

macro_rules! words {
    ($type:ident { $($word:literal => $variant:ident),* }) => {
        impl Parameter for $type {
            fn from_toml(value: &Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => {
                        let words = [$(concat!("\"", $word, "\"")),*].join(", ");
                        Err(format!("{value} is none of {words}"))
                    }
                }
            }
        }
    };
}

words!(LogLevel {
    "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug, "trace" => Trace
});
words!(Codec {
    "vp8" => Vp8, "h264" => H264, "vp9" => Vp9, "av1" => Av1, "opus" => Opus, "red" => Red
});
words!(LogFormat { "text" => Text, "json" => Json });

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Parameter>(text: &str) -> Result<T, String> {
        T::from_toml(&T::from_text(text))
    }

    #[test]
    fn durations_and_sizes_need_their_unit() {
        assert_eq!(text("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(text("6h"), Ok(Duration::from_secs(21_600)));
        assert!(text::<Duration>("10").is_err());
        assert!(text::<Duration>("s").is_err());
        assert!(text::<Duration>("99999999999999999999s").is_err());
        assert!(text::<Duration>("18446744073709551615h").is_err());
        assert_eq!(text("16 KiB"), Ok(ByteSize(16_384)));
        assert_eq!(text("7"), Ok(ByteSize(7)));
        assert!(text::<ByteSize>("7 kB").is_err());
        assert!(text::<ByteSize>("18446744073709551615 GiB").is_err());
        assert!(ByteSize::from_toml(&Value::Integer(-1)).is_err());
    }

    #[test]
    fn addresses_are_ones_a_client_can_reach() {
        assert!(text::<IpAddr>("192.0.2.1").is_ok());
        for (wrong, remedy) in [
            ("0.0.0.0", "every address"),
            ("::", "every address"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("192.0.2.1:7882", "has a port"),
            ("[2001:db8::1]:7882", "has a port"),
            ("host.example", "not an IP address"),
        ] {
            assert!(
                text::<IpAddr>(wrong).is_err_and(|it| it.contains(remedy)),
                "{wrong}"
            );
        }
        assert!(text::<SocketAddr>("localhost:7880").is_err());
        assert_eq!(text::<Vec<u16>>("1, 2,"), Ok(vec![1, 2]));
    }
}

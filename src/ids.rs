//! Names of things. One newtype per number space, so that two of them never mix.
//!
//! [`RoomName`] and [`Identity`] come from people and may say who they are, so they print as a
//! keyed short hash: the key is drawn at start and never leaves the process, which keeps log
//! lines of one run comparable and those of two runs not. [`RoomName::as_str`] is for the wire.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

/// A value that may point to a person. `Debug` prints `~` and 8 hex digits of a keyed hash.
pub struct Private<T>(pub T);

impl<T: std::hash::Hash> fmt::Debug for Private<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        write!(f, "~{:08x}", KEY.hash_one(&self.0) as u32)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, private) => {
        text_id!(@define $(#[$doc])* $name);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Private(&*self.0).fmt(f)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, public) => {
        text_id!(@define $(#[$doc])* $name);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
    (@define $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text as it goes over the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
    };
}

text_id!(
    /// The name of a room, as the token gives it. Private.
    RoomName, private
);
text_id!(
    /// Who a participant is, as the token gives it; unique in a room. Private.
    Identity, private
);
text_id!(
    /// One incarnation of a room, `RM_` and 12 characters.
    RoomSid, public
);
text_id!(
    /// One stay of a participant in a room, `PA_` and 12 characters.
    ParticipantSid, public
);
text_id!(
    /// A published track, `TR_`, a kind letter, a source letter, 10 or 11 characters.
    TrackSid, public
);

/// One signalling session: where the notices for a participant go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// A worker, counted from 0. Its UDP port is the first media port plus this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// What one customer of a network provider has: an IPv4 address, or a /64 of IPv6 with its 2^64
/// addresses. So that is what limits count by. Private.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Household(IpAddr);

impl Household {
    /// The one that `address` belongs to.
    pub const fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(it) => IpAddr::V6(Ipv6Addr::from_bits(it.to_bits() >> 64 << 64)),
            it => it,
        })
    }
}

impl fmt::Debug for Household {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Private(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_ids_print_a_hash_and_equal_ones_print_alike() {
        let anna = Identity::from("@anna:example.org");
        let shown = format!("{anna:?}");
        assert!(!shown.contains("anna"), "{shown}");
        assert_eq!(shown, format!("{:?}", Identity::from("@anna:example.org")));
        assert_eq!(shown.len(), 9);
    }

    #[test]
    fn a_household_is_an_address_or_a_network_of_ipv6() {
        let of = |text: &str| Household::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
        assert!(!format!("{:?}", of("192.0.2.1")).contains("192"));
    }
}

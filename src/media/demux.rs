//! Whose datagram is this? Step 2 of the hot path.
//!
//! STUN is routed by the local half of its user name; everything else by the address it came
//! from, and an address only counts after a STUN check from it passed the integrity test of that
//! peer. That defeats the DTLS ClientHello race: who hasn't the ICE password is not heard.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::PeerKey;
use super::message::Connection;

/// The four things that share a WebRTC port (RFC 7983 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// First byte 0 to 3.
    Stun,
    /// First byte 20 to 63.
    Dtls,
    /// First byte 128 to 191, second not one of RTCP's.
    Rtp,
    /// First byte 128 to 191, second 192 to 223 (RFC 5761 section 4).
    Rtcp,
}

impl Class {
    /// What `datagram` claims to be.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match datagram {
            [0..=3, ..] if datagram.len() >= 20 => Some(Self::Stun),
            [20..=63, ..] if datagram.len() >= 13 => Some(Self::Dtls),
            [128..=191, 192..=223, ..] if datagram.len() >= 8 => Some(Self::Rtcp),
            [128..=191, ..] if datagram.len() >= 12 => Some(Self::Rtp),
            _ => None,
        }
    }
}

/// Whether a datagram is made of whole DTLS records (RFC 6347 section 4.1). The state machine
/// behind discards broken ones without a word; here they are counted.
pub fn is_dtls(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    // Each turn takes at least 13 bytes off.
    while let [_, 0xfe, _, _, _, _, _, _, _, _, _, high, low, body @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match body.get(length..) {
            Some([]) => return true,
            Some(next) => rest = next,
            None => return false,
        }
    }
    false
}

/// One peer of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whose.
    pub peer: PeerKey,
    /// Which of them, for clients with two.
    pub connection: Connection,
}

/// Addresses and user names of all peers of a shard.
#[derive(Debug)]
pub struct Demux {
    /// At most [`ADDRESSES_MAX`] per peer.
    by_address: HashMap<SocketAddr, Place>,
    /// One per peer.
    by_ufrag: HashMap<String, Place>,
}

/// Addresses kept per peer: a client checks from each of its interfaces and families. Past this
/// the oldest one is forgotten; a check from it brings it back.
pub const ADDRESSES_MAX: usize = 8;

impl Demux {
    /// Knows nobody.
    #[expect(
        clippy::new_without_default,
        reason = "a demux is made once, on purpose"
    )]
    pub fn new() -> Self {
        Self {
            by_address: HashMap::new(),
            by_ufrag: HashMap::new(),
        }
    }

    /// The peer that proved to be at `address`.
    pub fn by_address(&self, address: SocketAddr) -> Option<Place> {
        self.by_address.get(&address).copied()
    }

    /// The peer a STUN request is for.
    pub fn by_username(&self, stun: &[u8]) -> Option<Place> {
        self.by_ufrag.get(local_ufrag(stun)?).copied()
    }

    /// `peer` is reached by this user name fragment from now on.
    pub fn name(&mut self, ufrag: String, peer: Place) {
        self.by_ufrag.insert(ufrag, peer);
    }

    /// That name is no longer used.
    pub fn unname(&mut self, ufrag: &str) {
        self.by_ufrag.remove(ufrag);
    }

    /// `peer` proved to be at `address`; `known` is its list of such addresses.
    pub fn bind(&mut self, address: SocketAddr, peer: Place, known: &mut Vec<SocketAddr>) {
        if self.by_address.insert(address, peer) == Some(peer) {
            return;
        }
        known.retain(|known| *known != address);
        if known.len() == ADDRESSES_MAX {
            self.release(known.remove(0), peer);
        }
        known.push(address);
    }

    /// Forgets `address`, unless another peer has proved to be there since.
    pub fn release(&mut self, address: SocketAddr, peer: Place) {
        if self.by_address.get(&address) == Some(&peer) {
            self.by_address.remove(&address);
        }
    }
}

/// The part of USERNAME before the colon: the receiver's fragment (RFC 8445 section 7.2.2).
fn local_ufrag(stun: &[u8]) -> Option<&str> {
    const USERNAME: u16 = 0x0006;
    let mut attributes = stun.get(20..)?;
    // Each turn takes at least 4 bytes off, so the datagram's size bounds the loop.
    while let [t0, t1, l0, l1, rest @ ..] = attributes {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if u16::from_be_bytes([*t0, *t1]) == USERNAME {
            let username = std::str::from_utf8(rest.get(..length)?).ok()?;
            return username.split(':').next();
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::RoomKey;
    use super::*;

    fn peer(participant: u32) -> Place {
        Place {
            peer: PeerKey {
                room: RoomKey(0),
                participant,
            },
            connection: Connection::Publisher,
        }
    }

    fn stun(username: &str) -> Vec<u8> {
        let mut message = vec![0; 20];
        message.extend([0x00, 0x25, 0, 0]);
        message.extend([0x00, 0x06, 0, username.len() as u8]);
        message.extend(username.as_bytes());
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn stun_goes_by_the_local_half_of_the_user_name() {
        let mut demux = Demux::new();
        demux.name("abcd".into(), peer(1));
        assert_eq!(demux.by_username(&stun("abcd:efgh")), Some(peer(1)));
        assert_eq!(demux.by_username(&stun("efgh:abcd")), None);
        for length in 0..32 {
            demux.by_username(&stun("abcd:efgh")[..length]);
        }
        demux.unname("abcd");
        assert_eq!(demux.by_username(&stun("abcd:efgh")), None);
    }

    #[test]
    fn an_address_belongs_to_who_proved_it_last_and_each_peer_has_few() {
        let mut demux = Demux::new();
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for port in 0..20 {
            demux.bind(address(port), peer(1), &mut first);
        }
        assert_eq!(first.len(), ADDRESSES_MAX);
        assert_eq!(demux.by_address(address(0)), None);
        demux.bind(address(19), peer(2), &mut second);
        demux.release(address(19), peer(1));
        assert_eq!(demux.by_address(address(19)), Some(peer(2)));
    }

    #[test]
    fn only_whole_records_are_dtls() {
        let record = |length: u8, body: usize| {
            let mut bytes = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, length];
            bytes.resize(13 + body, 0);
            bytes
        };
        assert!(is_dtls(&record(5, 5)));
        assert!(is_dtls(&[record(5, 5), record(1, 1)].concat()));
        assert!(!is_dtls(&record(5, 4)));
        assert!(!is_dtls(&[record(5, 5), vec![22]].concat()));
        assert!(!is_dtls(&[]));
    }

    #[test]
    fn classes_follow_rfc_7983() {
        let datagram = |first, second| {
            let mut bytes = vec![first, second];
            bytes.resize(24, 0);
            bytes
        };
        assert_eq!(Class::of(&datagram(0, 1)), Some(Class::Stun));
        assert_eq!(Class::of(&datagram(22, 254)), Some(Class::Dtls));
        assert_eq!(Class::of(&datagram(128, 111)), Some(Class::Rtp));
        assert_eq!(Class::of(&datagram(129, 201)), Some(Class::Rtcp));
        assert_eq!(Class::of(&datagram(64, 0)), None);
        assert_eq!(Class::of(&[]), None);
    }
}

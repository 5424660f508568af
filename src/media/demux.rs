//! Whose datagram is this? Step 2 of the hot path.
//!
//! STUN is routed by the local half of its user name; everything else by the address it came
//! from and to, and such a pair only counts after a STUN check on it passed the integrity test of
//! that peer. That defeats the DTLS ClientHello race: who hasn't the ICE password is not heard.
//!
//! The user name also says which worker a peer is at, for sockets that several of them share.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::PeerKey;
use super::message::Connection;
use crate::ids::WorkerId;

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

/// Where a datagram was received, and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Ours.
    pub local: SocketAddr,
    /// The client's.
    pub remote: SocketAddr,
}

/// Pairs and user names of all peers of a shard.
#[derive(Debug)]
pub struct Demux {
    /// At most [`PAIRS_MAX`] per peer.
    by_pair: HashMap<Pair, Place>,
    /// One per peer.
    by_ufrag: HashMap<String, Place>,
}

/// Pairs kept per peer: a client checks from each of its interfaces to each of our addresses. Past
/// this the one goes on which no check came for longest; another check brings it back.
pub const PAIRS_MAX: usize = 16;

impl Demux {
    /// Knows nobody.
    #[expect(
        clippy::new_without_default,
        reason = "a demux is made once, on purpose"
    )]
    pub fn new() -> Self {
        Self {
            by_pair: HashMap::new(),
            by_ufrag: HashMap::new(),
        }
    }

    /// The peer that proved to be at the other end of `pair`.
    pub fn by_pair(&self, pair: Pair) -> Option<Place> {
        self.by_pair.get(&pair).copied()
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

    /// `peer` proved to be at the other end of `pair`; `known` is its list of such pairs. What
    /// changed: whether the pair is new, and which one had to go for it, never that `in_use`.
    pub fn bind(
        &mut self,
        pair: Pair,
        peer: Place,
        known: &mut Vec<Pair>,
        in_use: Option<Pair>,
    ) -> (bool, Option<Pair>) {
        let before = self.by_pair.insert(pair, peer);
        known.retain(|known| *known != pair);
        let oldest = known.iter().position(|known| Some(*known) != in_use);
        let oldest = oldest.filter(|_| known.len() == PAIRS_MAX);
        let gone = oldest.map(|at| known.remove(at));
        known.push(pair);
        let gone = gone.filter(|gone| self.release(*gone, peer));
        (before.is_none(), gone)
    }

    /// Forgets `pair`, unless another peer has proved to be there since. Whether it did.
    pub fn release(&mut self, pair: Pair, peer: Place) -> bool {
        let own = self.by_pair.get(&pair) == Some(&peer);
        if own {
            self.by_pair.remove(&pair);
        }
        own
    }
}

/// Letters and digits of a fragment that name the worker.
const WORKER_LETTERS: usize = 2;

const RADIX: u16 = 36;

/// The beginning of every user name fragment of a worker's peers.
pub fn worker_prefix(worker: WorkerId) -> String {
    let digit = |value: u16| char::from_digit(u32::from(value % RADIX), RADIX.into());
    let digits = [worker.0 / RADIX, worker.0].map(digit);
    digits.into_iter().flatten().collect()
}

/// The worker that a STUN request is for, if it looks like one for us at all.
pub fn worker_of(datagram: &[u8]) -> Option<WorkerId> {
    if Class::of(datagram) != Some(Class::Stun) {
        return None;
    }
    let digits = local_ufrag(datagram)?.get(..WORKER_LETTERS)?;
    u16::from_str_radix(digits, RADIX.into()).ok().map(WorkerId)
}

/// The part of USERNAME before the colon: the receiver's fragment (RFC 8445 section 7.2.2).
fn local_ufrag(stun: &[u8]) -> Option<&str> {
    const USERNAME: u16 = 0x0006;
    let username = std::str::from_utf8(attribute(stun, USERNAME)?).ok()?;
    username.split(':').next()
}

/// Whether a check asks for its pair to be used (RFC 8445 section 7.1.2).
pub fn nominates(stun: &[u8]) -> bool {
    const USE_CANDIDATE: u16 = 0x0025;
    attribute(stun, USE_CANDIDATE).is_some()
}

/// The value of an attribute of a Binding request (RFC 8489 section 14). What comes behind
/// MESSAGE-INTEGRITY anybody may have put there, so it isn't looked at.
fn attribute(stun: &[u8], wanted: u16) -> Option<&[u8]> {
    const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
    const MESSAGE_INTEGRITY: u16 = 0x0008;
    if !stun.starts_with(&BINDING_REQUEST) {
        return None;
    }
    let mut attributes = stun.get(20..)?;
    // Each turn takes at least 4 bytes off, so the datagram's size bounds the loop.
    while let [t0, t1, l0, l1, rest @ ..] = attributes {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        match u16::from_be_bytes([*t0, *t1]) {
            MESSAGE_INTEGRITY => return None,
            kind if kind == wanted => return rest.get(..length),
            _ => {}
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
        let mut message = vec![0, 1];
        message.resize(20, 0);
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
        assert!(nominates(&stun("abcd:efgh")));
        let request = stun("abcd:efgh");
        assert!(!nominates(&[&request[..20], &request[24..]].concat()));
        for length in 0..32 {
            demux.by_username(&stun("abcd:efgh")[..length]);
        }
        demux.unname("abcd");
        assert_eq!(demux.by_username(&stun("abcd:efgh")), None);
    }

    #[test]
    fn only_what_integrity_covers_of_a_request_is_read() {
        let (integrity, request) = ([&[0, 8, 0, 20][..], &[7; 20]].concat(), stun("abcd:efgh"));
        let covered = [&request[..], &integrity].concat();
        assert!(nominates(&covered) && local_ufrag(&covered).is_some());
        let appended = [&request[..20], &integrity, &request[20..]].concat();
        assert!(!nominates(&appended) && local_ufrag(&appended).is_none());
        // Indication, success, error, and another method.
        for kind in [[0x00, 0x11], [0x01, 0x01], [0x01, 0x11], [0x00, 0x03]] {
            let other = [&kind[..], &request[2..]].concat();
            assert!(!nominates(&other) && local_ufrag(&other).is_none());
        }
    }

    #[test]
    fn what_is_checked_or_in_use_is_kept() {
        let mut demux = Demux::new();
        let pair = |port: u16| Pair {
            local: SocketAddr::from(([127, 0, 0, 1], 7882)),
            remote: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let mut known = Vec::new();
        for port in 0..PAIRS_MAX as u16 {
            demux.bind(pair(port), peer(1), &mut known, None);
        }
        assert_eq!(
            demux.bind(pair(0), peer(1), &mut known, None),
            (false, None)
        );
        let gone = |demux: &mut Demux, known: &mut Vec<Pair>, port| {
            demux.bind(pair(port), peer(1), known, Some(pair(1))).1
        };
        assert_eq!(gone(&mut demux, &mut known, 20), Some(pair(2)));
        assert_eq!(gone(&mut demux, &mut known, 21), Some(pair(3)));
        assert_eq!(known.len(), PAIRS_MAX);
        assert_eq!(demux.by_pair(pair(1)), Some(peer(1)));
        assert_eq!(demux.by_pair(pair(0)), Some(peer(1)));
    }

    #[test]
    fn a_pair_belongs_to_who_proved_it_last_and_each_peer_has_few() {
        let mut demux = Demux::new();
        let pair = |port: u16| Pair {
            local: SocketAddr::from(([127, 0, 0, 1], 7882)),
            remote: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for port in 0..20 {
            let gone = usize::from(port)
                .checked_sub(PAIRS_MAX)
                .map(|it| pair(it as u16));
            assert_eq!(
                demux.bind(pair(port), peer(1), &mut first, None),
                (true, gone)
            );
        }
        assert_eq!(
            demux.bind(pair(19), peer(1), &mut first, None),
            (false, None)
        );
        assert_eq!(first.len(), PAIRS_MAX);
        assert_eq!(demux.by_pair(pair(0)), None);
        assert_eq!(
            demux.bind(pair(19), peer(2), &mut second, None),
            (false, None)
        );
        assert!(!demux.release(pair(19), peer(1)));
        assert_eq!(demux.by_pair(pair(19)), Some(peer(2)));
        assert!(demux.release(pair(19), peer(2)));
        let elsewhere = Pair {
            local: SocketAddr::from(([127, 0, 0, 2], 7882)),
            ..pair(18)
        };
        assert_eq!(demux.by_pair(pair(18)), Some(peer(1)));
        assert_eq!(
            demux.by_pair(elsewhere),
            None,
            "the same client, another path"
        );
    }

    #[test]
    fn a_fragment_names_its_worker() {
        for worker in [0, 1, 35, 36, 1023] {
            let prefix = worker_prefix(WorkerId(worker));
            assert_eq!(prefix.len(), WORKER_LETTERS);
            let request = stun(&format!("{prefix}abcd:efgh"));
            assert_eq!(worker_of(&request), Some(WorkerId(worker)));
        }
        assert_eq!(worker_of(&stun("0:abcd")), None);
        assert_eq!(worker_of(&stun("+/abcd:abcd")), None);
        assert_eq!(worker_of(&[128; 40]), None);
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

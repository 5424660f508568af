//! A bad network between a participant and its socket. Datagrams are held here until the network,
//! which is one of the simulator's, would have delivered them; those that it loses are let go.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use super::impairment::Impairment;
use crate::sim::network::{Element, Path};

/// Datagrams under way in one direction: what a path of 50 Mbit/s has on it in two seconds. More
/// are lost, as on any network that is overrun.
const HELD_MAX: usize = 10_000;

/// Both directions.
pub struct Link {
    /// From the participant to the server.
    pub up: Way,
    /// From the server to the participant.
    pub down: Way,
}

/// One direction.
pub struct Way {
    path: Path,
    /// In the order of their arrival, as no element of ours lets one overtake another.
    held: VecDeque<Held>,
}

/// A datagram under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When it arrives.
    pub at: Instant,
    /// Where it goes, or where it comes from.
    pub peer: SocketAddr,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl Link {
    /// A network with nothing on it; `seed` decides what happens to each datagram.
    pub fn new(impairment: &Impairment, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            up: Way::new(&impairment.up(), random.fork()),
            down: Way::new(&impairment.down(), random.fork()),
        }
    }
}

impl Way {
    fn new(elements: &[Element], random: fastrand::Rng) -> Self {
        Self {
            path: Path::new(elements, random),
            held: VecDeque::new(),
        }
    }

    /// Takes in a datagram that is sent now. Whether it will arrive.
    pub fn put(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) -> bool {
        let at = self.path.carry(now, bytes.len());
        let at = at.filter(|_| self.held.len() < HELD_MAX);
        let Some(at) = at else {
            return false;
        };
        let bytes = bytes.to_vec();
        self.held.push_back(Held { at, peer, bytes });
        true
    }

    /// The next datagram that has arrived by now.
    pub fn take(&mut self, now: Instant) -> Option<Held> {
        self.held.front().filter(|held| held.at <= now)?;
        self.held.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

    fn link(text: &str, seed: u64) -> Link {
        Link::new(&text.parse().expect("an impairment"), seed)
    }

    /// Sends `count` datagrams of 1222 bytes, one each `gap`. When each arrives after the first was
    /// sent, and its number.
    fn arrivals(way: &mut Way, count: u32, gap: Duration) -> Vec<(Duration, u32)> {
        let start = Instant::now();
        let mut found = Vec::new();
        let mut look = |way: &mut Way, now| {
            while let Some(held) = way.take(now) {
                assert!(held.at <= now && held.peer == PEER);
                let number = u32::from_be_bytes(held.bytes[..4].try_into().expect("four bytes"));
                found.push((held.at - start, number));
            }
        };
        for number in 0..count {
            let now = start + gap * number;
            look(way, now);
            let mut bytes = vec![0; 1222];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            way.put(now, PEER, &bytes);
        }
        look(way, start + gap * count + Duration::from_secs(10));
        found
    }

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn delay_is_exact_and_jitter_keeps_the_order() {
        let mut way = link("1%:delay=40", 1).down;
        let all = arrivals(&mut way, 5, MILLI);
        assert_eq!(
            all,
            (0..5).map(|at| (MILLI * (40 + at), at)).collect::<Vec<_>>()
        );
        let mut way = link("1%:delay=40,jitter=10", 1).up;
        let all = arrivals(&mut way, 1000, MILLI);
        assert_eq!(all.len(), 1000);
        assert!(all.is_sorted());
        let extra = all.iter().map(|(at, sent)| *at - MILLI * (40 + sent));
        let (least, most) = (extra.clone().min(), extra.max());
        assert!(
            least < Some(MILLI * 3) && most > Some(MILLI * 8),
            "{least:?} {most:?}"
        );
        assert!(most <= Some(MILLI * 10), "{most:?}");
    }

    #[test]
    fn nothing_comes_before_its_time() {
        let mut way = link("1%:delay=40", 1).down;
        let now = Instant::now();
        assert!(way.put(now, PEER, b"a"));
        assert_eq!(way.take(now + MILLI * 39), None);
        assert_eq!(way.take(now + MILLI * 40).expect("it").bytes, b"a");
        assert_eq!(way.take(now + MILLI * 99), None);
    }

    #[test]
    fn loss_is_as_much_as_asked_each_way_and_the_same_for_a_seed() {
        let came = |seed, down| {
            let link = link("1%:loss=10", seed);
            let mut way = if down { link.down } else { link.up };
            let all = arrivals(&mut way, 10_000, MILLI);
            all.into_iter()
                .map(|(_, number)| number)
                .collect::<Vec<_>>()
        };
        for down in [false, true] {
            let count = came(7, down).len();
            assert!((8850..9150).contains(&count), "{count}");
        }
        assert_eq!(came(7, true), came(7, true));
        assert_ne!(came(7, true), came(8, true));
        assert_ne!(came(7, true), came(7, false));
    }

    #[test]
    fn a_bottleneck_passes_its_rate_and_drops_what_its_queue_has_no_room_for() {
        // 1250 bytes on the wire each millisecond are 10 Mbit/s.
        let mut link = link("1%:rate=5M", 1);
        let all = arrivals(&mut link.down, 2000, MILLI);
        // Half of the 2000, and what was in the queue of 300 ms in the end.
        assert!((1140..1160).contains(&all.len()), "{}", all.len());
        assert!(
            all.windows(2)
                .all(|pair| pair[1].0 - pair[0].0 >= MILLI * 2)
        );
        let waits = all.iter().map(|(at, sent)| *at - MILLI * *sent);
        let longest = waits.max().expect("some");
        assert!((298..=302).contains(&longest.as_millis()), "{longest:?}");
        assert_eq!(arrivals(&mut link.up, 2000, MILLI).len(), 2000);
    }

    #[test]
    fn what_is_under_way_has_a_bound() {
        let mut way = link("1%:delay=2000", 1).down;
        let now = Instant::now();
        let taken = (0..HELD_MAX + 5).filter(|_| way.put(now, PEER, b"a"));
        assert_eq!(taken.count(), HELD_MAX);
    }
}

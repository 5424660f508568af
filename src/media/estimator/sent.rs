//! What a leg sent, until the receiver told about it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Sent packets in the order of their transport-wide numbers.
#[derive(Debug)]
pub struct Register {
    packets: VecDeque<Sent>,
    /// The number of the last one.
    newest: u64,
    /// When it was sent, in microseconds from the start.
    newest_micros: u64,
    start: Instant,
}

/// Eight bytes: a busy leg has thousands, in memory that is touched for every packet.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Lower bits of the microseconds from the start; none is older than [`Register::AGE_MAX`].
    micros: u32,
    /// Lower bits of the number: there are less than 2^16 at a time.
    seq: u16,
    /// Length in the lower 14 bits, state in the others.
    bytes_and_state: u16,
}

const STATE_SHIFT: u32 = 14;

impl Sent {
    fn new(micros: u64, seq: u64, bytes: usize) -> Self {
        let bytes = bytes.min((1 << STATE_SHIFT) - 1) as u16;
        Self {
            micros: micros as u32,
            seq: seq as u16,
            bytes_and_state: bytes | (State::InFlight as u16) << STATE_SHIFT,
        }
    }

    fn bytes(self) -> u64 {
        u64::from(self.bytes_and_state & ((1 << STATE_SHIFT) - 1))
    }

    fn state(self) -> State {
        match self.bytes_and_state >> STATE_SHIFT {
            0 => State::InFlight,
            1 => State::Lost,
            _ => State::Arrived,
        }
    }

    fn set(&mut self, state: State) {
        self.bytes_and_state = self.bytes() as u16 | (state as u16) << STATE_SHIFT;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Lost,
    Arrived,
}

/// What a receiver's word about a packet means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing: never sent, forgotten, or told before.
    None,
    /// It is missing.
    Lost,
    /// It arrived.
    Arrived {
        /// When it was sent.
        sent: Instant,
        /// How long it is.
        bytes: u64,
        /// It was told missing before.
        late: bool,
    },
}

impl Register {
    /// Most packets remembered; when it is full the oldest is forgotten, and what is told of it
    /// later is ignored. Enough for 20 Mbit/s over two seconds; 5 s of what is usual.
    pub const PACKETS_MAX: usize = 4096;

    /// Packets are remembered this long: feedback comes after a round trip and 250 ms.
    const AGE_MAX: Duration = Duration::from_secs(5);

    /// An empty one.
    pub fn new(now: Instant) -> Self {
        Self {
            packets: VecDeque::new(),
            newest: 0,
            newest_micros: 0,
            start: now,
        }
    }

    /// Remembers a packet; ignored unless its number is above the last one.
    pub fn push(&mut self, seq: u64, bytes: usize, now: Instant) {
        if !self.packets.is_empty() && self.newest >= seq {
            return;
        }
        self.newest = seq;
        let micros = self.micros(now) as u64;
        let passed = micros.saturating_sub(self.newest_micros);
        self.newest_micros = self.newest_micros.max(micros);
        if passed > Self::AGE_MAX.as_micros() as u64 {
            self.packets.clear();
        }
        let full = self.packets.len() == Self::PACKETS_MAX;
        // At most two go per packet that comes, so this needs no loop.
        for room in [full, false] {
            let age = |first: &Sent| (self.newest_micros as u32).wrapping_sub(first.micros);
            let old = |first: &Sent| u128::from(age(first)) > Self::AGE_MAX.as_micros();
            if room || self.packets.front().is_some_and(old) {
                self.packets.pop_front();
            }
        }
        self.packets.push_back(Sent::new(micros, seq, bytes));
    }

    /// Takes in what was told of the packet whose number ends in these 16 bits.
    pub fn tell(&mut self, seq: u16, arrived: bool) -> News {
        let (start, newest) = (self.start, self.newest_micros);
        let Some(packet) = self.find(seq) else {
            return News::None;
        };
        let before = packet.state();
        match (before, arrived) {
            (State::InFlight, false) => {
                packet.set(State::Lost);
                News::Lost
            }
            (State::InFlight | State::Lost, true) => {
                packet.set(State::Arrived);
                let age = (newest as u32).wrapping_sub(packet.micros);
                News::Arrived {
                    sent: start + Duration::from_micros(newest.saturating_sub(age.into())),
                    bytes: packet.bytes(),
                    late: before == State::Lost,
                }
            }
            (State::Lost | State::Arrived, _) => News::None,
        }
    }

    /// Microseconds from the start to `at`.
    pub fn micros(&self, at: Instant) -> i64 {
        at.saturating_duration_since(self.start).as_micros() as i64
    }

    /// The last packet sent with this number: one ahead of the newest can't have been sent, and
    /// so stands for one 65536 before.
    fn find(&mut self, seq: u16) -> Option<&mut Sent> {
        let back = usize::from((self.newest as u16).wrapping_sub(seq));
        self.newest.checked_sub(back as u64)?;
        // Mostly without a gap in the numbers: then the place is known.
        let last = self.packets.len().checked_sub(1)?;
        let place = last.checked_sub(back);
        if let Some(at) = place.filter(|at| self.packets[*at].seq == seq) {
            return self.packets.get_mut(at);
        }
        let newest = self.newest as u16;
        let distance = |packet: &Sent| std::cmp::Reverse(newest.wrapping_sub(packet.seq));
        let wanted = std::cmp::Reverse(newest.wrapping_sub(seq));
        let at = self.packets.binary_search_by_key(&wanted, distance);
        self.packets.get_mut(at.ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_told_once_and_may_still_arrive_late() {
        let now = Instant::now();
        let mut register = Register::new(now);
        for seq in 65_530..65_540 {
            register.push(seq, 100, now);
        }
        assert_eq!(register.tell(65_535, false), News::Lost);
        assert_eq!(register.tell(65_535, false), News::None);
        let arrived = |late| News::Arrived {
            sent: now,
            bytes: 100,
            late,
        };
        assert_eq!(register.tell(65_535, true), arrived(true));
        assert_eq!(register.tell(65_535, true), News::None);
        assert_eq!(register.tell(3, true), arrived(false), "after the rollover");
        assert_eq!(register.tell(4, true), News::None, "never sent");
        assert_eq!(register.tell(65_529, true), News::None, "before the first");
    }

    #[test]
    fn it_stays_bounded_and_forgets_what_is_old() {
        let start = Instant::now();
        let mut register = Register::new(start);
        for seq in 0..10_000 {
            register.push(seq, 100, start);
        }
        assert_eq!(register.packets.len(), Register::PACKETS_MAX);
        assert_eq!(register.tell(0, true), News::None);
        for seq in 10_000..15_000 {
            register.push(seq, 100, start + Duration::from_secs(6));
        }
        assert!(register.packets.iter().all(|packet| packet.seq >= 10_000));
        register.push(3, 100, start);
        assert_eq!(register.packets.back().unwrap().seq, 14_999);
    }

    #[test]
    fn times_are_told_after_hours_and_lengths_beside_states() {
        let start = Instant::now();
        let mut register = Register::new(start);
        for (seq, seconds) in [(1, 4_294), (2, 4_298), (3, 9_000), (4, 9_003)] {
            let sent = start + Duration::from_secs(seconds);
            register.push(seq, 1 << (seq * 4), sent);
            let news = register.tell(seq as u16, false);
            assert_eq!(news, News::Lost);
            let News::Arrived {
                sent: at,
                bytes,
                late,
            } = register.tell(seq as u16, true)
            else {
                panic!("{seq} did not arrive");
            };
            assert_eq!((at, late), (sent, true));
            assert_eq!(bytes, (1 << (seq * 4)).min((1 << STATE_SHIFT) - 1));
        }
        assert_eq!(register.packets.len(), 2);
    }
}

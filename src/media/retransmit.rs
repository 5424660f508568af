//! What is kept to answer NACKs, and how much of it a subscriber may have.
//!
//! One [`Ring`] per source stream serves all its subscribers: payloads are shared with the fan-out,
//! and what differs per subscriber is rebuilt from the [`Sent`](super::rewrite::Sent) of its
//! rewrite. The [`Budget`] belongs to a leg. It keeps a subscriber that asks for everything, again
//! and again, from turning a small upload into a large download.

use std::time::{Duration, Instant};

use super::order::{Order, Place};
use super::packet::Packet;

/// Packets kept of a video stream: 1 s at 5 Mbit/s. The oldest one goes when it is full.
const VIDEO_PACKETS: usize = 512;

/// Older packets are not sent again. Browsers ask about ten times, a round trip or 100 ms apart;
/// by then a video frame has long been given up for a key frame.
const AGE_MAX: Duration = Duration::from_secs(1);

/// The newest packets of one source stream, by sequence number.
#[derive(Debug)]
pub struct Ring {
    slots: Box<[Option<Packet>]>,
    order: Option<Order>,
    /// No slot before this number is filled.
    oldest: u64,
}

impl Ring {
    /// For one layer of a video track.
    pub fn video() -> Self {
        Self::new(VIDEO_PACKETS)
    }

    fn new(packets: usize) -> Self {
        Self {
            slots: vec![None; packets].into_boxed_slice(),
            order: None,
            oldest: u64::MAX,
        }
    }

    /// Keeps a packet. The first of two with one number stays: what was sent once under a number
    /// must be what is sent again.
    pub fn push(&mut self, packet: Packet) {
        self.expire(packet.arrival);
        let seq = packet.seq;
        let order = self.order.get_or_insert(Order::new(seq));
        let place = order.place(seq);
        // The oldest number that still has a slot beside the newest.
        let window = order.newest().saturating_sub(self.slots.len() as u64 - 1);
        match place {
            Place::Stray => return,
            Place::Late if seq < window => return,
            Place::Late => self.oldest = self.oldest.min(seq),
            Place::Next { .. } => self.oldest = self.oldest.max(window),
            Place::Restart => {
                self.slots.fill(None);
                self.oldest = seq;
            }
        }
        let index = self.index(seq);
        let slot = &mut self.slots[index];
        if slot.as_ref().is_none_or(|kept| kept.seq != seq) {
            *slot = Some(packet);
        }
    }

    /// The packet of a sequence number, if it is still worth sending.
    pub fn get(&self, seq: u64, now: Instant) -> Option<&Packet> {
        let packet = self.slots[self.index(seq)].as_ref()?;
        let age = now.saturating_duration_since(packet.arrival);
        (packet.seq == seq && age <= AGE_MAX).then_some(packet)
    }

    /// Lets go of what is too old. Pushing does it too; this is for streams that fall silent.
    pub fn expire(&mut self, now: Instant) {
        let Some(order) = self.order else {
            return;
        };
        // At most as many steps as there are slots.
        while self.oldest <= order.newest() {
            let index = self.index(self.oldest);
            let slot = &mut self.slots[index];
            let kept = slot.as_ref().filter(|packet| packet.seq == self.oldest);
            if kept.is_some_and(|kept| now.saturating_duration_since(kept.arrival) <= AGE_MAX) {
                return;
            }
            *slot = None;
            self.oldest += 1;
        }
    }

    fn index(&self, seq: u64) -> usize {
        (seq % self.slots.len() as u64) as usize
    }
}

/// Bounds what one leg may send again.
#[derive(Debug)]
pub struct Budget {
    /// The window that runs, and the one before.
    windows: [Window; 2],
    since: Instant,
    /// Made when the first is asked for: most never ask.
    repeats: Box<[Option<Repeat>]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    fresh: u64,
    again: u64,
}

#[derive(Debug, Clone, Copy)]
struct Repeat {
    stream: u32,
    seq: u64,
    since: Instant,
    times: u8,
}

/// Length of a window; two of them are looked at, so a share is that of 0.5 to 1 s.
const WINDOW: Duration = Duration::from_millis(500);

/// A leg may send again two bytes for so many fresh ones: 40 %. A loss of 20 % takes 25 %, lost
/// repairs included, and more while the rate falls. Above that, less must be sent, not more.
const FRESH_PER_TWO_AGAIN: u64 = 5;

/// Granted in any case, or the few packets of a quiet leg could never be repaired.
const FLOOR_BYTES: u64 = 6_000;

/// How often a packet may be sent again within [`REPEAT_SPAN`]. Chromium asks about once per round
/// trip; more often helps only an attacker.
const REPEAT_MAX: u8 = 4;
const REPEAT_SPAN: Duration = Duration::from_millis(500);

/// Packets whose repeats are counted, by a hash. On a clash the newer one replaces the older, which
/// then counts from zero; the share still bounds it.
const REPEATS: usize = 256;

impl Budget {
    /// A budget without any history.
    pub fn new(now: Instant) -> Self {
        Self {
            windows: Default::default(),
            since: now,
            repeats: Box::default(),
        }
    }

    /// Notes media that is sent for the first time.
    pub fn fresh(&mut self, now: Instant, bytes: usize) {
        self.turn(now);
        self.windows[0].fresh += bytes as u64;
    }

    /// Whether a packet may be sent again; counts it if so. `stream` is the outgoing SSRC.
    pub fn request(&mut self, now: Instant, stream: u32, seq: u64, bytes: usize) -> bool {
        self.turn(now);
        let [running, before] = self.windows;
        let share = (running.fresh + before.fresh) * 2 / FRESH_PER_TWO_AGAIN;
        let again = running.again + before.again + bytes as u64;
        if self.repeats.is_empty() {
            self.repeats = vec![None; REPEATS].into();
        }
        let slot = &mut self.repeats[(u64::from(stream) ^ seq) as usize % REPEATS];
        let known = slot.filter(|repeat| {
            let span = now.saturating_duration_since(repeat.since);
            (repeat.stream, repeat.seq) == (stream, seq) && span < REPEAT_SPAN
        });
        let repeat = known.unwrap_or(Repeat {
            stream,
            seq,
            since: now,
            times: 0,
        });
        if repeat.times >= REPEAT_MAX {
            return false;
        }
        if again > share.max(FLOOR_BYTES) {
            return false;
        }
        *slot = Some(Repeat {
            times: repeat.times + 1,
            ..repeat
        });
        self.windows[0].again += bytes as u64;
        true
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < WINDOW {
            return;
        }
        let before = if passed < 2 * WINDOW {
            self.windows[0]
        } else {
            Window::default()
        };
        self.windows = [Window::default(), before];
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::codec::{Codec, Format, Frame};
    use crate::media::packet::Layer;

    fn packet(seq: u64, arrival: Instant) -> Packet {
        Packet {
            audio_level: None,
            layer: Layer(0),
            seq,
            timestamp: seq as u32,
            marker: true,
            arrival,
            payload: vec![seq as u8; 3].into(),
            format: Format::Plain(Codec::Vp8),
            frame: Frame::default(),
            vp8: None,
            dependency: None,
        }
    }

    #[test]
    fn a_ring_keeps_the_newest_of_any_order() {
        let start = Instant::now();
        let mut ring = Ring::new(8);
        for seq in [10, 12, 11, 17, 9] {
            ring.push(packet(seq, start));
        }
        let found = |ring: &Ring| {
            (0..60)
                .filter(|&seq| ring.get(seq, start).is_some())
                .collect::<Vec<_>>()
        };
        // 17 leaves room from 10 on, so 9 is too old.
        assert_eq!(found(&ring), [10, 11, 12, 17]);
        ring.push(packet(19, start));
        // 11 lost its place to 19; 10 keeps its own until 18 comes.
        assert_eq!(found(&ring), [10, 12, 17, 19]);
        ring.push(packet(18, start));
        assert_eq!(found(&ring), [12, 17, 18, 19]);
        ring.push(packet(50, start));
        assert_eq!(found(&ring), [12, 17, 19, 50]);
        // A source that starts anew leaves nothing behind that could be taken for its own.
        ring.push(packet(9000, start));
        for seq in [42, 43, 44] {
            ring.push(packet(seq, start));
        }
        assert_eq!(found(&ring), [43, 44]);
    }

    #[test]
    fn the_first_packet_of_a_number_stays() {
        let start = Instant::now();
        let mut ring = Ring::new(64);
        ring.push(packet(5, start));
        ring.push(Packet {
            timestamp: 99,
            ..packet(5, start)
        });
        assert_eq!(ring.get(5, start).map(|packet| packet.timestamp), Some(5));
    }

    #[test]
    fn old_packets_are_let_go() {
        let start = Instant::now();
        let mut ring = Ring::video();
        let payload = packet(1, start).payload;
        ring.push(Packet {
            payload: payload.clone(),
            ..packet(1, start)
        });
        ring.push(packet(2, start + AGE_MAX));
        assert!(ring.get(1, start + AGE_MAX).is_some());
        let later = start + AGE_MAX + Duration::from_millis(1);
        assert!(ring.get(1, later).is_none());
        ring.expire(later);
        assert_eq!(std::sync::Arc::strong_count(&payload), 1);
        assert!(ring.get(2, later).is_some());
        ring.expire(later + AGE_MAX);
        assert!(ring.slots.iter().all(Option::is_none));
    }

    #[test]
    fn a_packet_is_repeated_only_so_often() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        budget.fresh(start, 1_000_000);
        for _ in 0..REPEAT_MAX {
            assert!(budget.request(start, 7, 40, 1200));
        }
        assert!(!budget.request(start, 7, 40, 1200));
        assert!(budget.request(start, 7, 41, 1200));
        assert!(budget.request(start + REPEAT_SPAN, 7, 40, 1200));
    }

    /// A subscriber asks for everything, all the time; it gets two fifths more than it is sent.
    #[test]
    fn a_leg_repeats_at_most_two_fifths() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let (mut fresh, mut again) = (0u64, 0u64);
        for seq in 0..10_000u64 {
            let now = start + Duration::from_millis(4 * seq);
            budget.fresh(now, 1000);
            fresh += 1000;
            for old in seq.saturating_sub(20)..seq {
                if budget.request(now, 1, old, 1000) {
                    again += 1000;
                }
            }
        }
        assert!(again * 100 / fresh <= 42, "{again} of {fresh}");
        assert!(again * 100 / fresh >= 35, "{again} of {fresh}");
        let idle = start + Duration::from_secs(3600);
        let granted = (0..100).filter(|&seq| budget.request(idle, 1, seq, 1000));
        assert_eq!(granted.count() as u64, FLOOR_BYTES / 1000);
    }
}

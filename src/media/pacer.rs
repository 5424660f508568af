//! When packets of video leave. Small bursts leave at once; what is more than a link takes in a
//! moment, a key frame above all, waits here rather than in a queue on the way, where it would be
//! lost or hold up the sound.
//!
//! Sound never waits. What is repeated doesn't either, but counts. Padding goes only when nothing
//! waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::layers::Pressure;
use super::packet::Packet;
use super::rewrite::Stamp;
use crate::units::Bitrate;

/// A packet that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The slot of its subscription, and the SSRC it has: the slot may be another's by then.
    pub subscription: (u32, u32),
    /// What it is.
    pub packet: Packet,
    /// The numbers it leaves with.
    pub stamp: Stamp,
    /// Under which payload type.
    pub payload_type: u8,
    /// What it takes on the wire, about.
    bytes: usize,
}

/// The pacer of a leg.
#[derive(Debug)]
pub struct Pacer {
    queue: VecDeque<Waiting>,
    bytes: u64,
    /// When all that has left would be through, at [`PACE`].
    busy: Instant,
    /// What a byte takes, in picoseconds: every packet is multiplied by it.
    byte: u64,
}

/// It sends so many times faster than the link is thought to carry: what waits has to get out, and
/// an estimate is no limit to a burst.
const PACE: f64 = 1.5;

/// This much leaves at once: frames of up to twice the usual size do.
const BURST: Duration = Duration::from_millis(40);

/// When more waits, the picture that is on its way is the last, until there is room for a key
/// frame.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// When so much waits, frames that others don't refer to are left out.
const WAIT_LONG: Duration = Duration::from_millis(120);

/// Packets that wait at most. Layers end long before, with the picture that is on its way.
const PACKETS_MAX: usize = 2048;

/// What a packet takes beside its payload, about.
const OVERHEAD: usize = 64;

impl Pacer {
    /// Nothing waits.
    pub fn new(now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            busy: now,
            byte: 0,
        }
    }

    /// The link is thought to carry so much.
    pub fn set_rate(&mut self, estimate: Bitrate) {
        self.byte = 8_000_000_000_000 / estimate.scale(PACE).as_bps().max(1);
    }

    /// Whether a packet may leave now; counts it if so.
    pub fn pass(&mut self, now: Instant, bytes: usize) -> bool {
        let free = self.queue.is_empty() && self.busy <= now + BURST;
        if free {
            self.note(now, bytes);
        }
        free
    }

    /// A packet left that doesn't wait.
    pub fn note(&mut self, now: Instant, bytes: usize) {
        // What doesn't wait may be more than the pace for long. Video gets its turn all the same.
        let busy = self.busy.max(now) + self.takes((bytes + OVERHEAD) as u64);
        self.busy = busy.min(now + WAIT_MAX);
    }

    /// A packet waits; whether there is room for it.
    pub fn push(
        &mut self,
        subscription: (u32, u32),
        packet: Packet,
        stamp: Stamp,
        payload_type: u8,
    ) -> bool {
        if self.queue.len() >= PACKETS_MAX {
            return false;
        }
        let bytes = packet.payload.len() + OVERHEAD;
        self.bytes += bytes as u64;
        self.queue.push_back(Waiting {
            subscription,
            packet,
            stamp,
            payload_type,
            bytes,
        });
        true
    }

    /// The next packet that may leave.
    pub fn pop(&mut self, now: Instant) -> Option<Waiting> {
        if self.busy > now + BURST {
            return None;
        }
        let waiting = self.queue.pop_front()?;
        self.bytes -= waiting.bytes as u64;
        self.note(now, waiting.bytes - OVERHEAD);
        Some(waiting)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How long what waits will take.
    pub fn wait(&self) -> Duration {
        self.takes(self.bytes)
    }

    fn takes(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes.saturating_mul(self.byte) / 1000)
    }

    /// The same, as layers are chosen by it.
    pub fn pressure(&self) -> Pressure {
        if self.queue.is_empty() {
            return Pressure::None;
        }
        match self.wait() {
            wait if wait > WAIT_MAX => Pressure::Full,
            wait if wait > WAIT_LONG => Pressure::Long,
            _ => Pressure::None,
        }
    }

    /// When the next packet may leave; none if none waits.
    pub fn next(&self) -> Option<Instant> {
        let at = self.busy.checked_sub(BURST);
        at.filter(|_| !self.queue.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rewrite::{Alignment, Rewrite};
    use crate::media::tests::source::{Kind, Random, Source, Ticks};

    #[test]
    fn a_frame_leaves_at_once_and_a_key_frame_in_time() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        pacer.set_rate(Bitrate::kbps(1000));
        // 40 ms at 1.5 Mbit/s are 7500 bytes.
        let passed = (0..20).filter(|_| pacer.pass(start, 1000)).count();
        assert_eq!(passed, 8);
        let mut source = Source::random(0, &mut Random::seeded(1));
        let mut frame = source.frame(Ticks::of(start, 0), Kind::Key, 1);
        let mut packet = frame.remove(0);
        packet.payload = [0; 1000].into();
        let stamp = Rewrite::video(1, 1).switch(&packet, Alignment::Elapsed);
        for _ in 0..12 {
            assert!(pacer.push((0, 7), packet.clone(), stamp, 96));
        }
        assert!(!pacer.pass(start, 10), "nothing overtakes what waits");
        let mut left = Vec::new();
        let mut now = start;
        while let Some(next) = pacer.next() {
            now = now.max(next);
            while let Some(waiting) = pacer.pop(now) {
                left.push((now - start, waiting.packet.payload.len()));
            }
        }
        assert_eq!(left.len(), 12);
        assert!(pacer.is_empty() && pacer.wait() == Duration::ZERO);
        let bytes: usize = left.iter().map(|(_, bytes)| bytes + OVERHEAD).sum();
        let took = Bitrate::kbps(1500).time_for(bytes as u64);
        let last = left.last().expect("twelve").0;
        assert!(
            last <= took + Duration::from_millis(10),
            "{last:?} {took:?}"
        );
    }
}

//! Sound said again: on a leg that loses packets each packet of sound carries the one or two before
//! it along (RFC 2198), so that a loss is mended without a round trip.
//!
//! ```text
//!  of each repetition   |1|  type  |  timestamp offset (14)  |  length (10)  |
//!  of the newest frame  |0|  type  |
//!  repetitions, oldest first; the newest frame
//! ```
//!
//! Only for clients that read it, and sound that isn't encrypted end to end: what stands in a
//! packet then is the frame's own, and a client would decrypt a packet of several as one.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Repetitions in a packet.
pub const LEVEL_MAX: usize = 2;

/// Above this share of loss the last packet is said again, and above that the last two.
const LOSS: [f64; LEVEL_MAX] = [0.005, 0.08];

/// Less is repeated only after the loss was that of less for so long.
const STAYS: Duration = Duration::from_secs(10);

/// Bytes of a repetition: ten bits of length.
const REPETITION_BYTES_MAX: usize = 1023;

/// Its distance in the sound's clock: fourteen bits.
const DISTANCE_MAX: u32 = (1 << 14) - 1;

/// Bytes of all frames of a packet that repeats some: it stays one.
const REPEATED_BYTES_MAX: usize = 1000;

/// How much a leg repeats.
#[derive(Debug, Default)]
pub struct Redundancy {
    level: usize,
    /// Since when less would do.
    less: Option<Instant>,
}

impl Redundancy {
    /// Takes in what share of packets gets lost.
    pub fn follow(&mut self, now: Instant, loss: f64) -> usize {
        let wanted = LOSS.iter().filter(|least| loss > **least).count();
        if wanted >= self.level {
            self.level = wanted;
            self.less = None;
        } else {
            let since = *self.less.get_or_insert(now);
            if now.saturating_duration_since(since) >= STAYS {
                self.level -= 1;
                self.less = None;
            }
        }
        self.level
    }
}

/// A frame that was sent.
#[derive(Debug, Clone)]
struct Spoken {
    payload: Arc<[u8]>,
    /// Where in the payload it is.
    frame: Range<usize>,
    timestamp: u32,
}

/// The last frames of a stream.
#[derive(Debug, Default)]
pub struct History {
    last: [Option<Spoken>; LEVEL_MAX],
}

impl History {
    /// Writes what stands before the newest frame: headers, and up to `level` frames from before.
    /// `payload_type` is that of each frame. The newest one is remembered.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        level: usize,
        payload_type: u8,
        newest: (&Arc<[u8]>, Range<usize>, u32),
    ) {
        let (payload, frame, timestamp) = newest;
        out.clear();
        let mut room = REPEATED_BYTES_MAX.saturating_sub(frame.len());
        let fits = |spoken: &&Spoken| {
            let bytes = spoken.frame.len();
            let distance = timestamp.wrapping_sub(spoken.timestamp);
            let fits = (1..=DISTANCE_MAX).contains(&distance)
                && (1..=REPETITION_BYTES_MAX.min(room)).contains(&bytes);
            room -= if fits { bytes } else { 0 };
            fits
        };
        // The newest of them goes before older ones where not all fit.
        let mut repeated: [Option<&Spoken>; LEVEL_MAX] = Default::default();
        let known = self.last.iter().take(level).flatten().filter(fits);
        for (place, spoken) in repeated.iter_mut().zip(known) {
            *place = Some(spoken);
        }
        let oldest_first = || repeated.iter().rev().flatten();
        for spoken in oldest_first() {
            let distance = timestamp.wrapping_sub(spoken.timestamp);
            let bits = distance << 10 | spoken.frame.len() as u32;
            out.push(0x80 | payload_type);
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
        }
        out.push(payload_type & 0x7f);
        for spoken in oldest_first() {
            out.extend_from_slice(spoken.payload.get(spoken.frame.clone()).unwrap_or_default());
        }
        self.last.rotate_right(1);
        self.last[0] = Some(Spoken {
            payload: Arc::clone(payload),
            frame,
            timestamp,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::codec::red;

    fn said(history: &mut History, level: usize, number: u8, timestamp: u32) -> Vec<u8> {
        let payload: Arc<[u8]> = vec![number; 3 + usize::from(number)].into();
        let frame = 0..payload.len();
        let mut out = Vec::new();
        history.write(&mut out, level, 111, (&payload, frame, timestamp));
        out.extend_from_slice(&payload);
        out
    }

    #[test]
    fn a_packet_carries_those_before_it_along() {
        let mut history = History::default();
        assert_eq!(said(&mut history, 2, 0, 0), [111, 0, 0, 0]);
        let second = said(&mut history, 2, 1, 960);
        let header = [0x80 | 111, 0x0f, 0x00, 0x03, 111];
        assert_eq!(second[..5], header);
        assert_eq!(second[5..], [0, 0, 0, 1, 1, 1, 1]);
        let third = said(&mut history, 2, 2, 1920);
        assert_eq!(third[9..], [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert_eq!(red::newest(&third), Some(16..21));
        let fourth = said(&mut history, 1, 3, 2880);
        assert_eq!(fourth[5..], [2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn what_is_too_old_or_too_long_is_left_out() {
        let mut history = History::default();
        said(&mut history, 2, 1, 0);
        assert_eq!(said(&mut history, 2, 2, 1 << 14)[0], 111, "too old");
        let long: Arc<[u8]> = vec![7; 1024].into();
        let mut out = Vec::new();
        history.write(&mut out, 2, 111, (&long, 0..1024, (1 << 14) + 960));
        assert_eq!(
            said(&mut history, 1, 3, (1 << 14) + 1920)[0],
            111,
            "too long"
        );
    }

    #[test]
    fn more_at_once_and_less_after_a_while() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut redundancy = Redundancy::default();
        assert_eq!(redundancy.follow(at(0), 0.004), 0);
        assert_eq!(redundancy.follow(at(1), 0.09), 2);
        assert_eq!(redundancy.follow(at(2), 0.03), 2);
        assert_eq!(redundancy.follow(at(11), 0.03), 2);
        assert_eq!(redundancy.follow(at(12), 0.03), 1);
        assert_eq!(redundancy.follow(at(60), 0.05), 1);
        assert_eq!(redundancy.follow(at(61), 0.0), 1);
        assert_eq!(redundancy.follow(at(71), 0.0), 0);
    }
}

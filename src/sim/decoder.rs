//! What a viewer sees of one video stream: frames put together from packets and decoded if what
//! they refer to was. There is no playout delay: a frame is shown as soon as it can be.
//!
//! A frame of the lowest temporal layer refers to the one before of that layer, and every other
//! frame to the newest of the lowest: [`Encoder`](super::medium::Encoder) makes them so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::judge::Seen;

/// A decoder and what it has shown.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Frames not shown yet, by picture id without rollover.
    frames: BTreeMap<u64, Frame>,
    newest_picture: Option<u64>,
    /// Picture id and TL0PICIDX of what was decoded last; `None` while a key frame is missing.
    last: Option<(u64, u8)>,
    /// Since when complete frames wait for others.
    stuck: Option<Instant>,
    asked: Option<Instant>,
    /// When the last frame was shown, and its layer.
    pub shown: Option<(Instant, u8)>,
    /// The longest time between two frames.
    pub freeze_max: Duration,
    /// Frames shown, by layer.
    pub frames_shown: [u32; 3],
    /// Each change of layer: when, and to which.
    pub layers: Vec<(Instant, u8)>,
    /// Frames shown by the last packet.
    pub decoded: Vec<Frame>,
}

/// A frame, put together of its packets.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    packets: u64,
    first: Option<u64>,
    last: Option<u64>,
    tl0: u8,
    key: bool,
    /// Its spatial layer.
    pub layer: u8,
    /// Its temporal layer.
    pub temporal: u8,
    /// When it was sent, in microseconds from the start of the meeting.
    pub sent: u64,
}

impl Frame {
    fn is_complete(&self) -> bool {
        let whole = |(first, last): (u64, u64)| last - first + 1 == self.packets;
        self.first.zip(self.last).is_some_and(whole)
    }
}

/// Frames that wait for packets or for each other; the oldest goes when there are more.
const FRAMES_MAX: usize = 64;

/// Complete frames wait this long for missing ones before a key frame is asked for: as long as
/// libwebrtc waits for a next frame, and for a first one.
const PATIENCE: Duration = Duration::from_secs(3);
/// See [`PATIENCE`].
const PATIENCE_FIRST: Duration = Duration::from_millis(200);

/// And it is asked for no more often than this.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

impl Decoder {
    /// Takes a packet. Without descriptor there is nothing to decode.
    pub fn take(&mut self, now: Instant, seen: &Seen) {
        let Some(vp8) = seen.vp8 else { return };
        let Some(id) = vp8.picture_id else { return };
        let newest = self
            .newest_picture
            .unwrap_or(1 << 15 | u64::from(id.value()));
        let ahead = ((id.value().wrapping_sub(newest as u16) << 1) as i16) >> 1;
        let picture = newest.saturating_add_signed(ahead.into());
        self.newest_picture = Some(newest.max(picture));
        if self.last.is_some_and(|(last, _)| picture <= last) {
            return;
        }
        let frame = self.frames.entry(picture).or_insert(Frame {
            packets: 0,
            first: None,
            last: None,
            tl0: vp8.tl0.unwrap_or(0),
            key: false,
            layer: seen.stamp.layer,
            temporal: vp8.temporal,
            sent: seen.stamp.sent,
        });
        frame.packets += 1;
        frame.key |= vp8.key_frame;
        if vp8.start_of_frame {
            frame.first = Some(seen.seq);
        }
        if seen.marker {
            frame.last = Some(seen.seq);
        }
        if frame.is_complete() {
            self.decode(now);
        }
        if self.frames.len() > FRAMES_MAX {
            self.frames.pop_first();
        }
    }

    fn decode(&mut self, now: Instant) {
        while let Some((picture, frame)) = self.next() {
            self.show(now, frame.layer);
            self.decoded.push(frame);
            self.last = Some((picture, frame.tl0));
            self.frames = self.frames.split_off(&(picture + 1));
            self.stuck = None;
        }
        if self.stuck.is_none() && self.frames.values().any(Frame::is_complete) {
            self.stuck = Some(now);
        }
    }

    /// The first frame that can be decoded.
    fn next(&self) -> Option<(u64, Frame)> {
        let decodable = |frame: &Frame| match self.last {
            _ if !frame.is_complete() => false,
            _ if frame.key => true,
            None => false,
            Some((_, tl0)) if frame.temporal == 0 => frame.tl0 == tl0.wrapping_add(1),
            Some((_, tl0)) => frame.tl0 == tl0,
        };
        let mut frames = self.frames.iter();
        frames
            .find(|(_, frame)| decodable(frame))
            .map(|(picture, frame)| (*picture, *frame))
    }

    fn show(&mut self, now: Instant, layer: u8) {
        if let Some((before, _)) = self.shown {
            let gap = now.saturating_duration_since(before);
            self.freeze_max = self.freeze_max.max(gap);
        }
        if self.shown.is_none_or(|(_, before)| before != layer) {
            self.layers.push((now, layer));
        }
        self.shown = Some((now, layer));
        self.frames_shown[usize::from(layer.min(2))] += 1;
    }

    /// Whether a key frame should be asked for now; if so, counts as asked.
    pub fn wants_key_frame(&mut self, now: Instant) -> bool {
        let waited = |since: Instant, span| now.saturating_duration_since(since) >= span;
        let patience = match self.shown {
            Some(_) => PATIENCE,
            None => PATIENCE_FIRST,
        };
        let stuck = self.stuck.is_some_and(|since| waited(since, patience));
        if !stuck || !self.asked.is_none_or(|at| waited(at, ASK_INTERVAL)) {
            return false;
        }
        self.asked = Some(now);
        true
    }

    /// Freezes count anew from here.
    pub fn forget_freezes(&mut self, now: Instant) {
        self.freeze_max = Duration::ZERO;
        if let Some((at, _)) = &mut self.shown {
            *at = now;
        }
    }

    /// The longest time without a new frame, up to now.
    pub fn longest_freeze(&self, now: Instant) -> Duration {
        let running =
            (self.shown).map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(at));
        self.freeze_max.max(running)
    }
}

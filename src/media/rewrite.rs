//! Makes one continuous outgoing stream out of the sources a subscription is fed. Step 5 of the hot
//! path.
//!
//! ```text
//!   source  100 101 102 103  -  105 106      101, 102 left out on purpose; 104 not come yet
//!   out      70          71 [72]  73  74     [72] is promised to 104
//! ```
//!
//! What is left out leaves no gap, since a receiver would wait for it. What got lost leaves one, so
//! that the receiver asks for it and the loss estimators see it. Each number that is sent or
//! promised has a slot in a ring; a late packet finds its own by the source's number, and one that
//! was left out finds none. A slot is filled once, so no number ever stands for two packets.
//!
//! Which packets to feed is for [`Layers`](super::layers::Layers) to say, what a payload looks like
//! for the codec, and packets themselves are kept by [`Ring`](super::retransmit::Ring).

use std::time::{Duration, Instant};

use super::codec::{Cut, dependency, vp8};
use super::order::{Order, Place};
use super::packet::{Layer, Packet};

/// Numbers of a video stream that can be answered for: 1 s at 5 Mbit/s, and more than the packets
/// a browser would still ask for. Older ones are forgotten and their late packets dropped.
const VIDEO_SLOTS: usize = 512;

/// The same for audio: 1.3 s of 20 ms packets, beyond any playout buffer.
const AUDIO_SLOTS: usize = 64;

/// A sender report that disagrees with the packets' arrival by more than this is not believed.
const REPORT_ERROR_MAX: Duration = Duration::from_secs(2);

/// A source whose timestamp falls back by more than this has a new timeline.
const FALLBACK_MAX: Duration = Duration::from_secs(1);

/// A source whose timestamp is this much ahead of the time that passed has a new timeline. Far
/// above what a network can hold back and then deliver at once.
const ADVANCE_MAX: Duration = Duration::from_secs(10);

/// A promised packet that is so many behind has been given up by its publisher: 0.6 s of a large
/// picture.
const PROMISED_MAX: u64 = 128;

/// Longer pauses count as this long: near half of the number range, which is 6.6 h for video,
/// "before" and "after" would change places.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// The outgoing stream of one subscription.
#[derive(Debug)]
pub struct Rewrite {
    clock: Clock,
    slots: Box<[Slot]>,
    /// The first number that is answered for.
    first: u64,
    /// The number after all that are sent or promised.
    next: u64,
    /// The number of the newest key frame's first packet.
    key: u64,
    /// Newest timestamp that was sent.
    newest: Option<Newest>,
    /// Where outgoing timestamps start.
    first_timestamp: u32,
    source: Option<Source>,
    /// Outgoing minus source timestamp; outlives a pause, since sender reports still need it.
    timestamp_offset: u32,
    pictures: vp8::Numbering,
    frames: dependency::Numbering,
    /// What goes out of the source's layers.
    cut: Cut,
}

/// The numbers a packet leaves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Sequence number, extended; its lower 16 bits go into the header, and it is the SRTP index.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// What its frame says of itself.
    pub face: Face,
}

/// What the subscriber is told of a packet's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Face {
    /// Last packet of the picture, as far as the subscriber gets it.
    pub marker: bool,
    /// Numbers for the VP8 payload descriptor.
    pub ids: vp8::Ids,
    /// Frame number for the dependency descriptor.
    pub frame: u16,
    /// The layers that go out.
    pub cut: Cut,
}

/// What was sent under a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The source's layer.
    pub layer: Layer,
    /// The source's sequence number.
    pub source_seq: u64,
    /// The very numbers it was sent with.
    pub stamp: Stamp,
}

/// How a new source's timestamps are fitted to those sent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    /// The packet's outgoing timestamp, by the sender reports of both sources.
    Known(u32),
    /// No report yet: by the time between the arrivals of the last packet and this one.
    Elapsed,
}

#[derive(Debug)]
struct Source {
    layer: Layer,
    order: Order,
    /// The first outgoing number that belongs to it.
    first: u64,
    /// Newest packet seen, forwarded or not.
    timestamp: u32,
    arrival: Instant,
    /// The newest packet was left out.
    skipping: bool,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    timestamp: u32,
    arrival: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    layer: Layer,
    source_seq: u64,
    fill: Fill,
}

#[derive(Debug, Clone, Copy)]
enum Fill {
    /// Belongs to no packet.
    Void,
    Promised {
        timestamp_offset: u32,
        offsets: vp8::Offsets,
        frame_offset: u16,
        cut: Cut,
    },
    Sent {
        timestamp: u32,
        face: Face,
    },
}

/// RTP clock.
#[derive(Debug, Clone, Copy)]
struct Clock {
    rate: u32,
    /// Least distance of a new source's first timestamp from the last one sent.
    step: u32,
}

impl Clock {
    /// A step of 1 ms: frames of two layers are often captured at the same instant. Browsers tell
    /// frames apart by timestamp and render by the millisecond, so this is the least that keeps
    /// them two, and the picture's timeline is moved by no more than needed.
    const VIDEO: Self = Self {
        rate: 90_000,
        step: 90,
    };
    /// A step of one usual packet, 20 ms: audio that overlaps would be played over.
    const AUDIO: Self = Self {
        rate: 48_000,
        step: 960,
    };

    fn ticks(self, span: Duration) -> u32 {
        (span.min(PAUSE_MAX).as_micros() as u64 * u64::from(self.rate) / 1_000_000) as u32
    }
}

impl Rewrite {
    /// A video stream. The first sequence number is cut to 15 bits: so near its start the receiver
    /// cannot mistake a lost packet for a wrapped number (RFC 3711 section 3.3.1).
    pub fn video(first_seq: u16, first_timestamp: u32) -> Self {
        Self::new(Clock::VIDEO, VIDEO_SLOTS, first_seq, first_timestamp)
    }

    /// An audio stream with a clock of 48 kHz.
    pub fn audio(first_seq: u16, first_timestamp: u32) -> Self {
        Self::new(Clock::AUDIO, AUDIO_SLOTS, first_seq, first_timestamp)
    }

    fn new(clock: Clock, slots: usize, first_seq: u16, first_timestamp: u32) -> Self {
        let first = u64::from(first_seq & 0x7fff);
        let empty = Slot {
            layer: Layer(0),
            source_seq: 0,
            fill: Fill::Void,
        };
        Self {
            clock,
            slots: vec![empty; slots].into_boxed_slice(),
            first,
            next: first,
            key: first,
            newest: None,
            first_timestamp,
            source: None,
            timestamp_offset: 0,
            pictures: vp8::Numbering::default(),
            frames: dependency::Numbering::default(),
            cut: Cut::NONE,
        }
    }

    /// From here on the subscriber gets these layers of the source.
    pub fn cut(&mut self, cut: Cut) {
        self.cut = cut;
    }

    /// Forwards a packet as the first one of a new source, right after all that was sent or
    /// promised. Also right for the same source after a pause.
    pub fn switch(&mut self, packet: &Packet, alignment: Alignment) -> Stamp {
        let timestamp = self.align(packet, alignment);
        self.timestamp_offset = timestamp.wrapping_sub(packet.timestamp);
        self.source = Some(Source {
            layer: packet.layer,
            order: Order::new(packet.seq),
            first: self.next,
            timestamp: packet.timestamp,
            arrival: packet.arrival,
            skipping: false,
        });
        let ids = packet
            .vp8
            .map(|vp8| self.pictures.start(&vp8))
            .unwrap_or_default();
        let frame = packet
            .dependency
            .as_ref()
            .map_or(0, |it| self.frames.start(it.number()));
        self.send(packet, ids, frame)
    }

    /// Forwards a packet of the current source, or starts with it if there is none. `None` for
    /// duplicates, for packets that come too late or were left out, and for other sources.
    ///
    /// A late packet without payload is to be sent without payload: its number was promised.
    pub fn forward(&mut self, packet: &Packet) -> Option<Stamp> {
        let Some(source) = &mut self.source else {
            return Some(self.switch(packet, Alignment::Elapsed));
        };
        if source.layer != packet.layer {
            return None;
        }
        let before = source.order.newest();
        match source.order.place(packet.seq) {
            Place::Stray => return None,
            Place::Late => return self.fill(packet),
            Place::Restart => self.restart(packet),
            Place::Next { missing } => self.promise(packet.layer, before + 1, missing),
        }
        self.follow(packet, false);
        let ids = packet
            .vp8
            .map(|vp8| self.pictures.forward(&vp8))
            .unwrap_or_default();
        let frame = packet
            .dependency
            .as_ref()
            .map_or(0, |it| self.frames.forward(it.number()));
        Some(self.send(packet, ids, frame))
    }

    /// Leaves a packet of the current source out, without a gap: one of a temporal layer that is
    /// not wanted, or one that is only padding. A late one whose number was promised already gets
    /// it, and has to be sent.
    pub fn skip(&mut self, packet: &Packet) -> Option<Stamp> {
        let source = self
            .source
            .as_mut()
            .filter(|source| source.layer == packet.layer)?;
        let before = source.order.newest();
        let same_frame = source.skipping && source.timestamp == packet.timestamp;
        match source.order.place(packet.seq) {
            Place::Stray => return None,
            Place::Late => return self.fill(packet),
            Place::Restart => self.restart(packet),
            // What is missing inside a frame that is left out is left out too.
            Place::Next { .. } if same_frame => {}
            Place::Next { missing } => self.promise(packet.layer, before + 1, missing),
        }
        self.follow(packet, true);
        if let Some(vp8) = packet.vp8 {
            self.pictures.skip(&vp8);
        }
        if packet.marker {
            self.pictures.settle();
        }
        None
    }

    /// Forgets the source: the next packet starts a new one. For subscriptions that stop for a
    /// while, so that what they miss is not taken for lost.
    pub fn pause(&mut self) {
        self.source = None;
    }

    /// Forgets the source and all that was sent of it: nothing of that can be sent again.
    pub fn forget(&mut self) {
        self.source = None;
        self.first = self.next;
    }

    /// Whether what is shown builds on the packet of this number, and it will not come any more: it
    /// is of the newest key frame or after it, and not just promised, so that its publisher may
    /// still repeat it.
    pub fn is_broken_without(&self, seq: u16) -> bool {
        let Some(seq) = self.extended(seq).filter(|seq| *seq >= self.key) else {
            return false;
        };
        let promised = seq >= self.oldest()
            && matches!(self.slots[self.index(seq)].fill, Fill::Promised { .. });
        !promised || seq + PROMISED_MAX < self.next
    }

    /// The newest number with these lower bits.
    fn extended(&self, seq: u16) -> Option<u64> {
        let newest = self.next.checked_sub(1)?;
        let behind = (newest as u16).wrapping_sub(seq);
        newest.checked_sub(behind.into())
    }

    /// What was sent under a number the subscriber asks for; `None` if nothing was or it is too
    /// old.
    pub fn sent(&self, seq: u16) -> Option<Sent> {
        let seq = self.extended(seq).filter(|&seq| seq >= self.oldest())?;
        let slot = &self.slots[self.index(seq)];
        let Fill::Sent { timestamp, face } = slot.fill else {
            return None;
        };
        let stamp = Stamp {
            seq,
            timestamp,
            face,
        };
        Some(Sent {
            layer: slot.layer,
            source_seq: slot.source_seq,
            stamp,
        })
    }

    /// The outgoing timestamp that stands for one of the current source, for sender reports and
    /// to align the next source; `None` before the first packet.
    pub fn outgoing_timestamp(&self, source_timestamp: u32) -> Option<u32> {
        self.newest
            .map(|_| source_timestamp.wrapping_add(self.timestamp_offset))
    }

    /// The outgoing timestamp of a new source's first packet, always after the last one sent.
    fn align(&self, packet: &Packet, alignment: Alignment) -> u32 {
        let Some(newest) = self.newest else {
            return self.first_timestamp;
        };
        let elapsed = self
            .clock
            .ticks(packet.arrival.saturating_duration_since(newest.arrival));
        let by_arrival = newest.timestamp.wrapping_add(elapsed);
        let believed = match alignment {
            Alignment::Known(known) => {
                let error = (known.wrapping_sub(by_arrival) as i32).unsigned_abs();
                if error <= self.clock.ticks(REPORT_ERROR_MAX) {
                    known
                } else {
                    by_arrival
                }
            }
            Alignment::Elapsed => by_arrival,
        };
        let earliest = newest.timestamp.wrapping_add(self.clock.step);
        let early = (believed.wrapping_sub(earliest) as i32) < 0;
        if early { earliest } else { believed }
    }

    /// The source counts anew. Unless it also begins a picture anew, one number stays unused: the
    /// gap tells the receiver that its references are gone.
    fn restart(&mut self, packet: &Packet) {
        if packet.vp8.is_some_and(|vp8| !vp8.key_frame) {
            let void = Slot {
                layer: packet.layer,
                source_seq: 0,
                fill: Fill::Void,
            };
            self.push(void);
        }
        let first = self.next;
        if let Some(source) = &mut self.source {
            source.first = first;
        }
    }

    /// Notes a packet in order, and a new timeline of its source if it shows one.
    fn follow(&mut self, packet: &Packet, skipping: bool) {
        let Some(source) = &mut self.source else {
            return;
        };
        let passed = packet.arrival.saturating_duration_since(source.arrival);
        let advance = packet.timestamp.wrapping_sub(source.timestamp) as i32;
        source.timestamp = packet.timestamp;
        source.arrival = packet.arrival;
        source.skipping = skipping;
        let advance_max = self
            .clock
            .ticks(passed)
            .saturating_add(self.clock.ticks(ADVANCE_MAX));
        let fell_back = advance < -(self.clock.ticks(FALLBACK_MAX) as i32);
        if fell_back || advance > advance_max as i32 {
            let timestamp = self.align(packet, Alignment::Elapsed);
            self.timestamp_offset = timestamp.wrapping_sub(packet.timestamp);
        }
    }

    /// Keeps numbers for packets that have not come. [`Order`] bounds how many; those that would
    /// fall out of the ring at once are only counted.
    fn promise(&mut self, layer: Layer, first_missing: u64, missing: u64) {
        if missing == 0 {
            return;
        }
        self.pictures.reopen();
        let kept = missing.min(self.slots.len() as u64);
        self.next += missing - kept;
        let fill = Fill::Promised {
            timestamp_offset: self.timestamp_offset,
            offsets: self.pictures.offsets(),
            frame_offset: self.frames.offset(),
            cut: self.cut,
        };
        for source_seq in first_missing + (missing - kept)..first_missing + missing {
            self.push(Slot {
                layer,
                source_seq,
                fill,
            });
        }
    }

    fn push(&mut self, slot: Slot) -> u64 {
        let seq = self.next;
        self.slots[self.index(seq)] = slot;
        self.next += 1;
        seq
    }

    fn send(&mut self, packet: &Packet, ids: vp8::Ids, frame: u16) -> Stamp {
        let timestamp = packet.timestamp.wrapping_add(self.timestamp_offset);
        self.note(timestamp, packet.arrival);
        let face = Face::of(packet, ids, frame, self.cut);
        let fill = Fill::Sent { timestamp, face };
        let seq = self.push(Slot {
            layer: packet.layer,
            source_seq: packet.seq,
            fill,
        });
        if packet.frame.key && packet.frame.start {
            self.key = seq;
        }
        Stamp {
            seq,
            timestamp,
            face,
        }
    }

    /// Keeps the newest timestamp, with the arrival of its first packet.
    fn note(&mut self, timestamp: u32, arrival: Instant) {
        let ahead = |newest: Newest| timestamp.wrapping_sub(newest.timestamp) as i32 > 0;
        if self.newest.is_none_or(ahead) {
            self.newest = Some(Newest { timestamp, arrival });
        }
    }

    /// Gives a late packet the number that was promised to it, if one was.
    fn fill(&mut self, packet: &Packet) -> Option<Stamp> {
        let seq = self.find(packet.seq)?;
        let index = self.index(seq);
        let Fill::Promised {
            timestamp_offset,
            offsets,
            frame_offset,
            cut,
        } = self.slots[index].fill
        else {
            return None;
        };
        let timestamp = packet.timestamp.wrapping_add(timestamp_offset);
        let ids = packet
            .vp8
            .map(|vp8| self.pictures.late(&vp8, offsets))
            .unwrap_or_default();
        let number = packet.dependency.as_ref().map_or(0, |it| it.number());
        let face = Face::of(packet, ids, number.wrapping_sub(frame_offset), cut);
        // It may be newer than all that was sent: padding, or what was left out, came before it.
        self.note(timestamp, packet.arrival);
        self.slots[index].fill = Fill::Sent { timestamp, face };
        Some(Stamp {
            seq,
            timestamp,
            face,
        })
    }

    /// The number of a packet of the current source. Its numbers grow along the ring, so a binary
    /// search finds them.
    fn find(&self, source_seq: u64) -> Option<u64> {
        let source = self.source.as_ref()?;
        let (mut low, mut high) = (self.oldest().max(source.first), self.next);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.slots[self.index(middle)].source_seq.cmp(&source_seq) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The oldest number that still has a slot.
    fn oldest(&self) -> u64 {
        self.next
            .saturating_sub(self.slots.len() as u64)
            .max(self.first)
    }

    fn index(&self, seq: u64) -> usize {
        (seq % self.slots.len() as u64) as usize
    }
}

impl Face {
    /// The marker moves to the last layer that goes out: what lies above in the same picture is
    /// left out.
    fn of(packet: &Packet, ids: vp8::Ids, frame: u16, cut: Cut) -> Self {
        let topmost = packet.frame.end && packet.frame.spatial == cut.spatial;
        Self {
            marker: packet.marker || topmost,
            ids,
            frame,
            cut,
        }
    }
}

#[cfg(test)]
#[path = "tests/rewrite.rs"]
mod tests;

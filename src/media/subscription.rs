//! One track on its way to one participant: the choice of layer, the outgoing stream, its counts.

use std::time::{Duration, Instant};

use super::TrackKey;
use super::allocator::{Grant, Pausing, Priority, Rank, TEMPORAL_MAX, Wish};
use super::codec::{Codec, red};
use super::counters::Counters;
use super::encoding::EncodingKey;
use super::keyframe::Ration;
use super::layers::{Decision, Layers};
use super::message::{Kind, Source, TrackSettings};
use super::packet::{Layer, Packet};
use super::pausing::Flow;
use super::redundancy::History;
use super::rewrite::{Alignment, Rewrite, Stamp};
use super::sdp;
use super::srtp::{self, OwnSsrc, SealRefused, Sealer};
use super::track::{Stream, Track};
use crate::ids::{ParticipantSid, TrackSid};

/// A subscription.
pub struct Subscription {
    /// To what.
    pub track: TrackKey,
    /// By which of the track's encodings.
    pub encoding: usize,
    /// Audio or video.
    pub kind: Kind,
    /// How the subscriber wants it.
    pub settings: TrackSettings,
    /// Since when.
    pub since: Instant,
    /// Its wait for a section, while it has none and the client could give it one.
    pub wait: Wait,
    /// How often a packet of its sound is said again.
    pub redundancy: usize,
    /// What bandwidth last allowed.
    pub granted: Option<Grant>,
    /// The stream it goes out on, once a media section carries it.
    pub outgoing: Option<Outgoing>,
}

/// How long a subscription has waited for its section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// It doesn't.
    #[default]
    Not,
    /// Since then.
    Since(Instant),
    /// For too long. It goes on, but the client was told.
    Told,
}

/// An outgoing stream: one SSRC for the life of the subscription in its section.
pub struct Outgoing {
    /// Names for the answer.
    pub names: Names,
    /// The client hasn't answered the offer that names it; until then nothing is sent.
    pub held: bool,
    /// The media.
    pub ssrc: OwnSsrc,
    /// Seals it, once there are keys.
    pub seal: Option<srtp::Stream>,
    /// Retransmissions, for video.
    pub rtx: Option<Retransmissions>,
    /// One continuous stream out of many layers.
    pub rewrite: Rewrite,
    /// Which of them.
    pub layers: Layers,
    /// Whether bandwidth lets it come.
    pub flow: Flow,
    /// What of sound may be said again, since that is done.
    pub spoken: Option<Box<History>>,
    /// The one whose timestamps it follows now; none yet after a change of encoding.
    pub source: Option<Layer>,
    /// Key frames asked for because its picture was lost.
    pub losses: Ration<2, 20>,
    /// RTP packets sent; wraps, as in sender reports.
    pub packets: u32,
    /// RTP payload bytes sent; wraps, as in sender reports.
    pub octets: u32,
    /// When the last sender report went.
    pub reported: Option<Instant>,
}

/// What becomes of a packet of video.
pub enum Choice {
    /// It goes out.
    Send(Stamp),
    /// It comes too late for it.
    Late,
    /// Not for this subscriber.
    Leave,
}

/// The stream of retransmissions beside a media stream (RFC 4588).
pub struct Retransmissions {
    /// Its SSRC.
    pub ssrc: OwnSsrc,
    /// Seals it, once there are keys.
    pub seal: Option<srtp::Stream>,
    /// Its next sequence number.
    pub next_seq: u64,
}

/// What the client maps a stream by.
#[derive(Debug, Clone)]
pub struct Names {
    /// Whose track.
    pub publisher: ParticipantSid,
    /// Which.
    pub track: TrackSid,
}

/// A client that has no section for a track after this has failed to make one: an offer takes it
/// less than a second.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// How often a sender report goes. The first goes with the first packets, for lip sync.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(2);

impl Subscription {
    /// Whether it is video that is sent, is wanted and has its section: what bandwidth is shared
    /// among.
    pub fn is_wanted(&self, track: &Track) -> bool {
        let flows = !self.settings.disabled && !track.info.announced.muted;
        let open = self
            .outgoing
            .as_ref()
            .is_some_and(|outgoing| !outgoing.held);
        self.kind == Kind::Video && flows && open
    }

    /// Whether it takes part in the sharing now, rather than to stay paused.
    pub fn is_weighed(&self, track: &Track, now: Instant) -> bool {
        let rests = |outgoing: &Outgoing| outgoing.flow.rests(now);
        self.is_wanted(track) && !self.outgoing.as_ref().is_some_and(rests)
    }

    /// Looks at its wait for a section, which a client that is `here` could end; whether that takes
    /// too long, which is said once.
    pub fn waits_too_long(&mut self, here: bool, now: Instant) -> bool {
        match self.wait {
            _ if self.outgoing.is_some() || !here => self.wait = Wait::Not,
            Wait::Not => self.wait = Wait::Since(now),
            Wait::Since(at) if now.saturating_duration_since(at) >= WAIT_MAX => {
                self.wait = Wait::Told;
                return true;
            }
            Wait::Since(_) | Wait::Told => {}
        }
        false
    }

    /// Says each packet of its sound again so often.
    pub fn repeat(&mut self, times: usize) {
        self.redundancy = times;
        if let Some(outgoing) = &mut self.outgoing {
            match times {
                0 => outgoing.spoken = None,
                _ => {
                    outgoing.spoken.get_or_insert_default();
                }
            }
        }
    }

    /// Nothing is sent for a while. What the subscriber misses meanwhile is not lost.
    pub fn pause(&mut self) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.rewrite.pause();
            outgoing.layers.set_target(None);
        }
    }

    /// Where its packets come from.
    pub fn source(&self) -> EncodingKey {
        EncodingKey {
            track: self.track,
            number: self.encoding,
        }
    }

    /// From now on it is fed by another encoding. What was sent of the old one is forgotten: its
    /// streams have their own numbers, and a key frame of the new one makes good what is missing.
    pub fn recode(&mut self, encoding: usize) {
        self.encoding = encoding;
        self.granted = None;
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.rewrite.forget();
            outgoing.layers = Layers::default();
            outgoing.source = None;
        }
    }

    /// What it asks of the bandwidth, from a subscriber whose video `may_pause` or must not.
    pub fn wish(&self, track: &Track, may_pause: bool, now: Instant) -> Wish {
        let may_pause = may_pause && track.has_begun();
        let is_screen = track.info.announced.source == Source::ScreenShare;
        let kind = match is_screen {
            true => Priority::SCREEN_SHARE,
            false => Priority::CAMERA,
        };
        let mut rank = Rank::plain(self.settings.priority.unwrap_or(kind));
        rank.has_floor = track.turn.has_floor;
        Wish {
            rank: self.settings.dimensions.map_or(rank, |it| rank.sized(it)),
            is_screen,
            layer_max: self.wanted_layer(track),
            temporal_max: self.wanted_temporal(),
            rates: track.encodings[self.encoding].rates(now),
            current: self.granted,
            pausing: (self.outgoing.as_ref()).map_or(Pausing::Never, |outgoing| {
                outgoing.flow.pausing(may_pause, now)
            }),
        }
    }

    /// The best layer the subscriber can use of `track`.
    pub fn wanted_layer(&self, track: &Track) -> Layer {
        let encoding = &track.encodings[self.encoding];
        match self.settings.dimensions {
            Some(pixels) => encoding.layer_for_dimensions(pixels, track.info.announced.dimensions),
            None => encoding.layer_for_quality(self.settings.quality),
        }
    }

    /// The highest temporal layer that keeps to the frame rate wanted.
    pub fn wanted_temporal(&self) -> u8 {
        // Chromium's simulcast has three temporal layers, each doubling the rate of the ones
        // below, at up to 30 frames per second.
        match self.settings.frame_rate {
            Some(..=8) => 0,
            Some(..=15) => 1,
            _ => TEMPORAL_MAX as u8 - 1,
        }
    }
}

impl Outgoing {
    /// Puts what was said before in front of a packet of sound; where that begins, if it is done.
    pub fn say_again(
        &mut self,
        packet: &Packet,
        stamp: &Stamp,
        (level, payload_type): (usize, u8),
        front: &mut Vec<u8>,
    ) -> Option<usize> {
        let history = self.spoken.as_mut().filter(|_| level > 0)?;
        let frame = match packet.format.codec() {
            Codec::Red => red::newest(&packet.payload)?,
            _ => 0..packet.payload.len(),
        };
        let start = frame.start;
        history.write(
            front,
            level,
            payload_type,
            (&packet.payload, frame, stamp.timestamp),
        );
        Some(start)
    }

    /// There are keys. An error means that these keys have sealed for as many SSRCs as they may.
    pub fn register(&mut self, sealer: &mut Sealer) -> Result<(), SealRefused> {
        self.seal = Some(sealer.register(self.ssrc)?);
        if let Some(rtx) = &mut self.rtx {
            rtx.seal = Some(sealer.register(rtx.ssrc)?);
        }
        Ok(())
    }

    /// What the answer says of it.
    pub fn sending(&self) -> sdp::Sending {
        let Names { publisher, track } = &self.names;
        sdp::Sending {
            stream_id: format!("{}|{}", publisher.as_str(), track.as_str()),
            track_id: track.as_str().to_owned(),
            // One name for all of a publisher's streams ties them together for lip sync.
            cname: publisher.as_str().to_owned(),
            ssrc: self.ssrc.get(),
            rtx_ssrc: self.rtx.as_ref().map(|rtx| rtx.ssrc.get()),
        }
    }

    /// Whether a packet of video is for this subscriber, and under which numbers. `streams` are
    /// those of its encoding.
    pub fn choose(
        &mut self,
        packet: &Packet,
        streams: &[Stream],
        counters: &mut Counters,
    ) -> Choice {
        let decision = self.layers.decide(packet);
        self.rewrite.cut(self.layers.cut());
        match decision {
            Decision::Ignore => Choice::Leave,
            Decision::Skip => {
                self.rewrite.skip(packet);
                Choice::Leave
            }
            // Padding probes the path up to us and is left out, but for a number that was promised
            // already.
            _ if packet.payload.is_empty() => match self.rewrite.skip(packet) {
                Some(stamp) => Choice::Send(stamp),
                None => Choice::Leave,
            },
            Decision::Forward => match self.rewrite.forward(packet) {
                Some(stamp) => Choice::Send(stamp),
                None => Choice::Late,
            },
            Decision::Switch => {
                counters.layer_switches += 1;
                let alignment = self.align(packet, streams);
                self.source = Some(packet.layer);
                Choice::Send(self.rewrite.switch(packet, alignment))
            }
        }
    }

    /// The outgoing timestamp of the first packet of another layer: what the old layer's clock
    /// showed at the same moment, if the sender reports of both layers tell; else by the time of
    /// arrival.
    fn align(&self, packet: &Packet, streams: &[Stream]) -> Alignment {
        let known = || {
            let old = streams.get(usize::from(self.source?.0))?;
            let new = streams.get(usize::from(packet.layer.0))?;
            let moment = new.clock.ntp_of(packet.timestamp)?;
            self.rewrite.outgoing_timestamp(old.clock.rtp_at(moment)?)
        };
        known().map_or(Alignment::Elapsed, Alignment::Known)
    }
}

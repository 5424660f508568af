//! For comparison: str0m as it is, in place of the shard.
//!
//! ```text
//!   camera, microphone --> allocator --> str0m --- the scenario's link ---> str0m --> decoder
//!   the encoders of        the best      ICE, DTLS, SRTP, pacer, probes,
//!   the other trials       that fits     retransmissions, feedback, all of it its own
//! ```
//!
//! The sender is what an application gets from str0m by its documentation ([`Bwe::set_bitrate`]).
//! Estimation begins at 1 Mbit/s. At each `EgressBitrateEstimate` the largest layer that fits it
//! beside the sound is chosen; the change comes with a key frame of that layer, and temporal layers
//! are all sent. As minimum, up to which str0m pads, it is told what the next larger layer takes:
//! without that it hardly ever finds its way up again, but on links too small for it pictures stand
//! ([`Subject::Unpadded`](super::Subject::Unpadded)). Nothing else is set.
//!
//! It is better off than the shard in two things: the two are connected when a trial begins, and
//! the encoders are on its side of the network, so a key frame comes with the next picture.
//!
//! A seed decides about the network and the encoders. str0m draws keys and the order of its maps
//! from elsewhere too, so the same seed gives nearly, not exactly, the same figures again.
//!
//! [`Bwe::set_bitrate`]: str0m::bwe::Bwe::set_bitrate

mod pair;
mod picture;

use std::time::{Duration, Instant};

use str0m::bwe::{Bitrate as Rate, BweKind};
use str0m::format::Codec;
use str0m::media::{KeyframeRequestKind, Pt};
use str0m::rtp::RtpWrite;
use str0m::{Event, Rtc};

use super::scenario::Scenario;
use super::trial::{Offered, Outcome, Received, SAMPLE, Trial, Watch};
use crate::media::message::Kind;
use crate::sim::judge::{self, Arrivals};
use crate::sim::medium::{Encoded, Encoder, Medium};
use crate::sim::receiving::Incoming;
use crate::sim::record::Record;
use crate::units::Bitrate;
use pair::{End, PICTURE, Pair, SOUND, Said};
use picture::{Picture, encoder};

/// What the estimate begins with.
const INITIAL: Rate = Rate::mbps(1);

/// What is desired, of what the largest layer and the sound take: str0m probes up to twice of it.
/// Of once to three times as much, this is where it finds that layer on 3 Mbit/s at the start.
const DESIRED: f64 = 4.0 / 3.0;

/// How often the encoders are looked at.
const BEAT: Duration = Duration::from_millis(1);

/// Runs `scenario`, with or without padding up to the next layer.
pub fn run(scenario: &Scenario, padded: bool, seed: u64) -> Trial {
    // str0m draws from its thread's own generator.
    fastrand::seed(seed);
    #[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    let now = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pair = Pair::connected(now, Rtc::builder().enable_bwe(Some(INITIAL)));
    let start = pair.now;
    let mut call = Call::new(&mut pair, padded, &mut random);
    call.wish(&mut pair);
    let before = call.sound.newest();
    pair.open(&scenario.link(), &mut random);
    let mut watch = Watch::new(call.incoming.len());
    for _ in 0..scenario.seconds * 1000 / SAMPLE.as_millis() as u64 {
        for _ in 0..SAMPLE.as_millis() / BEAT.as_millis() {
            call.beat(&mut pair);
        }
        let at = pair.now.saturating_duration_since(start);
        watch.look(scenario, at, call.estimate, call.incoming.iter());
    }
    let [picture, sound] = call.offered;
    let picture = Offered {
        key_frames: call.picture.key_frames(),
        ..picture
    };
    let received = call.incoming.iter();
    let received: Vec<_> = received.filter_map(|it| Received::of(it, 0)).collect();
    let outcome = Outcome {
        start,
        end: pair.now,
        samples: &watch.samples,
        received: &received,
        offered: &[picture],
        sound,
        sound_span: (before + 1, call.sound.newest()),
        ended: None,
    };
    Trial::of(scenario, seed, &outcome)
}

/// What is sent over a pair, and what comes of it.
struct Call {
    start: Instant,
    picture: Picture,
    sound: Encoder,
    sound_rate: Bitrate,
    /// There is padding up to the next layer.
    padded: bool,
    /// Payload types of picture and sound.
    types: [Pt; 2],
    /// What there was to send of them.
    offered: [Offered; 2],
    /// The newest estimate.
    estimate: Bitrate,
    /// Picture and sound as they come.
    incoming: [Incoming; 2],
}

impl Call {
    fn new(pair: &mut Pair, padded: bool, random: &mut fastrand::Rng) -> Self {
        let start = pair.now;
        let (camera, microphone) = (Medium::camera("camera"), Medium::microphone("microphone"));
        let sound_rate: Bitrate = microphone.rates.iter().copied().sum();
        let rtc = pair.tell(End::Sender);
        let incoming = |ssrc, kind| {
            let mut incoming = Incoming::new(ssrc, "TR_stock".into(), kind, (0, 0));
            incoming.record = Some(Record::default());
            incoming
        };
        Self {
            start,
            picture: Picture::new(&camera, start, random),
            sound: encoder(&microphone, 0, start, random),
            sound_rate,
            padded,
            types: [Codec::Vp8, Codec::Opus].map(|codec| payload_type(rtc, codec)),
            offered: [Offered::default(); 2],
            estimate: Bitrate::ZERO,
            incoming: [incoming(PICTURE, Kind::Video), incoming(SOUND, Kind::Audio)],
        }
    }

    /// Sends what is due, lets it travel and takes what came.
    fn beat(&mut self, pair: &mut Pair) {
        let now = pair.now;
        let [picture_type, sound_type] = self.types;
        let (picture, best) = self.picture.encode(now);
        let sound = self.sound.encode(now);
        for (offered, packets) in self.offered.iter_mut().zip([best, sound]) {
            offered.packets += packets.len() as u64;
            offered.bytes += packets
                .iter()
                .map(|it| it.payload.len() as u64)
                .sum::<u64>();
        }
        let mut api = pair.tell(End::Sender).direct_api();
        let mut write = |ssrc: u32, payload_type, packet: &Encoded| {
            let (seq, payload) = (packet.seq.into(), packet.payload.as_slice());
            let write = RtpWrite::new(payload_type, seq, packet.timestamp, now, payload);
            let write = write.marker(packet.marker).nackable(ssrc == PICTURE);
            if let Some(stream) = api.stream_tx(&ssrc.into()) {
                stream.write_rtp(write);
            }
        };
        for packet in &picture {
            write(PICTURE, picture_type, packet);
        }
        for packet in sound {
            write(SOUND, sound_type, packet);
        }
        for said in pair.run(BEAT) {
            self.hear(pair, said);
        }
        if self.incoming[0].decoder.wants_key_frame(pair.now) {
            let mut api = pair.tell(End::Viewer).direct_api();
            if let Some(stream) = api.stream_rx(&PICTURE.into()) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
    }

    /// Tells str0m what there is to send.
    fn wish(&self, pair: &mut Pair) {
        let next = self.picture.next().filter(|_| self.padded);
        let minimum = next.map_or(Bitrate::ZERO, |next| next + self.sound_rate);
        let desired = (self.picture.best() + self.sound_rate).scale(DESIRED);
        let [minimum, desired] = [minimum, desired].map(|it| Rate::bps(it.as_bps()));
        pair.tell(End::Sender).bwe().set_bitrate(minimum, desired);
    }

    fn hear(&mut self, pair: &mut Pair, said: Said) {
        match (said.end, said.event) {
            (End::Sender, Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. })) => {
                self.estimate = Bitrate::bps(estimate.as_u64());
                let room = self.estimate.saturating_sub(self.sound_rate);
                self.picture.allocate(room);
                self.wish(pair);
            }
            (End::Sender, Event::KeyframeRequest(_)) => self.picture.refresh(),
            (End::Viewer, Event::RtpPacket(packet)) => {
                let mut streams = self.incoming.iter_mut();
                let ssrc = *packet.header.ssrc;
                let Some(stream) = streams.find(|it| it.ssrc() == ssrc) else {
                    return;
                };
                let received = judge::Received {
                    seq: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    marker: packet.header.marker,
                    payload: &packet.payload,
                    repaired: said.repaired,
                    ordered: false,
                };
                // What the shard may not do is no matter here.
                stream.take(
                    said.at,
                    &received,
                    self.start,
                    &Arrivals::default(),
                    &mut |_| {},
                );
            }
            _ => {}
        }
    }
}

fn payload_type(rtc: &Rtc, codec: Codec) -> Pt {
    let known = rtc.codec_config().find(|it| it.spec().codec == codec);
    known
        .expect("str0m knows VP8 and Opus unless it is told not to")
        .pt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::SCENARIOS;
    use crate::lab::scenario::Figure;

    #[test]
    fn a_stock_peer_sends_picture_and_sound_over_a_link() {
        let scenario = SCENARIOS.iter().find(|it| it.id == "03").expect("3 Mbit/s");
        let trial = run(scenario, true, 1);
        let figure = |figure| trial.figures.get(&figure).copied();
        assert!(figure(Figure::Use) > Some(0.5), "{:?}", trial.figures);
        assert!(figure(Figure::Moving) == Some(1.0), "{:?}", trial.figures);
        assert!(figure(Figure::SoundLost) < Some(0.1), "{:?}", trial.figures);
    }
}

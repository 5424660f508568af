//! From a publisher's datagram to its subscribers, and their feedback back. Steps 3 to 5 of the
//! hot path: the peer opens, the track notes, every subscription decides.

use std::time::{Duration, Instant};

use super::TrackKey;
use super::burst::StreamKey;
use super::counters::Dropped;
use super::demux::{Class, Pair, Place};
use super::encoding::{Encoding, EncodingKey};
use super::layers::Pressure;
use super::message::{Connection, Kind};
use super::packet::{Layer, Packet, Shown};
use super::participant::{Participant, Source};
use super::peer::{PeerEvent, Unaccepted};
use super::room::{PEER_FAILED, Room};
use super::rtcp;
use super::section::Usage;
use super::shard::Core;
use super::srtp::{Opener, OwnSsrc, RtpOpener, Sealer};
#[cfg(test)]
use super::tests::fault;
use super::track::Publisher;
use super::uplink::{Received, Uplink};

/// Streams a participant is remembered to send; a new one past this replaces the oldest. Three
/// layers of each of 32 tracks fit.
const SOURCES_MAX: usize = 96;

/// A deadline for peers that have none; their participant's tick comes long before.
const FAR: Duration = Duration::from_secs(3600);

impl Room {
    /// A datagram that belongs to a participant, by its address or, of STUN, by its password.
    pub fn datagram(
        &mut self,
        core: &mut Core,
        place: Place,
        pair: Pair,
        (class, contents): (Class, &[u8]),
        now: Instant,
    ) {
        let Place { peer, connection } = place;
        let slot = peer.participant;
        let Some(participant) = self.participants.get_mut(slot as usize) else {
            return core.counters.drop(Dropped::PeerGone);
        };
        match class {
            Class::Rtp
                if !participant.may_send_packet(now, core.config.limits.packets_per_second) =>
            {
                return core.counters.drop(Dropped::PacketRate);
            }
            Class::Rtp => return self.published(core, place, pair, contents, now),
            Class::Rtcp => {
                if self.feedback(core, slot, connection, contents, now) {
                    self.opened(core, slot, (connection, pair), now);
                }
                return;
            }
            Class::Stun | Class::Dtls => {}
        }
        let participant = &mut self.participants[slot as usize];
        let peer = participant.peer_of(connection);
        match peer.receive(now, pair.local, pair.remote, contents) {
            Ok(()) => {}
            Err(Unaccepted::Datagram) => core.counters.drop(match class {
                Class::Stun => Dropped::StunInvalid,
                _ => Dropped::DtlsInvalid,
            }),
            Err(Unaccepted::Peer) => return self.leave(core, slot, PEER_FAILED, now),
        }
        #[cfg(test)]
        fault::trip(fault::Point::Datagram, &participant.identity);
        self.drain(core, slot, connection, now);
        self.arm(core, slot);
    }

    /// Something authentic came on a pair of addresses, which may lead the client's path there.
    pub fn opened(
        &mut self,
        core: &mut Core,
        slot: u32,
        (connection, pair): (Connection, Pair),
        now: Instant,
    ) {
        let participant = &mut self.participants[slot as usize];
        if participant.peer_of(connection).opened(now, pair) {
            self.drain(core, slot, connection, now);
            self.arm(core, slot);
        }
    }

    /// Takes everything out of a peer that it has ready.
    pub fn drain(&mut self, core: &mut Core, slot: u32, connection: Connection, now: Instant) {
        let Some(participant) = self.participants.get_mut(slot as usize) else {
            return;
        };
        let mut events = std::mem::take(&mut core.events);
        let drained = participant.peer_of(connection).drain(&mut events);
        for event in events.drain(..) {
            self.peer_event(core, slot, (connection, event), now);
        }
        core.events = events;
        match drained {
            Ok(deadline) => {
                if let Some(participant) = self.participants.get_mut(slot as usize) {
                    participant.set_deadline(connection, deadline.unwrap_or(now + FAR));
                }
            }
            Err(_) => self.leave(core, slot, PEER_FAILED, now),
        }
    }

    fn peer_event(
        &mut self,
        core: &mut Core,
        slot: u32,
        (connection, event): (Connection, PeerEvent),
        now: Instant,
    ) {
        let participant = &mut self.participants[slot as usize];
        match event {
            PeerEvent::Connected => self.connected(core, slot, connection, now),
            PeerEvent::Path(local, remote) if participant.sends_on(connection) => {
                participant.leg.set_path(local, remote);
            }
            PeerEvent::Path(..) => {}
            PeerEvent::Transmit {
                local,
                remote,
                contents,
            } => {
                core.send(local, remote, contents);
            }
            PeerEvent::Closed => participant.closed = Some(now),
            PeerEvent::ChannelOpen(channel) => self.channel_open(core, slot, channel, now),
            PeerEvent::ChannelDrained => self.flush_data(core, slot, now),
            PeerEvent::Data(Some(channel), message) => {
                self.data(core, slot, channel, &message, now);
            }
            PeerEvent::Data(None, _) => core.counters.drop(Dropped::DataUnknownChannel),
        }
    }

    /// ICE and DTLS are up: media can flow both ways.
    fn connected(&mut self, core: &mut Core, slot: u32, connection: Connection, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        let Some(keying) = participant.peer_of(connection).take_keys() else {
            return;
        };
        let suite = keying.suite;
        core.counters.srtp_suites[suite.index()] += 1;
        let rtp = RtpOpener::new(&keying.remote);
        let publishes = participant.downlink.is_none() || connection == Connection::Publisher;
        let control = match &mut participant.downlink {
            Some(downlink) if publishes => {
                downlink.reports = Some(Opener::new(keying.remote));
                let ssrc = OwnSsrc::claim(core.rng.u32(1..));
                Sealer::new(keying.local).register(ssrc).ok()
            }
            _ => {
                participant.leg.connect(keying);
                participant.leg.control().filter(|_| publishes)
            }
        };
        if let Some(control) = control {
            participant.uplink = Some(Uplink::new(rtp, control, now));
        }
        if participant.primary() == connection {
            self.activate(core, slot, suite.label(), now);
        }
        for track in self.participants[slot as usize].carried() {
            self.tell_publisher(core, slot, track);
        }
        self.ask_for_sections(core, slot, now);
        self.adapt(core, slot, now);
    }

    /// One opened packet on its way to everybody who has its track.
    pub fn ingress(&mut self, core: &mut Core, slot: u32, received: Received, now: Instant) {
        core.counters.packets_in += 1;
        core.counters.bytes_in += received.payload.len() as u64;
        let Some(source) = self.source(slot, received.ssrc) else {
            return core.counters.drop(Dropped::TrackUnknown);
        };
        let codecs = self.participants[slot as usize].codecs();
        let Some(format) = codecs.format(received.payload_type) else {
            return core.counters.drop(Dropped::CodecUnknown);
        };
        let codec = format.codec();
        let encoding = &mut self[source.of];
        if codec.kind() != encoding.codec.kind() {
            return core.counters.drop(Dropped::CodecUnknown);
        }
        // Redundancy may come and go by the packet, and changes nothing for others.
        if codec != encoding.codec && codec.kind() == Kind::Video {
            // What comes late tells of the codec before.
            let stream = encoding.stream(source.layer);
            let late = stream.is_some_and(|it| {
                it.ssrc == Some(received.ssrc) && !it.arrivals.is_newest(received.seq)
            });
            if late || !encoding.may_change_codec(now) {
                return core.counters.drop(Dropped::CodecUnknown);
            }
            self.change_codec(core, source.of, codec, now);
        }
        let track = &mut self.tracks[source.of.track.0 as usize];
        if track.info.announced.muted {
            return core.counters.drop(Dropped::Muted);
        }
        if let Some(level) = received.audio_level {
            track.speech.hear(level, received.timestamp, now);
        }
        let mut seq = received.seq;
        if codec.kind() == Kind::Audio {
            let level = received.audio_level;
            match self.pass_sound(core, source.of, source.layer, (seq, level), now) {
                Ok(given) => seq = given,
                Err(reason) => return core.counters.drop(reason),
            }
        }
        let track = &mut self.tracks[source.of.track.0 as usize];
        let encoding = &mut track.encodings[source.of.number];
        let Some(stream) = encoding.stream(source.layer) else {
            return;
        };
        let descriptor = received.dependency.as_deref();
        let Shown {
            frame,
            vp8,
            dependency,
        } = Shown::by(
            format,
            &received.payload,
            descriptor,
            &mut stream.dependency,
        );
        let packet = Packet {
            layer: source.layer,
            seq,
            timestamp: received.timestamp,
            audio_level: received.audio_level,
            marker: received.marker,
            arrival: now,
            payload: received.payload,
            format,
            frame,
            vp8,
            dependency,
        };
        stream.ssrc = Some(received.ssrc);
        stream.clock.packet(core.ntp(now), packet.timestamp);
        stream.note(&packet);
        if let Some(ring) = &mut stream.ring {
            ring.push(packet.clone());
        }
        let key = StreamKey {
            room: self.key,
            encoding: source.of,
            layer: source.layer,
        };
        core.bursts.push(key, &mut stream.burst, packet, now);
    }

    /// The place of a stream, looked up once and then remembered.
    fn source(&mut self, slot: u32, ssrc: u32) -> Option<Source> {
        let participant = &mut self.participants[slot as usize];
        if let Some(source) = participant
            .sources
            .iter()
            .find(|source| source.ssrc == ssrc)
        {
            return Some(*source);
        }
        let (mid, rid) = participant.uplink.as_ref()?.stream(ssrc)?;
        let Usage::Up {
            encoding: Some(of), ..
        } = participant.sections.get(&mid)?.usage
        else {
            return None;
        };
        let encoding = &self.tracks[of.track.0 as usize].encodings[of.number];
        let layer = encoding.layer_of(rid.as_deref())?;
        let source = Source { ssrc, of, layer };
        if participant.sources.len() == SOURCES_MAX {
            participant.sources.remove(0);
        }
        participant.sources.push(source);
        Some(source)
    }

    /// What a subscriber reports about the streams we send it, and a publisher about its own;
    /// whether it is authentic.
    fn feedback(
        &mut self,
        core: &mut Core,
        slot: u32,
        connection: Connection,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        let mut opened = std::mem::take(&mut core.opened);
        opened.clear();
        let participant = &mut self.participants[slot as usize];
        let result = participant.open_rtcp(connection, datagram, &mut opened);
        match result {
            Ok(()) => {
                self.participants[slot as usize].heard = now;
                for item in rtcp::read(&opened) {
                    match item {
                        Ok(item) => self.feedback_item(core, slot, item, now),
                        Err(_) => core.counters.drop(Dropped::RtcpMalformed),
                    }
                }
            }
            Err(reason) => core.counters.drop(reason),
        }
        core.opened = opened;
        result.is_ok()
    }

    fn feedback_item(&mut self, core: &mut Core, slot: u32, item: rtcp::Item<'_>, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        match item {
            rtcp::Item::Sender(info) => {
                if let Some(uplink) = &mut participant.uplink {
                    uplink.note_sender_report(*info.ssrc, info.ntp, now);
                }
                let source = participant
                    .sources
                    .iter()
                    .find(|source| source.ssrc == *info.ssrc);
                if let Some(source) = source.copied() {
                    let moment = participant.clock.observe(info.ntp, core.ntp(now));
                    if let Some(stream) = self[source.of].stream(source.layer) {
                        stream.clock.report(moment, info.rtp_timestamp);
                    }
                    let key = StreamKey {
                        room: self.key,
                        encoding: source.of,
                        layer: source.layer,
                    };
                    self.pass_clock(core, key, moment, info.rtp_timestamp);
                }
            }
            rtcp::Item::Report(block) => {
                let estimator = participant.leg.estimator();
                estimator.report(core.ntp(now), &block);
                estimator.stream_lost(now, f64::from(block.fraction_lost) / 256.0);
                if let Some((kind, sent)) = participant.leg.sent(*block.ssrc) {
                    participant.link.report(&block, kind, sent);
                }
            }
            rtcp::Item::Nack { media, lost } => {
                let mut broken = false;
                for seq in lost {
                    core.counters.nacks_received += 1;
                    broken |= !self.retransmit(core, slot, *media, seq, now);
                }
                if broken {
                    self.picture_lost(core, slot, *media, now);
                }
                core.dirty
                    .mark(self.key, slot, &mut self.participants[slot as usize].leg);
            }
            rtcp::Item::Pli(ssrc) | rtcp::Item::Fir(ssrc) => {
                core.counters.plis_received += 1;
                self.picture_lost(core, slot, *ssrc, now);
            }
            rtcp::Item::Twcc(feedback) => {
                if participant.leg.estimator().feedback(now, &feedback) {
                    self.adapt(core, slot, now);
                    self.arm(core, slot);
                }
            }
            rtcp::Item::Remb(rate) => participant.leg.estimator().receiver_says(now, rate),
            rtcp::Item::Ignored => {}
        }
    }

    /// Collects which layers of an encoding somebody needs a key frame of.
    pub fn want_key_frames(&mut self, key: EncodingKey, now: Instant) {
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let track = &mut tracks[key.track.0 as usize];
        let Encoding {
            subscribers,
            streams,
            ..
        } = &mut track.encodings[key.number];
        for subscriber in subscribers {
            let leg = &mut participants[subscriber.participant as usize].leg;
            let full = leg.pacer.pressure() == Pressure::Full;
            if !leg.is_connected() || leg.is_feeling(now) || full {
                continue;
            }
            let outgoing = leg
                .get_mut(subscriber.subscription)
                .and_then(|subscription| subscription.outgoing.as_ref());
            let Some(outgoing) = outgoing else { continue };
            for (stream, layer) in streams.iter_mut().zip(0..).map(|(it, at)| (it, Layer(at))) {
                if outgoing.layers.wants_key_frame(layer, now) {
                    stream.key_frames.want(now);
                }
            }
        }
    }

    /// Passes requests for key frames on to the publisher, as far as they aren't throttled.
    pub fn ask_publisher(&mut self, core: &mut Core, key: EncodingKey, now: Instant) {
        let shared: [bool; Layer::COUNT_MAX] = std::array::from_fn(|at| {
            let stream = self[key].streams.get(at);
            let lost = stream.is_some_and(|stream| stream.key_frames.is_lost());
            lost && self.is_shared(key, Layer(at as u8))
        });
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let track = &mut tracks[key.track.0 as usize];
        let Publisher::Here(publisher) = track.publisher else {
            return self.pass_key_frames(core, key, now);
        };
        for (stream, shared) in track.encodings[key.number].streams.iter_mut().zip(shared) {
            let Some(ssrc) = stream.ssrc else { continue };
            let uplink = &mut participants[publisher as usize].uplink;
            let mut request = |ssrc| uplink.as_mut().is_some_and(|it| it.request_key_frame(ssrc));
            if stream.key_frames.take(now, shared) && request(ssrc) {
                core.counters.plis_sent += 1;
            }
        }
        self.report_uplink(core, publisher, now);
    }

    /// The regular look at what somebody publishes: key frames owed, packets too old to repeat.
    pub fn tend_tracks(&mut self, core: &mut Core, slot: u32, now: Instant) {
        for key in self.participants[slot as usize].published.clone() {
            self.tend(core, key, now);
        }
    }

    /// The same for one track.
    pub fn tend(&mut self, core: &mut Core, key: TrackKey, now: Instant) {
        if self[key].kind() == Kind::Audio {
            return;
        }
        for number in 0..self[key].encodings.len() {
            let key = EncodingKey { track: key, number };
            for stream in &mut self[key].streams {
                stream.expire(now);
            }
            self.want_key_frames(key, now);
            self.ask_publisher(core, key, now);
        }
        self.regress(core, key, now);
        self.tell_demand(core, key, now);
    }

    /// Writes the sender reports that a participant is due.
    pub fn report(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let Self {
            tracks,
            participants,
            key: room,
            ..
        } = self;
        let leg = &mut participants[slot as usize].leg;
        let ntp = core.ntp(now);
        leg.borrow(&mut core.spare);
        let written = leg.report(now, ntp, |subscription, layer: Layer| {
            tracks[subscription.track.0 as usize].encodings[subscription.encoding]
                .streams
                .get(usize::from(layer.0))
                .and_then(|stream| stream.clock.rtp_at(ntp))
        });
        if written > 0
            && let Some(round_trip) = leg.estimator().rtt()
        {
            core.counters.round_trip_seconds.observe(round_trip, 1);
        }
        if leg.has_output(&mut core.spare) {
            core.dirty.mark(*room, slot, leg);
        }
    }
}

impl Participant {
    /// Whether one more RTP packet is within the rate a publisher may send at.
    fn may_send_packet(&mut self, now: Instant, per_second: u32) -> bool {
        let (since, count) = &mut self.packet_rate;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= per_second
    }
}

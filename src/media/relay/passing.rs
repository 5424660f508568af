//! Packets go to other parts of a room, and what is wanted of them comes back.

use std::time::Instant;

use super::{Burst, Named, Origin, Place, Pull, Word};
use crate::media::TrackKey;
use crate::media::burst::StreamKey;
use crate::media::dynacast::DELAY;
use crate::media::encoding::{ENCODINGS_MAX, Encoding, EncodingKey};
use crate::media::message::{Kind, Quality};
use crate::media::ntp::Ntp;
use crate::media::packet::Packet;
use crate::media::room::Room;
use crate::media::shard::{Core, TICK};
use crate::media::track::Publisher;

impl Room {
    /// Hands a burst to every other part that wants its stream.
    pub fn pass_burst(&self, core: &mut Core, key: StreamKey, packets: &[Packet], now: Instant) {
        let Some(spread) = &self.spread else { return };
        let EncodingKey { track, number } = key.encoding;
        let encoding = &self[key.encoding];
        let stream = encoding.streams.get(usize::from(key.layer.0));
        let ssrc = stream.and_then(|stream| stream.ssrc).unwrap_or_default();
        let place = Place {
            track,
            number,
            layer: key.layer,
        };
        let origin = self[track].publisher.origin().map(|origin| origin.link);
        // Sound goes everywhere: there is hardly a part in which nobody listens, and it tells who
        // speaks.
        let wanted = |link: u32| {
            encoding.codec.kind() == Kind::Audio
                || encoding.pulled(link, now) >= Some(encoding.quality_of(key.layer))
        };
        for (link, neighbour) in &spread.links {
            if origin == Some(link as u32) || !wanted(link as u32) {
                continue;
            }
            core.counters.relayed_out += packets.len() as u64;
            let burst = Burst {
                place,
                ssrc,
                packets: packets.to_vec(),
            };
            self.post(core, neighbour.part, Word::Burst(burst));
        }
    }

    /// Takes in what another part has opened.
    pub(super) fn take_burst(&mut self, core: &mut Core, link: u32, burst: Burst, now: Instant) {
        let Burst {
            place,
            ssrc,
            mut packets,
        } = burst;
        let Some(encoding) = self.ours(link, place) else {
            return;
        };
        if self[encoding].codec.kind() == Kind::Audio {
            let speech = &mut self[encoding.track].speech;
            for packet in &packets {
                if let Some(level) = packet.audio_level {
                    speech.hear(level, packet.timestamp, now);
                }
            }
            packets.retain_mut(|packet| {
                let known = (packet.seq, packet.audio_level);
                let admitted = self.pass_sound(core, encoding, place.layer, known, now);
                match admitted {
                    Ok(seq) => packet.seq = seq,
                    Err(reason) => core.counters.drop(reason),
                }
                admitted.is_ok()
            });
        }
        if packets.is_empty() {
            return;
        }
        let track = &mut self.tracks[encoding.track.0 as usize];
        let Some(stream) = track.encodings[encoding.number].stream(place.layer) else {
            return;
        };
        stream.ssrc = Some(ssrc);
        for packet in &packets {
            stream
                .clock
                .packet(core.ntp(packet.arrival), packet.timestamp);
            stream.note(packet);
            if let Some(ring) = &mut stream.ring {
                ring.push(packet.clone());
            }
        }
        let key = StreamKey {
            room: self.key,
            encoding,
            layer: place.layer,
        };
        core.bursts.take(key, &mut stream.burst, &mut packets);
    }

    /// A publisher's report on a stream, for those who have it in other parts.
    pub fn pass_clock(&mut self, core: &mut Core, key: StreamKey, moment: Ntp, timestamp: u32) {
        if self.spread.is_none() {
            return;
        }
        // Clients may report as often as they like.
        let now = core.now;
        let lately = |at: Instant| now.saturating_duration_since(at) < TICK;
        match self[key.encoding].stream(key.layer) {
            Some(stream) if !stream.clock_passed.is_some_and(lately) => {
                stream.clock_passed = Some(now);
            }
            _ => return,
        }
        let place = Place {
            track: key.encoding.track,
            number: key.encoding.number,
            layer: key.layer,
        };
        let origin = self[place.track].publisher.origin();
        self.tell_others(core, origin.map(|it| it.link), || {
            Word::Clock(place, moment, timestamp)
        });
    }

    pub(super) fn take_clock(
        &mut self,
        core: &mut Core,
        (link, place): (u32, Place),
        moment: Ntp,
        timestamp: u32,
    ) {
        let Some(encoding) = self.ours(link, place) else {
            return;
        };
        if let Some(stream) = self[encoding].stream(place.layer) {
            stream.clock.report(moment, timestamp);
        }
        let key = StreamKey {
            room: self.key,
            encoding,
            layer: place.layer,
        };
        self.pass_clock(core, key, moment, timestamp);
    }

    /// The stream here of a place there.
    fn ours(&self, link: u32, place: Place) -> Option<EncodingKey> {
        let link = self.spread.as_ref()?.links.get(link as usize)?;
        let track = *link.tracks.get(&place.track)?;
        let number = place.number;
        let known = self.tracks.get(track.0 as usize)?.encodings.get(number);
        known.map(|_| EncodingKey { track, number })
    }

    /// Tells the part a track comes from what is wanted of it here.
    pub fn pass_demand(&self, core: &mut Core, origin: Origin, encodings: &[Encoding]) {
        let mut wanted = [None; ENCODINGS_MAX];
        for (wanted, encoding) in wanted.iter_mut().zip(encodings) {
            *wanted = encoding.dynacast.told();
        }
        let word = Word::Demand(self.named(origin), wanted);
        self.tell(core, origin.link, word);
    }

    /// What the part a track comes from calls it.
    fn named(&self, origin: Origin) -> Named {
        let link = self
            .spread
            .as_ref()
            .and_then(|it| it.links.get(origin.link as usize));
        let ours = link.and_then(|link| link.tracks.get(&origin.track));
        let sid = ours.map(|key| self[*key].info.sid.clone());
        Named {
            key: origin.track,
            sid: sid.unwrap_or_else(|| "".into()),
        }
    }

    /// The track of ours that is called so, if it is there still.
    pub(super) fn track_named(&self, named: &Named) -> Option<TrackKey> {
        let track = self.tracks.get(named.key.0 as usize)?;
        (track.info.sid == named.sid).then_some(named.key)
    }

    pub(super) fn take_demand(
        &mut self,
        core: &mut Core,
        (link, named): (u32, &Named),
        wanted: [Option<Quality>; ENCODINGS_MAX],
        now: Instant,
    ) {
        let Some(track) = self.track_named(named) else {
            return;
        };
        let known = &mut self[track];
        for (encoding, wanted) in known.encodings.iter_mut().zip(wanted) {
            encoding.pull(link, wanted, now);
        }
        self.tell_demand(core, track, now);
    }

    /// Tells the part a track comes from that it has somebody.
    pub fn pass_subscribed(&self, core: &mut Core, origin: Origin) {
        let word = Word::Subscribed(self.named(origin));
        self.tell(core, origin.link, word);
    }

    /// Tells the part a track comes from that it can't be taken.
    pub fn pass_fault(&self, core: &mut Core, origin: Origin) {
        let word = Word::Faulty(self.named(origin));
        self.tell(core, origin.link, word);
    }

    pub(super) fn take_subscribed(&mut self, core: &mut Core, named: &Named) {
        let Some(track) = self.track_named(named) else {
            return;
        };
        if !std::mem::replace(&mut self[track].subscribed_told, true) {
            self.say_subscribed(core, track);
        }
    }

    /// Asks the part an encoding comes from for the key frames that are due.
    pub fn pass_key_frames(&mut self, core: &mut Core, key: EncodingKey, now: Instant) {
        let Publisher::There(origin) = self[key.track].publisher else {
            return;
        };
        for at in 0..self[key].streams.len() {
            // Others may get it where it comes from.
            if !self[key].streams[at].key_frames.take(now, true) {
                continue;
            }
            let place = Place {
                track: origin.track,
                number: key.number,
                layer: crate::media::packet::Layer(at as u8),
            };
            self.tell(core, origin.link, Word::KeyFrame(place));
        }
    }

    pub(super) fn take_key_frame(&mut self, core: &mut Core, place: Place, now: Instant) {
        let Place {
            track,
            number,
            layer,
        } = place;
        let known = self.tracks.get_mut(track.0 as usize);
        let encoding = known.and_then(|track| track.encodings.get_mut(number));
        if let Some(stream) = encoding.and_then(|it| it.stream(layer)) {
            stream.key_frames.want(now);
            self.ask_publisher(core, EncodingKey { track, number }, now);
        }
    }

    /// The regular look at tracks of other parts, as at those of our own: with each participant's
    /// at some of them, so that it comes to all while it comes to everybody.
    pub fn tend_remotes(&mut self, core: &mut Core, now: Instant) {
        let places = self.tracks.capacity();
        let turn = 1 + places / self.participants.len().max(1);
        for _ in 0..turn {
            let Some(spread) = &mut self.spread else {
                return;
            };
            spread.cursor = (spread.cursor + 1) % places.max(1);
            let at = spread.cursor;
            let track = self.tracks.get(at);
            if track.is_some_and(|track| track.publisher.origin().is_some()) {
                self.tend(core, TrackKey(at as u32), now);
            }
        }
    }

    /// Somebody who wanted more is gone, and no participant looks after that.
    pub(super) fn tell_all_demands(&mut self, core: &mut Core, now: Instant) {
        let all = self.tracks.iter().map(|(key, _)| TrackKey(key as u32));
        for key in all.collect::<Vec<_>>() {
            self.tell_demand(core, key, now);
        }
    }
}

impl Encoding {
    /// Nobody beyond a link wants anything of it any more.
    pub fn forget_pulls(&mut self, link: u32) {
        self.pulls.retain(|pull| pull.link != link);
    }

    /// The part beyond a link wants it like this.
    fn pull(&mut self, link: u32, wanted: Option<Quality>, now: Instant) {
        let before = self.pulled(link, now).map(|best| (best, now + DELAY));
        self.forget_pulls(link);
        self.pulls.extend(wanted.map(|wanted| Pull {
            link,
            wanted,
            before: before.filter(|(best, _)| *best > wanted),
        }));
    }

    /// What the part beyond a link is sent of it.
    fn pulled(&self, link: u32, now: Instant) -> Option<Quality> {
        let pull = self.pulls.iter().find(|pull| pull.link == link)?;
        let before = pull.before.filter(|(_, until)| now < *until);
        Some(before.map_or(pull.wanted, |(best, _)| best.max(pull.wanted)))
    }
}

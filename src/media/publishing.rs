//! Offers of a client, and what it publishes with them.
//!
//! A track needs two things that come in either order: its announcement (`AddTrack`) and a media
//! section on which the client sends. Announcements wait in [`Participant::pending`], sections in
//! [`Participant::sections`]; whenever either list grows, the two are matched.

use std::time::Instant;

use super::TrackKey;
use super::codec::Codec;
use super::counters::Dropped;
use super::encoding::{Encoding, EncodingKey};
use super::loudest::Voice;
use super::message::administration::Happened;
use super::message::{
    AddTrack, CodecInfo, Connection, Kind, Notice, Source as TrackSource, TrackInfo, TrackRefusal,
};
use super::participant::{Participant, Pending};
use super::room::{PEER_FAILED, Room};
use super::sdp::{self, Offer, Receiving, Role};
use super::section::{Section, Usage};
use super::shard::Core;
use super::speakers::{Detector, Turn};
use super::subscription::Subscription;
use super::track::{Publisher, Track};
use crate::ids::TrackSid;

impl Room {
    /// Takes an offer and answers it. An offer that can't be used ends this participant's stay.
    pub fn offer(&mut self, core: &mut Core, slot: u32, id: u32, text: &str, now: Instant) {
        if self.answer(core, slot, id, text, now).is_none() {
            tracing::debug!(participant = ?self.participants[slot as usize].sid, "unusable offer");
            return self.leave(core, slot, PEER_FAILED, now);
        }
        self.ask_for_sections(core, slot, now);
        if self.participants[slot as usize].leg.is_connected() {
            // New subscriptions get their targets and ask for key frames without a wait.
            self.adapt(core, slot, now);
        }
        // str0m may have something to send already.
        self.drain(core, slot, Connection::Publisher, now);
        self.arm(core, slot);
    }

    fn answer(
        &mut self,
        core: &mut Core,
        slot: u32,
        id: u32,
        text: &str,
        now: Instant,
    ) -> Option<()> {
        let limits = &core.config.limits;
        let offer = Offer::parse(text, limits.sdp_bytes, limits.media_sections).ok()?;
        let place = self.place(slot, Connection::Publisher);
        let participant = &mut self.participants[slot as usize];
        let from_str0m = participant
            .peer
            .accept_offer(&offer.without_downstream())
            .ok()?;
        let ufrag = participant.peer.local_ufrag();
        if ufrag != participant.ufrag {
            // The client restarted ICE, and so did we.
            core.demux.unname(&participant.ufrag);
            core.demux.name(ufrag.clone(), place);
            participant.ufrag = ufrag;
        }
        participant.codecs().read(&from_str0m);
        let lost = participant.sections.offered(&offer);
        for track in lost.carried {
            participant.leg.unbind(track);
        }
        for encoding in lost.published {
            self.end_encoding(core, encoding, now);
        }
        self.claim_sections(core, slot, now);
        if self.participants[slot as usize].downlink.is_none() {
            self.bind_sections(core, slot, now);
        }
        let participant = &mut self.participants[slot as usize];
        let usable = participant.usable(&core.config.limits.codecs);
        let codecs = participant.codecs().clone();
        let sdp = sdp::answer(&from_str0m, &codecs, |mid| {
            role(&self.tracks, participant, &usable, mid)
        });
        let mid_to_track = participant
            .sections
            .carrying()
            .map(|(mid, track)| {
                (
                    mid.to_owned(),
                    self.tracks[track.0 as usize].info.sid.clone(),
                )
            })
            .collect();
        participant.sections.answered();
        core.notify(
            participant.session,
            Notice::Answer {
                id,
                sdp,
                mid_to_track,
            },
        );
        Some(())
    }

    /// Announces a track.
    pub fn add_track(&mut self, core: &mut Core, slot: u32, request: AddTrack, now: Instant) {
        if let Some(sid) = request.sid.clone() {
            return self.add_codec(core, slot, &sid, request, now);
        }
        let session = self.participants[slot as usize].session;
        let refused = |request: &AddTrack, reason| Notice::TrackRefused {
            request: Box::new(request.clone()),
            reason,
        };
        let queued = match self.admit(core, slot, &request) {
            Admission::Refused(reason) => return core.notify(session, refused(&request, reason)),
            Admission::Known(notice) => return core.notify(session, notice),
            Admission::Accepted { queued } => queued,
        };
        let sid = TrackSid::from(core.sid(sid_prefix(&request), 10));
        let usable = self.participants[slot as usize].usable(&core.config.limits.codecs);
        let waits = queued.then(|| refused(&request, TrackRefusal::Queued));
        let pending = Pending {
            sid,
            request: normalised(request, &usable),
            queued,
        };
        core.notify(session, waits.unwrap_or_else(|| pending.notice()));
        self.participants[slot as usize].pending.push(pending);
        self.claim_sections(core, slot, now);
    }

    /// Whether a track may be announced.
    fn admit(&self, core: &Core, slot: u32, request: &AddTrack) -> Admission {
        let participant = &self.participants[slot as usize];
        if !participant.permissions.may_publish(request.source) {
            return Admission::Refused(TrackRefusal::NotAllowed);
        }
        let known = participant
            .pending
            .iter()
            .find(|pending| pending.request.cid == request.cid);
        if let Some(known) = known {
            return match known.queued {
                true => Admission::Refused(TrackRefusal::Queued),
                false => Admission::Known(known.notice()),
            };
        }
        let tracks = participant.pending.len() + participant.published.len();
        if tracks >= core.config.limits.tracks_per_participant {
            return Admission::Refused(TrackRefusal::LimitExceeded);
        }
        let published = |key: &TrackKey| self[*key].info.announced.cid == request.cid;
        Admission::Accepted {
            queued: participant.published.iter().any(published),
        }
    }

    /// Matches announced tracks with sections on which the client sends.
    pub fn claim_sections(&mut self, core: &mut Core, slot: u32, now: Instant) {
        // First by the client's own ids, then by kind: browsers change ids of tracks at times.
        for by_kind in [false, true] {
            self.claim_backups(core, slot, by_kind, now);
            loop {
                let participant = &mut self.participants[slot as usize];
                let pending = &participant.pending;
                let matched = participant.sections.unclaimed().find_map(|section| {
                    let at = pending
                        .iter()
                        .position(|pending| pending.fits(section, by_kind))?;
                    Some((section.mid.clone(), at))
                });
                let Some((mid, at)) = matched else { break };
                let pending = participant.pending.remove(at);
                self.publish(core, slot, pending, &mid, now);
            }
        }
    }

    fn publish(&mut self, core: &mut Core, slot: u32, pending: Pending, mid: &str, now: Instant) {
        let mut info = pending.info();
        let kind = info.announced.kind;
        let key = TrackKey(self.tracks.vacant_key() as u32);
        let participant = &mut self.participants[slot as usize];
        let usable = participant.usable(&core.config.limits.codecs);
        let first = EncodingKey {
            track: key,
            number: 0,
        };
        let (rids, codec) = match participant.sections.claim(mid, first) {
            Some((rids, offered)) => (rids, choose(&info.announced, &offered, &usable)),
            None => (Vec::new(), fallback(kind, &usable)),
        };
        let mut encodings = Encoding::all(&info.announced, codec, now);
        encodings[0].open(rids, now);
        info.set_codec(0, codec);
        mid.clone_into(&mut info.announced.codecs[0].mid);
        info.simulcast = encodings[0].rids.len() > 1;
        participant.published.push(key);
        self.by_sid.insert(info.sid.clone(), key);
        self.tracks.insert(Track {
            publisher: Publisher::Here(slot),
            encodings,
            regressed: false,
            subscribed_told: false,
            speech: Detector::default(),
            voice: Voice::default(),
            turn: Turn::default(),
            info,
        });
        // Others learn of the track before any SDP that carries it.
        self.changed(core, slot);
        self.offer_to_all(core, key, now);
        self.count(core, now);
        self.report_track(core, key, Happened::TrackPublished, now);
    }

    /// The client sends another codec than it was thought to.
    pub fn change_codec(&mut self, core: &mut Core, key: EncodingKey, codec: Codec, now: Instant) {
        self[key].codec = codec;
        let track = &mut self[key.track];
        track.info.set_codec(key.number, codec);
        if let Publisher::Here(slot) = track.publisher {
            self.changed(core, slot);
        }
        self.settle_all(core, key.track, now);
        self.offer_to_readers(core, key.track, now);
    }

    /// The client sends an encoding no more. With the preferred one the track ends.
    fn end_encoding(&mut self, core: &mut Core, key: EncodingKey, now: Instant) {
        if !self.tracks.contains(key.track.0 as usize) {
            // It ended with the section before.
            return;
        }
        if key.number == 0 {
            return self.end_track(core, key.track, now);
        }
        self.end_backup(core, key, now);
    }

    /// A track is no longer published: nobody receives it, nobody sees it.
    pub fn end_track(&mut self, core: &mut Core, key: TrackKey, now: Instant) {
        let track = self.remove_track(core, key, now);
        let Publisher::Here(slot) = track.publisher else {
            return;
        };
        let participant = &mut self.participants[slot as usize];
        let cid = &track.info.announced.cid;
        let next = participant
            .pending
            .iter_mut()
            .find(|p| p.queued && p.request.cid == *cid);
        if let Some(pending) = next {
            pending.queued = false;
            core.notify(participant.session, pending.notice());
        }
        self.changed(core, slot);
        self.count(core, now);
    }

    /// Ends every subscription to a track.
    pub fn withdraw(&mut self, core: &mut Core, key: TrackKey, now: Instant) {
        let subscribers: Vec<_> = self[key].subscribers().copied().collect();
        for subscriber in subscribers {
            self.unsubscribe(subscriber.participant, key);
            self.ask_for_sections(core, subscriber.participant, now);
        }
    }

    /// Takes a track out without telling who sees it.
    pub fn remove_track(&mut self, core: &mut Core, key: TrackKey, now: Instant) -> Track {
        self.withdraw(core, key, now);
        self.report_track(core, key, Happened::TrackUnpublished, now);
        let track = self.tracks.remove(key.0 as usize);
        self.by_sid.remove(&track.info.sid);
        let streams = track.encodings.iter().flat_map(|it| &it.streams);
        for _ in 0..streams.map(|stream| stream.burst.len()).sum() {
            core.counters.drop(Dropped::TrackUnknown);
        }
        for (_, participant) in &mut self.participants {
            participant.denied.remove(&key);
        }
        match track.publisher {
            Publisher::Here(slot) => {
                let participant = &mut self.participants[slot as usize];
                participant.published.retain(|published| *published != key);
                participant.sources.retain(|source| source.of.track != key);
                participant.sections.unclaim(key);
            }
            Publisher::There(origin) => self.unmirror(key, origin),
        }
        track
    }

    /// Changes what was announced of an own track, published or not yet.
    pub fn amend(
        &mut self,
        core: &mut Core,
        slot: u32,
        sid: &TrackSid,
        now: Instant,
        change: impl FnOnce(&mut AddTrack),
    ) {
        let pending = &mut self.participants[slot as usize].pending;
        if let Some(pending) = pending.iter_mut().find(|pending| pending.sid == *sid) {
            return change(&mut pending.request);
        }
        let own = |key: &&TrackKey| self[**key].publisher.slot() == Some(slot);
        if let Some(key) = self.by_sid.get(sid).filter(own).copied() {
            change(&mut self[key].info.announced);
            self.changed_soon(core, slot, now);
        }
    }

    /// Mutes or unmutes an own track, published or only announced.
    pub fn mute(&mut self, core: &mut Core, slot: u32, sid: TrackSid, muted: bool, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        if let Some(pending) = participant
            .pending
            .iter_mut()
            .find(|pending| pending.sid == sid)
        {
            pending.request.muted = muted;
            return;
        }
        let own = |key: &&TrackKey| self.tracks[key.0 as usize].publisher.slot() == Some(slot);
        let Some(key) = self.by_sid.get(&sid).filter(own).copied() else {
            return core.notify(
                participant.session,
                Notice::MuteRefused { track: sid, muted },
            );
        };
        let track = &mut self[key];
        if std::mem::replace(&mut track.info.announced.muted, muted) == muted {
            return;
        }
        self.changed_soon(core, slot, now);
        self.pause_all(core, key, muted, now);
    }

    /// A track was muted or unmuted: nothing goes out of it for now, or whoever had it has it
    /// again.
    pub fn pause_all(&mut self, core: &mut Core, key: TrackKey, muted: bool, now: Instant) {
        let track = &mut self[key];
        track.resume(now);
        let subscribers: Vec<_> = track.subscribers().copied().collect();
        for subscriber in subscribers {
            if muted {
                let leg = &mut self.participants[subscriber.participant as usize].leg;
                leg.get_mut(subscriber.subscription)
                    .map(Subscription::pause);
            } else if self[key].kind() == Kind::Video {
                self.adapt(core, subscriber.participant, now);
            }
        }
    }
}

/// What becomes of an announcement.
enum Admission {
    Refused(TrackRefusal),
    /// It was announced before and waits for its section; said again.
    Known(Notice),
    /// `queued`: once the published track of the same client id has ended.
    Accepted {
        queued: bool,
    },
}

impl Pending {
    /// As others will see it.
    pub fn info(&self) -> TrackInfo {
        TrackInfo {
            sid: self.sid.clone(),
            simulcast: self.request.layers.len() > 1 && !self.is_layered(),
            announced: self.request.clone(),
        }
    }

    /// Whether all its layers are to come in one stream.
    fn is_layered(&self) -> bool {
        let first = self.request.codecs.first().filter(|info| !info.apart);
        let codec = first.and_then(|info| Codec::named(&info.mime));
        codec.is_some_and(Codec::is_layered)
    }

    /// What its publisher is told of it.
    pub fn notice(&self) -> Notice {
        Notice::TrackPublished {
            cid: self.request.cid.clone(),
            track: Box::new(self.info()),
        }
    }

    fn fits(&self, section: &Section, by_kind: bool) -> bool {
        let Usage::Up { track_id, .. } = &section.usage else {
            return false;
        };
        if self.queued || self.request.kind != section.kind {
            return false;
        }
        let same = |cid: &str| Some(cid) == track_id.as_deref();
        by_kind
            || same(&self.request.cid)
            || self.request.codecs.iter().any(|codec| same(&codec.cid))
    }
}

/// What the answer says of the section `mid`.
fn role(
    tracks: &slab::Slab<Track>,
    participant: &Participant,
    enabled: &[Codec],
    mid: &str,
) -> Role {
    let Some(section) = participant.sections.get(mid) else {
        return Role::Idle;
    };
    match &section.usage {
        Usage::Up {
            encoding, codecs, ..
        } => {
            let track = encoding.map(|of| &tracks[of.track.0 as usize]);
            let codec = encoding.map(|of| tracks[of.track.0 as usize].encodings[of.number].codec);
            let announced = track.map(|track| &track.info.announced);
            // Not announced yet: the client's own first choice will be.
            let first = || codecs.iter().copied().find(|codec| enabled.contains(codec));
            Role::Receive(Receiving {
                dtx: announced.is_some_and(|track| !track.disable_dtx),
                stereo: announced.is_some_and(|track| track.stereo),
                codec: codec.or_else(first),
                alone: section.kind == Kind::Video && participant.client.quirks.ignores_codec_order,
            })
        }
        Usage::Carrying(key) => participant.leg.sending(*key).map_or(Role::Idle, Role::Send),
        _ => Role::Idle,
    }
}

/// `TR_`, a letter for the kind and one for the source, as LiveKit's ids begin.
fn sid_prefix(request: &AddTrack) -> &'static str {
    match (request.kind, request.source) {
        (Kind::Audio, TrackSource::Microphone) => "TR_AM",
        (Kind::Audio, TrackSource::ScreenShareAudio) => "TR_As",
        (Kind::Audio, _) => "TR_A",
        (Kind::Video, TrackSource::Camera) => "TR_VC",
        (Kind::Video, TrackSource::ScreenShare) => "TR_VS",
        (Kind::Video, _) => "TR_V",
    }
}

/// What a track is expected to be sent with: what was announced, if its section and we allow that,
/// else the first that both do.
fn choose(announced: &AddTrack, offered: &[Codec], enabled: &[Codec]) -> Codec {
    let both = |codec: &Codec| offered.contains(codec) && enabled.contains(codec);
    let named = |info: &CodecInfo| Codec::named(&info.mime);
    let first = announced.codecs.first().and_then(named);
    // Frames that are encrypted end to end can't be told from their repetitions.
    let redundant = !announced.disable_red && announced.encryption == 0;
    match announced.kind {
        Kind::Audio if redundant && both(&Codec::Red) => Codec::Red,
        Kind::Audio => Codec::Opus,
        Kind::Video => {
            let preferred = first.filter(both);
            let any = || {
                enabled
                    .iter()
                    .copied()
                    .find(|it| it.kind() == Kind::Video && both(it))
            };
            let codec = preferred.or_else(any);
            codec.unwrap_or(fallback(Kind::Video, enabled))
        }
    }
}

/// The codec of a kind that every client has.
fn fallback(kind: Kind, enabled: &[Codec]) -> Codec {
    let first = enabled.iter().copied().find(|codec| codec.kind() == kind);
    first.unwrap_or(match kind {
        Kind::Audio => Codec::Opus,
        Kind::Video => Codec::Vp8,
    })
}

impl TrackInfo {
    /// The encoding of that number turned out to have this codec.
    fn set_codec(&mut self, number: usize, codec: Codec) {
        if let Some(info) = self.announced.codecs.get_mut(number) {
            codec.mime().clone_into(&mut info.mime);
        }
    }
}

/// A request with what we make of it: codecs that are enabled, and never none.
fn normalised(mut request: AddTrack, enabled: &[Codec]) -> AddTrack {
    let kind = request.kind;
    let usable = |info: &CodecInfo| {
        Codec::named(&info.mime).filter(|it| it.kind() == kind && enabled.contains(it))
    };
    let mut announced = std::mem::take(&mut request.codecs).into_iter();
    let mut first = announced.next().unwrap_or_else(|| CodecInfo {
        mime: String::new(),
        cid: request.cid.clone(),
        mid: String::new(),
        apart: false,
        layers: request.layers.clone(),
    });
    if !first.mime.is_empty() {
        let codec = usable(&first).unwrap_or(fallback(kind, enabled));
        codec.mime().clone_into(&mut first.mime);
    }
    // Audio has no backup, and what can't be used or is the same again is none.
    let backup = announced.find(|info| {
        let other = info.mime != first.mime;
        kind == Kind::Video && other && usable(info).is_some()
    });
    request.codecs = std::iter::once(first).chain(backup).collect();
    request
}

//! Participants and tracks of other parts of a room, kept as they are there.

use std::sync::Arc;
use std::time::Instant;

use super::{EncodingShape, Origin, Present, REMOTE, Remote, Shape, Spread, Word};
use crate::ids::ParticipantSid;
use crate::media::TrackKey;
use crate::media::data::{Channel, Envelope};
use crate::media::dynacast::Dynacast;
use crate::media::encoding::{Encoding, EncodingKey};
use crate::media::loudest::Voice;
use crate::media::message::{
    ConnectionQuality, Departure, LeaveAction, LeaveReason, Notice, ParticipantInfo, TrackInfo,
};
use crate::media::room::Room;
use crate::media::shard::Core;
use crate::media::simulation::Simulated;
use crate::media::speakers::{Detector, Turn};
use crate::media::track::{Publisher, Track};

/// What follows of a participant's tracks that have changed.
#[derive(Default)]
struct Changes {
    /// Not known before.
    new: Vec<TrackKey>,
    /// In other codecs than before.
    recoded: Vec<TrackKey>,
    /// Encodings that begin to come.
    opened: Vec<EncodingKey>,
    /// Muted or not, unlike before.
    muted: Vec<(TrackKey, bool)>,
}

impl Room {
    /// A participant as other parts are told of it.
    pub(super) fn present(&self, slot: u32) -> Present {
        let participant = &self.participants[slot as usize];
        Present {
            info: self.info_of(slot),
            tracks: self.shapes(&participant.published),
            allowances: participant.allowances.clone(),
        }
    }

    /// The same of one that another part told us of.
    pub(super) fn present_again(&self, remote: u32) -> Option<Present> {
        let remote = self.spread.as_ref()?.remotes.get(remote as usize)?;
        Some(Present {
            info: Arc::clone(&remote.info),
            tracks: self.shapes(&remote.published),
            allowances: remote.allowances.clone(),
        })
    }

    fn shapes(&self, published: &[TrackKey]) -> Vec<Shape> {
        let shape = |key: &TrackKey| {
            let track = &self[*key];
            Shape {
                sid: track.info.sid.clone(),
                key: *key,
                regressed: track.regressed,
                encodings: track.encodings.iter().map(EncodingShape::of).collect(),
            }
        };
        published.iter().map(shape).collect()
    }

    /// Tells the other parts how a participant looks now.
    pub fn pass_present(&self, core: &mut Core, slot: u32) {
        if self.spread.is_some() {
            self.tell_others(core, None, || Word::Present(Box::new(self.present(slot))));
        }
    }

    /// Tells the other parts that a participant has left.
    pub fn pass_absent(
        &self,
        core: &mut Core,
        origin: Option<u32>,
        info: &Arc<ParticipantInfo>,
        reason: LeaveReason,
    ) {
        self.tell_others(core, origin, || Word::Absent {
            info: Arc::clone(info),
            reason,
        });
    }

    /// Tells the other parts of a data message.
    pub fn pass_data(&self, core: &mut Core, channel: Channel, message: &Arc<[u8]>) {
        self.tell_others(core, None, || Word::Data(channel, Arc::clone(message)));
    }

    /// Another part says how a participant looks now.
    pub(super) fn take_present(
        &mut self,
        core: &mut Core,
        link: u32,
        present: Present,
        now: Instant,
    ) {
        let Present {
            info,
            tracks,
            allowances,
        } = present;
        let (key, was_seen) = self.keep(core, link, &info, now);
        let changes = self.adopt(core, (link, key), tracks, now);
        let Some(spread) = &mut self.spread else {
            return;
        };
        let remote = &mut spread.remotes[key as usize];
        let same = match (&remote.allowances, &allowances) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        remote.allowances = allowances;
        let published = remote.published.clone();
        if let Some(present) = self.present_again(key) {
            let again = || Word::Present(Box::new(present.clone()));
            self.tell_others(core, Some(link), again);
        }
        let seen = !info.permissions.hidden;
        match (was_seen, seen) {
            (_, true) => self.tell_all(core, &info),
            (true, false) => {
                for key in &published {
                    self.withdraw(core, *key, now);
                }
                self.tell_all(core, &Arc::new(info.gone(LeaveReason::ClientInitiated)));
            }
            (false, false) => {}
        }
        self.used = true;
        self.follow(core, changes, now);
        if seen && !was_seen {
            for key in &published {
                self.offer_to_all(core, *key, now);
            }
        }
        if !same {
            self.enforce(core, None, &published, now);
        }
        self.count(core, now);
    }

    /// Keeps what a participant of another part looks like: its place, and whether it was to be
    /// seen before.
    fn keep(
        &mut self,
        core: &mut Core,
        link: u32,
        info: &Arc<ParticipantInfo>,
        now: Instant,
    ) -> (u32, bool) {
        let spread = self.spread.get_or_insert_default();
        if let Some(key) = spread.by_sid.get(&info.sid).copied() {
            let remote = &mut spread.remotes[key as usize];
            let before = std::mem::replace(&mut remote.info, Arc::clone(info));
            return (key, !before.permissions.hidden);
        }
        let remote = Remote {
            link,
            info: Arc::clone(info),
            allowances: None,
            published: Vec::new(),
            simulated: Simulated::default(),
            quality: None,
        };
        let key = spread.remotes.insert(remote) as u32;
        spread.by_sid.insert(info.sid.clone(), key);
        spread.lead_to(key);
        self.yield_to(core, info, now);
        (key, false)
    }

    /// The same identity has a stay in another part: the older one ends, of two at once the same
    /// in both.
    fn yield_to(&mut self, core: &mut Core, info: &ParticipantInfo, now: Instant) {
        let Some(slot) = self.by_identity.get(&info.identity).copied() else {
            return;
        };
        let own = &self.participants[slot as usize];
        if (own.joined_at_ms, &own.sid) < (info.joined_at_ms, &info.sid) {
            let departure = Departure {
                reason: LeaveReason::DuplicateIdentity,
                action: LeaveAction::Disconnect,
            };
            self.leave(core, slot, departure, now);
        }
    }

    /// Brings the tracks of a remote participant up to what its part says; what follows of it.
    fn adopt(
        &mut self,
        core: &mut Core,
        (link, remote): (u32, u32),
        shapes: Vec<Shape>,
        now: Instant,
    ) -> Changes {
        let mut changes = Changes::default();
        let Some(spread) = &self.spread else {
            return changes;
        };
        let known = &spread.remotes[remote as usize];
        let info = Arc::clone(&known.info);
        let stays = |key: &TrackKey| {
            let sid = &self[*key].info.sid;
            shapes.iter().any(|shape| shape.sid == *sid)
        };
        let gone = known.published.iter().copied();
        for key in gone.filter(|key| !stays(key)).collect::<Vec<_>>() {
            self.remove_track(core, key, now);
        }
        for shape in shapes {
            let described = info.tracks.iter().find(|track| track.sid == shape.sid);
            let Some(described) = described else { continue };
            match self.by_sid.get(&shape.sid).copied() {
                Some(key) => self.reshape(key, described, &shape, &mut changes, now),
                None => {
                    let key = self.mirror((link, remote), described, &shape, now);
                    changes.new.push(key);
                }
            }
        }
        changes
    }

    /// A track that wasn't known.
    fn mirror(
        &mut self,
        (link, remote): (u32, u32),
        info: &TrackInfo,
        shape: &Shape,
        now: Instant,
    ) -> TrackKey {
        let origin = Origin {
            remote,
            link,
            track: shape.key,
        };
        let encodings = shape.encodings.iter().map(|it| it.encoding(now));
        let track = Track {
            info: info.clone(),
            publisher: Publisher::There(origin),
            encodings: encodings.collect(),
            regressed: shape.regressed,
            subscribed_told: false,
            speech: Detector::default(),
            voice: Voice::default(),
            turn: Turn::default(),
        };
        let key = TrackKey(self.tracks.insert(track) as u32);
        self.by_sid.insert(info.sid.clone(), key);
        if let Some(spread) = &mut self.spread {
            spread.remotes[remote as usize].published.push(key);
            if let Some(link) = spread.links.get_mut(link as usize) {
                link.tracks.insert(shape.key, key);
            }
        }
        key
    }

    /// A track that was known may have changed.
    fn reshape(
        &mut self,
        key: TrackKey,
        info: &TrackInfo,
        shape: &Shape,
        changes: &mut Changes,
        now: Instant,
    ) {
        let before = std::mem::replace(&mut self[key].info, info.clone());
        let muted = info.announced.muted;
        if before.announced.muted != muted {
            changes.muted.push((key, muted));
        }
        let mut recoded = self[key].regressed != shape.regressed;
        for (number, shape) in shape.encodings.iter().enumerate() {
            let of = EncodingKey { track: key, number };
            let Some(encoding) = self[key].encodings.get_mut(number) else {
                continue;
            };
            recoded |= encoding.codec != shape.codec;
            encoding.announced = shape.announced;
            encoding.codec = shape.codec;
            encoding.sizes.clone_from(&shape.sizes);
            let rids = (!encoding.streams.is_empty()).then(|| encoding.rids.clone());
            if rids == shape.rids {
                continue;
            }
            if rids.is_some() {
                self.close_backup(of);
                recoded = true;
            }
            if let Some(rids) = &shape.rids {
                self[of].open(rids.clone(), now);
                changes.opened.push(of);
            }
        }
        self[key].regressed = shape.regressed;
        if recoded {
            changes.recoded.push(key);
        }
    }

    /// Does what changes of tracks ask for, after all were told of them.
    fn follow(&mut self, core: &mut Core, changes: Changes, now: Instant) {
        for key in changes.new {
            self.offer_to_all(core, key, now);
        }
        for key in changes.recoded {
            self.settle_all(core, key, now);
            self.offer_to_readers(core, key, now);
        }
        for of in changes.opened {
            for subscriber in self[of].subscribers.clone() {
                self.adapt(core, subscriber.participant, now);
            }
        }
        for (key, muted) in changes.muted {
            self.pause_all(core, key, muted, now);
        }
    }

    /// Tells everybody here how somebody of another part looks now.
    fn tell_all(&self, core: &mut Core, info: &Arc<ParticipantInfo>) {
        for (_, participant) in &self.participants {
            // One of two stays of an identity is about to end, and a client would take news of the
            // other for its own.
            if participant.identity != info.identity {
                core.notify(participant.session, Notice::Participant(Arc::clone(info)));
            }
        }
    }

    /// A participant of another part has left.
    pub(super) fn take_absent(
        &mut self,
        core: &mut Core,
        link: u32,
        info: &Arc<ParticipantInfo>,
        reason: LeaveReason,
        now: Instant,
    ) {
        if self.drop_remote(core, &info.sid, now).is_none() {
            return;
        }
        self.pass_absent(core, Some(link), info, reason);
        if !info.permissions.hidden {
            self.say_goodbye(core, info, reason, now);
        }
        self.count(core, now);
    }

    /// Everybody beyond a link is gone.
    pub(super) fn forget_people(&mut self, core: &mut Core, link: u32, now: Instant) {
        let remotes = self.spread.iter().flat_map(|spread| &spread.remotes);
        let gone = remotes.filter(|(_, remote)| remote.link == link);
        let gone: Vec<_> = gone.map(|(_, remote)| Arc::clone(&remote.info)).collect();
        for info in gone {
            let reason = LeaveReason::Internal;
            let last = Arc::new(info.gone(reason));
            self.take_absent(core, link, &last, reason, now);
        }
    }

    fn drop_remote(&mut self, core: &mut Core, sid: &ParticipantSid, now: Instant) -> Option<()> {
        let spread = self.spread.as_mut()?;
        let key = *spread.by_sid.get(sid)?;
        for track in spread.remotes[key as usize].published.clone() {
            self.remove_track(core, track, now);
        }
        let spread = self.spread.as_mut()?;
        let gone = spread.remotes.remove(key as usize);
        self.loudest.forget(REMOTE + key);
        self.floor.forget(REMOTE + key);
        spread.by_sid.remove(sid);
        let identity = &gone.info.identity;
        if spread.by_identity.get(identity) == Some(&key) {
            spread.by_identity.remove(identity);
            let all = spread.remotes.iter();
            let same = all.filter(|(_, remote)| remote.info.identity == *identity);
            for key in same.map(|(key, _)| key as u32).collect::<Vec<_>>() {
                spread.lead_to(key);
            }
        }
        Some(())
    }

    /// A track of another part is gone.
    pub fn unmirror(&mut self, key: TrackKey, origin: Origin) {
        let Some(spread) = &mut self.spread else {
            return;
        };
        if let Some(remote) = spread.remotes.get_mut(origin.remote as usize) {
            remote.published.retain(|published| *published != key);
        }
        if let Some(link) = spread.links.get_mut(origin.link as usize) {
            link.tracks.remove(&origin.track);
        }
    }

    /// A data message of somebody in another part.
    pub(super) fn take_data(
        &mut self,
        core: &mut Core,
        link: u32,
        channel: Channel,
        message: &Arc<[u8]>,
        now: Instant,
    ) {
        // It was read where it came from, and then written anew.
        let Ok(envelope) = Envelope::read(message) else {
            return;
        };
        self.deliver(core, None, channel, (message, &envelope), now);
        self.tell_others(core, Some(link), || {
            Word::Data(channel, Arc::clone(message))
        });
    }

    /// How the connection of somebody in another part is.
    pub(super) fn take_quality(
        &mut self,
        core: &mut Core,
        link: u32,
        sid: &ParticipantSid,
        quality: Option<f32>,
    ) {
        let Some(spread) = &mut self.spread else {
            return;
        };
        if let Some(key) = spread.by_sid.get(sid) {
            spread.remotes[*key as usize].quality = Some(quality);
        }
        self.tell_others(core, Some(link), || Word::Quality(sid.clone(), quality));
    }

    /// Tells the other parts that somebody's speech is simulated.
    pub fn pass_speech(
        &self,
        core: &mut Core,
        origin: Option<u32>,
        sid: &ParticipantSid,
        end: Instant,
    ) {
        self.tell_others(core, origin, || Word::Speech(sid.clone(), end));
    }

    pub(super) fn take_speech(
        &mut self,
        core: &mut Core,
        link: u32,
        sid: &ParticipantSid,
        end: Instant,
    ) {
        let Some(spread) = &mut self.spread else {
            return;
        };
        if let Some(key) = spread.by_sid.get(sid) {
            spread.remotes[*key as usize].simulated.speak(end);
        }
        self.pass_speech(core, Some(link), sid, end);
    }

    /// Tells the other parts what changed about the connections of those who publish here.
    pub fn pass_qualities(
        &mut self,
        core: &mut Core,
        qualities: &[(u32, ParticipantSid, Option<f32>)],
    ) {
        let Some(spread) = &mut self.spread else {
            return;
        };
        let mut known = std::mem::take(&mut spread.qualities);
        let publish = |slot: u32| {
            let participant = self.participants.get(slot as usize);
            participant.is_some_and(|who| !who.published.is_empty())
        };
        let current = qualities.iter().filter(|(slot, ..)| publish(*slot));
        let mut news = Vec::new();
        known.update(
            current.map(|(slot, sid, score)| (*slot, sid, ConnectionQuality::rated(*score))),
            |sid, quality| {
                let score = qualities.iter().find(|(_, other, _)| *other == sid);
                if let (Some(_), Some((.., score))) = (quality, score) {
                    news.push((sid, *score));
                }
            },
        );
        if let Some(spread) = &mut self.spread {
            spread.qualities = known;
        }
        for (sid, score) in news {
            self.tell_others(core, None, || Word::Quality(sid.clone(), score));
        }
    }
}

impl Spread {
    /// The identity leads to this stay from now on, unless it leads to a later one.
    fn lead_to(&mut self, key: u32) {
        let since = |remote: &Remote| (remote.info.joined_at_ms, remote.info.sid.clone());
        let remote = &self.remotes[key as usize];
        let holder = self.by_identity.get(&remote.info.identity);
        let holder = holder.and_then(|holder| self.remotes.get(*holder as usize));
        if holder.is_none_or(|holder| since(holder) < since(remote)) {
            self.by_identity.insert(remote.info.identity.clone(), key);
        }
    }
}

impl EncodingShape {
    fn of(encoding: &Encoding) -> Self {
        Self {
            announced: encoding.announced,
            codec: encoding.codec,
            sizes: encoding.sizes.clone(),
            rids: (!encoding.streams.is_empty()).then(|| encoding.rids.clone()),
        }
    }

    /// An encoding that comes like this, and of which nobody wants anything yet.
    fn encoding(&self, now: Instant) -> Encoding {
        let mut encoding = Encoding::new(self.codec, self.sizes.clone(), Dynacast::silent(), now);
        encoding.announced = self.announced;
        if let Some(rids) = &self.rids {
            encoding.open(rids.clone(), now);
        }
        encoding
    }
}

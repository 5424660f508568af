//! Backup codecs: how a track gets its second encoding, and which of the two somebody gets.
//!
//! A client that announces a track with a backup sends only the codec it prefers. A subscriber that
//! can't read it is put to the backup, and the publisher is told that it is wanted. Then the client
//! announces it under the id of the track, and offers a section for it:
//!
//! ```text
//!   subscriber      server                                   publisher
//!      |-- offer -->| settle: can't read VP9, can read VP8       |
//!      |            |-- demand: VP9 none, VP8 high ------------->|
//!      |            |<- AddTrack with `sid`, offer with section -|
//!      |<-- VP8 ----|<-- VP8 and VP9, as far as either is wanted |
//! ```

use std::time::Instant;

use super::TrackKey;
use super::codec::Codec;
use super::encoding::{Encoding, EncodingKey};
use super::message::{AddTrack, BackupPolicy, Kind, Notice, TrackRefusal};
use super::room::Room;
use super::section::{Section, Usage};
use super::shard::Core;
use super::track::{Publisher, Track};
use crate::ids::TrackSid;

impl Room {
    /// Announces the backup of an own track.
    pub fn add_codec(
        &mut self,
        core: &mut Core,
        slot: u32,
        sid: &TrackSid,
        request: AddTrack,
        now: Instant,
    ) {
        let session = self.participants[slot as usize].session;
        match self.announce_codec(slot, sid, &request) {
            Ok(key) => {
                let track = Box::new(self[key].info.clone());
                let cid = request.cid;
                core.notify(session, Notice::TrackPublished { cid, track });
                self.claim_sections(core, slot, now);
            }
            Err(reason) => {
                let request = Box::new(request);
                core.notify(session, Notice::TrackRefused { request, reason });
            }
        }
    }

    fn announce_codec(
        &mut self,
        slot: u32,
        sid: &TrackSid,
        request: &AddTrack,
    ) -> Result<TrackKey, TrackRefusal> {
        let participant = &self.participants[slot as usize];
        let own = |key: &&TrackKey| self[**key].publisher.slot() == Some(slot);
        let key = self.by_sid.get(sid).filter(own).copied();
        let key = key.ok_or(TrackRefusal::NotFound)?;
        let track = &self.tracks[key.0 as usize];
        if !participant
            .permissions
            .may_publish(track.info.announced.source)
        {
            return Err(TrackRefusal::NotAllowed);
        }
        let first = request.codecs.first().ok_or(TrackRefusal::Unsupported)?;
        let codec = Codec::named(&first.mime);
        // A backup was announced with the track, or never will be.
        let mut encodings = track.encodings.iter().enumerate().skip(1);
        let backup = encodings.find(|(_, it)| Some(it.announced) == codec);
        let (number, _) = backup.ok_or(TrackRefusal::Unsupported)?;
        let encoding = &mut self[EncodingKey { track: key, number }];
        if encoding.streams.is_empty() {
            encoding.sizes.clone_from(match first.layers.is_empty() {
                true => &request.layers,
                false => &first.layers,
            });
            let announced = &mut self[key].info.announced.codecs[number];
            announced.cid.clone_from(&request.cid);
            announced.layers.clone_from(&first.layers);
        }
        Ok(key)
    }

    /// Matches announced backups with sections on which the client sends.
    pub fn claim_backups(&mut self, core: &mut Core, slot: u32, by_kind: bool, now: Instant) {
        loop {
            let participant = &self.participants[slot as usize];
            let tracks = &self.tracks;
            let matched = participant.sections.unclaimed().find_map(|section| {
                let mut published = participant.published.iter();
                let of = published.find_map(|key| {
                    let number = tracks[key.0 as usize].awaits(section, by_kind)?;
                    Some(EncodingKey {
                        track: *key,
                        number,
                    })
                })?;
                Some((section.mid.clone(), of))
            });
            let Some((mid, of)) = matched else { return };
            self.open_backup(core, slot, (&mid, of), now);
        }
    }

    /// A backup has its media section.
    fn open_backup(
        &mut self,
        core: &mut Core,
        slot: u32,
        (mid, of): (&str, EncodingKey),
        now: Instant,
    ) {
        let sections = &mut self.participants[slot as usize].sections;
        let (rids, _) = sections.claim(mid, of).unwrap_or_default();
        self[of].open(rids, now);
        mid.clone_into(&mut self[of.track].info.announced.codecs[of.number].mid);
        self.changed(core, slot);
        for subscriber in self[of].subscribers.clone() {
            self.adapt(core, subscriber.participant, now);
        }
    }

    /// A backup is not sent any more. Who has it waits for it to come back.
    pub fn end_backup(&mut self, core: &mut Core, of: EncodingKey, now: Instant) {
        self.close_backup(of);
        let announced = &mut self[of.track].info.announced.codecs[of.number];
        announced.cid.clear();
        announced.mid.clear();
        if let Publisher::Here(publisher) = self[of.track].publisher {
            let sources = &mut self.participants[publisher as usize].sources;
            sources.retain(|source| source.of != of);
            self.changed(core, publisher);
        }
        self.settle_all(core, of.track, now);
    }

    /// Nothing comes of an encoding any more; who has it starts anew with what comes next.
    pub fn close_backup(&mut self, of: EncodingKey) {
        self[of].close();
        for subscriber in self[of].subscribers.clone() {
            let leg = &mut self.participants[subscriber.participant as usize].leg;
            if let Some(subscription) = leg.get_mut(subscriber.subscription) {
                subscription.recode(of.number);
            }
        }
        self[of.track].regressed = false;
    }

    /// Gives everybody the backup of a track if its publisher wants that, once it comes: until then
    /// the first codec goes on.
    pub fn regress(&mut self, core: &mut Core, key: TrackKey, now: Instant) {
        let track = &mut self[key];
        let forced = track.info.announced.backup_policy == BackupPolicy::Regression;
        let comes = |it: &Encoding| it.streams.iter().any(|stream| stream.ssrc.is_some());
        let comes = track.encodings.get(1).is_some_and(comes);
        // Of a track of another part that part says so.
        if let Publisher::Here(slot) = track.publisher
            && forced
            && comes
            && !track.regressed
        {
            track.regressed = true;
            self.pass_present(core, slot);
            self.settle_all(core, key, now);
        }
    }

    /// Gives a subscriber the best encoding of a track that it can read. If it can read none, this
    /// ends the subscription; whether it goes on.
    pub fn settle(&mut self, core: &mut Core, slot: u32, key: TrackKey, now: Instant) -> bool {
        let track = &mut self.tracks[key.0 as usize];
        let leg = &mut self.participants[slot as usize].leg;
        let Some(wanted) = track.readable(&leg.codecs) else {
            self.refuse_codec(core, slot, key);
            return false;
        };
        let Some(subscription) = leg.find_mut(key) else {
            return false;
        };
        let current = subscription.encoding;
        if current != wanted
            && let Some(subscriber) = track.encodings[current].leave(slot)
        {
            subscription.recode(wanted);
            track.encodings[wanted].subscribers.push(subscriber);
            self.tell_demand(core, key, now);
        }
        true
    }

    /// The codecs of a track are others now.
    pub fn settle_all(&mut self, core: &mut Core, key: TrackKey, now: Instant) {
        let subscribers: Vec<_> = self[key].subscribers().copied().collect();
        for subscriber in subscribers {
            let slot = subscriber.participant;
            if self.settle(core, slot, key, now) {
                self.adapt(core, slot, now);
            } else {
                self.ask_for_sections(core, slot, now);
            }
        }
    }
}

impl Track {
    /// The encoding that was announced and has no section yet, if this may be it.
    fn awaits(&self, section: &Section, by_kind: bool) -> Option<usize> {
        let Usage::Up { track_id, .. } = &section.usage else {
            return None;
        };
        if section.kind != Kind::Video {
            return None;
        }
        let mut codecs = self.info.announced.codecs.iter().enumerate().skip(1);
        let awaited = codecs.find(|(_, info)| {
            let waits = !info.cid.is_empty() && info.mid.is_empty();
            waits && (by_kind || Some(info.cid.as_str()) == track_id.as_deref())
        });
        awaited.map(|(number, _)| number)
    }
}

//! Who receives what: subscriptions come and go here, and get the media sections that carry them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::TrackKey;
use super::egress::{Leg, Names};
use super::encoding::EncodingKey;
use super::message::{Notice, ParticipantState, Quality, TrackSettings};
use super::participant::{Participant, WISHES_MAX};
use super::room::Room;
use super::shard::Core;
use super::track::{Publisher, Subscriber};
use crate::ids::TrackSid;

impl Room {
    /// A newcomer subscribes to all there is, as far as it wants.
    pub fn subscribe_to_all(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let all: Vec<_> = self
            .tracks
            .iter()
            .map(|(key, _)| TrackKey(key as u32))
            .collect();
        for track in all {
            if self.subscribe(core, slot, track, now) {
                self.tell_demand(core, track, now);
            }
        }
        self.ask_for_sections(core, slot, now);
    }

    /// A new track goes to everybody who wants it.
    pub fn offer_to_all(&mut self, core: &mut Core, track: TrackKey, now: Instant) {
        let all: Vec<_> = self
            .participants
            .iter()
            .map(|(slot, _)| slot as u32)
            .collect();
        for slot in all {
            if self.subscribe(core, slot, track, now) {
                self.ask_for_sections(core, slot, now);
            }
        }
        // A client sends what it has published until it is told otherwise; another part doesn't.
        if self[track].publisher.origin().is_some() {
            self.tell_demand(core, track, now);
        }
    }

    /// A track came to be readable: who has refused its codec before gets it now.
    pub fn offer_to_readers(&mut self, core: &mut Core, key: TrackKey, now: Instant) {
        let track = &self.tracks[key.0 as usize];
        let reads = |leg: &Leg| leg.find(key).is_none() && track.readable(&leg.codecs).is_some();
        let readers = self.participants.iter();
        let readers = readers.filter(|(_, who)| reads(&who.leg));
        let readers: Vec<_> = readers.map(|(slot, _)| slot as u32).collect();
        for slot in readers {
            if self.subscribe(core, slot, key, now) {
                self.ask_for_sections(core, slot, now);
            }
        }
        self.tell_demand(core, key, now);
    }

    /// Subscribes `slot` to `track` if it may and wants to and hasn't yet.
    fn subscribe(&mut self, core: &mut Core, slot: u32, key: TrackKey, now: Instant) -> bool {
        let own = self.identity_of(key) == Some(&self.participants[slot as usize].identity);
        // A client can't place a track of somebody it was never told of.
        if own || self.is_hidden(key) || !self.admits(core, slot, key) {
            return false;
        }
        let track = &mut self.tracks[key.0 as usize];
        let participant = &mut self.participants[slot as usize];
        let wish = participant
            .wishes
            .get(&track.info.sid)
            .copied()
            .unwrap_or_default();
        if !participant.permissions.subscribe
            || !wish.subscribed.unwrap_or(participant.auto_subscribe)
            || participant.leg.find(key).is_some()
        {
            return false;
        }
        let settings = wish
            .settings
            .unwrap_or(TrackSettings::initial(participant.adaptive_stream));
        let kind = track.kind();
        let number = track.readable(&participant.leg.codecs).unwrap_or(0);
        let source = EncodingKey { track: key, number };
        let subscription = participant.leg.subscribe(source, kind, settings, now);
        track.encodings[number].subscribers.push(Subscriber {
            participant: slot,
            subscription,
        });
        true
    }

    /// Ends a subscription. Its section is free for another after an answer has said so.
    pub fn unsubscribe(&mut self, slot: u32, key: TrackKey) {
        let track = &mut self.tracks[key.0 as usize];
        for encoding in &mut track.encodings {
            encoding.leave(slot);
        }
        let participant = &mut self.participants[slot as usize];
        participant.leg.unsubscribe(key);
        match &mut participant.downlink {
            Some(downlink) => downlink.release(key),
            None => participant.sections.release(key),
        }
    }

    /// A participant goes and receives nothing any more.
    pub fn unsubscribe_from_all(&mut self, slot: u32) {
        let subscribed: Vec<_> = self.participants[slot as usize].leg.tracks().collect();
        for track in subscribed {
            self.unsubscribe(slot, track);
        }
    }

    /// A participant says what it wants to receive.
    pub fn update_subscriptions(
        &mut self,
        core: &mut Core,
        slot: u32,
        tracks: &[TrackSid],
        subscribed: bool,
        now: Instant,
    ) {
        for sid in distinct(tracks) {
            let participant = &mut self.participants[slot as usize];
            let Some(wish) = participant.wish(sid, &self.by_sid) else {
                continue;
            };
            wish.subscribed = Some(subscribed);
            match self.by_sid.get(sid).copied() {
                Some(key) if subscribed => {
                    self.subscribe(core, slot, key, now);
                    self.tell_demand(core, key, now);
                }
                Some(key) => self.unsubscribe(slot, key),
                None => participant.seek(sid, subscribed, now),
            }
        }
        self.ask_for_sections(core, slot, now);
    }

    /// A participant says how it wants to receive.
    pub fn update_settings(
        &mut self,
        core: &mut Core,
        slot: u32,
        tracks: &[TrackSid],
        settings: TrackSettings,
        now: Instant,
    ) {
        for sid in distinct(tracks) {
            let participant = &mut self.participants[slot as usize];
            if let Some(wish) = participant.wish(sid, &self.by_sid) {
                wish.settings = Some(settings);
            }
            if let Some(key) = self.by_sid.get(sid).copied()
                && let Some(subscription) = participant.leg.find_mut(key)
            {
                subscription.settings = settings;
                self.tell_demand(core, key, now);
            }
        }
        self.adapt(core, slot, now);
    }

    /// Tells a participant of tracks that it asked for and that haven't come.
    pub fn give_up_seeking(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        let over = |since: Instant| now.saturating_duration_since(since) >= MISSING_AFTER;
        let missing = participant.sought.extract_if(|_, since| over(*since));
        for (sid, _) in missing {
            if !self.by_sid.contains_key(&sid) {
                core.notify(participant.session, Notice::TrackMissing(sid));
            }
        }
    }

    /// Tells a participant of tracks that it has had no section for, for too long.
    pub fn report_waiting(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let participant = &mut participants[slot as usize];
        let here = participant.leg.is_connected() && participant.signal_closed.is_none();
        for subscription in participant.leg.subscriptions() {
            if subscription.waits_too_long(here, now) {
                let sid = tracks[subscription.track.0 as usize].info.sid.clone();
                core.notify(participant.session, Notice::SubscriptionFailed(sid));
            }
        }
    }

    /// Gives free sections to subscriptions without one. Only called while an offer is answered,
    /// because the answer has to say it; what goes over a downlink needs none of them.
    pub fn bind_sections(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let waiting: Vec<_> = self.participants[slot as usize].leg.waiting().collect();
        for (key, kind) in waiting {
            let Some(names) = self.names_of(key) else {
                continue;
            };
            if !self.settle(core, slot, key, now) {
                continue;
            }
            let participant = &mut self.participants[slot as usize];
            if participant.sections.take(kind, key).is_some() {
                participant.leg.bind(key, kind, names);
                self.tell_publisher(core, slot, key);
            }
        }
    }

    /// Ends a subscription to a track that the client can't read. Asked for again, it may have
    /// learned.
    pub fn refuse_codec(&mut self, core: &mut Core, slot: u32, key: TrackKey) {
        self.unsubscribe(slot, key);
        let notice = Notice::CodecUnsupported(self[key].info.sid.clone());
        core.notify(self.participants[slot as usize].session, notice);
    }

    /// Asks the client for another offer while tracks wait for a section, or makes one.
    pub fn ask_for_sections(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        if participant.downlink.is_some() {
            return self.want_offer(core, slot, now);
        }
        let mut waiting = [0; 2];
        for (_, kind) in participant.leg.waiting() {
            waiting[kind as usize] += 1;
        }
        if let Some([audios, videos]) =
            participant
                .sections
                .ask(waiting, core.config.limits.media_sections, now)
        {
            let notice = Notice::MediaSectionsRequired { audios, videos };
            core.notify(participant.session, notice);
        }
    }

    /// The publisher learns once that somebody receives its track.
    pub fn tell_publisher(&mut self, core: &mut Core, slot: u32, key: TrackKey) {
        let subscriber = &self.participants[slot as usize];
        let connected = subscriber.state >= ParticipantState::Active;
        if subscriber.permissions.hidden || !connected {
            return;
        }
        let track = &mut self.tracks[key.0 as usize];
        if !std::mem::replace(&mut track.subscribed_told, true) {
            self.say_subscribed(core, key);
        }
    }

    /// Tells the publisher, or the part of the room that has it.
    pub fn say_subscribed(&self, core: &mut Core, key: TrackKey) {
        let track = &self[key];
        match track.publisher {
            Publisher::Here(slot) => {
                let session = self.participants[slot as usize].session;
                core.notify(session, Notice::TrackSubscribed(track.info.sid.clone()));
            }
            Publisher::There(origin) => self.pass_subscribed(core, origin),
        }
    }

    /// What a subscriber maps a track by.
    pub fn names_of(&self, key: TrackKey) -> Option<Names> {
        let (publisher, _) = self.terms_of(key)?;
        Some(Names {
            publisher: publisher.clone(),
            track: self[key].info.sid.clone(),
        })
    }
}

/// Each track once: each costs a look at all its subscribers, and a message names thousands.
fn distinct(tracks: &[TrackSid]) -> impl Iterator<Item = &TrackSid> {
    let mut seen = HashSet::with_capacity(tracks.len());
    tracks.iter().filter(move |sid| seen.insert(*sid))
}

/// A track that was asked for and hasn't appeared after this isn't coming.
const MISSING_AFTER: Duration = Duration::from_secs(60);

impl Participant {
    /// Remembers that it asked for a track that isn't there, or that it asks no longer.
    fn seek(&mut self, sid: &TrackSid, wanted: bool, now: Instant) {
        if !wanted {
            self.sought.remove(sid);
        } else if self.sought.len() < WISHES_MAX || self.sought.contains_key(sid) {
            self.sought.insert(sid.clone(), now);
        }
    }
}

impl TrackSettings {
    /// Before the client says anything.
    pub fn initial(adaptive_stream: bool) -> Self {
        Self {
            disabled: false,
            dimensions: None,
            quality: if adaptive_stream {
                Quality::Low
            } else {
                Quality::High
            },
            frame_rate: None,
            priority: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_that_is_named_again_and_again_counts_once() {
        let named = ["TR_a", "TR_b", "TR_a", "TR_a"].map(TrackSid::from);
        let once: Vec<_> = distinct(&named).map(TrackSid::as_str).collect();
        assert_eq!(once, ["TR_a", "TR_b"]);
    }
}

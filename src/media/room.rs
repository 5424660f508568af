//! A room: who is in it, what they publish, and who is told what of it.
//!
//! Coming and going is here; publishing, subscribing and forwarding have files of their own that
//! extend [`Room`]. Everything works on slots: a participant's slot is its place in
//! [`Room::participants`] and is used anew once it is gone.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::announcing::News;
use super::census::Census;
use super::data::Mailbox;
use super::downlink::Downlink;
use super::egress::Leg;
use super::estimator::Bounds;
use super::known::Known;
use super::loudest::Loudest;
use super::message::administration::Happened;
use super::message::{
    Connection, Departure, Join, Joined, LeaveAction, LeaveReason, Notice, ParticipantInfo,
    ParticipantState, Refusal, Request, RoomInfo, SignalEnd,
};
use super::ntp::SenderClock;
use super::participant::Participant;
use super::peer::Peer;
use super::quality::Link;
use super::relay::Spread;
use super::resuming::Departed;
use super::section::Sections;
use super::shard::{Core, TICK};
use super::simulation::Simulated;
use super::speakers::Floor;
#[cfg(test)]
use super::tests::fault;
use super::timers::{Armed, TimerKey};
use super::track::Track;
use super::{PeerKey, RoomKey, TrackKey};
use crate::ids::{Identity, RoomName, RoomSid, TrackSid};

/// A room.
pub struct Room {
    /// Its place in the shard.
    pub key: RoomKey,
    /// Its name.
    pub name: RoomName,
    /// Tells it from others that had its place in the shard.
    pub number: u32,
    /// This incarnation.
    pub sid: RoomSid,
    /// Marks frames that the server would inject.
    pub sif_trailer: Vec<u8>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Who is in it. Bounded by the limit on participants.
    pub participants: Slab<Participant>,
    /// Their tracks. Bounded by participants times tracks of one.
    pub tracks: Slab<Track>,
    /// Tracks by their id.
    pub by_sid: HashMap<TrackSid, TrackKey>,
    /// Slots by identity.
    pub by_identity: HashMap<Identity, u32>,
    /// Who left lately.
    pub departed: Departed,
    /// Who is heard, if the room is large.
    pub loudest: Loudest,
    /// Who has the floor.
    pub floor: Floor,
    /// When to look next who speaks.
    pub speakers_due: Instant,
    /// When to look next at the quality of connections.
    pub quality_due: Instant,
    /// Since when nobody is in it. Nothing yet while the first join is under way.
    pub empty_since: Option<Instant>,
    /// Somebody has been in it.
    pub used: bool,
    /// How long it waits for its first participant.
    pub empty_timeout: Duration,
    /// How long it outlives its last one.
    pub departure_timeout: Duration,
    /// The most participants, beside the limits.
    pub participants_max: Option<u32>,
    /// Free text for clients.
    pub metadata: Arc<str>,
    /// How many are in it, as far as they were told.
    pub census: Census,
    /// What there is of it on other workers; nothing of most rooms.
    pub spread: Option<Box<Spread>>,
    /// Its timer in the heap.
    pub armed: Armed,
}

/// Length of the trailer; LiveKit's clients only compare it.
const SIF_TRAILER_BYTES: usize = 32;

impl Room {
    /// An empty room.
    pub fn new(core: &mut Core, key: RoomKey, name: RoomName, now: Instant) -> Self {
        let sid = RoomSid::from(core.sid("RM_", 12));
        let sif_trailer = (0..SIF_TRAILER_BYTES).map(|_| core.rng.u8(..)).collect();
        Self {
            key,
            number: core.number_room(),
            name,
            sid,
            sif_trailer,
            created_at_ms: core.unix_ms(now),
            participants: Slab::new(),
            tracks: Slab::new(),
            by_sid: HashMap::new(),
            by_identity: HashMap::new(),
            departed: Departed::default(),
            loudest: Loudest::default(),
            floor: Floor::default(),
            speakers_due: now,
            quality_due: now,
            empty_since: None,
            used: false,
            empty_timeout: core.config.limits.empty_timeout,
            departure_timeout: core.config.limits.departure_timeout,
            participants_max: None,
            metadata: Arc::from(""),
            census: Census::default(),
            spread: None,
            armed: Armed::default(),
        }
    }

    /// When it closes if nobody comes; `None` while somebody is here, or about to be.
    pub fn closes_at(&self) -> Option<Instant> {
        let timeout = match self.used {
            // Its home is what waits.
            _ if self.is_branch() => Duration::ZERO,
            true => self.departure_timeout,
            false => self.empty_timeout,
        };
        self.empty_since.map(|since| since + timeout)
    }

    /// Whether it is to be closed, as nobody is in it or about to be.
    pub fn is_unused(&self, now: Instant) -> bool {
        let expected = self.is_awaited() || self.has_branches();
        let empty = self.participants.is_empty() && !expected;
        empty && self.closes_at().is_none_or(|at| at <= now)
    }

    /// Whether somebody of this identity is in it, in whichever part.
    pub fn is_here(&self, identity: &Identity) -> bool {
        let beyond = || self.spread.as_ref()?.find(identity);
        self.by_identity.contains_key(identity) || beyond().is_some()
    }

    /// Participants it takes.
    pub fn capacity(&self, core: &Core) -> usize {
        let own = self.participants_max.map_or(usize::MAX, |max| max as usize);
        core.config.limits.participants_per_room.min(own)
    }

    /// The key under which the shard finds a participant.
    pub fn peer_key(&self, slot: u32) -> PeerKey {
        PeerKey {
            room: self.key,
            participant: slot,
        }
    }

    /// A participant comes in. Its notices start with `Joined`.
    pub fn join(&mut self, core: &mut Core, join: Join, now: Instant) -> Result<(), Refusal> {
        let duplicate = self.by_identity.get(&join.identity).copied();
        let beyond = self.spread.as_ref().map_or(0, |it| it.remotes.len());
        let own = duplicate.is_some() || self.is_here(&join.identity);
        let others = beyond + self.participants.len() - usize::from(own);
        if others >= self.capacity(core) {
            return Err(Refusal::RoomFull);
        }
        let codecs = &core.config.limits.codecs;
        let peer = Peer::new(&core.crypto, &core.cert, &core.candidates, codecs, now)
            .map_err(|_| Refusal::Internal)?;
        let downlink = match join.two_connections {
            true => Some(Downlink::new(core, now).map_err(|_| Refusal::Internal)?),
            false => None,
        };
        if let Some(slot) = duplicate {
            let departure = Departure {
                reason: LeaveReason::DuplicateIdentity,
                action: LeaveAction::Disconnect,
            };
            self.leave(core, slot, departure, now);
        }
        let session = join.session;
        let participant = self.newcomer(core, join, peer, now);
        let identity = participant.identity.clone();
        let slot = self.participants.insert(participant) as u32;
        self.by_identity.insert(identity, slot);
        core.sessions.insert(session, self.peer_key(slot));
        self.empty_since = None;
        self.used = true;
        core.demux.name(
            self.participants[slot as usize].ufrag.clone(),
            self.place(slot, Connection::Publisher),
        );
        if let Some(downlink) = downlink {
            self.add_downlink(core, slot, downlink, now);
        }
        core.counters.joins += 1;
        let joined = Joined {
            room: self.info(core),
            participant: self.info_of(slot),
            others: self.others(slot),
            subscriber_primary: self.participants[slot as usize].primary()
                == Connection::Subscriber,
        };
        core.notify(session, Notice::Joined(Box::new(joined)));
        self.announce(core, slot);
        self.subscribe_to_all(core, slot, now);
        self.count(core, now);
        self.arm(core, slot);
        Ok(())
    }

    fn newcomer(&self, core: &mut Core, join: Join, mut peer: Peer, now: Instant) -> Participant {
        // Of two stays of one identity the later one stays.
        let former = self.spread.as_ref().and_then(|it| it.find(&join.identity));
        let later = former.map_or(0, |former| former.info.joined_at_ms + 1);
        let may_pause = join.may_pause.unwrap_or(core.config.limits.pause_video);
        let bounds = match may_pause {
            true => Bounds::pausing(),
            false => Bounds::default(),
        };
        Participant {
            sid: core.sid("PA_", 12).into(),
            session: join.session,
            identity: join.identity,
            name: join.name,
            metadata: join.metadata,
            attributes: join.attributes,
            permissions: join.permissions,
            client: join.client,
            auto_subscribe: join.auto_subscribe,
            adaptive_stream: join.adaptive_stream,
            may_pause,
            state: ParticipantState::Joined,
            version: 1,
            joined: now,
            joined_at_ms: core.unix_ms(now).max(later),
            signal_closed: None,
            closed: None,
            heard: now,
            pairs: Vec::new(),
            ufrag: peer.local_ufrag(),
            candidates: 0,
            peer_deadline: now,
            tick: now + TICK,
            armed: Armed::default(),
            peer: Box::new(peer),
            uplink: None,
            leg: Leg::new(core.rng.fork(), bounds, now),
            downlink: None,
            sections: Sections::default(),
            pending: Vec::new(),
            published: Vec::new(),
            wishes: HashMap::new(),
            sources: Vec::new(),
            mailbox: Mailbox::default(),
            clock: SenderClock::default(),
            speakers: Known::default(),
            qualities: Known::default(),
            link: Link::default(),
            allowances: None,
            denied: HashSet::new(),
            sought: HashMap::new(),
            news: News::new(now),
            simulated: Simulated::default(),
            info: OnceCell::new(),
            packet_rate: (now, 0),
        }
    }

    /// Others learn that a participant is there.
    pub fn activate(&mut self, core: &mut Core, slot: u32, suite: &'static str, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        let waited = now.saturating_duration_since(participant.joined);
        core.counters.join_seconds.observe(waited, 1);
        tracing::info!(
            participant = ?participant.sid,
            suite,
            millis = waited.as_millis() as u64,
            "media connected"
        );
        participant.state = ParticipantState::Active;
        self.changed(core, slot);
        let joined = Happened::ParticipantJoined(self.info_of(slot));
        core.report(self.info(core), joined, now);
    }

    /// A participant goes; tells it and the others. Whatever belonged to it is gone afterwards.
    pub fn leave(&mut self, core: &mut Core, slot: u32, departure: Departure, now: Instant) {
        #[cfg(test)]
        fault::trip(
            fault::Point::Leave,
            &self.participants[slot as usize].identity,
        );
        for track in self.participants[slot as usize].published.clone() {
            self.remove_track(core, track, now);
        }
        self.unsubscribe_from_all(slot);
        let gone = self.participants.remove(slot as usize);
        self.loudest.forget(slot);
        self.floor.forget(slot);
        if self.by_identity.get(&gone.identity) == Some(&slot) {
            self.by_identity.remove(&gone.identity);
        }
        core.dismiss(self.peer_key(slot), &gone, departure);
        let reason = departure.reason;
        let last = Arc::new(gone.as_seen(Vec::new(), None).gone(reason));
        self.pass_absent(core, None, &last, reason);
        if !gone.permissions.hidden {
            self.say_goodbye(core, &last, reason, now);
        }
        self.report_gone(core, &gone, reason, now);
        self.note_emptiness(core, now);
        self.count(core, now);
        self.arm_room(core);
    }

    /// Makes sure that a room is woken at its end if it is empty, and when there is news of it.
    pub fn arm_room(&mut self, core: &mut Core) {
        let deadlines = self.closes_at().into_iter().chain(self.census.due);
        let deadlines = deadlines.chain(self.beats_at());
        if let Some(deadline) = deadlines.min() {
            core.timers
                .arm(TimerKey::Room(self.key), &mut self.armed, deadline);
        }
    }

    /// Tells everybody here that somebody has gone.
    pub fn say_goodbye(
        &mut self,
        core: &mut Core,
        info: &Arc<ParticipantInfo>,
        reason: LeaveReason,
        now: Instant,
    ) {
        // Who it was is enough for those who come back and ask who has gone.
        let brief = ParticipantInfo {
            metadata: String::new(),
            attributes: BTreeMap::new(),
            ..(**info).clone()
        };
        self.departed.note(Arc::new(brief), now);
        for (_, other) in &self.participants {
            // Newer clients learn of the new stay of the same identity and end the old by it.
            let silent = reason == LeaveReason::DuplicateIdentity
                && other.client.protocol > PROTOCOL_WITHOUT_REPLACEMENT;
            if !silent {
                core.notify(other.session, Notice::Participant(Arc::clone(info)));
            }
        }
    }

    /// A participant with its tracks, as others see it.
    pub fn info_of(&self, slot: u32) -> Arc<ParticipantInfo> {
        let participant = &self.participants[slot as usize];
        if let Some(info) = participant.info.get() {
            return Arc::clone(info);
        }
        let tracks = participant
            .published
            .iter()
            .filter_map(|track| self.tracks.get(track.0 as usize))
            .map(|track| track.info.clone())
            .collect();
        Arc::clone(
            participant
                .info
                .get_or_init(|| Arc::new(participant.as_seen(tracks, None))),
        )
    }

    /// Everyone else who is visible.
    pub fn others(&self, slot: u32) -> Vec<Arc<ParticipantInfo>> {
        let own = &self.participants[slot as usize].identity;
        let here = self.participants.iter();
        let here = here
            .filter(|(other, participant)| *other as u32 != slot && !participant.permissions.hidden)
            .map(|(other, _)| self.info_of(other as u32));
        // An older stay of its own is about to end.
        let beyond = self.spread.iter().flat_map(|spread| spread.visible());
        let beyond = beyond.filter(|other| other.info.identity != *own);
        here.chain(beyond.map(|other| Arc::clone(&other.info)))
            .collect()
    }

    /// The room as clients see it.
    pub fn info(&self, core: &Core) -> RoomInfo {
        let here = self.participants.iter().map(|(_, who)| who);
        let here = here.filter(|who| !who.permissions.hidden);
        let beyond = self.spread.iter().flat_map(|spread| spread.visible());
        let publishes = here.map(|who| !who.published.is_empty());
        let publishes = publishes.chain(beyond.map(|who| !who.published.is_empty()));
        let (participants, publishers) = publishes.fold((0, 0), |(all, publishers), publishes| {
            (all + 1, publishers + u32::from(publishes))
        });
        RoomInfo {
            sid: self.sid.clone(),
            name: self.name.clone(),
            metadata: Arc::clone(&self.metadata),
            empty_timeout: self.empty_timeout,
            departure_timeout: self.departure_timeout,
            participants_max: u32::try_from(self.capacity(core)).unwrap_or(u32::MAX),
            participants,
            publishers,
            codecs: core.config.limits.codecs.clone(),
            sif_trailer: self.sif_trailer.clone(),
            created_at_ms: self.created_at_ms,
        }
    }

    /// A participant asks for something.
    pub fn request(&mut self, core: &mut Core, slot: u32, request: Request, now: Instant) {
        match request {
            Request::Offer { id, sdp } => self.offer(core, slot, id, &sdp, now),
            Request::Answer { id, sdp } => self.downlink_answered(core, slot, (id, &sdp), now),
            Request::Candidate {
                connection,
                candidate,
            } => {
                let participant = &mut self.participants[slot as usize];
                if participant.candidates < core.config.limits.candidates {
                    participant.candidates += 1;
                    participant.peer_of(connection).add_candidate(&candidate);
                }
            }
            Request::AddTrack(request) => self.add_track(core, slot, *request, now),
            Request::Mute { track, muted } => self.mute(core, slot, track, muted, now),
            Request::Subscribe { tracks, subscribed } => {
                self.update_subscriptions(core, slot, &tracks, subscribed, now);
            }
            Request::TrackSettings { tracks, settings } => {
                self.update_settings(core, slot, &tracks, settings, now);
            }
            Request::Sync(sync) => self.sync(core, slot, &sync, now),
            Request::Simulate(what) => self.simulate(core, slot, what, now),
            Request::Restrict(allowances) => self.restrict(core, slot, allowances, now),
            Request::AudioFeatures { track, features } => {
                self.amend(core, slot, &track, now, |announced| {
                    announced.audio_features = features
                });
            }
            Request::Dimensions { track, dimensions } => {
                self.amend(core, slot, &track, now, |announced| {
                    announced.dimensions = dimensions
                });
            }
            Request::UpdateProfile {
                request_id,
                profile,
            } => self.update_profile(core, slot, request_id, profile, now),
            Request::End(departure) => self.leave(core, slot, departure, now),
            Request::Leave => {
                let departure = Departure {
                    reason: LeaveReason::ClientInitiated,
                    action: LeaveAction::Disconnect,
                };
                self.leave(core, slot, departure, now);
            }
        }
    }

    /// The signalling connection of a participant ended. Before its media was connected that ends
    /// the stay; later it may only be the network, and media goes on.
    pub fn signal_closed(&mut self, core: &mut Core, slot: u32, end: SignalEnd, now: Instant) {
        let closed = &mut self.participants[slot as usize].signal_closed;
        // The client's own end counts, whoever noticed first that its queue has no reader.
        match closed {
            Some((known, _)) if end == SignalEnd::ByClient => *known = end,
            closed => {
                closed.get_or_insert((end, now));
            }
        }
        if let Some(departure) = self.expired(core, slot, now) {
            self.leave(core, slot, departure, now);
        }
    }

    /// Makes sure that a participant's next deadline wakes it.
    pub fn arm(&mut self, core: &mut Core, slot: u32) {
        let key = TimerKey::Participant(self.peer_key(slot));
        if let Some(participant) = self.participants.get_mut(slot as usize) {
            let deadline = participant.next();
            core.timers.arm(key, &mut participant.armed, deadline);
        }
    }

    /// A participant's deadline was reached.
    pub fn wake(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let Some(participant) = self.participants.get_mut(slot as usize) else {
            return;
        };
        if participant.peer_deadline <= now {
            if participant.peer.timeout(now).is_err() {
                return self.leave(core, slot, PEER_FAILED, now);
            }
            self.drain(core, slot, Connection::Publisher, now);
        }
        self.wake_downlink(core, slot, now);
        self.pace(core, slot, now);
        if self
            .participants
            .get(slot as usize)
            .is_some_and(|who| who.tick <= now)
        {
            self.tick(core, slot, now);
        }
        self.arm(core, slot);
    }

    /// The regular look at one participant: is it still there, does it get what it should?
    fn tick(&mut self, core: &mut Core, slot: u32, now: Instant) {
        if let Some(departure) = self.expired(core, slot, now) {
            return self.leave(core, slot, departure, now);
        }
        self.notice_lost_media(core, slot, now);
        self.tell_news(core, slot, now);
        self.participants[slot as usize].tick = now + TICK;
        self.adapt(core, slot, now);
        self.report(core, slot, now);
        self.report_uplink(core, slot, now);
        self.tend_tracks(core, slot, now);
        self.tend_remotes(core, now);
        self.ask_for_sections(core, slot, now);
        self.give_up_seeking(core, slot, now);
        self.report_waiting(core, slot, now);
        self.tell_speakers(core, now);
        self.tell_quality(core, now);
        self.flush_data(core, slot, now);
    }
}

/// Protocol numbers up to this one want to hear of the end of an old stay when a new one of the
/// same identity begins.
const PROTOCOL_WITHOUT_REPLACEMENT: i32 = 11;

/// str0m could not go on, or an answer never came.
pub(super) const PEER_FAILED: Departure = Departure {
    reason: LeaveReason::StateMismatch,
    action: LeaveAction::Reconnect,
};

/// Tracks by their key.
impl std::ops::Index<TrackKey> for Room {
    type Output = Track;
    fn index(&self, key: TrackKey) -> &Track {
        &self.tracks[key.0 as usize]
    }
}

impl std::ops::IndexMut<TrackKey> for Room {
    fn index_mut(&mut self, key: TrackKey) -> &mut Track {
        &mut self.tracks[key.0 as usize]
    }
}

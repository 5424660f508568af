//! Questions to rooms, and what rooms report of themselves.
//!
//! Opening and closing are the shard's; everything else a room answers itself. What concerns one
//! participant runs in its name, so that a fault there ends that stay and nothing else.

use std::sync::Arc;
use std::time::Instant;

use super::data::{Channel, MESSAGE_BYTES_MAX};
use super::message::administration::{
    Answer, Data, Fact, Happened, Profile, ProfileRefusal, Question, RoomOptions, RoomRefusal,
    RoomRequest, Ticket,
};
use super::message::{
    Departure, LeaveAction, LeaveReason, Notice, ParticipantInfo, ParticipantState, Permissions,
    TrackInfo,
};
use super::participant::Participant;
use super::room::Room;
use super::shard::{Core, Shard};
use super::track::Publisher;
use super::{RoomKey, TrackKey};
use crate::ids::{Identity, RoomName, TrackSid};

const DELETED: Departure = Departure {
    reason: LeaveReason::RoomDeleted,
    action: LeaveAction::Disconnect,
};

const REMOVED: Departure = Departure {
    reason: LeaveReason::ParticipantRemoved,
    action: LeaveAction::Disconnect,
};

impl Shard {
    /// Answers a question, at once.
    pub(super) fn ask(&mut self, now: Instant, question: Question) {
        let ticket = question.ticket;
        if let Some(answer) = self.answer(now, question) {
            self.core.answer(ticket, answer);
        }
    }

    /// The answer, unless another part of the room has to be asked first.
    pub(super) fn answer(&mut self, now: Instant, question: Question) -> Option<Answer> {
        let name = &question.room;
        if let RoomRequest::Create(options) = question.request {
            return Some(self.create(now, name, options));
        }
        let Some(key) = self.by_name.get(name).copied() else {
            return Some(Err(RoomRefusal::RoomMissing));
        };
        if matches!(question.request, RoomRequest::Delete) {
            self.close_room(key, DELETED, now);
            return Some(Ok(Fact::Done));
        }
        let room = &mut self.rooms[key.0 as usize];
        let Some(identity) = question.request.participant().cloned() else {
            let Question {
                ticket, request, ..
            } = question;
            return self.room_wide(now, key, |core, room| {
                room.answer_all(core, ticket, request, now)
            });
        };
        let Some(slot) = room.by_identity.get(&identity).copied() else {
            return room.pass_question(&mut self.core, &identity, question);
        };
        let mut answer = Err(RoomRefusal::Internal);
        let peer = room.peer_key(slot);
        let request = question.request;
        self.contain(now, peer, |core, room| {
            answer = room.answer_of(core, slot, request, now);
        });
        Some(answer)
    }

    fn create(&mut self, now: Instant, name: &RoomName, options: RoomOptions) -> Answer {
        let text = options.metadata.as_ref();
        if text.is_some_and(|text| text.len() > self.core.config.limits.metadata_bytes) {
            return Err(ProfileRefusal::MetadataTooLong.into());
        }
        let key = match self.by_name.get(name) {
            Some(key) => *key,
            None => {
                let opened = self.open_room(name, now);
                let key = opened.map_err(RoomRefusal::Refused)?;
                // From here on it waits for its first participant.
                self.rooms[key.0 as usize].empty_since = Some(now);
                key
            }
        };
        let answer = self.room_wide(now, key, |core, room| {
            room.set_options(core, options);
            Some(Ok(Fact::Room(Box::new(room.info(core)))))
        });
        answer.unwrap_or(Err(RoomRefusal::Internal))
    }

    /// Runs what belongs to no single participant; a fault closes the room.
    fn room_wide(
        &mut self,
        now: Instant,
        key: RoomKey,
        action: impl FnOnce(&mut Core, &mut Room) -> Option<Answer>,
    ) -> Option<Answer> {
        let mut answer = Some(Err(RoomRefusal::Internal));
        self.contain_room(now, key, |core, room| answer = action(core, room));
        answer
    }
}

impl RoomRequest {
    /// Whom it concerns, unless it is the whole room.
    fn participant(&self) -> Option<&Identity> {
        match self {
            Self::Participant(identity) | Self::Remove(identity) => Some(identity),
            Self::Mute { participant, .. }
            | Self::Change { participant, .. }
            | Self::Subscribe { participant, .. }
            | Self::Adjust { participant, .. } => Some(participant),
            Self::Create(_)
            | Self::Describe
            | Self::Delete
            | Self::SetMetadata(_)
            | Self::Participants
            | Self::Locate(_)
            | Self::Measure
            | Self::SendData(_) => None,
        }
    }
}

impl Room {
    fn set_options(&mut self, core: &mut Core, options: RoomOptions) {
        self.empty_timeout = options.empty_timeout.unwrap_or(self.empty_timeout);
        self.departure_timeout = options.departure_timeout.unwrap_or(self.departure_timeout);
        self.participants_max = options.participants_max.or(self.participants_max);
        match options.metadata {
            Some(metadata) => self.set_metadata(core, metadata),
            None => self.pass_charter(core),
        }
        self.arm_room(core);
    }

    /// Replaces the metadata and tells everybody, unless it stays the same.
    fn set_metadata(&mut self, core: &mut Core, metadata: String) {
        if *self.metadata == *metadata {
            return;
        }
        self.metadata = metadata.into();
        self.pass_charter(core);
        self.tell_room(core);
    }

    /// Answers what concerns the whole room.
    fn answer_all(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        request: RoomRequest,
        now: Instant,
    ) -> Option<Answer> {
        Some(match request {
            RoomRequest::Participants => {
                let slots = self.participants.iter().map(|(slot, _)| slot as u32);
                let own = slots.map(|slot| self.info_of(slot));
                let others = self.remote_sids().map(|(.., it)| Arc::clone(&it.info));
                Ok(Fact::Participants(own.chain(others).collect()))
            }
            RoomRequest::Locate(identity) => {
                let worker = self.worker_of(core, &identity);
                let worker = worker.ok_or(RoomRefusal::ParticipantMissing);
                worker.map(Fact::Worker)
            }
            RoomRequest::SetMetadata(text) if text.len() > core.config.limits.metadata_bytes => {
                Err(ProfileRefusal::MetadataTooLong.into())
            }
            RoomRequest::SetMetadata(text) => {
                self.set_metadata(core, text);
                Ok(Fact::Room(Box::new(self.info(core))))
            }
            RoomRequest::SendData(data) if data.message.len() > MESSAGE_BYTES_MAX => {
                Err(RoomRefusal::DataTooLong)
            }
            RoomRequest::SendData(data) => {
                self.pass_distribute(core, &data);
                self.distribute(core, &data, now);
                Ok(Fact::Done)
            }
            RoomRequest::Measure => {
                let facts = self.facts(now);
                return self.gather(core, ticket, facts);
            }
            _ => Ok(Fact::Room(Box::new(self.info(core)))),
        })
    }

    /// Sends a message from outside to whom it is for.
    pub(super) fn distribute(&mut self, core: &mut Core, data: &Data, now: Instant) {
        let channel = match data.reliable {
            true => Channel::Reliable,
            false => Channel::Lossy,
        };
        let everybody = data.identities.is_empty() && data.sids.is_empty();
        let wanted = |who: &Participant| {
            everybody || data.identities.contains(&who.identity) || data.sids.contains(&who.sid)
        };
        let receivers = self.participants.iter().filter(|(_, who)| wanted(who));
        let slots: Vec<_> = receivers.map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.send_data(core, slot, channel, &data.message, now);
        }
    }

    /// Answers what concerns one participant.
    fn answer_of(
        &mut self,
        core: &mut Core,
        slot: u32,
        request: RoomRequest,
        now: Instant,
    ) -> Answer {
        match request {
            RoomRequest::Remove(_) => {
                self.leave(core, slot, REMOVED, now);
                return Ok(Fact::Done);
            }
            RoomRequest::Mute { track, muted, .. } => {
                return self.mute_published(core, slot, track, muted, now);
            }
            RoomRequest::Change {
                profile,
                permissions,
                ..
            } => self.change(core, slot, profile, permissions, now)?,
            RoomRequest::Subscribe {
                tracks, subscribed, ..
            } => {
                self.update_subscriptions(core, slot, &tracks, subscribed, now);
                return Ok(Fact::Done);
            }
            RoomRequest::Adjust {
                tracks, settings, ..
            } => {
                self.update_settings(core, slot, &tracks, settings, now);
                return Ok(Fact::Done);
            }
            _ => {}
        }
        Ok(Fact::Participant(self.info_of(slot)))
    }

    /// Both or none: what can be refused is looked at first.
    fn change(
        &mut self,
        core: &mut Core,
        slot: u32,
        profile: Profile,
        permissions: Option<Permissions>,
        now: Instant,
    ) -> Result<(), ProfileRefusal> {
        let changed = self.set_profile(core, slot, profile)?;
        let permitted = permissions.is_some_and(|may| self.permit(core, slot, may, now));
        if changed || permitted {
            self.changed_for_all(core, slot, now);
        }
        Ok(())
    }

    fn mute_published(
        &mut self,
        core: &mut Core,
        slot: u32,
        sid: TrackSid,
        muted: bool,
        now: Instant,
    ) -> Answer {
        if self.own_track(slot, &sid).is_none() {
            return Err(RoomRefusal::TrackMissing);
        }
        let session = self.participants[slot as usize].session;
        let track = sid.clone();
        core.notify(session, Notice::Muted { track, muted });
        self.mute(core, slot, sid.clone(), muted, now);
        let info = self.own_track(slot, &sid);
        info.map(|info| Fact::Track(Box::new(info)))
            .ok_or(RoomRefusal::TrackMissing)
    }

    /// A track of that participant, published or announced.
    fn own_track(&self, slot: u32, sid: &TrackSid) -> Option<TrackInfo> {
        let participant = &self.participants[slot as usize];
        let published = participant.published.iter().map(|key| &self[*key].info);
        let published = published.filter(|info| info.sid == *sid).cloned();
        let pending = participant.pending.iter();
        let pending = pending.filter(|pending| pending.sid == *sid);
        published
            .chain(pending.map(|pending| pending.info()))
            .next()
    }

    /// Reports that a track came or went.
    pub fn report_track(
        &self,
        core: &mut Core,
        key: TrackKey,
        happened: fn(Arc<ParticipantInfo>, Box<TrackInfo>) -> Happened,
        now: Instant,
    ) {
        let track = &self[key];
        // The part that has the publisher says so.
        let Publisher::Here(slot) = track.publisher else {
            return;
        };
        let happened = happened(self.info_of(slot), Box::new(track.info.clone()));
        core.report(self.info(core), happened, now);
    }

    /// Reports that somebody is gone.
    pub fn report_gone(
        &self,
        core: &mut Core,
        gone: &Participant,
        reason: LeaveReason,
        now: Instant,
    ) {
        let info = Arc::new(gone.as_seen(Vec::new(), Some(reason)));
        let happened = match gone.state {
            ParticipantState::Joined => Happened::ParticipantAborted(info),
            _ => Happened::ParticipantLeft(info),
        };
        core.report(self.info(core), happened, now);
    }

    /// Reports that somebody is gone with all its tracks, which are still in the room.
    pub fn report_all_gone(
        &self,
        core: &mut Core,
        gone: &Participant,
        reason: LeaveReason,
        now: Instant,
    ) {
        let who = Arc::new(gone.as_seen(Vec::new(), None));
        for track in &gone.published {
            let track = Box::new(self[*track].info.clone());
            let happened = Happened::TrackUnpublished(Arc::clone(&who), track);
            core.report(self.info(core), happened, now);
        }
        self.report_gone(core, gone, reason, now);
    }
}

//! Stays that outlive their signalling: lost media, the client that comes back, and what it has to
//! be told again.
//!
//! ```text
//!              signalling breaks                 Resume: another session
//!   stay  ----------------------->  stay goes on -----------------------> stay, told again
//!     |                                  | 5 s silent, closed by the client
//!     | 15 s silent: MediaLost           | or 20 s silent
//!     v                                  v
//!   stay without signalling ---------> over
//! ```
//!
//! Media needs no resuming: its path, keys and numbers are the participant's, not the session's.
//! The client restarts ICE by an offer of its own; on a downlink the offer is ours.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::downlink::Downlink;
use super::known::Known;
use super::message::{
    Departure, LeaveAction, LeaveReason, Notice, ParticipantInfo, ParticipantState, Resumed,
    SignalEnd, Sync, TrackSettings,
};
use super::room::{PEER_FAILED, Room};
use super::shard::Core;
use crate::ids::{Identity, ParticipantSid, SessionKey, TrackSid};

/// Who left a room lately, oldest first.
#[derive(Debug, Default)]
pub struct Departed(VecDeque<(Instant, Arc<ParticipantInfo>)>);

impl Departed {
    /// Longer than any client tries to come back: JavaScript gives up after 50 s.
    const KEPT: Duration = Duration::from_secs(60);

    /// More than that only leave together when a room ends. Of those beyond, a client that was
    /// away learns nothing until it joins anew.
    const COUNT_MAX: usize = 256;

    /// Somebody left.
    pub fn note(&mut self, info: Arc<ParticipantInfo>, now: Instant) {
        let old = |at: &Instant| now.saturating_duration_since(*at) >= Self::KEPT;
        while self.0.len() >= Self::COUNT_MAX || self.0.front().is_some_and(|(at, _)| old(at)) {
            self.0.pop_front();
        }
        self.0.push_back((now, info));
    }

    fn since(&self, joined: Instant, now: Instant) -> impl Iterator<Item = &Arc<ParticipantInfo>> {
        let earliest = now
            .checked_sub(Self::KEPT)
            .map_or(joined, |at| at.max(joined));
        let lately = self.0.iter().filter(move |(at, _)| *at >= earliest);
        lately.map(|(_, info)| info)
    }
}

/// Media silent for this long: ICE of the client has failed or is about to.
const MEDIA_LOST_AFTER: Duration = Duration::from_secs(15);

/// The answer to an announcement may have been lost if the track is younger than this: clients wait
/// for it for 10 s.
const ANNOUNCED_LATELY: Duration = Duration::from_secs(15);

/// Signalling closed by the client and media silent, both for this long: the process behind it is
/// gone.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// Media said goodbye this long ago, and signalling says nothing: the client has lost its peer
/// connection and may join anew. A leave comes within this.
const CLOSED_AFTER: Duration = Duration::from_secs(2);

/// Media silent for this long, whatever signalling does: the 15 s after which it was given up, and
/// 5 s for the client to come back. Browsers send a consent check every few seconds.
const LOST_AFTER: Duration = Duration::from_secs(20);

impl Room {
    /// The slot of the stay that a client means, if it goes on.
    pub fn stay(&self, identity: &Identity, sid: Option<&ParticipantSid>) -> Option<u32> {
        let slot = *self.by_identity.get(identity)?;
        let participant = self.participants.get(slot as usize)?;
        let meant = sid.is_none_or(|sid| *sid == participant.sid);
        meant.then_some(slot)
    }

    /// `session` takes the stay in `slot` over.
    pub fn resume(&mut self, core: &mut Core, slot: u32, session: SessionKey, now: Instant) {
        let key = self.peer_key(slot);
        let participant = &mut self.participants[slot as usize];
        let former = std::mem::replace(&mut participant.session, session);
        participant.signal_closed = None;
        // The client restarts ICE now, which takes a moment.
        participant.heard = now;
        participant.sections.resumed();
        core.sessions.remove(&former);
        core.sessions.insert(session, key);
        core.notify(former, Notice::Replaced);
        core.counters.resumes += 1;
        let joined = self.participants[slot as usize].joined;
        let gone = self
            .departed
            .since(joined, now)
            .filter(|info| !self.is_here(&info.identity));
        let resumed = Resumed {
            room: self.info(core),
            participant: self.info_of(slot),
            gone: gone.cloned().collect(),
            others: self.others(slot),
            last_sequence: self.participants[slot as usize].mailbox.last_sequence(),
            break_off: self.participants[slot as usize].simulated.break_off.take(),
        };
        core.notify(session, Notice::Resumed(Box::new(resumed)));
        self.tell_again(core, slot, now);
    }

    /// What a client waits for, and may have been told while it could not hear.
    fn tell_again(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        let session = participant.session;
        let states = participant.leg.stream_states();
        if !states.is_empty() {
            core.notify(session, Notice::StreamStates(states));
        }
        let participant = &self.participants[slot as usize];
        let waiting = participant.pending.iter().filter(|pending| !pending.queued);
        for pending in waiting {
            core.notify(session, pending.notice());
        }
        for key in &participant.published {
            let track = &self.tracks[key.0 as usize];
            if now.saturating_duration_since(track.encodings[0].resumed) < ANNOUNCED_LATELY {
                let notice = Notice::TrackPublished {
                    cid: track.info.announced.cid.clone(),
                    track: Box::new(track.info.clone()),
                };
                core.notify(session, notice);
            }
        }
        for key in participant.published.clone() {
            self.repeat_demand(core, key);
        }
        self.forget_what_is_known(slot);
        self.ask_for_sections(core, slot, now);
        self.restart_downlink(core, slot, now);
    }

    /// What the client was told lately may not have reached it, so it is told all of it anew; who
    /// doesn't speak is told as one who has stopped.
    fn forget_what_is_known(&mut self, slot: u32) {
        let others = self.participants.iter();
        let others = others.map(|(other, who)| (other as u32, &who.sid));
        let beyond = self.remote_sids().map(|(number, sid, _)| (number, sid));
        let all = others.chain(beyond);
        let speakers = Known::assumed(all.map(|(who, sid)| (who, sid.clone(), u8::MAX)));
        let participant = &mut self.participants[slot as usize];
        participant.speakers = speakers;
        participant.qualities = Known::default();
    }

    /// A client that resumed says what it believes to have.
    pub fn sync(&mut self, core: &mut Core, slot: u32, sync: &Sync, now: Instant) {
        let own = |sid: &TrackSid| {
            let participant = &self.participants[slot as usize];
            let published = self.by_sid.get(sid);
            published.is_some_and(|key| participant.published.contains(key))
                || participant
                    .pending
                    .iter()
                    .any(|pending| pending.sid == *sid)
        };
        if !sync.published.iter().all(own) {
            let departure = Departure {
                reason: LeaveReason::StateMismatch,
                action: LeaveAction::Reconnect,
            };
            return self.leave(core, slot, departure, now);
        }
        let subscribed: Vec<_> = self.participants[slot as usize].leg.tracks().collect();
        for key in subscribed {
            let sid = self[key].info.sid.clone();
            let participant = &self.participants[slot as usize];
            let known = participant.wishes.get(&sid).and_then(|wish| wish.settings);
            let settings = known.unwrap_or(TrackSettings::initial(participant.adaptive_stream));
            let disabled = sync.disabled.contains(&sid);
            if settings.disabled != disabled {
                let settings = TrackSettings {
                    disabled,
                    ..settings
                };
                self.update_settings(core, slot, &[sid], settings, now);
            }
        }
        let (tracks, subscribed) = &sync.subscriptions;
        self.update_subscriptions(core, slot, tracks, *subscribed, now);
    }

    /// Whether a stay is over for want of a sign of life.
    pub fn expired(&self, core: &Core, slot: u32, now: Instant) -> Option<Departure> {
        let participant = &self.participants[slot as usize];
        let since = |at| now.saturating_duration_since(at);
        let silent = since(participant.heard);
        let over = |reason, action| Some(Departure { reason, action });
        if participant.leg.is_exhausted() {
            return Some(PEER_FAILED);
        }
        let lost = |downlink: &Downlink| downlink.is_overdue(now) && participant.leg.is_connected();
        if participant.signal_closed.is_none() && participant.downlink.as_deref().is_some_and(lost)
        {
            return Some(PEER_FAILED);
        }
        let closed = |at| now.saturating_duration_since(at) >= CLOSED_AFTER;
        if participant.signal_closed.is_none() && participant.closed.is_some_and(closed) {
            return over(LeaveReason::ConnectionTimeout, LeaveAction::Reconnect);
        }
        match (participant.state, participant.signal_closed) {
            (ParticipantState::Joined, Some(_)) => {
                over(LeaveReason::SignalClosed, LeaveAction::Disconnect)
            }
            (ParticipantState::Joined, None) => {
                let waited = now.saturating_duration_since(participant.joined);
                (waited >= core.config.limits.connect_timeout).then_some(Departure {
                    reason: LeaveReason::JoinFailure,
                    action: LeaveAction::Disconnect,
                })
            }
            // Who has just lost both at once needs as long to come back as others.
            (_, Some((SignalEnd::ByClient, at))) if silent.min(since(at)) >= GONE_AFTER => {
                over(LeaveReason::SignalClosed, LeaveAction::Disconnect)
            }
            _ if silent >= LOST_AFTER => {
                over(LeaveReason::ConnectionTimeout, LeaveAction::Reconnect)
            }
            _ => None,
        }
    }

    /// Tells a client whose media is gone to take its session up again, and lets go of signalling:
    /// a client that doesn't know of the loss yet must not go on as if nothing were.
    pub fn notice_lost_media(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        let silent = now.saturating_duration_since(participant.heard) >= MEDIA_LOST_AFTER;
        let active = participant.state == ParticipantState::Active;
        if silent && active && participant.signal_closed.is_none() {
            participant.signal_closed = Some((SignalEnd::ByUs, now));
            core.notify(participant.session, Notice::MediaLost);
        }
    }
}

//! What becomes of a call when somebody may do less, or more, than before.

use std::sync::Arc;
use std::time::Instant;

use super::TrackKey;
use super::message::{LeaveReason, Notice, Permissions};
use super::participant::Participant;
use super::room::Room;
use super::shard::Core;

impl Room {
    /// Sets what a participant may do, with all that follows from it; whether anything is new.
    /// Tells nobody that the permissions changed.
    pub fn permit(&mut self, core: &mut Core, slot: u32, may: Permissions, now: Instant) -> bool {
        let participant = &mut self.participants[slot as usize];
        if participant.permissions == may {
            return false;
        }
        let before = std::mem::replace(&mut participant.permissions, may);
        let after = participant.permissions.clone();
        self.end_forbidden_tracks(core, slot, now);
        match (before.subscribe, after.subscribe) {
            (true, false) => {
                self.unsubscribe_from_all(slot);
                self.ask_for_sections(core, slot, now);
            }
            (false, true) => self.subscribe_to_all(core, slot, now),
            _ => {}
        }
        match (before.hidden, after.hidden) {
            (false, true) => self.hide(core, slot, now),
            (true, false) => self.unhide(core, slot, now),
            _ => {}
        }
        self.count(core, now);
        true
    }

    /// Ends tracks whose source may no longer be published; their owner is told.
    fn end_forbidden_tracks(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let Participant {
            permissions: may,
            pending,
            published,
            session,
            ..
        } = &mut self.participants[slot as usize];
        let session = *session;
        pending.retain(|pending| {
            let keeps = may.may_publish(pending.request.source);
            if !keeps {
                let ended = Notice::TrackUnpublished(pending.sid.clone());
                core.notify(session, ended);
            }
            keeps
        });
        let source = |key: &TrackKey| self.tracks[key.0 as usize].info.announced.source;
        let forbidden = published.iter().copied();
        let forbidden = forbidden.filter(|key| !may.may_publish(source(key)));
        for key in forbidden.collect::<Vec<_>>() {
            let ended = Notice::TrackUnpublished(self[key].info.sid.clone());
            self.end_track(core, key, now);
            core.notify(session, ended);
        }
    }

    /// To the others the participant is gone, and with it its tracks.
    fn hide(&mut self, core: &mut Core, slot: u32, now: Instant) {
        for key in self.participants[slot as usize].published.clone() {
            self.withdraw(core, key, now);
        }
        let participant = &mut self.participants[slot as usize];
        participant.version += 1;
        participant.info.take();
        let info = participant.as_seen(Vec::new(), Some(LeaveReason::ClientInitiated));
        let info = Arc::new(info);
        for (other, participant) in &self.participants {
            if other as u32 != slot {
                core.notify(participant.session, Notice::Participant(Arc::clone(&info)));
            }
        }
    }

    fn unhide(&mut self, core: &mut Core, slot: u32, now: Instant) {
        // Others learn of the participant before any SDP that carries its media.
        self.changed(core, slot);
        for key in self.participants[slot as usize].published.clone() {
            self.offer_to_all(core, key, now);
        }
    }
}

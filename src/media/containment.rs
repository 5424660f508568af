//! How far a fault of the program reaches: to one participant, or at worst to one room.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::counters::Dropped;
use super::message::{Departure, LeaveAction, LeaveReason};
use super::relay::Origin;
use super::room::Room;
use super::shard::{Core, Shard};
use super::{PeerKey, RoomKey};

/// A fault of ours; those it ends may come back at once.
pub(super) const FAULT: Departure = Departure {
    reason: LeaveReason::Internal,
    action: LeaveAction::Reconnect,
};

impl Shard {
    /// Runs `action` for one participant. A panic in it ends that participant's stay.
    pub(super) fn contain(
        &mut self,
        now: Instant,
        key: PeerKey,
        action: impl FnOnce(&mut Core, &mut Room),
    ) {
        let core = &mut self.core;
        let Some(room) = self.rooms.get_mut(key.room.0 as usize) else {
            return core.counters.drop(Dropped::PeerGone);
        };
        // Nothing here is shared or locked, so what a panic leaves behind is only this value, and
        // the participant whose state may be half changed is taken out.
        if catch_unwind(AssertUnwindSafe(|| action(core, room))).is_err() {
            self.expel(now, key);
        }
    }

    /// The same for somebody of another part of the room, which is asked to end the stay.
    pub(super) fn contain_remote(
        &mut self,
        key: RoomKey,
        origin: Origin,
        action: impl FnOnce(&mut Core, &mut Room),
    ) {
        let core = &mut self.core;
        let Some(room) = self.rooms.get_mut(key.0 as usize) else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| action(core, room))).is_err() {
            core.counters.peer_panics += 1;
            tracing::error!(room = ?room.sid, "panic in a track of another part");
            room.pass_fault(core, origin);
        }
    }

    /// Takes out a participant in whose name something panicked; if even that panics, its room.
    fn expel(&mut self, now: Instant, key: PeerKey) {
        let core = &mut self.core;
        let Some(room) = self.rooms.get_mut(key.room.0 as usize) else {
            return;
        };
        core.counters.peer_panics += 1;
        tracing::error!(room = ?room.sid, "panic in a peer: its participant is removed");
        let departure = FAULT;
        let removed = catch_unwind(AssertUnwindSafe(|| {
            if room.participants.contains(key.participant as usize) {
                room.leave(core, key.participant, departure, now);
            }
        }));
        if removed.is_err() {
            self.close_room(key.room, FAULT, now);
        }
    }

    /// Runs what belongs to no single participant; a fault closes this part of the room.
    pub(in crate::media) fn contain_room(
        &mut self,
        now: Instant,
        key: RoomKey,
        action: impl FnOnce(&mut Core, &mut Room),
    ) {
        let core = &mut self.core;
        let Some(room) = self.rooms.get_mut(key.0 as usize) else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| action(core, room))).is_err() {
            self.core.counters.peer_panics += 1;
            self.close_room(key, FAULT, now);
        }
    }
}

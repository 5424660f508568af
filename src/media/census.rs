//! How many people a room holds and how many of them publish, told to everybody in it.
//!
//! A room of a thousand fills within a minute, and each arrival would be news for a thousand: what
//! changes within some seconds is told together, at their end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::Notice;
use super::room::Room;
use super::shard::Core;

/// At most one update in this time. Clients show the number; nothing waits for it.
const INTERVAL: Duration = Duration::from_secs(5);

/// The numbers of a room.
#[derive(Debug, Default)]
pub struct Census {
    /// Visible participants, and those of them who publish.
    counted: (usize, usize),
    /// When a change is to be told.
    pub due: Option<Instant>,
}

impl Census {
    /// Visible participants, wherever they are.
    pub fn people(&self) -> usize {
        self.counted.0
    }
}

impl Room {
    /// Somebody came, went, or began or ceased to publish: if that changes the numbers, all will
    /// be told.
    pub fn count(&mut self, core: &mut Core, now: Instant) {
        let visible = self.participants.iter();
        let visible = visible.filter(|(_, who)| !who.permissions.hidden);
        let counted = visible.fold((0, 0), |(all, publishers), (_, who)| {
            (all + 1, publishers + usize::from(!who.published.is_empty()))
        });
        let beyond = self.spread.iter().flat_map(|spread| spread.visible());
        let counted = beyond.fold(counted, |(all, publishers), who| {
            (all + 1, publishers + usize::from(!who.published.is_empty()))
        });
        if counted != self.census.counted {
            self.census.counted = counted;
            self.census.due.get_or_insert(now + INTERVAL);
            self.arm_room(core);
        }
    }

    /// Tells the numbers when it is time. Also if they are back at what they were: who came in
    /// between has others.
    pub fn tell_count(&mut self, core: &mut Core, now: Instant) {
        if self.census.due.is_some_and(|due| due <= now) {
            self.census.due = None;
            self.tell_room(core);
        }
    }

    /// Tells everybody what the room is like now.
    pub fn tell_room(&mut self, core: &mut Core) {
        let info = Arc::new(self.info(core));
        for (_, participant) in &self.participants {
            core.notify(participant.session, Notice::Room(Arc::clone(&info)));
        }
    }
}

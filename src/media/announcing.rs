//! What others are told of a participant that changes.
//!
//! What has to be known before media that follows is told at once: tracks that come and go. What a
//! client can change as often as it likes (mutes, its profile) is told at once the first time, and
//! then with the next tick: a message to everybody for each of its messages, with all its tracks
//! and metadata, would fill everybody's queues.

use std::sync::Arc;
use std::time::Instant;

use super::message::Notice;
use super::room::Room;
use super::shard::{Core, TICK};

/// Whether something of a participant is still to be told.
#[derive(Debug)]
pub struct News {
    told: Instant,
    waiting: bool,
}

impl News {
    /// None.
    pub fn new(now: Instant) -> Self {
        Self {
            told: now.checked_sub(TICK).unwrap_or(now),
            waiting: false,
        }
    }
}

impl Room {
    /// Something changed that others see, and they are told at once.
    pub fn changed(&mut self, core: &mut Core, slot: u32) {
        self.renew(slot);
        self.announce(core, slot);
    }

    /// Something changed that others are told soon.
    pub fn changed_soon(&mut self, core: &mut Core, slot: u32, now: Instant) {
        self.renew(slot);
        let news = &mut self.participants[slot as usize].news;
        news.waiting = true;
        if now.saturating_duration_since(news.told) >= TICK {
            self.tell_news(core, slot, now);
        }
    }

    /// The same for something that the participant itself wants to see as well, and at once.
    pub fn changed_for_all(&mut self, core: &mut Core, slot: u32, now: Instant) {
        self.changed_soon(core, slot, now);
        let info = self.info_of(slot);
        let session = self.participants[slot as usize].session;
        core.notify(session, Notice::Participant(info));
    }

    /// Tells what waits.
    pub fn tell_news(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let news = &mut self.participants[slot as usize].news;
        if std::mem::take(&mut news.waiting) {
            news.told = now;
            self.announce(core, slot);
        }
    }

    /// Tells everybody else how a participant looks now, unless it is hidden.
    pub fn announce(&mut self, core: &mut Core, slot: u32) {
        self.pass_present(core, slot);
        if self.participants[slot as usize].permissions.hidden {
            return;
        }
        let info = self.info_of(slot);
        for (other, participant) in &self.participants {
            if other as u32 != slot {
                core.notify(participant.session, Notice::Participant(Arc::clone(&info)));
            }
        }
    }

    fn renew(&mut self, slot: u32) {
        let participant = &mut self.participants[slot as usize];
        participant.version += 1;
        participant.info.take();
    }
}

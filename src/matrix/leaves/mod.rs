//! Leaves that clients entrust to us: what is to be done about each, and when.
//!
//! A client schedules its own leave at the homeserver, to be sent after a delay, and names it to
//! us. While the client is in the call the delay is restarted; when it has gone, the leave is sent
//! at once (MSC4140, MSC4195). So a membership ends with its media, and with the client's own power
//! cut too.
//!
//! ```text
//! entrusted -> Waiting --joined--> Present (restarted at 80 % of the delay) --left--> Leaving
//!                 |                                                                   ^  |
//!                 +--- never joined within the delay, an hour at most ----------------+  +-> sent
//! ```
//!
//! This is a value without clock, sockets or files; what it says is done elsewhere, and [`store`]
//! keeps it over a restart.

pub mod store;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::name::UserId;
use crate::ids::{Identity, RoomName};

/// Leaves that are kept at a time; more are refused. Each has a participant, or had one.
const LEAVES_MAX: usize = 50_000;

/// What is entrusted for longer waits this long for its participant, or to be sent.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// A leave is sent again for this long at least.
const SEND_TIME_MIN: Duration = Duration::from_secs(1);

/// How long participants may take to come back after this process was restarted: clients notice
/// within 15 s, and then try for a while.
const RETURN_TIME: Duration = Duration::from_secs(60);

/// Wait after a first failure; each further one doubles it.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Whose leave it is.
pub type Key = (RoomName, Identity);

/// A leave that waits at the homeserver.
#[derive(Clone, PartialEq, Eq)]
pub struct Leave {
    /// Whose event it is.
    pub user: UserId,
    /// Its name at the homeserver. Comes from a client: to be escaped.
    pub id: String,
    /// How long the homeserver waits after each restart.
    pub delay: Duration,
}

/// What is to be done at the homeserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Have it wait for the whole delay again.
    Restart,
    /// Have it sent.
    Send,
}

/// Something to do now; its end has to be told by [`Leaves::done`].
pub struct Due {
    /// Whose leave it is.
    pub key: Key,
    /// Which of the leaves it had.
    pub entrusted: u64,
    /// The leave.
    pub leave: Leave,
    /// What to do.
    pub deed: Deed,
}

/// How a deed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The homeserver has no such leave any more, or it can't be changed any more.
    Gone,
    /// It may work later, not before this duration if one is given.
    Later(Option<Duration>),
}

/// What of a change has to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing changed.
    Same,
    /// The homeserver has restarted the leave: it sends it by itself only after the whole delay.
    Restarted,
    /// There is nothing to keep any more.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The participant has not been seen.
    Waiting,
    /// The participant is there.
    Present,
    /// The leave is to be sent.
    Leaving,
}

struct Entrusted {
    leave: Leave,
    number: u64,
    phase: Phase,
    /// When something is to be done.
    next: Instant,
    /// When nothing more can be done: the homeserver has sent it by itself, or we give up.
    end: Instant,
    /// Failures in a row.
    failures: u32,
    /// A deed is under way.
    busy: bool,
}

/// All leaves.
#[derive(Default)]
pub struct Leaves {
    by_key: HashMap<Key, Entrusted>,
    /// Those that aren't busy, by the time when something is to be done.
    queue: BTreeSet<(Instant, Key)>,
    count: u64,
}

impl Leaves {
    /// Takes a leave in the place of the one that the participant had; false if there are too many.
    /// `present`: the participant is in the room now.
    pub fn entrust(&mut self, now: Instant, key: Key, leave: Leave, present: bool) -> bool {
        if self.by_key.len() >= LEAVES_MAX && !self.by_key.contains_key(&key) {
            return false;
        }
        let end = now + leave.delay;
        let (phase, next) = match present {
            true => (Phase::Present, now),
            false => (Phase::Waiting, now + leave.delay.min(WAIT_MAX)),
        };
        self.put(key, leave, phase, next, end);
        true
    }

    /// Takes up a leave from before a restart; the homeserver sends it by itself after `left`.
    pub fn resume(&mut self, now: Instant, key: Key, leave: Leave, left: Duration) {
        let next = now + left.min(RETURN_TIME);
        self.put(key, leave, Phase::Waiting, next, now + left);
    }

    fn put(&mut self, key: Key, leave: Leave, phase: Phase, next: Instant, end: Instant) {
        self.count += 1;
        let entrusted = Entrusted {
            leave,
            number: self.count,
            phase,
            next,
            end,
            failures: 0,
            busy: false,
        };
        if let Some(former) = self.by_key.insert(key.clone(), entrusted) {
            self.queue.remove(&(former.next, key.clone()));
        }
        self.queue.insert((next, key));
    }

    /// Whether the participant has entrusted a leave.
    pub fn has(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    /// Everybody who has.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.by_key.keys()
    }

    /// What is to be kept; `now` is the time since 1970 at `clock`.
    pub fn records(&self, clock: Instant, now: Duration) -> Vec<store::Kept> {
        let record = |(key, entrusted): (&Key, &Entrusted)| store::Kept {
            key: key.clone(),
            leave: entrusted.leave.clone(),
            end: now + entrusted.end.saturating_duration_since(clock),
        };
        self.by_key.iter().map(record).collect()
    }

    /// The participant is in the room.
    pub fn joined(&mut self, now: Instant, key: &Key) {
        self.change(key, |entrusted| {
            if entrusted.phase != Phase::Present {
                entrusted.phase = Phase::Present;
                entrusted.next = now;
                entrusted.failures = 0;
            }
        });
    }

    /// The participant has gone. Who was never there keeps the time it has to come.
    pub fn left(&mut self, now: Instant, key: &Key) {
        self.change(key, |entrusted| {
            if entrusted.phase == Phase::Present {
                entrusted.leave_now(now);
            }
        });
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Entrusted)) {
        let Some(entrusted) = self.by_key.get_mut(key) else {
            return;
        };
        self.queue.remove(&(entrusted.next, key.clone()));
        change(entrusted);
        if !entrusted.busy {
            self.queue.insert((entrusted.next, key.clone()));
        }
    }

    /// When something is to be done next.
    pub fn wake(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The next thing to do now, if any. Leaves for which it is too late are put into `ended`.
    pub fn due(&mut self, now: Instant, ended: &mut Vec<Key>) -> Option<Due> {
        while let Some((at, _)) = self.queue.first()
            && *at <= now
        {
            let (_, key) = self.queue.pop_first()?;
            let Some(entrusted) = self.by_key.get_mut(&key) else {
                continue;
            };
            if entrusted.phase == Phase::Waiting {
                entrusted.leave_now(now);
            }
            if entrusted.end < now {
                self.by_key.remove(&key);
                ended.push(key);
                continue;
            }
            entrusted.busy = true;
            return Some(Due {
                entrusted: entrusted.number,
                leave: entrusted.leave.clone(),
                deed: entrusted.deed(),
                key,
            });
        }
        None
    }

    /// Notes how a deed ended. What was done for a leave that was replaced meanwhile says nothing.
    pub fn done(&mut self, now: Instant, due: &Due, outcome: Outcome) -> Kept {
        let entrusted = self.by_key.get_mut(&due.key);
        let Some(entrusted) = entrusted.filter(|it| it.number == due.entrusted) else {
            return Kept::Same;
        };
        entrusted.busy = false;
        let kept = match (due.deed, outcome) {
            (Deed::Restart, Outcome::Done) => Kept::Restarted,
            (_, Outcome::Later(_)) => Kept::Same,
            (Deed::Send, Outcome::Done) | (_, Outcome::Gone) => Kept::Ended,
        };
        // What was to be done may be another by now, and that at once.
        let same = entrusted.deed() == due.deed;
        match outcome {
            Outcome::Later(not_before) if same => {
                let doubled = BACKOFF * (1 << entrusted.failures.min(7));
                entrusted.failures += 1;
                let wait = not_before.unwrap_or_default().max(doubled.min(BACKOFF_MAX));
                // The last attempt is just before the end.
                entrusted.next = (now + wait).min(entrusted.end.max(now));
            }
            Outcome::Done if kept == Kept::Restarted => {
                entrusted.failures = 0;
                if same {
                    entrusted.end = now + entrusted.leave.delay;
                    entrusted.next = now + entrusted.leave.delay * 4 / 5;
                }
            }
            _ => {}
        }
        match kept {
            Kept::Ended => {
                self.by_key.remove(&due.key);
            }
            _ => {
                self.queue.insert((entrusted.next, due.key.clone()));
            }
        }
        kept
    }
}

impl Entrusted {
    fn leave_now(&mut self, now: Instant) {
        self.phase = Phase::Leaving;
        self.next = now;
        self.failures = 0;
        self.end = now + self.leave.delay.clamp(SEND_TIME_MIN, WAIT_MAX);
    }

    fn deed(&self) -> Deed {
        match self.phase {
            Phase::Present => Deed::Restart,
            Phase::Waiting | Phase::Leaving => Deed::Send,
        }
    }
}

#[cfg(test)]
mod tests;

//! What asking homeservers came to, in numbers that the metrics page reads.

use std::sync::atomic::{AtomicU64, Ordering};

use super::homeservers::{Failed, Unverified};

/// Counters from the start of the process. The first seven are questions who holds a token.
#[derive(Debug, Default)]
pub struct Stats {
    /// Answered with a user.
    pub verified: AtomicU64,
    /// The homeserver doesn't know the token.
    pub refused: AtomicU64,
    /// The homeserver can't be found, may not be asked, or doesn't answer as one.
    pub unreachable: AtomicU64,
    /// The homeserver took too long.
    pub timeouts: AtomicU64,
    /// The homeserver named somebody who is not its user.
    pub foreign: AtomicU64,
    /// Not asked: the homeserver is none of those whose users may come.
    pub not_allowed: AtomicU64,
    /// Not asked: too many questions are under way.
    pub busy: AtomicU64,
    /// Calls of client-server APIs that were answered, whatever the answer.
    pub calls_answered: AtomicU64,
    /// Calls of client-server APIs without an answer.
    pub calls_failed: AtomicU64,
}

impl Stats {
    /// Questions who holds a token, by outcome.
    pub fn tokens(&self) -> ([&'static str; 7], [u64; 7]) {
        let all = [
            ("verified", &self.verified),
            ("refused", &self.refused),
            ("unreachable", &self.unreachable),
            ("timeout", &self.timeouts),
            ("foreign", &self.foreign),
            ("not_allowed", &self.not_allowed),
            ("busy", &self.busy),
        ];
        (
            all.map(|(outcome, _)| outcome),
            all.map(|(_, counter)| read(counter)),
        )
    }

    /// Calls that were answered, and those that were not.
    pub fn calls(&self) -> [u64; 2] {
        [read(&self.calls_answered), read(&self.calls_failed)]
    }

    pub(super) fn asked<T>(&self, outcome: &Result<T, Unverified>) {
        count(match outcome {
            Ok(_) => &self.verified,
            Err(Unverified::Refused) => &self.refused,
            Err(Unverified::Unreachable) => &self.unreachable,
            Err(Unverified::Timeout) => &self.timeouts,
            Err(Unverified::ForeignSub) => &self.foreign,
            Err(Unverified::NotAllowed) => &self.not_allowed,
            Err(Unverified::Busy) => &self.busy,
        });
    }

    pub(super) fn called<T>(&self, outcome: &Result<T, Failed>) {
        count(match outcome {
            Ok(_) => &self.calls_answered,
            Err(_) => &self.calls_failed,
        });
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

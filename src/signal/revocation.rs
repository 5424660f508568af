//! Tokens that are refused though they are genuine: those of participants who were removed, made
//! before the removal. The one table of signalling that outlives a connection; the end of the
//! process empties it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Stats;
use super::grant::{Grant, Refused};
use crate::config::Config;
use crate::ids::{Identity, RoomName};

type Key = (RoomName, Identity);

/// Who was removed from which room, and when. Times are those since 1970.
#[expect(clippy::disallowed_types, reason = "signalling is off the packet path")]
pub(super) struct Revocations {
    table: std::sync::Mutex<Table>,
    lifetime: Duration,
    max: usize,
    stats: Arc<Stats>,
}

#[derive(Default)]
struct Table {
    removals: HashMap<Key, Removal>,
    /// The same by their ends.
    ends: BTreeSet<(Duration, Key)>,
}

struct Removal {
    /// Tokens made earlier are refused.
    before: Duration,
    end: Duration,
}

impl Revocations {
    pub fn new(config: &Config, stats: Arc<Stats>) -> Self {
        Self {
            table: Default::default(),
            lifetime: config.rooms.revocation_time,
            max: config.limits.revocations,
            stats,
        }
    }

    /// Refuses tokens of `identity` for `room` that were made before `before`.
    pub fn revoke(&self, room: RoomName, identity: Identity, before: Duration, now: Duration) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.forget_until(now);
        let key = (room, identity);
        let end = now.saturating_add(self.lifetime);
        let removal = Removal { before, end };
        if let Some(former) = table.removals.insert(key.clone(), removal) {
            table.ends.remove(&(former.end, key.clone()));
        }
        table.ends.insert((end, key));
        while table.ends.len() > self.max {
            table.forget_oldest();
            Stats::count(&self.stats.revocations_forgotten);
        }
    }

    /// Fails if the token of `grant` was revoked.
    pub fn check(&self, grant: &Grant, now: Duration) -> Result<(), Refused> {
        let Some(room) = grant.room.clone() else {
            return Ok(());
        };
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (room, grant.identity.clone());
        let old = |removal: &Removal| {
            removal.end > now && grant.issued.is_none_or(|issued| issued < removal.before)
        };
        match table.removals.get(&key).is_some_and(old) {
            true => Err(Refused::Revoked),
            false => Ok(()),
        }
    }
}

impl Table {
    fn forget_until(&mut self, now: Duration) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.ends.pop_first() {
            self.removals.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::Sources;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn revocations(max: usize) -> Revocations {
        let sources = Sources {
            dev: true,
            ..Sources::default()
        };
        let mut config = Config::load(&sources).unwrap().config;
        config.limits.revocations = max;
        config.rooms.revocation_time = seconds(100);
        Revocations::new(&config, Arc::default())
    }

    fn grant(identity: &str, issued: Option<u64>) -> Grant {
        Grant {
            room: Some("red".into()),
            issued: issued.map(seconds),
            ..Grant::new(identity.into())
        }
    }

    #[test]
    fn only_older_tokens_of_that_person_and_room_are_refused_and_not_for_ever() {
        let table = revocations(9);
        table.revoke("red".into(), "anna".into(), seconds(1000), seconds(1000));
        let refused = Err(Refused::Revoked);
        for (issued, verdict) in [(None, refused), (Some(999), refused), (Some(1000), Ok(()))] {
            assert_eq!(table.check(&grant("anna", issued), seconds(1001)), verdict);
        }
        assert_eq!(table.check(&grant("ben", Some(999)), seconds(1001)), Ok(()));
        let elsewhere = Grant {
            room: Some("blue".into()),
            ..grant("anna", Some(999))
        };
        assert_eq!(table.check(&elsewhere, seconds(1001)), Ok(()));
        assert_eq!(table.check(&grant("anna", None), seconds(1100)), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes_first() {
        let table = revocations(2);
        for (second, who) in [(1, "anna"), (2, "ben"), (3, "anna"), (4, "cora")] {
            table.revoke("red".into(), who.into(), seconds(1000), seconds(second));
        }
        let refuses = |who| table.check(&grant(who, None), seconds(5)).is_err();
        assert!(refuses("anna") && refuses("cora") && !refuses("ben"));
        let forgotten = table.stats.revocations_forgotten.load(Ordering::Relaxed);
        assert_eq!(forgotten, 1);
        table.revoke("red".into(), "dora".into(), seconds(1000), seconds(500));
        assert_eq!(table.table.lock().unwrap().removals.len(), 1);
    }
}

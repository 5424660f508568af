//! What one client knows of others, so that it is told only what changed.
//!
//! Instead of an event for each way in which knowledge can change (a value, a subscription that
//! begins or ends, somebody who goes), what a client should know is gathered anew at every look
//! and compared with what it was told.

use super::relay::REMOTE;
use super::room::Room;
use crate::ids::ParticipantSid;

/// A value of each participant a client was told of, ascending by slot.
#[derive(Debug)]
pub struct Known<T>(Vec<Fact<T>>);

#[derive(Debug)]
struct Fact<T> {
    slot: u32,
    /// Slots are used again, so the stay is named too.
    about: ParticipantSid,
    value: T,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Known<T> {
    /// Takes all that should be known now, ascending by slot. `tell` gets what is new or has
    /// changed, and with `None` what is known no longer.
    pub fn update<'a>(
        &mut self,
        current: impl Iterator<Item = (u32, &'a ParticipantSid, T)>,
        mut tell: impl FnMut(ParticipantSid, Option<T>),
    ) {
        let before = std::mem::take(&mut self.0);
        for (slot, about, value) in current {
            let told = before
                .binary_search_by_key(&slot, |fact| fact.slot)
                .is_ok_and(|at| before[at].about == *about && before[at].value == value);
            if !told {
                tell(about.clone(), Some(value));
            }
            let about = about.clone();
            self.0.push(Fact { slot, about, value });
        }
        for fact in before {
            let stays = self.0.binary_search_by_key(&fact.slot, |now| now.slot);
            if !stays.is_ok_and(|at| self.0[at].about == fact.about) {
                tell(fact.about, None);
            }
        }
    }

    /// As if these values were known, ascending by slot.
    pub fn assumed(values: impl Iterator<Item = (u32, ParticipantSid, T)>) -> Self {
        let fact = |(slot, about, value)| Fact { slot, about, value };
        Self(values.map(fact).collect())
    }

    /// Whether nothing is known of anybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Room {
    /// Who is told of the participants in `about`: they themselves, and who has a track of theirs.
    /// Pairs of who is told and of whom (a place in `about`), in this order ascending, each once.
    /// Those of other parts are told there.
    pub(super) fn audience(&self, about: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
        let mut pairs = Vec::new();
        for (place, slot) in about.enumerate() {
            if slot < REMOTE {
                pairs.push((slot, place as u32));
            }
            for key in self.published_by(slot) {
                let subscribers = self[*key].subscribers();
                pairs.extend(subscribers.map(|one| (one.participant, place as u32)));
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(known: &mut Known<u8>, now: &[(u32, &str, u8)]) -> Vec<(String, Option<u8>)> {
        let now: Vec<_> = now
            .iter()
            .map(|(slot, sid, value)| (*slot, ParticipantSid::from(*sid), *value))
            .collect();
        let mut said = Vec::new();
        let current = now.iter().map(|(slot, sid, value)| (*slot, sid, *value));
        known.update(current, |sid, value| {
            said.push((sid.as_str().to_owned(), value))
        });
        said
    }

    #[test]
    fn only_changes_are_told() {
        let mut known = Known::default();
        let said = |sid: &str, value| (sid.to_owned(), value);
        assert_eq!(
            told(&mut known, &[(1, "PA_a", 5), (7, "PA_b", 3)]),
            [said("PA_a", Some(5)), said("PA_b", Some(3))]
        );
        assert_eq!(told(&mut known, &[(1, "PA_a", 5), (7, "PA_b", 3)]), []);
        assert_eq!(
            told(&mut known, &[(1, "PA_a", 6), (7, "PA_b", 3)]),
            [said("PA_a", Some(6))]
        );
        assert_eq!(
            told(&mut known, &[(7, "PA_b", 3), (9, "PA_c", 1)]),
            [said("PA_c", Some(1)), said("PA_a", None)]
        );
        assert!(!known.is_empty());
        assert_eq!(
            told(&mut known, &[]),
            [said("PA_b", None), said("PA_c", None)]
        );
        assert!(known.is_empty());
    }

    #[test]
    fn a_slot_that_is_used_again_is_somebody_else() {
        let mut known = Known::default();
        told(&mut known, &[(1, "PA_a", 5)]);
        assert_eq!(
            told(&mut known, &[(1, "PA_b", 5)]),
            [("PA_b".to_owned(), Some(5)), ("PA_a".to_owned(), None)]
        );
    }
}

//! Who may receive what somebody publishes: a publisher may name the participants and tracks, also
//! such that aren't there yet. Without a word from it everybody may.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::TrackKey;
use super::message::Notice;
use super::room::Room;
use super::shard::Core;
use crate::ids::{Identity, ParticipantSid, TrackSid};

/// Somebody whom a publisher lets have tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// One stay of somebody; empty when it goes by identity.
    pub participant: ParticipantSid,
    /// Somebody in all stays; empty when it goes by stay.
    pub identity: Identity,
    /// The tracks; `None` for all.
    pub tracks: Option<Vec<TrackSid>>,
}

/// Whom a publisher lets have which tracks.
#[derive(Debug, Default)]
pub struct Allowances {
    by_stay: HashMap<ParticipantSid, Tracks>,
    by_identity: HashMap<Identity, Tracks>,
}

/// Tracks of one publisher.
#[derive(Debug)]
enum Tracks {
    All,
    These(HashSet<TrackSid>),
}

impl Allowances {
    fn new(allowances: Vec<Allowance>) -> Self {
        let mut all = Self::default();
        for Allowance {
            participant,
            identity,
            tracks,
        } in allowances
        {
            if !participant.as_str().is_empty() {
                let known = all.by_stay.entry(participant).or_insert_with(Tracks::none);
                known.add(tracks.as_deref());
            }
            if !identity.as_str().is_empty() {
                let known = all.by_identity.entry(identity).or_insert_with(Tracks::none);
                known.add(tracks.as_deref());
            }
        }
        all
    }

    /// Whether this participant may have this track.
    fn cover(&self, sid: &ParticipantSid, identity: &Identity, track: &TrackSid) -> bool {
        let named = [self.by_stay.get(sid), self.by_identity.get(identity)];
        named.into_iter().flatten().any(|tracks| match tracks {
            Tracks::All => true,
            Tracks::These(these) => these.contains(track),
        })
    }
}

impl Tracks {
    fn none() -> Self {
        Self::These(HashSet::new())
    }

    fn add(&mut self, tracks: Option<&[TrackSid]>) {
        match (self, tracks) {
            (Self::These(these), Some(more)) => these.extend(more.iter().cloned()),
            (all, None) => *all = Self::All,
            (Self::All, Some(_)) => {}
        }
    }
}

impl Room {
    /// A publisher says who may have its tracks, `None` for everybody. Whoever may no longer loses
    /// them, and whoever may again gets what it wanted.
    pub fn restrict(
        &mut self,
        core: &mut Core,
        slot: u32,
        allowances: Option<Vec<Allowance>>,
        now: Instant,
    ) {
        let participant = &mut self.participants[slot as usize];
        participant.allowances = allowances.map(Allowances::new).map(Arc::new);
        let published = participant.published.clone();
        if self.spread.is_some() {
            // With other news of it: a client may change its mind as often as it likes.
            self.changed_soon(core, slot, now);
        }
        self.enforce(core, Some(slot), &published, now);
    }

    /// Who may have these tracks has changed; their publisher is not among those who would.
    pub(super) fn enforce(
        &mut self,
        core: &mut Core,
        publisher: Option<u32>,
        published: &[TrackKey],
        now: Instant,
    ) {
        let others = self.participants.iter().map(|(other, _)| other as u32);
        let others: Vec<_> = others.filter(|other| Some(*other) != publisher).collect();
        for key in published.iter().copied() {
            for other in &others {
                if !self.admits(core, *other, key) {
                    self.unsubscribe(*other, key);
                }
            }
            self.offer_to_all(core, key, now);
        }
        for other in others {
            self.ask_for_sections(core, other, now);
        }
    }

    /// Whether the publisher of a track lets `slot` have it. When that has changed, `slot` is told.
    pub(super) fn admits(&mut self, core: &mut Core, slot: u32, key: TrackKey) -> bool {
        let track = &self.tracks[key.0 as usize];
        let Some((publisher, allowances)) = self.terms_of(key) else {
            return false;
        };
        let subscriber = &self.participants[slot as usize];
        let allowed = allowances.is_none_or(|allowances| {
            allowances.cover(&subscriber.sid, &subscriber.identity, &track.info.sid)
        });
        let notice = Notice::SubscriptionAllowed {
            participant: publisher.clone(),
            track: track.info.sid.clone(),
            allowed,
        };
        let subscriber = &mut self.participants[slot as usize];
        let news = match allowed {
            true => subscriber.denied.remove(&key),
            false => subscriber.denied.insert(key),
        };
        if news {
            core.notify(subscriber.session, notice);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_names_somebody_and_maybe_tracks() {
        let allowance = |participant: &str, identity: &str, tracks: Option<&[&str]>| Allowance {
            participant: participant.into(),
            identity: identity.into(),
            tracks: tracks.map(|all| all.iter().map(|sid| TrackSid::from(*sid)).collect()),
        };
        let cases = [
            ("by stay", allowance("PA_b", "", None), true),
            ("by identity", allowance("", "ben", None), true),
            ("somebody else", allowance("PA_c", "carl", None), false),
            ("nobody", allowance("", "", None), false),
            ("this track", allowance("", "ben", Some(&["TR_a"])), true),
            (
                "another track",
                allowance("", "ben", Some(&["TR_b"])),
                false,
            ),
            ("no track", allowance("PA_b", "ben", Some(&[])), false),
        ];
        for (sentence, allowance, covers) in cases {
            let all = Allowances::new(vec![allowance]);
            let covered = all.cover(&"PA_b".into(), &"ben".into(), &"TR_a".into());
            assert_eq!(covered, covers, "{sentence}");
        }
        let both = vec![
            allowance("PA_b", "", Some(&["TR_b"])),
            allowance("PA_b", "", Some(&["TR_a"])),
        ];
        let both = Allowances::new(both);
        assert!(both.cover(&"PA_b".into(), &"ben".into(), &"TR_a".into()));
    }
}

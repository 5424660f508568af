//! Whose a track is, and where somebody is, whichever part of the room that may be.

use super::{Origin, REMOTE, Remote};
use crate::ids::{Identity, ParticipantSid, WorkerId};
use crate::media::TrackKey;
use crate::media::restriction::Allowances;
use crate::media::room::Room;
use crate::media::shard::Core;
use crate::media::track::Publisher;

impl Room {
    /// Numbers and ids of those in other parts, ascending.
    pub fn remote_sids(&self) -> impl Iterator<Item = (u32, &ParticipantSid, &Remote)> {
        let remotes = self.spread.iter().flat_map(|spread| &spread.remotes);
        remotes.map(|(key, remote)| (REMOTE + key as u32, &remote.info.sid, remote))
    }

    /// Tracks of whom that number means.
    pub fn published_by(&self, number: u32) -> &[TrackKey] {
        match number.checked_sub(REMOTE) {
            None => &self.participants[number as usize].published,
            Some(key) => {
                let remotes = self.spread.as_ref().map(|spread| &spread.remotes);
                let remote = remotes.and_then(|remotes| remotes.get(key as usize));
                remote.map_or(&[], |remote| &remote.published)
            }
        }
    }

    /// Which worker has the participant of this identity.
    pub fn worker_of(&self, core: &Core, identity: &Identity) -> Option<WorkerId> {
        if self.by_identity.contains_key(identity) {
            return Some(core.config.worker);
        }
        let spread = self.spread.as_ref()?;
        let link = spread.links.get(spread.find(identity)?.link as usize)?;
        Some(link.part.worker)
    }

    /// Somebody of another part, by its number among them.
    fn remote(&self, origin: Origin) -> Option<&Remote> {
        self.spread.as_ref()?.remotes.get(origin.remote as usize)
    }

    /// Whose track that is.
    pub fn identity_of(&self, key: TrackKey) -> Option<&Identity> {
        match self[key].publisher {
            Publisher::Here(slot) => Some(&self.participants[slot as usize].identity),
            Publisher::There(origin) => self.remote(origin).map(|it| &it.info.identity),
        }
    }

    /// Who may have a track, and the stay of its publisher.
    pub fn terms_of(&self, key: TrackKey) -> Option<(&ParticipantSid, Option<&Allowances>)> {
        Some(match self[key].publisher {
            Publisher::Here(slot) => {
                let publisher = &self.participants[slot as usize];
                (&publisher.sid, publisher.allowances.as_deref())
            }
            Publisher::There(origin) => {
                let publisher = self.remote(origin)?;
                (&publisher.info.sid, publisher.allowances.as_deref())
            }
        })
    }

    /// Whether the publisher of a track is hidden.
    pub fn is_hidden(&self, key: TrackKey) -> bool {
        match self[key].publisher {
            Publisher::Here(slot) => self.participants[slot as usize].permissions.hidden,
            Publisher::There(origin) => {
                let publisher = self.remote(origin);
                publisher.is_none_or(|it| it.info.permissions.hidden)
            }
        }
    }
}

//! What others see of a participant beside its tracks: name, metadata, attributes. It may change
//! them itself if its token says so; operators always may.

use std::time::Instant;

use super::message::Notice;
use super::message::administration::{Profile, ProfileRefusal};
use super::room::Room;
use super::shard::Core;

/// Newer clients than this want to hear that a request was granted, too.
const PROTOCOL_WITHOUT_CONSENT: i32 = 14;

impl Room {
    /// A participant changes its own profile.
    pub fn update_profile(
        &mut self,
        core: &mut Core,
        slot: u32,
        request_id: u32,
        profile: Box<Profile>,
        now: Instant,
    ) {
        let participant = &self.participants[slot as usize];
        let session = participant.session;
        let told = participant.client.protocol > PROTOCOL_WITHOUT_CONSENT;
        let result = match participant.permissions.update_metadata {
            true => self.set_profile(core, slot, (*profile).clone()),
            false => Err(ProfileRefusal::NotAllowed),
        };
        // The client waits until it sees itself changed, so it is told even if nothing is new. And
        // before it is answered: the Rust SDK says its name and metadata again with each change of
        // one, as it knows them, so a change that follows the answer would take this one back.
        if result.is_ok() {
            self.changed_for_all(core, slot, now);
        }
        if told || result.is_err() {
            let answer = Notice::ProfileAnswer {
                request_id,
                profile,
                result: result.map(|_| ()),
            };
            core.notify(session, answer);
        }
    }

    /// Takes over a profile; whether it says anything. Nobody is told.
    pub fn set_profile(
        &mut self,
        core: &Core,
        slot: u32,
        profile: Profile,
    ) -> Result<bool, ProfileRefusal> {
        let limits = &core.config.limits;
        let participant = &mut self.participants[slot as usize];
        let over = |text: &Option<String>, max| text.as_ref().is_some_and(|it| it.len() > max);
        if over(&profile.name, limits.name_bytes) {
            return Err(ProfileRefusal::NameTooLong);
        }
        if over(&profile.metadata, limits.metadata_bytes) {
            return Err(ProfileRefusal::MetadataTooLong);
        }
        let says_nothing = profile == Profile::default();
        let mut attributes = participant.attributes.clone();
        for (key, value) in profile.attributes {
            match value.is_empty() {
                true => attributes.remove(&key),
                false => attributes.insert(key, value),
            };
        }
        let bytes = attributes
            .iter()
            .map(|(key, value)| key.len() + value.len());
        if bytes.sum::<usize>() > limits.attributes_bytes {
            return Err(ProfileRefusal::AttributesTooLong);
        }
        participant.attributes = attributes;
        if let Some(name) = profile.name {
            participant.name = name;
        }
        if let Some(metadata) = profile.metadata {
            participant.metadata = metadata;
        }
        Ok(!says_nothing)
    }
}

//! Questions to a room on several workers come to its home. What concerns somebody in a branch is
//! answered there, and what concerns everybody by all parts together.

use super::{Charter, Word};
use crate::ids::Identity;
use crate::media::message::administration::{
    Answer, Data, Fact, Question, RoomRefusal, RoomRequest, Ticket,
};
use crate::media::message::facts::{EncodingFacts, RoomFacts};
use crate::media::room::Room;
use crate::media::shard::Core;

/// A question that all parts answer.
#[derive(Debug)]
pub(super) struct Gathering {
    ticket: Ticket,
    /// Parts that haven't answered.
    missing: usize,
    facts: RoomFacts,
}

impl Room {
    /// Passes a question about `who` on to the part that has it; the answer, if none has.
    pub fn pass_question(
        &mut self,
        core: &mut Core,
        who: &Identity,
        question: Question,
    ) -> Option<Answer> {
        let missing = Some(Err(RoomRefusal::ParticipantMissing));
        // Who isn't in a branch isn't known to it either, whatever its home believed.
        let Some(spread) = self.spread.as_mut().filter(|it| it.branch.is_none()) else {
            return missing;
        };
        let Some(link) = spread.find(who).map(|remote| remote.link) else {
            return missing;
        };
        let Some(neighbour) = spread.links.get_mut(link as usize) else {
            return missing;
        };
        neighbour.asked.push(question.ticket);
        self.tell(core, link, Word::Ask(Box::new(question)));
        None
    }

    /// Has all branches say what they measure; the answer comes when they have.
    pub fn gather(&mut self, core: &mut Core, ticket: Ticket, facts: RoomFacts) -> Option<Answer> {
        let Some(spread) = &mut self.spread else {
            return Some(Ok(Fact::Media(Box::new(facts))));
        };
        if spread.branch.is_some() || spread.links.is_empty() {
            return Some(Ok(Fact::Media(Box::new(facts))));
        }
        let missing = spread.links.len();
        for (_, link) in &mut spread.links {
            link.asked.push(ticket);
        }
        spread.gatherings.push(Gathering {
            ticket,
            missing,
            facts,
        });
        let room = self.name.clone();
        self.tell_others(core, None, || {
            Word::Ask(Box::new(Question {
                ticket,
                room: room.clone(),
                request: RoomRequest::Measure,
            }))
        });
        None
    }

    /// A branch answers, or is gone and never will.
    pub(super) fn answered(&mut self, core: &mut Core, link: u32, ticket: Ticket, answer: Answer) {
        let Some(spread) = &mut self.spread else {
            return;
        };
        if let Some(link) = spread.links.get_mut(link as usize) {
            link.asked.retain(|asked| *asked != ticket);
        }
        let mut gatherings = spread.gatherings.iter_mut();
        let Some(at) = gatherings.position(|it| it.ticket == ticket) else {
            return core.answer(ticket, answer);
        };
        let gathering = &mut spread.gatherings[at];
        if let Ok(Fact::Media(facts)) = answer {
            gathering.facts.add(*facts);
        }
        gathering.missing -= 1;
        if gathering.missing == 0 {
            let facts = spread.gatherings.swap_remove(at).facts;
            core.answer(ticket, Ok(Fact::Media(Box::new(facts))));
        }
    }

    /// A link is gone, and what was asked over it is answered without it.
    pub(super) fn give_up_asking(&mut self, core: &mut Core, link: u32) {
        let spread = self.spread.as_mut();
        let link_of = spread.and_then(|spread| spread.links.get_mut(link as usize));
        for ticket in link_of.map_or(Vec::new(), |link| std::mem::take(&mut link.asked)) {
            self.answered(core, link, ticket, Err(RoomRefusal::ParticipantMissing));
        }
    }

    /// Hands a data message from outside to the other parts.
    pub fn pass_distribute(&self, core: &mut Core, data: &Data) {
        self.tell_others(core, None, || Word::Distribute(Box::new(data.clone())));
    }

    /// What holds for the whole room, as the home says it.
    pub(super) fn charter(&self) -> Charter {
        Charter {
            sid: self.sid.clone(),
            sif_trailer: self.sif_trailer.clone(),
            created_at_ms: self.created_at_ms,
            metadata: self.metadata.clone(),
            empty_timeout: self.empty_timeout,
            departure_timeout: self.departure_timeout,
            participants_max: self.participants_max,
        }
    }

    /// Something of that has changed.
    pub fn pass_charter(&self, core: &mut Core) {
        self.tell_others(core, None, || Word::Charter(Box::new(self.charter())));
    }
}

impl RoomFacts {
    /// Adds what another part says: its legs, and who has which tracks there. Tracks themselves
    /// are known best by the part that has their publisher.
    fn add(&mut self, other: RoomFacts) {
        for track in other.tracks {
            let known = self.tracks.iter_mut().find(|it| it.sid == track.sid);
            let Some(known) = known else {
                self.tracks.push(track);
                continue;
            };
            for (known, other) in known.encodings.iter_mut().zip(track.encodings) {
                known.add(&other);
            }
        }
        self.legs.extend(other.legs);
    }
}

impl EncodingFacts {
    fn add(&mut self, other: &Self) {
        self.subscribers += other.subscribers;
        // A part that wants only some of the layers sees no rate of the others.
        for (known, other) in self.layers.iter_mut().zip(&other.layers) {
            known.bitrate = known.bitrate.max(other.bitrate);
            known.ssrc = known.ssrc.or(other.ssrc);
        }
    }
}

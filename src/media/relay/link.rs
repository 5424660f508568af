//! Links between the parts of a room: how they begin, what goes over them, how they end.

use std::time::{Duration, Instant};

use super::{Branch, Charter, Link, Named, Parcel, Part, Recipient, Spread, Word};
use crate::ids::{RoomName, WorkerId};
use crate::media::RoomKey;
use crate::media::containment::FAULT;
use crate::media::known::Known;
use crate::media::message::{Departure, Join, LeaveAction, LeaveReason, Notice, Refusal};
use crate::media::room::Room;
use crate::media::shard::{Core, Shard};
use crate::media::track::Publisher;

const STOPPING: Departure = Departure {
    reason: LeaveReason::ServerShutdown,
    action: LeaveAction::Reconnect,
};

/// How often a part says that it is there, and how long a branch waits for its welcome.
const BEAT: Duration = Duration::from_secs(5);

impl Shard {
    /// Another part of a room says something.
    pub(in crate::media) fn on_parcel(&mut self, now: Instant, parcel: Parcel) {
        let Parcel { from, to, word } = parcel;
        self.core.counters.relayed_in += word.packets() as u64;
        match (to, word) {
            (Recipient::Home(name), Word::Hello { create }) => {
                self.on_hello(now, from, &name, create);
            }
            // Nobody says anything else to a room it doesn't know.
            (Recipient::Home(_), _) => {}
            (Recipient::Part(part), word) => self.on_word(now, (from, part), word),
        }
    }

    /// Something couldn't be said: the other part can't be told anything any more, and as it then
    /// knows what isn't so, the link ends. It learns of that with its next word.
    pub(in crate::media) fn on_unsaid(&mut self, now: Instant, parcel: &Parcel) {
        let from = parcel.from;
        let Some(room) = self.part_mut(from) else {
            return;
        };
        tracing::error!(
            room = ?room.sid,
            "a worker takes nothing from another: its people of this room have to join anew"
        );
        match &parcel.to {
            Recipient::Part(to) if !room.is_branch() => {
                let to = *to;
                self.contain_room(now, from.room, |core, room| room.unlink(core, to, now));
            }
            _ => self.close_room(from.room, FAULT, now),
        }
    }

    fn part_mut(&mut self, part: Part) -> Option<&mut Room> {
        let room = self.rooms.get_mut(part.room.0 as usize);
        room.filter(|room| room.number == part.number)
    }

    fn on_hello(&mut self, now: Instant, from: Part, name: &RoomName, create: bool) {
        let key = match self.by_name.get(name) {
            Some(key) => Ok(*key),
            None if !create => Err(Refusal::RoomMissing),
            None => self.open_room(name, now),
        };
        let key = key.and_then(|key| match self.rooms[key.0 as usize].is_branch() {
            false => Ok(key),
            true => Err(Refusal::Internal),
        });
        match key {
            Ok(key) => self.contain_room(now, key, |core, room| room.welcome(core, from, now)),
            Err(refusal) => {
                let departure = match refusal {
                    Refusal::ShuttingDown => STOPPING,
                    _ => FAULT,
                };
                let nobody = Part {
                    worker: self.core.config.worker,
                    room: RoomKey(u32::MAX),
                    number: 0,
                };
                self.core
                    .relay(nobody, from, Word::Closed(departure, refusal));
            }
        }
    }

    fn on_word(&mut self, now: Instant, (from, to): (Part, Part), word: Word) {
        let link = self.part_mut(to).and_then(|room| room.link_to(from));
        let key = to.room;
        match (link, word) {
            (_, Word::Closed(departure, refusal)) => {
                let Some(room) = self.part_mut(to) else {
                    return;
                };
                let (branch, home) = (room.is_branch(), room.answers_to(from.worker));
                self.contain_room(now, key, |core, room| match branch {
                    true if home => room.refuse_waiting(core, refusal),
                    true => {}
                    false => room.unlink(core, from, now),
                });
                if branch && home {
                    self.close_room(key, departure, now);
                }
            }
            // It knows a part that is gone.
            (None, _) => self
                .core
                .relay(to, from, Word::Closed(FAULT, Refusal::Internal)),
            (Some(_), Word::Ask(question)) => {
                let ticket = question.ticket;
                if let Some(answer) = self.answer(now, *question) {
                    self.core.relay(to, from, Word::Answer(ticket, answer));
                }
            }
            (Some(_), Word::Faulty(track)) => self.expel_publisher(now, key, &track),
            (Some(link), word) => {
                self.contain_room(now, key, |core, room| room.hear(core, link, word, now));
            }
        }
    }

    /// A track of ours, or one that we have passed on, can't be taken elsewhere.
    fn expel_publisher(&mut self, now: Instant, key: RoomKey, named: &Named) {
        let room = &self.rooms[key.0 as usize];
        let Some(track) = room.track_named(named) else {
            return;
        };
        match room[track].publisher {
            Publisher::Here(slot) => {
                let key = room.peer_key(slot);
                self.contain(now, key, |core, room| room.leave(core, slot, FAULT, now));
            }
            Publisher::There(origin) => room.pass_fault(&mut self.core, origin),
        }
    }

    /// Opens a branch of a room whose home is elsewhere. Joins wait in it for its welcome.
    pub(in crate::media) fn open_branch(
        &mut self,
        name: &RoomName,
        home: WorkerId,
        create: bool,
        now: Instant,
    ) -> Result<RoomKey, Refusal> {
        let key = self.place_room()?;
        let mut room = Room::new(&mut self.core, key, name.clone(), now);
        room.spread = Some(Box::new(Spread {
            branch: Some(Branch {
                home,
                welcome: false,
                waiting: Vec::new(),
            }),
            beat: Some(now + BEAT),
            ..Spread::default()
        }));
        let hello = Parcel {
            from: room.part(&self.core),
            to: Recipient::Home(name.clone()),
            word: Word::Hello { create },
        };
        self.core.relay_to(home, hello);
        self.insert_room(room);
        self.rooms[key.0 as usize].arm_room(&mut self.core);
        Ok(key)
    }
}

impl Core {
    fn relay(&mut self, from: Part, to: Part, word: Word) {
        let parcel = Parcel {
            from,
            to: Recipient::Part(to),
            word,
        };
        self.relay_to(to.worker, parcel);
    }
}

impl Room {
    /// Where this part is.
    pub fn part(&self, core: &Core) -> Part {
        Part {
            worker: core.config.worker,
            room: self.key,
            number: self.number,
        }
    }

    /// Whether its home is elsewhere.
    pub fn is_branch(&self) -> bool {
        let spread = self.spread.as_ref();
        spread.is_some_and(|spread| spread.branch.is_some())
    }

    /// Whether it is a home with branches.
    pub fn has_branches(&self) -> bool {
        let spread = self.spread.as_ref();
        spread.is_some_and(|it| it.branch.is_none() && !it.links.is_empty())
    }

    /// Whether joins wait for the welcome.
    pub fn is_awaited(&self) -> bool {
        let branch = self.spread.as_ref().and_then(|it| it.branch.as_ref());
        branch.is_some_and(|branch| !branch.waiting.is_empty())
    }

    fn answers_to(&self, home: WorkerId) -> bool {
        let branch = self.spread.as_ref().and_then(|it| it.branch.as_ref());
        branch.is_some_and(|branch| branch.home == home)
    }

    /// The link to a part that says something. The first word of its home makes a branch's only
    /// one.
    fn link_to(&mut self, from: Part) -> Option<u32> {
        let spread = self.spread.as_mut()?;
        let known = spread.link_of(from);
        let is_home = |branch: &Branch| branch.home == from.worker;
        if known.is_none() && spread.links.is_empty() && spread.branch.as_ref().is_some_and(is_home)
        {
            return Some(spread.link(from));
        }
        known
    }

    /// Says something to a neighbour.
    pub(super) fn tell(&self, core: &mut Core, link: u32, word: Word) {
        let links = self.spread.as_ref().map(|spread| &spread.links);
        if let Some(link) = links.and_then(|links| links.get(link as usize)) {
            self.post(core, link.part, word);
        }
    }

    pub(super) fn post(&self, core: &mut Core, to: Part, word: Word) {
        core.relay(self.part(core), to, word);
    }

    /// Says something to all neighbours but the one it came from.
    pub(super) fn tell_others(
        &self,
        core: &mut Core,
        origin: Option<u32>,
        word: impl Fn() -> Word,
    ) {
        let Some(spread) = &self.spread else { return };
        for (link, neighbour) in &spread.links {
            if origin != Some(link as u32) {
                self.post(core, neighbour.part, word());
            }
        }
    }

    /// When the next sign of life is due.
    pub fn beats_at(&self) -> Option<Instant> {
        let spread = self.spread.as_ref()?;
        let linked = spread.branch.is_some() || !spread.links.is_empty();
        spread.beat.filter(|_| linked)
    }

    /// Whether the home of a branch has said nothing to its first word.
    pub fn waits_in_vain(&self, now: Instant) -> bool {
        let branch = self.spread.as_ref().and_then(|it| it.branch.as_ref());
        let late = || self.beats_at().is_some_and(|at| at <= now);
        branch.is_some_and(|branch| !branch.welcome) && late()
    }

    /// Says that this part is there, when it is time. One that isn't known any more learns of it
    /// by the answer: what ended the link may not have got through.
    pub fn beat(&mut self, core: &mut Core, now: Instant) {
        if self.beats_at().is_none_or(|at| at > now) {
            return;
        }
        if let Some(spread) = &mut self.spread {
            spread.beat = Some(now + BEAT);
        }
        self.tell_others(core, None, || Word::Here);
        // In a home without people nobody else does.
        self.tell_all_demands(core, now);
    }

    /// A branch begins: it is told who is there, and then what holds.
    fn welcome(&mut self, core: &mut Core, from: Part, now: Instant) {
        let spread = self.spread.get_or_insert_default();
        let link = spread.link(from);
        spread.beat.get_or_insert(now + BEAT);
        // It is told of all connections with the next look at them.
        spread.qualities = Known::default();
        let slots: Vec<_> = self.participants.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let present = self.present(slot as u32);
            self.tell(core, link, Word::Present(Box::new(present)));
        }
        let remotes = self.spread.iter().flat_map(|spread| &spread.remotes);
        for (remote, _) in remotes {
            if let Some(present) = self.present_again(remote as u32) {
                self.tell(core, link, Word::Present(Box::new(present)));
            }
        }
        for (_, sid, remote) in self.remote_sids() {
            if let Some(quality) = remote.quality {
                self.tell(core, link, Word::Quality(sid.clone(), quality));
            }
        }
        self.tell(core, link, Word::Charter(Box::new(self.charter())));
        // Somebody is about to come.
        self.empty_since = None;
        self.arm_room(core);
    }

    /// A join waits if the branch hasn't been welcomed yet; it is given back if it can go on.
    pub fn wait_for_welcome(&mut self, core: &Core, join: Join) -> Result<Option<Join>, Refusal> {
        let capacity = core.config.limits.participants_per_room;
        let branch = self.spread.as_mut().and_then(|it| it.branch.as_mut());
        match branch.filter(|branch| !branch.welcome) {
            None => Ok(Some(join)),
            Some(branch) if branch.waiting.len() >= capacity => Err(Refusal::RoomFull),
            Some(branch) => {
                branch.waiting.push(join);
                Ok(None)
            }
        }
    }

    fn refuse_waiting(&mut self, core: &mut Core, refusal: Refusal) {
        let branch = self.spread.as_mut().and_then(|it| it.branch.as_mut());
        for join in branch.map_or(Vec::new(), |it| std::mem::take(&mut it.waiting)) {
            core.notify(join.session, Notice::Refused(refusal));
        }
    }

    /// The home says what holds.
    fn take_charter(&mut self, core: &mut Core, charter: Charter, now: Instant) {
        let Charter {
            sid,
            sif_trailer,
            created_at_ms,
            metadata,
            empty_timeout,
            departure_timeout,
            participants_max,
        } = charter;
        let news = self.metadata != metadata;
        self.sid = sid;
        self.sif_trailer = sif_trailer;
        self.created_at_ms = created_at_ms;
        self.metadata = metadata;
        self.empty_timeout = empty_timeout;
        self.departure_timeout = departure_timeout;
        self.participants_max = participants_max;
        let branch = self.spread.as_mut().and_then(|it| it.branch.as_mut());
        let Some(branch) = branch else { return };
        if std::mem::replace(&mut branch.welcome, true) {
            if news {
                self.tell_room(core);
            }
            return;
        }
        tracing::info!(room = ?self.sid, "branch opened");
        for join in std::mem::take(&mut branch.waiting) {
            let session = join.session;
            if let Err(refusal) = self.join(core, join, now) {
                core.notify(session, Notice::Refused(refusal));
            }
        }
        self.note_emptiness(core, now);
    }

    /// If nobody is left, the room begins to wait for its end.
    pub fn note_emptiness(&mut self, core: &mut Core, now: Instant) {
        if self.participants.is_empty() && !self.has_branches() {
            self.empty_since.get_or_insert(now);
            self.arm_room(core);
        }
    }

    /// A branch is gone, and everybody in it.
    fn unlink(&mut self, core: &mut Core, from: Part, now: Instant) {
        let spread = self.spread.as_ref();
        let Some(link) = spread.and_then(|spread| spread.link_of(from)) else {
            return;
        };
        self.give_up_asking(core, link);
        self.forget_people(core, link, now);
        if let Some(spread) = &mut self.spread {
            spread.links.remove(link as usize);
        }
        for (_, track) in &mut self.tracks {
            track.forget_pulls(link);
        }
        self.tell_all_demands(core, now);
        self.note_emptiness(core, now);
    }

    /// This part is gone; the others are told so.
    pub fn part_company(&mut self, core: &mut Core, departure: Departure) {
        self.refuse_waiting(core, Refusal::Internal);
        let links = self.spread.iter().flat_map(|spread| &spread.links);
        for link in links.map(|(link, _)| link as u32).collect::<Vec<_>>() {
            self.give_up_asking(core, link);
        }
        self.tell_others(core, None, || Word::Closed(departure, Refusal::Internal));
    }

    /// Takes in what a neighbour says of the room.
    fn hear(&mut self, core: &mut Core, link: u32, word: Word, now: Instant) {
        match word {
            Word::Here => {}
            Word::Charter(charter) => self.take_charter(core, *charter, now),
            Word::Present(present) => self.take_present(core, link, *present, now),
            Word::Absent { info, reason } => self.take_absent(core, link, &info, reason, now),
            Word::Burst(burst) => self.take_burst(core, link, burst, now),
            Word::Clock(place, moment, timestamp) => {
                self.take_clock(core, (link, place), moment, timestamp);
            }
            Word::Demand(track, wanted) => self.take_demand(core, (link, &track), wanted, now),
            Word::KeyFrame(place) => self.take_key_frame(core, place, now),
            Word::Subscribed(track) => self.take_subscribed(core, &track),
            Word::Quality(sid, quality) => self.take_quality(core, link, &sid, quality),
            Word::Speech(sid, end) => self.take_speech(core, link, &sid, end),
            Word::Data(channel, message) => self.take_data(core, link, channel, &message, now),
            Word::Distribute(data) => self.distribute(core, &data, now),
            Word::Answer(ticket, answer) => self.answered(core, link, ticket, answer),
            // Of the shard, and taken there.
            Word::Hello { .. } | Word::Closed(..) | Word::Ask(_) | Word::Faulty(_) => {}
        }
    }
}

impl Spread {
    fn link(&mut self, part: Part) -> u32 {
        let link = Link {
            part,
            tracks: Default::default(),
            asked: Vec::new(),
        };
        self.links.insert(link) as u32
    }
}

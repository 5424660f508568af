//! A shard: rooms, and the one place where inputs enter them and outputs leave.
//!
//! It routes: a datagram to the participant it belongs to, a command to the one its session stands
//! for, a deadline to whom it wakes. And it contains: a panic on the way ends the stay of that one
//! participant. What a room does is not here.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use str0m::config::DtlsCert;
use str0m::crypto::CryptoProvider;
use str0m::net::DatagramSend;

use super::burst::{Bursts, Dirty, FanOut};
use super::candidates::Candidates;
use super::containment::FAULT;
use super::counters::{Counters, Dropped};
use super::demux::{self, Class, Demux, Pair, Place};
use super::egress::Leg;
use super::message::administration::{Answer, Event, Happened, Ticket};
use super::message::{
    Command, Connection, Departure, Join, LeaveAction, LeaveReason, Notice, Refusal, Resume,
    RoomInfo, Transmit,
};
use super::ntp::Ntp;
use super::participant::Participant;
use super::peer::{Check, PeerEvent};
use super::relay::Parcel;
use super::room::Room;
use super::timers::{TimerKey, Timers};
use super::{Input, Output, PeerKey, RoomKey, ShardConfig, allocator, dtls};
use crate::ids::{RoomName, SessionKey, WorkerId};

/// How often each participant is looked at beside its packets: estimate, layers, reports,
/// timeouts. Shorter follows a change of the path faster and costs more wakes.
pub const TICK: Duration = Duration::from_millis(200);

/// Whole rooms: participants, peers, tracks, subscriptions.
pub struct Shard {
    pub(super) core: Core,
    pub(super) rooms: Slab<Room>,
    pub(super) by_name: HashMap<RoomName, RoomKey>,
    stopping: bool,
}

/// What the rooms of a shard share.
pub struct Core {
    pub config: ShardConfig,
    pub counters: Counters,
    pub rng: fastrand::Rng,
    /// Runs the handshakes of all peers: DTLS, but in simulations.
    pub crypto: Arc<CryptoProvider>,
    /// One certificate for all peers of a shard: making one takes a millisecond.
    pub cert: DtlsCert,
    pub candidates: Arc<Candidates>,
    pub demux: Demux,
    pub timers: Timers,
    pub sessions: HashMap<SessionKey, PeerKey>,
    /// Outputs other than media. Emptied by every turn of the worker; what one input makes is
    /// bounded by the participants of its room.
    outbox: VecDeque<Pending>,
    /// The one handed out last, which the caller may still look at.
    current: Option<DatagramSend>,
    pub dirty: Dirty,
    /// What waits for the end of its frame.
    pub bursts: Bursts,
    /// What is on its way to those who get it.
    pub fan_out: Option<FanOut>,
    /// Memory for the datagrams of whichever leg has its turn.
    pub spare: Vec<u8>,
    /// The time of the last input.
    pub now: Instant,
    rooms_made: u32,
    /// Memory used again for every datagram.
    pub events: Vec<PeerEvent>,
    pub opened: Vec<u8>,
    pub wishes: Vec<allocator::Wish>,
    pub grants: Vec<Option<allocator::Grant>>,
}

/// An output that waits for [`Shard::poll`].
enum Pending {
    Notice(SessionKey, Notice),
    Datagram(SocketAddr, SocketAddr, DatagramSend),
    Reached(Pair),
    Forgotten(Pair),
    RoomOpened(RoomName),
    RoomClosed(RoomName),
    Answer(Ticket, Answer),
    Event(Box<Event>),
    Relay(WorkerId, Parcel),
}

impl Core {
    pub fn notify(&mut self, session: SessionKey, notice: Notice) {
        self.outbox.push_back(Pending::Notice(session, notice));
    }

    pub fn send(&mut self, local: SocketAddr, remote: SocketAddr, contents: DatagramSend) {
        self.outbox
            .push_back(Pending::Datagram(local, remote, contents));
    }

    /// A participant proved to be at the other end of `pair`.
    fn reach(&mut self, pair: Pair, place: Place, participant: &mut Participant) {
        let path = participant.peer_of(place.connection).path();
        let known = participant.pairs_of(place.connection);
        let (is_new, gone) = self.demux.bind(pair, place, known, path);
        let gone = gone.map(Pending::Forgotten);
        let new = is_new.then_some(Pending::Reached(pair));
        self.outbox.extend(gone.into_iter().chain(new));
    }

    /// Something for another shard.
    pub fn relay_to(&mut self, worker: WorkerId, parcel: Parcel) {
        self.outbox.push_back(Pending::Relay(worker, parcel));
    }

    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.outbox.push_back(Pending::Answer(ticket, answer));
    }

    pub fn report(&mut self, room: RoomInfo, happened: Happened, now: Instant) {
        let event = Event {
            at_ms: self.unix_ms(now),
            room: Box::new(room),
            happened,
        };
        self.outbox.push_back(Pending::Event(Box::new(event)));
    }

    /// A stay is over: nothing leads to this participant any more, and it is told.
    pub fn dismiss(&mut self, key: PeerKey, gone: &Participant, departure: Departure) {
        let mut forget = |connection, ufrag: &str, pairs: &[Pair]| {
            let peer = key;
            self.demux.unname(ufrag);
            for pair in pairs {
                if self.demux.release(*pair, Place { peer, connection }) {
                    self.outbox.push_back(Pending::Forgotten(*pair));
                }
            }
        };
        forget(Connection::Publisher, &gone.ufrag, &gone.pairs);
        if let Some(downlink) = &gone.downlink {
            forget(Connection::Subscriber, &downlink.ufrag, &downlink.pairs);
        }
        // A join that fails half way was never entered, and is answered with a refusal.
        if self.sessions.remove(&gone.session).is_some() {
            self.counters.leaves[departure.reason as usize] += 1;
            self.notify(gone.session, Notice::Left(departure));
        }
    }

    /// A number that no other room of the shard has had.
    pub fn number_room(&mut self) -> u32 {
        self.rooms_made = self.rooms_made.wrapping_add(1);
        self.rooms_made
    }

    /// A new id: `prefix` and `length` letters and digits.
    pub fn sid(&mut self, prefix: &str, length: usize) -> String {
        prefix
            .chars()
            .chain((0..length).map(|_| self.rng.alphanumeric()))
            .collect()
    }

    /// Time since 1970 at `now`.
    pub fn unix(&self, now: Instant) -> Duration {
        self.config.unix + now.saturating_duration_since(self.config.now)
    }

    pub fn unix_ms(&self, now: Instant) -> i64 {
        self.unix(now).as_millis() as i64
    }

    pub fn ntp(&self, now: Instant) -> Ntp {
        Ntp::from_unix(self.unix(now))
    }
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig) -> Self {
        Self::with_crypto(config, dtls::provider())
    }

    /// An empty shard whose peers' handshakes are run by `crypto`.
    pub(super) fn with_crypto(config: ShardConfig, crypto: Arc<CryptoProvider>) -> Self {
        let cert = crypto
            .dtls_provider
            .generate_certificate()
            .expect("the provider makes certificates");
        let now = config.now;
        Self {
            core: Core {
                rng: fastrand::Rng::with_seed(config.seed),
                candidates: Arc::new(Candidates::new(&config)),
                config,
                counters: Counters::default(),
                crypto,
                cert,
                demux: Demux::new(),
                timers: Timers::new(now),
                sessions: HashMap::new(),
                outbox: VecDeque::new(),
                current: None,
                dirty: Dirty::default(),
                bursts: Bursts::default(),
                fan_out: None,
                spare: Vec::new(),
                now,
                rooms_made: 0,
                events: Vec::new(),
                opened: Vec::new(),
                wishes: Vec::new(),
                grants: Vec::new(),
            },
            rooms: Slab::new(),
            by_name: HashMap::new(),
            stopping: false,
        }
    }

    /// Takes one input in. Outputs are ready at [`Shard::poll`]; several inputs may be handled
    /// before, and should be: what one wake-up yields leaves in larger runs.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        // What is on its way goes by those it began with.
        while self.core.fan_out.is_some() {
            self.fan_out();
        }
        self.core.now = now;
        match input {
            Input::Datagram {
                local,
                remote,
                contents,
            } => {
                self.on_datagram(now, local, remote, contents);
            }
            Input::Command(command) => self.on_command(now, command),
            Input::Closed(pair) => self.on_closed(pair),
            Input::Parcel(parcel) => self.on_parcel(now, parcel),
            Input::Unsaid(parcel) => self.on_unsaid(now, &parcel),
            Input::Timeout => self.on_timeout(now),
        }
    }

    /// The next output; [`Output::Timeout`] when there is no more for now.
    pub fn poll(&mut self) -> Output<'_> {
        match self.core.outbox.pop_front() {
            Some(Pending::Notice(session, notice)) => return Output::Notice(session, notice),
            Some(Pending::RoomOpened(name)) => return Output::RoomOpened(name),
            Some(Pending::RoomClosed(name)) => return Output::RoomClosed(name),
            Some(Pending::Answer(ticket, answer)) => return Output::Answer(ticket, answer),
            Some(Pending::Event(event)) => return Output::Event(event),
            Some(Pending::Relay(worker, parcel)) => return Output::Relay(worker, parcel),
            Some(Pending::Reached(pair)) => return Output::Reached(pair),
            Some(Pending::Forgotten(pair)) => return Output::Forgotten(pair),
            Some(Pending::Datagram(local, remote, contents)) => {
                let contents = self.core.current.insert(contents);
                return Output::Transmit(Transmit {
                    local,
                    remote,
                    contents,
                    segment: None,
                });
            }
            None => {}
        }
        while !self.find_output() && self.fan_out() {}
        let Self { core, rooms, .. } = self;
        let next = core
            .dirty
            .legs
            .front()
            .and_then(|key| leg(rooms, *key))
            .and_then(Leg::take);
        match next {
            Some(transmit) => Output::Transmit(transmit),
            // Without a timer nothing will be due: nobody is here.
            None => {
                let timer = core.timers.wake(core.now);
                let deadlines = [timer, core.bursts.deadline()];
                Output::Timeout(deadlines.into_iter().flatten().min())
            }
        }
    }

    /// Whether a leg has something to send; it is the first one then.
    fn find_output(&mut self) -> bool {
        let Self { core, rooms, .. } = self;
        while let Some(key) = core.dirty.legs.front() {
            if leg(rooms, *key).is_some_and(|leg| leg.has_output(&mut core.spare)) {
                return true;
            }
            core.dirty.legs.pop_front();
        }
        false
    }

    /// What this shard has counted, and how much it holds now.
    pub fn counters(&self) -> Counters {
        let mut counters = self.core.counters.clone();
        for (_, room) in &self.rooms {
            match room.is_branch() {
                true => counters.branches += 1,
                false => counters.rooms += 1,
            }
            counters.participants += room.participants.len() as u64;
            let own = room.tracks.iter().map(|(_, track)| track);
            for track in own.filter(|track| track.publisher.slot().is_some()) {
                counters.tracks[track.kind() as usize] += 1;
            }
            for (_, participant) in &room.participants {
                let [audio, video] = participant.leg.count();
                counters.subscriptions[0] += audio;
                counters.subscriptions[1] += video;
            }
        }
        counters
    }

    /// Counts something its adapter had to discard.
    pub fn count_drop(&mut self, reason: Dropped) {
        self.core.counters.drop(reason);
    }

    fn on_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        contents: &[u8],
    ) {
        let Some(class) = Class::of(contents) else {
            return self.core.counters.drop(Dropped::NotMedia);
        };
        let pair = Pair { local, remote };
        let known = self.core.demux.by_pair(pair);
        let named = if class == Class::Stun {
            self.core.demux.by_username(contents)
        } else {
            known
        };
        let Some(place) = named else {
            return self.core.counters.drop(Dropped::UnknownAddress);
        };
        if class == Class::Dtls && !demux::is_dtls(contents) {
            return self.core.counters.drop(Dropped::DtlsInvalid);
        }
        self.contain(now, place.peer, |core, room| {
            let Place { peer, connection } = place;
            if class == Class::Stun {
                let Some(participant) = room.participants.get_mut(peer.participant as usize) else {
                    return core.counters.drop(Dropped::PeerGone);
                };
                match participant.peer_of(connection).check(now, pair, contents) {
                    Check::Fresh => {
                        participant.heard = now;
                        core.reach(pair, place, participant);
                    }
                    // Its answer may be lost.
                    Check::Repeated if known == Some(place) => {}
                    Check::Repeated | Check::Foreign => {
                        return core.counters.drop(Dropped::StunInvalid);
                    }
                }
            }
            room.datagram(core, place, pair, (class, contents), now);
        });
    }

    fn on_closed(&mut self, pair: Pair) {
        let Some(Place { peer, connection }) = self.core.demux.by_pair(pair) else {
            return;
        };
        self.core.demux.release(pair, Place { peer, connection });
        let room = self.rooms.get_mut(peer.room.0 as usize);
        let slot = peer.participant as usize;
        if let Some(participant) = room.and_then(|room| room.participants.get_mut(slot)) {
            let known = participant.pairs_of(connection);
            known.retain(|known| *known != pair);
        }
    }

    fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Join(join) => self.join(now, *join),
            Command::Request(session, request) => {
                let Some(key) = self.core.sessions.get(&session).copied() else {
                    return;
                };
                self.contain(now, key, |core, room| {
                    room.request(core, key.participant, request, now);
                });
            }
            Command::Resume(resume) => self.resume(now, resume),
            Command::SignalClosed(session, end) => {
                let Some(key) = self.core.sessions.get(&session).copied() else {
                    return;
                };
                self.contain(now, key, |core, room| {
                    room.signal_closed(core, key.participant, end, now);
                });
            }
            Command::Ask(question) => self.ask(now, *question),
            Command::Shutdown => {
                self.stopping = true;
                let all: Vec<_> = self.core.sessions.values().copied().collect();
                let departure = Departure {
                    reason: LeaveReason::ServerShutdown,
                    action: LeaveAction::Reconnect,
                };
                for key in all {
                    self.contain(now, key, |core, room| {
                        room.leave(core, key.participant, departure, now);
                    });
                }
            }
        }
    }

    fn join(&mut self, now: Instant, join: Join) {
        let session = join.session;
        if let Err(refusal) = self.try_join(now, join) {
            self.core.notify(session, Notice::Refused(refusal));
        }
    }

    fn try_join(&mut self, now: Instant, join: Join) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::ShuttingDown);
        }
        let key = match self.by_name.get(&join.room) {
            Some(key) => *key,
            None => match join.home {
                Some(home) => self.open_branch(&join.room, home, join.create_room, now)?,
                None if !join.create_room => return Err(Refusal::RoomMissing),
                None => self.open_room(&join.room, now)?,
            },
        };
        let core = &mut self.core;
        let room = &mut self.rooms[key.0 as usize];
        let Some(join) = room.wait_for_welcome(core, join)? else {
            return Ok(());
        };
        let joined = catch_unwind(AssertUnwindSafe(|| room.join(core, join, now)));
        match joined {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => {
                self.close_if_unused(key, now);
                Err(refusal)
            }
            Err(_) => {
                self.core.counters.peer_panics += 1;
                self.close_room(key, FAULT, now);
                Err(Refusal::Internal)
            }
        }
    }

    fn resume(&mut self, now: Instant, resume: Resume) {
        let session = resume.session;
        let stay = self.by_name.get(&resume.room).and_then(|key| {
            let room = self.rooms.get(key.0 as usize)?;
            let slot = room.stay(&resume.identity, resume.sid.as_ref())?;
            Some(room.peer_key(slot))
        });
        match stay {
            Some(key) if !self.stopping => self.contain(now, key, |core, room| {
                room.resume(core, key.participant, session, now);
            }),
            _ => {
                let refusal = Notice::Refused(Refusal::StayUnknown);
                self.core.notify(session, refusal);
            }
        }
    }

    /// Opens a room that isn't there yet, if there is a place for it.
    pub(super) fn open_room(&mut self, name: &RoomName, now: Instant) -> Result<RoomKey, Refusal> {
        let key = self.place_room()?;
        let room = Room::new(&mut self.core, key, name.clone(), now);
        tracing::info!(room = ?room.sid, "room opened");
        let info = room.info(&self.core);
        self.insert_room(room);
        self.core.report(info, Happened::RoomStarted, now);
        Ok(key)
    }

    /// The place of the next room, if there is one.
    pub(super) fn place_room(&self) -> Result<RoomKey, Refusal> {
        if self.stopping {
            return Err(Refusal::ShuttingDown);
        }
        if self.rooms.len() >= self.core.config.limits.rooms {
            return Err(Refusal::NodeFull);
        }
        Ok(RoomKey(self.rooms.vacant_key() as u32))
    }

    /// Takes a room in that was made for the next place.
    pub(super) fn insert_room(&mut self, room: Room) {
        let opened = Pending::RoomOpened(room.name.clone());
        self.core.outbox.push_back(opened);
        self.by_name.insert(room.name.clone(), room.key);
        self.rooms.insert(room);
    }

    fn close_if_unused(&mut self, key: RoomKey, now: Instant) {
        let room = self.rooms.get(key.0 as usize);
        if room.is_some_and(|room| room.is_unused(now) || room.waits_in_vain(now)) {
            self.close_room(key, FAULT, now);
        }
    }

    /// A room's deadline was reached, and it is still there: it has news, or was used again since
    /// its timer was set and needs another.
    fn wake_room(&mut self, key: RoomKey, now: Instant) {
        if let Some(room) = self.rooms.get_mut(key.0 as usize) {
            room.tell_count(&mut self.core, now);
            room.beat(&mut self.core, now);
            room.arm_room(&mut self.core);
        }
    }

    /// Takes a room out; whoever is still in it goes by `departure`, all at once.
    pub(super) fn close_room(&mut self, key: RoomKey, departure: Departure, now: Instant) {
        let mut room = self.rooms.remove(key.0 as usize);
        let participants = std::mem::take(&mut room.participants);
        for (slot, gone) in &participants {
            self.core
                .dismiss(room.peer_key(slot as u32), gone, departure);
            room.report_all_gone(&mut self.core, gone, departure.reason, now);
        }
        room.part_company(&mut self.core, departure);
        match room.is_branch() {
            true => tracing::info!(room = ?room.sid, "branch closed"),
            false => {
                tracing::info!(room = ?room.sid, "room closed");
                let info = room.info(&self.core);
                self.core.report(info, Happened::RoomFinished, now);
            }
        }
        self.by_name.remove(&room.name);
        self.core.outbox.push_back(Pending::RoomClosed(room.name));
    }

    fn on_timeout(&mut self, now: Instant) {
        // What is woken re-arms itself later than `now`, except for a peer that was asked to
        // send; those are at most as many as there are participants.
        let mut budget = TIMERS_PER_TURN;
        while budget > 0
            && let Some((at, key)) = self.core.timers.due(now)
        {
            budget -= 1;
            match key {
                TimerKey::Participant(key) => self.wake(now, at, key),
                TimerKey::Room(key) => {
                    let fired = self
                        .rooms
                        .get_mut(key.0 as usize)
                        .is_some_and(|room| room.armed.fire(at));
                    if fired {
                        self.close_if_unused(key, now);
                        self.wake_room(key, now);
                    }
                }
            }
        }
    }

    fn wake(&mut self, now: Instant, at: Instant, key: PeerKey) {
        let fired = self
            .rooms
            .get_mut(key.room.0 as usize)
            .and_then(|room| room.participants.get_mut(key.participant as usize))
            .is_some_and(|participant| participant.armed.fire(at));
        if fired {
            self.contain(now, key, |core, room| room.wake(core, key.participant, now));
        }
    }
}

fn leg(rooms: &mut Slab<Room>, key: PeerKey) -> Option<&mut Leg> {
    let room = rooms.get_mut(key.room.0 as usize)?;
    room.participants
        .get_mut(key.participant as usize)
        .map(|participant| &mut participant.leg)
}

/// Timers handled in one call; the rest stays due.
const TIMERS_PER_TURN: usize = 4096;

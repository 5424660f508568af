//! Which workers hold which room: the one table that signalling and workers share.
//!
//! A room begins on one worker, its home. Once it has so many participants there that they should
//! not take that worker's core alone, those who come are spread over all of them, as the stays of
//! all rooms are: a room has a part on each worker that has some of its people.
//!
//! A room's entry is kept by two kinds of holders. Every stay has a [`Seat`], which its session
//! takes before the join and shares with the worker; it is given back when the session has ended
//! and the shard has said that the stay is over, whichever is later, so that a stay whose
//! signalling is gone still counts. And the worker holds the entry from when its shard opened it
//! ([`Directory::opened`]) until the shard closed the room ([`Directory::close`]). The entry goes
//! with the last holder. So a join that meets the end of its room is safe: its seat keeps the
//! entry, and its mail reaches the same worker, where it comes after the end and starts the room
//! anew. `opened` is called by the worker and not by the session that reads `Joined`, because only
//! on the worker's thread is it in order with `close`.
//!
//! What is not here: participants (the shard knows them), and other nodes.

pub mod events;
pub mod notices;
mod questions;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{mpsc, oneshot};

use crate::ids::{Identity, RoomName, SessionKey, WorkerId};
use crate::media::message::administration::{Answer, Fact, Question, RoomRequest};
use crate::media::message::{Command, Refusal, SignalEnd};

/// What a worker finds in its mailbox.
#[derive(Debug)]
pub enum Mail {
    /// For the shard.
    Command(Command),
    /// Notices for this session go here. Comes right before its join. The worker never waits for
    /// a session: when the channel is full it drops the sender, which ends the session.
    Open {
        /// The session.
        session: SessionKey,
        /// Its queue.
        notices: notices::Sender,
        /// To be kept until the stay is over.
        seat: Arc<Seat>,
    },
    /// For the shard, with the way back for its answer.
    Ask {
        /// The question.
        question: Question,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer>,
        /// Keeps the entry of a room that is about to be opened until it is answered.
        seat: Option<Arc<Seat>>,
    },
}

/// Bounds of the node, from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Stays; one more is refused with [`Refusal::NodeFull`].
    pub participants: usize,
    /// Rooms; one more is refused with [`Refusal::NodeFull`].
    pub rooms: usize,
    /// Stays of a room at its home before others are spread over all workers; 0 keeps it there.
    pub participants_per_worker: usize,
}

/// The worker is gone, and its rooms with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerGone;

/// All workers and the rooms they hold.
pub struct Directory {
    workers: Vec<Worker>,
    /// No more entries than `limits.rooms`, give or take the joins that race for the last one.
    rooms: DashMap<RoomName, Room>,
    limits: Limits,
    seats: AtomicUsize,
    next_session: AtomicU64,
    next_ticket: AtomicU64,
    draining: AtomicBool,
}

struct Worker {
    mailbox: mpsc::Sender<Mail>,
    seats: AtomicUsize,
}

struct Room {
    /// Its home, and then its branches; one for each worker at most.
    parts: Vec<Part>,
}

struct Part {
    worker: usize,
    seats: usize,
    /// Whether the shard holds it.
    open: bool,
}

/// A stay's hold on its room's place, and one of `limits.participants`.
pub struct Seat {
    directory: Arc<Directory>,
    room: RoomName,
    worker: usize,
}

/// A session's way to its worker.
pub struct Placement {
    seat: Arc<Seat>,
    session: SessionKey,
    /// If that is another worker.
    home: Option<WorkerId>,
}

impl Directory {
    /// A directory of these workers, by their mailboxes in the order of [`WorkerId`].
    pub fn new(workers: Vec<mpsc::Sender<Mail>>, limits: Limits) -> Self {
        let worker = |mailbox| Worker {
            mailbox,
            seats: AtomicUsize::new(0),
        };
        Self {
            workers: workers.into_iter().map(worker).collect(),
            rooms: DashMap::new(),
            limits,
            seats: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
            next_ticket: AtomicU64::new(1),
            draining: AtomicBool::new(false),
        }
    }

    /// Finds the room's worker, or picks the one with the fewest stays for a new room and for one
    /// more in a large room.
    pub fn place(self: &Arc<Self>, room: &RoomName) -> Result<Placement, Refusal> {
        self.place_among(room, self.limits.participants_per_worker)
    }

    /// The same for what only the room's home can do.
    fn place_at_home(self: &Arc<Self>, room: &RoomName) -> Result<Placement, Refusal> {
        self.place_among(room, 0)
    }

    /// `most` stays at home before others are spread, 0 for any number.
    fn place_among(self: &Arc<Self>, room: &RoomName, most: usize) -> Result<Placement, Refusal> {
        self.admits(room)?;
        let quiet = self.quietest_worker().ok_or(Refusal::Internal)?;
        let entry = self.rooms.entry(room.clone());
        let mut entry = entry.or_insert_with(|| Room::new(quiet));
        let home = entry.home();
        let worker = match most == 0 || home.seats < most {
            true => home.worker,
            false => quiet,
        };
        let home = entry.take_seat(worker);
        drop(entry);
        Ok(self.placement(room, worker, home))
    }

    /// Finds the worker of a room in which somebody believes to have a stay. Limits don't count:
    /// the stay is there already, and the seat of its former session is given back.
    /// Of a room on several workers the home says which one has it.
    pub async fn find(
        self: &Arc<Self>,
        room: &RoomName,
        identity: &Identity,
    ) -> Result<Placement, Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::ShuttingDown);
        }
        let entry = self.rooms.get(room).ok_or(Refusal::StayUnknown)?;
        if !entry.home().open {
            return Err(Refusal::StayUnknown);
        }
        let (mut worker, spread) = (entry.home().worker, entry.parts.len() > 1);
        drop(entry);
        if spread {
            let located = self.ask(room, RoomRequest::Locate(identity.clone())).await;
            if let Ok(Fact::Worker(found)) = located {
                worker = found.0.into();
            }
        }
        let mut entry = self.rooms.get_mut(room).ok_or(Refusal::StayUnknown)?;
        let home = entry.take_seat(worker);
        drop(entry);
        Ok(self.placement(room, worker, home))
    }

    /// A placement on a seat that was just taken.
    fn placement(self: &Arc<Self>, room: &RoomName, worker: usize, home: usize) -> Placement {
        self.seats.fetch_add(1, Ordering::Relaxed);
        self.workers[worker].seats.fetch_add(1, Ordering::Relaxed);
        let seat = Seat {
            directory: Arc::clone(self),
            room: room.clone(),
            worker,
        };
        Placement {
            seat: Arc::new(seat),
            session: SessionKey(self.next_session.fetch_add(1, Ordering::Relaxed)),
            home: (home != worker).then_some(WorkerId(home as u16)),
        }
    }

    /// Whether this node would take a join to `room` now, as far as its own limits go.
    pub fn admits(&self, room: &RoomName) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::ShuttingDown);
        }
        let full = self.seats.load(Ordering::Relaxed) >= self.limits.participants
            || (self.rooms.len() >= self.limits.rooms && !self.rooms.contains_key(room));
        if full {
            return Err(Refusal::NodeFull);
        }
        Ok(())
    }

    /// Whether a shard holds the room.
    pub fn exists(&self, room: &RoomName) -> bool {
        self.rooms.get(room).is_some_and(|entry| entry.home().open)
    }

    /// The worker's shard holds the room, or a part of it: called by the worker when the shard has
    /// opened it.
    pub fn opened(&self, room: &RoomName, worker: WorkerId) {
        if let Some(mut entry) = self.rooms.get_mut(room)
            && let Some(part) = entry.part(worker.0.into())
        {
            part.open = true;
        }
    }

    /// The worker's shard has closed the room.
    pub fn close(&self, room: &RoomName, worker: WorkerId) {
        if let Entry::Occupied(mut entry) = self.rooms.entry(room.clone())
            && let Some(part) = entry.get_mut().part(worker.0.into())
        {
            part.open = false;
            if entry.get_mut().is_over() {
                entry.remove();
            }
        }
    }

    /// Refuses joins from now on, and has every shard tell its participants to go elsewhere.
    pub async fn shut_down(&self) {
        self.draining.store(true, Ordering::Relaxed);
        for worker in &self.workers {
            let mail = Mail::Command(Command::Shutdown);
            if worker.mailbox.send(mail).await.is_err() {
                tracing::warn!("a worker ended before the shutdown");
            }
        }
    }

    /// Stays that hold a seat.
    pub fn seats(&self) -> usize {
        self.seats.load(Ordering::Relaxed)
    }

    fn quietest_worker(&self) -> Option<usize> {
        let seats = |worker: &Worker| worker.seats.load(Ordering::Relaxed);
        let ranked = self.workers.iter().enumerate();
        ranked
            .min_by_key(|(_, worker)| seats(worker))
            .map(|(index, _)| index)
    }
}

impl Room {
    /// One that is to be opened there.
    fn new(home: usize) -> Self {
        Self {
            parts: vec![Part::new(home)],
        }
    }

    /// The part on the worker that has the room as a whole.
    fn home(&self) -> &Part {
        &self.parts[0]
    }

    fn part(&mut self, worker: usize) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.worker == worker)
    }

    /// Counts one more stay on that worker; which is the home.
    fn take_seat(&mut self, worker: usize) -> usize {
        match self.part(worker) {
            Some(part) => part.seats += 1,
            None => self.parts.push(Part {
                seats: 1,
                ..Part::new(worker)
            }),
        }
        self.home().worker
    }

    /// Whether nobody holds any of it; branches that nobody holds are taken out.
    fn is_over(&mut self) -> bool {
        let is_held = |part: &Part| part.open || part.seats > 0;
        let home = self.home().worker;
        self.parts
            .retain(|part| part.worker == home || is_held(part));
        !self.parts.iter().any(is_held)
    }
}

impl Part {
    fn new(worker: usize) -> Self {
        Self {
            worker,
            seats: 0,
            open: false,
        }
    }
}

impl Placement {
    /// The session this placement was made for; a new one each time.
    pub fn session(&self) -> SessionKey {
        self.session
    }

    /// The worker that has the room's home, if it isn't the session's own.
    pub fn home(&self) -> Option<WorkerId> {
        self.home
    }

    /// Posts a command. Waits while the mailbox is full.
    pub async fn post(&self, command: Command) -> Result<(), WorkerGone> {
        let mail = Mail::Command(command);
        self.mailbox().send(mail).await.map_err(|_| WorkerGone)
    }

    /// Posts the session's join or resume, and before it where its notices go: both or, when this
    /// is cancelled, none.
    pub async fn open(&self, first: Command, notices: notices::Sender) -> Result<(), WorkerGone> {
        let session = self.session;
        let slots = self.mailbox().reserve_many(2).await;
        let mail = [
            Mail::Open {
                session,
                notices,
                seat: Arc::clone(&self.seat),
            },
            Mail::Command(first),
        ];
        for (slot, mail) in slots.map_err(|_| WorkerGone)?.zip(mail) {
            slot.send(mail);
        }
        Ok(())
    }

    /// Posts that the signalling connection ended; doesn't wait. With a full mailbox nothing is
    /// posted: the worker finds the session's channel closed at its next notice and says it then.
    pub fn post_closed(&self, end: SignalEnd) {
        let mail = Mail::Command(Command::SignalClosed(self.session, end));
        if let Err(error) = self.mailbox().try_send(mail) {
            tracing::debug!(session = ?self.session, "end not posted: {error}");
        }
    }

    /// Whether the worker has ended, which it doesn't before the daemon does unless it failed.
    pub fn worker_is_gone(&self) -> bool {
        self.mailbox().is_closed()
    }

    fn mailbox(&self) -> &mpsc::Sender<Mail> {
        &self.seat.directory.workers[self.seat.worker].mailbox
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let directory = &self.directory;
        directory.seats.fetch_sub(1, Ordering::Relaxed);
        let worker = &directory.workers[self.worker];
        worker.seats.fetch_sub(1, Ordering::Relaxed);
        if let Entry::Occupied(mut entry) = directory.rooms.entry(self.room.clone()) {
            let room = entry.get_mut();
            if let Some(part) = room.part(self.worker) {
                part.seats -= 1;
            }
            if room.is_over() {
                entry.remove();
            }
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("workers", &self.workers.len())
            .field("rooms", &self.rooms.len())
            .field("seats", &self.seats())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("room", &self.room)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn directory(workers: usize, participants: usize, rooms: usize) -> Arc<Directory> {
        let mailboxes = (0..workers).map(|_| mpsc::channel(8).0).collect();
        let limits = Limits {
            participants,
            rooms,
            participants_per_worker: 2,
        };
        Arc::new(Directory::new(mailboxes, limits))
    }

    #[test]
    fn a_room_stays_on_its_worker_and_new_rooms_spread() {
        let directory = directory(2, 9, 9);
        let (red, blue) = (RoomName::from("red"), RoomName::from("blue"));
        let first = directory.place(&red).unwrap();
        let second = directory.place(&red).unwrap();
        let third = directory.place(&blue).unwrap();
        assert_eq!(first.seat.worker, second.seat.worker);
        assert_ne!(first.seat.worker, third.seat.worker);
        assert_ne!(first.session(), second.session());
    }

    #[test]
    fn a_large_room_goes_on_where_there_is_most_room() {
        let directory = directory(2, 9, 9);
        let red = RoomName::from("red");
        let places: Vec<_> = (0..5).map(|_| directory.place(&red).unwrap()).collect();
        let workers: Vec<_> = places.iter().map(|it| it.seat.worker).collect();
        assert_eq!(workers[..4], [0, 0, 1, 1], "two at home, then level");
        let homes: Vec<_> = places.iter().map(Placement::home).collect();
        let home = Some(WorkerId(0));
        assert_eq!(homes[..4], [None, None, home, home]);
        directory.opened(&red, WorkerId(0));
        directory.opened(&red, WorkerId(1));
        drop(places);
        directory.close(&red, WorkerId(0));
        assert_eq!(directory.rooms.len(), 1, "the branch holds it");
        assert!(!directory.exists(&red), "but it is no room");
        assert_eq!(
            directory.place(&red).unwrap().home(),
            None,
            "the home stays"
        );
        directory.close(&red, WorkerId(1));
        assert_eq!(directory.rooms.len(), 0);
    }

    #[test]
    fn an_entry_goes_with_its_last_holder_whichever_that_is() {
        let directory = directory(1, 9, 9);
        let (red, worker) = (RoomName::from("red"), WorkerId(0));
        drop(directory.place(&red).unwrap());
        assert_eq!(directory.rooms.len(), 0, "a refused join leaves nothing");

        let first = directory.place(&red).unwrap();
        directory.opened(&red, worker);
        drop(first);
        assert!(directory.exists(&red), "the worker holds it");
        let late = directory.place(&red).unwrap();
        directory.close(&red, worker);
        assert!(!directory.exists(&red));
        assert_eq!(directory.rooms.len(), 1, "the late join holds it");
        directory.opened(&red, worker);
        drop(late);
        directory.close(&red, worker);
        assert_eq!(directory.rooms.len(), 0);
        assert_eq!(directory.seats(), 0);
    }

    #[test]
    fn a_stay_is_found_only_where_its_room_is_open_and_beyond_all_limits() {
        let anna = Identity::from("anna");
        let find = |directory: &Arc<Directory>, room: &RoomName| {
            directory.find(room, &anna).now_or_never().unwrap()
        };
        let directory = directory(1, 1, 1);
        let red = RoomName::from("red");
        assert_eq!(find(&directory, &red).err(), Some(Refusal::StayUnknown));
        let first = directory.place(&red).unwrap();
        assert_eq!(find(&directory, &red).err(), Some(Refusal::StayUnknown));
        directory.opened(&red, WorkerId(0));
        let again = find(&directory, &red).unwrap();
        assert_ne!(first.session(), again.session());
        drop(first);
        assert_eq!(directory.seats(), 1);
    }

    #[test]
    fn limits_hold_and_known_rooms_stay_open_to_joins() {
        let directory = directory(1, 3, 1);
        let (red, blue) = (RoomName::from("red"), RoomName::from("blue"));
        let _first = directory.place(&red).unwrap();
        assert_eq!(directory.place(&blue).err(), Some(Refusal::NodeFull));
        let _second = directory.place(&red).unwrap();
        let _third = directory.place(&red).unwrap();
        assert_eq!(directory.place(&red).err(), Some(Refusal::NodeFull));
        directory.draining.store(true, Ordering::Relaxed);
        assert_eq!(directory.admits(&red), Err(Refusal::ShuttingDown));
    }
}

//! A worker: one thread, one shard, and the only clock media ever sees.
//!
//! It waits for a readable socket, mail from signalling or the shard's deadline, does a bounded
//! piece of work - the turn - and waits again:
//!
//! ```text
//! sockets --batch--+                 +-- transmits --> sockets
//! team ---handed---+                 +-- pairs ------> flows (shared port)
//! workers -parcels-+                 +-- parcels ----> workers
//! mailbox --mail---+--> Shard  ------+-- notices ----> sessions
//! deadline --------+   handle, poll  +-- room closed -> directory
//! ```
//!
//! Every batch is stamped once, right after the receive call; all of its datagrams go in with that
//! time and what they caused goes out before the next batch is read. The runtime's timer ticks in
//! milliseconds, which is as fine as the shard's deadlines have to be.
//!
//! A panic inside one participant is the shard's own matter. One that gets here ends the worker;
//! the daemon sees the thread end, drains the others and exits with a failure, so that the service
//! manager starts anew: half a node that looks healthy would be worse.
#![expect(
    clippy::disallowed_methods,
    reason = "the worker reads the clock so that nobody behind it does"
)]

pub mod drops;
mod flows;
mod intake;
mod ready;
mod relay;
pub mod report;
mod rest;
mod streams;
pub mod tcp;
pub mod team;
pub mod udp;

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::coop;
use tokio::time::Sleep;

use crate::directory::events::Events;
use crate::directory::notices::{self, Unsent};
use crate::directory::{Directory, Mail, Seat};
use crate::ids::{SessionKey, WorkerId};
use crate::media::counters::Dropped;
use crate::media::demux::Pair;
use crate::media::message::administration::{Answer, Event, Ticket};
use crate::media::message::{Command, Notice, SignalEnd};
use crate::media::relay::{Parcel, Weight};
use crate::media::{Input, Limits, Output, Shard, ShardConfig};
use flows::Flows;
use report::{Report, Tally};
use rest::Rest;
use streams::Streams;
use team::{Handed, Team};
use udp::{Batch, Bound, Buffers, Socket};

/// Time of one turn after which no further batch or mail is begun; counted as a cut turn.
const TURN_TIME_MAX: Duration = Duration::from_millis(2);

/// Mails of one turn. An offer costs about as much as a thousand packets, so few; the rest waits in
/// the mailbox, whose senders wait in turn.
const MAILS_PER_TURN: usize = 16;

/// Least time from one timer turn to the next: a deadline that never passes must not become a loop
/// that takes the whole core. Below what the runtime's timer can tell apart.
const TICK_MIN: Duration = Duration::from_micros(500);

/// Outputs taken before the deadline is looked at again. The rest comes in the next turn.
const OUTPUTS_PER_DRAIN: usize = 100_000;

/// What a worker is started with.
pub struct Setup {
    /// Which.
    pub id: WorkerId,
    /// Its sockets.
    pub sockets: Vec<Bound>,
    /// The addresses clients are told to send to.
    pub told: Vec<SocketAddr>,
    /// The addresses connections over TCP are taken on, outside the worker.
    pub local_tcp: Vec<SocketAddr>,
    /// The addresses clients are told to connect to.
    pub told_tcp: Vec<SocketAddr>,
    /// The other workers, where they share its port.
    pub team: Team,
    /// Sockets for single participants it may have beside, for a shared port.
    pub flows: usize,
    /// Sizes of their kernel buffers.
    pub buffers: Buffers,
    /// Bounds for the shard.
    pub limits: Limits,
    /// Where signalling posts.
    pub mailbox: mpsc::Receiver<Mail>,
    /// Learns of opened and closed rooms.
    pub directory: Arc<Directory>,
    /// Where events go.
    pub events: Events,
}

/// The outside of a running worker.
pub struct Handle {
    /// Its last report. The channel closes when the worker has ended, for whatever reason.
    pub reports: watch::Receiver<Report>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Handle {
    /// Asks the worker to end after its present turn, and waits for it. An error means that it
    /// could not start or has panicked; the panic itself was printed when it happened.
    pub fn stop(self) -> io::Result<()> {
        // The worker may have ended already: then nobody listens.
        let _ = self.stop.send(());
        let panicked = |_| io::Error::other("a worker panicked");
        self.thread.join().map_err(panicked)?
    }
}

/// Starts a worker on a thread of its own, on `core` if given.
pub fn start(setup: Setup, core: Option<core_affinity::CoreId>) -> io::Result<Handle> {
    let (reporter, reports) = watch::channel(Report::empty(Instant::now()));
    let (stop, stopped) = oneshot::channel();
    let name = format!("worker-{}", setup.id.0);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        if let Some(core) = core {
            // Without the right to choose its core the worker runs wherever it is put.
            core_affinity::set_for_current(core);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            Worker::new(setup, reporter)?.run(stopped).await;
            Ok(())
        })
    })?;
    Ok(Handle {
        reports,
        stop,
        thread,
    })
}

/// Why the worker woke.
#[derive(Default)]
struct Wake {
    stop: bool,
    packets: bool,
    handed: Option<Handed>,
    parcel: Option<Parcel>,
    mail: Option<Mail>,
    timer: bool,
}

impl Wake {
    fn has_work(&self) -> bool {
        let given = self.handed.is_some() || self.parcel.is_some() || self.mail.is_some();
        self.packets || self.timer || given
    }
}

/// What belongs to a session while its participant is in a room.
struct Stay {
    /// Where its notices go; none after they couldn't.
    notices: Option<notices::Sender>,
    /// Counts as long as the shard has the participant, with or without signalling.
    _seat: Arc<Seat>,
}

struct Worker {
    id: WorkerId,
    shard: Shard,
    sockets: Vec<Socket>,
    flows: Flows,
    streams: Streams,
    team: Team,
    batch: Batch,
    mailbox: mpsc::Receiver<Mail>,
    directory: Arc<Directory>,
    /// From join to the last notice; bounded by the joins the directory admits.
    stays: HashMap<SessionKey, Stay>,
    /// Who waits for an answer. The shard answers at once, so there are hardly ever two.
    asked: HashMap<Ticket, (oneshot::Sender<Answer>, Option<Arc<Seat>>)>,
    events: Events,
    /// Sessions that don't read; emptied at the end of each drain.
    unread: Vec<SessionKey>,
    /// What other workers don't take; likewise.
    unsaid: Vec<Parcel>,
    deadline: Instant,
    rest: Rest,
    tally: Tally,
    /// Time spent in turns since the last report.
    busy: Duration,
    reported: Instant,
    reporter: watch::Sender<Report>,
}

impl Worker {
    fn new(setup: Setup, reporter: watch::Sender<Report>) -> io::Result<Self> {
        let sockets: Vec<Socket> = setup
            .sockets
            .into_iter()
            .map(Socket::new)
            .collect::<io::Result<_>>()?;
        let now = Instant::now();
        let shard = Shard::new(ShardConfig {
            limits: setup.limits,
            local: sockets.iter().map(Socket::local).collect(),
            told: setup.told,
            local_tcp: setup.local_tcp,
            told_tcp: setup.told_tcp,
            worker: setup.id,
            now,
            // A clock before 1970 is wrong anyway; zero then is as good as any.
            unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            seed: RandomState::new().hash_one(setup.id),
        });
        Ok(Self {
            id: setup.id,
            shard,
            sockets,
            flows: Flows::new(setup.flows, setup.buffers),
            streams: Streams::new(),
            team: setup.team,
            batch: Batch::new(),
            mailbox: setup.mailbox,
            directory: setup.directory,
            stays: HashMap::new(),
            asked: HashMap::new(),
            events: setup.events,
            unread: Vec::new(),
            unsaid: Vec::new(),
            deadline: now,
            rest: Rest::new(now),
            tally: Tally::default(),
            busy: Duration::ZERO,
            reported: now,
            reporter,
        })
    }

    /// Works until it is told to stop. A turn has bounds of its own; the runtime's, a number of
    /// things found ready in one go, would be used up by a hundred sockets with news, and mail and
    /// timers that are asked after them never be heard.
    async fn run(self, stop: oneshot::Receiver<()>) {
        coop::unconstrained(self.work(stop)).await;
    }

    async fn work(mut self, mut stop: oneshot::Receiver<()>) {
        let mut sleep = Box::pin(tokio::time::sleep_until(self.deadline.into()));
        loop {
            let wake = self.wait(&mut stop, sleep.as_mut()).await;
            if wake.stop {
                break;
            }
            let fair = wake.mail.is_some() || wake.handed.is_some() || wake.parcel.is_some();
            let cut = self.tally.turns_cut;
            if let Some(pause) = self.turn(wake) {
                // The thread itself: nobody else is on it, and the runtime's timer is too coarse.
                std::thread::sleep(pause);
            }
            let next = self.deadline.min(self.reported + report::INTERVAL);
            if sleep.deadline() != next.into() {
                sleep.as_mut().reset(next.into());
            }
            // Lets the runtime look at all sockets and timers, however busy one of them is. Where
            // none has more to do it does so anyway, and need not be asked twice.
            if fair || cut != self.tally.turns_cut {
                tokio::task::yield_now().await;
            }
        }
        self.report(Instant::now());
    }

    /// Waits until there is something to do, and says what.
    async fn wait(&mut self, stop: &mut oneshot::Receiver<()>, mut sleep: Pin<&mut Sleep>) -> Wake {
        poll_fn(|cx| {
            let mut wake = Wake::default();
            if Pin::new(&mut *stop).poll(cx).is_ready() {
                wake.stop = true;
            }
            for socket in &self.sockets {
                wake.packets |= socket.poll_readable(cx);
            }
            wake.packets |= self.flows.poll_readable(cx);
            wake.packets |= self.streams.poll_ready(cx);
            if let Poll::Ready(handed) = self.team.poll_handed(cx) {
                wake.handed = Some(handed);
            }
            if let Poll::Ready(parcel) = self.team.relay.poll_next(cx) {
                wake.parcel = Some(parcel);
            }
            match self.mailbox.poll_recv(cx) {
                Poll::Ready(Some(mail)) => wake.mail = Some(mail),
                // Nobody can ever write again: the daemon is gone.
                Poll::Ready(None) => wake.stop = true,
                Poll::Pending => {}
            }
            wake.timer = sleep.as_mut().poll(cx).is_ready();
            match wake.stop || wake.has_work() {
                true => Poll::Ready(wake),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// One bounded piece of work; how long to let datagrams gather after it.
    fn turn(&mut self, wake: Wake) -> Option<Duration> {
        let start = Instant::now();
        let datagrams = self.tally.datagrams_in;
        if wake.packets {
            self.tally.wakes_packets += 1;
            for index in 0..self.sockets.len() {
                self.receive(index, start);
            }
            self.receive_flows(start);
            self.serve_streams(start);
        }
        if let Some(handed) = wake.handed {
            self.tally.wakes_handed += 1;
            self.take_handed(handed, start);
        }
        if let Some(parcel) = wake.parcel {
            self.tally.wakes_relay += 1;
            self.take_parcels(parcel, start);
        }
        if let Some(mail) = wake.mail {
            self.tally.wakes_mail += 1;
            self.take_mail(mail, start);
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.tally.wakes_timer += 1;
            self.shard.handle(now, Input::Timeout);
            self.drain(now);
            self.deadline = self.deadline.max(now + TICK_MIN);
        }
        let end = Instant::now();
        self.busy += end.saturating_duration_since(start);
        if end.saturating_duration_since(self.reported) >= report::INTERVAL {
            self.report(end);
        }
        let pause = self
            .rest
            .after(start, end, self.tally.datagrams_in - datagrams);
        self.tally.rests += u64::from(pause.is_some());
        pause
    }

    fn take_mail(&mut self, mut mail: Mail, start: Instant) {
        for taken in 1.. {
            let now = Instant::now();
            match mail {
                Mail::Open {
                    session,
                    notices,
                    seat,
                } => {
                    let stay = Stay {
                        notices: Some(notices),
                        _seat: seat,
                    };
                    self.stays.insert(session, stay);
                }
                Mail::Ask {
                    question,
                    reply,
                    seat,
                } => {
                    self.asked.insert(question.ticket, (reply, seat));
                    let command = Command::Ask(Box::new(question));
                    self.shard.handle(now, Input::Command(command));
                    self.drain(now);
                }
                Mail::Command(command) => {
                    self.shard.handle(now, Input::Command(command));
                    self.drain(now);
                }
            }
            if taken == MAILS_PER_TURN || now.saturating_duration_since(start) >= TURN_TIME_MAX {
                self.tally.turns_cut += 1;
                return;
            }
            match self.mailbox.try_recv() {
                Ok(next) => mail = next,
                Err(_) => return,
            }
        }
    }

    /// Carries out what the shard wants, and returns how many datagrams were sent.
    fn drain(&mut self, now: Instant) -> u64 {
        let mut copies = self.drain_once(now);
        // Each pass ends sessions or links, so there are no more passes than of both.
        while !self.unread.is_empty() || !self.unsaid.is_empty() {
            for parcel in std::mem::take(&mut self.unsaid) {
                self.shard.handle(now, Input::Unsaid(parcel));
            }
            for session in std::mem::take(&mut self.unread) {
                let command = Command::SignalClosed(session, SignalEnd::ByUs);
                self.shard.handle(now, Input::Command(command));
            }
            copies += self.drain_once(now);
        }
        copies
    }

    fn drain_once(&mut self, now: Instant) -> u64 {
        let before = self.tally.datagrams_out;
        // Stands if the bound is reached: the next turn goes on at once.
        self.deadline = now;
        for _ in 0..OUTPUTS_PER_DRAIN {
            match self.shard.poll() {
                Output::Transmit(transmit) => {
                    let mut sockets = self.sockets.iter();
                    let udp = sockets.find(|socket| socket.local() == transmit.local);
                    let (sent, reason) = match udp {
                        Some(socket) => (socket.send(&transmit), Dropped::SendFailed),
                        None => (self.streams.send(&transmit), Dropped::TcpQueueFull),
                    };
                    self.tally.datagrams_out += sent.datagrams;
                    self.tally.bytes_out += sent.bytes;
                    self.tally.send_batches += sent.batches;
                    for _ in 0..sent.lost {
                        self.shard.count_drop(reason);
                    }
                }
                Output::Notice(session, notice) => self.notify(session, notice),
                Output::RoomOpened(room) => self.directory.opened(&room, self.id),
                Output::RoomClosed(room) => self.directory.close(&room, self.id),
                Output::Answer(ticket, answer) => {
                    if let Some((reply, _seat)) = self.asked.remove(&ticket) {
                        // Whoever asked may have given up.
                        let _ = reply.send(answer);
                    }
                }
                Output::Event(event) => self.publish(event),
                Output::Relay(worker, parcel) => self.relay(worker, parcel),
                Output::Reached(pair) => self.reached(pair),
                Output::Forgotten(pair) => {
                    self.flows.close(pair);
                    self.streams.close(pair);
                }
                Output::Timeout(deadline) => {
                    // Nothing is due in an empty shard; the next look is the one of the report.
                    self.deadline = deadline.unwrap_or(self.reported + report::INTERVAL);
                    break;
                }
            }
        }
        self.tally.datagrams_out - before
    }

    /// A participant has proved to be there: on a shared port what comes from there has to come to
    /// this worker.
    fn reached(&mut self, pair: Pair) {
        let is_udp = self.sockets.iter().any(|it| it.local() == pair.local);
        if !is_udp {
            return self.streams.prove(pair);
        }
        if !self.team.is_shared() {
            return;
        }
        if self.flows.open_or_wait(pair).is_err() {
            self.shard.count_drop(Dropped::NoSocket);
        }
    }

    /// Hands something to another worker without waiting.
    fn relay(&mut self, worker: WorkerId, parcel: Parcel) {
        if let Err(parcel) = self.team.relay.post(worker, parcel) {
            if parcel.weight() == Weight::State {
                return self.unsaid.push(*parcel);
            }
            for _ in 0..parcel.packets().max(1) {
                self.shard.count_drop(Dropped::RelayFull);
            }
        }
    }

    /// Hands an event on without waiting: what doesn't fit is lost, and counted.
    fn publish(&mut self, event: Box<Event>) {
        self.tally.events_lost += u64::from(!self.events.publish(event));
    }

    /// Hands a notice on without waiting: a session that doesn't read is cut off, so that nobody
    /// else waits for it.
    fn notify(&mut self, session: SessionKey, notice: Notice) {
        let last = matches!(
            notice,
            Notice::Left(_) | Notice::Refused(_) | Notice::Replaced
        );
        if last {
            let stay = self.stays.remove(&session);
            if let Some(notices) = stay.and_then(|stay| stay.notices) {
                // A session that can't take it sees its queue end, which says as much.
                let _ = notices.try_send(notice);
            }
            return;
        }
        let Some(stay) = self.stays.get_mut(&session) else {
            return;
        };
        let sent = stay.notices.as_ref().map(|queue| queue.try_send(notice));
        if let Some(Err(Unsent::Full | Unsent::Gone)) = sent {
            stay.notices = None;
            self.unread.push(session);
        }
    }

    fn report(&mut self, now: Instant) {
        for pair in self.streams.close_idle(now) {
            self.shard.handle(now, Input::Closed(pair));
        }
        self.flows.open_waiting();
        let wall = now.saturating_duration_since(self.reported);
        let load = self.busy.as_secs_f64() / wall.as_secs_f64().max(1e-9);
        self.busy = Duration::ZERO;
        self.reported = now;
        self.reporter.send_replace(Report {
            at: now,
            shard: self.shard.counters(),
            worker: Tally {
                flows: self.flows.len() as u64,
                streams: self.streams.len() as u64,
                ..self.tally.clone()
            },
            load: load.min(1.0),
        });
    }
}

#[cfg(test)]
mod tests;

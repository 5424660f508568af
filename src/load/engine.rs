//! The thread that carries the media of all participants.
//!
//! It works in turns: what is due is sent, what has come is received, and the next few
//! participants say what is to be said every now and then. Between two turns it sleeps, for so
//! short that packets leave when they are due, and long enough that several have come by the time
//! it wakes: that, and merged datagrams, is what makes it cheap. Delays don't suffer, as the kernel
//! notes when a datagram came.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use tokio::sync::mpsc::Sender;

use super::clock::Clock;
use super::groups::{Group, Groups};
use super::impairment::Impairment;
use super::incoming::Counts;
use super::link::Link;
use super::pacing::Pacing;
use super::participant::{Participant, Step};
use super::plan::{Part, Plan};
use super::process;
use super::tally::{Second, Tally};
use super::udp::Inbox;
use crate::media::batch::Batch;
use crate::media::srtp::Suite;

/// Longest sleep between two turns.
const TURN: Duration = Duration::from_micros(250);

/// Everybody's turn to say something comes after this: TWCC is to be sent every 100 ms at most.
const ROUND: Duration = Duration::from_millis(80);

/// Between two looks at what has come through bad networks. When it came is known exactly.
const PASS_TIME: Duration = Duration::from_millis(1);

/// Sockets that can be told of in one turn; more are told of in the next.
const EVENTS: usize = 1024;

/// Receive calls for one socket in one turn; then it is others' turn.
const READS: usize = 8;

/// What the thread is told.
pub enum Order {
    /// Somebody has an answer of the server.
    Enter(Box<Participant>),
    /// An answer names streams, and what repeats them.
    Repairs(usize, Vec<(u32, u32)>),
    /// The server can be reached by another address.
    Candidate(usize, std::net::SocketAddr),
    /// Somebody has left.
    Exit(usize),
    /// What counts begins now.
    Measure,
    /// All is over.
    Stop,
}

/// What it tells.
#[derive(Debug)]
pub enum Event {
    /// Somebody has come so far, at that moment.
    Step(Part, Step, Instant),
    /// Somebody can't go on.
    Failed(Part, &'static str),
    /// A second has passed; whether it counts.
    Second(Second, bool),
    /// All is over; this is what came of it.
    Done(Box<Outcome>),
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Counts of all.
    pub tally: Tally,
    /// One for each second.
    pub seconds: Vec<Second>,
    /// What became of packets that should have come.
    pub counts: Counts,
    /// The same for each network, the good one first.
    pub networks: Vec<Group>,
    /// How media was encrypted.
    pub suites: Vec<Suite>,
    /// How the load tester itself fared.
    pub own: Own,
}

/// How this thread fared.
#[derive(Debug, Default, Clone)]
pub struct Own {
    /// How long was measured.
    pub wall: Duration,
    /// CPU time that took.
    pub cpu: Duration,
    /// The longest turn.
    pub turn_max: Duration,
    /// Time in turns that took too long.
    pub overlong: Duration,
    /// Datagrams that the kernel dropped because this thread had not fetched others in time.
    pub drops: u64,
}

/// A turn that takes so long makes packets late.
const TURN_TOO_LONG: Duration = super::publisher::LATE;

/// The thread's state.
pub struct Engine {
    clock: Clock,
    pacing: Pacing,
    impairments: Vec<Impairment>,
    seed: u64,
    orders: Receiver<Order>,
    tell: Sender<Event>,
    poll: Poll,
    events: Events,
    inbox: Inbox,
    batch: Batch,
    /// By their numbers.
    participants: Vec<Option<Box<Participant>>>,
    publishers: Vec<usize>,
    connecting: Vec<usize>,
    /// Those with bad networks, and when these were looked at.
    impaired: (Vec<usize>, Instant),
    /// Those that may have more to read.
    unread: Vec<usize>,
    /// Whose turn to be visited it is, and since when.
    visited: (usize, Instant),
    groups: Groups,
    ports: HashSet<u16>,
    measuring: bool,
    own: Own,
    began: (Instant, Duration, u64),
}

impl Engine {
    /// Ready to run, with room for the participants of `plan`.
    pub fn new(
        clock: Clock,
        plan: &Plan,
        orders: Receiver<Order>,
        tell: Sender<Event>,
    ) -> io::Result<Self> {
        let now = clock.now();
        let count = plan.parts().len();
        Ok(Self {
            clock,
            pacing: plan.pacing,
            impairments: plan.impairments.clone(),
            seed: plan.seed,
            orders,
            tell,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            inbox: Inbox::new(),
            batch: Batch::default(),
            participants: std::iter::repeat_with(|| None).take(count).collect(),
            publishers: Vec::new(),
            connecting: Vec::new(),
            impaired: (Vec::new(), now),
            unread: Vec::new(),
            visited: (0, now),
            groups: Groups::new(1 + plan.impairments.len(), now),
            ports: HashSet::new(),
            measuring: false,
            own: Own::default(),
            began: (now, Duration::ZERO, 0),
        })
    }

    /// Runs until it is told to stop.
    #[expect(
        clippy::disallowed_methods,
        reason = "this thread is nobody else's, and has to wake more precisely than a runtime does"
    )]
    pub fn run(mut self) {
        process::wake_in_time();
        loop {
            let now = self.clock.now();
            if !self.take_orders(now) {
                return self.finish(now);
            }
            self.send(now);
            self.receive();
            self.pass_on(now);
            self.visit(now);
            self.look_back(now);
            let done = self.clock.now();
            let took = done.saturating_duration_since(now);
            self.own.turn_max = self.own.turn_max.max(took);
            if took > TURN_TOO_LONG {
                self.own.overlong += took;
            }
            let next = self.next_due().min(now + TURN);
            std::thread::sleep(next.saturating_duration_since(done));
        }
    }

    fn next_due(&self) -> Instant {
        let due = |number: &usize| self.participants[*number].as_ref()?.due();
        let first = self.publishers.iter().filter_map(due).min();
        first.unwrap_or_else(|| self.clock.now() + TURN)
    }

    fn tell(&self, event: Event) {
        // Who doesn't listen any more will say so by an order.
        let _ = self.tell.blocking_send(event);
    }

    /// Does what it is told; whether to go on.
    fn take_orders(&mut self, now: Instant) -> bool {
        // As many as there are: each is a step of a join.
        loop {
            match self.orders.try_recv() {
                Ok(Order::Enter(participant)) => self.enter(participant),
                Ok(Order::Repairs(number, pairs)) => {
                    if let Some(participant) = &mut self.participants[number] {
                        participant.note_repairs(pairs);
                    }
                }
                Ok(Order::Candidate(number, address)) => self.try_address(number, address),
                Ok(Order::Exit(number)) => self.exit(number),
                Ok(Order::Measure) => self.measure(now),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn enter(&mut self, mut participant: Box<Participant>) {
        let number = participant.part.number;
        let place = participant.part.network.checked_sub(1);
        if let Some(impairment) = place.and_then(|place| self.impairments.get(place)) {
            // Another for each, and the same in each run.
            let own = (number as u64) << 32 | u64::from(participant.part.turn);
            let seed = fastrand::Rng::with_seed(self.seed).u64(..) ^ own;
            participant.transport.impair(Link::new(impairment, seed));
            self.impaired.0.push(number);
        }
        if participant.transport.has_socket() {
            self.listen(number, &participant);
        }
        self.connecting.push(number);
        self.participants[number] = Some(participant);
    }

    fn exit(&mut self, number: usize) {
        let Some(mut participant) = self.participants[number].take() else {
            return;
        };
        let lists = [&mut self.publishers, &mut self.connecting, &mut self.unread];
        for list in lists.into_iter().chain([&mut self.impaired.0]) {
            list.retain(|it| *it != number);
        }
        self.groups.depart(&mut participant);
    }

    fn try_address(&mut self, number: usize, address: std::net::SocketAddr) {
        let Some(mut participant) = self.participants[number].take() else {
            return;
        };
        let listens = participant.transport.has_socket();
        if participant.transport.candidate(address).is_ok() && !listens {
            self.listen(number, &participant);
        }
        self.participants[number] = Some(participant);
    }

    fn listen(&mut self, number: usize, participant: &Participant) {
        let transport = &participant.transport;
        if transport
            .register(self.poll.registry(), Token(number))
            .is_err()
        {
            self.tell(Event::Failed(
                participant.part,
                "its socket can't be listened to",
            ));
        }
        self.ports
            .extend(transport.local().map(|local| local.port()));
    }

    /// Sends what is due.
    fn send(&mut self, now: Instant) {
        for number in &self.publishers {
            if let Some(participant) = &mut self.participants[*number] {
                let sent = participant.send(now, &self.clock, &mut self.batch);
                self.groups.tally(participant.part.network).note_sent(sent);
            }
        }
    }

    /// Receives what has come.
    fn receive(&mut self) {
        // A signal is no error; anything else shows as silence.
        let _ = self.poll.poll(&mut self.events, Some(Duration::ZERO));
        let mut ready = std::mem::take(&mut self.unread);
        ready.extend(self.events.iter().map(|event| event.token().0));
        for number in ready.drain(..) {
            let Some(participant) = &mut self.participants[number] else {
                continue;
            };
            let mut more = true;
            for _ in 0..READS {
                more = participant.transport.read(&mut self.inbox);
                for run in self.inbox.runs() {
                    let (tell, clock, part) = (&self.tell, &self.clock, participant.part);
                    let tally = self.groups.tally(part.network);
                    participant.receive(&run, clock, tally, |step| {
                        let _ = tell.blocking_send(Event::Step(part, step, clock.now()));
                    });
                }
                if !more {
                    break;
                }
            }
            if more {
                self.unread.push(number);
            }
        }
        if self.unread.is_empty() {
            self.unread = ready;
        }
    }

    /// Takes further what is on its way through bad networks.
    fn pass_on(&mut self, now: Instant) {
        let (numbers, last) = &mut self.impaired;
        if now.saturating_duration_since(*last) < PASS_TIME {
            return;
        }
        *last = now;
        for number in numbers {
            let Some(participant) = &mut self.participants[*number] else {
                continue;
            };
            let (tell, clock, part) = (&self.tell, &self.clock, participant.part);
            let tally = self.groups.tally(part.network);
            participant.pass_on(now, clock, tally, |step| {
                let _ = tell.blocking_send(Event::Step(part, step, clock.now()));
            });
        }
    }

    /// Those who connect, and the next few of the others.
    fn visit(&mut self, now: Instant) {
        let mut connecting = std::mem::take(&mut self.connecting);
        connecting.retain(|number| self.connect(*number, now));
        self.connecting = connecting;
        let (next, since) = self.visited;
        let count = self.participants.len();
        let share = now.saturating_duration_since(since).as_secs_f64() / ROUND.as_secs_f64();
        let visits = ((share * count as f64) as usize).min(count);
        if visits == 0 {
            return;
        }
        for step in 0..visits {
            if let Some(participant) = &mut self.participants[(next + step) % count] {
                participant.visit(now, &self.clock, &mut self.batch);
            }
        }
        // What was left over of a visit counts for the next time.
        let spent = ROUND.mul_f64(visits as f64 / count as f64);
        let since = if share > 1.0 { now } else { since + spent };
        self.visited = ((next + visits) % count, since);
    }

    /// Takes one who connects a step further; whether it still connects.
    fn connect(&mut self, number: usize, now: Instant) -> bool {
        let Some(participant) = &mut self.participants[number] else {
            return false;
        };
        participant.transport.tick(now);
        let part = participant.part;
        if participant.connect(now, self.pacing) {
            if part.publishes {
                self.publishers.push(number);
            }
            self.tell(Event::Step(part, Step::Connected, now));
            return false;
        }
        if participant.transport.is_over() {
            self.tell(Event::Failed(part, "media can't be connected"));
            return false;
        }
        true
    }

    fn measure(&mut self, now: Instant) {
        for participant in self.participants.iter_mut().flatten() {
            if let Some(subscriber) = participant.subscriber() {
                subscriber.restart();
            }
        }
        self.groups.restart(now);
        self.own = Own::default();
        let cpu = process::thread_cpu().unwrap_or_default();
        self.began = (now, cpu, process::drops(&self.ports));
        self.measuring = true;
    }

    /// Once a second: what was it like?
    fn look_back(&mut self, now: Instant) {
        let participants = self.participants.iter_mut().flatten();
        let participants = participants.map(Box::as_mut);
        if let Some(second) = self.groups.second(now, self.measuring, participants) {
            self.tell(Event::Second(second, self.measuring));
        }
    }

    /// Sums up and tells.
    fn finish(mut self, now: Instant) {
        let (began, cpu, drops) = self.began;
        self.own.wall = now.saturating_duration_since(began);
        let cpu_now = process::thread_cpu().unwrap_or_default();
        self.own.cpu = cpu_now.saturating_sub(cpu);
        self.own.drops = process::drops(&self.ports).saturating_sub(drops);
        let mut suites = Vec::new();
        for participant in self.participants.iter().flatten() {
            let suite = participant.suite();
            suites.extend(suite.filter(|suite| !suites.contains(suite)));
        }
        let participants = self.participants.iter_mut().flatten();
        let (all, networks) = self.groups.finish(participants.map(Box::as_mut));
        let outcome = Outcome {
            counts: all.counts,
            tally: all.tally,
            seconds: all.seconds,
            networks,
            suites,
            own: self.own,
        };
        // Who doesn't listen any more has given up.
        let _ = self.tell.blocking_send(Event::Done(Box::new(outcome)));
    }
}

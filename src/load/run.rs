//! One run from beginning to end: everybody joins, then it is measured, then all leave.

use std::sync::Arc;
use std::sync::mpsc as orders;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::address::Address;
use super::clock::Clock;
use super::engine::{Engine, Event, Order, Outcome};
use super::joins::Joins;
use super::plan::{Part, Plan};
use super::process;
use super::report::{Progress, Report};
use super::signalling::{JOIN_TIME, Session};
use crate::config::Secret;
use crate::signal::grant::Grant;

const SECOND: Duration = Duration::from_secs(1);

/// For everybody to take leave.
const LEAVE_TIME: Duration = Duration::from_secs(3);

/// Events of the engine that may wait.
const EVENTS_MAX: usize = 1024;

/// How long a token is good beyond the run.
const TOKEN_SLACK: Duration = Duration::from_secs(3600);

/// Letters of the name that the rooms of a run share, so that nobody else is in them.
const NAME_LETTERS: usize = 12;

/// The server, and what opens its doors.
pub struct Server {
    /// Where clients signal.
    pub url: String,
    /// Name of an API key.
    pub key: String,
    /// Its secret.
    pub secret: Secret,
}

/// Does what `plan` says, and tells each second how it goes. An error says that nothing could be
/// measured.
pub fn run(
    plan: Plan,
    server: Server,
    mut progress: impl FnMut(&Progress<'_>),
) -> Result<Report, String> {
    let failed = |error: std::io::Error| error.to_string();
    let clock = Clock::start();
    let address = Address::parse(&server.url)?;
    let count = plan.shape.parts().count();
    // One `Enter` for each participant, and few candidates: no bound of its own is needed.
    let (order, orders) = orders::channel();
    let (tell, events) = mpsc::channel(EVENTS_MAX);
    let engine = Engine::new(clock, plan.pacing, count, orders, tell).map_err(failed)?;
    let thread = std::thread::Builder::new().name("media".to_owned());
    let thread = thread.spawn(move || engine.run()).map_err(failed)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let call = Call {
        clock,
        server: Arc::new((server, address)),
        rooms: std::iter::repeat_with(fastrand::alphanumeric)
            .take(NAME_LETTERS)
            .collect(),
        order,
        events,
        over: Vec::new(),
        sessions: JoinSet::new(),
        joins: Joins::default(),
        life: plan.duration + SECOND * (count as u32 / plan.join_rate) + TOKEN_SLACK,
        count,
        measuring: false,
        outcome: None,
        start: clock.now(),
    };
    let report = runtime
        .map_err(failed)?
        .block_on(call.hold(plan, &mut progress));
    // It has ended if the run did; a fault of it is told by its panic.
    let _ = thread.join();
    report
}

/// A run, while it goes on.
struct Call {
    clock: Clock,
    server: Arc<(Server, Address)>,
    rooms: String,
    order: orders::Sender<Order>,
    events: mpsc::Receiver<Event>,
    /// Has each place's participant leave.
    over: Vec<Arc<Notify>>,
    sessions: JoinSet<(Part, Result<(), String>)>,
    joins: Joins,
    /// Of tokens.
    life: Duration,
    count: usize,
    measuring: bool,
    outcome: Option<Box<Outcome>>,
    start: Instant,
}

impl Call {
    async fn hold(
        mut self,
        plan: Plan,
        progress: &mut impl FnMut(&Progress<'_>),
    ) -> Result<Report, String> {
        let mut next = self.clock.now();
        for part in plan.shape.parts() {
            self.join(part);
            next += SECOND / plan.join_rate;
            self.until(next, progress, |_| false).await;
        }
        let late = self.clock.now() + JOIN_TIME;
        self.until(late, progress, |call| call.joins.are_settled())
            .await;
        let seconds = JOIN_TIME.as_secs();
        let silent = format!("no media within {seconds} s");
        self.joins.give_up(self.clock.now(), &silent);
        if self.joins.joined() == 0 {
            let reason = self.joins.reasons.keys().next();
            return Err(reason.cloned().unwrap_or_default());
        }
        self.tell(Order::Measure);
        self.measuring = true;
        let usage = || plan.pid.and_then(process::usage);
        let before = usage();
        let end = self.clock.now() + plan.duration;
        self.churn(plan.churn, end, progress).await;
        self.joins.give_up(end - JOIN_TIME, &silent);
        let server = before.zip(usage()).map(|(before, mut after)| {
            after.cpu = after.cpu.saturating_sub(before.cpu);
            after
        });
        self.tell(Order::Stop);
        let late = self.clock.now() + LEAVE_TIME;
        self.until(late, progress, |call| call.outcome.is_some())
            .await;
        let outcome = self.outcome.take().ok_or("the media thread has ended")?;
        self.leave().await;
        Ok(Report {
            plan,
            joins: self.joins,
            outcome: *outcome,
            server,
        })
    }

    fn tell(&self, order: Order) {
        // A thread that has ended is seen by what it doesn't say.
        let _ = self.order.send(order);
    }

    /// Goes on until `end`, while so many leave each second.
    async fn churn(&mut self, rate: u32, end: Instant, progress: &mut impl FnMut(&Progress<'_>)) {
        let mut next = self.clock.now();
        let mut places = (0..self.count).cycle();
        while rate > 0 && next < end {
            if let Some(place) = places.next() {
                self.over[place].notify_one();
            }
            next += SECOND / rate;
            self.until(next.min(end), progress, |_| false).await;
        }
        self.until(end, progress, |_| false).await;
    }

    /// Sends one on its way.
    fn join(&mut self, part: Part) {
        let now = self.clock.now();
        let mut grant = Grant::new(part.identity().as_str().into());
        grant.room = Some(format!("load-{}-{}", self.rooms, part.room).as_str().into());
        grant.room_join = true;
        grant.room_create = true;
        let server = Arc::clone(&self.server);
        let (key, secret) = (&server.0.key, &server.0.secret);
        let token = grant.mint(key, secret, self.clock.unix(now), self.life);
        let over = Arc::new(Notify::new());
        match self.over.get_mut(part.number) {
            Some(before) => *before = Arc::clone(&over),
            None => self.over.push(Arc::clone(&over)),
        }
        let (clock, order) = (self.clock, self.order.clone());
        self.joins.request(part, now);
        self.sessions.spawn(async move {
            let joined = Session::join(part, &server.1, &token, &clock, order).await;
            let stayed = match joined {
                Ok(session) => session.stay(&over).await,
                Err(reason) => Err(reason),
            };
            (part, stayed)
        });
    }

    /// Takes in what happens, until that time or until `done`.
    async fn until(
        &mut self,
        end: Instant,
        progress: &mut impl FnMut(&Progress<'_>),
        done: impl Fn(&Self) -> bool,
    ) {
        while !done(self) {
            tokio::select! {
                Some(event) = self.events.recv() => self.take(event, progress),
                Some(Ok((part, stayed))) = self.sessions.join_next() => match stayed {
                    Err(reason) => self.joins.fail(part, &reason),
                    Ok(()) => {
                        self.tell(Order::Exit(part.number));
                        self.join(part.successor());
                    }
                },
                () = sleep_until(end.into()) => return,
            }
        }
    }

    fn take(&mut self, event: Event, progress: &mut impl FnMut(&Progress<'_>)) {
        match event {
            Event::Step(part, step, at) => self.joins.note(part, step, at),
            Event::Failed(part, reason) => self.joins.fail(part, reason),
            Event::Second(second) => progress(&Progress {
                time: self.clock.now().saturating_duration_since(self.start),
                second: &second,
                joined: self.joins.joined(),
                failures: self.joins.failures,
                all: self.count,
                measuring: self.measuring,
            }),
            Event::Done(outcome) => self.outcome = Some(outcome),
        }
    }

    /// Everybody leaves, as far as the server lets them.
    async fn leave(&mut self) {
        self.over.iter().for_each(|over| over.notify_one());
        let all = async { while self.sessions.join_next().await.is_some() {} };
        let _ = timeout(LEAVE_TIME, all).await;
    }
}

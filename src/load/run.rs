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
use super::process::{self, Usage};
use super::ramp::Ramp;
use super::report::{Progress, Report};
use super::signalling::{JOIN_TIME, Session};
use crate::config::Secret;
use crate::signal::grant::Grant;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Who is there before a ramp: a publisher, and somebody to see that it is heard.
const RAMP_START: usize = 2;

/// For everybody to take leave.
const LEAVE_TIME: Duration = Duration::from_secs(3);

/// Events of the engine that may wait.
pub(super) const EVENTS_MAX: usize = 1024;

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
    let count = plan.parts().len();
    // One `Enter` for each participant, and few candidates: no bound of its own is needed.
    let (order, orders) = orders::channel();
    let (tell, events) = mpsc::channel(EVENTS_MAX);
    let engine = Engine::new(clock, &plan, orders, tell).map_err(failed)?;
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
        life: plan.warmup + plan.duration + SECOND * (count as u32 / plan.join_rate) + TOKEN_SLACK,
        count,
        ramp: Ramp::default(),
        ramps: plan.ramp,
        pid: plan.pid,
        usages: Vec::new(),
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
    /// Where it goes, if that is what is looked for.
    ramp: Ramp,
    ramps: bool,
    pid: Option<u32>,
    /// What the server's process had used at the beginning, and after each second.
    usages: Vec<Usage>,
    outcome: Option<Box<Outcome>>,
    start: Instant,
}

impl Call {
    async fn hold(
        mut self,
        plan: Plan,
        progress: &mut impl FnMut(&Progress<'_>),
    ) -> Result<Report, String> {
        let mut parts = plan.parts();
        let at_first = if plan.ramp { RAMP_START } else { parts.len() };
        let later = parts.split_off(at_first.min(parts.len()));
        self.enter(parts, plan.join_rate, progress).await;
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
        if !plan.ramp {
            let warm = self.clock.now() + plan.warmup;
            self.until(warm, progress, |_| false).await;
        }
        self.tell(Order::Measure);
        self.usages.extend(plan.pid.and_then(process::usage));
        let end = self.clock.now() + plan.duration;
        if plan.ramp {
            self.enter(later, plan.join_rate, progress).await;
            self.until(end, progress, |call| call.ramp.is_over()).await;
        } else {
            self.churn(plan.churn, end, progress).await;
        }
        let late = self.clock.now() - JOIN_TIME;
        self.joins.give_up(late, &silent);
        let before = self.usages.first().copied();
        let after = plan.pid.and_then(process::usage);
        let server = before.zip(after).map(|(before, mut after)| {
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
            joins: self.joins,
            outcome: *outcome,
            server,
            floor: None,
            usages: self.usages,
            ramp: plan.ramp.then_some(self.ramp),
            plan,
        })
    }

    fn tell(&self, order: Order) {
        // A thread that has ended is seen by what it doesn't say.
        let _ = self.order.send(order);
    }

    /// These join, so many in a second, unless the limit is reached before.
    async fn enter(
        &mut self,
        parts: Vec<Part>,
        rate: u32,
        progress: &mut impl FnMut(&Progress<'_>),
    ) {
        let mut next = self.clock.now();
        for part in parts {
            if self.ramp.is_over() {
                return;
            }
            self.join(part);
            next += SECOND / rate;
            self.until(next, progress, |call| call.ramp.is_over()).await;
        }
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
            Event::Second(second, measuring) => {
                let joined = self.joins.joined();
                if measuring && self.ramps {
                    self.ramp.note(joined, &second);
                }
                if measuring {
                    self.usages.extend(self.pid.and_then(process::usage));
                }
                progress(&Progress {
                    time: self.clock.now().saturating_duration_since(self.start),
                    second: &second,
                    joined,
                    failures: self.joins.failures,
                    all: self.count,
                    measuring,
                });
            }
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

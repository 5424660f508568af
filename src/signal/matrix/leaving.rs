//! Does what entrusted leaves need: hears who comes and goes, and asks homeservers.
//!
//! What is to be done and when says [`Leaves`]; here are its clock, its file and its requests. A
//! participant counts as gone when its room says so: signalling that breaks and is taken up again
//! ends nothing. When the daemon stops nobody is gone, however many sessions end: clients come back
//! to the next one.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Matrix;
use super::issue::Wish;
use super::refusal::{self, Refusal};
use crate::directory::events::Listening;
use crate::matrix::homeservers::{Answer, Call};
use crate::matrix::leaves::store::{Kept as Record, Store};
use crate::matrix::leaves::{Deed, Due, Kept, Key, Leave, Leaves, Outcome};
use crate::matrix::name::UserId;
use crate::media::message::ParticipantState;
use crate::media::message::administration::{Event, Fact, Happened, RoomRequest};
use crate::signal::http::stopped;
use crate::signal::{Signal, Stats, unix_now};

/// Leaves that wait to be taken; their clients wait as well.
const QUEUE: usize = 256;

/// How long a participant that has gone may take to be back before its leave is sent: clients that
/// begin anew say goodbye first.
const SETTLE: Duration = Duration::from_millis(500);

/// Requests to homeservers at a time, of the application service; it is not limited in its rate.
const REQUESTS: usize = 32;

/// How long a homeserver is left alone that said "too many" and not for how long.
const PAUSE: Duration = Duration::from_secs(2);

/// A longer pause than this is not kept for others.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Homeservers whose pace is remembered before those without a request are forgotten.
const PACES: usize = 256;

/// A shorter delay would be restarted without end, and a longer one no homeserver takes.
const DELAY_MIN: Duration = Duration::from_secs(10);
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// A leave that waits at the homeserver.
pub(super) struct Delay {
    id: String,
    /// The time after which the homeserver sends it unless it is asked to wait again.
    after: Duration,
}

impl Delay {
    /// A leave that can be taken, unless its delay is too short or too long.
    pub fn new(id: String, after: Duration) -> Option<Self> {
        let is_one = (DELAY_MIN..=DELAY_MAX).contains(&after);
        is_one.then_some(Self { id, after })
    }
}

/// Sent by requests to the task that keeps leaves.
pub(super) struct Entrust {
    key: Key,
    leave: Leave,
    present: bool,
    /// Whether it was taken and kept.
    taken: oneshot::Sender<bool>,
}

/// The way to the task that keeps leaves.
pub(super) struct Office(mpsc::Sender<Entrust>);

/// What that task takes along.
pub(in crate::signal) struct Start {
    waiting: mpsc::Receiver<Entrust>,
    store: Store,
    found: Vec<Record>,
}

/// Both, with what an earlier process has left in `store`.
pub(super) fn office(store: Store, found: Vec<Record>) -> (Office, Start) {
    let (asks, waiting) = mpsc::channel(QUEUE);
    let start = Start {
        waiting,
        store,
        found,
    };
    (Office(asks), start)
}

impl Matrix {
    /// Fails if nobody could be told of the leave of such a user.
    pub(super) async fn check_leaves_of(&self, user: &UserId) -> Result<(), Refusal> {
        let why = "the leave can't be entrusted: the homeserver doesn't tell where its \
            client-server API is";
        let reached = self.homeservers.has_client_api(user.server()).await;
        reached.then_some(()).ok_or(Refusal::bad_json(why))
    }

    /// Takes the leave of a verified user.
    pub(super) async fn delegate(
        &self,
        signal: &Arc<Signal>,
        wish: &Wish,
        delay: Delay,
    ) -> Result<(), Refusal> {
        let office = self.office.as_ref().ok_or(refusal::OFF)?;
        let key = (wish.room(), wish.identity.clone());
        let leave = Leave {
            user: wish.user.clone(),
            id: delay.id,
            delay: delay.after,
        };
        let present = whereabouts(signal, &key).await == Whereabouts::Active;
        let (taken, answer) = oneshot::channel();
        let entrust = Entrust {
            key,
            leave,
            present,
            taken,
        };
        office
            .0
            .send(entrust)
            .await
            .map_err(|_| refusal::STOPPING)?;
        match answer.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(refusal::FULL),
            Err(_) => Err(refusal::STOPPING),
        }
    }
}

/// Where a participant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    /// In the room, with media.
    Active,
    /// In the room, and what comes of it will be heard: it connects, or is gone.
    Connecting,
    Gone,
}

async fn whereabouts(signal: &Arc<Signal>, (room, identity): &Key) -> Whereabouts {
    let request = RoomRequest::Participant(identity.clone());
    match signal.directory.ask(room, request).await {
        Ok(Fact::Participant(info)) if info.state == ParticipantState::Active => {
            Whereabouts::Active
        }
        Ok(Fact::Participant(_)) => Whereabouts::Connecting,
        _ => Whereabouts::Gone,
    }
}

/// Something that a task of ours has found out.
enum Found {
    /// Where somebody is who may have come or gone.
    Whereabouts(Key, Whereabouts),
    Done(Due, Outcome),
}

/// Keeps leaves until the daemon stops.
pub(super) async fn keep(
    signal: Arc<Signal>,
    start: Start,
    events: Listening,
    mut stop: watch::Receiver<bool>,
) {
    let mut happening = events.listen();
    let mut waiting = start.waiting;
    let mut keeper = Keeper {
        signal,
        leaves: Leaves::default(),
        store: start.store,
        tasks: JoinSet::new(),
        requests: Arc::new(Semaphore::new(REQUESTS)),
        paces: HashMap::new(),
    };
    keeper.take_up(start.found);
    loop {
        let wake = keeper.leaves.wake().map(Instant::from_std);
        let due = async move {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(entrust) = waiting.recv() => keeper.entrust(entrust),
            Some(Ok(found)) = keeper.tasks.join_next() => keeper.learn(found),
            event = happening.recv() => match event {
                Ok(event) => keeper.hear(&event),
                // Some were missed: everybody is looked for.
                Err(RecvError::Lagged(_)) => keeper.look_for_all(),
                Err(RecvError::Closed) => break,
            },
            () = due => {}
        }
        keeper.act();
    }
    // What is not done by now the next process does.
    keeper.tasks.abort_all();
}

struct Keeper {
    signal: Arc<Signal>,
    leaves: Leaves,
    store: Store,
    /// As many as there are leaves at most, but for those of one that is replaced.
    tasks: JoinSet<Found>,
    requests: Arc<Semaphore>,
    /// By homeserver that counts requests by our address, with one place each. No larger than
    /// [`PACES`] and the number of homeservers with a request.
    paces: HashMap<String, Arc<Semaphore>>,
}

impl Keeper {
    fn take_up(&mut self, found: Vec<Record>) {
        let now = unix_now();
        for record in found {
            let left = record.end.saturating_sub(now);
            // The homeserver has sent it by itself.
            if left.is_zero() {
                self.forget(&record.key);
                continue;
            }
            let Record { key, leave, .. } = record;
            self.leaves.resume(self.clock(), key, leave, left);
        }
    }

    fn clock(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    fn entrust(&mut self, entrust: Entrust) {
        let Entrust {
            key,
            leave,
            present,
            taken,
        } = entrust;
        let now = self.clock();
        let room = self
            .leaves
            .entrust(now, key.clone(), leave.clone(), present);
        let kept = room && self.put(key.clone(), leave);
        if !present {
            // It may have come while this was on its way.
            self.look_for(key, Duration::ZERO);
        }
        // The client may have given up.
        let _ = taken.send(kept);
    }

    fn put(&mut self, key: Key, leave: Leave) -> bool {
        let end = unix_now().saturating_add(leave.delay);
        let put = self.store.put(&Record { key, leave, end });
        self.written(put)
    }

    fn forget(&mut self, key: &Key) {
        let removed = self.store.remove(key);
        self.written(removed);
    }

    /// Whether a line is in the file, which is written anew when most of it is history.
    fn written(&mut self, line: io::Result<()>) -> bool {
        let written = line.and_then(|()| {
            if !self.store.is_long(self.leaves.keys().len()) {
                return Ok(());
            }
            let records = self.leaves.records(self.clock(), unix_now());
            self.store.rewrite(&records)
        });
        if let Err(error) = &written {
            tracing::error!("leaves can't be kept over a restart, see matrix.leaves: {error}");
        }
        written.is_ok()
    }

    fn hear(&mut self, event: &Event) {
        let who = match &event.happened {
            Happened::ParticipantJoined(who)
            | Happened::ParticipantLeft(who)
            // Also of somebody who came back before the leave was sent, and then did not connect.
            | Happened::ParticipantAborted(who) => who,
            _ => return,
        };
        let key = (event.room.name.clone(), who.identity.clone());
        if !self.leaves.has(&key) {
            return;
        }
        match event.happened {
            Happened::ParticipantJoined(_) => self.leaves.joined(self.clock(), &key),
            _ => self.look_for(key, SETTLE),
        }
    }

    fn look_for_all(&mut self) {
        let all: Vec<_> = self.leaves.keys().cloned().collect();
        for key in all {
            self.look_for(key, SETTLE);
        }
    }

    /// Finds out whether a participant is there, after a while.
    fn look_for(&mut self, key: Key, after: Duration) {
        let signal = Arc::clone(&self.signal);
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            let found = whereabouts(&signal, &key).await;
            Found::Whereabouts(key, found)
        });
    }

    fn learn(&mut self, found: Found) {
        let now = self.clock();
        match found {
            Found::Whereabouts(key, Whereabouts::Active) => self.leaves.joined(now, &key),
            Found::Whereabouts(_, Whereabouts::Connecting) => {}
            Found::Whereabouts(key, Whereabouts::Gone) => self.leaves.left(now, &key),
            Found::Done(due, outcome) => {
                let stats = &self.signal.stats;
                let counter = match (due.deed, outcome) {
                    (_, Outcome::Later(_)) => &stats.leave_failures,
                    (Deed::Send, _) => &stats.leaves_sent,
                    (Deed::Restart, _) => &stats.leaves_restarted,
                };
                Stats::count(counter);
                match self.leaves.done(now, &due, outcome) {
                    Kept::Same => {}
                    Kept::Ended => self.forget(&due.key),
                    Kept::Restarted => {
                        self.put(due.key, due.leave);
                    }
                }
            }
        }
    }

    /// The turns of requests to `server`: as the application service many, else one after the
    /// other, which is soonest through where requests are counted by address.
    fn turns(&mut self, server: &str) -> Arc<Semaphore> {
        let matrix = self.signal.matrix.as_ref();
        if matrix.is_some_and(|it| it.as_token_for(server).is_some()) {
            return Arc::clone(&self.requests);
        }
        if self.paces.len() >= PACES {
            self.paces.retain(|_, pace| Arc::strong_count(pace) > 1);
        }
        let pace = self.paces.entry(server.to_owned());
        Arc::clone(pace.or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    /// Begins everything that is due.
    fn act(&mut self) {
        let mut ended = Vec::new();
        let now = self.clock();
        while let Some(due) = self.leaves.due(now, &mut ended) {
            let signal = Arc::clone(&self.signal);
            let turns = self.turns(due.leave.user.server());
            self.tasks.spawn(async move {
                let outcome = match &signal.matrix {
                    Some(matrix) => matrix.do_at_homeserver(&due, &turns).await,
                    None => Outcome::Gone,
                };
                Found::Done(due, outcome)
            });
        }
        for key in ended {
            let identity = &key.1;
            tracing::warn!(
                ?identity,
                "a leave was given up: its homeserver does not take it"
            );
            Stats::count(&self.signal.stats.leaves_given_up);
            self.forget(&key);
        }
    }
}

impl Matrix {
    /// As the application service where that is the user's own homeserver's, else as anybody.
    async fn do_at_homeserver(&self, due: &Due, turns: &Semaphore) -> Outcome {
        let user = &due.leave.user;
        let action = match due.deed {
            Deed::Restart => "restart",
            Deed::Send => "send",
        };
        let token = self.as_token_for(user.server());
        let call = Call {
            method: Method::POST,
            path_and_query: delayed_event(&due.leave.id, action, token.map(|_| user.as_str())),
            token,
            body: Some(json!({})),
        };
        // It is never closed.
        let _turn = turns.acquire().await;
        let answer = self.homeservers.call(user.server(), call).await;
        let outcome = answer.map_or(Outcome::Later(None), outcome);
        if let (None, Outcome::Later(Some(wait))) = (token, outcome) {
            tokio::time::sleep(wait.min(PAUSE_MAX)).await;
        }
        outcome
    }
}

/// The path of a delayed event, and in whose name it is asked for.
pub(super) fn delayed_event(id: &str, action: &str, user: Option<&str>) -> String {
    let [id, user] = [Some(id), user].map(|text| text.map(super::escaped));
    let mut path = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/".to_owned();
    path.extend(id);
    if !action.is_empty() {
        path.push('/');
        path.push_str(action);
    }
    if let Some(user) = user {
        path.push_str("?user_id=");
        path.push_str(&user);
    }
    path
}

fn outcome(answer: Answer) -> Outcome {
    match answer.status {
        200..300 => Outcome::Done,
        404 | 409 => Outcome::Gone,
        429 => Outcome::Later(Some(answer.retry_after.unwrap_or(PAUSE))),
        // 403 too: the room may have turned the event down for now.
        _ => Outcome::Later(answer.retry_after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_called_its_leave_stays_one_segment() {
        let path = delayed_event("../a?b#c%2f é", "send", Some("@a:b"));
        let wanted = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/\
            %2E%2E%2Fa%3Fb%23c%252f%20%C3%A9/send?user_id=%40a%3Ab";
        assert_eq!(path, wanted);
    }
}

//! Who is in the Matrix rooms of calls: asked before a join, and again while somebody is there.
//!
//! A token outlives a membership, so it notes the membership it was made for. Whoever is not a
//! member any more is removed from the call, and its tokens are refused. What the homeserver can't
//! say at the moment changes nothing: a homeserver that restarts must not end the calls.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::http::Method;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Matrix;
use crate::ids::{Identity, RoomName};
use crate::matrix::homeservers::Call;
use crate::media::message::administration::{Fact, RoomRequest};
use crate::signal::grant::{self, Grant, Member};
use crate::signal::http::stopped;
use crate::signal::{Signal, Stats, unix_now};

/// From one look at everybody to the next, while there are few: then nobody stays for 5 s.
const PERIOD: Duration = Duration::from_secs(3);

/// The same while the homeserver tells us of changes, as it does if the registration has a `url`.
/// It counts for this long after its last word: one that can't reach us any more is asked again.
const PERIOD_TOLD: Duration = Duration::from_secs(60);

/// Looks per second at most; with more members than this allows the period is longer.
const LOOKS_PER_SECOND: u32 = 50;

/// Questions to the homeserver at a time.
const QUESTIONS: usize = 16;

/// How long a join waits for the homeserver; clients give it 5 s in all.
const CHECK_TIME: Duration = Duration::from_secs(2);

/// What the homeserver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    Joined,
    NotJoined,
    /// It says nothing, or not that.
    Unknown,
}

/// Who is where in calls.
type Key = (RoomName, Identity);

/// The stay of a participant.
#[derive(Clone)]
struct Stay {
    member: Member,
    /// Whom the token is for; not who is in the room, for some clients of old.
    holder: Identity,
}

/// The participants whose membership counts.
#[expect(clippy::disallowed_types, reason = "signalling is off the packet path")]
#[derive(Default)]
pub(super) struct Members {
    /// Participants, and those who have gone since the last look.
    present: std::sync::Mutex<HashMap<Key, Stay>>,
    /// Those of whom the homeserver has told something.
    doubted: std::sync::Mutex<HashSet<Member>>,
    nudge: Notify,
    /// When the homeserver last told us of anything.
    told: std::sync::Mutex<Option<Instant>>,
}

impl Members {
    fn enter(&self, key: Key, stay: Stay) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.insert(key, stay);
    }

    /// The homeserver tells us what happens.
    pub fn tell(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Some(Instant::now());
    }

    /// Until the next look at everybody.
    fn period(&self) -> Duration {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.is_some_and(|at| at.elapsed() < PERIOD_TOLD);
        let count = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let at_rate = Duration::from_secs(1) * count / LOOKS_PER_SECOND;
        at_rate.max(if told { PERIOD_TOLD } else { PERIOD })
    }

    /// Has `member` looked at now, if it is in a call.
    pub fn doubt(&self, member: Member) {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if !present.values().any(|stay| stay.member == member) {
            return;
        }
        drop(present);
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.insert(member);
        self.nudge.notify_one();
    }

    /// Those to look at, with where they are.
    fn due(&self, all: bool) -> HashMap<Member, Vec<(Key, Stay)>> {
        let doubted =
            std::mem::take(&mut *self.doubted.lock().unwrap_or_else(PoisonError::into_inner));
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due: HashMap<_, Vec<_>> = HashMap::new();
        for (key, stay) in present.iter() {
            if all || doubted.contains(&stay.member) {
                let places = due.entry(stay.member.clone()).or_default();
                places.push((key.clone(), stay.clone()));
            }
        }
        due
    }

    fn forget(&self, key: &Key) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.remove(key);
    }

    fn len(&self) -> usize {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.len()
    }
}

impl Matrix {
    /// Whether a user is in a Matrix room, as far as our homeserver knows.
    pub(super) async fn membership(&self, member: &Member) -> Membership {
        let who = format!("mxid={}", super::escaped(&member.user));
        self.is_joined(&member.room, &who).await
    }

    /// Whether `who`, a query for a user or a server, is in a Matrix room.
    pub(super) async fn is_joined(&self, room: &str, who: &str) -> Membership {
        let Some((home, registration)) = &self.service else {
            return Membership::Unknown;
        };
        let room = super::escaped(room);
        let call = Call {
            method: Method::GET,
            path_and_query: format!(
                "/_matrix/client/unstable/io.element.msc4502/rooms/{room}/is_joined?{who}"
            ),
            token: Some(registration.as_token.as_str()),
            body: None,
        };
        match self.homeservers.call(home, call).await {
            Ok(answer) if answer.status == 200 => match answer.body.get("joined") {
                Some(serde_json::Value::Bool(true)) => Membership::Joined,
                Some(serde_json::Value::Bool(false)) => Membership::NotJoined,
                _ => Membership::Unknown,
            },
            // It doesn't take this for the id of a room, or of a user.
            Ok(answer) if answer.status == 400 => Membership::NotJoined,
            _ => Membership::Unknown,
        }
    }
}

/// The membership a token was made for, where it counts here.
fn watched<'a>(signal: &'a Signal, grant: &'a Grant) -> Option<(&'a Matrix, &'a Member)> {
    let matrix = signal.matrix.as_ref()?;
    matrix.service.as_ref()?;
    Some((matrix, grant.matrix.as_ref()?.member.as_ref()?))
}

/// Fails if the membership a token was made for has ended.
pub(in crate::signal) async fn check(signal: &Signal, grant: &Grant) -> Result<(), grant::Refused> {
    let Some((matrix, member)) = watched(signal, grant) else {
        return Ok(());
    };
    let asked = tokio::time::timeout(CHECK_TIME, matrix.membership(member)).await;
    match asked {
        Ok(Membership::NotJoined) => Err(grant::Refused::NoMember),
        _ => Ok(()),
    }
}

/// Watches the membership of a participant that has joined, until it is gone.
pub(in crate::signal) fn enter(signal: &Signal, grant: &Grant, holder: &Identity) {
    if let (Some((matrix, member)), Some(room)) = (watched(signal, grant), &grant.room) {
        let stay = Stay {
            member: member.clone(),
            holder: holder.clone(),
        };
        matrix
            .members
            .enter((room.clone(), grant.identity.clone()), stay);
    }
}

/// Looks at memberships until the daemon stops.
pub(super) async fn watch(signal: Arc<Signal>, mut stop: watch::Receiver<bool>) {
    let Some(matrix) = &signal.matrix else { return };
    let mut next = Instant::now() + PERIOD;
    loop {
        let all = tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep_until(next) => true,
            () = matrix.members.nudge.notified() => false,
        };
        look(&signal, matrix, all).await;
        if all {
            next = Instant::now() + matrix.members.period();
        }
    }
}

/// Asks for everybody, or for those in doubt, and removes those who are no members.
async fn look(signal: &Arc<Signal>, matrix: &Matrix, all: bool) {
    let slots = Arc::new(Semaphore::new(QUESTIONS));
    let mut questions = JoinSet::new();
    for (member, places) in matrix.members.due(all) {
        let (signal, slots) = (Arc::clone(signal), Arc::clone(&slots));
        questions.spawn(async move {
            let _slot = slots.acquire().await;
            look_at(&signal, &member, &places).await;
        });
    }
    while questions.join_next().await.is_some() {}
}

async fn look_at(signal: &Arc<Signal>, member: &Member, places: &[(Key, Stay)]) {
    let Some(matrix) = &signal.matrix else { return };
    let mut there = Vec::new();
    for (key, stay) in places {
        let (room, identity) = key;
        let request = RoomRequest::Participant(identity.clone());
        match signal.directory.ask(room, request).await {
            Ok(Fact::Participant(_)) => there.push((key, stay)),
            _ => matrix.members.forget(key),
        }
    }
    if there.is_empty() || matrix.membership(member).await != Membership::NotJoined {
        return;
    }
    for (key, stay) in there {
        let (room, identity) = key.clone();
        let now = unix_now();
        // Its tokens first, so that it can't come back in between.
        let revocations = &signal.revocations;
        revocations.revoke(room.clone(), stay.holder.clone(), now, now);
        tracing::info!(?identity, "removed: no member of the Matrix room any more");
        Stats::count(&signal.stats.members_removed);
        let removing = RoomRequest::Remove(identity);
        if let Err(refusal) = signal.directory.ask(&room, removing).await {
            tracing::debug!("already gone: {refusal:?}");
        }
        matrix.members.forget(key);
    }
}

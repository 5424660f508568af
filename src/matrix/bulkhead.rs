//! Bulkheads: however long one homeserver takes, the others' users don't wait.
//!
//! ```text
//! configured:  Gate of that server
//! strangers:   all together -> per asker -> Gate of that server
//! ```
//!
//! Each has so many turns at a time, and so many who wait for one. Whoever finds it full is told so
//! at once. What waiting takes counts against the time of the whole exchange, so queues drain.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ids::Household;

/// There is no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The way to one server.
pub struct Gate {
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    size: usize,
}

/// A turn, given back when dropped.
pub struct Turn {
    _room: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Gate {
    /// So many at a time, and so many more who wait.
    pub fn new(turns: usize, waiting: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(turns + waiting)),
            turns: Arc::new(Semaphore::new(turns)),
            size: turns + waiting,
        }
    }

    /// Waits for a turn, if there is room to wait in.
    pub async fn turn(&self) -> Result<Turn, Busy> {
        let room = self.room()?;
        Self::turn_in(room, Arc::clone(&self.turns)).await
    }

    fn room(&self) -> Result<OwnedSemaphorePermit, Busy> {
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| Busy)
    }

    async fn turn_in(room: OwnedSemaphorePermit, turns: Arc<Semaphore>) -> Result<Turn, Busy> {
        Ok(Turn {
            _room: room,
            _turn: turns.acquire_owned().await.map_err(|_| Busy)?,
        })
    }

    fn is_empty(&self) -> bool {
        self.room.available_permits() == self.size
    }
}

/// How many strangers' servers may be asked, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Under way or waiting, all together.
    pub all: usize,
    /// The same for one asker.
    pub per_asker: usize,
    /// At a time, of one server.
    pub turns: usize,
    /// Waiting for one server.
    pub waiting: usize,
}

/// The way to servers nobody configured.
pub struct Strangers {
    bounds: Bounds,
    all: Semaphore,
    /// Who is inside. No larger than `bounds.all`, and locked for a look only.
    #[expect(clippy::disallowed_types, reason = "Matrix is off the packet path")]
    inside: std::sync::Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    askers: HashMap<Household, usize>,
    gates: HashMap<String, Gate>,
}

/// A place among the strangers; left when dropped.
pub struct Visit<'a> {
    strangers: &'a Strangers,
    server: &'a str,
    asker: Option<Household>,
    turn: Option<Turn>,
}

impl Strangers {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            all: Semaphore::new(bounds.all),
            inside: Default::default(),
        }
    }

    /// Runs `work` in a turn of `server`, for `asker` or for ourselves.
    pub async fn visit<T>(
        &self,
        server: &str,
        asker: Option<Household>,
        work: impl Future<Output = T>,
    ) -> Result<T, Busy> {
        let _one_of_all = self.all.try_acquire().map_err(|_| Busy)?;
        let (mut visit, room, turns) = self.enter(server, asker)?;
        visit.turn = Some(Gate::turn_in(room, turns).await?);
        Ok(work.await)
    }

    fn enter<'a>(
        &'a self,
        server: &'a str,
        asker: Option<Household>,
    ) -> Result<(Visit<'a>, OwnedSemaphorePermit, Arc<Semaphore>), Busy> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asker.and_then(|asker| inside.askers.get(&asker));
        if count.is_some_and(|count| *count >= self.bounds.per_asker) {
            return Err(Busy);
        }
        let gate = inside.gates.entry(server.to_owned());
        let gate = gate.or_insert_with(|| Gate::new(self.bounds.turns, self.bounds.waiting));
        let (room, turns) = (gate.room()?, Arc::clone(&gate.turns));
        if let Some(asker) = asker {
            *inside.askers.entry(asker).or_default() += 1;
        }
        let visit = Visit {
            strangers: self,
            server,
            asker,
            turn: None,
        };
        Ok((visit, room, turns))
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        drop(self.turn.take());
        let inside = &self.strangers.inside;
        let mut inside = inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.gates.get(self.server).is_some_and(Gate::is_empty) {
            inside.gates.remove(self.server);
        }
        let count = self.asker.map(|asker| inside.askers.entry(asker));
        if let Some(Entry::Occupied(mut count)) = count {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        all: 8,
        per_asker: 4,
        turns: 2,
        waiting: 1,
    };

    /// Polls a visit that never ends once; it stays where it got.
    async fn stay<'a>(
        strangers: &'a Strangers,
        server: &'a str,
        asker: &str,
    ) -> Option<std::pin::Pin<Box<impl Future<Output = Result<(), Busy>> + 'a>>> {
        let forever = std::future::pending::<()>();
        let asker = Household::of(asker.parse().unwrap());
        let mut visit = Box::pin(strangers.visit(server, Some(asker), forever));
        let left = tokio::time::timeout(std::time::Duration::ZERO, &mut visit).await;
        left.is_err().then_some(visit)
    }

    #[tokio::test(start_paused = true)]
    async fn each_server_has_its_turns_and_its_queue() {
        let gate = Gate::new(1, 1);
        let first = gate.turn().await.unwrap();
        let second = gate.turn();
        tokio::pin!(second);
        let none = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(none, &mut second).await.is_err());
        assert!(matches!(gate.turn().await, Err(Busy)));
        drop(first);
        drop(second.await.unwrap());
        assert!(gate.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_server_takes_nobodys_place() {
        let strangers = Strangers::new(BOUNDS);
        let mut inside = Vec::new();
        for _ in 0..3 {
            inside.push(stay(&strangers, "slow", "1.2.3.4").await.unwrap());
        }
        assert!(stay(&strangers, "slow", "1.2.3.5").await.is_none());
        assert_eq!(strangers.visit("quick", None, async { 1 }).await, Ok(1));
        // Who gives up, running or waiting, leaves nothing behind.
        drop(inside);
        let inside = strangers.inside.lock().unwrap();
        assert!(inside.gates.is_empty() && inside.askers.is_empty());
        assert_eq!(strangers.all.available_permits(), BOUNDS.all);
    }

    #[tokio::test(start_paused = true)]
    async fn one_asker_takes_nobodys_place() {
        let strangers = Strangers::new(BOUNDS);
        let mut inside = Vec::new();
        for server in ["a", "b", "c", "d"] {
            inside.push(stay(&strangers, server, "2001:db8::1").await.unwrap());
        }
        assert!(stay(&strangers, "e", "2001:db8::2").await.is_none());
        for server in ["e", "f", "g", "h"] {
            inside.push(stay(&strangers, server, "::ffff:1.2.3.4").await.unwrap());
        }
        assert!(stay(&strangers, "i", "1.2.3.5").await.is_none());
        assert_eq!(strangers.inside.lock().unwrap().gates.len(), BOUNDS.all);
    }
}

//! What workers hand each other for rooms that are on several of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::ids::WorkerId;
use crate::media::relay::{Parcel, Weight};

/// Parcels that wait for one worker. A worker takes some ten thousand in a second.
pub(super) const WAITING_MAX: usize = 8192;

/// Of these, media leaves so many to all else.
const RESERVE: usize = WAITING_MAX / 2;

/// And data messages so many to what must not be lost.
const RESERVE_STATE: usize = WAITING_MAX / 4;

/// Bytes of data messages that wait for one worker; each has up to 64 KiB.
const DATA_BYTES_MAX: usize = 32 << 20;

/// The ways from one worker to all others, and from them to it.
#[derive(Debug)]
pub(super) struct Relay {
    /// By worker.
    members: Vec<Member>,
    parcels: mpsc::Receiver<Parcel>,
    /// Bytes of data messages among them.
    waiting: Arc<AtomicUsize>,
}

/// The way to one worker.
#[derive(Debug, Clone)]
struct Member {
    parcels: mpsc::Sender<Parcel>,
    waiting: Arc<AtomicUsize>,
}

impl Relay {
    /// Worker by worker, each with its view.
    pub(super) fn of(count: usize) -> Vec<Self> {
        let queue = |_| {
            let (sender, parcels) = mpsc::channel(WAITING_MAX);
            let member = Member {
                parcels: sender,
                waiting: Arc::default(),
            };
            (member, parcels)
        };
        let (members, queues): (Vec<_>, Vec<_>) = (0..count).map(queue).unzip();
        let view = |(own, parcels): (usize, _)| Self {
            waiting: Arc::clone(&members[own].waiting),
            members: members.clone(),
            parcels,
        };
        queues.into_iter().enumerate().map(view).collect()
    }

    /// Hands a parcel over, or gives it back: too many wait there, or the worker is gone.
    pub(super) fn post(&self, worker: WorkerId, parcel: Parcel) -> Result<(), Box<Parcel>> {
        let Some(member) = self.members.get(usize::from(worker.0)) else {
            return Err(Box::new(parcel));
        };
        let (reserve, bytes) = match parcel.weight() {
            Weight::State => (0, 0),
            Weight::Media => (RESERVE, 0),
            Weight::Data(bytes) => (RESERVE_STATE, bytes),
        };
        let waiting = || member.waiting.load(Ordering::Relaxed);
        let full = member.parcels.capacity() <= reserve;
        if full || bytes > 0 && waiting() + bytes > DATA_BYTES_MAX {
            return Err(Box::new(parcel));
        }
        // Before it can be taken out again.
        if bytes > 0 {
            member.waiting.fetch_add(bytes, Ordering::Relaxed);
        }
        member.parcels.try_send(parcel).map_err(|unsent| {
            if bytes > 0 {
                member.waiting.fetch_sub(bytes, Ordering::Relaxed);
            }
            Box::new(unsent.into_inner())
        })
    }

    /// What others have handed over.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Parcel> {
        // It can't end, as this view holds a sender of its own.
        match self.parcels.poll_recv(cx) {
            Poll::Ready(Some(parcel)) => Poll::Ready(self.taken(parcel)),
            _ => Poll::Pending,
        }
    }

    /// The same without waiting.
    pub(super) fn next(&mut self) -> Option<Parcel> {
        let next = self.parcels.try_recv().ok()?;
        Some(self.taken(next))
    }

    fn taken(&self, parcel: Parcel) -> Parcel {
        if let Weight::Data(bytes) = parcel.weight() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        parcel
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::relay::tests::{burst, mail};
    use crate::media::relay::{Part, Recipient, Word};

    fn parcel(word: Word) -> Parcel {
        let part = Part::numbered(1);
        Parcel {
            from: part,
            to: Recipient::Part(part),
            word,
        }
    }

    #[test]
    fn media_leaves_room_for_what_must_not_be_lost() {
        let mut relays = Relay::of(2);
        let to = WorkerId(1);
        for _ in 0..WAITING_MAX - RESERVE {
            assert!(relays[0].post(to, parcel(burst(3))).is_ok());
        }
        let lost = relays[0].post(to, parcel(burst(3))).unwrap_err();
        assert_eq!(lost.packets(), 3);
        for _ in 0..RESERVE {
            let word = Word::Hello { create: true };
            assert!(relays[0].post(to, parcel(word)).is_ok());
        }
        let word = parcel(Word::Hello { create: true });
        assert!(relays[0].post(to, word).is_err());
        assert_eq!(relays[1].next().map(|it| it.packets()), Some(3));
        let word = parcel(Word::Hello { create: true });
        assert!(relays[0].post(to, word).is_ok(), "what is taken makes room");
        assert!(
            relays[0].post(WorkerId(2), parcel(burst(1))).is_err(),
            "no such"
        );
    }

    #[test]
    fn data_messages_are_bounded_in_bytes_and_wait_behind_media() {
        let mut relays = Relay::of(2);
        let to = WorkerId(1);
        for _ in 0..WAITING_MAX - RESERVE {
            assert!(relays[0].post(to, parcel(burst(1))).is_ok());
        }
        let large = 1 << 16;
        let mut taken = 0;
        while relays[0].post(to, parcel(mail(large))).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, DATA_BYTES_MAX / large);
        let state = parcel(Word::Hello { create: true });
        assert!(relays[0].post(to, state).is_ok());
        while relays[1].next().is_some() {}
        assert!(
            relays[0].post(to, parcel(mail(large))).is_ok(),
            "there is room again"
        );
        for _ in 1..WAITING_MAX - RESERVE_STATE {
            assert!(relays[0].post(to, parcel(mail(1))).is_ok());
        }
        assert!(relays[0].post(to, parcel(mail(1))).is_err());
    }
}

//! What workers hand each other for rooms that are on several of them.

use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::ids::WorkerId;
use crate::media::relay::{Parcel, Weight};

/// Parcels that wait for one worker. A worker takes some ten thousand in a second.
pub(super) const WAITING_MAX: usize = 8192;

/// Of these, media leaves so many to what must not be lost.
const RESERVE: usize = WAITING_MAX / 2;

/// And data messages so many to both: each has up to 64 KiB.
const RESERVE_DATA: usize = WAITING_MAX - 512;

/// The ways from one worker to all others, and from them to it.
#[derive(Debug)]
pub(super) struct Relay {
    /// By worker.
    members: Vec<mpsc::Sender<Parcel>>,
    parcels: mpsc::Receiver<Parcel>,
}

impl Relay {
    /// Worker by worker, each with its view.
    pub(super) fn of(count: usize) -> Vec<Self> {
        let (members, queues): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::channel(WAITING_MAX)).unzip();
        let view = |parcels| Self {
            members: members.clone(),
            parcels,
        };
        queues.into_iter().map(view).collect()
    }

    /// Hands a parcel over, or gives it back: too many wait there, or the worker is gone.
    pub(super) fn post(&self, worker: WorkerId, parcel: Parcel) -> Result<(), Box<Parcel>> {
        let Some(member) = self.members.get(usize::from(worker.0)) else {
            return Err(Box::new(parcel));
        };
        let reserve = match parcel.weight() {
            Weight::State => 0,
            Weight::Media => RESERVE,
            Weight::Data => RESERVE_DATA,
        };
        if member.capacity() <= reserve {
            return Err(Box::new(parcel));
        }
        member.try_send(parcel).map_err(|unsent| match unsent {
            mpsc::error::TrySendError::Full(parcel) | mpsc::error::TrySendError::Closed(parcel) => {
                Box::new(parcel)
            }
        })
    }

    /// What others have handed over.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Parcel> {
        // It can't end, as this view holds a sender of its own.
        match self.parcels.poll_recv(cx) {
            Poll::Ready(Some(parcel)) => Poll::Ready(parcel),
            _ => Poll::Pending,
        }
    }

    /// The same without waiting.
    pub(super) fn next(&mut self) -> Option<Parcel> {
        self.parcels.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::relay::tests::burst;
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
        let mail = crate::media::relay::tests::mail;
        assert!(relays[1].post(WorkerId(0), parcel(mail())).is_ok());
        assert!(relays[0].post(to, parcel(mail())).is_err());
        assert_eq!(relays[1].next().map(|it| it.packets()), Some(3));
        let word = parcel(Word::Hello { create: true });
        assert!(relays[0].post(to, word).is_ok(), "what is taken makes room");
        assert!(
            relays[0].post(WorkerId(2), parcel(burst(1))).is_err(),
            "no such"
        );
    }
}

//! The queue of notices between a worker and one session, bounded in number and in bytes.
//!
//! The number alone would not do: a notice can carry half a megabyte of metadata, and a thousand
//! of those per client that doesn't read would be the end of the host. A notice is never too large
//! for an empty queue, so whatever the limits say, a client that reads gets everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::media::message::Notice;

/// How much may wait for a session.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Notices; one more is [`Unsent::Full`].
    pub count: usize,
    /// Their [`Notice::weight`]; more is [`Unsent::Full`], except for a notice that is alone.
    pub bytes: usize,
}

/// The worker's end.
#[derive(Debug)]
pub struct Sender {
    notices: mpsc::Sender<(usize, Notice)>,
    queued: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// The session's end.
#[derive(Debug)]
pub struct Receiver {
    notices: mpsc::Receiver<(usize, Notice)>,
    queued: Arc<AtomicUsize>,
}

/// Why a notice was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// The session doesn't read fast enough.
    Full,
    /// The session has ended.
    Gone,
}

/// An empty queue.
pub fn queue(bounds: Bounds) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(bounds.count);
    let queued = Arc::new(AtomicUsize::new(0));
    let sender = Sender {
        notices: sender,
        queued: queued.clone(),
        bytes_max: bounds.bytes,
    };
    let receiver = Receiver {
        notices: receiver,
        queued,
    };
    (sender, receiver)
}

impl Sender {
    /// Queues a notice without waiting.
    pub fn try_send(&self, notice: Notice) -> Result<(), Unsent> {
        let weight = notice.weight();
        // Only this end adds, and a receiver that takes meanwhile only makes room.
        let before = self.queued.fetch_add(weight, Ordering::Relaxed);
        let sent = if before > 0 && before.saturating_add(weight) > self.bytes_max {
            Err(Unsent::Full)
        } else {
            let sent = self.notices.try_send((weight, notice));
            sent.map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Unsent::Full,
                mpsc::error::TrySendError::Closed(_) => Unsent::Gone,
            })
        };
        if sent.is_err() {
            self.queued.fetch_sub(weight, Ordering::Relaxed);
        }
        sent
    }
}

impl Receiver {
    /// The next notice; `None` when the worker has dropped its end and all is read.
    pub async fn recv(&mut self) -> Option<Notice> {
        let (weight, notice) = self.notices.recv().await?;
        self.queued.fetch_sub(weight, Ordering::Relaxed);
        Some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heavy(bytes: usize) -> Notice {
        Notice::Answer {
            id: 1,
            sdp: "v".repeat(bytes),
            mid_to_track: Vec::new(),
        }
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_given_back() {
        let bounds = Bounds {
            count: 9,
            bytes: 10_000,
        };
        let (sender, mut receiver) = queue(bounds);
        assert_eq!(sender.try_send(heavy(50_000)), Ok(()), "alone");
        assert_eq!(sender.try_send(heavy(1)), Err(Unsent::Full));
        assert!(receiver.recv().await.is_some());
        for _ in 0..2 {
            assert_eq!(sender.try_send(heavy(4000)), Ok(()));
        }
        assert_eq!(sender.try_send(heavy(4000)), Err(Unsent::Full));
        assert!(receiver.recv().await.is_some());
        assert_eq!(sender.try_send(heavy(4000)), Ok(()));
        drop(receiver);
        assert_eq!(sender.try_send(heavy(1)), Err(Unsent::Gone));
    }

    #[test]
    fn the_number_is_bounded_too() {
        let (sender, _receiver) = queue(Bounds {
            count: 2,
            bytes: usize::MAX,
        });
        let sent = [0; 3].map(|_| sender.try_send(heavy(1)));
        assert_eq!(sent, [Ok(()), Ok(()), Err(Unsent::Full)]);
    }
}

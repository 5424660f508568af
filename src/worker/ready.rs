//! Which of many sockets have something to do.
//!
//! A worker may have thousands beside those it always has, and a turn must not ask each of them: a
//! socket that was found empty is armed, and knocks once when there is news.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::mpsc;

/// The knocks of all sockets of a kind.
pub(super) struct Ready {
    /// Without a bound of its own: a socket knocks once for each time it is armed, so there are no
    /// more than two for each, one for reading and one for writing.
    knocks: mpsc::UnboundedReceiver<usize>,
    door: mpsc::UnboundedSender<usize>,
    /// Those that were heard.
    queue: VecDeque<usize>,
}

/// What the runtime wakes for one socket.
struct Knock {
    key: usize,
    door: mpsc::UnboundedSender<usize>,
}

impl Wake for Knock {
    fn wake(self: Arc<Self>) {
        // Nobody is in any more when the worker ends.
        let _ = self.door.send(self.key);
    }
}

impl Ready {
    /// Nobody knocks.
    pub(super) fn new() -> Self {
        let (door, knocks) = mpsc::unbounded_channel();
        Self {
            knocks,
            door,
            queue: VecDeque::new(),
        }
    }

    /// What a socket is armed with, to be found again under `key`.
    pub(super) fn waker(&self, key: usize) -> Waker {
        let door = self.door.clone();
        Waker::from(Arc::new(Knock { key, door }))
    }

    /// Whether any socket has something to do.
    pub(super) fn poll_any(&mut self, cx: &mut Context<'_>) -> bool {
        // Each turn takes a knock out, and whoever has knocked is not armed.
        while let Poll::Ready(Some(key)) = self.knocks.poll_recv(cx) {
            self.queue.push_back(key);
        }
        !self.queue.is_empty()
    }

    /// The next one. It may have been closed, and its key be another's by now.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.queue.pop_front()
    }

    /// There may be more to do than was done; it is not armed.
    pub(super) fn again(&mut self, key: usize) {
        self.queue.push_back(key);
    }
}

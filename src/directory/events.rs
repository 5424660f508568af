//! The way of events from workers to those who want them: webhooks, which get each one, and
//! whoever listens at the moment.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc};

use crate::media::message::administration::Event;

/// Events a listener may be behind by; then it misses the oldest, and is told how many.
const BEHIND_MAX: usize = 256;

/// Where webhooks get events from.
pub type Posts = mpsc::Sender<Box<Event>>;

/// A worker's way to report what happens in its rooms.
#[derive(Debug, Clone)]
pub struct Events {
    posts: Option<Posts>,
    listeners: broadcast::Sender<Arc<Event>>,
}

impl Events {
    /// A way to `posts`, if somebody wants them, and to whoever asks the [`Listening`].
    pub fn new(posts: Option<Posts>) -> (Self, Listening) {
        let (listeners, _) = broadcast::channel(BEHIND_MAX);
        let listening = Listening(listeners.clone());
        (Self { posts, listeners }, listening)
    }

    /// Hands an event on without waiting; whether there was room for it where there has to be.
    pub fn publish(&self, event: Box<Event>) -> bool {
        if self.listeners.receiver_count() > 0 {
            // The last listener may have gone meanwhile.
            let _ = self.listeners.send(Arc::new((*event).clone()));
        }
        let posts = self.posts.as_ref();
        posts.is_none_or(|posts| posts.try_send(event).is_ok())
    }
}

/// Where to hear of events as long as one wants to. Keeps no worker waiting.
#[derive(Debug, Clone)]
pub struct Listening(broadcast::Sender<Arc<Event>>);

impl Listening {
    /// Events from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.subscribe()
    }
}

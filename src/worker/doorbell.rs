//! Tells whether one of the things that seldom happen to a worker has happened.
//!
//! A worker wakes some thousand times in a second, nearly always for datagrams. To ask all of mail,
//! connections, other workers and the end each time would cost more than to receive the datagram:
//! they are asked after one of them has rung.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// See the [module](self).
#[derive(Default)]
pub(super) struct Doorbell {
    bell: Option<Arc<Bell>>,
}

struct Bell {
    rung: AtomicBool,
    worker: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.worker.wake_by_ref();
    }
}

impl Doorbell {
    /// The waker to ask all of them with, if any has rung since the last time, or none was ever
    /// asked. Whoever has something then is asked again only after [`Doorbell::ring`].
    pub(super) fn rung(&mut self, cx: &Context<'_>) -> Option<Waker> {
        let same = self
            .bell
            .as_ref()
            .is_some_and(|bell| bell.worker.will_wake(cx.waker()));
        if !same {
            self.bell = Some(Arc::new(Bell {
                rung: AtomicBool::new(true),
                worker: cx.waker().clone(),
            }));
        }
        let bell = self.bell.as_ref()?;
        let rung = bell.rung.swap(false, Ordering::Acquire);
        rung.then(|| Waker::from(Arc::clone(bell)))
    }

    /// There may be more.
    pub(super) fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.rung.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct Worker(AtomicU32);

    impl Wake for Worker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_is_answered_once_for_each_time_it_rings() {
        let worker = Arc::new(Worker::default());
        let waker = Waker::from(Arc::clone(&worker));
        let cx = Context::from_waker(&waker);
        let mut doorbell = Doorbell::default();
        let bell = doorbell.rung(&cx).expect("nobody was asked yet");
        assert!(doorbell.rung(&cx).is_none());
        bell.wake_by_ref();
        assert_eq!(worker.0.load(Ordering::Relaxed), 1);
        assert!(doorbell.rung(&cx).is_some());
        assert!(doorbell.rung(&cx).is_none());
        doorbell.ring();
        assert!(doorbell.rung(&cx).is_some());
        // Another worker has to be woken from now on: all are asked anew.
        let other = Waker::from(Arc::new(Worker::default()));
        assert!(doorbell.rung(&Context::from_waker(&other)).is_some());
    }
}

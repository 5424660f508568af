//! How an estimate is shared out: not all of it is for media.

use std::time::{Duration, Instant};

use super::{CALM, Estimator};
use crate::units::Bitrate;

/// What of an estimate is not for media.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Part that what waits on the way takes, 0 to 1.
    drain: f64,
    /// Part that is sent again, 0 to 1.
    repeats: f64,
    /// The link carries far less than is sent: what is to be left out ends at once.
    pub is_short: bool,
}

impl Share {
    /// Share of what is sent that gets lost, 0 to 1.
    pub fn loss(&self) -> f64 {
        self.repeats
    }

    /// What is left for media.
    pub fn budget(&self, estimate: Bitrate) -> Bitrate {
        estimate.scale((1.0 - self.drain) * (1.0 - self.repeats))
    }

    /// What it takes so that so much is left for media, once nothing waits.
    pub fn needs(&self, media: Bitrate) -> Bitrate {
        media.scale(1.0 / (1.0 - self.repeats))
    }
}

/// A queue of less is left alone.
const QUEUE_GIVEN: Duration = Duration::from_millis(60);

/// What waits beyond that has to get through within this.
const DRAIN: Duration = Duration::from_millis(500);

/// It takes no more than this part.
const DRAIN_MAX: f64 = 0.5;

/// Nor do repetitions.
const REPEATS_MAX: f64 = 0.4;

/// With so much on its way, layers that are too large aren't sent on until a smaller one comes.
const QUEUE_LONG: Duration = Duration::from_millis(100);

impl Estimator {
    /// How the estimate is to be shared out: what is lost is sent again, and what waits on the way
    /// has to get through beside what is sent.
    pub fn share(&mut self, now: Instant) -> Share {
        let queue = self.delay.queue(now).unwrap_or_default();
        let waits = queue.saturating_sub(QUEUE_GIVEN + self.delay.noise());
        let drain = match self.rival {
            Some(_) => 0.0,
            None => (waits.as_secs_f64() / DRAIN.as_secs_f64()).min(DRAIN_MAX),
        };
        let repeats = self.loss.shares(now).all.min(REPEATS_MAX);
        Share {
            drain,
            repeats,
            is_short: queue > QUEUE_LONG
                && self
                    .cut
                    .is_some_and(|cut| now.saturating_duration_since(cut.at) < CALM),
        }
    }
}

//! How the estimate falls: to what demonstrably comes through, unless the queue isn't ours.

use std::time::{Duration, Instant};

use super::arrivals::{Busy, HINT_MAX};
use super::{Estimator, QUEUE_CALM};
use crate::units::Bitrate;

/// The last time less was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// When.
    pub(super) at: Instant,
    /// The first of those that followed each other, and what was then: the estimate before it, what
    /// stood in the queue, what came through.
    first: Instant,
    pub(super) before: Bitrate,
    queue: Duration,
    came: Bitrate,
    /// The most that has stood in the queue since.
    peak: Duration,
}

/// Somebody else keeps the queue full, whatever we do: a transfer that yields to loss alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival {
    /// What the link passes on to both.
    link: Bitrate,
    /// Our part.
    pub(super) part: f64,
    /// Since when there is no queue.
    calm: Option<Instant>,
}

/// Part of a link that is not left to a rival: about half. Who yields to every queue gets nothing.
const FAIR: f64 = 0.6;

/// What remains of that each time the queue loses too much.
pub(super) const FAIR_CUT: f64 = 0.8;

/// A link that passes on so many times what comes through, and has a queue, is somebody else's too.
const SHARED: f64 = 1.6;

/// More than this lost to a full queue calls for less.
pub(super) const LOSS_OURS: f64 = 0.05;
/// The same of a queue that a rival fills: it makes do with the rest of it.
pub(super) const LOSS_SHARED: f64 = 0.15;

/// A queue that is longer is not left to anybody.
const RIVAL_QUEUE_MAX: Duration = Duration::from_millis(400);

/// A rival is gone after so long without a queue.
const RIVAL_GONE: Duration = Duration::from_secs(2);

/// Of what came through while a queue was growing, what remains; the rest drains the queue.
pub(super) const CUT: f64 = 0.92;

/// The same if it falls on while it is cut.
const CUT_MORE: f64 = 0.8;
/// See [`CUT_MORE`].
const CUT_AGAIN: Duration = Duration::from_millis(300);

/// What of it is sent to see whether less mends loss: one step of frames less.
pub(super) const TRIED: f64 = 0.75;

/// No more than this is taken for the network's own loss.
const LOST_MAX: f64 = 0.5;

/// After a cut it takes a round trip and this until it shows.
const SETTLE: Duration = Duration::from_millis(250);

/// A queue that is the same so long after cuts, although less than this part of what came through
/// is sent, isn't ours.
const OURS: Duration = Duration::from_millis(1200);
/// See [`OURS`].
const LESS: f64 = 0.85;

impl Estimator {
    /// A queue that stands calls for less, unless it drains already, or doesn't care for what we
    /// send.
    pub(super) fn judge_standing(&mut self, now: Instant, busy: Option<Busy>, seen: Bitrate) {
        let Some(queue) = self.delay.standing(now) else {
            return;
        };
        let settle = SETTLE + self.rtt.transport.unwrap_or_default();
        if let Some(cut) = &mut self.cut {
            cut.peak = cut.peak.max(queue);
        }
        let cut = self.cut;
        if cut.is_some_and(|cut| now.saturating_duration_since(cut.at) < settle) {
            return;
        }
        if self.delay.drains(now, queue) {
            return;
        }
        let age = |at: Instant| now.saturating_duration_since(at);
        if let Some(cut) = cut.filter(|cut| age(cut.first) >= OURS && age(cut.at) < OURS)
            && self.came() <= cut.came.scale(LESS)
        {
            let stays = queue * 3 >= cut.peak * 2 && queue <= RIVAL_QUEUE_MAX;
            if stays && self.rival.is_none() && self.find_rival(&cut) {
                return;
            }
            // Less is sent than came through, all of it arrives, and still it is the same.
            if queue * 5 >= cut.queue * 4 && queue * 4 <= cut.queue * 5 {
                self.delay.rebase(now);
                self.estimate = self.bounded(self.estimate.max(cut.before));
                self.cut = None;
                return;
            }
        }
        self.rehearsals.congested(now, seen);
        self.loss.abandon();
        let carries = busy.map_or(self.came(), |busy| busy.carries);
        self.fall(now, carries);
    }

    /// Looks whether the queue is somebody else's: if so, some of what was left to it is taken
    /// back.
    fn find_rival(&mut self, cut: &Cut) -> bool {
        let Some(link) = self.arrivals.hint_since(cut.first + SETTLE) else {
            return false;
        };
        // Some radio links hand over all they have at once, which says nothing.
        let is = link >= self.came().scale(SHARED) && link < HINT_MAX;
        if is {
            let (part, calm) = (FAIR, None);
            self.rival = Some(Rival { link, part, calm });
            let fair = link.scale(FAIR).min(cut.before);
            self.estimate = self.bounded(self.estimate.max(fair));
        }
        is
    }

    /// Looks whether it is still there.
    pub(super) fn watch_rival(&mut self, now: Instant, hint: Option<Bitrate>) {
        let calm = QUEUE_CALM + self.delay.noise();
        let calm = self.delay.queue(now).is_some_and(|queue| queue < calm);
        if let Some(rival) = &mut self.rival {
            rival.link = hint.unwrap_or(rival.link);
            rival.calm = rival.calm.filter(|_| calm).or(calm.then_some(now));
            let long = self
                .delay
                .queue(now)
                .is_some_and(|queue| queue > RIVAL_QUEUE_MAX);
            if long
                || (rival.calm).is_some_and(|at| now.saturating_duration_since(at) >= RIVAL_GONE)
            {
                self.rival = None;
            }
        }
    }

    /// What would have come through if the network didn't lose some of it by itself.
    fn with_lost(&mut self, now: Instant, came: Bitrate) -> Bitrate {
        let shares = self.loss.shares(now);
        came.scale(1.0 / (1.0 - (shares.all - shares.queue).clamp(0.0, LOST_MAX)))
    }

    pub(super) fn fall(&mut self, now: Instant, carries: Bitrate) {
        let carries = self.with_lost(now, carries);
        let again = |cut: Cut| now.saturating_duration_since(cut.at) < CUT_AGAIN;
        let before = self.estimate;
        let part = match self.cut.is_some_and(again) {
            true if carries < self.estimate => CUT_MORE,
            _ => CUT,
        };
        let fair = self
            .rival
            .map_or(Bitrate::ZERO, |it| it.link.scale(it.part));
        let least = fair.min(self.estimate);
        let most = self.estimate.min(carries.scale(part));
        self.estimate = self.bounded(most.max(least));
        let one = |cut: &Cut| now.saturating_duration_since(cut.at) < OURS;
        let queue = self.delay.queue(now).unwrap_or_default();
        let new = Cut {
            at: now,
            first: now,
            before,
            queue,
            came: carries,
            peak: queue,
        };
        let old = self.cut.filter(one);
        self.cut = Some(old.map_or(new, |old| Cut { at: now, ..old }));
    }
}

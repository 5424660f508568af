//! What a receiver says it can take (REMB), whose client doesn't know how to tell what arrives.
//!
//! It says no more than half more than what comes, and so would never come to the next layer by
//! itself. So that is lent, without a rehearsal: if the receiver says less within some seconds, or
//! reports more loss, it was too much, and the next try waits for twice as long.

use std::time::{Duration, Instant};

use crate::units::Bitrate;

/// What a receiver that says nothing is sent: a large picture, which nearly every link carries.
const NOTHING: Bitrate = Bitrate::kbps(3000);

/// A rate of so much less than the one before is a fall: rates are rounded.
const FALLS: f64 = 0.97;

/// What is lent goes so far beyond what is needed: encoders don't keep their rates.
const MARGIN: f64 = 1.1;

/// So much more of what is sent is lost than before, 0 to 1: a queue is full.
const MORE_LOST: f64 = 0.08;

/// Between two tries that hold.
const PAUSE: Duration = Duration::from_secs(2);

/// A fall within this shows that a try shouldn't have held.
const PROVES: Duration = Duration::from_secs(30);

/// After so long it has to say so much of what was lent: it rises by 8 % a second, unless it won't
/// have more.
const COMES_NEAR: Duration = Duration::from_secs(15);
/// See [`COMES_NEAR`].
const NEAR: f64 = 0.75;

/// After a fall at first, and at most.
const WAIT: Duration = Duration::from_secs(4);
/// See [`WAIT`].
const WAIT_MAX: Duration = Duration::from_secs(64);

/// What is known of such a receiver.
#[derive(Debug)]
pub struct Said {
    rate: Option<Bitrate>,
    lent: Bitrate,
    tried: Option<Instant>,
    fell: Option<Instant>,
    wait: Duration,
    /// Part of what is sent that gets lost, 0 to 1; and when something was last lent.
    loss: f64,
    loss_before: f64,
}

impl Said {
    /// It has said nothing.
    pub fn new() -> Self {
        Self {
            rate: None,
            lent: Bitrate::ZERO,
            tried: None,
            fell: None,
            wait: WAIT,
            loss: 0.0,
            loss_before: 0.0,
        }
    }

    /// It says how much may be sent.
    pub fn say(&mut self, now: Instant, rate: Bitrate) {
        if self.rate.is_some_and(|before| rate < before.scale(FALLS)) {
            self.fall(now);
        }
        self.rate = Some(rate);
    }

    /// It reports this part of a stream as lost, 0 to 1.
    pub fn lost(&mut self, now: Instant, part: f64) {
        if self.lent > Bitrate::ZERO && part > self.loss_before + MORE_LOST {
            self.fall(now);
        }
        self.loss += (part - self.loss) / 4.0;
    }

    fn fall(&mut self, now: Instant) {
        let within = |at: Instant| now.saturating_duration_since(at) < PROVES;
        self.wait = match self.tried.is_some_and(within) {
            true if self.lent > Bitrate::ZERO => (self.wait * 2).min(WAIT_MAX),
            true => self.wait,
            false => WAIT,
        };
        self.lent = Bitrate::ZERO;
        self.fell = Some(now);
    }

    /// Lends what the next step takes, if it is time; and takes back what it didn't come near.
    pub fn consider(&mut self, now: Instant, next: Bitrate) {
        let over = |at: Instant| now.saturating_duration_since(at) >= COMES_NEAR;
        if self.tried.is_some_and(over)
            && (self.rate).is_some_and(|rate| rate < self.lent.scale(NEAR))
        {
            self.fall(now);
        }
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let waits = since(self.fell).is_some_and(|passed| passed < self.wait)
            || since(self.tried).is_some_and(|passed| passed < PAUSE);
        if self.rate.is_some() && next > self.carries() && !waits {
            self.lent = next.scale(MARGIN);
            self.loss_before = self.loss;
            self.tried = Some(now);
        }
    }

    /// What its link is thought to carry.
    pub fn carries(&self) -> Bitrate {
        self.rate.map_or(NOTHING, |rate| rate.max(self.lent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_is_lent_until_the_receiver_says_less() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let kbps = Bitrate::kbps;
        let mut said = Said::new();
        said.consider(at(0), kbps(5000));
        assert_eq!(said.carries(), NOTHING, "who says nothing is lent nothing");
        said.say(at(0), kbps(250));
        said.consider(at(0), kbps(600));
        assert_eq!(said.carries(), kbps(660));
        said.say(at(1), kbps(700));
        said.consider(at(1), kbps(1900));
        assert_eq!(said.carries(), kbps(700), "one after the other");
        said.consider(at(2), kbps(1900));
        assert_eq!(said.carries(), kbps(2090));
        said.say(at(3), kbps(600));
        assert_eq!(said.carries(), kbps(600), "it was too much");
        // Eight seconds, then sixteen.
        said.consider(at(10), kbps(1900));
        assert_eq!(said.carries(), kbps(600));
        said.consider(at(11), kbps(1900));
        assert_eq!(said.carries(), kbps(2090));
        said.say(at(12), kbps(500));
        said.consider(at(27), kbps(1900));
        assert_eq!(said.carries(), kbps(500));
        said.lost(at(27), 0.02);
        said.consider(at(28), kbps(1900));
        assert_eq!(said.carries(), kbps(2090));
        said.lost(at(29), 0.05);
        assert_eq!(said.carries(), kbps(2090), "as much as before");
        said.lost(at(30), 0.3);
        assert_eq!(said.carries(), kbps(500));
    }
}

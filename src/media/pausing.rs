//! Video that pauses because bandwidth doesn't carry even its smallest picture, and returns.
//!
//! Only for subscribers who allow it: others get a picture that stutters rather than none. The
//! allocator says what fits; here is how seldom that may change, and that the subscriber is told.
//! A video that is muted, disabled or has not begun doesn't come either, but is not paused.

use std::time::{Duration, Instant};

use super::allocator::Pausing;
use super::counters::Counters;
use super::egress::Leg;
use super::subscription::Outgoing;
use crate::ids::{ParticipantSid, TrackSid};

/// Whether bandwidth lets a subscribed video come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// It does, as far as its publisher sends it.
    Active,
    /// It doesn't.
    Paused,
}

/// A video whose state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamUpdate {
    /// Whose.
    pub participant: ParticipantSid,
    /// Which.
    pub track: TrackSid,
    /// What holds now.
    pub state: StreamState,
}

/// The state of an outgoing video.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    state: StreamState,
    /// When that last changed, and was told.
    changed: Option<Instant>,
    /// How long this pause lasts at least.
    rest: Duration,
}

/// A state lasts at least this long. Shorter follows the path faster, and shows people a picture
/// that flickers.
const STEADY: Duration = Duration::from_secs(1);

/// A pause soon after a return lasts twice as long as the one before, up to this: where the least
/// layer is as large as the path, its own ups and downs would start and stop it each second. Longer
/// tries less often, and leaves people longer without a picture once the path is better.
const REST_MAX: Duration = Duration::from_secs(16);

/// Who flowed for this long returns soon again.
const REST_FORGET: Duration = Duration::from_secs(10);

impl Default for Flow {
    /// As clients take a track that is new to them.
    fn default() -> Self {
        Self {
            state: StreamState::Active,
            changed: None,
            rest: STEADY,
        }
    }
}

impl Flow {
    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.state == StreamState::Paused
    }

    /// Whether it was paused a moment ago, and stays so whatever bandwidth allows.
    pub fn rests(&self, now: Instant) -> bool {
        self.is_paused() && self.lasts(now) < self.rest
    }

    /// What may become of it, if pausing is `allowed` at all.
    pub fn pausing(&self, allowed: bool, now: Instant) -> Pausing {
        match self.state {
            StreamState::Paused if allowed => Pausing::Paused,
            StreamState::Paused => Pausing::Never,
            StreamState::Active if allowed && self.lasts(now) >= STEADY => Pausing::Flowing,
            StreamState::Active => Pausing::Never,
        }
    }

    /// Takes what bandwidth allows; whether that is a change.
    pub fn follow(&mut self, granted: bool, now: Instant) -> bool {
        let state = match granted {
            true => StreamState::Active,
            false => StreamState::Paused,
        };
        let changes = state != self.state;
        if changes {
            if !granted {
                self.rest = match self.lasts(now) < REST_FORGET {
                    true => (self.rest * 2).min(REST_MAX),
                    false => STEADY,
                };
            }
            self.state = state;
            self.changed = Some(now);
        }
        changes
    }

    /// It is paused for others' sake, and not for want of bandwidth: it returns as soon as it is
    /// its turn.
    pub fn give_way(&mut self) {
        self.rest = Duration::ZERO;
    }

    /// How long its state has lasted.
    fn lasts(&self, now: Instant) -> Duration {
        self.changed
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at))
    }
}

impl Outgoing {
    /// Takes what bandwidth allows of it; what the subscriber has to be told.
    pub fn follow(
        &mut self,
        granted: bool,
        now: Instant,
        counters: &mut Counters,
    ) -> Option<StreamUpdate> {
        if !self.flow.follow(granted, now) {
            return None;
        }
        counters.pauses += u64::from(!granted);
        tracing::debug!(track = ?self.names.track, state = ?self.flow.state, "video flow changed");
        Some(self.update())
    }

    fn update(&self) -> StreamUpdate {
        StreamUpdate {
            participant: self.names.publisher.clone(),
            track: self.names.track.clone(),
            state: self.flow.state,
        }
    }
}

impl Leg {
    /// What the client was told of videos, or would have been if it could hear.
    pub fn stream_states(&mut self) -> Vec<StreamUpdate> {
        let outgoing = self.subscriptions().filter_map(|one| one.outgoing.as_ref());
        let told = outgoing.filter(|outgoing| outgoing.flow.changed.is_some());
        told.map(Outgoing::update).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_lasts_and_who_does_not_allow_it_is_never_paused() {
        let start = Instant::now();
        let mut flow = Flow::default();
        assert_eq!(flow.pausing(false, start), Pausing::Never);
        assert_eq!(flow.pausing(true, start), Pausing::Flowing);
        assert!(!flow.follow(true, start), "it flowed before");
        assert!(flow.follow(false, start) && flow.rests(start));
        let nearly = start + STEADY - Duration::from_millis(1);
        assert!(flow.rests(nearly) && !flow.rests(start + STEADY));
        let back = start + STEADY;
        assert_eq!(flow.pausing(true, back), Pausing::Paused);
        assert_eq!(flow.pausing(false, back), Pausing::Never);
        assert!(flow.follow(true, back) && !flow.is_paused());
        assert_eq!(flow.pausing(true, back), Pausing::Never, "it just came");
        assert_eq!(flow.pausing(true, back + STEADY), Pausing::Flowing);
    }

    #[test]
    fn a_video_that_pauses_again_and_again_rests_ever_longer() {
        let mut now = Instant::now();
        let mut flow = Flow::default();
        let mut rest = |flowed: u64| {
            now += Duration::from_secs(flowed);
            assert!(flow.follow(false, now));
            let began = now;
            while flow.rests(now) {
                now += Duration::from_millis(200);
            }
            assert!(flow.follow(true, now));
            (now - began).as_secs()
        };
        assert_eq!([1; 6].map(&mut rest), [1, 2, 4, 8, 16, 16]);
        assert_eq!(rest(REST_FORGET.as_secs()), 1);
    }
}

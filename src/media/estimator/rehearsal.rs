//! More than is sent is tried out before it is needed: a rehearsal fills what is sent up with
//! padding to the rate that the next step takes, for a moment. What comes through of it raises the
//! estimate; a queue that grows ends it.
//!
//! ```text
//!            more is wanted, the path is calm, no hint speaks against it
//!     Idle ------------------------------------------------------------> Running
//!      ^                                                                   |  its time is over,
//!      |  held: at once for more; failed: after 2, 4, 8 s                  v  and reports come
//!      +----------------------------------------------------------------- Judging
//! ```

use std::time::{Duration, Instant};

use crate::units::Bitrate;

/// What a leg would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// With the next better step.
    pub next: Bitrate,
    /// With all that is wanted.
    pub all: Bitrate,
}

/// What is known of a link.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// What it is thought to carry.
    pub estimate: Bitrate,
    /// What it seems to pass on.
    pub hint: Option<Bitrate>,
    /// No more than this is tried.
    pub ceiling: Bitrate,
    /// What it loses, 0 to 1.
    pub loss: f64,
    /// It is new.
    pub is_new: bool,
}

/// The rehearsals of a leg.
#[derive(Debug)]
pub struct Rehearsals {
    state: State,
    /// None begins before.
    next: Instant,
    /// After the next failure.
    wait: Duration,
    /// What the link seemed to carry when the last one failed.
    failed_at: Option<Bitrate>,
    failed: Option<Instant>,
    held: Option<Instant>,
    /// Since when a hint speaks against what is wanted, and how long that counts.
    against: Option<Instant>,
    doubt: Duration,
    /// What held, against a hint, in parts of it: so much more than it says the link carries.
    more: f64,
}

#[derive(Debug)]
enum State {
    Idle,
    Running(Run),
    Judging(Run, Instant),
}

#[derive(Debug, Clone, Copy)]
struct Run {
    rate: Bitrate,
    since: Instant,
    until: Instant,
    /// Numbers of the first and the last packet, once there are some.
    packets: Option<(u64, u64)>,
    /// Bytes sent so far.
    sent: u64,
    arrived: Option<Arrived>,
    /// What was lost of all before it began, 0 to 1.
    loss: f64,
    /// A hint spoke against it.
    against: bool,
}

/// What came of it: first and last time in microseconds, bytes behind the first.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    first: i64,
    last: i64,
    bytes: u64,
    sent_first: i64,
    sent_last: i64,
}

/// What came out of a rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This rate held, maybe against what a hint said.
    Held {
        /// The rate.
        rate: Bitrate,
        /// A hint spoke against it.
        against: bool,
    },
    /// It didn't; this much came through.
    Failed(Bitrate),
}

/// What is rehearsed beyond what is needed: encoders don't keep their rates.
const MARGIN: f64 = 1.06;

/// Length, by how much is known.
const LENGTH: Duration = Duration::from_millis(300);
/// Where a hint speaks for it, or a leg is new.
const LENGTH_SHORT: Duration = Duration::from_millis(150);

/// A leg is new for this long: nothing is lost yet if it has to be corrected.
pub const NEW: Duration = Duration::from_secs(3);

/// A new leg is tried at no more than so many times its estimate.
const NEW_FACTOR: f64 = 3.0;

/// Between two that hold.
const PAUSE: Duration = Duration::from_millis(300);

/// Part of a hint that is used.
const HINT_USED: f64 = 0.97;

/// No hint is outdone by more.
const MORE_MAX: f64 = 4.0;

/// No more than this counts as the network's own loss.
const LOSS_MAX: f64 = 0.5;

/// A receiver that says nothing for so long is silent.
const SILENCE: Duration = Duration::from_secs(1);

/// After one that failed at least, whatever a hint says.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// After one that failed, and after several.
const WAIT: Duration = Duration::from_secs(2);
/// See [`WAIT`]. Longer would keep pictures small when somebody else's traffic has ended.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// A cut this soon after one that held shows that it shouldn't have.
const PROVES: Duration = Duration::from_secs(10);

/// Part of the rate that has to come through.
const HOLDS: f64 = 0.92;

/// A hint that speaks against more is doubted after this: some networks pull packets apart although
/// they carry more. Then after twice as long, and so on.
const DOUBT: Duration = Duration::from_secs(30);
/// See [`DOUBT`].
const DOUBT_MAX: Duration = Duration::from_secs(120);

/// A hint has to be so many times what it was when one failed, to try again at once.
const HINT_RISE: f64 = 1.3;

/// How long feedback may take beyond a round trip.
const FEEDBACK: Duration = Duration::from_millis(150);

/// About the time from one helping of padding to the next.
const HELPING: Duration = Duration::from_millis(5);

/// Bytes of padding in one go: what a timer of 5 ms yields at the highest rates.
const PADDING_MAX: u64 = 12_000;

impl Rehearsals {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Idle,
            next: now,
            wait: WAIT,
            failed_at: None,
            failed: None,
            held: None,
            against: None,
            doubt: DOUBT,
            more: 1.0,
        }
    }

    /// Begins one if it makes sense.
    pub fn consider(&mut self, now: Instant, wants: Wants, link: &Link) {
        let Link { estimate, hint, .. } = *link;
        if !matches!(self.state, State::Idle) {
            return;
        }
        let risen = hint.zip(self.failed_at);
        let risen = risen.is_some_and(|(hint, before)| hint >= before.scale(HINT_RISE));
        let soon = |at: Instant| now.saturating_duration_since(at) < WAIT_MIN;
        if now < self.next && (!risen || self.failed.is_some_and(soon)) {
            return;
        }
        let (next, all) = (wants.next.scale(MARGIN), wants.all.scale(MARGIN));
        if next <= estimate {
            return;
        }
        let hint_used = hint.map(|hint| self.outdone(hint));
        if hint_used.is_none_or(|hint| hint >= next) {
            self.against = None;
        }
        let mut against = false;
        let rate = match hint_used {
            Some(hint) if hint < next => {
                let since = *self.against.get_or_insert(now);
                if now.saturating_duration_since(since) < self.doubt {
                    return;
                }
                self.against = None;
                self.doubt = (self.doubt * 2).min(DOUBT_MAX);
                against = true;
                next
            }
            Some(hint) => all.min(hint).max(next),
            None if link.is_new => all.min(estimate.scale(NEW_FACTOR)).max(next),
            None => next,
        };
        let rate = rate.min(link.ceiling);
        let sure = hint.is_some_and(|hint| hint >= rate.scale(HINT_RISE));
        let length = match link.is_new || sure || against {
            true => LENGTH_SHORT,
            false => LENGTH,
        };
        self.failed_at = None;
        self.state = State::Running(Run {
            rate,
            since: now,
            until: now + length,
            packets: None,
            sent: 0,
            arrived: None,
            loss: link.loss,
            against,
        });
    }

    /// What a hint stands for, by what was found before.
    pub fn outdone(&self, hint: Bitrate) -> Bitrate {
        hint.scale(HINT_USED * self.more)
    }

    /// When padding is due next, after some at `last`; none if none is.
    pub fn next_padding(&self, last: Option<Instant>) -> Option<Instant> {
        let State::Running(run) = &self.state else {
            return None;
        };
        let next = last.map_or(run.since, |last| last + HELPING);
        (next < run.until).then_some(next)
    }

    /// One whose end nobody told of has failed: the receiver, or the way to it, is silent.
    pub fn expire(&mut self, now: Instant, rtt: Duration, seen: Bitrate) {
        if let State::Running(run) | State::Judging(run, _) = &self.state
            && now >= run.until + rtt.min(SILENCE) + SILENCE
        {
            self.fail(now, seen);
        }
    }

    /// Bytes of padding that are due.
    pub fn padding(&self, now: Instant) -> u64 {
        let State::Running(run) = &self.state else {
            return 0;
        };
        if now >= run.until {
            return 0;
        }
        // Ahead by one helping: at its end there is none to make up for what is missing.
        let passed = now.saturating_duration_since(run.since) + HELPING;
        let due = run.rate.as_bps() as f64 / 8.0 * passed.as_secs_f64();
        (due as u64).saturating_sub(run.sent).min(PADDING_MAX)
    }

    /// A packet left.
    pub fn sent(&mut self, seq: u64, bytes: u64, now: Instant) {
        if let State::Running(run) = &mut self.state
            && now < run.until
        {
            run.packets = Some((run.packets.map_or(seq, |(first, _)| first), seq));
            run.sent += bytes;
        }
    }

    /// A packet arrived: when it was sent and received, in microseconds.
    pub fn arrived(&mut self, seq: u16, bytes: u64, (sent, received): (i64, i64)) {
        let (State::Running(run) | State::Judging(run, _)) = &mut self.state else {
            return;
        };
        let Some((first, last)) = run.packets else {
            return;
        };
        if u64::from(seq.wrapping_sub(first as u16)) > last - first {
            return;
        }
        match &mut run.arrived {
            Some(arrived) => {
                arrived.last = arrived.last.max(received);
                arrived.sent_last = arrived.sent_last.max(sent);
                arrived.bytes += bytes;
            }
            None => {
                run.arrived = Some(Arrived {
                    first: received,
                    last: received,
                    bytes: 0,
                    sent_first: sent,
                    sent_last: sent,
                });
            }
        }
    }

    /// How the one that is over went, if it is known by now. `calm` says that no queue has grown,
    /// `seen` what the link seems to carry.
    pub fn judge(
        &mut self,
        now: Instant,
        calm: bool,
        rtt: Duration,
        seen: Bitrate,
    ) -> Option<Outcome> {
        if let State::Running(run) = &self.state
            && now >= run.until
        {
            self.state = State::Judging(*run, run.until + rtt + FEEDBACK);
        }
        let State::Judging(run, at) = &self.state else {
            return None;
        };
        if now < *at {
            return None;
        }
        let (rate, came, against) = (run.rate, run.came(), run.against);
        if calm && came >= rate.scale(HOLDS) {
            self.state = State::Idle;
            self.next = now + PAUSE;
            self.doubt = DOUBT;
            self.held = Some(now);
            if against {
                let part = rate.as_bps() as f64 / seen.as_bps().max(1) as f64;
                self.more = (part / HINT_USED).clamp(1.0, MORE_MAX);
            }
            return Some(Outcome::Held { rate, against });
        }
        self.fail(now, seen);
        Some(Outcome::Failed(came))
    }

    /// A queue grows, whatever the reason; the link seems to carry so much.
    pub fn congested(&mut self, now: Instant, seen: Bitrate) {
        match self.state {
            State::Running(_) | State::Judging(..) => self.fail(now, seen),
            State::Idle => {
                let proved_wrong = |held: Instant| now.saturating_duration_since(held) < PROVES;
                if self.held.take().is_some_and(proved_wrong) {
                    self.fail(now, seen);
                }
                self.next = self.next.max(now + PAUSE * 2);
            }
        }
    }

    /// The next one has to wait.
    pub fn fail(&mut self, now: Instant, seen: Bitrate) {
        let tried = match &self.state {
            State::Running(run) | State::Judging(run, _) => run.rate,
            State::Idle => Bitrate::ZERO,
        };
        self.state = State::Idle;
        self.next = now + self.wait;
        self.wait = (self.wait * 2).min(WAIT_MAX);
        self.failed = Some(now);
        // Its own padding makes hints, too.
        self.failed_at = Some(seen.max(tried));
        self.held = None;
    }

    /// Long enough all went well: the next failure is the first again.
    pub fn forget(&mut self, now: Instant) {
        if self
            .held
            .is_some_and(|held| now.saturating_duration_since(held) >= PROVES)
        {
            self.wait = WAIT;
            self.held = None;
        }
    }
}

impl Run {
    /// The rate that came through; what the network lost before, too, counts as come.
    fn came(&self) -> Bitrate {
        let Some(arrived) = self.arrived else {
            return Bitrate::ZERO;
        };
        let receiving = arrived.last - arrived.first;
        let span = receiving.max(arrived.sent_last - arrived.sent_first);
        let span = Duration::from_micros(u64::try_from(span).unwrap_or(0));
        Bitrate::of(arrived.bytes, span).scale(1.0 / (1.0 - self.loss.clamp(0.0, LOSS_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTS: Wants = Wants {
        next: Bitrate::kbps(1000),
        all: Bitrate::kbps(2000),
    };

    fn link(estimate: u64, hint: Option<u64>, is_new: bool) -> Link {
        Link {
            estimate: Bitrate::kbps(estimate),
            hint: hint.map(Bitrate::kbps),
            ceiling: Bitrate::kbps(20_000),
            loss: 0.0,
            is_new,
        }
    }

    fn runs(rehearsals: &Rehearsals) -> bool {
        matches!(rehearsals.state, State::Running(_))
    }

    /// Plays a rehearsal over a link of this rate; what came of it.
    fn play(rehearsals: &mut Rehearsals, start: Instant, link: Bitrate) -> (Instant, Outcome) {
        let (mut now, mut seq, mut idle) = (start, 0u64, 0.0f64);
        loop {
            now += Duration::from_millis(5);
            let micros = |at: Instant| (at - start).as_micros() as i64;
            let mut due = rehearsals.padding(now);
            while due >= 300 {
                due -= 300;
                seq += 1;
                rehearsals.sent(seq, 300, now);
                idle = idle.max(micros(now) as f64) + link.time_for(300).as_micros() as f64;
                rehearsals.arrived(seq as u16, 300, (micros(now), idle as i64 + 20_000));
            }
            let outcome = rehearsals.judge(now, true, Duration::from_millis(40), Bitrate::MAX);
            if let Some(outcome) = outcome {
                return (now, outcome);
            }
        }
    }

    #[test]
    fn one_that_comes_through_holds_and_one_that_does_not_waits_longer_and_longer() {
        let start = Instant::now();
        let mut rehearsals = Rehearsals::new(start);
        rehearsals.consider(start, WANTS, &link(500, None, false));
        let (now, outcome) = play(&mut rehearsals, start, Bitrate::kbps(5000));
        let (rate, against) = (Bitrate::kbps(1060), false);
        assert_eq!(outcome, Outcome::Held { rate, against });
        let mut now = now + PAUSE;
        let mut waits = Vec::new();
        for _ in 0..4 {
            rehearsals.consider(now, WANTS, &link(500, None, false));
            assert!(runs(&rehearsals));
            let (over, outcome) = play(&mut rehearsals, now, Bitrate::kbps(600));
            let Outcome::Failed(came) = outcome else {
                panic!("{outcome:?}");
            };
            assert!(
                (Bitrate::kbps(580)..=Bitrate::kbps(600)).contains(&came),
                "{came:?}"
            );
            now = over;
            while !runs(&rehearsals) {
                now += Duration::from_millis(100);
                rehearsals.consider(now, WANTS, &link(500, None, false));
            }
            waits.push((now - over).as_secs());
            rehearsals.state = State::Idle;
        }
        assert_eq!(waits, [2, 4, 8, 8]);
    }

    #[test]
    fn a_hint_says_how_far_and_whether_at_all() {
        let start = Instant::now();
        let rate = |hint: Option<u64>, is_new| {
            let mut rehearsals = Rehearsals::new(start);
            rehearsals.consider(start, WANTS, &link(500, hint, is_new));
            match rehearsals.state {
                State::Running(run) => Some(run.rate.as_bps() / 1000),
                _ => None,
            }
        };
        assert_eq!(rate(Some(1000), false), None);
        assert_eq!(rate(Some(1200), false), Some(1164));
        assert_eq!(rate(Some(9000), false), Some(2120));
        assert_eq!(rate(None, false), Some(1060));
        assert_eq!(rate(None, true), Some(1500));
    }

    #[test]
    fn padding_ends_with_its_time_whether_or_not_anybody_tells() {
        let start = Instant::now();
        let mut rehearsals = Rehearsals::new(start);
        rehearsals.consider(start, WANTS, &link(500, None, false));
        let end = start + LENGTH;
        assert!(rehearsals.padding(end - HELPING) > 0);
        assert_eq!(rehearsals.padding(end), 0);
        assert_eq!(rehearsals.next_padding(Some(end - HELPING)), None);
        let rtt = Duration::from_secs(9);
        rehearsals.expire(end + SILENCE, rtt, Bitrate::kbps(500));
        assert!(runs(&rehearsals));
        rehearsals.expire(end + SILENCE * 2, rtt, Bitrate::kbps(500));
        assert!(!runs(&rehearsals));
    }

    #[test]
    fn a_hint_that_speaks_against_it_is_doubted_at_last() {
        let start = Instant::now();
        let mut rehearsals = Rehearsals::new(start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..4 {
            let since = now;
            while !runs(&rehearsals) {
                now += Duration::from_millis(200);
                rehearsals.consider(now, WANTS, &link(500, Some(700), false));
            }
            waits.push((now - since).as_secs());
            rehearsals.state = State::Idle;
        }
        assert_eq!(waits, [30, 60, 120, 120]);
    }

    #[test]
    fn a_hint_that_rises_ends_the_wait_and_a_cut_soon_after_success_begins_one() {
        let start = Instant::now();
        let mut rehearsals = Rehearsals::new(start);
        let low = Some(1200);
        rehearsals.congested(start, Bitrate::kbps(1200));
        rehearsals.fail(start, Bitrate::kbps(1200));
        let mut begins = |millis, hint| {
            let now = start + Duration::from_millis(millis);
            rehearsals.consider(now, WANTS, &link(500, hint, false));
            runs(&rehearsals)
        };
        assert!(!begins(1100, low));
        assert!(!begins(900, Some(5000)), "but not at once");
        assert!(begins(1100, Some(5000)));
        let mut rehearsals = Rehearsals::new(start);
        rehearsals.held = Some(start);
        rehearsals.congested(start + Duration::from_secs(4), Bitrate::MAX);
        let later = start + Duration::from_millis(5900);
        rehearsals.consider(later, WANTS, &link(500, None, false));
        assert!(!runs(&rehearsals));
    }
}

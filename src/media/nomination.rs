//! Which path to a client is taken: the one it has nominated last (RFC 8445 section 7.3.1.5).
//!
//! str0m keeps to the nominated pair of the highest priority as long as a check has come on it in
//! the last 15 s. A phone that leaves a network for another would be without a picture that long,
//! so what goes to the client goes where its nominations say.
//!
//! Browsers may nominate several pairs before they settle for one. So a newer nomination counts
//! when the client doesn't use the path any more that it had.
//!
//! Use is what was opened: SRTP, SRTCP and messages in DTLS, which count once. A datagram that only
//! looks like one anybody can send, and a check anybody who reads along can send again. So what is
//! opened on a pair that was nominated at any time leads back there, if nothing is opened on the
//! current one; and once anything was opened, checks no longer pass for use.

use std::time::{Duration, Instant};

use super::demux::{PAIRS_MAX, Pair};

/// A path on which the client has sent nothing for so long is not in use, if there is another.
const QUIET: Duration = Duration::from_millis(200);

/// The nominations of one peer.
#[derive(Debug, Default)]
pub struct Nomination {
    /// What is in use, and the last sign of it.
    current: Option<(Pair, Instant)>,
    /// What was nominated since, and when.
    newer: Option<(Pair, Instant)>,
    /// All that were nominated, the latest at the end; at most [`PAIRS_MAX`].
    nominated: Vec<Pair>,
    /// Something was opened that came on one of them.
    opened: bool,
    /// The current one has changed since somebody asked.
    changed: bool,
}

impl Nomination {
    /// The path to take.
    pub fn current(&self) -> Option<Pair> {
        self.current.map(|(pair, _)| pair)
    }

    /// Whether the path to take is another than before.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// The path to take, if it is another than before.
    pub fn take_change(&mut self) -> Option<Pair> {
        std::mem::take(&mut self.changed)
            .then(|| self.current())
            .flatten()
    }

    /// A check that nominates `pair` came. It is the client's, and came for the first time.
    pub fn nominated(&mut self, pair: Pair, now: Instant) {
        self.remember(pair);
        match self.current() {
            Some(current) if current != pair => {
                let since = self.newer.filter(|(newer, _)| *newer == pair);
                self.newer = Some(since.unwrap_or((pair, now)));
                self.settle(now);
            }
            Some(_) => {
                self.newer = None;
                if !self.opened {
                    self.current = Some((pair, now));
                }
            }
            None => self.change(pair, now),
        }
    }

    /// Something was opened that came on `pair`.
    pub fn opened(&mut self, pair: Pair, now: Instant) {
        let Some((current, last)) = self.current else {
            return;
        };
        if current == pair {
            self.opened = true;
            self.current = Some((pair, now));
            // What was on its way when the client changed says nothing.
            let late = |since: Instant| now.saturating_duration_since(since) > QUIET;
            self.newer.take_if(|(_, since)| late(*since));
        } else if last + QUIET <= now && self.nominated.contains(&pair) {
            self.opened = true;
            self.change(pair, now);
        }
    }

    /// Time has passed.
    pub fn settle(&mut self, now: Instant) {
        if let Some((newer, _)) = self.newer
            && self.due().is_some_and(|due| due <= now)
        {
            self.change(newer, now);
        }
    }

    /// When to call [`Self::settle`].
    pub fn due(&self) -> Option<Instant> {
        let (_, last) = self.current?;
        self.newer.map(|_| last + QUIET)
    }

    fn remember(&mut self, pair: Pair) {
        self.nominated.retain(|known| *known != pair);
        if self.nominated.len() == PAIRS_MAX {
            self.nominated.remove(0);
        }
        self.nominated.push(pair);
    }

    fn change(&mut self, pair: Pair, now: Instant) {
        self.current = Some((pair, now));
        self.newer = None;
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pair(port: u16) -> Pair {
        Pair {
            local: ([192, 0, 2, 1], 7882).into(),
            remote: ([192, 0, 2, 2], port).into(),
        }
    }

    #[test]
    fn the_first_nomination_counts_at_once() {
        let now = Instant::now();
        let mut nomination = Nomination::default();
        nomination.opened(pair(1), now);
        assert_eq!(nomination.current(), None);
        nomination.nominated(pair(1), now);
        assert_eq!(nomination.take_change(), Some(pair(1)));
        assert_eq!(nomination.take_change(), None);
        assert_eq!(nomination.due(), None);
    }

    #[test]
    fn a_newer_one_counts_once_the_old_path_is_quiet() {
        let now = Instant::now();
        let mut nomination = Nomination::default();
        nomination.nominated(pair(1), now);
        nomination.nominated(pair(2), now + 50 * MS);
        assert_eq!(nomination.current(), Some(pair(1)));
        // Still on its way when the client changed.
        nomination.opened(pair(1), now + 100 * MS);
        assert_eq!(nomination.due(), Some(now + 300 * MS));
        nomination.settle(now + 299 * MS);
        assert_eq!(nomination.current(), Some(pair(1)));
        nomination.settle(now + 300 * MS);
        assert_eq!(nomination.current(), Some(pair(2)));
        // And back, long after.
        nomination.nominated(pair(1), now + 9000 * MS);
        assert_eq!(nomination.current(), Some(pair(1)));
    }

    #[test]
    fn who_nominates_everything_stays_where_it_sends() {
        let now = Instant::now();
        let mut nomination = Nomination::default();
        for step in 0..100 {
            nomination.nominated(pair(1 + (step % 3) as u16), now + step * 20 * MS);
            nomination.settle(now + step * 20 * MS);
            assert_eq!(nomination.current(), Some(pair(1)));
        }
        let later = now + 2000 * MS;
        nomination.nominated(pair(3), later);
        for step in 0..100 {
            nomination.opened(pair(1), later + step * 20 * MS);
            nomination.settle(later + step * 20 * MS);
        }
        assert_eq!(
            (nomination.current(), nomination.due()),
            (Some(pair(1)), None)
        );
    }
    #[test]
    fn what_is_nominated_once_is_followed_when_its_answer_takes_long() {
        let now = Instant::now();
        let mut nomination = Nomination::default();
        nomination.nominated(pair(1), now);
        nomination.nominated(pair(2), now);
        // The client sends there only when it has the answer, 300 ms later.
        for step in 1..15 {
            nomination.opened(pair(1), now + step * 20 * MS);
            nomination.settle(now + step * 20 * MS);
        }
        assert_eq!(nomination.due(), None, "the nomination is too old to wait");
        for step in 15..25 {
            nomination.opened(pair(2), now + step * 20 * MS);
            let due = step * 20 * MS >= 280 * MS + QUIET;
            let expected = pair(if due { 2 } else { 1 });
            assert_eq!(nomination.current(), Some(expected), "after {step} steps");
        }
    }

    #[test]
    fn what_was_opened_leads_back_from_where_nothing_is() {
        let now = Instant::now();
        let mut nomination = Nomination::default();
        nomination.nominated(pair(1), now);
        nomination.opened(pair(1), now);
        nomination.nominated(pair(2), now + 300 * MS);
        assert_eq!(nomination.current(), Some(pair(2)));
        nomination.opened(pair(1), now + 499 * MS);
        assert_eq!(nomination.current(), Some(pair(2)), "may be a late one");
        nomination.opened(pair(3), now + 600 * MS);
        assert_eq!(nomination.current(), Some(pair(2)), "never nominated");
        nomination.opened(pair(1), now + 600 * MS);
        assert_eq!(nomination.current(), Some(pair(1)));
    }

    #[test]
    fn checks_keep_no_path_from_who_is_nominated_elsewhere() {
        let now = Instant::now();
        let mut nomination = Nomination::default();
        nomination.nominated(pair(1), now);
        nomination.opened(pair(1), now);
        for step in 2..10 {
            nomination.nominated(pair(2), now + step * 150 * MS);
        }
        assert_eq!(nomination.current(), Some(pair(2)));
        nomination.nominated(pair(1), now + 1360 * MS);
        assert_eq!(nomination.current(), Some(pair(1)));
    }

    #[test]
    fn few_nominations_are_remembered() {
        let now = Instant::now();
        let mut nomination = Nomination::default();
        for port in 0..100 {
            nomination.nominated(pair(port), now);
        }
        assert_eq!(nomination.nominated.len(), PAIRS_MAX);
    }
}

//! Which path to a client is taken: the one it has nominated last (RFC 8445 section 7.3.1.5).
//!
//! str0m keeps to the nominated pair of the highest priority as long as a check has come on it in
//! the last 15 s. A phone that leaves a network for another would be without a picture that long,
//! so what goes to the client goes where its nominations say.
//!
//! Browsers may nominate several pairs before they settle for one. So a newer nomination counts
//! when the client doesn't use the path any more that it had.

use std::time::{Duration, Instant};

use super::demux::Pair;

/// A path on which the client has sent nothing for so long is not in use, if there is another.
const QUIET: Duration = Duration::from_millis(200);

/// The nominations of one peer.
#[derive(Debug, Default)]
pub struct Nomination {
    /// What is in use, and the last sign of it.
    current: Option<(Pair, Instant)>,
    /// What was nominated since, and when.
    newer: Option<(Pair, Instant)>,
    /// The current one has changed since somebody asked.
    changed: bool,
}

impl Nomination {
    /// The path to take.
    pub fn current(&self) -> Option<Pair> {
        self.current.map(|(pair, _)| pair)
    }

    /// The path to take, if it is another than before.
    pub fn take_change(&mut self) -> Option<Pair> {
        std::mem::take(&mut self.changed)
            .then(|| self.current())
            .flatten()
    }

    /// A check that nominates `pair` came, and it is the client's.
    pub fn nominated(&mut self, pair: Pair, now: Instant) {
        match self.current() {
            Some(current) if current != pair => {
                let since = self.newer.filter(|(newer, _)| *newer == pair);
                self.newer = Some(since.unwrap_or((pair, now)));
                self.settle(now);
            }
            Some(_) => {
                self.current = Some((pair, now));
                self.newer = None;
            }
            None => self.change(pair, now),
        }
    }

    /// Something else than a check came.
    pub fn used(&mut self, pair: Pair, now: Instant) {
        if self.current() == Some(pair) {
            self.current = Some((pair, now));
            // What was on its way when the client changed says nothing.
            let late = |since: Instant| now.saturating_duration_since(since) > QUIET;
            self.newer.take_if(|(_, since)| late(*since));
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

    fn change(&mut self, pair: Pair, now: Instant) {
        *self = Self {
            current: Some((pair, now)),
            newer: None,
            changed: true,
        };
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
        nomination.used(pair(1), now);
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
        nomination.used(pair(1), now + 100 * MS);
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
            nomination.used(pair(1), later + step * 20 * MS);
            nomination.settle(later + step * 20 * MS);
        }
        assert_eq!(
            (nomination.current(), nomination.due()),
            (Some(pair(1)), None)
        );
    }
}

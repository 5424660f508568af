//! When we offer, on a connection where the offers are ours: one at a time, and not for every
//! change by itself.
//!
//! ```text
//!         want               due, offered              answered
//!   quiet ------>  debounced  ----------->  outstanding  -------->  quiet, or debounced again
//!                                              | want: once more after the answer
//! ```

use std::time::{Duration, Instant};

/// Changes that follow each other closely share an offer: the next one waits this long.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// A change that comes alone waits only for what else the same event brings.
const GATHER: Duration = Duration::from_millis(10);

/// A client that has media and leaves an offer without an answer has lost its way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The state of our offers to one client.
#[derive(Debug)]
pub struct Negotiation {
    /// Id of the newest offer; rises by one.
    id: u32,
    /// When the offer went that waits for its answer.
    outstanding: Option<Instant>,
    /// Something has changed since that offer.
    stale: bool,
    /// When the next offer goes.
    due: Option<Instant>,
    /// When the newest offer went.
    last: Option<Instant>,
    /// An offer was answered.
    accepted: bool,
}

impl Negotiation {
    /// Nothing offered yet; the first offer has the id after `id`.
    pub fn new(id: u32) -> Self {
        Self {
            id,
            outstanding: None,
            stale: false,
            due: None,
            last: None,
            accepted: false,
        }
    }

    /// There is something to offer.
    pub fn want(&mut self, now: Instant) {
        if self.outstanding.is_some() {
            self.stale = true;
        } else if self.due.is_none() {
            let close = |last: Instant| now.saturating_duration_since(last) < DEBOUNCE;
            let wait = if self.last.is_some_and(close) {
                DEBOUNCE
            } else {
                GATHER
            };
            self.due = Some(now + wait);
        }
    }

    /// The client lost its signalling, and perhaps an offer or an answer with it: offers again at
    /// once, whatever was under way. Whether it has ever answered.
    pub fn restart(&mut self, now: Instant) -> bool {
        self.outstanding = None;
        self.stale = false;
        self.due = Some(now);
        self.accepted
    }

    /// When to make the next offer.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// An offer goes out; its id.
    pub fn offered(&mut self, now: Instant) -> u32 {
        self.id = self.id.wrapping_add(1);
        self.outstanding = Some(now);
        self.stale = false;
        self.due = None;
        self.last = Some(now);
        self.id
    }

    /// Whether this is the answer that is waited for. Clients older than the ids say 0.
    pub fn answered(&mut self, id: u32, now: Instant) -> bool {
        if self.outstanding.is_none() || (id != self.id && id != 0) {
            return false;
        }
        self.outstanding = None;
        self.accepted = true;
        if std::mem::take(&mut self.stale) {
            self.want(now);
        }
        true
    }

    /// Whether the answer is missing for too long.
    pub fn is_overdue(&self, now: Instant) -> bool {
        let late = |at| now.saturating_duration_since(at) >= ANSWER_TIMEOUT;
        self.outstanding.is_some_and(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lone_change_goes_at_once_and_close_ones_share_an_offer() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(7);
        negotiation.want(now);
        negotiation.want(now + 5 * MS);
        assert_eq!(negotiation.due(), Some(now + GATHER));
        let sent = now + GATHER;
        assert_eq!(negotiation.offered(sent), 8);
        assert_eq!(negotiation.due(), None);
        assert!(negotiation.answered(8, sent + 20 * MS));
        negotiation.want(sent + 30 * MS);
        assert_eq!(negotiation.due(), Some(sent + 30 * MS + DEBOUNCE));
        assert_eq!(negotiation.offered(sent + 180 * MS), 9);
        assert!(negotiation.answered(0, sent + 200 * MS), "ids are newer");
        let later = sent + 1000 * MS;
        negotiation.want(later);
        assert_eq!(negotiation.due(), Some(later + GATHER));
    }

    #[test]
    fn one_offer_is_outstanding_and_changes_meanwhile_make_one_more() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(0);
        negotiation.want(now);
        let id = negotiation.offered(now);
        negotiation.want(now + MS);
        negotiation.want(now + 2 * MS);
        assert_eq!(negotiation.due(), None);
        assert!(
            !negotiation.answered(id + 1, now + 3 * MS),
            "of another offer"
        );
        assert!(negotiation.answered(id, now + 400 * MS));
        assert_eq!(negotiation.due(), Some(now + 400 * MS + GATHER));
        assert!(!negotiation.answered(id, now + 401 * MS), "answered before");
    }

    #[test]
    fn a_restart_waits_for_nothing_and_old_answers_don_t_count() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(0);
        assert!(!negotiation.restart(now));
        let first = negotiation.offered(now);
        assert!(negotiation.answered(first, now));
        let lost = negotiation.offered(now);
        assert!(negotiation.restart(now + MS));
        assert_eq!(negotiation.due(), Some(now + MS));
        assert!(!negotiation.answered(lost, now + 2 * MS));
        let again = negotiation.offered(now + 2 * MS);
        assert!(negotiation.answered(again, now + 3 * MS));
    }

    #[test]
    fn an_answer_is_waited_for_but_not_for_ever() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(0);
        assert!(!negotiation.is_overdue(now + 2 * ANSWER_TIMEOUT));
        let id = negotiation.offered(now);
        assert!(!negotiation.is_overdue(now + ANSWER_TIMEOUT - MS));
        assert!(negotiation.is_overdue(now + ANSWER_TIMEOUT));
        negotiation.answered(id, now);
        assert!(!negotiation.is_overdue(now + ANSWER_TIMEOUT));
    }
}

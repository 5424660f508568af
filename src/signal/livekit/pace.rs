//! How fast a session may speak: messages in all, and offers, which cost the shard most.
//!
//! Nothing is refused here. What comes too fast waits, and the socket is not read meanwhile, so
//! the order stays and the client's own buffers fill. Notices and pings go on.

use std::time::Duration;

use tokio::time::Instant;

use crate::media::message::Request;

/// An offer costs about as much as a thousand packets. Clients gather their changes for 20 ms
/// before they offer, so this slows nobody down who isn't in a loop.
const OFFER_INTERVAL: Duration = Duration::from_millis(50);

/// Offers that may come without an interval: JavaScript sends two right after its join.
const OFFER_BURST: u32 = 4;

/// After this the next offer goes out though the last was not answered, which is the shard's
/// fault then. It takes milliseconds as a rule.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages a client may still send in this second.
pub(super) struct Pace {
    per_second: u32,
    left: u32,
    pub until: Instant,
}

/// Offers of a session: one is with the shard, at most one more waits for its answer.
pub(super) struct Offers {
    bytes_max: usize,
    /// An offer is with the shard; until then its answer is awaited.
    answer_due: Option<Instant>,
    /// When a whole burst is allowed again.
    whole: Instant,
    held: Option<Request>,
}

impl Pace {
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            left: per_second,
            until: Instant::now() + Duration::from_secs(1),
        }
    }

    pub fn is_used_up(&self) -> bool {
        self.left == 0 && Instant::now() < self.until
    }

    /// Takes one. True when it was the last one.
    pub fn spend(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.until {
            self.left = self.per_second;
            self.until = now + Duration::from_secs(1);
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}

impl Offers {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            answer_due: None,
            whole: Instant::now(),
            held: None,
        }
    }

    /// Whether the SDP is of a size the shard would read.
    pub fn admits(&self, sdp: &str) -> bool {
        sdp.len() <= self.bytes_max
    }

    /// Gives an offer back if it may go to the shard now, else holds it. Not to be called while
    /// one is held.
    pub fn take(&mut self, offer: Request) -> Option<Request> {
        debug_assert!(self.held.is_none(), "the socket is not read meanwhile");
        self.held = Some(offer);
        self.release()
    }

    /// When the held offer may go, if there is one.
    pub fn held_until(&self) -> Option<Instant> {
        self.held.as_ref().map(|_| self.ready())
    }

    /// The held offer, if it may go now.
    pub fn release(&mut self) -> Option<Request> {
        let now = Instant::now();
        if self.ready() > now {
            return None;
        }
        let offer = self.held.take()?;
        self.whole = self.whole.max(now) + OFFER_INTERVAL;
        self.answer_due = Some(now + ANSWER_TIMEOUT);
        Some(offer)
    }

    /// The shard has answered.
    pub fn answered(&mut self) {
        self.answer_due = None;
    }

    fn ready(&self) -> Instant {
        let paced = self.whole.checked_sub(OFFER_INTERVAL * (OFFER_BURST - 1));
        let paced = paced.unwrap_or(self.whole);
        self.answer_due.map_or(paced, |due| due.max(paced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(id: u32) -> Request {
        let sdp = String::new();
        Request::Offer { id, sdp }
    }

    #[tokio::test(start_paused = true)]
    async fn one_offer_at_a_time_and_the_rest_in_turn() {
        let mut offers = Offers::new(10);
        assert!(offers.admits("0123456789") && !offers.admits("0123456789a"));
        assert!(offers.take(offer(1)).is_some());
        assert!(offers.take(offer(2)).is_none(), "the first is not answered");
        assert_eq!(offers.held_until(), Some(Instant::now() + ANSWER_TIMEOUT));
        offers.answered();
        assert!(matches!(
            offers.release(),
            Some(Request::Offer { id: 2, .. })
        ));
        assert_eq!(offers.held_until(), None);

        assert!(offers.take(offer(3)).is_none());
        tokio::time::advance(ANSWER_TIMEOUT).await;
        assert!(offers.release().is_some(), "the shard lost an answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_a_loop_is_slow() {
        let mut offers = Offers::new(10);
        let start = Instant::now();
        for id in 0..24 {
            if offers.take(offer(id)).is_none() {
                tokio::time::sleep_until(offers.held_until().unwrap()).await;
                assert!(offers.release().is_some());
            }
            offers.answered();
            if id < OFFER_BURST {
                assert_eq!(start.elapsed(), Duration::ZERO);
            }
        }
        assert_eq!(start.elapsed(), OFFER_INTERVAL * 20);
    }
}

//! Where a packet stands in its source stream: next, late, or out of all order.
//!
//! Both [`Layers`](super::layers::Layers) and [`Rewrite`](super::rewrite::Rewrite) judge by it, so
//! that they never disagree on what is late.

/// Sequence numbers may jump by this much before the source counts as restarted; it is the value
/// of RFC 3550 appendix A.1. At 500 packets per second it is 6 s of losses.
const JUMP_MAX: u64 = 3000;

/// The newest place of a source stream.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    newest: u64,
    /// What would follow a packet from far behind. Some browsers probe with old packets, so that
    /// one alone proves no restart.
    suspect: Option<u64>,
}

/// The place of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The newest one, after so many others that have not come yet.
    Next {
        /// How many.
        missing: u64,
    },
    /// Not newer than what has come; perhaps a duplicate.
    Late,
    /// From far behind, and alone.
    Stray,
    /// The source counts anew from here.
    Restart,
}

impl Order {
    /// Starts with a packet.
    pub fn new(seq: u64) -> Self {
        Self {
            newest: seq,
            suspect: None,
        }
    }

    /// The newest sequence number.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Places a packet; call it once for each.
    pub fn place(&mut self, seq: u64) -> Place {
        if seq > self.newest {
            let missing = seq - self.newest - 1;
            *self = Self::new(seq);
            return if missing <= JUMP_MAX {
                Place::Next { missing }
            } else {
                Place::Restart
            };
        }
        if self.newest - seq <= JUMP_MAX {
            return Place::Late;
        }
        if self.suspect == Some(seq) {
            *self = Self::new(seq);
            return Place::Restart;
        }
        self.suspect = Some(seq.saturating_add(1));
        Place::Stray
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_backwards_needs_two_packets_in_a_row() {
        let mut order = Order::new(10_000);
        assert_eq!(order.place(10_001), Place::Next { missing: 0 });
        assert_eq!(order.place(10_004), Place::Next { missing: 2 });
        assert_eq!(order.place(10_002), Place::Late);
        assert_eq!(order.place(10_004), Place::Late);
        assert_eq!(order.place(50), Place::Stray);
        assert_eq!(order.place(10_005), Place::Next { missing: 0 });
        assert_eq!(order.place(51), Place::Stray);
        assert_eq!(order.place(52), Place::Restart);
        assert_eq!(order.place(53), Place::Next { missing: 0 });
        assert_eq!(
            order.place(53 + JUMP_MAX + 1),
            Place::Next { missing: JUMP_MAX }
        );
        assert_eq!(order.place(90_000), Place::Restart);
        assert_eq!(order.place(u64::MAX), Place::Restart);
        assert_eq!(order.place(u64::MAX), Place::Late);
    }
}

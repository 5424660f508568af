//! Which connectivity checks came before. A check proves that the client made it, not that the
//! client is where it came from: who reads along can send the same one from elsewhere.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

/// Checks remembered per peer, in 4 bytes each. Clients check the path they use about every 2.5 s,
/// so it takes them three hours to make as many, and few calls ever need the 16 KiB.
///
/// What remains: a check older than that, of credentials that ICE still goes by, is taken for a new
/// one. It can lead away who sends nothing; what the client seals leads back (see
/// [`super::nomination`]).
const CHECKS_MAX: usize = 4096;

/// The last checks of one peer, as hashes of their transaction ids (RFC 8489 section 5), the oldest
/// first. Only the client can make two that are alike, and one in a million is so by chance: the
/// next one passes.
#[derive(Debug, Default)]
pub struct Checks {
    seen: VecDeque<u32>,
}

impl Checks {
    /// Takes down a check that the client made; whether it is a new one.
    pub fn is_fresh(&mut self, stun: &[u8]) -> bool {
        let Some(id) = stun.get(8..20) else {
            return false;
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(id);
        let hash = hasher.finish() as u32;
        if self.seen.contains(&hash) {
            return false;
        }
        if self.seen.len() == CHECKS_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_fresh_once() {
        let mut checks = Checks::default();
        let check = |number: u64| {
            let mut check = [0; 24];
            check[8..16].copy_from_slice(&number.to_be_bytes());
            check
        };
        for number in 0..CHECKS_MAX as u64 {
            assert!(checks.is_fresh(&check(number)));
        }
        for number in 0..CHECKS_MAX as u64 {
            assert!(!checks.is_fresh(&check(number)));
        }
        assert!(checks.is_fresh(&check(CHECKS_MAX as u64)));
        assert!(checks.is_fresh(&check(0)), "the oldest made room");
        assert!(!checks.is_fresh(&check(2)));
        assert!(!checks.is_fresh(&[0; 19]), "not a whole header");
        assert_eq!(checks.seen.capacity(), CHECKS_MAX);
    }
}

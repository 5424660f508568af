//! Which connectivity checks came before. A check proves that the client made it, not that the
//! client is where it came from: who reads along can send the same one from elsewhere.

/// Checks remembered per peer. Clients check each pair about every other second, so what is older
/// than the last ones is not told from a new one. Such a check can lead away who sends nothing;
/// what the client seals leads back (see [`super::nomination`]).
const CHECKS_MAX: usize = 32;

/// A transaction id (RFC 8489 section 5).
type Id = [u8; 12];

/// The last checks of one peer.
#[derive(Debug, Default)]
pub struct Checks {
    ids: [Option<Id>; CHECKS_MAX],
    /// The place of the oldest.
    next: usize,
}

impl Checks {
    /// Takes down a check that the client made; whether it is a new one.
    pub fn is_fresh(&mut self, stun: &[u8]) -> bool {
        let id = stun.get(8..20).and_then(|id| Id::try_from(id).ok());
        if id.is_none() || self.ids.contains(&id) {
            return false;
        }
        self.ids[self.next] = id;
        self.next = (self.next + 1) % CHECKS_MAX;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_fresh_once() {
        let mut checks = Checks::default();
        let check = |number: u8| [number; 24];
        for number in 0..CHECKS_MAX as u8 {
            assert!(checks.is_fresh(&check(number)));
        }
        for number in 0..CHECKS_MAX as u8 {
            assert!(!checks.is_fresh(&check(number)));
        }
        assert!(checks.is_fresh(&check(99)));
        assert!(checks.is_fresh(&check(0)), "the oldest made room");
        assert!(!checks.is_fresh(&check(2)));
        assert!(!checks.is_fresh(&[0; 19]), "not a whole header");
    }
}

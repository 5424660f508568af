//! Which indices were seen: a ring of bits behind the newest one, moved on by whole words as in
//! RFC 6479. Sealing uses it against nonce reuse, opening against replay.

/// A window of `WORDS` times 64 indices, less up to 63 while the newest word fills.
#[derive(Debug)]
pub struct Window<const WORDS: usize> {
    /// Number of the newest word: an index divided by 64.
    newest: u64,
    bits: [u64; WORDS],
}

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self {
            newest: 0,
            bits: [0; WORDS],
        }
    }
}

impl<const WORDS: usize> Window<WORDS> {
    /// Marks an index as seen; false if it was before, or if it is too old to tell.
    pub fn take(&mut self, index: u64) -> bool {
        if !self.is_fresh(index) {
            return false;
        }
        let word = index / 64;
        // A jump past the whole window clears each word once, however far it is.
        let passed = word.saturating_sub(self.newest).min(WORDS as u64);
        for step in 0..passed {
            self.bits[((word - step) % WORDS as u64) as usize] = 0;
        }
        self.newest = self.newest.max(word);
        self.bits[(word % WORDS as u64) as usize] |= 1 << (index % 64);
        true
    }

    /// Whether an index is new, and not too old to tell.
    pub fn is_fresh(&self, index: u64) -> bool {
        let word = index / 64;
        if word > self.newest {
            return true;
        }
        self.newest - word < WORDS as u64
            && self.bits[(word % WORDS as u64) as usize] & (1 << (index % 64)) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_index_is_taken_once_in_any_order() {
        let mut window = Window::<4>::default();
        for index in [0, 5, 3, 64, 63, 200, 130] {
            assert!(window.take(index), "{index}");
            assert!(!window.take(index), "{index} again");
        }
    }

    #[test]
    fn what_fell_out_of_the_window_is_not_fresh() {
        let mut window = Window::<4>::default();
        assert!(window.take(1_000));
        assert!(window.take(1_000 - 192));
        assert!(!window.take(1_000 - 256));
        assert!(window.take(1 << 47));
        assert!(!window.take(1_001));
    }

    /// Against a set that forgets nothing: never is an index taken twice, whatever the jumps.
    #[test]
    fn no_walk_takes_an_index_twice() {
        let mut window = Window::<2>::default();
        let mut seen = HashSet::new();
        let (mut state, mut at) = (7_u64, 500_u64);
        for _ in 0..20_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            at = (at + (state >> 33) % 40).saturating_sub((state >> 40) % 36);
            let fresh = window.take(at);
            assert!(!fresh || seen.insert(at), "{at} was taken twice");
        }
        assert!(seen.len() > 1_000);
    }
}

//! What was seen in the last moments, in buckets of time: constant memory, whatever comes in.

use std::time::{Duration, Instant};

/// `N` buckets of equal width that slide along with time. The span it covers is between `N - 1`
/// and `N` widths.
#[derive(Debug, Clone)]
pub struct Window<T, const N: usize> {
    width: Duration,
    buckets: [T; N],
    newest: usize,
    /// When the newest bucket began.
    since: Instant,
}

impl<T: Default + Copy, const N: usize> Window<T, N> {
    /// Empty; `width` is not zero.
    pub fn new(width: Duration, now: Instant) -> Self {
        Self {
            width,
            buckets: [T::default(); N],
            newest: 0,
            since: now,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, now: Instant) {
        *self = Self::new(self.width, now);
    }

    /// The bucket of `now`.
    pub fn newest(&mut self, now: Instant) -> &mut T {
        self.slide(now);
        &mut self.buckets[self.newest]
    }

    /// The bucket of the moment that was last asked for.
    pub fn current(&mut self) -> &mut T {
        &mut self.buckets[self.newest]
    }

    /// All buckets that `now` still sees, in no order.
    pub fn all(&mut self, now: Instant) -> impl Iterator<Item = T> + '_ {
        self.slide(now);
        self.buckets.iter().copied()
    }

    /// At most `N` steps, however long nothing happened.
    fn slide(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= self.width.saturating_mul(N as u32) {
            return self.clear(now);
        }
        while now.saturating_duration_since(self.since) >= self.width {
            self.since += self.width;
            self.newest = (self.newest + 1) % N;
            self.buckets[self.newest] = T::default();
        }
    }
}

/// The least value and how many there were.
#[derive(Debug, Clone, Copy, Default)]
pub struct Least {
    value: Option<i64>,
    /// Values seen.
    pub count: u32,
}

impl Least {
    /// Takes a value in.
    pub fn add(&mut self, value: i64) {
        *self = self.merge(Self {
            value: Some(value),
            count: 1,
        });
    }

    /// Both together.
    pub fn merge(self, other: Self) -> Self {
        Self {
            value: self.value.into_iter().chain(other.value).min(),
            count: self.count.saturating_add(other.count),
        }
    }

    /// The least; `None` without values.
    pub const fn value(self) -> Option<i64> {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_buckets_fall_out_one_by_one_and_all_after_a_pause() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut window = Window::<u32, 3>::new(Duration::from_millis(100), start);
        for millis in [0, 100, 200, 250] {
            *window.newest(at(millis)) += 1;
        }
        assert_eq!(window.all(at(299)).sum::<u32>(), 4);
        assert_eq!(window.all(at(300)).sum::<u32>(), 3);
        assert_eq!(window.all(at(450)).sum::<u32>(), 2);
        assert_eq!(window.all(at(100)).sum::<u32>(), 2, "time never goes back");
        assert_eq!(window.all(at(100_000)).sum::<u32>(), 0);
    }

    #[test]
    fn least_of_all() {
        let mut least = Least::default();
        assert_eq!(least.value(), None);
        [5, -3, 9].into_iter().for_each(|value| least.add(value));
        let both = least.merge(Least::default());
        assert_eq!((both.value(), both.count), (Some(-3), 3));
    }
}

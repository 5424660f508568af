//! Percentiles of spans, in bounded memory: buckets whose width is a 64th of what they stand for.

use std::time::Duration;

/// Buckets of each power of two.
const STEPS: u64 = 64;

/// Spans of an hour and more share the last bucket.
const LONGEST: Duration = Duration::from_secs(3600);

/// Counts of spans.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, span: Duration) {
        let bucket = bucket(span.min(LONGEST).as_micros() as u64);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.longest = self.longest.max(span);
    }

    /// Counts all that another one has.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.longest = Duration::ZERO;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest of all.
    pub fn max(&self) -> Option<Duration> {
        (self.total > 0).then_some(self.longest)
    }

    /// The span that `share` of all (0 to 1) don't exceed, up to a 64th too much.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        if self.total == 0 {
            return None;
        }
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_micros(highest(bucket)).min(self.longest));
            }
        }
        Some(self.longest)
    }
}

/// Small numbers have a bucket each; above, the highest 7 bits choose.
fn bucket(micros: u64) -> usize {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(STEPS.trailing_zeros() + 1);
    (u64::from(shift) * STEPS + (micros >> shift)) as usize
}

/// The highest number in a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - shift * STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_a_bucket_near_it() {
        let mut last = 0;
        for micros in (0..10_000).chain((10_000..3_600_000_000).step_by(999_983)) {
            let bucket = bucket(micros);
            assert!(bucket >= last, "{micros}");
            last = bucket;
            let top = highest(bucket);
            assert!(
                micros <= top && top <= micros + micros / STEPS,
                "{micros} {top}"
            );
        }
        assert!(last < 2048, "the memory is bounded: {last}");
    }

    #[test]
    fn percentiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        for millis in 1..=100 {
            histogram.add(Duration::from_millis(millis));
        }
        for (share, millis) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = histogram.percentile(share).expect("some").as_secs_f64() * 1000.0;
            assert!((millis..millis * 1.02).contains(&found), "{share}: {found}");
        }
        assert_eq!(histogram.max(), Some(Duration::from_millis(100)));
        let mut merged = Histogram::default();
        merged.add(Duration::from_millis(200));
        merged.merge(&histogram);
        assert_eq!(merged.count(), 101);
        assert_eq!(merged.percentile(0.5), histogram.percentile(0.51));
        assert_eq!(merged.max(), Some(Duration::from_millis(200)));
        histogram.clear();
        assert_eq!((histogram.max(), histogram.count()), (None, 0));
    }
}

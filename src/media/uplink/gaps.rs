//! Packets of a video that are missing, and when to ask for them.

use std::time::{Duration, Instant};

/// Missing packets that are kept; when there are more, nothing short of a key frame helps.
const GAPS_MAX: usize = 256;

/// A packet is asked for again after this: a round trip of nearly everybody.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// And so often at most.
const TIMES_MAX: u8 = 8;

/// Nobody waits longer for it: subscribers' decoders have given up.
const GIVE_UP: Duration = Duration::from_secs(1);

/// The gaps of one stream, by their numbers.
#[derive(Debug, Default)]
pub struct Gaps {
    list: Vec<Gap>,
}

#[derive(Debug, Clone, Copy)]
struct Gap {
    seq: u64,
    since: Instant,
    asked: Option<Instant>,
    times: u8,
}

impl Gaps {
    /// These numbers were left out.
    pub fn open(&mut self, numbers: std::ops::Range<u64>, now: Instant) {
        let count = numbers.end.saturating_sub(numbers.start);
        if count > (GAPS_MAX - self.list.len()) as u64 {
            self.list.clear();
            return;
        }
        self.list.extend(numbers.map(|seq| Gap {
            seq,
            since: now,
            asked: None,
            times: 0,
        }));
    }

    /// One of them came after all.
    pub fn close(&mut self, seq: u64) {
        if let Ok(at) = self.list.binary_search_by_key(&seq, |gap| gap.seq) {
            self.list.remove(at);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds those that are to be asked for now to `lost`, as packets number them.
    pub fn ask(&mut self, now: Instant, lost: &mut Vec<u16>) {
        let old = |gap: &Gap| now.saturating_duration_since(gap.since) >= GIVE_UP;
        self.list.retain(|gap| !old(gap) && gap.times < TIMES_MAX);
        for gap in &mut self.list {
            let due = |at: Instant| now.saturating_duration_since(at) >= ASK_AGAIN;
            if gap.asked.is_none_or(due) {
                gap.asked = Some(now);
                gap.times += 1;
                lost.push(gap.seq as u16);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(gaps: &mut Gaps, now: Instant) -> Vec<u16> {
        let mut lost = Vec::new();
        gaps.ask(now, &mut lost);
        lost
    }

    #[test]
    fn what_is_missing_is_asked_for_until_it_comes_or_is_given_up() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut gaps = Gaps::default();
        gaps.open(65_534..65_538, start);
        assert_eq!(asked(&mut gaps, start), [65_534, 65_535, 0, 1]);
        gaps.close(65_535);
        gaps.close(7);
        assert!(asked(&mut gaps, at(99)).is_empty());
        assert_eq!(asked(&mut gaps, at(100)), [65_534, 0, 1]);
        gaps.close(65_534);
        let times = (2..40).filter(|it| !asked(&mut gaps, at(it * 100)).is_empty());
        assert_eq!(times.count(), usize::from(TIMES_MAX) - 2);
        assert!(gaps.is_empty());
    }

    #[test]
    fn too_many_are_not_asked_for() {
        let now = Instant::now();
        let mut gaps = Gaps::default();
        gaps.open(0..200, now);
        gaps.open(300..u64::MAX, now);
        assert!(gaps.is_empty());
        gaps.open(0..256, now);
        assert_eq!(asked(&mut gaps, now).len(), 256);
    }
}

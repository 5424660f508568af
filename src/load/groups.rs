//! What those see who share a kind of network, second by second, and what all see together.

use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::incoming::Counts;
use super::participant::Participant;
use super::tally::{Second, Tally};

/// All of them, by their networks: the first has the good one.
pub struct Groups {
    each: Vec<Group>,
    since: Instant,
    /// All together, if there are several.
    seconds: Vec<Second>,
}

/// Those with one kind of network.
#[derive(Debug, Default)]
pub struct Group {
    /// What was counted.
    pub tally: Tally,
    /// One for each second.
    pub seconds: Vec<Second>,
    /// What became of packets.
    pub counts: Counts,
    /// Of those who have left.
    departed: Counts,
    /// At the last second.
    before: Before,
}

/// What was counted at some time.
#[derive(Debug, Default, Clone, Copy)]
struct Before {
    sent: u64,
    received: u64,
    bytes: u64,
    counts: Counts,
}

impl Groups {
    /// Nothing was seen.
    pub fn new(count: usize, now: Instant) -> Self {
        Self {
            each: std::iter::repeat_with(Group::default).take(count).collect(),
            since: now,
            seconds: Vec::new(),
        }
    }

    /// What those on a network count.
    pub fn tally(&mut self, network: usize) -> &mut Tally {
        &mut self.each[network].tally
    }

    /// Somebody leaves.
    pub fn depart(&mut self, participant: &mut Participant) {
        let network = participant.part.network;
        if let Some(subscriber) = participant.subscriber() {
            self.each[network].departed.add(subscriber.counts());
        }
    }

    /// What counts begins now.
    pub fn restart(&mut self, now: Instant) {
        *self = Self::new(self.each.len(), now);
    }

    /// What the last second was like, if one has passed. It is kept if it counts.
    pub fn second<'a>(
        &mut self,
        now: Instant,
        keep: bool,
        participants: impl Iterator<Item = &'a mut Participant>,
    ) -> Option<Second> {
        const SECOND: Duration = Duration::from_secs(1);
        if now.saturating_duration_since(self.since) < SECOND {
            return None;
        }
        self.since += SECOND;
        let mut seconds = self.sum_up(participants);
        let mut delay = Histogram::default();
        let mut all = Second::default();
        for (group, second) in self.each.iter_mut().zip(&mut seconds) {
            group.finish_second(second);
            all.add(second);
            delay.merge(&group.tally.delay_now);
            group.tally.delay_now.clear();
        }
        (all.p50, all.p99) = (delay.percentile(0.5), delay.percentile(0.99));
        if keep {
            self.seconds.push(all.clone());
            let groups = self.each.iter_mut().zip(seconds);
            groups.for_each(|(group, second)| group.seconds.push(second));
        }
        Some(all)
    }

    /// Counts anew what became of packets. Pictures by layer, and those that nothing comes of, for
    /// each group.
    fn sum_up<'a>(
        &mut self,
        participants: impl Iterator<Item = &'a mut Participant>,
    ) -> Vec<Second> {
        for group in &mut self.each {
            group.counts = group.departed;
        }
        let mut seconds = vec![Second::default(); self.each.len()];
        for participant in participants {
            let network = participant.part.network;
            let second = &mut seconds[network];
            second.silent += participant.part.hears as u64;
            if let Some(subscriber) = participant.subscriber() {
                self.each[network].counts.add(subscriber.counts());
                subscriber.take_layers(&mut second.layers);
            }
        }
        for second in &mut seconds {
            let seen = second.layers.iter().sum();
            second.silent = second.silent.saturating_sub(seen);
        }
        seconds
    }

    /// All in the end: together, their seconds, and each group.
    pub fn finish<'a>(
        mut self,
        participants: impl Iterator<Item = &'a mut Participant>,
    ) -> (Group, Vec<Group>) {
        self.sum_up(participants);
        let mut all = Group {
            seconds: self.seconds,
            ..Group::default()
        };
        for group in &self.each {
            all.tally.add(&group.tally);
            all.counts.add(group.counts);
        }
        (all, self.each)
    }
}

impl Group {
    fn finish_second(&mut self, second: &mut Second) {
        let tally = &self.tally;
        let now = Before {
            sent: tally.sent.packets,
            received: tally.received,
            bytes: tally.bytes,
            counts: self.counts,
        };
        let before = std::mem::replace(&mut self.before, now);
        second.sent = now.sent - before.sent;
        second.received = now.received - before.received;
        second.bytes = now.bytes - before.bytes;
        second.counts = now.counts.since(before.counts);
        second.p50 = tally.delay_now.percentile(0.5);
        second.p99 = tally.delay_now.percentile(0.99);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_differences_and_all_is_their_sum() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut groups = Groups::new(2, start);
        let nobody = std::iter::empty;
        groups.tally(0).received = 10;
        groups.tally(0).note_delay(Duration::from_millis(1));
        groups.tally(1).received = 5;
        groups.tally(1).bytes = 5000;
        groups.tally(1).note_delay(Duration::from_millis(400));
        assert_eq!(groups.second(at(999), true, nobody()), None);
        let first = groups.second(at(1000), true, nobody()).expect("a second");
        assert_eq!((first.received, first.bytes), (15, 5000));
        assert!(first.p50 < Some(Duration::from_millis(2)));
        assert!(first.p99 > Some(Duration::from_millis(399)));
        groups.tally(1).received += 7;
        // Not kept, but it has passed.
        let second = groups.second(at(2000), false, nobody()).expect("a second");
        assert_eq!((second.received, second.bytes, second.p50), (7, 0, None));
        let (all, each) = groups.finish(nobody());
        assert_eq!((all.tally.received, all.tally.delay.count()), (22, 2));
        assert_eq!(all.seconds.len(), 1);
        let received = each
            .iter()
            .map(|it| (it.tally.received, it.seconds[0].received));
        assert_eq!(received.collect::<Vec<_>>(), [(10, 10), (12, 5)]);
    }
}

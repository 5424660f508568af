//! What each element does to datagrams.

use std::time::{Duration, Instant};

use super::millis;
use crate::sim::network::Path;
use crate::sim::{Element, Queue};
use crate::units::Bitrate;

/// Datagrams of 972 bytes, 1000 on the wire, one each millisecond: how long each took.
fn took(elements: &[Element], count: u64) -> Vec<Option<Duration>> {
    let mut path = Path::new(elements, fastrand::Rng::with_seed(5));
    let start = Instant::now();
    (0..count)
        .map(|number| {
            let now = start + millis(number);
            Some(path.carry(now, 972)?.saturating_duration_since(now))
        })
        .collect()
}

fn lost(took: &[Option<Duration>]) -> usize {
    took.iter().filter(|took| took.is_none()).count()
}

#[test]
fn delays_add_up_and_a_partition_lets_nothing_through() {
    let row = [Element::Delay(millis(20)), Element::Delay(millis(5))];
    assert_eq!(took(&row, 3), [Some(millis(25)); 3]);
    assert_eq!(took(&[row[0], Element::Partition], 3), [None; 3]);
    assert_eq!(took(&[], 1), [Some(Duration::ZERO)]);
}

#[test]
fn random_loss_takes_its_share() {
    let lost = lost(&took(&[Element::Loss(0.1)], 10_000));
    assert!((900..1100).contains(&lost), "{lost}");
}

#[test]
fn burst_loss_takes_its_share_in_bursts() {
    let element = Element::BurstLoss {
        enter: 0.0125,
        leave: 0.2,
        loss: 0.85,
    };
    let took = took(&[element], 100_000);
    let lost = lost(&took);
    // 0.0125 / 0.2125 of the time in the bad state, times 0.85.
    assert!((4500..5500).contains(&lost), "{lost}");
    let bursts = took
        .windows(2)
        .filter(|pair| pair[0].is_some() && pair[1].is_none());
    assert!(lost > 2 * bursts.count(), "losses come together");
}

#[test]
fn jitter_keeps_the_order_and_reordering_does_not() {
    let overtaken = |element| {
        let arrivals: Vec<_> = took(&[element], 1000)
            .iter()
            .flatten()
            .zip(0..)
            .map(|(took, number)| millis(number) + *took)
            .collect();
        arrivals.windows(2).filter(|pair| pair[0] > pair[1]).count()
    };
    assert_eq!(overtaken(Element::Jitter(millis(30))), 0);
    let reordered = overtaken(Element::Reorder(0.02, millis(20)));
    assert!((10..35).contains(&reordered), "{reordered}");
    let late = took(&[Element::Jitter(millis(30))], 1000);
    assert!(late.iter().flatten().any(|took| *took > millis(20)));
}

#[test]
fn a_bottleneck_serves_at_its_rate_and_drops_the_tail() {
    // 8 Mbit/s come, 4 leave: a queue of 100 ms fills within 200 and then half is lost.
    let half = |queue| Element::Rate(Bitrate::kbps(4000), queue);
    let by_time = took(&[half(Queue::Time(millis(100)))], 2000);
    assert_eq!(by_time[0], Some(millis(2)));
    assert!((940..=960).contains(&lost(&by_time)), "{}", lost(&by_time));
    let longest = by_time.iter().flatten().max().copied();
    assert!(
        longest > Some(millis(98)) && longest <= Some(millis(102)),
        "{longest:?}"
    );
    // 50 kB are the same 100 ms.
    let by_bytes = took(&[half(Queue::Bytes(50_000))], 2000);
    assert!(lost(&by_bytes).abs_diff(lost(&by_time)) < 5);
    assert_eq!(
        lost(&took(&[Element::Rate(Bitrate::ZERO, Queue::Bytes(1))], 2)),
        2
    );
}

//! Guards what a packet costs in allocations on its way through a shard, in steady state: for each
//! copy that leaves none, for each packet that comes what is committed here.
//!
//! Two calls of the same picture, with 10 and with 50 viewers: what they differ in is what the
//! copies cost, and what they have in common is what the packets cost. Feedback of viewers and
//! timers are left out: those come by the time and not by the packet. So is what the publisher is
//! told, but that goes with its packets, so there is a number for it.

use allocation_counter::measure;

#[path = "../benches/rig/mod.rs"]
#[allow(dead_code, reason = "benches use the rest")]
mod rig;

use rig::room::{PACKETS, Room};

/// Ten seconds.
const FRAMES: usize = 300;

/// The payload, which the viewers and what is kept for repetitions share.
const PER_PACKET: u64 = 1;

/// For all that the publisher is told: every 50 ms which packets came, and now and then how they
/// fare. Nine for each report, most of them vectors that grow.
const REPORTS_MAX: u64 = 1400;

#[test]
fn copies_cost_no_allocation() {
    let [few, many] = [10, 50].map(allocations);
    let total = |frames: &[u64]| frames.iter().sum::<u64>();
    assert_eq!(total(&few), total(&many), "with 10 and with 50 viewers");
    // Nothing is told with every second frame.
    let packets = few.iter().min().copied();
    assert_eq!(packets, Some(PER_PACKET * PACKETS as u64));
    let reports = total(&few) - PER_PACKET * (FRAMES * PACKETS) as u64;
    assert!(reports <= REPORTS_MAX, "{reports}");
}

/// Allocations while the shard takes frames in and gives the copies out, for each frame.
fn allocations(viewers: usize) -> Vec<u64> {
    let mut room = Room::new(viewers, 1);
    let before = room.counters();
    let frames = (0..FRAMES).map(|_| {
        let frames = room.frames();
        measure(|| room.take(&frames, &mut |_| {})).count_total
    });
    let counted = frames.collect();
    let after = room.counters();
    let came = (FRAMES * PACKETS) as u64;
    assert_eq!(after.packets_in - before.packets_in, came);
    let copies = after.packets_out - before.packets_out;
    assert_eq!(copies, came * viewers as u64, "all got everything");
    counted
}

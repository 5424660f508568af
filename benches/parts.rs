//! The parts of the packet path and of signalling, each alone: nanoseconds for one of its units,
//! and how much of the floor that is. Their instructions are guarded by `tests/instructions.rs`.
//!
//! Regime: everything is warm, so this is what the parts cost where the same is done again and
//! again; in a room that doesn't fit the cache they cost more (`benches/forward.rs`). The floor is
//! a packet of a frame of four, sealed and sent for one viewer of 50.
//!
//! Budget: 500 ns for the sealing, less than the cheapest send call costs the kernel; 100 ns for
//! each other step that every copy goes through, which are rewrite, descriptor and layers.
//!
//! `cargo bench --bench parts`, or some of it: `-- rewrite`.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "rig/figures.rs"]
mod figures;
#[allow(dead_code, reason = "other benches use the rest")]
mod rig;

use std::time::Instant;

use figures::Figures;
use rig::floor::Floor;
use rig::parts::PARTS;
use rig::room::PACKETS;

const VIEWERS: usize = 50;

fn main() {
    let mut figures = Figures::new();
    let mut floor = Floor::new(VIEWERS).expect("loopback has ports");
    let floor = figures.measure("floor", PACKETS * VIEWERS, None, |times| {
        let start = Instant::now();
        (0..times).for_each(|_| floor.frame());
        start.elapsed()
    });
    for part in &PARTS {
        let mut work = None;
        figures.measure(part.name, 1, floor, |times| {
            let work = work.get_or_insert_with(part.make);
            let start = Instant::now();
            (0..times).for_each(|_| work());
            start.elapsed()
        });
    }
    figures.print();
}

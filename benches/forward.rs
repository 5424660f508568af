//! A packet through the whole shard to its viewers, in memory: nanoseconds per copy, and how much
//! of the floor that is.
//!
//! Regime: one publisher, whose cameras send frames of four packets of 1094 bytes; they arrive one
//! frame at a time, and everything is taken that comes of it. So opening, ring, layer choice,
//! fan-out, sealing, notes for feedback and cutting into runs are in it; timers and the viewers'
//! own feedback are not. AES-128-GCM.
//!
//! - `floor/N`: the same packets sealed for N viewers and sent over loopback, a call for each frame
//!   and viewer, without us.
//! - `forward/N`: through the shard to N viewers; no kernel.
//! - `sent/N`: that, and each run sent as the floor does. Beside the floor this is what a server
//!   costs.
//! - `tracks/N`: to 10 viewers who have N tracks each, of one packet of 83 bytes for each frame, or
//!   the rate control would leave some out; no kernel.
//! - `nack`: a viewer's word that a packet is missing, until it was sent again; no kernel.
//!
//! Budget: 700 ns for `forward/50`; 20 % more of it with 1000 viewers; `tracks/50` 25 % more than
//! `tracks/1`.
//!
//! `cargo bench --bench forward`, or some of it: `-- tracks`.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "rig/figures.rs"]
mod figures;
#[allow(dead_code, reason = "other benches use the rest")]
mod rig;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use figures::Figures;
use rig::floor::{Floor, Wire};
use rig::room::{PACKETS, RATE_SMALL, Room};
use stellwerk::media::message::Transmit;

const VIEWERS: [usize; 5] = [1, 10, 50, 200, 1000];

/// With [`TRACK_VIEWERS`] for each.
const TRACKS: [usize; 4] = [1, 10, 25, 50];
const TRACK_VIEWERS: usize = 10;

fn main() {
    let mut figures = Figures::new();
    let mut floors = HashMap::new();
    for viewers in VIEWERS {
        let mut floor = Floor::new(viewers).expect("loopback has ports");
        let name = format!("floor/{viewers}");
        let found = figures.measure(&name, PACKETS * viewers, None, |times| {
            let start = Instant::now();
            (0..times).for_each(|_| floor.frame());
            start.elapsed()
        });
        floors.extend(found.map(|found| (viewers, found)));
    }
    let mut forward = HashMap::new();
    let wire = Wire::new().expect("loopback has ports");
    for viewers in VIEWERS {
        let (mut room, floor) = (None, floors.get(&viewers).copied());
        let name = format!("forward/{viewers}");
        let found = figures.measure(&name, PACKETS * viewers, floor, |times| {
            let room = room.get_or_insert_with(|| Room::new(viewers, 1));
            through(room, times, |transmit| {
                black_box(transmit);
            })
        });
        forward.extend(found.map(|found| (viewers, found)));
        let name = format!("sent/{viewers}");
        figures.measure(&name, PACKETS * viewers, floor, |times| {
            let room = room.get_or_insert_with(|| Room::new(viewers, 1));
            through(room, times, |run| wire.send(run.contents, run.segment))
        });
    }
    let mut by_tracks = HashMap::new();
    for tracks in TRACKS {
        let (mut room, floor) = (None, floors.get(&TRACK_VIEWERS).copied());
        let name = format!("tracks/{tracks}");
        let found = figures.measure(&name, tracks * TRACK_VIEWERS, floor, |times| {
            let new = || Room::with_rate(TRACK_VIEWERS, tracks, RATE_SMALL);
            let room = room.get_or_insert_with(new);
            through(room, times, |transmit| {
                black_box(transmit);
            })
        });
        by_tracks.extend(found.map(|found| (tracks, found)));
    }
    let mut room = None;
    figures.measure("nack", 1, floors.get(&1).copied(), |times| {
        let room = room.get_or_insert_with(|| Room::new(TRACK_VIEWERS, 1));
        (0..times).map(|_| repeated(room)).sum()
    });
    figures.print();
    growth("from 50 to 1000 viewers", &forward, (50, 1000), 20.0);
    growth("from 1 to 50 tracks", &by_tracks, (1, 50), 25.0);
}

/// Time for so many frames of every camera. All viewers get all of them.
fn through(room: &mut Room, times: u64, mut out: impl FnMut(&Transmit<'_>)) -> Duration {
    let mut span = Duration::ZERO;
    let before = room.counters();
    for _ in 0..times {
        let frames = room.frames();
        let start = Instant::now();
        room.take(&frames, &mut out);
        span += start.elapsed();
    }
    let after = room.counters();
    let [came, went] = [
        after.packets_in - before.packets_in,
        after.packets_out - before.packets_out,
    ];
    assert_eq!(went, came * room.viewers() as u64, "all got everything");
    span
}

/// Time from a viewer's word to the packet that it misses.
fn repeated(room: &mut Room) -> Duration {
    let said = room.lose();
    let mut out = Vec::with_capacity(2000);
    let start = Instant::now();
    room.answer(&said, &mut out);
    let span = start.elapsed();
    assert!(!out.is_empty(), "it is sent again");
    room.receive(&out);
    span
}

/// How much more a packet costs in the larger of two.
fn growth(what: &str, found: &HashMap<usize, f64>, (few, many): (usize, usize), budget: f64) {
    if let (Some(few), Some(many)) = (found.get(&few), found.get(&many)) {
        let more = 100.0 * (many / few - 1.0);
        let verdict = if more < budget { "" } else { "  OVER" };
        println!("{what}: {more:+.0} % per packet, of {budget} %{verdict}");
    }
}

//! CPU time per forwarded packet, beside the floor of the same load: the daemon on one core, the
//! load tester on another, over loopback; then, in the same run, the same packets at the same times
//! through `stellwerk load --floor`, which only opens, seals and sends.
//!
//! Regime: shapes and spacings as named; every picture in its best layer (1.7 Mbit/s, 30 frames per
//! second), which is waited for; AES-256-GCM. All of the daemon's process is counted: signalling,
//! timers and feedback too.
//!
//! Budget: 1.5 times the floor.
//!
//! `cargo bench --bench gate`, or some of it: `-- webinar burst`, `-- --repeats 3`. The median of
//! the repeats counts, for each of the two and for their ratio; the rest shows the noise.

#![expect(
    clippy::disallowed_methods,
    reason = "a bench of two processes waits for them by the clock"
)]

use std::process::Command;

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../tests/daemon/mod.rs"]
mod daemon;

use daemon::{Daemon, STELLWERK, on, said};
use serde_json::Value;

/// Shapes, and how long the daemon needs until all pictures are in their best layer.
const PRESETS: [(&str, &str); 3] = [("webinar", "5s"), ("conference", "40s"), ("rooms", "5s")];

const PACINGS: [&str; 3] = ["chromium", "burst", "spread"];

const DURATION: &str = "10s";

/// In a second of a publisher's best layer and voice: 30 frames of six packets, and 50.
const PACKETS: f64 = 230.0;

const BUDGET: f64 = 1.5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str, all: &[&str]| {
        let named = all.iter().any(|it| arguments.iter().any(|arg| arg == it));
        !named || arguments.iter().any(|arg| arg == name)
    };
    let repeats = arguments.iter().position(|arg| arg == "--repeats");
    let repeats = repeats.and_then(|at| arguments.get(at + 1)?.parse().ok());
    let repeats: usize = repeats.unwrap_or(5);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.len() < 2 {
        println!("gate: two cores are needed, one for each side");
        return;
    }
    println!("us of CPU per forwarded packet, AES-256-GCM: median (least to most) of {repeats}");
    let presets = PRESETS.map(|(preset, _)| preset);
    for (preset, warmup) in PRESETS {
        for pacing in PACINGS {
            if wanted(preset, &presets) && wanted(pacing, &PACINGS) {
                measure(preset, pacing, warmup, repeats);
            }
        }
    }
}

fn measure(preset: &str, pacing: &str, warmup: &str, repeats: usize) {
    let call = format!("--preset {preset} --pacing {pacing} --duration {DURATION} --json");
    let mut pairs = Vec::new();
    let mut delays = Vec::new();
    let mut left_out = 0;
    for repeat in 0..2 * repeats {
        if pairs.len() == repeats {
            break;
        }
        let start = || Daemon::start(18_000 + 30 * repeat as u16);
        let daemon = on(0, start);
        let run = || daemon.load(&format!("{call} --warmup {warmup}")).output();
        let load = read(&on(1, run).expect("it runs"));
        drop(daemon);
        // It takes a core for each of its sides by itself.
        let mut floor = Command::new(STELLWERK);
        floor.args(["load", "--floor", "--warmup", "1s"]);
        let floor = floor.args(call.split(' ')).output();
        let floor = read(&floor.expect("it runs"));
        let (Some(load), Some(floor)) = (load, floor) else {
            left_out += 1;
            continue;
        };
        delays.push(load["delay_ms"]["p99"].as_f64().unwrap_or(f64::NAN));
        let cost = |report: &Value, of: &str| report[of]["cpu_us_per_packet"].as_f64();
        let pair = cost(&load, "server").zip(cost(&floor, "floor"));
        pairs.push(pair.expect("both are measured"));
    }
    if left_out > 0 {
        println!("{preset:10} {pacing:8}  {left_out} left out: the machine stood still");
    }
    if pairs.is_empty() {
        return;
    }
    let server = spread(pairs.iter().map(|(server, _)| *server).collect());
    let floor = spread(pairs.iter().map(|(_, floor)| *floor).collect());
    let ratio = spread(pairs.iter().map(|(server, floor)| server / floor).collect());
    let delay = spread(delays);
    let verdict = if ratio[1] <= BUDGET { "" } else { "  OVER" };
    let show = |[least, median, most]: [f64; 3]| format!("{median:.2} ({least:.2} to {most:.2})");
    println!(
        "{preset:10} {pacing:8}  {}  floor {}  ratio {}{verdict}  p99 delay {} ms",
        show(server),
        show(floor),
        show(ratio),
        show(delay)
    );
}

/// The report, if it says what it should: all joined, nothing lost, nobody at less than 30 frames
/// per second of the best layer. Nothing if the load tester was at its limit: on a shared machine
/// its core is taken away now and then.
fn read(output: &std::process::Output) -> Option<Value> {
    let (report, progress) = said(output);
    assert!(output.status.success(), "{report} {progress}");
    if report["load"]["saturated"] != false {
        return None;
    }
    let layers = &report["seconds"][0]["layers"];
    let smaller = ["q", "h", "none"].map(|layer| layers[layer].as_u64());
    assert_eq!(smaller, [Some(0); 3], "not all in the best layer: {report}");
    let count = |what: &str| report["plan"][what].as_f64().unwrap_or_default();
    let heard = count("publishers") * (count("publishers") - 1.0 + count("subscribers"));
    let all = heard * count("rooms") * PACKETS * count("duration_s");
    let received = report["packets"]["received"].as_f64().unwrap_or_default();
    assert!(received > 0.97 * all, "{received} of {all}: {report}");
    Some(report)
}

fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0, values.len() / 2, values.len() - 1].map(|at| values[at])
}

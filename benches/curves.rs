//! What a packet costs as calls grow: along subscribers of one publisher, rooms of two, people of a
//! conference (tracks on each leg), and workers that share a room. The daemon has one core, the load
//! tester another, over loopback.
//!
//! Regime: Chromium's spacing; every picture in its best layer (1.7 Mbit/s, 30 frames per second)
//! as far as the estimate lets it; AES-256-GCM; all of the daemon's process is counted.
//!
//! Budget: none of its own; the figures of docs/performance.md, and what is sized from them.
//!
//! `cargo bench --bench curves`, or some: `-- rooms workers`. `--write` draws docs/curves/*.svg. One
//! run for each point: what the machine does besides shows as a dent. A point at which the load
//! tester had no time left is marked.

#![expect(
    clippy::disallowed_methods,
    reason = "a bench of two processes waits for them by the clock"
)]

use std::fmt::Write as _;

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../tests/daemon/mod.rs"]
mod daemon;

use daemon::{Daemon, on, said};
use serde_json::Value;

/// One curve: what lies along it, and at each point how many workers there are, and whom the load
/// tester sends.
struct Curve {
    name: &'static str,
    along: &'static str,
    points: &'static [Point],
}

/// A value along a curve, workers, rooms, publishers, subscribers, and seconds until all pictures
/// are as large as they get.
type Point = (u32, u16, u32, u32, u32, u32);

const CURVES: [Curve; 4] = [
    Curve {
        name: "subscribers",
        along: "subscribers of one publisher",
        points: &[
            (1, 1, 1, 1, 1, 5),
            (10, 1, 1, 1, 10, 5),
            (50, 1, 1, 1, 50, 5),
            (100, 1, 1, 1, 100, 5),
            (200, 1, 1, 1, 200, 5),
            (400, 1, 1, 1, 400, 5),
            (700, 1, 1, 1, 700, 8),
            (1000, 1, 1, 1, 1000, 10),
        ],
    },
    Curve {
        name: "rooms",
        along: "rooms of a publisher and a subscriber",
        points: &[
            (1, 1, 1, 1, 1, 5),
            (10, 1, 10, 1, 1, 5),
            (50, 1, 50, 1, 1, 5),
            (100, 1, 100, 1, 1, 5),
            (200, 1, 200, 1, 1, 5),
            (300, 1, 300, 1, 1, 5),
            (500, 1, 500, 1, 1, 5),
        ],
    },
    Curve {
        name: "tracks",
        along: "tracks on each leg: all of a conference, with picture and sound",
        points: &[
            (2, 1, 1, 2, 0, 5),
            (6, 1, 1, 4, 0, 20),
            (14, 1, 1, 8, 0, 40),
            (30, 1, 1, 16, 0, 60),
            (50, 1, 1, 26, 0, 75),
        ],
    },
    Curve {
        name: "workers",
        along: "workers with parts of a room of 300 subscribers, on one core together",
        points: &[
            (1, 1, 1, 1, 300, 5),
            (2, 2, 1, 1, 300, 5),
            (3, 3, 1, 1, 300, 5),
            (4, 4, 1, 1, 300, 5),
        ],
    },
];

const DURATION: u32 = 8;

/// Joins in a second, so that signalling doesn't meet media at its peak.
const JOIN_RATE: u32 = 40;

/// What was measured at a point.
struct Measured {
    along: u32,
    /// Received packets in a second.
    packets: f64,
    /// CPU time of the daemon for each.
    micros: f64,
    /// Half of the packets, and 99 of 100, at most.
    delay: [f64; 2],
    loss: f64,
    /// Joins that failed.
    failed: f64,
    /// Join to first packet and to first picture, half at most.
    first: [f64; 2],
    megabytes: f64,
    saturated: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |curve: &Curve| arguments.iter().any(|argument| argument == curve.name);
    let all = !CURVES.iter().any(named);
    if core_affinity::get_core_ids().unwrap_or_default().len() < 2 {
        println!("curves: two cores are needed, one for each side");
        return;
    }
    for curve in CURVES.iter().filter(|curve| all || named(curve)) {
        println!(
            "\n| {} | packets/s | us per packet | delay p50, p99 | lost | first packet, picture | memory |",
            curve.along
        );
        println!("|---|---|---|---|---|---|---|");
        let mut measured = Vec::new();
        for (number, point) in curve.points.iter().enumerate() {
            let point = measure(point, number as u16);
            println!("{}", row(&point));
            measured.push(point);
        }
        if arguments.iter().any(|argument| argument == "--write") {
            write(curve, &measured);
        }
    }
}

fn measure(point: &Point, number: u16) -> Measured {
    let (along, workers, rooms, publishers, subscribers, warmup) = *point;
    let start = || Daemon::of(workers, 18_000 + 30 * number);
    let daemon = on(0, start);
    let call = format!(
        "--rooms {rooms} --publishers {publishers} --subscribers {subscribers} --join-rate \
         {JOIN_RATE} --warmup {warmup}s --duration {DURATION}s --json"
    );
    let output = on(1, || daemon.load(&call).output()).expect("it runs");
    let (report, progress) = said(&output);
    // It says so with its status when somebody didn't get in, too.
    assert!(report.is_object(), "no report: {progress}");
    let value = |path: &str| {
        report
            .pointer(path)
            .and_then(Value::as_f64)
            .unwrap_or(f64::NAN)
    };
    Measured {
        along,
        packets: value("/packets/received") / f64::from(DURATION),
        micros: value("/server/cpu_us_per_packet"),
        delay: [value("/delay_ms/p50"), value("/delay_ms/p99")],
        loss: value("/packets/loss"),
        failed: value("/joins/failures"),
        first: [
            value("/joins/first_packet_ms/p50"),
            value("/joins/first_picture_ms/p50"),
        ],
        megabytes: value("/server/rss_bytes") / 1e6,
        saturated: report["load"]["saturated"] != false,
    }
}

fn row(of: &Measured) -> String {
    let mut along = of.along.to_string();
    if of.failed > 0.0 {
        let _ = write!(along, " ({} did not get in)", of.failed);
    }
    if of.saturated {
        along.push_str(" (load tester at its limit)");
    }
    format!(
        "| {along} | {:.0} | {:.2} | {:.1}, {:.1} ms | {:.2} % | {:.0}, {:.0} ms | {:.0} MB |",
        of.packets,
        of.micros,
        of.delay[0],
        of.delay[1],
        of.loss * 100.0,
        of.first[0],
        of.first[1],
        of.megabytes
    )
}

/// Of a drawing, in pixels.
const SIZE: (f64, f64) = (640.0, 220.0);
/// Around it, for words.
const MARGIN: f64 = 50.0;

fn write(curve: &Curve, measured: &[Measured]) {
    let path = format!(
        "{}/docs/curves/{}.svg",
        env!("CARGO_MANIFEST_DIR"),
        curve.name
    );
    std::fs::write(&path, drawing(curve, measured)).expect("docs/curves can be written to");
    println!("{path}");
}

/// Cost by what lies along the curve, which grows by factors.
fn drawing(curve: &Curve, measured: &[Measured]) -> String {
    let (width, height) = SIZE;
    let most = measured
        .iter()
        .map(|it| it.micros)
        .fold(1.0, f64::max)
        .ceil();
    let span = |of: &Measured| f64::from(of.along).ln();
    let (first, last) = (&measured[0], &measured[measured.len() - 1]);
    let step = (span(last) - span(first)).max(f64::MIN_POSITIVE);
    let place = |it: &Measured| {
        let x = MARGIN + (span(it) - span(first)) / step * width;
        (x, MARGIN / 2.0 + height - it.micros / most * height)
    };
    let (right, bottom) = (width + 2.0 * MARGIN, height + 1.8 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {right} {bottom}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let floor = MARGIN / 2.0 + height;
    // Writing to a string can't fail.
    for line in 0..=4 {
        let value = most * f64::from(line) / 4.0;
        let y = floor - height * f64::from(line) / 4.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{MARGIN} {y:.1}h{width}\" stroke=\"#ccc\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>",
            MARGIN - 6.0,
            y + 4.0
        );
    }
    let points: Vec<_> = measured.iter().map(place).collect();
    let line: Vec<_> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"#0072b2\" stroke-width=\"2\" points=\"{}\"/>",
        line.join(" ")
    );
    for (it, (x, y)) in measured.iter().zip(&points) {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#0072b2\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1}</text>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            y - 8.0,
            it.micros,
            floor + 16.0,
            it.along
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"{:.1}\">us of CPU per packet, by {}</text>\n</svg>",
        floor + 36.0,
        curve.along
    );
    svg
}

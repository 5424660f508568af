//! The report as one page of HTML that needs nothing else: the table, and for each scenario how its
//! first seed went.

use std::fmt::Write as _;

use super::trial::{Sample, Trial};
use super::verdict::{Outcome, Report};
use crate::units::Bitrate;

/// Of a chart, in pixels.
const WIDTH: f64 = 860.0;
/// See [`WIDTH`].
const HEIGHT: f64 = 180.0;

/// Of the lines, told apart by who sees no red or green, too.
const CAPACITY: &str = "#666666";
/// See [`CAPACITY`].
const ESTIMATE: &str = "#0072b2";
/// See [`CAPACITY`].
const RECEIVED: &str = "#009e73";
/// See [`CAPACITY`].
const LAYER: &str = "#d55e00";
/// See [`CAPACITY`]. Dashed, as there may be several.
const BESIDE: &str = "#cc79a7";

/// More of a link than this isn't shown, or the rest would be a line at the bottom.
const MOST: Bitrate = Bitrate::kbps(5000);

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>stellwerk lab</title>
<style>
body { font: 15px sans-serif; margin: 2em; max-width: 900px }
pre { overflow-x: auto; font-size: 12px }
svg { display: block; border-left: 1px solid; border-bottom: 1px solid; overflow: visible }
polyline { fill: none; stroke-width: 1.5 }
h2 { font-size: 1em; margin: 2em 0 .5em }
p { margin: .3em 0 }
</style>
<h1>stellwerk lab</h1>
";

impl Report {
    /// Writes the page.
    pub fn html(&self) -> String {
        let mut page = format!("{HEAD}<pre>{}</pre>\n", escape(&self.text()));
        let same = |a: &Outcome, b: &Outcome| a.scenario.id == b.scenario.id;
        for outcomes in self.outcomes.chunk_by(same) {
            let mut firsts = outcomes
                .iter()
                .filter_map(|it| Some((it, it.trials.first()?)));
            if let Some((outcome, trial)) = firsts.next() {
                chart(&mut page, outcome, trial, &firsts.collect::<Vec<_>>());
            }
        }
        page.push_str("</html>\n");
        page
    }
}

fn chart(page: &mut String, outcome: &Outcome, trial: &Trial, beside: &[(&Outcome, &Trial)]) {
    let samples = &trial.samples;
    let rates = samples
        .iter()
        .map(|it| it.received.max(it.estimate.min(MOST)));
    let most = rates.max().unwrap_or_default().as_bps().max(1) as f64 * 1.1;
    let step = WIDTH / samples.len().saturating_sub(1).max(1) as f64;
    let scenario = outcome.scenario;
    // Writing to a string can't fail.
    let _ = writeln!(
        page,
        "<h2>{}: {}</h2>\n<p>{} s, seed {}; up to {:.1} Mbit/s</p>\n\
         <svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">",
        scenario.id,
        escape(scenario.what),
        scenario.seconds,
        trial.seed,
        most / 1e6
    );
    for (at, span) in &trial.freezes {
        let (x, width) = (per_second(*at, step), per_second(*span, step));
        let _ = writeln!(
            page,
            "<rect x=\"{x:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"#d55e0055\"/>"
        );
    }
    let mut line = |stroke: &str, samples: &[Sample], value: &dyn Fn(&Sample) -> Option<f64>| {
        let _ = write!(page, "<polyline stroke=\"{stroke}\" points=\"");
        for (at, sample) in samples.iter().enumerate() {
            if let Some(value) = value(sample) {
                let y = HEIGHT - value.min(1.0) * HEIGHT;
                let _ = write!(page, "{:.1},{y:.1} ", at as f64 * step);
            }
        }
        page.push_str("\"/>\n");
    };
    let part = |rate: Bitrate| Some(rate.as_bps() as f64 / most);
    line(CAPACITY, samples, &|it| part(it.capacity));
    line(ESTIMATE, samples, &|it| part(it.estimate));
    line(RECEIVED, samples, &|it| part(it.received));
    line(LAYER, samples, &|it| {
        Some((f64::from(it.layer?) + 1.0) / 12.0)
    });
    for (_, other) in beside {
        let stroke = format!("{BESIDE}\" stroke-dasharray=\"4 2");
        line(&stroke, &other.samples, &|it| part(it.received));
    }
    let also: String = (beside.iter())
        .map(|(it, _)| {
            format!(
                ", <span style=\"color: {BESIDE}\">by {}</span>",
                it.subject.what()
            )
        })
        .collect();
    let _ = writeln!(
        page,
        "</svg>\n<p><span style=\"color: {CAPACITY}\">what the link carries</span>, \
         <span style=\"color: {ESTIMATE}\">what is estimated</span>, \
         <span style=\"color: {RECEIVED}\">what is received</span>{also}, \
         <span style=\"color: {LAYER}\">which layer is seen</span>; \
         shaded where a picture stands</p>"
    );
}

/// A time on the axis, where `step` is a tenth of a second.
fn per_second(at: std::time::Duration, step: f64) -> f64 {
    at.as_secs_f64() / super::trial::SAMPLE.as_secs_f64() * step
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

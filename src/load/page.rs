//! The report as one page of HTML that needs nothing else: the table, and how each second was.

use std::fmt::Write as _;

use super::networks::{self, Network};
use super::picture::LAYERS;
use super::process::Usage;
use super::report::Report;
use super::tally::Second;

/// Of a chart, in pixels.
const WIDTH: f64 = 720.0;
/// See [`WIDTH`].
const HEIGHT: f64 = 160.0;

/// Of lines, in their order; told apart by who sees no red or green, too.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#666666"];

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>stellwerk load</title>
<style>
body { font: 15px sans-serif; margin: 2em; max-width: 760px }
svg { display: block; border-left: 1px solid; border-bottom: 1px solid; overflow: visible }
polyline { fill: none; stroke-width: 1.5 }
h2 { font-size: 1em; margin: 2em 0 .5em }
p { margin: .3em 0 }
</style>
<h1>stellwerk load</h1>
";

/// A line of a chart: a name, and a value for each second that has one.
type Line = (String, Vec<Option<f64>>);

/// Writes the page.
pub fn html(report: &Report) -> String {
    let seconds = &report.outcome.seconds;
    let line = |name: &str, value: &dyn Fn(&Second) -> Option<f64>| -> Line {
        (name.to_owned(), seconds.iter().map(value).collect())
    };
    let mut page = format!("{HEAD}<pre>{}</pre>\n", escape(&report.text()));
    let packets = [
        line("sent", &|it| Some(it.sent as f64)),
        line("received", &|it| Some(it.received as f64)),
    ];
    chart(&mut page, "Packets per second", &packets);
    let loss = |it: &Second| Some(it.counts.lost as f64 * 100.0 / it.counts.expected.max(1) as f64);
    chart(&mut page, "Lost, in percent", &[line("lost", &loss)]);
    let delays = [
        line("half at most", &|it| millis(it.p50)),
        line("99 of 100 at most", &|it| millis(it.p99)),
    ];
    chart(&mut page, "Delay, in milliseconds", &delays);
    let mut layers: Vec<Line> = Vec::new();
    for (at, layer) in LAYERS.iter().enumerate() {
        layers.push(line(layer.rid, &|it| Some(it.layers[at] as f64)));
    }
    layers.push(line("none", &|it| Some(it.silent as f64)));
    chart(&mut page, "Pictures by layer", &layers);
    networks(&mut page, report);
    server(&mut page, &report.usages, seconds);
    page.push_str("</html>\n");
    page
}

/// How those with bad networks fared beside the others.
fn networks(page: &mut String, report: &Report) {
    let networks = networks::of(report);
    let lines = |value: &dyn Fn(&Network<'_>, &Second) -> Option<f64>| -> Vec<Line> {
        let line = |network: &Network<'_>| {
            let seconds = network.group.seconds.iter();
            let values = seconds.map(|second| value(network, second));
            (network.name(), values.collect())
        };
        networks.iter().map(line).collect()
    };
    if networks.is_empty() {
        return;
    }
    let kilobits = lines(&|network, second| Some(network.kilobits_each(second.bytes)));
    chart(page, "Received by each, by network, in kbit/s", &kilobits);
    let beyond = lines(&|_, second| {
        Some(second.counts.beyond() as f64 * 100.0 / second.counts.expected.max(1) as f64)
    });
    chart(
        page,
        "Lost beyond what was inflicted, by network, in percent",
        &beyond,
    );
    let delays = lines(&|_, second| millis(second.p50));
    chart(
        page,
        "Delay, half at most, by network, in milliseconds",
        &delays,
    );
    let layers = lines(&|_, second| networks::mean_layer(second));
    chart(page, "Mean layer, from 0 to 2, by network", &layers);
}

/// What the server's process used: `usages` has one more than there are seconds.
fn server(page: &mut String, usages: &[Usage], seconds: &[Second]) {
    if usages.len() < 2 {
        return;
    }
    let spans = usages.windows(2).zip(seconds);
    let cpu = spans.map(|(pair, second)| {
        let spent = pair[1].cpu.saturating_sub(pair[0].cpu);
        (second.received > 0).then(|| spent.as_secs_f64() * 1e6 / second.received as f64)
    });
    let cpu = ("server".to_owned(), cpu.collect());
    chart(
        page,
        "CPU time per packet received, in microseconds",
        &[cpu],
    );
    let memory = usages[1..].iter().map(|it| Some(it.rss_bytes as f64 / 1e6));
    let memory = ("server".to_owned(), memory.collect());
    chart(page, "Memory, in megabytes", &[memory]);
}

fn millis(delay: Option<std::time::Duration>) -> Option<f64> {
    delay.map(|delay| delay.as_secs_f64() * 1000.0)
}

fn chart(page: &mut String, title: &str, lines: &[Line]) {
    let values = lines.iter().flat_map(|(_, values)| values).flatten();
    let most = values.copied().fold(0.0, f64::max);
    let scale = if most > 0.0 { HEIGHT / most } else { 0.0 };
    // Writing to a string can't fail.
    let _ = writeln!(
        page,
        "<h2>{}</h2>\n<p>{}</p>\n<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">",
        escape(title),
        number(most)
    );
    for ((_, values), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let step = WIDTH / values.len().saturating_sub(1).max(1) as f64;
        let _ = write!(page, "<polyline stroke=\"{colour}\" points=\"");
        for (at, value) in values.iter().enumerate() {
            if let Some(value) = value {
                let (x, y) = (at as f64 * step, HEIGHT - value * scale);
                let _ = write!(page, "{x:.1},{y:.1} ");
            }
        }
        page.push_str("\"/>\n");
    }
    page.push_str("</svg>\n<p>");
    for ((name, values), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let last = values.iter().flatten().next_back();
        let last = last.map_or_else(|| "-".to_owned(), |value| number(*value));
        let name = escape(name);
        let _ = write!(
            page,
            "<span style=\"color: {colour}\">{name}</span> {last} at last. "
        );
    }
    page.push_str("</p>\n");
}

/// With as many digits as tell something.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_edges_and_leave_out_what_is_not_known() {
        let mut page = String::new();
        let line = ("a<b".to_owned(), vec![Some(0.0), None, Some(8.0)]);
        chart(&mut page, "T & t", &[line]);
        assert!(page.contains("T &amp; t") && page.contains("a&lt;b"));
        assert!(page.contains("points=\"0.0,160.0 720.0,0.0 \""), "{page}");
        assert!(page.contains("8.0 at last"), "{page}");
        chart(
            &mut page,
            "none",
            &[("x".to_owned(), vec![]), ("y".to_owned(), vec![None])],
        );
        assert!(!page.contains("NaN") && page.contains("- at last"));
    }

    #[test]
    fn the_server_is_shown_if_it_was_seen() {
        let usage = |cpu, megabytes: u64| Usage {
            cpu: std::time::Duration::from_millis(cpu),
            rss_bytes: megabytes * 1_000_000,
        };
        let second = |received| Second {
            received,
            ..Second::default()
        };
        let mut page = String::new();
        server(&mut page, &[usage(0, 1)], &[]);
        assert_eq!(page, "");
        let usages = [usage(0, 20), usage(30, 21), usage(40, 22)];
        server(&mut page, &usages, &[second(10_000), second(0)]);
        // 30 ms for 10,000 packets.
        assert!(page.contains("3.0 at last"), "{page}");
        assert!(page.contains("22.0 at last"), "{page}");
    }
}

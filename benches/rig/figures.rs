//! What a run of benches found: nanoseconds per packet, and their ratio to the floor of that run.
//!
//! Ratios are those of the least samples: what else goes on at a machine only adds, and on a shared
//! one it adds to most of them. The medians beside them show how much that was.

use std::time::Duration;

use criterion::Criterion;

/// Samples of each figure.
const SAMPLES: usize = 20;

/// Figures so far.
pub struct Figures {
    criterion: Criterion,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    least: f64,
    median: f64,
    floor: Option<f64>,
}

impl Figures {
    /// None yet. Arguments of the command line choose among them.
    pub fn new() -> Self {
        let criterion = Criterion::default()
            .sample_size(SAMPLES)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(1))
            .configure_from_args();
        Self {
            criterion,
            rows: Vec::new(),
        }
    }

    /// Measures `work`, which does something so many times and says what that took. `packets` is
    /// what it does it to each time. Returns the least for one, unless it isn't wanted.
    pub fn measure(
        &mut self,
        name: &str,
        packets: usize,
        floor: Option<f64>,
        mut work: impl FnMut(u64) -> Duration,
    ) -> Option<f64> {
        let mut samples = Vec::new();
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let span = work(times);
                samples.push(span.as_nanos() as f64 / (times * packets as u64) as f64);
                span
            });
        });
        // Those before are the warm-up.
        let mut samples = samples.split_off(samples.len().saturating_sub(SAMPLES));
        samples.sort_by(f64::total_cmp);
        let (least, median) = (*samples.first()?, samples[samples.len() / 2]);
        self.rows.push(Row {
            name: name.to_owned(),
            least,
            median,
            floor,
        });
        Some(least)
    }

    /// Shows all of them.
    pub fn print(self) {
        self.criterion.final_summary();
        println!(
            "ns per packet {:>17} {:>9} {:>9}",
            "least", "median", "of floor"
        );
        for row in self.rows {
            let ratio = row
                .floor
                .map_or(String::new(), |floor| format!("{:.2}", row.least / floor));
            let Row {
                name,
                least,
                median,
                ..
            } = row;
            println!("{name:21} {least:>9.0} {median:>9.0} {ratio:>9}");
        }
    }
}

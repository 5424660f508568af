//! What a run of benches found: nanoseconds per packet, and their ratio to the floor of that run.

use std::time::Duration;

use criterion::Criterion;

/// Samples of each figure.
const SAMPLES: usize = 20;

/// Figures so far.
pub struct Figures {
    criterion: Criterion,
    rows: Vec<(String, f64, Option<f64>)>,
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
    /// what it does it to each time. Returns the median for one, unless it isn't wanted.
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
        let median = *samples.get(samples.len() / 2)?;
        self.rows.push((name.to_owned(), median, floor));
        Some(median)
    }

    /// Shows all of them.
    pub fn print(self) {
        self.criterion.final_summary();
        println!("{:28} {:>12} {:>9}", "", "ns per packet", "of floor");
        for (name, median, floor) in self.rows {
            let ratio = floor.map_or(String::new(), |floor| format!("{:.2}", median / floor));
            println!("{name:28} {median:>13.0} {ratio:>9}");
        }
    }
}

//! How the packets of one frame are spread in time.

use std::time::Duration;

/// Between the first and the last packet of a frame, all layers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pacing {
    /// As Chromium's pacer does: half of all frames leave within 0.22 ms, nine of ten within
    /// 0.56 ms.
    Chromium,
    /// All at once.
    Burst,
    /// Evenly over 5 ms.
    Spread,
}

/// Spans of frames as they were seen of Chromium 156 at 720p: share of frames, and microseconds.
/// Between two of them the span grows evenly.
const CHROMIUM: [(f64, f64); 4] = [(0.0, 60.0), (0.5, 220.0), (0.9, 560.0), (1.0, 1000.0)];

const SPREAD: Duration = Duration::from_millis(5);

impl Pacing {
    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Burst => "burst",
            Self::Spread => "spread",
        }
    }

    /// The time between two packets of a frame of so many. `chance` is from 0 to 1, drawn anew for
    /// each frame.
    pub fn gap(self, packets: usize, chance: f64) -> Duration {
        let span = match self {
            Self::Chromium => chromium_span(chance),
            Self::Burst => Duration::ZERO,
            Self::Spread => SPREAD,
        };
        let gaps = packets.saturating_sub(1).max(1);
        span / u32::try_from(gaps).unwrap_or(u32::MAX)
    }
}

fn chromium_span(chance: f64) -> Duration {
    let mut span = CHROMIUM[0].1;
    for pair in CHROMIUM.windows(2) {
        let [(low, from), (high, to)] = [pair[0], pair[1]];
        if chance >= low {
            span = from + (to - from) * ((chance - low) / (high - low)).min(1.0);
        }
    }
    Duration::from_nanos((span * 1000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_those_of_their_name() {
        let span = |pacing: Pacing, chance| pacing.gap(10, chance) * 9;
        let near = |span: Duration, micros: i64| {
            assert!((span.as_micros() as i64 - micros).abs() <= 1, "{span:?}");
        };
        for (chance, micros) in [(0.0, 60), (0.5, 220), (0.7, 390), (0.9, 560), (1.0, 1000)] {
            near(span(Pacing::Chromium, chance), micros);
        }
        near(span(Pacing::Burst, 0.5), 0);
        near(span(Pacing::Spread, 0.5), 5000);
    }

    #[test]
    fn a_frame_of_one_packet_has_a_gap_all_the_same() {
        assert_eq!(Pacing::Spread.gap(1, 0.0), SPREAD);
        assert_eq!(Pacing::Burst.gap(0, 0.0), Duration::ZERO);
    }
}

//! How many a server carries: people join until what they get is no longer good.

use std::time::Duration;

use super::tally::Second;

/// A delay that people begin to hear, of one packet in a hundred.
const DELAY_MAX: Duration = Duration::from_millis(50);

/// Loss that people begin to see where nothing is sent again.
const LOSS_MAX: f64 = 0.005;

/// Bad seconds in a row that are the limit. One may be a hiccup of the machine.
const BAD_SECONDS: u32 = 2;

/// How far it has gone.
#[derive(Debug, Default, Clone)]
pub struct Ramp {
    /// Participants in the last good second.
    pub participants: usize,
    /// Packets received in it.
    pub received: u64,
    /// What was wrong then.
    pub limit: Option<String>,
    /// Bad seconds in a row, up to now.
    pub bad: u32,
}

impl Ramp {
    /// Takes in a second, with so many participants.
    pub fn note(&mut self, participants: usize, second: &Second) {
        if self.limit.is_some() {
            return;
        }
        match problem(second) {
            None => {
                self.bad = 0;
                (self.participants, self.received) = (participants, second.received);
            }
            problem => {
                self.bad += 1;
                self.limit = problem.filter(|_| self.bad >= BAD_SECONDS);
            }
        }
    }

    /// Whether there is no need for more people.
    pub fn is_over(&self) -> bool {
        self.limit.is_some()
    }
}

fn problem(second: &Second) -> Option<String> {
    let loss = second.counts.lost as f64 / second.counts.expected.max(1) as f64;
    let seen: u64 = second.layers.iter().sum();
    if second.silent > seen {
        return Some("most pictures don't come".to_owned());
    }
    if loss > LOSS_MAX {
        return Some(format!("{:.2} % of the packets were lost", loss * 100.0));
    }
    let delay = second.p99.filter(|delay| *delay > DELAY_MAX)?;
    Some(format!(
        "one packet in a hundred took {:.0} ms or more",
        delay.as_secs_f64() * 1000.0
    ))
}

#[cfg(test)]
mod tests {
    use super::super::incoming::Counts;
    use super::*;

    fn second(lost: u64, delay: u64, silent: u64) -> Second {
        Second {
            received: 1000 - lost,
            counts: Counts {
                expected: 1000,
                lost,
                ..Counts::default()
            },
            p99: Some(Duration::from_millis(delay)),
            layers: [0, 0, 5],
            silent,
            ..Second::default()
        }
    }

    #[test]
    fn the_limit_is_what_two_seconds_in_a_row_are_beyond() {
        let mut ramp = Ramp::default();
        ramp.note(10, &second(5, 50, 5));
        ramp.note(20, &second(6, 1, 0));
        ramp.note(30, &second(0, 1, 0));
        assert_eq!((ramp.participants, ramp.is_over()), (30, false));
        ramp.note(40, &second(0, 51, 0));
        ramp.note(50, &second(6, 1, 0));
        assert_eq!((ramp.participants, ramp.received), (30, 1000));
        let limit = ramp.limit.clone().expect("a limit");
        assert!(limit.starts_with("0.60 %"), "{limit}");
        // What comes afterwards changes nothing.
        ramp.note(60, &second(0, 1, 0));
        assert_eq!((ramp.participants, ramp.limit), (30, Some(limit)));
    }

    #[test]
    fn each_limit_is_named() {
        let limit = |second| problem(&second).unwrap_or_default();
        assert!(limit(second(0, 51, 0)).contains("51 ms"));
        assert!(limit(second(6, 0, 0)).contains("lost"));
        assert!(limit(second(0, 0, 6)).contains("pictures"));
        assert_eq!(limit(second(5, 50, 5)), "");
    }
}

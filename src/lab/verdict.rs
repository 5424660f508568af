//! Whether the figures of a scenario keep their targets: the median of all seeds has to, and the
//! worst may miss by half.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::scenario::{Bound, Figure, Scenario, Target};
use super::subject::Subject;
use super::trial::{self, Trial};

/// How far the worst seed may be beyond a bound.
const WORST: f64 = 1.5;

/// The trials of one scenario with one subject.
pub struct Outcome {
    /// Which.
    pub scenario: &'static Scenario,
    /// Whose.
    pub subject: Subject,
    /// By seed.
    pub trials: Vec<Trial>,
}

/// All that was tried.
pub struct Report {
    /// In the order of the scenarios; of each the shard's, then what stands beside it.
    pub outcomes: Vec<Outcome>,
}

/// How a target fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept.
    Kept,
    /// It is missed by no more than is known.
    KnownMiss,
    /// It is missed.
    Missed,
}

/// Tries the shard, and `beside` it others, on each scenario with each seed, on as many threads.
pub fn run(
    scenarios: &[&'static Scenario],
    beside: &[Subject],
    seeds: &[u64],
    threads: usize,
) -> Report {
    let subjects = || [Subject::Shard].into_iter().chain(beside.iter().copied());
    let outcomes = scenarios.iter().flat_map(|scenario| {
        let fitting = subjects().filter(|subject| subject.fits(scenario));
        fitting.map(|subject| Outcome {
            scenario,
            subject,
            trials: Vec::new(),
        })
    });
    let mut outcomes: Vec<_> = outcomes.collect();
    let tried: Vec<_> = outcomes
        .iter()
        .map(|it| (it.scenario, it.subject))
        .collect();
    let count = tried.len() * seeds.len();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return done;
            }
            let (outcome, seed) = (at / seeds.len(), seeds[at % seeds.len()]);
            let (scenario, subject) = tried[outcome];
            done.push((outcome, trial::run(scenario, subject, seed)));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let done = thread.join();
            let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (outcome, trial) in done {
                outcomes[outcome].trials.push(trial);
            }
        }
    });
    for outcome in &mut outcomes {
        outcome.trials.sort_by_key(|trial| trial.seed);
    }
    Report { outcomes }
}

impl Outcome {
    /// What must come of it.
    pub fn targets(&self) -> &'static [Target] {
        match self.subject {
            Subject::Shard => self.scenario.targets,
            Subject::Remb | Subject::Stock | Subject::Unpadded => &[],
        }
    }

    /// A figure of each seed, least first.
    fn sorted(&self, figure: Figure) -> Vec<f64> {
        let values = self
            .trials
            .iter()
            .filter_map(|trial| trial.figures.get(&figure));
        let mut values: Vec<_> = values.copied().collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The median; of two the worse one doesn't matter, as there is an odd number of seeds.
    pub fn median(&self, figure: Figure) -> Option<f64> {
        let values = self.sorted(figure);
        values.get(values.len() / 2).copied()
    }

    /// The worst seed's.
    pub fn worst(&self, target: &Target) -> Option<f64> {
        let values = self.sorted(target.figure);
        match target.bound {
            Bound::Most(_) => values.last().copied(),
            Bound::Least(_) => values.first().copied(),
        }
    }

    /// Whether a target is kept.
    pub fn judge(&self, target: &Target) -> Verdict {
        let (Some(median), Some(worst)) = (self.median(target.figure), self.worst(target)) else {
            return Verdict::Missed;
        };
        if target.bound.holds(median, worst) {
            return Verdict::Kept;
        }
        let known = target.known_miss.map(|at| match target.bound {
            Bound::Most(_) => Bound::Most(at),
            Bound::Least(_) => Bound::Least(at),
        });
        match known {
            Some(bound) if bound.holds(median, worst) => Verdict::KnownMiss,
            _ => Verdict::Missed,
        }
    }
}

impl Bound {
    fn holds(self, median: f64, worst: f64) -> bool {
        match self {
            Self::Most(most) => median <= most && worst <= most * WORST,
            Self::Least(least) => median >= least && worst >= least / WORST,
        }
    }
}

impl Report {
    /// Every target and how it fared.
    pub fn verdicts(&self) -> impl Iterator<Item = (&Outcome, &'static Target, Verdict)> {
        self.outcomes.iter().flat_map(|outcome| {
            let targets = outcome.targets().iter();
            targets.map(move |target| (outcome, target, outcome.judge(target)))
        })
    }

    /// Whether nothing is missed that wasn't known to be.
    pub fn is_good(&self) -> bool {
        self.verdicts()
            .all(|(_, _, verdict)| verdict != Verdict::Missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::SCENARIOS;

    /// Trials of one scenario with these values of a figure.
    fn outcome(figure: Figure, values: &[f64]) -> Outcome {
        let trial = |(seed, value): (u64, &f64)| Trial {
            seed,
            figures: [(figure, *value)].into(),
            samples: Vec::new(),
            freezes: Vec::new(),
        };
        Outcome {
            scenario: &SCENARIOS[0],
            subject: Subject::Shard,
            trials: (1..).zip(values).map(trial).collect(),
        }
    }

    #[test]
    fn the_median_has_to_keep_a_target_and_the_worst_may_miss_by_half() {
        let judge = |bound, known_miss, values: &[f64]| {
            let figure = Figure::Delay;
            let target = Target {
                figure,
                bound,
                known_miss,
            };
            outcome(figure, values).judge(&target)
        };
        let most = Bound::Most(60.0);
        assert_eq!(judge(most, None, &[50.0, 60.0, 90.0]), Verdict::Kept);
        assert_eq!(judge(most, None, &[50.0, 60.0, 91.0]), Verdict::Missed);
        assert_eq!(judge(most, None, &[61.0, 50.0, 70.0]), Verdict::Missed);
        assert_eq!(
            judge(most, Some(65.0), &[61.0, 50.0, 70.0]),
            Verdict::KnownMiss
        );
        assert_eq!(
            judge(most, Some(65.0), &[66.0, 50.0, 70.0]),
            Verdict::Missed
        );
        let least = Bound::Least(0.9);
        assert_eq!(judge(least, None, &[0.9, 0.95, 0.6]), Verdict::Kept);
        assert_eq!(judge(least, None, &[0.9, 0.95, 0.59]), Verdict::Missed);
        assert_eq!(judge(least, None, &[0.8, 0.95, 0.7]), Verdict::Missed);
        assert_eq!(
            judge(least, Some(0.75), &[0.8, 0.95, 0.7]),
            Verdict::KnownMiss
        );
        assert_eq!(
            judge(most, None, &[]),
            Verdict::Missed,
            "nothing is no proof"
        );
    }

    #[test]
    fn scenarios_have_names_of_their_own_and_targets() {
        for (at, scenario) in SCENARIOS.iter().enumerate() {
            let mut before = SCENARIOS[..at].iter();
            assert!(before.all(|it| it.id != scenario.id), "{}", scenario.id);
            assert!(!scenario.targets.is_empty(), "{}", scenario.id);
        }
    }
}

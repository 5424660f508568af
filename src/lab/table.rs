//! The report as text, and as JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::scenario::{Bound, Figure};
use super::subject::Subject;
use super::verdict::{Outcome, Report, Verdict};

impl Report {
    /// One line for each scenario, then what was missed.
    pub fn text(&self) -> String {
        let labels = self.outcomes.iter().map(|it| label(it).len());
        let width = labels.max().unwrap_or(0).max(3) + 2;
        let mut text = format!("{:<width$}", "");
        // Writing to a string can't fail.
        for figure in Figure::ALL {
            let _ = write!(text, "{:>11}", figure.label());
        }
        text.push('\n');
        for outcome in &self.outcomes {
            let _ = write!(text, "{:<width$}", label(outcome));
            for figure in Figure::ALL {
                text.push_str(&cell(outcome, figure));
            }
            let _ = writeln!(text, "  {}", what(outcome));
        }
        text.push_str("Medians of all seeds; * misses its target, ~ misses it as is known.\n");
        for (outcome, target, verdict) in self.verdicts() {
            if verdict == Verdict::Kept {
                continue;
            }
            let known = match verdict {
                Verdict::KnownMiss => "known miss",
                _ => "MISSED",
            };
            let value = |it: Option<f64>| it.map_or("-".to_owned(), number);
            let _ = writeln!(
                text,
                "{known}: {} {}: {} wanted, median {}, worst {}",
                outcome.scenario.id,
                target.figure.label(),
                wanted(target.bound),
                value(outcome.median(target.figure)),
                value(outcome.worst(target)),
            );
        }
        text
    }

    /// All figures of all trials.
    pub fn json(&self) -> String {
        let trials = |outcome: &Outcome| -> Vec<_> {
            let trials = outcome.trials.iter();
            trials
                .map(|trial| {
                    let figures = trial.figures.iter();
                    let figures: serde_json::Map<_, _> = figures
                        .map(|(figure, value)| (figure.label().to_owned(), json!(value)))
                        .collect();
                    json!({ "seed": trial.seed, "figures": figures })
                })
                .collect()
        };
        let (own, beside): (Vec<_>, Vec<_>) =
            (self.outcomes.iter()).partition(|it| it.subject == Subject::Shard);
        let scenarios: Vec<_> = own
            .iter()
            .map(|it| json!({ "scenario": it.scenario.id, "trials": trials(it) }))
            .collect();
        let beside: Vec<_> = beside
            .iter()
            .map(|it| {
                json!({
                    "scenario": it.scenario.id,
                    "subject": it.subject.name(),
                    "trials": trials(it),
                })
            })
            .collect();
        let verdicts: Vec<_> = self
            .verdicts()
            .map(|(outcome, target, verdict)| {
                json!({
                    "scenario": outcome.scenario.id,
                    "figure": target.figure.label(),
                    "wanted": wanted(target.bound),
                    "median": outcome.median(target.figure),
                    "worst": outcome.worst(target),
                    "kept": verdict == Verdict::Kept,
                    "known": verdict == Verdict::KnownMiss,
                })
            })
            .collect();
        let mut report = json!({ "scenarios": scenarios, "targets": verdicts });
        if !beside.is_empty() {
            report["beside"] = beside.into();
        }
        report.to_string()
    }
}

/// What stands in front of a row: the scenario, and beneath it who else was tried on it.
fn label(outcome: &Outcome) -> String {
    match outcome.subject {
        Subject::Shard => outcome.scenario.id.to_owned(),
        other => format!("  {}", other.name()),
    }
}

/// What stands behind it.
fn what(outcome: &Outcome) -> &'static str {
    match outcome.subject {
        Subject::Shard => outcome.scenario.what,
        other => other.what(),
    }
}

fn wanted(bound: Bound) -> String {
    match bound {
        Bound::Most(most) => format!("at most {}", number(most)),
        Bound::Least(least) => format!("at least {}", number(least)),
    }
}

/// A median and how it fares, eleven characters wide.
fn cell(outcome: &Outcome, figure: Figure) -> String {
    let Some(median) = outcome.median(figure) else {
        return format!("{:>11}", "-");
    };
    let targets = outcome.targets().iter();
    let own = targets.filter(|target| target.figure == figure);
    let verdicts = own.map(|target| outcome.judge(target));
    let worst = verdicts.fold(None, |worst, verdict| match (worst, verdict) {
        (Some(Verdict::Missed), _) | (_, Verdict::Missed) => Some(Verdict::Missed),
        (Some(Verdict::KnownMiss), _) | (_, Verdict::KnownMiss) => Some(Verdict::KnownMiss),
        _ => Some(Verdict::Kept),
    });
    let mark = match worst {
        Some(Verdict::Missed) => "*",
        Some(Verdict::KnownMiss) => "~",
        Some(Verdict::Kept) | None => " ",
    };
    format!("{:>10}{mark}", number(median))
}

fn number(value: f64) -> String {
    match value.abs() {
        it if it >= 100.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

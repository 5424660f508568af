//! The part of the report that tells those with bad networks from the others.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{layers_json, layers_text, millis, millis_text, share};
use super::groups::Group;
use super::impairment::Impairment;
use super::report::Report;
use super::tally::Second;
use crate::units::Bitrate;

/// What is told of one network.
pub struct Network<'a> {
    /// What is wrong with it; nothing with the good one.
    pub impairment: Option<&'a Impairment>,
    /// Participants that have it and receive something.
    pub receivers: usize,
    /// What they saw.
    pub group: &'a Group,
}

/// The networks of a run, the good one first; none if nobody has a bad one.
pub fn of(report: &Report) -> Vec<Network<'_>> {
    if report.plan.impairments.is_empty() {
        return Vec::new();
    }
    let parts = report.plan.parts();
    let impairments = [None]
        .into_iter()
        .chain(report.plan.impairments.iter().map(Some));
    let groups = impairments.zip(&report.outcome.networks).enumerate();
    groups
        .map(|(number, (impairment, group))| Network {
            impairment,
            receivers: parts
                .iter()
                .filter(|part| part.network == number && part.hears > 0)
                .count(),
            group,
        })
        .collect()
}

impl Network<'_> {
    /// As it was asked for.
    pub fn name(&self) -> String {
        let name = self.impairment.map(Impairment::to_string);
        name.unwrap_or_else(|| "good".to_owned())
    }

    /// What each receiver got, if all of them together got `bytes` in a second.
    pub fn kilobits_each(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / 1000.0 / self.receivers.max(1) as f64
    }

    fn bitrate_each(&self, wall: Duration) -> Bitrate {
        Bitrate::of(self.group.tally.bytes / self.receivers.max(1) as u64, wall)
    }
}

/// 0 if all pictures came in the smallest layer, 2 if in the largest.
pub fn mean_layer(second: &Second) -> Option<f64> {
    let [low, middle, high] = second.layers;
    let all = low + middle + high;
    (all > 0).then(|| (middle + 2 * high) as f64 / all as f64)
}

/// Rows of the table.
pub fn write_text(report: &Report, out: &mut String) -> fmt::Result {
    for network in of(report) {
        let Group {
            tally,
            counts,
            seconds,
            ..
        } = network.group;
        writeln!(
            out,
            "network        {}: {} receive {:?} each",
            network.name(),
            network.receivers,
            network.bitrate_each(report.outcome.own.wall)
        )?;
        writeln!(
            out,
            "  lost         {} of {}  ({:.4} %)  {} inflicted  {} beyond  {} repaired",
            counts.lost,
            counts.expected,
            share(counts.lost, counts.expected) * 100.0,
            counts.inflicted,
            counts.beyond(),
            counts.repaired
        )?;
        let delay = |share| millis_text(tally.delay.percentile(share));
        writeln!(
            out,
            "  delay        {} p50  {} p99",
            delay(0.5),
            delay(0.99)
        )?;
        if let Some(last) = seconds.last() {
            writeln!(out, "  layers       {}", layers_text(last))?;
        }
    }
    Ok(())
}

/// A list of objects.
pub fn json(report: &Report) -> Value {
    let networks = of(report);
    networks
        .iter()
        .map(|network| network_json(network, report.outcome.own.wall))
        .collect()
}

fn network_json(network: &Network<'_>, wall: Duration) -> Value {
    let Group { tally, counts, .. } = network.group;
    let seconds = network.group.seconds.iter().map(|second| {
        json!({
            "received": second.received,
            "bitrate_each": network.kilobits_each(second.bytes) * 1000.0,
            "expected": second.counts.expected,
            "lost": second.counts.lost,
            "beyond": second.counts.beyond(),
            "p50_ms": millis(second.p50),
            "p99_ms": millis(second.p99),
            "layers": layers_json(second),
        })
    });
    let impairment = network.impairment.map(|it| {
        json!({
            "share": it.share,
            "loss": it.loss,
            "delay_ms": millis(Some(it.delay)),
            "jitter_ms": millis(Some(it.jitter)),
            "rate": it.rate.map(Bitrate::as_bps),
        })
    });
    json!({
        "name": network.name(),
        "impairment": impairment,
        "receivers": network.receivers,
        "received": tally.received,
        "bitrate_each": network.bitrate_each(wall).as_bps(),
        "expected": counts.expected,
        "lost": counts.lost,
        "inflicted": counts.inflicted,
        "beyond": counts.beyond(),
        "repaired": counts.repaired,
        "delay_ms": {
            "p50": millis(tally.delay.percentile(0.5)),
            "p99": millis(tally.delay.percentile(0.99)),
        },
        "seconds": seconds.collect::<Vec<_>>(),
    })
}

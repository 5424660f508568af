//! What comes out: a line each second, and in the end a table or JSON.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::engine::{Outcome, Own};
use super::figures::{join_json, layers_text, millis, millis_text, second_json, share};
use super::histogram::Histogram;
use super::joins::Joins;
use super::networks;
use super::page;
use super::plan::Plan;
use super::process::Usage;
use super::ramp::Ramp;
use super::tally::Second;

/// So much of its time may the media thread work before its figures are doubted.
const BUSY_MAX: f64 = 0.9;

/// So much of its packets may leave late, and so much of its time may be in overlong turns.
const LATE_MAX: f64 = 0.01;

/// A second of a run, while it goes on.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Since the start.
    pub time: Duration,
    /// What was seen.
    pub second: &'a Second,
    /// Participants that are in, those that failed, and how many there will be.
    pub joined: usize,
    /// See `joined`.
    pub failures: usize,
    /// See `joined`.
    pub all: usize,
    /// All are in, and this second counts.
    pub measuring: bool,
}

/// All of a run.
#[derive(Debug)]
pub struct Report {
    /// What was asked for.
    pub plan: Plan,
    /// How the joins went.
    pub joins: Joins,
    /// What was measured.
    pub outcome: Outcome,
    /// What the server used meanwhile, if its process was named: CPU time, and memory in the end.
    pub server: Option<Usage>,
    /// CPU time of the floor, if it stood in for a server.
    pub floor: Option<Duration>,
    /// What its process had used at the beginning, and after each second.
    pub usages: Vec<Usage>,
    /// How many it carries, if that was looked for.
    pub ramp: Option<Ramp>,
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Second {
            sent,
            received,
            counts,
            p50,
            p99,
            layers: [low, middle, high],
            silent,
            ..
        } = self.second;
        let seconds = self.time.as_secs();
        write!(f, "{seconds:>4} s  {}/{} joined", self.joined, self.all)?;
        if self.failures > 0 {
            write!(f, ", {} failed", self.failures)?;
        }
        write!(
            f,
            "  {sent}/s sent  {received}/s received  {:.2} % lost  delay {} p50 {} p99  \
             layers {low} {middle} {high}",
            share(counts.lost, counts.expected) * 100.0,
            millis_text(*p50),
            millis_text(*p99),
        )?;
        if *silent > 0 {
            write!(f, ", {silent} without")?;
        }
        if !self.measuring {
            f.write_str("  (joining)")?;
        }
        Ok(())
    }
}

impl Report {
    /// Of the packets that should have come, those that didn't: 0 to 1.
    pub fn loss(&self) -> f64 {
        share(self.outcome.counts.lost, self.outcome.counts.expected)
    }

    /// The same without those who lose on purpose.
    pub fn loss_of_good(&self) -> f64 {
        let good = self.outcome.networks.first();
        good.map_or(0.0, |good| share(good.counts.lost, good.counts.expected))
    }

    /// Why the figures are the load tester's own and not the server's; nothing if they are not.
    pub fn saturation(&self) -> Vec<String> {
        let Own {
            wall,
            turn_max,
            overlong,
            drops,
            ..
        } = &self.outcome.own;
        let sent = &self.outcome.tally.sent;
        let mut reasons = Vec::new();
        let busy = self.busy();
        if busy > BUSY_MAX {
            reasons.push(format!(
                "the media thread worked {:.0} % of the time",
                busy * 100.0
            ));
        }
        let late = share(sent.late, sent.packets);
        if late > LATE_MAX {
            reasons.push(format!("{:.1} % of the packets left late", late * 100.0));
        }
        if overlong.as_secs_f64() > wall.as_secs_f64() * LATE_MAX {
            let longest = millis_text(Some(*turn_max));
            reasons.push(format!("turns of the media thread took up to {longest}"));
        }
        if *drops > 0 {
            reasons.push(format!("sockets were full, {drops} datagrams were dropped"));
        }
        if sent.refused > 0 {
            reasons.push(format!("the kernel did not take {} packets", sent.refused));
        }
        reasons
    }

    fn busy(&self) -> f64 {
        let Own { wall, cpu, .. } = &self.outcome.own;
        match wall.is_zero() {
            true => 0.0,
            false => cpu.as_secs_f64() / wall.as_secs_f64(),
        }
    }

    /// CPU time for each packet received.
    fn per_packet(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.outcome.tally.received.max(1) as f64
    }

    /// As one object of JSON.
    pub fn json(&self) -> Value {
        let Self {
            plan,
            joins,
            outcome,
            ..
        } = self;
        let tally = &outcome.tally;
        let delay = &tally.delay;
        let saturation = self.saturation();
        let mut report = json!({
            "plan": {
                "rooms": plan.shape.rooms,
                "publishers": plan.shape.publishers,
                "subscribers": plan.shape.subscribers,
                "pacing": plan.pacing.word(),
                "join_rate": plan.join_rate,
                "churn": plan.churn,
                "warmup_s": plan.warmup.as_secs_f64(),
                "duration_s": plan.duration.as_secs_f64(),
            },
            "joins": {
                "count": joins.count(),
                "failures": joins.failures,
                "reasons": joins.reasons,
                "connected_ms": join_json(&joins.connected),
                "first_packet_ms": join_json(&joins.heard),
                "first_picture_ms": join_json(&joins.shown),
            },
            "packets": {
                "sent": tally.sent.packets,
                "received": tally.received,
                "received_bytes": tally.bytes,
                "expected": outcome.counts.expected,
                "lost": outcome.counts.lost,
                "loss": self.loss(),
                "repeated": tally.repeated,
                "left_out": tally.left_out,
                "opened": tally.opened,
                "unopened": tally.unopened,
                "unstamped": tally.unstamped,
            },
            "delay_ms": {
                "p50": millis(delay.percentile(0.5)),
                "p90": millis(delay.percentile(0.9)),
                "p99": millis(delay.percentile(0.99)),
                "max": millis(delay.max()),
            },
            "ciphers": outcome.suites.iter().map(|suite| suite.label()).collect::<Vec<_>>(),
            "seconds": outcome.seconds.iter().map(second_json).collect::<Vec<_>>(),
            "load": {
                "cpu_s": outcome.own.cpu.as_secs_f64(),
                "cpu_us_per_datagram": self.per_packet(outcome.own.cpu),
                "busy": self.busy(),
                "late": tally.sent.late,
                "turn_max_ms": millis(Some(outcome.own.turn_max)),
                "drops": outcome.own.drops,
                "saturated": !saturation.is_empty(),
                "reasons": saturation,
            },
        });
        if let (Some(usage), Some(pid)) = (self.server, plan.pid) {
            report["server"] = json!({
                "pid": pid,
                "cpu_s": usage.cpu.as_secs_f64(),
                "cpu_us_per_packet": self.per_packet(usage.cpu),
                "rss_bytes": usage.rss_bytes,
            });
        }
        if let Some(cpu) = self.floor {
            report["floor"] = json!({
                "cpu_s": cpu.as_secs_f64(),
                "cpu_us_per_packet": self.per_packet(cpu),
            });
        }
        if !plan.impairments.is_empty() {
            report["plan"]["seed"] = json!(plan.seed);
            report["networks"] = networks::json(self);
        }
        if let Some(ramp) = &self.ramp {
            report["ramp"] = json!({
                "participants": ramp.participants,
                "received_per_s": ramp.received,
                "limit": ramp.limit,
            });
        }
        report
    }

    /// As one page of HTML.
    pub fn html(&self) -> String {
        page::html(self)
    }

    /// As a table.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        let Self { joins, outcome, .. } = self;
        let tally = &outcome.tally;
        let spans = |of: &Histogram, shares: &[(&str, f64)]| {
            let spans = shares
                .iter()
                .map(|(name, share)| format!("{} {name}", millis_text(of.percentile(*share))));
            spans.collect::<Vec<_>>().join("  ")
        };
        let two = [("p50", 0.5), ("p99", 0.99)];
        writeln!(
            out,
            "joins          {}, {} failed",
            joins.count(),
            joins.failures
        )?;
        for (reason, count) in &joins.reasons {
            writeln!(out, "               {count} times: {reason}")?;
        }
        writeln!(out, "  connected    {}", spans(&joins.connected, &two))?;
        writeln!(out, "  first packet {}", spans(&joins.heard, &two))?;
        writeln!(out, "  first picture {}", spans(&joins.shown, &two))?;
        writeln!(
            out,
            "packets        {} sent  {} received",
            tally.sent.packets, tally.received
        )?;
        writeln!(
            out,
            "  lost         {} of {}  ({:.4} %)",
            outcome.counts.lost,
            outcome.counts.expected,
            self.loss() * 100.0
        )?;
        let three = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
        writeln!(out, "delay          {}", spans(&tally.delay, &three))?;
        if let Some(last) = outcome.seconds.last() {
            writeln!(out, "layers at last {}", layers_text(last))?;
        }
        networks::write_text(self, out)?;
        let ciphers = outcome.suites.iter().map(|suite| suite.label());
        writeln!(
            out,
            "cipher         {}",
            ciphers.collect::<Vec<_>>().join(", ")
        )?;
        if let Some(usage) = self.server {
            writeln!(
                out,
                "server         {:.2} us CPU per packet received  {:.1} MB RSS",
                self.per_packet(usage.cpu),
                usage.rss_bytes as f64 / 1e6
            )?;
        }
        if let Some(cpu) = self.floor {
            let cpu = self.per_packet(cpu);
            writeln!(out, "floor          {cpu:.2} us CPU per packet received")?;
        }
        writeln!(
            out,
            "load           {:.2} us CPU per packet received  {:.0} % of a core",
            self.per_packet(outcome.own.cpu),
            self.busy() * 100.0
        )?;
        if let Some(ramp) = &self.ramp {
            let Ramp {
                participants,
                received,
                ..
            } = ramp;
            writeln!(
                out,
                "carried        {participants} participants, {received} packets/s received"
            )?;
            let limit = ramp.limit.as_deref();
            writeln!(
                out,
                "  limit        {}",
                limit.unwrap_or("not reached: give more people or time")
            )?;
        }
        for reason in self.saturation() {
            writeln!(
                out,
                "SATURATED      {reason}: these figures are not the server's"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::groups::Group;
    use super::super::incoming::Counts;
    use super::super::pacing::Pacing;
    use super::super::plan::Preset;
    use super::*;

    fn report() -> Report {
        let mut outcome = Outcome {
            counts: Counts {
                expected: 1000,
                lost: 5,
                ..Counts::default()
            },
            ..Outcome::default()
        };
        outcome.own.wall = Duration::from_secs(10);
        outcome.own.cpu = Duration::from_secs(1);
        outcome.tally.received = 500_000;
        outcome.tally.sent.packets = 1000;
        outcome.tally.delay.add(Duration::from_millis(3));
        outcome.seconds.push(Second {
            layers: [0, 1, 59],
            ..Second::default()
        });
        Report {
            plan: Plan {
                shape: Preset::Webinar.shape(),
                join_rate: 50,
                churn: 0,
                ramp: false,
                warmup: Duration::ZERO,
                duration: Duration::from_secs(10),
                pacing: Pacing::Burst,
                impairments: Vec::new(),
                seed: 0,
                pid: Some(7),
            },
            joins: Joins::default(),
            outcome,
            server: Some(Usage {
                cpu: Duration::from_secs(2),
                rss_bytes: 1 << 20,
            }),
            floor: None,
            usages: Vec::new(),
            ramp: None,
        }
    }

    #[test]
    fn json_has_every_figure() {
        let json = report().json();
        assert_eq!(json["packets"]["loss"], 0.005);
        assert_eq!(json["delay_ms"]["p99"], 3.0);
        assert_eq!(json["server"]["cpu_us_per_packet"], 4.0);
        assert_eq!(json["load"]["cpu_us_per_datagram"], 2.0);
        assert_eq!(json["load"]["saturated"], false);
        assert_eq!(json["seconds"][0]["layers"]["f"], 59);
        assert_eq!(json["joins"]["first_packet_ms"]["p50"], Value::Null);
        let mut alone = report();
        alone.server = None;
        assert_eq!(alone.json().get("server"), None);
        let text = report().text();
        assert!(
            text.contains("4.00 us CPU per packet") && !text.contains("SATURATED"),
            "{text}"
        );
    }

    #[test]
    fn a_ramp_tells_how_far_it_went() {
        let mut report = report();
        assert_eq!(report.json().get("ramp"), None);
        let mut ramp = Ramp {
            participants: 240,
            received: 55_000,
            ..Ramp::default()
        };
        report.ramp = Some(ramp.clone());
        assert!(
            report.text().contains("240 participants") && report.text().contains("not reached")
        );
        ramp.limit = Some("one <b> too many".to_owned());
        report.ramp = Some(ramp);
        assert_eq!(report.json()["ramp"]["limit"], "one <b> too many");
        assert!(report.html().contains("one &lt;b> too many"));
    }

    #[test]
    fn bad_networks_are_told_from_the_good_one() {
        let mut report = report();
        assert_eq!(report.json().get("networks"), None);
        assert!(!report.text().contains("network"));
        report.plan.shape.subscribers = 4;
        report.plan.impairments = vec!["50%:loss=2,rate=500k".parse().expect("an impairment")];
        let group = |counts, bytes, layers| {
            let mut group = Group::default();
            group.counts = counts;
            group.seconds.push(Second {
                bytes: bytes / 10,
                layers,
                ..Second::default()
            });
            group.tally.bytes = bytes;
            group
        };
        let bad = Counts {
            expected: 1000,
            lost: 3,
            repaired: 20,
            inflicted: 22,
        };
        // Two of the four, for ten seconds.
        let good = group(Counts::default(), 2_500_000, [0, 0, 2]);
        report.outcome.networks = vec![good, group(bad, 1_000_000, [2, 0, 0])];
        let json = report.json();
        let [good, bad] = [0, 1].map(|at| &json["networks"][at]);
        assert_eq!(
            (&good["name"], &good["beyond"]),
            (&"good".into(), &0.into())
        );
        assert_eq!(
            (&good["receivers"], &good["impairment"]),
            (&2.into(), &Value::Null)
        );
        assert_eq!(good["bitrate_each"], 1_000_000);
        assert_eq!(bad["name"], "50%:loss=2,rate=500k");
        assert_eq!(
            (&bad["bitrate_each"], &bad["beyond"]),
            (&400_000.into(), &1.into())
        );
        assert_eq!(bad["impairment"]["rate"], 500_000);
        assert_eq!(bad["seconds"][0]["bitrate_each"], 400_000.0);
        assert_eq!(bad["seconds"][0]["layers"]["q"], 2);
        assert_eq!(report.loss_of_good(), 0.0);
        let text = report.text();
        assert!(
            text.contains("50%:loss=2,rate=500k: 2 receive 400 kbit/s each"),
            "{text}"
        );
        assert!(
            text.contains("22 inflicted  1 beyond  20 repaired"),
            "{text}"
        );
        let page = report.html();
        assert!(
            page.contains("Mean layer") && page.contains("400 at last"),
            "{page}"
        );
    }

    #[test]
    fn a_load_tester_that_is_at_its_limit_says_so() {
        let why = |change: fn(&mut Outcome)| {
            let mut report = report();
            change(&mut report.outcome);
            assert_eq!(report.json()["load"]["saturated"], true);
            assert!(report.text().contains("SATURATED"));
            report.saturation().join(" ")
        };
        let busy = why(|outcome| outcome.own.cpu = Duration::from_millis(9100));
        assert!(busy.contains("91 %"), "{busy}");
        assert!(why(|outcome| outcome.own.drops = 1).contains("1 datagrams"));
        assert!(why(|outcome| outcome.tally.sent.late = 20).contains("late"));
        assert!(why(|outcome| outcome.own.overlong = Duration::from_secs(1)).contains("turns"));
        assert!(why(|outcome| outcome.tally.sent.refused = 2).contains("2 packets"));
    }
}

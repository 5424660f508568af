//! What is wrong with the network of some subscribers: how much it loses, delays and carries, and
//! how many have it. Read from the command line: `20%:loss=2,delay=40,jitter=10,rate=1500k`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::sim::network::{Element, Queue};
use crate::units::Bitrate;

/// Different bad networks of a run.
pub const IMPAIRMENTS_MAX: usize = 8;

/// Most that is lost on purpose, in percent: with more nobody gets connected.
const LOSS_MAX: f64 = 50.0;

/// Longest delay and jitter, in milliseconds: with more nobody gets connected.
const DELAY_MAX: f64 = 2000.0;

/// Slowest way down: a voice of 32 kbit/s and what surrounds it.
const RATE_MIN: Bitrate = Bitrate::kbps(64);

/// Fastest one: beyond it there is no bottleneck.
const RATE_MAX: Bitrate = Bitrate::kbps(10_000_000);

/// What waits before the bottleneck, by the time it takes to leave; the newest is dropped beyond.
const QUEUE: Duration = Duration::from_millis(300);

/// How it is written.
const EXAMPLE: &str = "20%:loss=2,delay=40,jitter=10,rate=1500k";

/// A bad network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairment {
    /// Of the subscribers, those that have it: above 0, up to 1.
    pub share: f64,
    /// Of the datagrams, those that are lost each way: 0 to 1.
    pub loss: f64,
    /// How long a datagram takes longer each way.
    pub delay: Duration,
    /// How much longer it may take, by chance.
    pub jitter: Duration,
    /// What the way down carries, if it has a bottleneck.
    pub rate: Option<Bitrate>,
}

impl Impairment {
    /// From the participant to the server.
    pub fn up(&self) -> Vec<Element> {
        let mut elements = Vec::new();
        if !self.delay.is_zero() {
            elements.push(Element::Delay(self.delay));
        }
        if !self.jitter.is_zero() {
            elements.push(Element::Jitter(self.jitter));
        }
        if self.loss > 0.0 {
            elements.push(Element::Loss(self.loss));
        }
        elements
    }

    /// From the server to the participant: the bottleneck comes first.
    pub fn down(&self) -> Vec<Element> {
        let bottleneck = self
            .rate
            .map(|rate| Element::Rate(rate, Queue::Time(QUEUE)));
        bottleneck.into_iter().chain(self.up()).collect()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let milliseconds = |value| {
            let most = number(value, "milliseconds", (0.0, DELAY_MAX))?;
            Ok::<_, String>(Duration::from_micros((most * 1000.0) as u64))
        };
        match name {
            "loss" => self.loss = number(value, "percent", (0.0, LOSS_MAX))? / 100.0,
            "delay" => self.delay = milliseconds(value)?,
            "jitter" => self.jitter = milliseconds(value)?,
            "rate" => self.rate = Some(rate(value)?),
            _ => return Err("there is no such thing: write loss, delay, jitter or rate".to_owned()),
        }
        Ok(())
    }
}

impl FromStr for Impairment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("write a share and what is wrong, as in {EXAMPLE}");
        let (share, rest) = text.split_once(':').ok_or_else(form)?;
        let share = share.strip_suffix('%').ok_or_else(form)?;
        let in_share = |problem| format!("{share}%: {problem}");
        let share = number(share, "percent", (0.0, 100.0)).map_err(in_share)? / 100.0;
        if share == 0.0 {
            return Err("0% is nobody: write a larger share".to_owned());
        }
        let mut impairment = Self {
            share,
            loss: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
        };
        let mut seen = Vec::new();
        for item in rest.split(',') {
            let (name, value) = item.split_once('=').ok_or_else(form)?;
            if seen.contains(&name) {
                return Err(format!("{name} is there twice: leave one out"));
            }
            seen.push(name);
            let of_item = |problem| format!("{item}: {problem}");
            impairment.set(name, value).map_err(of_item)?;
        }
        Ok(impairment)
    }
}

/// As it can be written on the command line.
impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |span: Duration| span.as_secs_f64() * 1000.0;
        let mut items = Vec::new();
        if self.loss > 0.0 {
            items.push(format!("loss={}", tidy(self.loss * 100.0)));
        }
        if !self.delay.is_zero() {
            items.push(format!("delay={}", tidy(millis(self.delay))));
        }
        if !self.jitter.is_zero() {
            items.push(format!("jitter={}", tidy(millis(self.jitter))));
        }
        if let Some(rate) = self.rate {
            items.push(format!("rate={}k", tidy(rate.as_bps() as f64 / 1000.0)));
        }
        if items.is_empty() {
            items.push("loss=0".to_owned());
        }
        write!(f, "{}%:{}", tidy(self.share * 100.0), items.join(","))
    }
}

/// Without digits that come of binary fractions.
fn tidy(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn number(text: &str, unit: &str, (least, most): (f64, f64)) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok();
    let value = value.filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| format!("write a number of {unit} from {least} to {most}"))
}

/// Bits per second; `k` and `M` stand for thousands and millions.
fn rate(text: &str) -> Result<Bitrate, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'M']) {
        Some(digits) if text.ends_with('k') => (digits, 1e3),
        Some(digits) => (digits, 1e6),
        None => (text, 1.0),
    };
    let bits: Option<f64> = digits.parse().ok();
    // What is no number becomes zero, which is below the bound.
    let rate = Bitrate::bps(bits.map_or(0.0, |bits| bits * unit) as u64);
    match (RATE_MIN..=RATE_MAX).contains(&rate) {
        true => Ok(rate),
        false => Err(format!(
            "write bits per second from {}k to {}M, as in 500k or 1.5M",
            RATE_MIN.as_bps() / 1000,
            RATE_MAX.as_bps() / 1_000_000
        )),
    }
}

/// What is wrong with all of them together for so many subscribers, if anything is.
pub fn problem(impairments: &[Impairment], subscribers: usize) -> Option<String> {
    let all: f64 = impairments.iter().map(|it| it.share).sum();
    if impairments.len() > IMPAIRMENTS_MAX {
        return Some(format!(
            "--impaired is there more than {IMPAIRMENTS_MAX} times: leave some out"
        ));
    }
    // Shares such as three times 33.3 % don't add up to the last digit.
    if all > 1.0 + 1e-9 {
        let all = tidy(all * 100.0);
        return Some(format!(
            "--impaired is for {all} % of the subscribers: write shares of 100 % together"
        ));
    }
    if !impairments.is_empty() && subscribers == 0 {
        return Some(
            "--impaired is for those who only receive, and there are none: give --subscribers"
                .to_owned(),
        );
    }
    let networks = networks(impairments, subscribers);
    let empty = (1..).zip(impairments);
    let empty = empty.filter(|(number, _)| !networks.contains(number));
    let named = empty.map(|(_, impairment)| impairment.to_string()).next();
    named.map(|named| {
        format!(
            "--impaired {named} is nobody of {subscribers} who only receive: write a larger \
             share or give more --subscribers"
        )
    })
}

/// The network of each subscriber: 0 is a good one, others are places in `impairments`, counted
/// from 1. Each gets its share of any number of them in a row, as far as whole people can have it.
pub fn networks(impairments: &[Impairment], subscribers: usize) -> Vec<usize> {
    let bad: f64 = impairments.iter().map(|it| it.share).sum();
    let mut shares = vec![1.0 - bad.min(1.0)];
    shares.extend(impairments.iter().map(|it| it.share));
    let mut credits = vec![0.0; shares.len()];
    let next = |_| {
        for (credit, share) in credits.iter_mut().zip(&shares) {
            *credit += share;
        }
        // Whoever waits for the longest; the last of those who do equally.
        let most = (0..credits.len()).max_by(|a, b| credits[*a].total_cmp(&credits[*b]));
        let most = most.unwrap_or(0);
        credits[most] -= 1.0;
        most
    };
    (0..subscribers).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Impairment {
        text.parse().expect("an impairment")
    }

    #[test]
    fn what_is_written_is_read_and_written_again() {
        let all = parsed(EXAMPLE);
        let expected = Impairment {
            share: 0.2,
            loss: 0.02,
            delay: Duration::from_millis(40),
            jitter: Duration::from_millis(10),
            rate: Some(Bitrate::kbps(1500)),
        };
        assert_eq!(all, expected);
        for text in [EXAMPLE, "100%:loss=0.5", "7.5%:rate=500k", "1%:delay=0.25"] {
            assert_eq!(parsed(text).to_string(), text);
        }
        assert_eq!(parsed("5%:rate=1.5M").rate, Some(Bitrate::kbps(1500)));
        assert_eq!(parsed("5%:rate=64000").rate, Some(RATE_MIN));
        assert_eq!(parsed("5%:delay=0").to_string(), "5%:loss=0");
    }

    #[test]
    fn delay_and_loss_are_both_ways_and_the_bottleneck_is_down() {
        let all = parsed(EXAMPLE);
        assert_eq!((all.up().len(), all.down().len()), (3, 4));
        assert!(matches!(all.down()[0], Element::Rate(..)));
        assert_eq!(all.down()[1..], all.up());
        let rate = parsed("1%:rate=1M");
        assert_eq!((rate.up().len(), rate.down().len()), (0, 1));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        for (text, named, remedy) in [
            ("", "write a share", EXAMPLE),
            ("20%", "write a share", EXAMPLE),
            ("20:loss=2", "write a share", EXAMPLE),
            ("20%:", "write a share", EXAMPLE),
            ("20%:loss", "write a share", EXAMPLE),
            ("x%:loss=2", "x%", "from 0 to 100"),
            ("101%:loss=2", "101%", "from 0 to 100"),
            ("0%:loss=2", "0%", "larger"),
            ("9%:loss=51", "loss=51", "percent from 0 to 50"),
            ("9%:loss=NaN", "loss=NaN", "percent from 0 to 50"),
            ("9%:delay=-1", "delay=-1", "milliseconds from 0 to 2000"),
            ("9%:jitter=2001", "jitter=2001", "from 0 to 2000"),
            ("9%:rate=63k", "rate=63k", "from 64k to 10000M"),
            ("9%:rate=11000M", "rate=11000M", "from 64k to 10000M"),
            ("9%:rate=fast", "rate=fast", "as in 500k"),
            ("9%:color=red", "color=red", "write loss, delay"),
            ("9%:loss=1,loss=2", "loss is there twice", "leave one out"),
        ] {
            let problem = text.parse::<Impairment>().expect_err(text);
            assert!(
                problem.contains(named) && problem.contains(remedy),
                "{text}: {problem}"
            );
        }
    }

    #[test]
    fn shares_are_spread_over_all() {
        let bad = [parsed("25%:loss=1"), parsed("25%:loss=2")];
        let networks = networks(&bad, 400);
        for (network, count) in [(0, 200), (1, 100), (2, 100)] {
            let of_it = networks.iter().filter(|it| **it == network).count();
            assert_eq!(of_it, count, "{network}");
            // In every ten of a room there are some.
            let rooms = networks.chunks(10);
            assert!(rooms.into_iter().all(|room| room.contains(&network)));
        }
        assert_eq!(super::networks(&[], 3), [0, 0, 0]);
        assert_eq!(super::networks(&[parsed("100%:loss=1")], 2), [1, 1]);
        assert_eq!(super::networks(&[parsed("50%:loss=1")], 2), [1, 0]);
    }

    #[test]
    fn shares_that_nobody_can_have_are_refused() {
        let problem = |texts: &[&str], subscribers| {
            let all: Vec<_> = texts.iter().map(|text| parsed(text)).collect();
            problem(&all, subscribers).unwrap_or_default()
        };
        assert_eq!(problem(&["60%:loss=1", "40%:loss=1"], 5), "");
        assert_eq!(problem(&["33.3%:loss=1"; 3], 9), "");
        assert!(problem(&["60%:loss=1", "41%:loss=1"], 9).contains("101 %"));
        assert!(problem(&["10%:loss=1"], 3).contains("10%:loss=1 is nobody of 3"));
        assert!(problem(&["10%:loss=1"], 0).contains("give --subscribers"));
        assert!(problem(&["1%:loss=1"; 9], 999).contains("more than 8 times"));
    }
}

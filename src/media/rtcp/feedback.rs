//! Writing the RTCP of a receiver: reports, NACK, PLI and transport-wide feedback. The shard is one
//! to those who publish; simulated clients and those of the load tester are.

use std::time::{Duration, Instant};

use super::ReportBlock;

/// Receiver report (RFC 3550 section 6.4.2).
pub fn write_receiver_report(out: &mut Vec<u8>, sender: u32, blocks: &[ReportBlock]) {
    for blocks in blocks.chunks(31) {
        let words = 1 + 6 * blocks.len();
        header(out, blocks.len() as u8, 201, words);
        out.extend(sender.to_be_bytes());
        for block in blocks {
            let lost = u32::from(block.fraction_lost) << 24 | block.lost as u32 & 0xff_ffff;
            let ssrc: u32 = *block.ssrc;
            for word in [
                ssrc,
                lost,
                block.seq_max,
                block.jitter,
                block.last_report,
                block.delay,
            ] {
                out.extend(word.to_be_bytes());
            }
        }
    }
}

/// NACK of sorted sequence numbers (RFC 4585 section 6.2.1).
pub fn write_nack(out: &mut Vec<u8>, sender: u32, media: u32, lost: &[u16]) {
    let mut entries: Vec<(u16, u16)> = Vec::new();
    for seq in lost {
        match entries.last_mut() {
            Some((first, mask)) if (1..=16).contains(&seq.wrapping_sub(*first)) => {
                *mask |= 1 << (seq.wrapping_sub(*first) - 1);
            }
            _ => entries.push((*seq, 0)),
        }
    }
    header(out, 1, 205, 2 + entries.len());
    out.extend(sender.to_be_bytes());
    out.extend(media.to_be_bytes());
    for (seq, mask) in entries {
        out.extend(seq.to_be_bytes());
        out.extend(mask.to_be_bytes());
    }
}

/// Picture loss indication (RFC 4585 section 6.3.1).
pub fn write_pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    header(out, 1, 206, 2);
    out.extend(sender.to_be_bytes());
    out.extend(media.to_be_bytes());
}

fn header(out: &mut Vec<u8>, count: u8, kind: u8, words: usize) {
    out.extend([2 << 6 | count, kind]);
    out.extend((words as u16).to_be_bytes());
}

/// Which numbered packets arrived, since the last report and when.
#[derive(Debug)]
pub struct Twcc {
    start: Instant,
    /// Extended numbers and times, in order of arrival.
    arrived: Vec<(u64, Instant)>,
    /// The number after all that were reported.
    next: Option<u64>,
    newest: u64,
    reports: u8,
}

/// Most packets one report speaks of.
const STATUS_MAX: u64 = 1000;

/// Numbers that can wait for a report, far more than come between two. A sender whose numbers jump
/// further has started anew, or means to fill our memory.
const WAITING_MAX: u64 = 16 * STATUS_MAX;

impl Twcc {
    /// Nothing arrived; times count from `start`.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            arrived: Vec::new(),
            next: None,
            newest: 0,
            reports: 0,
        }
    }

    /// A packet with this transport-wide number arrived.
    pub fn note(&mut self, number: u16, now: Instant) {
        let seq = match self.next {
            None => u64::from(number) + (1 << 16),
            Some(_) => {
                let ahead = number.wrapping_sub(self.newest as u16) as i16;
                self.newest.saturating_add_signed(ahead.into())
            }
        };
        let mut next = *self.next.get_or_insert(seq);
        if seq.saturating_sub(next) > WAITING_MAX {
            self.arrived.clear();
            next = seq;
            self.next = Some(seq);
        }
        self.newest = self.newest.max(seq);
        // What arrives after its number was reported lost stays so, as in browsers.
        if seq >= next {
            self.arrived.push((seq, now));
        }
    }

    /// Writes a report of what arrived since the last one, if anything did.
    pub fn write(&mut self, out: &mut Vec<u8>, sender: u32, media: u32) -> bool {
        let Some(base) = self.next.filter(|_| !self.arrived.is_empty()) else {
            return false;
        };
        self.arrived.sort_unstable();
        self.arrived.dedup_by_key(|(seq, _)| *seq);
        let newest = self.arrived[self.arrived.len() - 1]
            .0
            .min(base + STATUS_MAX - 1);
        let count = newest - base + 1;
        let ticks = |at: Instant| {
            (at.saturating_duration_since(self.start).as_micros() as i64) / TICK_MICROS
        };
        let reference = ticks(self.arrived[0].1) / 256;
        let mut last = reference * 256;
        let (mut symbols, mut deltas) = (vec![0u8; count as usize], Vec::new());
        for (seq, at) in self.arrived.iter().filter(|(seq, _)| *seq <= newest) {
            let delta = ticks(*at) - last;
            last = ticks(*at);
            symbols[(seq - base) as usize] = match u8::try_from(delta) {
                Ok(small) => {
                    deltas.push(small);
                    1
                }
                Err(_) => {
                    let large = delta.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
                    deltas.extend(large.to_be_bytes());
                    2
                }
            };
        }
        let mut body = Vec::new();
        body.extend((base as u16).to_be_bytes());
        body.extend((count as u16).to_be_bytes());
        body.extend(((reference as u32) << 8 | u32::from(self.reports)).to_be_bytes());
        for chunk in symbols.chunks(7) {
            // Two bits for each of seven packets.
            let bits =
                |word: u16, (at, symbol): (usize, &u8)| word | u16::from(*symbol) << (12 - 2 * at);
            let word = chunk.iter().enumerate().fold(3 << 14, bits);
            body.extend(word.to_be_bytes());
        }
        body.extend(deltas);
        body.resize(body.len().next_multiple_of(4), 0);
        header(out, 15, 205, 2 + body.len() / 4);
        out.extend(sender.to_be_bytes());
        out.extend(media.to_be_bytes());
        out.extend(body);
        self.reports = self.reports.wrapping_add(1);
        self.next = Some(newest + 1);
        self.arrived.retain(|(seq, _)| *seq > newest);
        true
    }
}

const TICK_MICROS: i64 = 250;

/// How often a receiver reports what arrived: senders want that every 50 to 100 ms.
pub const TWCC_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rtcp::{self, Item};

    #[test]
    fn numbers_that_jump_wait_for_no_report() {
        let start = Instant::now();
        let mut twcc = Twcc::new(start);
        for jump in 0..100_000_u32 {
            twcc.note((jump * 16_100) as u16, start);
            assert!(twcc.arrived.len() <= 1);
        }
        // Where it jumped last, all goes on as before.
        let last = (99_999_u32 * 16_100) as u16;
        twcc.note(last.wrapping_add(2), start);
        let mut out = Vec::new();
        assert!(twcc.write(&mut out, 1, 2));
        let Some(Ok(Item::Twcc(report))) = rtcp::read(&out).next() else {
            panic!("no report");
        };
        let arrived: Vec<_> = report.packets().map(|(_, at)| at.is_some()).collect();
        assert_eq!(arrived, [true, false, true]);
    }

    #[test]
    fn what_is_written_reads_back() {
        let start = Instant::now();
        let mut twcc = Twcc::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        for (number, millis) in [(65_534, 100), (65_535, 101), (1, 300), (0, 299), (9, 300)] {
            twcc.note(number, at(millis));
        }
        let mut out = Vec::new();
        write_nack(&mut out, 1, 2, &[10, 11, 26, 27, 900]);
        write_pli(&mut out, 1, 3);
        assert!(twcc.write(&mut out, 1, 2));
        assert!(!twcc.write(&mut Vec::new(), 1, 2), "nothing new");
        let items: Vec<_> = rtcp::read(&out)
            .map(|item| item.expect("well formed"))
            .collect();
        let [
            Item::Nack { media, lost },
            Item::Pli(pli),
            Item::Twcc(report),
        ] = &items[..]
        else {
            panic!("{items:?}");
        };
        assert_eq!((**media, **pli), (2, 3));
        assert_eq!(lost.clone().collect::<Vec<_>>(), [10, 11, 26, 27, 900]);
        let first = 100_000;
        let arrived: Vec<_> = report
            .packets()
            .filter_map(|(seq, at)| Some((seq, at?.micros() - first)))
            .collect();
        let expected = [
            (65_534, 0),
            (65_535, 1000),
            (0, 199_000),
            (1, 200_000),
            (9, 200_000),
        ];
        assert_eq!(arrived, expected);
    }
}

//! What is counted of everything that comes, by all participants together.

use std::time::Duration;

use super::histogram::Histogram;
use super::incoming::Counts;
use super::publisher::Sent;

/// Counts since the measurement began.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// What was sent.
    pub sent: Sent,
    /// Media datagrams received, repetitions included.
    pub received: u64,
    /// Their bytes, as they came.
    pub bytes: u64,
    /// Of them, repetitions and probes on streams of their own.
    pub repeated: u64,
    /// Packets that were opened and looked into.
    pub opened: u64,
    /// Of those that were to be opened, those that could not be.
    pub unopened: u64,
    /// Of those that were opened, those without a stamp: padding, or what a server has damaged.
    pub unstamped: u64,
    /// Packets of the received layers that the server left out by its own choice, as far as the
    /// sample shows.
    pub left_out: u64,
    /// From a sender to the kernel of the receiver, of the packets that were opened.
    pub delay: Histogram,
    /// The same since the last second began.
    pub delay_now: Histogram,
}

impl Tally {
    /// A packet took so long.
    pub fn note_delay(&mut self, delay: Duration) {
        self.delay.add(delay);
        self.delay_now.add(delay);
    }

    /// Adds what others counted; what is of this second stays with them.
    pub fn add(&mut self, other: &Tally) {
        self.note_sent(other.sent);
        self.received += other.received;
        self.bytes += other.bytes;
        self.repeated += other.repeated;
        self.opened += other.opened;
        self.unopened += other.unopened;
        self.unstamped += other.unstamped;
        self.left_out += other.left_out;
        self.delay.merge(&other.delay);
    }

    /// Adds what was sent.
    pub fn note_sent(&mut self, sent: Sent) {
        self.sent.packets += sent.packets;
        self.sent.late += sent.late;
        self.sent.refused += sent.refused;
    }
}

/// What one second was like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Second {
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What became of packets that should have been.
    pub counts: Counts,
    /// Half of the delays were at most that.
    pub p50: Option<Duration>,
    /// 99 of 100 were at most that.
    pub p99: Option<Duration>,
    /// Pictures received in each layer.
    pub layers: [u64; 3],
    /// Pictures that nothing came of.
    pub silent: u64,
}

impl Second {
    /// Adds what others saw in the same second, but for the delays.
    pub fn add(&mut self, other: &Second) {
        self.sent += other.sent;
        self.received += other.received;
        self.bytes += other.bytes;
        self.counts.add(other.counts);
        for (layer, count) in self.layers.iter_mut().zip(other.layers) {
            *layer += count;
        }
        self.silent += other.silent;
    }
}

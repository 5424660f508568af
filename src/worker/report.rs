//! What a worker publishes once a second: its shard's counters and its own.
//!
//! Reports are absolute, so a lost one costs only freshness. They travel through a watch channel,
//! outside the packet path; `metrics` adds them up.

use std::time::{Duration, Instant};

use crate::media::counters::{Counters, FORWARD_BOUNDS, Histogram};

/// Time between two reports.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// One worker's numbers.
#[derive(Debug, Clone)]
pub struct Report {
    /// When it was made.
    pub at: Instant,
    /// Of the shard.
    pub shard: Counters,
    /// Of the worker.
    pub worker: Tally,
    /// Busy time by wall time over the last interval, 0 to 1. Gauge.
    pub load: f64,
}

impl Report {
    /// Of a worker that hasn't turned yet.
    pub fn empty(now: Instant) -> Self {
        Self {
            at: now,
            shard: Counters::default(),
            worker: Tally::default(),
            load: 0.0,
        }
    }
}

/// What a worker counts beside its shard.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Turns with at least one readable socket.
    pub wakes_packets: u64,
    /// Turns with mail.
    pub wakes_mail: u64,
    /// Turns with something from the door or another worker.
    pub wakes_handed: u64,
    /// Turns with something of a room that is on several workers.
    pub wakes_relay: u64,
    /// Turns at a deadline.
    pub wakes_timer: u64,
    /// Sleeps in which datagrams gathered.
    pub rests: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams the kernel took.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Receive calls that yielded something.
    pub receive_batches: u64,
    /// Receive calls that failed, other than for want of datagrams.
    pub receive_errors: u64,
    /// Send calls that succeeded; less than datagrams when runs leave together.
    pub send_batches: u64,
    /// Turns that ended at a bound with work left for the next.
    pub turns_cut: u64,
    /// Events that nobody took in time.
    pub events_lost: u64,
    /// Datagrams that were for another worker on the same port.
    pub handed_over: u64,
    /// Sockets of single participants. Gauge.
    pub flows: u64,
    /// TCP connections that were kept.
    pub tcp_connections: u64,
    /// TCP connections whose first frame was not what a participant here sends.
    pub tcp_refused: u64,
    /// Frames that came over TCP.
    pub tcp_frames_in: u64,
    /// TCP connections. Gauge.
    pub streams: u64,
    /// Batch received to copies sent, per copy.
    pub forward_delay_seconds: Histogram,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            wakes_packets: 0,
            wakes_mail: 0,
            wakes_handed: 0,
            wakes_relay: 0,
            wakes_timer: 0,
            rests: 0,
            datagrams_in: 0,
            bytes_in: 0,
            datagrams_out: 0,
            bytes_out: 0,
            receive_batches: 0,
            receive_errors: 0,
            send_batches: 0,
            turns_cut: 0,
            events_lost: 0,
            handed_over: 0,
            flows: 0,
            tcp_connections: 0,
            tcp_refused: 0,
            tcp_frames_in: 0,
            streams: 0,
            forward_delay_seconds: Histogram::new(FORWARD_BOUNDS),
        }
    }
}

impl Tally {
    /// Adds another worker's numbers.
    pub fn add(&mut self, other: &Tally) {
        self.wakes_packets += other.wakes_packets;
        self.wakes_mail += other.wakes_mail;
        self.wakes_handed += other.wakes_handed;
        self.wakes_relay += other.wakes_relay;
        self.wakes_timer += other.wakes_timer;
        self.rests += other.rests;
        self.datagrams_in += other.datagrams_in;
        self.bytes_in += other.bytes_in;
        self.datagrams_out += other.datagrams_out;
        self.bytes_out += other.bytes_out;
        self.receive_batches += other.receive_batches;
        self.receive_errors += other.receive_errors;
        self.send_batches += other.send_batches;
        self.turns_cut += other.turns_cut;
        self.events_lost += other.events_lost;
        self.handed_over += other.handed_over;
        self.flows += other.flows;
        self.tcp_connections += other.tcp_connections;
        self.tcp_refused += other.tcp_refused;
        self.tcp_frames_in += other.tcp_frames_in;
        self.streams += other.streams;
        self.forward_delay_seconds.add(&other.forward_delay_seconds);
    }
}

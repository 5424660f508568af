//! Families of the workers: turns, sockets, load.

use prometheus::proto::MetricType;

use super::page::{Page, gauge, label};
use crate::worker::report::{Report, Tally};

impl Page {
    pub(super) fn worker(&mut self, worker: &Tally, dropped: u64) {
        self.counters(
            "worker_wakes_total",
            "Turns of the workers, by what woke them.",
            ("reason", &["packets", "mail", "handed", "relay", "timer"]),
            &[
                worker.wakes_packets,
                worker.wakes_mail,
                worker.wakes_handed,
                worker.wakes_relay,
                worker.wakes_timer,
            ],
        );
        self.counter(
            "worker_rests_total",
            "Times a worker slept for a moment so that datagrams gathered.",
            worker.rests,
        );
        self.counter(
            "worker_turns_cut_total",
            "Times a bound on work ended a turn with work left for the next.",
            worker.turns_cut,
        );
        self.counter(
            "udp_datagrams_in_total",
            "Datagrams received on media sockets, of any kind.",
            worker.datagrams_in,
        );
        self.counter(
            "udp_bytes_in_total",
            "Bytes of the datagrams received.",
            worker.bytes_in,
        );
        self.counter(
            "udp_datagrams_out_total",
            "Datagrams the kernel took for sending.",
            worker.datagrams_out,
        );
        self.counter(
            "udp_bytes_out_total",
            "Bytes of the datagrams sent.",
            worker.bytes_out,
        );
        self.counter(
            "udp_receive_batches_total",
            "Receive calls that yielded datagrams.",
            worker.receive_batches,
        );
        self.counter(
            "udp_send_batches_total",
            "Send calls that succeeded; fewer than datagrams when runs leave together.",
            worker.send_batches,
        );
        self.counter(
            "udp_receive_errors_total",
            "Receive calls that failed.",
            worker.receive_errors,
        );
        self.counter(
            "kernel_dropped_datagrams_total",
            "Datagrams that the kernel dropped because the buffer of a media socket was full.",
            dropped,
        );
        self.histogram(
            "forward_delay_seconds",
            "Time from reading a batch of datagrams to having sent the copies, per copy.",
            &worker.forward_delay_seconds,
        );
    }

    pub(super) fn load(&mut self, reports: &[Report]) {
        let ratio = |(id, report): (usize, &Report)| {
            gauge(report.load, vec![label("worker", &id.to_string())])
        };
        self.push(
            "worker_load_ratio",
            "Share of the last second in which the worker was busy.",
            MetricType::GAUGE,
            reports.iter().enumerate().map(ratio).collect(),
        );
    }
}

//! What is counted of ports that workers share: of UDP where they are told to, and of TCP.

use std::sync::atomic::{AtomicU64, Ordering};

use super::page::Page;
use crate::worker::report::Tally;
use crate::worker::tcp;

impl Page {
    pub(super) fn ports(&mut self, worker: &Tally, tcp: &tcp::Stats) {
        self.counter(
            "udp_handed_over_total",
            "Checks that came to another worker of the same port than theirs.",
            worker.handed_over,
        );
        self.gauge(
            "udp_flows",
            "Sockets of single participants on a shared port.",
            worker.flows,
        );
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.counters(
            "tcp_connections_total",
            "Media connections over TCP, by outcome.",
            ("outcome", &["taken", "stranger", "refused", "failed"]),
            &[
                worker.tcp_connections,
                read(&tcp.strangers),
                read(&tcp.refused) + worker.tcp_refused,
                read(&tcp.failed),
            ],
        );
        self.gauge(
            "tcp_connections",
            "Media connections over TCP.",
            worker.streams,
        );
        self.counter(
            "tcp_frames_in_total",
            "Frames received over TCP.",
            worker.tcp_frames_in,
        );
    }
}

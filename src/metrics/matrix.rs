//! What is counted of Matrix users, their homeservers, and the leaves they entrust to us.

use std::sync::atomic::{AtomicU64, Ordering};

use super::page::Page;
use crate::signal::Stats;

impl Page {
    pub(super) fn matrix(&mut self, signal: &Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.counters(
            "matrix_requests_total",
            "Requests of Matrix users and their homeserver, by outcome.",
            ("outcome", &["ok", "error"]),
            &[read(&signal.matrix_requests), read(&signal.matrix_refusals)],
        );
        self.counter(
            "matrix_members_removed_total",
            "Participants removed because they are not in the Matrix room any more.",
            read(&signal.members_removed),
        );
        self.counters(
            "matrix_leaves_total",
            "What was done about leaves that clients have entrusted.",
            ("deed", &["restarted", "sent", "retried", "given_up"]),
            &[
                read(&signal.leaves_restarted),
                read(&signal.leaves_sent),
                read(&signal.leave_failures),
                read(&signal.leaves_given_up),
            ],
        );
    }

    pub(super) fn homeservers(&mut self, signal: &Stats) {
        let (outcomes, tokens) = signal.homeservers.tokens();
        self.counters(
            "matrix_openid_total",
            "OpenID tokens of Matrix users, by what asking their homeserver came to.",
            ("outcome", &outcomes),
            &tokens,
        );
        self.counters(
            "matrix_calls_total",
            "Calls of homeservers' client-server APIs, by whether an answer came.",
            ("outcome", &["answered", "failed"]),
            &signal.homeservers.calls(),
        );
    }
}

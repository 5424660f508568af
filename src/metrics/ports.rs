//! What is counted of ports that workers share.

use super::page::Page;
use crate::worker::report::Tally;

impl Page {
    pub(super) fn ports(&mut self, worker: &Tally) {
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
    }
}

//! What is counted, as families of the Prometheus text format.
//!
//! One place gives every metric its name, help text and labels. Workers are summed up; the label
//! `worker` exists for load only, and no label grows with rooms or people. What the numbers mean
//! for an operator stands in `docs/metrics.md`; a test holds the two together.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::{MetricFamily, MetricType};

use super::page::{Page, gauge, label};
use crate::media::counters::{Counters, Dropped};
use crate::media::message::LeaveReason;
use crate::signal::Stats;
use crate::worker::report::{Report, Tally};
use crate::worker::tcp;

const KINDS: [&str; 2] = ["audio", "video"];
const SUITES: [&str; 3] = [
    "aes_cm_128_hmac_sha1_80",
    "aead_aes_128_gcm",
    "aead_aes_256_gcm",
];

/// All families, from the last report of each worker, from signalling, and from the kernel, which
/// has dropped so many datagrams.
pub fn families(
    reports: &[Report],
    signal: &Stats,
    tcp: &tcp::Stats,
    dropped: u64,
) -> Vec<MetricFamily> {
    let mut shard = Counters::default();
    let mut worker = Tally::default();
    for report in reports {
        shard.add(&report.shard);
        worker.add(&report.worker);
    }
    let mut page = Page::default();
    page.build_info();
    page.people(&shard);
    page.packets(&shard);
    page.repair(&shard);
    page.data(&shard);
    page.worker(&worker, dropped);
    page.ports(&worker, tcp);
    page.load(reports);
    page.signal(signal);
    page.servers(signal, &worker);
    page.homeservers(signal);
    page.matrix(signal);
    page.refusals(signal);
    page.into_families()
}

impl Page {
    fn build_info(&mut self) {
        let version = [label("version", env!("CARGO_PKG_VERSION"))];
        self.push(
            "build_info",
            "Always 1; the label says which version runs.",
            MetricType::GAUGE,
            vec![gauge(1.0, version.into())],
        );
    }

    fn people(&mut self, shard: &Counters) {
        self.gauge("rooms", "Rooms that are open.", shard.rooms);
        self.gauge(
            "room_branches",
            "Parts of rooms on further workers, one for each worker beside the first.",
            shard.branches,
        );
        self.gauge(
            "participants",
            "Participants who have joined and not left.",
            shard.participants,
        );
        self.gauges(
            "tracks",
            "Published tracks.",
            ("kind", &KINDS),
            &shard.tracks,
        );
        self.gauges(
            "subscriptions",
            "Tracks that are forwarded to somebody, once per receiver.",
            ("kind", &KINDS),
            &shard.subscriptions,
        );
        self.counter("joins_total", "Joins that were accepted.", shard.joins);
        self.counter(
            "resumes_total",
            "Stays that clients took up again after their signalling had broken.",
            shard.resumes,
        );
        self.counters(
            "leaves_total",
            "Stays that ended, by reason.",
            ("reason", &LeaveReason::ALL.map(LeaveReason::label)),
            &shard.leaves,
        );
        self.counter(
            "peer_panics_total",
            "Faults of the program that ended one participant. Each is a bug to report.",
            shard.peer_panics,
        );
        self.histogram(
            "join_seconds",
            "Time from a join to connected media.",
            &shard.join_seconds,
        );
        self.histogram(
            "first_packet_seconds",
            "Time from a subscription to its first forwarded packet.",
            &shard.first_packet_seconds,
        );
        self.histogram(
            "hold_seconds",
            "Time that packets wait for the end of their frame, weighted by copies.",
            &shard.hold_seconds,
        );
        self.histogram(
            "round_trip_seconds",
            "Network round trip to subscribers, taken with each sender report.",
            &shard.round_trip_seconds,
        );
        self.counters(
            "srtp_sessions_total",
            "Peers whose media was connected, by SRTP protection profile.",
            ("suite", &SUITES),
            &shard.srtp_suites,
        );
    }

    fn packets(&mut self, shard: &Counters) {
        self.counter(
            "packets_in_total",
            "RTP packets of publishers that were opened.",
            shard.packets_in,
        );
        self.counter(
            "bytes_in_total",
            "Bytes of the RTP packets of publishers.",
            shard.bytes_in,
        );
        self.counter(
            "packets_out_total",
            "RTP packets sealed for subscribers, retransmissions included.",
            shard.packets_out,
        );
        self.counter(
            "padding_packets_out_total",
            "RTP packets of nothing but padding, which show what a subscriber's link carries.",
            shard.padding_out,
        );
        self.counter(
            "relay_packets_out_total",
            "RTP packets handed to other workers, once for each that has subscribers.",
            shard.relayed_out,
        );
        self.counter(
            "relay_packets_in_total",
            "RTP packets that other workers handed over.",
            shard.relayed_in,
        );
        self.counter(
            "bytes_out_total",
            "Bytes of the RTP packets for subscribers.",
            shard.bytes_out,
        );
        self.counters(
            "dropped_total",
            "Packets and messages that were discarded, by reason.",
            ("reason", &Dropped::ALL.map(Dropped::label)),
            &shard.dropped,
        );
    }

    fn repair(&mut self, shard: &Counters) {
        self.counter(
            "nacks_received_total",
            "Packets that subscribers reported missing.",
            shard.nacks_received,
        );
        self.counter(
            "nacks_sent_total",
            "Packets that were reported missing to publishers.",
            shard.nacks_sent,
        );
        self.counter(
            "retransmits_total",
            "Packets sent again to subscribers.",
            shard.retransmits,
        );
        self.counter(
            "retransmits_missed_total",
            "Packets asked for again that were too old or over the budget.",
            shard.retransmits_missed,
        );
        self.counter(
            "plis_received_total",
            "Key frame requests of subscribers.",
            shard.plis_received,
        );
        self.counter(
            "plis_withheld_total",
            "Key frame requests that were not passed on, as one subscriber asks too often.",
            shard.plis_withheld,
        );
        self.counter(
            "plis_sent_total",
            "Key frame requests to publishers, merged and throttled.",
            shard.plis_sent,
        );
        self.counter(
            "layer_switches_total",
            "Changes of the forwarded layer that took effect.",
            shard.layer_switches,
        );
        self.counter(
            "layer_demands_total",
            "Times a publisher was told which layers of a video anybody wants.",
            shard.demands,
        );
        self.counter(
            "video_pauses_total",
            "Videos paused because not even the smallest picture fitted.",
            shard.pauses,
        );
    }

    fn data(&mut self, shard: &Counters) {
        self.counter(
            "data_messages_in_total",
            "Data messages of participants.",
            shard.data_in,
        );
        self.counter(
            "data_bytes_in_total",
            "Bytes of the data messages of participants.",
            shard.data_bytes_in,
        );
        self.counter(
            "data_messages_out_total",
            "Data messages to participants, one for each receiver.",
            shard.data_out,
        );
        self.counter(
            "data_bytes_out_total",
            "Bytes of the data messages to participants.",
            shard.data_bytes_out,
        );
    }

    fn signal(&mut self, signal: &Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.counter(
            "http_connections_total",
            "TCP connections of clients that were taken.",
            read(&signal.connections),
        );
        self.counter(
            "http_connections_refused_total",
            "TCP connections closed at once, because their address had too many.",
            read(&signal.connections_refused),
        );
        self.counter(
            "http_accept_failures_total",
            "Times a connection could not be taken.",
            read(&signal.accept_failures),
        );
        self.counters(
            "http_connections_failed_total",
            "TCP connections that ended with an error, by reason; also of the metrics listener.",
            ("reason", &["malformed", "timeout", "io"]),
            &[
                read(&signal.http_malformed),
                read(&signal.http_timeouts),
                read(&signal.http_broken),
            ],
        );
        self.counters(
            "http_responses_total",
            "HTTP answers, by class of status.",
            ("class", &["ok", "client_error", "server_error"]),
            &[
                read(&signal.http_ok),
                read(&signal.http_client_errors),
                read(&signal.http_server_errors),
            ],
        );
        self.gauge(
            "signal_sessions",
            "Signalling sessions that are open.",
            read(&signal.sessions_open),
        );
        self.counter(
            "signal_messages_in_total",
            "Signalling messages read.",
            read(&signal.messages_in),
        );
        self.counter(
            "signal_messages_out_total",
            "Signalling messages written.",
            read(&signal.messages_out),
        );
        self.counter(
            "signal_resumes_unknown_total",
            "Resumes of sessions that are not known.",
            read(&signal.resumes_unknown),
        );
        self.counter(
            "signal_rate_limited_total",
            "Times a session had to wait because it sent too many messages or bytes.",
            read(&signal.rate_limited),
        );
    }

    fn servers(&mut self, signal: &Stats, worker: &Tally) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.counters(
            "api_calls_total",
            "Calls of the server API, by outcome.",
            ("outcome", &["ok", "error"]),
            &[read(&signal.api_calls), read(&signal.api_errors)],
        );
        self.counters(
            "control_requests_total",
            "Requests of the control socket, by outcome.",
            ("outcome", &["ok", "error"]),
            &[read(&signal.control_requests), read(&signal.control_errors)],
        );
        self.counter(
            "revocations_forgotten_total",
            "Removals of participants that were forgotten before their time.",
            read(&signal.revocations_forgotten),
        );
        self.counters(
            "webhook_events_total",
            "Events for webhooks, by what became of them.",
            ("outcome", &["delivered", "failed", "dropped"]),
            &[
                read(&signal.webhooks_delivered),
                read(&signal.webhooks_failed),
                read(&signal.webhooks_dropped) + worker.events_lost,
            ],
        );
    }

    fn refusals(&mut self, signal: &Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.counters(
            "joins_refused_total",
            "Joins that were refused, by reason.",
            (
                "reason",
                &[
                    "token",
                    "malformed",
                    "room_missing",
                    "full",
                    "draining",
                    "internal",
                ],
            ),
            &[
                read(&signal.refused_token),
                read(&signal.refused_malformed),
                read(&signal.refused_room_missing),
                read(&signal.refused_full),
                read(&signal.refused_draining),
                read(&signal.refused_internal),
            ],
        );
        self.counters(
            "signal_sessions_closed_total",
            "Sessions closed for what the client did, by reason.",
            (
                "reason",
                &["slow_reader", "malformed", "oversized", "offer_oversized"],
            ),
            &[
                read(&signal.slow_readers),
                read(&signal.malformed_messages),
                read(&signal.oversized_messages),
                read(&signal.oversized_offers),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn report() -> Report {
        let mut report = Report::empty(Instant::now());
        report.shard.rooms = 2;
        report.shard.tracks = [3, 1];
        report.shard.drop(Dropped::NotMedia);
        report.load = 0.25;
        let delay = &mut report.worker.forward_delay_seconds;
        delay.observe(Duration::from_micros(30), 50);
        report
    }

    fn text(reports: &[Report]) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&families(
                reports,
                &Stats::default(),
                &tcp::Stats::default(),
                6,
            ))
            .expect("families are well formed")
    }

    #[test]
    fn workers_are_summed_up_and_only_load_is_told_apart() {
        let text = text(&[report(), report()]);
        for line in [
            "stellwerk_rooms 4",
            "stellwerk_tracks{kind=\"audio\"} 6",
            "stellwerk_dropped_total{reason=\"not_media\"} 2",
            "stellwerk_forward_delay_seconds_bucket{le=\"0.00005\"} 100",
            "stellwerk_forward_delay_seconds_count 100",
            "stellwerk_worker_load_ratio{worker=\"1\"} 0.25",
            "stellwerk_kernel_dropped_datagrams_total 6",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_metric_is_documented_and_every_documented_one_exists() {
        let page = include_str!("../../docs/metrics.md");
        let documented: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
            .collect();
        let families = families(&[report()], &Stats::default(), &tcp::Stats::default(), 0);
        let exposed: Vec<&str> = families.iter().map(|family| family.name()).collect();
        for name in &exposed {
            assert!(
                documented.contains(name),
                "{name} is not in docs/metrics.md"
            );
        }
        for name in &documented {
            assert!(
                exposed.contains(name),
                "{name} is documented but not exposed"
            );
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for family in families(&[report()], &Stats::default(), &tcp::Stats::default(), 0) {
            let name = family.name();
            let total = name.ends_with("_total");
            assert_eq!(
                family.get_field_type() == MetricType::COUNTER,
                total,
                "{name}"
            );
            assert!(!family.help().is_empty(), "{name}");
        }
    }
}

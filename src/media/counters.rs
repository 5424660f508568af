//! What a shard counts. Plain integers, owned by the shard and copied out once a second; absolute,
//! so that a lost report costs only freshness.

use std::time::Duration;

use super::message::LeaveReason;

/// Why something was discarded. One variant is one value of the metric label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Dropped {
    /// Neither the 5-tuple nor a STUN user name belongs to a peer here.
    UnknownAddress,
    /// STUN that is malformed or fails its integrity check.
    StunInvalid,
    /// Too short, or a first byte that is none of STUN, DTLS, RTP or RTCP.
    NotMedia,
    /// DTLS that the peer's state machine refused.
    DtlsInvalid,
    /// RTP that could not be opened, or belongs to no negotiated stream.
    RtpInvalid,
    /// SRTCP that could not be opened or was replayed.
    RtcpInvalid,
    /// RTCP whose structure is broken.
    RtcpMalformed,
    /// RTP of a stream that no published track claims (yet).
    TrackUnknown,
    /// RTP of a payload type that stands for no codec we forward, or that a subscriber can't read.
    CodecUnknown,
    /// RTP of a muted track.
    Muted,
    /// Sound of somebody who isn't among the loudest of a large room.
    NotLoudest,
    /// The token doesn't allow publishing this.
    NotAllowed,
    /// A late copy of a packet that was already forwarded, or one too old to place.
    Late,
    /// Not sent because the leg's keys or address aren't there yet.
    NotConnected,
    /// A packet that would have reused a sequence number of an SSRC: never sealed.
    SealIndexReused,
    /// The publisher is over its packet rate.
    PacketRate,
    /// A datagram of our own that the kernel didn't take.
    SendFailed,
    /// The token doesn't allow sending data.
    DataNotAllowed,
    /// The sender is over its rate of data messages.
    DataRate,
    /// A data message that is too long or can't be read.
    DataMalformed,
    /// A reliable data message that came before, sent again by a client that resumed.
    DataRepeated,
    /// A data message for the server, which has no use for it, or an empty one.
    DataPrivate,
    /// A data channel that is none of ours.
    DataUnknownChannel,
    /// Data for a receiver that has no such channel open.
    DataNoChannel,
    /// Data for a receiver that doesn't keep up.
    DataQueueFull,
    /// A check for another worker on the same port, for whom too many wait.
    HandOverFull,
    /// No socket could be opened for a participant on a shared port: what it sends may not arrive.
    NoSocket,
    /// Too much waits for a connection over TCP, or it is gone.
    TcpQueueFull,
    /// A worker doesn't keep up with what others hand it for its people of a room.
    RelayFull,
    /// Too much waits to be paced for a receiver.
    PacerFull,
    /// A peer that already ended, or a subscription.
    PeerGone,
}

impl Dropped {
    /// All of them, in the order of the enum.
    pub const ALL: [Dropped; 31] = [
        Self::UnknownAddress,
        Self::StunInvalid,
        Self::NotMedia,
        Self::DtlsInvalid,
        Self::RtpInvalid,
        Self::RtcpInvalid,
        Self::RtcpMalformed,
        Self::TrackUnknown,
        Self::CodecUnknown,
        Self::Muted,
        Self::NotLoudest,
        Self::NotAllowed,
        Self::Late,
        Self::NotConnected,
        Self::SealIndexReused,
        Self::PacketRate,
        Self::SendFailed,
        Self::DataNotAllowed,
        Self::DataRate,
        Self::DataMalformed,
        Self::DataRepeated,
        Self::DataPrivate,
        Self::DataUnknownChannel,
        Self::DataNoChannel,
        Self::DataQueueFull,
        Self::HandOverFull,
        Self::NoSocket,
        Self::TcpQueueFull,
        Self::RelayFull,
        Self::PacerFull,
        Self::PeerGone,
    ];

    /// The value of the metric label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownAddress => "unknown_address",
            Self::StunInvalid => "stun_invalid",
            Self::NotMedia => "not_media",
            Self::DtlsInvalid => "dtls_invalid",
            Self::RtpInvalid => "rtp_invalid",
            Self::RtcpInvalid => "rtcp_invalid",
            Self::RtcpMalformed => "rtcp_malformed",
            Self::TrackUnknown => "track_unknown",
            Self::CodecUnknown => "codec_unknown",
            Self::Muted => "muted",
            Self::NotLoudest => "not_loudest",
            Self::NotAllowed => "not_allowed",
            Self::Late => "late",
            Self::NotConnected => "not_connected",
            Self::SealIndexReused => "seal_index_reused",
            Self::PacketRate => "packet_rate",
            Self::SendFailed => "send_failed",
            Self::DataNotAllowed => "data_not_allowed",
            Self::DataRate => "data_rate",
            Self::DataMalformed => "data_malformed",
            Self::DataRepeated => "data_repeated",
            Self::DataPrivate => "data_private",
            Self::DataUnknownChannel => "data_unknown_channel",
            Self::DataNoChannel => "data_no_channel",
            Self::DataQueueFull => "data_queue_full",
            Self::HandOverFull => "hand_over_full",
            Self::NoSocket => "no_socket",
            Self::TcpQueueFull => "tcp_queue_full",
            Self::RelayFull => "relay_full",
            Self::PacerFull => "pacer_full",
            Self::PeerGone => "peer_gone",
        }
    }
}

impl LeaveReason {
    /// All of them, in the order of the enum.
    pub const ALL: [LeaveReason; 10] = [
        Self::ClientInitiated,
        Self::DuplicateIdentity,
        Self::ServerShutdown,
        Self::StateMismatch,
        Self::JoinFailure,
        Self::SignalClosed,
        Self::ConnectionTimeout,
        Self::ParticipantRemoved,
        Self::RoomDeleted,
        Self::Internal,
    ];

    /// The value of the metric label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientInitiated => "client_initiated",
            Self::DuplicateIdentity => "duplicate_identity",
            Self::ServerShutdown => "server_shutdown",
            Self::StateMismatch => "state_mismatch",
            Self::JoinFailure => "join_failure",
            Self::SignalClosed => "signal_closed",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ParticipantRemoved => "participant_removed",
            Self::RoomDeleted => "room_deleted",
            Self::Internal => "internal",
        }
    }
}

/// A histogram over seconds with fixed upper bounds; the last bucket is everything above.
#[derive(Debug, Clone)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: [u64; Histogram::BUCKETS_MAX],
    sum: f64,
}

impl Histogram {
    /// Most buckets, the one without a bound included.
    pub const BUCKETS_MAX: usize = 16;

    /// Over `bounds` in seconds, ascending; at most 15 of them.
    pub const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() < Self::BUCKETS_MAX);
        Self {
            bounds,
            counts: [0; Self::BUCKETS_MAX],
            sum: 0.0,
        }
    }

    /// Counts `times` observations of `span`.
    pub fn observe(&mut self, span: Duration, times: u64) {
        let seconds = span.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += times;
        self.sum += seconds * times as f64;
    }

    /// Adds what another histogram with the same bounds has counted.
    pub fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    /// Pairs of upper bound and observations up to it (cumulative), without the last bucket.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds
            .iter()
            .zip(self.counts)
            .scan(0, |total, (bound, count)| {
                *total += count;
                Some((*bound, *total))
            })
    }

    /// All observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all observations, seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

/// Bounds of spans in which people wait: join, first packet. Seconds.
const WAIT_BOUNDS: &[f64] = &[
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0,
];

/// Bounds of network round trips. Seconds.
const ROUND_TRIP_BOUNDS: &[f64] = &[
    0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0,
];

/// Bounds of the time a packet spends in the process. Seconds.
pub const FORWARD_BOUNDS: &[f64] = &[
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
];

/// Everything a shard counts. Gauges say so; the rest only rises.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "metrics.rs gives each its help text")]
pub struct Counters {
    /// Gauge.
    pub rooms: u64,
    /// Gauge; parts of rooms whose home is another shard.
    pub branches: u64,
    /// Gauge.
    pub participants: u64,
    /// Gauge; by kind: audio, video.
    pub tracks: [u64; 2],
    /// Gauge; by kind: audio, video.
    pub subscriptions: [u64; 2],
    /// RTP packets of publishers, opened.
    pub packets_in: u64,
    pub bytes_in: u64,
    /// RTP packets to subscribers, sealed; retransmissions included.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// RTP packets of nothing but padding, which show what a link carries.
    pub padding_out: u64,
    /// RTP packets handed to other shards, once for each.
    pub relayed_out: u64,
    /// RTP packets that other shards handed over.
    pub relayed_in: u64,
    /// Data messages of participants.
    pub data_in: u64,
    pub data_bytes_in: u64,
    /// Data messages to participants, one for each receiver.
    pub data_out: u64,
    pub data_bytes_out: u64,
    /// By [`Dropped`].
    pub dropped: [u64; Dropped::ALL.len()],
    /// Packets that subscribers reported missing.
    pub nacks_received: u64,
    /// Packets that we reported missing to publishers.
    pub nacks_sent: u64,
    /// Retransmissions to subscribers.
    pub retransmits: u64,
    /// Asked for, but no longer in the ring or over the budget.
    pub retransmits_missed: u64,
    /// PLI and FIR from subscribers.
    pub plis_received: u64,
    /// Those that were not passed on: who sends them asks too often, and others would pay.
    pub plis_withheld: u64,
    /// PLI to publishers, merged and throttled.
    pub plis_sent: u64,
    /// Changes of layer that took effect at a key frame.
    pub layer_switches: u64,
    /// Times a publisher was told which layers of a video are wanted.
    pub demands: u64,
    /// Videos that were paused for want of bandwidth.
    pub pauses: u64,
    /// Connected peers by SRTP suite: AES-CM, AES-128-GCM, AES-256-GCM.
    pub srtp_suites: [u64; 3],
    /// Joins that were accepted.
    pub joins: u64,
    /// Stays that were taken up again by another session.
    pub resumes: u64,
    /// Ended stays by [`LeaveReason`].
    pub leaves: [u64; LeaveReason::ALL.len()],
    /// Panics that ended one participant.
    pub peer_panics: u64,
    /// Join command to connected media.
    pub join_seconds: Histogram,
    /// Subscription to the first packet forwarded on it.
    pub first_packet_seconds: Histogram,
    /// How long packets waited for the end of their frame, once for each copy.
    pub hold_seconds: Histogram,
    /// Round trip to a subscriber, each time a sender report goes.
    pub round_trip_seconds: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            rooms: 0,
            branches: 0,
            participants: 0,
            tracks: [0; 2],
            subscriptions: [0; 2],
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            padding_out: 0,
            bytes_out: 0,
            relayed_out: 0,
            relayed_in: 0,
            data_in: 0,
            data_bytes_in: 0,
            data_out: 0,
            data_bytes_out: 0,
            dropped: [0; Dropped::ALL.len()],
            nacks_received: 0,
            nacks_sent: 0,
            retransmits: 0,
            retransmits_missed: 0,
            plis_received: 0,
            plis_withheld: 0,
            plis_sent: 0,
            layer_switches: 0,
            demands: 0,
            pauses: 0,
            srtp_suites: [0; 3],
            joins: 0,
            resumes: 0,
            leaves: [0; LeaveReason::ALL.len()],
            peer_panics: 0,
            join_seconds: Histogram::new(WAIT_BOUNDS),
            first_packet_seconds: Histogram::new(WAIT_BOUNDS),
            hold_seconds: Histogram::new(FORWARD_BOUNDS),
            round_trip_seconds: Histogram::new(ROUND_TRIP_BOUNDS),
        }
    }
}

impl Counters {
    /// Counts one discarded thing.
    pub fn drop(&mut self, reason: Dropped) {
        self.dropped[reason as usize] += 1;
    }

    /// Adds those of another shard. Every field is named, so that a new one can't be forgotten.
    pub fn add(&mut self, other: &Self) {
        let Self {
            rooms,
            branches,
            participants,
            tracks,
            subscriptions,
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            padding_out,
            relayed_out,
            relayed_in,
            data_in,
            data_bytes_in,
            data_out,
            data_bytes_out,
            dropped,
            nacks_received,
            nacks_sent,
            retransmits,
            retransmits_missed,
            plis_received,
            plis_withheld,
            plis_sent,
            layer_switches,
            demands,
            pauses,
            srtp_suites,
            joins,
            resumes,
            leaves,
            peer_panics,
            join_seconds,
            first_packet_seconds,
            hold_seconds,
            round_trip_seconds,
        } = other;
        self.rooms += rooms;
        self.branches += branches;
        self.participants += participants;
        add_each(&mut self.tracks, tracks);
        add_each(&mut self.subscriptions, subscriptions);
        self.packets_in += packets_in;
        self.bytes_in += bytes_in;
        self.packets_out += packets_out;
        self.bytes_out += bytes_out;
        self.padding_out += padding_out;
        self.relayed_out += relayed_out;
        self.relayed_in += relayed_in;
        self.data_in += data_in;
        self.data_bytes_in += data_bytes_in;
        self.data_out += data_out;
        self.data_bytes_out += data_bytes_out;
        add_each(&mut self.dropped, dropped);
        self.nacks_received += nacks_received;
        self.nacks_sent += nacks_sent;
        self.retransmits += retransmits;
        self.retransmits_missed += retransmits_missed;
        self.plis_received += plis_received;
        self.plis_withheld += plis_withheld;
        self.plis_sent += plis_sent;
        self.layer_switches += layer_switches;
        self.demands += demands;
        self.pauses += pauses;
        add_each(&mut self.srtp_suites, srtp_suites);
        self.joins += joins;
        self.resumes += resumes;
        add_each(&mut self.leaves, leaves);
        self.peer_panics += peer_panics;
        self.join_seconds.add(join_seconds);
        self.first_packet_seconds.add(first_packet_seconds);
        self.hold_seconds.add(hold_seconds);
        self.round_trip_seconds.add(round_trip_seconds);
    }
}

fn add_each(total: &mut [u64], other: &[u64]) {
    for (total, other) in total.iter_mut().zip(other) {
        *total += other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_enum_order_and_unique() {
        for (position, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
        }
        let labels: std::collections::HashSet<_> =
            Dropped::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Dropped::ALL.len());
        for (position, reason) in LeaveReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
        }
    }

    #[test]
    fn histogram_counts_up_to_and_including_each_bound() {
        let mut histogram = Histogram::new(&[0.1, 0.2]);
        histogram.observe(Duration::from_millis(100), 2);
        histogram.observe(Duration::from_millis(150), 1);
        histogram.observe(Duration::from_secs(9), 1);
        assert_eq!(
            histogram.cumulative().collect::<Vec<_>>(),
            [(0.1, 2), (0.2, 3)]
        );
        assert_eq!(histogram.count(), 4);
    }
}

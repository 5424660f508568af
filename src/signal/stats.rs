//! What signalling counts. Plain numbers: the metrics page reads them, nothing else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::media::message::Refusal;

/// Counters and gauges of signalling, from the start of the process.
#[derive(Debug, Default)]
pub struct Stats {
    /// TCP connections taken.
    pub connections: AtomicU64,
    /// TCP connections closed at once, because their address had too many.
    pub connections_refused: AtomicU64,
    /// Times a connection could not be taken, mostly for lack of file descriptors.
    pub accept_failures: AtomicU64,
    /// Connections that ended for bytes that are no HTTP. Of the metrics listener too, like the
    /// next two.
    pub http_malformed: AtomicU64,
    /// Connections closed because a request or the reading of an answer took too long.
    pub http_timeouts: AtomicU64,
    /// Connections that broke off within a request or an answer.
    pub http_broken: AtomicU64,
    /// HTTP answers 2xx and 1xx, upgrades among them.
    pub http_ok: AtomicU64,
    /// HTTP answers 4xx.
    pub http_client_errors: AtomicU64,
    /// HTTP answers 5xx.
    pub http_server_errors: AtomicU64,
    /// Gauge: signalling sessions that are open.
    pub sessions_open: AtomicU64,
    /// Joins refused for their token.
    pub refused_token: AtomicU64,
    /// Joins refused because the request could not be read or broke a limit.
    pub refused_malformed: AtomicU64,
    /// Joins refused because the room is missing and may not be created.
    pub refused_room_missing: AtomicU64,
    /// Joins refused because room or node are full.
    pub refused_full: AtomicU64,
    /// Joins refused because the daemon stops.
    pub refused_draining: AtomicU64,
    /// Joins refused for a fault of ours, or because the worker didn't answer in time.
    pub refused_internal: AtomicU64,
    /// Resumes of sessions we don't know.
    pub resumes_unknown: AtomicU64,
    /// Signalling messages read.
    pub messages_in: AtomicU64,
    /// Signalling messages written.
    pub messages_out: AtomicU64,
    /// Sessions closed because the client didn't read.
    pub slow_readers: AtomicU64,
    /// Sessions closed because a message could not be understood.
    pub malformed_messages: AtomicU64,
    /// Sessions closed because a message was too large.
    pub oversized_messages: AtomicU64,
    /// Sessions closed because an offer was too large.
    pub oversized_offers: AtomicU64,
    /// Calls of the server API that were carried out.
    pub api_calls: AtomicU64,
    /// Calls of the server API that were refused or failed.
    pub api_errors: AtomicU64,
    /// Requests of the control socket that were carried out, or handed to a participant.
    pub control_requests: AtomicU64,
    /// Requests of the control socket that were refused or failed.
    pub control_errors: AtomicU64,
    /// Requests of Matrix users and their homeserver that were answered as they wished.
    pub matrix_requests: AtomicU64,
    /// Requests of Matrix users and their homeserver that were refused or failed.
    pub matrix_refusals: AtomicU64,
    /// What asking homeservers came to.
    pub homeservers: Arc<crate::matrix::Stats>,
    /// Participants removed because they left the Matrix room, or were made to.
    pub members_removed: AtomicU64,
    /// Entrusted leaves that the homeserver was told to wait with.
    pub leaves_restarted: AtomicU64,
    /// Entrusted leaves that were sent, or had been already.
    pub leaves_sent: AtomicU64,
    /// Requests for entrusted leaves that failed, and are made again.
    pub leave_failures: AtomicU64,
    /// Entrusted leaves that could not be sent in time.
    pub leaves_given_up: AtomicU64,
    /// Removals forgotten before their time, because there were too many.
    pub revocations_forgotten: AtomicU64,
    /// Events that a webhook took.
    pub webhooks_delivered: AtomicU64,
    /// Events that a webhook didn't take, however often it was asked.
    pub webhooks_failed: AtomicU64,
    /// Events that were not sent because too many waited for that webhook.
    pub webhooks_dropped: AtomicU64,
    /// Times a session had to wait because it sent too many messages or bytes.
    pub rate_limited: AtomicU64,
}

impl Stats {
    /// Counts one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        Self::count(match refusal {
            Refusal::RoomMissing => &self.refused_room_missing,
            Refusal::RoomFull | Refusal::NodeFull => &self.refused_full,
            Refusal::ShuttingDown => &self.refused_draining,
            // Only a join is counted so; a resume has a counter of its own.
            Refusal::StayUnknown | Refusal::Internal => &self.refused_internal,
        });
    }

    /// Counts a connection that ended with an error.
    pub fn connection_failed(&self, error: &hyper::Error) {
        Self::count(if error.is_parse() {
            &self.http_malformed
        } else if error.is_timeout() {
            &self.http_timeouts
        } else {
            &self.http_broken
        });
    }

    pub(super) fn answered(&self, status: u16) {
        Self::count(match status {
            ..400 => &self.http_ok,
            400..500 => &self.http_client_errors,
            _ => &self.http_server_errors,
        });
    }
}

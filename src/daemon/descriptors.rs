//! File descriptors: as many as the host allows, and how many of them are left for clients.

use tracing::warn;

use crate::config::Config;

/// Kept free beside what is counted: runtimes, log, interfaces and keys that are read, and the
/// connection that is taken only to be closed.
const RESERVE: usize = 64;

/// Raises the limit as far as it goes: the usual soft limit of 1024 is for the sake of programs
/// that call select(2). Returns what is allowed now.
pub fn raise_limit() -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
        warn!("the limit of file descriptors stays: {error}");
        rlimit::Resource::NOFILE.get_soft()
    });
    limit
        .ok()
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

/// Network paths of a participant, on average: those its client checks, and those it had before.
const PATHS: usize = 4;

/// Connections over TCP of a participant: one that carries media, and one that is about to.
const TCP_PATHS: usize = 2;

/// What single participants may have of their own, all of them together.
#[derive(Debug, Default, Clone, Copy)]
pub struct Spare {
    /// Sockets on a shared media port.
    pub flows: usize,
    /// Media connections over TCP.
    pub tcp: usize,
}

impl Spare {
    /// What the configuration wants, up to half of what `taken` descriptors leave of `limit`.
    pub fn of(config: &Config, limit: usize, taken: usize) -> Self {
        let (media, participants) = (&config.media, config.limits.participants);
        let wanted = |is_on: bool, each: usize| match is_on {
            true => participants.saturating_mul(each),
            false => 0,
        };
        let flows = wanted(media.single_port, PATHS);
        let tcp = wanted(media.tcp_port != 0, TCP_PATHS);
        let left = limit.saturating_sub(taken).saturating_sub(RESERVE) / 2;
        let wanted = flows.saturating_add(tcp);
        if wanted <= left {
            return Self { flows, tcp };
        }
        warn!(
            wanted,
            left,
            "media.single_port and media.tcp_port may need more file descriptors than their limit \
             allows; raise the limit (LimitNOFILE= in the systemd unit, else ulimit -n) or lower \
             limits.participants"
        );
        // Each gets its share.
        let share = |of: usize| (left as u128 * of as u128 / wanted as u128) as usize;
        Self {
            flows: share(flows),
            tcp: share(tcp),
        }
    }
}

/// The connections of clients to allow when `wanted` are configured and `taken` descriptors of
/// `limit` have another use. One more than fit would fail to be taken, over and over.
pub fn connections(wanted: usize, limit: usize, taken: usize) -> usize {
    let left = limit.saturating_sub(taken).saturating_sub(RESERVE).max(1);
    if left < wanted {
        warn!(
            wanted,
            left,
            "http.connections is more than the limit of file descriptors leaves; raise the limit \
             (LimitNOFILE= in the systemd unit, else ulimit -n) or lower http.connections"
        );
    }
    wanted.min(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_what_is_left() {
        assert_eq!(connections(500, 1024, 100), 500);
        assert_eq!(connections(20_000, 1024, 100), 1024 - 100 - RESERVE);
        assert_eq!(connections(20_000, 10, 100), 1);
        assert!(raise_limit() > 0);
    }
}

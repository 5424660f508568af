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

/// The sockets to allow for single participants, which only a shared media port needs: half of what
/// is left of `limit` at most.
pub fn flows(config: &Config, limit: usize, taken: usize) -> usize {
    if !config.media.single_port {
        return 0;
    }
    let wanted = config.limits.participants.saturating_mul(PATHS);
    let left = limit.saturating_sub(taken).saturating_sub(RESERVE) / 2;
    if left < wanted {
        warn!(
            wanted,
            left,
            "media.single_port needs more file descriptors than their limit allows; raise the \
             limit (LimitNOFILE= in the systemd unit, else ulimit -n) or lower limits.participants"
        );
    }
    wanted.min(left)
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

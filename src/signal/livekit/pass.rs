//! The token a client may come back with. A token is looked at only when a session begins, so a
//! call may outlast it; so that the client can still take it up again, it gets a new one right
//! after the join, every few minutes, and whenever what the token says of it has changed.

use std::time::Duration;

use tokio::time::Instant;

use crate::media::message::{Notice, ParticipantInfo};
use crate::signal::grant::Grant;
use crate::signal::{Signal, unix_now};

/// Less than half of the shortest life of a token, so that one lost in a break does no harm.
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How long a new token lives at least; longer if the client's own does.
const LIFE_MIN: Duration = Duration::from_secs(10 * 60);

/// What a session's client may do, as it stands now.
pub(super) struct Pass {
    grant: Grant,
    due: Instant,
}

impl Pass {
    /// For a client who came with `grant`.
    pub fn new(grant: Grant) -> Self {
        Self {
            grant,
            due: Instant::now(),
        }
    }

    /// When the next token is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Keeps up with what the client is told of itself.
    pub fn follow(&mut self, notice: &Notice) {
        let Notice::Participant(info) = notice else {
            return;
        };
        let ParticipantInfo {
            identity,
            name,
            metadata,
            attributes,
            permissions,
            left,
            ..
        } = &**info;
        if *identity != self.grant.identity || left.is_some() {
            return;
        }
        let now = Grant {
            name: name.clone(),
            metadata: metadata.clone(),
            attributes: attributes.clone(),
            permissions: permissions.clone(),
            ..self.grant.clone()
        };
        if now != self.grant {
            self.grant = now;
            self.due = Instant::now();
        }
    }

    /// The new token; `None` if the key of the old one was taken away.
    pub fn renew(&mut self, signal: &Signal) -> Option<String> {
        self.due = Instant::now() + INTERVAL;
        let mut keys = signal.config.keys.iter();
        let (name, secret) = keys.find(|(name, _)| *name == self.grant.key)?;
        let now = unix_now();
        let life = self.grant.expires.saturating_sub(now).max(LIFE_MIN);
        Some(self.grant.mint(name, secret, now, life))
    }
}

//! The token a client may come back with. A token is looked at only when a session begins, so a
//! call may outlast it; so that the client can still take it up again, it gets a new one right
//! after the join, every few minutes, and whenever what the token says of it has changed.

use std::time::Duration;

use tokio::time::Instant;

use crate::ids::Identity;
use crate::media::message::{Notice, ParticipantInfo};
use crate::signal::grant::Grant;
use crate::signal::{Signal, unix_now};

/// Less than half of the shortest life of a token, so that one lost in a break does no harm.
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How long a new token lives at least; longer if the client's own does.
const LIFE_MIN: Duration = Duration::from_secs(10 * 60);

/// Bytes of a new token. It comes back in a URL, and proxies take heads of 8 KiB.
const TOKEN_BYTES_MAX: usize = 6 * 1024;

/// What a session's client may do, as it stands now.
pub(super) struct Pass {
    grant: Grant,
    /// Whom the client's own token is for; not who is in the room, for some clients of old.
    holder: Identity,
    due: Instant,
}

impl Pass {
    /// For a client who came with `grant`, in a token for `holder`.
    pub fn new(grant: Grant, holder: Identity) -> Self {
        Self {
            grant,
            holder,
            due: Instant::now(),
        }
    }

    /// When the next token is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Keeps up with what the client is told of itself.
    pub fn follow(&mut self, notice: &Notice) {
        if let Notice::Participant(info) = notice {
            self.learn(info);
        }
    }

    /// Keeps up with a participant, if it is the client.
    pub fn learn(&mut self, info: &ParticipantInfo) {
        let ParticipantInfo {
            identity,
            name,
            metadata,
            attributes,
            permissions,
            left,
            ..
        } = info;
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

    /// The new token; `None` if the key of the old one was taken away or its holder removed.
    ///
    /// Long metadata and attributes are left out rather than making a token that nobody takes:
    /// a stay that is taken up again keeps its own.
    pub fn renew(&mut self, signal: &Signal) -> Option<String> {
        self.due = Instant::now() + INTERVAL;
        let mut keys = signal.config.keys.iter();
        let (name, secret) = keys.find(|(name, _)| *name == self.grant.key)?;
        let now = unix_now();
        let mut grant = Grant {
            identity: self.holder.clone(),
            ..self.grant.clone()
        };
        signal.revocations.check(&grant, now).ok()?;
        let life = grant.expires.saturating_sub(now).max(LIFE_MIN);
        let bytes_max = signal.config.limits.token_bytes.get().min(TOKEN_BYTES_MAX);
        let token = grant.mint(name, secret, now, life);
        if token.len() <= bytes_max {
            return Some(token);
        }
        grant.metadata.clear();
        grant.attributes.clear();
        Some(grant.mint(name, secret, now, life)).filter(|token| token.len() <= bytes_max)
    }
}

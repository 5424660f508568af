//! What has to be right about `[matrix]` as a whole, and what follows from it.

use super::layer::Layers;
use super::{Config, Matrix, ServerName};

/// What an operator has to write to have certificates of homeservers not checked.
const INSECURE: &str = "YES_I_KNOW_WHAT_I_AM_DOING";

impl Matrix {
    /// Whether tokens are handed out to Matrix users.
    pub fn is_on(&self) -> bool {
        self.federation || !self.homeservers.is_empty()
    }

    /// Whether users of `server` may open rooms and entrust their leave to us.
    pub fn has_full_access(&self, server: &str) -> bool {
        names(&self.full_access, server)
    }

    /// Whether users of `server` may publish.
    pub fn may_publish(&self, server: &str) -> bool {
        self.has_full_access(server) || names(&self.remote_publish, server)
    }

    /// Whether certificates of homeservers are not checked.
    pub fn skips_verification(&self) -> bool {
        self.insecure_skip_verify.as_deref() == Some(INSECURE)
    }
}

fn names(list: &[ServerName], server: &str) -> bool {
    list.iter()
        .any(|name| name.as_str() == server || name.as_str() == ServerName::ALL)
}

impl Config {
    pub(super) fn matrix_relations(&self, layers: &mut Layers) {
        let matrix = &self.matrix;
        let mut refuse = |key: &str, message: &str| {
            layers.refuse("matrix", key, message.to_owned());
        };
        if !matrix.is_on() {
            if matrix.url.is_some() || matrix.registration.is_some() || matrix.leaves.is_some() {
                let message = "is empty, so nobody would get a token; name your homeserver, as in \
                    { \"example.org\" = \"http://127.0.0.1:8008\" }";
                refuse("homeservers", message);
            }
            return;
        }
        if matrix.url.is_none() {
            let message = "is missing; write the address clients reach this daemon at, as in \
                \"wss://rtc.example.org\"";
            refuse("url", message);
        }
        // Upstream's default was everyone once, and every stranger's server could open rooms.
        if matrix.full_access.is_empty() {
            let message = "is empty, so nobody could open a call; name your homeserver, or \"*\" \
                for all";
            refuse("full_access", message);
        }
        for (key, list) in [
            ("full_access", &matrix.full_access),
            ("remote_publish", &matrix.remote_publish),
        ] {
            let all = list.iter().any(|name| name.as_str() == ServerName::ALL);
            if all && list.len() > 1 {
                refuse(
                    key,
                    "has \"*\" beside names; it stands for all of them, and alone",
                );
            }
        }
        if matrix.registration.is_some() && matrix.homeservers.len() != 1 {
            let message = "belongs to one homeserver, so there has to be exactly one in \
                homeservers";
            refuse("registration", message);
        }
        if matrix.insecure_skip_verify.is_some() && !matrix.skips_verification() {
            let message = format!(
                "would let anyone pass for any homeserver; to do it all the same, \
                 write {INSECURE:?}"
            );
            refuse("insecure_skip_verify", &message);
        }
        if let Some(key) = &matrix.key
            && self.keys.secret(key).is_none()
        {
            refuse("key", "is no key of [keys]; add it there or name another");
        }
    }
}

//! Names: users, and what rooms and participants of calls are called in LiveKit's world.
//!
//! Clients compute the same values and look for them among the participants, so a byte that
//! differs shows as "Waiting for media". The hashes are over canonical JSON (Matrix specification,
//! appendices): of an array of texts that is what `serde_json` writes, nothing escaped but
//! quotation marks, backslashes and control characters.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use crate::config::is_server_name;
use crate::ids::{Identity, Private, RoomName};

/// The slot of the one call that clients know today (MSC4143).
pub const CALL_SLOT: &str = "m.call#ROOM";

/// Bytes of a user id (Matrix specification, appendices, user identifiers).
const USER_BYTES_MAX: usize = 255;

/// `@user:server`. Prints as a keyed hash.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(String);

impl UserId {
    /// A user id, unless `text` is none. Old ones may hold any character but a colon and NUL.
    pub fn new(text: &str) -> Option<Self> {
        let (local, server) = text.strip_prefix('@')?.split_once(':')?;
        let is_one = text.len() <= USER_BYTES_MAX
            && !local.is_empty()
            && !local.chars().any(|c| c.is_control())
            && is_server_name(server);
        is_one.then(|| Self(text.to_owned()))
    }

    /// The text as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its server.
    pub fn server(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, server)| server)
    }
}

impl std::fmt::Debug for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Private(&*self.0).fmt(f)
    }
}

/// The room of a call in `slot` of a Matrix room.
pub fn room(matrix_room: &str, slot: &str) -> RoomName {
    hash(&[matrix_room, slot]).into()
}

/// The participant of the older token request: plain text.
pub fn legacy_identity(user: &UserId, device: &str) -> Identity {
    format!("{}:{device}", user.as_str()).into()
}

/// The participant of the token request that clients make to this daemon.
pub fn standalone_identity(user: &UserId, device: &str, member: &str) -> Identity {
    hash(&[user.as_str(), device, member]).into()
}

/// The participant of the token request that the homeserver passes on (MSC4195).
pub fn identity(user: &UserId, member: &str) -> Identity {
    hash(&[user.as_str(), member]).into()
}

/// Base64 of the SHA-256 of the canonical JSON of `texts`, in the standard alphabet, unpadded.
fn hash(texts: &[&str]) -> String {
    let json = serde_json::to_vec(texts).expect("texts are JSON");
    BASE64_STANDARD_NO_PAD.encode(digest(&SHA256, &json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> UserId {
        UserId::new("@alice:example.com").unwrap()
    }

    #[test]
    fn names_are_those_that_clients_compute() {
        let room = room("!roomid:example.com", "slot1234");
        assert_eq!(room.as_str(), "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc");
        let identity = identity(&alice(), "memberABC");
        assert_eq!(
            identity.as_str(),
            "M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs"
        );
        let standalone = standalone_identity(&alice(), "DEVICE123", "memberABC");
        assert_eq!(
            standalone.as_str(),
            "J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU"
        );
        let legacy = legacy_identity(&alice(), "DEVICE123");
        assert_eq!(legacy.as_str(), "@alice:example.com:DEVICE123");
    }

    #[test]
    fn canonical_json_escapes_what_it_must_and_nothing_else() {
        let json = serde_json::to_string(&["\"\\é<\u{2028}\u{7f}\n\u{1}"]).unwrap();
        assert_eq!(json, "[\"\\\"\\\\é<\u{2028}\u{7f}\\n\\u0001\"]");
    }

    #[test]
    fn users_have_a_name_and_a_server() {
        let user = UserId::new("@a~é/=:example.org:8448").unwrap();
        assert_eq!(user.server(), "example.org:8448");
        let long = format!("@{}:example.org", "a".repeat(250));
        for text in [
            "",
            "alice",
            "@alice",
            "@:example.org",
            "@a\0:example.org",
            "@a:",
            &long,
        ] {
            assert_eq!(UserId::new(text), None, "{text}");
        }
        assert!(!format!("{user:?}").contains("example"));
    }
}

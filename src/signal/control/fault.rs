//! Why a request of the control socket was not carried out.

use std::fmt;

use serde_json::{Value, json};

use crate::media::message::administration::RoomRefusal;
use crate::media::message::{Refusal, TrackRefusal};

/// A code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    code: &'static str,
    text: String,
}

impl Fault {
    pub fn new(code: &'static str, text: &str) -> Self {
        Self {
            code,
            text: text.to_owned(),
        }
    }

    pub fn malformed(text: &str) -> Self {
        Self::new("malformed", text)
    }

    pub fn too_long(text: &str) -> Self {
        Self::new("too_long", text)
    }

    pub fn not_allowed(text: &str) -> Self {
        Self::new("not_allowed", text)
    }

    /// A room or worker that should have answered hasn't.
    pub fn internal() -> Self {
        Self::new("internal", "a fault on our side; the log may say more")
    }

    pub fn late() -> Self {
        Self::new("timeout", "the room did not answer in time")
    }

    /// The participant is not held by this connection.
    pub fn not_held() -> Self {
        let text = "this connection has not added or attached that participant";
        Self::new("not_held", text)
    }

    pub fn json(&self) -> Value {
        json!({ "code": self.code, "text": self.text })
    }

    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::RoomMissing => Self::new("room_missing", "there is no such room"),
            Refusal::RoomFull => {
                let text = "the room is full; see limits.participants_per_room";
                Self::new("full", text)
            }
            Refusal::NodeFull => {
                let text = "this node is full; see limits.participants and limits.rooms";
                Self::new("full", text)
            }
            Refusal::ShuttingDown => Self::new("stopping", "this node is stopping"),
            Refusal::StayUnknown => Self::new(
                "participant_missing",
                "nobody of that identity is in the room",
            ),
            Refusal::Internal => Self::internal(),
        }
    }
}

impl From<RoomRefusal> for Fault {
    fn from(refusal: RoomRefusal) -> Self {
        match refusal {
            RoomRefusal::RoomMissing => Refusal::RoomMissing.into(),
            RoomRefusal::ParticipantMissing => Refusal::StayUnknown.into(),
            RoomRefusal::TrackMissing => {
                Self::new("track_missing", "the participant has no such track")
            }
            RoomRefusal::Profile(refusal) => Self::too_long(&refusal.to_string()),
            RoomRefusal::DataTooLong => Self::too_long("the data message is too long"),
            RoomRefusal::Refused(refusal) => refusal.into(),
            RoomRefusal::Internal => Self::internal(),
        }
    }
}

impl From<TrackRefusal> for Fault {
    fn from(refusal: TrackRefusal) -> Self {
        match refusal {
            TrackRefusal::NotAllowed => {
                Self::not_allowed("the participant may not publish from that source")
            }
            TrackRefusal::NotFound => {
                Self::new("track_missing", "the participant has no such track")
            }
            TrackRefusal::Unsupported => Self::not_allowed("not with this codec; see rooms.codecs"),
            TrackRefusal::LimitExceeded => {
                let text = "the participant publishes too many; see limits.tracks_per_participant";
                Self::new("full", text)
            }
            TrackRefusal::Queued => {
                let text = "a track of that cid is still published; this one follows when it ends";
                Self::new("queued", text)
            }
        }
    }
}

//! What is asked of rooms from outside, by operators and their programs, and what they tell of
//! themselves.
//!
//! A [`Question`] is addressed to a room by its name and carries a [`Ticket`]; exactly one
//! [`Answer`] with that ticket comes back, without any wait. An [`Event`] comes unasked. Adapters
//! (the room service, webhooks, the control socket) translate both.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::facts::RoomFacts;
use super::{ParticipantInfo, Permissions, Refusal, RoomInfo, TrackInfo, TrackSettings};
use crate::ids::{Identity, ParticipantSid, RoomName, TrackSid, WorkerId};

/// Names a question for whoever asked it; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Something asked of a room.
#[derive(Debug)]
pub struct Question {
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// The room.
    pub room: RoomName,
    /// What is asked.
    pub request: RoomRequest,
}

/// What a room can be asked for.
#[derive(Debug)]
pub enum RoomRequest {
    /// Opens the room, or changes the options of an open one. Answered with [`Fact::Room`].
    Create(RoomOptions),
    /// Answered with [`Fact::Room`].
    Describe,
    /// Sends everybody away and closes the room. Answered with [`Fact::Done`].
    Delete,
    /// Replaces the metadata of the room. Answered with [`Fact::Room`].
    SetMetadata(String),
    /// Everybody in the room, hidden ones too. Answered with [`Fact::Participants`].
    Participants,
    /// Answered with [`Fact::Participant`].
    Participant(Identity),
    /// Ends a stay. Answered with [`Fact::Done`].
    Remove(Identity),
    /// Mutes or unmutes a published track, as its publisher could. Answered with [`Fact::Track`].
    Mute {
        /// Its publisher.
        participant: Identity,
        /// The track.
        track: TrackSid,
        /// The new state.
        muted: bool,
    },
    /// Changes what others see of a participant, or what it may do. Answered with
    /// [`Fact::Participant`].
    Change {
        /// Who.
        participant: Identity,
        /// What others see.
        profile: Profile,
        /// What it may do from now on, if that changes.
        permissions: Option<Permissions>,
    },
    /// Subscribes a participant to tracks or unsubscribes it from them, as it could itself.
    /// Answered with [`Fact::Done`].
    Subscribe {
        /// Who.
        participant: Identity,
        /// Tracks of others.
        tracks: Vec<TrackSid>,
        /// The wish.
        subscribed: bool,
    },
    /// Says how a participant wants to have tracks, as it could itself. Answered with
    /// [`Fact::Done`].
    Adjust {
        /// Who.
        participant: Identity,
        /// Tracks of others.
        tracks: Vec<TrackSid>,
        /// The wish.
        settings: TrackSettings,
    },
    /// Which worker has a participant. Answered with [`Fact::Worker`].
    Locate(Identity),
    /// What is measured of its media. Answered with [`Fact::Media`].
    Measure,
    /// Sends data to participants. Answered with [`Fact::Done`], whether or not it arrives.
    SendData(Box<Data>),
}

/// A data message from outside.
#[derive(Debug, Clone)]
pub struct Data {
    /// As clients read it: a message of the signalling protocol, opaque to media.
    pub message: Arc<[u8]>,
    /// Repeated until it arrives.
    pub reliable: bool,
    /// Who gets it; everybody if both lists are empty.
    pub identities: Vec<Identity>,
    /// Who gets it too, named by their stay.
    pub sids: Vec<ParticipantSid>,
}

/// Options of a room. What isn't given stays as it is, at first as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomOptions {
    /// How long the room waits for its first participant.
    pub empty_timeout: Option<Duration>,
    /// How long it outlives its last one.
    pub departure_timeout: Option<Duration>,
    /// The most participants, as far as the limits allow.
    pub participants_max: Option<u32>,
    /// Free text for clients.
    pub metadata: Option<String>,
}

/// A change of what others see of a participant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// The new display name, if it changes.
    pub name: Option<String>,
    /// The new free text, if it changes.
    pub metadata: Option<String>,
    /// Attributes to set; an empty value takes the attribute away. Others stay.
    pub attributes: BTreeMap<String, String>,
}

impl Profile {
    /// About how many bytes it keeps.
    pub fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let attributes = self.attributes.iter();
        let pairs: usize = attributes.map(|(key, value)| key.len() + value.len()).sum();
        text(&self.name) + text(&self.metadata) + pairs
    }
}

/// Why a profile stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ProfileRefusal {
    /// The participant may not change its own.
    NotAllowed,
    NameTooLong,
    MetadataTooLong,
    /// Together with those it has already.
    AttributesTooLong,
}

impl fmt::Display for ProfileRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "the token does not allow to change the own metadata",
            Self::NameTooLong => "the name is too long",
            Self::MetadataTooLong => "the metadata is too long",
            Self::AttributesTooLong => "the attributes are too long",
        })
    }
}

/// What comes back.
pub type Answer = Result<Fact, RoomRefusal>;

/// The good kind of answer.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Fact {
    Done,
    Room(Box<RoomInfo>),
    Participant(Arc<ParticipantInfo>),
    Participants(Vec<Arc<ParticipantInfo>>),
    Track(Box<TrackInfo>),
    Worker(WorkerId),
    Media(Box<RoomFacts>),
}

/// The other kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomRefusal {
    /// No such room.
    RoomMissing,
    /// Nobody of this identity is in the room.
    ParticipantMissing,
    /// The participant has no such track.
    TrackMissing,
    /// A text is over its limit.
    Profile(ProfileRefusal),
    /// A data message is larger than clients take.
    DataTooLong,
    /// No new room can be opened here.
    Refused(Refusal),
    /// A fault on our side, or the worker is gone.
    Internal,
}

impl From<ProfileRefusal> for RoomRefusal {
    fn from(refusal: ProfileRefusal) -> Self {
        Self::Profile(refusal)
    }
}

/// Something that happened in a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The room then.
    pub room: Box<RoomInfo>,
    /// What.
    pub happened: Happened,
}

/// What can happen in a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    /// It was opened.
    RoomStarted,
    /// It was closed.
    RoomFinished,
    /// Media of a participant is connected.
    ParticipantJoined(Arc<ParticipantInfo>),
    /// A participant is gone whose media was connected.
    ParticipantLeft(Arc<ParticipantInfo>),
    /// A participant is gone whose media never was.
    ParticipantAborted(Arc<ParticipantInfo>),
    /// A track is published: by whom, and which.
    TrackPublished(Arc<ParticipantInfo>, Box<TrackInfo>),
    /// It no longer is.
    TrackUnpublished(Arc<ParticipantInfo>, Box<TrackInfo>),
}

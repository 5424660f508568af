//! A room on several workers.
//!
//! One part of it is its home, where it was opened; a room that outgrows a worker gets branches on
//! others, in a star around the home:
//!
//! ```text
//!   branch            home            branch
//!     |---- Hello ----->|                |
//!     |<-- Present, ... |                |     everybody who is there, then the room itself
//!     |<--- Charter ----|                |     now joins that waited are taken
//!     |---- Present --->|--- Present --->|     who comes, changes, publishes
//!     |<--- Demand -----|<--- Demand ----|     what of a video anybody wants
//!     |==== Burst =====>|===== Burst ===>|     once for each part, not for each subscriber
//! ```
//!
//! A participant lives in the part its client is connected to, as in any room. The other parts know
//! it as a [`Remote`] with tracks, to which their own subscribe as to any; so layers, rewriting,
//! repairs and estimates are where the subscriber is, and only what they want together goes back.
//! Parts may be in different threads: what goes between them are values, in order. A part that
//! doesn't keep up loses media and data messages; if it can't be told of people and tracks, the
//! link ends.
//!
//! `link.rs` makes and ends the links, `people.rs` mirrors participants and tracks, `passing.rs`
//! hands packets on and what is wanted of them back, `asking.rs` answers questions together,
//! `whose.rs` finds people wherever they are.

mod asking;
mod link;
mod passing;
mod people;
mod whose;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::codec::Codec;
use super::data::Channel;
use super::encoding::ENCODINGS_MAX;
use super::known::Known;
use super::message::administration::{Answer, Data, Question, Ticket};
use super::message::{
    ConnectionQuality, Departure, Join, LayerInfo, LeaveReason, ParticipantInfo, Quality, Refusal,
};
use super::ntp::Ntp;
use super::packet::{Layer, Packet};
use super::restriction::Allowances;
use super::simulation::Simulated;
use super::{RoomKey, TrackKey};
use crate::ids::{Identity, ParticipantSid, RoomName, RoomSid, TrackSid, WorkerId};
use asking::Gathering;

/// A part of a room: where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Whose shard holds it.
    pub worker: WorkerId,
    /// Its place there.
    pub room: RoomKey,
    /// Places are used again, so the part itself is named too.
    pub number: u32,
}

/// Something one part of a room tells another.
#[derive(Debug)]
pub struct Parcel {
    /// Who says it.
    pub from: Part,
    /// To whom.
    pub to: Recipient,
    /// What.
    pub word: Word,
}

/// Whom a parcel is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// The home of this room, which is opened if need be.
    Home(RoomName),
    /// A part that has said a word before.
    Part(Part),
}

/// What parts of a room say. Tracks go by the key they have at the part that owns them, or that
/// has passed them on.
#[derive(Debug)]
pub enum Word {
    /// A branch begins. The home answers with everybody and a charter, or that it is closed.
    Hello {
        /// Whether the room may be opened by it.
        create: bool,
    },
    /// The part is gone, and why, for those who are in the other and those who wait to be.
    Closed(Departure, Refusal),
    /// The part is there still. Who doesn't know it says so.
    Here,
    /// What holds for the whole room, now or from now on.
    Charter(Box<Charter>),
    /// A participant as it looks now.
    Present(Box<Present>),
    /// A participant has left.
    Absent {
        /// As others saw it last.
        info: Arc<ParticipantInfo>,
        /// Why it went.
        reason: LeaveReason,
    },
    /// Packets of a stream, on their way to whoever has it.
    Burst(Burst),
    /// An RTP timestamp of a stream and when it was made, on our clock.
    Clock(Place, Ntp, u32),
    /// The best layer anybody beyond the sender wants of each encoding of a video.
    Demand(Named, [Option<Quality>; ENCODINGS_MAX]),
    /// Somebody needs a key frame.
    KeyFrame(Place),
    /// A track has its first subscriber.
    Subscribed(Named),
    /// A track brings its subscribers down: its publisher has to go.
    Faulty(Named),
    /// How a publisher's connection is; `None` when it is lost.
    Quality(ParticipantSid, Option<f32>),
    /// A participant speaks, or seems to, until then: simulated.
    Speech(ParticipantSid, Instant),
    /// A data message of a participant, with its receivers in it.
    Data(Channel, Arc<[u8]>),
    /// A data message from outside.
    Distribute(Box<Data>),
    /// A question that only a branch can answer.
    Ask(Box<Question>),
    /// What it says to that.
    Answer(Ticket, Answer),
}

/// A track. Keys are used again, and what is said of one may be late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its place.
    pub key: TrackKey,
    /// Its id.
    pub sid: TrackSid,
}

/// A stream of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The track.
    pub track: TrackKey,
    /// Which of its encodings.
    pub number: usize,
    /// Which of the streams of that.
    pub layer: Layer,
}

/// Packets that leave together.
#[derive(Debug)]
pub struct Burst {
    /// Of which stream.
    pub place: Place,
    /// As in the publisher's packets.
    pub ssrc: u32,
    /// Payloads are shared and not copied: they are never written to, and counting who has one
    /// costs less than a copy.
    pub packets: Vec<Packet>,
}

/// What holds for a whole room.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "as in the room")]
pub struct Charter {
    pub sid: RoomSid,
    pub sif_trailer: Vec<u8>,
    pub created_at_ms: i64,
    pub metadata: Arc<str>,
    pub empty_timeout: Duration,
    pub departure_timeout: Duration,
    pub participants_max: Option<u32>,
}

/// A participant of another part.
#[derive(Debug, Clone)]
pub struct Present {
    /// As others see it; hidden ones are told of too.
    pub info: Arc<ParticipantInfo>,
    /// How its tracks come.
    pub tracks: Vec<Shape>,
    /// Who may have them.
    pub allowances: Option<Arc<Allowances>>,
}

/// How a track comes, beside what others see of it.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Its id.
    pub sid: TrackSid,
    /// Its name in what follows.
    pub key: TrackKey,
    /// Everybody gets the backup.
    pub regressed: bool,
    /// Its encodings, never none.
    pub encodings: Vec<EncodingShape>,
}

/// How an encoding comes.
#[derive(Debug, Clone)]
pub struct EncodingShape {
    /// The codec it was announced with.
    pub announced: Codec,
    /// What its packets are coded with.
    pub codec: Codec,
    /// Its spatial layers, as announced.
    pub sizes: Vec<LayerInfo>,
    /// RIDs of its streams, smallest first, none of a single one; `None` before it comes.
    pub rids: Option<Vec<String>>,
}

/// What a room has that is on several workers.
#[derive(Debug, Default)]
pub struct Spread {
    /// Unless this is the home.
    branch: Option<Branch>,
    /// To the branches, or to the home. Bounded by the number of workers.
    links: Slab<Link>,
    /// Who is in other parts.
    pub remotes: Slab<Remote>,
    by_identity: HashMap<Identity, u32>,
    by_sid: HashMap<ParticipantSid, u32>,
    /// What others were told of the connections of our publishers.
    qualities: Known<ConnectionQuality>,
    /// Questions that all parts answer.
    gatherings: Vec<Gathering>,
    /// Where to go on looking after tracks of other parts.
    cursor: usize,
    /// When to say next that this part is there, and to look whether the home has said anything.
    beat: Option<Instant>,
}

/// What is different in a branch.
#[derive(Debug)]
struct Branch {
    home: WorkerId,
    /// The home has said what holds.
    welcome: bool,
    /// Joins that came before that. Bounded by the limit on participants.
    waiting: Vec<Join>,
}

/// A neighbour.
#[derive(Debug)]
struct Link {
    part: Part,
    /// Tracks that come from there: their key, and ours.
    tracks: HashMap<TrackKey, TrackKey>,
    /// Questions that it hasn't answered yet. Bounded by those who ask and wait.
    asked: Vec<Ticket>,
}

/// A participant of another part.
#[derive(Debug)]
pub struct Remote {
    /// The link it came by.
    link: u32,
    /// As others see it.
    pub info: Arc<ParticipantInfo>,
    /// Who may have its tracks.
    pub allowances: Option<Arc<Allowances>>,
    /// Its tracks, in the order they appeared.
    pub published: Vec<TrackKey>,
    /// What it asked to be simulated.
    pub simulated: Simulated,
    /// How its connection is; nothing said yet, or lost, or its score.
    pub quality: Option<Option<f32>>,
}

/// Where a track of another part comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Who publishes it: a place in [`Spread::remotes`].
    pub remote: u32,
    /// By which link it comes.
    link: u32,
    /// Its key there.
    track: TrackKey,
}

/// What a part beyond a link wants of an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    link: u32,
    /// The best layer.
    pub wanted: Quality,
    /// A better one that was wanted until then: who changes to less has it until it is there.
    before: Option<(Quality, Instant)>,
}

/// Numbers of participants from this on are places in [`Spread::remotes`]; those below are slots.
pub const REMOTE: u32 = 1 << 31;

impl Spread {
    /// Who of another part has this identity.
    pub fn find(&self, identity: &Identity) -> Option<&Remote> {
        let key = self.by_identity.get(identity)?;
        self.remotes.get(*key as usize)
    }

    /// Those of other parts who are to be seen.
    pub fn visible(&self) -> impl Iterator<Item = &Remote> {
        let remotes = self.remotes.iter().map(|(_, remote)| remote);
        remotes.filter(|remote| !remote.info.permissions.hidden)
    }

    fn link_of(&self, part: Part) -> Option<u32> {
        let mut links = self.links.iter();
        let known = links.find(|(_, link)| link.part == part);
        known.map(|(key, _)| key as u32)
    }
}

impl Parcel {
    /// How many packets of media are in it.
    pub fn packets(&self) -> usize {
        self.word.packets()
    }

    /// What its loss means: what clients can say as often as they like can be borne to be lost.
    pub fn weight(&self) -> Weight {
        match &self.word {
            Word::Data(_, message) => Weight::Data(message.len()),
            Word::Distribute(data) => Weight::Data(data.message.len()),
            Word::Burst(_) | Word::Clock(..) | Word::Speech(..) => Weight::Media,
            _ => Weight::State,
        }
    }
}

/// What becomes of a room if a parcel is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Its parts don't agree any more.
    State,
    /// Something is seen or heard worse for a moment.
    Media,
    /// A message of so many bytes is lost, as for one who doesn't keep up.
    Data(usize),
}

impl Word {
    fn packets(&self) -> usize {
        match self {
            Self::Burst(burst) => burst.packets.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
pub mod tests;

//! The sans-IO media core: a [`Shard`] is a synchronous value that holds whole rooms.
//!
//! It knows no tokio, socket, clock or lock. Datagrams, commands and the time go in through
//! [`Shard::handle`]; datagrams, notices and the next deadline come out of [`Shard::poll`]. Tests,
//! benches, fuzzers and the daemon drive the same code.

mod adapting;
mod administration;
pub mod allocator;
mod announcing;
mod backup;
pub mod batch;
mod burst;
mod candidates;
mod census;
mod checks;
pub mod codec;
mod containment;
pub mod counters;
mod data;
pub mod demux;
mod downlink;
pub mod dtls;
pub mod dynacast;
mod egress;
mod encoding;
pub mod estimator;
mod facts;
pub mod fixed_keys;
mod forwarding;
pub mod keyframe;
mod known;
pub mod layers;
pub mod loudest;
pub mod message;
mod negotiation;
mod nomination;
pub mod ntp;
mod offer;
pub mod order;
pub mod pacer;
pub mod pacing;
pub mod packet;
mod participant;
pub mod pausing;
pub mod payload_type;
mod peer;
mod permitting;
mod playout;
mod profile;
mod publishing;
pub mod quality;
pub mod redundancy;
pub mod relay;
mod repair;
pub mod restriction;
mod resuming;
pub mod retransmit;
pub mod rewrite;
mod room;
pub mod rtcp;
pub mod sdp;
pub mod section;
mod shard;
pub mod simulation;
pub mod speakers;
pub mod srtp;
mod subscribing;
mod subscription;
#[cfg(test)]
mod tests;
mod timers;
mod track;
pub mod uplink;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use message::administration::{Answer, Event, Ticket};
use message::{Codec, Command, Notice, Transmit};
use relay::Parcel;
pub use shard::Shard;

use crate::ids::{RoomName, SessionKey, WorkerId};
use demux::Pair;

/// Bounds on what clients may take, all from the configuration.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Rooms of a shard.
    pub rooms: usize,
    /// Participants of a room; more are refused with [`message::Refusal::RoomFull`].
    pub participants_per_room: usize,
    /// Tracks a participant may publish or announce at a time.
    pub tracks_per_participant: usize,
    /// Bytes of an SDP offer.
    pub sdp_bytes: usize,
    /// Media sections of an SDP offer.
    pub media_sections: usize,
    /// Remote candidates taken from a participant; more are ignored.
    pub candidates: usize,
    /// RTP packets per second taken from a participant.
    pub packets_per_second: u32,
    /// Data messages per second taken from a participant.
    pub data_messages_per_second: u32,
    /// Bytes of reliable data messages that may wait for a participant.
    pub data_queue_bytes: usize,
    /// A participant whose media is not connected after this is removed.
    pub connect_timeout: Duration,
    /// An empty room that nobody has joined yet is kept this long, unless its options say other.
    pub empty_timeout: Duration,
    /// An empty room that somebody had joined is kept this long, unless its options say other.
    pub departure_timeout: Duration,
    /// Bytes of a display name that a participant gives itself.
    pub name_bytes: usize,
    /// Bytes of the metadata of a participant or a room.
    pub metadata_bytes: usize,
    /// Bytes of all keys and values of a participant's attributes.
    pub attributes_bytes: usize,
    /// Video of subscribers who don't say whether it may be paused for want of bandwidth, may.
    pub pause_video: bool,
    /// How many are heard in a room of more than `loudest_above` participants; 0 for all.
    pub loudest: usize,
    /// See `loudest`.
    pub loudest_above: usize,
    /// Most cameras that a participant is sent; 0 for all.
    pub last_n: usize,
    /// Codecs that are negotiated; Opus and one of video at least.
    pub codecs: Vec<Codec>,
}

/// What a shard is told at its start.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Bounds.
    pub limits: Limits,
    /// The addresses this shard's worker receives on.
    pub local: Vec<SocketAddr>,
    /// The addresses clients are told to send to; they become the ICE candidates. The same, unless
    /// there is a NAT between.
    pub told: Vec<SocketAddr>,
    /// The addresses this shard's worker takes TCP connections on, none of them one of `local`: an
    /// address says what goes over it.
    pub local_tcp: Vec<SocketAddr>,
    /// The addresses clients are told to connect to.
    pub told_tcp: Vec<SocketAddr>,
    /// Which worker this is: the ICE user names of its peers begin with it.
    pub worker: WorkerId,
    /// The start of time.
    pub now: Instant,
    /// Time since 1970 at `now`.
    pub unix: Duration,
    /// Seed of ids and sequence numbers; never of keys.
    pub seed: u64,
}

/// What goes into a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram.
    Datagram {
        /// The address it was received on.
        local: SocketAddr,
        /// Where it came from.
        remote: SocketAddr,
        /// Its contents.
        contents: &'a [u8],
    },
    /// A command from signalling.
    Command(Command),
    /// A TCP connection is over: what comes from there next may be somebody else's.
    Closed(Pair),
    /// Another shard has something for a room.
    Parcel(Parcel),
    /// A parcel that can't be handed over, and must not be lost ([`relay::Weight::State`]).
    Unsaid(Parcel),
    /// Time has passed; due when a deadline from [`Output::Timeout`] is reached.
    Timeout,
}

/// What comes out of a shard.
#[derive(Debug)]
pub enum Output<'a> {
    /// Send this.
    Transmit(Transmit<'a>),
    /// Tell a session.
    Notice(SessionKey, Notice),
    /// A room was opened, by a join or on demand. Comes before anything else of it.
    RoomOpened(RoomName),
    /// A room is closed: nobody came, or the last one left, in the time it waits; or on demand.
    RoomClosed(RoomName),
    /// The answer to a question.
    Answer(Ticket, Answer),
    /// Something happened in a room.
    Event(Box<Event>),
    /// A participant proved to be at the other end of that pair of addresses.
    Reached(Pair),
    /// That pair is no participant's any more.
    Forgotten(Pair),
    /// For the shard of that worker, in order. [`relay::Weight`] says which may be lost.
    Relay(WorkerId, Parcel),
    /// Nothing more now; call [`Shard::handle`] with [`Input::Timeout`] at this time, if any.
    Timeout(Option<Instant>),
}

/// A room's place in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(u32);

/// A track's place in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackKey(u32);

/// A participant's place: its room and its slot there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    room: RoomKey,
    participant: u32,
}

impl PeerKey {
    /// The participant with this number in the first room: for benches, which have no rooms.
    #[doc(hidden)]
    pub fn numbered(participant: u32) -> Self {
        Self {
            room: RoomKey(0),
            participant,
        }
    }
}

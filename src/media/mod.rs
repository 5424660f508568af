//! The sans-IO media core: a [`Shard`] is a synchronous value that holds whole rooms.
//!
//! It knows no tokio, socket, clock or lock. Datagrams, commands and the time go in through
//! [`Shard::handle`]; datagrams, notices and the next deadline come out of [`Shard::poll`]. Tests,
//! benches, fuzzers and the daemon drive the same code.

pub mod allocator;
pub mod codec;
pub mod counters;
pub mod dtls;
pub mod layers;
pub mod estimator;
pub mod message;
pub mod order;
pub mod packet;
pub mod srtp;
pub mod retransmit;
pub mod rewrite;
pub mod ntp;
pub mod packet;
pub mod rtcp;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use counters::{Counters, Dropped};
use message::{Command, Notice, Transmit};

use crate::ids::{RoomName, SessionKey};

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
    /// A participant whose media is not connected after this is removed.
    pub connect_timeout: Duration,
    /// An empty room that somebody had joined is kept this long.
    pub departure_timeout: Duration,
}

/// What a shard is told at its start.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Bounds.
    pub limits: Limits,
    /// The addresses this shard's worker receives on; they become the ICE candidates.
    pub local: Vec<SocketAddr>,
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
    /// The last participant left and the departure timeout passed.
    RoomClosed(RoomName),
    /// Nothing more now; call [`Shard::handle`] with [`Input::Timeout`] at this time.
    Timeout(Instant),
}

/// Whole rooms: participants, peers, tracks, subscriptions.
pub struct Shard {
    config: ShardConfig,
    counters: Counters,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig) -> Self {
        Self {
            config,
            counters: Counters::default(),
        }
    }

    /// Takes one input in. Outputs are ready at [`Shard::poll`]; several inputs may be handled
    /// before, and should be: what one wake-up yields leaves in larger runs.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        let _ = (now, input);
    }

    /// The next output; [`Output::Timeout`] when there is no more for now.
    pub fn poll(&mut self) -> Output<'_> {
        Output::Timeout(self.config.now)
    }

    /// What this shard has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts something its adapter had to discard.
    pub fn count_drop(&mut self, reason: Dropped) {
        self.counters.drop(reason);
    }
}

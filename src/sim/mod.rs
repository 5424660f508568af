//! A world to test the shard in: whole meetings on a virtual clock, over networks that delay,
//! queue, reorder and lose. One seed decides a run.
//!
//! ```text
//!   Client --- Path (up) --->  Shard  --- Path (down) ---> Client
//!   medium    elements in a    the real   elements in a    judge, decoder
//!   encoder   row              one        row
//! ```
//!
//! A [`Meeting`] holds a production [`Shard`](crate::media::Shard) and its clients. Clients
//! negotiate by real offers and answers, publish simulcast VP8 and Opus whose every payload says
//! whose it is ([`content`]), send all the feedback that browsers send, and judge each packet
//! they get ([`judge`]) and what is seen of it ([`decoder`]). Only the handshake is not real:
//! [`fixed_keys`](crate::media::fixed_keys) in place of DTLS, so that a run costs no handshakes and
//! its log ([`log`]) is the same to the byte for the same seed.
//!
//! ```
//! # use std::time::Duration;
//! # use stellwerk::sim::{Link, Medium, Meeting, Sees};
//! let mut meeting = Meeting::seeded(7);
//! meeting.enter("anna", Link::broadband());
//! meeting.enter("bert", Link::lossy(0.02));
//! meeting.publish("anna", Medium::simulcast("camera"));
//! meeting.run(Duration::from_secs(5));
//! meeting.expect("bert", Sees::picture("anna"));
//! meeting.assert_blameless();
//! ```
//!
//! Not here: worker and sockets, signalling over HTTP, data channels.

pub mod bottleneck;
pub mod client;
pub mod content;
pub mod decoder;
pub mod gaps;
pub mod judge;
pub mod log;
pub mod medium;
pub mod meeting;
pub mod network;
pub mod receiving;
pub mod record;
pub mod remb;
pub mod sdp;
pub mod sending;
#[cfg(test)]
mod tests;
pub mod uplink;
pub mod world;

pub use client::Client;
pub use judge::Offence;
pub use medium::Medium;
pub use meeting::{Meeting, Sees};
pub use network::{Element, Link, Queue};
pub use world::{Note, World};

//! What is known of a meeting beyond what a single client can know.

use std::collections::HashMap;

use super::content::Stamp;
use super::judge::Arrivals;
use crate::ids::TrackSid;
use crate::media::message::Kind;

/// Who publishes what, and in which order it reached the shard.
#[derive(Debug, Default)]
pub struct World {
    tracks: HashMap<TrackSid, (Kind, (u16, u16))>,
    /// What reached the shard late.
    pub arrivals: Arrivals,
}

impl World {
    /// A track was published: its sender's number, and its number there.
    pub fn published(&mut self, track: &TrackSid, kind: Kind, source: (u16, u16)) {
        self.tracks.insert(track.clone(), (kind, source));
    }

    /// What a track carries.
    pub fn source(&self, track: &TrackSid) -> Option<(Kind, (u16, u16))> {
        self.tracks.get(track).copied()
    }
}

/// Something a client noticed, for the log.
#[derive(Debug)]
pub enum Note {
    /// It offers so many sections.
    Offer(usize),
    /// Its media is connected.
    Connected,
    /// A track begins.
    Track(TrackSid),
    /// A track ends.
    Gone(TrackSid),
    /// A track is shown from this layer now.
    Layer(TrackSid, u8),
    /// A key frame of an own layer is asked for.
    KeyFrameAsked(String, usize),
    /// A packet was received, under this number, maybe repaired.
    Packet(u64, Stamp, bool),
}

//! What can be measured of a room's media right now, for operators: what comes in on its tracks,
//! and what goes out on the leg of each participant.

use std::time::Duration;

use super::{Codec, Kind, Source};
use crate::ids::{Identity, ParticipantSid, TrackSid};
use crate::units::Bitrate;

/// All tracks and legs of a room.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomFacts {
    /// Every published track.
    pub tracks: Vec<TrackFacts>,
    /// The sending half of every participant, hidden ones too.
    pub legs: Vec<LegFacts>,
}

/// What comes in on one track.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackFacts {
    /// Which.
    pub sid: TrackSid,
    /// Who publishes it.
    pub publisher: Identity,
    /// Audio or video.
    pub kind: Kind,
    /// Where it comes from.
    pub source: Source,
    /// Its publisher sends nothing.
    pub muted: bool,
    /// In each of its codecs: the preferred one, and perhaps a backup.
    pub encodings: Vec<EncodingFacts>,
}

/// What comes in of a track in one codec.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodingFacts {
    /// What its packets are coded with.
    pub codec: Codec,
    /// The publisher's media section; empty as long as there is none.
    pub mid: String,
    /// Smallest first; one for audio, and for video in a single size.
    pub layers: Vec<LayerFacts>,
    /// To how many it goes.
    pub subscribers: usize,
}

/// One size of a picture, or all of an encoding without sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerFacts {
    /// Its RID, where it is a stream of its own among others.
    pub rid: Option<String>,
    /// Its stream, once a packet came. Layers inside one stream share it.
    pub ssrc: Option<u32>,
    /// What comes in, over the last second, with the layers below in the same stream.
    pub bitrate: Bitrate,
}

/// What goes out to one participant.
#[derive(Debug, Clone, PartialEq)]
pub struct LegFacts {
    /// To whom.
    pub participant: Identity,
    /// This stay of it.
    pub sid: ParticipantSid,
    /// ICE and DTLS are done.
    pub connected: bool,
    /// What its network is believed to carry.
    pub estimate: Bitrate,
    /// The last round trip measured.
    pub round_trip: Option<Duration>,
    /// Part of the wanted video that bandwidth allows, 0 to 1.
    pub share: f64,
    /// In no order.
    pub subscriptions: Vec<SubscriptionFacts>,
}

/// One track on its way to one participant.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionFacts {
    /// Which track.
    pub track: TrackSid,
    /// In which of its encodings, as a place in [`TrackFacts::encodings`].
    pub encoding: usize,
    /// The subscriber's media section, once there is one.
    pub mid: Option<String>,
    /// The outgoing stream, likewise.
    pub ssrc: Option<u32>,
    /// The subscriber doesn't want to see it now.
    pub disabled: bool,
    /// It doesn't come because bandwidth carries not even its smallest picture.
    pub paused: bool,
    /// The best layer the subscriber can use, as a place in [`EncodingFacts::layers`]; so
    /// below.
    pub wanted: u8,
    /// The layer that bandwidth allows, and how many temporal layers above the first; `None` for
    /// none yet, and for audio.
    pub allowed: Option<(u8, u8)>,
    /// The layer that is forwarded now; `None` for none, and for audio.
    pub forwarded: Option<u8>,
    /// RTP packets sent; wraps, as in sender reports.
    pub packets: u32,
    /// RTP payload bytes sent; wraps likewise.
    pub octets: u32,
}

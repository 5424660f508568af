//! Someone in a room: who they are, what they may do, and the two halves of their connection:
//! the [`Peer`] that receives and the [`Leg`] that sends.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::TrackKey;
use super::announcing::News;
use super::codec::Codec;
use super::data::Mailbox;
use super::demux::Pair;
use super::downlink::Downlink;
use super::egress::Leg;
use super::encoding::EncodingKey;
use super::known::Known;
use super::message::{
    AddTrack, ClientInfo, ConnectionQuality, LeaveReason, ParticipantInfo, ParticipantState,
    Permissions, SignalEnd, TrackInfo, TrackSettings,
};
use super::ntp::SenderClock;
use super::packet::Layer;
use super::peer::Peer;
use super::quality::Link;
use super::restriction::Allowances;
use super::section::Sections;
use super::simulation::Simulated;
use super::timers::Armed;
use super::uplink::Uplink;
use crate::ids::{Identity, ParticipantSid, SessionKey, TrackSid};

/// One stay of someone in a room.
pub struct Participant {
    /// This stay.
    pub sid: ParticipantSid,
    /// Where notices go.
    pub session: SessionKey,
    /// Who.
    pub identity: Identity,
    /// Display name.
    pub name: String,
    /// Free text.
    pub metadata: String,
    /// Key-value pairs.
    pub attributes: BTreeMap<String, String>,
    /// What the token allows.
    pub permissions: Permissions,
    /// What the client said of itself.
    pub client: ClientInfo,
    /// Tracks of others are subscribed unasked.
    pub auto_subscribe: bool,
    /// Video starts at the lowest layer until element sizes are known.
    pub adaptive_stream: bool,
    /// Video to it may be paused for want of bandwidth.
    pub may_pause: bool,
    /// How far the stay has come.
    pub state: ParticipantState,
    /// Rises with every change that others see.
    pub version: u32,
    /// When the stay began.
    pub joined: Instant,
    /// The same for others: milliseconds since 1970.
    pub joined_at_ms: i64,
    /// How and when the signalling connection went, if it did.
    pub signal_closed: Option<(SignalEnd, Instant)>,
    /// When DTLS or SCTP of the client said goodbye. Its leave or the end of its signalling
    /// follows, and says why.
    pub closed: Option<Instant>,
    /// When something authentic last came: a STUN check, SRTCP, SRTP or a data message. The rest of
    /// DTLS doesn't tell.
    pub heard: Instant,
    /// Addresses that passed a check; see [`super::demux::PAIRS_MAX`].
    pub pairs: Vec<Pair>,
    /// The user name fragment by which the peer is found.
    pub ufrag: String,
    /// Remote candidates taken so far.
    pub candidates: usize,
    /// The peer's own deadline.
    pub peer_deadline: Instant,
    /// The next regular look at estimate, layers, reports and timeouts.
    pub tick: Instant,
    /// The timer in the heap.
    pub armed: Armed,
    /// ICE, DTLS and data channels; of the connection on which the client publishes, if it has two.
    pub peer: Box<Peer>,
    /// The receiving half, once there are keys.
    pub uplink: Option<Uplink>,
    /// The sending half.
    pub leg: Leg,
    /// The connection of the sending half, for clients with two; `peer` is then the other, on
    /// which they publish.
    pub downlink: Option<Box<Downlink>>,
    /// Media sections of the connection.
    pub sections: Sections,
    /// Announced tracks that wait for their section, and such that wait for an old one of the
    /// same client id to end. Bounded by the limit on tracks.
    pub pending: Vec<Pending>,
    /// Published tracks, in the order they appeared.
    pub published: Vec<TrackKey>,
    /// What the client said about tracks of others, also such that aren't there (yet).
    pub wishes: HashMap<TrackSid, Wish>,
    /// Which track and layer a stream belongs to, for streams that were seen.
    pub sources: Vec<Source>,
    /// Its data messages.
    pub mailbox: Mailbox,
    /// Its wall clock against ours: one for all its streams, so that they stay in sync.
    pub clock: SenderClock,
    /// Who it was told speaks, and how loud, in eighths.
    pub speakers: Known<u8>,
    /// What it was told of connections.
    pub qualities: Known<ConnectionQuality>,
    /// What its own does to media.
    pub link: Link,
    /// Who may have its tracks; `None` is everybody. Bounded by the length of a message.
    pub allowances: Option<Arc<Allowances>>,
    /// Tracks it was told it may not have.
    pub denied: HashSet<TrackKey>,
    /// Tracks it asked for which aren't there, and since when. Bounded by [`WISHES_MAX`].
    pub sought: HashMap<TrackSid, Instant>,
    /// What of it others are still to be told.
    pub news: News,
    /// What it asked to be simulated.
    pub simulated: Simulated,
    /// As others see it now, made when first asked for.
    pub info: OnceCell<Arc<ParticipantInfo>>,
    /// RTP packets taken in the current second, and when it began.
    pub packet_rate: (Instant, u32),
}

/// An announced track.
#[derive(Debug)]
pub struct Pending {
    /// Its id.
    pub sid: TrackSid,
    /// What was announced.
    pub request: AddTrack,
    /// Waits until a published track of the same client id ends.
    pub queued: bool,
}

/// What a subscriber said about one track.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// `None` leaves it to auto-subscription.
    pub subscribed: Option<bool>,
    /// How it should be forwarded.
    pub settings: Option<TrackSettings>,
}

/// A stream of the client, once its place is known.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// As in its packets.
    pub ssrc: u32,
    /// The encoding it belongs to.
    pub of: EncodingKey,
    /// And which layer of it.
    pub layer: Layer,
}

/// Wishes kept per participant; more are ignored. Clients say something about each track of a
/// room, so this is also the largest number of tracks of others that can be told apart.
pub const WISHES_MAX: usize = 4096;

impl Participant {
    /// As others see it, with `tracks`.
    pub fn as_seen(&self, tracks: Vec<TrackInfo>, left: Option<LeaveReason>) -> ParticipantInfo {
        ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.identity.clone(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
            state: if left.is_some() {
                ParticipantState::Disconnected
            } else {
                self.state
            },
            tracks,
            joined_at_ms: self.joined_at_ms,
            version: self.version,
            permissions: self.permissions.clone(),
            client: self.client.clone(),
            left,
        }
    }

    /// Those of the enabled codecs that it may publish.
    pub fn usable(&self, enabled: &[Codec]) -> Vec<Codec> {
        self.client.quirks.usable(enabled).collect()
    }

    /// The wish for `track`, to be changed; `None` when there are too many already.
    /// Tracks of `published` are there now; wishes for others go first.
    pub fn wish(
        &mut self,
        track: &TrackSid,
        published: &HashMap<TrackSid, TrackKey>,
    ) -> Option<&mut Wish> {
        if self.wishes.len() >= WISHES_MAX && !self.wishes.contains_key(track) {
            self.wishes.retain(|sid, _| published.contains_key(sid));
            if self.wishes.len() >= WISHES_MAX {
                return None;
            }
        }
        Some(self.wishes.entry(track.clone()).or_default())
    }
}

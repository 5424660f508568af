//! The language between signalling and media: [`Command`] goes in, [`Notice`] comes out.
//!
//! It is in-process and knows neither protobuf nor JSON; every adapter (LiveKit, the control
//! socket) translates its own protocol to these words and back. Commands of a participant
//! are addressed by its [`SessionKey`], and so are notices. What is asked of a room as a whole has
//! words of its own: [`administration`].

pub mod administration;
pub mod facts;
mod notice;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use super::allocator::Priority;
pub use super::codec::Codec;
pub use super::pausing::{StreamState, StreamUpdate};
pub use super::quality::{ConnectionQuality, QualityUpdate};
pub use super::restriction::Allowance;
pub use super::simulation::{BreakOff, Simulation};
pub use super::speakers::Speaker;
use crate::ids::{Identity, ParticipantSid, RoomName, RoomSid, SessionKey, TrackSid, WorkerId};
use administration::{Profile, Question};
pub use notice::{Joined, Notice, Resumed};

/// Something signalling wants of a shard.
#[derive(Debug)]
pub enum Command {
    /// A new participant. Answered with [`Notice::Joined`] or [`Notice::Refused`].
    Join(Box<Join>),
    /// A participant asks for something.
    Request(SessionKey, Request),
    /// A client takes a stay up again by another signalling connection. Answered with
    /// [`Notice::Resumed`] or [`Notice::Refused`].
    Resume(Resume),
    /// The signalling connection ended without a leave.
    SignalClosed(SessionKey, SignalEnd),
    /// Something asked of a room; answered under its ticket.
    Ask(Box<Question>),
    /// The daemon stops: every participant is told to reconnect elsewhere.
    Shutdown,
}

/// All a shard has to know of a participant who joins.
#[derive(Debug)]
pub struct Join {
    /// Where notices go; chosen by the signalling adapter, never used twice.
    pub session: SessionKey,
    /// The room to join.
    pub room: RoomName,
    /// Whether the room may be created by this join.
    pub create_room: bool,
    /// The worker that has the room's home, if another one does.
    pub home: Option<WorkerId>,
    /// Who joins. A participant of the same identity is evicted.
    pub identity: Identity,
    /// Display name.
    pub name: String,
    /// Free text for other participants.
    pub metadata: String,
    /// Key-value pairs for other participants.
    pub attributes: BTreeMap<String, String>,
    /// What the token allows.
    pub permissions: Permissions,
    /// Whether tracks of others are subscribed without being asked for.
    pub auto_subscribe: bool,
    /// Whether the client will report element sizes: video then starts at the lowest layer.
    pub adaptive_stream: bool,
    /// Whether video to it may be paused when not even the smallest picture fits; `None` leaves it
    /// to the configuration.
    pub may_pause: Option<bool>,
    /// The client receives on a second peer connection, on which the offers are ours.
    pub two_connections: bool,
    /// The client's protocol number and kind, for others to see.
    pub client: ClientInfo,
}

/// A client whose signalling broke, and who has its stay still.
#[derive(Debug)]
pub struct Resume {
    /// Where notices go from now on.
    pub session: SessionKey,
    /// The room of the stay.
    pub room: RoomName,
    /// Whose it is.
    pub identity: Identity,
    /// The stay, if the client says it: another one of the same identity is not its own.
    pub sid: Option<ParticipantSid>,
}

/// How a signalling connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalEnd {
    /// The client's side closed it: its process ended, it was suspended, or a proxy was restarted.
    ByClient,
    /// We did, for whatever reason. The client may not know yet.
    ByUs,
}

/// Which peer connection of a client is meant. Clients with a single one call it `Publisher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// The single one, or that of two on which the client offers and publishes.
    Publisher,
    /// The second of two, on which we offer and send.
    Subscriber,
}

/// What the client said of itself; copied to others so that they can choose features.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// Signalling protocol number.
    pub protocol: i32,
    /// Client-to-client protocol number.
    pub client_protocol: i32,
    /// Capability numbers of the signalling protocol, opaque to media.
    pub capabilities: Vec<i32>,
    /// What has to be done differently for it; others don't see this.
    pub quirks: Quirks,
}

/// Peculiarities of a client that answers and offers have to allow for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// It sends the codec it likes best, whatever the order of the answer: only the one that is
    /// wanted may be named.
    pub ignores_codec_order: bool,
    /// Its encoder of H.264 is not to be relied on.
    pub no_h264: bool,
}

impl Quirks {
    /// Those of `codecs` that it may publish.
    pub fn usable(self, codecs: &[Codec]) -> impl Iterator<Item = Codec> {
        let usable = move |codec: &Codec| *codec != Codec::H264 || !self.no_h264;
        codecs.iter().copied().filter(usable)
    }
}

/// What a participant may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// May publish tracks; see also `sources`.
    pub publish: bool,
    /// When not empty: the only sources it may publish.
    pub sources: Vec<Source>,
    /// May subscribe to tracks.
    pub subscribe: bool,
    /// May send data packets.
    pub publish_data: bool,
    /// May change its own name, metadata and attributes.
    pub update_metadata: bool,
    /// Others don't see it.
    pub hidden: bool,
}

impl Permissions {
    /// Whether a track from `source` may be published.
    pub fn may_publish(&self, source: Source) -> bool {
        self.publish && (self.sources.is_empty() || self.sources.contains(&source))
    }
}

/// What a participant asks for.
#[derive(Debug)]
pub enum Request {
    /// An SDP offer; answered with [`Notice::Answer`] that carries the same id.
    Offer {
        /// Chosen by the client, may be 0.
        id: u32,
        /// The SDP text.
        sdp: String,
    },
    /// The answer to a [`Notice::Offer`].
    Answer {
        /// The id of the offer; 0 from clients older than these ids.
        id: u32,
        /// The SDP text.
        sdp: String,
    },
    /// A remote ICE candidate. One that can't be used is ignored.
    Candidate {
        /// Where it leads.
        connection: Connection,
        /// The value of an SDP `candidate` attribute.
        candidate: String,
    },
    /// Announces a track whose media section follows (or came before).
    AddTrack(Box<AddTrack>),
    /// Mutes or unmutes an own track.
    Mute {
        /// The own track.
        track: TrackSid,
        /// The new state.
        muted: bool,
    },
    /// Subscribes to tracks or unsubscribes from them. Unknown ones are remembered, bounded.
    Subscribe {
        /// Tracks of others.
        tracks: Vec<TrackSid>,
        /// The wish.
        subscribed: bool,
    },
    /// How a subscribed track should be forwarded. Kept when it comes before the subscription.
    TrackSettings {
        /// Tracks of others.
        tracks: Vec<TrackSid>,
        /// The wish.
        settings: TrackSettings,
    },
    /// What a client that resumed believes to have; follows [`Notice::Resumed`].
    Sync(Box<Sync>),
    /// The participant changes what others see of it. What comes of it is a
    /// [`Notice::ProfileAnswer`].
    UpdateProfile {
        /// Chosen by the client.
        request_id: u32,
        /// The change.
        profile: Box<Profile>,
    },
    /// The participant goes.
    Leave,
    /// Its client can't be spoken with any further: the stay ends, and this is why.
    End(Departure),
    /// The client wants to see how it takes a fault.
    Simulate(Simulation),
    /// Says who may have its tracks; `None` is everybody.
    Restrict(Option<Vec<Allowance>>),
    /// Changes the features of an own audio track. Unknown tracks are ignored, here and below.
    AudioFeatures {
        /// The own track.
        track: TrackSid,
        /// As in [`AddTrack::audio_features`].
        features: Vec<i32>,
    },
    /// Changes the size of an own video.
    Dimensions {
        /// The own track.
        track: TrackSid,
        /// Full width and height in pixels.
        dimensions: (u32, u32),
    },
}

/// The state of a session as its client knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sync {
    /// Own tracks it has published. One that isn't known here ends the stay.
    pub published: Vec<TrackSid>,
    /// Tracks of others that it differs on from auto-subscription, and how.
    pub subscriptions: (Vec<TrackSid>, bool),
    /// Tracks of others that it doesn't show now.
    pub disabled: Vec<TrackSid>,
}

/// How a subscriber wants a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackSettings {
    /// Nothing is forwarded while this is true.
    pub disabled: bool,
    /// Width and height of the picture in pixels, if known; goes before `quality`.
    pub dimensions: Option<(u32, u32)>,
    /// The best layer wanted.
    pub quality: Quality,
    /// Highest frame rate wanted, frames per second; `None` for all.
    pub frame_rate: Option<u32>,
    /// What goes before it when bandwidth is short; `None` leaves it to the kind of video.
    pub priority: Option<Priority>,
}

/// A track the client is about to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddTrack {
    /// The published track that this is a further codec for; a new track without.
    pub sid: Option<TrackSid>,
    /// The client's own id for it.
    pub cid: String,
    /// Name for people.
    pub name: String,
    /// Audio or video.
    pub kind: Kind,
    /// Where it comes from.
    pub source: Source,
    /// Muted from the start.
    pub muted: bool,
    /// Full width and height in pixels; zero for audio.
    pub dimensions: (u32, u32),
    /// Spatial layers, as announced.
    pub layers: Vec<LayerInfo>,
    /// Codecs the client means to use, first the preferred one.
    pub codecs: Vec<CodecInfo>,
    /// Encryption of the frames: a number of the signalling protocol, opaque to media.
    pub encryption: i32,
    /// Stereo audio.
    pub stereo: bool,
    /// Audio without discontinuous transmission.
    pub disable_dtx: bool,
    /// Audio without redundancy.
    pub disable_red: bool,
    /// Group of tracks that belong together; empty for the default of the source.
    pub stream: String,
    /// What is to become of the first codec when a backup is needed.
    pub backup_policy: BackupPolicy,
    /// Audio features: numbers of the signalling protocol, opaque to media.
    pub audio_features: Vec<i32>,
    /// Packet trailer features: numbers of the signalling protocol, opaque to media.
    pub packet_trailer_features: Vec<i32>,
}

/// What a publisher wants of its first codec once somebody needs the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackupPolicy {
    /// Rather only the backup, but both will do.
    #[default]
    PreferRegression,
    /// Both, each for those who can read it.
    Simulcast,
    /// The backup for everybody: it can't afford two encoders.
    Regression,
}

/// One announced codec of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecInfo {
    /// `video/VP8`, `audio/opus`; empty until the media section is negotiated.
    pub mime: String,
    /// The client's id of the sender with this codec; empty for a backup that isn't sent yet.
    pub cid: String,
    /// The media section of the publisher, once negotiated.
    pub mid: String,
    /// Each layer comes in a stream of its own, although this codec could have all in one.
    pub apart: bool,
    /// Layers of this codec.
    pub layers: Vec<LayerInfo>,
}

/// One announced spatial layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInfo {
    /// Which.
    pub quality: Quality,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Bits per second, as announced.
    pub bitrate: u32,
    /// Ascending position among the track's layers, 0 is the smallest.
    pub spatial: u8,
}

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Audio,
    Video,
}

/// Where a track comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Source {
    Unknown,
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
}

/// Names of spatial layers, smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Quality {
    Low,
    Medium,
    High,
}

/// A room as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomInfo {
    /// This incarnation.
    pub sid: RoomSid,
    /// Its name.
    pub name: RoomName,
    /// Free text. Shared: it can be large.
    pub metadata: Arc<str>,
    /// How long it waits for its first participant.
    pub empty_timeout: Duration,
    /// How long it outlives its last one.
    pub departure_timeout: Duration,
    /// The most participants it takes.
    pub participants_max: u32,
    /// Visible participants, the new one included.
    pub participants: u32,
    /// Participants who publish.
    pub publishers: u32,
    /// Codecs that may be used in it, the preferred ones first.
    pub codecs: Vec<Codec>,
    /// Random bytes that mark frames which the server injects (none today).
    pub sif_trailer: Vec<u8>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

/// A participant as others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ParticipantInfo {
    /// This stay.
    pub sid: ParticipantSid,
    /// Who.
    pub identity: Identity,
    /// Display name.
    pub name: String,
    /// Free text.
    pub metadata: String,
    /// Key-value pairs.
    pub attributes: BTreeMap<String, String>,
    /// How far the stay has come; never goes back.
    pub state: ParticipantState,
    /// Published tracks.
    pub tracks: Vec<TrackInfo>,
    /// Milliseconds since 1970.
    pub joined_at_ms: i64,
    /// Rises with every change.
    pub version: u32,
    /// What it may do.
    pub permissions: Permissions,
    /// What its client said of itself.
    pub client: ClientInfo,
    /// Why it went, in state `Disconnected`.
    pub left: Option<LeaveReason>,
}

impl ParticipantInfo {
    /// What others are told when it leaves.
    pub fn gone(&self, reason: LeaveReason) -> Self {
        Self {
            state: ParticipantState::Disconnected,
            tracks: Vec::new(),
            version: self.version + 1,
            left: Some(reason),
            ..self.clone()
        }
    }

    /// About how many bytes it keeps.
    fn weight(&self) -> usize {
        let pairs: usize = self
            .attributes
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        let tracks: usize = self.tracks.iter().map(TrackInfo::weight).sum();
        size_of::<Self>() + self.name.len() + self.metadata.len() + pairs + tracks
    }
}

/// How far a stay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParticipantState {
    /// Signalling is there.
    Joined,
    /// Media is connected.
    Active,
    /// Gone.
    Disconnected,
}

/// A track as others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackInfo {
    /// Its id.
    pub sid: TrackSid,
    /// What the client announced; `muted` and what is known of the codecs are kept current.
    pub announced: AddTrack,
    /// More than one spatial layer, each on its own SSRC.
    pub simulcast: bool,
}

impl TrackInfo {
    /// About how many bytes it keeps.
    fn weight(&self) -> usize {
        let AddTrack {
            cid,
            name,
            stream,
            codecs,
            ..
        } = &self.announced;
        let codec = |it: &CodecInfo| size_of::<CodecInfo>() + it.cid.len() + it.mime.len();
        let codecs: usize = codecs.iter().map(codec).sum();
        size_of::<Self>() + cid.len() + name.len() + stream.len() + codecs
    }
}

/// Why a join or resume is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such room, and this join may not create it.
    RoomMissing,
    /// The room has as many participants as it may.
    RoomFull,
    /// The node has as many participants or rooms as it may.
    NodeFull,
    /// The daemon is stopping.
    ShuttingDown,
    /// There is no such stay to take up again.
    StayUnknown,
    /// The peer connection could not be made.
    Internal,
}

/// Why a track is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackRefusal {
    /// The token doesn't allow this source.
    NotAllowed,
    /// Too many tracks are published or wait for their media section.
    LimitExceeded,
    /// The same client id is still published; this one follows when it ends.
    Queued,
    /// No such track is published that could have another codec.
    NotFound,
    /// Not with this codec.
    Unsupported,
}

/// How a stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Why.
    pub reason: LeaveReason,
    /// What the client should do now.
    pub action: LeaveAction,
}

/// Why a stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaveReason {
    /// The client said so.
    ClientInitiated,
    /// The same identity joined again.
    DuplicateIdentity,
    /// The daemon stops.
    ServerShutdown,
    /// Client and server disagree on the state of the session.
    StateMismatch,
    /// Media was never connected in the time allowed.
    JoinFailure,
    /// The signalling connection ended before media was connected.
    SignalClosed,
    /// Media was lost.
    ConnectionTimeout,
    /// An operator or a program of theirs removed the participant.
    ParticipantRemoved,
    /// An operator or a program of theirs deleted the room.
    RoomDeleted,
    /// A fault in this participant's own peer; nobody else is touched.
    Internal,
}

/// What the client should do after its stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveAction {
    /// Stay away.
    Disconnect,
    /// Take the session up again.
    Resume,
    /// Join anew.
    Reconnect,
}

/// A datagram to send, possibly several of equal size behind each other.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// The local address it leaves from.
    pub local: SocketAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// One datagram, or a run of them when `segment` is given.
    pub contents: &'a [u8],
    /// Bytes of each datagram of a run but the last, which may be shorter.
    pub segment: Option<usize>,
}

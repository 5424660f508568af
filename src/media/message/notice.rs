//! What a shard tells a session: one enum, and the notices that are large enough for a type of
//! their own.

use std::sync::Arc;

use super::administration::{Profile, ProfileRefusal};
use super::{
    AddTrack, BreakOff, Departure, ParticipantInfo, Quality, QualityUpdate, Refusal, RoomInfo,
    Speaker, StreamUpdate, TrackInfo, TrackRefusal,
};
use crate::ids::{ParticipantSid, TrackSid};

/// Something a shard tells a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The join succeeded. Always the first notice of a session, unless it is `Refused`.
    Joined(Box<Joined>),
    /// The stay goes on in this session. Always its first notice, unless it is `Refused`.
    Resumed(Box<Resumed>),
    /// The join or resume failed; the session is over.
    Refused(Refusal),
    /// The answer to an offer.
    Answer {
        /// The id of the offer.
        id: u32,
        /// The SDP text.
        sdp: String,
        /// Every mid on which media is sent to the client, and the track it carries.
        mid_to_track: Vec<(String, TrackSid)>,
    },
    /// An offer for the second peer connection; to be answered with [`super::Request::Answer`].
    Offer {
        /// Rises with every offer.
        id: u32,
        /// The SDP text.
        sdp: String,
        /// Every mid on which media is sent to the client, and the track it carries.
        mid_to_track: Vec<(String, TrackSid)>,
    },
    /// An own track was accepted.
    TrackPublished {
        /// The client's id, from the request.
        cid: String,
        /// The track as others see it.
        track: Box<TrackInfo>,
    },
    /// An own track was not accepted.
    TrackRefused {
        /// The request, for the client to recognise.
        request: Box<AddTrack>,
        /// Why.
        reason: TrackRefusal,
    },
    /// A mute for a track the participant doesn't have.
    MuteRefused {
        /// The unknown track.
        track: TrackSid,
        /// The state asked for.
        muted: bool,
    },
    /// What changed about another participant, or about this one by other means than its own
    /// tracks. Sent before the answer that carries its media. One value for all who are told:
    /// metadata can be large.
    Participant(Arc<ParticipantInfo>),
    /// What changed about the room: at once its metadata, within some seconds who is in it.
    Room(Arc<RoomInfo>),
    /// What became of a [`super::Request::UpdateProfile`]. Older clients are only told of refusals.
    ProfileAnswer {
        /// As in the request.
        request_id: u32,
        /// As in the request.
        profile: Box<Profile>,
        /// Whether the profile is changed.
        result: Result<(), ProfileRefusal>,
    },
    /// Somebody else muted or unmuted an own track.
    Muted {
        /// The own track.
        track: TrackSid,
        /// The new state.
        muted: bool,
    },
    /// An own track was ended because it may no longer be published.
    TrackUnpublished(TrackSid),
    /// The client should offer again with this many more receiving sections; 0 and 0 mean just
    /// "offer again".
    MediaSectionsRequired {
        /// Audio sections missing.
        audios: u32,
        /// Video sections missing.
        videos: u32,
    },
    /// A subscription ended because the client can't read the track's codec.
    CodecUnsupported(TrackSid),
    /// A subscription doesn't come about: the client has no section for it, or can have none. It is
    /// not ended, and may come yet.
    SubscriptionFailed(TrackSid),
    /// An own track has its first subscriber.
    TrackSubscribed(TrackSid),
    /// Nothing is heard of the client's media any more: it should take the session up again. The
    /// stay isn't over, but no other notice follows in this session.
    MediaLost,
    /// Another session has taken the stay over; the last notice of this one.
    Replaced,
    /// The stay is over; the last notice of a session.
    Left(Departure),
    /// What changed about who speaks, of the participant and those whose tracks it has.
    Speakers(Vec<Speaker>),
    /// What of an own video anybody wants: by mime type of the codec the best layer, `None` where
    /// nobody wants any.
    Demand {
        /// The own track.
        track: TrackSid,
        /// In the order of the announced codecs.
        codecs: Vec<(String, Option<Quality>)>,
    },
    /// A publisher took the permission to receive a track away, or gave it (back).
    SubscriptionAllowed {
        /// Whose track.
        participant: ParticipantSid,
        /// Which.
        track: TrackSid,
        /// What holds now.
        allowed: bool,
    },
    /// What changed about connections: the participant's own, and of those whose tracks it has.
    Qualities(Vec<QualityUpdate>),
    /// Videos that bandwidth paused, or that come again.
    StreamStates(Vec<StreamUpdate>),
    /// A track that was asked for has not appeared.
    TrackMissing(TrackSid),
}

impl Notice {
    /// About how many bytes it keeps, for those who queue notices.
    pub fn weight(&self) -> usize {
        let kept = match self {
            Self::Joined(joined) => {
                let others: usize = joined.others.iter().map(|info| info.weight()).sum();
                joined.participant.weight() + others
            }
            Self::Resumed(resumed) => {
                let all = resumed.gone.iter().chain(&resumed.others);
                resumed.participant.weight() + all.map(|info| info.weight()).sum::<usize>()
            }
            Self::Participant(info) => info.weight(),
            Self::Answer { sdp, .. } | Self::Offer { sdp, .. } => sdp.len(),
            Self::Speakers(speakers) => size_of_val(speakers.as_slice()),
            Self::Qualities(updates) => size_of_val(updates.as_slice()),
            Self::StreamStates(updates) => size_of_val(updates.as_slice()),
            Self::Room(info) => info.metadata.len(),
            Self::ProfileAnswer { profile, .. } => profile.weight(),
            _ => 0,
        };
        size_of::<Self>() + kept
    }
}

/// What a participant learns on joining.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The room.
    pub room: RoomInfo,
    /// The participant itself.
    pub participant: Arc<ParticipantInfo>,
    /// Everyone else who is visible, with their tracks.
    pub others: Vec<Arc<ParticipantInfo>>,
    /// Of two peer connections, the one we offer on comes first and makes the participant active.
    pub subscriber_primary: bool,
}

/// What a participant learns on taking its stay up again.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// The room.
    pub room: RoomInfo,
    /// The participant itself.
    pub participant: Arc<ParticipantInfo>,
    /// Who left lately, and may have left unheard.
    pub gone: Vec<Arc<ParticipantInfo>>,
    /// Everyone else who is visible, with their tracks.
    pub others: Vec<Arc<ParticipantInfo>>,
    /// Its signalling is to break again, as it wished.
    pub break_off: Option<BreakOff>,
    /// The last number of its own reliable data messages that came; what follows, it sends again.
    pub last_sequence: u32,
}

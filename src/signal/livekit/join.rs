//! The join request in a URL, and the checks that need no shard.
//!
//! `join_request` is base64url of a `WrappedJoinRequest`, which holds a `JoinRequest`, mostly in
//! gzip. Every step has a bound, and none of its errors says what was in the request.

use std::fmt;
use std::io::Read;

use axum::extract::Query;
use axum::http::{HeaderMap, Uri, header};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::GzDecoder;
use livekit_protocol as proto;
use prost::Message;
use serde::Deserialize;

use super::client::client;
use super::{decode, query};
use crate::config;
use crate::ids::{Identity, ParticipantSid, RoomName, SessionKey, WorkerId};
use crate::media::message::{ClientInfo, Join, Refusal, Resume};
use crate::signal::grant::{self, Grant, bearer};
use crate::signal::{Signal, Stats, unix_now};

/// JavaScript pads, others need not.
pub(super) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A join that may go to a shard.
#[derive(Debug)]
pub(super) struct Admission {
    pub room: RoomName,
    pub create_room: bool,
    /// The stay that the client believes to have already.
    pub resume: Option<Stay>,
    /// It receives on a connection of its own.
    pub two_connections: bool,
    pub grant: Grant,
    /// Whom the token is for.
    pub holder: Identity,
    pub client: ClientInfo,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    /// Whether video may be paused, if the client says it.
    pub may_pause: Option<bool>,
    /// Tracks and offer the client brought along; they are handled after the `JoinResponse`.
    pub tracks: Vec<proto::AddTrackRequest>,
    pub offer: Option<proto::SessionDescription>,
}

/// What a client says of the stay it wants to take up again.
#[derive(Debug, Default)]
pub(super) struct Stay {
    /// Its id, from clients that know it.
    pub sid: Option<ParticipantSid>,
}

/// Why there is no join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Token(grant::Refused),
    TokenMissing,
    /// An `Authorization` header with something else than a bearer token.
    NotBearer,
    Query,
    JoinRequestMissing,
    JoinRequest,
    /// A text is over its limit.
    TooLong,
    Shard(Refusal),
    /// The shard didn't answer.
    Timeout,
    Internal,
}

#[derive(Deserialize)]
struct Parameters {
    access_token: Option<String>,
    join_request: Option<String>,
}

/// Checks token and join request. The token comes first: a stranger learns nothing else.
pub(super) fn admit(signal: &Signal, uri: &Uri, headers: &HeaderMap) -> Result<Admission, Refused> {
    let Query(parameters) = Query::<Parameters>::try_from_uri(uri).map_err(|_| Refused::Query)?;
    let token = match headers.get(header::AUTHORIZATION) {
        Some(value) => Some(bearer(value.to_str().ok()).ok_or(Refused::NotBearer)?),
        None => parameters.access_token.as_deref(),
    };
    let token = token.filter(|token| !token.is_empty());
    let token = token.ok_or(Refused::TokenMissing)?;
    let grant = signal.verifier.check(token, unix_now())?;
    let room = grant.room_to_join()?.clone();
    signal.revocations.check(&grant, unix_now())?;
    let create_room = match &grant.matrix {
        // Whoever asked for it at a homeserver that may open calls.
        Some(call) => call.open,
        None => signal.config.rooms.auto_create || grant.room_create,
    };
    let mut admission = Admission::new(room, create_room, grant);
    let limits = &signal.config.limits;
    let text = parameters.join_request.filter(|text| !text.is_empty());
    let Some(text) = text else {
        return match is_v1(uri) {
            true => Err(Refused::JoinRequestMissing),
            false => query::admission(uri, headers, admission, limits),
        };
    };
    // Tracks beyond what a participant may have are refused, one of them in words.
    let tracks_max = limits.tracks_per_participant.saturating_add(1);
    let bytes = unwrap(&text, limits.join_request_bytes.get())?;
    let request = decode::join_request(&bytes, tracks_max).map_err(|_| Refused::JoinRequest)?;
    admission.resume = request.reconnect.then(|| Stay {
        sid: participant_sid(request.participant_sid),
    });
    admission.client = client(request.client_info, user_agent(headers));
    admission.tracks = request.add_track_requests;
    admission.offer = request.publisher_offer;
    // Absent settings mean false here; both client families send them.
    if let Some(settings) = request.connection_settings {
        admission.auto_subscribe = settings.auto_subscribe;
        admission.adaptive_stream = settings.adaptive_stream;
        admission.may_pause = settings.subscriber_allow_pause;
    }
    let own = request.participant_attributes;
    admission.describe(request.metadata, own, limits)?;
    Ok(admission)
}

/// Whether `uri` is a path of the newer signalling.
pub(super) fn is_v1(uri: &Uri) -> bool {
    uri.path().starts_with("/rtc/v1")
}

impl Admission {
    /// What a token alone says.
    pub fn new(room: RoomName, create_room: bool, grant: Grant) -> Self {
        Self {
            room,
            create_room,
            holder: grant.identity.clone(),
            resume: None,
            two_connections: false,
            grant,
            client: ClientInfo::default(),
            auto_subscribe: false,
            adaptive_stream: false,
            may_pause: None,
            tracks: Vec::new(),
            offer: None,
        }
    }

    /// The command for the shard.
    pub fn to_join(&self, session: SessionKey, home: Option<WorkerId>) -> Join {
        Join {
            session,
            room: self.room.clone(),
            create_room: self.create_room,
            home,
            identity: self.grant.identity.clone(),
            name: self.grant.name.clone(),
            metadata: self.grant.metadata.clone(),
            attributes: self.grant.attributes.clone(),
            permissions: self.grant.permissions.clone(),
            auto_subscribe: self.auto_subscribe,
            adaptive_stream: self.adaptive_stream,
            may_pause: self.may_pause,
            two_connections: self.two_connections,
            client: self.client.clone(),
        }
    }

    /// The command for the shard, to take up the stay that the client believes to have.
    pub fn to_resume(&self, stay: &Stay, session: SessionKey) -> Resume {
        Resume {
            session,
            room: self.room.clone(),
            identity: self.grant.identity.clone(),
            sid: stay.sid.clone(),
        }
    }

    /// Fails if the participant was removed while it was joining.
    pub fn check_again(&self, signal: &Signal) -> Result<(), Refused> {
        let grant = Grant {
            identity: self.holder.clone(),
            ..self.grant.clone()
        };
        Ok(signal.revocations.check(&grant, unix_now())?)
    }

    /// Adds what the client says of itself, where the token allows that.
    pub fn describe(
        &mut self,
        metadata: String,
        attributes: impl IntoIterator<Item = (String, String)>,
        limits: &config::Limits,
    ) -> Result<(), Refused> {
        if !self.grant.permissions.update_metadata {
            return Ok(());
        }
        if !metadata.is_empty() {
            self.grant.metadata = metadata;
        }
        let given = attributes
            .into_iter()
            .filter(|(_, value)| !value.is_empty());
        self.grant.attributes.extend(given);
        let attributes = self.grant.attributes.iter();
        let attribute_bytes: usize = attributes.map(|(key, value)| key.len() + value.len()).sum();
        let over = self.grant.metadata.len() > limits.metadata_bytes.get()
            || attribute_bytes > limits.attributes_bytes.get();
        if over { Err(Refused::TooLong) } else { Ok(()) }
    }
}

impl Refused {
    pub fn status(self) -> u16 {
        match self {
            Self::Token(refused) => refused.status(),
            Self::TokenMissing | Self::NotBearer => 401,
            Self::Query | Self::JoinRequestMissing | Self::JoinRequest | Self::TooLong => 400,
            Self::Shard(Refusal::RoomMissing | Refusal::StayUnknown) => 404,
            Self::Shard(Refusal::Internal) | Self::Internal => 500,
            Self::Shard(_) | Self::Timeout => 503,
        }
    }

    pub fn count(self, stats: &Stats) {
        match self {
            Self::Token(_) | Self::TokenMissing | Self::NotBearer => {
                Stats::count(&stats.refused_token);
            }
            Self::Query | Self::JoinRequestMissing | Self::JoinRequest | Self::TooLong => {
                Stats::count(&stats.refused_malformed);
            }
            Self::Shard(refusal) => stats.refused(refusal),
            Self::Timeout | Self::Internal => stats.refused(Refusal::Internal),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(refused) => return refused.fmt(f),
            Self::TokenMissing => "permission denied: no token",
            Self::NotBearer => "invalid authorization header, must start with Bearer",
            Self::Query => "invalid query parameters",
            Self::JoinRequestMissing => "join_request is required",
            Self::JoinRequest => "join_request could not be read",
            Self::TooLong => "metadata or attributes are too long",
            // Clients look for these very words.
            Self::Shard(Refusal::RoomMissing) => "requested room does not exist",
            Self::Shard(Refusal::RoomFull) => "the room is full",
            Self::Shard(Refusal::NodeFull) => "this node is full",
            Self::Shard(Refusal::ShuttingDown) => "this node is shutting down",
            Self::Shard(Refusal::StayUnknown) => "unknown session",
            Self::Shard(Refusal::Internal) | Self::Internal => "internal error",
            Self::Timeout => "the room did not answer in time",
        })
    }
}

impl From<grant::Refused> for Refused {
    fn from(refused: grant::Refused) -> Self {
        Self::Token(refused)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Shard(refusal)
    }
}

pub(super) fn user_agent(headers: &HeaderMap) -> &str {
    let agent = headers.get(header::USER_AGENT);
    agent
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default()
}

fn unwrap(text: &str, bytes_max: usize) -> Result<Vec<u8>, Refused> {
    let wrapped = BASE64URL.decode(text).map_err(|_| Refused::JoinRequest)?;
    let wrapped = proto::WrappedJoinRequest::decode(wrapped.as_slice());
    let wrapped = wrapped.map_err(|_| Refused::JoinRequest)?;
    let bytes = match wrapped.compression() {
        proto::wrapped_join_request::Compression::None => wrapped.join_request,
        proto::wrapped_join_request::Compression::Gzip => {
            inflate(&wrapped.join_request, bytes_max)?
        }
    };
    if bytes.len() > bytes_max {
        return Err(Refused::JoinRequest);
    }
    Ok(bytes)
}

/// Inflates at most one byte more than allowed.
fn inflate(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, Refused> {
    let mut inflated = Vec::new();
    let limit = (bytes_max as u64).saturating_add(1);
    let mut decoder = GzDecoder::new(bytes).take(limit);
    let result = decoder.read_to_end(&mut inflated);
    result.map_err(|_| Refused::JoinRequest)?;
    Ok(inflated)
}

pub(super) fn participant_sid(text: String) -> Option<ParticipantSid> {
    (!text.is_empty()).then(|| text.into())
}
#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    #[test]
    fn a_bomb_is_cut_off_while_it_inflates() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![0; 4 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert_eq!(inflate(&bomb, 1000).unwrap().len(), 1001);
        let wrapped = proto::WrappedJoinRequest {
            compression: proto::wrapped_join_request::Compression::Gzip as i32,
            join_request: bomb,
        };
        let text = BASE64URL.encode(wrapped.encode_to_vec());
        assert_eq!(unwrap(&text, 1000), Err(Refused::JoinRequest));
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["*", "AAAA", "_____w=="] {
            assert_eq!(unwrap(text, 1000), Err(Refused::JoinRequest), "{text}");
        }
    }

    #[test]
    fn only_bearer_tokens_count() {
        assert_eq!(bearer(Some("Bearer abc")), Some("abc"));
        assert_eq!(bearer(Some("bearer abc")), Some("abc"));
        assert_eq!(bearer(Some("Basic abc")), None);
        assert_eq!(bearer(Some("abc")), None);
        assert_eq!(bearer(None), None);
    }
}

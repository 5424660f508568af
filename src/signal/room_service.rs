//! The server API: LiveKit's RoomService over Twirp, in protobuf and JSON.
//!
//! ```text
//! POST /twirp/livekit.RoomService/<Method>
//!   -> token and its right to the method (401) -> body (400) -> its right to the room (401)
//!   -> question to the room -> answer, or an error as JSON
//! ```
//!
//! A stranger's body is never read. What the methods do is the rooms' matter
//! ([`crate::media::message::administration`]); here are the words, the rights and the limits of
//! Twirp. What is not here: methods for what isn't built (they answer `unimplemented`).

mod error;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use livekit_protocol as proto;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::grant::{Grant, bearer};
use super::livekit::{request, wire};
use super::{Signal, Stats, unix_now};
use crate::ids::{Identity, ParticipantSid, RoomName};
use crate::media::message::Permissions;
use crate::media::message::administration::{Data, Fact, Profile, RoomOptions, RoomRequest};
use error::{Code, Error};

/// Bytes of a request; a longer one is malformed.
const BODY_BYTES_MAX: usize = 4 << 20;

/// A room answers in milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Rooms that are asked at a time for a list of them.
const ROOMS_AT_A_TIME: usize = 64;

/// Bytes of the nonce of a data message, if it has one.
const NONCE_BYTES: usize = 16;

/// Receivers that a data message names; the rest is ignored.
const RECEIVERS_MAX: usize = 1000;

const PROTOBUF: &str = "application/protobuf";
const JSON: &str = "application/json";

pub(super) fn routes() -> Router<Arc<Signal>> {
    Router::new().route("/twirp/livekit.RoomService/{method}", any(serve))
}

async fn serve(
    State(signal): State<Arc<Signal>>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let served = match method {
        Method::POST => dispatch(&signal, &name, &headers, body).await,
        _ => Err(Error::new(Code::BadRoute, "only POST is answered here")),
    };
    match served {
        Ok(response) => {
            Stats::count(&signal.stats.api_calls);
            response
        }
        Err(error) => {
            Stats::count(&signal.stats.api_errors);
            tracing::debug!(method = name, "call refused: {error}");
            error.into_response()
        }
    }
}

async fn dispatch(
    signal: &Arc<Signal>,
    method: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let call = Call {
        encoding: Encoding::of(headers)?,
        body,
    };
    let service = Service {
        grant: grant(signal, headers)?,
        signal: Arc::clone(signal),
    };
    match method {
        "CreateRoom" => {
            service.needs(|grant| grant.room_create, "roomCreate")?;
            call.answer(|asked| service.create_room(asked)).await
        }
        "ListRooms" => {
            service.needs(|grant| grant.room_list, "roomList")?;
            call.answer(|asked| service.list_rooms(asked)).await
        }
        "DeleteRoom" => {
            service.needs(|grant| grant.room_create, "roomCreate")?;
            call.answer(|asked| service.delete_room(asked)).await
        }
        _ => {
            service.needs(|grant| grant.room_admin, "roomAdmin")?;
            dispatch_admin(service, method, call).await
        }
    }
}

/// The methods that need control over one room.
async fn dispatch_admin(service: Service, method: &str, call: Call) -> Result<Response, Error> {
    match method {
        "ListParticipants" => call.answer(|asked| service.list_participants(asked)).await,
        "GetParticipant" => call.answer(|asked| service.get_participant(asked)).await,
        "RemoveParticipant" => call.answer(|asked| service.remove_participant(asked)).await,
        "MutePublishedTrack" => call.answer(|asked| service.mute_track(asked)).await,
        "UpdateParticipant" => call.answer(|asked| service.update_participant(asked)).await,
        "UpdateSubscriptions" => {
            call.answer(|asked| service.update_subscriptions(asked))
                .await
        }
        "UpdateRoomMetadata" => call.answer(|asked| service.update_metadata(asked)).await,
        "SendData" => call.answer(|asked| service.send_data(asked)).await,
        "ForwardParticipant" | "MoveParticipant" | "PerformRpc" => {
            Err(Error::new(Code::Unimplemented, "this method is not built"))
        }
        _ => Err(Error::new(Code::BadRoute, "there is no such method")),
    }
}

/// What the token of a request grants.
fn grant(signal: &Signal, headers: &HeaderMap) -> Result<Grant, Error> {
    let refused = |why: &str| Error::new(Code::Unauthenticated, why);
    let value = headers.get(header::AUTHORIZATION);
    let value = value.ok_or_else(|| refused("no token"))?;
    let token = bearer(value.to_str().ok());
    let token = token.ok_or_else(|| refused("the Authorization header is no Bearer token"))?;
    let now = unix_now();
    let grant = signal.verifier.check(token, now);
    let grant = grant.and_then(|grant| {
        signal.revocations.check(&grant, now)?;
        Ok(grant)
    });
    grant.map_err(|why| refused(&why.to_string()))
}

/// How a request is written, and so its answer.
#[derive(Clone, Copy)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let text = headers.get(header::CONTENT_TYPE);
        let text = text.and_then(|text| text.to_str().ok()).unwrap_or_default();
        // Parameters such as a charset say nothing new.
        match text.split(';').next().unwrap_or_default().trim() {
            PROTOBUF => Ok(Self::Protobuf),
            JSON => Ok(Self::Json),
            _ => Err(Error::new(
                Code::BadRoute,
                "the content type is neither application/protobuf nor application/json",
            )),
        }
    }

    fn read<Q: Message + Default + DeserializeOwned>(self, body: &[u8]) -> Result<Q, Error> {
        let malformed = |what| Error::new(Code::Malformed, what);
        match self {
            Self::Protobuf => {
                Q::decode(body).map_err(|_| malformed("the body is not the protobuf message"))
            }
            // The parser's own words could quote the body.
            Self::Json => serde_json::from_slice(body)
                .map_err(|_| malformed("the body is not the message in JSON")),
        }
    }

    fn write(self, answer: &(impl Message + Serialize)) -> Result<Response, Error> {
        let (kind, bytes) = match self {
            Self::Protobuf => (PROTOBUF, Bytes::from(answer.encode_to_vec())),
            Self::Json => {
                let text = serde_json::to_vec(answer);
                let text = text.map_err(|_| Error::new(Code::Internal, "no JSON was made"))?;
                (JSON, Bytes::from(text))
            }
        };
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
        Ok((StatusCode::OK, kind, bytes).into_response())
    }
}

/// A request whose body is not read yet.
struct Call {
    encoding: Encoding,
    body: Body,
}

impl Call {
    async fn answer<Q, A, F>(self, method: impl FnOnce(Q) -> F) -> Result<Response, Error>
    where
        Q: Message + Default + DeserializeOwned,
        A: Message + Serialize,
        F: Future<Output = Result<A, Error>>,
    {
        let too_long = || Error::new(Code::Malformed, "the body is too long or broke off");
        // What is announced as too long need not come.
        if self.body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(too_long());
        }
        let body = axum::body::to_bytes(self.body, BODY_BYTES_MAX).await;
        let body = body.map_err(|_| too_long())?;
        let answer = method(self.encoding.read(&body)?).await?;
        self.encoding.write(&answer)
    }
}

/// The methods, for the holder of a token.
struct Service {
    signal: Arc<Signal>,
    grant: Grant,
}

impl Service {
    fn needs(&self, right: impl Fn(&Grant) -> bool, name: &str) -> Result<(), Error> {
        let missing = || format!("permission denied: the token does not grant {name}");
        match right(&self.grant) {
            true => Ok(()),
            false => Err(Error::new(Code::Unauthenticated, &missing())),
        }
    }

    /// The room of a request, if the token is for that one.
    fn room(&self, name: &str) -> Result<RoomName, Error> {
        let room = self.grant.room.as_ref();
        match room.filter(|room| room.as_str() == name) {
            Some(room) => Ok(room.clone()),
            None => {
                let why = "permission denied: the token is for another room";
                Err(Error::new(Code::Unauthenticated, why))
            }
        }
    }

    /// Somebody who may be in a room, now or later.
    fn identity(&self, text: String) -> Result<Identity, Error> {
        let max = self.signal.config.limits.identity_bytes.get();
        match text.is_empty() || text.len() > max {
            true => {
                let what = "identity is missing or longer than limits.identity_bytes";
                Err(Error::new(Code::InvalidArgument, what))
            }
            false => Ok(text.into()),
        }
    }

    async fn ask(&self, room: &RoomName, request: RoomRequest) -> Result<Fact, Error> {
        let asked = self.signal.directory.ask(room, request);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        let late = |_| Error::new(Code::Unavailable, "the room did not answer in time");
        Ok(answer.map_err(late)??)
    }

    async fn create_room(&self, asked: proto::CreateRoomRequest) -> Result<proto::Room, Error> {
        let max = self.signal.config.limits.name_bytes.get();
        if asked.name.is_empty() || asked.name.len() > max || asked.name.contains('\0') {
            let what = "name must not be empty, longer than limits.name_bytes or have a NUL";
            return Err(Error::new(Code::InvalidArgument, what));
        }
        let seconds = |count: u32| (count > 0).then_some(super::room_timeout(count));
        let options = RoomOptions {
            empty_timeout: seconds(asked.empty_timeout),
            departure_timeout: seconds(asked.departure_timeout),
            participants_max: (asked.max_participants > 0).then_some(asked.max_participants),
            metadata: Some(asked.metadata).filter(|text| !text.is_empty()),
        };
        let room = RoomName::from(asked.name);
        read_room(self.ask(&room, RoomRequest::Create(options)).await?)
    }

    async fn list_rooms(
        &self,
        asked: proto::ListRoomsRequest,
    ) -> Result<proto::ListRoomsResponse, Error> {
        let mut names = self.signal.directory.open_rooms();
        let wanted: HashSet<_> = asked.names.iter().map(String::as_str).collect();
        names.retain(|name| wanted.is_empty() || wanted.contains(name.as_str()));
        let mut rooms = Vec::with_capacity(names.len());
        for names in names.chunks(ROOMS_AT_A_TIME) {
            let mut answers = tokio::task::JoinSet::new();
            for name in names {
                let name = name.clone();
                let directory = Arc::clone(&self.signal.directory);
                let asked = async move { directory.ask(&name, RoomRequest::Describe).await };
                answers.spawn(tokio::time::timeout(ANSWER_TIMEOUT, asked));
            }
            // A room that closed meanwhile is none.
            for answer in answers.join_all().await {
                if let Ok(Ok(fact)) = answer {
                    rooms.push(read_room(fact)?);
                }
            }
        }
        Ok(proto::ListRoomsResponse { rooms })
    }

    async fn delete_room(
        &self,
        asked: proto::DeleteRoomRequest,
    ) -> Result<proto::DeleteRoomResponse, Error> {
        let room = RoomName::from(asked.room);
        self.ask(&room, RoomRequest::Delete).await?;
        Ok(proto::DeleteRoomResponse {})
    }

    async fn list_participants(
        &self,
        asked: proto::ListParticipantsRequest,
    ) -> Result<proto::ListParticipantsResponse, Error> {
        let room = self.room(&asked.room)?;
        match self.ask(&room, RoomRequest::Participants).await? {
            Fact::Participants(all) => Ok(proto::ListParticipantsResponse {
                participants: all.iter().map(|info| wire::participant(info)).collect(),
            }),
            _ => Err(Error::unexpected()),
        }
    }

    async fn get_participant(
        &self,
        asked: proto::RoomParticipantIdentity,
    ) -> Result<proto::ParticipantInfo, Error> {
        let room = self.room(&asked.room)?;
        let request = RoomRequest::Participant(self.identity(asked.identity)?);
        read_participant(self.ask(&room, request).await?)
    }

    /// Ends the stay, and refuses the tokens it could come back with. They are refused first, so
    /// that no join slips in between, and whether or not somebody is there now.
    async fn remove_participant(
        &self,
        asked: proto::RoomParticipantIdentity,
    ) -> Result<proto::RemoveParticipantResponse, Error> {
        let room = self.room(&asked.room)?;
        let identity = self.identity(asked.identity)?;
        let now = unix_now();
        let before = match u64::try_from(asked.revoke_token_ts) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
            _ => now,
        };
        let revocations = &self.signal.revocations;
        revocations.revoke(room.clone(), identity.clone(), before, now);
        self.ask(&room, RoomRequest::Remove(identity)).await?;
        Ok(proto::RemoveParticipantResponse {})
    }

    async fn mute_track(
        &self,
        asked: proto::MuteRoomTrackRequest,
    ) -> Result<proto::MuteRoomTrackResponse, Error> {
        let room = self.room(&asked.room)?;
        if !asked.muted && !self.signal.config.rooms.remote_unmute {
            let why = "nobody but its publisher may unmute a track; see rooms.remote_unmute";
            return Err(Error::new(Code::FailedPrecondition, why));
        }
        let request = RoomRequest::Mute {
            participant: self.identity(asked.identity)?,
            track: asked.track_sid.into(),
            muted: asked.muted,
        };
        match self.ask(&room, request).await? {
            Fact::Track(info) => Ok(proto::MuteRoomTrackResponse {
                track: Some(wire::track(*info)),
            }),
            _ => Err(Error::unexpected()),
        }
    }

    async fn update_participant(
        &self,
        asked: proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, Error> {
        let room = self.room(&asked.room)?;
        let profile: Profile = request::profile(asked.name, asked.metadata, asked.attributes);
        let hiding = self.signal.config.rooms.hidden_participants;
        let request = RoomRequest::Change {
            participant: self.identity(asked.identity)?,
            profile,
            permissions: asked.permission.map(|may| permissions(&may, hiding)),
        };
        read_participant(self.ask(&room, request).await?)
    }

    async fn update_subscriptions(
        &self,
        asked: proto::UpdateSubscriptionsRequest,
    ) -> Result<proto::UpdateSubscriptionsResponse, Error> {
        let room = self.room(&asked.room)?;
        let of_participants = asked.participant_tracks.into_iter();
        let of_participants = of_participants.flat_map(|tracks| tracks.track_sids);
        let request = RoomRequest::Subscribe {
            participant: self.identity(asked.identity)?,
            tracks: request::sids(asked.track_sids.into_iter().chain(of_participants)),
            subscribed: asked.subscribe,
        };
        self.ask(&room, request).await?;
        Ok(proto::UpdateSubscriptionsResponse {})
    }

    #[expect(deprecated, reason = "clients of today still read these fields")]
    async fn send_data(
        &self,
        asked: proto::SendDataRequest,
    ) -> Result<proto::SendDataResponse, Error> {
        let room = self.room(&asked.room)?;
        if !matches!(asked.nonce.len(), 0 | NONCE_BYTES) {
            return Err(Error::new(Code::InvalidArgument, "a nonce has 16 bytes"));
        }
        let identities = asked.destination_identities;
        let named = |names: &[String]| names.iter().take(RECEIVERS_MAX).cloned().collect();
        let user = proto::UserPacket {
            payload: asked.data,
            topic: asked.topic,
            destination_identities: named(&identities),
            destination_sids: named(&asked.destination_sids),
            nonce: asked.nonce,
            ..Default::default()
        };
        let packet = proto::DataPacket {
            kind: asked.kind,
            destination_identities: named(&identities),
            value: Some(proto::data_packet::Value::User(user)),
            ..Default::default()
        };
        let sids = asked.destination_sids.into_iter().take(RECEIVERS_MAX);
        let data = Data {
            message: packet.encode_to_vec().into(),
            reliable: asked.kind == proto::data_packet::Kind::Reliable as i32,
            identities: identities
                .into_iter()
                .take(RECEIVERS_MAX)
                .map(Identity::from)
                .collect(),
            sids: sids.map(ParticipantSid::from).collect(),
        };
        self.ask(&room, RoomRequest::SendData(Box::new(data)))
            .await?;
        Ok(proto::SendDataResponse {})
    }

    async fn update_metadata(
        &self,
        asked: proto::UpdateRoomMetadataRequest,
    ) -> Result<proto::Room, Error> {
        let room = self.room(&asked.room)?;
        let request = RoomRequest::SetMetadata(asked.metadata);
        read_room(self.ask(&room, request).await?)
    }
}

fn read_room(fact: Fact) -> Result<proto::Room, Error> {
    match fact {
        Fact::Room(info) => Ok(wire::room(&info)),
        _ => Err(Error::unexpected()),
    }
}

fn read_participant(fact: Fact) -> Result<proto::ParticipantInfo, Error> {
    match fact {
        Fact::Participant(info) => Ok(wire::participant(&info)),
        _ => Err(Error::unexpected()),
    }
}

/// All permissions at once: what isn't said is not allowed.
fn permissions(may: &proto::ParticipantPermission, hiding: bool) -> Permissions {
    let sources = may.can_publish_sources.iter();
    Permissions {
        publish: may.can_publish,
        // A source we don't know stays in the list: an empty one would allow all.
        sources: sources.map(|number| request::source(*number)).collect(),
        subscribe: may.can_subscribe,
        publish_data: may.can_publish_data,
        update_metadata: may.can_update_metadata,
        hidden: may.hidden && hiding,
    }
}

//! What a client gets: notices and their parts as protobuf messages.

use std::sync::Arc;

use livekit_protocol as proto;
use proto::SubscriptionError;
use proto::request_response::{Reason, Request as Echo};
use proto::signal_response::Message as Reply;

use std::time::Duration;

use super::call;
pub(in crate::signal) use super::track::track;
use super::track::{add_track, source};
use crate::ids::TrackSid;
use crate::media::message::administration::{Profile, ProfileRefusal};
use crate::media::message::{
    Codec, Departure, Joined, Kind, LeaveAction, LeaveReason, Notice, ParticipantInfo,
    ParticipantState, Permissions, Quality, Quirks, Resumed, RoomInfo, TrackRefusal,
};

/// The version of the reference server whose behaviour this is. Clients derive features from it:
/// above 1.13.6 livekit-client publishes VP9 and AV1 as simulcast if an app asks for that.
const VERSION: &str = "1.13.7";

/// The newest signalling protocol we know.
const PROTOCOL: i32 = 17;

/// Seconds without an answer after which a client takes the connection as lost.
const PING_TIMEOUT: i32 = 15;

/// Seconds between pings of a client.
const PING_INTERVAL: i32 = 5;

pub(super) fn join_response(joined: Joined, node_id: &str) -> Reply {
    let room = joined.room;
    // With a video codec in this list clients offer at once; the first one is their fallback.
    let codecs = codecs(&room.codecs, joined.participant.client.quirks);
    Reply::Join(proto::JoinResponse {
        subscriber_primary: joined.subscriber_primary,
        fast_publish: joined.participant.permissions.publish,
        participant: Some(participant(&joined.participant)),
        other_participants: joined.others.iter().map(|info| participant(info)).collect(),
        server_version: VERSION.to_owned(),
        server_info: Some(server_info(node_id)),
        ping_timeout: PING_TIMEOUT,
        ping_interval: PING_INTERVAL,
        room: Some(self::room(&room)),
        sif_trailer: room.sif_trailer,
        enabled_publish_codecs: codecs,
        ..Default::default()
    })
}

/// What a client is told first that took its stay up again, in this order: a client that finds
/// anything else before the `ReconnectResponse` takes the resume as failed.
pub(super) fn reconnect(resumed: Resumed, node_id: &str) -> Vec<Reply> {
    let response = proto::ReconnectResponse {
        server_info: Some(server_info(node_id)),
        last_message_seq: resumed.last_sequence,
        ..Default::default()
    };
    let update = |infos: &[Arc<ParticipantInfo>], own: Option<&ParticipantInfo>| {
        let infos = infos.iter().map(|info| &**info).chain(own);
        Reply::Update(proto::ParticipantUpdate {
            participants: infos.map(participant).collect(),
        })
    };
    let mut replies = vec![Reply::Reconnect(response)];
    if !resumed.gone.is_empty() {
        replies.push(update(&resumed.gone, None));
    }
    replies.push(update(&resumed.others, Some(&resumed.participant)));
    replies.push(Reply::RoomUpdate(proto::RoomUpdate {
        room: Some(room(&resumed.room)),
    }));
    replies
}

fn server_info(node_id: &str) -> proto::ServerInfo {
    proto::ServerInfo {
        edition: proto::server_info::Edition::Standard as i32,
        version: VERSION.to_owned(),
        protocol: PROTOCOL,
        node_id: node_id.to_owned(),
        ..Default::default()
    }
}

/// What may be published, video first.
fn codecs(enabled: &[Codec], quirks: Quirks) -> Vec<proto::Codec> {
    let mut codecs: Vec<_> = quirks.usable(enabled).collect();
    codecs.sort_by_key(|codec| codec.kind() == Kind::Audio);
    let named = codecs.into_iter().map(|codec| proto::Codec {
        mime: codec.mime().to_owned(),
        ..Default::default()
    });
    named.collect()
}

/// The message for a notice; `Joined`, `Resumed` and `Refused` come once and have their own ways.
pub(super) fn reply(notice: Notice) -> Option<Reply> {
    Some(match notice {
        Notice::Joined(_) | Notice::Resumed(_) | Notice::Refused(_) => return None,
        // The client has another connection already; this one just closes.
        Notice::Replaced => return None,
        Notice::MediaLost => leave(Departure {
            reason: LeaveReason::ConnectionTimeout,
            action: LeaveAction::Resume,
        }),
        Notice::Answer {
            id,
            sdp,
            mid_to_track,
        } => Reply::Answer(description("answer", id, sdp, mid_to_track)),
        Notice::Offer {
            id,
            sdp,
            mid_to_track,
        } => Reply::Offer(description("offer", id, sdp, mid_to_track)),
        Notice::TrackPublished { cid, track } => {
            Reply::TrackPublished(proto::TrackPublishedResponse {
                cid,
                track: Some(self::track(*track)),
            })
        }
        Notice::TrackRefused { request, reason } => {
            let reason = match reason {
                TrackRefusal::NotAllowed => Reason::NotAllowed,
                TrackRefusal::LimitExceeded => Reason::LimitExceeded,
                TrackRefusal::Queued => Reason::Queued,
                TrackRefusal::NotFound => Reason::NotFound,
                TrackRefusal::Unsupported => Reason::UnsupportedType,
            };
            request_response(0, reason, Some(Echo::AddTrack(add_track(*request))))
        }
        Notice::MuteRefused { track, muted } => {
            let sid = text(&track);
            let echo = Echo::Mute(proto::MuteTrackRequest { sid, muted });
            request_response(0, Reason::NotFound, Some(echo))
        }
        Notice::Room(info) => Reply::RoomUpdate(proto::RoomUpdate {
            room: Some(room(&info)),
        }),
        Notice::ProfileAnswer {
            request_id,
            profile,
            result,
        } => profile_answer(request_id, *profile, result),
        Notice::Muted { track, muted } => Reply::Mute(proto::MuteTrackRequest {
            sid: text(&track),
            muted,
        }),
        Notice::TrackUnpublished(track) => {
            Reply::TrackUnpublished(proto::TrackUnpublishedResponse {
                track_sid: text(&track),
            })
        }
        Notice::Participant(info) => Reply::Update(proto::ParticipantUpdate {
            participants: vec![participant(&info)],
        }),
        Notice::MediaSectionsRequired { audios, videos } => {
            Reply::MediaSectionsRequirement(proto::MediaSectionsRequirement {
                num_audios: audios,
                num_videos: videos,
            })
        }
        Notice::CodecUnsupported(track) => {
            call::subscription_error(&track, SubscriptionError::SeCodecUnsupported)
        }
        Notice::SubscriptionFailed(track) => {
            call::subscription_error(&track, SubscriptionError::SeUnknown)
        }
        Notice::TrackSubscribed(track) => Reply::TrackSubscribed(proto::TrackSubscribed {
            track_sid: text(&track),
        }),
        Notice::Left(departure) => leave(departure),
        Notice::Speakers(speakers) => call::speakers(speakers),
        Notice::Demand { track, codecs } => call::demand(&track, codecs),
        Notice::SubscriptionAllowed {
            participant,
            track,
            allowed,
        } => Reply::SubscriptionPermissionUpdate(proto::SubscriptionPermissionUpdate {
            participant_sid: participant.as_str().to_owned(),
            track_sid: text(&track),
            allowed,
        }),
        Notice::Qualities(updates) => call::qualities(updates),
        Notice::StreamStates(updates) => call::stream_states(updates),
        Notice::TrackMissing(track) => {
            call::subscription_error(&track, SubscriptionError::SeTrackNotfound)
        }
    })
}

fn description(
    kind: &str,
    id: u32,
    sdp: String,
    mid_to_track: Vec<(String, TrackSid)>,
) -> proto::SessionDescription {
    let named = |(mid, track): (String, TrackSid)| (mid, text(&track));
    proto::SessionDescription {
        r#type: kind.to_owned(),
        sdp,
        id,
        mid_to_track_id: mid_to_track.into_iter().map(named).collect(),
    }
}

pub(super) fn leave(departure: Departure) -> Reply {
    use proto::leave_request::Action;
    let action = match departure.action {
        LeaveAction::Disconnect => Action::Disconnect,
        LeaveAction::Resume => Action::Resume,
        LeaveAction::Reconnect => Action::Reconnect,
    };
    Reply::Leave(proto::LeaveRequest {
        // For clients that don't know `action`.
        can_reconnect: departure.action != LeaveAction::Disconnect,
        reason: reason(departure.reason),
        action: action as i32,
        regions: None,
    })
}

pub(super) fn request_response(request_id: u32, reason: Reason, request: Option<Echo>) -> Reply {
    Reply::RequestResponse(proto::RequestResponse {
        request_id,
        reason: reason as i32,
        message: String::new(),
        request,
    })
}

fn profile_answer(request_id: u32, profile: Profile, result: Result<(), ProfileRefusal>) -> Reply {
    let (reason, message) = match result {
        Ok(()) => (Reason::Ok, String::new()),
        Err(refusal @ ProfileRefusal::NotAllowed) => (Reason::NotAllowed, refusal.to_string()),
        Err(refusal) => (Reason::LimitExceeded, refusal.to_string()),
    };
    let echo = proto::UpdateParticipantMetadata {
        metadata: profile.metadata.unwrap_or_default(),
        name: profile.name.unwrap_or_default(),
        attributes: profile.attributes.into_iter().collect(),
        request_id,
    };
    Reply::RequestResponse(proto::RequestResponse {
        request_id,
        reason: reason as i32,
        message,
        request: Some(Echo::UpdateMetadata(echo)),
    })
}

/// A room as clients and servers see it.
pub(in crate::signal) fn room(info: &RoomInfo) -> proto::Room {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    proto::Room {
        sid: info.sid.as_str().to_owned(),
        name: info.name.as_str().to_owned(),
        empty_timeout: seconds(info.empty_timeout),
        departure_timeout: seconds(info.departure_timeout),
        max_participants: info.participants_max,
        creation_time: info.created_at_ms / 1000,
        creation_time_ms: info.created_at_ms,
        enabled_codecs: codecs(&info.codecs, Quirks::default()),
        metadata: info.metadata.to_string(),
        num_participants: info.participants,
        num_publishers: info.publishers,
        ..Default::default()
    }
}

pub(in crate::signal) fn participant(info: &ParticipantInfo) -> proto::ParticipantInfo {
    use proto::participant_info::{Kind, State};
    let state = match info.state {
        ParticipantState::Joined => State::Joined,
        ParticipantState::Active => State::Active,
        ParticipantState::Disconnected => State::Disconnected,
    };
    proto::ParticipantInfo {
        sid: info.sid.as_str().to_owned(),
        identity: info.identity.as_str().to_owned(),
        state: state as i32,
        is_publisher: !info.tracks.is_empty(),
        tracks: info.tracks.iter().cloned().map(track).collect(),
        metadata: info.metadata.clone(),
        joined_at: info.joined_at_ms / 1000,
        joined_at_ms: info.joined_at_ms,
        name: info.name.clone(),
        version: info.version,
        permission: Some(permission(&info.permissions)),
        kind: Kind::Standard as i32,
        attributes: info.attributes.clone().into_iter().collect(),
        disconnect_reason: info.left.map_or(0, reason),
        client_protocol: info.client.client_protocol,
        capabilities: info.client.capabilities.clone(),
        ..Default::default()
    }
}

fn permission(may: &Permissions) -> proto::ParticipantPermission {
    proto::ParticipantPermission {
        can_subscribe: may.subscribe,
        can_publish: may.publish,
        can_publish_data: may.publish_data,
        can_publish_sources: may
            .sources
            .iter()
            .map(|&source| self::source(source))
            .collect(),
        hidden: may.hidden,
        can_update_metadata: may.update_metadata,
        ..Default::default()
    }
}

pub(super) fn text(sid: &TrackSid) -> String {
    sid.as_str().to_owned()
}

pub(super) fn quality(quality: Quality) -> i32 {
    let quality = match quality {
        Quality::Low => proto::VideoQuality::Low,
        Quality::Medium => proto::VideoQuality::Medium,
        Quality::High => proto::VideoQuality::High,
    };
    quality as i32
}

fn reason(reason: LeaveReason) -> i32 {
    use proto::DisconnectReason as Reason;
    let reason = match reason {
        LeaveReason::ClientInitiated => Reason::ClientInitiated,
        LeaveReason::DuplicateIdentity => Reason::DuplicateIdentity,
        LeaveReason::ServerShutdown => Reason::ServerShutdown,
        LeaveReason::StateMismatch => Reason::StateMismatch,
        LeaveReason::JoinFailure => Reason::JoinFailure,
        LeaveReason::SignalClosed => Reason::SignalClose,
        LeaveReason::ConnectionTimeout => Reason::ConnectionTimeout,
        LeaveReason::ParticipantRemoved => Reason::ParticipantRemoved,
        LeaveReason::RoomDeleted => Reason::RoomDeleted,
        LeaveReason::Internal => Reason::MediaFailure,
    };
    reason as i32
}

#[cfg(test)]
mod tests {
    use super::super::track::tests::microphone;
    use super::*;

    #[test]
    fn a_refused_track_comes_back_with_its_reason() {
        let notice = Notice::TrackRefused {
            request: Box::new(microphone()),
            reason: TrackRefusal::Queued,
        };
        let Some(Reply::RequestResponse(response)) = reply(notice) else {
            panic!("no RequestResponse");
        };
        assert_eq!(
            (response.request_id, response.reason()),
            (0, Reason::Queued)
        );
        let Some(Echo::AddTrack(echo)) = response.request else {
            panic!("no echo");
        };
        assert_eq!(
            (echo.cid.as_str(), echo.r#type()),
            ("cid", proto::TrackType::Audio)
        );
        assert_eq!(echo.simulcast_codecs[0].codec, "opus");
    }

    #[test]
    fn a_departure_says_what_to_do_to_old_and_new_clients() {
        for (action, number, again) in [
            (LeaveAction::Disconnect, 0, false),
            (LeaveAction::Resume, 1, true),
            (LeaveAction::Reconnect, 2, true),
        ] {
            let reason = LeaveReason::DuplicateIdentity;
            let Reply::Leave(leave) = leave(Departure { reason, action }) else {
                panic!("no leave");
            };
            assert_eq!((leave.action, leave.can_reconnect), (number, again));
            assert_eq!(leave.reason(), proto::DisconnectReason::DuplicateIdentity);
        }
    }
}

//! What a client sends, translated to what a shard understands, or answered on the spot.
//!
//! Bounds are checked here as far as they concern the message alone; what depends on the state of
//! the participant is the shard's to judge. Unknown messages, and those of steps to come that no
//! client waits for, are ignored.

use livekit_protocol as proto;
use proto::request_response::{Reason, Request as Echo};
use proto::signal_request::Message as Asked;
use proto::signal_response::Message as Reply;
use serde::Deserialize;

use super::{call, simulate, wire};
use crate::ids::TrackSid;
use crate::media::message::administration::Profile;
use crate::media::message::{
    AddTrack, BackupPolicy, Codec, CodecInfo, Connection, Departure, Kind, LayerInfo, Priority,
    Quality, Request, Source, Sync, TrackSettings,
};
use crate::signal::unix_now;

/// Spatial layers of a codec; more are refused with LIMIT_EXCEEDED.
const LAYERS_MAX: usize = 3;

/// Codecs of a track (the preferred one and a backup); more are refused with LIMIT_EXCEEDED.
const CODECS_MAX: usize = 4;

/// Features of a track: the protocol knows less than ten of each kind. Refused like codecs.
const FEATURES_MAX: usize = 16;

/// Bytes of an id or name that a client makes; longer ones are refused with LIMIT_EXCEEDED.
const TEXT_BYTES_MAX: usize = 256;

/// Tracks named in one request; the rest is ignored. More than anybody can show or hear.
const TRACKS_PER_REQUEST: usize = 2000;

/// What to do about a message.
#[derive(Debug)]
pub(super) enum Action {
    /// Ask the shard.
    Ask(Request),
    /// End the stay and tell the client how.
    Depart(Departure),
    /// Answer at once.
    Reply(Box<Reply>),
    /// Nothing.
    Ignore,
}

/// What a message asks for. Faults are simulated only if `simulating`.
pub(super) fn interpret(message: Asked, simulating: bool) -> Action {
    match message {
        Asked::Offer(offer) => Action::Ask(self::offer(offer)),
        Asked::Answer(answer) => Action::Ask(Request::Answer {
            id: answer.id,
            sdp: answer.sdp,
        }),
        Asked::Trickle(trickle) => candidate(&trickle.candidate_init, trickle.target()),
        Asked::AddTrack(request) => add_track(request),
        Asked::Mute(mute) => Action::Ask(Request::Mute {
            track: mute.sid.into(),
            muted: mute.muted,
        }),
        Asked::Subscription(update) => subscription(update),
        Asked::TrackSetting(update) => track_settings(update),
        Asked::SyncState(state) => Action::Ask(sync(state)),
        Asked::Leave(_) => Action::Ask(Request::Leave),
        Asked::Ping(_) => Action::Reply(Box::new(Reply::Pong(unix_millis()))),
        Asked::PingReq(ping) => Action::Reply(Box::new(Reply::PongResp(proto::Pong {
            last_ping_timestamp: ping.timestamp,
            timestamp: unix_millis(),
        }))),
        Asked::UpdateMetadata(update) => Action::Ask(Request::UpdateProfile {
            request_id: update.request_id,
            profile: Box::new(profile(update.name, update.metadata, update.attributes)),
        }),
        Asked::PublishDataTrackRequest(request) => {
            let echo = Echo::PublishDataTrack(request);
            refuse(Reason::UnsupportedType, echo)
        }
        Asked::SubscriptionPermission(permission) => {
            Action::Ask(Request::Restrict(call::allowances(permission)))
        }
        Asked::UpdateAudioTrack(update) if update.features.len() > FEATURES_MAX => {
            refuse(Reason::LimitExceeded, Echo::UpdateAudioTrack(update))
        }
        Asked::UpdateAudioTrack(update) => Action::Ask(Request::AudioFeatures {
            track: update.track_sid.into(),
            features: update.features,
        }),
        Asked::Simulate(asked) if simulating => simulate::act(asked),
        Asked::UpdateVideoTrack(update) => Action::Ask(Request::Dimensions {
            track: update.track_sid.into(),
            dimensions: (update.width, update.height),
        }),
        _ => Action::Ignore,
    }
}

/// A change of a profile. What is empty stays as it is, but for attributes.
pub(in crate::signal) fn profile(
    name: String,
    metadata: String,
    attributes: impl IntoIterator<Item = (String, String)>,
) -> Profile {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Profile {
        name: given(name),
        metadata: given(metadata),
        attributes: attributes.into_iter().collect(),
    }
}

pub(super) fn offer(offer: proto::SessionDescription) -> Request {
    Request::Offer {
        id: offer.id,
        sdp: offer.sdp,
    }
}

/// What a client that resumed believes to have. Offer and answer of its last negotiation are not
/// needed: it restarts ICE by a new offer. Nor are the numbers of the data messages it has: they
/// come by a transport that outlives the break.
fn sync(state: proto::SyncState) -> Request {
    let published = state.publish_tracks.into_iter();
    let published = published.filter_map(|published| Some(published.track?.sid));
    let subscription = state.subscription.unwrap_or_default();
    Request::Sync(Box::new(Sync {
        published: sids(published),
        subscriptions: (
            named(subscription.track_sids, subscription.participant_tracks),
            subscription.subscribe,
        ),
        disabled: sids(state.track_sids_disabled),
    }))
}

pub(super) fn add_track(request: proto::AddTrackRequest) -> Action {
    match read_track(&request) {
        Ok(track) => Action::Ask(Request::AddTrack(Box::new(track))),
        Err(reason) => refuse(reason, Echo::AddTrack(request)),
    }
}

/// Refusals of requests without a request id carry the request itself.
fn refuse(reason: Reason, echo: Echo) -> Action {
    Action::Reply(Box::new(wire::request_response(0, reason, Some(echo))))
}

/// The candidate in an `RTCIceCandidateInit`. An empty one ends the gathering; we don't wait for
/// that. One that is no JSON is as useless as one that can't be reached, and treated alike.
fn candidate(init: &str, target: proto::SignalTarget) -> Action {
    #[derive(Deserialize)]
    struct Init {
        candidate: String,
    }
    let connection = match target {
        proto::SignalTarget::Publisher => Connection::Publisher,
        proto::SignalTarget::Subscriber => Connection::Subscriber,
    };
    match serde_json::from_str::<Init>(init) {
        Ok(Init { candidate }) if !candidate.is_empty() => Action::Ask(Request::Candidate {
            connection,
            candidate,
        }),
        _ => Action::Ignore,
    }
}

#[expect(deprecated, reason = "clients of today still use these fields")]
fn read_track(request: &proto::AddTrackRequest) -> Result<AddTrack, Reason> {
    let kind = match proto::TrackType::try_from(request.r#type) {
        Ok(proto::TrackType::Audio) => Kind::Audio,
        Ok(proto::TrackType::Video) => Kind::Video,
        _ => return Err(Reason::UnsupportedType),
    };
    let codecs = &request.simulcast_codecs;
    let texts = [&request.cid, &request.name, &request.stream, &request.sid];
    let of_codecs = codecs.iter().flat_map(|codec| [&codec.cid, &codec.codec]);
    let mut texts = texts.into_iter().chain(of_codecs);
    let layer_lists = codecs.iter().map(|codec| &codec.layers);
    let mut layer_lists = layer_lists.chain([&request.layers]);
    let features = [&request.audio_features, &request.packet_trailer_features];
    if texts.any(|text| text.len() > TEXT_BYTES_MAX)
        || layer_lists.any(|layers| layers.len() > LAYERS_MAX)
        || features.iter().any(|list| list.len() > FEATURES_MAX)
        || codecs.len() > CODECS_MAX
    {
        return Err(Reason::LimitExceeded);
    }
    Ok(AddTrack {
        sid: (!request.sid.is_empty()).then(|| request.sid.as_str().into()),
        cid: request.cid.clone(),
        name: request.name.clone(),
        kind,
        source: source(request.source),
        muted: request.muted,
        dimensions: (request.width, request.height),
        layers: layers(&request.layers),
        codecs: read_codecs(request),
        encryption: request.encryption,
        stereo: request.stereo,
        disable_dtx: request.disable_dtx,
        disable_red: request.disable_red,
        stream: request.stream.clone(),
        backup_policy: backup_policy(request.backup_codec_policy()),
        audio_features: request.audio_features.clone(),
        packet_trailer_features: request.packet_trailer_features.clone(),
    })
}

fn backup_policy(policy: proto::BackupCodecPolicy) -> BackupPolicy {
    match policy {
        proto::BackupCodecPolicy::PreferRegression => BackupPolicy::PreferRegression,
        proto::BackupCodecPolicy::Simulcast => BackupPolicy::Simulcast,
        proto::BackupCodecPolicy::Regression => BackupPolicy::Regression,
    }
}

/// The codecs to publish with, the preferred one first; which of them can be is the shard's to say.
fn read_codecs(request: &proto::AddTrackRequest) -> Vec<CodecInfo> {
    use proto::video_layer::Mode;
    // An unknown one is replaced by one of its kind, none at all by what the section shows.
    let mime = |name: &str| match Codec::named(name) {
        Some(codec) => codec.mime().to_owned(),
        None => name.to_owned(),
    };
    let mut codecs: Vec<_> = request.simulcast_codecs.iter().collect();
    let none = proto::SimulcastCodec::default();
    if codecs.is_empty() {
        codecs.push(&none);
    }
    let info = |codec: &&proto::SimulcastCodec| CodecInfo {
        mime: mime(&codec.codec),
        cid: codec.cid.clone(),
        mid: String::new(),
        apart: codec.video_layer_mode() == Mode::OneSpatialLayerPerStream,
        layers: layers(&codec.layers),
    };
    let mut codecs: Vec<_> = codecs.iter().map(info).collect();
    // What is said of the whole track is said of the first.
    let first = &mut codecs[0];
    if first.cid.is_empty() {
        first.cid.clone_from(&request.cid);
    }
    if first.layers.is_empty() {
        first.layers = layers(&request.layers);
    }
    codecs
}

/// Layers by ascending quality; their place in this order is their spatial position, whatever
/// the qualities are called.
fn layers(announced: &[proto::VideoLayer]) -> Vec<LayerInfo> {
    let read = |layer: &proto::VideoLayer| {
        Some(LayerInfo {
            quality: quality(layer.quality)?,
            width: layer.width,
            height: layer.height,
            bitrate: layer.bitrate,
            spatial: 0,
        })
    };
    let mut layers: Vec<_> = announced.iter().filter_map(read).collect();
    layers.sort_by_key(|layer| layer.quality);
    layers.dedup_by_key(|layer| layer.quality);
    for (spatial, layer) in (0..).zip(&mut layers) {
        layer.spatial = spatial;
    }
    layers
}

fn quality(number: i32) -> Option<Quality> {
    match proto::VideoQuality::try_from(number).ok()? {
        proto::VideoQuality::Low => Some(Quality::Low),
        proto::VideoQuality::Medium => Some(Quality::Medium),
        proto::VideoQuality::High => Some(Quality::High),
        proto::VideoQuality::Off => None,
    }
}

pub(in crate::signal) fn source(number: i32) -> Source {
    match proto::TrackSource::try_from(number) {
        Ok(proto::TrackSource::Camera) => Source::Camera,
        Ok(proto::TrackSource::Microphone) => Source::Microphone,
        Ok(proto::TrackSource::ScreenShare) => Source::ScreenShare,
        Ok(proto::TrackSource::ScreenShareAudio) => Source::ScreenShareAudio,
        Ok(proto::TrackSource::Unknown) | Err(_) => Source::Unknown,
    }
}

pub(in crate::signal) fn sids(texts: impl IntoIterator<Item = String>) -> Vec<TrackSid> {
    let known = texts.into_iter().filter(|sid| sid.len() <= TEXT_BYTES_MAX);
    known.take(TRACKS_PER_REQUEST).map(TrackSid::from).collect()
}

fn subscription(update: proto::UpdateSubscription) -> Action {
    Action::Ask(Request::Subscribe {
        tracks: named(update.track_sids, update.participant_tracks),
        subscribed: update.subscribe,
    })
}

/// Tracks by themselves and by those who publish them.
fn named(tracks: Vec<String>, of_participants: Vec<proto::ParticipantTracks>) -> Vec<TrackSid> {
    let of_participants = of_participants.into_iter();
    let of_participants = of_participants.flat_map(|tracks| tracks.track_sids);
    sids(tracks.into_iter().chain(of_participants))
}

fn track_settings(update: proto::UpdateTrackSettings) -> Action {
    let size = (update.width, update.height);
    let quality = quality(update.quality);
    Action::Ask(Request::TrackSettings {
        settings: TrackSettings {
            disabled: update.disabled || update.quality == proto::VideoQuality::Off as i32,
            dimensions: (size.0 > 0).then_some(size),
            quality: quality.unwrap_or(Quality::High),
            frame_rate: (update.fps > 0).then_some(update.fps),
            priority: Priority::asked(update.priority),
        },
        tracks: sids(update.track_sids),
    })
}

fn unix_millis() -> i64 {
    i64::try_from(unix_now().as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut proto::UpdateTrackSettings)) -> TrackSettings {
        let mut update = proto::UpdateTrackSettings {
            track_sids: vec!["TR_a".to_owned()],
            quality: proto::VideoQuality::Medium as i32,
            ..Default::default()
        };
        change(&mut update);
        match interpret(Asked::TrackSetting(update), false) {
            Action::Ask(Request::TrackSettings { settings, .. }) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_size_goes_before_quality_and_off_disables() {
        let plain = settings(|_| ());
        assert_eq!((plain.dimensions, plain.quality), (None, Quality::Medium));
        assert!(!plain.disabled && plain.frame_rate.is_none() && plain.priority.is_none());
        let sized = settings(|update| (update.width, update.height, update.fps) = (640, 360, 15));
        assert_eq!(sized.dimensions, Some((640, 360)));
        assert_eq!(sized.frame_rate, Some(15));
        let rated = settings(|update| update.priority = 7);
        assert_eq!(rated.priority, Priority::asked(7));
        assert!(settings(|update| update.quality = proto::VideoQuality::Off as i32).disabled);
        assert_eq!(
            settings(|update| update.quality = 99).quality,
            Quality::High
        );
    }

    #[test]
    fn faults_are_simulated_only_where_that_is_allowed() {
        use proto::simulate_scenario::Scenario;
        let asked = || {
            let scenario = Some(Scenario::ServerLeave(true));
            Asked::Simulate(proto::SimulateScenario { scenario })
        };
        assert!(matches!(interpret(asked(), false), Action::Ignore));
        assert!(matches!(interpret(asked(), true), Action::Depart(_)));
    }

    #[test]
    fn subscriptions_are_gathered_and_bounded() {
        let update = proto::UpdateSubscription {
            track_sids: vec!["TR_a".to_owned(), "T".repeat(300)],
            subscribe: true,
            participant_tracks: vec![proto::ParticipantTracks {
                participant_sid: "PA_a".to_owned(),
                track_sids: vec!["TR_b".to_owned(); 5000],
            }],
        };
        let Action::Ask(Request::Subscribe { tracks, subscribed }) = subscription(update) else {
            panic!("not asked");
        };
        assert!(subscribed);
        assert_eq!(tracks.len(), TRACKS_PER_REQUEST);
        assert_eq!((tracks[0].as_str(), tracks[1].as_str()), ("TR_a", "TR_b"));
    }

    #[test]
    fn only_real_candidates_are_passed_on() {
        let asked = |init| match candidate(init, proto::SignalTarget::Subscriber) {
            Action::Ask(Request::Candidate { connection, .. }) => {
                connection == Connection::Subscriber
            }
            _ => false,
        };
        assert!(asked(
            r#"{"candidate":"candidate:1 1 udp 1 192.0.2.1 5 typ host","sdpMid":"0"}"#
        ));
        for useless in [
            "",
            "{}",
            "[",
            r#"{"candidate":""}"#,
            r#"{"candidate":null}"#,
        ] {
            assert!(!asked(useless), "{useless}");
        }
    }

    #[test]
    fn tracks_get_their_codecs_or_a_reason() {
        let codec = |name: &str, cid: &str| proto::SimulcastCodec {
            codec: name.to_owned(),
            cid: cid.to_owned(),
            ..Default::default()
        };
        let video = proto::AddTrackRequest {
            r#type: proto::TrackType::Video as i32,
            cid: "cid".to_owned(),
            simulcast_codecs: vec![codec("vp9", "vp9-cid"), codec("vp8", "")],
            ..Default::default()
        };
        let read = read_track(&video).unwrap();
        let codecs = read.codecs.iter();
        let codecs: Vec<_> = codecs
            .map(|it| (it.mime.as_str(), it.cid.as_str()))
            .collect();
        assert_eq!(codecs, [("video/VP9", "vp9-cid"), ("video/VP8", "")]);
        assert!(!read.codecs[0].apart);
        let mut simulcast = video.clone();
        simulcast.simulcast_codecs[0]
            .set_video_layer_mode(proto::video_layer::Mode::OneSpatialLayerPerStream);
        assert!(read_track(&simulcast).unwrap().codecs[0].apart);
        assert_eq!(read.sid, None);
        let further = proto::AddTrackRequest {
            sid: "TR_a".to_owned(),
            ..video.clone()
        };
        assert_eq!(read_track(&further).unwrap().sid, Some("TR_a".into()));
        let audio = proto::AddTrackRequest {
            cid: "cid".to_owned(),
            ..Default::default()
        };
        let first = &read_track(&audio).unwrap().codecs[0];
        assert_eq!((first.mime.as_str(), first.cid.as_str()), ("", "cid"));

        let refused = |change: &dyn Fn(&mut proto::AddTrackRequest)| {
            let mut request = video.clone();
            change(&mut request);
            read_track(&request).err()
        };
        let data = proto::TrackType::Data as i32;
        assert_eq!(refused(&|r| r.r#type = data), Some(Reason::UnsupportedType));
        assert_eq!(
            refused(&|r| r.name = "n".repeat(257)),
            Some(Reason::LimitExceeded)
        );
        let layers = vec![proto::VideoLayer::default(); 4];
        let many = |r: &mut proto::AddTrackRequest| r.simulcast_codecs[1].layers = layers.clone();
        assert_eq!(refused(&many), Some(Reason::LimitExceeded));
    }
}

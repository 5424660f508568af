//! What rooms say, as JSON. `docs/control.md` describes every field.

use serde_json::{Map, Value, json};

use crate::ids::TrackSid;
use crate::media::message::administration::{Event, Happened};
use crate::media::message::facts::{
    EncodingFacts, LegFacts, RoomFacts, SubscriptionFacts, TrackFacts,
};
use crate::media::message::{
    ConnectionQuality, Kind, Notice, ParticipantInfo, ParticipantState, Permissions, Quality,
    RoomInfo, Source, StreamState, TrackInfo,
};

pub(super) fn room(info: &RoomInfo) -> Value {
    json!({
        "sid": info.sid.as_str(),
        "room": info.name.as_str(),
        "metadata": &*info.metadata,
        "empty_timeout": info.empty_timeout.as_secs(),
        "departure_timeout": info.departure_timeout.as_secs(),
        "participants_max": info.participants_max,
        "participants": info.participants,
        "publishers": info.publishers,
        "created_at_ms": info.created_at_ms,
    })
}

pub(super) fn participant(info: &ParticipantInfo) -> Value {
    let state = match info.state {
        ParticipantState::Joined => "joined",
        ParticipantState::Active => "active",
        ParticipantState::Disconnected => "disconnected",
    };
    json!({
        "sid": info.sid.as_str(),
        "identity": info.identity.as_str(),
        "name": info.name,
        "metadata": info.metadata,
        "attributes": info.attributes,
        "state": state,
        "joined_at_ms": info.joined_at_ms,
        "may": permissions(&info.permissions),
        "tracks": info.tracks.iter().map(track).collect::<Vec<_>>(),
        "left": info.left.map(|reason| reason.label()),
    })
}

fn permissions(may: &Permissions) -> Value {
    let sources: Vec<_> = may.sources.iter().copied().map(source).collect();
    json!({
        "publish": may.publish,
        "sources": sources,
        "subscribe": may.subscribe,
        "publish_data": may.publish_data,
        "update_metadata": may.update_metadata,
        "hidden": may.hidden,
    })
}

pub(super) fn track(info: &TrackInfo) -> Value {
    let announced = &info.announced;
    let (width, height) = announced.dimensions;
    json!({
        "sid": info.sid.as_str(),
        "cid": announced.cid,
        "name": announced.name,
        "kind": kind(announced.kind),
        "source": source(announced.source),
        "muted": announced.muted,
        "codec": announced.codecs.first().map(|codec| &codec.mime),
        "width": width,
        "height": height,
        "simulcast": info.simulcast,
        "mid": announced.codecs.first().map(|codec| &codec.mid),
    })
}

pub(super) fn facts(facts: &RoomFacts) -> [Value; 2] {
    let tracks = facts.tracks.iter().map(track_facts);
    let legs = facts.legs.iter().map(leg);
    [tracks.collect(), legs.collect()]
}

fn track_facts(facts: &TrackFacts) -> Value {
    let encodings = facts.encodings.iter().map(encoding);
    json!({
        "sid": facts.sid.as_str(),
        "publisher": facts.publisher.as_str(),
        "kind": kind(facts.kind),
        "source": source(facts.source),
        "muted": facts.muted,
        "encodings": encodings.collect::<Vec<_>>(),
    })
}

fn encoding(facts: &EncodingFacts) -> Value {
    let layers = facts.layers.iter().map(|layer| {
        json!({
            "rid": layer.rid,
            "ssrc": layer.ssrc,
            "bits_per_second": layer.bitrate.as_bps(),
        })
    });
    json!({
        "codec": facts.codec.mime(),
        "mid": facts.mid,
        "layers": layers.collect::<Vec<_>>(),
        "subscribers": facts.subscribers,
    })
}

fn leg(facts: &LegFacts) -> Value {
    let subscriptions = facts.subscriptions.iter().map(subscription);
    json!({
        "participant": facts.participant.as_str(),
        "sid": facts.sid.as_str(),
        "connected": facts.connected,
        "estimate_bits_per_second": facts.estimate.as_bps(),
        "round_trip_ms": facts.round_trip.map(|time| time.as_secs_f64() * 1000.0),
        "share": facts.share,
        "subscriptions": subscriptions.collect::<Vec<_>>(),
    })
}

fn subscription(facts: &SubscriptionFacts) -> Value {
    let allowed = facts.allowed.map(|(layer, temporal)| {
        json!({
            "layer": layer,
            "temporal": temporal,
        })
    });
    json!({
        "track": facts.track.as_str(),
        "encoding": facts.encoding,
        "mid": facts.mid,
        "ssrc": facts.ssrc,
        "disabled": facts.disabled,
        "paused": facts.paused,
        "wanted": facts.wanted,
        "allowed": allowed,
        "forwarded": facts.forwarded,
        "packets": facts.packets,
        "octets": facts.octets,
    })
}

/// What answers and offers carry.
pub(super) fn description(sdp: &str, mid_to_track: &[(String, TrackSid)]) -> Value {
    let tracks = mid_to_track.iter();
    let tracks = tracks.map(|(mid, sid)| (mid.clone(), sid.as_str().into()));
    json!({ "sdp": sdp, "tracks": Value::Object(tracks.collect()) })
}

/// Something that happened in a room, under the names of the webhooks.
pub(super) fn event(event: &Event) -> Value {
    let (name, who, what) = match &event.happened {
        Happened::RoomStarted => ("room_started", None, None),
        Happened::RoomFinished => ("room_finished", None, None),
        Happened::ParticipantJoined(who) => ("participant_joined", Some(who), None),
        Happened::ParticipantLeft(who) => ("participant_left", Some(who), None),
        Happened::ParticipantAborted(who) => ("participant_connection_aborted", Some(who), None),
        Happened::TrackPublished(who, track) => ("track_published", Some(who), Some(track)),
        Happened::TrackUnpublished(who, track) => ("track_unpublished", Some(who), Some(track)),
    };
    let mut line = json!({
        "event": name,
        "at_ms": event.at_ms,
        "room": event.room.name.as_str(),
    });
    if let (Some(who), Some(fields)) = (who, line.as_object_mut()) {
        fields.insert("identity".to_owned(), who.identity.as_str().into());
        // Events of tracks are many, and metadata can be large.
        match what {
            Some(track) => fields.insert("track".to_owned(), self::track(track)),
            None => fields.insert("participant".to_owned(), participant(who)),
        };
    }
    line
}

/// What a participant of this connection is told; `None` for what is the answer to something it
/// has not asked.
pub(super) fn notice(notice: &Notice) -> Option<(&'static str, Value)> {
    Some(match notice {
        Notice::Participant(info) => (
            "participant_changed",
            json!({ "participant": participant(info) }),
        ),
        Notice::Room(info) => ("room_changed", json!({ "is": room(info) })),
        Notice::MediaSectionsRequired { audios, videos } => (
            "offer_needed",
            json!({ "audios": audios, "videos": videos }),
        ),
        Notice::CodecUnsupported(track) => ("codec_unsupported", named(track)),
        Notice::TrackSubscribed(track) => ("track_subscribed", named(track)),
        Notice::TrackUnpublished(track) => ("track_ended", named(track)),
        Notice::TrackMissing(track) => ("track_missing", named(track)),
        Notice::TrackPublished { cid, track } => (
            "published",
            json!({ "cid": cid, "track": self::track(track) }),
        ),
        Notice::Muted { track, muted } => {
            ("muted", json!({ "track": track.as_str(), "muted": muted }))
        }
        Notice::Speakers(speakers) => {
            let speakers = speakers.iter().map(|speaker| {
                let level = f64::from(speaker.level) / 8.0;
                json!({ "sid": speaker.participant.as_str(), "level": level })
            });
            (
                "speakers",
                json!({ "speakers": speakers.collect::<Vec<_>>() }),
            )
        }
        Notice::Demand { track, codecs } => {
            let best = |wanted: &Option<Quality>| wanted.map(quality);
            let codecs = codecs.iter();
            let codecs = codecs.map(|(mime, wanted)| (mime.clone(), best(wanted).into()));
            let codecs: Map<String, Value> = codecs.collect();
            (
                "layers_wanted",
                json!({ "track": track.as_str(), "codecs": codecs }),
            )
        }
        Notice::SubscriptionAllowed { track, allowed, .. } => {
            let fields = json!({ "track": track.as_str(), "allowed": allowed });
            ("subscription_allowed", fields)
        }
        Notice::Qualities(updates) => {
            let updates = updates.iter().map(|update| {
                let quality = connection_quality(update.quality);
                json!({ "sid": update.participant.as_str(), "quality": quality })
            });
            (
                "connection_quality",
                json!({ "connections": updates.collect::<Vec<_>>() }),
            )
        }
        Notice::SubscriptionFailed(track) => ("subscription_failed", named(track)),
        Notice::StreamStates(updates) => {
            let updates = updates.iter().map(|update| {
                let paused = update.state == StreamState::Paused;
                json!({ "track": update.track.as_str(), "paused": paused })
            });
            (
                "stream_states",
                json!({ "streams": updates.collect::<Vec<_>>() }),
            )
        }
        Notice::MediaLost => ("media_lost", json!({})),
        Notice::Replaced => ("replaced", json!({})),
        Notice::Left(departure) => ("left", json!({ "reason": departure.reason.label() })),
        Notice::Joined(_)
        | Notice::Resumed(_)
        | Notice::Refused(_)
        | Notice::Answer { .. }
        | Notice::Offer { .. }
        | Notice::TrackRefused { .. }
        | Notice::MuteRefused { .. }
        | Notice::ProfileAnswer { .. } => return None,
    })
}

fn named(track: &TrackSid) -> Value {
    json!({ "track": track.as_str() })
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Unknown => "unknown",
        Source::Camera => "camera",
        Source::Microphone => "microphone",
        Source::ScreenShare => "screen_share",
        Source::ScreenShareAudio => "screen_share_audio",
    }
}

fn quality(quality: Quality) -> &'static str {
    match quality {
        Quality::Low => "low",
        Quality::Medium => "medium",
        Quality::High => "high",
    }
}

fn connection_quality(quality: ConnectionQuality) -> &'static str {
    match quality {
        ConnectionQuality::Lost => "lost",
        ConnectionQuality::Poor => "poor",
        ConnectionQuality::Good => "good",
        ConnectionQuality::Excellent => "excellent",
    }
}

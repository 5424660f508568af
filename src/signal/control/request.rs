//! The requests of the control socket, and what they mean to rooms.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;
use crate::config::Config;
use crate::ids::{Identity, RoomName, TrackSid};
use crate::media::message::administration::{RoomOptions, RoomRequest};
use crate::media::message::{
    AddTrack, BackupPolicy, Codec, CodecInfo, Kind, LayerInfo, Permissions, Priority, Quality,
    Source, TrackSettings,
};
use crate::signal::room_timeout;

/// Tracks named in one request; more are refused.
const TRACKS_MAX: usize = 2000;

/// Bytes of an id or name of a track.
const TEXT_BYTES_MAX: usize = 256;

/// Everything that can be asked for. The names are those of the protocol, in snake case.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    CreateRoom(CreateRoom),
    DeleteRoom { room: String },
    Rooms {},
    Room { room: String },
    Listen { room: Option<String> },
    AddParticipant(AddParticipant),
    Attach { room: String, identity: String },
    Offer(Offer),
    Trickle(Trickle),
    Publish(Publish),
    Subscribe(Subscribe),
    Layers(Layers),
    Mute(Mute),
    Remove { room: String, identity: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateRoom {
    pub room: String,
    /// Seconds.
    empty_timeout: Option<u32>,
    /// Seconds.
    departure_timeout: Option<u32>,
    participants_max: Option<u32>,
    metadata: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddParticipant {
    pub room: String,
    pub identity: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub metadata: String,
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default = "yes")]
    pub auto_subscribe: bool,
    /// Whether video to it may be paused for want of bandwidth.
    pub may_pause: Option<bool>,
    #[serde(default)]
    may: May,
    pub sdp: String,
}

/// What a participant may do; what isn't said, it may.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct May {
    publish: bool,
    subscribe: bool,
    publish_data: bool,
    update_metadata: bool,
    hidden: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offer {
    pub room: String,
    pub identity: String,
    pub sdp: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trickle {
    pub room: String,
    pub identity: String,
    /// The value of an SDP `candidate` attribute.
    pub candidate: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    pub room: String,
    pub identity: String,
    cid: String,
    kind: KindWord,
    source: Option<SourceWord>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    muted: bool,
    codec: Option<String>,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    #[serde(default)]
    layers: Vec<LayerWord>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerWord {
    width: u32,
    height: u32,
    /// Bits per second.
    #[serde(default)]
    bitrate: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    pub room: String,
    pub identity: String,
    tracks: Vec<String>,
    #[serde(default = "yes")]
    subscribed: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layers {
    pub room: String,
    pub identity: String,
    tracks: Vec<String>,
    quality: Option<QualityWord>,
    width: Option<u32>,
    height: Option<u32>,
    /// Frames per second.
    frame_rate: Option<u32>,
    /// The higher the sooner, when bandwidth is short.
    priority: Option<u32>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mute {
    pub room: String,
    pub identity: String,
    track: String,
    #[serde(default = "yes")]
    muted: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindWord {
    Audio,
    Video,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SourceWord {
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum QualityWord {
    Low,
    Medium,
    High,
}

fn yes() -> bool {
    true
}

impl Default for May {
    fn default() -> Self {
        Self {
            publish: true,
            subscribe: true,
            publish_data: true,
            update_metadata: false,
            hidden: false,
        }
    }
}

impl Request {
    /// Reads a line: the id to answer under, and what is asked. The id comes back even if the rest
    /// is wrong, as far as it can be made out.
    pub fn read(line: &[u8]) -> (Value, Result<Self, Fault>) {
        let malformed = |error: serde_json::Error| Fault::malformed(&error.to_string());
        let mut fields: serde_json::Map<String, Value> = match serde_json::from_slice(line) {
            Ok(fields) => fields,
            Err(error) => return (Value::Null, Err(malformed(error))),
        };
        let id = fields.remove("id").unwrap_or_default();
        if !matches!(id, Value::Null | Value::Number(_) | Value::String(_)) {
            let what = "id is neither a number nor a text";
            return (Value::Null, Err(Fault::malformed(what)));
        }
        let request = serde_json::from_value(Value::Object(fields));
        (id, request.map_err(malformed))
    }

    /// Its name, the room and who it is about; `None` for what changes nothing.
    pub fn change(&self) -> Option<(&'static str, &str, Option<&str>)> {
        Some(match self {
            Self::CreateRoom(CreateRoom { room, .. }) => ("create_room", room, None),
            Self::DeleteRoom { room } => ("delete_room", room, None),
            Self::AddParticipant(it) => ("add_participant", &it.room, Some(&it.identity)),
            Self::Attach { room, identity } => ("attach", room, Some(identity)),
            Self::Publish(it) => ("publish", &it.room, Some(&it.identity)),
            Self::Subscribe(it) => ("subscribe", &it.room, Some(&it.identity)),
            Self::Layers(it) => ("layers", &it.room, Some(&it.identity)),
            Self::Mute(it) => ("mute", &it.room, Some(&it.identity)),
            Self::Remove { room, identity } => ("remove", room, Some(identity)),
            Self::Offer(it) => ("offer", &it.room, Some(&it.identity)),
            Self::Rooms {} | Self::Room { .. } | Self::Listen { .. } | Self::Trickle(_) => {
                return None;
            }
        })
    }
}

impl CreateRoom {
    pub fn options(self) -> RoomRequest {
        RoomRequest::Create(RoomOptions {
            empty_timeout: self.empty_timeout.map(room_timeout),
            departure_timeout: self.departure_timeout.map(room_timeout),
            participants_max: self.participants_max.filter(|max| *max > 0),
            metadata: self.metadata,
        })
    }
}

impl AddParticipant {
    /// Checks all texts, as those of tokens are checked.
    pub fn permissions(&self, config: &Config) -> Result<Permissions, Fault> {
        let limits = &config.limits;
        let attributes = self.attributes.iter();
        let bytes = attributes.map(|(key, value)| key.len() + value.len());
        within("name", self.name.len(), limits.name_bytes.get())?;
        within("metadata", self.metadata.len(), limits.metadata_bytes.get())?;
        within("attributes", bytes.sum(), limits.attributes_bytes.get())?;
        within("sdp", self.sdp.len(), limits.sdp_bytes.get())?;
        if self.may.hidden && !config.rooms.hidden_participants {
            let why = "nobody may be hidden here; see rooms.hidden_participants";
            return Err(Fault::not_allowed(why));
        }
        Ok(Permissions {
            publish: self.may.publish,
            sources: Vec::new(),
            subscribe: self.may.subscribe,
            publish_data: self.may.publish_data,
            update_metadata: self.may.update_metadata,
            hidden: self.may.hidden,
        })
    }
}

impl Publish {
    /// The announcement.
    pub fn track(self) -> Result<AddTrack, Fault> {
        for text in [&self.cid, &self.name] {
            within("cid and name", text.len(), TEXT_BYTES_MAX)?;
        }
        if self.cid.is_empty() {
            return Err(Fault::malformed("cid is empty"));
        }
        let kind = match self.kind {
            KindWord::Audio => Kind::Audio,
            KindWord::Video => Kind::Video,
        };
        let codec = match &self.codec {
            Some(name) => Some(Codec::named(name).ok_or_else(|| {
                let known = Codec::ALL.map(Codec::name).join(", ");
                Fault::malformed(&format!("codec is none of {known}"))
            })?),
            None => None,
        };
        let layers = layers(&self.layers)?;
        let source = match (self.source, kind) {
            (Some(word), _) => word.source(),
            (None, Kind::Audio) => Source::Microphone,
            (None, Kind::Video) => Source::Camera,
        };
        Ok(AddTrack {
            sid: None,
            codecs: vec![CodecInfo {
                mime: codec.map(Codec::mime).unwrap_or_default().to_owned(),
                cid: self.cid.clone(),
                mid: String::new(),
                apart: false,
                layers: layers.clone(),
            }],
            cid: self.cid,
            name: self.name,
            kind,
            source,
            muted: self.muted,
            dimensions: (self.width, self.height),
            layers,
            encryption: 0,
            stereo: false,
            disable_dtx: false,
            disable_red: false,
            stream: String::new(),
            backup_policy: BackupPolicy::default(),
            audio_features: Vec::new(),
            packet_trailer_features: Vec::new(),
        })
    }
}

/// The layers as announced, smallest first.
fn layers(words: &[LayerWord]) -> Result<Vec<LayerInfo>, Fault> {
    const QUALITIES: [Quality; 3] = [Quality::Low, Quality::Medium, Quality::High];
    if words.len() > QUALITIES.len() {
        return Err(Fault::malformed("a track has three layers at most"));
    }
    let layers = words.iter().zip(QUALITIES).zip(0..);
    let layers = layers.map(|((word, quality), spatial)| LayerInfo {
        quality,
        width: word.width,
        height: word.height,
        bitrate: word.bitrate,
        spatial,
    });
    Ok(layers.collect())
}

impl Subscribe {
    pub fn request(self) -> Result<RoomRequest, Fault> {
        Ok(RoomRequest::Subscribe {
            participant: self.identity.into(),
            tracks: sids(self.tracks)?,
            subscribed: self.subscribed,
        })
    }
}

impl Layers {
    pub fn request(self) -> Result<RoomRequest, Fault> {
        let dimensions = match (self.width, self.height) {
            (Some(width), Some(height)) => Some((width, height)),
            (None, None) => None,
            _ => return Err(Fault::malformed("width and height belong together")),
        };
        let quality = match self.quality {
            Some(QualityWord::Low) => Quality::Low,
            Some(QualityWord::Medium) => Quality::Medium,
            Some(QualityWord::High) | None => Quality::High,
        };
        Ok(RoomRequest::Adjust {
            participant: self.identity.into(),
            tracks: sids(self.tracks)?,
            settings: TrackSettings {
                disabled: self.disabled,
                dimensions,
                quality,
                frame_rate: self.frame_rate,
                priority: self.priority.and_then(Priority::asked),
            },
        })
    }
}

impl Mute {
    pub fn request(self, config: &Config) -> Result<RoomRequest, Fault> {
        if !self.muted && !config.rooms.remote_unmute {
            let why = "nobody but its publisher may unmute a track; see rooms.remote_unmute";
            return Err(Fault::not_allowed(why));
        }
        Ok(RoomRequest::Mute {
            participant: self.identity.into(),
            track: self.track.into(),
            muted: self.muted,
        })
    }
}

impl SourceWord {
    fn source(self) -> Source {
        match self {
            Self::Camera => Source::Camera,
            Self::Microphone => Source::Microphone,
            Self::ScreenShare => Source::ScreenShare,
            Self::ScreenShareAudio => Source::ScreenShareAudio,
        }
    }
}

/// The name of a room that may be opened.
pub(super) fn room_name(text: &str, config: &Config) -> Result<RoomName, Fault> {
    proper("room", text, config.limits.name_bytes.get()).map(RoomName::from)
}

/// Somebody who may join.
pub(super) fn identity(text: &str, config: &Config) -> Result<Identity, Fault> {
    proper("identity", text, config.limits.identity_bytes.get()).map(Identity::from)
}

fn proper<'a>(what: &str, text: &'a str, bytes_max: usize) -> Result<&'a str, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::malformed(&format!("{what} is empty or has a NUL")));
    }
    within(what, text.len(), bytes_max)?;
    Ok(text)
}

pub(super) fn within(what: &str, bytes: usize, bytes_max: usize) -> Result<(), Fault> {
    match bytes > bytes_max {
        true => Err(Fault::too_long(&format!(
            "{what} has {bytes} bytes, {bytes_max} are allowed"
        ))),
        false => Ok(()),
    }
}

fn sids(texts: Vec<String>) -> Result<Vec<TrackSid>, Fault> {
    if texts.len() > TRACKS_MAX {
        return Err(Fault::too_long("more than 2000 tracks are named"));
    }
    Ok(texts.into_iter().map(TrackSid::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Value, Result<Request, Fault>) {
        Request::read(line.as_bytes())
    }

    fn complaint(line: &str) -> String {
        read(line).1.expect_err(line).to_string()
    }

    #[test]
    fn a_wrong_request_is_told_what_is_wrong_and_under_its_id() {
        let (id, request) = read(r#"{"id": "a", "do": "rooms"}"#);
        assert!(matches!(request, Ok(Request::Rooms {})));
        assert_eq!(id, "a");
        let (id, request) = read(r#"{"id": 7, "do": "delete_room"}"#);
        assert_eq!(id, 7);
        assert!(
            request
                .unwrap_err()
                .to_string()
                .contains("missing field `room`")
        );
        assert!(complaint(r#"{"do": "dance"}"#).contains("unknown variant `dance`"));
        assert!(complaint(r#"{"do": "rooms", "room": "a"}"#).contains("unknown field `room`"));
        let mistyped = r#"{"do": "create_room", "room": "a", "empty_timeot": 1}"#;
        assert!(complaint(mistyped).contains("unknown field `empty_timeot`"));
        assert!(complaint("[1]").contains("expected a map"));
        assert!(complaint(r#"{"id": [1], "do": "rooms"}"#).contains("id is neither"));
    }

    #[test]
    fn layers_are_counted_and_sizes_come_in_pairs() {
        let publish = |layers: &str| {
            let line = format!(
                r#"{{"do": "publish", "room": "a", "identity": "b", "cid": "c", "kind": "video",
                   "codec": "VP9", "layers": [{layers}]}}"#
            );
            match read(&line).1 {
                Ok(Request::Publish(publish)) => publish.track(),
                other => panic!("{other:?}"),
            }
        };
        let layer = r#"{"width": 320, "height": 180}"#;
        let track = publish(&[layer; 2].join(",")).unwrap();
        assert_eq!(track.codecs[0].mime, "video/VP9");
        assert_eq!((track.source, track.layers.len()), (Source::Camera, 2));
        assert!(publish(&[layer; 4].join(",")).is_err());
        let line = r#"{"do": "layers", "room": "a", "identity": "b", "tracks": [], "width": 1}"#;
        match read(line).1 {
            Ok(Request::Layers(layers)) => assert!(layers.request().is_err()),
            other => panic!("{other:?}"),
        }
    }
}

//! Tracks as protobuf messages: as others see them, and as they were asked for.

use livekit_protocol as proto;

use super::wire::{quality, text};
use crate::media::message::{
    AddTrack, BackupPolicy, Codec, CodecInfo, Kind, LayerInfo, Source, TrackInfo,
};

/// Names of the layers in SDP, smallest first.
const RIDS: [&str; 3] = ["q", "h", "f"];

#[expect(deprecated, reason = "clients of today still use these fields")]
pub(in crate::signal) fn track(info: TrackInfo) -> proto::TrackInfo {
    use proto::video_layer::Mode;
    let TrackInfo {
        sid,
        announced,
        simulcast,
    } = info;
    let layers = |layers: &[LayerInfo], simulcast: bool| -> Vec<_> {
        let layers = layers.iter();
        layers.map(|one| layer(one, simulcast)).collect()
    };
    // A backup has a stream for each of its layers, whatever the first codec has.
    let apart = |number: usize, info: &CodecInfo| match number {
        0 => simulcast,
        _ => info.layers.len() > 1,
    };
    let mode = |info: &CodecInfo| match Codec::named(&info.mime) {
        _ if announced.kind == Kind::Audio => Mode::Unused,
        Some(codec) if codec.is_layered() && !simulcast => Mode::MultipleSpatialLayersPerStream,
        _ => Mode::OneSpatialLayerPerStream,
    };
    let codecs = announced.codecs.iter().enumerate();
    let codecs = codecs.map(|(number, codec)| proto::SimulcastCodecInfo {
        mime_type: codec.mime.clone(),
        mid: codec.mid.clone(),
        cid: codec.cid.clone(),
        layers: layers(&codec.layers, apart(number, codec)),
        video_layer_mode: mode(codec) as i32,
        sdp_cid: String::new(),
    });
    let codecs: Vec<_> = codecs.collect();
    let first = codecs.first().cloned().unwrap_or_default();
    proto::TrackInfo {
        sid: sid.as_str().to_owned(),
        r#type: kind(announced.kind),
        muted: announced.muted,
        width: announced.dimensions.0,
        height: announced.dimensions.1,
        simulcast,
        disable_dtx: announced.disable_dtx,
        source: source(announced.source),
        layers: layers(&announced.layers, simulcast),
        mime_type: first.mime_type,
        mid: first.mid,
        codecs,
        stereo: announced.stereo,
        disable_red: announced.disable_red,
        encryption: announced.encryption,
        audio_features: audio_features(&announced),
        stream: stream(&announced),
        backup_codec_policy: backup_policy(announced.backup_policy),
        packet_trailer_features: announced.packet_trailer_features,
        name: announced.name,
        version: None,
    }
}

/// The group of a track: what belongs to one picture in a client.
fn stream(announced: &AddTrack) -> String {
    match announced.source {
        _ if !announced.stream.is_empty() => announced.stream.clone(),
        Source::Camera | Source::Microphone => "camera".to_owned(),
        Source::ScreenShare | Source::ScreenShareAudio => "screen".to_owned(),
        Source::Unknown => String::new(),
    }
}

/// The announced features, and those older clients say by flags.
fn audio_features(announced: &AddTrack) -> Vec<i32> {
    use proto::AudioTrackFeature::{TfNoDtx, TfStereo};
    let mut features = announced.audio_features.clone();
    if announced.kind == Kind::Audio {
        let flags = [
            (announced.stereo, TfStereo),
            (announced.disable_dtx, TfNoDtx),
        ];
        for (set, feature) in flags {
            if set && !features.contains(&(feature as i32)) {
                features.push(feature as i32);
            }
        }
    }
    features
}

fn layer(info: &LayerInfo, simulcast: bool) -> proto::VideoLayer {
    let rid = RIDS.get(usize::from(info.spatial)).filter(|_| simulcast);
    proto::VideoLayer {
        quality: quality(info.quality),
        width: info.width,
        height: info.height,
        bitrate: info.bitrate,
        spatial_layer: i32::from(info.spatial),
        rid: rid.copied().unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

/// A refused request as the client sent it, as far as it was understood.
#[expect(deprecated, reason = "clients of today still use these fields")]
pub(super) fn add_track(announced: AddTrack) -> proto::AddTrackRequest {
    let layers = |layers: &[LayerInfo]| -> Vec<_> {
        let layers = layers.iter();
        layers.map(|one| layer(one, false)).collect()
    };
    let codecs = announced.codecs.iter();
    let simulcast_codecs = codecs.map(|codec| proto::SimulcastCodec {
        codec: codec
            .mime
            .split('/')
            .next_back()
            .unwrap_or_default()
            .to_lowercase(),
        cid: codec.cid.clone(),
        layers: layers(&codec.layers),
        ..Default::default()
    });
    proto::AddTrackRequest {
        simulcast_codecs: simulcast_codecs.collect(),
        layers: layers(&announced.layers),
        r#type: kind(announced.kind),
        width: announced.dimensions.0,
        height: announced.dimensions.1,
        muted: announced.muted,
        disable_dtx: announced.disable_dtx,
        source: source(announced.source),
        stereo: announced.stereo,
        disable_red: announced.disable_red,
        encryption: announced.encryption,
        backup_codec_policy: backup_policy(announced.backup_policy),
        cid: announced.cid,
        name: announced.name,
        stream: announced.stream,
        audio_features: announced.audio_features,
        packet_trailer_features: announced.packet_trailer_features,
        sid: announced.sid.as_ref().map(text).unwrap_or_default(),
    }
}

fn backup_policy(policy: BackupPolicy) -> i32 {
    use proto::BackupCodecPolicy;
    let policy = match policy {
        BackupPolicy::PreferRegression => BackupCodecPolicy::PreferRegression,
        BackupPolicy::Simulcast => BackupCodecPolicy::Simulcast,
        BackupPolicy::Regression => BackupCodecPolicy::Regression,
    };
    policy as i32
}

fn kind(kind: Kind) -> i32 {
    match kind {
        Kind::Audio => proto::TrackType::Audio as i32,
        Kind::Video => proto::TrackType::Video as i32,
    }
}

pub(super) fn source(source: Source) -> i32 {
    use proto::TrackSource;
    let source = match source {
        Source::Unknown => TrackSource::Unknown,
        Source::Camera => TrackSource::Camera,
        Source::Microphone => TrackSource::Microphone,
        Source::ScreenShare => TrackSource::ScreenShare,
        Source::ScreenShareAudio => TrackSource::ScreenShareAudio,
    };
    source as i32
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An announcement in which nothing is usual.
    pub fn microphone() -> AddTrack {
        AddTrack {
            sid: None,
            cid: "cid".to_owned(),
            name: "mic".to_owned(),
            kind: Kind::Audio,
            source: Source::Microphone,
            muted: true,
            dimensions: (0, 0),
            layers: Vec::new(),
            codecs: vec![CodecInfo {
                mime: Codec::Opus.mime().to_owned(),
                cid: "cid".to_owned(),
                mid: String::new(),
                apart: false,
                layers: Vec::new(),
            }],
            encryption: 1,
            stereo: true,
            disable_dtx: true,
            disable_red: true,
            stream: String::new(),
            backup_policy: BackupPolicy::default(),
            audio_features: vec![proto::AudioTrackFeature::TfStereo as i32],
            packet_trailer_features: Vec::new(),
        }
    }

    #[test]
    #[expect(deprecated, reason = "clients of today still use these fields")]
    fn a_track_says_what_was_announced_and_what_follows_from_it() {
        let mut announced = microphone();
        announced.codecs[0].mid = "7".to_owned();
        let info = track(TrackInfo {
            sid: "TR_AMabc".into(),
            announced,
            simulcast: false,
        });
        assert_eq!(
            (info.mime_type.as_str(), info.mid.as_str()),
            ("audio/opus", "7")
        );
        assert_eq!(
            (info.codecs[0].mid.as_str(), info.stream.as_str()),
            ("7", "camera")
        );
        assert_eq!(info.source(), proto::TrackSource::Microphone);
        assert_eq!(info.encryption(), proto::encryption::Type::Gcm);
        assert!(info.muted && info.stereo && info.disable_dtx && info.disable_red);
        let features: Vec<_> = info.audio_features().collect();
        use proto::AudioTrackFeature::{TfNoDtx, TfStereo};
        assert_eq!(features, [TfStereo, TfNoDtx]);
    }
}

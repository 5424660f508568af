//! What clients are told in the course of a call: who speaks, which layers are wanted, how good
//! connections are; and whom they let have their tracks.

use livekit_protocol as proto;
use proto::signal_response::Message as Reply;

use super::request::sids;
use super::wire::{quality, text};
use crate::ids::TrackSid;
use crate::media::message::{
    Allowance, ConnectionQuality, Quality, QualityUpdate, Speaker, StreamState, StreamUpdate,
};

/// Participants named in one request; the rest is ignored, and so gets nothing.
const ALLOWANCES_MAX: usize = 1000;

/// All qualities, lowest first.
const QUALITIES: [Quality; 3] = [Quality::Low, Quality::Medium, Quality::High];

pub(super) fn speakers(speakers: Vec<Speaker>) -> Reply {
    let speakers = speakers.into_iter().map(|speaker| proto::SpeakerInfo {
        sid: speaker.participant.as_str().to_owned(),
        level: f32::from(speaker.level) / 8.0,
        active: speaker.level > 0,
    });
    Reply::SpeakersChanged(proto::SpeakersChanged {
        speakers: speakers.collect(),
    })
}

/// Which layers of an own video are wanted, by codec.
#[expect(
    deprecated,
    reason = "older clients read the qualities of the first codec there"
)]
pub(super) fn demand(track: &TrackSid, codecs: Vec<(String, Option<Quality>)>) -> Reply {
    let codecs = codecs.into_iter().map(|(mime, wanted)| {
        let qualities = QUALITIES.map(|each| proto::SubscribedQuality {
            quality: quality(each),
            enabled: wanted >= Some(each),
        });
        proto::SubscribedCodec {
            codec: mime.rsplit('/').next().unwrap_or_default().to_lowercase(),
            qualities: qualities.to_vec(),
        }
    });
    let codecs: Vec<_> = codecs.collect();
    let first = codecs.first().map(|codec| codec.qualities.clone());
    Reply::SubscribedQualityUpdate(proto::SubscribedQualityUpdate {
        track_sid: text(track),
        subscribed_qualities: first.unwrap_or_default(),
        subscribed_codecs: codecs,
    })
}

pub(super) fn qualities(updates: Vec<QualityUpdate>) -> Reply {
    let word = |quality| match quality {
        ConnectionQuality::Lost => proto::ConnectionQuality::Lost,
        ConnectionQuality::Poor => proto::ConnectionQuality::Poor,
        ConnectionQuality::Good => proto::ConnectionQuality::Good,
        ConnectionQuality::Excellent => proto::ConnectionQuality::Excellent,
    };
    let updates = updates
        .into_iter()
        .map(|update| proto::ConnectionQualityInfo {
            participant_sid: update.participant.as_str().to_owned(),
            quality: word(update.quality) as i32,
            score: update.score,
        });
    Reply::ConnectionQuality(proto::ConnectionQualityUpdate {
        updates: updates.collect(),
    })
}

pub(super) fn stream_states(updates: Vec<StreamUpdate>) -> Reply {
    let word = |state| match state {
        StreamState::Active => proto::StreamState::Active,
        StreamState::Paused => proto::StreamState::Paused,
    };
    let states = updates.into_iter().map(|update| proto::StreamStateInfo {
        participant_sid: update.participant.as_str().to_owned(),
        track_sid: text(&update.track),
        state: word(update.state) as i32,
    });
    Reply::StreamStateUpdate(proto::StreamStateUpdate {
        stream_states: states.collect(),
    })
}

pub(super) fn subscription_error(track: &TrackSid, error: proto::SubscriptionError) -> Reply {
    Reply::SubscriptionResponse(proto::SubscriptionResponse {
        track_sid: text(track),
        err: error as i32,
    })
}

/// Whom a publisher lets have its tracks, `None` for everybody.
pub(super) fn allowances(permission: proto::SubscriptionPermission) -> Option<Vec<Allowance>> {
    if permission.all_participants {
        return None;
    }
    let allowances = permission.track_permissions.into_iter();
    let allowances = allowances.take(ALLOWANCES_MAX).map(|one| Allowance {
        participant: one.participant_sid.into(),
        identity: one.participant_identity.into(),
        tracks: (!one.all_tracks).then(|| sids(one.track_sids)),
    });
    Some(allowances.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        deprecated,
        reason = "older clients read the qualities of the first codec there"
    )]
    fn a_demand_enables_all_up_to_the_wanted_quality() {
        for (wanted, enabled) in [
            (None, [false, false, false]),
            (Some(Quality::Low), [true, false, false]),
            (Some(Quality::High), [true, true, true]),
        ] {
            let codecs = vec![
                ("video/VP8".to_owned(), wanted),
                ("video/H264".to_owned(), None),
            ];
            let Reply::SubscribedQualityUpdate(update) = demand(&"TR_a".into(), codecs) else {
                panic!("no update");
            };
            let names = update
                .subscribed_codecs
                .iter()
                .map(|codec| codec.codec.as_str());
            assert_eq!(names.collect::<Vec<_>>(), ["vp8", "h264"]);
            let said = |qualities: &[proto::SubscribedQuality]| -> Vec<bool> {
                qualities.iter().map(|one| one.enabled).collect()
            };
            assert_eq!(said(&update.subscribed_codecs[0].qualities), enabled);
            assert_eq!(said(&update.subscribed_codecs[1].qualities), [false; 3]);
            assert_eq!(said(&update.subscribed_qualities), enabled);
        }
    }

    #[test]
    fn a_speaker_who_stopped_is_inactive() {
        let speaker = |level| Speaker {
            participant: "PA_a".into(),
            level,
        };
        let Reply::SpeakersChanged(changed) = speakers(vec![speaker(0), speaker(3)]) else {
            panic!("no change");
        };
        let said: Vec<_> = changed
            .speakers
            .iter()
            .map(|speaker| (speaker.active, speaker.level))
            .collect();
        assert_eq!(said, [(false, 0.0), (true, 0.375)]);
    }
}

//! Reads protobuf from strangers without letting it grow.
//!
//! A decoded message can be two hundred times its bytes: an empty submessage in a repeated field
//! takes two bytes on the wire, and a track's whole struct in memory. So before the decoder runs,
//! the outermost fields are walked. Only those we use are decoded at all, and only the few that
//! carry long texts, which don't grow, may be long. Unknown fields are skipped, as protobuf wants.

use livekit_protocol as proto;
use prost::Message;

/// Bytes of a field that carries lists. A track announces itself in 1 KiB, and 4000 track ids fit.
/// A longer one makes the message unreadable.
const FIELD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a message in JSON, where there is no walk before. Only tests of clients speak it.
const JSON_BYTES_MAX: usize = 128 * 1024;

/// Messages we act on, by their numbers in `SignalRequest`. A test holds this against what
/// `request` does.
const REQUESTS: [u64; 17] = [
    OFFER,
    ANSWER,
    3,
    4,
    5,
    6,
    7,
    8,
    11,
    SYNC_STATE,
    SIMULATE,
    14,
    UPDATE_METADATA,
    16,
    17,
    18,
    19,
];

/// Carries SDP.
const OFFER: u64 = 1;

/// Carries lists, and the SDP of the last negotiation.
const SYNC_STATE: u64 = 12;

/// Answer and offer in a `SyncState`. They are of no use to us: the client offers anew.
const SYNC_DESCRIPTIONS: [u64; 2] = [1, 5];
/// The same, for our own offers.
const ANSWER: u64 = 2;

/// Heeded only where the configuration says so.
const SIMULATE: u64 = 13;

/// Carries metadata.
const UPDATE_METADATA: u64 = 15;

/// Attributes of a participant. More make a join request or an update unreadable: an empty one
/// takes two bytes on the wire.
const ATTRIBUTES_MAX: usize = 1000;

/// Entries of the map of attributes in `UpdateParticipantMetadata`.
const UPDATED_ATTRIBUTE: u64 = 3;

/// The map from sections to tracks in a `SessionDescription`: only answers have one.
const MID_TO_TRACK: u64 = 4;

/// Numbers of fields in `JoinRequest`.
mod join {
    /// Bounded in number.
    pub const ATTRIBUTE: u64 = 4;
    /// The offer.
    pub const OFFER: u64 = 6;
    /// Bounded in number as well as in size.
    pub const TRACK: u64 = 5;
    /// Of a resume. Clients say it by a message of its own.
    pub const SYNC_STATE: u64 = 10;
    /// The fields with long texts: metadata, attributes, offer.
    pub const LONG: [u64; 3] = [3, ATTRIBUTE, OFFER];
}

/// The bytes are no such message, or too long for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// One outermost field.
struct Field<'a> {
    number: u64,
    /// With number and length.
    whole: &'a [u8],
    /// What the length is of; nothing in fields without one.
    contents: Option<&'a [u8]>,
}

/// The last message in `bytes` that we act on; there is no more than one in practice.
pub(super) fn signal_request(bytes: &[u8]) -> Result<proto::SignalRequest, Unreadable> {
    let mut last = None;
    let mut rest = bytes;
    while let Some(field) = next_field(&mut rest)? {
        if REQUESTS.contains(&field.number) {
            last = Some(field);
        }
    }
    let Some(field) = last else {
        return Ok(proto::SignalRequest::default());
    };
    if field.number == SYNC_STATE {
        let message = Some(proto::signal_request::Message::SyncState(
            field.sync_state()?,
        ));
        return Ok(proto::SignalRequest { message });
    }
    let may_be_long = [OFFER, ANSWER, UPDATE_METADATA].contains(&field.number);
    field.check_length(may_be_long)?;
    if field.number == UPDATE_METADATA {
        field.check_attributes(UPDATED_ATTRIBUTE)?;
    }
    if [OFFER, ANSWER].contains(&field.number) {
        use proto::signal_request::Message;
        let mut description = proto::SessionDescription::default();
        field.merge_offer(&mut description)?;
        let message = Some(match field.number {
            OFFER => Message::Offer(description),
            _ => Message::Answer(description),
        });
        return Ok(proto::SignalRequest { message });
    }
    proto::SignalRequest::decode(field.whole).map_err(|_| Unreadable)
}

/// The same in JSON.
pub(super) fn signal_request_json(text: &str) -> Result<proto::SignalRequest, Unreadable> {
    if text.len() > JSON_BYTES_MAX {
        return Err(Unreadable);
    }
    serde_json::from_str(text).map_err(|_| Unreadable)
}

/// A join request with at most `tracks_max` announced tracks.
pub(super) fn join_request(
    bytes: &[u8],
    tracks_max: usize,
) -> Result<proto::JoinRequest, Unreadable> {
    let mut request = proto::JoinRequest::default();
    let mut rest = bytes;
    let mut attributes = 0;
    while let Some(field) = next_field(&mut rest)? {
        let too_many =
            field.number == join::TRACK && request.add_track_requests.len() >= tracks_max;
        if too_many || field.number == join::SYNC_STATE {
            continue;
        }
        field.check_length(join::LONG.contains(&field.number))?;
        attributes += usize::from(field.number == join::ATTRIBUTE);
        if attributes > ATTRIBUTES_MAX {
            return Err(Unreadable);
        }
        if field.number == join::OFFER {
            field.merge_offer(request.publisher_offer.get_or_insert_default())?;
            continue;
        }
        request.merge(field.whole).map_err(|_| Unreadable)?;
    }
    Ok(request)
}

impl Field<'_> {
    fn check_length(&self, may_be_long: bool) -> Result<(), Unreadable> {
        if self.whole.len() > FIELD_BYTES_MAX && !may_be_long {
            return Err(Unreadable);
        }
        Ok(())
    }

    /// Each entry of a map takes far more room than it has bytes.
    fn check_attributes(&self, number: u64) -> Result<(), Unreadable> {
        let mut rest = self.contents.ok_or(Unreadable)?;
        let mut attributes = 0;
        while let Some(field) = next_field(&mut rest)? {
            attributes += usize::from(field.number == number);
        }
        match attributes > ATTRIBUTES_MAX {
            true => Err(Unreadable),
            false => Ok(()),
        }
    }

    /// Adds what this field says to `offer`, but for its map.
    fn merge_offer(&self, offer: &mut proto::SessionDescription) -> Result<(), Unreadable> {
        let mut rest = self.contents.ok_or(Unreadable)?;
        while let Some(field) = next_field(&mut rest)? {
            if field.number != MID_TO_TRACK {
                offer.merge(field.whole).map_err(|_| Unreadable)?;
            }
        }
        Ok(())
    }
}

impl Field<'_> {
    /// A `SyncState` without its SDP. What is left is bounded like any other message.
    fn sync_state(&self) -> Result<proto::SyncState, Unreadable> {
        let mut rest = self.contents.ok_or(Unreadable)?;
        let mut state = proto::SyncState::default();
        let mut bytes = 0;
        while let Some(field) = next_field(&mut rest)? {
            if SYNC_DESCRIPTIONS.contains(&field.number) {
                continue;
            }
            bytes += field.whole.len();
            if bytes > FIELD_BYTES_MAX {
                return Err(Unreadable);
            }
            state.merge(field.whole).map_err(|_| Unreadable)?;
        }
        Ok(state)
    }
}

/// Cuts the next field off `rest`. Groups are no part of today's protobuf and unreadable.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<Field<'a>>, Unreadable> {
    if rest.is_empty() {
        return Ok(None);
    }
    let all = *rest;
    let key = varint(rest)?;
    let length = match key & 7 {
        0 => {
            varint(rest)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).map_err(|_| Unreadable)?,
        5 => 4,
        _ => return Err(Unreadable),
    };
    let (contents, after) = rest.split_at_checked(length).ok_or(Unreadable)?;
    *rest = after;
    let whole = &all[..all.len() - rest.len()];
    Ok(Some(Field {
        number: key >> 3,
        whole,
        contents: (key & 7 == 2).then_some(contents),
    }))
}

fn varint(rest: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0;
    for place in 0..10 {
        let (&byte, after) = rest.split_first().ok_or(Unreadable)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::signal_request::Message as Ask;

    fn bytes(message: Ask) -> Vec<u8> {
        let message = Some(message);
        proto::SignalRequest { message }.encode_to_vec()
    }

    #[test]
    fn an_update_has_so_many_attributes_and_no_more() {
        let update = |count: usize| {
            let attributes = (0..count).map(|key| (key.to_string(), String::new()));
            let update = proto::UpdateParticipantMetadata {
                attributes: attributes.collect(),
                ..Default::default()
            };
            signal_request(&bytes(Ask::UpdateMetadata(update))).is_ok()
        };
        assert!(update(ATTRIBUTES_MAX) && !update(ATTRIBUTES_MAX + 1));
    }

    #[test]
    fn all_we_act_on_is_read_and_nothing_else() {
        let read = |message: Ask| signal_request(&bytes(message)).unwrap().message.is_some();
        let acted_on = [
            Ask::Offer(Default::default()),
            Ask::Answer(Default::default()),
            Ask::Trickle(Default::default()),
            Ask::AddTrack(Default::default()),
            Ask::Mute(Default::default()),
            Ask::Subscription(Default::default()),
            Ask::TrackSetting(Default::default()),
            Ask::Leave(Default::default()),
            Ask::SyncState(Default::default()),
            Ask::Simulate(Default::default()),
            Ask::Ping(-1),
            Ask::UpdateMetadata(Default::default()),
            Ask::PingReq(Default::default()),
            Ask::PublishDataTrackRequest(Default::default()),
            Ask::SubscriptionPermission(Default::default()),
            Ask::UpdateAudioTrack(Default::default()),
            Ask::UpdateVideoTrack(Default::default()),
        ];
        assert_eq!(acted_on.len(), REQUESTS.len());
        assert!(acted_on.into_iter().all(read));
        assert!(!read(Ask::UnpublishDataTrackRequest(Default::default())));
    }

    #[test]
    fn lists_are_bounded_and_texts_are_not() {
        let track = proto::AddTrackRequest {
            layers: vec![Default::default(); 40_000],
            ..Default::default()
        };
        assert_eq!(
            signal_request(&bytes(Ask::AddTrack(track.clone()))),
            Err(Unreadable)
        );
        let sdp = "v".repeat(500_000);
        let offer = proto::SessionDescription {
            sdp,
            id: 7,
            r#type: "offer".to_owned(),
            ..Default::default()
        };
        let mut mapped = offer.clone();
        let entry = |n: u32| (n.to_string(), String::new());
        mapped.mid_to_track_id = (0..100).map(entry).collect();
        let read = signal_request(&bytes(Ask::Offer(mapped.clone()))).unwrap();
        assert_eq!(read.message, Some(Ask::Offer(offer.clone())));

        let mut join = proto::JoinRequest {
            add_track_requests: vec![Default::default(); 1000],
            publisher_offer: Some(mapped),
            metadata: "m".repeat(100_000),
            sync_state: Some(proto::SyncState {
                publish_tracks: vec![Default::default(); 100_000],
                ..Default::default()
            }),
            ..Default::default()
        };
        let read = join_request(&join.encode_to_vec(), 33).unwrap();
        assert_eq!(read.add_track_requests.len(), 33);
        assert!(read.sync_state.is_none() && read.metadata.len() == 100_000);
        assert_eq!(read.publisher_offer, Some(offer));
        join.participant_attributes = (0..=1000).map(entry).collect();
        assert_eq!(join_request(&join.encode_to_vec(), 33), Err(Unreadable));
        join.participant_attributes.clear();
        join.add_track_requests = vec![track];
        assert_eq!(join_request(&join.encode_to_vec(), 33), Err(Unreadable));
    }

    #[test]
    fn a_sync_state_is_read_without_its_sdp() {
        let mut state = proto::SyncState {
            track_sids_disabled: vec!["TR_a".to_owned()],
            ..Default::default()
        };
        let mut whole = state.clone();
        whole.offer = Some(proto::SessionDescription {
            sdp: "v".repeat(500_000),
            ..Default::default()
        });
        whole.answer.clone_from(&whole.offer);
        let read = signal_request(&bytes(Ask::SyncState(whole))).unwrap();
        assert_eq!(read.message, Some(Ask::SyncState(state.clone())));
        state.publish_tracks = vec![Default::default(); 40_000];
        assert_eq!(
            signal_request(&bytes(Ask::SyncState(state))),
            Err(Unreadable)
        );
    }

    #[test]
    fn cut_and_senseless_bytes_are_unreadable() {
        let whole = bytes(Ask::Ping(i64::MAX));
        for length in 1..whole.len() {
            assert_eq!(signal_request(&whole[..length]), Err(Unreadable));
        }
        let endless = [0xff; 40];
        let group = [0x0b, 0x0c];
        let long = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        for bytes in [&endless[..], &group, &long] {
            assert_eq!(signal_request(bytes), Err(Unreadable));
        }
        let mut newer = vec![0xfa, 0x06, 0x01, 0x78];
        newer.extend(bytes(Ask::Ping(1)));
        assert_eq!(signal_request(&newer).unwrap().message, Some(Ask::Ping(1)));
        assert!(signal_request_json(&" ".repeat(JSON_BYTES_MAX + 1)).is_err());
    }
}

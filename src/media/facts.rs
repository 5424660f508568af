//! What a room says of its media when it is asked: figures that are there anyway, read off.

use std::time::Instant;

use super::TrackKey;
use super::encoding::Encoding;
use super::message::Kind;
use super::message::facts::{
    EncodingFacts, LayerFacts, LegFacts, RoomFacts, SubscriptionFacts, TrackFacts,
};
use super::participant::Participant;
use super::room::Room;
use super::subscription::{Outgoing, Subscription};
use super::track::Track;
use crate::ids::Identity;
use crate::units::Bitrate;

impl Room {
    /// All tracks and legs.
    pub fn facts(&mut self, now: Instant) -> RoomFacts {
        let tracks = self.tracks.iter().filter_map(|(key, track)| {
            let publisher = self.identity_of(TrackKey(key as u32))?;
            Some(track.facts(publisher.clone(), now))
        });
        let tracks = tracks.collect();
        let legs = self.participants.iter_mut();
        let legs =
            legs.map(|(_, participant)| participant.leg_facts(|key| &self.tracks[key.0 as usize]));
        RoomFacts {
            tracks,
            legs: legs.collect(),
        }
    }
}

impl Track {
    fn facts(&self, publisher: Identity, now: Instant) -> TrackFacts {
        let codecs = self.info.announced.codecs.iter();
        let mids = codecs.map(|codec| codec.mid.as_str());
        let encodings = self.encodings.iter();
        let encodings = encodings.zip(mids.chain(std::iter::repeat("")));
        TrackFacts {
            sid: self.info.sid.clone(),
            publisher,
            kind: self.kind(),
            source: self.info.announced.source,
            muted: self.info.announced.muted,
            encodings: encodings.map(|(it, mid)| it.facts(mid, now)).collect(),
        }
    }
}

impl Encoding {
    fn facts(&self, mid: &str, now: Instant) -> EncodingFacts {
        let layer = |at: usize| {
            let (stream, inner) = self.place(at);
            let rates = stream.rates(inner, now);
            LayerFacts {
                rid: self.rids.get(at).cloned(),
                ssrc: stream.ssrc,
                // Each temporal layer counts with those below it, and is zero if it isn't there.
                bitrate: rates.into_iter().max().unwrap_or(Bitrate::ZERO),
            }
        };
        EncodingFacts {
            codec: self.codec,
            mid: mid.to_owned(),
            layers: (0..self.count()).map(layer).collect(),
            subscribers: self.subscribers.len(),
        }
    }
}

impl Participant {
    fn leg_facts<'a>(&mut self, track: impl Fn(TrackKey) -> &'a Track) -> LegFacts {
        let owned = |(mid, key): (&str, TrackKey)| (key, mid.to_owned());
        let mids: Vec<_> = match &self.downlink {
            Some(downlink) => downlink.carrying().map(owned).collect(),
            None => self.sections.carrying().map(owned).collect(),
        };
        let subscriptions = self.leg.subscriptions().map(|subscription| {
            let key = subscription.track;
            let mid = mids.iter().find(|(carried, _)| *carried == key);
            subscription.facts(track(key), mid.map(|(_, mid)| mid.clone()))
        });
        let subscriptions = subscriptions.collect();
        let estimator = self.leg.estimator();
        let (estimate, round_trip) = (estimator.estimate(), estimator.rtt());
        LegFacts {
            participant: self.identity.clone(),
            sid: self.sid.clone(),
            connected: self.leg.is_connected(),
            estimate,
            round_trip,
            share: self.link.share,
            subscriptions,
        }
    }
}

impl Subscription {
    fn facts(&self, track: &Track, mid: Option<String>) -> SubscriptionFacts {
        let outgoing = self.outgoing.as_ref();
        let encoding = &track.encodings[self.encoding];
        SubscriptionFacts {
            track: track.info.sid.clone(),
            encoding: self.encoding,
            mid,
            ssrc: outgoing.map(|outgoing| outgoing.ssrc.get()),
            disabled: self.settings.disabled,
            paused: outgoing.is_some_and(|outgoing| outgoing.flow.is_paused()),
            wanted: self.wanted_layer(track).0,
            allowed: self.granted.map(|grant| (grant.layer.0, grant.temporal)),
            forwarded: outgoing.and_then(|outgoing| outgoing.forwarded(encoding)),
            packets: outgoing.map_or(0, |outgoing| outgoing.packets),
            octets: outgoing.map_or(0, |outgoing| outgoing.octets),
        }
    }
}

impl Outgoing {
    /// The size of the picture that is forwarded now.
    fn forwarded(&self, encoding: &Encoding) -> Option<u8> {
        if encoding.codec.kind() == Kind::Audio {
            return None;
        }
        let stream = self.layers.current()?;
        let highest = encoding.count().saturating_sub(1) as u8;
        // The layers of a stream that holds all sizes are told apart by the cut.
        Some(match encoding.streams.len() {
            1 => self.layers.cut().spatial.min(highest),
            _ => stream.0,
        })
    }
}

//! What a test asks of a meeting: what somebody sees, and whether all went well.

use std::time::Duration;

use super::Meeting;
use crate::media::counters::Counters;
use crate::media::message::{Kind, Quality};
use crate::sim::judge::Offence;
use crate::sim::receiving::Incoming;

/// What somebody must see now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sees {
    publisher: String,
    layer: Option<Quality>,
    /// Pictures move if the newest is no older than this.
    within: Duration,
}

impl Sees {
    /// Moving pictures of somebody.
    pub fn picture(publisher: &str) -> Self {
        Self {
            publisher: publisher.to_owned(),
            layer: None,
            within: MOVING,
        }
    }

    /// The same on a link on which pictures may stand for as long as this.
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Moving pictures of somebody, from this layer.
    pub fn layer(publisher: &str, layer: Quality) -> Self {
        Self {
            layer: Some(layer),
            ..Self::picture(publisher)
        }
    }
}

/// Offences that a failing test shows.
const OFFENCES_SHOWN: usize = 5;

/// Pictures move if the newest is no older than this, on links that are not very bad.
const MOVING: Duration = Duration::from_millis(500);

impl Meeting {
    /// The streams of somebody's tracks of a kind as someone receives them now.
    pub fn streams(&self, name: &str, publisher: &str, kind: Kind) -> Vec<&Incoming> {
        let tracks = self.tracks_of(publisher, kind);
        let streams = self.client(name).incoming.values();
        streams
            .filter(|stream| !stream.ended && tracks.contains(&stream.track))
            .collect()
    }

    /// All that happened.
    pub fn log(&self) -> &str {
        self.log.text()
    }

    /// What the shard counted.
    pub fn counters(&self) -> Counters {
        self.shard.counters()
    }

    /// Every offence so far: when, against whom, what.
    pub fn offences(&self) -> Vec<(Duration, &str, Offence)> {
        let mut offences = Vec::new();
        for client in &self.clients {
            let seen = client
                .offences
                .iter()
                .map(|(at, offence)| (at.saturating_duration_since(self.start), *offence));
            let never = client
                .unannounced()
                .map(|offence| (self.now.saturating_duration_since(self.start), offence));
            offences.extend(
                seen.chain(never)
                    .map(|(at, what)| (at, &*client.name, what)),
            );
        }
        offences
    }

    /// Nothing happened that must never happen.
    pub fn assert_blameless(&self) {
        let offences = self.offences();
        let first = &offences[..offences.len().min(OFFENCES_SHOWN)];
        assert!(
            offences.is_empty(),
            "{} offences, {first:?}",
            offences.len()
        );
    }

    /// Someone must see this now.
    pub fn expect(&self, name: &str, sees: Sees) {
        let streams = self.streams(name, &sees.publisher, Kind::Video);
        let shown = streams
            .iter()
            .filter_map(|stream| stream.decoder.shown)
            .max();
        let moving = shown.filter(|(at, _)| self.now.saturating_duration_since(*at) < sees.within);
        let right = moving.is_some_and(|(_, layer)| {
            sees.layer
                .is_none_or(|wanted| usize::from(layer) == wanted as usize)
        });
        let ago = shown.map(|(at, layer)| (self.now.saturating_duration_since(at), layer));
        assert!(
            right,
            "{name} must see {sees:?}; shown last, how long ago and of which layer: {ago:?}"
        );
    }

    /// No picture stood still for so long for someone, since [`Meeting::forget_freezes`].
    pub fn assert_longest_freeze_below(&self, name: &str, span: Duration) {
        for stream in self.client(name).incoming.values() {
            if stream.kind == Kind::Video && !stream.ended {
                let freeze = stream.decoder.longest_freeze(self.now);
                assert!(
                    freeze < span,
                    "{name} saw {:?} stand for {freeze:?}",
                    stream.track
                );
            }
        }
    }

    /// Freezes count anew from here, for all.
    pub fn forget_freezes(&mut self) {
        for client in &mut self.clients {
            for stream in client.incoming.values_mut() {
                stream.decoder.forget_freezes(self.now);
                stream.gap_max = Duration::ZERO;
            }
        }
    }
}

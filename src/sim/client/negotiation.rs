//! What a client and the shard agree on: sections, offers, answers, and what a browser would make
//! of them.

use std::time::Instant;

use super::{Client, ssrc};
use crate::ids::TrackSid;
use crate::media::message::{Kind, Notice, Request};
use crate::sim::content::Stamp;
use crate::sim::judge::Offence;
use crate::sim::medium::{Encoder, Medium};
use crate::sim::receiving::Incoming;
use crate::sim::record::Record;
use crate::sim::sdp::{self, Answer, Answered, Section, Usage};
use crate::sim::sending::{Outgoing, Published};
use crate::sim::world::{Note, World};

impl Client {
    /// Announces `medium` and offers a section for it.
    pub fn publish(&mut self, medium: Medium, now: Instant) {
        let request = Box::new(medium.announcement());
        self.requests.push(Request::AddTrack(request));
        let rids = medium.rids();
        let first = self.ssrcs + 1;
        let mut streams = Vec::new();
        for layer in 0..medium.rates.len() {
            let stamp = Stamp {
                sender: self.number,
                track: self.tracks,
                layer: layer as u8,
                seq: 0,
                frame: 0,
                sent: now.saturating_duration_since(self.epoch).as_micros() as u64,
            };
            let encoder = Encoder::new(&medium, stamp, &mut self.random, now);
            self.ssrcs += 2;
            let ssrcs = (
                ssrc(self.number, self.ssrcs - 1),
                ssrc(self.number, self.ssrcs),
            );
            let rid = rids.get(layer).copied();
            let sealer = &mut self.keys.sealer;
            streams.push(Outgoing::new(&medium, encoder, rid, ssrcs, sealer));
        }
        let number = self.tracks;
        self.tracks += 1;
        let mid = self.sections.len().to_string();
        self.sections.push(Section {
            mid: mid.clone(),
            kind: medium.kind,
            usage: Usage::Send {
                cid: medium.cid.clone(),
                rids,
                ssrcs: (ssrc(self.number, first), ssrc(self.number, first + 1)),
            },
        });
        self.published.push(Published {
            medium,
            number,
            mid,
            sid: None,
            flowing: false,
            streams,
        });
        self.offer();
    }

    /// Stops to publish the medium with this id.
    pub fn unpublish(&mut self, cid: &str) {
        let found = self
            .published
            .iter()
            .position(|track| track.medium.cid == cid);
        let Some(at) = found else { return };
        let gone = self.published.remove(at);
        for section in self
            .sections
            .iter_mut()
            .filter(|section| section.mid == gone.mid)
        {
            section.usage = Usage::Idle;
        }
        self.offer();
    }

    pub(super) fn add_sections(&mut self, counts: [u32; 2]) {
        for (kind, count) in [Kind::Audio, Kind::Video].into_iter().zip(counts) {
            for _ in 0..count {
                self.sections.push(Section {
                    mid: self.sections.len().to_string(),
                    kind,
                    usage: Usage::Receive,
                });
            }
        }
    }

    /// Offers as soon as the last offer was answered.
    pub(super) fn offer(&mut self) {
        if self.offered {
            self.offer_again = true;
            return;
        }
        self.offer_again = false;
        self.offered = true;
        self.offers += 1;
        self.notes.push(Note::Offer(self.sections.len()));
        let sdp = sdp::offer(&self.sections);
        let sdp = match self.remb {
            Some(_) => sdp::without_twcc(&sdp),
            None => sdp,
        };
        self.requests.push(Request::Offer {
            id: self.offers,
            sdp,
        });
    }

    /// The shard says something.
    pub fn notice(&mut self, now: Instant, notice: &Notice, world: &World) {
        match notice {
            Notice::Answer {
                sdp, mid_to_track, ..
            } => {
                self.answered(now, sdp, mid_to_track, world);
            }
            Notice::MediaSectionsRequired { audios, videos } => {
                self.add_sections([*audios, *videos]);
                self.offer();
            }
            Notice::TrackPublished { cid, track } => {
                for own in self
                    .published
                    .iter_mut()
                    .filter(|own| own.medium.cid == *cid)
                {
                    own.sid = Some(track.sid.clone());
                }
            }
            Notice::StreamStates(updates) => {
                self.flows
                    .extend(updates.iter().map(|update| (now, update.clone())));
            }
            Notice::Left(_) | Notice::Refused(_) => self.left = true,
            _ => {}
        }
    }

    fn answered(
        &mut self,
        now: Instant,
        text: &str,
        mid_to_track: &[(String, TrackSid)],
        world: &World,
    ) {
        let answer = Answer::parse(text);
        self.offered = false;
        self.remote = Some((answer.ufrag.to_owned(), answer.password.to_owned()));
        for section in &answer.sections {
            let mapped = mid_to_track.iter().find(|(mid, _)| mid == section.mid);
            let mapped = mapped.map(|(_, track)| track.as_str());
            let named = section.track.filter(|_| section.sends);
            if named != mapped {
                self.offend(now, Offence::Mapping);
            }
            self.take_section(section, named, world);
        }
        let sending: Vec<&str> = answer
            .sections
            .iter()
            .filter(|section| !section.sends)
            .map(|section| section.mid)
            .collect();
        for track in &mut self.published {
            track.flowing |= sending.contains(&track.mid.as_str());
        }
        for datagram in std::mem::take(&mut self.early) {
            self.media(now, &datagram, world);
        }
        if self.offer_again {
            self.offer();
        }
    }

    /// What a browser makes of one answered section: a track event when it begins to receive,
    /// none when only the name changes.
    fn take_section(&mut self, section: &Answered<'_>, named: Option<&str>, world: &World) {
        let before = self.carried.get(section.mid).cloned();
        if before.as_ref().map(TrackSid::as_str) == named {
            return;
        }
        if let Some(gone) = before {
            self.notes.push(Note::Gone(gone.clone()));
            self.carried.remove(section.mid);
            for stream in self
                .incoming
                .values_mut()
                .filter(|stream| stream.track == gone)
            {
                stream.ended = true;
            }
            if named.is_some() {
                return;
            }
        }
        let (Some(track), (Some(ssrc), repair)) = (named.map(TrackSid::from), section.ssrcs) else {
            return;
        };
        let Some((kind, source)) = world.source(&track) else {
            return;
        };
        self.carried.insert(section.mid.to_owned(), track.clone());
        self.raised.push(track.clone());
        self.notes.push(Note::Track(track.clone()));
        if let Some(repair) = repair {
            self.repairs.insert(repair, ssrc);
        }
        let mut stream = Incoming::new(ssrc, track, kind, source);
        stream.record = self.recording.then(Record::default);
        self.incoming.insert(ssrc, stream);
    }
}

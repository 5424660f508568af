//! The media sections of one client's single peer connection, and which of them carries what.
//!
//! Only the client offers. It keeps a pool of receiving sections; to send it a track, one of them
//! is taken, and the client is asked to offer again so that the answer can say so. When the pool
//! is empty the client is asked for as many sections as are missing. A section that stops to
//! carry has to be answered `inactive` once before it carries something else: a browser raises no
//! `track` event for a new msid on a section that never went quiet.
//!
//! ```text
//!            take                    release                   answered
//!   Free  ---------->  Carrying  ----------------->  Closing  ---------->  Free
//! ```

use std::time::{Duration, Instant};

use super::TrackKey;
use super::codec::Codec;
use super::encoding::EncodingKey;
use super::message::Kind;
use super::sdp::{Flow, Offer};

/// One audio or video section.
#[derive(Debug)]
pub struct Section {
    /// Its `a=mid`.
    pub mid: String,
    /// Audio or video.
    pub kind: Kind,
    /// What it is for.
    pub usage: Usage,
    /// It has carried something since it was offered.
    used: bool,
}

/// What a section is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usage {
    /// The client sends.
    Up {
        /// The client's id of the track.
        track_id: Option<String>,
        /// RIDs of its layers, in offered order; empty without simulcast.
        rids: Vec<String>,
        /// What the client can send, its first choice first.
        codecs: Vec<Codec>,
        /// SSRCs that the offer names.
        ssrcs: Vec<u32>,
        /// What is published in it, once something was announced that fits.
        encoding: Option<EncodingKey>,
    },
    /// The client can receive; nothing is sent.
    Free,
    /// We send this track.
    Carrying(TrackKey),
    /// Nothing is sent any more, but no answer has said so yet.
    Closing,
    /// The client neither sends nor receives.
    Idle,
}

/// All sections of a client, in the order of its offers.
#[derive(Debug, Default)]
pub struct Sections {
    /// Bounded by the limit on media sections of an offer.
    list: Vec<Section>,
    /// Sections asked for and not offered yet: audio, video.
    requested: [u32; 2],
    /// When the client was asked to offer and has not yet.
    asked: Option<Instant>,
    /// The client has offered at least once. Its first offer brings sections unasked.
    offered: bool,
}

/// What the newest offer took away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// What is no longer sent by the client.
    pub published: Vec<EncodingKey>,
    /// Tracks that we can no longer send in their section.
    pub carried: Vec<TrackKey>,
}

impl Sections {
    /// A client that was asked and doesn't offer is asked again after this; a client that can't
    /// make sections is so bothered no more often.
    const ASK_AGAIN: Duration = Duration::from_secs(5);

    /// Takes over what an offer says.
    pub fn offered(&mut self, offer: &Offer<'_>) -> Lost {
        self.offered = true;
        let mut lost = Lost::default();
        // An m-line that was stopped may come back under another mid; the old one is gone then.
        let stays = |section: &Section| offer.sections.iter().any(|new| new.mid == section.mid);
        for gone in self.list.extract_if(.., |section| !stays(section)) {
            match gone.usage {
                Usage::Up {
                    encoding: Some(encoding),
                    ..
                } => lost.published.push(encoding),
                Usage::Carrying(track) => lost.carried.push(track),
                _ => {}
            }
        }
        for offered in &offer.sections {
            let Some(kind) = offered.kind else { continue };
            let found = self
                .list
                .iter()
                .position(|section| section.mid == offered.mid);
            let section = match found {
                Some(position) => &mut self.list[position],
                None => {
                    if offered.flow == Flow::Down {
                        let requested = &mut self.requested[kind as usize];
                        *requested = requested.saturating_sub(1);
                    }
                    self.list.push(Section {
                        mid: offered.mid.clone(),
                        kind,
                        usage: Usage::Idle,
                        used: false,
                    });
                    self.list.last_mut().expect("one was just pushed")
                }
            };
            let usage = match (offered.flow, &section.usage) {
                (
                    Flow::Up,
                    Usage::Up {
                        track_id, encoding, ..
                    },
                ) if *track_id == offered.track_id => {
                    let encoding = *encoding;
                    Usage::Up {
                        track_id: offered.track_id.clone(),
                        rids: offered.rids.clone(),
                        codecs: offered.codecs(),
                        ssrcs: offered.ssrcs.clone(),
                        encoding,
                    }
                }
                (Flow::Up, _) => Usage::Up {
                    track_id: offered.track_id.clone(),
                    rids: offered.rids.clone(),
                    codecs: offered.codecs(),
                    ssrcs: offered.ssrcs.clone(),
                    encoding: None,
                },
                (Flow::Down, Usage::Carrying(track)) => Usage::Carrying(*track),
                (Flow::Down, Usage::Closing) => Usage::Closing,
                (Flow::Down, _) => Usage::Free,
                (Flow::Idle, _) => Usage::Idle,
            };
            match (std::mem::replace(&mut section.usage, usage), &section.usage) {
                (
                    Usage::Up {
                        encoding: Some(old),
                        ..
                    },
                    Usage::Up {
                        encoding: Some(new),
                        ..
                    },
                ) if old == *new => {}
                (
                    Usage::Up {
                        encoding: Some(encoding),
                        ..
                    },
                    _,
                ) => lost.published.push(encoding),
                (Usage::Carrying(_), Usage::Carrying(_)) => {}
                (Usage::Carrying(track), _) => lost.carried.push(track),
                _ => {}
            }
        }
        // Sections still missing mean that this offer left before the question arrived.
        if self.requested == [0, 0] {
            self.asked = None;
        }
        lost
    }

    /// An answer went out that said `inactive` for every closing section.
    pub fn answered(&mut self) {
        for section in &mut self.list {
            if section.usage == Usage::Closing {
                section.usage = Usage::Free;
            }
        }
    }

    /// The client lost its signalling, and with it perhaps the newest answer and whatever it was
    /// asked: what that answer called inactive may never have gone quiet for it, and it is asked
    /// anew.
    pub fn resumed(&mut self) {
        for section in &mut self.list {
            if section.usage == Usage::Free && section.used {
                section.usage = Usage::Closing;
            }
        }
        self.asked = None;
        self.requested = [0, 0];
    }

    /// Takes a free section for `track`; its position.
    pub fn take(&mut self, kind: Kind, track: TrackKey) -> Option<&str> {
        let section = self
            .list
            .iter_mut()
            .find(|section| section.kind == kind && section.usage == Usage::Free)?;
        section.usage = Usage::Carrying(track);
        section.used = true;
        Some(&section.mid)
    }

    /// `track` is no longer sent.
    pub fn release(&mut self, track: TrackKey) {
        for section in &mut self.list {
            if section.usage == Usage::Carrying(track) {
                section.usage = Usage::Closing;
            }
        }
    }

    /// Sections on which the client sends something that was not announced yet.
    pub fn unclaimed(&self) -> impl Iterator<Item = &Section> {
        let unclaimed = |usage: &Usage| matches!(usage, Usage::Up { encoding: None, .. });
        self.list
            .iter()
            .filter(move |section| unclaimed(&section.usage))
    }

    /// The section of that mid is that of an encoding; what it offers: RIDs and codecs.
    pub fn claim(&mut self, mid: &str, of: EncodingKey) -> Option<(Vec<String>, Vec<Codec>)> {
        let section = self.list.iter_mut().find(|section| section.mid == mid)?;
        let Usage::Up {
            rids,
            codecs,
            encoding,
            ..
        } = &mut section.usage
        else {
            return None;
        };
        *encoding = Some(of);
        Some((rids.clone(), codecs.clone()))
    }

    /// The sections in which `track` is published, to be unlinked from it.
    pub fn unclaim(&mut self, track: TrackKey) {
        for section in &mut self.list {
            if let Usage::Up { encoding, .. } = &mut section.usage
                && encoding.is_some_and(|it| it.track == track)
            {
                *encoding = None;
            }
        }
    }

    /// The section in which the client sends on that SSRC, if its offer says so.
    pub fn sending(&self, ssrc: u32) -> Option<&Section> {
        let sends = |it: &&Section| match &it.usage {
            Usage::Up { ssrcs, .. } => ssrcs.contains(&ssrc),
            _ => false,
        };
        self.list.iter().find(sends)
    }

    /// The section of that mid.
    pub fn get(&self, mid: &str) -> Option<&Section> {
        self.list.iter().find(|section| section.mid == mid)
    }

    /// Every section on which a track is sent.
    pub fn carrying(&self) -> impl Iterator<Item = (&str, TrackKey)> {
        self.list.iter().filter_map(|section| match section.usage {
            Usage::Carrying(track) => Some((section.mid.as_str(), track)),
            _ => None,
        })
    }

    /// What to ask the client for, while `waiting` tracks (audio, video) have no section: missing
    /// sections, or 0 and 0 for just another offer; `None` when there is nothing to ask, or the
    /// answer to an earlier question is still awaited.
    ///
    /// Never more than fit into `sections_max`: an offer above that would be refused.
    pub fn ask(
        &mut self,
        waiting: [u32; 2],
        sections_max: usize,
        now: Instant,
    ) -> Option<[u32; 2]> {
        if !self.offered {
            return None;
        }
        if self
            .asked
            .is_some_and(|at| now.saturating_duration_since(at) >= Self::ASK_AGAIN)
        {
            self.asked = None;
            self.requested = [0, 0];
        }
        let mut missing = [0, 0];
        let mut useful = self
            .list
            .iter()
            .any(|section| section.usage == Usage::Closing);
        for kind in [Kind::Audio, Kind::Video] {
            let usable = self
                .list
                .iter()
                .filter(|section| section.kind == kind)
                .filter(|section| matches!(section.usage, Usage::Free | Usage::Closing))
                .count() as u32;
            let at = kind as usize;
            // One section is the data channel's.
            let room = sections_max.saturating_sub(self.list.len() + 1) as u32;
            let room = room.saturating_sub(self.requested[0] + self.requested[1]);
            let wanted = waiting[at].saturating_sub(usable + self.requested[at]);
            missing[at] = wanted.min(room);
            self.requested[at] += missing[at];
            useful |= waiting[at].min(usable) > 0;
        }
        if missing == [0, 0] && (self.asked.is_some() || !useful) {
            return None;
        }
        self.asked = Some(now);
        Some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(sections: &[(&str, &str, &str)]) -> String {
        let mut text = String::from("v=0\r\n");
        for (mid, kind, flow) in sections {
            text.push_str(&format!("m={kind} 9 X 0\r\na=mid:{mid}\r\na={flow}\r\n"));
        }
        text
    }

    fn offered(sections: &mut Sections, list: &[(&str, &str, &str)]) -> Lost {
        let text = offer(list);
        sections.offered(&Offer::parse(&text, 10_000, 100).expect("an offer"))
    }

    const A: TrackKey = TrackKey(1);
    const B: TrackKey = TrackKey(2);

    #[test]
    fn a_deficit_is_asked_for_exactly_once() {
        let now = Instant::now();
        let mut sections = Sections::default();
        offered(
            &mut sections,
            &[("0", "audio", "recvonly"), ("1", "video", "recvonly")],
        );
        assert_eq!(sections.ask([0, 0], 64, now), None);
        assert_eq!(sections.ask([2, 1], 64, now), Some([1, 0]));
        assert_eq!(sections.ask([2, 1], 64, now), None);
        assert_eq!(
            sections.ask([2, 2], 64, now),
            Some([0, 1]),
            "a new need is asked for by itself"
        );
        // An offer that was under way already doesn't make it ask twice.
        offered(
            &mut sections,
            &[("0", "audio", "recvonly"), ("1", "video", "recvonly")],
        );
        assert_eq!(sections.take(Kind::Audio, A), Some("0"));
        assert_eq!(sections.take(Kind::Video, B), Some("1"));
        sections.answered();
        assert_eq!(
            sections.ask([1, 1], 64, now),
            None,
            "two are still on their way"
        );
        let more = [
            ("0", "audio", "recvonly"),
            ("1", "video", "recvonly"),
            ("2", "audio", "recvonly"),
            ("3", "video", "recvonly"),
        ];
        offered(&mut sections, &more);
        assert_eq!(
            sections.ask([1, 1], 64, now),
            Some([0, 0]),
            "one of each is free"
        );
    }

    #[test]
    fn a_released_section_goes_quiet_once_before_it_is_used_again() {
        let now = Instant::now();
        let mut sections = Sections::default();
        let list = [("0", "audio", "recvonly")];
        offered(&mut sections, &list);
        assert_eq!(sections.take(Kind::Audio, A), Some("0"));
        sections.answered();
        sections.release(A);
        assert_eq!(sections.take(Kind::Audio, B), None);
        assert_eq!(sections.ask([1, 0], 64, now), Some([0, 0]));
        offered(&mut sections, &list);
        assert_eq!(
            sections.take(Kind::Audio, B),
            None,
            "this answer says inactive"
        );
        sections.answered();
        assert_eq!(sections.ask([1, 0], 64, now), Some([0, 0]));
        offered(&mut sections, &list);
        assert_eq!(sections.take(Kind::Audio, B), Some("0"));
    }

    #[test]
    fn after_a_lost_answer_a_used_section_goes_quiet_again() {
        let mut sections = Sections::default();
        let list = [("0", "audio", "recvonly"), ("1", "audio", "recvonly")];
        offered(&mut sections, &list);
        assert_eq!(sections.take(Kind::Audio, A), Some("0"));
        sections.answered();
        sections.release(A);
        offered(&mut sections, &list);
        sections.answered();
        sections.resumed();
        assert_eq!(
            sections.take(Kind::Audio, B),
            Some("1"),
            "0 may still carry A there"
        );
        assert_eq!(sections.take(Kind::Audio, A), None);
        offered(&mut sections, &list);
        sections.answered();
        assert_eq!(sections.take(Kind::Audio, A), Some("0"));
    }

    #[test]
    fn an_offer_can_end_what_was_sent_either_way() {
        let mut sections = Sections::default();
        offered(
            &mut sections,
            &[("0", "audio", "recvonly"), ("1", "video", "sendonly")],
        );
        sections.take(Kind::Audio, A);
        let of = EncodingKey {
            track: B,
            number: 0,
        };
        assert!(sections.claim("1", of).is_some());
        let again = [("0", "audio", "recvonly"), ("1", "video", "sendonly")];
        assert_eq!(offered(&mut sections, &again), Lost::default());
        let lost = offered(
            &mut sections,
            &[("0", "audio", "inactive"), ("1", "video", "recvonly")],
        );
        assert_eq!(
            lost,
            Lost {
                published: vec![of],
                carried: vec![A]
            }
        );
    }

    #[test]
    fn a_client_that_never_answers_is_asked_again() {
        let now = Instant::now();
        let mut sections = Sections::default();
        assert_eq!(
            sections.ask([1, 0], 64, now),
            None,
            "its first offer comes by itself"
        );
        offered(&mut sections, &[("0", "application", "sendrecv")]);
        assert_eq!(sections.ask([1, 0], 64, now), Some([1, 0]));
        assert_eq!(sections.ask([1, 0], 64, now + Duration::from_secs(1)), None);
        assert_eq!(
            sections.ask([1, 0], 64, now + Duration::from_secs(6)),
            Some([1, 0])
        );
    }
}

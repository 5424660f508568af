//! How good somebody's connection is, for people to see.
//!
//! Scored like telephony does it (the E-model, ITU-T G.107): a perfect connection has a rating,
//! every fault takes something off it, and a curve turns the rest into what people would say. The
//! worse of both directions counts. Silence is no fault: microphones sleep, pages pause what they
//! send, and nothing of that is a bad connection.

use std::time::{Duration, Instant};

use super::message::{Kind, Notice, ParticipantState};
use super::participant::Participant;
use super::room::Room;
use super::rtcp::ReportBlock;
use super::shard::Core;
use super::track::clock_rate;
use crate::ids::ParticipantSid;
use crate::units::Bitrate;

/// What is said of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ConnectionQuality {
    Lost,
    Poor,
    Good,
    Excellent,
}

/// The quality of somebody's connection.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityUpdate {
    /// Whose.
    pub participant: ParticipantSid,
    /// In a word.
    pub quality: ConnectionQuality,
    /// 1 to 4.5, as people would rate it; 0 for a lost connection.
    pub score: f32,
}

/// How often a room looks, and over which time faults are counted.
const INTERVAL: Duration = Duration::from_secs(5);

/// Nothing authentic came for this long, neither media nor reports nor checks, of which browsers
/// send one every 2.5 s at least: whoever publishes is gone.
const SILENT: Duration = Duration::from_secs(7);

/// Loss isn't judged from fewer packets.
const PACKETS_MIN: u64 = 20;

/// What a connection does to media in one interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// Part of the packets that didn't arrive, 0 to 1.
    pub loss: f64,
    /// Round trip.
    pub round_trip: Duration,
    /// Of arrivals (RFC 3550).
    pub jitter: Duration,
    /// Part of the wanted video that bandwidth allows, 0 to 1.
    pub share: f64,
}

impl Faults {
    /// How people would rate the connection, 1 to 4.5.
    pub fn score(&self) -> f32 {
        // A jitter buffer holds about twice the jitter; coding and playing take the rest.
        let mouth_to_ear = self.round_trip / 2 + 2 * self.jitter + Duration::from_millis(40);
        let delay = mouth_to_ear.as_secs_f64() * 1000.0;
        // People begin to talk over each other at 177 ms.
        let slow = 0.024 * delay + 0.11 * (delay - 177.3).max(0.0);
        // Opus conceals well: at 20 % loss half of what there is is lost.
        let percent = self.loss.clamp(0.0, 1.0) * 100.0;
        let broken = 95.0 * percent / (percent + 20.0);
        let small = 50.0 * (1.0 - self.share.clamp(0.0, 1.0));
        let rating = (93.2 - slow - broken - small).clamp(0.0, 100.0);
        let curve = rating * (rating - 60.0) * (100.0 - rating) * 7e-6;
        (1.0 + 0.035 * rating + curve).clamp(1.0, 4.5) as f32
    }
}

impl ConnectionQuality {
    /// The same for a score that there may be none of.
    pub fn rated(score: Option<f32>) -> Self {
        score.map_or(Self::Lost, Self::of)
    }

    /// A score in a word. The bounds are the E-model's: "satisfied", "many dissatisfied".
    pub fn of(score: f32) -> Self {
        match score {
            4.0.. => Self::Excellent,
            3.1.. => Self::Good,
            _ => Self::Poor,
        }
    }
}

/// What is counted of a participant's connection between two looks.
#[derive(Debug)]
pub struct Link {
    /// Our streams as the client last reported on them.
    receptions: Vec<Reception>,
    /// Packets down: sent, and lost on the way, which may be a few less than none while some are
    /// under way.
    down: (u64, i64),
    /// The worst jitter of any audio stream.
    jitter: Duration,
    /// Part of the wanted video that bandwidth allows.
    pub share: f64,
}

#[derive(Debug)]
struct Reception {
    ssrc: u32,
    seq_max: u32,
    lost: i32,
    sent: u32,
}

/// Streams remembered to be reported on; when there are more all are forgotten.
const RECEPTIONS_MAX: usize = 512;

/// More packets between two looks are a stream that began anew.
const PACKETS_MAX: u64 = 100_000;

impl Default for Link {
    fn default() -> Self {
        Self {
            receptions: Vec::new(),
            down: (0, 0),
            jitter: Duration::ZERO,
            share: 1.0,
        }
    }
}

impl Link {
    /// The client reports on one of our streams, of which `sent` packets have left so far.
    ///
    /// What it reports as lost isn't taken at its word: numbers that were lost on the way up are
    /// missing to it as well.
    pub fn report(&mut self, block: &ReportBlock, kind: Kind, sent: u32) {
        let now = Reception {
            ssrc: *block.ssrc,
            seq_max: block.seq_max,
            lost: block.lost,
            sent,
        };
        let Some(before) = self.receptions.iter_mut().find(|one| one.ssrc == now.ssrc) else {
            if self.receptions.len() == RECEPTIONS_MAX {
                self.receptions.clear();
            }
            return self.receptions.push(now);
        };
        let span = u64::from(now.seq_max.wrapping_sub(before.seq_max));
        let came = span as i64 - (i64::from(now.lost) - i64::from(before.lost));
        let sent = u64::from(now.sent.wrapping_sub(before.sent));
        *before = now;
        if span < PACKETS_MAX && sent < PACKETS_MAX {
            self.down.0 += sent;
            self.down.1 += sent as i64 - came;
        }
        if kind == Kind::Audio && span > 0 {
            self.jitter(Duration::from_secs(1) * block.jitter / clock_rate(kind));
        }
    }

    /// Notes the jitter of an audio stream. That of video tells more about the encoder, which
    /// sends large frames in several turns: Chromium's simulcast shows 180 ms on loopback.
    pub fn jitter(&mut self, jitter: Duration) {
        self.jitter = self.jitter.max(jitter.min(Duration::from_secs(1)));
    }

    /// Notes what bandwidth allows of the video that is wanted.
    pub fn allows(&mut self, granted: Bitrate, wanted: Bitrate) {
        self.share = match wanted {
            Bitrate::ZERO => 1.0,
            _ => granted.as_bps() as f64 / wanted.as_bps() as f64,
        };
    }

    /// All faults since the last look; `up` are packets up, expected and lost.
    fn take(&mut self, up: (u64, u64), round_trip: Option<Duration>) -> Faults {
        let loss = |(expected, lost): (u64, u64)| match expected {
            0..PACKETS_MIN => 0.0,
            _ => lost as f64 / expected as f64,
        };
        let (sent, lost) = std::mem::take(&mut self.down);
        let lost = lost.clamp(0, sent as i64) as u64;
        Faults {
            loss: loss(up).max(loss((sent, lost))),
            round_trip: round_trip.unwrap_or_default(),
            jitter: std::mem::take(&mut self.jitter),
            share: self.share,
        }
    }
}

/// Counts packets of a publisher's stream.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Since the last look.
    packets: u64,
    /// The highest number, and what it was at the last look.
    newest: u64,
    before: Option<u64>,
}

impl Arrivals {
    /// A packet came.
    pub fn count(&mut self, seq: u64) {
        self.packets += 1;
        self.newest = self.newest.max(seq);
        self.before.get_or_insert(seq.saturating_sub(1));
    }

    /// Whether a packet follows all that came before.
    pub fn is_newest(&self, seq: u64) -> bool {
        self.before.is_none() || seq > self.newest
    }

    /// Packets expected since the last look, and lost.
    fn take(&mut self) -> (u64, u64) {
        let Some(before) = self.before else {
            return (0, 0);
        };
        let expected = self.newest.saturating_sub(before);
        let lost = expected.saturating_sub(std::mem::take(&mut self.packets));
        self.before = Some(self.newest);
        if expected < PACKETS_MAX {
            (expected, lost)
        } else {
            (0, 0)
        }
    }
}

impl Room {
    /// Tells everybody what changed about the connections of itself and of those whose tracks it
    /// has, when it is time.
    pub fn tell_quality(&mut self, core: &mut Core, now: Instant) {
        if now < self.quality_due {
            return;
        }
        self.quality_due = now + INTERVAL;
        let slots: Vec<_> = self.participants.iter().map(|(slot, _)| slot).collect();
        let mut qualities = Vec::with_capacity(slots.len());
        for slot in slots {
            if self.participants[slot].state != ParticipantState::Active {
                continue;
            }
            let score = self.score(slot as u32, now);
            qualities.push((slot as u32, self.participants[slot].sid.clone(), score));
        }
        self.pass_qualities(core, &qualities);
        qualities.extend(self.remote_sids().filter_map(|(number, sid, remote)| {
            let score = remote.quality?;
            Some((number, sid.clone(), score))
        }));
        let pairs = self.audience(qualities.iter().map(|(slot, ..)| *slot));
        let mut rest = pairs.as_slice();
        for (slot, participant) in &mut self.participants {
            let told = |pair: &&(u32, u32)| pair.0 == slot as u32;
            let (own, after) = rest.split_at(rest.iter().take_while(told).count());
            rest = after;
            let known = own.iter().map(|(_, place)| {
                let (slot, sid, score) = &qualities[*place as usize];
                (*slot, sid, ConnectionQuality::rated(*score))
            });
            let mut updates = Vec::new();
            participant.qualities.update(known, |participant, quality| {
                let found = qualities.iter().find(|(_, sid, _)| *sid == participant);
                if let (Some(quality), Some((.., score))) = (quality, found) {
                    updates.push(QualityUpdate {
                        participant,
                        quality,
                        score: score.unwrap_or(0.0),
                    });
                }
            });
            if !updates.is_empty() {
                core.notify(participant.session, Notice::Qualities(updates));
            }
        }
    }

    /// Rates a connection since the last look; `None` when it is lost.
    fn score(&mut self, slot: u32, now: Instant) -> Option<f32> {
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let participant = &mut participants[slot as usize];
        let mut up = (0, 0);
        let mut sends = false;
        for key in &participant.published {
            let track = &mut tracks[key.0 as usize];
            sends |= !track.info.announced.muted;
            let encodings = track.encodings.iter_mut();
            for stream in encodings.flat_map(|it| &mut it.streams) {
                let (expected, lost) = stream.arrivals.take();
                up = (up.0 + expected, up.1 + lost);
            }
        }
        let round_trip = participant.leg.estimator().rtt();
        let faults = participant.link.take(up, round_trip);
        tracing::debug!(participant = ?participant.sid, ?faults, "connection rated");
        (!sends || !participant.is_silent(now)).then(|| faults.score())
    }
}

impl Participant {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= SILENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConnectionQuality::{Excellent, Good, Poor};

    const PERFECT: Faults = Faults {
        loss: 0.0,
        round_trip: Duration::ZERO,
        jitter: Duration::ZERO,
        share: 1.0,
    };

    #[test]
    fn scores() {
        let ms = Duration::from_millis;
        let loss = |loss| Faults { loss, ..PERFECT };
        let round_trip = |round_trip| Faults {
            round_trip,
            ..PERFECT
        };
        let jitter = |jitter| Faults { jitter, ..PERFECT };
        let share = |share| Faults { share, ..PERFECT };
        let cases = [
            ("nothing wrong", PERFECT, Excellent, 4.3..4.5),
            (
                "one packet of fifty is lost",
                loss(0.02),
                Excellent,
                4.0..4.3,
            ),
            ("one of twenty", loss(0.05), Good, 3.6..4.0),
            ("one of ten", loss(0.1), Good, 3.1..3.4),
            ("one of five", loss(0.2), Poor, 1.0..2.6),
            ("all of them", loss(1.0), Poor, 1.0..1.1),
            ("a continent away", round_trip(ms(150)), Excellent, 4.2..4.4),
            ("a satellite", round_trip(ms(600)), Good, 3.1..4.0),
            ("over a second", round_trip(ms(1200)), Poor, 1.0..3.1),
            (
                "jitter of wireless networks",
                jitter(ms(20)),
                Excellent,
                4.2..4.4,
            ),
            ("jitter of bad ones", jitter(ms(150)), Good, 3.1..4.0),
            ("most of the video", share(0.9), Excellent, 4.0..4.4),
            ("a third of the video", share(0.33), Poor, 2.5..3.1),
            ("half of the video", share(0.5), Good, 3.1..3.8),
        ];
        for (sentence, faults, quality, range) in cases {
            let score = faults.score();
            assert!(range.contains(&score), "{sentence}: {score}");
            assert_eq!(ConnectionQuality::of(score), quality, "{sentence}: {score}");
        }
    }

    #[test]
    fn packets_up_are_counted_between_looks() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.take(), (0, 0));
        (100..200)
            .filter(|seq| seq % 10 != 5)
            .for_each(|seq| arrivals.count(seq));
        assert_eq!(arrivals.take(), (100, 10));
        assert_eq!(arrivals.take(), (0, 0), "silence is no loss");
        // One that was lost comes after all.
        for seq in [195, 200, 201] {
            arrivals.count(seq);
        }
        assert_eq!(arrivals.take(), (2, 0));
        arrivals.count(10_000_000);
        assert_eq!(arrivals.take(), (0, 0), "a stream that began anew");
    }

    #[test]
    fn reports_of_a_client_are_summed_over_streams() {
        let block = |ssrc: u32, seq_max, lost| ReportBlock {
            ssrc: ssrc.into(),
            fraction_lost: 0,
            lost,
            seq_max,
            jitter: 480,
            last_report: 0,
            delay: 0,
        };
        let mut link = Link::default();
        link.report(&block(1, 1000, 50), Kind::Audio, 970);
        link.report(&block(2, 65_530, 0), Kind::Video, 65_530);
        let faults = link.take((0, 0), None);
        assert_eq!(
            faults.loss, 0.0,
            "the first report tells only where it begins"
        );
        link.report(&block(2, 65_630, 0), Kind::Video, 65_630);
        assert_eq!(link.take((0, 0), None).jitter, Duration::ZERO);
        link.report(&block(1, 1100, 60), Kind::Audio, 1070);
        link.report(&block(2, 65_730, 0), Kind::Video, 65_730);
        let faults = link.take((0, 0), None);
        assert_eq!(
            (faults.loss, faults.jitter),
            (0.05, Duration::from_millis(10))
        );
        link.report(&block(1, 1200, 90), Kind::Audio, 1140);
        assert_eq!(
            link.take((0, 0), None).loss,
            0.0,
            "30 were lost on the way up already"
        );
        link.report(&block(2, 65_820, 0), Kind::Video, 65_830);
        link.report(&block(2, 65_930, 0), Kind::Video, 65_930);
        assert_eq!(link.take((0, 0), None).loss, 0.0, "ten were under way");
        link.report(&block(2, 66_030, 10), Kind::Video, 66_030);
        assert_eq!(
            link.take((100, 20), None).loss,
            0.2,
            "the worse direction counts"
        );
        link.report(&block(2, 66_040, 20), Kind::Video, 66_040);
        assert_eq!(link.take((0, 0), None).loss, 0.0, "too few to tell");
    }

    #[test]
    fn what_bandwidth_allows_of_nothing_is_all() {
        let mut link = Link::default();
        link.allows(Bitrate::kbps(500), Bitrate::kbps(1000));
        assert_eq!(link.share, 0.5);
        link.allows(Bitrate::ZERO, Bitrate::ZERO);
        assert_eq!(link.share, 1.0);
    }
}

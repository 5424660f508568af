//! Who speaks, by the audio levels that senders write into packet headers (RFC 6464). They stand
//! outside of what end-to-end encryption covers, so it works for encrypted calls as well.
//!
//! A [`Detector`] per track hears each packet: a few integer operations. Every 400 ms of RTP time
//! it judges the window; every 400 ms of real time the room looks at all of them and tells each
//! client what changed about itself and those it is subscribed to.

use std::time::{Duration, Instant};

use super::TrackKey;
use super::message::Notice;
use super::room::Room;
use super::shard::Core;
use crate::ids::ParticipantSid;

/// How loud somebody speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Who.
    pub participant: ParticipantSid,
    /// In eighths of full scale, rounded up; 0 for one who has stopped.
    pub level: u8,
}

/// Whose turn it is to speak.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn {
    /// When somebody was last seen to speak.
    pub spoke: Option<Instant>,
    /// Nobody else has taken the floor since.
    pub has_floor: bool,
}

/// Who has the floor: not whoever is loudest at the moment, since pictures follow it.
#[derive(Debug, Default)]
pub struct Floor {
    holder: Option<u32>,
    /// Who is about to take it, and since when.
    next: Option<(u32, Instant)>,
}

/// Somebody takes the floor who speaks for this long while its holder is silent.
const TAKES_FLOOR: Duration = Duration::from_millis(1000);

impl Floor {
    /// Somebody has gone.
    pub fn forget(&mut self, who: u32) {
        if self.holder == Some(who) {
            *self = Self::default();
        }
    }

    /// Who speaks now and how loudly; whether somebody else has the floor now.
    fn follow(&mut self, speakers: impl Iterator<Item = (u32, u8)> + Clone, now: Instant) -> bool {
        if speakers.clone().any(|(who, _)| Some(who) == self.holder) {
            self.next = None;
            return false;
        }
        let loudest = speakers.max_by_key(|(_, level)| *level);
        let Some((who, _)) = loudest else {
            self.next = None;
            return false;
        };
        match self.next {
            Some((next, since)) if next == who => {
                let takes = now.saturating_duration_since(since) >= TAKES_FLOOR;
                if takes {
                    (self.holder, self.next) = (Some(who), None);
                }
                takes
            }
            _ if self.holder.is_none() => {
                self.holder = Some(who);
                true
            }
            _ => {
                self.next = Some((who, now));
                false
            }
        }
    }
}

/// How often a room looks, and how long a window is.
const INTERVAL: Duration = Duration::from_millis(400);

/// A window in RTP time: the clock of Opus runs at 48 kHz, whatever is coded (RFC 7587).
const WINDOW: u32 = 48_000 / 1000 * INTERVAL.as_millis() as u32;

/// The quietest level that counts as speech, in -dBov.
const ACTIVE: u8 = 35;

/// Part of a window that has to be active, in percent: a door that slams is no speech.
const ACTIVE_PERCENT: u32 = 40;

/// A packet covers at most this much RTP time: the 120 ms of Opus (RFC 6716, 2.1.4). What lies
/// before is a gap of discontinuous transmission or loss, and silence.
const PACKET_MAX: u32 = 48_000 / 1000 * 120;

/// -dBov of silence, and what a window without an active packet has as its loudest.
const SILENT: u8 = 127;

/// An exponential average over two windows: 2 / (2 + 1).
const SMOOTHING: f32 = 2.0 / 3.0;

/// Listens to one audio track.
#[derive(Debug, Default)]
pub struct Detector {
    /// RTP timestamp of the newest packet, and when it came.
    newest: Option<(u32, Instant)>,
    window: Window,
    /// Smoothed, 0 to 1.
    level: f32,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    /// RTP time covered.
    covered: u32,
    /// RTP time of that with speech.
    active: u32,
    /// The loudest, in -dBov.
    loudest: u8,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            covered: 0,
            active: 0,
            loudest: SILENT,
        }
    }
}

impl Detector {
    /// Hears a packet: its level in -dBov and its RTP timestamp.
    pub fn hear(&mut self, level: u8, timestamp: u32, now: Instant) {
        let span = match self.newest {
            Some((newest, _)) => timestamp.wrapping_sub(newest),
            None => 0,
        };
        if span > u32::MAX / 2 {
            return; // Late, or sent again.
        }
        self.newest = Some((timestamp, now));
        let packet = span.min(PACKET_MAX);
        self.cover(SILENT, (span - packet).min(WINDOW));
        self.cover(level, packet);
    }

    fn cover(&mut self, level: u8, span: u32) {
        let window = &mut self.window;
        window.covered += span;
        if level <= ACTIVE {
            window.active += span;
            window.loudest = window.loudest.min(level);
        }
        if window.covered >= WINDOW {
            let window = std::mem::take(window);
            let active = window.active * 100 >= window.covered * ACTIVE_PERCENT;
            self.level = match active {
                true => self.level + (window.loudness() - self.level) * SMOOTHING,
                false => 0.0,
            };
        }
    }

    /// How loud it is now, in eighths of full scale, rounded up; 0 without speech.
    pub fn eighths(&self, now: Instant) -> u8 {
        let fresh = self
            .newest
            .is_some_and(|(_, at)| now.saturating_duration_since(at) < 2 * INTERVAL);
        if !fresh || self.level < linear(ACTIVE) {
            return 0;
        }
        (self.level * 8.0).ceil().clamp(1.0, 8.0) as u8
    }
}

impl Window {
    /// The loudest level, 0 to 1, less what of the window was not active: adding
    /// 20 * log10(active / covered) to decibels is a product here.
    fn loudness(self) -> f32 {
        linear(self.loudest) * self.active as f32 / self.covered.max(1) as f32
    }
}

/// -dBov as a part of full scale.
fn linear(level: u8) -> f32 {
    10f32.powf(-f32::from(level) / 20.0)
}

impl Room {
    /// Notes on the tracks of those who speak that they do, and who has the floor.
    fn give_floor(&mut self, speakers: &[(u32, ParticipantSid, u8)], now: Instant) {
        let levels = speakers.iter().map(|(who, _, level)| (*who, *level));
        if self.floor.follow(levels, now) {
            for (_, track) in &mut self.tracks {
                track.turn.has_floor = false;
            }
        }
        for (who, ..) in speakers {
            let has_floor = self.floor.holder == Some(*who);
            for key in self.published_by(*who).to_vec() {
                self[key].turn = Turn {
                    spoke: Some(now),
                    has_floor,
                };
            }
        }
    }

    /// Tells everybody what changed about who speaks, when it is time.
    pub fn tell_speakers(&mut self, core: &mut Core, now: Instant) {
        if now < self.speakers_due {
            return;
        }
        self.speakers_due = now + INTERVAL;
        let level = |published: &[TrackKey], simulated: u8| {
            let heard = published.iter().map(|key| &self[*key]);
            let heard = heard.filter(|track| !track.info.announced.muted);
            let levels = heard.map(|track| track.speech.eighths(now));
            levels.fold(simulated, u8::max)
        };
        let here = self.participants.iter().map(|(slot, who)| {
            let level = level(&who.published, who.simulated.level(now));
            (slot as u32, who.sid.clone(), level)
        });
        let beyond = self.remote_sids().map(|(number, sid, who)| {
            let level = level(&who.published, who.simulated.level(now));
            (number, sid.clone(), level)
        });
        let speakers = here.chain(beyond).filter(|(.., level)| *level > 0);
        let speakers: Vec<(u32, ParticipantSid, u8)> = speakers.collect();
        self.give_floor(&speakers, now);
        let pairs = self.audience(speakers.iter().map(|(slot, ..)| *slot));
        let mut rest = pairs.as_slice();
        for (slot, participant) in &mut self.participants {
            let told = |pair: &&(u32, u32)| pair.0 == slot as u32;
            let (own, after) = rest.split_at(rest.iter().take_while(told).count());
            rest = after;
            if own.is_empty() && participant.speakers.is_empty() {
                continue;
            }
            let heard = own.iter().map(|(_, place)| {
                let (slot, sid, level) = &speakers[*place as usize];
                (*slot, sid, *level)
            });
            let mut changes = Vec::new();
            participant.speakers.update(heard, |participant, level| {
                changes.push(Speaker {
                    participant,
                    level: level.unwrap_or(0),
                });
            });
            if !changes.is_empty() {
                core.notify(participant.session, Notice::Speakers(changes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hears packets of 20 ms with these levels; what is shown at the end, in eighths.
    fn after(levels: impl IntoIterator<Item = u8>) -> u8 {
        let mut detector = Detector::default();
        let start = Instant::now();
        let mut now = start;
        for (at, level) in (0u32..).zip(levels) {
            // The RTP clock wraps on the way.
            let timestamp = (u32::MAX - 5000).wrapping_add(at * 960);
            now = start + Duration::from_millis(20) * at;
            detector.hear(level, timestamp, now);
        }
        detector.eighths(now)
    }

    /// `count` packets of `level`, and one more in front that has no length yet.
    fn packets(level: u8, count: usize) -> Vec<u8> {
        vec![level; count + 1]
    }

    #[test]
    fn windows() {
        let mixed = |active: usize| {
            let mut levels = packets(20, active);
            levels.resize(21, SILENT);
            levels.repeat(4)
        };
        let cases = [
            (
                "nothing is heard before a window is full",
                packets(0, 19),
                0,
            ),
            ("one loud window counts for two thirds", packets(0, 20), 6),
            ("the second comes closer", packets(0, 40), 8),
            ("a usual voice, -20 dBov", packets(20, 60), 1),
            ("a loud one, -10 dBov", packets(10, 100), 3),
            ("a whisper that counts", packets(34, 200), 1),
            ("below that there is silence", packets(36, 200), 0),
            ("silence", packets(SILENT, 100), 0),
            ("two fifths of a window are speech", mixed(9), 1),
            ("less than that is not", mixed(6), 0),
        ];
        for (sentence, levels, eighths) in cases {
            assert_eq!(after(levels), eighths, "{sentence}");
        }
    }

    #[test]
    fn one_silent_window_ends_speech() {
        let mut levels = packets(0, 100);
        levels.extend([SILENT; 19]);
        assert_eq!(after(levels.clone()), 8);
        levels.extend([SILENT; 1]);
        assert_eq!(after(levels), 0);
    }

    #[test]
    fn a_pause_of_the_sender_is_silence_and_a_late_packet_is_nothing() {
        let mut detector = Detector::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for number in 0u32..=40 {
            detector.hear(5, number * 960, at(u64::from(number) * 20));
        }
        let loud = detector.eighths(at(800));
        assert!(loud >= 4, "{loud}");
        detector.hear(SILENT, 960, at(810));
        assert_eq!(detector.eighths(at(810)), loud);
        // Discontinuous transmission: one packet after 400 ms without.
        detector.hear(60, 40 * 960 + WINDOW, at(1200));
        assert_eq!(detector.eighths(at(1200)), 0);
    }

    #[test]
    fn who_sends_nothing_any_more_does_not_speak() {
        let mut detector = Detector::default();
        let start = Instant::now();
        for number in 0u32..=40 {
            detector.hear(5, number * 960, start);
        }
        assert!(detector.eighths(start + Duration::from_millis(799)) > 0);
        assert_eq!(detector.eighths(start + Duration::from_millis(800)), 0);
    }

    #[test]
    fn the_floor_is_taken_from_who_is_silent_and_by_nobody_else() {
        let start = Instant::now();
        let mut floor = Floor::default();
        let mut look = |number: u32, speakers: &[(u32, u8)]| {
            floor.follow(speakers.iter().copied(), start + INTERVAL * number);
            floor.holder
        };
        assert_eq!(look(0, &[]), None);
        assert_eq!(look(1, &[(1, 2), (2, 5)]), Some(2), "the first one at once");
        assert_eq!(look(2, &[(1, 8), (2, 1)]), Some(2));
        assert_eq!(look(3, &[(1, 8)]), Some(2));
        assert_eq!(look(5, &[(1, 8)]), Some(2), "a word between");
        assert_eq!(look(6, &[(1, 8), (2, 1)]), Some(2));
        assert_eq!(look(7, &[(1, 8)]), Some(2));
        assert_eq!(look(10, &[(1, 8), (3, 2)]), Some(1));
        assert_eq!(look(20, &[]), Some(1));
    }
}

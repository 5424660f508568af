//! In a large room only the loudest few are passed on: nobody tells more voices apart, and each
//! costs a packet for every listener fifty times a second.
//!
//! There are a few seats. Who speaks up while one is free takes it with that packet, so that no
//! word loses its beginning; who was silent for a while gives it to the next who speaks. While all
//! of them speak, one who is clearly louder for a moment takes the seat of the quietest. Levels
//! stand in packet headers (RFC 6464), outside of what end-to-end encryption covers; a track
//! without them is always passed on. A participant takes one seat, however much it publishes.
//!
//! What is left out leaves no gap in the numbers, for listeners or other parts of the room.

use std::time::{Duration, Instant};

use super::counters::Dropped;
use super::encoding::EncodingKey;
use super::packet::Layer;
use super::relay::REMOTE;
use super::room::Room;
use super::shard::Core;
use super::track::Publisher;

/// Who was silent for this long gives up the seat: longer than the pauses within a sentence.
const HOLD: Duration = Duration::from_millis(1500);

/// A voice is followed over this, so that a door that slams takes nobody's seat.
const ATTACK: Duration = Duration::from_millis(300);

/// No packet counts for longer.
const PACKET_MAX: Duration = Duration::from_millis(60);

/// Quieter than this is silence, in -dBov: the noise of a room.
const SILENT: u8 = 70;

/// So much louder takes a seat from somebody who speaks, in dB.
const CLEARLY: f32 = 6.0;

/// Numbers so far behind are no late packet, but a source that starts over.
const LATE_MAX: u64 = 512;

/// The seats of a room.
#[derive(Debug, Default)]
pub struct Loudest {
    seats: Vec<Seat>,
}

#[derive(Debug)]
struct Seat {
    /// Whose, by its number in the room.
    who: u32,
    /// Since when, and when it last spoke.
    since: Instant,
    spoke: Instant,
    /// Of its voice, as in [`Voice`].
    level: f32,
}

/// How loud a track is of late, in dB above full silence.
#[derive(Debug, Default)]
pub struct Voice {
    level: f32,
    heard: Option<Instant>,
}

/// The numbers of a stream of which packets may be left out.
#[derive(Debug, Default)]
pub struct Numbers {
    /// The newest number given.
    newest: Option<u64>,
    /// What was left out before it.
    offset: u64,
    /// Of the source: what is below came before something was left out, and is too late.
    floor: u64,
    leaves_out: bool,
}

impl Loudest {
    /// Whether a packet of somebody's sound is passed on, where there are so many seats.
    pub fn admits(
        &mut self,
        who: u32,
        voice: &mut Voice,
        level: u8,
        seats: usize,
        now: Instant,
    ) -> bool {
        voice.hear(level, now);
        let speaks = level < SILENT;
        self.seats.truncate(seats);
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.who == who) {
            // A silent track of somebody who speaks on another says nothing of the voice.
            if speaks {
                (seat.spoke, seat.level) = (now, voice.level);
            }
            return now.saturating_duration_since(seat.spoke) < HOLD;
        }
        if !speaks {
            return false;
        }
        let seat = Seat {
            who,
            since: now,
            spoke: now,
            level: voice.level,
        };
        if self.seats.len() < seats {
            self.seats.push(seat);
            return true;
        }
        let place = self.seats.iter_mut().min_by(|a, b| {
            let order = |seat: &Seat| (seat.speaks(now), seat.level);
            order(a)
                .partial_cmp(&order(b))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let Some(place) = place.filter(|place| place.yields_to(voice, now)) else {
            return false;
        };
        *place = seat;
        true
    }

    /// Somebody has gone.
    pub fn forget(&mut self, who: u32) {
        self.seats.retain(|seat| seat.who != who);
    }
}

impl Seat {
    fn speaks(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.spoke) < HOLD
    }

    fn yields_to(&self, voice: &Voice, now: Instant) -> bool {
        let settled = now.saturating_duration_since(self.since) >= HOLD;
        !self.speaks(now) || settled && voice.level > self.level + CLEARLY
    }
}

impl Voice {
    fn hear(&mut self, level: u8, now: Instant) {
        let passed = self.heard.replace(now);
        let passed = passed.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        // Those who are silent send a packet now and then only.
        let passed = passed.min(PACKET_MAX);
        let weight = (passed.as_secs_f32() / ATTACK.as_secs_f32()).min(1.0);
        self.level += (f32::from(127 - level.min(127)) - self.level) * weight;
    }
}

impl Numbers {
    /// A packet is left out.
    pub fn leave_out(&mut self) {
        self.leaves_out = true;
    }

    /// The number of a packet that is passed on; `None` if it comes too late for one.
    pub fn give(&mut self, seq: u64) -> Option<u64> {
        let newest = match self.newest {
            Some(newest) if seq + LATE_MAX > newest + self.offset => newest,
            _ => {
                *self = Self {
                    newest: Some(seq),
                    ..Self::default()
                };
                return Some(seq);
            }
        };
        let source = newest + self.offset;
        if seq <= source {
            let there = !self.leaves_out && seq >= self.floor;
            return there.then(|| seq - self.offset);
        }
        if std::mem::take(&mut self.leaves_out) {
            self.offset += seq - source - 1;
            self.floor = seq;
        }
        let given = seq - self.offset;
        self.newest = Some(given);
        Some(given)
    }
}

impl Room {
    /// The number under which a packet of sound with this one, and this level, is passed on; or why
    /// it isn't.
    pub fn pass_sound(
        &mut self,
        core: &Core,
        of: EncodingKey,
        layer: Layer,
        (seq, level): (u64, Option<u8>),
        now: Instant,
    ) -> Result<u64, Dropped> {
        let limits = &core.config.limits;
        let large = limits.loudest > 0 && self.census.people() > limits.loudest_above;
        let track = &mut self.tracks[of.track.0 as usize];
        let who = match track.publisher {
            Publisher::Here(slot) => slot,
            Publisher::There(origin) => REMOTE + origin.remote,
        };
        let voice = &mut track.voice;
        let stream = track.encodings[of.number].stream(layer);
        let stream = stream.ok_or(Dropped::TrackUnknown)?;
        if let Some(level) = level.filter(|_| large)
            && !self.loudest.admits(who, voice, level, limits.loudest, now)
        {
            stream.numbers.leave_out();
            return Err(Dropped::NotLoudest);
        }
        stream.numbers.give(seq).ok_or(Dropped::Late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A room with two seats, and its people's voices.
    struct Story {
        loudest: Loudest,
        voices: [Voice; 4],
        now: Instant,
    }

    impl Story {
        fn new() -> Self {
            Self {
                loudest: Loudest::default(),
                voices: Default::default(),
                now: Instant::now(),
            }
        }

        /// Packets of 20 ms with these levels; who was heard in the last of them.
        fn pass(&mut self, millis: u64, levels: [u8; 4]) -> Vec<usize> {
            let mut heard = Vec::new();
            for _ in 0..millis / 20 {
                heard.clear();
                for (at, level) in levels.into_iter().enumerate() {
                    let voice = &mut self.voices[at];
                    if self.loudest.admits(at as u32, voice, level, 2, self.now) {
                        heard.push(at);
                    }
                }
                self.now += Duration::from_millis(20);
            }
            heard
        }
    }

    const QUIET: u8 = 127;

    #[test]
    fn a_free_seat_is_taken_by_the_first_packet_and_kept_over_a_pause() {
        let mut story = Story::new();
        assert_eq!(story.pass(20, [QUIET; 4]), [0; 0]);
        assert_eq!(story.pass(20, [QUIET, QUIET, 40, QUIET]), [2]);
        assert_eq!(story.pass(1400, [QUIET; 4]), [2]);
        assert_eq!(story.pass(200, [QUIET; 4]), [0; 0]);
        assert_eq!(story.pass(20, [50, QUIET, QUIET, 50]), [0, 3]);
    }

    #[test]
    fn who_is_clearly_louder_takes_the_seat_of_the_quietest_who_has_had_it() {
        let mut story = Story::new();
        assert_eq!(story.pass(1000, [30, 40, QUIET, QUIET]), [0, 1]);
        // As loud, or louder for a moment only: no.
        assert_eq!(story.pass(2000, [30, 40, 38, QUIET]), [0, 1]);
        assert_eq!(story.pass(40, [30, 40, QUIET, 0]), [0, 1]);
        assert_eq!(story.pass(1000, [30, 40, QUIET, QUIET]), [0, 1]);
        assert_eq!(story.pass(1000, [30, 40, 20, QUIET]), [0, 2]);
        // The one who lost it doesn't take it back at once.
        assert_eq!(story.pass(1000, [30, 10, 20, QUIET]), [1, 2]);
        assert_eq!(story.pass(200, [0, 10, 20, QUIET]), [1, 2]);
    }

    #[test]
    fn a_silent_track_beside_takes_nothing_from_who_speaks() {
        let mut now = Instant::now();
        let (mut loudest, mut voices) = (Loudest::default(), <[Voice; 3]>::default());
        for _ in 0..200 {
            for (voice, (who, level)) in voices.iter_mut().zip([(0, 30), (0, QUIET), (1, 35)]) {
                let heard = loudest.admits(who, voice, level, 1, now);
                assert_eq!(heard, who == 0);
            }
            now += Duration::from_millis(20);
        }
    }

    #[test]
    fn numbers_close_over_what_is_left_out() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.give(100), Some(100));
        assert_eq!(numbers.give(102), Some(102));
        assert_eq!(numbers.give(101), Some(101), "late, but it was awaited");
        numbers.leave_out();
        assert_eq!(numbers.give(99), None, "late, while nothing is passed on");
        assert_eq!(numbers.give(150), Some(103));
        assert_eq!(numbers.give(149), None, "left out, or as good as");
        assert_eq!(numbers.give(152), Some(105), "what is lost is missed");
        assert_eq!(numbers.give(151), Some(104));
        // A source that starts over.
        assert_eq!(numbers.give(10_000), Some(9953));
        assert_eq!(numbers.give(5), Some(5));
        assert_eq!(numbers.give(6), Some(6));
    }
}

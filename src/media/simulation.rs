//! Faults that a client asks for, to see how it takes them: what public test suites of clients use.
//! Whether anybody may is for signalling to say.

use std::time::{Duration, Instant};

use super::room::Room;
use super::shard::Core;
use crate::units::Bitrate;

/// What is to be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Simulation {
    /// The participant speaks for this long.
    Speech(Duration),
    /// The path to it carries no more than this; `None` for what it does carry.
    Bandwidth(Option<Bitrate>),
    /// Its next resume succeeds, and then its signalling breaks again.
    BreakOff(BreakOff),
}

/// When the signalling of a resume breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakOff {
    /// Before anything was said.
    Silent,
    /// After what is said at first.
    Told,
}

/// What is simulated of a participant.
#[derive(Debug, Default)]
pub struct Simulated {
    speech_end: Option<Instant>,
    /// What becomes of its next resume.
    pub break_off: Option<BreakOff>,
}

/// How loud simulated speech is, in eighths of full scale.
const LOUD: u8 = 7;

impl Simulated {
    /// It speaks until then.
    pub fn speak(&mut self, end: Instant) {
        self.speech_end = Some(end);
    }

    /// How loud it is heard to speak, in eighths of full scale.
    pub fn level(&self, now: Instant) -> u8 {
        match self.speech_end {
            Some(end) if now < end => LOUD,
            _ => 0,
        }
    }
}

impl Room {
    /// Begins to simulate something for a participant.
    pub fn simulate(&mut self, core: &mut Core, slot: u32, what: Simulation, now: Instant) {
        tracing::debug!(?what, "simulated");
        let participant = &mut self.participants[slot as usize];
        match what {
            Simulation::Speech(span) => {
                participant.simulated.speak(now + span);
                let sid = participant.sid.clone();
                self.pass_speech(core, None, &sid, now + span);
            }
            Simulation::BreakOff(when) => participant.simulated.break_off = Some(when),
            Simulation::Bandwidth(limit) => {
                participant.leg.estimator().limit(limit);
                self.adapt(core, slot, now);
            }
        }
    }
}

//! What leaves a leg later than it came, and what it sends of its own: packets that wait in its
//! pacer, and padding that shows what the link carries.

use std::time::{Duration, Instant};

use super::counters::{Counters, Dropped};
use super::egress::Leg;
use super::message::Kind;
use super::pacer::Waiting;
use super::room::Room;
use super::shard::Core;
use super::wire::{PADDING_BYTES, Plan};

/// A leg whose link nothing is known of waits so long for the first hint, before it asks for key
/// frames: a large one would be lost on a small link, and a small one be replaced at once on a
/// large one.
const FIRST_HINT: Duration = Duration::from_millis(120);

/// Padding packets of the first feeler, which leave together: one is enough to be told by.
const FIRST_FEELER: usize = 12;

/// And of later ones, which look whether the link has changed.
const FEELER: usize = 3;

/// Between two of these. On a link of 250 kbit/s they take a twentieth.
const FEELER_INTERVAL: Duration = Duration::from_millis(600);

/// What a leg does to learn what its link carries.
#[derive(Debug, Default)]
pub struct Feeling {
    /// When the last feeler went.
    felt: Option<Instant>,
    /// When padding of a rehearsal last went.
    padded: Option<Instant>,
    /// Until when the first hint is waited for.
    hold: Option<Instant>,
}

impl Leg {
    /// When something is due that no packet and no tick brings about.
    pub fn due(&self) -> Option<Instant> {
        let padding = match self.pacer.is_empty() {
            true => self.wire.estimator.next_padding(self.feeling.padded),
            false => None,
        };
        if padding.is_none() && self.pacer.is_empty() && self.feeling.hold.is_none() {
            // Nearly always; and this is asked for each frame of each subscriber.
            return None;
        }
        let all = [padding, self.pacer.next(), self.feeling.hold];
        all.into_iter().flatten().min()
    }

    /// Whether key frames shouldn't be asked for yet.
    pub fn is_feeling(&self, now: Instant) -> bool {
        self.feeling.hold.is_some_and(|until| now < until) && !self.wire.estimator.has_begun()
    }

    /// Sends what may leave by now: what waited, then padding. Whether the wait for a first hint is
    /// over.
    pub fn pace(&mut self, now: Instant, counters: &mut Counters) -> bool {
        self.pacer.set_rate(self.wire.estimator.pace());
        while let Some(waiting) = self.pacer.pop(now) {
            self.send_waiting(&waiting, now, counters);
        }
        let next = self.wire.estimator.next_padding(self.feeling.padded);
        if self.pacer.is_empty() && next.is_some_and(|next| next <= now) {
            self.feeling.padded = Some(now);
            let bytes = self.wire.estimator.padding(now);
            self.pad((bytes / PADDING_BYTES) as usize, now, counters);
        }
        let over = self.feeling.hold.is_some() && !self.is_feeling(now);
        if over {
            self.feeling.hold = None;
        }
        over
    }

    /// Looks what the link carries: packets that leave together tell by how they arrive. Only if
    /// nothing else tells.
    pub fn feel(&mut self, now: Instant, counters: &mut Counters) {
        let soon = |at: Instant| now.saturating_duration_since(at) < FEELER_INTERVAL;
        let waits = self.feeling.felt.is_some_and(soon) || !self.pacer.is_empty();
        if waits || !self.wire.estimator.lacks_hint(now) {
            return;
        }
        let first = self.feeling.felt.is_none();
        let packets = if first { FIRST_FEELER } else { FEELER };
        if self.pad(packets, now, counters) {
            self.feeling.felt = Some(now);
            if first {
                self.feeling.hold = Some(now + FIRST_HINT);
            }
        }
    }

    /// Sends so many packets of padding; whether there is a stream to send them on.
    fn pad(&mut self, packets: usize, now: Instant, counters: &mut Counters) -> bool {
        let Some(payload_type) = self.codecs.any_rtx() else {
            return false;
        };
        let Some(twcc) = self.codecs.extensions.twcc else {
            return false;
        };
        if !self.is_connected() {
            return false;
        }
        let mut outgoing = self
            .subscriptions
            .iter_mut()
            .filter_map(|(_, it)| it.outgoing.as_mut());
        let stream = outgoing.find_map(|outgoing| {
            let rtx = outgoing.rtx.as_mut().filter(|_| !outgoing.held)?;
            Some((rtx.seal.as_mut()?, &mut rtx.next_seq))
        });
        let Some((seal, next_seq)) = stream else {
            return false;
        };
        for _ in 0..packets {
            let seq = *next_seq;
            *next_seq += 1;
            self.wire
                .pad((payload_type, twcc, seq), seal, now, counters);
        }
        true
    }

    fn send_waiting(&mut self, waiting: &Waiting, now: Instant, counters: &mut Counters) {
        let extensions = self.codecs.extensions;
        let playout = self.wait;
        let (slot, ssrc) = waiting.subscription;
        let subscription = self.subscriptions.get_mut(slot as usize);
        let outgoing = subscription.and_then(|it| it.outgoing.as_mut());
        let outgoing = outgoing.filter(|outgoing| outgoing.ssrc.get() == ssrc);
        let Some(seal) = outgoing.and_then(|outgoing| outgoing.seal.as_mut()) else {
            return counters.drop(Dropped::PeerGone);
        };
        let plan = Plan {
            payload_type: waiting.payload_type,
            twcc: extensions.twcc_of(Kind::Video),
            dependency: extensions.dependency,
            playout,
            front: &[],
            body: 0,
            seq: waiting.stamp.seq,
            stamp: waiting.stamp,
            original: None,
            packet: &waiting.packet,
        };
        self.wire.send(&plan, seal, now, counters);
    }
}

impl Room {
    /// Something is due on a leg between its ticks.
    pub fn pace(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let Some(participant) = self.participants.get_mut(slot as usize) else {
            return;
        };
        let leg = &mut participant.leg;
        leg.borrow(&mut core.spare);
        let over = leg.pace(now, &mut core.counters);
        if leg.has_output(&mut core.spare) {
            core.dirty.mark(self.key, slot, leg);
        }
        if over {
            // Without a hint it goes on with a guess.
            self.adapt(core, slot, now);
        }
    }
}

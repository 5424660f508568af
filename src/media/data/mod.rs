//! Data messages between participants: chat, RPC, streams, whatever clients agree upon.
//!
//! ```text
//!   sender's channel --> may it? new? --> envelope stamped once --> receiver's channel
//!                                                                      |  full, or not open yet
//!                                                                      v
//!                                                           queue (reliable), dropped (lossy)
//! ```
//!
//! SCTP orders, acknowledges and repeats, also across an ICE restart, so nothing here is kept for
//! a receiver whose path breaks for a while. What a sender repeats after a resume is recognised by
//! its number. A receiver that doesn't keep up fills its own queue, and nobody waits for it.

mod envelope;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use envelope::{Cargo, Envelope, Malformed, Sender};

use super::counters::Dropped;
use super::participant::Participant;
use super::room::Room;
use super::shard::Core;

/// The channels that clients open, by their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Ordered, repeated until it arrives.
    Reliable,
    /// Unordered, sent once.
    Lossy,
}

impl Channel {
    /// The channel of that label. `_data_track` is none: there are no data tracks here.
    pub fn of(label: &str) -> Option<Self> {
        match label {
            "_reliable" => Some(Self::Reliable),
            "_lossy" => Some(Self::Lossy),
            _ => None,
        }
    }
}

/// What became of a message that was handed to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// SCTP has it.
    Over,
    /// SCTP has as much as it takes from us.
    Full,
    /// The channel isn't open.
    Closed,
}

/// A participant's side of the exchange.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// The last number of its own reliable messages.
    last_sequence: u32,
    /// Messages taken in the current second, and when it began.
    rate: Option<(Instant, u32)>,
    /// Reliable messages that wait for its channel to open or to drain. Bounded in bytes by
    /// [`super::Limits::data_queue_bytes`]; what doesn't fit is [`Dropped::DataQueueFull`].
    queue: VecDeque<Arc<[u8]>>,
    queued_bytes: usize,
    /// It never opened a channel, and nothing is kept for it any more.
    absent: bool,
}

/// Clients open their channels with their first connection. Who hasn't by then speaks no data.
const OPENING: Duration = Duration::from_secs(60);

/// Largest message taken: what the read buffers of LiveKit's clients hold. Stamped it has its
/// receivers twice more, so an empty channel always takes it.
pub const MESSAGE_BYTES_MAX: usize = 65_535;

impl Mailbox {
    /// The last number of its own reliable messages, for a client that resumes: it sends again
    /// what came after.
    pub fn last_sequence(&self) -> u32 {
        self.last_sequence
    }

    /// Whether one more message is within the rate.
    fn admits(&mut self, now: Instant, per_second: u32) -> bool {
        let (since, count) = self.rate.get_or_insert((now, 0));
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= per_second
    }

    fn is_repeated(&mut self, sequence: u32) -> bool {
        if sequence != 0 && sequence <= self.last_sequence {
            return true;
        }
        self.last_sequence = self.last_sequence.max(sequence);
        false
    }

    fn queue(&mut self, message: &Arc<[u8]>, bytes_max: usize) -> bool {
        let bytes = self.queued_bytes + message.len();
        let fits = bytes <= bytes_max;
        if fits {
            self.queued_bytes = bytes;
            self.queue.push_back(Arc::clone(message));
        }
        fits
    }

    fn give_up(&mut self) {
        self.absent = true;
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
    }
}

impl Room {
    /// A message came from `slot`.
    pub fn data(
        &mut self,
        core: &mut Core,
        slot: u32,
        channel: Channel,
        bytes: &[u8],
        now: Instant,
    ) {
        self.participants[slot as usize].heard = now;
        core.counters.data_in += 1;
        core.counters.data_bytes_in += bytes.len() as u64;
        match self.stamp(core, slot, channel, bytes, now) {
            Ok((message, envelope)) => {
                self.pass_data(core, channel, &message);
                self.deliver(core, Some(slot), channel, (&message, &envelope), now);
            }
            Err(reason) => core.counters.drop(reason),
        }
    }

    /// Sends a message to all whom it is for, but not to its sender.
    pub(super) fn deliver(
        &mut self,
        core: &mut Core,
        sender: Option<u32>,
        channel: Channel,
        (message, envelope): (&Arc<[u8]>, &Envelope<'_>),
        now: Instant,
    ) {
        let wanted = |slot: u32, who: &Participant| {
            Some(slot) != sender && envelope.is_for(who.sid.as_str(), who.identity.as_str())
        };
        let others = self.participants.iter();
        let others = others.filter(|(slot, who)| wanted(*slot as u32, who));
        for other in others.map(|(slot, _)| slot as u32).collect::<Vec<_>>() {
            self.send_data(core, other, channel, message, now);
        }
    }

    /// Whether a message may go on, and what it looks like then.
    fn stamp<'a>(
        &mut self,
        core: &Core,
        slot: u32,
        channel: Channel,
        bytes: &'a [u8],
        now: Instant,
    ) -> Result<(Arc<[u8]>, Envelope<'a>), Dropped> {
        let participant = &mut self.participants[slot as usize];
        if !participant.permissions.publish_data {
            return Err(Dropped::DataNotAllowed);
        }
        let per_second = core.config.limits.data_messages_per_second;
        if !participant.mailbox.admits(now, per_second) {
            return Err(Dropped::DataRate);
        }
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(Dropped::DataMalformed);
        }
        let malformed = |Malformed| Dropped::DataMalformed;
        let envelope = Envelope::read(bytes).map_err(malformed)?;
        if channel == Channel::Reliable && participant.mailbox.is_repeated(envelope.sequence) {
            return Err(Dropped::DataRepeated);
        }
        if envelope.cargo != Cargo::Mail {
            return Err(Dropped::DataPrivate);
        }
        let hidden = participant.permissions.hidden;
        let message = envelope.stamped(Sender {
            sid: if hidden { "" } else { participant.sid.as_str() },
            identity: if hidden {
                ""
            } else {
                participant.identity.as_str()
            },
            lossy: channel == Channel::Lossy,
        });
        Ok((message.map_err(malformed)?, envelope))
    }

    /// Sends a message to `slot`.
    pub fn send_data(
        &mut self,
        core: &mut Core,
        slot: u32,
        channel: Channel,
        message: &Arc<[u8]>,
        now: Instant,
    ) {
        let participant = &mut self.participants[slot as usize];
        let handed = match channel {
            // Nothing overtakes what waits.
            Channel::Reliable if !participant.mailbox.queue.is_empty() => Handed::Full,
            _ => participant.primary_peer().hand_over(channel, message),
        };
        let reason = match (handed, channel) {
            (Handed::Over, _) => {
                core.counters.data_out += 1;
                core.counters.data_bytes_out += message.len() as u64;
                // Wakes the peer within this turn, which sends it.
                participant.wake_primary(now);
                return self.arm(core, slot);
            }
            (Handed::Closed, Channel::Lossy) => Dropped::DataNoChannel,
            (Handed::Closed, Channel::Reliable) if participant.mailbox.absent => {
                Dropped::DataNoChannel
            }
            (Handed::Full, Channel::Lossy) => Dropped::DataQueueFull,
            (_, Channel::Reliable) => {
                let bytes_max = core.config.limits.data_queue_bytes;
                if participant.mailbox.queue(message, bytes_max) {
                    return;
                }
                Dropped::DataQueueFull
            }
        };
        core.counters.drop(reason);
    }

    /// A channel of `slot` has opened.
    pub fn channel_open(&mut self, core: &mut Core, slot: u32, channel: Channel, now: Instant) {
        if channel == Channel::Reliable {
            self.participants[slot as usize].mailbox.absent = false;
            self.flush_data(core, slot, now);
        }
    }

    /// Sends `slot` what waits for it, as far as its channel takes it.
    pub fn flush_data(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        let mut sent = false;
        while let Some(message) = participant.mailbox.queue.front().cloned() {
            match participant
                .primary_peer()
                .hand_over(Channel::Reliable, &message)
            {
                Handed::Over => {}
                Handed::Full => break,
                Handed::Closed => {
                    if now.saturating_duration_since(participant.joined) >= OPENING {
                        participant.mailbox.give_up();
                    }
                    break;
                }
            }
            sent = true;
            core.counters.data_out += 1;
            core.counters.data_bytes_out += message.len() as u64;
            participant.mailbox.queued_bytes -= message.len();
            participant.mailbox.queue.pop_front();
        }
        if sent {
            participant.wake_primary(now);
            self.arm(core, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_were_seen_are_repeated_and_none_never_is() {
        let mut mailbox = Mailbox::default();
        let seen = [1, 2, 2, 1, 5, 0, 0, 4, 6].map(|sequence| mailbox.is_repeated(sequence));
        let expected = [false, false, true, true, false, false, false, true, false];
        assert_eq!(seen, expected);
        assert_eq!(mailbox.last_sequence(), 6);
    }

    #[test]
    fn the_queue_is_bounded_in_bytes() {
        let mut mailbox = Mailbox::default();
        let message: Arc<[u8]> = vec![0; 400].into();
        let queued = [(); 3].map(|()| mailbox.queue(&message, 1000));
        assert_eq!(queued, [true, true, false]);
    }

    #[test]
    fn the_rate_counts_by_the_second() {
        let mut mailbox = Mailbox::default();
        let start = Instant::now();
        let admitted = [0, 10, 20, 1000]
            .map(|millis| mailbox.admits(start + Duration::from_millis(millis), 2));
        assert_eq!(admitted, [true, true, false, true]);
    }
}

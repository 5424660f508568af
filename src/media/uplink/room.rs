//! Rooms take in what is published, and answer.

use std::time::Instant;

use crate::media::counters::Dropped;
use crate::media::demux::{Pair, Place};
use crate::media::message::Connection;
use crate::media::participant::Participant;
use crate::media::room::Room;
use crate::media::shard::Core;
#[cfg(test)]
use crate::media::tests::fault;

impl Room {
    /// A datagram of media that a client publishes.
    pub fn published(
        &mut self,
        core: &mut Core,
        place: Place,
        pair: Pair,
        contents: &[u8],
        now: Instant,
    ) {
        let Place { peer, connection } = place;
        let slot = peer.participant;
        let participant = &mut self.participants[slot as usize];
        let Participant {
            uplink,
            downlink,
            leg,
            sections,
            ..
        } = participant;
        let codecs = match downlink {
            Some(_) if connection == Connection::Subscriber => {
                return core.counters.drop(Dropped::RtpInvalid);
            }
            Some(downlink) => &downlink.published,
            None => &leg.codecs,
        };
        let Some(uplink) = uplink else {
            return core.counters.drop(Dropped::NotConnected);
        };
        match uplink.receive(now, contents, codecs, sections) {
            Ok(received) => {
                participant.heard = now;
                if let Some(received) = received {
                    #[cfg(test)]
                    fault::trip(fault::Point::Datagram, &participant.identity);
                    self.ingress(core, slot, received, now);
                }
                self.opened(core, slot, (connection, pair), now);
            }
            Err(reason) => core.counters.drop(reason),
        }
        self.report_uplink(core, slot, now);
    }

    /// Tells a client what is to be said of what it publishes.
    pub fn report_uplink(&mut self, core: &mut Core, slot: u32, now: Instant) {
        // It may have left by what it sent.
        let Some(participant) = self.participants.get_mut(slot as usize) else {
            return;
        };
        let Some(said) = participant.uplink.as_mut().and_then(|it| it.say(now)) else {
            return;
        };
        core.counters.nacks_sent += said.nacks;
        if let Some(jitter) = said.jitter {
            participant.link.jitter(jitter);
        }
        if let Some(Pair { local, remote }) = participant.peer.path() {
            core.send(local, remote, said.datagram.into());
        }
    }
}

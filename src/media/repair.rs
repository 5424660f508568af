//! What a client misses: packets are sent again while there is a point in it, and once there is
//! none a key frame makes good what is lost.
//!
//! How much may be sent again is in `retransmit.rs`, how often a key frame in `keyframe.rs`.

use std::time::Instant;

use super::counters::Counters;
use super::egress::Leg;
use super::encoding::EncodingKey;
use super::message::Kind;
use super::packet::{Layer, Packet};
use super::rewrite::Sent;
use super::room::Room;
use super::shard::Core;
use super::subscription::Subscription;
use super::track::Subscriber;
use super::wire::Plan;

/// Where a lost packet can be found.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    /// Where it came from.
    pub source: EncodingKey,
    /// The subscription in this leg.
    pub subscription: u32,
    /// What was sent under that number.
    pub sent: Sent,
}

impl Room {
    /// A subscriber has lost the picture that comes on this SSRC: a key frame is asked for, unless
    /// it asks too often and others would pay.
    pub fn picture_lost(&mut self, core: &mut Core, slot: u32, ssrc: u32, now: Instant) {
        let leg = &self.participants[slot as usize].leg;
        let Some((key, layer)) = leg.video_source(ssrc) else {
            return;
        };
        let shared = self.is_shared(key, layer);
        let Some(stream) = self[key].stream(layer) else {
            return;
        };
        let awaited = stream.key_frames.is_awaited();
        let leg = &mut self.participants[slot as usize].leg;
        if shared && !awaited && !leg.may_lose(ssrc, now) {
            core.counters.plis_withheld += 1;
            return;
        }
        if let Some(stream) = self[key].stream(layer) {
            stream.key_frames.lose(now);
        }
        self.ask_publisher(core, key, now);
    }

    /// Whether several see this layer now, so that what one of them asks for costs the others.
    pub fn is_shared(&self, key: EncodingKey, layer: Layer) -> bool {
        let encoding = &self[key];
        let sees = |subscriber: &&Subscriber| {
            let leg = &self.participants[subscriber.participant as usize].leg;
            let subscription = leg.subscriptions.get(subscriber.subscription as usize);
            let outgoing = subscription.and_then(|it| it.outgoing.as_ref());
            outgoing.is_some_and(|outgoing| outgoing.layers.current() == Some(layer))
        };
        let here = encoding.subscribers.iter().filter(sees).take(2).count();
        here + encoding.pulls.len() > 1
    }

    /// Sends a packet again, if there is still a point in it. False if it is gone and what is shown
    /// builds on it: browsers themselves would wait for seconds before they say so.
    pub fn retransmit(
        &mut self,
        core: &mut Core,
        slot: u32,
        ssrc: u32,
        seq: u16,
        now: Instant,
    ) -> bool {
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let leg = &mut participants[slot as usize].leg;
        let Some(lost) = leg.lost(ssrc, seq) else {
            core.counters.retransmits_missed += 1;
            return !leg.builds_on(ssrc, seq);
        };
        let track = &mut tracks[lost.source.track.0 as usize];
        let stream = track.encodings[lost.source.number].stream(lost.sent.layer);
        let ring = stream.and_then(|stream| stream.ring.as_ref());
        match ring.and_then(|ring| ring.get(lost.sent.source_seq, now)) {
            Some(packet) => {
                leg.borrow(&mut core.spare);
                leg.retransmit(&lost, packet, now, &mut core.counters);
                true
            }
            None => {
                core.counters.retransmits_missed += 1;
                !leg.builds_on(ssrc, seq)
            }
        }
    }
}

impl Leg {
    /// What was sent under a number that the client reports missing.
    pub fn lost(&self, ssrc: u32, seq: u16) -> Option<Lost> {
        let slot = *self.by_ssrc.get(&ssrc)?;
        let subscription = self.subscriptions.get(slot as usize)?;
        let outgoing = subscription.outgoing.as_ref()?;
        // The numbers of the retransmissions themselves mean nothing here.
        if outgoing.ssrc.get() != ssrc {
            return None;
        }
        let sent = outgoing.rewrite.sent(seq)?;
        Some(Lost {
            source: subscription.source(),
            subscription: slot,
            sent,
        })
    }

    /// Sends a packet again, on the retransmission stream, if the budget allows.
    pub fn retransmit(
        &mut self,
        lost: &Lost,
        packet: &Packet,
        now: Instant,
        counters: &mut Counters,
    ) {
        let Some(payload_type) = self.codecs.rtx(packet.format) else {
            return;
        };
        let Some(subscription) = self.subscriptions.get_mut(lost.subscription as usize) else {
            return;
        };
        let Some(outgoing) = &mut subscription.outgoing else {
            return;
        };
        let Some(rtx) = &mut outgoing.rtx else { return };
        let (ssrc, seq) = (outgoing.ssrc.get(), lost.sent.stamp.seq);
        let bytes = packet.payload.len();
        if !self.wire.budget.request(now, ssrc, seq, bytes) {
            counters.retransmits_missed += 1;
            return;
        }
        let Some(seal) = &mut rtx.seal else { return };
        let seq = rtx.next_seq;
        rtx.next_seq += 1;
        let original = Some(lost.sent.stamp.seq as u16);
        let twcc = self.codecs.extensions.twcc;
        let plan = Plan {
            payload_type,
            twcc,
            dependency: self.codecs.extensions.dependency,
            playout: None,
            front: &[],
            body: 0,
            seq,
            stamp: lost.sent.stamp,
            original,
            packet,
        };
        counters.retransmits += 1;
        self.pacer.note(now, bytes);
        self.wire.send(&plan, seal, now, counters);
    }

    /// What goes out on this SSRC and the layer it is sent from, if it is video.
    pub fn video_source(&self, ssrc: u32) -> Option<(EncodingKey, Layer)> {
        let subscription = self.on(ssrc)?;
        let layer = subscription.outgoing.as_ref()?.source?;
        (subscription.kind == Kind::Video).then_some((subscription.source(), layer))
    }

    /// Whether a client that has lost the picture on this SSRC may have a key frame for it although
    /// others get it too; if so, counts as one that it had.
    pub fn may_lose(&mut self, ssrc: u32, now: Instant) -> bool {
        let slot = self.by_ssrc.get(&ssrc);
        let subscription = slot.and_then(|slot| self.subscriptions.get_mut(*slot as usize));
        let outgoing = subscription.and_then(|it| it.outgoing.as_mut());
        outgoing.is_some_and(|outgoing| outgoing.losses.spend(now))
    }

    /// Whether what is shown of the stream on this SSRC builds on the packet of this number, which
    /// won't come any more.
    pub fn builds_on(&self, ssrc: u32, seq: u16) -> bool {
        let outgoing = self.on(ssrc).and_then(|it| it.outgoing.as_ref());
        let media = outgoing.filter(|outgoing| outgoing.ssrc.get() == ssrc);
        media.is_some_and(|outgoing| outgoing.rewrite.is_broken_without(seq))
    }

    /// The subscription with this SSRC.
    fn on(&self, ssrc: u32) -> Option<&Subscription> {
        let slot = *self.by_ssrc.get(&ssrc)?;
        self.subscriptions.get(slot as usize)
    }
}

//! The sending half of a participant's connection: our own, beside str0m, with the same keys.
//! It holds the subscriptions and gives each its stream; how a packet is written and sealed is in
//! `wire.rs`.
//!
//! Every SSRC here is an [`OwnSsrc`]; str0m gets no section it could send on (`sdp.rs`), so no
//! (SSRC, index) is ever sealed by both.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use slab::Slab;

use super::TrackKey;
use super::counters::{Counters, Dropped};
use super::dtls::Keying;
use super::encoding::EncodingKey;
use super::estimator::{Bounds, Estimator};
use super::keyframe::Ration;
use super::layers::Layers;
use super::message::{Kind, TrackSettings, Transmit};
use super::ntp::Ntp;
use super::pacer::Pacer;
use super::pacing::Feeling;
use super::packet::{Layer, Packet};
use super::pausing::Flow;
use super::payload_type::Codecs;
use super::playout::Playout;
use super::redundancy::Redundancy;
use super::rewrite::Rewrite;
use super::rtcp::write::{SenderReport, write_sender_report};
use super::sdp;
use super::srtp::{self, Opener, OwnSsrc, Sealer};
pub use super::subscription::Names;
use super::subscription::{Choice, Outgoing, REPORT_INTERVAL, Retransmissions, Subscription, Wait};
use super::track::Stream;
use super::wire::{Plan, Wire};

/// The sending half.
pub struct Leg {
    /// Payload types and extension ids of the connection.
    pub codecs: Codecs,
    /// Local and remote address of the nominated path.
    path: Option<(SocketAddr, SocketAddr)>,
    crypto: Option<Crypto>,
    pub(super) wire: Wire,
    /// What of video waits to leave.
    pub(super) pacer: Pacer,
    /// What it does to learn what the link carries.
    pub(super) feeling: Feeling,
    /// It is in the shard's list of legs with output.
    marked: bool,
    /// The keys have sealed for as many SSRCs as they may.
    exhausted: bool,
    /// Bounded by the tracks of the room.
    pub(super) subscriptions: Slab<Subscription>,
    /// Subscriptions by their SSRCs, two at most for each.
    pub(super) by_ssrc: HashMap<u32, u32>,
    rng: fastrand::Rng,
    /// How much sound is said again.
    pub redundancy: Redundancy,
    /// How long pictures wait before they are shown.
    pub playout: Playout,
    /// What packets say of that: id of the extension, and what is in it.
    pub wait: Option<(u8, [u8; 3])>,
    /// Memory for that.
    front: Vec<u8>,
}

struct Crypto {
    sealer: Sealer,
    opener: Opener,
}

/// A subscription that there never is: that of an SSRC that only reports.
const NOBODY: u32 = u32::MAX;

impl Leg {
    /// A leg without keys and address, of a rate within these bounds.
    pub fn new(rng: fastrand::Rng, bounds: Bounds, now: Instant) -> Self {
        Self {
            codecs: Codecs::default(),
            path: None,
            crypto: None,
            wire: Wire::new(bounds, now),
            pacer: Pacer::new(now),
            feeling: Feeling::default(),
            marked: false,
            exhausted: false,
            subscriptions: Slab::new(),
            by_ssrc: HashMap::new(),
            rng,
            redundancy: Redundancy::default(),
            playout: Playout::default(),
            wait: None,
            front: Vec::new(),
        }
    }

    /// DTLS has made the keys.
    pub fn connect(&mut self, keying: Keying) {
        let mut sealer = Sealer::new(keying.local);
        for (_, subscription) in &mut self.subscriptions {
            if let Some(outgoing) = &mut subscription.outgoing {
                self.exhausted |= outgoing.register(&mut sealer).is_err();
            }
        }
        self.crypto = Some(Crypto {
            sealer,
            opener: Opener::new(keying.remote),
        });
    }

    /// Whether media can be sent.
    pub fn is_connected(&self) -> bool {
        self.crypto.is_some() && self.path.is_some()
    }

    /// Whether only new keys can carry another subscription: after some thousand of them in one
    /// stay (see [`super::srtp::SSRCS_MAX`]).
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// A stream to report on what the client publishes, once there are keys.
    pub fn control(&mut self) -> Option<srtp::Stream> {
        let ssrc = self.new_ssrc(NOBODY);
        let crypto = self.crypto.as_mut()?;
        crypto.sealer.register(ssrc).ok()
    }

    /// The client nominated this path.
    pub fn set_path(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.path = Some((local, remote));
    }

    /// Opens an incoming SRTCP datagram into `out`.
    pub fn open_rtcp(&mut self, datagram: &[u8], out: &mut Vec<u8>) -> Result<(), Dropped> {
        let crypto = self.crypto.as_mut().ok_or(Dropped::NotConnected)?;
        crypto
            .opener
            .open_rtcp(datagram, out)
            .map_err(|_| Dropped::RtcpInvalid)
    }

    /// A new subscription, without a section yet; its slot.
    pub fn subscribe(
        &mut self,
        source: EncodingKey,
        kind: Kind,
        settings: TrackSettings,
        now: Instant,
    ) -> u32 {
        let subscription = Subscription {
            track: source.track,
            encoding: source.number,
            kind,
            settings,
            since: now,
            wait: Wait::default(),
            redundancy: 0,
            granted: None,
            outgoing: None,
        };
        self.subscriptions.insert(subscription) as u32
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, track: TrackKey) {
        self.unbind(track);
        if let Some(slot) = self.find(track) {
            self.subscriptions.remove(slot as usize);
        }
    }

    /// The subscription in `slot`.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(slot as usize)
    }

    /// Where the packets of the subscription in `slot` come from.
    #[cfg(test)]
    pub fn source(&self, slot: u32) -> EncodingKey {
        self.subscriptions[slot as usize].source()
    }

    /// How many subscriptions there are: audio, video.
    pub fn count(&self) -> [u64; 2] {
        let mut counts = [0; 2];
        for (_, subscription) in &self.subscriptions {
            counts[subscription.kind as usize] += 1;
        }
        counts
    }

    /// The slot of the subscription to `track`.
    pub fn find(&self, track: TrackKey) -> Option<u32> {
        self.subscriptions
            .iter()
            .find(|(_, subscription)| subscription.track == track)
            .map(|(slot, _)| slot as u32)
    }

    /// The subscription to `track`.
    pub fn find_mut(&mut self, track: TrackKey) -> Option<&mut Subscription> {
        self.subscriptions
            .iter_mut()
            .find(|(_, subscription)| subscription.track == track)
            .map(|(_, subscription)| subscription)
    }

    /// Every subscription.
    pub fn subscriptions(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.subscriptions
            .iter_mut()
            .map(|(_, subscription)| subscription)
    }

    /// Every subscribed track.
    pub fn tracks(&self) -> impl Iterator<Item = TrackKey> {
        self.subscriptions
            .iter()
            .map(|(_, subscription)| subscription.track)
    }

    /// Subscriptions that wait for a section.
    pub fn waiting(&self) -> impl Iterator<Item = (TrackKey, Kind)> {
        self.subscriptions
            .iter()
            .filter(|(_, subscription)| subscription.outgoing.is_none())
            .map(|(_, subscription)| (subscription.track, subscription.kind))
    }

    /// The subscription to `track` has a section: gives it SSRCs that nobody used before.
    pub fn bind(&mut self, track: TrackKey, kind: Kind, names: Names) {
        let Some(slot) = self.find(track) else { return };
        let ssrc = self.new_ssrc(slot);
        let rtx = (kind == Kind::Video).then(|| Retransmissions {
            ssrc: self.new_ssrc(slot),
            seal: None,
            // In the lower half, as the numbers of the media: see `Rewrite::video`.
            next_seq: u64::from(self.rng.u16(..) >> 1),
        });
        let (first_seq, first_timestamp) = (self.rng.u16(..), self.rng.u32(..));
        let rewrite = match kind {
            Kind::Audio => Rewrite::audio(first_seq, first_timestamp),
            Kind::Video => Rewrite::video(first_seq, first_timestamp),
        };
        let mut outgoing = Outgoing {
            names,
            held: false,
            ssrc,
            seal: None,
            rtx,
            rewrite,
            layers: Layers::default(),
            flow: Flow::default(),
            spoken: None,
            source: Some(Layer(0)),
            losses: Ration::default(),
            packets: 0,
            octets: 0,
            reported: None,
        };
        if let Some(crypto) = &mut self.crypto {
            self.exhausted |= outgoing.register(&mut crypto.sealer).is_err();
        }
        self.subscriptions[slot as usize].outgoing = Some(outgoing);
    }

    /// Sends nothing of `track` before [`Leg::open`].
    pub fn hold(&mut self, track: TrackKey) {
        self.set_held(track, true);
    }

    /// The client is ready for `track`.
    pub fn open(&mut self, track: TrackKey) {
        self.set_held(track, false);
    }

    fn set_held(&mut self, track: TrackKey, held: bool) {
        let subscription = self.find_mut(track);
        if let Some(outgoing) = subscription.and_then(|found| found.outgoing.as_mut()) {
            outgoing.held = held;
        }
    }

    /// The subscription to `track` lost its section.
    pub fn unbind(&mut self, track: TrackKey) {
        let Some(subscription) = self.find_mut(track) else {
            return;
        };
        if let Some(outgoing) = subscription.outgoing.take() {
            let rtx = outgoing.rtx.map(|rtx| rtx.ssrc.get());
            for ssrc in std::iter::once(outgoing.ssrc.get()).chain(rtx) {
                self.by_ssrc.remove(&ssrc);
            }
        }
    }

    /// What the answer says of the subscription to `track`.
    pub fn sending(&self, track: TrackKey) -> Option<sdp::Sending> {
        let slot = self.find(track)?;
        self.subscriptions[slot as usize]
            .outgoing
            .as_ref()
            .map(Outgoing::sending)
    }

    /// Draws an SSRC that this leg doesn't use. str0m's one feedback SSRC is random too; a clash
    /// (1 in 4 billion) would only mix RTCP sender SSRCs, whose indices are counted apart.
    fn new_ssrc(&mut self, slot: u32) -> OwnSsrc {
        loop {
            let ssrc = self.rng.u32(1..);
            if let std::collections::hash_map::Entry::Vacant(entry) = self.by_ssrc.entry(ssrc) {
                entry.insert(slot);
                return OwnSsrc::claim(ssrc);
            }
        }
    }

    /// Sends packets of one stream of a track on, as far as its subscription takes them. `streams`
    /// are those of its encoding.
    pub fn forward(
        &mut self,
        slot: u32,
        packets: &[Packet],
        streams: &[Stream],
        now: Instant,
        counters: &mut Counters,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(slot as usize) else {
            return;
        };
        let Some(outgoing) = &mut subscription.outgoing else {
            return;
        };
        if self.crypto.is_none() || self.path.is_none() || outgoing.held {
            return;
        }
        if subscription.kind == Kind::Audio && subscription.settings.disabled {
            return outgoing.rewrite.pause();
        }
        let twcc = self.codecs.extensions.twcc_of(subscription.kind);
        let playout = match subscription.kind {
            Kind::Audio => None,
            Kind::Video => self.wait,
        };
        if subscription.kind == Kind::Video {
            outgoing.layers.press(self.pacer.pressure());
        }
        for packet in packets {
            let Some((mut payload_type, mut body)) = self.codecs.way(packet) else {
                counters.drop(Dropped::CodecUnknown);
                continue;
            };
            let stamp = match subscription.kind {
                Kind::Audio => outgoing.rewrite.forward(packet),
                Kind::Video => match outgoing.choose(packet, streams, counters) {
                    Choice::Send(stamp) => Some(stamp),
                    Choice::Late => None,
                    Choice::Leave => continue,
                },
            };
            let Some(stamp) = stamp else {
                counters.drop(Dropped::Late);
                continue;
            };
            let mut front: &[u8] = &[];
            if subscription.redundancy > 0
                && let Some((red, opus)) = self.codecs.redundant()
            {
                let again = (subscription.redundancy, opus);
                let start = outgoing.say_again(packet, &stamp, again, &mut self.front);
                if let Some(start) = start {
                    (payload_type, body, front) = (red, start, &self.front);
                }
            }
            let Some(seal) = &mut outgoing.seal else {
                return;
            };
            let bytes = front.len() + packet.payload.len() - body;
            let waits = match subscription.kind {
                Kind::Audio => {
                    self.pacer.note(now, bytes);
                    false
                }
                Kind::Video => !self.pacer.pass(now, bytes),
            };
            if outgoing.packets == 0 {
                let waited = now.saturating_duration_since(subscription.since);
                counters.first_packet_seconds.observe(waited, 1);
            }
            outgoing.packets = outgoing.packets.wrapping_add(1);
            outgoing.octets = outgoing.octets.wrapping_add(bytes as u32);
            if waits {
                let place = (slot, outgoing.ssrc.get());
                if !self.pacer.push(place, packet.clone(), stamp, payload_type) {
                    counters.drop(Dropped::PacerFull);
                }
                continue;
            }
            let plan = Plan {
                payload_type,
                twcc,
                dependency: self.codecs.extensions.dependency,
                playout,
                front,
                body,
                seq: stamp.seq,
                stamp,
                original: None,
                packet,
            };
            self.wire.send(&plan, seal, now, counters);
        }
    }

    /// What goes out on this media SSRC, and how many packets have; none for retransmissions.
    pub fn sent(&self, ssrc: u32) -> Option<(Kind, u32)> {
        let slot = *self.by_ssrc.get(&ssrc)?;
        let subscription = self.subscriptions.get(slot as usize)?;
        let outgoing = subscription.outgoing.as_ref()?;
        (outgoing.ssrc.get() == ssrc).then_some((subscription.kind, outgoing.packets))
    }

    /// Writes the sender reports that are due, and says how many. `source` gives the publisher's
    /// RTP time at `ntp` for a track and the layer it is sent from.
    pub fn report(
        &mut self,
        now: Instant,
        ntp: Ntp,
        source: impl Fn(&Subscription, Layer) -> Option<u32>,
    ) -> usize {
        let mut written = 0;
        for (_, subscription) in &mut self.subscriptions {
            let Some(outgoing) = &subscription.outgoing else {
                continue;
            };
            let due = outgoing
                .reported
                .is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL);
            if !due || outgoing.packets == 0 {
                continue;
            }
            let layer = outgoing.source;
            let Some(source_time) = layer.and_then(|layer| source(subscription, layer)) else {
                continue;
            };
            let Some(outgoing) = &mut subscription.outgoing else {
                continue;
            };
            let Some(rtp_timestamp) = outgoing.rewrite.outgoing_timestamp(source_time) else {
                continue;
            };
            let Some(seal) = &mut outgoing.seal else {
                continue;
            };
            let Some((buffer, start)) = self.wire.batch.begin() else {
                break;
            };
            let report = SenderReport {
                ssrc: outgoing.ssrc.get().into(),
                ntp,
                rtp_timestamp,
                packets: outgoing.packets,
                octets: outgoing.octets,
            };
            write_sender_report(buffer, report, outgoing.names.publisher.as_str());
            match seal.seal_rtcp(buffer, start) {
                Ok(()) => self.wire.batch.commit(start),
                Err(_) => self.wire.batch.abort(start),
            }
            outgoing.reported = Some(now);
            written += 1;
        }
        written
    }

    /// What the path to the client carries.
    pub fn estimator(&mut self) -> &mut Estimator {
        &mut self.wire.estimator
    }

    /// Notes that datagrams may wait; whether that is news.
    pub fn mark(&mut self) -> bool {
        !self.wire.batch.is_empty() && !std::mem::replace(&mut self.marked, true)
    }

    /// Takes the memory for its datagrams, unless it has some.
    pub fn borrow(&mut self, spare: &mut Vec<u8>) {
        self.wire.batch.borrow(spare);
    }

    /// Whether datagrams wait to be sent. If not, the batch starts over, and gives its memory back.
    pub fn has_output(&mut self, spare: &mut Vec<u8>) -> bool {
        let waits = !self.wire.batch.is_empty() && self.path.is_some();
        if !waits {
            self.wire.batch.clear();
            self.wire.batch.give_back(spare);
            self.marked = false;
        }
        waits
    }

    /// The next run of datagrams.
    pub fn take(&mut self) -> Option<Transmit<'_>> {
        let (local, remote) = self.path?;
        let (contents, segment) = self.wire.batch.take()?;
        Some(Transmit {
            local,
            remote,
            contents,
            segment,
        })
    }
}

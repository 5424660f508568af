//! A simulated client: negotiates as livekit-client does on its one peer connection, connects,
//! sends what it publishes and takes in what it is sent. Negotiating, sending and receiving are in
//! files of their own; here is what ties them: keys, connection, feedback.
//!
//! In place of DTLS it gives its keys in one datagram, see [`fixed_keys`].

mod negotiation;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::ice::{StunMessage, TransId};

use super::judge::{Offence, Received};
use super::receiving::{self, Header, Incoming};
use super::remb::Remb;
use super::sdp::{self, Section};
use super::sending::{Datagram, Published};
use super::uplink::Uplink;
use super::{Note, World};
use crate::ids::{SessionKey, TrackSid};
use crate::media::demux::Class;
use crate::media::dtls;
use crate::media::fixed_keys;
use crate::media::message::{Kind, Request, StreamUpdate};
use crate::media::ntp::Ntp;
use crate::media::rtcp::feedback::{
    TWCC_INTERVAL, Twcc, write_nack, write_pli, write_receiver_report,
};
use crate::media::rtcp::{self, Item};
use crate::media::srtp::{Opener, OwnSsrc, RtpOpener, Sealer, Stream};
use crate::units::Bitrate;

/// Receiving sections of each kind in the first offer, as livekit-client has them.
pub const POOL: u32 = 3;

/// Between two checks of the path, and between two attempts to connect.
const CHECK_INTERVAL: Duration = Duration::from_millis(2500);
const CONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// Between two receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Datagrams on SSRCs that no answer has named yet, kept until one does.
const EARLY_MAX: usize = 256;

/// Offences kept; after so many nothing new is learnt.
const OFFENCES_MAX: usize = 100;

/// A client.
pub struct Client {
    /// Its number in the meeting.
    pub number: u16,
    /// Its signalling session.
    pub session: SessionKey,
    /// Who it is.
    pub name: String,
    /// Where it sends from.
    pub address: SocketAddr,
    /// The stay is over.
    pub left: bool,
    /// Media is connected.
    pub connected: bool,
    /// Its sections, in the order of its offers.
    pub sections: Vec<Section>,
    /// What it publishes.
    pub published: Vec<Published>,
    /// What it receives, by SSRC, what ended included.
    pub incoming: BTreeMap<u32, Incoming>,
    /// What must not happen and did.
    pub offences: Vec<(Instant, Offence)>,
    /// Tracks for which a browser would have raised a `track` event, in order.
    pub raised: Vec<TrackSid>,
    /// What it was told of videos that pause, in order.
    pub flows: Vec<(Instant, StreamUpdate)>,
    /// How long it was last told to let pictures wait.
    pub playout: Option<Duration>,
    /// Nothing on the way to it changes the order of datagrams.
    pub ordered: bool,
    /// When the meeting began; its stamps count from there.
    pub epoch: Instant,
    /// What it receives from now on is kept.
    pub recording: bool,
    /// For the log.
    pub notes: Vec<Note>,
    /// To the shard over signalling.
    pub requests: Vec<Request>,
    /// To the shard over the network.
    pub outbox: Vec<Datagram>,
    keys: Keys,
    /// What each receiving section carries, by mid.
    carried: BTreeMap<String, TrackSid>,
    /// SSRCs of retransmissions, and of what.
    repairs: BTreeMap<u32, u32>,
    early: Vec<Vec<u8>>,
    remote: Option<(String, String)>,
    checked: bool,
    offers: u32,
    offered: bool,
    offer_again: bool,
    tracks: u16,
    ssrcs: u32,
    /// What its own uplink is taken to carry.
    pub uplink: Uplink,
    /// Its encoders follow that; otherwise they keep their rates.
    pub follows_uplink: bool,
    twcc: Twcc,
    /// In place of that, for a client that doesn't know it.
    remb: Option<Remb>,
    due: Due,
    random: fastrand::Rng,
    opened: Vec<u8>,
}

/// Both directions' keys.
struct Keys {
    material: [u8; fixed_keys::MATERIAL],
    sealer: Sealer,
    /// Seals feedback.
    control: Stream,
    rtp: RtpOpener,
    rtcp: Opener,
}

/// When something was last done.
#[derive(Debug, Default)]
struct Due {
    check: Option<Instant>,
    twcc: Option<Instant>,
    report: Option<Instant>,
}

/// Whether it is time again; if so, counts as done.
fn due(last: &mut Option<Instant>, now: Instant, every: Duration) -> bool {
    let due = last.is_none_or(|at| now.saturating_duration_since(at) >= every);
    if due {
        *last = Some(now);
    }
    due
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(number: u16, name: &str, mut random: fastrand::Rng, now: Instant) -> Self {
        let mut material = [0; fixed_keys::MATERIAL];
        random.fill(&mut material);
        let [keys, again] = [(); 2].map(|()| fixed_keys::client_keys(&material));
        let mut sealer = Sealer::new(keys.local);
        let control = sealer.register(OwnSsrc::claim(ssrc(number, 0)));
        let mut client = Self {
            number,
            session: SessionKey(number.into()),
            name: name.to_owned(),
            address: SocketAddr::from(([10, 0, 0, 1], 20_000 + number)),
            left: false,
            connected: false,
            sections: Vec::new(),
            published: Vec::new(),
            incoming: BTreeMap::new(),
            offences: Vec::new(),
            raised: Vec::new(),
            flows: Vec::new(),
            playout: None,
            ordered: true,
            epoch: now,
            recording: false,
            notes: Vec::new(),
            requests: Vec::new(),
            outbox: Vec::new(),
            keys: Keys {
                material,
                sealer,
                control: control.expect("a new sealer has room"),
                rtp: RtpOpener::new(&keys.remote),
                rtcp: Opener::new(again.remote),
            },
            carried: BTreeMap::new(),
            repairs: BTreeMap::new(),
            early: Vec::new(),
            remote: None,
            checked: false,
            offers: 0,
            offered: false,
            offer_again: false,
            tracks: 0,
            ssrcs: 0,
            uplink: Uplink::new(random.u16(..), now),
            follows_uplink: false,
            twcc: Twcc::new(now),
            remb: None,
            due: Due::default(),
            random,
            opened: Vec::new(),
        };
        client.add_sections([POOL; 2]);
        client.offer();
        client
    }

    /// It doesn't know transport-wide numbers, and says how much it can take instead.
    pub fn report_rate(&mut self, now: Instant) {
        self.remb = Some(Remb::new(now));
        for request in &mut self.requests {
            if let Request::Offer { sdp, .. } = request {
                *sdp = sdp::without_twcc(sdp);
            }
        }
    }

    fn offend(&mut self, now: Instant, offence: Offence) {
        if self.offences.len() < OFFENCES_MAX {
            self.offences.push((now, offence));
        }
    }

    /// A datagram came from the shard.
    pub fn receive(&mut self, now: Instant, datagram: &[u8], world: &World) {
        match Class::of(datagram) {
            Some(Class::Stun) => self.checked = true,
            Some(Class::Dtls) => {
                if !std::mem::replace(&mut self.connected, true) {
                    self.notes.push(Note::Connected);
                }
            }
            Some(Class::Rtp) => self.media(now, datagram, world),
            Some(Class::Rtcp) => self.control(now, datagram),
            None => self.offend(now, Offence::Unopened),
        }
    }

    fn media(&mut self, now: Instant, datagram: &[u8], world: &World) {
        let Some(header) = Header::parse(datagram) else {
            return self.offend(now, Offence::Unopened);
        };
        let repairs = self.repairs.get(&header.ssrc).copied();
        let main = repairs.unwrap_or(header.ssrc);
        let Some(stream) = self.incoming.get_mut(&main) else {
            if self.early.len() < EARLY_MAX {
                self.early.push(datagram.to_vec());
            }
            return;
        };
        let index = stream.index(header.seq, repairs.is_some());
        let opened = &mut self.opened;
        if self
            .keys
            .rtp
            .open(datagram, header.len, index, opened)
            .is_err()
        {
            return self.offend(now, Offence::Unopened);
        }
        if let Some(number) = header.twcc {
            self.twcc.note(number, now);
        }
        self.playout = header.playout.or(self.playout);
        if let Some(remb) = &mut self.remb
            && stream.kind == Kind::Video
        {
            remb.note(now, header.ssrc, header.timestamp, datagram.len());
        }
        let (mut seq, mut payload) = (index, receiving::payload(opened, header.len));
        if repairs.is_some() {
            stream.note_repair(index);
            if payload.is_empty() {
                // It shows what the network carries.
                return;
            }
            let Some((original, rest)) = payload.split_first_chunk::<2>() else {
                return self.offend(now, Offence::Unopened);
            };
            seq = stream.index(u16::from_be_bytes(*original), false);
            payload = rest;
        }
        if header.payload_type == sdp::ids::RED {
            stream.recover(payload);
        }
        let packet = Received {
            seq,
            timestamp: header.timestamp,
            marker: header.marker,
            payload,
            repaired: repairs.is_some(),
            ordered: self.ordered,
        };
        let offences = &mut self.offences;
        let mut offend = |offence| {
            if offences.len() < OFFENCES_MAX {
                offences.push((now, offence));
            }
        };
        let layer_before = stream.decoder.shown.map(|(_, layer)| layer);
        let epoch = self.epoch;
        if let Some(seen) = stream.take(now, &packet, epoch, &world.arrivals, &mut offend) {
            self.notes
                .push(Note::Packet(seen.seq, seen.stamp, packet.repaired));
        }
        if let Some((_, layer)) = stream.decoder.shown
            && layer_before != Some(layer)
        {
            self.notes.push(Note::Layer(stream.track.clone(), layer));
        }
    }

    /// Feedback on what is sent, and reports on what is received.
    fn control(&mut self, now: Instant, datagram: &[u8]) {
        let mut opened = std::mem::take(&mut self.opened);
        if self.keys.rtcp.open_rtcp(datagram, &mut opened).is_err() {
            self.offend(now, Offence::Unopened);
        }
        let (mut lost, mut key_frames) = (Vec::new(), Vec::new());
        for item in rtcp::read(&opened).flatten() {
            match item {
                Item::Sender(info) => {
                    if let Some(stream) = self.incoming.get_mut(&*info.ssrc) {
                        stream.note_report(now, info.ntp);
                    }
                }
                Item::Nack { media, lost: seqs } => lost.extend(seqs.map(|seq| (*media, seq))),
                Item::Pli(ssrc) | Item::Fir(ssrc) => key_frames.push(*ssrc),
                Item::Twcc(feedback) => self.uplink.feedback(now, &feedback),
                _ => {}
            }
        }
        self.opened = opened;
        // str0m writes its streams in the order of a hash map, which is another in each run.
        lost.sort_unstable();
        key_frames.sort_unstable();
        for Published {
            mid,
            streams,
            medium,
            ..
        } in &mut self.published
        {
            for (layer, stream) in streams.iter_mut().enumerate() {
                for (ssrc, seq) in &lost {
                    if stream.is_on(*ssrc) {
                        stream.repeat(now, *seq, mid, &mut self.uplink, &mut self.outbox);
                    }
                }
                if key_frames.iter().any(|ssrc| stream.is_on(*ssrc)) {
                    stream.asked = (Some(now), stream.asked.1 + 1);
                    stream.encoder.make_key_frame();
                    self.notes
                        .push(Note::KeyFrameAsked(medium.cid.clone(), layer));
                }
            }
        }
    }

    /// Does what is due.
    pub fn beat(&mut self, now: Instant, ntp: Ntp) {
        if self.left || self.remote.is_none() {
            return;
        }
        let every = if self.connected {
            CHECK_INTERVAL
        } else {
            CONNECT_INTERVAL
        };
        if due(&mut self.due.check, now, every) {
            self.check();
        }
        if !self.connected {
            return;
        }
        if self.follows_uplink {
            self.share_uplink(now);
        }
        for Published {
            mid,
            streams,
            flowing,
            ..
        } in &mut self.published
        {
            for stream in streams.iter_mut().filter(|_| *flowing) {
                stream.send(now, mid, &mut self.uplink, &mut self.outbox);
                stream.report(now, ntp, &mut self.outbox);
            }
        }
        self.feedback(now);
    }

    /// Gives its layers what the uplink carries of them, beside its sound.
    fn share_uplink(&mut self, now: Instant) {
        let (mut sound, videos) = (Bitrate::ZERO, Kind::Video);
        for track in self.published.iter().filter(|it| it.medium.kind != videos) {
            sound = track.medium.rates.iter().fold(sound, |sum, it| sum + *it);
        }
        for track in self
            .published
            .iter_mut()
            .filter(|it| it.medium.kind == videos)
        {
            let shares = self.uplink.shares(sound, &track.medium.rates, now);
            for (stream, share) in track.streams.iter_mut().zip(shares) {
                stream.encoder.set_rate(share, now);
            }
        }
    }

    /// Checks the path; once it stands, says hello until it is answered.
    fn check(&mut self) {
        let Some((ufrag, password)) = &self.remote else {
            return;
        };
        let username = format!("{ufrag}:{}", sdp::UFRAG);
        let request =
            StunMessage::binding_request(&username, TransId::new(), true, 1, 1_845_501_695, true);
        let mut bytes = vec![0; 256];
        let hmac =
            |key: &[u8], parts: &[&[u8]]| dtls::provider().sha1_hmac_provider.sha1_hmac(key, parts);
        let len = request
            .to_bytes(Some(password.as_bytes()), &mut bytes, hmac)
            .expect("a check is short");
        bytes.truncate(len);
        self.outbox.push(Datagram { bytes, stamp: None });
        if self.checked && !self.connected {
            let bytes = fixed_keys::hello(&self.keys.material);
            self.outbox.push(Datagram { bytes, stamp: None });
        }
    }

    fn feedback(&mut self, now: Instant) {
        let own = self.keys.control.ssrc().get();
        let report = due(&mut self.due.report, now, REPORT_INTERVAL);
        let mut bytes = Vec::new();
        let mut streams_due = Vec::new();
        for stream in self.incoming.values_mut().filter(|stream| !stream.ended) {
            let lost = stream.lost(now);
            let key_frame = stream.wants_key_frame(now);
            let block = report.then(|| stream.report(now)).flatten();
            streams_due.push((stream.ssrc(), lost, key_frame, block));
        }
        if report {
            let blocks: Vec<_> = streams_due.iter().filter_map(|due| due.3).collect();
            write_receiver_report(&mut bytes, own, &blocks);
        }
        for (ssrc, lost, key_frame, _) in streams_due {
            if !lost.is_empty() {
                write_nack(&mut bytes, own, ssrc, &lost);
            }
            if key_frame {
                write_pli(&mut bytes, own, ssrc);
            }
        }
        if let Some(remb) = &mut self.remb {
            bytes.extend(remb.say(now, own).into_iter().flatten());
        } else if due(&mut self.due.twcc, now, TWCC_INTERVAL) {
            self.twcc.write(&mut bytes, own, 0);
        }
        if bytes.is_empty() {
            return;
        }
        let sealed = self.keys.control.seal_rtcp(&mut bytes, 0);
        sealed.expect("a call has fewer reports than indices");
        self.outbox.push(Datagram { bytes, stamp: None });
    }

    /// Datagrams that never found their stream are offences in the end.
    pub fn unannounced(&self) -> impl Iterator<Item = Offence> {
        self.early.iter().filter_map(|datagram| {
            let header = Header::parse(datagram)?;
            Some(Offence::Unannounced(header.ssrc))
        })
    }
}

/// A client's own SSRC with this number.
fn ssrc(client: u16, number: u32) -> u32 {
    (u32::from(client) + 1) << 16 | number
}

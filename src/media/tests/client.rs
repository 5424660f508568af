//! A client for tests without sockets: str0m on the offering side, behaving like livekit-client
//! on its single peer connection. It offers a pool of receiving sections and a data channel,
//! appends a sending section for each track, adds sections when the server asks, and answers
//! every request for a key frame with one.
//!
//! Its handshakes and its feedback are str0m's, so what runs here is ICE, DTLS and WebRTC as
//! another implementation speaks them. What many clients see over bad networks is for the
//! simulator (`sim`), whose clients are our own to the last byte.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::config::DtlsVersion;
use str0m::media::{Direction, MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RawPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::track::{Content, Medium};
use crate::ids::{SessionKey, TrackSid};
use crate::media::dtls;
use crate::media::message::{Codec, Kind, LeaveReason, Notice, Request};

/// Receiving sections of each kind in the first offer, as livekit-client has them.
pub const POOL: u32 = 3;

/// A client.
pub struct Client {
    pub session: SessionKey,
    pub identity: String,
    pub address: SocketAddr,
    /// Media is connected.
    pub connected: bool,
    /// Offers again when asked to; without, a test looks at the questions themselves.
    pub obliging: bool,
    /// Neither sends nor hears: its process is gone.
    pub silent: bool,
    /// All that the server said.
    pub notices: Vec<Notice>,
    /// Opened media, retransmissions unpacked.
    pub received: Vec<Got>,
    /// RTP packets as they came, retransmissions among them, by SSRC.
    pub packets_by_ssrc: HashMap<u32, u64>,
    /// Which track comes on an SSRC, of all answers so far.
    pub track_by_ssrc: HashMap<u32, TrackSid>,
    /// SSRCs of retransmissions, of all answers so far.
    pub rtx_ssrcs: HashSet<u32>,
    /// Key frames the server asked for: section and RID.
    pub key_frames_asked: Vec<(Instant, Mid, Option<Rid>)>,
    /// What the newest answer maps.
    pub mid_to_track: Vec<(String, TrackSid)>,
    /// Tracks being sent.
    pub sending: Vec<Sending>,
    /// To the shard, in order.
    pub requests: Vec<Request>,
    /// Datagrams to the shard, with where they go.
    pub outbox: Vec<(SocketAddr, Vec<u8>)>,
    /// Data messages that came.
    pub mail: Vec<Vec<u8>>,
    rtc: Rtc,
    channels: HashMap<String, ChannelId>,
    restart_ice: bool,
    pool: Vec<Mid>,
    /// Sections on which nothing is sent any more.
    quiet: Vec<Mid>,
    offered: Option<(u32, SdpPendingOffer)>,
    offers: u32,
    /// An offer is wanted as soon as none is under way.
    offer_again: bool,
    sections_to_add: [u32; 2],
    to_send: Vec<Medium>,
}

/// A received packet.
#[derive(Debug, Clone)]
pub struct Got {
    pub at: Instant,
    pub ssrc: u32,
    pub seq: u64,
    pub timestamp: u32,
    pub payload: Vec<u8>,
}

/// A track on its way up.
pub struct Sending {
    pub mid: Mid,
    pub medium: Medium,
    /// Nothing leaves while this is set.
    pub held: bool,
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(session: SessionKey, identity: &str, address: SocketAddr, now: Instant) -> Self {
        Self::with(Codec::Vp8, (session, identity, address), now)
    }

    /// One that knows another video codec beside VP8.
    pub fn with(
        codec: Codec,
        (session, identity, address): (SessionKey, &str, SocketAddr),
        now: Instant,
    ) -> Self {
        let mut rtc = Rtc::builder()
            .set_crypto_provider(dtls::provider())
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_rtp_mode(true)
            .enable_raw_packets(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_vp9(codec == Codec::Vp9)
            .build(now);
        let candidate = Candidate::host(address, Protocol::Udp).expect("a host's address");
        rtc.add_local_candidate(candidate);
        Self {
            session,
            identity: identity.to_owned(),
            address,
            connected: false,
            obliging: true,
            silent: false,
            notices: Vec::new(),
            received: Vec::new(),
            packets_by_ssrc: HashMap::new(),
            track_by_ssrc: HashMap::new(),
            rtx_ssrcs: HashSet::new(),
            key_frames_asked: Vec::new(),
            mid_to_track: Vec::new(),
            sending: Vec::new(),
            requests: Vec::new(),
            outbox: Vec::new(),
            mail: Vec::new(),
            rtc,
            channels: HashMap::new(),
            restart_ice: false,
            pool: Vec::new(),
            quiet: Vec::new(),
            offered: None,
            offers: 0,
            offer_again: false,
            sections_to_add: [POOL; 2],
            to_send: Vec::new(),
        }
    }

    /// Asks to publish `medium` and offers a section for it.
    pub fn publish(&mut self, medium: Medium) {
        let request = Box::new(medium.announcement());
        self.requests.push(Request::AddTrack(request));
        self.to_send.push(medium);
        self.offer();
    }

    /// Offers a section for a backup of the track with this id, and says so.
    pub fn publish_backup(&mut self, track: &TrackSid, medium: Medium) {
        let mut request = Box::new(medium.announcement());
        request.sid = Some(track.clone());
        request.codecs[0].mime = medium.codec.mime().to_owned();
        self.requests.push(Request::AddTrack(request));
        self.to_send.push(medium);
        self.offer();
    }

    /// Stops to send the track with this client id.
    pub fn unpublish(&mut self, cid: &str) {
        if let Some(at) = self.sending.iter().position(|s| s.medium.cid == cid) {
            let gone = self.sending.remove(at);
            self.quiet.push(gone.mid);
            self.offer();
        }
    }

    /// Offers as soon as the last offer was answered.
    pub fn offer(&mut self) {
        self.offer_again = true;
        self.offer_if_free();
    }

    /// Does now what was asked for while it wasn't obliging.
    pub fn oblige(&mut self) {
        self.obliging = true;
        for (audios, videos) in self.asked_for() {
            self.sections_to_add[0] += audios;
            self.sections_to_add[1] += videos;
        }
        self.offer();
    }

    /// Takes the session up again: whatever was under way is forgotten, and ICE starts over.
    pub fn resumed(&mut self, session: SessionKey) {
        self.session = session;
        self.offered = None;
        self.restart_ice = true;
        self.offer();
    }

    /// Sends a data message; whether its channel took it.
    pub fn say(&mut self, label: &str, message: &[u8]) -> bool {
        let id = self.channels.get(label).copied();
        let channel = id.and_then(|id| self.rtc.channel(id));
        channel.is_some_and(|mut channel| channel.write(true, message).unwrap_or(false))
    }

    fn offer_if_free(&mut self) {
        if self.offered.is_some() || !self.offer_again {
            return;
        }
        self.offer_again = false;
        let mut sdp = self.rtc.sdp_api();
        let first = self.offers == 0;
        if first {
            for label in ["_lossy", "_reliable", "_data_track"] {
                sdp.add_channel(label.to_owned());
            }
        }
        if std::mem::take(&mut self.restart_ice) {
            sdp.ice_restart(true);
        }
        // A quiet section was answered inactive, which str0m takes over. Clients keep offering.
        for mid in &self.pool {
            sdp.set_direction(*mid, Direction::RecvOnly);
        }
        for mid in self.quiet.drain(..) {
            sdp.set_direction(mid, Direction::Inactive);
        }
        for (kind, count) in [MediaKind::Audio, MediaKind::Video]
            .into_iter()
            .zip(std::mem::take(&mut self.sections_to_add))
        {
            for _ in 0..count {
                self.pool
                    .push(sdp.add_media(kind, Direction::RecvOnly, None, None, None));
            }
        }
        for medium in self.to_send.drain(..) {
            let simulcast = (medium.layers.len() > 1).then(|| {
                let mut simulcast = Simulcast::new();
                for layer in &medium.layers {
                    simulcast.add_send_layer(SimulcastLayer::new(layer.rid));
                }
                simulcast
            });
            let kind = match medium.kind {
                Kind::Audio => MediaKind::Audio,
                Kind::Video => MediaKind::Video,
            };
            let (stream, track) = (Some("stream".to_owned()), Some(medium.cid.clone()));
            let mid = sdp.add_media(kind, Direction::SendOnly, stream, track, simulcast);
            self.sending.push(Sending {
                mid,
                medium,
                held: false,
            });
        }
        if !sdp.has_changes()
            && let Some(mid) = self.pool.first()
        {
            // str0m offers only changes. There and back is one, and says the same as before.
            sdp.set_direction(*mid, Direction::Inactive);
            sdp.set_direction(*mid, Direction::RecvOnly);
        }
        let (offer, pending) = sdp.apply().expect("an offer needs a change");
        self.offers += 1;
        self.offered = Some((self.offers, pending));
        self.requests.push(Request::Offer {
            id: self.offers,
            sdp: offer.to_sdp_string(),
        });
    }

    /// The server says something.
    pub fn notice(&mut self, notice: Notice) {
        match &notice {
            Notice::Answer {
                id,
                sdp,
                mid_to_track,
            } => self.answered(*id, sdp, mid_to_track),
            Notice::MediaSectionsRequired { audios, videos } if self.obliging => {
                self.sections_to_add[0] += audios;
                self.sections_to_add[1] += videos;
                self.offer();
            }
            // Clients close their connection then.
            Notice::Left(_) | Notice::Refused(_) => self.silent = true,
            _ => {}
        }
        self.notices.push(notice);
    }

    fn answered(&mut self, id: u32, sdp: &str, mid_to_track: &[(String, TrackSid)]) {
        let (offer, pending) = self.offered.take().expect("an answer follows an offer");
        assert_eq!(offer, id, "answers carry the id of their offer");
        let answer = SdpAnswer::from_sdp_string(sdp).expect("answers are SDP");
        self.rtc
            .sdp_api()
            .accept_answer(pending, answer)
            .expect("str0m takes the answer");
        self.mid_to_track = mid_to_track.to_vec();
        let mut track = None;
        for line in sdp.lines() {
            if line.starts_with("m=") {
                track = None;
            } else if let Some(mid) = line.strip_prefix("a=mid:") {
                track = mid_to_track.iter().find(|(known, _)| known == mid);
            } else if let Some(group) = line.strip_prefix("a=ssrc-group:FID ") {
                let rtx = group.split(' ').nth(1).expect("two SSRCs");
                self.rtx_ssrcs.insert(rtx.parse().expect("an SSRC"));
            } else if let Some((ssrc, _)) = line
                .strip_prefix("a=ssrc:")
                .and_then(|rest| rest.split_once(' '))
            {
                let (_, track) = track.expect("only a mapped section has streams");
                let ssrc = ssrc.parse().expect("an SSRC");
                self.track_by_ssrc.insert(ssrc, track.clone());
            }
        }
        self.offer_if_free();
    }

    /// A datagram from the shard.
    pub fn receive(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        let Ok(receive) = Receive::new(Protocol::Udp, source, self.address, datagram) else {
            panic!("the shard sends only what belongs on a media port");
        };
        // What the other side has forgotten already may still be under way.
        let _ = self.rtc.handle_input(Input::Receive(now, receive));
        self.drain(now);
    }

    /// Time passes.
    pub fn tick(&mut self, now: Instant) {
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.drain(now);
    }

    /// The next packets of all tracks of one kind.
    pub fn send_media(&mut self, now: Instant, kind: Kind) {
        if !self.connected {
            return;
        }
        let [vp8, vp9] = [Codec::Vp8, Codec::Vp9].map(|codec| self.payload_type(codec));
        let opus = self.payload_type(Codec::Opus);
        let mut api = self.rtc.direct_api();
        for sending in &mut self.sending {
            if sending.medium.kind != kind || sending.held {
                continue;
            }
            let simulcast = sending.medium.layers.len() > 1;
            let codec = sending.medium.codec;
            let pt = match (kind, codec) {
                (Kind::Audio, _) => opus,
                (Kind::Video, Codec::Vp9) => vp9,
                (Kind::Video, _) => vp8,
            };
            let Some(pt) = pt else { continue };
            for layer in &mut sending.medium.layers {
                let rid = simulcast.then(|| Rid::from(layer.rid));
                let Some(stream) = api.stream_tx_by_mid(sending.mid, rid) else {
                    continue;
                };
                for packet in layer.next(codec, now) {
                    let Content { seq, payload, .. } = &packet;
                    let write =
                        RtpWrite::new(pt, (*seq).into(), packet.timestamp, now, payload.as_slice());
                    stream.write_rtp(write.marker(packet.marker).nackable(kind == Kind::Video));
                    layer.sent.push(packet);
                }
            }
        }
        self.tick(now);
    }

    fn payload_type(&self, codec: Codec) -> Option<Pt> {
        let wanted = match codec {
            Codec::Vp9 => str0m::format::Codec::Vp9,
            Codec::Vp8 => str0m::format::Codec::Vp8,
            _ => str0m::format::Codec::Opus,
        };
        let mut codecs = self.rtc.codec_config().iter();
        let found = codecs.find(|it| it.spec().codec == wanted)?;
        Some(found.pt())
    }

    fn drain(&mut self, now: Instant) {
        while self.rtc.is_alive() {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => {
                    let datagram = transmit.contents.to_vec();
                    self.outbox.push((transmit.destination, datagram));
                }
                Ok(Output::Event(event)) => self.event(now, event),
                Ok(Output::Timeout(_)) | Err(_) => return,
            }
        }
    }

    fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected => self.connected = true,
            Event::ChannelOpen(id, label) => {
                self.channels.insert(label, id);
            }
            Event::ChannelData(message) => self.mail.push(message.data),
            Event::RtpPacket(packet) => self.received.push(Got {
                at: now,
                ssrc: *packet.header.ssrc,
                seq: *packet.seq_no,
                timestamp: packet.header.timestamp,
                payload: packet.payload.to_vec(),
            }),
            Event::KeyframeRequest(request) => {
                self.key_frames_asked.push((now, request.mid, request.rid));
                for sending in &mut self.sending {
                    if sending.mid == request.mid {
                        sending.medium.make_key_frame(request.rid.as_deref());
                    }
                }
            }
            Event::RawPacket(raw) => {
                if let RawPacket::RtpRx(header, _) = *raw {
                    *self.packets_by_ssrc.entry(*header.ssrc).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// The track of a published medium, by its client id.
    pub fn published(&self, cid: &str) -> Option<TrackSid> {
        self.notices.iter().rev().find_map(|notice| match notice {
            Notice::TrackPublished { cid: known, track } if known == cid => Some(track.sid.clone()),
            _ => None,
        })
    }

    /// What came of a track, in order of arrival.
    pub fn received_of(&self, track: &TrackSid) -> Vec<&Got> {
        let of = |got: &&Got| self.track_by_ssrc.get(&got.ssrc) == Some(track);
        self.received.iter().filter(of).collect()
    }

    /// Packets of a track that came as retransmissions.
    pub fn retransmissions_of(&self, track: &TrackSid) -> u64 {
        (self.packets_by_ssrc.iter())
            .filter(|(ssrc, _)| self.rtx_ssrcs.contains(ssrc))
            .filter(|(ssrc, _)| self.track_by_ssrc.get(ssrc) == Some(track))
            .map(|(_, count)| count)
            .sum()
    }

    /// How the stay ended, if it did.
    pub fn departure(&self) -> Option<LeaveReason> {
        self.notices.iter().find_map(|notice| match notice {
            Notice::Left(departure) => Some(departure.reason),
            _ => None,
        })
    }

    /// Whether the session is over.
    pub fn left(&self) -> bool {
        matches!(
            self.notices.last(),
            Some(Notice::Left(_) | Notice::Refused(_))
        )
    }

    /// Sections the server asked for, in order: audio, video.
    pub fn asked_for(&self) -> Vec<(u32, u32)> {
        let asked = self.notices.iter().filter_map(|notice| match notice {
            Notice::MediaSectionsRequired { audios, videos } => Some((*audios, *videos)),
            _ => None,
        });
        asked.collect()
    }

    /// The medium with this client id.
    pub fn medium(&mut self, cid: &str) -> &mut Sending {
        let found = self.sending.iter_mut().find(|s| s.medium.cid == cid);
        found.expect("the medium is sent")
    }
}

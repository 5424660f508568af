//! One client's peer connection: str0m, kept to ICE, DTLS, SCTP and the answering of offers. What
//! the client publishes is in `uplink/`, what we send it in `egress.rs`; they share nothing with it
//! but the keys that [`super::dtls`] sees pass by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::config::{DtlsCert, DtlsVersion};
use str0m::crypto::CryptoProvider;
use str0m::format::FormatParams;
use str0m::ice::StunMessage;
use str0m::media::{Frequency, Pt};
use str0m::net::{DatagramSend, Protocol, Receive};
use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

use super::candidates::Candidates;
use super::checks::Checks;
use super::codec::{Codec, dependency, h264};
use super::data::{Channel, Handed};
use super::demux::{self, Class, Pair};
use super::dtls::{self, KeySlot, Keying};
use super::nomination::Nomination;

/// What a drained peer has to say, in order.
#[derive(Debug)]
pub enum PeerEvent {
    /// ICE and DTLS are up.
    Connected,
    /// The path that the client nominated: local and remote address.
    Path(SocketAddr, SocketAddr),
    /// Send this; ICE, DTLS and SCTP.
    Transmit {
        /// Leaves from here.
        local: SocketAddr,
        /// Goes there.
        remote: SocketAddr,
        /// The datagram.
        contents: DatagramSend,
    },
    /// A data channel of the client opened.
    ChannelOpen(Channel),
    /// A data channel has sent most of what it held.
    ChannelDrained,
    /// A data message; on no channel of ours if `None`.
    Data(Option<Channel>, Vec<u8>),
    /// The client said goodbye.
    Closed,
}

/// str0m could not go on; the participant has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerDead;

/// One client's peer connection.
pub struct Peer {
    rtc: Rtc,
    candidates: Arc<Candidates>,
    nomination: Nomination,
    /// Those that came before.
    checks: Checks,
    /// Where the datagram came that the next drain is for, and when.
    arrival: Option<(Pair, Instant)>,
    keys: KeySlot,
    /// The client's data channels: reliable, lossy.
    channels: [Option<ChannelId>; 2],
    /// Its channel for data tracks, on which nothing comes.
    data_track: Option<ChannelId>,
    /// What our own offer changes, until its answer has come.
    pending: Option<SdpPendingOffer>,
    /// The client said goodbye.
    closed: bool,
}

impl Peer {
    /// A peer that waits for an offer. `crypto` runs its handshake.
    pub fn new(
        crypto: &Arc<CryptoProvider>,
        cert: &DtlsCert,
        candidates: &Arc<Candidates>,
        codecs: &[Codec],
        now: Instant,
    ) -> Result<Self, PeerDead> {
        let mut config = RtcConfig::new()
            .set_crypto_provider(Arc::clone(crypto))
            .set_dtls_cert(cert.clone())
            // The passive DTLS 1.2 side is what gets AES-256-GCM from Chromium.
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .clear_codecs()
            .set_extension(5, Extension::PlayoutDelay)
            .set_extension(
                DEPENDENCY_ID,
                Extension::with_serializer(dependency::URI, RawExtension),
            )
            .set_sctp_max_buffered_amount(CHANNEL_BYTES_MAX);
        for codec in codecs {
            enable(&mut config, *codec);
        }
        if let Some(own) = candidates.own(&IceCreds::new()) {
            config = config.set_local_ice_credentials(own);
        }
        let (mut rtc, keys) = dtls::capture(|| config.build(now));
        for candidate in candidates.local() {
            rtc.add_local_candidate(candidate.map_err(|_| PeerDead)?);
        }
        Ok(Self {
            rtc,
            candidates: Arc::clone(candidates),
            nomination: Nomination::default(),
            checks: Checks::default(),
            arrival: None,
            keys,
            channels: [None; 2],
            data_track: None,
            pending: None,
            closed: false,
        })
    }

    /// Accepts an offer that shows no downstream sections; gives str0m's answer.
    pub fn accept_offer(&mut self, offer: &str) -> Result<String, PeerDead> {
        let offer = SdpOffer::from_sdp_string(offer).map_err(|_| PeerDead)?;
        let answer = self
            .rtc
            .sdp_api()
            .accept_offer(offer)
            .map_err(|_| PeerDead)?
            .to_sdp_string();
        self.own_credentials();
        Ok(self.candidates.replace(&answer))
    }

    /// Makes an offer that has only an application section, and opens these channels once it is
    /// answered.
    pub fn offer_channels(
        &mut self,
        channels: impl IntoIterator<Item = ChannelConfig>,
    ) -> Result<String, PeerDead> {
        let mut changes = self.rtc.sdp_api();
        for channel in channels {
            changes.add_channel_with_config(channel);
        }
        let (offer, pending) = changes.apply().ok_or(PeerDead)?;
        self.pending = Some(pending);
        Ok(self.candidates.replace(&offer.to_sdp_string()))
    }

    /// Makes an offer by which both sides start ICE anew; DTLS and what goes over it stay.
    pub fn offer_restart(&mut self) -> Result<String, PeerDead> {
        let mut changes = self.rtc.sdp_api();
        changes.ice_restart(true);
        let (offer, pending) = changes.apply().ok_or(PeerDead)?;
        self.pending = Some(pending);
        Ok(self.candidates.replace(&offer.to_sdp_string()))
    }

    /// Takes the answer to the newest offer from here. An answer that only repeats an older one
    /// changes nothing.
    pub fn accept_answer(&mut self, answer: &str) -> Result<(), PeerDead> {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        let answer = SdpAnswer::from_sdp_string(answer).map_err(|_| PeerDead)?;
        let accepted = self.rtc.sdp_api().accept_answer(pending, answer);
        self.own_credentials();
        accepted.map_err(|_| PeerDead)
    }

    /// A restart of ICE gave us new credentials; the client was told a fragment that names the
    /// worker.
    fn own_credentials(&mut self) {
        let mut api = self.rtc.direct_api();
        if let Some(own) = self.candidates.own(&api.local_ice_credentials()) {
            api.set_local_ice_credentials(own);
        }
    }

    /// A candidate of the client. What can't be used (mDNS names, TCP) is ignored: with ICE lite
    /// the client checks and its address shows itself.
    pub fn add_candidate(&mut self, candidate: &str) {
        if let Ok(candidate) = Candidate::from_sdp_string(candidate)
            && candidate.proto() == Protocol::Udp
        {
            self.rtc.add_remote_candidate(candidate);
        }
    }

    /// The fragment by which STUN requests name this peer.
    pub fn local_ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// What a STUN request that came on `pair` is worth. A fresh one counts for the path that the
    /// client wants.
    pub fn check(&mut self, now: Instant, pair: Pair, stun: &[u8]) -> Check {
        if !self.authenticates(stun) {
            return Check::Foreign;
        }
        if !self.checks.is_fresh(stun) {
            return Check::Repeated;
        }
        if demux::nominates(stun) {
            self.nomination.nominated(pair, now);
        }
        Check::Fresh
    }

    /// Where what goes to the client goes, once it has said so.
    pub fn path(&self) -> Option<Pair> {
        self.nomination.current()
    }

    /// Something of the client was opened that came on `pair`: media, which is opened elsewhere.
    /// Whether another path is to be taken by that, which [`Peer::drain`] tells.
    pub fn opened(&mut self, now: Instant, pair: Pair) -> bool {
        self.nomination.opened(pair, now);
        self.nomination.has_changed()
    }

    /// Whether a STUN message was made by someone who knows this peer's password (RFC 8489 section
    /// 9.1.4). str0m checks the same, but says nothing of it.
    fn authenticates(&mut self, stun: &[u8]) -> bool {
        let password = self.rtc.direct_api().local_ice_credentials().pass;
        let hmac =
            |key: &[u8], parts: &[&[u8]]| dtls::provider().sha1_hmac_provider.sha1_hmac(key, parts);
        StunMessage::parse(stun).is_ok_and(|message| message.verify(password.as_bytes(), hmac))
    }

    /// Takes one datagram in; follow with [`Peer::drain`]. An error is one bad datagram, which
    /// must not end a session, unless str0m has given up for good.
    pub fn receive(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Unaccepted> {
        self.arrival = Some((Pair { local, remote }, now));
        let protocol = self.candidates.protocol(local);
        let receive =
            Receive::new(protocol, remote, local, datagram).map_err(|_| Unaccepted::Datagram)?;
        match self.rtc.handle_input(Input::Receive(now, receive)) {
            Ok(()) => Ok(()),
            Err(_) if self.rtc.is_alive() => Err(Unaccepted::Datagram),
            Err(_) => Err(Unaccepted::Peer),
        }
    }

    /// Lets time pass; follow with [`Peer::drain`].
    pub fn timeout(&mut self, now: Instant) -> Result<(), PeerDead> {
        self.nomination.settle(now);
        self.rtc
            .handle_input(Input::Timeout(now))
            .map_err(|_| PeerDead)
    }

    /// Moves everything that is ready into `events`; returns when to call [`Peer::timeout`], or
    /// `None` when the client has closed its side and nothing more will come.
    pub fn drain(&mut self, events: &mut Vec<PeerEvent>) -> Result<Option<Instant>, PeerDead> {
        let drained = self.drain_all(events);
        self.arrival = None;
        if let Some(Pair { local, remote }) = self.nomination.take_change() {
            events.push(PeerEvent::Path(local, remote));
        }
        drained
    }

    fn drain_all(&mut self, events: &mut Vec<PeerEvent>) -> Result<Option<Instant>, PeerDead> {
        loop {
            match self.rtc.poll_output().map_err(|_| PeerDead)? {
                Output::Timeout(at) if self.rtc.is_alive() => {
                    let due = self.nomination.due();
                    return Ok(Some(due.map_or(at, |due| due.min(at))));
                }
                Output::Timeout(_) if self.closed => return Ok(None),
                Output::Timeout(_) => return Err(PeerDead),
                Output::Transmit(transmit) => {
                    let (mut local, mut remote) = (transmit.source, transmit.destination);
                    let class = Class::of(&transmit.contents);
                    // RTP of str0m's own would mean that it sends on a stream: it has none.
                    debug_assert_ne!(class, Some(Class::Rtp), "str0m sends no media");
                    // It is shown no media, and has nothing to report.
                    if class == Some(Class::Rtcp) {
                        continue;
                    }
                    // Anything but an answer to a check goes where the client's nomination points.
                    if class != Some(Class::Stun)
                        && let Some(pair) = self.nomination.current()
                    {
                        (local, remote) = (pair.local, pair.remote);
                    }
                    events.push(PeerEvent::Transmit {
                        local,
                        remote,
                        contents: transmit.contents,
                    });
                }
                Output::Event(event) => self.translate(event, events),
            }
        }
    }

    fn translate(&mut self, event: Event, events: &mut Vec<PeerEvent>) {
        // It doesn't come twice of one datagram, if somebody sends that again.
        if let (Event::ChannelData(_), Some((pair, now))) = (&event, self.arrival) {
            self.nomination.opened(pair, now);
        }
        match event {
            Event::Connected => events.push(PeerEvent::Connected),
            Event::ChannelOpen(id, label) => match Channel::of(&label) {
                Some(channel) => {
                    let former = self.channels[channel as usize].replace(id);
                    self.close_channel(former);
                    if let Some(mut opened) = self.rtc.channel(id) {
                        opened.set_buffered_amount_low_threshold(CHANNEL_BYTES_LOW);
                    }
                    events.push(PeerEvent::ChannelOpen(channel));
                }
                // Clients open it without asking, and complain when it closes.
                None if label == DATA_TRACK_LABEL => {
                    let former = self.data_track.replace(id);
                    self.close_channel(former);
                }
                // Nobody listens there. Closing it keeps their number small.
                None => self.rtc.direct_api().close_data_channel(id),
            },
            Event::ChannelClose(id) => {
                for channel in self.channels.iter_mut().chain([&mut self.data_track]) {
                    channel.take_if(|open| *open == id);
                }
            }
            Event::ChannelBufferedAmountLow(_) => events.push(PeerEvent::ChannelDrained),
            Event::ChannelData(message) => {
                let is_from =
                    |channel: &Channel| self.channels[*channel as usize] == Some(message.id);
                let channel = [Channel::Reliable, Channel::Lossy]
                    .into_iter()
                    .find(is_from);
                events.push(PeerEvent::Data(channel, message.data));
            }
            Event::Closed => {
                self.closed = true;
                events.push(PeerEvent::Closed);
            }
            _ => {}
        }
    }

    /// One channel of each label is enough, and all of them are looked at for every message.
    fn close_channel(&mut self, former: Option<ChannelId>) {
        if let Some(former) = former {
            self.rtc.direct_api().close_data_channel(former);
        }
    }

    /// Hands a data message to one of the client's channels; leaves with the next drain.
    pub fn hand_over(&mut self, channel: Channel, message: &[u8]) -> Handed {
        let id = self.channels[channel as usize];
        let Some(mut open) = id.and_then(|id| self.rtc.channel(id)) else {
            return Handed::Closed;
        };
        // Old news is worth less than the room it takes.
        if channel == Channel::Lossy && open.buffered_amount() >= CHANNEL_BYTES_LOW {
            return Handed::Full;
        }
        match open.write(true, message) {
            Ok(true) => Handed::Over,
            Ok(false) => Handed::Full,
            Err(_) => Handed::Closed,
        }
    }

    /// The keys, once, as soon as DTLS has made them.
    pub fn take_keys(&mut self) -> Option<Keying> {
        self.keys.take()
    }
}

/// Whose check it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The client's, for the first time.
    Fresh,
    /// The client's, but it came before: its own repetition, or somebody's who reads along.
    Repeated,
    /// Somebody's who doesn't know the password.
    Foreign,
}

/// Who is to blame for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaccepted {
    /// This datagram alone.
    Datagram,
    /// The peer can't go on.
    Peer,
}

/// Where the extension stands until an offer says otherwise; Chromium's own place for it.
const DEPENDENCY_ID: u8 = 12;

/// Adds what is negotiated of a codec. The payload types are only what str0m would offer by itself;
/// in answers it echoes those of the client.
fn enable(config: &mut RtcConfig, codec: Codec) {
    use str0m::format::Codec as Format;
    let config = config.codec_config();
    match codec {
        Codec::Opus => config.enable_opus(true, false),
        // str0m folds it into Opus, and hands its packets on as they are.
        Codec::Red => config.enable_opus(true, true),
        Codec::Vp8 => config.enable_vp8(true),
        Codec::H264 => {
            for (form, pt) in h264::Format::ALL.into_iter().zip([108, 102, 114, 104]) {
                let (pt, rtx) = (Pt::new_with_value(pt), Pt::new_with_value(pt + 1));
                config.add_h264(pt, Some(rtx), form.fragments, form.profile_level_id());
            }
        }
        // Profile 0 alone: no browser makes anything else.
        Codec::Vp9 => config.add_config(
            Pt::new_with_value(98),
            Some(Pt::new_with_value(99)),
            Format::Vp9,
            Frequency::NINETY_KHZ,
            None,
            FormatParams {
                profile_id: Some(0),
                ..FormatParams::default()
            },
        ),
        Codec::Av1 => config.enable_av1(true),
    }
}

/// Has str0m negotiate that extension: it answers for those only that somebody reads.
#[derive(Debug)]
struct RawExtension;

impl ExtensionSerializer for RawExtension {
    fn write_to(&self, _: &mut [u8], _: &ExtensionValues) -> usize {
        // str0m sends no media here.
        0
    }

    fn parse_value(&self, _: &[u8], _: &mut ExtensionValues) -> bool {
        // Nor is it shown any.
        false
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }
}

/// The channel of data tracks, which there are none of: what comes on it is dropped.
const DATA_TRACK_LABEL: &str = "_data_track";

/// Bytes that SCTP holds for a client until they are acknowledged: 20 Mbit/s at a round trip of
/// 100 ms. More waits in the participant's own queue.
const CHANNEL_BYTES_MAX: usize = 256 * 1024;

/// Below this a channel asks for more; above it, lossy messages are dropped.
const CHANNEL_BYTES_LOW: usize = CHANNEL_BYTES_MAX / 4;

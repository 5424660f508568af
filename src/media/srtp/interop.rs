//! Whether str0m agrees: two of its peers shake hands in memory, one of them ours with its keys
//! noted, the other in the place of a browser. Each suite goes all the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider, from_feature_flags};
use str0m::media::{KeyframeRequestKind, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RawPacket;
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::super::dtls::{self, KeySlot, Keying};
use super::*;

const SSRC: u32 = 4711;

/// Both ends of a handshake and what they said since it was last looked at.
struct Pair {
    now: Instant,
    sfu: Peer,
    browser: Peer,
}

struct Peer {
    rtc: Rtc,
    keys: KeySlot,
    address: SocketAddr,
    events: Vec<Event>,
    sent: Vec<Vec<u8>>,
}

impl Peer {
    fn new(now: Instant, port: u16, crypto: &Arc<CryptoProvider>) -> Self {
        let (mut rtc, keys) = dtls::capture(|| {
            Rtc::builder()
                .set_crypto_provider(Arc::clone(crypto))
                .set_dtls_version(DtlsVersion::Dtls12)
                .set_rtp_mode(true)
                .enable_raw_packets(true)
                .build(now)
        });
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        let candidate = Candidate::host(address, "udp").expect("the address is a host's");
        rtc.add_local_candidate(candidate);
        Self {
            rtc,
            keys,
            address,
            events: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Tells this side of the other one and starts the handshake.
    fn meet(&mut self, other: &mut Self, active: bool) {
        let candidate = Candidate::host(other.address, "udp").expect("the address is a host's");
        self.rtc.add_remote_candidate(candidate);
        let fingerprint = other.rtc.direct_api().local_dtls_fingerprint().clone();
        let credentials = other.rtc.direct_api().local_ice_credentials();
        let mut api = self.rtc.direct_api();
        api.set_remote_fingerprint(fingerprint);
        api.set_remote_ice_credentials(credentials);
        api.set_ice_controlling(active);
        api.start_dtls(active).expect("dtls starts");
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().expect("the peer lives") {
                Output::Timeout(_) => return,
                Output::Transmit(transmit) => self.sent.push(transmit.contents.to_vec()),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn receive(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        let receive = Receive::new(Protocol::Udp, source, self.address, datagram)
            .expect("the datagram is of a known kind");
        let input = Input::Receive(now, receive);
        self.rtc.handle_input(input).expect("the peer lives");
        self.drain();
    }

    fn tick(&mut self, now: Instant) {
        self.rtc
            .handle_input(Input::Timeout(now))
            .expect("the peer lives");
        self.drain();
    }
}

impl Pair {
    /// A connected pair; ours is passive, as with clients.
    fn connect(crypto: &Arc<CryptoProvider>) -> Self {
        let now = Instant::now();
        let mut sfu = Peer::new(now, 1000, crypto);
        let mut browser = Peer::new(now, 2000, crypto);
        sfu.meet(&mut browser, false);
        browser.meet(&mut sfu, true);
        let mut pair = Self { now, sfu, browser };
        for _ in 0..200 {
            pair.step();
        }
        assert!(pair.sfu.rtc.is_connected() && pair.browser.rtc.is_connected());
        pair
    }

    /// Five milliseconds; returns what the browser sent in them.
    fn step(&mut self) -> Vec<Vec<u8>> {
        self.now += Duration::from_millis(5);
        self.sfu.tick(self.now);
        self.browser.tick(self.now);
        for datagram in std::mem::take(&mut self.sfu.sent) {
            self.browser.receive(self.now, self.sfu.address, &datagram);
        }
        let sent = std::mem::take(&mut self.browser.sent);
        for datagram in &sent {
            self.sfu.receive(self.now, self.browser.address, datagram);
        }
        sent
    }

    fn keys(&mut self) -> (Keying, Keying) {
        let sfu = self.sfu.keys.take().expect("connected peers have keys");
        let browser = self.browser.keys.take().expect("connected peers have keys");
        assert!(self.sfu.keys.take().is_none(), "there is one copy");
        (sfu, browser)
    }

    /// The browser takes video from us on [`SSRC`]; returns the payload type.
    fn expect_video(&mut self) -> u8 {
        let mut api = self.browser.rtc.direct_api();
        api.declare_media("vid".into(), MediaKind::Video);
        api.expect_stream_rx(SSRC.into(), None, "vid".into(), None);
        let codec = self.browser.rtc.codec_config();
        let video = codec.iter().filter(|codec| codec.spec().codec.is_video());
        *video.map(|codec| codec.pt()).next().expect("str0m has VP8")
    }
}

fn rtp(payload_type: u8, index: u64) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend_from_slice(&(index as u16).to_be_bytes());
    packet.extend_from_slice(&(index as u32 * 3000).to_be_bytes());
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend_from_slice(&index.to_be_bytes());
    packet
}

/// A sender report without blocks.
fn sender_report() -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend_from_slice(&[1; 20]);
    packet
}

#[test]
fn both_sides_note_the_same_keys() {
    let mut pair = Pair::connect(&dtls::provider());
    let (sfu, browser) = pair.keys();
    assert_eq!(sfu.suite, Suite::AeadAes256Gcm);
    assert_eq!(browser.suite, Suite::AeadAes256Gcm);
    assert!(sfu.local.is_same(&browser.remote));
    assert!(sfu.remote.is_same(&browser.local));
    assert!(!sfu.local.is_same(&sfu.remote));
}

#[test]
fn str0m_opens_what_we_seal_across_a_rollover() {
    for profile in SrtpProfile::ALL {
        let mut pair = Pair::connect(&narrowed(*profile));
        let payload_type = pair.expect_video();
        let (keys, _) = pair.keys();
        let mut stream = Sealer::new(keys.local)
            .register(OwnSsrc::claim(SSRC))
            .expect("room");
        for index in 0xfffd..0x1_0004 {
            let mut packet = rtp(payload_type, index);
            stream
                .seal_rtp(&mut packet, 0, RTP_HEADER, index)
                .expect("a new index");
            let source = pair.sfu.address;
            pair.browser.receive(pair.now, source, &packet);
        }
        let opened: Vec<u64> = (pair.browser.events.iter())
            .filter_map(|event| match event {
                Event::RtpPacket(packet) => packet.payload.as_ref().try_into().ok(),
                _ => None,
            })
            .map(u64::from_be_bytes)
            .collect();
        assert_eq!(opened, (0xfffd..0x1_0004).collect::<Vec<_>>(), "{profile}");
    }
}

#[test]
fn rtcp_passes_between_str0m_and_us() {
    for profile in SrtpProfile::ALL {
        let mut pair = Pair::connect(&narrowed(*profile));
        let payload_type = pair.expect_video();
        let (keys, _) = pair.keys();
        let mut opener = Opener::new(keys.remote);
        let mut sealer = Sealer::new(keys.local);
        let mut stream = sealer.register(OwnSsrc::claim(SSRC)).expect("room");

        let mut packet = rtp(payload_type, 1);
        stream
            .seal_rtp(&mut packet, 0, RTP_HEADER, 1)
            .expect("a new index");
        let mut report = sender_report();
        stream.seal_rtcp(&mut report, 0).expect("a new index");
        for datagram in [packet, report] {
            let source = pair.sfu.address;
            pair.browser.receive(pair.now, source, &datagram);
        }
        let reports = (pair.browser.events.iter())
            .filter(|event| matches!(event.as_raw_packet(), Some(RawPacket::RtcpRx(_))))
            .count();
        assert_eq!(reports, 1, "{profile}: str0m opens our report");

        let mut api = pair.browser.rtc.direct_api();
        api.stream_rx(&SSRC.into())
            .expect("the browser has the stream")
            .request_keyframe(KeyframeRequestKind::Pli);
        let mut plain = Vec::new();
        let mut opened = Vec::new();
        for _ in 0..400 {
            for datagram in pair.step() {
                if matches!(datagram[..2], [128..=191, 192..=223]) {
                    assert_eq!(opener.open_rtcp(&datagram, &mut plain), Ok(()), "{profile}");
                    opened.extend_from_slice(&plain);
                }
            }
        }
        // Payload-specific feedback 1, with any sender, for our SSRC.
        let is_pli =
            |at: &[u8]| at.starts_with(&[0x81, 206, 0, 2]) && at[8..] == SSRC.to_be_bytes();
        assert!(opened.windows(12).any(is_pli), "{profile}: we open its PLI");
    }
}

/// A provider whose handshakes end in one profile, whatever they would have agreed on. Both ends
/// cut the same exported bytes to its length.
fn narrowed(profile: SrtpProfile) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        dtls_provider: Box::leak(Box::new(NarrowProvider(profile))),
        ..from_feature_flags()
    })
}

#[derive(Debug)]
struct NarrowProvider(SrtpProfile);

#[derive(Debug)]
struct Narrow {
    inner: Box<dyn DtlsInstance>,
    profile: SrtpProfile,
}

impl DtlsProvider for NarrowProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        dtls_version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let provider = from_feature_flags().dtls_provider;
        let inner = provider.new_dtls(cert, now, dtls_version, mtu)?;
        let profile = self.0;
        Ok(dtls::watch(Box::new(Narrow { inner, profile })))
    }
}

impl DtlsInstance for Narrow {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        match self.inner.poll_output(buf) {
            DtlsOutput::KeyingMaterial(material, _) => {
                let cut = &material[..self.profile.keying_material_len()];
                DtlsOutput::KeyingMaterial(KeyingMaterial::new(cut), self.profile)
            }
            other => other,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}

//! Our own offers at the level of one peer: answered, and answered again after an ICE restart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::SdpOffer;
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::config::DtlsVersion;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::call;
use crate::media::ShardConfig;
use crate::media::candidates::Candidates;
use crate::media::dtls;
use crate::media::peer::{Peer, PeerEvent};

const STEP: Duration = Duration::from_millis(5);

/// A peer and a client that answers its offers, with nothing between them.
struct Pair {
    now: Instant,
    peer: Peer,
    client: Rtc,
    client_address: SocketAddr,
    /// What the peer received on its channels.
    data: usize,
    /// Channels the client saw open.
    open: Vec<(ChannelId, String)>,
    connected: bool,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let server_address = SocketAddr::from(([127, 0, 0, 1], 7882));
        let client_address = SocketAddr::from(([127, 0, 0, 1], 20_000));
        let cert = dtls::provider().dtls_provider.generate_certificate();
        let cert = cert.expect("a certificate");
        let candidates = Candidates::new(&ShardConfig {
            local: vec![server_address],
            told: vec![server_address],
            ..call::config()
        });
        let peer = Peer::new(&dtls::provider(), &cert, &Arc::new(candidates), &[], now);
        let mut client = Rtc::builder()
            .set_crypto_provider(dtls::provider())
            .set_dtls_version(DtlsVersion::Dtls12)
            .build(now);
        let candidate = Candidate::host(client_address, Protocol::Udp).expect("a host's address");
        client.add_local_candidate(candidate);
        Self {
            now,
            peer: peer.expect("a peer"),
            client,
            client_address,
            data: 0,
            open: Vec::new(),
            connected: false,
        }
    }

    fn negotiate(&mut self, offer: &str) {
        let offer = SdpOffer::from_sdp_string(offer).expect("an offer");
        let answer = self.client.sdp_api().accept_offer(offer);
        let answer = answer.expect("an answer").to_sdp_string();
        self.peer.accept_answer(&answer).expect("a useful answer");
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.now += STEP;
            self.peer.timeout(self.now).expect("alive");
            self.flush_peer();
            self.client
                .handle_input(Input::Timeout(self.now))
                .expect("alive");
            self.flush_client();
        }
    }

    fn flush_peer(&mut self) {
        let mut events = Vec::new();
        self.peer.drain(&mut events).expect("alive");
        for event in events {
            match event {
                PeerEvent::Transmit {
                    local,
                    remote,
                    contents,
                } => {
                    assert_eq!(remote, self.client_address);
                    let received = Receive::new(Protocol::Udp, local, remote, &contents);
                    let input = Input::Receive(self.now, received.expect("a datagram"));
                    self.client.handle_input(input).expect("alive");
                    self.flush_client();
                }
                PeerEvent::Data(..) => self.data += 1,
                _ => {}
            }
        }
    }

    fn flush_client(&mut self) {
        loop {
            match self.client.poll_output().expect("alive") {
                Output::Timeout(_) => break,
                Output::Transmit(sent) => {
                    let (from, to) = (sent.source, sent.destination);
                    let _ = self.peer.receive(self.now, to, from, &sent.contents);
                    self.flush_peer();
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::ChannelOpen(id, label)) => self.open.push((id, label)),
                Output::Event(_) => {}
            }
        }
    }

    fn say(&mut self) {
        let (id, _) = self.open[0];
        let mut channel = self.client.channel(id).expect("an open channel");
        assert!(channel.write(true, b"hello").expect("alive"));
        self.run(100);
    }
}

#[test]
fn an_ice_restart_of_ours_changes_the_path_and_nothing_else() {
    let mut pair = Pair::new();
    let channel = ChannelConfig {
        label: "_reliable".to_owned(),
        ..ChannelConfig::default()
    };
    let offer = pair.peer.offer_channels([channel]).expect("an offer");
    pair.negotiate(&offer);
    pair.run(1000);
    assert!(pair.connected && pair.peer.take_keys().is_some());
    assert_eq!(pair.open.len(), 1);
    pair.say();
    assert_eq!(pair.data, 1);
    let before = pair.peer.local_ufrag();
    let offer = pair.peer.offer_restart().expect("an offer");
    assert!(!offer.contains(&before), "new credentials are offered");
    pair.run(100);
    assert_eq!(
        pair.peer.local_ufrag(),
        before,
        "until the answer nothing changes"
    );
    pair.negotiate(&offer);
    assert_ne!(pair.peer.local_ufrag(), before);
    pair.run(500);
    pair.say();
    assert_eq!(pair.data, 2, "the same channel, over the new path");
    assert!(pair.peer.take_keys().is_none(), "no second handshake");
}

//! Two peers of str0m in virtual time, joined by a link: ICE, DTLS, SRTP and all feedback are real.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::config::DtlsVersion;
use str0m::crypto::from_feature_flags;
use str0m::media::MediaKind;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::sim::Link;
use crate::sim::network::Path;
use crate::sim::receiving::Header;

/// SSRC of the picture.
pub const PICTURE: u32 = 1;
/// SSRC of what is sent again of the picture.
pub const REPAIR: u32 = 2;
/// SSRC of the sound.
pub const SOUND: u32 = 3;

/// A peer that wants to be woken at once waits this long, or time would stand still.
const RESOLUTION: Duration = Duration::from_micros(100);

/// A handshake without delay takes less.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It sends picture and sound.
    Sender,
    /// It receives them.
    Viewer,
}

/// What a peer has to say.
pub struct Said {
    /// When.
    pub at: Instant,
    /// Which of them.
    pub end: End,
    /// What.
    pub event: Event,
    /// It comes of a retransmission.
    pub repaired: bool,
}

/// Both peers and what is on its way between them.
pub struct Pair {
    /// The virtual time.
    pub now: Instant,
    sender: Peer,
    viewer: Peer,
    down: Path,
    up: Path,
    /// By arrival, then in the order of sending: to whom, and what.
    under_way: BTreeMap<(Instant, u64), (End, Vec<u8>)>,
    sent: u64,
    said: Vec<Said>,
}

struct Peer {
    rtc: Rtc,
    address: SocketAddr,
    /// When it wants to be woken.
    due: Instant,
}

impl Peer {
    fn new(now: Instant, port: u16, config: RtcConfig) -> Self {
        let mut rtc = config
            .set_crypto_provider(Arc::new(from_feature_flags()))
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_rtp_mode(true)
            .build(now);
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        rtc.add_local_candidate(candidate(address));
        let due = now;
        Self { rtc, address, due }
    }

    /// Tells this one of the other one.
    fn meet(&mut self, other: &mut Self, active: bool) {
        self.rtc.add_remote_candidate(candidate(other.address));
        let theirs = other.rtc.direct_api();
        let fingerprint = theirs.local_dtls_fingerprint().clone();
        let credentials = theirs.local_ice_credentials();
        let mut api = self.rtc.direct_api();
        api.set_remote_fingerprint(fingerprint);
        api.set_remote_ice_credentials(credentials);
        api.set_ice_controlling(active);
        api.start_dtls(active).expect("it starts once");
    }
}

fn candidate(address: SocketAddr) -> Candidate {
    Candidate::host(address, "udp").expect("the address is a host's")
}

impl Pair {
    /// A connected pair; so far nothing is between them. `config` is the sender's.
    pub fn connected(now: Instant, config: RtcConfig) -> Self {
        let mut sender = Peer::new(now, 1000, config);
        let mut viewer = Peer::new(now, 2000, Rtc::builder());
        sender.meet(&mut viewer, false);
        viewer.meet(&mut sender, true);
        let nothing = || Path::new(&[], fastrand::Rng::new());
        let mut pair = Self {
            now,
            sender,
            viewer,
            down: nothing(),
            up: nothing(),
            under_way: BTreeMap::new(),
            sent: 0,
            said: Vec::new(),
        };
        let connected =
            |pair: &Self| pair.sender.rtc.is_connected() && pair.viewer.rtc.is_connected();
        while !connected(&pair) && pair.now < now + HANDSHAKE {
            pair.run(Duration::from_millis(1));
        }
        debug_assert!(connected(&pair), "nothing is in its way");
        pair
    }

    /// From now on this link is between them, and they know of picture and sound.
    pub fn open(&mut self, link: &Link, random: &mut fastrand::Rng) {
        self.down = Path::new(&link.down, random.fork());
        self.up = Path::new(&link.up, random.fork());
        let streams = [
            (MediaKind::Video, "picture", PICTURE, Some(REPAIR)),
            (MediaKind::Audio, "sound", SOUND, None),
        ];
        for (kind, mid, ssrc, repair) in streams {
            let (mid, ssrc, repair) = (mid.into(), ssrc.into(), repair.map(Into::into));
            let mut api = self.tell(End::Sender).direct_api();
            api.declare_media(mid, kind);
            api.declare_stream_tx(ssrc, repair, mid, None);
            let mut api = self.tell(End::Viewer).direct_api();
            api.declare_media(mid, kind);
            api.expect_stream_rx(ssrc, repair, mid, None);
            api.enable_twcc_feedback();
        }
    }

    /// One of them, to be told something; what comes of it follows with the next [`Self::run`].
    pub fn tell(&mut self, end: End) -> &mut Rtc {
        let now = self.now;
        let peer = self.peer(end);
        peer.due = now;
        &mut peer.rtc
    }

    /// Lets time pass; what they had to say in it.
    pub fn run(&mut self, span: Duration) -> Vec<Said> {
        let end = self.now + span;
        loop {
            let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let wakes = [self.sender.due, self.viewer.due];
            let Some(next) = arrival.into_iter().chain(wakes).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrival == Some(next) {
                self.deliver();
            } else if self.sender.due == next {
                self.take(End::Sender, Input::Timeout(self.now), false);
            } else {
                self.take(End::Viewer, Input::Timeout(self.now), false);
            }
        }
        self.now = end;
        std::mem::take(&mut self.said)
    }

    fn peer(&mut self, end: End) -> &mut Peer {
        match end {
            End::Sender => &mut self.sender,
            End::Viewer => &mut self.viewer,
        }
    }

    fn deliver(&mut self) {
        let Some((_, (end, datagram))) = self.under_way.pop_first() else {
            return;
        };
        let (from, to) = match end {
            End::Sender => (self.viewer.address, self.sender.address),
            End::Viewer => (self.sender.address, self.viewer.address),
        };
        // The events don't say so any more.
        let repaired = Header::parse(&datagram).is_some_and(|header| header.ssrc == REPAIR);
        let receive = Receive::new(Protocol::Udp, from, to, &datagram);
        let receive = receive.expect("str0m knows its own datagrams");
        self.take(end, Input::Receive(self.now, receive), repaired);
    }

    /// Gives something to one of them and takes all that comes of it.
    fn take(&mut self, end: End, input: Input<'_>, repaired: bool) {
        let now = self.now;
        let peer = self.peer(end);
        peer.rtc.handle_input(input).expect(LIVES);
        loop {
            let peer = self.peer(end);
            match peer.rtc.poll_output().expect(LIVES) {
                Output::Timeout(at) => {
                    peer.due = at.max(now + RESOLUTION);
                    return;
                }
                Output::Event(event) => self.said.push(Said {
                    at: now,
                    end,
                    event,
                    repaired,
                }),
                Output::Transmit(transmit) => {
                    let (path, to) = match end {
                        End::Sender => (&mut self.down, End::Viewer),
                        End::Viewer => (&mut self.up, End::Sender),
                    };
                    if let Some(at) = path.carry(now, transmit.contents.len()) {
                        self.sent += 1;
                        let datagram = transmit.contents.to_vec();
                        self.under_way.insert((at, self.sent), (to, datagram));
                    }
                }
            }
        }
    }
}

/// A peer ends by its own fault or when it is told to.
const LIVES: &str = "nobody ends a peer of this pair";

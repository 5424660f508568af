//! A room in memory: one publisher, its viewers, the shard between them, and a virtual clock.
//!
//! The clients are the simulator's, whose keys come without a handshake, so a thousand of them
//! connect in seconds; all that the shard does is production code. AES-128-GCM.
//!
//! What viewers say is left out, unless asked for: what a packet costs on its way, and what
//! feedback costs, are two things.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stellwerk::media::counters::Counters;
use stellwerk::media::demux::Class;
use stellwerk::media::message::{ClientInfo, Command, Join, Kind, Notice, Permissions, Transmit};
use stellwerk::media::ntp::Ntp;
use stellwerk::media::{Input, Output, Shard, fixed_keys};
use stellwerk::sim::medium::Frames;
use stellwerk::sim::{Client, Medium, World, meeting};
use stellwerk::units::Bitrate;

/// Packets of each frame: at [`RATE`], and with a descriptor, each has about [`PAYLOAD`] bytes.
pub const PACKETS: usize = 4;

/// Bytes of a payload, as libwebrtc cuts frames.
pub const PAYLOAD: usize = 1094;

/// Of each camera.
const RATE: Bitrate = Bitrate::kbps(1050);

/// Of a picture so small that fifty of them are within what a viewer is first believed to take:
/// one packet of 83 bytes for each frame.
pub const RATE_SMALL: Bitrate = Bitrate::kbps(20);

/// Between two frames, as the cameras have it.
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// How finely time passes while everybody connects.
const STEP: Duration = Duration::from_millis(10);

/// Nobody takes longer to connect.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than any register of the shard holds of a stream.
const WARM_FRAMES: usize = 5000 / PACKETS;

/// Who publishes, and the first of those who view.
const PUBLISHER: usize = 0;
const VIEWER: usize = 1;

/// A publisher with some cameras, and viewers who have all of them.
pub struct Room {
    pub now: Instant,
    shard: Shard,
    local: SocketAddr,
    clients: Vec<Client>,
    world: World,
    start: Instant,
    cameras: usize,
}

/// What arrives in one wake: the packets of one frame, sealed.
pub struct Frame {
    at: Instant,
    datagrams: Vec<Vec<u8>>,
}

impl Room {
    /// All are connected, and every picture runs.
    pub fn new(viewers: usize, cameras: usize) -> Self {
        Self::with_rate(viewers, cameras, RATE)
    }

    /// The same with pictures of another rate.
    pub fn with_rate(viewers: usize, cameras: usize, rate: Bitrate) -> Self {
        fastrand::seed(1);
        #[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
        let now = Instant::now();
        let mut config = meeting::config(1, now);
        config.limits.participants_per_room = viewers + 1;
        let mut room = Self {
            now,
            local: config.local[0],
            shard: fixed_keys::shard(config),
            clients: Vec::new(),
            world: World::default(),
            start: now,
            cameras,
        };
        for number in 0..=viewers {
            room.enter(number);
        }
        room.until(|room| room.clients.iter().all(|client| client.connected));
        for number in 0..cameras {
            let camera = Medium {
                cid: format!("camera {number}"),
                kind: Kind::Video,
                rates: vec![rate],
                frames: Frames::Equal,
            };
            room.clients[PUBLISHER].publish(camera, room.now);
        }
        room.until(|room| {
            let viewers = room.clients.iter().skip(1);
            viewers
                .clone()
                .all(|viewer| viewer.incoming.len() == cameras)
        });
        // The first key frames are through after that, and every memory has its size.
        let warm = room.now + Duration::from_secs(1);
        room.until(|room| room.now >= warm);
        for _ in 0..WARM_FRAMES {
            let frames = room.frames();
            room.take(&frames, &mut |_| {});
        }
        room
    }

    fn enter(&mut self, number: usize) {
        let identity = format!("client {number}");
        let random = fastrand::Rng::with_seed(number as u64);
        let client = Client::new(number as u16, &identity, random, self.now);
        let join = Join {
            session: client.session,
            room: "room".into(),
            create_room: true,
            home: None,
            identity: identity.as_str().into(),
            name: String::new(),
            metadata: String::new(),
            attributes: Default::default(),
            permissions: Permissions {
                publish: true,
                sources: Vec::new(),
                subscribe: true,
                publish_data: true,
                update_metadata: false,
                hidden: false,
            },
            auto_subscribe: true,
            adaptive_stream: false,
            may_pause: None,
            two_connections: false,
            client: ClientInfo {
                protocol: 16,
                ..ClientInfo::default()
            },
        };
        self.clients.push(client);
        let command = Command::Join(Box::new(join));
        self.shard.handle(self.now, Input::Command(command));
        self.collect();
    }

    /// Lets everybody do what is due, until something is so.
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = self.now + PATIENCE;
        while !done(self) {
            assert!(self.now < end, "it should have happened by now");
            self.now += STEP;
            for number in 0..self.clients.len() {
                self.beat(number);
                for datagram in std::mem::take(&mut self.clients[number].outbox) {
                    self.arrive(number, &datagram.bytes);
                }
                let client = &mut self.clients[number];
                for request in std::mem::take(&mut client.requests) {
                    let command = Command::Request(client.session, request);
                    self.shard.handle(self.now, Input::Command(command));
                }
            }
            self.shard.handle(self.now, Input::Timeout);
            self.collect();
        }
    }

    fn beat(&mut self, number: usize) {
        let unix = Duration::from_secs(1_800_000_000) + (self.now - self.start);
        self.clients[number].beat(self.now, Ntp::from_unix(unix));
    }

    fn arrive(&mut self, from: usize, contents: &[u8]) {
        let input = Input::Datagram {
            local: self.local,
            remote: self.clients[from].address,
            contents,
        };
        self.shard.handle(self.now, input);
    }

    /// Everything goes from the shard to whom it is for.
    fn collect(&mut self) {
        loop {
            match self.shard.poll() {
                Output::Transmit(transmit) => {
                    let number =
                        usize::from(transmit.remote.port() - self.clients[0].address.port());
                    let size = transmit.segment.unwrap_or(transmit.contents.len());
                    for datagram in transmit.contents.chunks(size) {
                        self.clients[number].receive(self.now, datagram, &self.world);
                    }
                }
                Output::Notice(session, notice) => {
                    let client = &mut self.clients[session.0 as usize];
                    if let Notice::TrackPublished { cid, track } = &notice {
                        let own = client.published.iter().find(|own| own.medium.cid == *cid);
                        let number = own.expect("it was asked for").number;
                        self.world
                            .published(&track.sid, Kind::Video, (client.number, number));
                    }
                    client.notice(self.now, &notice, &self.world);
                }
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }

    /// The next frame of every camera. Time goes on by that.
    pub fn frames(&mut self) -> Vec<Frame> {
        self.now += FRAME;
        self.beat(PUBLISHER);
        let mut frames = Vec::with_capacity(self.cameras);
        let mut datagrams = Vec::with_capacity(PACKETS);
        for datagram in self.clients[PUBLISHER].outbox.drain(..) {
            if Class::of(&datagram.bytes) != Some(Class::Rtp) {
                continue;
            }
            let ends = datagram.bytes[1] & 0x80 != 0;
            datagrams.push(datagram.bytes);
            if ends {
                frames.push(Frame {
                    at: self.now,
                    datagrams: std::mem::take(&mut datagrams),
                });
            }
        }
        frames
    }

    /// Frames arrive one after the other, and everything is taken that comes of each.
    pub fn take(&mut self, frames: &[Frame], out: &mut impl FnMut(&Transmit<'_>)) {
        let remote = self.clients[PUBLISHER].address;
        for Frame { at, datagrams } in frames {
            for contents in datagrams {
                let input = Input::Datagram {
                    local: self.local,
                    remote,
                    contents,
                };
                self.shard.handle(*at, input);
            }
            self.drain(out);
        }
    }

    /// The first viewer loses a packet of eight; what it says when it misses that.
    pub fn lose(&mut self) -> Vec<u8> {
        for datagram in self.next_of_viewer() {
            self.receive(&datagram);
        }
        let mut sent = self.next_of_viewer();
        // What else is due is said before.
        self.beat(VIEWER);
        for datagram in std::mem::take(&mut self.clients[VIEWER].outbox) {
            self.arrive(VIEWER, &datagram.bytes);
        }
        self.drain(&mut |_| {});
        // That it is missing shows by the one behind it.
        sent.remove(sent.len() - 2);
        for datagram in sent {
            self.receive(&datagram);
        }
        self.beat(VIEWER);
        let mut said = self.clients[VIEWER].outbox.drain(..);
        let said = said.next().expect("a viewer asks for what is missing");
        assert_eq!(Class::of(&said.bytes), Some(Class::Rtcp));
        said.bytes
    }

    /// The next frame, as the first viewer is sent it.
    fn next_of_viewer(&mut self) -> Vec<Vec<u8>> {
        let address = self.clients[VIEWER].address;
        let mut sent = Vec::new();
        let frames = self.frames();
        self.take(&frames, &mut |transmit| {
            let size = transmit.segment.unwrap_or(transmit.contents.len());
            if transmit.remote == address {
                sent.extend(transmit.contents.chunks(size).map(<[u8]>::to_vec));
            }
        });
        sent
    }

    /// The first viewer's feedback arrives; what it is answered ends up in `out`.
    pub fn answer(&mut self, feedback: &[u8], out: &mut Vec<u8>) {
        self.arrive(VIEWER, feedback);
        self.drain(&mut |transmit| out.extend_from_slice(transmit.contents));
    }

    /// A datagram reaches the first viewer.
    pub fn receive(&mut self, datagram: &[u8]) {
        self.clients[VIEWER].receive(self.now, datagram, &self.world);
    }

    /// How many view.
    pub fn viewers(&self) -> usize {
        self.clients.len() - 1
    }

    /// What the shard has counted.
    pub fn counters(&self) -> Counters {
        self.shard.counters()
    }

    fn drain(&mut self, out: &mut impl FnMut(&Transmit<'_>)) {
        loop {
            match self.shard.poll() {
                Output::Transmit(transmit) => out(&transmit),
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }
}

//! A shard and its clients in memory, on virtual time: datagrams take one step, weather may lose
//! some of them, and the books on every datagram are kept (`ledger.rs`). Stories in the files
//! beside this one read as what people do.

use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use super::client::Client;
use super::ledger::Ledger;
use super::track::Medium;
use crate::ids::{RoomName, SessionKey, TrackSid, WorkerId};
use crate::media::counters::Counters;
use crate::media::demux::Class;
use crate::media::message::administration::{Answer, Event, Question, RoomRequest, Ticket};
use crate::media::message::{
    ClientInfo, Codec, Command, Join, Kind, Notice, Permissions, Quality, Request, Resume,
    SignalEnd, TrackSettings,
};
use crate::media::relay::{Parcel, Weight};
use crate::media::{Input, Limits, Output, Shard, ShardConfig};

/// Time moves in such steps; a datagram takes one.
pub const STEP: Duration = Duration::from_millis(5);

const AUDIO_EVERY: u32 = 4;
const VIDEO_EVERY: u32 = 8;

/// Datagrams from clients kept for tests that want some: the newest.
const KEPT: usize = 4000;

/// The address of the first shard.
pub const LOCAL: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1)),
    7882,
);

/// A client of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who(pub usize);

/// Shards that the clients of each test are spread over, one after the other, from this variable of
/// the environment; one without it. Whatever a test tells, it doesn't matter how many there are.
const WORKERS: &str = "STELLWERK_TEST_WORKERS";

/// Shards, their clients and the network between them.
pub struct Call {
    pub now: Instant,
    /// The first one, which has the home of every room.
    pub shard: Shard,
    /// Others, with branches.
    pub branches: Vec<Shard>,
    pub clients: Vec<Client>,
    pub weather: Weather,
    pub ledger: Ledger,
    pub closed: Vec<RoomName>,
    pub answers: Vec<(Ticket, Answer)>,
    pub events: Vec<Event>,
    /// What clients sent, for tests that send something like it.
    pub kept: Vec<(SocketAddr, Vec<u8>)>,
    pub random: fastrand::Rng,
    /// How parcels travel between shards; see [`Post`].
    pub post: Post,
    questions: u64,
    /// Sessions that others took the place of.
    former: Vec<SessionKey>,
    steps: u32,
    /// From and to whom.
    down: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    up: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

/// What lies between shards. Without a delay a parcel arrives within the same step.
#[derive(Debug, Default)]
pub struct Post {
    /// Steps that a parcel takes at most; each way takes its own time, and keeps the order.
    pub delay: u32,
    /// No media gets through.
    pub lossy: bool,
    /// Nothing gets from the one to the other, and the sender learns of it.
    pub blocked: Option<(usize, usize)>,
    /// All that was said, but for media.
    pub words: Vec<String>,
    under_way: Vec<(u32, (usize, usize), Parcel)>,
}

/// The address of a shard.
fn local(worker: u16) -> SocketAddr {
    SocketAddr::new(LOCAL.ip(), LOCAL.port() + worker)
}

/// Media packets lost, in percent. Everything else arrives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub down: u8,
    pub up: u8,
}

/// A shard of tests.
pub fn config() -> ShardConfig {
    ShardConfig {
        limits: Limits {
            rooms: 10,
            participants_per_room: 100,
            tracks_per_participant: 32,
            sdp_bytes: 128 * 1024,
            media_sections: 256,
            candidates: 64,
            packets_per_second: 5000,
            data_messages_per_second: 500,
            data_queue_bytes: 1024 * 1024,
            connect_timeout: Duration::from_secs(15),
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            name_bytes: 256,
            metadata_bytes: 512 * 1024,
            attributes_bytes: 64 * 1024,
            pause_video: false,
            loudest: 0,
            loudest_above: 0,
            last_n: 0,
            codecs: Codec::ALL.to_vec(),
        },
        local: vec![LOCAL],
        told: vec![LOCAL],
        local_tcp: Vec::new(),
        told_tcp: Vec::new(),
        worker: WorkerId(0),
        now: Instant::now(),
        unix: Duration::from_secs(1_800_000_000),
        seed: 1,
    }
}

impl Call {
    /// Nobody is there.
    pub fn new() -> Self {
        Self::with_limits(|_| {})
    }

    /// Nobody is there, and some limits are changed.
    pub fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let workers = std::env::var(WORKERS).ok();
        let workers = workers.map_or(1, |count| count.parse().expect("a number"));
        Self::on(workers, change)
    }

    /// The same for what is about a single shard.
    pub fn alone() -> Self {
        Self::on(1, |_| {})
    }

    /// The same on so many workers.
    pub fn on(workers: u16, change: impl FnOnce(&mut Limits)) -> Self {
        let mut config = config();
        change(&mut config.limits);
        let now = config.now;
        let branch = |worker: u16| {
            let local = vec![local(worker)];
            Shard::new(ShardConfig {
                local: local.clone(),
                told: local,
                worker: WorkerId(worker),
                seed: 100 + u64::from(worker),
                ..config.clone()
            })
        };
        let branches = (1..workers).map(branch).collect();
        Self {
            now,
            shard: Shard::new(config),
            branches,
            clients: Vec::new(),
            weather: Weather::default(),
            ledger: Ledger::default(),
            closed: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
            kept: Vec::new(),
            random: fastrand::Rng::with_seed(7),
            post: Post::default(),
            questions: 0,
            former: Vec::new(),
            steps: 0,
            down: Vec::new(),
            up: Vec::new(),
        }
    }

    /// Someone joins and connects.
    pub fn enter(&mut self, identity: &str) -> Who {
        self.enter_as(identity, |_| {})
    }

    /// Someone joins, with a token or client of a certain kind, and connects.
    pub fn enter_as(&mut self, identity: &str, change: impl FnOnce(&mut Join)) -> Who {
        let who = self.join_as(identity, change);
        self[who].offer();
        self.until(|call| call[who].connected);
        who
    }

    /// Someone joins; nothing is offered yet.
    pub fn join_as(&mut self, identity: &str, change: impl FnOnce(&mut Join)) -> Who {
        let number = self.clients.len();
        let session = SessionKey(number as u64);
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + number as u16));
        let mut join = Join {
            session,
            room: "room".into(),
            create_room: true,
            home: None,
            identity: identity.into(),
            name: String::new(),
            metadata: String::new(),
            attributes: std::collections::BTreeMap::new(),
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
        let who = Who(number);
        join.home = (self.worker_of(who) > 0).then_some(WorkerId(0));
        change(&mut join);
        self.clients
            .push(Client::new(session, identity, address, self.now));
        self.command(who, Command::Join(Box::new(join)));
        self.collect();
        who
    }

    /// Publishes and waits until the track is there.
    pub fn publish(&mut self, who: Who, medium: Medium) -> TrackSid {
        let cid = medium.cid.clone();
        self[who].publish(medium);
        self.run(100);
        self[who].published(&cid).expect("the track is published")
    }

    /// Somebody outside asks the room of all tests something.
    pub fn question(&mut self, request: RoomRequest) -> Ticket {
        self.questions += 1;
        let ticket = Ticket(self.questions);
        let question = Question {
            ticket,
            room: "room".into(),
            request,
        };
        let command = Command::Ask(Box::new(question));
        self.shard.handle(self.now, Input::Command(command));
        ticket
    }

    /// A request of a client.
    pub fn ask(&mut self, who: Who, request: Request) {
        self[who].requests.push(request);
        self.signal();
    }

    /// A client says how it wants a track.
    pub fn want(&mut self, who: Who, track: &TrackSid, change: impl FnOnce(&mut TrackSettings)) {
        let mut settings = TrackSettings {
            disabled: false,
            dimensions: None,
            quality: Quality::High,
            frame_rate: None,
            priority: None,
        };
        change(&mut settings);
        let tracks = vec![track.clone()];
        self.ask(who, Request::TrackSettings { tracks, settings });
    }

    /// A client subscribes or unsubscribes.
    pub fn subscribe(&mut self, who: Who, track: &TrackSid, subscribed: bool) {
        let tracks = vec![track.clone()];
        self.ask(who, Request::Subscribe { tracks, subscribed });
    }

    /// The signalling connection of a client ends.
    pub fn close_signalling(&mut self, who: Who) {
        self.end_signalling(who, SignalEnd::ByClient);
    }

    /// The same, by either side.
    pub fn end_signalling(&mut self, who: Who, end: SignalEnd) {
        let session = self[who].session;
        self.command(who, Command::SignalClosed(session, end));
        self.collect();
    }

    /// A client whose signalling broke takes its stay up again.
    pub fn resume(&mut self, who: Who) {
        let former = self[who].session;
        let session = SessionKey(former.0 + 1000);
        self.former.push(former);
        let resume = Resume {
            session,
            room: "room".into(),
            identity: self[who].identity.as_str().into(),
            sid: None,
        };
        self[who].resumed(session);
        self.command(who, Command::Resume(resume));
        self.collect();
        self.signal();
    }

    /// A client's process ends: nothing comes from it any more.
    pub fn vanish(&mut self, who: Who) {
        self[who].silent = true;
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.step();
        }
    }

    /// Lets virtual time pass until something is so, five seconds at most.
    pub fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(5);
        while !done(self) {
            assert!(self.now < end, "it should have happened by now");
            self.step();
        }
    }

    /// What the shards counted.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        self.shards()
            .for_each(|shard| counters.add(&shard.counters()));
        counters
    }

    /// All of them.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        std::iter::once(&self.shard).chain(&self.branches)
    }

    fn workers(&self) -> usize {
        1 + self.branches.len()
    }

    fn shard_mut(&mut self, worker: usize) -> &mut Shard {
        match worker {
            0 => &mut self.shard,
            branch => &mut self.branches[branch - 1],
        }
    }

    /// Which shard has a client.
    fn worker_of(&self, who: Who) -> usize {
        who.0 % self.workers()
    }

    /// A client wants something of its shard.
    fn command(&mut self, who: Who, command: Command) {
        let now = self.now;
        let shard = self.shard_mut(self.worker_of(who));
        shard.handle(now, Input::Command(command));
    }

    /// One step: what was under way arrives, then everybody does what is due.
    pub fn step(&mut self) {
        self.now += STEP;
        self.steps += 1;
        for (from, to, datagram) in std::mem::take(&mut self.up) {
            self.deliver(from, to, &datagram);
        }
        for (from, to, datagram) in std::mem::take(&mut self.down) {
            let now = self.now;
            let client = self.clients.iter_mut().find(|who| who.address == to);
            if let Some(client) = client.filter(|client| !client.silent) {
                client.receive(now, from, &datagram);
            }
        }
        self.deliver_parcels();
        for worker in 0..self.workers() {
            let now = self.now;
            self.shard_mut(worker).handle(now, Input::Timeout);
        }
        self.collect();
        for number in 0..self.clients.len() {
            if self.clients[number].silent {
                continue;
            }
            if self.steps.is_multiple_of(AUDIO_EVERY) {
                self.clients[number].send_media(self.now, Kind::Audio);
            }
            if self.steps.is_multiple_of(VIDEO_EVERY) {
                self.clients[number].send_media(self.now, Kind::Video);
            }
            self.clients[number].tick(self.now);
            self.post(number);
        }
        self.signal();
    }

    /// A datagram reaches the shard that has the client at that address, or the first one.
    pub fn inject(&mut self, from: SocketAddr, contents: &[u8]) {
        let client = self.clients.iter().position(|who| who.address == from);
        let worker = client.map_or(0, |number| self.worker_of(Who(number)));
        self.deliver(from, local(worker as u16), contents);
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, contents: &[u8]) {
        let input = Input::Datagram {
            local: to,
            remote: from,
            contents,
        };
        let now = self.now;
        let worker = usize::from(to.port() - LOCAL.port());
        self.shard_mut(worker).handle(now, input);
        self.collect();
    }

    fn post(&mut self, number: usize) {
        let client = &mut self.clients[number];
        for (to, datagram) in std::mem::take(&mut client.outbox) {
            if lost(self.weather.up, &datagram, &mut self.random) {
                continue;
            }
            if self.kept.len() == KEPT {
                self.kept.swap_remove(self.random.usize(..KEPT));
            }
            self.kept.push((client.address, datagram.clone()));
            self.up.push((client.address, to, datagram));
        }
    }

    /// Carries requests to the shard until nobody has one.
    pub fn signal(&mut self) {
        loop {
            let mut quiet = true;
            for number in 0..self.clients.len() {
                let client = &mut self.clients[number];
                let session = client.session;
                for request in std::mem::take(&mut client.requests) {
                    quiet = false;
                    self.command(Who(number), Command::Request(session, request));
                }
            }
            self.collect();
            if quiet {
                return;
            }
        }
    }

    /// Takes everything out of the shards, until none has anything for another.
    fn collect(&mut self) {
        while (0..self.workers()).any(|worker| self.collect_from(worker)) {}
    }

    fn send_parcel(&mut self, way: (usize, usize), parcel: Parcel) {
        let now = self.now;
        if self.post.blocked == Some(way) {
            if parcel.weight() == Weight::State {
                self.shard_mut(way.0).handle(now, Input::Unsaid(parcel));
            }
            return;
        }
        match parcel.packets() {
            0 => {
                let word = format!("{:?}", parcel.word);
                let name = word.split(|c: char| !c.is_alphanumeric()).next();
                self.post.words.push(name.unwrap_or_default().to_owned());
            }
            _ if self.post.lossy => return,
            _ => {}
        }
        if self.post.delay == 0 {
            return self.shard_mut(way.1).handle(now, Input::Parcel(parcel));
        }
        let before = self.post.under_way.iter().filter(|(_, it, _)| *it == way);
        let earliest = before.map(|(at, ..)| *at).max().unwrap_or(0);
        let at = self.steps + self.random.u32(..=self.post.delay);
        self.post.under_way.push((at.max(earliest), way, parcel));
    }

    /// What has travelled long enough arrives.
    fn deliver_parcels(&mut self) {
        let (steps, now) = (self.steps, self.now);
        let (due, later) = std::mem::take(&mut self.post.under_way)
            .into_iter()
            .partition(|(at, ..)| *at <= steps);
        self.post.under_way = later;
        let due: Vec<(u32, (usize, usize), Parcel)> = due;
        for (_, (_, to), parcel) in due {
            self.shard_mut(to).handle(now, Input::Parcel(parcel));
        }
        self.collect();
    }

    /// Whether there was something for another.
    fn collect_from(&mut self, worker: usize) -> bool {
        let mut relayed = false;
        loop {
            let shard = match worker {
                0 => &mut self.shard,
                branch => &mut self.branches[branch - 1],
            };
            match shard.poll() {
                Output::Relay(to, parcel) => {
                    relayed = true;
                    self.send_parcel((worker, to.0.into()), parcel);
                }
                Output::Transmit(transmit) => {
                    assert_eq!(transmit.local, local(worker as u16));
                    let size = transmit.segment.unwrap_or(transmit.contents.len());
                    for datagram in transmit.contents.chunks(size) {
                        let entered = self.ledger.enter(transmit.remote, datagram);
                        assert_eq!(entered, Ok(()));
                        if !lost(self.weather.down, datagram, &mut self.random) {
                            let from = transmit.local;
                            self.down.push((from, transmit.remote, datagram.to_vec()));
                        }
                    }
                }
                Output::Notice(session, notice) if self.former.contains(&session) => {
                    assert_eq!(notice, Notice::Replaced);
                }
                Output::Notice(session, notice) => {
                    let client = self.clients.iter_mut().find(|who| who.session == session);
                    let client = client.expect("notices go to those who joined");
                    assert!(!client.left(), "no notice after the last: {notice:?}");
                    if let Notice::Answer { sdp, .. } = &notice {
                        self.ledger.announce(client.address, sdp);
                    }
                    client.notice(notice);
                }
                Output::RoomOpened(_) | Output::Reached(_) | Output::Forgotten(_) => {}
                // A branch comes and goes with its participants.
                Output::RoomClosed(_) if worker > 0 => {}
                Output::RoomClosed(name) => self.closed.push(name),
                Output::Answer(ticket, answer) => self.answers.push((ticket, answer)),
                Output::Event(event) => self.events.push(*event),
                Output::Timeout(Some(at)) if at <= self.now => {
                    shard.handle(self.now, Input::Timeout);
                }
                Output::Timeout(_) => return relayed,
            }
        }
    }
}

fn lost(percent: u8, datagram: &[u8], random: &mut fastrand::Rng) -> bool {
    Class::of(datagram) == Some(Class::Rtp) && random.u8(..100) < percent
}

impl Index<Who> for Call {
    type Output = Client;
    fn index(&self, who: Who) -> &Client {
        &self.clients[who.0]
    }
}

impl IndexMut<Who> for Call {
    fn index_mut(&mut self, who: Who) -> &mut Client {
        &mut self.clients[who.0]
    }
}

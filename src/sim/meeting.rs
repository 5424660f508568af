//! A meeting: a shard, its clients, the network between them and the virtual clock. Tests read as
//! what people do, and what each of them must see.

mod verdict;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::client::Client;
use super::content::Stamp;
use super::log::Log;
use super::medium::Medium;
use super::network::{Link, Path};
use super::world::{Note, World};
use crate::ids::{TrackSid, WorkerId};
use crate::media::fixed_keys;
use crate::media::message::administration::{Answer, Fact, Question, RoomRequest, Ticket};
use crate::media::message::facts::RoomFacts;
use crate::media::message::{
    ClientInfo, Codec, Command, Join, Kind, Notice, Permissions, Priority, Quality, Request,
    TrackSettings,
};
use crate::media::ntp::Ntp;
use crate::media::{Input, Limits, Output, Shard, ShardConfig};
pub use verdict::Sees;

/// A shard and its clients.
pub struct Meeting {
    now: Instant,
    start: Instant,
    shard: Shard,
    clients: Vec<Client>,
    paths: Vec<Paths>,
    world: World,
    log: Log,
    random: fastrand::Rng,
    queue: BinaryHeap<Reverse<Event>>,
    /// Events so far: those of one time happen in the order they were made.
    events: u64,
    /// When the shard wants to be woken.
    deadline: Option<Instant>,
    /// The last answer to a question.
    answer: Option<Answer>,
}

/// Both directions of a client's connection.
struct Paths {
    up: Path,
    down: Path,
}

/// Something that will happen.
struct Event {
    at: Instant,
    number: u64,
    client: usize,
    what: What,
}

enum What {
    /// A datagram reaches the shard.
    Up(Vec<u8>, Option<Stamp>),
    /// A datagram reaches the client.
    Down(Vec<u8>),
    /// A request reaches the shard.
    Request(Request),
    /// A notice reaches the client.
    Notice(Notice),
    /// The client does what is due.
    Beat,
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Event {}

/// The room they meet in.
const ROOM: &str = "meeting";

/// How often a client looks what is due.
const BEAT: Duration = Duration::from_millis(10);

/// Signalling takes this long, each way.
const SIGNALLING: Duration = Duration::from_millis(5);

impl Meeting {
    /// An empty meeting; `seed` decides all that will happen by chance.
    pub fn seeded(seed: u64) -> Self {
        Self::limited(seed, |_| {})
    }

    /// One under other limits.
    pub fn limited(seed: u64, change: impl FnOnce(&mut Limits)) -> Self {
        // str0m draws from its thread's own generator.
        fastrand::seed(seed);
        #[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
        let now = Instant::now();
        let mut config = config(seed, now);
        change(&mut config.limits);
        let shard = fixed_keys::shard(config);
        Self {
            now,
            start: now,
            shard,
            clients: Vec::new(),
            paths: Vec::new(),
            world: World::default(),
            log: Log::new(now),
            random: fastrand::Rng::with_seed(seed),
            queue: BinaryHeap::new(),
            events: 0,
            deadline: None,
            answer: None,
        }
    }

    /// Someone joins over this link.
    pub fn enter(&mut self, name: &str, link: Link) {
        self.enter_as(name, link, |_| {});
    }

    /// Someone joins who says how much it can take, and not what arrives.
    pub fn enter_with_rate(&mut self, name: &str, link: Link) {
        let now = self.now;
        self.admit(name, link, |_| {}, |client| client.report_rate(now));
    }

    /// Someone joins with something special.
    pub fn enter_as(&mut self, name: &str, link: Link, change: impl FnOnce(&mut Join)) {
        self.admit(name, link, change, |_| {});
    }

    fn admit(
        &mut self,
        name: &str,
        link: Link,
        change: impl FnOnce(&mut Join),
        prepare: impl FnOnce(&mut Client),
    ) {
        let number = self.clients.len();
        let mut client = Client::new(number as u16, name, self.random.fork(), self.now);
        let paths = self.paths_of(&link);
        client.ordered = paths.down.keeps_order();
        client.epoch = self.start;
        prepare(&mut client);
        let mut join = Join {
            session: client.session,
            room: ROOM.into(),
            create_room: true,
            home: None,
            identity: name.into(),
            name: name.to_owned(),
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
        change(&mut join);
        self.clients.push(client);
        self.paths.push(paths);
        self.log.line(self.now, name, format_args!("joins"));
        let command = Command::Join(Box::new(join));
        self.shard.handle(self.now, Input::Command(command));
        self.collect();
        let phase = Duration::from_micros(self.random.u64(..BEAT.as_micros() as u64));
        self.later(self.now + phase, number, What::Beat);
        self.deliver(number);
    }

    /// Someone's encoders follow what the uplink carries, from now on.
    pub fn follow_uplink(&mut self, name: &str) {
        let number = self.number(name);
        self.clients[number].follows_uplink = true;
    }

    /// Someone's connection is another from now on.
    pub fn link(&mut self, name: &str, link: Link) {
        let number = self.number(name);
        self.log.line(self.now, name, format_args!("has {link:?}"));
        self.paths[number] = self.paths_of(&link);
        self.clients[number].ordered = self.paths[number].down.keeps_order();
    }

    fn paths_of(&mut self, link: &Link) -> Paths {
        Paths {
            up: Path::new(&link.up, self.random.fork()),
            down: Path::new(&link.down, self.random.fork()),
        }
    }

    /// Someone publishes.
    pub fn publish(&mut self, name: &str, medium: Medium) {
        let number = self.number(name);
        self.log
            .line(self.now, name, format_args!("publishes {}", medium.cid));
        self.clients[number].publish(medium, self.now);
        self.deliver(number);
    }

    /// Someone's microphone hears a voice this loud from now on, in -dBov.
    pub fn speak(&mut self, name: &str, level: u8) {
        let number = self.number(name);
        for track in &mut self.clients[number].published {
            let sound = track.medium.kind == Kind::Audio;
            for stream in track.streams.iter_mut().filter(|_| sound) {
                stream.level = Some(level);
            }
        }
    }

    /// Someone stops to publish the medium with this client id.
    pub fn unpublish(&mut self, name: &str, cid: &str) {
        let number = self.number(name);
        self.log.line(self.now, name, format_args!("ends {cid}"));
        self.clients[number].unpublish(cid);
        self.deliver(number);
    }

    /// Someone wants all pictures of somebody no better than this.
    pub fn want(&mut self, name: &str, publisher: &str, quality: Quality) {
        self.set(name, publisher, quality, None);
    }

    /// Someone wants all pictures of somebody before those of others.
    pub fn prefer(&mut self, name: &str, publisher: &str, priority: u32) {
        self.set(name, publisher, Quality::High, Priority::asked(priority));
    }

    fn set(&mut self, name: &str, publisher: &str, quality: Quality, priority: Option<Priority>) {
        let number = self.number(name);
        let tracks = self.tracks_of(publisher, Kind::Video);
        let settings = TrackSettings {
            disabled: false,
            dimensions: None,
            quality,
            frame_rate: None,
            priority,
        };
        let request = Request::TrackSettings { tracks, settings };
        self.clients[number].requests.push(request);
        self.deliver(number);
    }

    /// Someone goes.
    pub fn leave(&mut self, name: &str) {
        let number = self.number(name);
        self.log.line(self.now, name, format_args!("leaves"));
        self.clients[number].requests.push(Request::Leave);
        self.deliver(number);
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let event = self.queue.peek().map(|Reverse(event)| event.at);
            let next = event.into_iter().chain(self.deadline).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.log.beat(self.now);
            if event == Some(next) {
                self.happen();
            } else {
                self.shard.handle(self.now, Input::Timeout);
                self.collect();
            }
        }
    }

    fn happen(&mut self) {
        let Some(Reverse(event)) = self.queue.pop() else {
            return;
        };
        let (now, client) = (self.now, &mut self.clients[event.client]);
        match event.what {
            What::Up(datagram, stamp) => {
                if let Some(stamp) = &stamp {
                    self.world.arrivals.note(stamp);
                }
                let input = Input::Datagram {
                    local: SHARD,
                    remote: client.address,
                    contents: &datagram,
                };
                self.shard.handle(now, input);
                return self.collect();
            }
            What::Request(request) => {
                let command = Command::Request(client.session, request);
                self.shard.handle(now, Input::Command(command));
                return self.collect();
            }
            What::Down(datagram) => client.receive(now, &datagram, &self.world),
            What::Notice(notice) => client.notice(now, &notice, &self.world),
            What::Beat => {
                client.beat(now, Ntp::from_unix(UNIX + (now - self.start)));
                if !client.left {
                    self.later(now + BEAT, event.client, What::Beat);
                }
            }
        }
        self.deliver(event.client);
    }

    /// Takes everything out of the shard.
    fn collect(&mut self) {
        loop {
            match self.shard.poll() {
                Output::Transmit(transmit) => {
                    let port = usize::from(transmit.remote.port());
                    let client = port - usize::from(self.clients[0].address.port());
                    let size = transmit.segment.unwrap_or(transmit.contents.len());
                    for datagram in transmit.contents.chunks(size) {
                        let path = &mut self.paths[client].down;
                        if let Some(at) = path.carry(self.now, datagram.len()) {
                            self.events += 1;
                            self.queue.push(Reverse(Event {
                                at,
                                number: self.events,
                                client,
                                what: What::Down(datagram.to_vec()),
                            }));
                        }
                    }
                }
                Output::Notice(session, notice) => {
                    let client = session.0 as usize;
                    if let Notice::TrackPublished { cid, track } = &notice {
                        self.note_published(client, cid, &track.sid);
                    }
                    self.later(self.now + SIGNALLING, client, What::Notice(notice));
                }
                Output::RoomOpened(_)
                | Output::RoomClosed(_)
                | Output::Reached(_)
                | Output::Forgotten(_)
                | Output::Event(_) => {}
                Output::Answer(_, answer) => self.answer = Some(answer),
                Output::Relay(..) => unreachable!("all joins are at the room's home"),
                Output::Timeout(deadline) => {
                    self.deadline = deadline;
                    return;
                }
            }
        }
    }

    fn note_published(&mut self, client: usize, cid: &str, sid: &TrackSid) {
        let client = &self.clients[client];
        for track in client
            .published
            .iter()
            .filter(|track| track.medium.cid == cid)
        {
            let source = (client.number, track.number);
            self.world.published(sid, track.medium.kind, source);
            let name = self.log.name(sid.as_str());
            self.log.line(
                self.now,
                &client.name,
                format_args!("has {cid} published as {name}"),
            );
        }
    }

    /// What a client wants to say goes on its way.
    fn deliver(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let (requests, outbox) = (
            std::mem::take(&mut client.requests),
            std::mem::take(&mut client.outbox),
        );
        for note in std::mem::take(&mut client.notes) {
            log_note(&mut self.log, self.now, &self.clients[number], note);
        }
        for request in requests {
            self.later(self.now + SIGNALLING, number, What::Request(request));
        }
        for datagram in outbox {
            if let Some(at) = self.paths[number].up.carry(self.now, datagram.bytes.len()) {
                self.later(at, number, What::Up(datagram.bytes, datagram.stamp));
            }
        }
    }

    fn later(&mut self, at: Instant, client: usize, what: What) {
        self.events += 1;
        self.queue.push(Reverse(Event {
            at,
            number: self.events,
            client,
            what,
        }));
    }

    /// What is received by someone from now on is kept.
    pub fn record(&mut self, name: &str) {
        let number = self.number(name);
        self.clients[number].recording = true;
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What the shard says of its media.
    pub fn measure(&mut self) -> Option<RoomFacts> {
        let question = Question {
            ticket: Ticket(0),
            room: ROOM.into(),
            request: RoomRequest::Measure,
        };
        let command = Command::Ask(Box::new(question));
        self.shard.handle(self.now, Input::Command(command));
        self.collect();
        match self.answer.take() {
            Some(Ok(Fact::Media(facts))) => Some(*facts),
            _ => None,
        }
    }

    /// The client of this name.
    pub fn client(&self, name: &str) -> &Client {
        &self.clients[self.number(name)]
    }

    fn number(&self, name: &str) -> usize {
        let found = self.clients.iter().rposition(|client| client.name == name);
        found.unwrap_or_else(|| panic!("{name} is not here"))
    }

    /// The tracks of somebody.
    pub fn tracks_of(&self, publisher: &str, kind: Kind) -> Vec<TrackSid> {
        let tracks = self.client(publisher).published.iter();
        tracks
            .filter(|track| track.medium.kind == kind)
            .filter_map(|track| track.sid.clone())
            .collect()
    }
}

/// What shards of meetings are told at their start.
pub fn config(seed: u64, now: Instant) -> ShardConfig {
    ShardConfig {
        limits: Limits {
            rooms: 10,
            participants_per_room: 200,
            tracks_per_participant: 64,
            sdp_bytes: 512 * 1024,
            media_sections: 512,
            candidates: 64,
            packets_per_second: 10_000,
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
        local: vec![SHARD],
        told: vec![SHARD],
        local_tcp: Vec::new(),
        told_tcp: Vec::new(),
        worker: WorkerId(0),
        now,
        unix: UNIX,
        seed,
    }
}

fn log_note(log: &mut Log, now: Instant, client: &Client, note: Note) {
    let who = &client.name;
    match note {
        Note::Packet(seq, stamp, repaired) => log.packet(
            now,
            [
                client.number.into(),
                seq,
                stamp.sender.into(),
                stamp.track.into(),
                stamp.layer.into(),
                stamp.seq,
                repaired.into(),
            ],
        ),
        Note::Offer(sections) => log.line(now, who, format_args!("offers {sections} sections")),
        Note::Connected => log.line(now, who, format_args!("is connected")),
        Note::Track(track) => {
            let track = log.name(track.as_str());
            log.line(now, who, format_args!("gets {track}"));
        }
        Note::Gone(track) => {
            let track = log.name(track.as_str());
            log.line(now, who, format_args!("loses {track}"));
        }
        Note::Layer(track, layer) => {
            let track = log.name(track.as_str());
            log.line(now, who, format_args!("sees layer {layer} of {track}"));
        }
        Note::KeyFrameAsked(cid, layer) => {
            log.line(
                now,
                who,
                format_args!("is asked for a key frame of {cid}, layer {layer}"),
            );
        }
    }
}

/// The shard's address.
const SHARD: std::net::SocketAddr = std::net::SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 254)),
    7882,
);

/// Time since 1970 at the start.
const UNIX: Duration = Duration::from_secs(1_800_000_000);

//! The least that any server needs: packets are opened, sealed for each who hears them, and sent
//! in the largest runs there are. Nothing else is done: no signalling, no rewriting, no choice of
//! layers, no estimate, no repetition. What a server costs can be seen beside it, under the very
//! same load: the engine and its clients are those that load servers.
//!
//! Keys are given to both sides beforehand. A run waits for the end of its picture, but no longer
//! than [`HOLD`]; sound doesn't wait.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as orders;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use mio::{Events, Poll, Token};
use tokio::sync::mpsc;

use super::clock::Clock;
use super::engine::{Engine, Event, Order};
use super::joins::Joins;
use super::participant::Participant;
use super::plan::{Part, Plan};
use super::process;
use super::publisher::{self, Mids};
use super::report::{Progress, Report};
use super::run::{EVENTS_MAX, SECOND};
use super::signalling::JOIN_TIME;
use super::transport::Transport;
use super::udp::{Inbox, Socket};
use crate::media::batch::Batch;
use crate::media::demux::Class;
use crate::media::dtls::Keying;
use crate::media::srtp::{MasterKey, Opener, OwnSsrc, RtpOpener, Sealer, Stream, Suite};
use crate::media::wire;
use crate::sim::receiving::{Header, nearest};

/// Longest wait for the end of a picture.
const HOLD: Duration = Duration::from_millis(1);

/// Longest sleep: how late the end is noticed.
const SLEEP: Duration = Duration::from_millis(100);

/// The cipher that Chromium and servers agree on.
const SUITE: Suite = Suite::AeadAes256Gcm;

/// Where the transport-wide number is in what publishers send: behind header, extension header and
/// its own head.
const TWCC_AT: usize = 12 + 4 + 1;

/// Everything that the floor has of a participant.
struct Seat {
    part: Part,
    rtp: RtpOpener,
    rtcp: Opener,
    sealer: Sealer,
    address: SocketAddr,
    /// What it sends, with the newest number of each.
    sends: Vec<(u32, u64)>,
    /// What it receives.
    receives: Vec<(u32, Stream)>,
    /// Who hears it.
    heard_by: Vec<usize>,
    /// What waits of a picture of its own that has not ended yet.
    waiting: Vec<Opened>,
    twcc: u16,
}

/// An opened packet on its way.
struct Opened {
    ssrc: u32,
    index: u64,
    header: usize,
    arrival: Instant,
    bytes: Vec<u8>,
}

/// All of it.
struct Floor {
    clock: Clock,
    socket: Socket,
    seats: Vec<Seat>,
    by_address: HashMap<SocketAddr, usize>,
    opened: Vec<u8>,
    batch: Batch,
    /// Memory for opened packets.
    spare: Vec<Vec<u8>>,
    /// Whose pictures have ended.
    ready: Vec<usize>,
    /// Whose pictures have not.
    held: Vec<usize>,
}

impl Floor {
    /// Without anybody.
    fn new(clock: Clock) -> io::Result<Self> {
        Ok(Self {
            clock,
            socket: Socket::toward(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)))?,
            seats: Vec::new(),
            by_address: HashMap::new(),
            opened: Vec::new(),
            batch: Batch::default(),
            spare: Vec::new(),
            ready: Vec::new(),
            held: Vec::new(),
        })
    }

    /// Where to send to.
    fn address(&self) -> SocketAddr {
        self.socket.local()
    }

    /// Somebody takes part, and sends from there. Everybody comes before the run.
    fn seat(&mut self, part: Part, address: SocketAddr) {
        let at = self.seats.len();
        let keys = keys(part, Side::Floor);
        let mut seat = Seat {
            part,
            rtp: RtpOpener::new(&keys.remote),
            rtcp: Opener::new(keys.remote),
            sealer: Sealer::new(keys.local),
            address,
            sends: Vec::new(),
            receives: Vec::new(),
            heard_by: Vec::new(),
            waiting: Vec::new(),
            twcc: 0,
        };
        let others = self.seats.iter_mut().enumerate();
        for (number, other) in others.filter(|(_, other)| other.part.room == part.room) {
            if other.part.publishes {
                other.heard_by.push(at);
            }
            if part.publishes {
                seat.heard_by.push(number);
            }
        }
        self.by_address.insert(address, at);
        self.seats.push(seat);
    }

    /// Runs until it is to stop.
    fn run(mut self, stop: &Arc<AtomicBool>) -> io::Result<()> {
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1));
        let mut inbox = Inbox::new();
        self.socket.register(poll.registry(), Token(0))?;
        while !stop.load(Ordering::Relaxed) {
            let wait = if self.held.is_empty() { SLEEP } else { HOLD };
            // A signal is no error.
            let _ = poll.poll(&mut events, Some(wait));
            let mut more = true;
            while more {
                more = inbox.receive(&self.socket);
                let now = self.clock.now();
                for run in inbox.runs() {
                    let from = self.by_address.get(&run.from).copied();
                    for datagram in run.datagrams() {
                        if let Some(from) = from {
                            self.take(from, datagram, now);
                        }
                    }
                }
            }
            self.flush();
        }
        Ok(())
    }

    fn take(&mut self, from: usize, datagram: &[u8], now: Instant) {
        let seat = &mut self.seats[from];
        match Class::of(datagram) {
            Some(Class::Rtcp) => {
                // What it says is not acted upon.
                let _ = seat.rtcp.open_rtcp(datagram, &mut self.opened);
            }
            Some(Class::Rtp) => self.forward(from, datagram, now),
            _ => {}
        }
    }

    fn forward(&mut self, from: usize, datagram: &[u8], now: Instant) {
        let Some(header) = Header::parse(datagram) else {
            return;
        };
        let seat = &mut self.seats[from];
        let ssrc = header.ssrc;
        let known = seat.sends.iter().position(|(it, _)| *it == ssrc);
        let at = known.unwrap_or(seat.sends.len());
        if known.is_none() {
            seat.sends.push((ssrc, header.seq.into()));
        }
        let index = nearest(header.seq, seat.sends[at].1);
        let mut bytes = self.spare.pop().unwrap_or_default();
        let opened = seat.rtp.open(datagram, header.len, index, &mut bytes);
        let best = publisher::is_best(ssrc).filter(|_| opened.is_ok());
        let Some(is_voice) = best else {
            return self.spare.push(bytes);
        };
        seat.sends[at].1 = index.max(seat.sends[at].1);
        let is_first = seat.waiting.is_empty();
        seat.waiting.push(Opened {
            ssrc,
            index,
            header: header.len,
            arrival: now,
            bytes,
        });
        if is_voice || header.marker {
            self.held.retain(|it| *it != from);
            self.ready.push(from);
        } else if is_first {
            self.held.push(from);
        }
    }

    /// Sends what has waited long enough.
    fn flush(&mut self) {
        let now = self.clock.now();
        let (seats, ready) = (&mut self.seats, &mut self.ready);
        self.held.retain(|from| {
            let first = seats[*from].waiting.first();
            let waited = |it: &Opened| now.saturating_duration_since(it.arrival) >= HOLD;
            let due = first.is_none_or(waited);
            if due {
                ready.push(*from);
            }
            !due
        });
        for from in ready.drain(..) {
            let mut packets = std::mem::take(&mut seats[from].waiting);
            for at in 0..seats[from].heard_by.len() {
                let to = seats[from].heard_by[at];
                let seat = &mut seats[to];
                for packet in &packets {
                    seat.seal(packet, &mut self.batch);
                }
                while let Some((run, segment)) = self.batch.take() {
                    // What the kernel doesn't take is lost, and shows as such.
                    self.socket.send(seat.address, run, segment);
                }
                self.batch.clear();
            }
            self.spare.extend(packets.drain(..).map(|it| it.bytes));
            seats[from].waiting = packets;
        }
    }
}

impl Seat {
    /// Seals a packet for whom this seat is.
    fn seal(&mut self, packet: &Opened, batch: &mut Batch) {
        let known = self.receives.iter().position(|(it, _)| *it == packet.ssrc);
        let at = known.unwrap_or(self.receives.len());
        if known.is_none()
            && let Ok(stream) = self.sealer.register(OwnSsrc::claim(packet.ssrc))
        {
            self.receives.push((packet.ssrc, stream));
        }
        let segment = batch.segment();
        let Some((buffer, start)) = batch.begin() else {
            return;
        };
        buffer.extend_from_slice(&packet.bytes);
        if segment == Some(packet.bytes.len() + SUITE.rtp_overhead() + 1) {
            wire::pad(buffer, start);
        }
        self.twcc = self.twcc.wrapping_add(1);
        buffer[start + TWCC_AT..start + TWCC_AT + 2].copy_from_slice(&self.twcc.to_be_bytes());
        let stream = self.receives.get_mut(at).map(|(_, stream)| stream);
        let sealed = stream.map(|it| it.seal_rtp(buffer, start, packet.header, packet.index));
        match sealed {
            Some(Ok(())) => batch.commit(start),
            _ => batch.abort(start),
        }
    }
}

/// The same load on the least that a server has to do, in place of a server.
pub fn run(plan: Plan, mut progress: impl FnMut(&Progress<'_>)) -> Result<Report, String> {
    let failed = |error: std::io::Error| error.to_string();
    let clock = Clock::start();
    let start = clock.now();
    let parts = plan.parts();
    let (order, orders) = orders::channel();
    let (tell, mut events) = mpsc::channel(EVENTS_MAX);
    let engine = Engine::new(clock, &plan, orders, tell).map_err(failed)?;
    let mut floor = Floor::new(clock).map_err(failed)?;
    let (mut joins, mut entering) = (Joins::default(), Vec::new());
    for part in &parts {
        let keys = keys(*part, Side::Client);
        let transport = Transport::fixed(start, floor.address(), keys).map_err(failed)?;
        floor.seat(*part, transport.local().ok_or("a socket has no address")?);
        let mids = part.publishes.then(|| Mids {
            audio: "0".to_owned(),
            video: "1".to_owned(),
        });
        entering.push(Participant::new(*part, transport, mids));
        joins.request(*part, start);
    }
    // Each has a core if there are two: the first is the floor's.
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, (say, said)) = (Arc::clone(&stop), orders::channel());
    let floor = on_thread("floor", cores.first().copied(), move || {
        // Nobody listens any more if there is nothing to measure.
        let _ = say.send(process::thread());
        floor.run(&stopped)
    })?;
    let media = on_thread("media", cores.last().copied(), move || engine.run())?;
    let thread = said.recv().ok().flatten();
    let spent = || thread.as_deref().and_then(process::cpu_of);
    let mut measurement = Measurement {
        clock,
        start,
        joins,
        all: parts.len(),
        warmup: plan.warmup,
        duration: plan.duration,
        order,
        before: None,
        seconds: 0,
    };
    for participant in entering {
        measurement.tell(Order::Enter(Box::new(participant)));
    }
    let mut outcome = None;
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Done(done) => outcome = Some(done),
            event => measurement.take(event, spent, &mut progress),
        }
    }
    let cpu = measurement.before.zip(spent());
    stop.store(true, Ordering::Relaxed);
    // They have ended if the run did; a fault is told by its panic.
    let _ = (media.join(), floor.join());
    Ok(Report {
        joins: measurement.joins,
        outcome: *outcome.ok_or("the media thread has ended")?,
        server: None,
        floor: cpu.map(|(before, after)| after.saturating_sub(before)),
        usages: Vec::new(),
        ramp: None,
        plan,
    })
}

/// A run, while it goes on.
struct Measurement {
    clock: Clock,
    start: Instant,
    joins: Joins,
    all: usize,
    warmup: Duration,
    duration: Duration,
    order: orders::Sender<Order>,
    /// What the floor had used when it began to count.
    before: Option<Duration>,
    /// Since the start, or since it began to count.
    seconds: u32,
}

impl Measurement {
    fn tell(&self, order: Order) {
        // A thread that has ended is seen by what it doesn't say.
        let _ = self.order.send(order);
    }

    fn take(
        &mut self,
        event: Event,
        spent: impl Fn() -> Option<Duration>,
        progress: &mut impl FnMut(&Progress<'_>),
    ) {
        match event {
            Event::Step(part, step, at) => self.joins.note(part, step, at),
            Event::Failed(part, reason) => self.joins.fail(part, reason),
            Event::Second(second, measuring) => {
                progress(&Progress {
                    time: self.clock.now().saturating_duration_since(self.start),
                    second: &second,
                    joined: self.joins.joined(),
                    failures: self.joins.failures,
                    all: self.all,
                    measuring,
                });
                self.seconds += 1;
                let waited = SECOND * self.seconds;
                let joined = self.joins.are_settled() || waited > JOIN_TIME;
                if self.before.is_some() {
                    if waited >= self.duration {
                        self.tell(Order::Stop);
                    }
                } else if joined && waited >= self.warmup {
                    self.joins.give_up(self.clock.now(), "nothing came");
                    self.before = spent();
                    self.seconds = 0;
                    self.tell(Order::Measure);
                }
            }
            Event::Done(_) => {}
        }
    }
}

/// Runs `work` on a thread of its own, on that core if there is one.
fn on_thread<T: Send + 'static>(
    name: &str,
    core: Option<CoreId>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || {
        if let Some(core) = core {
            core_affinity::set_for_current(core);
        }
        work()
    });
    spawned.map_err(|error| error.to_string())
}

/// Whose keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Of the participant.
    Client,
    /// Of the floor.
    Floor,
}

/// What a participant and the floor seal with.
fn keys(part: Part, side: Side) -> Keying {
    let key = |of: Side| {
        let mut random = fastrand::Rng::with_seed((part.number as u64) << 1 | of as u64);
        let mut bytes = [0; 32 + 12];
        random.fill(&mut bytes);
        MasterKey::new(SUITE, &bytes[..32], &bytes[32..]).expect("lengths of the suite")
    };
    let (local, remote) = match side {
        Side::Client => (Side::Client, Side::Floor),
        Side::Floor => (Side::Floor, Side::Client),
    };
    Keying {
        suite: SUITE,
        local: key(local),
        remote: key(remote),
    }
}

//! The control socket: the node in the hands of programs on the same host, and of `stellwerk ctl`.
//!
//! ```text
//! a line of JSON --request--> rooms (directory) or a participant of this connection (stay)
//!                <--words---- one answer under the id of each request; events as they come
//! ```
//!
//! It is the third adapter beside LiveKit's signalling and its server API, and speaks the same
//! language with rooms ([`crate::media::message`]): clients of either see what is changed here.
//! Who may open the file may do everything, so there are no tokens. What is not here: the meaning
//! of requests (the rooms'), and `docs/control.md`, which says all of this to users.

mod fault;
mod request;
mod socket;
mod stay;
mod words;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::http::stopped;
use super::{Signal, Stats};
use crate::directory::events::Listening;
use crate::ids::{Identity, RoomName};
use crate::media::message::administration::{Fact, RoomRequest};
use crate::media::message::{ClientInfo, Join};
use fault::Fault;
use request::{AddParticipant, Publish, Request};
pub use socket::Listener;
use stay::{Asked, Handle, Opening, Stay};

/// Goes up when something that programs rely on changes; new fields and events don't count.
const PROTOCOL: u32 = 1;

/// Connections; more wait in the queue of the kernel.
pub const CONNECTIONS_MAX: usize = 64;

/// Bytes of a line; a longer one ends the connection.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Lines that wait to be written on one connection. Whoever makes more waits.
const LINES: usize = 256;

/// A write that takes longer ends the connection.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// A room answers in milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// How long connections may take to write their last lines when the daemon stops.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the loop waits when a connection can't be taken.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Takes connections until `stop` turns true.
pub(super) async fn serve(
    socket: Listener,
    signal: Arc<Signal>,
    events: Listening,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let taken = async {
            let slot = slots.clone().acquire_owned().await.ok();
            (socket.listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            taken = taken => taken,
        };
        let Ok((stream, _)) = accepted else {
            Stats::count(&signal.stats.accept_failures);
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let connection = converse(stream, signal.clone(), events.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(socket);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GOODBYE_TIMEOUT, ended).await.is_err() {
        tracing::debug!("control connections are cut");
    }
}

/// One connection, from the greeting to the last line.
async fn converse(
    stream: UnixStream,
    signal: Arc<Signal>,
    events: Listening,
    mut stop: watch::Receiver<bool>,
) {
    let uid = stream.peer_cred().map(|peer| peer.uid()).ok();
    let (reading, writing) = stream.into_split();
    let (lines, written) = mpsc::channel(LINES);
    let mut writer = tokio::spawn(write_all(writing, written));
    let mut connection = Connection {
        signal,
        events,
        lines: Lines(lines),
        stays: HashMap::new(),
        listening: None,
        uid,
    };
    tokio::select! {
        () = connection.run(reading) => {}
        () = stopped(&mut stop) => {
            let line = json!({ "event": "stopping" });
            // The writer has a deadline of its own.
            let _ = connection.lines.write(&line).await;
        }
        _ = &mut writer => return,
    }
    // The writer ends when nobody can write any more: with the connection and its stays.
    drop(connection);
    let _ = writer.await;
}

/// Writes lines until nobody makes any, or the reader is gone or too slow.
async fn write_all(mut writing: OwnedWriteHalf, mut lines: mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        match timeout(WRITE_DEADLINE, writing.write_all(line.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::warn!("a program doesn't read what the control socket tells it");
                return;
            }
        }
    }
}

/// Where lines of a connection go.
#[derive(Clone)]
struct Lines(mpsc::Sender<String>);

impl Lines {
    async fn write(&self, line: &Value) -> Result<(), Fault> {
        let gone = |_| Fault::internal();
        self.0.send(format!("{line}\n")).await.map_err(gone)
    }

    async fn answer(&self, id: Value, outcome: Result<Value, Fault>) -> Result<(), Fault> {
        let line = match outcome {
            Ok(value) => json!({ "id": id, "ok": value }),
            Err(fault) => json!({ "id": id, "error": fault.json() }),
        };
        self.write(&line).await
    }
}

struct Connection {
    signal: Arc<Signal>,
    events: Listening,
    lines: Lines,
    /// Participants it holds. Bounded by `limits.participants`: each has a seat.
    stays: HashMap<(RoomName, Identity), Handle>,
    listening: Option<AbortHandle>,
    /// Who is on the other side, for the log.
    uid: Option<u32>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

impl Connection {
    async fn run(&mut self, reading: OwnedReadHalf) {
        let greeting = json!({
            "event": "hello",
            "protocol": PROTOCOL,
            "version": env!("CARGO_PKG_VERSION"),
        });
        if self.lines.write(&greeting).await.is_err() {
            return;
        }
        let mut reading = BufReader::new(reading);
        let mut line = Vec::new();
        loop {
            line.clear();
            match read_line(&mut reading, &mut line).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
            if line.len() as u64 > LINE_BYTES_MAX {
                let fault = Fault::too_long("a line has more than 1 MiB; the connection ends");
                let _ = self.lines.answer(Value::Null, Err(fault)).await;
                return;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if self.serve(&line).await.is_err() {
                return;
            }
        }
    }

    /// Carries out one line. An error means that nobody reads any more.
    async fn serve(&mut self, line: &[u8]) -> Result<(), Fault> {
        let (id, request) = Request::read(line);
        let outcome = match request {
            Ok(request) => {
                let change = request.change().map(|(action, room, who)| {
                    (action, RoomName::from(room), who.map(Identity::from))
                });
                let outcome = self.act(id.clone(), request).await;
                if let Some((action, room, who)) = change {
                    let refused = outcome.as_ref().err().map(Fault::code);
                    let uid = self.uid;
                    tracing::info!(action, ?uid, ?room, ?who, refused, "control");
                }
                outcome
            }
            Err(fault) => Err(fault),
        };
        let stats = &self.signal.stats;
        Stats::count(match outcome {
            Ok(_) => &stats.control_requests,
            Err(_) => &stats.control_errors,
        });
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(value)) => self.lines.answer(id, Ok(value)).await,
            Err(fault) => self.lines.answer(id, Err(fault)).await,
        }
    }

    /// What is to be answered now; `None` if a stay answers.
    async fn act(&mut self, id: Value, request: Request) -> Result<Option<Value>, Fault> {
        let config = self.signal.config.clone();
        let done = match request {
            Request::CreateRoom(create) => {
                let room = request::room_name(&create.room, &config)?;
                self.ask(&room, create.options()).await?
            }
            Request::DeleteRoom { room } => self.ask(&room.into(), RoomRequest::Delete).await?,
            Request::Rooms {} => self.rooms().await,
            Request::Room { room } => self.room(&room.into()).await?,
            Request::Listen { room } => self.listen(room.map(RoomName::from)),
            Request::AddParticipant(add) => return self.add(id, add).await.map(|()| None),
            Request::Attach { room, identity } => {
                return self
                    .attach(id, room.into(), identity.into())
                    .await
                    .map(|()| None);
            }
            Request::Offer(offer) => {
                request::within("sdp", offer.sdp.len(), config.limits.sdp_bytes.get())?;
                let sdp = offer.sdp;
                let asked = Asked::Offer { id, sdp };
                return self.pass(offer.room, offer.identity, asked).await;
            }
            Request::Trickle(trickle) => {
                let candidate = trickle.candidate;
                let asked = Asked::Candidate { id, candidate };
                return self.pass(trickle.room, trickle.identity, asked).await;
            }
            Request::Publish(publish) => return self.publish(id, publish).await,
            Request::Subscribe(it) => self.ask(&it.room.clone().into(), it.request()?).await?,
            Request::Layers(it) => self.ask(&it.room.clone().into(), it.request()?).await?,
            Request::Mute(it) => {
                self.ask(&it.room.clone().into(), it.request(&config)?)
                    .await?
            }
            Request::Remove { room, identity } => self.remove(room, identity).await?,
        };
        Ok(Some(done))
    }

    async fn fact(&self, room: &RoomName, request: RoomRequest) -> Result<Fact, Fault> {
        let asked = self.signal.directory.ask(room, request);
        let answer = timeout(ANSWER_TIMEOUT, asked).await;
        Ok(answer.map_err(|_| Fault::late())??)
    }

    async fn ask(&self, room: &RoomName, request: RoomRequest) -> Result<Value, Fault> {
        Ok(match self.fact(room, request).await? {
            Fact::Room(info) => words::room(&info),
            Fact::Participant(info) => words::participant(&info),
            Fact::Track(info) => words::track(&info),
            _ => json!({}),
        })
    }

    async fn rooms(&self) -> Value {
        let mut rooms = Vec::new();
        for name in self.signal.directory.open_rooms() {
            // A room that closed meanwhile is none.
            if let Ok(room) = self.ask(&name, RoomRequest::Describe).await {
                rooms.push(room);
            }
        }
        json!({ "rooms": rooms })
    }

    async fn room(&self, name: &RoomName) -> Result<Value, Fault> {
        let info = self.ask(name, RoomRequest::Describe).await?;
        let participants = match self.fact(name, RoomRequest::Participants).await? {
            Fact::Participants(all) => all.iter().map(|info| words::participant(info)).collect(),
            _ => Vec::new(),
        };
        let [tracks, legs] = match self.fact(name, RoomRequest::Measure).await? {
            Fact::Media(facts) => words::facts(&facts),
            _ => [json!([]), json!([])],
        };
        Ok(json!({
            "room": info,
            "participants": participants,
            "tracks": tracks,
            "legs": legs,
        }))
    }

    /// From now on events are passed on, those of one room or all. The last call counts.
    fn listen(&mut self, room: Option<RoomName>) -> Value {
        if let Some(former) = self.listening.take() {
            former.abort();
        }
        let mut events = self.events.listen();
        let lines = self.lines.clone();
        let listening = tokio::spawn(async move {
            loop {
                let line = match events.recv().await {
                    Ok(event) if room.as_ref().is_none_or(|room| *room == event.room.name) => {
                        words::event(&event)
                    }
                    Ok(_) => continue,
                    Err(RecvError::Lagged(count)) => json!({ "event": "missed", "count": count }),
                    Err(RecvError::Closed) => return,
                };
                if lines.write(&line).await.is_err() {
                    return;
                }
            }
        });
        self.listening = Some(listening.abort_handle());
        json!({})
    }

    async fn add(&mut self, id: Value, add: AddParticipant) -> Result<(), Fault> {
        let config = &self.signal.config;
        let permissions = add.permissions(config)?;
        let room = request::room_name(&add.room, config)?;
        let identity = request::identity(&add.identity, config)?;
        let placement = self.signal.directory.place(&room)?;
        let join = Join {
            session: placement.session(),
            room: room.clone(),
            create_room: config.rooms.auto_create,
            home: placement.home(),
            identity: identity.clone(),
            name: add.name,
            metadata: add.metadata,
            attributes: add.attributes,
            permissions,
            auto_subscribe: add.auto_subscribe,
            adaptive_stream: false,
            two_connections: false,
            may_pause: add.may_pause,
            client: ClientInfo::default(),
        };
        let opening = Opening::Join(Box::new(join), id, add.sdp);
        self.hold(placement, room, identity, opening).await
    }

    async fn attach(&mut self, id: Value, room: RoomName, who: Identity) -> Result<(), Fault> {
        let placement = self.signal.directory.find(&room, &who).await?;
        self.hold(placement, room, who, Opening::Attach(id)).await
    }

    async fn hold(
        &mut self,
        placement: crate::directory::Placement,
        room: RoomName,
        identity: Identity,
        opening: Opening,
    ) -> Result<(), Fault> {
        let who = (room, identity);
        let limits = &self.signal.config.limits;
        let lines = self.lines.clone();
        let stay = Stay::open(placement, who.clone(), opening, limits, lines).await?;
        self.stays.retain(|_, stay| !stay.is_closed());
        self.stays.insert(who, stay);
        Ok(())
    }

    async fn publish(&mut self, id: Value, publish: Publish) -> Result<Option<Value>, Fault> {
        let (room, identity) = (publish.room.clone(), publish.identity.clone());
        let track = Box::new(publish.track()?);
        self.pass(room, identity, Asked::Publish { id, track })
            .await
    }

    /// Hands a request to the participant it is for.
    async fn pass(
        &mut self,
        room: String,
        identity: String,
        asked: Asked,
    ) -> Result<Option<Value>, Fault> {
        let who = (RoomName::from(room), Identity::from(identity));
        let stay = self.stays.get(&who).ok_or_else(Fault::not_held)?;
        if stay.send(asked).await.is_err() {
            self.stays.remove(&who);
            return Err(Fault::not_held());
        }
        Ok(None)
    }

    /// Ends a stay, and refuses the tokens it could come back with, those first.
    async fn remove(&self, room: String, identity: String) -> Result<Value, Fault> {
        let room = RoomName::from(room);
        let identity = request::identity(&identity, &self.signal.config)?;
        let now = super::unix_now();
        let revocations = &self.signal.revocations;
        revocations.revoke(room.clone(), identity.clone(), now, now);
        self.ask(&room, RoomRequest::Remove(identity)).await
    }
}

/// Reads a line, or the beginning of one that is too long. False at the end of the stream.
async fn read_line(reading: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut bounded = reading.take(LINE_BYTES_MAX + 1);
    Ok(bounded.read_until(b'\n', line).await? > 0)
}

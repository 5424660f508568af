//! One signalling session: a WebSocket on one side, a placement and its notices on the other.
//!
//! One task does it all. It never waits for the shard except when posting into a full mailbox,
//! and the shard never waits for it: a client that doesn't read lets the task hang in a write
//! until [`WRITE_DEADLINE`], or until the channel of notices is full and the worker drops it.
//! Messages are binary until the client sends a text; from then on they are JSON, until it sends
//! binary again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message as Reply;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tungstenite::error::{Error as SocketError, ProtocolError};

use super::decode;
use super::join::Admission;
use super::pace::{Offers, Pace};
use super::pass::Pass;
use super::request::{self, Action};
use super::wire;
use crate::directory::{Placement, WorkerGone, notices};
use crate::media::message::{
    BreakOff, Command, Departure, Joined, LeaveAction, LeaveReason, Notice, ParticipantInfo,
    Request, Resumed, RoomInfo, SignalEnd,
};
use crate::signal::{Signal, Stats};

/// How often the WebSocket is pinged, for proxies that cut quiet connections.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A write that takes longer ends the session. It begins to wait only when the kernel's buffer is
/// full; 2 s would cut off a phone that joins a room of a thousand over 1 Mbit/s.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a close waits for the other side, and a leave for the shard.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session's hold on its shard. Dropping it says that the signalling connection ended, unless
/// the stay is over anyway.
pub(super) struct Link {
    placement: Placement,
    pub notices: notices::Receiver,
    offers: Offers,
    /// The shard knows that the session ended.
    over: bool,
    /// Who ended the signalling connection, should the stay go on.
    end: SignalEnd,
}

/// What the shard says to a join or resume that it accepts.
pub(super) enum Opening {
    Joined(Box<Joined>),
    Resumed(Box<Resumed>),
}

impl Opening {
    pub fn participant(&self) -> &ParticipantInfo {
        match self {
            Self::Joined(joined) => &joined.participant,
            Self::Resumed(resumed) => &resumed.participant,
        }
    }

    pub fn room(&self) -> &RoomInfo {
        match self {
            Self::Joined(joined) => &joined.room,
            Self::Resumed(resumed) => &resumed.room,
        }
    }
}

/// A session whose join or resume was accepted.
pub(super) struct Session {
    signal: Arc<Signal>,
    link: Link,
    admission: Admission,
    opening: Opening,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client went, or the network did.
    SocketClosed,
    /// The client said goodbye.
    ClientLeft,
    /// The shard said that the stay is over.
    Left(LeaveReason),
    /// Another session has taken the stay over.
    Replaced,
    /// The client wanted its stay to end like this.
    Dismissed(Departure),
    /// The client wanted its resume to break off; the stay goes on.
    BrokenOff,
    /// The client's media is gone; it was told to come back.
    MediaLost,
    /// The client didn't read.
    SlowReader,
    /// A message was larger than allowed.
    Oversized,
    /// A message could not be understood.
    Malformed,
    /// An offer was larger than allowed.
    OfferTooLarge,
    /// The worker is gone.
    WorkerGone,
}

#[derive(Clone, Copy)]
enum Format {
    Binary,
    Json,
}

/// The client's side: the socket and how to write to it.
struct Wire {
    socket: WebSocket,
    format: Format,
    stats: Arc<Stats>,
}

/// Counts an open session as long as it lives.
struct OpenSession(Arc<Stats>);

impl Link {
    pub fn new(placement: Placement, notices: notices::Receiver, sdp_bytes_max: usize) -> Self {
        Self {
            placement,
            notices,
            offers: Offers::new(sdp_bytes_max),
            over: false,
            end: SignalEnd::ByUs,
        }
    }

    /// Asks for what the client wants: a stay, or the one it has.
    pub async fn open(
        &self,
        admission: &Admission,
        notices: notices::Sender,
    ) -> Result<(), WorkerGone> {
        let session = self.placement.session();
        let command = match &admission.resume {
            Some(stay) => Command::Resume(admission.to_resume(stay, session)),
            None => {
                let home = self.placement.home();
                Command::Join(Box::new(admission.to_join(session, home)))
            }
        };
        self.placement.open(command, notices).await
    }

    /// The shard knows that the session ended.
    pub fn is_over(&mut self) {
        self.over = true;
    }

    /// Why no more notices come, though the stay isn't over.
    fn cut_off(&mut self) -> End {
        self.over = true;
        if self.placement.worker_is_gone() {
            End::WorkerGone
        } else {
            End::SlowReader
        }
    }

    /// Passes a request on, an offer perhaps later.
    async fn ask(&mut self, request: Request) -> Result<(), End> {
        match request {
            // The shard would end the stay as well, but the whole node waits while it reads.
            Request::Offer { ref sdp, .. } | Request::Answer { ref sdp, .. }
                if !self.offers.admits(sdp) =>
            {
                Err(End::OfferTooLarge)
            }
            Request::Offer { .. } => match self.offers.take(request) {
                Some(offer) => self.post(offer).await,
                None => Ok(()),
            },
            request => self.post(request).await,
        }
    }

    /// Posts the offer that was held, if its time has come.
    async fn release_offer(&mut self) -> Result<(), End> {
        match self.offers.release() {
            Some(offer) => self.post(offer).await,
            None => Ok(()),
        }
    }

    async fn post(&self, request: Request) -> Result<(), End> {
        let command = Command::Request(self.placement.session(), request);
        self.placement
            .post(command)
            .await
            .map_err(|_| End::WorkerGone)
    }

    /// Waits until the shard has taken note of a leave.
    async fn part(&mut self) {
        let parted = async {
            while let Some(notice) = self.notices.recv().await {
                if matches!(notice, Notice::Left(_)) {
                    break;
                }
            }
        };
        let _ = timeout(GOODBYE_TIMEOUT, parted).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.over {
            self.placement.post_closed(self.end);
        }
    }
}

impl Session {
    pub fn new(signal: Arc<Signal>, link: Link, admission: Admission, opening: Opening) -> Self {
        Self {
            signal,
            link,
            admission,
            opening,
        }
    }

    /// Speaks with the client until one side has enough.
    pub async fn run(self, socket: WebSocket) {
        let Self {
            signal,
            mut link,
            admission,
            opening,
        } = self;
        let _open = OpenSession::new(signal.stats.clone());
        let participant = opening.participant().sid.clone();
        let identity = opening.participant().identity.clone();
        let mut pass = Pass::new(admission.grant.clone(), admission.holder.clone());
        let mut wire = Wire::new(socket, signal.stats.clone());
        let welcome = welcome(&signal, &mut link, &mut wire, admission, opening, &mut pass);
        let end = match welcome.await {
            Ok(()) => converse(&signal, &mut link, &mut wire, &mut pass).await,
            Err(end) => end,
        };
        if let Some(departure) = end.farewell() {
            // The stay must not go on: the client comes back with another one.
            let _ = link.post(Request::End(departure)).await;
            link.over = true;
            if let Err(unsaid) = wire.write(wire::leave(departure)).await {
                tracing::debug!(?unsaid, "no farewell");
            }
        }
        link.over |= matches!(
            end,
            End::ClientLeft | End::Left(_) | End::Replaced | End::MediaLost
        );
        if end == End::SocketClosed {
            link.end = SignalEnd::ByClient;
        }
        end.count(&signal.stats);
        tracing::info!(?participant, ?identity, ?end, "signalling ended");
        // The shard learns of it now, and not when a slow client has closed.
        drop(link);
        wire.close(end.code()).await;
    }
}

/// Writes the `JoinResponse` or `ReconnectResponse`, then hands on what the client brought along,
/// in this order.
async fn welcome(
    signal: &Signal,
    link: &mut Link,
    wire: &mut Wire,
    admission: Admission,
    opening: Opening,
    pass: &mut Pass,
) -> Result<(), End> {
    let node = &signal.node_id;
    match opening {
        Opening::Joined(joined) => wire.write(wire::join_response(*joined, node)).await?,
        Opening::Resumed(resumed) => {
            // It may have changed while nobody listened.
            pass.learn(&resumed.participant);
            let break_off = resumed.break_off;
            if break_off == Some(BreakOff::Silent) {
                return Err(End::BrokenOff);
            }
            for reply in wire::reconnect(*resumed, node) {
                wire.write(reply).await?;
            }
            if break_off.is_some() {
                return Err(End::BrokenOff);
            }
        }
    }
    renew(signal, wire, pass).await?;
    for track in admission.tracks {
        act(request::add_track(track), link, wire).await?;
    }
    if let Some(offer) = admission.offer {
        link.ask(request::offer(offer)).await?;
    }
    Ok(())
}

async fn converse(signal: &Signal, link: &mut Link, wire: &mut Wire, pass: &mut Pass) -> End {
    let mut pace = Pace::new(signal.config.limits.signal_requests_per_second);
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let waiting = pace.is_used_up();
        let held = link.offers.held_until();
        let step = tokio::select! {
            notice = link.notices.recv() => match notice {
                Some(notice) => {
                    if matches!(notice, Notice::Answer { .. }) {
                        link.offers.answered();
                    }
                    pass.follow(&notice);
                    tell(wire, notice).await
                }
                // The worker drops the channel when it is full, and with its own end.
                None => Err(link.cut_off()),
            },
            message = wire.socket.recv(), if !waiting && held.is_none() => {
                if pace.spend() {
                    Stats::count(&signal.stats.rate_limited);
                }
                hear(signal, message, link, wire).await
            }
            () = sleep_until(pace.until), if waiting => Ok(()),
            () = sleep_until(held.unwrap_or_else(Instant::now)), if held.is_some() => {
                link.release_offer().await
            }
            () = sleep_until(pass.due()) => renew(signal, wire, pass).await,
            _ = ping.tick() => wire.send(Message::Ping(Default::default())).await,
        };
        match step {
            Ok(()) => {}
            Err(End::ClientLeft) => {
                link.part().await;
                return End::ClientLeft;
            }
            Err(end) => return end,
        }
    }
}

/// Gives the client a new token.
async fn renew(signal: &Signal, wire: &mut Wire, pass: &mut Pass) -> Result<(), End> {
    match pass.renew(signal) {
        Some(token) => wire.write(Reply::RefreshToken(token)).await,
        None => Ok(()),
    }
}

/// Passes a notice on.
async fn tell(wire: &mut Wire, notice: Notice) -> Result<(), End> {
    let end = match &notice {
        Notice::Left(departure) => Some(End::Left(departure.reason)),
        Notice::Replaced => Some(End::Replaced),
        Notice::MediaLost => Some(End::MediaLost),
        _ => None,
    };
    if let Some(reply) = wire::reply(notice) {
        wire.write(reply).await?;
    }
    end.map_or(Ok(()), Err)
}

/// Deals with what came from the socket.
async fn hear(
    signal: &Signal,
    message: Option<Result<Message, axum::Error>>,
    link: &mut Link,
    wire: &mut Wire,
) -> Result<(), End> {
    let request = match message {
        None | Some(Ok(Message::Close(_))) => return Err(End::SocketClosed),
        Some(Err(error)) => return Err(End::of(error)),
        // The WebSocket answers pings itself.
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(()),
        Some(Ok(Message::Binary(bytes))) => {
            wire.format = Format::Binary;
            decode::signal_request(&bytes).map_err(|_| End::Malformed)?
        }
        Some(Ok(Message::Text(text))) => {
            wire.format = Format::Json;
            decode::signal_request_json(&text).map_err(|_| End::Malformed)?
        }
    };
    Stats::count(&wire.stats.messages_in);
    match request.message {
        Some(message) => {
            let simulating = signal.config.http.simulate;
            act(request::interpret(message, simulating), link, wire).await
        }
        // A message newer than we are.
        None => Ok(()),
    }
}

async fn act(action: Action, link: &mut Link, wire: &mut Wire) -> Result<(), End> {
    match action {
        Action::Ask(Request::Leave) => {
            link.ask(Request::Leave).await?;
            Err(End::ClientLeft)
        }
        Action::Ask(request) => link.ask(request).await,
        Action::Depart(departure) => Err(End::Dismissed(departure)),
        Action::Reply(reply) => wire.write(*reply).await,
        Action::Ignore => Ok(()),
    }
}

/// Tells a client whose stay is over to join anew.
pub(super) async fn decline_resume(socket: WebSocket, stats: &Arc<Stats>) {
    let mut wire = Wire::new(socket, stats.clone());
    let leave = wire::leave(Departure {
        reason: LeaveReason::StateMismatch,
        action: LeaveAction::Reconnect,
    });
    if let Err(end) = wire.write(leave).await {
        tracing::debug!(?end, "resume not declined");
    }
    wire.close(close_code::NORMAL).await;
}

impl Wire {
    fn new(socket: WebSocket, stats: Arc<Stats>) -> Self {
        Self {
            socket,
            format: Format::Binary,
            stats,
        }
    }

    async fn write(&mut self, reply: Reply) -> Result<(), End> {
        let response = proto::SignalResponse {
            message: Some(reply),
        };
        let message = match self.format {
            Format::Binary => Message::Binary(response.encode_to_vec().into()),
            Format::Json => {
                let text = serde_json::to_string(&response).map_err(|_| End::Malformed)?;
                Message::Text(text.into())
            }
        };
        Stats::count(&self.stats.messages_out);
        self.send(message).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(WRITE_DEADLINE, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::SocketClosed),
            Err(_) => Err(End::SlowReader),
        }
    }

    /// Sends a close frame and waits for the client's, so that what was written arrives.
    async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code,
            reason: "".into(),
        };
        let goodbye = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
    }
}

impl End {
    fn of(error: axum::Error) -> Self {
        match error.into_inner().downcast_ref::<SocketError>() {
            Some(SocketError::Capacity(_)) => Self::Oversized,
            // A tab that is closed says no goodbye.
            Some(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                Self::SocketClosed
            }
            Some(SocketError::Protocol(_) | SocketError::Utf8(_)) => Self::Malformed,
            _ => Self::SocketClosed,
        }
    }

    /// What the client is told of an end that the shard didn't speak of.
    fn farewell(self) -> Option<Departure> {
        let reason = match self {
            Self::Dismissed(departure) => return Some(departure),
            Self::OfferTooLarge => LeaveReason::StateMismatch,
            Self::WorkerGone => LeaveReason::ServerShutdown,
            _ => return None,
        };
        let action = LeaveAction::Reconnect;
        Some(Departure { reason, action })
    }

    fn code(self) -> u16 {
        match self {
            Self::Oversized => close_code::SIZE,
            Self::Malformed => close_code::INVALID,
            Self::WorkerGone => close_code::ERROR,
            _ => close_code::NORMAL,
        }
    }

    fn count(self, stats: &Stats) {
        match self {
            Self::SlowReader => Stats::count(&stats.slow_readers),
            Self::Oversized => Stats::count(&stats.oversized_messages),
            Self::Malformed => Stats::count(&stats.malformed_messages),
            Self::OfferTooLarge => Stats::count(&stats.oversized_offers),
            _ => {}
        }
    }
}

impl OpenSession {
    fn new(stats: Arc<Stats>) -> Self {
        Stats::count(&stats.sessions_open);
        Self(stats)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.sessions_open.fetch_sub(1, Ordering::Relaxed);
    }
}

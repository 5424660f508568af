//! The LiveKit signalling protocol: routes, joins, and sessions on WebSockets.
//!
//! ```text
//! request -> join (checks, 4xx) -> placement, Open, Join -> shard
//!                                                            |
//! 101, JoinResponse <- session <- Joined --------------------+-- Refused -> 404, 503, 500
//! ```
//!
//! A resume takes the same way, with `Resume` for `Join` and `ReconnectResponse` in its answer.
//!
//! The upgrade is answered only when the shard has answered the join, so that a refusal is an HTTP
//! error, which clients can interpret, and not a closed socket. `request` reads what clients send,
//! `wire` writes what they get. On `/rtc` older clients join by query parameters (`query`), and
//! then have two peer connections.

mod call;
mod client;
mod decode;
mod join;
mod pace;
mod pass;
mod query;
pub(super) mod request;
mod session;
mod simulate;
mod track;
pub(super) mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use livekit_protocol as proto;
use prost::Message;

use super::http::Slot;
use super::matrix::members;
use super::{Signal, Stats, not_found};
use crate::directory::notices;
use crate::media::message::administration::{Fact, RoomRequest};
use crate::media::message::{Notice, Refusal, Request};
use join::{Admission, Refused};
use session::{Link, Opening, Session};

/// Bytes a session reads at a time, and so its buffer from the start: clients say little. Longer
/// messages make it grow.
const READ_BYTES: usize = 4 << 10;

/// The shard answers a join in milliseconds. Clients give the upgrade 5 s and more.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a message of a client asks of a shard, if it does: for benches.
#[doc(hidden)]
pub fn read(message: &[u8]) -> Option<Request> {
    let asked = decode::signal_request(message).ok()?.message?;
    match request::interpret(asked, false) {
        request::Action::Ask(request) => Some(request),
        _ => None,
    }
}

/// A notice as a client gets it, if it does: for benches.
#[doc(hidden)]
pub fn write(notice: Notice) -> Option<Vec<u8>> {
    let message = Some(wire::reply(notice)?);
    Some(proto::SignalResponse { message }.encode_to_vec())
}

pub(super) fn routes() -> Router<Arc<Signal>> {
    Router::new()
        .route("/rtc/v1", get(connect))
        .route("/rtc/v1/validate", get(validate))
        // Joins by `join_request` are honoured here too; see `join::admit`.
        .route("/rtc", get(connect))
        .route("/rtc/validate", get(validate))
}

/// The checks of a join without the join. Browsers don't see why an upgrade failed, so clients ask
/// here afterwards.
async fn validate(
    State(signal): State<Arc<Signal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<&'static str, Response> {
    if is_off(&signal, &uri) {
        return Err(not_found().await.into_response());
    }
    check(&signal, &uri, &headers)
        .await
        .map_err(Refused::into_response)
}

/// Whether the path is of the newer signalling, which isn't wanted: clients fall back to `/rtc`.
fn is_off(signal: &Signal, uri: &Uri) -> bool {
    join::is_v1(uri) && !signal.config.http.v1
}

async fn check(signal: &Signal, uri: &Uri, headers: &HeaderMap) -> Result<&'static str, Refused> {
    let admission = join::admit(signal, uri, headers)?;
    members::check(signal, &admission.grant).await?;
    if admission.resume.is_none() {
        signal.directory.admits(&admission.room)?;
        if !admission.create_room && !signal.directory.exists(&admission.room) {
            return Err(Refusal::RoomMissing.into());
        }
        has_place(signal, &admission).await?;
    }
    Ok("success")
}

/// Fails if the room would turn the join away because it is full; who is there already would take
/// its own place. Hidden participants are not among those who are counted.
async fn has_place(signal: &Signal, admission: &Admission) -> Result<(), Refused> {
    let ask = |request| {
        let asking = signal.directory.ask(&admission.room, request);
        tokio::time::timeout(JOIN_TIMEOUT, asking)
    };
    let Ok(Ok(Fact::Room(room))) = ask(RoomRequest::Describe).await else {
        return Ok(());
    };
    if room.participants < room.participants_max {
        return Ok(());
    }
    let own = RoomRequest::Participant(admission.grant.identity.clone());
    match ask(own).await {
        Ok(Ok(Fact::Participant(_))) => Ok(()),
        _ => Err(Refusal::RoomFull.into()),
    }
}

async fn connect(
    State(signal): State<Arc<Signal>>,
    Extension(slot): Extension<Slot>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if is_off(&signal, &uri) {
        return not_found().await.into_response();
    }
    // Somebody who just looks what is here, with or without a token.
    if !headers.contains_key(header::UPGRADE) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let result = match join::admit(&signal, &uri, &headers) {
        Err(refused) => Err(refused),
        Ok(admission) => match upgrade {
            Ok(upgrade) => match members::check(&signal, &admission.grant).await {
                Ok(()) => join_room(&signal, admission, upgrade, slot).await,
                Err(refused) => Err(refused.into()),
            },
            Err(rejection) => return no_upgrade(&rejection),
        },
    };
    result.unwrap_or_else(|refused| {
        refused.count(&signal.stats);
        tracing::debug!("join refused: {refused}");
        refused.into_response()
    })
}

/// A request that is no upgrade at all finds nothing here; a faulty upgrade is told so.
fn no_upgrade(rejection: &WebSocketUpgradeRejection) -> Response {
    use WebSocketUpgradeRejection as Why;
    match rejection {
        Why::InvalidWebSocketVersionHeader(_) | Why::WebSocketKeyHeaderMissing(_) => {
            (StatusCode::BAD_REQUEST, "invalid WebSocket upgrade\n").into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn join_room(
    signal: &Arc<Signal>,
    admission: Admission,
    upgrade: WebSocketUpgrade,
    slot: Slot,
) -> Result<Response, Refused> {
    let message_max = signal.config.limits.signal_message_bytes.get();
    let upgrade = upgrade
        .read_buffer_size(READ_BYTES)
        .max_message_size(message_max)
        .max_frame_size(message_max);
    let asked = tokio::time::timeout(JOIN_TIMEOUT, ask_shard(signal, &admission)).await;
    let (link, opening) = match asked.map_err(|_| Refused::Timeout)? {
        // Said in a session, since clients take any HTTP error for one of the network.
        Err(Refused::Shard(Refusal::StayUnknown)) => {
            Stats::count(&signal.stats.resumes_unknown);
            let stats = signal.stats.clone();
            return Ok(upgrade.on_upgrade(move |socket| async move {
                session::decline_resume(socket, &stats).await;
                drop(slot);
            }));
        }
        asked => asked?,
    };
    // The link that is dropped then ends the stay.
    admission.check_again(signal)?;
    members::enter(signal, &admission.grant, &admission.holder);
    tracing::info!(
        participant = ?opening.participant().sid,
        room = ?opening.room().sid,
        identity = ?opening.participant().identity,
        resumed = admission.resume.is_some(),
        "joined"
    );
    let session = Session::new(signal.clone(), link, admission, opening);
    Ok(upgrade.on_upgrade(move |socket| async move {
        session.run(socket).await;
        drop(slot);
    }))
}

/// Posts the join or resume and waits for what the shard says to it.
async fn ask_shard(signal: &Signal, admission: &Admission) -> Result<(Link, Opening), Refused> {
    let placement = match admission.resume {
        Some(_) => {
            let identity = &admission.grant.identity;
            signal.directory.find(&admission.room, identity).await?
        }
        None => signal.directory.place(&admission.room)?,
    };
    let limits = &signal.config.limits;
    let (sender, notices) = notices::queue(notices::Bounds {
        count: limits.pending_notices,
        bytes: limits.pending_notice_bytes.get(),
    });
    let mut link = Link::new(placement, notices, limits.sdp_bytes.get());
    link.open(admission, sender)
        .await
        .map_err(|_| Refused::Internal)?;
    match link.notices.recv().await {
        Some(Notice::Joined(joined)) => Ok((link, Opening::Joined(joined))),
        Some(Notice::Resumed(resumed)) => Ok((link, Opening::Resumed(resumed))),
        Some(Notice::Refused(refusal)) => {
            link.is_over();
            Err(refusal.into())
        }
        _ => Err(Refused::Internal),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, self.to_string()).into_response()
    }
}

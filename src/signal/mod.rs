//! Signalling: HTTP and WebSocket on one side, `media::message` on the other.
//!
//! [`serve`] takes connections (`http`), the routes below lead to an adapter (`livekit` for
//! clients, `room_service` for the programs of operators), and an adapter speaks with shards
//! through the directory. [`control`] is one more, on a Unix socket. [`webhook`] carries what
//! happens in rooms to such programs. What is not here: TLS for those who come (a proxy's work),
//! RTP, and, but for `revocation`, anything that outlives a connection.

pub mod control;
pub mod grant;
pub mod livekit;
pub mod matrix;

mod client;
mod http;
mod metered;
mod path;
mod revocation;
mod room_service;
mod stats;
pub mod webhook;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use stats::Stats;

use crate::config::Config;
use crate::directory::Directory;
use crate::directory::events::Listening;
use grant::Verifier;
use matrix::Matrix;
use revocation::Revocations;

/// What somebody can come in by, bound already.
pub struct Doors {
    /// For clients, and for programs with a token.
    pub http: Vec<TcpListener>,
    /// For programs on this host.
    pub control: Option<control::Listener>,
    /// Tokens for Matrix users.
    pub matrix: Option<Matrix>,
    /// Where to hear what happens in rooms.
    pub events: Listening,
}

/// Takes connections until `stop` turns true, and returns when the last of them has ended.
/// Sessions end when their shard says so: [`Directory::shut_down`] makes it.
pub async fn serve(
    doors: Doors,
    config: Arc<Config>,
    directory: Arc<Directory>,
    stats: Arc<Stats>,
    stop: watch::Receiver<bool>,
) {
    let mut matrix = doors.matrix;
    let leaving = matrix.as_mut().and_then(Matrix::take_leaving);
    let signal = Arc::new(Signal::new(config, directory, stats, matrix));
    matrix::start(&signal, leaving, doors.events.clone(), &stop);
    let controlled = doors.control.map(|socket| {
        let serving = control::serve(socket, signal.clone(), doors.events, stop.clone());
        tokio::spawn(serving)
    });
    http::serve(doors.http, signal, stop).await;
    if let Some(controlled) = controlled
        && let Err(error) = controlled.await
    {
        tracing::error!("the control socket ended: {error}");
    }
}

/// What every request may need.
struct Signal {
    config: Arc<Config>,
    directory: Arc<Directory>,
    stats: Arc<Stats>,
    verifier: Verifier,
    revocations: Revocations,
    matrix: Option<Matrix>,
    /// `ND_` and 12 characters; new with each start.
    node_id: String,
}

/// Headers of every answer, errors too: a page that can't read an error answer believes the
/// server unreachable, and doesn't fall back.
const CORS: [(HeaderName, HeaderValue); 3] = [
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("OPTIONS, HEAD, GET, POST, PATCH, DELETE"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        // A wildcard doesn't cover Authorization (Fetch standard, CORS-preflight fetch).
        HeaderValue::from_static("*, Authorization"),
    ),
    (
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("86400"),
    ),
];

impl Signal {
    fn new(
        config: Arc<Config>,
        directory: Arc<Directory>,
        stats: Arc<Stats>,
        matrix: Option<Matrix>,
    ) -> Self {
        Self {
            verifier: Verifier::new(&config),
            revocations: Revocations::new(&config, stats.clone()),
            node_id: node_id(),
            config,
            directory,
            stats,
            matrix,
        }
    }

    /// The origin to allow, if any.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origins = &self.config.http.origins;
        if origins.iter().any(|origin| origin == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = headers.get(header::ORIGIN)?;
        let listed = |allowed: &String| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
        origins.iter().any(listed).then(|| origin.clone())
    }
}

fn router(signal: Arc<Signal>) -> axum::Router {
    axum::Router::new()
        .route("/", get("OK"))
        .merge(livekit::routes())
        .merge(room_service::routes())
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(signal.clone(), cross_origin))
        .merge(matrix::routes())
        .with_state(signal)
}

/// The answer to a path we don't have. It must not speak of a missing room: on `/rtc/v1` clients
/// would take that for the end, instead of trying `/rtc`.
async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Answers preflights, turns pages of foreign origins away, and marks every answer as readable and
/// as the last of its connection.
async fn cross_origin(State(signal): State<Arc<Signal>>, request: Request, next: Next) -> Response {
    let allowed = signal.allowed_origin(request.headers());
    let foreign = allowed.is_none() && request.headers().contains_key(header::ORIGIN);
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else if foreign {
        (StatusCode::FORBIDDEN, "origin not allowed\n").into_response()
    } else {
        next.run(request).await
    };
    signal.stats.answered(response.status().as_u16());
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    if !upgraded {
        // Nobody asks twice, and a connection that is kept is one that can be held.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(origin) = allowed {
        if origin != "*" {
            headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.extend(CORS);
    }
    response
}

/// A timeout of a room from so many seconds, a day at most, as in the configuration: a room that
/// waits for a century would take its place for good.
fn room_timeout(seconds: u32) -> Duration {
    const DAY: u32 = 86_400;
    Duration::from_secs(u64::from(seconds.min(DAY)))
}

fn node_id() -> String {
    const LETTERS: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let random = RandomState::new();
    let letter = |place: u8| {
        let drawn = random.hash_one(place) % LETTERS.len() as u64;
        char::from(LETTERS[drawn as usize])
    };
    (0..12).fold("ND_".to_owned(), |mut id, place| {
        id.push(letter(place));
        id
    })
}

/// Time since 1970; only for tokens and for timestamps clients see.
#[expect(
    clippy::disallowed_methods,
    reason = "signalling is off the packet path"
)]
fn unix_now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_have_their_shape() {
        let id = node_id();
        assert!(id.starts_with("ND_") && id.len() == 15, "{id}");
        assert_ne!(id, node_id());
    }
}

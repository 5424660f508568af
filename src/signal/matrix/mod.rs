//! Tokens for Matrix users: who may join the call of a Matrix room.
//!
//! ```text
//! browser -> standalone: OpenID token --------> homeserver: whose is it? --+
//! browser -> homeserver -> appservice: user id, vouched for by hs_token ---+-> issue: room, token
//! ```
//!
//! There are two ways, and clients of both are about: they bring a token of their homeserver to us
//! (`standalone`), or they ask their homeserver, which asks us as its application service
//! (`appservice`, MSC4195, MSC4512). `issue` is the same for both. What is asked of homeservers is
//! in [`crate::matrix`]. What is not here: what a token allows ([`super::grant`]).

mod appservice;
mod issue;
mod leaving;
pub(super) mod members;
mod refusal;
mod standalone;

use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::{Signal, Stats};
use crate::config::{Config, Secret};
use crate::directory::events::Listening;
use crate::matrix::homeservers::{Homeservers, escaped};
use crate::matrix::leaves::store::Store;
use crate::matrix::registration::{LEAVES_EXPECTED, Registration};
use leaving::Office;
use members::Members;
use refusal::Refusal;
use standalone::{GetToken, SfuGet};

/// Bytes of a request; upstream takes a MiB, no client sends more than one KiB.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a transaction of the homeserver: a hundred events of 64 KiB.
const TRANSACTION_BYTES_MAX: usize = 8 << 20;

/// What tokens for Matrix users take.
pub struct Matrix {
    homeservers: Homeservers,
    /// Where clients find us.
    url: String,
    /// Name and secret of the key that signs.
    key: (String, Secret),
    /// Our homeserver, whose application service we are.
    service: Option<(String, Registration)>,
    require_membership: bool,
    members: Members,
    /// Takes leaves, if there is a file to keep them in.
    office: Option<Office>,
    /// What the task that keeps leaves begins with.
    leaving: Option<leaving::Start>,
}

/// Why there can be no tokens for Matrix users.
#[derive(Debug)]
pub enum Error {
    /// The certificates to trust could not be read.
    Certificates(io::Error),
    /// The registration can't be used; the text says where it is and what to do.
    Registration(String),
    /// The file of leaves could not be opened.
    Leaves(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificates(error) => write!(
                f,
                "cannot check certificates of homeservers: {error}; install ca-certificates or \
                 see matrix.extra_ca"
            ),
            Self::Registration(problem) => f.write_str(problem),
            Self::Leaves(path, error) => write!(
                f,
                "cannot keep leaves in {}: {error}; make its folder, let this user write there, \
                 or change matrix.leaves",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {}

impl Matrix {
    /// As configured; `None` if Matrix users get no tokens here.
    pub fn new(config: &Config) -> Result<Option<Self>, Error> {
        let matrix = &config.matrix;
        let key = match &matrix.key {
            Some(name) => config
                .keys
                .secret(name)
                .map(|secret| (name.as_str(), secret)),
            None => config.keys.first(),
        };
        let (Some(url), Some((name, secret)), true) = (&matrix.url, key, matrix.is_on()) else {
            return Ok(None);
        };
        let home = matrix.homeservers.keys().next();
        let service = match (&matrix.registration, home) {
            (Some(path), Some(home)) => {
                let read = Registration::read(path).map_err(Error::Registration)?;
                for concern in &read.concerns {
                    tracing::warn!("{}: {concern}", path.display());
                }
                Some((home.as_str().to_owned(), read))
            }
            _ => None,
        };
        let (office, leaving) = match &matrix.leaves {
            Some(path) => {
                let opened = Store::open(path);
                let opened = opened.map_err(|error| Error::Leaves(path.clone(), error));
                let (store, found) = opened?;
                let (office, leaving) = leaving::office(store, found);
                (Some(office), Some(leaving))
            }
            None => {
                if service.is_some() {
                    tracing::warn!("{LEAVES_EXPECTED}");
                }
                (None, None)
            }
        };
        Ok(Some(Self {
            homeservers: Homeservers::new(matrix).map_err(Error::Certificates)?,
            url: url.as_str().to_owned(),
            key: (name.to_owned(), secret.clone()),
            service,
            require_membership: matrix.require_membership,
            members: Members::default(),
            office,
            leaving,
        }))
    }

    /// What asking homeservers comes to.
    pub fn stats(&self) -> &Arc<crate::matrix::Stats> {
        self.homeservers.stats()
    }

    /// What the task that keeps leaves begins with; once.
    pub(super) fn take_leaving(&mut self) -> Option<leaving::Start> {
        self.leaving.take()
    }

    fn takes_leaves(&self) -> bool {
        self.office.is_some()
    }

    /// The token with which we may act in the name of users of `server`.
    fn as_token_for(&self, server: &str) -> Option<&str> {
        let (home, registration) = self.service.as_ref()?;
        (home == server).then(|| registration.as_token.as_str())
    }
}

/// Starts what goes on beside requests: leaves are kept, memberships watched. Ends with `stop`.
pub(super) fn start(
    signal: &Arc<Signal>,
    leaving: Option<leaving::Start>,
    events: Listening,
    stop: &watch::Receiver<bool>,
) {
    if let Some(start) = leaving {
        tokio::spawn(leaving::keep(signal.clone(), start, events, stop.clone()));
    }
    let service = signal.matrix.as_ref().and_then(|it| it.service.as_ref());
    if service.is_some() {
        tokio::spawn(members::watch(signal.clone(), stop.clone()));
    }
}

/// The routes of those who come themselves. They have CORS headers of their own: upstream's.
pub(super) fn routes() -> Router<Arc<Signal>> {
    Router::new()
        .route("/sfu/get", any(standalone::get_token::<SfuGet>))
        .route("/get_token", any(standalone::get_token::<GetToken>))
        .route("/delegate_delayed_leave", any(standalone::delegate))
        .layer(middleware::from_fn(only_post))
        .merge(Router::new().route("/healthz", any(healthz)))
        .merge(appservice::routes())
}

/// What browsers need to read an answer, errors too: without it a client calls any of them
/// "OPEN_ID_ERROR".
const CORS: [(HeaderName, HeaderValue); 3] = [
    (
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token",
        ),
    ),
];

/// Answers preflights, and anything but POST.
async fn only_post(request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::POST => next.run(request).await,
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.extend(CORS);
    response
}

/// Whether we are there; probes ask.
async fn healthz(method: Method) -> StatusCode {
    match method {
        Method::GET | Method::HEAD => StatusCode::OK,
        _ => StatusCode::METHOD_NOT_ALLOWED,
    }
}

/// The answer to a request, counted.
fn answer(signal: &Signal, served: Result<Value, Refusal>) -> Response {
    let response = match served {
        Ok(body) => {
            Stats::count(&signal.stats.matrix_requests);
            refusal::json(StatusCode::OK, &body)
        }
        Err(refusal) => {
            Stats::count(&signal.stats.matrix_refusals);
            tracing::debug!("request of a Matrix user refused: {}", refusal.text);
            refusal.into_response()
        }
    };
    signal.stats.answered(response.status().as_u16());
    response
}

/// A request as JSON. What a client adds to it that we don't know is none of our business.
async fn read<Q: DeserializeOwned>(body: Body) -> Result<Q, Refusal> {
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|_| refusal::TOO_LARGE)?;
    serde_json::from_slice(&body).map_err(|_| refusal::NOT_JSON)
}

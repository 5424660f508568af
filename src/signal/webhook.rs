//! Webhooks: what happens in rooms, posted to the programs of operators in the order it happens.
//!
//! ```text
//! workers --events--> announce: JSON, signed --body--> a queue and a task per address --> POST
//! ```
//!
//! Nobody waits for a webhook: what finds a queue full is dropped and counted. A post that fails
//! is tried again a few times, while the queue behind it fills; then it is given up, and the next
//! is tried. Nothing is kept over a restart. What is not here: other hosts than those configured;
//! redirects are not followed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use livekit_protocol as proto;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::grant::seal;
use super::livekit::wire;
use super::{Stats, unix_now};
use crate::config::{Config, Secret};
use crate::directory::events::Posts;
use crate::media::message::ParticipantInfo;
use crate::media::message::administration::{Event, Happened};

/// Events that wait to be written down, of all workers. It is only full when the process is.
const EVENTS: usize = 1024;

/// Events that wait for one address.
const QUEUE: usize = 100;

/// Bytes of those events. A participant's metadata makes one large.
const QUEUE_BYTES: usize = 16 << 20;

/// Times an event is posted before it is given up.
const ATTEMPTS: u32 = 5;

/// Wait before the second attempt; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(500);

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a signature is good.
const SIGNATURE_LIFE: Duration = Duration::from_secs(300);

/// One event, ready to be posted anywhere.
#[derive(Clone)]
struct Post {
    body: Bytes,
    signer: Arc<Signer>,
}

/// The key that signs.
struct Signer {
    key: String,
    secret: Secret,
}

/// The queue of one address.
struct Queue {
    posts: mpsc::Sender<Post>,
    bytes: Arc<AtomicUsize>,
}

/// Starts the task that posts events, which ends when no worker is left and the last event is
/// delivered or given up. Without an address nothing is posted, and no certificate is read.
pub fn start(config: &Config, stats: &Arc<Stats>) -> io::Result<(Option<Posts>, JoinHandle<()>)> {
    let urls = &config.webhook.urls;
    let named = config.webhook.key.as_deref();
    let key = match named {
        Some(name) => config.keys.secret(name).map(|secret| (name, secret)),
        None => config.keys.first(),
    };
    let Some((key, secret)) = key.filter(|_| !urls.is_empty()) else {
        return Ok((None, tokio::spawn(async {})));
    };
    let signer = Arc::new(Signer {
        key: key.to_owned(),
        secret: secret.clone(),
    });
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    for url in urls {
        let (posts, waiting) = mpsc::channel(QUEUE);
        let bytes = Arc::new(AtomicUsize::new(0));
        let target = Target {
            uri: url.uri(),
            waiting,
            bytes: Arc::clone(&bytes),
            stats: Arc::clone(stats),
        };
        match url.is_https() {
            true => tasks.spawn(target.serve(secure_client()?)),
            false => tasks.spawn(target.serve(plain_client())),
        };
        queues.push(Queue { posts, bytes });
    }
    let (events, happening) = mpsc::channel(EVENTS);
    let stats = Arc::clone(stats);
    let posting = tokio::spawn(async move {
        announce(happening, queues, &signer, &stats).await;
        tasks.join_all().await;
    });
    Ok((Some(events), posting))
}

fn plain_client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build(HttpConnector::new())
}

/// Trusts what the host trusts.
fn secure_client() -> io::Result<Client<HttpsConnector<HttpConnector>, Body>> {
    let connector = HttpsConnectorBuilder::new().with_native_roots()?;
    let connector = connector.https_only().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// Writes events down and queues them for each address.
async fn announce(
    mut happening: mpsc::Receiver<Box<Event>>,
    queues: Vec<Queue>,
    signer: &Arc<Signer>,
    stats: &Stats,
) {
    while let Some(event) = happening.recv().await {
        let Ok(body) = serde_json::to_vec(&message(*event)) else {
            Stats::count(&stats.webhooks_failed);
            continue;
        };
        let post = Post {
            body: body.into(),
            signer: Arc::clone(signer),
        };
        for queue in &queues {
            if !queue.take(&post) {
                Stats::count(&stats.webhooks_dropped);
            }
        }
    }
}

impl Queue {
    /// Whether there was room.
    fn take(&self, post: &Post) -> bool {
        let weight = post.body.len();
        // Only here it grows.
        if self.bytes.load(Ordering::Relaxed).saturating_add(weight) > QUEUE_BYTES {
            return false;
        }
        self.bytes.fetch_add(weight, Ordering::Relaxed);
        let taken = self.posts.try_send(post.clone()).is_ok();
        if !taken {
            self.bytes.fetch_sub(weight, Ordering::Relaxed);
        }
        taken
    }
}

/// One address and what waits for it.
struct Target {
    uri: Uri,
    waiting: mpsc::Receiver<Post>,
    bytes: Arc<AtomicUsize>,
    stats: Arc<Stats>,
}

impl Target {
    async fn serve<C>(mut self, client: Client<C, Body>)
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        while let Some(post) = self.waiting.recv().await {
            self.bytes.fetch_sub(post.body.len(), Ordering::Relaxed);
            let delivered = self.deliver(&client, &post).await;
            Stats::count(match delivered {
                true => &self.stats.webhooks_delivered,
                false => &self.stats.webhooks_failed,
            });
        }
    }

    /// Posts until the event is taken, refused for good, or was tried often enough.
    async fn deliver<C>(&self, client: &Client<C, Body>, post: &Post) -> bool
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(BACKOFF * (1 << (attempt - 1))).await;
            }
            let Some(request) = post.request(&self.uri) else {
                return false;
            };
            let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, client.request(request)).await;
            match answer {
                Ok(Ok(response)) if response.status().is_success() => return true,
                Ok(Ok(response)) if !may_change(response.status()) => {
                    tracing::warn!(status = %response.status(), "a webhook refused an event");
                    return false;
                }
                Ok(Ok(response)) => {
                    tracing::debug!(status = %response.status(), attempt, "event not taken");
                }
                Ok(Err(error)) => tracing::debug!(%error, attempt, "event not posted"),
                Err(_) => tracing::debug!(attempt, "webhook too slow"),
            }
        }
        tracing::warn!("an event was given up: its webhook doesn't take it");
        false
    }
}

/// Whether another attempt could be answered differently.
fn may_change(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

impl Post {
    /// The request, signed now: an event may have waited longer than a signature is good.
    fn request(&self, uri: &Uri) -> Option<Request<Body>> {
        let mut hash = serde_json::Map::new();
        let digest = BASE64_STANDARD.encode(digest(&SHA256, &self.body));
        hash.insert("sha256".to_owned(), digest.into());
        let Signer { key, secret } = &*self.signer;
        let token = seal(key, secret, unix_now(), SIGNATURE_LIFE, hash);
        Request::post(uri)
            .header(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/webhook+json"),
            )
            .header(header::USER_AGENT, HeaderValue::from_static("LiveKit"))
            .header(header::AUTHORIZATION, token)
            .body(Body::from(self.body.clone()))
            .ok()
    }
}

/// An event as LiveKit writes it.
fn message(event: Event) -> proto::WebhookEvent {
    let mut message = proto::WebhookEvent {
        id: id(),
        created_at: event.at_ms / 1000,
        room: Some(wire::room(&event.room)),
        ..Default::default()
    };
    let (name, participant, track) = match event.happened {
        Happened::RoomStarted => ("room_started", None, None),
        Happened::RoomFinished => ("room_finished", None, None),
        Happened::ParticipantJoined(who) => ("participant_joined", Some(whole(&who)), None),
        Happened::ParticipantLeft(who) => ("participant_left", Some(whole(&who)), None),
        Happened::ParticipantAborted(who) => {
            ("participant_connection_aborted", Some(whole(&who)), None)
        }
        Happened::TrackPublished(who, track) => ("track_published", Some(brief(&who)), Some(track)),
        Happened::TrackUnpublished(who, track) => {
            ("track_unpublished", Some(brief(&who)), Some(track))
        }
    };
    message.event = name.to_owned();
    message.participant = participant;
    message.track = track.map(|track| wire::track(*track));
    message
}

fn whole(who: &ParticipantInfo) -> proto::ParticipantInfo {
    wire::participant(who)
}

/// Who it is. Events of tracks are many, and metadata can be large.
fn brief(who: &ParticipantInfo) -> proto::ParticipantInfo {
    proto::ParticipantInfo {
        sid: who.sid.as_str().to_owned(),
        identity: who.identity.as_str().to_owned(),
        name: who.name.clone(),
        ..Default::default()
    }
}

/// A new id, by which receivers tell a second post of the same event.
fn id() -> String {
    let random = || fastrand::alphanumeric();
    ["EV_".to_owned(), (0..12).map(|_| random()).collect()].concat()
}

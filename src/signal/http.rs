//! The listener: takes TCP connections, bounds them, and hands their requests to the routes.
//!
//! The loop is ours and not axum's, for bounds axum doesn't have: time to send a request head and
//! to read the answer, connections in all and of one household, and their bytes per second. A
//! connection counts until its WebSocket ends: it holds a [`Slot`], which travels with its
//! requests. What is not here: what a request means.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::livekit::JOIN_TIMEOUT;
use super::metered::Metered;
use super::path::{collapse_slashes, strip_prefix};
use super::{Signal, Stats, client, router};
use crate::config::{Network, PathPrefix};
use crate::ids::Household;

/// Bytes of a request head: a token of 16 KiB and an uncompressed join of 20 KiB in base64 fit.
/// A longer head is answered with 431, or 414 when the URI alone is too long.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Headers of a request; more are answered with 431.
const HEADERS_MAX: usize = 100;

/// Beside the time for a request head and for a join: how long an answer may take to be written.
/// A client that doesn't read it is disconnected then; a WebSocket has deadlines of its own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the loop waits when a connection can't be taken. It stays in the kernel meanwhile, and
/// those we hold go on and free descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Takes connections on `listeners` until `stop` turns true, and returns when the last of them has
/// ended.
pub(super) async fn serve(
    listeners: Vec<TcpListener>,
    signal: Arc<Signal>,
    stop: watch::Receiver<bool>,
) {
    let config = &signal.config;
    let connections = config.http.connections.min(Semaphore::MAX_PERMITS);
    let connections = u32::try_from(connections).unwrap_or(u32::MAX);
    let slots = Arc::new(Semaphore::new(connections as usize));
    let front = Arc::new(Front {
        households: Households {
            counts: Default::default(),
            max: config.http.connections_per_address,
        },
        header_timeout: config.http.header_timeout,
        trusted_proxies: config.http.trusted_proxies.clone(),
        prefixes: config.http.prefixes.clone(),
        // A message of the largest size and what a join brings fit without a pause.
        burst: config.limits.signal_message_bytes.get().saturating_mul(2),
        stats: signal.stats.clone(),
        router: router(signal),
        slots: slots.clone(),
        stop,
    });
    let loops: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(accept(listener, front.clone())))
        .collect();
    for accepting in loops {
        if let Err(error) = accepting.await {
            tracing::error!("a listener ended: {error}");
        }
    }
    // All slots back means that no connection is left. The semaphore is never closed.
    let _ = slots.acquire_many(connections).await;
}

struct Front {
    router: Router,
    slots: Arc<Semaphore>,
    households: Households,
    header_timeout: Duration,
    trusted_proxies: Vec<Network>,
    prefixes: Vec<PathPrefix>,
    /// Bytes a connection may send at once.
    burst: usize,
    stats: Arc<Stats>,
    stop: watch::Receiver<bool>,
}

/// A connection's place among those we hold; given back with the last clone.
#[derive(Clone)]
pub(super) struct Slot {
    _permit: Arc<OwnedSemaphorePermit>,
    /// None for a connection of a proxy, until a request says whose it is.
    _hold: Option<Arc<Hold>>,
}

/// Connections per household. Locked when one comes and goes. No larger than their number.
#[expect(clippy::disallowed_types, reason = "signalling is off the packet path")]
struct Households {
    counts: std::sync::Mutex<HashMap<Household, usize>>,
    /// 0: not counted.
    max: usize,
}

struct Hold {
    front: Arc<Front>,
    household: Household,
}

impl Households {
    /// Counts one more, unless there are too many.
    fn take(&self, household: Household) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(household).or_default();
        let room = *count < self.max;
        *count += usize::from(room);
        room
    }

    fn give_back(&self, household: Household) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(household) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.front.households.give_back(self.household);
    }
}

async fn accept(listener: TcpListener, front: Arc<Front>) {
    let mut stop = front.stop.clone();
    loop {
        // Without a free slot nothing is accepted, and clients wait in the kernel's queue.
        let taken = async {
            let permit = front.slots.clone().acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = stopped(&mut stop) => return,
            taken = taken => taken,
        };
        let Some(permit) = permit else { return };
        match accepted {
            Ok((stream, remote)) => welcome(&front, stream, remote, permit),
            Err(error) => {
                Stats::count(&front.stats.accept_failures);
                tracing::debug!("connection not taken: {error}");
                if !is_of_the_connection(&error) {
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// Returns when the daemon stops. A dropped sender counts as stop: nobody could say it any more.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether the failure concerns only the one connection, which ended before it was taken.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn welcome(
    front: &Arc<Front>,
    stream: TcpStream,
    remote: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    Stats::count(&front.stats.connections);
    let address = remote.ip().to_canonical();
    let slot = Slot {
        _permit: Arc::new(permit),
        _hold: None,
    };
    let slot = match front.is_trusted(address) {
        true => slot,
        false => match front.count(&slot, Household::of(address)) {
            Some(slot) => slot,
            None => return,
        },
    };
    tokio::spawn(converse(front.clone(), stream, address, slot));
}

impl Front {
    fn is_trusted(&self, address: IpAddr) -> bool {
        let mut trusted = self.trusted_proxies.iter();
        trusted.any(|network| network.contains(address))
    }

    /// The place of a connection that counts as one of `household`, unless that has too many.
    fn count(self: &Arc<Self>, slot: &Slot, household: Household) -> Option<Slot> {
        let mut slot = slot.clone();
        if self.households.max > 0 {
            if !self.households.take(household) {
                Stats::count(&self.stats.connections_refused);
                return None;
            }
            slot._hold = Some(Arc::new(Hold {
                front: self.clone(),
                household,
            }));
        }
        Some(slot)
    }

    /// Notes with a request whose it is, as far as proxies are believed, and takes prefixes from
    /// its path; false if its client has too many connections.
    fn prepare(
        self: &Arc<Self>,
        request: &mut hyper::Request<Incoming>,
        peer: IpAddr,
        slot: &Slot,
    ) -> bool {
        collapse_slashes(request.uri_mut());
        strip_prefix(request.uri_mut(), &self.prefixes);
        let proxied = self.is_trusted(peer);
        let forwarded = proxied
            .then(|| client::forwarded_for(request.headers(), |ip| self.is_trusted(ip)))
            .flatten();
        let client = Household::of(forwarded.unwrap_or(peer));
        // Others are counted since they were taken.
        let slot = match proxied {
            true => self.count(slot, client),
            false => Some(slot.clone()),
        };
        let Some(slot) = slot else { return false };
        let extensions = request.extensions_mut();
        extensions.insert(slot);
        extensions.insert(client);
        true
    }
}

async fn converse(front: Arc<Front>, stream: TcpStream, peer: IpAddr, slot: Slot) {
    // Signalling messages are small and each one matters now.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("no TCP_NODELAY: {error}");
    }
    let stream = Metered::new(stream, front.burst, front.stats.clone());
    let routes = TowerToHyperService::new(front.router.clone());
    let (kept, asked) = (slot.clone(), front.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let counted = asked.prepare(&mut request, peer, &kept);
        let answering = counted.then(|| routes.call(request));
        async move {
            match answering {
                Some(answering) => answering.await,
                None => Ok(too_many()),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(front.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stop = front.stop.clone();
    let served = async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    // An upgrade ends it in time: the WebSocket lives on elsewhere.
    let lifetime = front.header_timeout + JOIN_TIMEOUT + ANSWER_TIMEOUT;
    match tokio::time::timeout(lifetime, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            front.stats.connection_failed(&error);
            tracing::debug!("connection ended: {error}");
        }
        Err(_) => Stats::count(&front.stats.http_timeouts),
    }
    drop(slot);
}

/// What a client behind a proxy gets in place of a connection that is closed at once.
fn too_many() -> Response {
    let what = "too many connections of this address\n";
    let open = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (StatusCode::TOO_MANY_REQUESTS, open, what).into_response()
}

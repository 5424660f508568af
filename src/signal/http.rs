//! The listener: takes TCP connections, bounds them, and hands their requests to the routes.
//!
//! The loop is ours and not axum's, for bounds axum doesn't have: time to send a request head and
//! to read the answer, connections in all and of one address, and their bytes per second. A
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
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::livekit::JOIN_TIMEOUT;
use super::metered::Metered;
use super::{Signal, Stats, collapse_slashes, router};

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
        addresses: Addresses {
            counts: Default::default(),
            max: config.http.connections_per_address,
        },
        header_timeout: config.http.header_timeout,
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
    addresses: Addresses,
    header_timeout: Duration,
    /// Bytes a connection may send at once.
    burst: usize,
    stats: Arc<Stats>,
    stop: watch::Receiver<bool>,
}

/// A connection's place among those we hold; given back with the last clone.
#[derive(Clone)]
pub(super) struct Slot {
    _held: Arc<(OwnedSemaphorePermit, Option<AddressHold>)>,
}

/// Connections per address. Locked when one comes and goes. No larger than their number.
#[expect(clippy::disallowed_types, reason = "signalling is off the packet path")]
struct Addresses {
    counts: std::sync::Mutex<HashMap<IpAddr, usize>>,
    /// 0: not counted.
    max: usize,
}

struct AddressHold {
    front: Arc<Front>,
    address: IpAddr,
}

impl Addresses {
    /// Counts one more, unless there are too many.
    fn take(&self, address: IpAddr) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        let room = *count < self.max;
        *count += usize::from(room);
        room
    }

    fn give_back(&self, address: IpAddr) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Drop for AddressHold {
    fn drop(&mut self) {
        self.front.addresses.give_back(self.address);
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
    let mut hold = None;
    if front.addresses.max > 0 {
        let address = remote.ip().to_canonical();
        if !front.addresses.take(address) {
            Stats::count(&front.stats.connections_refused);
            return;
        }
        hold = Some(AddressHold {
            front: front.clone(),
            address,
        });
    }
    let slot = Slot {
        _held: Arc::new((permit, hold)),
    };
    tokio::spawn(converse(front.clone(), stream, slot));
}

async fn converse(front: Arc<Front>, stream: TcpStream, slot: Slot) {
    // Signalling messages are small and each one matters now.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("no TCP_NODELAY: {error}");
    }
    let stream = Metered::new(stream, front.burst, front.stats.clone());
    let routes = TowerToHyperService::new(front.router.clone());
    let kept = slot.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        collapse_slashes(request.uri_mut());
        request.extensions_mut().insert(kept.clone());
        routes.call(request)
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

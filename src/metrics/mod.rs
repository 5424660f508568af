//! Metrics and health over HTTP, on a listener of their own.
//!
//! `/metrics` shows the last reports of the workers, `/livez` that the process can answer,
//! `/readyz` whether it makes sense to send clients here. The page is made at most once a second,
//! whoever asks, and connections are few and short: a storm of scrapes costs the media nothing.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "off the packet path: the age of a page needs a clock, its making a lock"
)]

mod exposition;
mod matrix;
mod page;
mod ports;
mod worker;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::TextEncoder;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::signal::Stats;
use crate::worker::report::Report;
use crate::worker::tcp;

/// Connections at a time; more wait in the kernel's backlog. Each is short, so that somebody who
/// opens them to keep the health checks out has to open hundreds per second.
pub const CONNECTIONS_MAX: usize = 256;

/// The longest life of a connection; then it is closed, whatever it was doing.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a request head may take. Those who ask are near, and send it in one piece.
const HEADER_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a page is shown again instead of being made anew.
const PAGE_AGE_MAX: Duration = Duration::from_secs(1);

/// A worker whose last report is older than this is stuck: reports come every second.
const REPORT_AGE_MAX: Duration = Duration::from_secs(5);

/// Pause after a failed accept, as happens when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the numbers come from.
pub struct Sources {
    /// The reports, by worker.
    pub workers: Vec<watch::Receiver<Report>>,
    /// What signalling counts.
    pub signal: Arc<Stats>,
    /// What is counted of TCP connections that no worker got.
    pub tcp: Arc<tcp::Stats>,
    /// Datagrams of media that the kernel dropped.
    pub dropped: Arc<AtomicU64>,
    /// Whether the daemon is stopping.
    pub draining: watch::Receiver<bool>,
}

struct Page {
    sources: Sources,
    /// The last page and when it was made. Held for the time of making one, never while waiting.
    made: Mutex<Option<(Instant, Bytes)>>,
}

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, sources: Sources) -> Infallible {
    let stats = Arc::clone(&sources.signal);
    let page = Arc::new(Page {
        sources,
        made: Mutex::new(None),
    });
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(page);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        let stats = Arc::clone(&stats);
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => stats.connection_failed(&error),
                Err(_) => Stats::count(&stats.http_timeouts),
            }
        });
    }
}

async fn metrics(State(page): State<Arc<Page>>) -> Response {
    let body = page.text(Instant::now());
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], body).into_response()
}

async fn ready(State(page): State<Arc<Page>>) -> Response {
    let ails = page.sources.ails(Instant::now());
    if ails.is_empty() {
        return "ready\n".into_response();
    }
    let body = ails.join("\n") + "\n";
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

impl Page {
    fn text(&self, now: Instant) -> Bytes {
        // A page is replaced as a whole, so one left by a panic is still a page.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = &*made
            && now.saturating_duration_since(*at) < PAGE_AGE_MAX
        {
            return text.clone();
        }
        let reports: Vec<Report> = self.sources.reports().collect();
        let text = TextEncoder::new()
            .encode_to_string(&exposition::families(
                &reports,
                &self.sources.signal,
                &self.sources.tcp,
                self.sources.dropped.load(Ordering::Relaxed),
            ))
            .expect("every family has a name and a metric");
        let text = Bytes::from(text);
        *made = Some((now, text.clone()));
        text
    }
}

impl Sources {
    fn reports(&self) -> impl Iterator<Item = Report> {
        self.workers.iter().map(|worker| worker.borrow().clone())
    }

    /// Everything that speaks against sending clients here.
    fn ails(&self, now: Instant) -> Vec<String> {
        let mut ails = Vec::new();
        if *self.draining.borrow() {
            ails.push("draining: the daemon is stopping".to_owned());
        }
        for (id, worker) in self.workers.iter().enumerate() {
            let age = now.saturating_duration_since(worker.borrow().at);
            if worker.has_changed().is_err() {
                ails.push(format!("worker {id} has ended"));
            } else if age > REPORT_AGE_MAX {
                ails.push(format!("worker {id} is stuck for {} s", age.as_secs()));
            }
        }
        ails
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(port: u16, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_says_what_is_wrong() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (reporter, reports) = watch::channel(Report::empty(Instant::now()));
        let (drain, draining) = watch::channel(false);
        let sources = Sources {
            workers: vec![reports],
            signal: Arc::default(),
            tcp: Arc::default(),
            dropped: Arc::default(),
            draining,
        };
        tokio::spawn(serve(listener, sources));

        assert!(ask(port, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(ask(port, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(port, "/metrics").await.contains("stellwerk_rooms 0"));

        let past = Instant::now().checked_sub(REPORT_AGE_MAX * 2).unwrap();
        reporter.send_replace(Report::empty(past));
        let answer = ask(port, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("worker 0 is stuck"), "{answer}");

        drain.send_replace(true);
        drop(reporter);
        let answer = ask(port, "/readyz").await;
        assert!(answer.contains("worker 0 has ended"), "{answer}");
        assert!(answer.contains("draining"), "{answer}");
        assert!(ask(port, "/livez").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn idle_and_senseless_connections_keep_nobody_out_and_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_drain, draining) = watch::channel(false);
        let sources = Sources {
            workers: Vec::new(),
            signal: Arc::default(),
            tcp: Arc::default(),
            dropped: Arc::default(),
            draining,
        };
        let stats = Arc::clone(&sources.signal);
        tokio::spawn(serve(listener, sources));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        assert!(ask(port, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(stats.http_timeouts.load(Ordering::Relaxed) > 0);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream
            .write_all(b"\x16\x03\x01 no HTTP\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(stats.http_malformed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_page_is_made_once_a_second() {
        let (reporter, reports) = watch::channel(Report::empty(Instant::now()));
        let (_drain, draining) = watch::channel(false);
        let page = Page {
            sources: Sources {
                workers: vec![reports],
                signal: Arc::default(),
                tcp: Arc::default(),
                dropped: Arc::default(),
                draining,
            },
            made: Mutex::new(None),
        };
        let now = Instant::now();
        let first = page.text(now);
        reporter.send_modify(|report| report.shard.rooms = 7);
        assert_eq!(page.text(now + PAGE_AGE_MAX / 2), first);
        assert_ne!(page.text(now + PAGE_AGE_MAX), first);
    }
}

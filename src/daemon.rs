//! The life of the process: bind, start, announce, wait for the signal, drain, end.
//!
//! Everything is bound before anything starts, so a node that cannot work fails at once and says
//! which address and what to do about it. On SIGTERM or SIGINT nothing new is accepted, clients
//! are told to reconnect, and the process ends when the last of them has gone or at the deadline.
//!
//! Not here: what the parts do, and reading the configuration.

mod descriptors;
mod media;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::directory::events::Events;
use crate::directory::{self, Directory};
use crate::ids::WorkerId;
use crate::metrics;
use crate::signal::matrix::{self, Matrix};
use crate::signal::{self, Doors, Stats, control, webhook};
use crate::worker::report::Report;
use crate::worker::{self, Handle, Setup, tcp};
use descriptors::Spare;

/// Mails that wait for one worker. Signalling waits when it is full, and so do its clients.
const MAILBOX: usize = 4096;

/// Wishes to stop that wait; more than two say nothing new, and their sender waits.
const SIGNALS: usize = 2;

/// Threads of the signalling runtime. Media has threads of its own.
const SIGNAL_THREADS: usize = 2;

/// How long workers may take to end their last turn.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// How long webhooks may take to get the last events.
const WEBHOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// How long signalling tasks may take to end after everything else.
const RUNTIME_TIME_MAX: Duration = Duration::from_secs(1);

/// Why the daemon didn't start or didn't end well.
#[derive(Debug)]
pub enum Error {
    /// An address could not be bound.
    Bind {
        /// What for: `http`, `metrics` or `media`.
        what: &'static str,
        /// The address of this host, as configured.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The control socket could not be made.
    Control {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The host has no address that clients could send media to.
    NoAddress,
    /// The port of the last worker would be above 65535.
    NoPort,
    /// The process could not be set up.
    Start(io::Error),
    /// The certificates to check webhooks with could not be read.
    Webhook(io::Error),
    /// Tokens for Matrix users can't be made.
    Matrix(matrix::Error),
    /// A worker ended by itself.
    Worker,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind {
                what,
                address,
                source,
            } => {
                write!(f, "cannot listen on {address} for {what}: {source}; ")?;
                f.write_str(remedy(what, source.kind()))
            }
            Self::Control { path, source } => {
                let path = path.display();
                write!(f, "cannot make the control socket {path}: {source}; ")?;
                f.write_str(socket_remedy(source.kind()))
            }
            Self::NoAddress => f.write_str(
                "this host has no address for media but loopback and those of interfaces that \
                 media.interfaces leaves out; set media.addresses or change media.interfaces",
            ),
            Self::NoPort => f.write_str(
                "media.port plus the number of workers is above 65535; lower one of them",
            ),
            Self::Start(source) => write!(f, "cannot start: {source}"),
            Self::Webhook(source) => write!(
                f,
                "cannot post to https webhooks: {source}; install ca-certificates or change \
                 webhook.urls"
            ),
            Self::Matrix(source) => source.fmt(f),
            Self::Worker => f.write_str("a worker ended unexpectedly; all clients were sent away"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { source, .. }
            | Self::Control { source, .. }
            | Self::Start(source)
            | Self::Webhook(source) => Some(source),
            Self::Matrix(source) => Some(source),
            Self::NoAddress | Self::NoPort | Self::Worker => None,
        }
    }
}

/// What an operator can do about a failed bind.
fn remedy(what: &str, kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    match (kind, what) {
        (AddrInUse, "media") => "stop the program that uses the port or change media.port",
        (AddrInUse, "media over TCP") => {
            "stop the program that uses the port or change media.tcp_port"
        }
        (AddrInUse, "metrics") => "stop the program that uses the port or change metrics.listen",
        (AddrInUse, _) => "stop the program that uses the port or change http.listen",
        (AddrNotAvailable, "media") => {
            "this host doesn't have the address; see media.addresses, and media.advertise for one \
             in front of a NAT"
        }
        (AddrNotAvailable, "metrics") => "this host doesn't have the address; see metrics.listen",
        (AddrNotAvailable, _) => "this host doesn't have the address; see http.listen",
        (PermissionDenied, _) => "ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "check the address",
    }
}

/// What an operator can do about a control socket that can't be made.
fn socket_remedy(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{AddrInUse, AlreadyExists, NotFound, PermissionDenied};
    match kind {
        AddrInUse => "stop the daemon that listens there or change control.socket",
        AlreadyExists => "something else than a socket is there; change control.socket",
        NotFound => "make its folder first or change control.socket",
        PermissionDenied => "let this user write to its folder or change control.socket",
        _ => "check control.socket; a path has 90 bytes at most",
    }
}

/// Runs until SIGTERM or SIGINT, and then until the clients have gone or the deadline is reached.
pub fn run(config: Config) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SIGNAL_THREADS)
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let result = runtime.block_on(async {
        let mut terminate = unix::signal(SignalKind::terminate()).map_err(Error::Start)?;
        let mut interrupt = unix::signal(SignalKind::interrupt()).map_err(Error::Start)?;
        let (asker, asked) = mpsc::channel(SIGNALS);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if asker.send(()).await.is_err() {
                    return;
                }
            }
        });
        live(Arc::new(config), asked).await
    });
    runtime.shutdown_timeout(RUNTIME_TIME_MAX);
    result
}

/// One life: from binding to the end. Each message in `asked` is a wish to stop; the first drains,
/// the second ends the draining.
async fn live(mut config: Arc<Config>, mut asked: mpsc::Receiver<()>) -> Result<(), Error> {
    let limit = descriptors::raise_limit();
    let listeners = Listeners::bind(&config).await?;
    listeners.announce();
    let taken = listeners.descriptors() + metrics::CONNECTIONS_MAX;
    let spare = Spare::of(&config, limit, taken);
    let taken = taken + spare.flows + spare.tcp;
    let http = &mut Arc::make_mut(&mut config).http;
    http.connections = descriptors::connections(http.connections, limit, taken);
    let mut daemon = Daemon::start(config, listeners, spare)?;
    let cause = tokio::select! {
        _ = asked.recv() => Ok(()),
        () = daemon.worker_ended() => Err(Error::Worker),
    };
    match &cause {
        Ok(()) => info!("stopping: clients are told to reconnect"),
        Err(cause) => error!("{cause}"),
    }
    daemon.drain(asked).await;
    let stopped = daemon.stop().await;
    cause.and(stopped)
}

/// The running parts.
struct Daemon {
    config: Arc<Config>,
    directory: Arc<Directory>,
    workers: Vec<Handle>,
    /// A task per worker that ends with it.
    watches: JoinSet<()>,
    /// Takes media connections over TCP until the end.
    _tcp: JoinSet<()>,
    signal: JoinHandle<()>,
    /// Ends when the workers have ended and the last event is delivered or given up.
    webhooks: JoinHandle<()>,
    draining: watch::Sender<bool>,
}

impl Daemon {
    fn start(config: Arc<Config>, mut listeners: Listeners, spare: Spare) -> Result<Self, Error> {
        listeners.media.close_tcp_below(spare.tcp);
        let count = listeners.media.workers.len();
        let (posts, mailboxes): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::channel(MAILBOX)).unzip();
        let limits = directory::Limits {
            participants: config.limits.participants,
            rooms: config.limits.rooms,
            participants_per_worker: config.rooms.participants_per_worker,
        };
        let directory = Arc::new(Directory::new(posts, limits));
        let matrix = Matrix::new(&config).map_err(Error::Matrix)?;
        let homeservers = matrix.as_ref().map(Matrix::stats).cloned();
        let stats = Arc::new(Stats {
            homeservers: homeservers.unwrap_or_default(),
            ..Stats::default()
        });
        let (posts, webhooks) = webhook::start(&config, &stats).map_err(Error::Webhook)?;
        let (events, listening) = Events::new(posts);
        let mut workers = Vec::new();
        let entries = listeners.media.workers.first();
        let entries = entries.map(|reach| reach.team.doors()).unwrap_or_default();
        let addresses = listeners.media.tcp.iter().map(TcpListener::local_addr);
        let local_tcp: Vec<_> = addresses.collect::<io::Result<_>>().map_err(Error::Start)?;
        let dropped = media::watch_drops(&listeners.media.workers);
        let mut cores = cores(count).into_iter();
        for (reach, mailbox) in listeners.media.workers.into_iter().zip(mailboxes) {
            let setup = Setup {
                id: WorkerId(workers.len() as u16),
                sockets: reach.sockets,
                told: reach.told,
                local_tcp: local_tcp.clone(),
                told_tcp: reach.told_tcp,
                team: reach.team,
                flows: spare.flows / count.max(1),
                buffers: media::buffers(&config),
                limits: config.media_limits(),
                mailbox,
                directory: Arc::clone(&directory),
                events: events.clone(),
            };
            workers.push(worker::start(setup, cores.next()).map_err(Error::Start)?);
        }
        let reports = || workers.iter().map(|worker| worker.reports.clone());
        drop(events);
        let arrivals = Arc::new(tcp::Stats::default());
        let tcp = media::serve_tcp(listeners.media.tcp, &entries, spare.tcp, &arrivals);
        let (draining, stop) = watch::channel(false);
        let sources = metrics::Sources {
            workers: reports().collect(),
            signal: Arc::clone(&stats),
            tcp: arrivals,
            dropped,
            draining: stop.clone(),
        };
        tokio::spawn(metrics::serve(listeners.metrics, sources));
        let watches = reports().map(ended).collect();
        let doors = Doors {
            http: listeners.http,
            control: listeners.control,
            matrix,
            events: listening,
        };
        let signal = tokio::spawn(signal::serve(
            doors,
            Arc::clone(&config),
            Arc::clone(&directory),
            stats,
            stop,
        ));
        Ok(Self {
            config,
            directory,
            workers,
            watches,
            _tcp: tcp,
            signal,
            webhooks,
            draining,
        })
    }

    async fn worker_ended(&mut self) {
        // There is at least one worker, so `None` can't come before an end.
        let _ = self.watches.join_next().await;
    }

    /// Stops accepting, has everyone told to go, and waits until they have, the deadline is
    /// reached or somebody asks again.
    async fn drain(&mut self, mut asked: mpsc::Receiver<()>) {
        self.draining.send_replace(true);
        let emptied = async {
            self.directory.shut_down().await;
            // A panic there ends the waiting as well.
            let _ = (&mut self.signal).await;
        };
        let deadline = self.config.shutdown.deadline;
        let in_time = tokio::select! {
            result = tokio::time::timeout(deadline, emptied) => result.is_ok(),
            Some(()) = asked.recv() => false,
        };
        if !in_time {
            let stays = self.directory.seats();
            warn!(stays, "ending with clients that have not gone");
        }
    }

    async fn stop(self) -> Result<(), Error> {
        let workers = self.workers;
        let stopping = tokio::task::spawn_blocking(move || {
            let ends: Vec<_> = workers.into_iter().map(Handle::stop).collect();
            ends.into_iter().collect::<io::Result<()>>()
        });
        let stopped = match tokio::time::timeout(STOP_TIME_MAX, stopping).await {
            Ok(Ok(Ok(()))) => Ok(()),
            _ => Err(Error::Worker),
        };
        if tokio::time::timeout(WEBHOOK_TIME_MAX, self.webhooks)
            .await
            .is_err()
        {
            warn!("ending with events that no webhook has taken");
        }
        stopped
    }
}

/// Ends with the worker that reports there.
async fn ended(mut reports: watch::Receiver<Report>) {
    while reports.changed().await.is_ok() {}
}

/// A core for each of `workers`, or none at all when there aren't enough: two workers that share
/// a core by force would be worse off than by chance.
fn cores(workers: usize) -> Vec<core_affinity::CoreId> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    match cores.len() >= workers {
        true => cores,
        false => Vec::new(),
    }
}

/// Everything bound, nothing started.
struct Listeners {
    http: Vec<TcpListener>,
    metrics: TcpListener,
    control: Option<control::Listener>,
    media: media::Doors,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, Error> {
        let mut http = Vec::new();
        for address in &config.http.listen {
            http.push(listen("http", *address).await?);
        }
        Ok(Self {
            http,
            metrics: listen("metrics", config.metrics.listen).await?,
            control: bind_control(config)?,
            media: media::bind(config).await?,
        })
    }

    fn descriptors(&self) -> usize {
        let workers = self.media.workers.iter();
        let media: usize = workers.map(|reach| reach.sockets.len()).sum();
        let media = media + self.media.tcp.len();
        self.http.len() + 1 + control::CONNECTIONS_MAX + media
    }

    fn announce(&self) {
        for listener in &self.http {
            if let Ok(address) = listener.local_addr() {
                info!(%address, "listening for http");
            }
        }
        if let Ok(address) = self.metrics.local_addr() {
            info!(%address, "listening for metrics");
        }
        if let Some(socket) = &self.control {
            info!(path = %socket.path().display(), "listening for control");
        }
        media::announce(&self.media);
    }
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Bind {
            what,
            address,
            source,
        })
}

fn bind_control(config: &Config) -> Result<Option<control::Listener>, Error> {
    let Some(path) = &config.control.socket else {
        return Ok(None);
    };
    let bound = control::Listener::bind(path).map_err(|source| Error::Control {
        path: path.clone(),
        source,
    });
    bound.map(Some)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UdpSocket};
    use tokio::time::Instant;

    use super::*;
    use crate::config::{Overrides, Sources};

    /// A configuration on free ports of the loopback address.
    async fn config() -> Config {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let overrides = Overrides {
            workers: Some(1),
            http: "127.0.0.1:0".parse().ok(),
            metrics: tcp.local_addr().ok(),
            media_port: udp.local_addr().map(|address| address.port()).ok(),
        };
        let sources = Sources {
            dev: true,
            file: None,
            env: Vec::new(),
            overrides,
        };
        let mut config = Config::load(&sources).unwrap().config;
        config.media.addresses = vec!["127.0.0.1".parse().unwrap()];
        config.shutdown.deadline = Duration::from_secs(1);
        config
    }

    async fn metrics(config: &Config) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(config.metrics.listen).await?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Asks until a line of the metrics page is there.
    async fn until(config: &Config, line: &str) {
        for _ in 0..100 {
            let page = metrics(config).await.unwrap_or_default();
            if page.lines().any(|is| is == line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never saw {line}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rubbish_is_counted_and_a_wish_to_stop_is_heard() {
        let config = config().await;
        let (asker, asked) = mpsc::channel(SIGNALS);
        let life = tokio::spawn(live(Arc::new(config.clone()), asked));
        until(&config, "stellwerk_udp_datagrams_in_total 0").await;

        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = (config.media.addresses[0], config.media.port);
        for _ in 0..3 {
            socket.send_to(b"rubbish", target).await.unwrap();
        }
        until(&config, "stellwerk_udp_datagrams_in_total 3").await;
        until(&config, "stellwerk_dropped_total{reason=\"not_media\"} 3").await;

        let asked_at = Instant::now();
        asker.send(()).await.unwrap();
        life.await.unwrap().unwrap();
        assert!(asked_at.elapsed() < config.shutdown.deadline + STOP_TIME_MAX);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_end_of_a_worker_is_noticed() {
        let config = Arc::new(config().await);
        let listeners = Listeners::bind(&config).await.unwrap();
        let mut daemon = Daemon::start(config, listeners, Spare::default()).unwrap();
        let worker = daemon.workers.pop().unwrap();
        worker.stop().unwrap();
        let patience = Duration::from_secs(10);
        let noticed = tokio::time::timeout(patience, daemon.worker_ended()).await;
        noticed.unwrap();
        let (_asker, asked) = mpsc::channel(SIGNALS);
        daemon.drain(asked).await;
        daemon.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_names_the_address_and_the_remedy() {
        let config = config().await;
        let taken = (config.media.addresses[0], config.media.port);
        let _holder = UdpSocket::bind(taken).await.unwrap();
        let (_asker, asked) = mpsc::channel(SIGNALS);
        let error = live(Arc::new(config), asked).await.unwrap_err().to_string();
        let expected = format!("cannot listen on 127.0.0.1:{} for media", taken.1);
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.ends_with("change media.port"), "{error}");
    }
}

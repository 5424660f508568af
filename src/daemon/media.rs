//! The sockets of the workers, and the addresses their clients are told.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{Error, listen};
use crate::config::Config;
use crate::worker::drops::{self, Drops};
use crate::worker::tcp;
use crate::worker::team::{Connection, Team};
use crate::worker::udp::{Bound, Buffers};

/// What media comes in by.
#[derive(Debug)]
pub struct Doors {
    /// By worker.
    pub workers: Vec<Reach>,
    /// For connections of participants of all of them.
    pub tcp: Vec<TcpListener>,
}

/// What one worker is reached by.
#[derive(Debug)]
pub struct Reach {
    /// Where it receives.
    pub sockets: Vec<Bound>,
    /// Where its clients are to send.
    pub told: Vec<SocketAddr>,
    /// Where its clients are to connect to.
    pub told_tcp: Vec<SocketAddr>,
    /// The other workers.
    pub team: Team,
}

impl Doors {
    /// Takes no connections over TCP, and tells nobody to connect, if there are fewer places for
    /// them than listeners, each of which holds one for the next connection.
    pub fn close_tcp_below(&mut self, places: usize) {
        if places >= self.tcp.len() {
            return;
        }
        warn!("too few file descriptors are left for media.tcp_port: media goes over UDP only");
        self.tcp.clear();
        for worker in &mut self.workers {
            worker.told_tcp.clear();
        }
    }
}

/// Binds the sockets of all workers.
pub async fn bind(config: &Config) -> Result<Doors, Error> {
    let local = config.media.local_addresses().map_err(Error::Start)?;
    warn_of_tentative(local.tentative);
    let addresses = local.ready;
    if addresses.is_empty() {
        return Err(Error::NoAddress);
    }
    let told = config.media.told_addresses(&addresses);
    warn_of_missing_family(&addresses, &told);
    if config.media.single_port {
        // A port that is shared would be shared with any other daemon of the same user as well.
        bind_all(&addresses, config.media.port, |it| {
            Bound::new(it, buffers(config))
        })?;
    }
    let team = Team::of(
        config.media.worker_count().into(),
        !config.media.single_port,
    );
    let bind = |(worker, team)| bind_worker(config, (&addresses, &told), worker as u16, team);
    let media: Vec<Reach> = team
        .into_iter()
        .enumerate()
        .map(bind)
        .collect::<Result<_, Error>>()?;
    let wanted = config.media.receive_buffer.get();
    let sockets = media.iter().flat_map(|reach| &reach.sockets);
    let granted = sockets.map(|bound| bound.granted().receive);
    // Linux reports twice the size that was asked for.
    if let Some(least) = granted.min().filter(|least| least / 2 < wanted) {
        let granted = least / 2;
        warn!(
            granted,
            wanted, "small receive buffer; raise net.core.rmem_max or bursts are lost"
        );
    }
    let mut tcp = Vec::new();
    for ip in addresses.iter().filter(|_| config.media.tcp_port != 0) {
        let address = SocketAddr::new(*ip, config.media.tcp_port);
        tcp.push(listen("media over TCP", address).await?);
    }
    Ok(Doors {
        workers: media,
        tcp,
    })
}

fn bind_worker(
    config: &Config,
    (addresses, told): (&[IpAddr], &[IpAddr]),
    worker: u16,
    team: Team,
) -> Result<Reach, Error> {
    let (port, sockets) = if config.media.single_port {
        let port = config.media.port;
        let bind = |it| Bound::shared(it, buffers(config));
        (port, bind_all(addresses, port, bind)?)
    } else {
        let port = config.media.port.checked_add(worker).ok_or(Error::NoPort)?;
        let bind = |it| Bound::new(it, buffers(config));
        (port, bind_all(addresses, port, bind)?)
    };
    Ok(Reach {
        sockets,
        told: with_port(told, port),
        told_tcp: match config.media.tcp_port {
            0 => Vec::new(),
            port => with_port(told, port),
        },
        team,
    })
}

fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let addresses = addresses.iter();
    addresses.map(|ip| SocketAddr::new(*ip, port)).collect()
}

/// The sizes of kernel buffers that are asked for.
pub fn buffers(config: &Config) -> Buffers {
    Buffers {
        receive: config.media.receive_buffer.get(),
        send: config.media.send_buffer.get(),
    }
}

fn bind_all(
    addresses: &[IpAddr],
    port: u16,
    bind: impl Fn(SocketAddr) -> io::Result<Bound>,
) -> Result<Vec<Bound>, Error> {
    let bind = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, port);
        bind(address).map_err(|source| Error::Bind {
            what: "media",
            address,
            source,
        })
    };
    addresses.iter().map(bind).collect()
}

/// A daemon that starts with the network may be too early.
fn warn_of_tentative(tentative: usize) {
    if tentative > 0 {
        warn!(
            tentative,
            "addresses of this host are not ready yet, and media is not received on them; restart \
             once they are, or name the addresses in media.addresses"
        );
    }
}

/// An advertised address of a family that this host lacks can be right: a translator in front may
/// make one of the other. More often it is not.
fn warn_of_missing_family(local: &[IpAddr], told: &[IpAddr]) {
    for (name, is_v4) in [("IPv4", true), ("IPv6", false)] {
        let has = |addresses: &[IpAddr]| addresses.iter().any(|ip| ip.is_ipv4() == is_v4);
        if has(told) && !has(local) {
            warn!(
                "media.advertise names an {name} address, and media is received on none: this \
                 works only behind something that translates between IPv4 and IPv6"
            );
        }
    }
}

/// Tells the operator.
pub fn announce(media: &Doors) {
    for (worker, reach) in media.workers.iter().enumerate() {
        for bound in &reach.sockets {
            info!(address = %bound.local(), worker, "listening for media");
        }
        let is_local = |told: &SocketAddr| {
            let mut sockets = reach.sockets.iter();
            sockets.any(|bound| bound.local() == *told)
        };
        for address in reach.told.iter().filter(|told| !is_local(told)) {
            info!(%address, worker, "advertising for media");
        }
    }
    for listener in &media.tcp {
        if let Ok(address) = listener.local_addr() {
            info!(%address, "listening for media over TCP");
        }
    }
}

/// Takes connections over TCP for the workers. Ends with what is given back.
pub fn serve_tcp(
    listeners: Vec<TcpListener>,
    workers: &[mpsc::Sender<Connection>],
    places: usize,
    stats: &Arc<tcp::Stats>,
) -> JoinSet<()> {
    let door = Arc::new(tcp::Door::new(places, Arc::clone(stats)));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let (workers, door) = (workers.to_vec(), Arc::clone(&door));
        tasks.spawn(tcp::serve(listener, workers, door));
    }
    tasks
}

/// Has what the kernel drops of datagrams for the workers counted, until the runtime ends.
pub fn watch_drops(workers: &[Reach]) -> Arc<AtomicU64> {
    let sockets = workers.iter().flat_map(|reach| &reach.sockets);
    let drops = Drops::new(sockets.map(Bound::local));
    let dropped = Arc::new(AtomicU64::new(0));
    tokio::spawn(drops::watch(drops, Arc::clone(&dropped)));
    dropped
}

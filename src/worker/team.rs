//! What workers are handed: TCP connections, and where they share a UDP port the first checks of a
//! client, which the kernel gives to any of them. The user name in a check says whose it is.
//!
//! Of datagrams only checks pass here, and only until their pair of addresses has a socket of its
//! own (`flows.rs`): once people are connected, nothing does.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::relay::Relay;
use crate::ids::WorkerId;
use crate::media::demux::{self, Pair};

/// What waits for one worker. Clients repeat their checks, so more would only be older ones.
pub const WAITING_MAX: usize = 1024;

/// TCP connections that wait for one worker, apart from datagrams: whose senders can be forged, and
/// a flood of them must not keep connections out.
pub const ARRIVALS_MAX: usize = 64;

/// What a worker is handed.
#[derive(Debug)]
pub enum Handed {
    /// A datagram that came to another worker.
    Datagram(Datagram),
    /// A connection that was taken at the door (`tcp.rs`).
    Connection(Connection),
}

/// A TCP connection for a participant of this worker, or so its first frame says.
#[derive(Debug)]
pub struct Connection {
    /// Doesn't block.
    pub stream: std::net::TcpStream,
    /// Its ends.
    pub pair: Pair,
    /// What came in its first frame.
    pub first: Box<[u8]>,
    /// Counts as long as it is open.
    pub place: OwnedSemaphorePermit,
}

/// A datagram with its addresses.
#[derive(Debug)]
pub struct Datagram {
    /// The address it was received on.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// Its contents.
    pub contents: Box<[u8]>,
}

/// All workers, as one of them sees them.
#[derive(Debug)]
pub struct Team {
    own: WorkerId,
    /// By worker.
    members: Vec<mpsc::Sender<Datagram>>,
    /// By worker, too.
    doors: Vec<mpsc::Sender<Connection>>,
    /// They share a port.
    shared: bool,
    handed: mpsc::Receiver<Datagram>,
    arrivals: mpsc::Receiver<Connection>,
    pub(super) relay: Relay,
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is for this worker, or nobody's.
    Own,
    /// Another worker gets it.
    Handed,
    /// Another worker would, but too many wait for it.
    Lost,
}

impl Team {
    /// Worker by worker, each with its view. They share nothing if `apart`.
    pub fn of(count: usize, apart: bool) -> Vec<Self> {
        let (members, queues): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::channel(WAITING_MAX)).unzip();
        let (doors, entries): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::channel(ARRIVALS_MAX)).unzip();
        let view = |(own, ((handed, arrivals), relay))| Self {
            own: WorkerId(own as u16),
            members: members.clone(),
            doors: doors.clone(),
            shared: !apart,
            handed,
            arrivals,
            relay,
        };
        let queues = queues.into_iter().zip(entries).zip(Relay::of(count));
        queues.enumerate().map(view).collect()
    }

    /// Where to hand connections in, by worker.
    pub fn doors(&self) -> Vec<mpsc::Sender<Connection>> {
        self.doors.clone()
    }

    /// Whether the workers share a port.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Hands a datagram to the worker it is for.
    pub(super) fn pass(&self, local: SocketAddr, remote: SocketAddr, contents: &[u8]) -> Fate {
        if !self.shared {
            return Fate::Own;
        }
        let owner = demux::worker_of(contents).filter(|owner| *owner != self.own);
        let Some(member) = owner.and_then(|owner| self.members.get(usize::from(owner.0))) else {
            return Fate::Own;
        };
        let datagram = Datagram {
            local,
            remote,
            contents: contents.into(),
        };
        match member.try_send(datagram) {
            Ok(()) => Fate::Handed,
            Err(_) => Fate::Lost,
        }
    }

    /// What others have handed to this one, a connection before datagrams: few can wait.
    pub(super) fn poll_handed(&mut self, cx: &mut Context<'_>) -> Poll<Handed> {
        if let Poll::Ready(Some(connection)) = self.arrivals.poll_recv(cx) {
            return Poll::Ready(Handed::Connection(connection));
        }
        // It can't end, as this team holds a sender of its own.
        match self.handed.poll_recv(cx) {
            Poll::Ready(Some(datagram)) => Poll::Ready(Handed::Datagram(datagram)),
            _ => Poll::Pending,
        }
    }

    /// The same without waiting.
    pub(super) fn next_handed(&mut self) -> Option<Handed> {
        let connection = self.arrivals.try_recv().map(Handed::Connection);
        let mut datagram = || self.handed.try_recv().map(Handed::Datagram);
        connection.or_else(|_| datagram()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A binding request for a peer with that fragment.
    fn check(ufrag: &str) -> Vec<u8> {
        let mut message = vec![0; 20];
        message[1] = 1;
        message.extend([0x00, 0x06, 0, ufrag.len() as u8]);
        message.extend(ufrag.as_bytes());
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn pass(team: &Team, contents: &[u8]) -> Fate {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        team.pass(address, address, contents)
    }

    #[test]
    fn a_check_goes_to_the_worker_it_names_and_nothing_else_does() {
        let mut team = Team::of(2, false);
        let second = check("01abcd:efgh");
        assert_eq!(pass(&team[0], &second), Fate::Handed);
        let Some(Handed::Datagram(handed)) = team[1].next_handed() else {
            panic!("nothing was handed over");
        };
        assert_eq!(&*handed.contents, &second);
        assert_eq!(pass(&team[1], &second), Fate::Own);
        assert_eq!(pass(&team[0], &check("02abcd:efgh")), Fate::Own, "no such");
        assert_eq!(pass(&team[0], &[128; 40]), Fate::Own, "media names nobody");
        let apart = Team::of(2, true);
        assert_eq!(pass(&apart[0], &second), Fate::Own);
    }

    #[test]
    fn a_worker_that_is_flooded_loses_what_is_too_much() {
        let team = Team::of(2, false);
        let second = check("01abcd:efgh");
        for _ in 0..WAITING_MAX {
            assert_eq!(pass(&team[0], &second), Fate::Handed);
        }
        assert_eq!(pass(&team[0], &second), Fate::Lost);
    }
}

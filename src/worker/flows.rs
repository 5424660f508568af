//! Sockets of single participants, for where workers share a port.
//!
//! The kernel gives a datagram to any of the workers that share a port, unless one socket is
//! connected to where it comes from: that one gets it. So each pair of addresses on which a
//! participant has proved to be gets such a socket at its own worker, and from then on nothing of
//! it passes another thread. They only receive: what is sent leaves by the worker's own socket of
//! the same address and port.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Waker};

use slab::Slab;

use super::ready::Ready;
use super::udp::{Batch, Bound, Buffers, Socket};
use crate::media::demux::Pair;

/// Pairs that wait for a socket. Where so many do, the limits of the host are far too low, and
/// further ones stay without.
const WAITING_MAX: usize = 1024;

/// Waiting pairs that are tried in one go.
const TRIES_MAX: usize = 64;

/// The connected sockets of one worker.
pub(super) struct Flows {
    ready: Ready,
    by_pair: HashMap<Pair, usize>,
    /// At most `max`.
    flows: Slab<Flow>,
    max: usize,
    buffers: Buffers,
    /// Those that got no socket yet. Until then they are heard if the kernel happens to give what
    /// they send to this worker.
    waiting: VecDeque<Pair>,
}

struct Flow {
    socket: Socket,
    waker: Waker,
}

/// Why a pair has no socket of its own.
#[derive(Debug)]
pub(super) enum Unopened {
    /// There are as many as there may be.
    Full,
    /// The kernel didn't make one.
    Failed,
}

impl Flows {
    /// None, and room for `max`. To be made inside the worker's runtime.
    pub(super) fn new(max: usize, buffers: Buffers) -> Self {
        Self {
            ready: Ready::new(),
            by_pair: HashMap::new(),
            flows: Slab::new(),
            max,
            buffers,
            waiting: VecDeque::new(),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// From now on what comes from there is received by a socket of its own, or once there can be
    /// one.
    pub(super) fn open_or_wait(&mut self, pair: Pair) -> Result<(), Unopened> {
        let opened = self.open(pair);
        let has_room = self.waiting.len() < WAITING_MAX;
        if opened.is_err() && has_room && !self.waiting.contains(&pair) {
            self.waiting.push_back(pair);
        }
        opened
    }

    /// Tries again to give sockets to those without: others may have left, or the kernel have room.
    pub(super) fn open_waiting(&mut self) {
        for _ in 0..self.waiting.len().min(TRIES_MAX) {
            let Some(pair) = self.waiting.pop_front() else {
                return;
            };
            match self.open(pair) {
                Ok(()) => {}
                Err(Unopened::Full) => return self.waiting.push_front(pair),
                // That may be for this pair alone.
                Err(Unopened::Failed) => self.waiting.push_back(pair),
            }
        }
    }

    /// From now on what comes from there is received by a socket of its own.
    fn open(&mut self, pair: Pair) -> Result<(), Unopened> {
        if self.by_pair.contains_key(&pair) {
            return Ok(());
        }
        if self.flows.len() >= self.max {
            return Err(Unopened::Full);
        }
        let bound = Bound::connected(pair, self.buffers).map_err(|_| Unopened::Failed)?;
        let socket = Socket::new(bound).map_err(|_| Unopened::Failed)?;
        let entry = self.flows.vacant_entry();
        let key = entry.key();
        let waker = self.ready.waker(key);
        entry.insert(Flow { socket, waker });
        self.by_pair.insert(pair, key);
        // Something may be there already, and it is armed when nothing is.
        self.ready.again(key);
        Ok(())
    }

    /// The pair is nobody's any more.
    pub(super) fn close(&mut self, pair: Pair) {
        self.waiting.retain(|waiting| *waiting != pair);
        if let Some(key) = self.by_pair.remove(&pair) {
            // It may still stand in the queue, where whoever has the place next only finds nothing
            // to read.
            self.flows.remove(key);
        }
    }

    /// Whether any has something to read.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> bool {
        self.ready.poll_any(cx)
    }

    /// Receives from the next one with something to read; the address it came to. `None` when
    /// there is no such.
    pub(super) fn receive(&mut self, batch: &mut Batch) -> Option<io::Result<SocketAddr>> {
        let key = self.ready.next()?;
        let Some(flow) = self.flows.get_mut(key) else {
            return Some(Err(io::ErrorKind::WouldBlock.into()));
        };
        let received = batch.receive(&flow.socket);
        // What stopped at an error, such as a client whose port is closed, may have more.
        let is_empty = match &received {
            Ok(more) => !more,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        let mut cx = Context::from_waker(&flow.waker);
        if !is_empty || flow.socket.poll_readable(&mut cx) {
            self.ready.again(key);
        }
        Some(received.map(|_| flow.socket.local()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::UdpSocket;
    use std::task::Poll;

    use super::*;

    const SIZES: Buffers = Buffers {
        receive: 1 << 18,
        send: 1 << 18,
    };

    async fn heard(flows: &mut Flows, batch: &mut Batch) -> Vec<Vec<u8>> {
        poll_fn(|cx| match flows.poll_readable(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        let mut all = Vec::new();
        while let Some(received) = flows.receive(batch) {
            if received.is_ok() {
                all.extend(batch.datagrams().map(|(_, datagram)| datagram.to_vec()));
            }
        }
        all
    }

    /// What is heard once there is as much; a new socket is looked at without a reason.
    async fn hear(flows: &mut Flows, batch: &mut Batch, count: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(heard(flows, batch).await);
        }
        all
    }

    fn pair(local: SocketAddr, client: &UdpSocket) -> Pair {
        let remote = client.local_addr().unwrap();
        Pair { local, remote }
    }

    #[tokio::test]
    async fn whoever_got_no_socket_gets_one_when_another_leaves() {
        let bound = Bound::shared("127.0.0.1:0".parse().unwrap(), SIZES).unwrap();
        let clients = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [first, second, third] = clients.each_ref().map(|it| pair(bound.local(), it));
        let mut flows = Flows::new(1, SIZES);
        flows.open_or_wait(first).unwrap();
        for late in [second, third] {
            assert!(matches!(flows.open_or_wait(late), Err(Unopened::Full)));
        }
        flows.close(second);
        flows.open_waiting();
        assert_eq!(flows.len(), 1, "there is no room yet");
        flows.close(first);
        flows.open_waiting();
        clients[2].send_to(b"third", bound.local()).unwrap();
        let all = hear(&mut flows, &mut Batch::new(), 1).await;
        assert_eq!(all, [b"third"]);
        assert!(flows.waiting.is_empty());
    }

    #[tokio::test]
    async fn each_client_reaches_its_own_socket_and_only_as_long_as_it_is_open() {
        let bound = Bound::shared("127.0.0.1:0".parse().unwrap(), SIZES).unwrap();
        let local = bound.local();
        let other = Bound::shared(local, SIZES).unwrap();
        let mut batch = Batch::new();
        let mut flows = Flows::new(2, SIZES);
        let clients: Vec<_> = (0..3)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let pairs: Vec<_> = clients.iter().map(|client| pair(local, client)).collect();
        flows.open(pairs[0]).unwrap();
        flows.open(pairs[1]).unwrap();
        flows.open(pairs[1]).unwrap();
        assert!(matches!(flows.open(pairs[2]), Err(Unopened::Full)));
        for round in 0..40_u8 {
            for client in &clients[..2] {
                client.send_to(&[round; 20], local).unwrap();
            }
            let all = hear(&mut flows, &mut batch, 2).await;
            assert_eq!(all, [vec![round; 20], vec![round; 20]]);
        }
        // Nothing of all that came to the sockets that everyone shares.
        let mut sockets = [bound, other].map(|it| Socket::new(it).unwrap());
        for socket in &mut sockets {
            assert!(batch.receive(socket).is_err());
        }
        flows.close(pairs[0]);
        flows.open(pairs[2]).unwrap();
        assert_eq!(flows.len(), 2);
        clients[2].send_to(b"third", local).unwrap();
        assert_eq!(hear(&mut flows, &mut batch, 1).await, [b"third"]);
        clients[0].send_to(b"first", local).unwrap();
        let shared = poll_fn(|cx| {
            let ready = sockets.iter().position(|socket| socket.poll_readable(cx));
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        let index = shared.await;
        batch.receive(&sockets[index]).unwrap();
        assert_eq!(batch.datagrams().count(), 1);
    }
}

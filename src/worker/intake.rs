//! What a worker takes in from the network, within the bounds of a turn.
#![expect(
    clippy::disallowed_methods,
    reason = "the worker reads the clock so that nobody behind it does"
)]

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::team::{Connection, Datagram, Fate, Handed};
use super::{TURN_TIME_MAX, Worker};
use crate::media::Input;
use crate::media::counters::Dropped;
use crate::media::demux::Pair;
use crate::media::relay::Parcel;

/// Receive calls of one turn and socket. What is left stays in the kernel's buffer and comes in
/// the next turn, after mail and timers had theirs; counted as a cut turn.
const BATCHES_PER_TURN: usize = 8;

/// Receive calls of one turn to the sockets of single participants. What is left comes in the next
/// turn; counted as a cut turn.
const FLOWS_PER_TURN: usize = 256;

/// TCP connections looked at in one turn; the rest comes in the next. Counted as a cut turn.
const STREAMS_PER_TURN: usize = 256;

/// What others have received, taken in one turn; the rest waits where it is. Counted as a cut turn.
const HANDED_PER_TURN: usize = 64;

/// What other workers have for rooms, taken in one turn; the rest waits where it is. Counted as a
/// cut turn.
const PARCELS_PER_TURN: usize = 256;

impl Worker {
    /// Reads what one socket has, within the bounds of a turn.
    pub(super) fn receive(&mut self, index: usize, start: Instant) {
        for _ in 0..BATCHES_PER_TURN {
            let socket = &self.sockets[index];
            let more = match self.batch.receive(socket) {
                Ok(more) => more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.tally.receive_errors += 1;
                    return;
                }
            };
            let now = Instant::now();
            let local = socket.local();
            self.take_batch(local, now);
            if !more {
                return;
            }
            if now.saturating_duration_since(start) >= TURN_TIME_MAX {
                break;
            }
        }
        self.tally.turns_cut += 1;
    }

    /// Reads what the sockets of single participants have, within the bounds of a turn.
    pub(super) fn receive_flows(&mut self, start: Instant) {
        for _ in 0..FLOWS_PER_TURN {
            let local = match self.flows.receive(&mut self.batch) {
                None => return,
                Some(Ok(local)) => local,
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Some(Err(_)) => {
                    self.tally.receive_errors += 1;
                    continue;
                }
            };
            let now = Instant::now();
            self.take_batch(local, now);
            if now.saturating_duration_since(start) >= TURN_TIME_MAX {
                break;
            }
        }
        self.tally.turns_cut += 1;
    }

    /// Takes in the batch that was received just now, and carries out what follows.
    fn take_batch(&mut self, local: SocketAddr, now: Instant) {
        self.tally.receive_batches += 1;
        for (remote, contents) in self.batch.datagrams() {
            self.tally.datagrams_in += 1;
            self.tally.bytes_in += contents.len() as u64;
            match self.team.pass(local, remote, contents) {
                Fate::Own => {
                    let pair = Pair { local, remote };
                    self.shard.handle(now, datagram(pair, contents));
                }
                Fate::Handed => self.tally.handed_over += 1,
                Fate::Lost => self.shard.count_drop(Dropped::HandOverFull),
            }
        }
        let copies = self.drain(now);
        if copies > 0 {
            let delay = Instant::now().saturating_duration_since(now);
            self.tally.forward_delay_seconds.observe(delay, copies);
        }
    }

    /// Reads what TCP connections have, and sends what they have room for, within the bounds of a
    /// turn.
    pub(super) fn serve_streams(&mut self, start: Instant) {
        for _ in 0..STREAMS_PER_TURN {
            let now = Instant::now();
            let (shard, tally) = (&mut self.shard, &mut self.tally);
            let turned = self.streams.turn(now, |pair, contents| {
                tally.tcp_frames_in += 1;
                shard.handle(now, datagram(pair, contents));
            });
            match turned {
                None => return,
                Some(None) => {}
                Some(Some(over)) => self.shard.handle(now, Input::Closed(over)),
            }
            self.drain(now);
            if now.saturating_duration_since(start) >= TURN_TIME_MAX {
                break;
            }
        }
        self.tally.turns_cut += 1;
    }

    /// Takes in what others have received for this worker.
    pub(super) fn take_handed(&mut self, first: Handed, start: Instant) {
        let mut handed = first;
        for taken in 1.. {
            let now = Instant::now();
            match handed {
                Handed::Datagram(Datagram {
                    local,
                    remote,
                    contents,
                }) => {
                    let pair = Pair { local, remote };
                    self.shard.handle(now, datagram(pair, &contents));
                    self.drain(now);
                }
                Handed::Connection(connection) => self.welcome(connection, now),
            }
            if taken == HANDED_PER_TURN || now.saturating_duration_since(start) >= TURN_TIME_MAX {
                self.tally.turns_cut += 1;
                return;
            }
            match self.team.next_handed() {
                Some(next) => handed = next,
                None => return,
            }
        }
    }

    /// Takes in what other workers have for rooms that are here too.
    pub(super) fn take_parcels(&mut self, first: Parcel, start: Instant) {
        let mut parcel = first;
        for taken in 1.. {
            let now = Instant::now();
            self.shard.handle(now, Input::Parcel(parcel));
            let copies = self.drain(now);
            let end = Instant::now();
            if copies > 0 {
                let delay = end.saturating_duration_since(now);
                self.tally.forward_delay_seconds.observe(delay, copies);
            }
            if taken == PARCELS_PER_TURN || end.saturating_duration_since(start) >= TURN_TIME_MAX {
                self.tally.turns_cut += 1;
                return;
            }
            match self.team.relay.next() {
                Some(next) => parcel = next,
                None => return,
            }
        }
    }

    /// Keeps a TCP connection if its first frame proves that a participant is there.
    fn welcome(&mut self, mut connection: Connection, now: Instant) {
        let pair = connection.pair;
        let first = std::mem::take(&mut connection.first);
        // One with the same addresses is over, even if its end is yet to be read.
        self.shard.handle(now, Input::Closed(pair));
        if self.streams.open(connection, now).is_err() {
            self.tally.tcp_refused += 1;
            return;
        }
        self.shard.handle(now, datagram(pair, &first));
        self.drain(now);
        match self.streams.close_unproven(pair) {
            true => self.tally.tcp_refused += 1,
            false => self.tally.tcp_connections += 1,
        }
    }
}

fn datagram(pair: Pair, contents: &[u8]) -> Input<'_> {
    Input::Datagram {
        local: pair.local,
        remote: pair.remote,
        contents,
    }
}

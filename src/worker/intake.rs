//! What a worker takes in from the network, within the bounds of a turn.
#![expect(
    clippy::disallowed_methods,
    reason = "the worker reads the clock so that nobody behind it does"
)]

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::team::{Fate, Handed};
use super::{TURN_TIME_MAX, Worker};
use crate::media::Input;
use crate::media::counters::Dropped;

/// Receive calls of one turn and socket. What is left stays in the kernel's buffer and comes in
/// the next turn, after mail and timers had theirs; counted as a cut turn.
const BATCHES_PER_TURN: usize = 8;

/// Receive calls of one turn to the sockets of single participants. What is left comes in the next
/// turn; counted as a cut turn.
const FLOWS_PER_TURN: usize = 256;

/// Datagrams of other workers taken in one turn; the rest waits where it is.
const HANDED_PER_TURN: usize = 64;

impl Worker {
    /// Reads what one socket has, within the bounds of a turn.
    pub(super) fn receive(&mut self, index: usize, start: Instant) {
        for _ in 0..BATCHES_PER_TURN {
            let socket = &self.sockets[index];
            match self.batch.receive(socket) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.tally.receive_errors += 1;
                    return;
                }
            }
            let now = Instant::now();
            let local = socket.local();
            self.take_batch(local, now);
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
                    let input = Input::Datagram {
                        local,
                        remote,
                        contents,
                    };
                    self.shard.handle(now, input);
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

    /// Takes in what other workers have received for this one.
    pub(super) fn take_handed(&mut self, first: Handed) {
        let mut handed = first;
        for taken in 1.. {
            let now = Instant::now();
            let input = Input::Datagram {
                local: handed.local,
                remote: handed.remote,
                contents: &handed.contents,
            };
            self.shard.handle(now, input);
            self.drain(now);
            if taken == HANDED_PER_TURN {
                return;
            }
            match self.team.handed().try_recv() {
                Ok(next) => handed = next,
                Err(_) => return,
            }
        }
    }
}

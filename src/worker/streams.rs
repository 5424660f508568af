//! TCP connections of participants whom no UDP reaches: frames in, frames out (RFC 4571).
//!
//! A participant that doesn't take what is sent to it gets less of it: what waits for one
//! connection is bounded, and whole datagrams beyond that are lost, as they would be on a link that
//! is too narrow.

use std::collections::HashMap;
use std::io;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::ready::Ready;
use super::team::Connection;
use super::udp::Sent;
use crate::media::demux::Pair;
use crate::media::message::Transmit;

/// Bytes of a frame. What belongs here is made for UDP and fits into one packet of a network.
pub const FRAME_BYTES_MAX: usize = 2048;

/// Bytes that may wait for one connection: half a second of a good picture.
const WAITING_BYTES_MAX: usize = 128 * 1024;

/// Bytes that the kernel may hold unsent; what is older than the newest picture helps nobody.
const UNSENT_BYTES_MAX: u32 = 32 * 1024;

/// Read calls of one turn and connection, and the bytes of each.
const READS_PER_TURN: usize = 4;
const READ_BYTES: usize = 16 * 1024;

/// A connection on which nothing comes for so long is over: clients check every few seconds.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// The connections of one worker.
pub(super) struct Streams {
    ready: Ready,
    by_pair: HashMap<Pair, usize>,
    /// As many as there are places for at the door.
    streams: Slab<Stream>,
    read: Box<[u8]>,
}

struct Stream {
    io: TcpStream,
    pair: Pair,
    waker: Waker,
    /// It stands in the queue because of something left to do, and need not again.
    queued: bool,
    /// A participant has proved to be at its end.
    proven: bool,
    /// Begins with a frame that isn't whole yet.
    inbound: Vec<u8>,
    /// Frames that the kernel hasn't taken, the first of them perhaps in part.
    outbound: Vec<u8>,
    heard: Instant,
    _place: OwnedSemaphorePermit,
}

/// A connection is over.
struct Over;

impl Streams {
    /// None.
    pub(super) fn new() -> Self {
        Self {
            ready: Ready::new(),
            by_pair: HashMap::new(),
            streams: Slab::new(),
            read: vec![0; READ_BYTES].into(),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Takes a connection in, unproven.
    pub(super) fn open(&mut self, connection: Connection, now: Instant) -> io::Result<()> {
        let io = TcpStream::from_std(connection.stream)?;
        // Frames are small and hurry.
        io.set_nodelay(true)?;
        SockRef::from(&io).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        let entry = self.streams.vacant_entry();
        let key = entry.key();
        entry.insert(Stream {
            io,
            pair: connection.pair,
            waker: self.ready.waker(key),
            queued: false,
            proven: false,
            inbound: Vec::new(),
            outbound: Vec::new(),
            heard: now,
            _place: connection.place,
        });
        // It takes the place of one with the same addresses, which is over, then.
        if let Some(former) = self.by_pair.insert(connection.pair, key) {
            self.streams.try_remove(former);
        }
        // Something may be there already, and it is armed when nothing is.
        self.again(key);
        Ok(())
    }

    /// A participant has proved to be at the other end.
    pub(super) fn prove(&mut self, pair: Pair) {
        if let Some(stream) = self.by_pair.get(&pair) {
            self.streams[*stream].proven = true;
        }
    }

    /// Ends a connection that nobody has proved to be at.
    pub(super) fn close_unproven(&mut self, pair: Pair) -> bool {
        let stream = self.by_pair.get(&pair).map(|key| &self.streams[*key]);
        let unproven = stream.is_some_and(|stream| !stream.proven);
        if unproven {
            self.close(pair);
        }
        unproven
    }

    /// Ends a connection, whatever waits for it.
    pub(super) fn close(&mut self, pair: Pair) {
        if let Some(key) = self.by_pair.remove(&pair) {
            self.streams.remove(key);
        }
    }

    /// Ends the connections that nothing has come on for too long; whose they were.
    pub(super) fn close_idle(&mut self, now: Instant) -> Vec<Pair> {
        let is_idle = |stream: &Stream| now.saturating_duration_since(stream.heard) > IDLE_TIME_MAX;
        let idle = self.streams.iter().filter(|(_, stream)| is_idle(stream));
        let idle: Vec<_> = idle.map(|(_, stream)| stream.pair).collect();
        for pair in &idle {
            self.close(*pair);
        }
        idle
    }

    /// Whether any has something to read, or room for what waits.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> bool {
        self.ready.poll_any(cx)
    }

    /// Sends to and reads from the next one that can; `take` gets each frame. The pair is that of a
    /// connection that is over. `None` when there is nothing to do.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        mut take: impl FnMut(Pair, &[u8]),
    ) -> Option<Option<Pair>> {
        let key = self.ready.next()?;
        let Some(stream) = self.streams.get_mut(key) else {
            return Some(None);
        };
        stream.queued = false;
        let pair = stream.pair;
        let turned = stream.flush().and_then(|_| {
            let more = stream.receive(&mut self.read, now, |frame| take(pair, frame))?;
            Ok(more || stream.is_ready())
        });
        match turned {
            Ok(true) => self.again(key),
            Ok(false) => {}
            Err(Over) => {
                self.close(pair);
                return Some(Some(pair));
            }
        }
        Some(None)
    }

    /// Sends one datagram or a run of them; they are lost if there is no such connection.
    pub(super) fn send(&mut self, transmit: &Transmit<'_>) -> Sent {
        let pair = Pair {
            local: transmit.local,
            remote: transmit.remote,
        };
        let segment = transmit.segment.unwrap_or(transmit.contents.len()).max(1);
        let mut sent = Sent::default();
        let Some(key) = self.by_pair.get(&pair).copied() else {
            sent.lost = transmit.contents.len().div_ceil(segment) as u64;
            return sent;
        };
        let stream = &mut self.streams[key];
        for datagram in transmit.contents.chunks(segment) {
            let fits = stream.outbound.len() + 2 + datagram.len() <= WAITING_BYTES_MAX;
            match u16::try_from(datagram.len()) {
                Ok(length) if fits => {
                    stream.outbound.extend(length.to_be_bytes());
                    stream.outbound.extend_from_slice(datagram);
                    sent.datagrams += 1;
                    sent.bytes += datagram.len() as u64;
                }
                _ => sent.lost += 1,
            }
        }
        match stream.flush() {
            Ok(flushed) => {
                sent.batches += u64::from(flushed);
                // Reading is armed already, or its turn comes.
                if stream.is_writable() {
                    self.again(key);
                }
            }
            // Reading finds the same, and says whose it was.
            Err(Over) => self.again(key),
        }
        sent
    }

    /// There may be more to do for it than was done.
    fn again(&mut self, key: usize) {
        let stream = self.streams.get_mut(key);
        if stream.is_some_and(|stream| !std::mem::replace(&mut stream.queued, true)) {
            self.ready.again(key);
        }
    }
}

impl Stream {
    /// Hands the kernel what it takes; whether that was anything.
    fn flush(&mut self) -> Result<bool, Over> {
        if self.outbound.is_empty() {
            return Ok(false);
        }
        match self.io.try_write(&self.outbound) {
            Ok(written) => {
                self.outbound.drain(..written);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(Over),
        }
    }

    /// Reads frames; whether there may be more.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool, Over> {
        for _ in 0..READS_PER_TURN {
            match self.io.try_read(buffer) {
                Ok(0) => return Err(Over),
                Ok(read) => {
                    self.heard = now;
                    self.inbound.extend_from_slice(&buffer[..read]);
                    let taken = each_frame(&self.inbound, &mut take)?;
                    self.inbound.drain(..taken);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(Over),
            }
        }
        Ok(true)
    }

    /// Whether there is something to do after all; if not, it is armed.
    fn is_ready(&self) -> bool {
        let mut cx = Context::from_waker(&self.waker);
        // Both are armed.
        self.io.poll_read_ready(&mut cx).is_ready() | self.is_writable()
    }

    /// Whether something waits that there is room for; if there is none, it is armed.
    fn is_writable(&self) -> bool {
        let mut cx = Context::from_waker(&self.waker);
        !self.outbound.is_empty() && self.io.poll_write_ready(&mut cx).is_ready()
    }
}

/// Gives `take` each whole frame; how many bytes they were.
fn each_frame(bytes: &[u8], take: &mut impl FnMut(&[u8])) -> Result<usize, Over> {
    let mut rest = bytes;
    // Each turn takes at least two bytes off.
    while let [high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > FRAME_BYTES_MAX {
            return Err(Over);
        }
        let Some((frame, after)) = after.split_at_checked(length) else {
            break;
        };
        take(frame);
        rest = after;
    }
    Ok(bytes.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    /// A client, and the only one of the streams with it.
    async fn one() -> (TcpStream, Streams, Pair) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let client = TcpStream::connect(at).await.unwrap();
        let (stream, remote) = listener.accept().await.unwrap();
        let pair = Pair { local: at, remote };
        let mut streams = Streams::new();
        let connection = Connection {
            stream: stream.into_std().unwrap(),
            pair,
            first: [].into(),
            place: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        };
        streams.open(connection, Instant::now()).unwrap();
        (client, streams, pair)
    }

    #[tokio::test]
    async fn what_is_sent_to_a_slow_reader_does_not_fill_the_queue() {
        let (mut client, mut streams, pair) = one().await;
        client.write_all(&[0, 1, 7]).await.unwrap();
        // The runtime knows by then that it can be read.
        streams.streams[streams.by_pair[&pair]]
            .io
            .readable()
            .await
            .unwrap();
        let transmit = Transmit {
            local: pair.local,
            remote: pair.remote,
            contents: &[0; 1200],
            segment: None,
        };
        // Until the kernel and what waits here are full, and long after.
        let mut lost = 0;
        for _ in 0..100_000 {
            lost += streams.send(&transmit).lost;
            if lost == 1000 {
                break;
            }
        }
        assert_eq!(lost, 1000);
        let mut frames = 0;
        let mut turns = 0;
        while streams.turn(Instant::now(), |_, _| frames += 1).is_some() {
            turns += 1;
        }
        assert_eq!(frames, 1);
        assert!(turns <= 4, "{turns} turns for one frame");
    }
}

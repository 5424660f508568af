//! The UDP sockets of a worker: batches in, runs of equal datagrams out.
//!
//! Receiving takes as many datagrams as the kernel has in one call, merged ones (GRO) among them,
//! and splits them by the stride it reports. Sending hands whole runs to the kernel (GSO) for as
//! long as it takes them: a driver without it answers `EIO` or `EINVAL`, `quinn-udp` remembers
//! that per socket, and the run leaves one by one from then on.
//!
//! A full send buffer is not waited for: the kernel's buffer is the queue, a second one in front
//! of it would only add delay, and media that is lost here is repaired by NACK as any other loss.
//!
//! Not here: who a datagram belongs to (`media`), when to read (the turn in `worker`).

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;

use crate::media::demux::Pair;
use crate::media::message::Transmit;

/// Buffers of one receive call. Each takes a whole GRO run, so this is a megabyte per worker; more
/// datagrams stay in the kernel until the next call.
const BUFFERS: usize = 16;

/// Bytes of one buffer: the largest GRO run there is, a UDP datagram's own limit.
const BUFFER_BYTES: usize = 1 << 16;

/// Bytes of one GSO run; longer ones are split. The IP length field allows 65535 with headers.
const RUN_BYTES_MAX: usize = 65_000;

/// Sizes of a socket's kernel buffers in bytes. The kernel caps them (`net.core.rmem_max`,
/// `wmem_max`) without an error; [`Bound::granted`] tells what it gave.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// Wished receive buffer.
    pub receive: usize,
    /// Wished send buffer.
    pub send: usize,
}

/// A bound socket that waits for its worker, and what the kernel gave it.
#[derive(Debug)]
pub struct Bound {
    socket: std::net::UdpSocket,
    local: SocketAddr,
    granted: Buffers,
}

impl Bound {
    /// Binds `local`, an address that clients can be told, so not the unspecified one.
    pub fn new(local: SocketAddr, buffers: Buffers) -> io::Result<Self> {
        Self::of(open(local, buffers, false)?)
    }

    /// The same for a port that others of this process bind too.
    pub fn shared(local: SocketAddr, buffers: Buffers) -> io::Result<Self> {
        Self::of(open(local, buffers, true)?)
    }

    /// A socket on a shared port for what comes from one address. Between the two steps the kernel
    /// may give it a datagram from elsewhere, so senders have to be looked at all the same.
    pub(super) fn connected(pair: Pair, buffers: Buffers) -> io::Result<Self> {
        let socket = open(pair.local, buffers, true)?;
        socket.connect(&pair.remote.into())?;
        Self::of(socket)
    }

    fn of(socket: socket2::Socket) -> io::Result<Self> {
        let granted = Buffers {
            receive: socket.recv_buffer_size()?,
            send: socket.send_buffer_size()?,
        };
        let socket = std::net::UdpSocket::from(socket);
        let local = socket.local_addr()?;
        Ok(Self {
            local,
            socket,
            granted,
        })
    }

    /// Where it is bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The buffers the kernel gave. Linux reports twice what it counts for payload.
    pub fn granted(&self) -> Buffers {
        self.granted
    }
}

/// A bound socket without any waiting. One port has many if all of them are `shared`.
fn open(local: SocketAddr, buffers: Buffers, shared: bool) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(local);
    let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        // Both families get sockets of their own on the same port.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.set_recv_buffer_size(buffers.receive)?;
    socket.set_send_buffer_size(buffers.send)?;
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

/// A socket at work. Made inside the worker's runtime.
pub(super) struct Socket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

/// What became of a transmit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Datagrams the kernel took.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// System calls that sent something.
    pub batches: u64,
    /// Datagrams it didn't take.
    pub lost: u64,
}

impl Socket {
    pub(super) fn new(bound: Bound) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&bound.socket))?;
        Ok(Self {
            io: tokio::net::UdpSocket::from_std(bound.socket)?,
            state,
            local: bound.local,
        })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn poll_readable(&self, cx: &mut std::task::Context<'_>) -> bool {
        self.io.poll_recv_ready(cx).is_ready()
    }

    /// Sends one datagram or a run of them.
    pub(super) fn send(&self, transmit: &Transmit<'_>) -> Sent {
        let bytes = transmit.contents.len();
        let segment = match transmit.segment {
            Some(segment) if segment > 0 => segment.min(bytes.max(1)),
            _ => bytes.max(1),
        };
        let mut sent = Sent::default();
        if !addressable(transmit.remote) {
            sent.lost = bytes.div_ceil(segment) as u64;
            return sent;
        }
        let mut rest = transmit.contents;
        while !rest.is_empty() {
            let segments = (RUN_BYTES_MAX / segment).clamp(1, self.state.max_gso_segments());
            let (run, after) = rest.split_at(rest.len().min(segment.saturating_mul(segments)));
            match self.send_run(transmit.remote, run, segment) {
                Ok(()) => {
                    sent.datagrams += run.len().div_ceil(segment) as u64;
                    sent.bytes += run.len() as u64;
                    sent.batches += 1;
                    rest = after;
                }
                // The kernel refused the run as a run. From now on this socket's limit is one
                // segment, so the loop comes here once at most.
                Err(_) if run.len() > segment && self.state.max_gso_segments() == 1 => {}
                Err(_) => {
                    sent.lost += run.len().div_ceil(segment) as u64;
                    rest = after;
                }
            }
        }
        sent
    }

    fn send_run(&self, remote: SocketAddr, run: &[u8], segment: usize) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: remote,
            ecn: None,
            contents: run,
            segment_size: (run.len() > segment).then_some(segment),
            src_ip: None,
        };
        // Past tokio's readiness: nobody waits for writability, so there is nothing to clear.
        self.state.try_send(UdpSockRef::from(&self.io), &transmit)
    }
}

/// Whether the kernel can be asked to send there. Port 0 and the unspecified address come from
/// hostile candidates; the kernel would answer `EINVAL`, and that would end GSO for the socket.
fn addressable(remote: SocketAddr) -> bool {
    remote.port() != 0 && !remote.ip().is_unspecified() && !remote.ip().is_multicast()
}

/// What one receive call yielded; the buffer is used again for the next.
pub(super) struct Batch {
    buffer: Box<[u8]>,
    metas: [RecvMeta; BUFFERS],
    filled: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFERS * BUFFER_BYTES].into_boxed_slice(),
            metas: [RecvMeta::default(); BUFFERS],
            filled: 0,
        }
    }

    /// Takes what the kernel has, without waiting; whether there may be more. An empty batch
    /// follows `WouldBlock`.
    pub(super) fn receive(&mut self, socket: &Socket) -> io::Result<bool> {
        self.filled = 0;
        let mut chunks = self.buffer.chunks_exact_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let metas = &mut self.metas;
        self.filled = socket.io.try_io(Interest::READABLE, || {
            let io = UdpSockRef::from(&socket.io);
            socket.state.recv(io, &mut slices, metas)
        })?;
        let more = self.filled == BUFFERS;
        if !more {
            // The kernel has no more, and tells of what comes next: there is no need to ask once
            // again and be refused.
            let _ = socket.io.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
        Ok(more)
    }

    /// The datagrams with their senders, in the order of arrival.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let buffers = self.buffer.chunks_exact(BUFFER_BYTES);
        let filled = self.metas.iter().zip(buffers).take(self.filled);
        filled.flat_map(|(meta, buffer)| {
            let run = &buffer[..meta.len.min(BUFFER_BYTES)];
            run.chunks(meta.stride.max(1))
                .map(|datagram| (meta.addr, datagram))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Buffers = Buffers {
        receive: 1 << 18,
        send: 1 << 18,
    };

    fn loopback() -> Bound {
        let local = "127.0.0.1:0".parse().expect("an address");
        Bound::new(local, SIZES).expect("a free port")
    }

    async fn received(socket: &Socket, count: usize) -> Vec<Vec<u8>> {
        let mut batch = Batch::new();
        let mut all = Vec::new();
        while all.len() < count {
            socket.io.readable().await.expect("readable");
            if batch.receive(socket).is_ok() {
                all.extend(batch.datagrams().map(|(_, datagram)| datagram.to_vec()));
            }
        }
        all
    }

    #[tokio::test]
    async fn a_run_arrives_as_its_datagrams() {
        let (from, to) = (loopback(), loopback());
        let (local, remote) = (from.local(), to.local());
        let (from, to) = (Socket::new(from).unwrap(), Socket::new(to).unwrap());
        // Longer than one GSO run of 64 segments, and the last datagram is shorter.
        let contents: Vec<u8> = (0..70 * 100 + 7).map(|byte| byte as u8).collect();
        let sent = from.send(&Transmit {
            local,
            remote,
            contents: &contents,
            segment: Some(100),
        });
        assert_eq!((sent.datagrams, sent.lost), (71, 0));
        assert_eq!(sent.bytes, contents.len() as u64);
        let all = received(&to, 71).await;
        assert_eq!(all.concat(), contents);
        assert_eq!(all[0].len(), 100);
        assert_eq!(all[70].len(), 7);
    }

    #[tokio::test]
    async fn a_hostile_destination_is_lost_and_keeps_offload() {
        let socket = Socket::new(loopback()).unwrap();
        let before = socket.state.max_gso_segments();
        for remote in ["127.0.0.1:0", "0.0.0.0:9", "224.0.0.1:9", "[::1]:9"] {
            let sent = socket.send(&Transmit {
                local: socket.local(),
                remote: remote.parse().expect("an address"),
                contents: &[1; 30],
                segment: Some(10),
            });
            assert_eq!((sent.datagrams, sent.lost), (0, 3), "{remote}");
        }
        assert_eq!(socket.state.max_gso_segments(), before);
    }

    #[test]
    fn both_families_share_a_port() {
        let four = loopback();
        let six = SocketAddr::new("::1".parse().expect("an address"), four.local().port());
        match Bound::new(six, SIZES) {
            Ok(bound) => assert_eq!(bound.local().port(), four.local().port()),
            // Without IPv6 on this host there is nothing to show.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable),
        }
    }
}

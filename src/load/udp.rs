//! The UDP socket of one participant, and the buffer that all of them receive into: merged
//! datagrams (GRO) and many of them in one call, runs of equal ones out (GSO).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};

/// Wished sizes of the kernel's buffers in bytes; it caps them without an error.
const KERNEL_BUFFER: usize = 4 << 20;

/// Buffers of one receive call: what one frame of several publishers comes as.
const BUFFERS: usize = 8;

/// Bytes of one buffer: the largest GRO run there is.
const BUFFER_BYTES: usize = 1 << 16;

/// A socket.
pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Socket {
    /// A socket that can reach `remote`. It hears what comes from elsewhere too, as a server may
    /// have several addresses.
    pub fn toward(remote: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let io = UdpSocket::bind((any, 0))?;
        io.set_nonblocking(true)?;
        let options = socket2::SockRef::from(&io);
        options.set_recv_buffer_size(KERNEL_BUFFER)?;
        options.set_send_buffer_size(KERNEL_BUFFER)?;
        // A connected socket tells by which address of ours the way leads there.
        let probe = UdpSocket::bind((any, 0))?;
        probe.connect(remote)?;
        let local = SocketAddr::new(probe.local_addr()?.ip(), io.local_addr()?.port());
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        Ok(Self { io, state, local })
    }

    /// Our address, as the server sees it unless there is a NAT between.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Has `registry` tell under `token` when something comes.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let mut source = SourceFd(&self.io.as_raw_fd());
        registry.register(&mut source, token, Interest::READABLE)
    }

    /// Sends one datagram, or a run of datagrams of `segment` bytes each. What the kernel doesn't
    /// take is lost, as it would be further on.
    pub fn send(&self, destination: SocketAddr, contents: &[u8], segment: Option<usize>) -> bool {
        let most = self.state.max_gso_segments();
        let whole = segment.is_none_or(|segment| contents.len() <= segment.saturating_mul(most));
        if !whole {
            let segment = segment.unwrap_or(contents.len());
            let mut taken = true;
            for run in contents.chunks(segment * most) {
                let several = (run.len() > segment).then_some(segment);
                taken &= self.send_run(destination, run, several);
            }
            return taken;
        }
        // A kernel that refuses runs has its limit lowered to one by then: the second try is
        // in single datagrams.
        self.send_run(destination, contents, segment)
            || (segment.is_some()
                && self.state.max_gso_segments() < most
                && self.send(destination, contents, segment))
    }

    fn send_run(&self, destination: SocketAddr, contents: &[u8], segment: Option<usize>) -> bool {
        let transmit = quinn_udp::Transmit {
            destination,
            ecn: None,
            contents,
            segment_size: segment,
            src_ip: None,
        };
        self.state
            .try_send(UdpSockRef::from(&self.io), &transmit)
            .is_ok()
    }
}

/// What one receive call yielded.
pub struct Inbox {
    buffer: Box<[u8]>,
    metas: [RecvMeta; BUFFERS],
    filled: usize,
}

/// Datagrams from one address that the kernel had merged, or just one.
pub struct Run<'a> {
    /// Where they came from.
    pub from: SocketAddr,
    /// When the kernel had them, since 1970.
    pub arrival: Option<Duration>,
    bytes: &'a [u8],
    stride: usize,
}

impl<'a> Run<'a> {
    /// In their order.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.stride)
    }
}

impl Inbox {
    /// Empty.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFERS * BUFFER_BYTES].into_boxed_slice(),
            metas: [RecvMeta::default(); BUFFERS],
            filled: 0,
        }
    }

    /// Takes what the kernel has for `socket`, without waiting. Whether there may be more.
    pub fn receive(&mut self, socket: &Socket) -> bool {
        let mut chunks = self.buffer.chunks_exact_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let io = UdpSockRef::from(&socket.io);
        // "Connection refused" by a port that is closed is told by silence, too.
        let received = socket.state.recv(io, &mut slices, &mut self.metas);
        self.filled = received.unwrap_or(0);
        self.filled == BUFFERS
    }

    /// In the order of arrival.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let buffers = self.buffer.chunks_exact(BUFFER_BYTES);
        let filled = self.metas.iter().zip(buffers).take(self.filled);
        filled.map(|(meta, buffer)| Run {
            from: meta.addr,
            arrival: meta.timestamp,
            bytes: &buffer[..meta.len.min(BUFFER_BYTES)],
            stride: meta.stride.max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::clock::Clock;

    #[test]
    fn a_run_arrives_with_the_time_of_the_kernel() {
        let clock = Clock::start();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let [from, to] = [(); 2].map(|()| Socket::toward(anywhere).expect("a socket"));
        assert!(to.local().ip().is_loopback());
        // More than one GSO run, and the last datagram is shorter.
        let contents: Vec<u8> = (0..70 * 100 + 7).map(|byte| byte as u8).collect();
        assert!(from.send(to.local(), &contents, Some(100)));
        let (mut inbox, mut all, mut sizes) = (Inbox::new(), Vec::new(), Vec::new());
        let late = clock.now() + Duration::from_secs(5);
        while all.len() < contents.len() && clock.now() < late {
            inbox.receive(&to);
            for run in inbox.runs() {
                assert_eq!(run.from, from.local());
                let age = clock
                    .unix(clock.now())
                    .saturating_sub(run.arrival.expect("a time"));
                assert!(age < Duration::from_secs(5), "{age:?}");
                for datagram in run.datagrams() {
                    sizes.push(datagram.len());
                    all.extend_from_slice(datagram);
                }
            }
        }
        assert_eq!(all, contents);
        assert_eq!((sizes.len(), sizes[0], sizes[70]), (71, 100, 7));
    }
}

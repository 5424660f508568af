//! The least that any server does for a copy: it is sealed, and handed to the kernel in the
//! largest run there is, which is the frame. No room, no numbers, no choice, no feedback.
//!
//! Packets go over loopback to a socket that nobody reads: once its buffer is full the kernel
//! drops them at the last step. So the kernel's whole way out is in it, and no reader.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use stellwerk::media::batch::Batch;
use stellwerk::media::srtp::{MasterKey, OwnSsrc, Sealer, Stream, Suite};

use super::room::{PACKETS, PAYLOAD};

/// Header and one extension of four bytes.
pub const HEADER: usize = 12 + 8;

/// Two sockets on loopback.
pub struct Wire {
    from: UdpSocket,
    state: UdpSocketState,
    to: UdpSocket,
}

impl Wire {
    /// Both are bound.
    pub fn new() -> io::Result<Self> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (from, to) = (bind()?, bind()?);
        from.set_nonblocking(true)?;
        UdpSocketState::new(UdpSockRef::from(&to))?;
        Ok(Self {
            state: UdpSocketState::new(UdpSockRef::from(&from))?,
            from,
            to,
        })
    }

    /// Sends a run in one call.
    pub fn send(&self, contents: &[u8], segment: Option<usize>) {
        let transmit = Transmit {
            destination: self.to.local_addr().expect("it is bound"),
            ecn: None,
            contents,
            segment_size: segment,
            src_ip: None,
        };
        let sent = self.state.try_send(UdpSockRef::from(&self.from), &transmit);
        sent.expect("loopback takes whole runs");
    }
}

/// Keys for each viewer, memory for the one whose turn it is, and a socket.
pub struct Floor {
    viewers: Vec<Stream>,
    batch: Batch,
    packet: Vec<u8>,
    seq: u64,
    wire: Wire,
}

impl Floor {
    /// Each viewer has keys of its own.
    pub fn new(viewers: usize) -> io::Result<Self> {
        let viewers = 0..viewers as u32;
        let mut packet = vec![0x5a; HEADER + PAYLOAD];
        packet[..HEADER].copy_from_slice(&[
            0x90, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xde, 0, 1, 0x31, 0, 0, 0,
        ]);
        Ok(Self {
            viewers: viewers
                .map(|viewer| stream(Suite::AeadAes128Gcm, viewer))
                .collect(),
            batch: Batch::default(),
            packet,
            seq: 0,
            wire: Wire::new()?,
        })
    }

    /// One frame to all.
    pub fn frame(&mut self) {
        for viewer in &mut self.viewers {
            for number in 0..PACKETS as u64 {
                seal(viewer, &mut self.batch, &self.packet, self.seq + number);
            }
            while let Some((run, segment)) = self.batch.take() {
                self.wire.send(run, segment);
            }
            self.batch.clear();
        }
        self.seq += PACKETS as u64;
    }
}

/// Keys and stream of a viewer.
pub fn stream(suite: Suite, viewer: u32) -> Stream {
    let (key, salt) = match suite {
        Suite::AesCm128Sha1_80 => (16, 14),
        Suite::AeadAes128Gcm => (16, 12),
        Suite::AeadAes256Gcm => (32, 12),
    };
    let byte = viewer as u8;
    let master = MasterKey::new(suite, &vec![byte; key], &vec![byte; salt]);
    let mut sealer = Sealer::new(master.expect("lengths of the suite"));
    let stream = sealer.register(OwnSsrc::claim(1000 + viewer));
    stream.expect("a new SSRC")
}

/// Copies a packet behind what waits, and seals it there under this number.
pub fn seal(stream: &mut Stream, batch: &mut Batch, packet: &[u8], seq: u64) {
    let (buffer, start) = batch.begin().expect("batches are emptied");
    buffer.extend_from_slice(packet);
    buffer[start + 2..start + 4].copy_from_slice(&(seq as u16).to_be_bytes());
    buffer[start + 8..start + 12].copy_from_slice(&stream.ssrc().get().to_be_bytes());
    let sealed = stream.seal_rtp(buffer, start, HEADER, seq);
    sealed.expect("numbers are used once");
    batch.commit(start);
}

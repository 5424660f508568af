//! SRTP of the egress leg: what is written here leaves sealed. Part of step 5 of the hot path.
//!
//! str0m holds the same master key and goes on to seal its own feedback with it, so the one thing
//! that must never happen is two packets under one nonce: with GCM that gives the authentication
//! key away, with counter mode the plaintext. Ownership carries the proof, link by link:
//!
//! ```text
//! MasterKey --moved into--> Sealer --one per SSRC, ever--> Stream --each index once--> packet
//! ```
//!
//! A [`MasterKey`] cannot be cloned, so it has one [`Sealer`]. A sealer gives out one [`Stream`]
//! per SSRC and remembers the SSRC after the stream is gone. A stream seals under its own SSRC
//! only, and an index no more than once. That an SSRC is ours and not str0m's is what
//! [`OwnSsrc::claim`] states.
//!
//! Not here: where the master key comes from (`dtls`), RTP headers and numbering (`egress`), and
//! the numbers of what publishers send (`uplink`), which [`RtpOpener`] opens.

mod cipher;
mod kdf;
mod opener;
mod window;

#[cfg(test)]
mod interop;
#[cfg(test)]
mod vectors;

pub use kdf::MasterKey;
pub use opener::{OpenError, Opener, RtpOpener, SENDERS_MAX};

use std::collections::HashSet;
use std::sync::Arc;

use cipher::Cipher;
use kdf::{RTCP_LABELS, RTP_LABELS};
pub use window::Window;

/// SSRCs a sealer gives streams to, over its whole life: a gone stream's SSRC stays taken. One
/// that wants another gets [`SealRefused::TooManySsrcs`]; the participant has to reconnect for
/// new keys. Streams that are kept and used again for the next track do not add up.
pub const SSRCS_MAX: usize = 4096;

/// Longest packet that is sealed; longer ones are [`SealRefused::Malformed`]. No datagram is.
const PACKET_MAX: usize = 65_535 - OVERHEAD_MAX;

/// Bytes that sealing adds at most, to RTP or RTCP: the GCM tag and the SRTCP index word.
pub const OVERHEAD_MAX: usize = 16 + 4;

/// First RTP sequence index that does not exist: 32 bits of rollover counter, 16 of sequence.
const RTP_INDEX_END: u64 = 1 << 48;

/// First SRTCP index that does not exist; the 32nd bit says that the packet is encrypted.
const RTCP_INDEX_END: u32 = 1 << 31;

/// Fixed part of the RTP header.
const RTP_HEADER: usize = 12;

/// What an RTCP packet starts with and SRTCP leaves readable: common header and sender's SSRC.
const RTCP_HEADER: usize = 8;

/// Words of the window of sealed indices: 1024 packets, over a second of the fastest stream.
type SealedWindow = Window<16>;

/// A protection profile, as negotiated by DTLS-SRTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-128 in counter mode with an 80-bit HMAC-SHA1 tag (RFC 3711): everyone's fallback.
    AesCm128Sha1_80,
    /// AES-128-GCM (RFC 7714).
    AeadAes128Gcm,
    /// AES-256-GCM (RFC 7714).
    AeadAes256Gcm,
}

impl Suite {
    /// All of them, in the order of [`Suite::index`].
    pub const ALL: [Suite; 3] = [
        Suite::AesCm128Sha1_80,
        Suite::AeadAes128Gcm,
        Suite::AeadAes256Gcm,
    ];

    /// Its name as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Suite::AesCm128Sha1_80 => "aes_cm_128_hmac_sha1_80",
            Suite::AeadAes128Gcm => "aead_aes_128_gcm",
            Suite::AeadAes256Gcm => "aead_aes_256_gcm",
        }
    }

    /// Its place in [`Suite::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Bytes that sealing adds to an RTP packet.
    pub fn rtp_overhead(self) -> usize {
        match self {
            Suite::AesCm128Sha1_80 => cipher::CM_TAG,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => cipher::GCM_TAG,
        }
    }

    /// Bytes of master and session keys.
    pub(super) fn key_len(self) -> usize {
        match self {
            Suite::AesCm128Sha1_80 | Suite::AeadAes128Gcm => 16,
            Suite::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of master and session salts.
    pub(super) fn salt_len(self) -> usize {
        match self {
            Suite::AesCm128Sha1_80 => 14,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 12,
        }
    }
}

/// An SSRC that our egress owns: str0m never sends on it, neither RTP nor RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnSsrc(u32);

impl OwnSsrc {
    /// States that an SSRC is ours. Whoever calls this has made sure that str0m has no stream on
    /// it and does not use it for its feedback.
    pub fn claim(ssrc: u32) -> Self {
        Self(ssrc)
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// Why a packet was not sealed. Its bytes must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealRefused {
    /// This index was sealed before, or is too old to tell.
    IndexReused,
    /// The key has no further index; only new keys help.
    IndexExhausted,
    /// Too short, too long, or its header is not of this stream and index.
    Malformed,
    /// The SSRC has, or had, a stream under this key.
    SsrcTaken,
    /// [`SSRCS_MAX`] is reached.
    TooManySsrcs,
}

/// Our sending half of one DTLS-SRTP session: the source of its streams.
pub struct Sealer {
    session: Arc<Session>,
    taken: HashSet<u32>,
}

impl Sealer {
    /// Takes the only copy of our master key.
    pub fn new(key: MasterKey) -> Self {
        Self {
            session: Arc::new(Session::new(&key)),
            taken: HashSet::new(),
        }
    }

    /// The one stream of an SSRC. Dropping it releases its memory, never its SSRC.
    pub fn register(&mut self, ssrc: OwnSsrc) -> Result<Stream, SealRefused> {
        if self.taken.contains(&ssrc.get()) {
            return Err(SealRefused::SsrcTaken);
        }
        if self.taken.len() >= SSRCS_MAX {
            return Err(SealRefused::TooManySsrcs);
        }
        self.taken.insert(ssrc.get());
        Ok(Stream {
            session: Arc::clone(&self.session),
            ssrc,
            sealed: Window::default(),
            rtcp_next: 0,
        })
    }
}

/// The right to seal under one SSRC. On the packet path it needs neither table nor hash.
pub struct Stream {
    session: Arc<Session>,
    ssrc: OwnSsrc,
    sealed: SealedWindow,
    /// Next SRTCP index; each SRTCP sender counts its own (RFC 3711 section 3.2.1).
    rtcp_next: u32,
}

impl Stream {
    /// Seals the RTP packet at `buffer[start..]` in place and appends its tag.
    ///
    /// `header_len` covers CSRCs and extensions, which stay readable. `index` is the extended
    /// sequence number, rollover counter included; SSRC and sequence number in the header must
    /// agree with it. A refused packet is unchanged and uses no index up.
    pub fn seal_rtp(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        index: u64,
    ) -> Result<(), SealRefused> {
        let packet = buffer.get(start..).ok_or(SealRefused::Malformed)?;
        let header: &[u8; RTP_HEADER] = packet.first_chunk().ok_or(SealRefused::Malformed)?;
        let [.., s0, s1, _, _, _, _, n0, n1, n2, n3] = *header;
        let ours = u16::from_be_bytes([s0, s1]) == index as u16
            && u32::from_be_bytes([n0, n1, n2, n3]) == self.ssrc.get();
        let lengths = (RTP_HEADER..=packet.len()).contains(&header_len);
        if !ours || !lengths || packet.len() > PACKET_MAX {
            return Err(SealRefused::Malformed);
        }
        if index >= RTP_INDEX_END {
            return Err(SealRefused::IndexExhausted);
        }
        if !self.sealed.take(index) {
            return Err(SealRefused::IndexReused);
        }
        self.session.rtp.seal_rtp(buffer, start, header_len, index);
        Ok(())
    }

    /// Seals the compound RTCP packet at `buffer[start..]` in place and appends tag and index.
    /// Its first packet's sender must be this stream's SSRC.
    pub fn seal_rtcp(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), SealRefused> {
        let packet = buffer.get(start..).ok_or(SealRefused::Malformed)?;
        let header: &[u8; RTCP_HEADER] = packet.first_chunk().ok_or(SealRefused::Malformed)?;
        let ours = cipher::rtcp_sender(header) == self.ssrc.get();
        if !ours || packet.len() > PACKET_MAX {
            return Err(SealRefused::Malformed);
        }
        let index = self.rtcp_next;
        if index >= RTCP_INDEX_END {
            return Err(SealRefused::IndexExhausted);
        }
        self.rtcp_next += 1;
        self.session.rtcp.seal_rtcp(buffer, start, index);
        Ok(())
    }

    /// Bytes that sealing adds to an RTP packet.
    pub fn rtp_overhead(&self) -> usize {
        self.session.suite.rtp_overhead()
    }

    /// Its SSRC.
    pub fn ssrc(&self) -> OwnSsrc {
        self.ssrc
    }
}

/// The session keys that the streams of one sealer share.
struct Session {
    suite: Suite,
    rtp: Cipher,
    rtcp: Cipher,
}

impl Session {
    fn new(key: &MasterKey) -> Self {
        Self {
            suite: key.suite(),
            rtp: Cipher::new(&key.derive(RTP_LABELS)),
            rtcp: Cipher::new(&key.derive(RTCP_LABELS)),
        }
    }
}

#[cfg(test)]
mod tests;

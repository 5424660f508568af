//! Opens the SRTCP that subscribers send us: NACK, PLI and congestion reports on our own streams.
//! str0m is handed the same datagrams and keeps its own replay state.

use std::collections::HashMap;

use super::MasterKey;
use super::cipher::Cipher;
use super::kdf::{RTCP_LABELS, RTP_LABELS};
use super::window::Window;

/// Senders of RTCP that are remembered per session. Browsers use one per media section, so a
/// packet from a further one, though authentic, is refused as [`OpenError::TooManySenders`]: to
/// forget an older one instead would let its packets be replayed.
pub const SENDERS_MAX: usize = 1024;

/// Words of the replay window: 128 packets, the minimum of RFC 3711 twice.
type ReplayWindow = Window<2>;

/// Why an SRTCP datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// Too short to be one.
    Malformed,
    /// Its E flag says it is plain; nothing here sends or takes plain RTCP.
    NotEncrypted,
    /// Its index was opened before, or is too old to tell.
    Replayed,
    /// Its tag is wrong.
    NotAuthentic,
    /// [`SENDERS_MAX`] is reached.
    TooManySenders,
}

/// Our receiving half of one DTLS-SRTP session, for RTCP.
pub struct Opener {
    rtcp: Cipher,
    windows: HashMap<u32, ReplayWindow>,
}

impl Opener {
    /// With the remote side's master key.
    pub fn new(key: MasterKey) -> Self {
        Self {
            rtcp: Cipher::new(&key.derive(RTCP_LABELS)),
            windows: HashMap::new(),
        }
    }

    /// Replaces `out` by the plain compound packet of an SRTCP datagram. On error `out` is empty.
    pub fn open_rtcp(&mut self, datagram: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        out.clear();
        let sealed = self.rtcp.parse_rtcp(datagram)?;
        let index = sealed.index.into();
        match self.windows.get(&sealed.sender) {
            Some(window) if !window.is_fresh(index) => return Err(OpenError::Replayed),
            None if self.windows.len() >= SENDERS_MAX => return Err(OpenError::TooManySenders),
            _ => {}
        }
        self.rtcp.open_rtcp(&sealed, out)?;
        // Only now: a forged packet must not move a window nor fill the table.
        self.windows.entry(sealed.sender).or_default().take(index);
        Ok(())
    }
}

/// Opens the SRTP of one session: that of publishers, and in clients of ours what we send.
///
/// It keeps no replay window: who opens knows the streams, and a judge of streams has to see what
/// is sent twice.
pub struct RtpOpener {
    rtp: Cipher,
}

impl RtpOpener {
    /// With the sending side's master key.
    pub fn new(key: &MasterKey) -> Self {
        Self {
            rtp: Cipher::new(&key.derive(RTP_LABELS)),
        }
    }

    /// Replaces `out` by the plain packet of an SRTP datagram, whose header with CSRCs and
    /// extensions takes `header_len` bytes. `index` is its extended sequence number. On error
    /// `out` is empty.
    pub fn open(
        &self,
        datagram: &[u8],
        header_len: usize,
        index: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        out.clear();
        self.rtp.open_rtp(datagram, header_len, index, out)
    }
}

#[cfg(test)]
impl Opener {
    /// Whether no packet has been accepted yet.
    pub(super) fn windows_is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

//! A handshake without secrets, for simulation only: in place of DTLS a client sends one datagram
//! that carries the keys in the clear. All else is the production code: ICE, SRTP, rooms.
//!
//! Two things come of it. A simulated run costs no asymmetric cryptography, and the same seed
//! gives the same bytes. A daemon never gets here: it builds its shards with [`Shard::new`], whose
//! peers run DTLS, and nothing a client can send chooses the provider. `tests/tidy.rs` sees to it
//! that only the simulator names this module.
//!
//! Certificates and fingerprints play no part: this handshake shows no certificate, so str0m has
//! none to compare with the offer's.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

use super::dtls::{self, INNER, Keying, Side};
use super::{Shard, ShardConfig};

/// Bytes of keying material: two keys and two salts of AES-128-GCM (RFC 7714 section 12.1).
pub const MATERIAL: usize = 2 * (16 + 12);

/// A shard whose peers take the keys that clients send them.
pub fn shard(config: ShardConfig) -> Shard {
    Shard::with_crypto(config, Arc::clone(&PROVIDER))
}

/// The datagram by which a client gives its keys: shaped like a DTLS record, as the shard lets
/// nothing else pass. It is answered by an empty record.
pub fn hello(material: &[u8; MATERIAL]) -> Vec<u8> {
    record(material)
}

/// What `material` gives the client: its own key to seal with, the shard's to open.
pub fn client_keys(material: &[u8; MATERIAL]) -> Keying {
    Keying::split(material, PROFILE, Side::Client).expect("the length is that of the profile")
}

const PROFILE: SrtpProfile = SrtpProfile::AEAD_AES_128_GCM;

/// Content type, version, epoch, sequence number and length (RFC 6347 section 4.1).
const RECORD_HEADER: usize = 13;

/// This handshake has no timers of its own.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        dtls_provider: &FixedKeys,
        ..INNER.clone()
    })
});

fn record(body: &[u8]) -> Vec<u8> {
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
    record.extend((body.len() as u16).to_be_bytes());
    record.extend_from_slice(body);
    record
}

#[derive(Debug)]
struct FixedKeys;

impl DtlsProvider for FixedKeys {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        INNER.dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        _: &DtlsCert,
        now: Instant,
        _: DtlsVersion,
        _: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        Ok(dtls::watch(Box::new(Handshake {
            active: false,
            never: now + NEVER,
            step: Step::Waiting,
        })))
    }
}

/// One side of the handshake: always the one that waits.
#[derive(Debug)]
struct Handshake {
    active: bool,
    never: Instant,
    step: Step,
}

/// What is to be said next.
#[derive(Debug)]
enum Step {
    /// The keys have not come.
    Waiting,
    /// These are the keys.
    Keys([u8; MATERIAL]),
    /// Both sides have them.
    Connected,
    /// The client doesn't know it yet.
    Answer,
    /// Nothing more.
    Done,
}

impl DtlsInstance for Handshake {
    fn set_active(&mut self, active: bool) {
        self.active = active;
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        let body = packet.get(RECORD_HEADER..).unwrap_or_default();
        match (&self.step, <[u8; MATERIAL]>::try_from(body)) {
            (Step::Waiting, Ok(material)) => self.step = Step::Keys(material),
            // The answer got lost.
            (Step::Done, Ok(_)) => self.step = Step::Answer,
            _ => {}
        }
        Ok(())
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Keys(material) => {
                self.step = Step::Connected;
                DtlsOutput::KeyingMaterial(KeyingMaterial::new(&material), PROFILE)
            }
            Step::Connected => {
                self.step = Step::Answer;
                DtlsOutput::Connected
            }
            Step::Answer => {
                let answer = record(&[]);
                buf[..answer.len()].copy_from_slice(&answer);
                DtlsOutput::Packet(&buf[..answer.len()])
            }
            idle @ (Step::Waiting | Step::Done) => {
                self.step = idle;
                DtlsOutput::Timeout(self.never)
            }
        }
    }

    fn handle_timeout(&mut self, _: Instant) -> Result<(), DtlsImplError> {
        Ok(())
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        // Simulated clients have no data channels: what is said there is lost.
        Ok(data.len())
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        None
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        Ok(())
    }
}

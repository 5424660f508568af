//! Takes a copy of the SRTP master keys as a DTLS handshake exports them.
//!
//! str0m keeps its keys to itself, but runs any DTLS implementation through public traits. The
//! provider here wraps the usual one and notes the keying material that passes by on its way to
//! str0m. Nothing is withheld or changed. Which peer a DTLS instance belongs to is not told to a
//! provider, but str0m asks for the instance while it builds the peer; so [`capture`] puts one end
//! of a slot in a thread-local for as long as the peer is being built.
//!
//! Not here: session keys and packets (`srtp`), certificates and fingerprints (str0m).

use std::cell::RefCell;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider, from_feature_flags};

use super::srtp::{MasterKey, Suite};

/// The crypto provider for every peer: str0m's own, with DTLS watched.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            dtls_provider: &WatchedProvider,
            ..INNER.clone()
        })
    });
    Arc::clone(&PROVIDER)
}

/// Runs `build`, which makes one peer under [`provider`]; the slot will hold that peer's keys.
pub fn capture<T>(build: impl FnOnce() -> T) -> (T, KeySlot) {
    let (sender, slot) = sync_channel(1);
    let _restore = Waiting(WAITING.replace(Some(sender)));
    (build(), KeySlot(slot))
}

/// Where the keys of a peer arrive, once, before str0m reports the peer connected. A channel
/// rather than a shared cell: taking the keys moves them, so that there is one copy.
#[derive(Debug)]
pub struct KeySlot(Receiver<Keying>);

impl KeySlot {
    /// With keys that no handshake has agreed on: for both ends of a measurement in one process.
    pub fn holding(keys: Keying) -> Self {
        let (sender, slot) = sync_channel(1);
        // There is room for one.
        let _ = sender.try_send(keys);
        Self(slot)
    }

    /// The keys, if they are there and were not taken before.
    pub fn take(&mut self) -> Option<Keying> {
        self.0.try_recv().ok()
    }
}

/// What a DTLS handshake agreed on for SRTP, in the order of our side.
#[derive(Debug)]
pub struct Keying {
    /// The profile.
    pub suite: Suite,
    /// What we send with.
    pub local: MasterKey,
    /// What the remote side sends with.
    pub remote: MasterKey,
}

impl Keying {
    /// Splits exported keying material; nothing if the profile is unknown or the length wrong.
    pub(super) fn split(material: &[u8], profile: SrtpProfile, side: Side) -> Option<Self> {
        let suite = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Suite::AesCm128Sha1_80,
            SrtpProfile::AEAD_AES_128_GCM => Suite::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => Suite::AeadAes256Gcm,
            _ => return None,
        };
        // Client key, server key, client salt, server salt (RFC 5764 section 4.2).
        let (client_key, rest) = material.split_at_checked(suite.key_len())?;
        let (server_key, rest) = rest.split_at_checked(suite.key_len())?;
        let (client_salt, server_salt) = rest.split_at_checked(suite.salt_len())?;
        let client = MasterKey::new(suite, client_key, client_salt)?;
        let server = MasterKey::new(suite, server_key, server_salt)?;
        let (local, remote) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        Some(Self {
            suite,
            local,
            remote,
        })
    }
}

/// Our side of the handshake.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    /// Active.
    Client,
    /// Passive; what we normally are.
    Server,
}

/// str0m's own provider.
pub(super) static INNER: LazyLock<CryptoProvider> = LazyLock::new(from_feature_flags);

thread_local! {
    /// Where the DTLS instance that is built next on this thread sends its keys.
    static WAITING: RefCell<Option<SyncSender<Keying>>> = const { RefCell::new(None) };
}

/// Puts back what was waiting before, also when building a peer panics.
struct Waiting(Option<SyncSender<Keying>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.set(self.0.take());
    }
}

/// Ties a new DTLS instance to the slot that waits on this thread; without one it is left as is.
pub(super) fn watch(inner: Box<dyn DtlsInstance>) -> Box<dyn DtlsInstance> {
    match WAITING.take() {
        Some(keys) => Box::new(Watched { inner, keys }),
        None => inner,
    }
}

/// Wraps each DTLS instance that is built within [`capture`].
#[derive(Debug)]
struct WatchedProvider;

impl DtlsProvider for WatchedProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        INNER.dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        dtls_version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        INNER
            .dtls_provider
            .new_dtls(cert, now, dtls_version, mtu)
            .map(watch)
    }

    fn is_test(&self) -> bool {
        INNER.dtls_provider.is_test()
    }
}

/// A DTLS instance whose keying material is noted as it passes.
struct Watched {
    inner: Box<dyn DtlsInstance>,
    keys: SyncSender<Keying>,
}

impl Watched {
    fn note(&self, material: &KeyingMaterial, profile: SrtpProfile) {
        let side = if self.inner.is_active() {
            Side::Client
        } else {
            Side::Server
        };
        if let Some(keying) = Keying::split(material, profile, side) {
            // Refused when the slot is gone or full; a handshake exports its keys only once.
            let _ = self.keys.try_send(keying);
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl DtlsInstance for Watched {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.inner.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            self.note(material, *profile);
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keying_material_is_split_by_side() {
        let material: Vec<u8> = (0..56).collect();
        let profile = SrtpProfile::AEAD_AES_128_GCM;
        let server = Keying::split(&material, profile, Side::Server).expect("the length fits");
        let client = Keying::split(&material, profile, Side::Client).expect("the length fits");
        assert_eq!(server.suite, Suite::AeadAes128Gcm);
        let key: Vec<u8> = (16..32).collect();
        let salt: Vec<u8> = (44..56).collect();
        let expected = MasterKey::new(Suite::AeadAes128Gcm, &key, &salt).expect("lengths fit");
        assert!(server.local.is_same(&expected));
        assert!(client.remote.is_same(&expected));
        assert!(client.local.is_same(&server.remote));
        assert!(!client.local.is_same(&server.local));
    }

    #[test]
    fn material_of_a_wrong_length_gives_no_keys() {
        for len in 0..100 {
            let keying = Keying::split(&vec![0; len], SrtpProfile::AES128_CM_SHA1_80, Side::Server);
            assert_eq!(keying.is_some(), len == 60, "{len}");
        }
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        let keying = Keying::split(&[0xab; 60], SrtpProfile::AES128_CM_SHA1_80, Side::Server);
        let shown = format!("{keying:?}");
        assert!(!shown.contains("171") && !shown.contains("ab,"), "{shown}");
    }

    #[test]
    fn a_slot_is_for_the_peer_built_in_it_only() {
        let (((), mut inner), mut outer) = capture(|| {
            let ((), inner) = capture(|| ());
            assert!(WAITING.with_borrow(Option::is_some), "the outer slot waits");
            ((), inner)
        });
        assert!(WAITING.with_borrow(Option::is_none));
        assert!(inner.take().is_none() && outer.take().is_none());
    }
}

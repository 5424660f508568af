//! Master keys and the session keys derived from them: RFC 3711 section 4.3 with a key derivation
//! rate of 0, RFC 6188 for the AES-256 PRF, RFC 7714 section 11 for the salts of GCM.

use std::fmt;

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use zeroize::Zeroize;

use super::Suite;

/// Longest key of a suite.
const KEY_MAX: usize = 32;
/// Longest salt of a suite, and what the PRF works with.
const SALT_MAX: usize = 14;
/// Bytes of an HMAC-SHA1 session key.
pub(super) const AUTH_KEY: usize = 20;

/// The labels of the three keys a session cipher needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels {
    pub(super) key: u8,
    pub(super) auth: u8,
    pub(super) salt: u8,
}

/// Labels of the keys of SRTP.
pub(super) const RTP_LABELS: Labels = Labels {
    key: 0,
    auth: 1,
    salt: 2,
};

/// Labels of the keys of SRTCP.
pub(super) const RTCP_LABELS: Labels = Labels {
    key: 3,
    auth: 4,
    salt: 5,
};

/// One direction's master key and salt. There is one copy, it is not shown, and it is wiped.
pub struct MasterKey {
    suite: Suite,
    key: [u8; KEY_MAX],
    salt: [u8; SALT_MAX],
}

impl MasterKey {
    /// A master key, if key and salt have the lengths of the suite.
    pub fn new(suite: Suite, key: &[u8], salt: &[u8]) -> Option<Self> {
        if key.len() != suite.key_len() || salt.len() != suite.salt_len() {
            return None;
        }
        // A 12-byte salt stays left-aligned in the PRF's 14 bytes (RFC 7714 section 11).
        let mut master = Self {
            suite,
            key: [0; KEY_MAX],
            salt: [0; SALT_MAX],
        };
        master.key[..key.len()].copy_from_slice(key);
        master.salt[..salt.len()].copy_from_slice(salt);
        Some(master)
    }

    /// The profile it is for.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The session keys under three labels.
    pub(super) fn derive(&self, labels: Labels) -> SessionKeys {
        let mut session = SessionKeys {
            suite: self.suite,
            key: [0; KEY_MAX],
            auth: [0; AUTH_KEY],
            salt: [0; SALT_MAX],
        };
        let prf = self.prf();
        self.expand(&prf, labels.key, &mut session.key[..self.suite.key_len()]);
        self.expand(&prf, labels.auth, &mut session.auth);
        self.expand(
            &prf,
            labels.salt,
            &mut session.salt[..self.suite.salt_len()],
        );
        session
    }

    /// AES in counter mode under the master key.
    fn prf(&self) -> EncryptingKey {
        let algorithm = match self.suite {
            Suite::AesCm128Sha1_80 | Suite::AeadAes128Gcm => &AES_128,
            Suite::AeadAes256Gcm => &AES_256,
        };
        UnboundCipherKey::new(algorithm, &self.key[..self.suite.key_len()])
            .and_then(EncryptingKey::ctr)
            .expect("the key has the length of its algorithm")
    }

    /// Fills `out`, which is all zero, with the key stream of a label.
    fn expand(&self, prf: &EncryptingKey, label: u8, out: &mut [u8]) {
        // x = (label || r) XOR salt, then 16 zero bits of counter. r is 0 at a rate of 0, and the
        // label is the 7th byte from the right of x.
        let mut iv = [0; 16];
        iv[..SALT_MAX].copy_from_slice(&self.salt);
        iv[SALT_MAX - 7] ^= label;
        prf.less_safe_encrypt(out, EncryptionContext::Iv128(iv.into()))
            .expect("counter mode takes any length");
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// The keys of one session cipher; wiped when the cipher is made.
pub(super) struct SessionKeys {
    suite: Suite,
    key: [u8; KEY_MAX],
    auth: [u8; AUTH_KEY],
    salt: [u8; SALT_MAX],
}

impl SessionKeys {
    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key[..self.suite.key_len()]
    }

    /// Only counter mode authenticates with it.
    pub(super) fn auth(&self) -> &[u8] {
        &self.auth
    }

    /// Left-aligned; GCM uses the first 12 bytes.
    pub(super) fn salt(&self) -> &[u8; SALT_MAX] {
        &self.salt
    }
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.auth.zeroize();
        self.salt.zeroize();
    }
}

#[cfg(test)]
impl SessionKeys {
    /// Session keys of a published vector, which starts from them.
    pub(super) fn of_vector(suite: Suite, key: &[u8], salt: &[u8]) -> Self {
        let master = MasterKey::new(suite, key, salt).expect("the vector fits its suite");
        Self {
            suite,
            key: master.key,
            auth: [0; AUTH_KEY],
            salt: master.salt,
        }
    }
}

#[cfg(test)]
impl MasterKey {
    /// A master key with a salt of any length up to the PRF's, as RFC 6188's vectors have it.
    pub(super) fn of_vector(suite: Suite, key: &[u8], salt: &[u8]) -> Self {
        let mut master = Self {
            suite,
            key: [0; KEY_MAX],
            salt: [0; SALT_MAX],
        };
        master.key[..key.len()].copy_from_slice(key);
        master.salt[..salt.len()].copy_from_slice(salt);
        master
    }

    /// Whether both are the same key, for tests of where keys come from.
    pub(in crate::media) fn is_same(&self, other: &Self) -> bool {
        self.suite == other.suite && self.key == other.key && self.salt == other.salt
    }
}

//! The transforms themselves, under session keys: where salt, SSRC and index go in a nonce, what
//! is authenticated, and in which order tag and index follow. It trusts its caller about nonces.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{constant_time, hmac};

use super::kdf::SessionKeys;
use super::{OpenError, RTCP_HEADER, RTP_HEADER, Suite};

/// Bytes of the truncated HMAC-SHA1 tag.
pub(super) const CM_TAG: usize = 10;
/// Bytes of a GCM tag.
pub(super) const GCM_TAG: usize = 16;
/// Bytes of E flag and SRTCP index.
const INDEX_WORD: usize = 4;
/// Says in the index word that the packet is encrypted.
const E_FLAG: u32 = 1 << 31;

/// The keys of RTP or of RTCP in one direction.
pub(super) enum Cipher {
    /// AES counter mode and HMAC-SHA1 (RFC 3711). Boxed, as prepared HMAC keys are large and the
    /// usual suite is GCM.
    CounterMode(Box<CounterMode>),
    /// AES-GCM (RFC 7714).
    Gcm { key: LessSafeKey, salt: [u8; 12] },
}

/// The keys of counter mode.
pub(super) struct CounterMode {
    key: EncryptingKey,
    auth: hmac::Key,
    salt: [u8; 14],
}

impl Cipher {
    pub(super) fn new(keys: &SessionKeys) -> Self {
        let algorithm = match keys.suite() {
            Suite::AesCm128Sha1_80 => return Self::counter_mode(keys),
            Suite::AeadAes128Gcm => &AES_128_GCM,
            Suite::AeadAes256Gcm => &AES_256_GCM,
        };
        let [salt @ .., _, _] = *keys.salt();
        let key = UnboundKey::new(algorithm, keys.key())
            .expect("the session key has the length of its algorithm");
        Self::Gcm {
            key: LessSafeKey::new(key),
            salt,
        }
    }

    fn counter_mode(keys: &SessionKeys) -> Self {
        let key = UnboundCipherKey::new(&AES_128, keys.key())
            .and_then(EncryptingKey::ctr)
            .expect("the session key has the length of its algorithm");
        Self::CounterMode(Box::new(CounterMode {
            key,
            auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, keys.auth()),
            salt: *keys.salt(),
        }))
    }

    /// Seals `buffer[start..]`, whose header of `header_len` bytes the caller has checked.
    pub(super) fn seal_rtp(
        &self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        index: u64,
    ) {
        let (header, payload) = buffer[start..].split_at_mut(header_len);
        let ssrc = rtp_ssrc(header);
        match self {
            Self::CounterMode(keys) => {
                let CounterMode { key, auth, salt } = &**keys;
                apply_key_stream(key, counter_iv(salt, ssrc, index), payload);
                // The tag covers the rollover counter, which is not sent (RFC 3711 section 4.2).
                let rollover = ((index >> 16) as u32).to_be_bytes();
                let mut tag = hmac::Context::with_key(auth);
                tag.update(&buffer[start..]);
                tag.update(&rollover);
                buffer.extend_from_slice(&tag.sign().as_ref()[..CM_TAG]);
            }
            Self::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*header), payload)
                    .expect("a datagram is far below the limit of GCM");
                buffer.extend_from_slice(tag.as_ref());
            }
        }
    }

    /// Replaces the empty `out` by the plain packet; it stays empty on error. `header_len` is
    /// checked here, and nothing else was before.
    pub(super) fn open_rtp(
        &self,
        sealed: &[u8],
        header_len: usize,
        index: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let tag_len = match self {
            Self::CounterMode(_) => CM_TAG,
            Self::Gcm { .. } => GCM_TAG,
        };
        let (packet, tag) = split_tail(sealed, tag_len)?;
        let (header, body) = packet
            .split_at_checked(header_len)
            .filter(|(header, _)| header.len() >= RTP_HEADER)
            .ok_or(OpenError::Malformed)?;
        let ssrc = rtp_ssrc(header);
        match self {
            Self::CounterMode(keys) => {
                let CounterMode { key, auth, salt } = &**keys;
                let mut expected = hmac::Context::with_key(auth);
                expected.update(packet);
                expected.update(&((index >> 16) as u32).to_be_bytes());
                constant_time::verify_slices_are_equal(&expected.sign().as_ref()[..CM_TAG], tag)
                    .map_err(|_| OpenError::NotAuthentic)?;
                out.extend_from_slice(packet);
                apply_key_stream(key, counter_iv(salt, ssrc, index), &mut out[header_len..]);
            }
            Self::Gcm { key, salt } => {
                out.extend_from_slice(header);
                out.resize(packet.len(), 0);
                let nonce = gcm_nonce(salt, ssrc, index);
                let plain = &mut out[header_len..];
                if key
                    .open_separate_gather(nonce, Aad::from(header), body, tag, plain)
                    .is_err()
                {
                    out.clear();
                    return Err(OpenError::NotAuthentic);
                }
            }
        }
        Ok(())
    }

    /// Seals `buffer[start..]`, which the caller has checked to hold an RTCP header.
    pub(super) fn seal_rtcp(&self, buffer: &mut Vec<u8>, start: usize, index: u32) {
        let word = (index | E_FLAG).to_be_bytes();
        let (header, body) = buffer[start..]
            .split_first_chunk_mut::<RTCP_HEADER>()
            .expect("the caller has checked the header");
        let ssrc = rtcp_sender(header);
        match self {
            Self::CounterMode(keys) => {
                let CounterMode { key, auth, salt } = &**keys;
                apply_key_stream(key, counter_iv(salt, ssrc, index.into()), body);
                buffer.extend_from_slice(&word);
                let tag = hmac::sign(auth, &buffer[start..]);
                buffer.extend_from_slice(&tag.as_ref()[..CM_TAG]);
            }
            Self::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index.into());
                let tag = key
                    .seal_in_place_separate_tag(nonce, rtcp_aad(header, word), body)
                    .expect("a datagram is far below the limit of GCM");
                buffer.extend_from_slice(tag.as_ref());
                buffer.extend_from_slice(&word);
            }
        }
    }

    /// Reads what an SRTCP datagram says of itself. Nothing of it is authenticated yet.
    pub(super) fn parse_rtcp<'a>(&self, datagram: &'a [u8]) -> Result<SealedRtcp<'a>, OpenError> {
        let (header, rest) = datagram
            .split_first_chunk::<RTCP_HEADER>()
            .ok_or(OpenError::Malformed)?;
        // GCM: body, tag, word. Counter mode: body, word, tag.
        let (body, tag, word) = match self {
            Self::CounterMode(_) => {
                let (rest, tag) = split_tail(rest, CM_TAG)?;
                let (body, word) = split_tail(rest, INDEX_WORD)?;
                (body, tag, word)
            }
            Self::Gcm { .. } => {
                let (rest, word) = split_tail(rest, INDEX_WORD)?;
                let (body, tag) = split_tail(rest, GCM_TAG)?;
                (body, tag, word)
            }
        };
        let word = *word.first_chunk().ok_or(OpenError::Malformed)?;
        let bits = u32::from_be_bytes(word);
        if bits & E_FLAG == 0 {
            return Err(OpenError::NotEncrypted);
        }
        Ok(SealedRtcp {
            header,
            body,
            tag,
            word,
            sender: rtcp_sender(header),
            index: bits & !E_FLAG,
        })
    }

    /// Checks the tag and writes the plain compound packet to the empty `out`, which stays empty
    /// on error.
    pub(super) fn open_rtcp(
        &self,
        sealed: &SealedRtcp<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let SealedRtcp { header, body, .. } = sealed;
        let index = sealed.index.into();
        match self {
            Self::CounterMode(keys) => {
                let CounterMode { key, auth, salt } = &**keys;
                let mut tag = hmac::Context::with_key(auth);
                tag.update(*header);
                tag.update(body);
                tag.update(&sealed.word);
                let tag = tag.sign();
                constant_time::verify_slices_are_equal(&tag.as_ref()[..CM_TAG], sealed.tag)
                    .map_err(|_| OpenError::NotAuthentic)?;
                out.extend_from_slice(*header);
                out.extend_from_slice(body);
                let iv = counter_iv(salt, sealed.sender, index);
                apply_key_stream(key, iv, &mut out[RTCP_HEADER..]);
            }
            Self::Gcm { key, salt } => {
                out.extend_from_slice(*header);
                out.resize(RTCP_HEADER + body.len(), 0);
                let nonce = gcm_nonce(salt, sealed.sender, index);
                let aad = rtcp_aad(header, sealed.word);
                let plain = &mut out[RTCP_HEADER..];
                if key
                    .open_separate_gather(nonce, aad, body, sealed.tag, plain)
                    .is_err()
                {
                    out.clear();
                    return Err(OpenError::NotAuthentic);
                }
            }
        }
        Ok(())
    }
}

/// An SRTCP datagram taken apart.
pub(super) struct SealedRtcp<'a> {
    header: &'a [u8; RTCP_HEADER],
    body: &'a [u8],
    tag: &'a [u8],
    /// E flag and index as sent: GCM authenticates them with the header.
    word: [u8; INDEX_WORD],
    /// Who claims to have sent it.
    pub(super) sender: u32,
    /// Its claimed index.
    pub(super) index: u32,
}

/// The sender's SSRC of an RTCP packet.
pub(super) fn rtcp_sender(header: &[u8; RTCP_HEADER]) -> u32 {
    let [_, _, _, _, s0, s1, s2, s3] = *header;
    u32::from_be_bytes([s0, s1, s2, s3])
}

/// The SSRC of an RTP header that was checked to be whole.
fn rtp_ssrc(header: &[u8]) -> u32 {
    let ssrc = header[RTP_HEADER - 4..RTP_HEADER]
        .first_chunk()
        .expect("the range is four bytes");
    u32::from_be_bytes(*ssrc)
}

/// The last `len` bytes apart from what is before them.
fn split_tail(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), OpenError> {
    let at = bytes.len().checked_sub(len).ok_or(OpenError::Malformed)?;
    Ok(bytes.split_at(at))
}

/// Salt, SSRC and 48-bit index in their places, then the block counter (RFC 3711 section 4.1.1).
fn counter_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let block = (u128::from(ssrc) << 64) ^ (u128::from(index) << 16);
    let mut iv = block.to_be_bytes();
    xor(&mut iv, salt);
    iv
}

/// Salt, SSRC and 48-bit index in their places (RFC 7714 sections 8.1 and 9.1).
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let block = (u128::from(ssrc) << 48) ^ u128::from(index);
    let [_, _, _, _, nonce @ ..] = block.to_be_bytes();
    let mut nonce: [u8; 12] = nonce;
    xor(&mut nonce, salt);
    Nonce::assume_unique_for_key(nonce)
}

fn xor(block: &mut [u8], salt: &[u8]) {
    for (byte, salt) in block.iter_mut().zip(salt) {
        *byte ^= salt;
    }
}

/// Encrypts or decrypts: in counter mode it is the same.
fn apply_key_stream(key: &EncryptingKey, iv: [u8; 16], bytes: &mut [u8]) {
    key.less_safe_encrypt(bytes, EncryptionContext::Iv128(iv.into()))
        .expect("counter mode takes any length");
}

/// What GCM authenticates of SRTCP beside the body (RFC 7714 section 9.2).
fn rtcp_aad(header: &[u8; RTCP_HEADER], word: [u8; INDEX_WORD]) -> Aad<[u8; 12]> {
    let mut aad = [0; RTCP_HEADER + INDEX_WORD];
    aad[..RTCP_HEADER].copy_from_slice(header);
    aad[RTCP_HEADER..].copy_from_slice(&word);
    Aad::from(aad)
}

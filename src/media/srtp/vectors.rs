//! The published test vectors: RFC 3711 appendix B, RFC 6188 section 7, RFC 7714 sections 16, 17.

use super::cipher::Cipher;
use super::kdf::{MasterKey, RTP_LABELS, SessionKeys};
use super::{OpenError, Suite};

/// Plain text of RFC 7714 section 16.
const RTP: &str = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e697320646976\
    69736120696e207061727465732074726573";
/// Plain text of RFC 7714 section 17.
const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
    deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
/// Salt of RFC 7714 sections 16 and 17.
const SALT: &str = "517569642070726f2071756f";
/// SRTCP index of RFC 7714 section 17.
const RTCP_INDEX: u32 = 0x5d4;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("vectors are hex"))
        .collect()
}

/// The session cipher of RFC 7714: its key counts up from 0.
fn counting_key(suite: Suite) -> Cipher {
    let key: Vec<u8> = (0..).take(suite.key_len()).collect();
    Cipher::new(&SessionKeys::of_vector(suite, &key, &bytes(SALT)))
}

/// RFC 3711 appendix B.2.
#[test]
fn the_key_stream_is_that_of_rfc_3711() {
    let key = bytes("2b7e151628aed2a6abf7158809cf4f3c");
    let salt = bytes("f0f1f2f3f4f5f6f7f8f9fafbfcfd");
    let keys = SessionKeys::of_vector(Suite::AesCm128Sha1_80, &key, &salt);
    let mut packet = vec![0; 12 + 16 * 0xff02];
    Cipher::new(&keys).seal_rtp(&mut packet, 0, 12, 0);
    for (block, expected) in [
        (0, "e03ead0935c95e80e166b16dd92b4eb4"),
        (1, "d23513162b02d0f72a43a2fe4a5f97ab"),
        (2, "41e95b3bb0a2e8dd477901e4fca894c0"),
        (0xfeff, "ec8cdf7398607cb0f2d21675ea9ea1e4"),
        (0xff00, "362b7c3c6773516318a077d7fc5073ae"),
        (0xff01, "6a2cc3787889374fbeb4c81b17ba6c44"),
    ] {
        let at = 12 + 16 * block;
        assert_eq!(packet[at..at + 16], bytes(expected), "block {block:#x}");
    }
}

/// RFC 3711 appendix B.3: its auth key is longer, but its start is the same.
#[test]
fn session_keys_are_those_of_rfc_3711() {
    let key = bytes("e1f97a0d3e018be0d64fa32c06de4139");
    let salt = bytes("0ec675ad498afeebb6960b3aabe6");
    let master = MasterKey::new(Suite::AesCm128Sha1_80, &key, &salt).expect("lengths fit");
    let session = master.derive(RTP_LABELS);
    assert_eq!(session.key(), bytes("c61e7a93744f39ee10734afe3ff7a087"));
    assert_eq!(session.salt()[..], bytes("30cbbc08863d8c85d49db34a9ae1"));
    assert_eq!(
        session.auth(),
        bytes("cebe321f6ff7716b6fd4ab49af256a156d38baa4")
    );
}

/// RFC 6188 section 7. Its salt is longer than that of GCM; the PRF takes both.
#[test]
fn session_keys_of_a_256_bit_master_key_are_those_of_rfc_6188() {
    let key = bytes("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6");
    let salt = bytes("3b04803de51ee7c96423ab5b78d2");
    let session = MasterKey::of_vector(Suite::AeadAes256Gcm, &key, &salt).derive(RTP_LABELS);
    assert_eq!(
        session.key(),
        bytes("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4")
    );
    assert_eq!(
        session.auth(),
        bytes("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05")
    );
    assert_eq!(session.salt()[..12], bytes("fa31791685ca444a9e07c6c6"));
}

/// RFC 7714 sections 16.1.1 and 16.2.1.
#[test]
fn sealed_rtp_is_that_of_rfc_7714() {
    for (suite, expected) in [
        (
            Suite::AeadAes128Gcm,
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd5\
             0d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee439\
             0cce",
        ),
        (
            Suite::AeadAes256Gcm,
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab1801238\
             9a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a7\
             6c13",
        ),
    ] {
        let mut packet = bytes(RTP);
        counting_key(suite).seal_rtp(&mut packet, 0, 12, 0xf17b);
        assert_eq!(packet, bytes(expected), "{suite:?}");
    }
}

/// RFC 7714 sections 17.1 and 17.2, and back; shifted by what is in the buffer before.
#[test]
fn sealed_rtcp_is_that_of_rfc_7714() {
    for (suite, expected) in [
        (
            Suite::AeadAes128Gcm,
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32d\
             c676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf872\
             45d9eade800005d4",
        ),
        (
            Suite::AeadAes256Gcm,
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50\
             a2eaa5c1110555be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6c\
             b26ac3be800005d4",
        ),
    ] {
        let cipher = counting_key(suite);
        let mut buffer = [bytes("cafe"), bytes(RTCP)].concat();
        cipher.seal_rtcp(&mut buffer, 2, RTCP_INDEX);
        assert_eq!(buffer[2..], bytes(expected), "{suite:?}");

        let sealed = cipher.parse_rtcp(&buffer[2..]).expect("it is whole");
        assert_eq!(sealed.index, RTCP_INDEX);
        let mut plain = Vec::new();
        assert_eq!(
            cipher.open_rtcp(&sealed, &mut plain),
            Ok::<_, OpenError>(())
        );
        assert_eq!(plain, bytes(RTCP));
    }
}

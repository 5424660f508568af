//! What must hold of sealing and opening for every suite.

use super::*;

const SSRC: u32 = 0x0a0b_0c0d;

fn key(suite: Suite) -> MasterKey {
    let bytes: Vec<u8> = (1..=32).collect();
    let (key, salt) = (&bytes[..suite.key_len()], &bytes[..suite.salt_len()]);
    MasterKey::new(suite, key, salt).expect("the lengths are the suite's")
}

fn stream(suite: Suite) -> Stream {
    Sealer::new(key(suite))
        .register(OwnSsrc::claim(SSRC))
        .expect("a new sealer has room")
}

fn rtp(index: u64) -> Vec<u8> {
    let mut packet = vec![0x80, 0x60];
    packet.extend_from_slice(&(index as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 9]);
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend_from_slice(b"some payload");
    packet
}

fn rtcp() -> Vec<u8> {
    let mut packet = vec![0x81, 206, 0, 2];
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend_from_slice(&77_u32.to_be_bytes());
    packet
}

fn seal(stream: &mut Stream, index: u64) -> Result<Vec<u8>, SealRefused> {
    let mut packet = rtp(index);
    stream.seal_rtp(&mut packet, 0, 12, index)?;
    Ok(packet)
}

fn seal_rtcp(stream: &mut Stream) -> Vec<u8> {
    let mut packet = rtcp();
    stream.seal_rtcp(&mut packet, 0).expect("indices are left");
    packet
}

#[test]
fn no_index_is_sealed_twice() {
    for suite in Suite::ALL {
        let mut stream = stream(suite);
        assert!(seal(&mut stream, 70_000).is_ok());
        assert!(seal(&mut stream, 69_500).is_ok(), "late but never sealed");
        for index in [70_000, 69_500, 70_000 - 1024] {
            assert_eq!(seal(&mut stream, index), Err(SealRefused::IndexReused));
        }
        let mut packet = rtp(70_000);
        let _ = stream.seal_rtp(&mut packet, 0, 12, 70_000);
        assert_eq!(packet, rtp(70_000), "a refused packet is unchanged");
    }
}

#[test]
fn the_rollover_counter_is_part_of_the_nonce() {
    for suite in Suite::ALL {
        let mut stream = stream(suite);
        let before = seal(&mut stream, 0xffff).expect("new index");
        let zero = seal(&mut stream, 0x1_0000).expect("new index");
        let again = seal(&mut stream, 0x2_0000).expect("same number, next round");
        assert_eq!(before.len(), rtp(0).len() + suite.rtp_overhead());
        assert_eq!(zero[..12], again[..12], "the header stays readable");
        assert_ne!(zero[12..24], again[12..24], "the payload does not repeat");
    }
}

#[test]
fn a_receiver_opens_what_is_sealed_and_nothing_else() {
    for suite in Suite::ALL {
        let index = 0x3_fffe;
        let sealed = seal(&mut stream(suite), index).expect("new index");
        let opener = RtpOpener::new(&key(suite));
        let mut opened = vec![1];
        assert_eq!(opener.open(&sealed, 12, index, &mut opened), Ok(()));
        assert_eq!(opened, rtp(index));
        let another_round = opener.open(&sealed, 12, index + 0x1_0000, &mut opened);
        assert_eq!(another_round, Err(OpenError::NotAuthentic));
        for at in [0, 11, 12, sealed.len() - 1] {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            let result = opener.open(&forged, 12, index, &mut opened);
            assert_eq!(result, Err(OpenError::NotAuthentic), "byte {at}");
            assert!(opened.is_empty());
        }
        for (len, header_len) in [(5, 12), (sealed.len(), 4), (sealed.len(), sealed.len())] {
            let result = opener.open(&sealed[..len], header_len, index, &mut opened);
            assert_eq!(result, Err(OpenError::Malformed), "{len}, {header_len}");
        }
    }
}

#[test]
fn the_last_index_is_sealed_and_none_after_it() {
    for suite in Suite::ALL {
        let mut stream = stream(suite);
        assert!(seal(&mut stream, RTP_INDEX_END - 1).is_ok());
        assert_eq!(
            seal(&mut stream, RTP_INDEX_END),
            Err(SealRefused::IndexExhausted)
        );

        stream.rtcp_next = RTCP_INDEX_END - 1;
        assert!(stream.seal_rtcp(&mut rtcp(), 0).is_ok());
        for _ in 0..2 {
            let refused = stream.seal_rtcp(&mut rtcp(), 0);
            assert_eq!(refused, Err(SealRefused::IndexExhausted));
        }
    }
}

#[test]
fn an_ssrc_has_one_stream_even_after_it_is_gone() {
    let mut sealer = Sealer::new(key(Suite::AeadAes128Gcm));
    let ssrc = OwnSsrc::claim(SSRC);
    let stream = sealer.register(ssrc).expect("room");
    assert_eq!(sealer.register(ssrc).err(), Some(SealRefused::SsrcTaken));
    drop(stream);
    assert_eq!(sealer.register(ssrc).err(), Some(SealRefused::SsrcTaken));
}

#[test]
fn ssrcs_are_bounded() {
    let mut sealer = Sealer::new(key(Suite::AeadAes128Gcm));
    for ssrc in 0..SSRCS_MAX as u32 {
        assert!(sealer.register(OwnSsrc::claim(ssrc)).is_ok());
    }
    let refused = sealer.register(OwnSsrc::claim(u32::MAX)).err();
    assert_eq!(refused, Some(SealRefused::TooManySsrcs));
}

#[test]
fn a_stream_seals_only_its_own_header() {
    let mut stream = stream(Suite::AeadAes256Gcm);
    let mut foreign = rtp(5);
    foreign[11] ^= 1;
    let mut foreign_rtcp = rtcp();
    foreign_rtcp[7] ^= 1;
    let malformed = Err(SealRefused::Malformed);
    assert_eq!(stream.seal_rtp(&mut foreign, 0, 12, 5), malformed);
    assert_eq!(stream.seal_rtp(&mut rtp(5), 0, 12, 6), malformed);
    assert_eq!(stream.seal_rtp(&mut rtp(5), 0, 25, 5), malformed);
    assert_eq!(stream.seal_rtp(&mut rtp(5), 0, 11, 5), malformed);
    assert_eq!(stream.seal_rtp(&mut rtp(5), 99, 12, 5), malformed);
    assert_eq!(stream.seal_rtcp(&mut foreign_rtcp, 0), malformed);
    assert_eq!(stream.seal_rtcp(&mut rtcp(), 99), malformed);
    assert!(stream.seal_rtp(&mut rtp(5), 0, 24, 5).is_ok(), "all header");
}

#[test]
fn rtcp_is_opened_once() {
    for suite in Suite::ALL {
        let mut stream = stream(suite);
        let mut opener = Opener::new(key(suite));
        let mut out = b"left over".to_vec();
        let (first, second) = (seal_rtcp(&mut stream), seal_rtcp(&mut stream));
        assert_ne!(first, second);
        for packet in [&second, &first] {
            assert_eq!(opener.open_rtcp(packet, &mut out), Ok(()));
            assert_eq!(out, rtcp(), "{suite:?}");
            assert_eq!(opener.open_rtcp(packet, &mut out), Err(OpenError::Replayed));
            assert!(out.is_empty());
        }
    }
}

/// A changed packet is refused at every bit, shows nothing, and does not use up its index.
#[test]
fn tampered_rtcp_is_refused() {
    for suite in Suite::ALL {
        let packet = seal_rtcp(&mut stream(suite));
        let mut opener = Opener::new(key(suite));
        let mut out = Vec::new();
        for bit in 0..packet.len() * 8 {
            let mut tampered = packet.clone();
            tampered[bit / 8] ^= 1 << (bit % 8);
            let refused = opener
                .open_rtcp(&tampered, &mut out)
                .expect_err("it was changed");
            let plausible = [OpenError::NotAuthentic, OpenError::NotEncrypted];
            assert!(
                plausible.contains(&refused),
                "{suite:?} bit {bit}: {refused:?}"
            );
            assert!(out.is_empty());
        }
        assert!(opener.windows_is_empty());
        assert_eq!(opener.open_rtcp(&packet, &mut out), Ok(()));
    }
}

#[test]
fn rtcp_that_says_it_is_plain_is_refused() {
    for suite in Suite::ALL {
        let mut packet = seal_rtcp(&mut stream(suite));
        let word = match suite {
            Suite::AesCm128Sha1_80 => packet.len() - cipher::CM_TAG - 4,
            _ => packet.len() - 4,
        };
        packet[word] &= 0x7f;
        let refused = Opener::new(key(suite)).open_rtcp(&packet, &mut Vec::new());
        assert_eq!(refused, Err(OpenError::NotEncrypted), "{suite:?}");
    }
}

#[test]
fn senders_are_bounded() {
    let suite = Suite::AeadAes128Gcm;
    let (mut sealer, mut opener) = (Sealer::new(key(suite)), Opener::new(key(suite)));
    let mut out = Vec::new();
    for ssrc in 0..=SENDERS_MAX as u32 {
        let mut stream = sealer.register(OwnSsrc::claim(ssrc)).expect("room");
        let mut packet = rtcp();
        packet[4..8].copy_from_slice(&ssrc.to_be_bytes());
        stream.seal_rtcp(&mut packet, 0).expect("indices are left");
        let expected = match ssrc as usize {
            SENDERS_MAX => Err(OpenError::TooManySenders),
            _ => Ok(()),
        };
        assert_eq!(opener.open_rtcp(&packet, &mut out), expected);
    }
}

#[test]
fn short_inputs_are_refused() {
    for suite in Suite::ALL {
        let mut stream = stream(suite);
        let mut opener = Opener::new(key(suite));
        let mut out = Vec::new();
        let sealed = seal_rtcp(&mut stream);
        for len in 0..64 {
            for fill in [0x00, 0x80, 0xff] {
                assert!(opener.open_rtcp(&vec![fill; len], &mut out).is_err());
                let mut buffer = vec![fill; len];
                let _ = stream.seal_rtp(&mut buffer, 0, 12, 3);
                let _ = stream.seal_rtp(&mut buffer, len, len, 3);
                let _ = stream.seal_rtcp(&mut buffer, 0);
            }
            if let Some(cut) = sealed.get(..len).filter(|cut| cut.len() < sealed.len()) {
                assert!(opener.open_rtcp(cut, &mut out).is_err());
            }
        }
    }
}

#[test]
fn a_key_has_the_lengths_of_its_suite() {
    let bytes = [7; 40];
    for suite in Suite::ALL {
        for (key, salt) in (0..40).flat_map(|key| (0..20).map(move |salt| (key, salt))) {
            let fits = (key, salt) == (suite.key_len(), suite.salt_len());
            let made = MasterKey::new(suite, &bytes[..key], &bytes[..salt]);
            assert_eq!(made.is_some(), fits, "{suite:?} {key} {salt}");
        }
    }
}

#[test]
fn labels_and_indices_tell_suites_apart() {
    for (index, suite) in Suite::ALL.into_iter().enumerate() {
        assert_eq!(suite.index(), index);
        assert!(suite.rtp_overhead() <= OVERHEAD_MAX);
    }
    assert_eq!(Suite::AeadAes256Gcm.label(), "aead_aes_256_gcm");
}

use super::write::{SenderReport, write_sender_report};
use super::*;

fn packet(count: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    assert_eq!(body.len() % 4, 0);
    let mut out = vec![2 << 6 | count, kind];
    out.extend(((body.len() / 4) as u16).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// Sender SSRC 1, media SSRC 2, then the feedback control information.
fn feedback(format: u8, kind: u8, control: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2];
    body.extend_from_slice(control);
    packet(format, kind, &body)
}

/// Reference time 1 (64 ms).
fn twcc(base: u16, count: u16, content: &[u8]) -> Vec<u8> {
    let mut control = base.to_be_bytes().to_vec();
    control.extend(count.to_be_bytes());
    control.extend([0, 0, 1, 0]);
    control.extend_from_slice(content);
    let padding = (4 - control.len() % 4) % 4;
    control.resize(control.len() + padding, padding as u8);
    let mut out = feedback(15, RTPFB, &control);
    if padding > 0 {
        out[0] |= 1 << 5;
    }
    out
}

fn block(ssrc: u32) -> Vec<u8> {
    let mut out = ssrc.to_be_bytes().to_vec();
    out.extend([26, 0xff, 0xff, 0xff]);
    for word in [0x0001_0005u32, 90, 0x1234_5678, 65_536] {
        out.extend(word.to_be_bytes());
    }
    out
}

fn receiver_report(blocks: u8) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1];
    (0..blocks).for_each(|n| body.extend(block(100 + u32::from(n))));
    packet(blocks, RR, &body)
}

/// One line per item.
fn told(datagram: &[u8]) -> Vec<String> {
    read(datagram)
        .map(|item| match item {
            Err(Malformed) => "malformed".into(),
            Ok(Item::Sender(info)) => format!("sender {}", *info.ssrc),
            Ok(Item::Report(block)) => format!("report {}", *block.ssrc),
            Ok(Item::Nack { media, lost }) => {
                format!("nack {} {:?}", *media, lost.collect::<Vec<_>>())
            }
            Ok(Item::Pli(ssrc)) => format!("pli {}", *ssrc),
            Ok(Item::Fir(ssrc)) => format!("fir {}", *ssrc),
            Ok(Item::Twcc(twcc)) => {
                let packets = twcc
                    .packets()
                    .map(|(seq, at)| (seq, at.map(|at| at.micros() / 250)));
                format!("twcc {:?}", packets.collect::<Vec<_>>())
            }
            Ok(Item::Remb(rate)) => format!("remb {}", rate.as_bps()),
            Ok(Item::Ignored) => "ignored".into(),
        })
        .collect()
}

fn compound() -> Vec<u8> {
    let mut all = receiver_report(2);
    all.extend(feedback(1, RTPFB, &[0, 10, 0x80, 1, 0xff, 0xff, 0, 1]));
    all.extend(twcc(65_535, 3, &[0xa0, 0, 4]));
    all.extend(feedback(1, PSFB, &[]));
    all.extend(feedback(
        4,
        PSFB,
        &[0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0],
    ));
    all.extend(packet(1, 202, &[0, 0, 0, 1, 1, 1, b'x', 0]));
    all
}

#[test]
fn a_compound_is_read_in_order() {
    assert_eq!(
        told(&compound()),
        [
            "report 100",
            "report 101",
            "nack 2 [10, 11, 26, 65535, 0]",
            "twcc [(65535, Some(260)), (0, None), (1, None)]",
            "pli 2",
            "fir 9",
            "fir 8",
            "ignored",
        ]
    );
}

#[test]
fn a_report_block_is_read_field_by_field() {
    let datagram = receiver_report(1);
    let Some(Ok(Item::Report(block))) = read(&datagram).next() else {
        panic!("no report");
    };
    let expected = ReportBlock {
        ssrc: 100.into(),
        fraction_lost: 26,
        lost: -1,
        seq_max: 0x0001_0005,
        jitter: 90,
        last_report: 0x1234_5678,
        delay: 65_536,
    };
    assert_eq!(block, expected);
}

#[test]
fn twcc_chunks_of_every_form() {
    let cases: [(&str, u16, &[u8], &str); 6] = [
        (
            "run of small",
            3,
            &[0x20, 3, 1, 2, 3],
            "[(5, Some(257)), (6, Some(259)), (7, Some(262))]",
        ),
        ("run of lost", 2, &[0x00, 2], "[(5, None), (6, None)]"),
        (
            "run of large, going back",
            1,
            &[0x40, 1, 0xff, 0xfe],
            "[(5, Some(254))]",
        ),
        (
            "one bit each",
            2,
            &[0b1001_0000, 0, 9],
            "[(5, None), (6, Some(265))]",
        ),
        (
            "two bits each",
            3,
            &[0b1101_0010, 0, 1, 1, 0],
            "[(5, Some(257)), (6, None), (7, Some(513))]",
        ),
        (
            "two chunks",
            3,
            &[0x20, 1, 0b1100_0100, 0, 7, 8],
            "[(5, Some(263)), (6, None), (7, Some(271))]",
        ),
    ];
    for (name, count, content, expected) in cases {
        assert_eq!(
            told(&twcc(5, count, content)),
            [format!("twcc {expected}")],
            "{name}"
        );
    }
}

#[test]
fn broken_structure_is_malformed_and_ends_the_walk() {
    let mut long = receiver_report(1);
    long[3] += 1;
    let mut version = receiver_report(1);
    version[0] &= 0x3f;
    let mut blocks = receiver_report(1);
    blocks[0] |= 31;
    let mut no_padding = feedback(1, PSFB, &[0; 4]);
    no_padding[0] |= 1 << 5;
    let mut all_padding = feedback(1, PSFB, &[0, 0, 0, 13]);
    all_padding[0] |= 1 << 5;
    let cases: [(&str, Vec<u8>); 17] = [
        ("length past the end", long),
        ("three bytes", vec![0x80, RR, 0]),
        ("version 0", version),
        ("31 blocks announced", blocks),
        ("report without a sender", packet(0, RR, &[])),
        ("sender report cut short", packet(0, SR, &[0; 20])),
        ("padding of nothing", no_padding),
        ("padding past the start", all_padding),
        ("nack without entries", feedback(1, RTPFB, &[])),
        ("fir with half an entry", feedback(4, PSFB, &[0; 12])),
        ("pli without media", packet(1, PSFB, &[0; 4])),
        ("twcc of nothing", twcc(0, 0, &[0, 0])),
        ("twcc without chunks", twcc(0, 1, &[])),
        ("twcc without its delta", twcc(0, 2, &[0x20, 2, 1])),
        (
            "twcc with the reserved symbol",
            twcc(0, 1, &[0xf0, 0, 0, 0]),
        ),
        ("twcc with an empty run", twcc(0, 1, &[0x20, 0, 0x20, 1, 1])),
        (
            "twcc of 65535 in few bytes",
            twcc(0, 65_535, &[0x1f, 0xff].repeat(9)),
        ),
    ];
    for (name, mut datagram) in cases {
        assert_eq!(told(&datagram).last().unwrap(), "malformed", "{name}");
        datagram.extend(feedback(1, PSFB, &[]));
        assert_ne!(told(&datagram).last().unwrap(), "malformed pli", "{name}");
    }
    let mut after = packet(0, RR, &[]);
    after.extend(feedback(1, PSFB, &[]));
    assert_eq!(told(&after), ["malformed"]);
    assert_eq!(told(&[]), [""; 0]);
}

#[test]
fn what_is_unknown_or_empty_is_ignored() {
    for datagram in [
        receiver_report(0),
        packet(0, 203, &[]),
        packet(0, 207, &[0; 8]),
        feedback(15, PSFB, b"REMB"),
        feedback(31, RTPFB, &[]),
        packet(31, 255, &[]),
    ] {
        assert_eq!(told(&datagram), ["ignored"]);
    }
}

#[test]
fn a_receiver_says_how_much_may_be_sent() {
    // 0x2_0000 times 2 to the 3.
    let body = [b"REMB".as_slice(), &[1, 0x0e, 0, 0, 0, 0, 0, 7]].concat();
    assert_eq!(told(&feedback(15, PSFB, &body)), ["remb 1048576"]);
    let most = [b"REMB".as_slice(), &[0, 0xff, 0xff, 0xff]].concat();
    assert_eq!(told(&feedback(15, PSFB, &most)).len(), 1);
    let other = feedback(15, PSFB, b"NONE\0\0\0\0");
    assert_eq!(told(&other), ["ignored"]);
}

#[test]
fn a_written_report_is_read_back() {
    for cname in ["", "a", "ab", "abc", "abcd", &"x".repeat(300)] {
        let mut out = vec![];
        let report = SenderReport {
            ssrc: 7.into(),
            ntp: Ntp(0x0123_4567_89ab_cdef),
            rtp_timestamp: 42,
            packets: 3,
            octets: 4,
        };
        write_sender_report(&mut out, report, cname);
        let items: Vec<_> = read(&out).collect::<Result<_, _>>().unwrap();
        let [Item::Sender(info), Item::Ignored] = items[..] else {
            panic!("{items:?}");
        };
        assert_eq!(
            (*info.ssrc, info.ntp, info.rtp_timestamp),
            (7, report.ntp, 42)
        );
        let kept = cname.len().min(255);
        assert_eq!(out[28..36], [0x81, 202, 0, out[31], 0, 0, 0, 7]);
        assert_eq!(out[36..38], [1, kept as u8]);
        assert_eq!(&out[38..38 + kept], &cname.as_bytes()[..kept]);
        assert_eq!(out.len(), 28 + 4 + usize::from(out[31]) * 4);
        assert!(out.len() > 38 + kept && out[38 + kept..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn truncation_and_flipped_bits_never_panic() {
    let whole = compound();
    for end in 0..whole.len() {
        told(&whole[..end]);
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        told(&flipped);
        let other = (bit * 7919 + 13) % (whole.len() * 8);
        flipped[other / 8] ^= 1 << (other % 8);
        told(&flipped);
    }
}

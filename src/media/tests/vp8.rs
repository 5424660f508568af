use super::*;

/// X with I (15 bit), L, T, K; then a key frame header of 640x360.
const KEY: [u8; 16] = [
    0x90, 0xf0, 0x92, 0x34, 0x07, 0x65, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x41,
];

fn parse(payload: &[u8]) -> Descriptor {
    Descriptor::parse(payload).expect("readable descriptor")
}

fn written(payload: &[u8], ids: Ids) -> Vec<u8> {
    let mut out = Vec::new();
    parse(payload).write(ids, &mut out);
    out
}

#[test]
fn a_full_descriptor_is_read() {
    let key = parse(&KEY);
    assert!(key.start_of_frame && key.key_frame && key.layer_sync);
    assert_eq!(key.picture_id, Some(PictureId::Long(0x1234)));
    assert_eq!(
        (key.tl0, key.temporal, key.key_index),
        (Some(7), 1, Some(5))
    );
    assert_eq!((key.length, key.dimensions), (6, Some((640, 360))));
}

/// Payload, start, key, picture id, TL0, temporal, key index, length.
type Row<'a> = (
    &'a [u8],
    bool,
    bool,
    Option<u16>,
    Option<u8>,
    u8,
    Option<u8>,
    u8,
);
const FORMS: &[Row<'_>] = &[
    (&[0x10, 0x00], true, true, None, None, 0, None, 1),
    (&[0x10, 0x01], true, false, None, None, 0, None, 1),
    (&[0x00, 0x00], false, false, None, None, 0, None, 1),
    (&[0x11, 0x00], false, false, None, None, 0, None, 1),
    (
        &[0x90, 0x80, 0x7f, 0x01],
        true,
        false,
        Some(127),
        None,
        0,
        None,
        3,
    ),
    (
        &[0x90, 0x80, 0x80, 0x05, 0x00],
        true,
        true,
        Some(5),
        None,
        0,
        None,
        4,
    ),
    (
        &[0x90, 0x60, 0x09, 0x80, 0x01],
        true,
        false,
        None,
        Some(9),
        2,
        None,
        4,
    ),
    (
        &[0x90, 0x10, 0xff, 0x01],
        true,
        false,
        None,
        None,
        0,
        Some(31),
        3,
    ),
    (&[0x90, 0x00, 0x01], true, false, None, None, 0, None, 2),
];

#[test]
fn each_form_is_read() {
    for &(payload, start, key, picture, tl0, temporal, key_index, length) in FORMS {
        let read = parse(payload);
        assert_eq!(
            (read.start_of_frame, read.key_frame),
            (start, key),
            "{payload:x?}"
        );
        assert_eq!(
            read.picture_id.map(PictureId::value),
            picture,
            "{payload:x?}"
        );
        assert_eq!((read.tl0, read.temporal), (tl0, temporal), "{payload:x?}");
        assert_eq!(
            (read.key_index, read.length),
            (key_index, length),
            "{payload:x?}"
        );
    }
}

#[test]
fn what_is_cut_short_is_refused() {
    for cut in 0..=6 {
        assert_eq!(Descriptor::parse(&KEY[..cut]), None, "{cut} bytes");
    }
    assert_eq!(parse(&KEY[..15]).dimensions, None);
}

#[test]
fn writing_changes_numbers_only() {
    let ids = Ids {
        picture: Some(5),
        tl0: Some(200),
        key_index: Some(31),
    };
    assert_eq!(written(&KEY, ids), [0x90, 0xf0, 0x80, 0x05, 200, 0x7f]);
    assert_eq!(written(&KEY, Ids::default()), KEY[..6]);
    assert_eq!(written(&[0x10, 0x00], ids), [0x10]);
    assert_eq!(
        written(&[0x90, 0x80, 0x7f, 0x01], ids),
        [0x90, 0x80, 0x80, 0x05]
    );
    // Reserved bits and N stay as they were.
    assert_eq!(written(&[0xef, 0x2f, 0xdf, 0x01], ids), [0xef, 0x2f, 0xdf]);
}

/// Any bytes: no panic, a length within bounds, and what is written reads back as it was meant.
#[test]
fn any_bytes_are_harmless() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..200_000 {
        let bytes = [random().to_be_bytes(), random().to_be_bytes()].concat();
        let payload = &bytes[..random() as usize % 13];
        let Some(read) = Descriptor::parse(payload) else {
            continue;
        };
        assert!(usize::from(read.length) < payload.len());
        let ids = Ids {
            picture: read.picture_id.map(|_| random() as u16 & PICTURE),
            tl0: read.tl0.map(|_| random() as u8),
            key_index: read.key_index.map(|_| random() as u8 & KEY_INDEX),
        };
        let mut out = Vec::new();
        read.write(ids, &mut out);
        assert!(out.len() <= 6);
        out.extend_from_slice(&payload[read.length.into()..]);
        let again = parse(&out);
        assert_eq!(again.picture_id, ids.picture.map(PictureId::Long));
        assert_eq!((again.tl0, again.key_index), (ids.tl0, ids.key_index));
        assert_eq!(
            (again.temporal, again.layer_sync),
            (read.temporal, read.layer_sync)
        );
        assert_eq!(
            (again.start_of_frame, again.key_frame),
            (read.start_of_frame, read.key_frame)
        );
        assert_eq!(again.dimensions, read.dimensions);
    }
}

fn frame(picture: PictureId, tl0: u8, key: bool) -> Descriptor {
    let mut read = parse(&KEY);
    (read.picture_id, read.tl0, read.key_frame) = (Some(picture), Some(tl0), key);
    read
}

#[test]
fn short_ids_are_lifted_over_their_wrap() {
    let mut numbering = Numbering::default();
    let first = numbering.start(&frame(PictureId::Short(126), 254, true));
    assert_eq!((first.picture, first.tl0), (Some(126), Some(254)));
    let mut last = first;
    for step in 1..=300u16 {
        let short = PictureId::Short(((126 + step) & 0x7f) as u8);
        last = numbering.forward(&frame(short, 254u8.wrapping_add(step as u8), false));
        assert_eq!(last.picture, Some(126 + step));
    }
    // The next source has long ids, near their own wrap; all goes on by one.
    let next = numbering.start(&frame(PictureId::Long(PICTURE), 9, true));
    assert_eq!(next.picture, last.picture.map(|picture| picture + 1));
    assert_eq!(next.tl0, last.tl0.map(|tl0| tl0.wrapping_add(1)));
    assert_eq!(next.key_index, last.key_index.map(|key| key + 1));
    let after = numbering.forward(&frame(PictureId::Long(0), 10, false));
    assert_eq!(after.picture, next.picture.map(|picture| picture + 1));
}

#[test]
fn an_encoder_that_counts_anew_goes_on_at_its_key_frame() {
    let mut numbering = Numbering::default();
    numbering.start(&frame(PictureId::Long(30_000), 100, true));
    let again = numbering.forward(&frame(PictureId::Long(17), 3, true));
    assert_eq!((again.picture, again.tl0), (Some(30_001), Some(101)));
    let next = numbering.forward(&frame(PictureId::Long(18), 4, false));
    assert_eq!((next.picture, next.tl0), (Some(30_002), Some(102)));
}

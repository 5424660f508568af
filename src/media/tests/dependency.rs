use super::*;

/// What a frame of [`STRUCTURE`] is, by its template.
const KEY_BASE: u32 = 60;
const BASE: u32 = 61;
const KEY_UPPER: u32 = 62;
const UPPER: u32 = 63;
const UPPER_FAST: u32 = 0;

/// Two spatial layers, the upper one with two temporal layers: values and their widths. Template
/// ids start at 60, so that they run over.
const STRUCTURE: &[(u32, usize)] = &[
    // First template, three decode targets less one.
    (60, 6),
    (2, 5),
    // Layers: two templates of the base, two above, one of the next temporal layer.
    (0, 2),
    (2, 2),
    (0, 2),
    (1, 2),
    (3, 2),
    // For each template what it is to each target: 0 nothing, 2 switch, 3 required, 1 discardable.
    (0b10_10_10, 6),
    (0b10_11_11, 6),
    (0b00_10_10, 6),
    (0b00_11_11, 6),
    (0b00_00_01, 6),
    // References: none; the base before; the base below; both; the upper one before.
    (0, 1),
    (1, 1),
    (2, 4),
    (0, 1),
    (1, 1),
    (0, 4),
    (0, 1),
    (1, 1),
    (2, 4),
    (1, 1),
    (0, 4),
    (0, 1),
    (1, 1),
    (1, 4),
    (0, 1),
    // One chain, which protects every target (in no bits, as there is no choice), and the distance
    // in it for each template.
    (1, 2),
    (0x03333, 20),
    // Sizes of the two pictures.
    (1, 1),
    (0x013f_00b3, 32),
    (0x027f_0167, 32),
];

fn bits(parts: &[(u32, usize)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut written = Written {
        out: &mut out,
        free: 0,
    };
    for (value, width) in parts {
        written.push(*value, *width);
    }
    out
}

fn head(start: bool, template: u32, number: u16) -> Vec<(u32, usize)> {
    vec![
        (start.into(), 1),
        (1, 1),
        (template, 6),
        (number.into(), 16),
    ]
}

fn key(number: u16) -> Vec<u8> {
    let mut parts = head(true, KEY_BASE, number);
    parts.push((0b10000, 5));
    parts.extend(STRUCTURE);
    bits(&parts)
}

fn read(state: &mut State, bytes: &[u8]) -> Description {
    state.read(bytes).expect("a descriptor")
}

/// Written for a subscriber and read again by it.
fn passed(description: &Description, state: &mut State, number: u16, cut: Cut) -> Description {
    let mut out = vec![0xaa];
    description.write(number, cut, &mut out);
    read(state, &out[1..])
}

#[test]
fn frames_are_read_by_their_templates() {
    let mut state = State::default();
    assert!(
        state.read(&bits(&head(true, BASE, 1))).is_none(),
        "no structure yet"
    );
    let first = read(&mut state, &key(65_535));
    assert!(first.frame().key && first.frame().start && first.frame().end);
    assert_eq!(first.references().count(), 0);
    assert_eq!(first.active, 0b111);
    let table: &[(u32, u8, u8, &[u16])] = &[
        (KEY_UPPER, 1, 0, &[65_535]),
        (BASE, 0, 0, &[65_533]),
        (UPPER, 1, 0, &[65_533, 65_535]),
        (UPPER_FAST, 1, 1, &[65_534]),
    ];
    for (template, spatial, temporal, references) in table {
        let frame = read(&mut state, &bits(&head(true, *template, 0)));
        assert_eq!(
            (frame.frame().spatial, frame.frame().temporal),
            (*spatial, *temporal)
        );
        assert_eq!(
            frame.references().collect::<Vec<_>>(),
            *references,
            "{template}"
        );
        assert!(!frame.frame().key);
    }
    assert!(
        state.read(&bits(&head(true, 5, 0))).is_none(),
        "no such template"
    );
}

#[test]
fn a_frame_may_differ_from_its_template() {
    let mut state = State::default();
    read(&mut state, &key(1));
    let mut parts = head(true, BASE, 9);
    // Its own targets, references (3 and 300) and distances, and a mask of two targets.
    parts.extend([(0b01111, 5), (0b110, 3), (0b10_10_10, 6)]);
    parts.extend([(1, 2), (2, 4), (3, 2), (299, 12), (0, 2), (7, 8)]);
    let frame = read(&mut state, &bits(&parts));
    let own = [6, 9u16.wrapping_sub(300)];
    assert_eq!(frame.references().collect::<Vec<_>>(), own);
    assert_eq!(frame.active, 0b110);
    // Whoever gets all of it is told the same mask; the rest stays as it was.
    let mut other = State::default();
    read(&mut other, &key(1));
    let again = passed(&frame, &mut other, 10, Cut::NONE);
    assert_eq!(again.references().collect::<Vec<_>>(), own.map(|it| it + 1));
    assert_eq!((again.active, again.number()), (0b110, 10));
}

#[test]
fn a_subscriber_is_told_its_layers_and_its_own_numbers() {
    let mut source = State::default();
    let first = read(&mut source, &key(500));
    let next = read(&mut source, &bits(&head(true, BASE, 502)));
    let later = read(&mut source, &bits(&head(false, BASE, 502)));
    for (cut, mask) in [
        (Cut::NONE, 0b111),
        (
            Cut {
                spatial: 1,
                temporal: 0,
            },
            0b011,
        ),
        (
            Cut {
                spatial: 0,
                temporal: 9,
            },
            0b001,
        ),
    ] {
        let mut subscriber = State::default();
        let key = passed(&first, &mut subscriber, 7, cut);
        assert_eq!((key.active, key.number()), (mask, 7), "{cut:?}");
        assert!(key.frame().key);
        assert_eq!(key.structure.targets, [(0, 0), (1, 0), (1, 1)]);
        let delta = passed(&next, &mut subscriber, 9, cut);
        assert_eq!((delta.active, delta.number()), (mask, 9), "{cut:?}");
        assert_eq!(delta.references().collect::<Vec<_>>(), [6]);
        // Later packets of a frame stay as short as they were.
        let mut out = Vec::new();
        later.write(9, cut, &mut out);
        assert_eq!(out.len(), 3);
        assert!(
            first.bytes.len() + BYTES_ADDED >= {
                out.clear();
                first.write(7, cut, &mut out);
                out.len()
            }
        );
    }
}

#[test]
fn what_is_cut_short_or_too_long_is_none() {
    let whole = key(3);
    for length in 0..whole.len() {
        assert!(
            State::default().read(&whole[..length]).is_none(),
            "{length}"
        );
    }
    let mut long = whole;
    long.resize(BYTES_MAX + 1, 0);
    assert!(State::default().read(&long).is_none());
    long.pop();
    assert!(State::default().read(&long).is_some(), "padding is allowed");
    // Layers that never end.
    assert!(
        State::default()
            .read(&[0x80, 0, 1, 0x80, 0, 0, 0, 0])
            .is_none()
    );
}

#[test]
fn numbers_go_on_from_source_to_source() {
    let mut numbering = Numbering::default();
    assert_eq!(numbering.start(65_535), 65_535);
    assert_eq!(numbering.forward(1), 1);
    assert_eq!(numbering.start(300), 2);
    assert_eq!((numbering.forward(304), numbering.forward(302)), (6, 4));
    assert_eq!(numbering.start(0), 7);
    assert_eq!(10u16.wrapping_sub(numbering.offset()), 17);
}

#[test]
fn frames_left_out_are_known_for_a_while() {
    let mut left_out = LeftOut::default();
    assert!(!left_out.contains(0));
    for number in [40_000, 40_003, 40_002] {
        left_out.note(number);
    }
    let known: Vec<_> = (39_990..40_010)
        .filter(|it| left_out.contains(*it))
        .collect();
    assert_eq!(known, [40_000, 40_002, 40_003]);
    left_out.note(40_063);
    assert!(left_out.contains(40_000));
    left_out.note(40_064);
    assert!(!left_out.contains(40_000), "long ago");
    left_out.clear();
    assert!(!left_out.contains(40_064));
}

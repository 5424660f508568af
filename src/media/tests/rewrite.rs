use super::*;
use crate::media::codec::{Codec, Format, Frame};
use crate::media::tests::source::{Kind, Source, Ticks};

const BASE: Kind = Kind::Temporal {
    layer: 0,
    sync: false,
};
const UPPER: Kind = Kind::Temporal {
    layer: 1,
    sync: false,
};

/// A source whose next packet has number 101, and frames at 30 per second.
struct Story {
    start: Instant,
    frames: u64,
    source: Source,
}

impl Story {
    fn new() -> Self {
        let source = Source {
            layer: Layer(0),
            seq: 100,
            timestamp_base: 5_000,
            picture: 40,
            tl0: 8,
            long: true,
        };
        Self {
            start: Instant::now(),
            frames: 0,
            source,
        }
    }

    fn frame<const N: usize>(&mut self, kind: Kind) -> [Packet; N] {
        self.frames += 1;
        let at = Ticks::of(self.start, self.frames);
        self.source
            .frame(at, kind, N as u64)
            .try_into()
            .expect("as many packets as asked for")
    }

    fn padding(&mut self) -> Packet {
        self.source.padding(Ticks::of(self.start, self.frames))
    }
}

fn picture(stamp: Option<Stamp>) -> Option<u16> {
    stamp.and_then(|stamp| stamp.face.ids.picture)
}

fn seq(stamp: Option<Stamp>) -> Option<u64> {
    stamp.map(|stamp| stamp.seq)
}

#[test]
fn a_stream_starts_where_it_is_told() {
    let mut story = Story::new();
    let [key] = story.frame(Kind::Key);
    let mut rewrite = Rewrite::video(0xffff, 77);
    assert_eq!(rewrite.outgoing_timestamp(0), None);
    let stamp = rewrite.switch(&key, Alignment::Known(123_456));
    assert_eq!((stamp.seq, stamp.timestamp), (0x7fff, 77));
    assert_eq!(rewrite.outgoing_timestamp(key.timestamp + 9), Some(86));
    // The next number is over the edge of what a 15-bit start allows, and just goes on.
    let [next] = story.frame(BASE);
    assert_eq!(seq(rewrite.forward(&next)), Some(0x8000));
}

/// The picture at the head of the module.
#[test]
fn what_is_left_out_leaves_no_gap_and_what_is_lost_does() {
    let mut story = Story::new();
    let mut rewrite = Rewrite::video(70, 0);
    let [key] = story.frame(Kind::Key);
    let [left, out] = story.frame(UPPER);
    let [a, lost, b] = story.frame(BASE);
    let padding = story.padding();
    let [last] = story.frame(BASE);
    let first = rewrite.switch(&key, Alignment::Elapsed);
    rewrite.skip(&left);
    rewrite.skip(&out);
    assert_eq!(rewrite.forward(&a).map(|it| it.seq), Some(71));
    let b = rewrite.forward(&b);
    rewrite.skip(&padding);
    let last = rewrite.forward(&last);
    assert_eq!((seq(b), seq(last)), (Some(73), Some(74)));
    assert_eq!(rewrite.sent(72), None);
    // The picture ids close over the frame that was left out.
    assert_eq!(
        (first.face.ids.picture, picture(b), picture(last)),
        (Some(41), Some(42), Some(43))
    );
    // Late, it gets its own number, once.
    let late = rewrite.forward(&lost);
    assert_eq!((seq(late), picture(late)), (Some(72), Some(42)));
    assert_eq!(late.map(|it| it.timestamp), b.map(|it| it.timestamp));
    for again in [&lost, &left, &out, &padding, &key] {
        assert_eq!(rewrite.forward(again), None);
    }
    let sent = rewrite.sent(72).expect("72 was sent");
    assert_eq!((sent.source_seq, Some(sent.stamp)), (lost.seq, late));
    assert_eq!(rewrite.sent(75), None);
    assert_eq!(rewrite.sent(69), None);
}

#[test]
fn a_hole_inside_a_frame_that_is_left_out_is_left_out_too() {
    let mut story = Story::new();
    let mut rewrite = Rewrite::video(0, 0);
    let [key] = story.frame(Kind::Key);
    let [start, lost, end] = story.frame(UPPER);
    let [next] = story.frame(BASE);
    rewrite.switch(&key, Alignment::Elapsed);
    rewrite.skip(&start);
    rewrite.skip(&end);
    assert_eq!(rewrite.forward(&lost), None);
    let next = rewrite.forward(&next);
    assert_eq!((seq(next), picture(next)), (Some(1), Some(42)));
}

/// The lost packet may be the rest of the frame that was left out or a frame of its own; whatever
/// it turns out to be, it must not share a picture id with another frame.
#[test]
fn the_number_of_a_frame_left_out_stays_free_if_its_end_is_missing() {
    let mut story = Story::new();
    let mut rewrite = Rewrite::video(0, 0);
    let [key] = story.frame(Kind::Key);
    let [start, lost] = story.frame(UPPER);
    let [next] = story.frame(BASE);
    rewrite.switch(&key, Alignment::Elapsed);
    rewrite.skip(&start);
    let next = rewrite.forward(&next);
    assert_eq!((seq(next), picture(next)), (Some(2), Some(43)));
    let late = rewrite.forward(&lost);
    assert_eq!((seq(late), picture(late)), (Some(1), Some(42)));
}

/// Layers never leave such a frame out, but the numbers must not depend on it.
#[test]
fn the_number_of_a_frame_left_out_stays_free_if_its_start_is_missing() {
    let mut story = Story::new();
    let mut rewrite = Rewrite::video(0, 0);
    let [key] = story.frame(Kind::Key);
    let [lost, end] = story.frame(UPPER);
    let [next] = story.frame(BASE);
    rewrite.switch(&key, Alignment::Elapsed);
    rewrite.skip(&end);
    let next = rewrite.forward(&next);
    assert_eq!((seq(next), picture(next)), (Some(2), Some(43)));
    let late = rewrite.forward(&lost);
    assert_eq!((seq(late), picture(late)), (Some(1), Some(42)));
}

#[test]
fn a_new_layer_follows_directly() {
    let mut story = Story::new();
    let mut rewrite = Rewrite::video(0, 0);
    let [key] = story.frame(Kind::Key);
    let [_, lost] = story.frame(BASE);
    let [old] = story.frame(BASE);
    let mut upper = Source {
        layer: Layer(2),
        seq: 60_000,
        timestamp_base: 9,
        ..story.source
    };
    (upper.picture, upper.tl0, upper.long) = (100, 255, false);
    let at = Ticks::of(story.start, 9);
    let packets = upper.frame(at, Kind::Key, 2);
    rewrite.switch(&key, Alignment::Elapsed);
    let last = rewrite.forward(&old).expect("in order");
    let first = rewrite.switch(&packets[0], Alignment::Elapsed);
    assert_eq!(first.seq, last.seq + 1);
    // Frame 3 to frame 9.
    assert_eq!(first.timestamp - last.timestamp, 6 * 3000);
    assert_eq!(
        first.face.ids.picture,
        last.face.ids.picture.map(|id| id + 1)
    );
    assert_eq!(first.face.ids.tl0, last.face.ids.tl0.map(|id| id + 1));
    // The old layer is over, and so is what was before the switch on the new one.
    assert_eq!(rewrite.forward(&lost), None);
    assert_eq!(
        rewrite.forward(&Packet {
            seq: 59_999,
            ..packets[0].clone()
        }),
        None
    );
    let second = rewrite.forward(&packets[1]);
    assert_eq!(seq(second), Some(first.seq + 1));
    assert_eq!(picture(second), first.face.ids.picture);
    // What was sent before can still be asked for.
    let sent = rewrite.sent(last.seq as u16).expect("kept");
    assert_eq!(
        (sent.layer, sent.source_seq, sent.stamp),
        (Layer(0), old.seq, last)
    );
}

#[test]
fn a_new_layer_never_goes_back_in_time() {
    // Reported timestamp relative to the last one sent, by the reports; expected; 100 ms passed.
    let passed = 9_000i32;
    for (known, expected) in [
        (9_000, 9_000),
        (3_000, 3_000),
        (0, 90),
        (-9_000, 90),
        (150_000, 150_000),
        (190_000, passed),
        (-190_000, passed),
        (i32::MIN, passed),
    ] {
        let mut story = Story::new();
        let mut rewrite = Rewrite::video(0, u32::MAX - 50);
        let [key] = story.frame(Kind::Key);
        let last = rewrite.switch(&key, Alignment::Elapsed).timestamp;
        let arrival = key.arrival + Duration::from_millis(100);
        let next = Packet {
            layer: Layer(1),
            arrival,
            timestamp: 1,
            ..key
        };
        let known = Alignment::Known(last.wrapping_add_signed(known));
        let stamp = rewrite.switch(&next, known);
        assert_eq!(
            stamp.timestamp.wrapping_sub(last) as i32,
            expected,
            "{known:?}"
        );
    }
}

#[test]
fn a_pause_is_no_loss() {
    let start = Instant::now();
    let mut rewrite = Rewrite::audio(5, 1000);
    let mut packet = Packet {
        audio_level: None,
        layer: Layer(0),
        seq: 500,
        timestamp: 48_000,
        marker: false,
        arrival: start,
        payload: [1].into(),
        format: Format::Plain(Codec::Opus),
        frame: Frame::default(),
        vp8: None,
        dependency: None,
    };
    let first = rewrite.forward(&packet).expect("starts");
    assert_eq!((first.seq, first.timestamp), (5, 1000));
    rewrite.pause();
    assert_eq!(rewrite.outgoing_timestamp(48_000 + 960), Some(1960));
    packet.seq += 1000;
    packet.timestamp += 960_000;
    packet.arrival += Duration::from_secs(20);
    let next = rewrite.forward(&packet).expect("starts again");
    assert_eq!((next.seq, next.timestamp), (6, 961_000));
    // A day later still after, not before.
    rewrite.pause();
    packet.arrival += Duration::from_secs(86_400);
    let next = rewrite.forward(&packet).expect("starts again");
    assert_eq!(next.timestamp, 961_000 + 3600 * 48_000);
}

#[test]
fn a_source_that_starts_anew_goes_on() {
    for (jump, stray) in [(30_000i64, false), (-30_000, true)] {
        let mut story = Story::new();
        story.source.seq = 40_000;
        let mut rewrite = Rewrite::video(0, 0);
        let [key] = story.frame(Kind::Key);
        let first = rewrite.switch(&key, Alignment::Elapsed);
        story.source.seq = story.source.seq.saturating_add_signed(jump);
        story.source.timestamp_base = story.source.timestamp_base.wrapping_sub(1 << 30);
        (story.source.picture, story.source.tl0) = (9, 3);
        if stray {
            // The first packet alone proves nothing.
            let [probe] = story.frame(BASE);
            assert_eq!(rewrite.forward(&probe), None);
        }
        let [again] = story.frame(Kind::Key);
        let next = rewrite.forward(&again).expect("goes on");
        assert_eq!(next.seq, first.seq + 1);
        // Frame times are rounded to microseconds.
        assert!(next.timestamp.abs_diff((story.frames as u32 - 1) * 3000) <= 1);
        assert_eq!(
            next.face.ids.picture,
            first.face.ids.picture.map(|id| id + 1)
        );
        assert_eq!(next.face.ids.tl0, first.face.ids.tl0.map(|id| id + 1));
        // Without a key frame, the receiver must see that something is missing.
        story.source.seq += 30_000;
        let [delta] = story.frame(BASE);
        assert_eq!(seq(rewrite.forward(&delta)), Some(next.seq + 2));
        assert_eq!(rewrite.sent(next.seq as u16 + 1), None);
    }
}

#[test]
fn a_long_loss_costs_no_more_than_the_ring() {
    let mut story = Story::new();
    let mut rewrite = Rewrite::video(0, 0);
    let [key] = story.frame(Kind::Key);
    rewrite.switch(&key, Alignment::Elapsed);
    let [early] = story.frame(BASE);
    story.source.seq += 2_000;
    let [late] = story.frame(BASE);
    story.source.seq += 100;
    let [next] = story.frame(BASE);
    assert_eq!(seq(rewrite.forward(&next)), Some(2_103));
    assert_eq!(seq(rewrite.forward(&late)), Some(2_002));
    assert_eq!(rewrite.forward(&early), None);
    assert_eq!(rewrite.sent(0), None);
    assert_eq!(rewrite.sent(65_000), None);
}

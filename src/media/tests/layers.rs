use super::*;
use crate::media::codec::Frame;
use crate::media::tests::source::{Kind, Random, Source, Ticks};

/// A publisher of three layers and one subscription to it.
struct Story {
    layers: Layers,
    sources: [Source; 3],
    start: Instant,
    frame: u64,
}

impl Story {
    fn new() -> Self {
        let mut random = Random::seeded(1);
        Self {
            layers: Layers::new(),
            sources: [0, 1, 2].map(|layer| Source::random(layer, &mut random)),
            start: Instant::now(),
            frame: 0,
        }
    }

    fn wants(spatial: u8, temporal: u8) -> Self {
        let mut story = Self::new();
        story.set(spatial, temporal);
        story
    }

    fn set(&mut self, spatial: u8, temporal: u8) {
        self.layers.set_target(Some(Target {
            stream: Layer(spatial),
            cut: Cut {
                spatial: u8::MAX,
                temporal,
            },
        }));
    }

    /// The next frame of a layer, in one packet.
    fn next(&mut self, layer: usize, kind: Kind) -> Packet {
        self.frame += 1;
        let at = Ticks::of(self.start, self.frame);
        self.sources[layer].frame(at, kind, 1).remove(0)
    }

    fn sees(&mut self, layer: usize, kind: Kind) -> Decision {
        let packet = self.next(layer, kind);
        self.layers.decide(&packet)
    }

    fn wait(&mut self, span: Duration) {
        self.frame += (span.as_millis() as u64 * 30).div_ceil(1000);
    }

    fn wanted(&self) -> Option<u8> {
        let now = Ticks::of(self.start, self.frame).instant;
        self.layers.wanted_key_frame(now).map(|layer| layer.0)
    }
}

const BASE: Kind = temporal(0);

const fn temporal(layer: u8) -> Kind {
    Kind::Temporal { layer, sync: false }
}

const fn sync(layer: u8) -> Kind {
    Kind::Temporal { layer, sync: true }
}

#[test]
fn nothing_is_seen_without_a_target() {
    let mut story = Story::new();
    assert_eq!(story.sees(0, Kind::Key), Decision::Ignore);
    assert_eq!(story.wanted(), None);
    story.set(0, 2);
    assert_eq!(story.wanted(), Some(0));
    assert_eq!(story.sees(0, BASE), Decision::Ignore);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    assert_eq!(
        (story.wanted(), story.layers.current()),
        (None, Some(Layer(0)))
    );
    story.layers.set_target(None);
    assert_eq!(story.sees(0, Kind::Key), Decision::Ignore);
}

/// A picture soon is better than the right one late.
#[test]
fn a_lower_layer_is_taken_first_and_then_left() {
    let mut story = Story::wants(2, 2);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    assert_eq!(story.sees(2, BASE), Decision::Ignore);
    assert_eq!(story.wanted(), Some(2));
    assert_eq!(story.sees(1, Kind::Key), Decision::Switch);
    assert_eq!(story.sees(0, BASE), Decision::Ignore);
    assert_eq!(story.sees(1, BASE), Decision::Forward);
    assert_eq!(story.sees(2, Kind::Key), Decision::Switch);
    assert_eq!(story.wanted(), None);
    for layer in [0, 1] {
        assert_eq!(story.sees(layer, Kind::Key), Decision::Ignore);
    }
    assert_eq!(story.sees(2, Kind::Key), Decision::Forward);
}

#[test]
fn the_old_layer_goes_on_until_the_lower_one_has_a_key_frame() {
    let mut story = Story::wants(2, 2);
    assert_eq!(story.sees(2, Kind::Key), Decision::Switch);
    story.set(0, 2);
    assert_eq!(story.sees(0, BASE), Decision::Ignore);
    assert_eq!(story.sees(2, BASE), Decision::Forward);
    assert_eq!(story.wanted(), Some(0));
    assert_eq!(story.sees(1, Kind::Key), Decision::Switch);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    assert_eq!(story.sees(2, Kind::Key), Decision::Ignore);
}

#[test]
fn a_key_frame_that_comes_out_of_order_is_not_taken() {
    let mut story = Story::wants(0, 2);
    let key = story.next(0, Kind::Key);
    assert_eq!(story.sees(0, BASE), Decision::Ignore);
    assert_eq!(story.layers.decide(&key), Decision::Ignore);
    assert_eq!(story.wanted(), Some(0));
}

#[test]
fn a_higher_layer_is_taken_only_if_no_other_lives() {
    let mut story = Story::wants(0, 2);
    assert_eq!(story.sees(1, Kind::Key), Decision::Ignore);
    story.wait(SILENCE);
    assert_eq!(story.sees(0, BASE), Decision::Ignore);
    assert_eq!(story.sees(1, Kind::Key), Decision::Ignore);
    story.wait(SILENCE);
    assert_eq!(story.sees(1, BASE), Decision::Ignore);
    // Layer 0 is silent now: the picture is asked of layer 1.
    assert_eq!(story.wanted(), Some(1));
    assert_eq!(story.sees(1, Kind::Key), Decision::Switch);
    assert_eq!(story.sees(0, BASE), Decision::Ignore);
    assert_eq!(story.wanted(), Some(0));
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
}

/// The publisher's machine is too slow and it stops its large picture.
#[test]
fn a_layer_that_stops_is_replaced_by_what_is_there() {
    let mut story = Story::wants(2, 2);
    assert_eq!(story.sees(2, Kind::Key), Decision::Switch);
    assert_eq!(story.sees(1, BASE), Decision::Ignore);
    assert_eq!(story.sees(1, Kind::Key), Decision::Ignore);
    story.wait(SILENCE);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    assert_eq!(story.sees(1, BASE), Decision::Ignore);
    assert_eq!(story.wanted(), Some(1));
    assert_eq!(story.sees(1, Kind::Key), Decision::Switch);
    assert_eq!(story.wanted(), None);
    assert_eq!(story.sees(2, BASE), Decision::Ignore);
    assert_eq!(story.wanted(), Some(2));
}

#[test]
fn temporal_layers_are_left_out_by_frames() {
    let mut story = Story::wants(0, 2);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    assert_eq!(story.sees(0, temporal(2)), Decision::Forward);
    let at = Ticks::of(story.start, 1000);
    let upper = story.sources[0].frame(at, temporal(2), 3);
    assert_eq!(story.layers.decide(&upper[0]), Decision::Forward);
    story.set(0, 0);
    // A frame that has begun goes on to its end.
    assert_eq!(story.layers.decide(&upper[1]), Decision::Forward);
    assert_eq!(story.layers.decide(&upper[2]), Decision::Forward);
    for (kind, decision) in [
        (temporal(1), Decision::Skip),
        (temporal(2), Decision::Skip),
        (BASE, Decision::Forward),
        (sync(1), Decision::Skip),
    ] {
        assert_eq!(story.sees(0, kind), decision);
    }
}

#[test]
fn temporal_layers_come_back_one_by_one_where_they_are_synchronous() {
    let mut story = Story::wants(0, 0);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    story.set(0, 2);
    for (kind, decision) in [
        (temporal(1), Decision::Skip),
        (sync(2), Decision::Skip),
        (BASE, Decision::Forward),
        (sync(1), Decision::Forward),
        (temporal(2), Decision::Skip),
        (temporal(1), Decision::Forward),
        (sync(2), Decision::Forward),
        (temporal(2), Decision::Forward),
    ] {
        assert_eq!(story.sees(0, kind), decision);
    }
    story.set(0, 0);
    assert_eq!(story.sees(0, temporal(1)), Decision::Skip);
    story.set(0, 2);
    assert_eq!(story.sees(0, Kind::Key), Decision::Forward);
    assert_eq!(story.sees(0, temporal(2)), Decision::Forward);
}

#[test]
fn a_frame_whose_start_is_missing_goes_whole() {
    let mut story = Story::wants(0, 0);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    let at = Ticks::of(story.start, 1000);
    let upper = story.sources[0].frame(at, temporal(1), 3);
    assert_eq!(story.layers.decide(&upper[1]), Decision::Forward);
    assert_eq!(story.layers.decide(&upper[2]), Decision::Forward);
    assert_eq!(story.layers.decide(&upper[0]), Decision::Forward);
    assert_eq!(story.sees(0, temporal(1)), Decision::Skip);
}

#[test]
fn padding_is_left_out_unless_its_number_was_promised() {
    let mut story = Story::wants(0, 2);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    let at = Ticks::of(story.start, story.frame);
    let padding = [0; 2].map(|_| story.sources[0].padding(at));
    assert_eq!(story.layers.decide(&padding[1]), Decision::Skip);
    assert_eq!(story.layers.decide(&padding[0]), Decision::Forward);
}

#[test]
fn layers_that_cannot_be_are_ignored() {
    let mut story = Story::wants(200, 2);
    let packet = Packet {
        layer: Layer(255),
        ..story.next(0, Kind::Key)
    };
    assert_eq!(story.layers.decide(&packet), Decision::Ignore);
    assert_eq!(story.sees(0, Kind::Key), Decision::Switch);
    assert_eq!(story.wanted(), None);
}

/// A picture of three spatial layers in one stream, as VP9 shows them.
fn picture(story: &mut Story, key: bool, temporal: u8, climbs: bool) -> [Packet; 3] {
    story.frame += 1;
    let at = Ticks::of(story.start, story.frame);
    [0, 1, 2].map(|spatial| Packet {
        marker: spatial == 2,
        vp8: None,
        frame: Frame {
            start: true,
            end: true,
            key: key && spatial == 0,
            climbs,
            independent: key,
            spatial,
            temporal,
        },
        ..story.sources[0].frame(at, BASE, 1).remove(0)
    })
}

fn inner(story: &mut Story, spatial: u8, temporal: u8) {
    story.layers.set_target(Some(Target {
        stream: Layer(0),
        cut: Cut { spatial, temporal },
    }));
}

#[test]
fn layers_inside_a_stream_go_down_at_once_and_up_where_it_allows() {
    use Decision::{Forward, Skip, Switch};
    let mut story = Story::new();
    let sees = |story: &mut Story, key, temporal, climbs| {
        picture(story, key, temporal, climbs).map(|packet| story.layers.decide(&packet))
    };
    inner(&mut story, 1, 2);
    assert_eq!(sees(&mut story, true, 0, false), [Switch, Forward, Skip]);
    assert_eq!(sees(&mut story, false, 2, false), [Forward, Forward, Skip]);
    assert_eq!(story.wanted(), None);
    inner(&mut story, 0, 1);
    assert_eq!(sees(&mut story, false, 2, true), [Skip; 3]);
    assert_eq!(sees(&mut story, false, 0, false), [Forward, Skip, Skip]);
    assert_eq!(story.wanted(), None);
    inner(&mut story, 2, 2);
    assert_eq!(sees(&mut story, false, 2, false), [Skip; 3]);
    assert_eq!(
        sees(&mut story, false, 2, true),
        [Forward, Skip, Skip],
        "it may climb"
    );
    assert_eq!(
        story.wanted(),
        Some(0),
        "more of the picture needs a key frame"
    );
    assert_eq!(
        sees(&mut story, true, 0, false),
        [Forward; 3],
        "the stream goes on"
    );
    assert_eq!(story.wanted(), None);
    assert_eq!(
        story.layers.cut(),
        Cut {
            spatial: 2,
            temporal: 2
        }
    );
}

#[test]
fn a_layer_that_is_not_sent_is_not_asked_for() {
    let mut story = Story::new();
    inner(&mut story, 0, 2);
    let [base, middle, _] = picture(&mut story, true, 0, false);
    assert_eq!(story.layers.decide(&base), Decision::Switch);
    inner(&mut story, 2, 2);
    assert_eq!(story.wanted(), None, "there is no more than that");
    assert_eq!(
        story.layers.decide(&middle),
        Decision::Skip,
        "not in the midst of a picture"
    );
    assert_eq!(story.wanted(), Some(0));
}

#[test]
fn a_layer_inside_a_stream_that_went_silent_is_given_up() {
    let mut story = Story::new();
    inner(&mut story, 0, 2);
    for packet in picture(&mut story, true, 0, false) {
        story.layers.decide(&packet);
    }
    inner(&mut story, 2, 2);
    assert_eq!(story.wanted(), Some(0));
    story.wait(SILENCE);
    let [base, ..] = picture(&mut story, false, 0, false);
    assert_eq!(story.layers.decide(&base), Decision::Forward);
    assert_eq!(story.wanted(), None);
}

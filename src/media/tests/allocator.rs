//! Who gets how much, in sentences.

use super::*;

/// Without temporal layers, kbit/s.
fn camera(rates: [u64; 3]) -> Wish {
    Wish {
        rank: Rank::plain(Priority::CAMERA),
        is_screen: false,
        layer_max: Layer(2),
        temporal_max: 3,
        rates: rates.map(|rate| {
            [
                Bitrate::kbps(rate),
                Bitrate::ZERO,
                Bitrate::ZERO,
                Bitrate::ZERO,
            ]
        }),
        current: None,
        pausing: Pausing::Never,
    }
}

fn flowing(wish: Wish) -> Wish {
    Wish {
        pausing: Pausing::Flowing,
        ..wish
    }
}

fn paused(wish: Wish) -> Wish {
    Wish {
        pausing: Pausing::Paused,
        ..wish
    }
}

fn screen(rates: [u64; 3]) -> Wish {
    Wish {
        rank: Rank::plain(Priority::SCREEN_SHARE),
        is_screen: true,
        ..camera(rates)
    }
}

fn shown(pixels: (u32, u32), wish: Wish) -> Wish {
    Wish {
        rank: wish.rank.sized(pixels),
        ..wish
    }
}

fn speaking(mut wish: Wish) -> Wish {
    wish.rank.has_floor = true;
    wish
}

fn rated(priority: u32, wish: Wish) -> Wish {
    Wish {
        rank: Rank::plain(Priority::asked(priority).expect("not 0")),
        ..wish
    }
}

/// Three temporal layers at half, three quarters and all of each rate.
fn temporal(rates: [u64; 3]) -> Wish {
    Wish {
        rates: rates.map(|rate| {
            let steps = [rate / 2, rate * 3 / 4, rate].map(Bitrate::kbps);
            [steps[0], steps[1], steps[2], Bitrate::ZERO]
        }),
        ..camera(rates)
    }
}

fn wanting(layer: u8, wish: Wish) -> Wish {
    Wish {
        layer_max: Layer(layer),
        ..wish
    }
}

fn having(layer: u8, wish: Wish) -> Wish {
    let grant = Grant {
        layer: Layer(layer),
        temporal: 3,
    };
    Wish {
        current: Some(grant),
        ..wish
    }
}

fn layers(budget: u64, wishes: &[Wish]) -> Vec<Option<u8>> {
    let mut out = vec![];
    allocate(Bitrate::kbps(budget), wishes, &mut out);
    let layers = out.iter().map(|grant| grant.map(|grant| grant.layer.0));
    layers.collect()
}

const FULL: [u64; 3] = [150, 500, 1700];

#[test]
fn sentences() {
    let cam = || camera(FULL);
    let cases: [(&str, u64, Vec<Wish>, &[u8]); 24] = [
        (
            "plenty is for all",
            9000,
            vec![cam(), cam(), screen(FULL)],
            &[2, 2, 2],
        ),
        (
            "nothing still gives everyone the smallest",
            0,
            vec![cam(), screen(FULL)],
            &[0, 0],
        ),
        (
            "nobody is raised before everybody has the smallest",
            640,
            vec![cam(), cam()],
            &[0, 0],
        ),
        (
            "cameras rise in turn, not one to the top",
            1200,
            vec![cam(), cam()],
            &[1, 1],
        ),
        (
            "what is left over goes to the first",
            2500,
            vec![cam(), cam()],
            &[2, 1],
        ),
        (
            "a screen share rises first",
            2100,
            vec![cam(), screen(FULL)],
            &[0, 2],
        ),
        (
            "a camera gets what the screen share leaves",
            2500,
            vec![cam(), screen(FULL)],
            &[1, 2],
        ),
        (
            "a higher priority rises first",
            2100,
            vec![cam(), rated(2, cam())],
            &[0, 2],
        ),
        (
            "what is shown large rises before what is shown small",
            2100,
            vec![shown((640, 360), cam()), shown((1280, 720), cam())],
            &[0, 2],
        ),
        (
            "a border more is no larger",
            1200,
            vec![shown((640, 360), cam()), shown((660, 370), cam())],
            &[1, 1],
        ),
        (
            "who has the floor rises before others of that size, and after a larger one",
            2700,
            vec![cam(), speaking(cam()), shown((1280, 720), cam())],
            &[0, 1, 2],
        ),
        (
            "one priority after another",
            2700,
            vec![rated(2, cam()), cam(), rated(3, cam())],
            &[1, 0, 2],
        ),
        (
            "a camera can be as important as a screen share, and no more",
            1200,
            vec![screen(FULL), rated(1000, cam())],
            &[1, 1],
        ),
        (
            "a screen share can be less important than cameras",
            2100,
            vec![rated(1, screen(FULL)), rated(2, cam())],
            &[0, 2],
        ),
        (
            "no more than wanted",
            9000,
            vec![wanting(1, cam()), wanting(0, cam())],
            &[1, 0],
        ),
        ("a raise needs headroom", 524, vec![cam()], &[0]),
        ("with headroom it is raised", 526, vec![cam()], &[1]),
        (
            "keeping needs no headroom",
            501,
            vec![having(1, cam())],
            &[1],
        ),
        (
            "below its rate it is not kept",
            499,
            vec![having(1, cam())],
            &[0],
        ),
        (
            "a kept step doesn't carry the next",
            1750,
            vec![having(1, cam())],
            &[1],
        ),
        (
            "a dead layer is stepped over",
            2000,
            vec![camera([150, 0, 1700])],
            &[2],
        ),
        (
            "a single high layer is granted though only low is wanted",
            100,
            vec![wanting(0, camera([0, 0, 1700]))],
            &[2],
        ),
        (
            "with no rate known layer 0 is granted",
            100,
            vec![camera([0, 0, 0])],
            &[0],
        ),
        (
            "one stream without layers",
            9000,
            vec![camera([800, 0, 0])],
            &[0],
        ),
    ];
    for (sentence, budget, wishes, expected) in cases {
        let expected: Vec<_> = expected.iter().copied().map(Some).collect();
        assert_eq!(layers(budget, &wishes), expected, "{sentence}");
    }
}

#[test]
fn pausing_sentences() {
    let cam = || camera(FULL);
    let silent = || camera([0, 0, 0]);
    let large = || camera([300, 0, 0]);
    let cases = [
        (
            "what fits flows",
            300,
            vec![flowing(cam()), flowing(cam())],
            vec![Some(0), Some(0)],
        ),
        (
            "of equals the last pauses",
            299,
            vec![flowing(cam()), flowing(cam())],
            vec![Some(0), None],
        ),
        (
            "a screen share pauses last",
            200,
            vec![flowing(cam()), flowing(screen(FULL))],
            vec![None, Some(0)],
        ),
        (
            "a higher priority pauses last",
            200,
            vec![flowing(cam()), flowing(rated(2, cam()))],
            vec![None, Some(0)],
        ),
        (
            "a small one flows where a large one doesn't fit",
            200,
            vec![flowing(large()), flowing(cam())],
            vec![None, Some(0)],
        ),
        (
            "nothing flows where nothing fits",
            149,
            vec![flowing(cam()), flowing(screen(FULL))],
            vec![None, None],
        ),
        (
            "what never pauses is served before all",
            200,
            vec![flowing(screen(FULL)), cam()],
            vec![None, Some(0)],
        ),
        (
            "a second small one comes before the first is larger",
            600,
            vec![flowing(cam()), flowing(cam())],
            vec![Some(0), Some(0)],
        ),
        (
            "a return needs headroom",
            157,
            vec![paused(cam())],
            vec![None],
        ),
        (
            "with headroom it returns",
            158,
            vec![paused(cam())],
            vec![Some(0)],
        ),
        (
            "what doesn't come costs nothing and isn't paused",
            0,
            vec![flowing(silent())],
            vec![Some(0)],
        ),
        (
            "nor does it return while nothing comes",
            9000,
            vec![paused(silent())],
            vec![None],
        ),
    ];
    for (sentence, budget, wishes, expected) in cases {
        assert_eq!(layers(budget, &wishes), expected, "{sentence}");
    }
}

#[test]
fn a_priority_of_zero_is_none() {
    assert_eq!(Priority::asked(0), None);
    assert_eq!(Priority::asked(1), Some(Priority::CAMERA));
    assert_eq!(Priority::asked(u32::MAX), Some(Priority::SCREEN_SHARE));
}

#[test]
fn what_comes_next_is_one_step_of_the_first_that_wants_one() {
    let next = |wishes: &[Wish], budget: u64| {
        let mut grants = vec![];
        let spent = allocate(Bitrate::kbps(budget), wishes, &mut grants);
        super::next(wishes, &grants, spent).map(|rate| rate.as_bps() / 1000)
    };
    let with_headroom = |kbps: u64| Some(kbps * 105 / 100);
    let cam = || camera(FULL);
    assert_eq!(next(&[cam()], 100), with_headroom(500));
    assert_eq!(next(&[cam()], 600), with_headroom(1700));
    assert_eq!(next(&[cam()], 9000), None);
    assert_eq!(next(&[wanting(0, cam())], 100), None);
    assert_eq!(next(&[cam(), screen(FULL)], 400), with_headroom(650));
    assert_eq!(next(&[temporal(FULL)], 100), with_headroom(112));
    assert_eq!(next(&[temporal(FULL)], 200), with_headroom(375));
    assert_eq!(next(&[flowing(cam())], 100), with_headroom(150));
    assert_eq!(next(&[], 100), None);
}

#[test]
fn temporal_sentences() {
    let cases = [
        ("the least is the lowest frame rate", 0, (0, 0)),
        ("a step of frames needs headroom too", 117, (0, 0)),
        ("one more step of frames", 118, (0, 1)),
        ("all frames of the smallest", 170, (0, 3)),
        (
            "a larger picture is not entered at its lowest frame rate",
            300,
            (0, 3),
        ),
        ("but at the next", 430, (1, 1)),
        ("and filled up", 600, (1, 3)),
        ("up to the top", 2000, (2, 3)),
    ];
    for (sentence, budget, (layer, highest)) in cases {
        let mut out = vec![];
        allocate(Bitrate::kbps(budget), &[temporal(FULL)], &mut out);
        let expected = Grant {
            layer: Layer(layer),
            temporal: highest,
        };
        assert_eq!(out, [Some(expected)], "{sentence}");
    }
}

#[test]
fn a_low_frame_rate_wish_caps_the_temporal_layer_and_still_rises_in_pixels() {
    let wish = Wish {
        temporal_max: 0,
        ..temporal(FULL)
    };
    let mut out = vec![];
    let spent = allocate(Bitrate::kbps(5000), &[wish], &mut out);
    let expected = Grant {
        layer: Layer(2),
        temporal: 0,
    };
    assert_eq!((out, spent), (vec![Some(expected)], Bitrate::kbps(850)));
}

/// Text has to be read: all pixels before the second frame, and more frames if they don't fit.
#[test]
fn a_screen_grows_before_it_moves() {
    for (budget, layer, highest) in [
        (80, 0, 0),
        (270, 1, 0),
        (700, 1, 3),
        (900, 2, 0),
        (1400, 2, 1),
        (1800, 2, 3),
    ] {
        let wish = Wish {
            is_screen: true,
            ..temporal(FULL)
        };
        let mut out = vec![];
        allocate(Bitrate::kbps(budget), &[wish], &mut out);
        let expected = Grant {
            layer: Layer(layer),
            temporal: highest,
        };
        assert_eq!(out, [Some(expected)], "{budget}");
    }
}

#[test]
fn what_is_too_many_gets_nothing_however_much_there_is() {
    let surplus = Wish {
        pausing: Pausing::Surplus,
        ..camera(FULL)
    };
    let wishes = [camera(FULL), surplus];
    assert_eq!(layers(9000, &wishes), [Some(2), None]);
    assert_eq!(wanted(&wishes), Bitrate::kbps(1700));
    let mut out = vec![];
    let spent = allocate(Bitrate::kbps(1000), &wishes, &mut out);
    let next = next(&wishes, &out, spent).expect("the first has more to want");
    assert_eq!(next, Bitrate::kbps(1700).scale(RAISE_HEADROOM));
}

#[test]
fn grants_are_stable_when_nothing_changes_and_fit_the_budget() {
    for budget in (30..6000).step_by(37) {
        let shared = Wish {
            is_screen: true,
            ..temporal(FULL)
        };
        let mut wishes = vec![temporal(FULL), shared, temporal([100, 300, 900])];
        for wish in &mut wishes {
            wish.pausing = Pausing::Flowing;
        }
        let mut out = vec![];
        for round in 0..4 {
            let before = out.clone();
            let spent = allocate(Bitrate::kbps(budget), &wishes, &mut out);
            assert!(spent <= Bitrate::kbps(budget), "{budget}");
            assert!(
                round < 2 || before == out,
                "{budget}: {before:?} became {out:?}"
            );
            for (wish, grant) in wishes.iter_mut().zip(&out) {
                wish.current = *grant;
                wish.pausing = match grant {
                    Some(_) => Pausing::Flowing,
                    None => Pausing::Paused,
                };
            }
        }
    }
}

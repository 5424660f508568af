//! How much of each video a subscriber gets: a pure function from rates and wishes to grants.
//!
//! Every smallest picture comes first, whatever the budget: a tile is not black for want of
//! bandwidth, unless its viewer would rather have it so. Then the steps above it, by priority:
//! screen shares up to what was wanted before the first camera rises, and among equals one step for
//! each in turn. Audio is never weighed: the caller takes it off the budget before. Which packets a
//! grant lets through is decided elsewhere, and so is the budget.

use std::cmp::Reverse;

use super::packet::Layer;
use crate::units::Bitrate;

/// Most temporal layers of a stream (two bits in VP8).
pub const TEMPORAL_MAX: usize = 4;

/// A raise needs this much more than it costs, so that a rate near its limit doesn't flip a
/// picture to and fro. Keeping what is already there needs nothing extra.
const RAISE_HEADROOM: f64 = 1.12;

/// What is to be known of one subscribed video.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What goes before it.
    pub priority: Priority,
    /// The best spatial layer wanted.
    pub layer_max: Layer,
    /// The highest temporal layer wanted; 3 for all.
    pub temporal_max: u8,
    /// Measured rates by spatial and temporal layer; a temporal layer includes those below it.
    /// Zero where there is no such layer (now). Streams without temporal layers have only the
    /// first.
    pub rates: [[Bitrate; TEMPORAL_MAX]; Layer::COUNT_MAX],
    /// What was granted before.
    pub current: Option<Grant>,
    /// What becomes of it when not even the least fits.
    pub pausing: Pausing,
}

/// Whether a video may be granted nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pausing {
    /// No: its smallest picture is granted, whatever that costs.
    Never,
    /// Yes, if its smallest picture doesn't fit.
    Flowing,
    /// Yes, and it was: its return needs headroom, like a raise, and that something comes of it.
    Paused,
}

/// What is served first: the higher number, as in LiveKit's server. The comment in its protocol
/// says that 1 is the highest; what runs everywhere has it the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// Faces.
    pub const CAMERA: Self = Self(1);
    /// Text that has to be read.
    pub const SCREEN_SHARE: Self = Self(u8::MAX);

    /// What a client asked for; 0 leaves it to the kind of video.
    pub fn asked(number: u32) -> Option<Self> {
        (number > 0).then(|| Self(u8::try_from(number).unwrap_or(u8::MAX)))
    }
}

/// What one subscribed video gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// Its spatial layer.
    pub layer: Layer,
    /// The highest temporal layer forwarded.
    pub temporal: u8,
}

/// Shares `budget` out. `out` is cleared; its entries follow the order of `wishes`, `None` for what
/// pauses. Returns what the grants cost, which is above the budget when not even the smallest
/// pictures fit of those that never pause.
pub fn allocate(budget: Bitrate, wishes: &[Wish], out: &mut Vec<Option<Grant>>) -> Bitrate {
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by_key(|at| Reverse(wishes[*at].priority));
    let mut spent = smallest(budget, wishes, &order, out);
    for equals in order.chunk_by(|a, b| wishes[*a].priority == wishes[*b].priority) {
        // Each round but the last raises something, and a wish has at most 12 steps.
        let mut raised = true;
        while raised {
            raised = false;
            for at in equals.iter().copied() {
                let step = out[at].and_then(|grant| wishes[at].raise(grant, spent, budget));
                if let Some((next, total)) = step {
                    (out[at], spent) = (Some(next), total);
                    raised = true;
                }
            }
        }
    }
    out.iter_mut()
        .zip(wishes)
        .for_each(|(grant, wish)| *grant = grant.map(|grant| wish.open_top(grant)));
    spent
}

/// Grants the smallest pictures: all that never pause, then in `order` what fits beside them.
/// Returns what they cost.
fn smallest(
    budget: Bitrate,
    wishes: &[Wish],
    order: &[usize],
    out: &mut Vec<Option<Grant>>,
) -> Bitrate {
    out.clear();
    let never = |wish: &Wish| (wish.pausing == Pausing::Never).then(|| wish.lowest());
    out.extend(wishes.iter().map(never));
    let granted = wishes.iter().zip(out.iter());
    let mut spent = granted
        .filter_map(|(wish, grant)| Some(wish.rate((*grant)?)))
        .sum();
    for at in order.iter().copied() {
        if out[at].is_none()
            && let Some(total) = wishes[at].flow(spent, budget)
        {
            (out[at], spent) = (Some(wishes[at].lowest()), total);
        }
    }
    spent
}

/// What all wishes would cost, as far as their layers come.
pub fn wanted(wishes: &[Wish]) -> Bitrate {
    let best = |wish: &Wish| {
        wish.steps()
            .last()
            .map_or(Bitrate::ZERO, |step| wish.rate(step))
    };
    wishes.iter().map(best).sum()
}

impl Wish {
    /// The least that is always granted. With no rate known yet: layer 0, all of it, since what
    /// doesn't come costs nothing.
    fn lowest(&self) -> Grant {
        self.steps().next().unwrap_or(Grant {
            layer: Layer(0),
            temporal: self.temporal_max,
        })
    }

    /// The cost of all with its smallest picture, if that fits.
    fn flow(&self, spent: Bitrate, budget: Bitrate) -> Option<Bitrate> {
        let own = self.rate(self.lowest());
        let total = spent + own;
        let fits = match self.pausing {
            Pausing::Paused => own > Bitrate::ZERO && total.scale(RAISE_HEADROOM) <= budget,
            Pausing::Never | Pausing::Flowing => own == Bitrate::ZERO || total <= budget,
        };
        fits.then_some(total)
    }

    /// The step above `grant` and the cost of all with it, if it fits.
    fn raise(&self, grant: Grant, spent: Bitrate, budget: Bitrate) -> Option<(Grant, Bitrate)> {
        let next = self.steps().find(|step| *step > grant)?;
        let total = spent.saturating_sub(self.rate(grant)) + self.rate(next);
        let kept = self.current.is_some_and(|current| next <= current);
        let needed = if kept {
            total
        } else {
            total.scale(RAISE_HEADROOM)
        };
        (needed <= budget).then_some((next, total))
    }

    /// All steps, ascending: live layers up to the wanted one, or just the lowest live one if all
    /// are above. Above the lowest, a layer isn't entered at its first temporal layer when it has
    /// more: a larger picture at a quarter of the frames looks worse than the smaller one before.
    fn steps(&self) -> impl Iterator<Item = Grant> + '_ {
        let live = (0..Layer::COUNT_MAX as u8)
            .map(Layer)
            .filter(|layer| self.temporals(*layer).next().is_some());
        let lowest = live.clone().next();
        live.filter(move |layer| *layer <= self.layer_max || Some(*layer) == lowest)
            .flat_map(move |layer| {
                let several = self.temporals(layer).nth(1).is_some();
                let skip = usize::from(several && Some(layer) != lowest);
                self.temporals(layer)
                    .skip(skip)
                    .map(move |temporal| Grant { layer, temporal })
            })
    }

    /// The temporal layers of a spatial layer that come and are wanted.
    fn temporals(&self, layer: Layer) -> impl Iterator<Item = u8> + Clone + '_ {
        let rates = self.rates.get(usize::from(layer.0)).into_iter().flatten();
        rates
            .zip(0u8..)
            .filter(|(rate, _)| **rate > Bitrate::ZERO)
            .map(|(_, temporal)| temporal)
            .filter(|temporal| *temporal <= self.temporal_max)
    }

    fn rate(&self, grant: Grant) -> Bitrate {
        self.rates
            .get(usize::from(grant.layer.0))
            .and_then(|rates| rates.get(usize::from(grant.temporal)))
            .copied()
            .unwrap_or_default()
    }

    /// At the top temporal layer that was measured nothing is left to hold back, so whatever else
    /// is wanted may pass, also what was not measured yet.
    fn open_top(&self, grant: Grant) -> Grant {
        match self.temporals(grant.layer).last() {
            Some(top) if grant.temporal < top => grant,
            _ => Grant {
                temporal: self.temporal_max,
                ..grant
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without temporal layers, kbit/s.
    fn camera(rates: [u64; 3]) -> Wish {
        Wish {
            priority: Priority::CAMERA,
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
            priority: Priority::SCREEN_SHARE,
            ..camera(rates)
        }
    }

    fn rated(priority: u32, wish: Wish) -> Wish {
        Wish {
            priority: Priority::asked(priority).expect("not 0"),
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
        let cases: [(&str, u64, Vec<Wish>, &[u8]); 21] = [
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
            ("a raise needs headroom", 540, vec![cam()], &[0]),
            ("with headroom it is raised", 561, vec![cam()], &[1]),
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
                167,
                vec![paused(cam())],
                vec![None],
            ),
            (
                "with headroom it returns",
                168,
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
    fn temporal_sentences() {
        let cases = [
            ("the least is the lowest frame rate", 0, (0, 0)),
            ("a step of frames needs headroom too", 120, (0, 0)),
            ("one more step of frames", 130, (0, 1)),
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

    #[test]
    fn grants_are_stable_when_nothing_changes_and_fit_the_budget() {
        for budget in (30..6000).step_by(37) {
            let mut wishes = vec![temporal(FULL), screen(FULL), temporal([100, 300, 900])];
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
}

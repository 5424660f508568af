//! How much of each video a subscriber gets: a pure function from rates and wishes to grants.
//!
//! Every smallest picture comes first, whatever the budget: a tile is not black for want of
//! bandwidth, unless its viewer would rather have it so. Then the steps above it, by rank: screen
//! shares up to what was wanted before the first camera rises, what is shown large before what is
//! shown small, who has the floor before others; and among equals one step for each in turn. A
//! camera rises to a larger picture when half of its frames fit, a screen when any do: text has to
//! be read, not to move. Audio is never weighed: the caller takes it off the budget before. Which
//! packets a grant lets through is decided elsewhere, and so is the budget.

use std::cmp::Reverse;

use super::packet::Layer;
use crate::units::Bitrate;

/// Most temporal layers of a stream (two bits in VP8).
pub const TEMPORAL_MAX: usize = 4;

/// A raise needs this much more than it costs, so that a rate near its limit doesn't flip a
/// picture to and fro. Keeping what is already there needs nothing extra.
pub const RAISE_HEADROOM: f64 = 1.05;

/// What is to be known of one subscribed video.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What goes before it.
    pub rank: Rank,
    /// Its size matters more than how often it changes.
    pub is_screen: bool,
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
    /// It has to be: there are too many that go before it.
    Surplus,
}

/// What is served first: the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Of its kind, or as the client wants.
    pub priority: Priority,
    /// Of how many pixels it is shown, in powers of four: no more than roughly, or two tiles that
    /// differ by a border would never be equals. 0 if the client doesn't say.
    pub size: u8,
    /// Its publisher has the floor.
    pub has_floor: bool,
}

impl Rank {
    /// One of a size that is not known.
    pub const fn plain(priority: Priority) -> Self {
        Self {
            priority,
            size: 0,
            has_floor: false,
        }
    }

    /// Of a picture that is shown with these dimensions.
    pub fn sized(self, (width, height): (u32, u32)) -> Self {
        let pixels = u64::from(width) * u64::from(height);
        Self {
            size: (u64::BITS - pixels.leading_zeros()).div_ceil(2) as u8,
            ..self
        }
    }
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
    order.sort_by_key(|at| Reverse(wishes[*at].rank));
    let mut spent = smallest(budget, wishes, &order, out);
    for equals in order.chunk_by(|a, b| wishes[*a].rank == wishes[*b].rank) {
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

/// What all would cost with one more step, the one that would come next if the budget allowed it,
/// and the headroom a raise needs; `None` if there is nothing more to want.
pub fn next(wishes: &[Wish], grants: &[Option<Grant>], spent: Bitrate) -> Option<Bitrate> {
    let each = wishes.iter().zip(grants);
    let steps = each.filter_map(|(wish, grant)| {
        let (have, next) = match grant {
            Some(grant) => (
                wish.rate(wish.closed_top(*grant)),
                wish.above(*grant).next()?,
            ),
            None if wish.pausing == Pausing::Surplus => return None,
            None => (Bitrate::ZERO, wish.lowest()),
        };
        let more = wish.rate(next).saturating_sub(have);
        (more > Bitrate::ZERO).then_some((Reverse(wish.rank), grant.is_some(), more))
    });
    let (_, _, more) = steps.min()?;
    Some((spent + more).scale(RAISE_HEADROOM))
}

/// What all wishes would cost, as far as their layers come.
pub fn wanted(wishes: &[Wish]) -> Bitrate {
    let best = |wish: &Wish| {
        if wish.pausing == Pausing::Surplus {
            return Bitrate::ZERO;
        }
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
            Pausing::Surplus => false,
        };
        fits.then_some(total)
    }

    /// The step above `grant` and the cost of all with it, if it fits.
    fn raise(&self, grant: Grant, spent: Bitrate, budget: Bitrate) -> Option<(Grant, Bitrate)> {
        let rest = spent.saturating_sub(self.rate(grant));
        let mut fitting = self.above(grant).filter_map(|next| {
            let total = rest + self.rate(next);
            let kept = self.current.is_some_and(|current| next <= current);
            let needed = match kept {
                true => total,
                false => total.scale(RAISE_HEADROOM),
            };
            (needed <= budget).then_some((next, total))
        });
        fitting.next()
    }

    /// What may come after `grant`, the best first: of a screen the larger picture, however seldom
    /// it changes, or else more frames.
    fn above(&self, grant: Grant) -> impl Iterator<Item = Grant> + '_ {
        let more = self.temporals(grant.layer).find(|it| *it > grant.temporal);
        let more = more.map(|temporal| Grant { temporal, ..grant });
        let larger = || {
            let mut larger = (grant.layer.0 + 1..=self.layer_max.0).map(Layer);
            larger.find_map(|layer| self.entry(layer))
        };
        match self.is_screen {
            true => larger().into_iter().chain(more),
            false => more.or_else(larger).into_iter().chain(None),
        }
    }

    /// The step at which a layer above the lowest is entered.
    fn entry(&self, layer: Layer) -> Option<Grant> {
        let mut temporals = self.temporals(layer);
        let first = temporals.next()?;
        let second = temporals.next().filter(|_| !self.is_screen);
        let temporal = second.unwrap_or(first);
        Some(Grant { layer, temporal })
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

    /// What [`Wish::open_top`] opened, as it was measured.
    fn closed_top(&self, grant: Grant) -> Grant {
        match self.temporals(grant.layer).last() {
            Some(top) => Grant {
                temporal: grant.temporal.min(top),
                ..grant
            },
            None => grant,
        }
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
#[path = "tests/allocator.rs"]
mod tests;

//! What a publisher is told to send of a video: up to the best layer that anybody wants.
//!
//! More is asked for at once, less only after a while: an encoder that starts a layer again
//! needs a key frame and some seconds to reach its rate, so what somebody leaves is kept for the
//! next one. A layer that isn't sent is nothing special elsewhere: it counts as silent, as one
//! does that the publisher's own bandwidth doesn't allow.

use std::time::{Duration, Instant};

use super::TrackKey;
use super::encoding::{Encoding, EncodingKey};
use super::message::{Kind, Notice, Quality};
use super::room::Room;
use super::shard::{Core, TICK};
use super::track::Publisher;

/// How long less must be wanted before the publisher is told.
pub const DELAY: Duration = Duration::from_secs(5);

/// What the publisher was told of one encoding of a video.
#[derive(Debug)]
pub struct Dynacast {
    /// The best layer it should send, `None` for nothing at all.
    told: Option<Quality>,
    /// Since when less is wanted.
    less: Option<Instant>,
    /// When to say again that a backup is wanted that hasn't come, and how long that waits.
    again: Option<(Instant, Duration)>,
}

/// A backup that is wanted and was not announced is asked for again after this, and then after
/// twice as long each time, up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_secs(1);

/// See [`AGAIN`].
const AGAIN_MAX: Duration = Duration::from_secs(16);

impl Default for Dynacast {
    /// Clients send everything until they are told otherwise, and forget what they are told
    /// about a track before they have set it up.
    fn default() -> Self {
        Self {
            told: Some(Quality::High),
            less: None,
            again: None,
        }
    }
}

impl Dynacast {
    /// For what clients don't send before they are told to.
    pub fn silent() -> Self {
        Self {
            told: None,
            less: None,
            again: None,
        }
    }

    /// The best layer its publisher should send, as it was told.
    pub fn told(&self) -> Option<Quality> {
        self.told
    }

    /// Takes what is wanted now, of which less must be wanted for this long to count; whether the
    /// publisher has to be told.
    pub fn want(&mut self, wanted: Option<Quality>, delay: Duration, now: Instant) -> bool {
        let wait = if wanted < self.told {
            let since = *self.less.get_or_insert(now);
            now.saturating_duration_since(since) < delay
        } else {
            self.less = None;
            wanted == self.told
        };
        if !wait {
            self.less = None;
            self.told = wanted;
        }
        !wait
    }
}

impl Dynacast {
    /// Whether to say again what is wanted of a backup. livekit-client forgets what it is told
    /// about a track before it has set that up (in one of five calls that begin with a backup), and
    /// begins to send a backup only when it hears of it.
    fn is_due_again(&mut self, awaited: bool, now: Instant) -> bool {
        if !awaited || self.told.is_none() {
            self.again = None;
            return false;
        }
        let (due, wait) = self.again.get_or_insert((now + AGAIN, AGAIN));
        let is_due = now >= *due;
        if is_due {
            *wait = (*wait * 2).min(AGAIN_MAX);
            *due = now + *wait;
        }
        is_due
    }
}

impl Room {
    /// Tells the publisher of a video what to send of it, if that has changed or seems not to have
    /// been heard.
    pub fn tell_demand(&mut self, core: &mut Core, key: TrackKey, now: Instant) {
        if self[key].kind() != Kind::Video {
            return;
        }
        let mut news = false;
        for number in 0..self[key].encodings.len() {
            let key = EncodingKey { track: key, number };
            let wanted = self.demand(key);
            // Another part waits itself before it asks its publisher for less, and is not to be
            // told of all that a client may say.
            let delay = match self[key.track].publisher {
                Publisher::Here(_) => DELAY,
                Publisher::There(_) => TICK,
            };
            let encoding = &mut self[key];
            let before = encoding.dynacast.told;
            if encoding.dynacast.want(wanted, delay, now) {
                news = true;
                if wanted > before {
                    // Layers that come back are expected at the rate that was announced for them,
                    // so that whoever wants one takes its first key frame.
                    encoding.resumed = now;
                }
            }
            let announced = self[key.track].info.announced.codecs.get(number);
            let awaited = number > 0 && announced.is_some_and(|info| info.cid.is_empty());
            news |= self[key].dynacast.is_due_again(awaited, now);
        }
        if !news {
            return;
        }
        core.counters.demands += 1;
        self.repeat_demand(core, key);
    }

    /// Tells the publisher of a video what it was told before, in case it has not heard.
    pub fn repeat_demand(&self, core: &mut Core, key: TrackKey) {
        if self[key].kind() != Kind::Video {
            return;
        }
        let track = &self[key];
        let slot = match track.publisher {
            Publisher::Here(slot) => slot,
            Publisher::There(origin) => return self.pass_demand(core, origin, &track.encodings),
        };
        let by_codec = |it: &Encoding| (it.announced.mime().to_owned(), it.dynacast.told);
        let notice = Notice::Demand {
            track: track.info.sid.clone(),
            codecs: track.encodings.iter().map(by_codec).collect(),
        };
        let session = self.participants[slot as usize].session;
        core.notify(session, notice);
    }

    /// The best layer anybody wants of an encoding of a video.
    fn demand(&mut self, key: EncodingKey) -> Option<Quality> {
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let track = &tracks[key.track.0 as usize];
        let encoding = &track.encodings[key.number];
        let wanted = encoding.subscribers.iter().filter_map(|subscriber| {
            let leg = &mut participants[subscriber.participant as usize].leg;
            let subscription = leg.get_mut(subscriber.subscription)?;
            (!subscription.settings.disabled)
                .then(|| encoding.quality_of(subscription.wanted_layer(track)))
        });
        let beyond = encoding.pulls.iter().map(|pull| pull.wanted);
        wanted.chain(beyond).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Quality::{High, Low, Medium};

    #[test]
    fn more_at_once_and_less_after_five_seconds() {
        type Step = (u64, Option<Quality>, bool);
        let cases: [(&str, &[Step]); 7] = [
            (
                "what everybody sends anyway is not said",
                &[(0, Some(High), false), (10_000, Some(High), false)],
            ),
            (
                "nobody wants it: nothing is sent after five seconds, and said once",
                &[
                    (0, None, false),
                    (4999, None, false),
                    (5000, None, true),
                    (20_000, None, false),
                ],
            ),
            (
                "less for a moment is not less",
                &[
                    (0, Some(Low), false),
                    (4000, Some(High), false),
                    (6000, Some(Low), false),
                    (10_999, Some(Low), false),
                    (11_000, Some(Low), true),
                ],
            ),
            (
                "the last wish counts when the time is over",
                &[
                    (0, None, false),
                    (3000, Some(Medium), false),
                    (5000, Some(Medium), true),
                ],
            ),
            (
                "more is said at once",
                &[
                    (0, None, false),
                    (5000, None, true),
                    (5001, Some(Low), true),
                    (5002, Some(High), true),
                ],
            ),
            (
                "less after more waits anew",
                &[
                    (0, None, false),
                    (5000, None, true),
                    (6000, Some(Medium), true),
                    (7000, Some(Low), false),
                    (11_999, Some(Low), false),
                    (12_000, Some(Low), true),
                ],
            ),
            (
                "as much as before ends the waiting",
                &[
                    (0, Some(Low), false),
                    (4999, Some(High), false),
                    (5000, Some(Low), false),
                ],
            ),
        ];
        let start = Instant::now();
        for (sentence, steps) in cases {
            let mut dynacast = Dynacast::default();
            for (millis, wanted, told) in steps {
                let now = start + Duration::from_millis(*millis);
                assert_eq!(
                    dynacast.want(*wanted, DELAY, now),
                    *told,
                    "{sentence}, {millis} ms"
                );
            }
        }
    }
}

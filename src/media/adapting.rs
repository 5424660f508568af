//! What each participant gets of all it receives, as its link carries it: estimate, shares, layers.
//! Due every tick, and whenever the estimate has changed by more than a little.

use std::time::Instant;

use super::allocator::{self, Pausing};
use super::egress::Leg;
use super::encoding::EncodingKey;
use super::estimator::Share;
use super::estimator::rehearsal::Wants;
use super::layers::Pressure;
use super::message::{Kind, Notice};
use super::participant::Participant;
use super::pausing::StreamUpdate;
use super::room::Room;
use super::shard::Core;
use crate::units::Bitrate;

impl Leg {
    /// Lets time pass for the estimate, as far as the client lets it work.
    fn tick(&mut self, now: Instant) {
        let can_pad = self.codecs.any_rtx().is_some();
        let blind = self.codecs.extensions.twcc.is_none();
        self.estimator().set_blind(blind);
        self.estimator().tick(now, can_pad);
    }
}

impl Room {
    /// Chooses layers for all that a participant receives.
    pub fn adapt(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let leg = &mut self.participants[slot as usize].leg;
        leg.tick(now);
        let share = leg.estimator().share(now);
        let sound = self.gather_wishes(core, slot, &share, now);
        let participant = &mut self.participants[slot as usize];
        let Participant { leg, link, .. } = participant;
        let budget = share
            .budget(leg.estimator().estimate())
            .saturating_sub(sound);
        let spent = allocator::allocate(budget, &core.wishes, &mut core.grants);
        let all = allocator::wanted(&core.wishes);
        link.allows(spent, all);
        let next = allocator::next(&core.wishes, &core.grants, spent);
        let wants = next.map_or(Wants::default(), |next| Wants {
            next: share.needs(next + sound),
            all: share.needs(all.scale(allocator::RAISE_HEADROOM) + sound),
        });
        leg.estimator().want(wants);
        let (asked, updates) = self.follow_grants(core, slot, &share, now);
        let participant = &mut self.participants[slot as usize];
        let leg = &mut participant.leg;
        let feeling = leg.is_feeling(now);
        leg.borrow(&mut core.spare);
        leg.feel(now, &mut core.counters);
        leg.pace(now, &mut core.counters);
        if leg.has_output(&mut core.spare) {
            core.dirty.mark(self.key, slot, leg);
        }
        if !updates.is_empty() {
            core.notify(participant.session, Notice::StreamStates(updates));
        }
        for key in asked.into_iter().filter(|_| !feeling) {
            self.want_key_frames(key, now);
            self.ask_publisher(core, key, now);
        }
    }

    /// Collects what videos a participant would have; what its sound takes, which goes before.
    fn gather_wishes(
        &mut self,
        core: &mut Core,
        slot: u32,
        share: &Share,
        now: Instant,
    ) -> Bitrate {
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let participant = &mut participants[slot as usize];
        let leg = &mut participant.leg;
        let last_n = core.config.limits.last_n;
        let mut recent = Vec::new();
        let round_trip = leg.estimator().rtt();
        leg.playout.follow(now, share.loss(), round_trip);
        let id = leg.codecs.extensions.playout_delay;
        leg.wait = id.zip(leg.playout.extension());
        let readable = leg.codecs.redundant().is_some();
        let again = leg.redundancy.follow(now, share.loss()) * usize::from(readable);
        let mut sound = Bitrate::ZERO;
        core.wishes.clear();
        for subscription in leg.subscriptions() {
            let track = &tracks[subscription.track.0 as usize];
            if subscription.kind == Kind::Audio && !subscription.settings.disabled {
                let encrypted = track.info.announced.encryption != 0;
                let again = if encrypted { 0 } else { again };
                subscription.repeat(again);
                let rate = track.encodings[subscription.encoding].rates(now)[0][0];
                sound = sound + rate.scale(1.0 + again as f64);
            }
            if subscription.is_weighed(track, now) {
                let wish = subscription.wish(track, participant.may_pause, now);
                if last_n > 0 && !wish.is_screen {
                    recent.push((wish.rank, track.turn.spoke, core.wishes.len()));
                }
                core.wishes.push(wish);
            }
        }
        if recent.len() > last_n {
            recent.sort_by(|a, b| b.cmp(a));
            for (.., at) in &recent[last_n..] {
                core.wishes[*at].pausing = Pausing::Surplus;
            }
        }
        sound
    }

    /// Sets what was granted; of which encodings a key frame is needed for it, and what the
    /// participant has to be told.
    fn follow_grants(
        &mut self,
        core: &mut Core,
        slot: u32,
        share: &Share,
        now: Instant,
    ) -> (Vec<EncodingKey>, Vec<StreamUpdate>) {
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let leg = &mut participants[slot as usize].leg;
        let full = leg.pacer.pressure() == Pressure::Full;
        let (mut asked, mut updates) = (Vec::new(), Vec::new());
        let mut grants = core.grants.iter().copied();
        let mut wishes = core.wishes.iter();
        for subscription in leg.subscriptions().filter(|s| s.kind == Kind::Video) {
            let track = &tracks[subscription.track.0 as usize];
            let weighed = subscription.is_weighed(track, now);
            let granted = match weighed {
                true => grants.next().flatten(),
                false => None,
            };
            subscription.granted = granted;
            let encoding = &track.encodings[subscription.encoding];
            let target = granted.map(|grant| encoding.target(grant.layer, grant.temporal));
            let source = subscription.source();
            let Some(outgoing) = &mut subscription.outgoing else {
                continue;
            };
            if weighed {
                updates.extend(outgoing.follow(granted.is_some(), now, &mut core.counters));
                if wishes
                    .next()
                    .is_some_and(|wish| wish.pausing == Pausing::Surplus)
                {
                    outgoing.flow.give_way();
                }
            }
            outgoing.layers.set_target(target);
            if share.is_short {
                outgoing.layers.cut_short();
            }
            if !full && outgoing.layers.wanted_key_frame(now).is_some() {
                asked.push(source);
            }
        }
        (asked, updates)
    }
}

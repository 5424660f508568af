//! Slots are used again: people come, go, publish and subscribe at random, and after each step
//! everything in the shard must fit together.

use super::call::{Call, Who};
use super::track::Medium;
use crate::media::encoding::EncodingKey;
use crate::media::message::{Connection, LeaveReason, Request};
use crate::media::relay::REMOTE;
use crate::media::room::Room;
use crate::media::track::Publisher;
use crate::media::{Shard, TrackKey};

const STEPS: usize = 300;
const IDENTITIES: [&str; 6] = ["anna", "bert", "carl", "dora", "emil", "frida"];

/// Everything in the shard fits together.
fn consistent(shard: &Shard) {
    let counters = shard.counters();
    let rooms = counters.rooms + counters.branches;
    assert_eq!(rooms as usize, shard.rooms.len());
    assert_eq!(shard.by_name.len(), shard.rooms.len());
    let participants = shard.rooms.iter().map(|(_, room)| room.participants.len());
    let participants: usize = participants.sum();
    assert_eq!(counters.participants as usize, participants);
    assert_eq!(shard.core.sessions.len(), participants);
    for (session, key) in &shard.core.sessions {
        let room = &shard.rooms[key.room.0 as usize];
        assert_eq!(
            room.participants[key.participant as usize].session,
            *session
        );
    }
    let (mut tracks, mut subscriptions) = ([0; 2], [0; 2]);
    for (_, room) in &shard.rooms {
        for (_, track) in &room.tracks {
            let own = track.publisher.slot().is_some();
            tracks[track.kind() as usize] += u64::from(own);
            subscriptions[track.kind() as usize] += track.subscribers().count() as u64;
        }
        fits(shard, room);
    }
    assert_eq!(counters.tracks, tracks);
    assert_eq!(counters.subscriptions, subscriptions);
}

impl Call {
    /// Everything in all shards fits together.
    pub fn consistent(&self) {
        self.shards().for_each(consistent);
    }
}

/// Everything in a room fits together.
fn fits(shard: &Shard, room: &Room) {
    assert_eq!(room.by_sid.len(), room.tracks.len());
    for (sid, key) in &room.by_sid {
        assert_eq!(room[*key].info.sid, *sid);
    }
    assert_eq!(room.by_identity.len(), room.participants.len());
    for (identity, slot) in &room.by_identity {
        assert_eq!(room.participants[*slot as usize].identity, *identity);
    }
    for (at, track) in &room.tracks {
        let key = TrackKey(at as u32);
        let published = match track.publisher {
            Publisher::Here(slot) => room.published_by(slot),
            Publisher::There(origin) => room.published_by(REMOTE + origin.remote),
        };
        assert!(published.contains(&key));
        for (number, encoding) in track.encodings.iter().enumerate() {
            for subscriber in &encoding.subscribers {
                let leg = &room.participants[subscriber.participant as usize].leg;
                assert_eq!(leg.find(key), Some(subscriber.subscription));
                let source = EncodingKey { track: key, number };
                assert_eq!(leg.source(subscriber.subscription), source);
            }
        }
    }
    for (slot, participant) in &room.participants {
        let place = room.place(slot as u32, Connection::Publisher);
        for pair in &participant.pairs {
            assert_eq!(shard.core.demux.by_pair(*pair), Some(place));
        }
        for track in &participant.published {
            assert_eq!(room[*track].publisher, Publisher::Here(slot as u32));
        }
        for source in &participant.sources {
            assert!(participant.published.contains(&source.of.track));
        }
        for track in participant.leg.tracks() {
            let mut subscribers = room[track].subscribers();
            assert!(subscribers.any(|it| it.participant == slot as u32));
        }
        for track in participant.carried() {
            assert!(participant.leg.find(track).is_some(), "it carries nothing");
        }
    }
}

/// Someone does something.
pub fn act(call: &mut Call, here: &mut Vec<Who>, number: usize) {
    let identity = IDENTITIES[call.random.usize(..IDENTITIES.len())];
    let who = match call.random.choice(here.iter()) {
        Some(who) if call.random.u8(..100) < 85 => *who,
        _ => {
            // Perhaps an eviction.
            here.retain(|who| call[*who].identity != identity);
            // With two connections the second is offered, and never answered.
            let two = call.random.u8(..4) == 0;
            let who = call.join_as(identity, |join| join.two_connections = two);
            here.push(who);
            return call[who].offer();
        }
    };
    let cid = format!("medium {number}");
    match call.random.u8(..100) {
        ..35 if call[who].sending.len() < 6 => call[who].publish(match number % 3 {
            0 => Medium::microphone(&cid),
            1 => Medium::camera(&cid),
            _ => Medium::simulcast(&cid),
        }),
        35..50 => {
            if let Some(first) = call[who].sending.first() {
                let cid = first.medium.cid.clone();
                call[who].unpublish(&cid);
            }
        }
        50..80 => {
            let known: Vec<_> = call[who].track_by_ssrc.values().cloned().collect();
            if let Some(track) = call.random.choice(&known) {
                let wanted = call.random.bool();
                call.subscribe(who, track, wanted);
            }
        }
        80..85 => {
            call.ask(who, Request::Leave);
            here.retain(|it| *it != who);
        }
        85..88 => {
            call.vanish(who);
            call.close_signalling(who);
            here.retain(|it| *it != who);
        }
        _ => {}
    }
}

#[test]
fn slots_that_are_used_again_lead_nowhere_else() {
    for seed in [1, 2] {
        let mut call = Call::new();
        call.random = fastrand::Rng::with_seed(seed);
        let mut here = Vec::new();
        for number in 0..STEPS {
            act(&mut call, &mut here, number);
            call.consistent();
            let millis = call.random.u64(..40);
            call.run(millis);
            call.consistent();
        }
        let (joins, packets) = (call.counters().joins, call.counters().packets_out);
        assert!(
            joins > 20 && packets > 100,
            "{joins} joins, {packets} packets"
        );
        assert_eq!(call.counters().peer_panics, 0);
        for who in here {
            call.ask(who, Request::Leave);
        }
        call.run(30_000);
        call.consistent();
        let counters = call.counters();
        assert_eq!((counters.rooms, counters.participants), (0, 0));
        assert_eq!(counters.leaves.iter().sum::<u64>(), counters.joins);
        let disagreed = counters.leaves[LeaveReason::StateMismatch as usize];
        assert_eq!(disagreed, 0, "every offer was one that clients make");
    }
}

//! A room on several workers. That people don't notice is shown by all other stories, which are run
//! on several as well; here is what only such rooms have.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::call::{Call, Who};
use super::cycles;
use super::fault::{self, Point};
use super::track::Medium;
use crate::ids::WorkerId;
use crate::media::Shard;
use crate::media::message;
use crate::media::message::administration::{Answer, Fact, RoomOptions, RoomRefusal, RoomRequest};
use crate::media::message::{LeaveReason, Notice, Quality, Request};

/// Anna and Carl are at home, Bert and Dora in the branch.
fn people(workers: u16) -> (Call, [Who; 4]) {
    let mut call = Call::on(workers, |_| {});
    let people = ["anna", "bert", "carl", "dora"].map(|who| call.enter(who));
    (call, people)
}

fn ask(call: &mut Call, request: RoomRequest) -> Answer {
    let ticket = call.question(request);
    call.run(200);
    let answer = call.answers.iter().find(|(asked, _)| *asked == ticket);
    answer.expect("one answer").1.clone()
}

/// Who a part of the room believes to be there, and with which tracks in which state.
fn view(shard: &Shard) -> BTreeMap<String, Vec<String>> {
    let mut view = BTreeMap::new();
    for (_, room) in &shard.rooms {
        let here = room.participants.iter();
        let here = here.map(|(slot, who)| (who.sid.clone(), room.info_of(slot as u32)));
        let beyond = room.remote_sids();
        let beyond = beyond.map(|(_, sid, who)| (sid.clone(), who.info.clone()));
        for (sid, info) in here.chain(beyond) {
            let published = info.tracks.iter().map(|info| {
                let track = &room[room.by_sid[&info.sid]];
                let codecs: Vec<_> = track
                    .encodings
                    .iter()
                    .map(|it| (it.codec, &it.rids))
                    .collect();
                format!("{:?} {:?} {codecs:?}", info.sid, info.announced.muted)
            });
            let before = view.insert(sid.as_str().to_owned(), published.collect());
            assert!(before.is_none(), "nobody is there twice");
        }
    }
    view
}

#[test]
fn parts_come_to_agree_however_long_their_words_take() {
    for seed in 1..=4 {
        let mut call = Call::on(3, |_| {});
        call.post.delay = 20;
        call.random = fastrand::Rng::with_seed(seed);
        let mut here = Vec::new();
        for number in 0..300 {
            cycles::act(&mut call, &mut here, number);
            let millis = call.random.u64(..40);
            call.run(millis);
            call.consistent();
        }
        call.run(2000);
        assert_eq!(call.counters().peer_panics, 0);
        let home = view(&call.shard);
        assert!(!home.is_empty());
        for branch in call.branches.iter().filter(|it| !it.rooms.is_empty()) {
            assert_eq!(view(branch), home, "seed {seed}");
        }
        for who in here {
            call.ask(who, Request::Leave);
        }
        call.run(60_000);
        let counters = call.counters();
        assert_eq!((counters.rooms, counters.branches), (0, 0));
        assert_eq!(counters.leaves.iter().sum::<u64>(), counters.joins);
    }
}

#[test]
fn a_burst_goes_once_to_each_part_and_only_with_what_is_wanted_there() {
    let (mut call, [anna, bert, _, dora]) = people(2);
    let camera = call.publish(anna, Medium::simulcast("camera"));
    call.run(3000);
    let layers = |call: &mut Call| {
        let before = call.counters();
        call.run(1000);
        let after = call.counters();
        let came = after.packets_in - before.packets_in;
        assert_eq!(
            after.relayed_out - before.relayed_out,
            after.relayed_in - before.relayed_in
        );
        (after.relayed_in - before.relayed_in, came)
    };
    let (relayed, came) = layers(&mut call);
    assert!(relayed > 50 && relayed <= came, "{relayed} of {came}");
    for who in [bert, dora] {
        call.want(who, &camera, |it| it.quality = Quality::Low);
    }
    call.run(5500);
    let (relayed, came) = layers(&mut call);
    assert!(
        relayed * 5 < came * 2 && relayed > 15,
        "the smallest of three: {relayed} of {came}"
    );
    for who in [bert, dora] {
        call.subscribe(who, &camera, false);
    }
    call.run(1000);
    assert_eq!(layers(&mut call).0, 0, "nobody there has it");
}

#[test]
fn who_changes_to_a_smaller_picture_elsewhere_sees_no_gap() {
    let (mut call, [anna, bert, carl, dora]) = people(2);
    let camera = call.publish(anna, Medium::simulcast("camera"));
    call.run(3000);
    for who in [carl, dora] {
        call.subscribe(who, &camera, false);
    }
    // Faster than key frames are asked for.
    for turn in 0..30 {
        let quality = [Quality::Low, Quality::High][turn % 2];
        call.want(bert, &camera, |it| it.quality = quality);
        call.run(150);
    }
    let received = call[bert].received_of(&camera);
    let gaps = received.windows(2).map(|pair| pair[1].at - pair[0].at);
    let longest = gaps.max().expect("packets");
    assert!(longest < Duration::from_millis(150), "{longest:?}");
    assert!(call.counters().layer_switches >= 5);
}

#[test]
fn a_room_within_one_part_says_nothing_to_another() {
    let mut call = Call::on(2, |_| {});
    let anna = call.enter("anna");
    let elsewhere = call.enter_as("bert", |it| {
        it.room = "other".into();
        it.home = None;
    });
    for who in [anna, elsewhere] {
        call.publish(who, Medium::camera("camera"));
    }
    call.run(1000);
    assert!(call.post.words.is_empty());
    assert_eq!(call.counters().branches, 0);
}

#[test]
fn one_identity_at_two_places_at_once_stays_at_one() {
    for seed in 0..20 {
        let mut call = Call::on(2, |_| {});
        call.random = fastrand::Rng::with_seed(seed);
        call.enter("anna");
        call.enter("bert");
        call.post.delay = 6;
        let twins = [call.join_as("zoe", |_| {}), call.join_as("zoe", |_| {})];
        call.run(500);
        let left = twins.map(|who| call[who].departure());
        let evicted = Some(LeaveReason::DuplicateIdentity);
        assert_eq!(left.iter().filter(|it| **it == evicted).count(), 1);
        assert_eq!(call.counters().participants, 3);
        // One after the other, the later stays.
        let last = call.join_as("zoe", |_| {});
        call.run(500);
        assert_eq!(call[last].departure(), None);
        assert_eq!(call.counters().participants, 3);
    }
}

#[test]
fn of_two_stays_in_branches_the_home_knows_the_one_that_stays() {
    for seed in 0..20 {
        let mut call = Call::on(3, |_| {});
        call.random = fastrand::Rng::with_seed(seed);
        for who in ["anna", "bert", "carl", "dora"] {
            call.enter(who);
        }
        call.post.delay = 6;
        let twins = [call.join_as("zoe", |_| {}), call.join_as("zoe", |_| {})];
        call.run(500);
        call.post.delay = 0;
        let stays = twins.map(|who| call[who].departure().is_none());
        let worker = match stays {
            [true, false] => 1,
            [false, true] => 2,
            both => panic!("{both:?}"),
        };
        let located = ask(&mut call, RoomRequest::Locate("zoe".into()));
        assert_eq!(located, Ok(Fact::Worker(WorkerId(worker))), "seed {seed}");
    }
}

#[test]
fn who_comes_back_to_a_full_room_takes_its_own_place_in_any_part() {
    let mut call = Call::on(2, |limits| limits.participants_per_room = 3);
    let [anna, _, _] = ["anna", "bert", "carl"].map(|who| call.enter(who));
    let again = call.join_as("anna", |_| {});
    call.run(100);
    let evicted = Some(LeaveReason::DuplicateIdentity);
    assert_eq!(
        (call[anna].departure(), call[again].departure()),
        (evicted, None)
    );
    let others = call[again].notices.iter().find_map(|notice| match notice {
        Notice::Joined(joined) => Some(joined.others.len()),
        _ => None,
    });
    assert_eq!(others, Some(2), "its former stay is none of the others");
    let full = Notice::Refused(message::Refusal::RoomFull);
    let fourth = call.join_as("dora", |_| {});
    call.run(100);
    assert!(call[fourth].notices.contains(&full));
}

#[test]
fn a_branch_that_is_not_welcomed_gives_up() {
    let mut call = Call::on(2, |_| {});
    call.enter("anna");
    call.post.blocked = Some((0, 1));
    let bert = call.join_as("bert", |_| {});
    call.run(6000);
    let refused = Notice::Refused(message::Refusal::Internal);
    assert!(call[bert].notices.contains(&refused));
    assert_eq!(call.counters().branches, 0);
    call.post.blocked = None;
    call.enter("carl");
    let again = call.enter("bert");
    assert_eq!(call[again].departure(), None);
}

#[test]
fn a_home_learns_late_of_a_branch_that_could_not_say_goodbye() {
    let (mut call, [_, bert, carl, dora]) = people(2);
    call.post.blocked = Some((1, 0));
    for who in [bert, dora] {
        call.ask(who, Request::Leave);
    }
    call.run(500);
    call.post.blocked = None;
    call.run(5500);
    let gone = call[carl]
        .notices
        .iter()
        .filter(|notice| matches!(notice, Notice::Participant(info) if info.left.is_some()));
    assert_eq!(gone.count(), 2);
    assert!(!call.shard.rooms.iter().any(|(_, room)| room.has_branches()));
}

#[test]
fn what_nobody_wants_any_more_is_not_sent_through_an_empty_home() {
    let (mut call, [anna, bert, carl, _]) = {
        let mut call = Call::on(3, |_| {});
        let people = ["anna", "bert", "carl", "dora"].map(|who| call.enter(who));
        (call, people)
    };
    let camera = call.publish(bert, Medium::simulcast("camera"));
    call.run(2000);
    for who in [anna, Who(3)] {
        call.ask(who, Request::Leave);
    }
    call.run(500);
    assert!(!call[carl].received_of(&camera).is_empty());
    call.ask(carl, Request::Leave);
    call.run(12_000);
    let mut demands = call[bert]
        .notices
        .iter()
        .rev()
        .filter_map(|notice| match notice {
            Notice::Demand { codecs, .. } => Some(codecs[0].1),
            _ => None,
        });
    assert_eq!(demands.next(), Some(None));
}

#[test]
fn who_comes_to_a_new_part_is_told_of_connections_that_stay_as_they_are() {
    let mut call = Call::on(3, |_| {});
    let anna = call.enter("anna");
    call.enter("bert");
    call.publish(anna, Medium::microphone("microphone"));
    call.run(12_000);
    let carl = call.enter("carl");
    call.run(12_000);
    let told = call[carl].notices.iter().filter_map(|notice| match notice {
        Notice::Qualities(updates) => Some(updates),
        _ => None,
    });
    let about: HashSet<_> = told.flatten().map(|it| it.participant.as_str()).collect();
    assert_eq!(about.len(), 2, "its own and anna's");
}

#[test]
fn what_a_client_says_without_end_is_told_elsewhere_a_few_times_a_second() {
    let (mut call, [anna, bert, ..]) = people(2);
    let camera = call.publish(anna, Medium::simulcast("camera"));
    call.run(1000);
    call.post.words.clear();
    for turn in 0..200 {
        let allowed = (turn % 2 == 0).then(Vec::new);
        call.ask(anna, Request::Restrict(allowed));
        let track = camera.clone();
        let muted = turn % 2 == 0;
        call.ask(anna, Request::Mute { track, muted });
        call.want(bert, &camera, |it| {
            it.quality = [Quality::Low, Quality::High][turn % 2];
        });
        call.run(5);
    }
    let said = |word: &str| call.post.words.iter().filter(|it| *it == word).count();
    for word in ["Present", "Demand", "KeyFrame", "Clock"] {
        assert!(said(word) <= 12, "{word}: {}", said(word));
    }
    assert!(said("Present") >= 4, "but it is told");
}

#[test]
fn media_that_is_lost_between_parts_comes_again() {
    let (mut call, [anna, bert, carl, _]) = people(2);
    let camera = call.publish(anna, Medium::camera("camera"));
    call.run(1000);
    call.post.lossy = true;
    let before = [bert, carl].map(|who| call[who].received_of(&camera).len());
    call.run(300);
    let after = [bert, carl].map(|who| call[who].received_of(&camera).len());
    assert!(after[0] == before[0] && after[1] > before[1]);
    call.post.lossy = false;
    call.run(1500);
    let received = call[bert].received_of(&camera).len() - after[0];
    assert!(received > 40, "{received}");
}

#[test]
fn everybody_goes_with_a_room_that_is_deleted() {
    let (mut call, people) = people(3);
    assert_eq!(ask(&mut call, RoomRequest::Delete), Ok(Fact::Done));
    for who in people {
        assert_eq!(call[who].departure(), Some(LeaveReason::RoomDeleted));
    }
    let counters = call.counters();
    assert_eq!((counters.rooms, counters.branches), (0, 0));
    assert_eq!(call.closed.len(), 1);
    let again = call.enter("bert");
    assert_eq!(call[again].departure(), None);
}

#[test]
fn a_branch_that_cant_be_reached_ends_and_the_rest_goes_on() {
    let (mut call, [anna, bert, carl, dora]) = people(2);
    let camera = call.publish(anna, Medium::camera("camera"));
    call.post.blocked = Some((0, 1));
    // Its home has something to say that can't be.
    let microphone = call.publish(anna, Medium::microphone("microphone"));
    call.run(500);
    assert_eq!(call[bert].departure(), None, "it doesn't know yet");
    let gone = call[carl]
        .notices
        .iter()
        .filter(|notice| matches!(notice, Notice::Participant(info) if info.left.is_some()));
    assert_eq!(gone.count(), 2);
    call.post.blocked = None;
    call.ask(
        bert,
        Request::Mute {
            track: microphone.clone(),
            muted: true,
        },
    );
    call.publish(dora, Medium::camera("own"));
    call.run(500);
    for who in [bert, dora] {
        assert_eq!(call[who].departure(), Some(LeaveReason::Internal));
    }
    let before = call[carl].received_of(&camera).len();
    call.run(500);
    assert!(call[carl].received_of(&camera).len() > before + 5);
    let again = call.enter("bert");
    call.run(1000);
    assert!(!call[again].received_of(&camera).is_empty());
}

#[test]
fn a_home_that_cant_be_reached_ends_the_branch() {
    let (mut call, [anna, bert, carl, _]) = people(2);
    call.post.blocked = Some((1, 0));
    call.publish(bert, Medium::camera("camera"));
    call.run(500);
    assert_eq!(call[bert].departure(), Some(LeaveReason::Internal));
    call.post.blocked = None;
    let camera = call.publish(anna, Medium::camera("camera"));
    call.run(1000);
    assert!(!call[carl].received_of(&camera).is_empty());
    let counters = call.counters();
    assert_eq!((counters.participants, counters.branches), (2, 0));
    let gone = call[carl]
        .notices
        .iter()
        .filter(|notice| matches!(notice, Notice::Participant(info) if info.left.is_some()));
    assert_eq!(gone.count(), 2, "the home has learned of it");
}

#[test]
fn what_brings_a_subscriber_elsewhere_down_ends_its_publisher() {
    let (mut call, [anna, bert, carl, dora]) = people(2);
    call.publish(anna, Medium::microphone("microphone"));
    let camera = call.publish(dora, Medium::camera("camera"));
    call.run(500);
    call[dora].medium("camera").held = true;
    call.run(100);
    fault::arm(Point::Forward, "bert");
    call.run(100);
    call[dora].medium("camera").held = false;
    let departures = [anna, bert, carl, dora].map(|who| call[who].departure());
    let fault = Some(LeaveReason::Internal);
    assert_eq!(departures, [fault, None, None, None]);
    assert_eq!(call.counters().peer_panics, 1);
    let before = [bert, carl].map(|who| call[who].received_of(&camera).len());
    call.run(500);
    let after = [bert, carl].map(|who| call[who].received_of(&camera).len());
    assert!(after[0] > before[0] + 5 && after[1] > before[1] + 5);
}

#[test]
fn home_says_which_worker_has_somebody_and_counts_all() {
    let (mut call, people) = people(3);
    let locate = |call: &mut Call, who: &str| ask(call, RoomRequest::Locate(who.into()));
    for (number, who) in ["anna", "bert", "carl", "dora"].into_iter().enumerate() {
        let worker = WorkerId(number as u16 % 3);
        assert_eq!(locate(&mut call, who), Ok(Fact::Worker(worker)));
    }
    let missing = Err(RoomRefusal::ParticipantMissing);
    assert_eq!(locate(&mut call, "emil"), missing);
    let Ok(Fact::Room(room)) = ask(&mut call, RoomRequest::Describe) else {
        panic!("no room");
    };
    assert_eq!((room.participants, room.publishers), (4, 0));
    let camera = call.publish(people[2], Medium::simulcast("camera"));
    call.run(1500);
    let Ok(Fact::Media(facts)) = ask(&mut call, RoomRequest::Measure) else {
        panic!("no facts");
    };
    assert_eq!(facts.legs.len(), 4);
    let [track] = &facts.tracks[..] else {
        panic!("{:?}", facts.tracks);
    };
    assert_eq!(track.sid, camera);
    assert_eq!(track.publisher, "carl".into());
    assert_eq!(track.encodings[0].subscribers, 3);
    assert!(track.encodings[0].layers[2].bitrate > crate::units::Bitrate::ZERO);
}

#[test]
fn a_branch_that_ends_while_it_is_asked_has_no_answer() {
    let (mut call, [_, bert, ..]) = people(2);
    call.post.delay = 4;
    let before = call.answers.len();
    for request in [
        RoomRequest::Participant("bert".into()),
        RoomRequest::Measure,
    ] {
        call.question(request);
        for who in [bert, Who(3)] {
            call.ask(who, Request::Leave);
        }
        call.run(500);
    }
    assert_eq!(call.answers.len(), before + 2, "{:?}", call.answers);
    // Nor does one whose home ends meanwhile.
    let (mut call, _) = people(2);
    call.post.delay = 4;
    for request in [
        RoomRequest::Participant("bert".into()),
        RoomRequest::Measure,
        RoomRequest::Delete,
    ] {
        call.question(request);
    }
    call.run(500);
    assert_eq!(call.answers.len(), 3, "{:?}", call.answers);
}

#[test]
fn options_hold_in_all_parts() {
    let (mut call, [anna, bert, ..]) = people(2);
    let options = RoomOptions {
        participants_max: Some(4),
        metadata: Some("agenda".to_owned()),
        ..RoomOptions::default()
    };
    let created = ask(&mut call, RoomRequest::Create(options));
    assert!(matches!(created, Ok(Fact::Room(_))));
    for who in [anna, bert] {
        let told = call[who].notices.iter().rev();
        let mut rooms = told.filter_map(|notice| match notice {
            Notice::Room(info) => Some(info.clone()),
            _ => None,
        });
        assert_eq!(&*rooms.next().expect("told").metadata, "agenda");
    }
    let mut late = Vec::new();
    for _ in 0..2 {
        late.push(call.join_as("late", |_| {}));
        call.run(100);
    }
    let full = Notice::Refused(message::Refusal::RoomFull);
    for who in late {
        assert!(call[who].notices.contains(&full), "in either part");
    }
}

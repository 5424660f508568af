//! What people are told in a call, as far as it takes long: minutes of virtual time.

use super::call::Call;
use super::track::Medium;
use crate::ids::TrackSid;
use crate::media::message::{ConnectionQuality, Notice, Quality, Request};

#[test]
fn a_track_that_never_comes_is_given_up_after_a_minute() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    let microphone = call.publish(anna, Medium::microphone("microphone"));
    let [wrong, dropped] = ["TR_wrong", "TR_dropped"].map(TrackSid::from);
    for sid in [&wrong, &dropped, &microphone] {
        call.subscribe(bert, sid, true);
    }
    call.subscribe(bert, &dropped, false);
    let missing = |call: &Call| -> Vec<TrackSid> {
        let notices = call[bert].notices.iter();
        let missing = notices.filter_map(|notice| match notice {
            Notice::TrackMissing(sid) => Some(sid.clone()),
            _ => None,
        });
        missing.collect()
    };
    call.run(59_000);
    assert_eq!(missing(&call), []);
    call.run(61_000);
    assert_eq!(missing(&call), [wrong], "said once");
}

/// Bert's client makes no more sections than it began with: three for video.
#[test]
fn a_track_without_a_section_is_told_after_a_while_and_comes_yet() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    for cid in ["1", "2", "3"] {
        call.publish(anna, Medium::camera(cid));
    }
    call[bert].obliging = false;
    let fourth = call.publish(anna, Medium::camera("4"));
    let failed = |call: &Call| -> Vec<TrackSid> {
        let notices = call[bert].notices.iter();
        let failed = notices.filter_map(|notice| match notice {
            Notice::SubscriptionFailed(sid) => Some(sid.clone()),
            _ => None,
        });
        failed.collect()
    };
    call.run(14_000);
    assert_eq!(failed(&call), []);
    call.run(20_000);
    assert_eq!(failed(&call), std::slice::from_ref(&fourth), "said once");
    assert!(call[bert].received_of(&fourth).is_empty());
    // While signalling is away nothing can be done about it; a new try has as long.
    call.close_signalling(bert);
    call.run(1_000);
    call.resume(bert);
    call.run(14_000);
    assert_eq!(failed(&call).len(), 1);
    call.run(2_000);
    assert_eq!(failed(&call).len(), 2);
    call[bert].oblige();
    call.run(1_000);
    assert!(!call[bert].received_of(&fourth).is_empty());
}

#[test]
fn a_publisher_without_an_audience_is_told_to_rest_until_somebody_comes() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    let camera = call.publish(anna, Medium::camera("camera"));
    let demands = |call: &Call| -> Vec<Option<Quality>> {
        let notices = call[anna].notices.iter();
        let demands = notices.filter_map(|notice| match notice {
            Notice::Demand { track, codecs } if *track == camera => Some(codecs[0].1),
            _ => None,
        });
        demands.collect()
    };
    call.run(4_000);
    assert_eq!(demands(&call), []);
    call.run(2_000);
    assert_eq!(demands(&call), [None]);
    let bert = call.enter("bert");
    assert_eq!(demands(&call), [None, Some(Quality::High)]);
    call.vanish(bert);
    call.close_signalling(bert);
    call.run(20_000);
    assert_eq!(demands(&call), [None, Some(Quality::High), None]);
}

#[test]
fn how_many_are_here_is_told_at_most_every_five_seconds_and_at_last() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    let told = |call: &Call| -> Vec<(u32, u32)> {
        let notices = call[anna].notices.iter();
        let rooms = notices.filter_map(|notice| match notice {
            Notice::Room(info) => Some((info.participants, info.publishers)),
            _ => None,
        });
        rooms.collect()
    };
    let guest = call.enter("bert");
    call.publish(guest, Medium::camera("camera"));
    call.enter_as("eve", |join| join.permissions.hidden = true);
    assert_eq!(told(&call), [], "not at once");
    call.run(6_000);
    assert_eq!(told(&call), [(2, 1)]);
    call.run(20_000);
    assert_eq!(told(&call), [(2, 1)], "nothing changed");
    // Every second somebody comes, and goes in the next.
    for _ in 0..6 {
        let carl = call.enter("carl");
        call.run(1_000);
        call.ask(carl, Request::Leave);
        call.run(1_000);
    }
    let count = told(&call).len() - 1;
    assert!((2..=3).contains(&count), "{count} in 12 seconds");
    call[guest].unpublish("camera");
    call.run(6_000);
    assert_eq!(told(&call).pop(), Some((2, 0)));
    call.ask(guest, Request::Leave);
    call.run(6_000);
    assert_eq!(told(&call).pop(), Some((1, 0)));
}

#[test]
fn a_connection_without_faults_is_excellent_and_a_lossy_one_is_not() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    call.publish(anna, Medium::microphone("microphone"));
    let last = |call: &Call, of: super::call::Who| {
        let sid = call[of].notices.iter().find_map(|notice| match notice {
            Notice::Joined(joined) => Some(joined.participant.sid.clone()),
            _ => None,
        });
        let notices = call[bert].notices.iter().rev();
        let mut updates = notices.filter_map(|notice| match notice {
            Notice::Qualities(updates) => updates
                .iter()
                .find(|update| Some(&update.participant) == sid.as_ref()),
            _ => None,
        });
        updates.next().map(|update| update.quality)
    };
    call.run(11_000);
    assert_eq!(last(&call, anna), Some(ConnectionQuality::Excellent));
    assert_eq!(last(&call, bert), Some(ConnectionQuality::Excellent));
    call.weather.up = 40;
    call.run(11_000);
    assert_eq!(last(&call, anna), Some(ConnectionQuality::Poor));
    assert_eq!(last(&call, bert), Some(ConnectionQuality::Excellent));
    call.weather.up = 0;
    call.run(11_000);
    assert_eq!(last(&call, anna), Some(ConnectionQuality::Excellent));
    call.vanish(anna);
    call.run(14_000);
    assert_eq!(last(&call, anna), Some(ConnectionQuality::Lost));
}

#[test]
fn whoever_toggles_a_mute_all_the_time_is_told_of_a_few_times_a_second() {
    let mut call = Call::new();
    let (anna, ben) = (call.enter("anna"), call.enter("ben"));
    let track = call.publish(anna, Medium::microphone("voice"));
    call.until(|call| !call[ben].received_of(&track).is_empty());
    call.run(1000);
    let before = call[ben].notices.len();
    for toggle in 0..201 {
        let muted = toggle % 2 == 0;
        let track = track.clone();
        call.ask(anna, Request::Mute { track, muted });
        call.run(5);
    }
    call.run(500);
    let told = call[ben].notices[before..].iter();
    let told: Vec<_> = told
        .filter_map(|notice| match notice {
            Notice::Participant(info) => Some(info.tracks[0].announced.muted),
            _ => None,
        })
        .collect();
    assert!((5..=9).contains(&told.len()), "{told:?}");
    assert_eq!(told.first(), Some(&true), "at once");
    assert_eq!(told.last(), Some(&true), "and how it ended");
}

#[test]
fn what_somebody_wants_while_its_publisher_is_away_is_said_when_it_comes_back() {
    let mut call = Call::new();
    let (anna, ben) = (call.enter("anna"), call.enter("ben"));
    let track = call.publish(anna, Medium::simulcast("camera"));
    call.until(|call| !call[ben].received_of(&track).is_empty());
    call.want(ben, &track, |settings| settings.disabled = true);
    call.run(6000);
    let demand = |notice: &Notice| match notice {
        Notice::Demand { codecs, .. } => Some(codecs[0].1),
        _ => None,
    };
    let demands = |call: &Call, from: usize| -> Vec<Option<Quality>> {
        let notices = call[anna].notices[from..].iter();
        notices.filter_map(demand).collect()
    };
    assert_eq!(demands(&call, 0).last(), Some(&None), "nobody wants it");
    call.close_signalling(anna);
    call.want(ben, &track, |settings| settings.disabled = false);
    call.run(200);
    let before = call[anna].notices.len();
    call.resume(anna);
    call.run(200);
    assert_eq!(demands(&call, before), [Some(Quality::High)]);
}

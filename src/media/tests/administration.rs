//! What operators and their programs do to rooms, and what rooms report.

use std::time::Duration;

use super::call::{Call, Who};
use crate::media::message::administration::{
    Answer, Event, Fact, Happened, Profile, ProfileRefusal, RoomOptions, RoomRefusal, RoomRequest,
};
use crate::media::message::facts::RoomFacts;
use crate::media::message::{
    LeaveReason, Notice, ParticipantState, Quality, Request, TrackSettings,
};

use super::track::Medium;

impl Call {
    /// Asks the room of all tests.
    fn ask_room(&mut self, request: RoomRequest) -> Answer {
        let ticket = self.question(request);
        self.step();
        let (answered, answer) = self.answers.last().expect("an answer at once");
        assert_eq!(*answered, ticket);
        answer.clone()
    }

    fn measure(&mut self) -> RoomFacts {
        match self.ask_room(RoomRequest::Measure) {
            Ok(Fact::Media(facts)) => *facts,
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, change: impl FnOnce(&mut RoomOptions)) -> Answer {
        let mut options = RoomOptions::default();
        change(&mut options);
        self.ask_room(RoomRequest::Create(options))
    }
}

fn seconds(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count))
}

fn room(answer: &Answer) -> (&str, u32, Duration, &str) {
    match answer {
        Ok(Fact::Room(info)) => (
            info.sid.as_str(),
            info.participants_max,
            info.departure_timeout,
            &info.metadata,
        ),
        other => panic!("{other:?}"),
    }
}

fn names(events: &[Event]) -> Vec<&'static str> {
    let name = |event: &Event| match event.happened {
        Happened::RoomStarted => "started",
        Happened::RoomFinished => "finished",
        Happened::ParticipantJoined(_) => "joined",
        Happened::ParticipantLeft(_) => "left",
        Happened::ParticipantAborted(_) => "aborted",
        Happened::TrackPublished(..) => "published",
        Happened::TrackUnpublished(..) => "unpublished",
    };
    events.iter().map(name).collect()
}

#[test]
fn a_created_room_waits_for_its_first_participant() {
    let mut call = Call::new();
    let first = call.create(|options| options.empty_timeout = seconds(2));
    let again = call.create(|options| {
        options.participants_max = Some(1);
        options.metadata = Some("agenda".to_owned());
    });
    assert_eq!(room(&first).0, room(&again).0, "one room");
    assert_eq!(room(&again).1, 1);
    assert_eq!(room(&again).3, "agenda");
    assert_eq!(call.ask_room(RoomRequest::Describe), again);
    call.run(1500);
    assert!(call.closed.is_empty());
    call.run(1000);
    assert_eq!(call.closed.len(), 1);
    let missing = Err(RoomRefusal::RoomMissing);
    assert_eq!(call.ask_room(RoomRequest::Describe), missing);
    assert_eq!(names(&call.events), ["started", "finished"]);
}

#[test]
fn a_room_outlives_its_last_participant_as_long_as_it_was_told() {
    let mut call = Call::new();
    let created = call.create(|options| {
        options.empty_timeout = seconds(60);
        options.departure_timeout = seconds(5);
        options.participants_max = Some(1);
    });
    assert_eq!(room(&created).2, Duration::from_secs(5));
    let anna = call.enter("anna");
    let ben = call.join_as("ben", |_| {});
    call.run(100);
    assert!(call[ben].left(), "there is only room for one");
    call.run(10_000);
    assert!(call.closed.is_empty(), "somebody is there");
    call.ask(anna, Request::Leave);
    call.run(4500);
    assert!(call.closed.is_empty());
    call.run(1000);
    assert_eq!(call.closed.len(), 1);
}

#[test]
fn events_come_in_their_order_and_tell_who_never_connected() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    let track = call.publish(anna, Medium::microphone("voice"));
    let ben = call.join_as("ben", |_| {});
    call.close_signalling(ben);
    call.run(100);
    let order = ["started", "joined", "published", "aborted"];
    assert_eq!(names(&call.events), order);
    assert!(call.ask_room(RoomRequest::Delete) == Ok(Fact::Done));
    assert_eq!(call[anna].departure(), Some(LeaveReason::RoomDeleted));
    let events = &call.events[order.len()..];
    assert_eq!(names(events), ["unpublished", "left", "finished"]);
    match &events[0].happened {
        Happened::TrackUnpublished(_, ended) => assert_eq!(ended.sid, track),
        other => panic!("{other:?}"),
    }
    match &events[1].happened {
        Happened::ParticipantLeft(who) => {
            assert_eq!(who.left, Some(LeaveReason::RoomDeleted));
            assert_eq!(who.state, ParticipantState::Disconnected);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn removed_means_told_and_gone() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    let remove = || RoomRequest::Remove("anna".into());
    assert_eq!(call.ask_room(remove()), Ok(Fact::Done));
    assert_eq!(
        call[anna].departure(),
        Some(LeaveReason::ParticipantRemoved)
    );
    assert_eq!(
        call.ask_room(remove()),
        Err(RoomRefusal::ParticipantMissing)
    );
}

/// Changes what anna may do.
fn permit(call: &mut Call, change: impl FnOnce(&mut crate::media::message::Permissions)) {
    let Ok(Fact::Participant(info)) = call.ask_room(RoomRequest::Participant("anna".into())) else {
        panic!("anna is there");
    };
    let mut permissions = info.permissions.clone();
    change(&mut permissions);
    let answer = call.ask_room(RoomRequest::Change {
        participant: "anna".into(),
        profile: Profile::default(),
        permissions: Some(permissions.clone()),
    });
    match answer {
        Ok(Fact::Participant(info)) => assert_eq!(info.permissions, permissions),
        other => panic!("{other:?}"),
    }
}

fn told(call: &Call, who: Who, wanted: impl Fn(&Notice) -> bool) -> bool {
    call[who].notices.iter().any(wanted)
}

#[test]
fn who_may_no_longer_publish_has_no_tracks() {
    let mut call = Call::new();
    let (anna, ben) = (call.enter("anna"), call.enter("ben"));
    let track = call.publish(anna, Medium::microphone("voice"));
    call.until(|call| !call[ben].received_of(&track).is_empty());
    permit(&mut call, |may| may.publish = false);
    assert!(told(&call, anna, |notice| *notice
        == Notice::TrackUnpublished(track.clone())));
    call.run(500);
    let heard = call[ben].received_of(&track).len();
    call.run(500);
    assert_eq!(call[ben].received_of(&track).len(), heard);
    let seen = |notice: &Notice| {
        matches!(notice, Notice::Participant(info)
        if info.identity.as_str() == "anna" && info.tracks.is_empty() && !info.permissions.publish)
    };
    assert!(told(&call, ben, seen) && told(&call, anna, seen));
}

#[test]
fn who_may_subscribe_again_hears_again() {
    let mut call = Call::new();
    let (anna, ben) = (call.enter("anna"), call.enter("ben"));
    let track = call.publish(ben, Medium::microphone("voice"));
    call.until(|call| !call[anna].received_of(&track).is_empty());
    permit(&mut call, |may| may.subscribe = false);
    call.run(500);
    let heard = call[anna].received_of(&track).len();
    call.run(500);
    assert_eq!(call[anna].received_of(&track).len(), heard);
    permit(&mut call, |may| may.subscribe = true);
    call.until(|call| call[anna].received_of(&track).len() > heard);
}

#[test]
fn the_hidden_are_gone_for_the_others_until_they_show_themselves() {
    let mut call = Call::new();
    let (anna, ben) = (call.enter("anna"), call.enter("ben"));
    let track = call.publish(anna, Medium::microphone("voice"));
    call.until(|call| !call[ben].received_of(&track).is_empty());
    permit(&mut call, |may| may.hidden = true);
    let vanished = |notice: &Notice| {
        matches!(notice, Notice::Participant(info)
        if info.identity.as_str() == "anna" && info.state == ParticipantState::Disconnected)
    };
    assert!(told(&call, ben, vanished) && !told(&call, anna, vanished));
    call.run(500);
    let heard = call[ben].received_of(&track).len();
    call.run(500);
    assert_eq!(call[ben].received_of(&track).len(), heard);
    permit(&mut call, |may| may.hidden = false);
    call.until(|call| call[ben].received_of(&track).len() > heard);
}

#[test]
fn a_profile_is_bounded_with_what_is_there_already() {
    let mut call = Call::with_limits(|limits| limits.attributes_bytes = 10);
    call.enter("anna");
    let mut set = |key: &str, value: &str| {
        let profile = Profile {
            attributes: [(key.to_owned(), value.to_owned())].into(),
            ..Profile::default()
        };
        call.ask_room(RoomRequest::Change {
            participant: "anna".into(),
            profile,
            permissions: None,
        })
    };
    assert!(set("a", "12345678").is_ok());
    let over = RoomRefusal::Profile(ProfileRefusal::AttributesTooLong);
    assert_eq!(set("b", "1"), Err(over));
    assert!(set("a", "").is_ok());
    assert!(set("b", "1").is_ok());
}

#[test]
fn a_room_says_what_comes_in_and_goes_out_and_what_is_chosen() {
    let mut call = Call::new();
    let (anna, ben) = (call.enter("anna"), call.enter("ben"));
    let track = call.publish(anna, Medium::simulcast("camera"));
    call.until(|call| !call[ben].received_of(&track).is_empty());
    call.run(3000);
    let facts = call.measure();
    let [published] = &facts.tracks[..] else {
        panic!("{facts:?}");
    };
    let [encoding] = &published.encodings[..] else {
        panic!("{published:?}");
    };
    assert_eq!((&published.sid, encoding.subscribers), (&track, 1));
    let rates = encoding.layers.iter().map(|layer| layer.bitrate.as_bps());
    assert!(rates.clone().all(|rate| rate > 0) && rates.len() == 3);
    assert!(encoding.layers.iter().all(|layer| layer.rid.is_some()));
    let leg = facts
        .legs
        .iter()
        .find(|leg| leg.participant == "ben".into());
    let leg = leg.expect("ben is there");
    assert!(leg.connected && leg.estimate.as_bps() > 0);
    let [subscription] = &leg.subscriptions[..] else {
        panic!("{leg:?}");
    };
    assert!(subscription.packets > 0 && subscription.mid.is_some());
    assert_eq!(subscription.wanted, 2);

    let mut settings = TrackSettings::initial(false);
    settings.quality = Quality::Low;
    let adjust = RoomRequest::Adjust {
        participant: "ben".into(),
        tracks: vec![track.clone()],
        settings,
    };
    assert_eq!(call.ask_room(adjust), Ok(Fact::Done));
    call.run(2000);
    let facts = call.measure();
    let subscriptions = facts.legs.iter().flat_map(|leg| &leg.subscriptions);
    let layers: Vec<_> = subscriptions.map(|it| (it.wanted, it.forwarded)).collect();
    assert_eq!(layers, [(0, Some(0))]);
}

/// Else a client that goes by the answer says its old name again with the next change.
#[test]
fn who_changes_its_profile_sees_it_before_the_answer() {
    let mut call = Call::new();
    let anna = call.enter_as("anna", |join| join.permissions.update_metadata = true);
    let profile = Box::new(Profile {
        name: Some("Anna A.".to_owned()),
        ..Profile::default()
    });
    call[anna].notices.clear();
    let request_id = 7;
    let request = Request::UpdateProfile {
        request_id,
        profile: profile.clone(),
    };
    call.ask(anna, request);
    let [Notice::Participant(info), answer] = call[anna].notices.as_slice() else {
        panic!("{:?}", call[anna].notices);
    };
    assert_eq!(
        (info.identity.as_str(), info.name.as_str()),
        ("anna", "Anna A.")
    );
    let result = Ok(());
    let expected = Notice::ProfileAnswer {
        request_id,
        profile,
        result,
    };
    assert_eq!(*answer, expected);
}

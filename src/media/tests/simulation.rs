//! Faults that clients ask for, and what is easily seen by their help: video that pauses.

use super::call::{Call, Who};
use super::track::Medium;
use crate::media::message::{
    BreakOff, Notice, Request, Simulation, Speaker, StreamState, StreamUpdate,
};
use crate::units::Bitrate;

fn limit(call: &mut Call, who: Who, limit: Option<Bitrate>) {
    call.ask(who, Request::Simulate(Simulation::Bandwidth(limit)));
}

fn flows(call: &Call, who: Who) -> Vec<&StreamUpdate> {
    let notices = call[who].notices.iter();
    let updates = notices.filter_map(|notice| match notice {
        Notice::StreamStates(updates) => Some(updates),
        _ => None,
    });
    updates.flatten().collect()
}

#[test]
fn a_video_pauses_and_returns_while_voices_and_what_nobody_wants_are_not_spoken_of() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    let bert = call.enter_as("bert", |join| join.may_pause = Some(true));
    let carl = call.enter("carl");
    let camera = call.publish(anna, Medium::camera("camera"));
    let hidden = call.publish(anna, Medium::camera("hidden"));
    let muted = call.publish(anna, Medium::camera("muted"));
    let voice = call.publish(anna, Medium::microphone("microphone"));
    call.want(bert, &hidden, |settings| settings.disabled = true);
    let request = Request::Mute {
        track: muted.clone(),
        muted: true,
    };
    call.ask(anna, request);
    call.run(2_000);
    for who in [bert, carl] {
        limit(&mut call, who, Some(Bitrate::kbps(20)));
    }
    call.run(100);
    let told = flows(&call, bert);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0].track, told[0].state),
        (&camera, StreamState::Paused)
    );
    let seen = |call: &Call, who: Who| call[who].received_of(&camera).len();
    let heard = |call: &Call| call[bert].received_of(&voice).len();
    let before = (seen(&call, bert), seen(&call, carl), heard(&call));
    call.run(3_000);
    assert_eq!(seen(&call, bert), before.0);
    assert!(
        seen(&call, carl) > before.1 + 50,
        "he has a picture all the same"
    );
    assert!(heard(&call) > before.2 + 100);
    // A client that was away is told what holds.
    call.close_signalling(bert);
    call.resume(bert);
    let told = flows(&call, bert);
    assert_eq!((told.len(), told[1].state), (2, StreamState::Paused));
    limit(&mut call, bert, None);
    call.run(1_000);
    let told = flows(&call, bert);
    assert_eq!((told.len(), told[2].state), (3, StreamState::Active));
    assert!(seen(&call, bert) > before.0);
    assert_eq!(flows(&call, carl), Vec::<&StreamUpdate>::new());
    assert_eq!(call.counters().pauses, 1);
}

#[test]
fn simulated_speech_is_told_to_who_hears_it_and_ends() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    call.publish(anna, Medium::camera("camera"));
    let levels = |call: &Call, who: Who| -> Vec<u8> {
        let notices = call[who].notices.iter();
        let speakers = notices.filter_map(|notice| match notice {
            Notice::Speakers(speakers) => Some(speakers),
            _ => None,
        });
        speakers
            .flatten()
            .map(|Speaker { level, .. }| *level)
            .collect()
    };
    let span = std::time::Duration::from_secs(2);
    call.ask(anna, Request::Simulate(Simulation::Speech(span)));
    call.run(1_000);
    for who in [anna, bert] {
        assert_eq!(levels(&call, who), [7]);
    }
    call.run(2_000);
    for who in [anna, bert] {
        assert_eq!(levels(&call, who), [7, 0]);
    }
}

#[test]
fn one_resume_breaks_off_and_the_next_does_not() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    let what = Simulation::BreakOff(BreakOff::Silent);
    call.ask(anna, Request::Simulate(what));
    for _ in 0..2 {
        call.close_signalling(anna);
        call.resume(anna);
        call.run(500);
    }
    let notices = call[anna].notices.iter();
    let resumes = notices.filter_map(|notice| match notice {
        Notice::Resumed(resumed) => Some(resumed.break_off),
        _ => None,
    });
    assert_eq!(resumes.collect::<Vec<_>>(), [Some(BreakOff::Silent), None]);
}

//! Stays whose signalling breaks, and data messages through all of it.

use livekit_protocol as proto;
use prost::Message as _;
use proto::data_packet::Value;

use super::call::{Call, Who};
use super::track::Medium;
use crate::media::counters::Dropped;
use crate::media::message::{LeaveReason, Notice, Request, Resumed, SignalEnd, Sync};

fn message(sequence: u32, to: &[&str]) -> Vec<u8> {
    let packet = proto::DataPacket {
        sequence,
        destination_identities: to.iter().map(|who| (*who).to_owned()).collect(),
        value: Some(Value::ChatMessage(proto::ChatMessage {
            message: sequence.to_string(),
            ..Default::default()
        })),
        ..Default::default()
    };
    packet.encode_to_vec()
}

/// What came, as sender and number.
fn mail(call: &Call, who: Who) -> Vec<(String, u32)> {
    let packets = call[who].mail.iter().map(|bytes| {
        let packet = proto::DataPacket::decode(bytes.as_slice()).expect("a message");
        (packet.participant_identity, packet.sequence)
    });
    packets.collect()
}

fn numbers(call: &Call, who: Who) -> Vec<u32> {
    mail(call, who)
        .into_iter()
        .map(|(_, number)| number)
        .collect()
}

fn resumed(call: &Call, who: Who) -> &Resumed {
    let found = call[who]
        .notices
        .iter()
        .rev()
        .find_map(|notice| match notice {
            Notice::Resumed(resumed) => Some(&**resumed),
            _ => None,
        });
    found.expect("it was resumed")
}

fn dropped(call: &Call, reason: Dropped) -> u64 {
    call.counters().dropped[reason as usize]
}

fn send(call: &mut Call, who: Who, bytes: &[u8]) {
    assert!(call[who].say("_reliable", bytes), "its channel is open");
}

#[test]
fn messages_reach_whom_they_are_for_and_never_come_back() {
    let mut call = Call::new();
    let [anna, bert, carl] = ["anna", "bert", "carl"].map(|who| call.enter(who));
    call.run(300);
    send(&mut call, anna, &message(1, &[]));
    send(&mut call, anna, &message(2, &["carl", "nobody"]));
    send(&mut call, anna, &message(2, &[]));
    call.run(300);
    let from_anna = |number| ("anna".to_owned(), number);
    assert_eq!(mail(&call, bert), [from_anna(1)]);
    assert_eq!(mail(&call, carl), [from_anna(1), from_anna(2)]);
    assert!(call[anna].mail.is_empty());
    assert_eq!(dropped(&call, Dropped::DataRepeated), 1);
    assert!(call[bert].say("_lossy", &message(0, &[])));
    call.run(300);
    assert_eq!(mail(&call, anna), [("bert".to_owned(), 0)]);
}

#[test]
fn what_must_not_be_sent_is_dropped_and_counted() {
    let mut call = Call::with_limits(|limits| limits.data_messages_per_second = 3);
    let mute = call.enter_as("mute", |join| join.permissions.publish_data = false);
    let [anna, bert] = ["anna", "bert"].map(|who| call.enter(who));
    call.run(300);
    send(&mut call, mute, &message(1, &[]));
    send(&mut call, anna, b"\x07");
    let metrics = proto::DataPacket {
        value: Some(Value::Metrics(Default::default())),
        ..Default::default()
    };
    send(&mut call, anna, &metrics.encode_to_vec());
    send(&mut call, anna, &vec![0; 66_000]);
    send(&mut call, anna, &message(1, &[]));
    call.run(300);
    assert!(call[bert].mail.is_empty());
    let reasons = [
        (Dropped::DataNotAllowed, 1),
        (Dropped::DataMalformed, 2),
        (Dropped::DataPrivate, 1),
        (Dropped::DataRate, 1),
    ];
    for (reason, times) in reasons {
        assert_eq!(dropped(&call, reason), times, "{reason:?}");
    }
}

#[test]
fn a_receiver_that_hears_nothing_fills_only_its_own_queue() {
    let mut call = Call::with_limits(|limits| limits.data_queue_bytes = 300_000);
    let [anna, bert, carl] = ["anna", "bert", "carl"].map(|who| call.enter(who));
    call.run(300);
    call.vanish(bert);
    let large = proto::DataPacket {
        value: Some(Value::User(proto::UserPacket {
            payload: vec![7; 30_000],
            ..Default::default()
        })),
        ..Default::default()
    };
    for _ in 0..40 {
        send(&mut call, anna, &large.encode_to_vec());
        call.run(100);
    }
    call.run(1000);
    assert_eq!(call[carl].mail.len(), 40);
    assert!(dropped(&call, Dropped::DataQueueFull) > 10);
}

#[test]
fn a_joiner_gets_what_was_said_before_its_channel_opened() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    call.run(300);
    let bert = call.join_as("bert", |_| {});
    send(&mut call, anna, &message(1, &[]));
    call.run(100);
    call[bert].offer();
    call.run(1000);
    assert_eq!(numbers(&call, bert), [1]);
}

#[test]
fn a_stay_is_taken_up_again_with_all_that_belongs_to_it() {
    let mut call = Call::new();
    let [anna, bert, carl] = ["anna", "bert", "carl"].map(|who| call.enter(who));
    for who in [anna, bert] {
        call.publish(who, Medium::camera("camera"));
    }
    call.run(500);
    send(&mut call, anna, &message(41, &[]));
    call.run(100);
    call.close_signalling(anna);
    call.ask(carl, Request::Leave);
    call.run(3000);
    call.resume(anna);
    let resumed = resumed(&call, anna);
    assert_eq!(resumed.last_sequence, 41);
    let gone: Vec<_> = resumed
        .gone
        .iter()
        .map(|info| info.identity.as_str())
        .collect();
    assert_eq!(gone, ["carl"]);
    assert_eq!(resumed.others.len(), 1);
    assert_eq!(resumed.participant.tracks.len(), 1);
    call.run(1000);
    for (from, to) in [(anna, bert), (bert, anna)] {
        let track = call[from].published("camera").expect("it is published");
        let before = call[to].received_of(&track).len();
        call.run(300);
        assert!(call[to].received_of(&track).len() > before + 5);
    }
    let told = call[bert].notices.iter().any(|notice| match notice {
        Notice::Participant(info) => info.identity.as_str() == "anna" && info.left.is_some(),
        _ => false,
    });
    assert!(!told, "nobody saw anna leave");
    assert_eq!(call.counters().resumes, 1);
}

#[test]
fn messages_said_while_a_client_is_away_come_once_and_in_order() {
    let mut call = Call::new();
    let [anna, bert] = ["anna", "bert"].map(|who| call.enter(who));
    call.run(300);
    call.close_signalling(bert);
    call[bert].silent = true;
    for number in 1..=30 {
        send(&mut call, anna, &message(number, &[]));
        call.run(100);
    }
    call[bert].silent = false;
    call.resume(bert);
    call.run(8000);
    assert_eq!(numbers(&call, bert), (1..=30).collect::<Vec<_>>());
}

#[test]
fn a_client_that_believes_in_another_track_joins_anew() {
    let mut call = Call::new();
    let [anna, bert] = ["anna", "bert"].map(|who| call.enter(who));
    call.publish(anna, Medium::camera("camera"));
    call.publish(bert, Medium::camera("camera"));
    call.run(500);
    let [own, other] = [anna, bert].map(|who| call[who].published("camera").expect("a track"));
    call.resume(anna);
    let sync = |published, disabled| {
        Request::Sync(Box::new(Sync {
            published,
            disabled,
            ..Sync::default()
        }))
    };
    call.ask(anna, sync(vec![own], vec![other.clone()]));
    call.run(500);
    let before = call[anna].received_of(&other).len();
    call.run(500);
    assert_eq!(
        call[anna].received_of(&other).len(),
        before,
        "it is disabled"
    );
    call.ask(anna, sync(vec!["TR_unknown".into()], vec![]));
    assert_eq!(call[anna].departure(), Some(LeaveReason::StateMismatch));
}

#[test]
fn lost_media_is_told_and_the_slow_rule_holds_for_who_did_not_hang_up() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    call.enter("bert");
    call.vanish(anna);
    call.run(14_500);
    let lost = |call: &Call| call[anna].notices.contains(&Notice::MediaLost);
    assert!(!lost(&call));
    call.run(1000);
    assert!(lost(&call));
    assert_eq!(call[anna].departure(), None);
    call.run(5000);
    assert_eq!(call[anna].departure(), Some(LeaveReason::ConnectionTimeout));
}

#[test]
fn a_connection_that_we_cut_leaves_the_client_time_to_come_back() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    call.end_signalling(anna, SignalEnd::ByUs);
    call.vanish(anna);
    call.run(19_000);
    assert_eq!(call[anna].departure(), None);
    call[anna].silent = false;
    call.resume(anna);
    call.run(10_000);
    assert_eq!(call[anna].departure(), None);
}

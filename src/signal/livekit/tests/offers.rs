//! Offers too large or too many, and the end of the worker that would have answered them.

use std::sync::atomic::Ordering::Relaxed;

use livekit_protocol as proto;
use proto::leave_request::Action;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message as Reply;

use crate::config::ByteSize;

use super::house::{Client, House, join_request, token, wrap};

fn offer(id: u32, sdp: String) -> proto::SessionDescription {
    proto::SessionDescription {
        id,
        sdp,
        ..Default::default()
    }
}

async fn farewell(client: &mut Client) -> proto::LeaveRequest {
    match client.read().await {
        Reply::Leave(leave) => leave,
        other => panic!("no leave but {other:?}"),
    }
}

#[tokio::test]
async fn an_offer_too_large_does_not_reach_the_shard() {
    let mut house = House::with(|config| config.limits.sdp_bytes = ByteSize(5000)).await;
    let mut client = house.joined().await;
    assert_eq!(house.hears().await, "join");
    client.say(Ask::Offer(offer(1, "v".repeat(5000)))).await;
    assert!(matches!(client.read().await, Reply::Answer(_)));
    assert_eq!(house.hears().await, "Offer");
    client.say(Ask::Offer(offer(2, "v".repeat(5001)))).await;
    let leave = farewell(&mut client).await;
    assert_eq!(leave.action(), Action::Reconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::StateMismatch);
    assert_eq!(client.close_code().await, 1000);
    assert_eq!(house.hears().await, "End", "the stay ends too");

    // The same with the offer in the URL.
    let mut request = join_request();
    request.publisher_offer = Some(offer(1, "v".repeat(5001)));
    let join = wrap(&request, true, true);
    let mut client = house.connect(&join, &token("anna")).await;
    assert!(matches!(client.read().await, Reply::Join(_)));
    assert!(matches!(client.read().await, Reply::RefreshToken(_)));
    assert_eq!(farewell(&mut client).await.action(), Action::Reconnect);
    assert_eq!(house.stats.oversized_offers.load(Relaxed), 2);
}

#[tokio::test]
async fn every_offer_is_answered_in_turn_whoever_is_in_a_hurry() {
    let house = House::new().await;
    let mut client = house.joined().await;
    let start = tokio::time::Instant::now();
    for id in 0..10 {
        client.say(Ask::Offer(offer(id, String::new()))).await;
    }
    for id in 0..10 {
        let Reply::Answer(answer) = client.read().await else {
            panic!("no answer");
        };
        assert_eq!(answer.id, id);
    }
    assert!(start.elapsed().as_millis() >= 300, "four are free, six pay");
}

#[tokio::test]
async fn clients_of_a_dead_worker_are_told_to_join_anew() {
    let house = House::new().await;
    let mut client = house.joined().await;
    house.worker.abort();
    let leave = farewell(&mut client).await;
    assert_eq!(leave.action(), Action::Reconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::ServerShutdown);
    assert_eq!(client.close_code().await, 1011);
}

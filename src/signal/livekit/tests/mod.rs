//! The real listener and routes over loopback, with a worker that only pretends.

mod house;
mod listener;
mod offers;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::SinkExt;
use livekit_protocol as proto;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message as Reply;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::ids::WorkerId;
use house::{House, grant, join_request, plain_join, token, wrap};

const UPGRADE: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\n";

#[tokio::test]
async fn every_answer_has_its_code_and_can_be_read_by_any_page() {
    let house = House::new().await;
    let (join, good) = (plain_join(), token("anna"));
    let room = |name: &str| grant("anna", |grant| grant.room = Some(name.into()));
    let (full, nobody) = (room("full"), grant("anna", |grant| grant.room_join = false));
    let cases: [(String, &str, u16, &str); 22] = [
        ("/".into(), "", 200, "OK"),
        ("/nothing".into(), "", 404, "page not found"),
        ("/settings/regions".into(), "", 404, ""),
        ("/rtc".into(), UPGRADE, 401, "no token"),
        ("/rtc/v1".into(), "", 404, ""),
        (format!("/rtc/v1?access_token={good}"), "", 404, ""),
        (format!("/rtc/v1?access_token={good}x"), "", 404, ""),
        (
            format!("/rtc?access_token={good}&attributes=*"),
            UPGRADE,
            400,
            "query",
        ),
        (
            format!("/rtc/v1?access_token={good}"),
            UPGRADE,
            400,
            "join_request is required",
        ),
        (
            format!("/rtc/v1?access_token={good}&join_request={join}"),
            "",
            404,
            "",
        ),
        (
            format!("/rtc/v1?access_token={good}&join_request=AAAA"),
            UPGRADE,
            400,
            "join_request",
        ),
        (
            format!("/rtc/v1?access_token={good}x&join_request={join}"),
            UPGRADE,
            401,
            "token",
        ),
        (
            format!("/rtc/v1?access_token={nobody}&join_request={join}"),
            UPGRADE,
            401,
            "permission",
        ),
        (
            format!("/rtc/v1?access_token={full}&join_request={join}"),
            UPGRADE,
            503,
            "full",
        ),
        (
            format!("/rtc/v1?join_request={join}"),
            UPGRADE,
            401,
            "no token",
        ),
        (
            format!("/rtc/v1?access_token={good}&access_token={good}"),
            UPGRADE,
            400,
            "query",
        ),
        (
            format!("/rtc/v1/validate?access_token={good}&join_request={join}"),
            "",
            200,
            "success",
        ),
        (
            format!("/rtc/v1/validate?access_token={good}"),
            "",
            400,
            "join_request is required",
        ),
        (
            format!("/rtc/v1/validate?join_request={join}"),
            "",
            401,
            "no token",
        ),
        (
            "/rtc/v1/validate".into(),
            "Authorization: Basic abc\r\n",
            401,
            "Bearer",
        ),
        ("/rtc/validate".into(), "", 401, "no token"),
        (
            format!("/rtc/validate?access_token={good}"),
            "",
            200,
            "success",
        ),
    ];
    for (path, headers, status, text) in cases {
        let (head, body) = house.get(&path, headers).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {head}"
        );
        assert!(
            head.contains("access-control-allow-origin: *"),
            "{path}: {head}"
        );
        assert!(body.contains(text), "{path}: {body}");
    }
    for method in ["OPTIONS /rtc/v1/validate", "HEAD /"] {
        let (head, body) = house.request(&format!("{method} HTTP/1.1\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 20") && body.is_empty(), "{head}");
        assert!(head.contains("access-control-allow-origin: *"), "{head}");
    }
    assert_eq!(house.directory.seats(), 0);
    assert_eq!(house.stats.refused_full.load(Relaxed), 1);
}

#[tokio::test]
async fn the_header_token_wins_and_double_slashes_don_t_matter() {
    let house = House::new().await;
    let (join, good) = (plain_join(), token("anna"));
    let path = format!("//rtc//v1/validate?access_token=bad&join_request={join}");
    let bearer = format!("Authorization: Bearer {good}\r\n");
    let (head, body) = house.get(&path, &bearer).await;
    assert!(head.contains(" 200 ") && body == "success", "{head}");
    let path = format!("/rtc/v1/validate?access_token={good}&join_request={join}");
    let (head, _) = house.get(&path, "Authorization: Bearer bad\r\n").await;
    assert!(head.contains(" 401 "), "{head}");

    let url = format!("ws://{}//rtc/v1?join_request={join}", house.address);
    let mut request = url.into_client_request().unwrap();
    let value = format!("Bearer {good}").parse().unwrap();
    request.headers_mut().insert("Authorization", value);
    tokio_tungstenite::connect_async(request).await.unwrap();
}

#[tokio::test]
async fn joins_in_all_encodings_get_a_complete_join_response() {
    let house = House::new().await;
    for (gzip, padded) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut request = join_request();
        // Makes the length one that needs padding.
        request.metadata = "x".repeat(7 + usize::from(padded));
        let text = wrap(&request, gzip, padded);
        let mut client = house.connect(&text, &token("anna")).await;
        let Reply::Join(join) = client.read().await else {
            panic!("no JoinResponse");
        };
        assert_eq!(join.server_version, "1.13.7");
        assert_eq!((join.ping_timeout, join.ping_interval), (15, 5));
        assert_eq!(join.sif_trailer.len(), 32);
        assert!(join.fast_publish && !join.subscriber_primary);
        assert_eq!(join.enabled_publish_codecs[0].mime, "video/VP8");
        assert_eq!(join.participant.unwrap().identity, "anna");
        assert_eq!(join.other_participants[0].identity, "bert");
        assert!(join.server_info.unwrap().node_id.starts_with("ND_"));
    }
    // The token doesn't allow own metadata; another one does.
    let mut request = join_request();
    request.metadata = "mine".to_owned();
    let allowed = grant("anna", |grant| grant.permissions.update_metadata = true);
    let mut client = house.connect(&wrap(&request, true, true), &allowed).await;
    let Reply::Join(join) = client.read().await else {
        panic!("no JoinResponse");
    };
    assert_eq!(join.participant.unwrap().metadata, "mine");
    request.metadata = "m".repeat(600_000);
    let path = format!(
        "/rtc/v1?access_token={allowed}&join_request={}",
        wrap(&request, true, true)
    );
    assert_eq!(house.try_connect(&path).await.err(), Some(400));
}

#[tokio::test]
async fn tracks_and_offer_of_the_join_follow_the_join_response() {
    let mut house = House::new().await;
    let mut request = join_request();
    let layer = |quality: proto::VideoQuality| proto::VideoLayer {
        quality: quality as i32,
        ..Default::default()
    };
    request.add_track_requests = vec![proto::AddTrackRequest {
        cid: "camera-1".to_owned(),
        r#type: proto::TrackType::Video as i32,
        source: proto::TrackSource::Camera as i32,
        layers: vec![
            layer(proto::VideoQuality::High),
            layer(proto::VideoQuality::Low),
        ],
        encryption: 1,
        ..Default::default()
    }];
    request.publisher_offer = Some(proto::SessionDescription {
        id: 1,
        sdp: "v=0".to_owned(),
        ..Default::default()
    });
    let mut client = house
        .connect(&wrap(&request, true, true), &token("anna"))
        .await;
    assert!(matches!(client.read().await, Reply::Join(_)));
    assert!(matches!(client.read().await, Reply::RefreshToken(_)));
    let Reply::TrackPublished(published) = client.read().await else {
        panic!("no TrackPublished");
    };
    assert_eq!(published.cid, "camera-1");
    let track = published.track.unwrap();
    assert_eq!((track.stream.as_str(), track.encryption), ("camera", 1));
    let spatial: Vec<_> = track.codecs[0]
        .layers
        .iter()
        .map(|layer| &*layer.rid)
        .collect();
    assert_eq!(spatial, ["q", "h"]);
    assert_eq!(
        track.codecs[0].mime_type, "",
        "none was announced, the section will tell"
    );
    let Reply::Answer(answer) = client.read().await else {
        panic!("no answer");
    };
    assert_eq!((answer.id, answer.r#type.as_str()), (1, "answer"));
    assert_eq!(answer.mid_to_track_id["3"], "TR_VCabc");
    let heard = [
        house.hears().await,
        house.hears().await,
        house.hears().await,
    ];
    assert_eq!(heard, ["join", "AddTrack", "Offer"]);
}

#[tokio::test]
async fn requests_are_answered_by_who_can() {
    let house = House::new().await;
    let mut client = house.joined().await;
    client.say(Ask::Ping(5)).await;
    assert!(matches!(client.read().await, Reply::Pong(ms) if ms > 1_600_000_000_000));
    let ping = proto::Ping {
        timestamp: 77,
        rtt: 1,
    };
    client.say(Ask::PingReq(ping)).await;
    let Reply::PongResp(pong) = client.read().await else {
        panic!("no pong");
    };
    assert!(pong.last_ping_timestamp == 77 && pong.timestamp > 1_600_000_000_000);

    let update = proto::UpdateParticipantMetadata {
        request_id: 9,
        ..Default::default()
    };
    client.say(Ask::UpdateMetadata(update)).await;
    client
        .say(Ask::PublishDataTrackRequest(Default::default()))
        .await;
    let sid = "TR_x".to_owned();
    client
        .say(Ask::Mute(proto::MuteTrackRequest { sid, muted: true }))
        .await;
    client.say(Ask::SyncState(Default::default())).await;
    // 100 layers, and a field we don't know.
    let mut track = proto::AddTrackRequest {
        r#type: proto::TrackType::Video as i32,
        ..Default::default()
    };
    track.layers = vec![Default::default(); 100];
    client.say(Ask::AddTrack(track)).await;
    client
        .0
        .send(Message::Binary(vec![0xfa, 0x06, 0x01, 0x78].into()))
        .await
        .unwrap();
    use proto::request_response::Reason;
    let wanted = [
        (9, Reason::NotAllowed),
        (0, Reason::UnsupportedType),
        (0, Reason::NotFound),
        (0, Reason::LimitExceeded),
    ];
    let mut reasons = Vec::new();
    for _ in &wanted {
        let Reply::RequestResponse(response) = client.read().await else {
            panic!("no RequestResponse");
        };
        assert!(response.request.is_some());
        reasons.push((response.request_id, response.reason()));
    }
    reasons.sort_unstable_by_key(|(_, reason)| wanted.iter().position(|(_, r)| r == reason));
    assert_eq!(reasons, wanted);
    client.say(Ask::Ping(6)).await;
    assert!(matches!(client.read().await, Reply::Pong(_)));
}

#[tokio::test]
async fn a_text_is_answered_in_json_and_a_binary_in_binary() {
    let house = House::new().await;
    let mut client = house.joined().await;
    let text = r#"{"pingReq":{"timestamp":"42"},"novelty":1}"#;
    client.0.send(Message::Text(text.into())).await.unwrap();
    let Some(Ok(Message::Text(text))) = client.next().await else {
        panic!("no text");
    };
    assert!(text.contains("\"lastPingTimestamp\":\"42\""), "{text}");
    client.say(Ask::Ping(6)).await;
    assert!(matches!(client.read().await, Reply::Pong(_)));
}

#[tokio::test]
async fn a_leave_ends_the_session_and_a_lost_socket_is_reported() {
    let mut house = House::new().await;
    let mut client = house.joined().await;
    client.say(Ask::Leave(Default::default())).await;
    assert_eq!(client.close_code().await, 1000);
    let client = house.joined().await;
    drop(client);
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(house.hears().await);
    }
    assert_eq!(heard, ["join", "Leave", "join", "closed"]);
    while house.directory.seats() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_resume_begins_with_the_reconnect_response() {
    let mut house = House::new().await;
    let mut first = house.joined().await;
    // As the worker does, of which this house has none.
    house.directory.opened(&"red".into(), WorkerId(0));
    let mut request = join_request();
    request.reconnect = true;
    request.participant_sid = "PA_abcdefghijkl".to_owned();
    let text = wrap(&request, true, true);
    let mut client = house.connect(&text, &token("anna")).await;
    let Reply::Reconnect(response) = client.read().await else {
        panic!("no reconnect response");
    };
    assert_eq!(response.last_message_seq, 41);
    assert!(!response.server_info.unwrap().version.is_empty());
    let mut told = Vec::new();
    for _ in 0..2 {
        let Reply::Update(update) = client.read().await else {
            panic!("no update");
        };
        told.extend(update.participants.into_iter().map(|info| info.identity));
    }
    assert_eq!(told, ["carl", "bert", "anna"]);
    assert!(matches!(client.read().await, Reply::RoomUpdate(_)));
    assert!(matches!(client.read().await, Reply::RefreshToken(_)));
    assert_eq!(house.hears().await, "join");
    assert_eq!(house.hears().await, "resume");
    first.say(Ask::Leave(Default::default())).await;
}

#[tokio::test]
async fn an_unknown_resume_is_told_to_join_anew() {
    let mut house = House::new().await;
    let mut request = join_request();
    request.reconnect = true;
    request.participant_sid = "PA_somebodyelse".to_owned();
    let text = wrap(&request, true, true);
    let mut client = house.connect(&text, &token("anna")).await;
    let Reply::Leave(leave) = client.read().await else {
        panic!("no leave");
    };
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::StateMismatch);
    assert_eq!(client.close_code().await, 1000);
    assert!(house.heard.try_recv().is_err(), "the worker heard nothing");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let mut house = House::with(|config| config.limits.pending_notices = 16).await;
    let mut client = house.joined().await;
    client.say(Ask::Subscription(Default::default())).await;
    while house.hears().await != "full" {}
    // The channel is full, the session hangs in a write: let its deadline come.
    tokio::time::pause();
    while house.stats.slow_readers.load(Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while house.stats.sessions_open.load(Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn messages_too_large_or_senseless_end_the_session() {
    let house = House::with(|config| config.limits.signal_requests_per_second = 3).await;
    let mut client = house.joined().await;
    let garbage = Message::Binary(vec![0x0a, 0xff, 0xff].into());
    client.0.send(garbage).await.unwrap();
    assert_eq!(client.close_code().await, 1007);
    let mut client = house.joined().await;
    let huge = Message::Binary(vec![0; 3 << 20].into());
    // The rest of it may meet a closed socket.
    let _ = client.0.send(huge).await;
    while house.stats.oversized_messages.load(Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(house.stats.malformed_messages.load(Relaxed), 1);

    let mut client = house.joined().await;
    let start = tokio::time::Instant::now();
    for n in 0..7 {
        client.say(Ask::Ping(n)).await;
    }
    for _ in 0..7 {
        assert!(matches!(client.read().await, Reply::Pong(_)));
    }
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "three in a second"
    );
    assert!(house.stats.rate_limited.load(Relaxed) >= 2);
}

#[tokio::test]
async fn a_missing_room_is_named_so_in_both_places() {
    let house = House::with(|config| config.rooms.auto_create = false).await;
    let (join, good) = (plain_join(), token("anna"));
    let query = format!("access_token={good}&join_request={join}");
    for path in ["/rtc/v1", "/rtc/v1/validate", "/rtc"] {
        let (head, body) = house.get(&format!("{path}?{query}"), UPGRADE).await;
        assert!(head.contains(" 404 "), "{head}");
        assert!(body.contains("requested room does not exist"), "{body}");
    }
    let maker = grant("anna", |grant| grant.room_create = true);
    let path = format!("/rtc/v1?access_token={maker}&join_request={join}");
    assert!(house.try_connect(&path).await.is_ok());
}

#[tokio::test]
async fn a_silent_shard_is_a_503_and_its_answer_is_not_awaited_for_ever() {
    let mut house = House::new().await;
    let silent = grant("anna", |grant| grant.room = Some("silent".into()));
    let path = format!(
        "/rtc/v1?access_token={silent}&join_request={}",
        plain_join()
    );
    tokio::time::pause();
    let (head, _) = house.get(&path, UPGRADE).await;
    assert!(head.contains(" 503 "), "{head}");
    assert_eq!(house.hears().await, "join");
    assert_eq!(house.hears().await, "closed");
}

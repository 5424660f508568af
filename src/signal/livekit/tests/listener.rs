//! The listener: its bounds, its origins, its end.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_response::Message as Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::house::{House, plain_join, token};

#[tokio::test]
async fn connections_are_bounded_in_time_size_and_number() {
    let house = House::with(|config| {
        config.http.header_timeout = Duration::from_millis(300);
        config.http.connections_per_address = 2;
        config.http.trusted_proxies.clear();
    })
    .await;
    let mut first = TcpStream::connect(house.address).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let mut second = TcpStream::connect(house.address).await.unwrap();
    let mut third = TcpStream::connect(house.address).await.unwrap();
    assert_eq!(
        third.read(&mut [0; 9]).await.unwrap_or(0),
        0,
        "one too many"
    );
    // The one with half a head is closed, which makes room.
    while first.read(&mut [0; 99]).await.unwrap_or(0) > 0 {}
    while second.read(&mut [0; 99]).await.unwrap_or(0) > 0 {}
    assert_eq!(house.stats.connections_refused.load(Relaxed), 1);
    assert_eq!(house.stats.http_timeouts.load(Relaxed), 2);
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    stream
        .write_all(b"\x16\x03\x01 no HTTP\r\n\r\n")
        .await
        .unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert_eq!(house.stats.http_malformed.load(Relaxed), 1);

    let long = format!("/?x={}", "x".repeat(20_000));
    let (head, _) = house.request(&format!("GET {long} HTTP/1.1\r\n")).await;
    assert!(
        head.contains(" 200 ") && head.contains("connection: close"),
        "{head}"
    );
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(200_000));
    // The rest may meet a closed socket, and so may the answer.
    let _ = stream.write_all(endless.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{answer:?}"
    );
}

#[tokio::test]
async fn listed_origins_are_let_in_and_others_are_not() {
    let ours = "https://call.example.org";
    let house = House::with(|config| config.http.origins = vec![ours.to_owned()]).await;
    let (head, _) = house.get("/", &format!("Origin: {ours}\r\n")).await;
    let wanted = format!("access-control-allow-origin: {ours}");
    assert!(head.contains(" 200 ") && head.contains(&wanted), "{head}");
    let (head, _) = house
        .get("/", "Origin: https://elsewhere.example\r\n")
        .await;
    assert!(
        head.contains(" 403 ") && !head.contains("allow-origin"),
        "{head}"
    );
    let (head, _) = house.get("/", "").await;
    assert!(head.contains(" 200 "), "{head}");
}

#[tokio::test]
async fn a_stop_sends_everybody_away_and_waits_for_them() {
    let mut house = House::new().await;
    let mut client = house.joined().await;
    house.directory.shut_down().await;
    let query = format!(
        "access_token={}&join_request={}",
        token("bert"),
        plain_join()
    );
    let (head, _) = house.get(&format!("/rtc/v1/validate?{query}"), "").await;
    assert!(head.contains(" 503 "), "{head}");
    house.stop.send(true).unwrap();
    let Reply::Leave(leave) = client.read().await else {
        panic!("no leave");
    };
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    assert!(leave.can_reconnect);
    assert_eq!(client.close_code().await, 1000);
    drop(client);
    (&mut house.served).await.unwrap();
    assert!(TcpStream::connect(house.address).await.is_err());
}

//! Metrics that only a whole daemon can show: what its sockets had no room for.
#![allow(
    clippy::disallowed_methods,
    reason = "a test of a process waits for it by the clock"
)]

#[allow(dead_code, reason = "shared with tests that load the daemon")]
mod daemon;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use daemon::Daemon;

/// For the next look at the kernel's table, and the next page.
const NEWS_TIME: Duration = Duration::from_secs(10);

/// The value of a metric without labels.
fn metric(daemon: &Daemon, name: &str) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port + 1)).expect("metrics listen");
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a request");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page");
    let prefix = format!("{name} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&prefix));
    value.and_then(|value| value.parse().ok()).expect("a value")
}

fn signal(daemon: &Daemon, signal: &str) {
    let pid = daemon.process.id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status();
    assert!(sent.is_ok_and(|status| status.success()), "{signal}");
}

#[test]
fn what_the_kernel_drops_while_the_daemon_stands_still_is_counted() {
    const NAME: &str = "stellwerk_kernel_dropped_datagrams_total";
    let daemon = Daemon::start(28_000);
    assert_eq!(metric(&daemon, NAME), 0);
    // As if it had got no processor for a while.
    signal(&daemon, "-STOP");
    let from = UdpSocket::bind("127.0.0.1:0").expect("a port");
    // More than the largest buffer there is has room for: each takes 2 KB of it.
    let sent = 20_000;
    for _ in 0..sent {
        let to = ("127.0.0.1", daemon.port + 2);
        from.send_to(&[0; 1200], to).expect("a way");
    }
    signal(&daemon, "-CONT");
    let late = Instant::now() + NEWS_TIME;
    let (mut dropped, mut received) = (0, 0);
    while dropped + received < sent && Instant::now() < late {
        std::thread::sleep(Duration::from_millis(100));
        dropped = metric(&daemon, NAME);
        received = metric(&daemon, "stellwerk_udp_datagrams_in_total");
    }
    // None is lost without a trace, and none counted twice.
    assert!(dropped > 0 && received > 0, "{dropped} {received}");
    assert_eq!(dropped + received, sent);
}

//! `stellwerk load` against a daemon of its own: both are the program as it is built.
#![allow(
    clippy::disallowed_methods,
    reason = "a test of two processes waits for them by the clock"
)]

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const STELLWERK: &str = env!("CARGO_BIN_EXE_stellwerk");

/// For the daemon to start.
const START_TIME: Duration = Duration::from_secs(20);

/// A daemon; it ends with the test.
struct Daemon {
    process: Child,
    port: u16,
}

/// The first of three ports in a row that are free: below those of outgoing connections, and at
/// another place in each test.
fn free_ports(start: u16) -> u16 {
    let all = |port: &u16| {
        let bound = (*port..*port + 3).map(|port| {
            let tcp = TcpListener::bind(("127.0.0.1", port));
            tcp.and_then(|_| UdpSocket::bind(("127.0.0.1", port)))
        });
        bound.into_iter().all(|bound| bound.is_ok())
    };
    let found = (start..start + 900).step_by(3).find(all);
    found.expect("three free ports")
}

impl Daemon {
    fn start(first_port: u16) -> Self {
        let port = free_ports(first_port);
        let process = Command::new(STELLWERK)
            .args(["serve", "--dev", "--workers", "1"])
            .args(["--http", &format!("127.0.0.1:{port}")])
            .args(["--metrics", &format!("127.0.0.1:{}", port + 1)])
            .args(["--media-port", &(port + 2).to_string()])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let daemon = Self { process, port };
        let late = Instant::now() + START_TIME;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < late, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    fn load(&self, arguments: &str) -> Command {
        let mut load = load(self.port, arguments);
        load.args(["--pid", &self.process.id().to_string()]);
        load
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn load(port: u16, arguments: &str) -> Command {
    let mut load = Command::new(STELLWERK);
    load.args(["load", "--dev", "--url", &format!("ws://127.0.0.1:{port}")])
        .args(arguments.split_whitespace())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    load
}

fn said(output: &Output) -> (Value, String) {
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (report, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn one_publisher_is_seen_by_three_in_its_best_layer_without_loss() {
    let daemon = Daemon::start(21_000);
    let call = "--publishers 1 --subscribers 3 --duration 4s --loss-max 0 --json";
    let output = daemon.load(call).output().expect("it runs");
    let (report, progress) = said(&output);
    assert!(output.status.success(), "{report} {progress}");
    assert_eq!(report["joins"]["count"], 4);
    assert_eq!(report["joins"]["failures"], 0);
    for (what, count) in [
        ("connected_ms", 4),
        ("first_packet_ms", 3),
        ("first_picture_ms", 3),
    ] {
        assert_eq!(report["joins"][what]["count"], count, "{what}");
        assert!(report["joins"][what]["p99"].as_f64() > Some(0.0), "{what}");
    }
    let packets = &report["packets"];
    let count = |what: &str| packets[what].as_u64().unwrap_or_default();
    // In a second: 30 frames of nine packets in three layers, and 50 of sound.
    assert!((1000..1500).contains(&count("sent")), "{packets}");
    // Each of three gets 30 frames of six packets, and the sound.
    assert!((2300..3200).contains(&count("received")), "{packets}");
    assert_eq!((count("lost"), count("unopened")), (0, 0), "{packets}");
    assert!(
        count("expected") >= 2300 && count("opened") > 50,
        "{packets}"
    );
    let last = report["seconds"]
        .as_array()
        .and_then(|seconds| seconds.last());
    let layers = last.map(|last| &last["layers"]);
    let best = serde_json::json!({ "q": 0, "h": 0, "f": 3, "none": 0 });
    assert_eq!(layers, Some(&best), "{report}");
    let delay = report["delay_ms"]["p50"].as_f64();
    assert!(delay > Some(0.0) && delay < Some(1000.0), "{report}");
    assert!(report["server"]["rss_bytes"].as_u64() > Some(1 << 20));
    assert!(progress.contains("4/4 joined"), "{progress}");
}

#[test]
fn others_join_in_the_places_of_those_who_leave() {
    let daemon = Daemon::start(25_000);
    let call = "--rooms 2 --subscribers 2 --churn 6 --duration 4s --loss-max 0 --json";
    let output = daemon.load(call).output().expect("it runs");
    let (report, progress) = said(&output);
    assert!(output.status.success(), "{report} {progress}");
    // Six places at first; each of 24 leaves but the last ones is followed by a join.
    let joins = report["joins"]["count"].as_u64();
    assert!((24..=30).contains(&joins.unwrap_or_default()), "{report}");
    assert_eq!(report["joins"]["failures"], 0);
    let connected = report["joins"]["connected_ms"]["count"].as_u64();
    assert!(connected >= Some(22), "{report}");
    assert!(progress.contains("6/6 joined"), "{progress}");
}

#[test]
fn a_server_that_is_gone_is_told_in_one_line() {
    let port = free_ports(22_000);
    let output = load(port, "--json").output().expect("it runs");
    let (report, error) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report, Value::Null);
    let expected = format!("ws://127.0.0.1:{port} can't be reached: Connection refused");
    assert!(error.trim().starts_with(&expected), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_key_that_the_server_does_not_know_is_told() {
    let daemon = Daemon::start(23_000);
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-secret");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").expect("writable");
    let output = Command::new(STELLWERK)
        .args(["load", "--url", &format!("ws://127.0.0.1:{}", daemon.port)])
        .args(["--key", "stranger", "--secret-file"])
        .arg(&file)
        .env_clear()
        .output()
        .expect("it runs");
    let (_, error) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("refuses a join: 401"), "{error}");
}

#[test]
fn a_server_that_dies_meanwhile_is_no_success() {
    let mut daemon = Daemon::start(24_000);
    let load = daemon.load("--subscribers 1 --duration 4s --json").spawn();
    let mut load = load.expect("it runs");
    // The first second was told: everybody is in.
    let mut first = String::new();
    let mut progress = std::io::BufReader::new(load.stderr.take().expect("piped"));
    std::io::BufRead::read_line(&mut progress, &mut first).expect("a line");
    assert!(first.contains("2/2 joined"), "{first}");
    daemon.process.kill().expect("it ends");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut progress, &mut rest).expect("text");
    let output = load.wait_with_output().expect("it ends");
    let (report, _) = said(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(report["joins"]["failures"], 2, "{report}");
    let last = report["seconds"]
        .as_array()
        .and_then(|seconds| seconds.last());
    assert_eq!(
        last.map(|last| &last["layers"]["none"]),
        Some(&Value::from(1))
    );
}

#[test]
fn a_wrong_command_line_is_64() {
    let wrong = [
        "--rooms 0",
        "--publishers 0 --subscribers 0",
        "--subscribers 30000",
        "--duration 0s",
        "--duration 48h",
        "--loss-max 101",
        "--preset concert",
        "--join-rate 0",
        "--churn 1001",
        "--pacing slow",
    ];
    for arguments in wrong {
        let output = load(9, arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{arguments}");
        assert!(
            !output.stderr.is_empty(),
            "{arguments} fails without a word"
        );
    }
}

//! `stellwerk load` against a daemon of its own: both are the program as it is built.
#![allow(
    clippy::disallowed_methods,
    reason = "a test of two processes waits for them by the clock"
)]

#[allow(dead_code, reason = "shared with benches, which choose their cores")]
mod daemon;

use std::process::{Command, Stdio};

use daemon::{Daemon, STELLWERK, free_ports, load, said};
use serde_json::Value;
use stellwerk::config::{DEV_KEY, DEV_SECRET};

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
fn a_narrow_network_gets_a_smaller_layer_and_harms_nobody_else() {
    let daemon = Daemon::start(27_000);
    let page = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("impaired.html");
    let call = "--publishers 1 --subscribers 6 --warmup 6s --duration 6s --loss-max 0 --json \
                --impaired 34%:rate=500k --impaired 17%:loss=5,delay=30,jitter=10";
    let mut load = daemon.load(call);
    let output = load.arg("--html").arg(&page).output().expect("it runs");
    let (report, progress) = said(&output);
    // Though some of what goes to the narrow ones is lost: that is not what the limit is for.
    assert!(output.status.success(), "{report} {progress}");
    let [good, narrow, lossy] = [0, 1, 2].map(|at| &report["networks"][at]);
    let number = |of: &Value, what: &str| of[what].as_f64().expect("a number");
    let layers = |of: &Value| {
        let seconds = of["seconds"].as_array().expect("seconds");
        seconds.last().expect("a second")["layers"].clone()
    };
    assert_eq!(good["name"], "good");
    assert_eq!(narrow["name"], "34%:rate=500k");
    for (network, receivers) in [(good, 3), (narrow, 2), (lossy, 1)] {
        assert_eq!(network["receivers"], receivers, "{network}");
    }
    // The others have the best layer, all of it, at once.
    let best = serde_json::json!({ "q": 0, "h": 0, "f": 3, "none": 0 });
    assert_eq!(layers(good), best, "{good}");
    assert_eq!((&good["lost"], &good["beyond"]), (&0.into(), &0.into()));
    assert!(number(good, "bitrate_each") > 1_500_000.0, "{good}");
    assert!(good["delay_ms"]["p50"].as_f64() < Some(20.0), "{good}");
    // What fits is the smallest, with the sound.
    assert_eq!(layers(narrow)["f"], 0, "{narrow}");
    assert_eq!(layers(narrow)["none"], 0, "{narrow}");
    let bitrate = number(narrow, "bitrate_each");
    assert!((100_000.0..500_000.0).contains(&bitrate), "{narrow}");
    assert_eq!(narrow["beyond"], 0, "{narrow}");
    // What is lost on the way is asked for, and comes; nothing else is lost.
    let (inflicted, expected) = (number(lossy, "inflicted"), number(lossy, "expected"));
    assert!((0.02..0.08).contains(&(inflicted / expected)), "{lossy}");
    assert_eq!(lossy["beyond"], 0, "{lossy}");
    assert!(number(lossy, "repaired") > inflicted / 4.0, "{lossy}");
    assert!(lossy["delay_ms"]["p50"].as_f64() > Some(30.0), "{lossy}");
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("by network, in kbit/s") && page.contains("34%:rate=500k"));
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
fn a_ramp_adds_people_and_writes_a_page() {
    let daemon = Daemon::start(26_000);
    let page = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("load.html");
    let ramp = "--preset ramp --join-rate 4 --subscribers 12 --duration 6s --json";
    let mut load = daemon.load(ramp);
    let output = load.arg("--html").arg(&page).output().expect("it runs");
    let (report, progress) = said(&output);
    assert!(output.status.success(), "{report} {progress}");
    // Twelve are no limit, unless the machine stands still.
    assert_eq!(report["ramp"]["participants"], 13, "{report}");
    assert_eq!(report["ramp"]["limit"], Value::Null, "{report}");
    assert!(
        progress.contains("/13 joined") && !progress.contains(" 1 s  13/13"),
        "{progress}"
    );
    let page = std::fs::read_to_string(page).expect("a page");
    assert_eq!(page.matches("<svg").count(), 6);
    for chart in ["Packets per second", "Pictures by layer", "Memory, in"] {
        assert!(page.contains(chart), "{chart}");
    }
    // Nothing is fetched when it is looked at.
    assert!(!page.contains("http") && !page.contains("<script"));
}

#[test]
fn the_floor_carries_the_same_load_without_a_server() {
    let call = "--floor --publishers 2 --subscribers 1 --warmup 1s --duration 2s --loss-max 0";
    let mut floor = Command::new(STELLWERK);
    floor.arg("load").args(call.split_whitespace());
    let output = floor.arg("--json").output().expect("it runs");
    let (report, progress) = said(&output);
    assert!(output.status.success(), "{report} {progress}");
    assert_eq!(report["joins"]["count"], 3);
    assert_eq!(report["ciphers"][0], "aead_aes_256_gcm");
    assert_eq!(report["packets"]["unopened"], 0, "{report}");
    let second = &report["seconds"][0];
    assert_eq!(second["layers"]["f"], 4, "{report}");
    // In a second four pictures of 30 frames of six packets, and four voices of 50.
    let received = second["received"].as_u64().unwrap_or_default();
    assert!((700..1100).contains(&received), "{report}");
    assert!(report["floor"]["cpu_us_per_packet"].as_f64() > Some(0.0));
    assert_eq!(report.get("server"), None);
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

/// LiveKit's own server, for development, on loopback: it offers such addresses only when told.
fn livekit_server() -> Daemon {
    let port = free_ports(29_000);
    let (tcp, udp) = (port + 1, port + 2);
    let config = format!(
        "{{port: {port}, keys: {{{DEV_KEY}: {DEV_SECRET}}}, rtc: {{tcp_port: {tcp}, \
         udp_port: {udp}, node_ip: 127.0.0.1, use_external_ip: false, \
         enable_loopback_candidate: true, interfaces: {{includes: [lo]}}}}}}"
    );
    let process = Command::new("livekit-server")
        .args(["--dev", "--bind", "127.0.0.1", "--config-body", &config])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("livekit-server is in PATH");
    Daemon::await_port(process, port)
}

#[test]
#[ignore = "needs livekit-server in PATH"]
fn livekit_server_is_loaded_in_the_same_way() {
    let server = livekit_server();
    let call = "--publishers 1 --subscribers 2 --warmup 5s --duration 5s --loss-max 1 --json";
    let output = server.load(call).output().expect("it runs");
    let (report, progress) = said(&output);
    assert!(output.status.success(), "{report} {progress}");
    assert_eq!(report["joins"]["count"], 3);
    assert_eq!(report["joins"]["failures"], 0);
    assert_eq!(report["joins"]["first_picture_ms"]["count"], 2, "{report}");
    let seconds = report["seconds"].as_array().expect("seconds");
    let last = seconds.last().expect("a second");
    assert_eq!(last["layers"]["none"], 0, "{report}");
    // Two voices of 50 packets, and pictures of at least a packet each 33 ms.
    assert!(last["received"].as_u64() > Some(120), "{report}");
    assert_eq!(report["packets"]["unopened"], 0, "{report}");
    assert!(report["server"]["rss_bytes"].as_u64() > Some(1 << 20));
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
        "--impaired 20%",
        "--subscribers 2 --impaired 20%:loss=2",
        "--subscribers 3 --impaired 60%:loss=2 --impaired 60%:delay=2",
        "--subscribers 0 --publishers 2 --impaired 50%:loss=2",
        "--preset ramp --impaired 50%:loss=2",
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

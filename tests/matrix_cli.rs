//! The commands that help beside a Matrix homeserver, through the program.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

const SECRET: &str = "a secret of more than thirty-two characters";

fn stellwerk(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stellwerk"))
        .args(arguments)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_registration_comes_with_what_the_homeserver_needs() {
    let env = [
        (
            "STELLWERK_MATRIX_HOMESERVERS",
            "example.net=http://127.0.0.1:8008",
        ),
        ("STELLWERK_MATRIX_URL", "wss://rtc.example.net/sfu"),
        ("STELLWERK_MATRIX_FULL_ACCESS", "example.net"),
        ("STELLWERK_HTTP_LISTEN", "0.0.0.0:7999"),
    ];
    let output = stellwerk(&["matrix", "registration"], &env);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let file = text(&output.stdout);
    for line in [
        "id: stellwerk",
        "url: null",
        "rate_limited: false",
        "    - regex: '^@.*:example\\.net$'",
        "io.element.msc4512.proxy_prefix: \"rtc/livekit\"",
        "io.element.msc4512.proxy_url: \"http://127.0.0.1:7999\"",
    ] {
        assert!(file.lines().any(|it| it == line), "no {line:?} in\n{file}");
    }
    let needed = text(&output.stderr);
    for line in [
        "      url: wss://rtc.example.net/sfu",
        "      livekit_service_url: https://rtc.example.net/sfu",
        "max_event_delay_duration: 24h",
    ] {
        assert!(
            needed.lines().any(|it| it == line),
            "no {line:?} in\n{needed}"
        );
    }
    let again = stellwerk(&["matrix", "registration"], &env);
    assert_ne!(again.stdout, output.stdout, "the tokens are drawn anew");
    let other = [
        "matrix",
        "registration",
        "--proxy-url",
        "http://10.0.0.1:7880",
    ];
    assert!(text(&stellwerk(&other, &env).stdout).contains("\"http://10.0.0.1:7880\"\n"));
}

#[test]
fn a_registration_needs_one_homeserver() {
    let output = stellwerk(&["matrix", "registration"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        text(&output.stderr).contains("name exactly one"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_check_reads_the_files_of_the_matrix_section() {
    let folder = std::env::temp_dir().join(format!("stellwerk-check-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (file, registration) = (at("stellwerk.toml"), at("registration.yaml"));
    let (authority, leaves) = (at("ca.pem"), at("nowhere/leaves"));
    let text_of_file = format!(
        "[keys]\ncalls = {SECRET:?}\n[matrix]\nhomeservers = {{ \"example.org\" = \
         \"https://127.0.0.1:8448\" }}\nfull_access = [\"example.org\"]\nurl = \
         \"wss://rtc.example.org\"\nregistration = {registration:?}\nextra_ca = {authority:?}\n\
         leaves = {leaves:?}\n"
    );
    write_private(&file, &text_of_file);
    let output = stellwerk(&["check-config", &file], &[]);
    assert_eq!(output.status.code(), Some(64));
    let said = text(&output.stderr);
    for path in [&registration, &authority, &at("nowhere")] {
        assert!(said.contains(path.as_str()), "nothing of {path} in\n{said}");
    }

    // As docs/element.md does it; the shell makes the file, so everyone may read it.
    let made = stellwerk(&["matrix", "registration", "--config", &file], &[]);
    std::fs::write(&registration, made.stdout).unwrap();
    std::fs::set_permissions(&registration, Permissions::from_mode(0o644)).unwrap();
    let right = text_of_file.replace(&format!("extra_ca = {authority:?}\n"), "");
    write_private(&file, &right.replace(&leaves, &at("leaves")));
    let said = text(&stellwerk(&["check-config", &file], &[]).stderr);
    assert!(
        said.contains(&format!("chmod o-rwx {registration}")),
        "{said}"
    );
    std::fs::set_permissions(&registration, Permissions::from_mode(0o640)).unwrap();
    let output = stellwerk(&["check-config", &file], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    std::fs::remove_dir_all(folder).unwrap();
}

fn write_private(path: &str, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// The sample of Element Call's own documentation, in its shape.
const SMALL: &str = "\
port: 7880
bind_addresses:
  - \"0.0.0.0\"
rtc:
  tcp_port: 7881
  port_range_start: 50100
  port_range_end: 50200
  use_external_ip: false
room:
  auto_create: false
logging:
  level: info
turn:
  enabled: false
  domain: localhost
  cert_file: \"\"
  key_file: \"\"
  tls_port: 5349
  udp_port: 443
  external_tls: true
keys:
  devkey: \"0123456789abcdef0123456789abcdef\"
";

/// Much of what can be said, as a deployment in Kubernetes says it.
const LARGE: &str = "\
port: 7880
prometheus_port: 6789
logging:
  level: warn
  pion_level: error
  json: true
rtc:
  tcp_port: 30001
  udp_port: 30002
  use_external_ip: true
  stun_servers: [stun.example.org:3478]
  congestion_control:
    enabled: true
    allow_pause: true
redis:
  address: redis:6379
  password: hunter2
room:
  auto_create: false
  empty_timeout: 600
  departure_timeout: 30
  max_participants: 50
  enable_remote_unmute: true
  enabled_codecs:
    - mime: audio/opus
    - mime: audio/red
    - mime: video/VP8
    - mime: video/rtx
limit:
  num_tracks: 100
  max_attributes_size: 4096
webhook:
  api_key: matrix
  urls: [\"https://hooks.example.org/livekit\"]
turn:
  enabled: true
  domain: turn.example.org
  tls_port: 443
keys:
  matrix: \"0123456789abcdef0123456789abcdef\"
";

fn import(text_of_file: &str) -> (String, String) {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_stellwerk"))
        .args(["import-livekit", "-"])
        .env_clear()
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(text_of_file.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// What `check-config` says of a file with this text.
fn check(name: &str, toml: &str) -> Output {
    use std::os::unix::fs::PermissionsExt;
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, toml).expect("a writable target directory");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("our own file");
    let output = stellwerk(&["check-config", path.to_str().expect("a plain name")], &[]);
    let _ = std::fs::remove_file(&path);
    output
}

#[test]
fn a_configuration_of_livekit_becomes_one_of_ours() {
    let (toml, notes) = import(SMALL);
    let checked = check("small.toml", &toml);
    assert!(
        checked.status.success(),
        "{}\n{toml}",
        text(&checked.stderr)
    );
    for line in [
        "listen = [\"0.0.0.0:7880\"]",
        "port = 50100",
        "tcp_port = 7881",
        "auto_create = false",
    ] {
        assert!(toml.lines().any(|it| it == line), "no {line:?} in\n{toml}");
    }
    assert!(notes.contains("-: rtc.port_range_end: "), "{notes}");
    assert_eq!(notes.lines().count(), 1, "{notes}");
}

#[test]
fn everything_of_a_large_one_is_taken_or_named() {
    let (toml, notes) = import(LARGE);
    let checked = check("large.toml", &toml);
    assert!(
        checked.status.success(),
        "{}\n{toml}",
        text(&checked.stderr)
    );
    for line in [
        "listen = \"127.0.0.1:6789\"",
        "level = \"warn\"",
        "format = \"json\"",
        "port = 30002",
        "pause_video = true",
        "empty_timeout = \"600s\"",
        "departure_timeout = \"30s\"",
        "participants_per_room = 50",
        "remote_unmute = true",
        "codecs = [\"opus\", \"red\", \"vp8\"]",
        "attributes_bytes = 4096",
        "urls = [\"https://hooks.example.org/livekit\"]",
        "key = \"matrix\"",
    ] {
        assert!(toml.lines().any(|it| it == line), "no {line:?} in\n{toml}");
    }
    for path in [
        "redis",
        "rtc.use_external_ip",
        "rtc.stun_servers",
        "limit.num_tracks",
        "turn",
    ] {
        assert!(
            notes.contains(&format!("-: {path}: ")),
            "no {path} in\n{notes}"
        );
    }
    assert!(!notes.contains("hunter2"));
}

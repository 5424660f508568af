//! The commands that help beside a Matrix homeserver, through the program.

use std::process::{Command, Output};

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

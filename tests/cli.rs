//! The program as its operator meets it: tokens, exit codes, output.

use std::process::{Command, Output};

use jsonwebtoken::{DecodingKey, Validation};
use serde_json::Value;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const DEV_SECRET: &str = "stellwerk-dev-secret-0123456789abcdef";

fn stellwerk(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stellwerk"))
        .args(arguments.split_whitespace())
        .env_clear()
        .output()
        .expect("the program starts")
}

fn claims(output: &Output, secret: &str) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let key = DecodingKey::from_secret(secret.as_bytes());
    let validation = Validation::default();
    jsonwebtoken::decode(text.trim(), &key, &validation)
        .expect("a signed token")
        .claims
}

#[test]
fn a_token_says_what_was_asked_for() {
    let output = stellwerk(&format!(
        "token --room r --identity i --name N --metadata M --attribute a=b=c --no-subscribe \
         --no-publish-data --source camera --source screen_share --update-metadata --hidden \
         --room-create --room-admin --room-list --ttl 10m --key k --secret {SECRET}"
    ));
    let claims = claims(&output, SECRET);
    assert_eq!(claims["iss"], "k");
    assert_eq!(claims["sub"], "i");
    assert_eq!(claims["name"], "N");
    assert_eq!(claims["metadata"], "M");
    assert_eq!(claims["attributes"]["a"], "b=c");
    let life = claims["exp"]
        .as_u64()
        .zip(claims["nbf"].as_u64())
        .map(|(end, start)| end - start);
    assert_eq!(life, Some(600));
    let video = &claims["video"];
    assert_eq!(video["room"], "r");
    for right in [
        "roomJoin",
        "roomCreate",
        "roomAdmin",
        "roomList",
        "canPublish",
        "hidden",
    ] {
        assert_eq!(video[right], true, "{right}");
    }
    for right in ["canSubscribe", "canPublishData"] {
        assert_eq!(video[right], false, "{right}");
    }
    assert_eq!(video["canUpdateOwnMetadata"], true);
    assert_eq!(
        video["canPublishSources"],
        serde_json::json!(["camera", "screen_share"])
    );
}

#[test]
fn a_token_of_the_development_key_needs_nothing_else() {
    let claims = claims(
        &stellwerk("token --room r --identity i --dev --no-publish"),
        DEV_SECRET,
    );
    assert_eq!(claims["iss"], "devkey");
    assert_eq!(claims["video"]["canPublish"], false);
}

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    let wrong = [
        "",
        "serve --nonsense",
        "serve",
        "token --identity i --dev",
        "token --room r --identity i",
        "token --room r --identity i --dev --key other",
        "token --room r --identity i --dev --ttl 10",
        "token --room r --identity i --key k --secret short",
        "check-config /nonexistent",
    ];
    for arguments in wrong {
        let output = stellwerk(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments}");
        assert!(
            !output.stderr.is_empty(),
            "{arguments} fails without a word"
        );
    }
    assert!(stellwerk("--help").status.success());
    assert!(stellwerk("--version").status.success());
}

#[test]
fn config_show_prints_the_sample() {
    let output = stellwerk("config show");
    assert_eq!(output.stdout, include_bytes!("../config/stellwerk.toml"));
}

#[test]
fn the_development_server_greets_with_all_it_takes_to_join() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let mut daemon = Command::new(env!("CARGO_BIN_EXE_stellwerk"))
        .args(["serve", "--dev", "--workers", "1", "--http", "127.0.0.1:0"])
        .args(["--metrics", "127.0.0.1:0", "--media-port", "47882"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let output = BufReader::new(daemon.stdout.take().expect("piped"));
    // The snippet is the last of the greeting; after it the daemon runs on.
    let mut lines = Vec::new();
    for line in output.lines() {
        let line = line.expect("text");
        let end = line == "</script>";
        lines.push(line);
        if end {
            break;
        }
    }
    let _ = daemon.kill();
    let _ = daemon.wait();
    assert!(
        lines
            .first()
            .is_some_and(|line| line.ends_with("ws://127.0.0.1:0")),
        "{lines:?}"
    );
    let key = DecodingKey::from_secret(DEV_SECRET.as_bytes());
    let tokens: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("eyJ"))
        .collect();
    assert_eq!(tokens.len(), 2);
    for token in tokens {
        let claims: Value = jsonwebtoken::decode(token, &key, &Validation::default())
            .expect("a signed token")
            .claims;
        assert_eq!(claims["video"]["roomJoin"], true);
    }
    let snippet = lines.iter().skip_while(|line| !line.starts_with("<script"));
    assert_eq!(snippet.count(), 10);
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let unit = include_str!("../systemd/stellwerk.service");
    let program = env!("CARGO_BIN_EXE_stellwerk");
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("unit");
    std::fs::create_dir_all(&folder).expect("a writable target directory");
    // Verification wants the program to exist; it is not installed here.
    let copy = folder.join("stellwerk.service");
    std::fs::write(&copy, unit.replace("/usr/bin/stellwerk", program)).expect("writable");
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&copy)
        .output();
    let Ok(verify) = verify else {
        eprintln!("systemd-analyze is not installed: the unit was not verified");
        return;
    };
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(
        verify.status.success() && !said.contains("stellwerk.service"),
        "{said}"
    );
}

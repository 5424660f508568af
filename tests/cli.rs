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

//! Tokens that must pass and tokens that must not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::config::{ByteSize, DEV_KEY, DEV_SECRET, Sources};

const NOW: Duration = Duration::from_secs(1_790_000_000);

fn config() -> Config {
    let sources = Sources {
        dev: true,
        ..Sources::default()
    };
    Config::load(&sources)
        .expect("the defaults are right")
        .config
}

fn claims() -> Value {
    json!({
        "iss": DEV_KEY,
        "sub": "anna",
        "exp": NOW.as_secs() + 600,
        "video": { "room": "ratssaal", "roomJoin": true },
    })
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut claims = claims();
    let (parent, key) = pointer
        .rsplit_once('/')
        .expect("a pointer starts with a slash");
    claims.pointer_mut(parent).expect("a claim of the fixture")[key] = value;
    claims
}

fn sign_with(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("signs")
}

fn sign(claims: &Value) -> String {
    sign_with(Algorithm::HS256, claims, DEV_SECRET)
}

/// Signs a body that need not be JSON.
fn sign_raw(body: &str) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(body));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, DEV_SECRET.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

fn check(token: &str) -> Result<Grant, Refused> {
    Verifier::new(&config()).check(token, NOW)
}

#[test]
fn absent_claims_have_the_defaults_of_the_protocol() {
    let grant = check(&sign(&claims())).expect("a plain token");
    assert_eq!(grant.identity, Identity::from("anna"));
    assert_eq!(grant.room_to_join(), Ok(&RoomName::from("ratssaal")));
    let may = &grant.permissions;
    assert!(may.publish && may.subscribe && may.publish_data);
    assert!(!may.update_metadata && !may.hidden && may.sources.is_empty());
    assert!(!grant.room_create && !grant.room_list && !grant.room_admin);
}

#[test]
fn a_minted_token_says_the_same_again() {
    let mut grant = Grant::new("bert".into());
    grant.name = "Bert".to_owned();
    grant.metadata = "{}".to_owned();
    grant
        .attributes
        .insert("hand".to_owned(), "raised".to_owned());
    grant.room = Some("ratssaal".into());
    grant.room_join = true;
    grant.room_create = true;
    grant.permissions.sources = vec![Source::Camera, Source::ScreenShareAudio];
    grant.permissions.publish_data = false;
    grant.permissions.update_metadata = true;
    let secret = Secret::new(DEV_SECRET).expect("long enough");
    let token = grant.mint(DEV_KEY, &secret, NOW, Duration::from_secs(3600));
    grant.key = DEV_KEY.to_owned();
    grant.expires = NOW + Duration::from_secs(3600);
    grant.issued = Some(NOW);
    assert!(check(&token).expect("our own token") == grant);
}

#[test]
fn a_token_was_made_at_its_nbf_or_else_at_its_iat() {
    let issued = |claims: Value| check(&sign(&claims)).expect("a good token").issued;
    let at = |seconds: u64| Some(Duration::from_secs(NOW.as_secs() - seconds));
    let mut claims = changed("/iat", (NOW.as_secs() - 20).into());
    assert_eq!(issued(claims.clone()), at(20));
    claims["nbf"] = (NOW.as_secs() - 10).into();
    assert_eq!(issued(claims), at(10));
    assert_eq!(issued(self::claims()), None);
}

#[test]
fn other_algorithms_are_refused_even_with_the_right_secret() {
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = sign_with(algorithm, &claims(), DEV_SECRET);
        assert_eq!(check(&token), Err(Refused::Algorithm));
    }
    let token = sign(&claims());
    let (_, rest) = token.split_once('.').expect("three parts");
    let (body, signature) = rest.split_once('.').expect("three parts");
    // {"alg":"none"}, {"alg":"RS256"}
    for (header, signature) in [
        ("eyJhbGciOiJub25lIn0", ""),
        ("eyJhbGciOiJub25lIn0", signature),
        ("eyJhbGciOiJSUzI1NiJ9", signature),
    ] {
        let refused = check(&format!("{header}.{body}.{signature}"));
        assert!(
            matches!(refused, Err(Refused::Algorithm | Refused::Malformed)),
            "{refused:?}"
        );
    }
}

#[test]
fn unknown_keys_and_wrong_signatures_get_one_answer() {
    let other_secret = sign_with(
        Algorithm::HS256,
        &claims(),
        "another secret of enough length..",
    );
    let other_key = sign(&changed("/iss", json!("nobody")));
    let no_key = sign(&changed("/iss", Value::Null));
    let decoy = std::str::from_utf8(DECOY).expect("text");
    let decoyed = sign_with(Algorithm::HS256, &changed("/iss", json!("nobody")), decoy);
    let token = sign(&claims());
    let (rest, _) = token.rsplit_once('.').expect("three parts");
    for token in [
        other_secret,
        other_key,
        no_key,
        decoyed,
        format!("{rest}.AAAA"),
    ] {
        assert_eq!(check(&token), Err(Refused::Unauthentic));
    }
}

#[test]
fn times_are_checked_with_a_minute_of_leeway() {
    let now = NOW.as_secs();
    let cases = [
        ("/exp", json!(now - 59), Ok(())),
        ("/exp", json!(now - 61), Err(Refused::Expired)),
        ("/exp", Value::Null, Err(Refused::Expired)),
        ("/exp", json!("soon"), Err(Refused::Claims)),
        ("/exp", json!(-1e300), Err(Refused::Expired)),
        ("/exp", json!(1e300), Ok(())),
        ("/nbf", json!(now + 59), Ok(())),
        ("/nbf", json!(now + 61), Err(Refused::TooEarly)),
        ("/iat", json!(now + 61), Err(Refused::TooEarly)),
    ];
    for (pointer, value, expected) in cases {
        let answer = check(&sign(&changed(pointer, value.clone()))).map(|_| ());
        assert_eq!(answer, expected, "{pointer} {value}");
    }
}

#[test]
fn who_and_where_must_be_said_and_bounded() {
    let long = "x".repeat(257);
    let cases = [
        ("/sub", Value::Null, Err(Refused::IdentityMissing)),
        ("/sub", json!(""), Err(Refused::IdentityMissing)),
        ("/sub", json!("a\0b"), Err(Refused::Claims)),
        ("/sub", json!(long), Err(Refused::Claims)),
        ("/sub", json!(7), Err(Refused::Claims)),
        ("/name", json!(long), Err(Refused::Claims)),
        ("/video", Value::Null, Err(Refused::JoinNotAllowed)),
        ("/video/room", Value::Null, Err(Refused::JoinNotAllowed)),
        ("/video/room", json!(long), Err(Refused::Claims)),
        (
            "/video/roomJoin",
            json!(false),
            Err(Refused::JoinNotAllowed),
        ),
        ("/video/roomJoin", json!("yes"), Err(Refused::Claims)),
    ];
    for (pointer, value, expected) in cases {
        let grant = check(&sign(&changed(pointer, value.clone())));
        let answer = grant.and_then(|grant| grant.room_to_join().map(|_| ()));
        assert_eq!(answer, expected, "{pointer} {value}");
    }
    let mut fallback = changed("/sub", Value::Null);
    fallback["jti"] = json!("carla");
    let grant = check(&sign(&fallback)).expect("jti stands in for sub");
    assert_eq!(grant.identity, Identity::from("carla"));
}

#[test]
fn sources_narrow_and_never_widen() {
    let sources = |names: Value| {
        let token = sign(&changed("/video/canPublishSources", names));
        check(&token).expect("a token with sources").permissions
    };
    let camera = sources(json!(["camera", "hologram"]));
    assert!(camera.may_publish(Source::Camera) && !camera.may_publish(Source::Microphone));
    assert!(!sources(json!(["hologram"])).may_publish(Source::Camera));
    assert!(sources(json!([])).may_publish(Source::Camera));
}

#[test]
fn sources_without_a_name_are_not_minted_as_all() {
    let mut grant = Grant::new("anna".into());
    grant.room = Some("red".into());
    grant.permissions.sources = vec![Source::Unknown];
    let config = config();
    let (key, secret) = config.keys.first().unwrap();
    let minted = grant.mint(key, secret, NOW, Duration::from_secs(60));
    assert!(!check(&minted).unwrap().permissions.publish);
}

#[test]
fn hidden_needs_the_consent_of_the_operator() {
    let token = sign(&changed("/video/hidden", json!(true)));
    assert!(!check(&token).expect("still a token").permissions.hidden);
    let mut config = config();
    config.rooms.hidden_participants = true;
    let grant = Verifier::new(&config).check(&token, NOW).expect("a token");
    assert!(grant.permissions.hidden);
}

#[test]
fn what_is_no_token_is_refused_unread() {
    assert_eq!(check(&"x".repeat(1 << 20)), Err(Refused::TooLong));
    for text in ["", ".", "..", "...", "a.b.c", "\u{fffd}.\0.x"] {
        assert_eq!(check(text), Err(Refused::Malformed), "{text:?}");
    }
    let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    let with = |claim: &str| sign_raw(&format!(r#"{{"iss":"{DEV_KEY}","{claim}":{deep}}}"#));
    assert_eq!(check(&with("attributes")), Err(Refused::Claims));
    // What nobody reads is skipped, however deep; this one just never had an end.
    assert_eq!(check(&with("roomConfig")), Err(Refused::Expired));
}

#[test]
fn a_claim_given_twice_is_refused() {
    let now = NOW.as_secs();
    let body = format!(
        r#"{{"iss":"{DEV_KEY}","sub":"a","sub":"b","exp":{}}}"#,
        now + 60
    );
    assert_eq!(check(&sign_raw(&body)), Err(Refused::Claims));
}

#[test]
fn metadata_and_attributes_have_bounds_of_their_own() {
    let mut config = config();
    config.limits.metadata_bytes = ByteSize(4);
    config.limits.attributes_bytes = ByteSize(4);
    let verifier = Verifier::new(&config);
    let cases = [
        ("/metadata", json!("1234"), Ok(())),
        ("/metadata", json!("12345"), Err(Refused::Claims)),
        ("/attributes", json!({ "ab": "cd" }), Ok(())),
        (
            "/attributes",
            json!({ "ab": "c", "d": "e" }),
            Err(Refused::Claims),
        ),
    ];
    for (pointer, value, expected) in cases {
        let token = sign(&changed(pointer, value.clone()));
        assert_eq!(
            verifier.check(&token, NOW).map(|_| ()),
            expected,
            "{pointer} {value}"
        );
    }
}

#[test]
fn a_token_of_anybody_is_plain_base64_and_says_the_same() {
    let (verifier, secret) = (Verifier::new(&config()), Secret::new(DEV_SECRET).unwrap());
    let identity = "@ol>d?~us\u{7f}ér\u{1f4a9}:example.org:D~~~";
    let mut grant = Grant::new(identity.into());
    (grant.room, grant.room_join) = (Some("r".into()), true);
    grant.matrix = Some(MatrixCall {
        open: true,
        member: Some(Member {
            room: "!r~:example.org".to_owned(),
            user: identity.to_owned(),
        }),
    });
    let now = Duration::from_secs(1_000_000);
    let token = grant.mint(DEV_KEY, &secret, now, Duration::from_secs(60));
    let payload = token.split('.').nth(1).unwrap();
    assert!(!payload.contains(['-', '_']), "{payload}");
    let checked = verifier.check(&token, now).unwrap();
    assert_eq!(checked.identity.as_str(), identity);
    assert_eq!(checked.matrix, grant.matrix);
    assert!(!format!("{:?}", grant.matrix).contains("example"));
}

//! Parts that a whole file doesn't show; `tests/matrix_cli.rs` has whole ones.

use serde_json::json;

use super::*;

fn toml(tree: Value) -> String {
    convert(&tree).expect("a right tree").toml()
}

fn notes(tree: Value) -> Vec<String> {
    let found = convert(&tree).expect("a right tree");
    found.notes.iter().map(|(path, _)| path.clone()).collect()
}

#[test]
fn listeners_are_ports_on_addresses() {
    assert!(toml(json!({})).contains("listen = [\"0.0.0.0:7880\"]\n"));
    let both = json!({ "port": 80, "bind_addresses": ["127.0.0.1", "::1", "eth0"] });
    assert!(toml(both.clone()).contains("listen = [\"127.0.0.1:80\", \"[::1]:80\"]\n"));
    assert_eq!(notes(both), ["bind_addresses"]);
}

#[test]
fn a_limit_of_zero_is_none() {
    let text = toml(json!({ "room": { "max_participants": 0 }, "limit": { "num_tracks": -1 } }));
    assert!(!text.contains("[limits]"), "{text}");
}

#[test]
fn what_is_off_needs_no_word() {
    let off = json!({
        "turn": { "enabled": false, "domain": "x" }, "redis": null,
        "rtc": { "use_external_ip": false, "udp_port": 0, "node_ip": { "v4": "" } },
    });
    assert_eq!(notes(off), Vec::<String>::new());
    let on = json!({
        "turn": { "enabled": true }, "redis": { "address": "a", "password": "p" },
        "rtc": { "use_external_ip": true, "udp_port": "7882-7892" }, "new": { "thing": 1 },
    });
    assert_eq!(
        notes(on),
        [
            "new.thing",
            "redis",
            "rtc.udp_port",
            "rtc.use_external_ip",
            "turn"
        ]
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (tree, expected) in [
        (json!([1]), "is no configuration"),
        (json!({ "port": "x" }), "port: \"x\" is no number"),
        (
            json!({ "keys": { "a": 7 } }),
            "keys: a: write its secret in quotes",
        ),
        (
            json!({ "room": { "empty_timeout": "5m" } }),
            "room.empty_timeout: \"5m\" is no whole",
        ),
        (
            json!({ "webhook": { "urls": "http://a" } }),
            "webhook.urls: \"http://a\" is no list",
        ),
    ] {
        let error = convert(&tree).expect_err("wrong");
        assert!(error.contains(expected), "{error}");
    }
}

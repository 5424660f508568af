//! What each part of a configuration of livekit-server becomes.

use std::net::IpAddr;

use serde_json::Value;
use stellwerk::config::Secret;

use super::Found;

/// LiveKit's own default.
const PORT: u64 = 7880;

/// What becomes of the value at one path, with all that lies below it.
pub(super) enum Rule {
    /// A parameter of ours.
    To(
        &'static str,
        &'static str,
        fn(&Value) -> Result<toml::Value, String>,
    ),
    /// The same, unless it is 0, which means no limit.
    Limit(&'static str, &'static str),
    /// Nothing: why.
    Note(&'static str),
    /// Nothing, unless it was on: why.
    NoteIfOn(&'static str),
    /// Nothing needs to be said.
    Silent,
    /// What takes more than one value.
    Special(fn(&Value, &str, &mut Found) -> Result<(), String>),
}

use Rule::{Limit, Note, NoteIfOn, Silent, Special, To};

const ONE_NODE: &str = "is not needed: all rooms are in this process";
const SELF_TUNED: &str = "is not needed: the daemon has its own way with it";

/// A path ends a walk: the first entry that is equal counts.
const RULES: &[(&str, Rule)] = &[
    ("port", Silent),
    ("bind_addresses", Silent),
    ("prometheus_port", To("metrics", "listen", metrics)),
    ("prometheus", Special(prometheus)),
    ("log_level", To("log", "level", text)),
    ("logging", Special(logging)),
    ("environment", Silent),
    ("development", NoteIfOn("is `stellwerk serve --dev` here")),
    ("keys", Special(keys)),
    (
        "key_file",
        Note("is not read; write its lines as `name = \"secret\"` under [keys]"),
    ),
    ("webhook.urls", To("webhook", "urls", list)),
    ("webhook.api_key", To("webhook", "key", text)),
    ("rtc.udp_port", Special(udp_port)),
    ("rtc.port_range_start", To("media", "port", number)),
    (
        "rtc.port_range_end",
        Note("is not needed: each worker takes one port, from media.port on"),
    ),
    ("rtc.node_ip", Special(node_ip)),
    ("rtc.use_ice_lite", Silent),
    (
        "rtc.use_external_ip",
        NoteIfOn(
            "asks servers in the internet for this host's address, which the daemon doesn't; write \
         the addresses clients reach into media.advertise",
        ),
    ),
    ("rtc.tcp_port", To("media", "tcp_port", number)),
    ("rtc.allow_tcp_fallback", Silent),
    (
        "rtc.force_tcp",
        NoteIfOn("has no equivalent: clients take TCP where UDP doesn't get through"),
    ),
    (
        "rtc.interfaces",
        Note("is not read; write their names into media.interfaces, those to leave out with \"!\""),
    ),
    (
        "rtc.ips",
        Note("is not read; write the addresses to use into media.addresses"),
    ),
    (
        "rtc.enable_loopback_candidate",
        NoteIfOn(
            "is not needed: write 127.0.0.1 into media.addresses where clients are on this host",
        ),
    ),
    (
        "rtc.stun_servers",
        Note("is not needed: nobody has to ask third parties for addresses"),
    ),
    (
        "rtc.turn_servers",
        Note("has no equivalent: clients are told of no TURN servers"),
    ),
    (
        "rtc.congestion_control.allow_pause",
        To("rooms", "pause_video", boolean),
    ),
    ("rtc.congestion_control.enabled", Special(congestion)),
    ("rtc.packet_buffer_size", Note(SELF_TUNED)),
    ("rtc.packet_buffer_size_video", Note(SELF_TUNED)),
    ("rtc.packet_buffer_size_audio", Note(SELF_TUNED)),
    ("rtc.pli_throttle", Note(SELF_TUNED)),
    ("rtc.batch_io", Note(SELF_TUNED)),
    ("redis", Note(ONE_NODE)),
    ("node_selector", Note(ONE_NODE)),
    ("signal_relay", Note(ONE_NODE)),
    ("psrpc", Note(ONE_NODE)),
    ("region", Note(ONE_NODE)),
    ("turn", Special(turn)),
    ("room.auto_create", To("rooms", "auto_create", boolean)),
    ("room.empty_timeout", To("rooms", "empty_timeout", seconds)),
    (
        "room.departure_timeout",
        To("rooms", "departure_timeout", seconds),
    ),
    (
        "room.max_participants",
        Limit("limits", "participants_per_room"),
    ),
    ("room.enabled_codecs", Special(codecs)),
    (
        "room.enable_remote_unmute",
        To("rooms", "remote_unmute", boolean),
    ),
    ("room.max_metadata_size", Limit("limits", "metadata_bytes")),
    ("room.max_room_name_length", Limit("limits", "name_bytes")),
    (
        "room.max_participant_identity_length",
        Limit("limits", "identity_bytes"),
    ),
    ("limit.max_metadata_size", Limit("limits", "metadata_bytes")),
    (
        "limit.max_attributes_size",
        Limit("limits", "attributes_bytes"),
    ),
    ("limit.max_room_name_length", Limit("limits", "name_bytes")),
    (
        "limit.max_participant_name_length",
        Limit("limits", "name_bytes"),
    ),
    (
        "limit.max_participant_identity_length",
        Limit("limits", "identity_bytes"),
    ),
    (
        "limit.num_tracks",
        Note("counts all tracks of a node; here limits.participants and limits.rooms bound it"),
    ),
    (
        "limit.bytes_per_sec",
        Note("has no equivalent; limits.participants and limits.rooms bound the node"),
    ),
    (
        "ingress",
        Note("has no equivalent: nothing comes in but from clients"),
    ),
    ("egress", Note("has no equivalent: there is no recording")),
    ("sip", Note("has no equivalent: there are no telephones")),
    ("agents", Note("has no equivalent: there are no agents")),
];

/// The rule for exactly this path.
pub(super) fn of(path: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|(at, _)| *at == path)
        .map(|(_, rule)| rule)
}

impl Rule {
    /// Does what it says.
    pub(super) fn apply(&self, value: &Value, path: &str, to: &mut Found) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        match self {
            To(section, key, read) => to.set(section, key, read(value)?),
            Limit(section, key) => match number(value)? {
                toml::Value::Integer(0) => {}
                limit => to.set(section, key, limit),
            },
            Note(text) => to.note(path, text),
            NoteIfOn(text) => {
                if boolean(value)?.as_bool() == Some(true) {
                    to.note(path, text);
                }
            }
            Silent => {}
            Special(apply) => apply(value, path, to)?,
        }
        Ok(())
    }
}

/// `http.listen`, of port and addresses. Without addresses LiveKit listens on all of them.
pub(super) fn listeners(tree: &Value, found: &mut Found) -> Result<(), String> {
    let port = match tree.get("port") {
        None | Some(Value::Null) => PORT,
        Some(port) => port
            .as_u64()
            .ok_or_else(|| format!("port: {port} is no number"))?,
    };
    let all = [Value::from("")];
    let addresses = match tree.get("bind_addresses") {
        None | Some(Value::Null) => all.as_slice(),
        Some(Value::Array(list)) if list.is_empty() => all.as_slice(),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("bind_addresses: {other} is no list")),
    };
    let mut listen = Vec::new();
    for address in addresses {
        let address = match address.as_str() {
            Some("") => "0.0.0.0",
            Some("localhost") => "127.0.0.1",
            Some(address) => address,
            None => return Err(format!("bind_addresses: {address} is no address")),
        };
        let address = address.trim_matches(['[', ']']);
        match address.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => listen.push(format!("[{address}]:{port}").into()),
            Ok(IpAddr::V4(_)) => listen.push(format!("{address}:{port}").into()),
            Err(_) => found.note(
                "bind_addresses",
                &format!("{address:?} is no IP address; write one into http.listen"),
            ),
        }
    }
    found.set("http", "listen", toml::Value::Array(listen));
    Ok(())
}

fn keys(value: &Value, path: &str, found: &mut Found) -> Result<(), String> {
    let entries = value
        .as_object()
        .ok_or("is no table of names and secrets")?;
    for (name, secret) in entries {
        // A secret of digits alone is a number for YAML, and has lost its leading zeros.
        let secret = secret
            .as_str()
            .ok_or_else(|| format!("{name}: write its secret in quotes"))?;
        if let Err(message) = Secret::new(secret) {
            found.note(&format!("{path}.{name}"), &message);
        }
        found.keys.insert(name.clone(), secret.to_owned());
    }
    Ok(())
}

fn prometheus(value: &Value, path: &str, found: &mut Found) -> Result<(), String> {
    if let Some(port) = value.get("port") {
        found.set("metrics", "listen", metrics(port)?);
    }
    if value
        .get("username")
        .is_some_and(|name| name.as_str() != Some(""))
    {
        found.note(
            path,
            "has a password, which the daemon doesn't ask for: keep it off the network",
        );
    }
    Ok(())
}

fn logging(value: &Value, _: &str, found: &mut Found) -> Result<(), String> {
    if let Some(level) = value.get("level") {
        found.set("log", "level", text(level)?);
    }
    if let Some(json) = value.get("json") {
        found.set("log", "format", format(json)?);
    }
    Ok(())
}

/// One port, or a range such as "7882-7892".
fn udp_port(value: &Value, path: &str, found: &mut Found) -> Result<(), String> {
    let first = match value {
        Value::String(range) => {
            found.note(
                path,
                "is a range; each worker takes one port, from media.port on",
            );
            let first = range.split('-').next().unwrap_or("").trim();
            first
                .parse::<u16>()
                .map_err(|_| format!("{value} is no range of ports"))?
                .into()
        }
        // LiveKit's 0 is "none of these".
        Value::Number(number) if number.as_u64() == Some(0) => return Ok(()),
        value => value
            .as_i64()
            .ok_or_else(|| format!("{value} is no port"))?,
    };
    found.set("media", "port", first.into());
    Ok(())
}

/// One address, or one for each family.
fn node_ip(value: &Value, path: &str, found: &mut Found) -> Result<(), String> {
    let named: Vec<&str> = match value {
        Value::String(address) => vec![address],
        Value::Object(families) => families.values().filter_map(Value::as_str).collect(),
        _ => return Err(format!("{value} is no address")),
    };
    let named: Vec<toml::Value> = named
        .into_iter()
        .filter(|it| !it.is_empty())
        .map(Into::into)
        .collect();
    if !named.is_empty() {
        found.note(
            path,
            "became media.advertise: clients are told it in place of this host's own addresses",
        );
        found.set("media", "advertise", toml::Value::Array(named));
    }
    Ok(())
}

fn congestion(value: &Value, path: &str, found: &mut Found) -> Result<(), String> {
    if boolean(value)?.as_bool() == Some(false) {
        found.note(path, "can't be switched off");
    }
    Ok(())
}

fn turn(value: &Value, path: &str, found: &mut Found) -> Result<(), String> {
    if value.get("enabled").and_then(Value::as_bool) == Some(true) {
        found.note(
            path,
            "has no equivalent: there is no TURN server in this daemon",
        );
    }
    Ok(())
}

fn codecs(value: &Value, path: &str, found: &mut Found) -> Result<(), String> {
    let list = value
        .as_array()
        .ok_or_else(|| format!("{value} is no list"))?;
    let mut names: Vec<toml::Value> = Vec::new();
    for entry in list {
        let mime = entry
            .get("mime")
            .and_then(Value::as_str)
            .unwrap_or_default();
        match mime.to_ascii_lowercase().as_str() {
            "video/vp8" | "video/vp9" | "video/h264" | "video/av1" | "audio/opus" | "audio/red" => {
                let (_, name) = mime.split_once('/').unwrap_or_default();
                names.push(name.to_ascii_lowercase().into());
            }
            "video/rtx" => {}
            other => found.note(path, &format!("{other:?} is no codec that is forwarded")),
        }
    }
    found.set("rooms", "codecs", toml::Value::Array(names));
    Ok(())
}

fn metrics(value: &Value) -> Result<toml::Value, String> {
    let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
    // LiveKit has it open to all; who scrapes from elsewhere writes the address.
    port.map(|port| format!("127.0.0.1:{port}").into())
        .ok_or_else(|| format!("{value} is no port"))
}

fn text(value: &Value) -> Result<toml::Value, String> {
    let text = value.as_str();
    text.map(Into::into)
        .ok_or_else(|| format!("{value} is no text"))
}

fn number(value: &Value) -> Result<toml::Value, String> {
    let number = value.as_i64();
    number
        .map(Into::into)
        .ok_or_else(|| format!("{value} is no whole number"))
}

fn boolean(value: &Value) -> Result<toml::Value, String> {
    let value = value
        .as_bool()
        .ok_or_else(|| format!("{value} is neither true nor false"))?;
    Ok(value.into())
}

fn seconds(value: &Value) -> Result<toml::Value, String> {
    Ok(format!("{}s", number(value)?).into())
}

fn format(value: &Value) -> Result<toml::Value, String> {
    Ok(match boolean(value)?.as_bool() {
        Some(true) => "json".into(),
        _ => "text".into(),
    })
}

fn list(value: &Value) -> Result<toml::Value, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("{value} is no list"))?;
    items
        .iter()
        .map(text)
        .collect::<Result<_, _>>()
        .map(toml::Value::Array)
}

//! The variables of lk-jwt-service, so that its environment can stay as it is.
//!
//! Each stands for a parameter of ours, in a layer just below the `STELLWERK_` variables. They are
//! read where `LIVEKIT_FULL_ACCESS_HOMESERVERS` is among them, which lk-jwt-service can't do
//! without: tools of LiveKit have a `LIVEKIT_URL` in many a developer's environment, and that one
//! must not make this daemon a token service. What has no equivalent is a concern that says why.

use std::path::Path;

use toml::Value;

use super::address::ServerMap;
use super::keys;
use super::layer::{Layers, Place};
use super::value::Parameter;

pub(super) const PREFIX: &str = "LIVEKIT_";

/// The variable that says whose users may open calls, and that this is meant for us.
const SWITCH: &str = "LIVEKIT_FULL_ACCESS_HOMESERVERS";

/// Of a developer's environment, or of Kubernetes beside a service called "livekit".
const FOREIGN: [&str; 5] = [
    "LIVEKIT_URL",
    "LIVEKIT_API_KEY",
    "LIVEKIT_API_SECRET",
    "LIVEKIT_PORT",
    "LIVEKIT_SERVICE_",
];

/// A variable, the parameter it stands for, and how its text becomes the value.
type Alias = (&'static str, &'static str, &'static str, fn(&str) -> Value);

const ALIASES: &[Alias] = &[
    ("LIVEKIT_URL", "matrix", "url", text),
    (SWITCH, "matrix", "full_access", names),
    (
        "LIVEKIT_REMOTE_CAN_PUBLISH_HOMESERVERS",
        "matrix",
        "remote_publish",
        names,
    ),
    (
        "LIVEKIT_CS_API_URL_OVERRIDES",
        "matrix",
        "cs_api",
        ServerMap::from_text,
    ),
    (
        "LIVEKIT_AS_REGISTRATION_FILE",
        "matrix",
        "registration",
        text,
    ),
    (
        "LIVEKIT_REQUIRE_MEMBERSHIP",
        "matrix",
        "require_membership",
        truth,
    ),
    (
        "LIVEKIT_CAN_UPDATE_OWN_METADATA",
        "matrix",
        "update_metadata",
        truth,
    ),
    (
        "LIVEKIT_INSECURE_SKIP_VERIFY_TLS",
        "matrix",
        "insecure_skip_verify",
        text,
    ),
    ("LIVEKIT_LOG_LEVEL", "log", "level", level),
];

/// Variables that mean more than one value, or go with others.
const OTHERS: [&str; 8] = [
    "LIVEKIT_KEY",
    "LIVEKIT_KEY_FROM_FILE",
    "LIVEKIT_SECRET",
    "LIVEKIT_SECRET_FROM_FILE",
    "LIVEKIT_KEY_FILE",
    "LIVEKIT_JWT_BIND",
    "LIVEKIT_JWT_PORT",
    "LIVEKIT_HS_SERVER_NAME",
];

/// Variables that nothing here stands for, and why.
const WITHOUT: &[(&str, &str)] = &[
    (
        "LIVEKIT_REDIS_",
        "leaves are kept in a file, matrix.leaves; set STELLWERK_MATRIX_LEAVES and unset this",
    ),
    (
        "LIVEKIT_SANITY_CHECK_INTERVAL_SECONDS",
        "this daemon has the participants itself and need not ask for them; unset it",
    ),
    (
        "LIVEKIT_AS_TOKEN",
        "tokens are read from the registration; name its file in LIVEKIT_AS_REGISTRATION_FILE",
    ),
    (
        "LIVEKIT_HS_TOKEN",
        "tokens are read from the registration; name its file in LIVEKIT_AS_REGISTRATION_FILE",
    ),
    (
        "LIVEKIT_CONFIG",
        "a configuration of livekit-server is translated by `stellwerk import-livekit FILE`",
    ),
];

impl Layers {
    /// Adds what the variables of lk-jwt-service say.
    pub(super) fn add_aliases(&mut self, env: &[(String, String)]) {
        let ours: Vec<_> = env
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        let is_meant = ours.iter().any(|(name, _)| name == SWITCH);
        let value = |wanted: &str| ours.iter().find(|(name, _)| name == wanted);
        let present = |wanted: &str| {
            let (name, text) = value(wanted)?;
            Some((text.as_str(), Place::Env(name.clone())))
        };
        for (name, text) in &ours {
            let place = Place::Env(name.clone());
            let alias = ALIASES.iter().find(|(variable, ..)| variable == name);
            let known = alias.is_some() || OTHERS.contains(&name.as_str());
            match alias {
                Some((_, section, key, read)) if is_meant => {
                    self.set(section, key, read(text), place);
                }
                _ if known && is_meant => {}
                _ if FOREIGN.iter().any(|foreign| name.starts_with(foreign)) => {}
                _ if known => {
                    let message = format!("is read only together with {SWITCH}; set that too");
                    self.worry(&place, message);
                }
                _ if is_meant => self.worry(&place, format!("is not read: {}", reason(name))),
                _ => {}
            }
        }
        if is_meant {
            self.add_alias_keys(&present);
            self.add_alias_listeners(&present);
            self.add_alias_homeserver(&present);
        }
    }

    /// What upstream does without being told: it asks any server for its users. Only where nobody
    /// has said which homeservers there are.
    pub(super) fn imply_federation(&mut self, env: &[(String, String)]) {
        let is_said = |key: &str| match self.entry("matrix", key).map(|entry| &entry.place) {
            Some(Place::Default | Place::Dev) | None => false,
            Some(Place::Env(name)) => !name.starts_with(PREFIX),
            Some(_) => true,
        };
        let is_meant = env.iter().any(|(name, _)| name == SWITCH);
        if is_meant && !is_said("federation") && !is_said("homeservers") {
            let place = Place::Env(SWITCH.to_owned());
            self.set("matrix", "federation", true.into(), place);
        }
    }

    fn add_alias_keys<'a>(&mut self, present: &impl Fn(&str) -> Option<(&'a str, Place)>) {
        if let Some((file, place)) = present("LIVEKIT_KEY_FILE") {
            match keys::read_file(Path::new(file)) {
                Ok(text) => {
                    self.add_key_lines(&text, &place);
                    if let Some(exposed) = keys::exposed(Path::new(file), "the secret stands in") {
                        self.worry(&place, exposed);
                    }
                }
                Err(error) => self.complain(&place, unreadable(file, &error)),
            }
        }
        let name = match (present("LIVEKIT_KEY"), present("LIVEKIT_KEY_FROM_FILE")) {
            (Some((name, place)), _) => Some((name.trim().to_owned(), place)),
            (None, Some((file, place))) => match keys::read_file(Path::new(file)) {
                Ok(name) => Some((name.trim().to_owned(), place)),
                Err(error) => return self.complain(&place, unreadable(file, &error)),
            },
            (None, None) => None,
        };
        let secret = match (
            present("LIVEKIT_SECRET"),
            present("LIVEKIT_SECRET_FROM_FILE"),
        ) {
            (Some((secret, place)), _) => Some((Value::from(secret.trim()), place)),
            (None, Some((file, place))) => {
                let table = toml::Table::from_iter([("file".to_owned(), file.into())]);
                Some((Value::Table(table), place))
            }
            (None, None) => None,
        };
        match (name, secret) {
            (Some((name, _)), Some((secret, place))) => self.set("keys", &name, secret, place),
            (Some((_, place)), None) => {
                self.complain(&place, "has no secret; set LIVEKIT_SECRET too".to_owned());
            }
            (None, Some((_, place))) => {
                self.complain(&place, "has no name; set LIVEKIT_KEY too".to_owned());
            }
            (None, None) => {}
        }
    }

    /// Lines such as `key: secret`.
    fn add_key_lines(&mut self, text: &str, place: &Place) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_once(':') {
                Some((name, secret)) => {
                    self.set("keys", name.trim(), secret.trim().into(), place.clone());
                }
                None => {
                    let message = "names a file with a line that has no colon; write \
                        \"key: secret\" there";
                    self.complain(place, message.to_owned());
                }
            }
        }
    }

    /// Where the token service was is listened on beside what is configured: a proxy that knows
    /// two addresses, the other one livekit-server's, can go on as it is.
    fn add_alias_listeners<'a>(&mut self, present: &impl Fn(&str) -> Option<(&'a str, Place)>) {
        let port = present("LIVEKIT_JWT_PORT").map(|(port, place)| (format!(":{port}"), place));
        let bind = present("LIVEKIT_JWT_BIND").map(|(bind, place)| (bind.to_owned(), place));
        let Some((address, place)) = bind.or(port) else {
            return;
        };
        // What Kubernetes writes for a service called "livekit-jwt".
        if address.contains("tcp://") {
            return;
        }
        let address = match address.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}"),
            None => address,
        };
        let before = self
            .entry("http", "listen")
            .map(|entry| entry.value.clone());
        let mut list = before
            .and_then(|value| value.as_array().cloned())
            .unwrap_or_default();
        if !list.iter().any(|it| it.as_str() == Some(&address)) {
            list.push(address.into());
        }
        self.set("http", "listen", Value::Array(list), place);
    }

    /// The one homeserver that is behind a registration, at the address of its override.
    fn add_alias_homeserver<'a>(&mut self, present: &impl Fn(&str) -> Option<(&'a str, Place)>) {
        let Some((name, place)) = present("LIVEKIT_HS_SERVER_NAME") else {
            return;
        };
        let overrides = self
            .entry("matrix", "cs_api")
            .and_then(|it| it.value.as_table());
        match overrides.and_then(|table| table.get(name)).cloned() {
            Some(address) => {
                let table = toml::Table::from_iter([(name.to_owned(), address)]);
                self.set("matrix", "homeservers", Value::Table(table), place);
            }
            None => {
                let message = "names a homeserver without its address; add it to \
                    LIVEKIT_CS_API_URL_OVERRIDES, or set STELLWERK_MATRIX_HOMESERVERS instead";
                self.worry(&place, message.to_owned());
            }
        }
    }
}

fn reason(name: &str) -> &'static str {
    WITHOUT
        .iter()
        .find(|(variable, _)| name.starts_with(variable))
        .map_or("nothing here stands for it; unset it", |(_, reason)| reason)
}

fn unreadable(file: &str, error: &std::io::Error) -> String {
    format!("cannot read {file}: {error}; check path and permissions")
}

fn text(text: &str) -> Value {
    text.trim().into()
}

/// Names between commas or blanks.
fn names(text: &str) -> Value {
    let names = text
        .split([',', ' ', '\t', '\n'])
        .filter(|name| !name.is_empty());
    Value::Array(names.map(Value::from).collect())
}

/// As Go reads it.
fn truth(text: &str) -> Value {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => true.into(),
        "0" | "f" | "false" => false.into(),
        other => other.into(),
    }
}

fn level(text: &str) -> Value {
    match text.trim().to_ascii_lowercase().as_str() {
        "warning" => "warn".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Loaded, Sources};
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn load(env: &[(&str, &str)]) -> Result<Loaded, super::super::Error> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Config::load(&Sources {
            env: env.iter().map(pair).collect(),
            ..Sources::default()
        })
    }

    fn concerns(loaded: &Loaded) -> Vec<String> {
        loaded.concerns.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_environment_of_upstream_is_a_configuration() {
        let loaded = load(&[
            ("LIVEKIT_URL", "wss://rtc.example.org/livekit/sfu"),
            ("LIVEKIT_KEY", "devkey"),
            ("LIVEKIT_SECRET", SECRET),
            ("LIVEKIT_JWT_BIND", ":8080"),
            (SWITCH, "example.org, example.net example.com"),
            ("LIVEKIT_REMOTE_CAN_PUBLISH_HOMESERVERS", "*"),
            (
                "LIVEKIT_CS_API_URL_OVERRIDES",
                "example.org=http://synapse:8008",
            ),
            ("LIVEKIT_CAN_UPDATE_OWN_METADATA", "1"),
            ("LIVEKIT_LOG_LEVEL", "WARNING"),
            ("LIVEKIT_REQUIRE_MEMBERSHIP", "False"),
        ]);
        let loaded = loaded.expect("a right configuration");
        assert_eq!(concerns(&loaded), Vec::<String>::new());
        let config = &loaded.config;
        let matrix = &config.matrix;
        assert!(matrix.federation && matrix.update_metadata && !matrix.require_membership);
        assert!(matrix.homeservers.is_empty());
        assert_eq!(matrix.full_access.len(), 3);
        assert!(
            matrix
                .cs_api
                .keys()
                .any(|name| name.as_str() == "example.org")
        );
        assert!(config.keys.secret("devkey").is_some());
        let listen: Vec<_> = config.http.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:7880", "0.0.0.0:8080"]);
        let shown = loaded.show();
        for line in [
            "federation = true # LIVEKIT_FULL_ACCESS_HOMESERVERS",
            "level = \"warn\" # LIVEKIT_LOG_LEVEL",
            "\"devkey\" = \"********\" # LIVEKIT_SECRET",
        ] {
            assert!(
                shown.lines().any(|it| it == line),
                "no {line:?} in\n{shown}"
            );
        }
    }

    #[test]
    fn our_own_variables_win() {
        let base = [
            ("STELLWERK_MATRIX_URL", "wss://new.example.org"),
            ("LIVEKIT_URL", "wss://old.example.org"),
            (SWITCH, "example.org"),
        ];
        let config = load(&base).expect("right").config;
        let url = config.matrix.url.expect("an address");
        assert_eq!(url.as_str(), "wss://new.example.org");
        let mut env = base.to_vec();
        env.push((
            "STELLWERK_MATRIX_HOMESERVERS",
            "example.org=http://127.0.0.1:8008",
        ));
        assert!(!load(&env).expect("right").config.matrix.federation);
        env.push(("STELLWERK_MATRIX_FEDERATION", "true"));
        assert!(load(&env).expect("right").config.matrix.federation);
    }

    #[test]
    fn a_homeserver_with_a_registration_has_the_address_of_its_override() {
        let mut env = vec![
            ("LIVEKIT_URL", "wss://rtc.example.org"),
            (SWITCH, "example.org"),
            ("LIVEKIT_HS_SERVER_NAME", "example.org"),
            ("LIVEKIT_AS_REGISTRATION_FILE", "/etc/registration.yaml"),
            (
                "LIVEKIT_CS_API_URL_OVERRIDES",
                "example.org=http://127.0.0.1:8008",
            ),
        ];
        let matrix = load(&env).expect("right").config.matrix;
        assert!(matrix.federation, "upstream asks other servers too");
        assert_eq!(matrix.homeservers, matrix.cs_api);
        env.pop();
        env.retain(|(name, _)| *name != "LIVEKIT_AS_REGISTRATION_FILE");
        let loaded = load(&env).expect("right");
        assert!(
            concerns(&loaded)
                .concat()
                .contains("a homeserver without its address")
        );
    }

    #[test]
    fn what_nothing_stands_for_is_told() {
        let loaded = load(&[
            ("LIVEKIT_URL", "wss://rtc.example.org"),
            (SWITCH, "*"),
            ("LIVEKIT_REDIS_URL", "redis://x"),
            ("LIVEKIT_SANITY_CHECK_INTERVAL_SECONDS", "3"),
            ("LIVEKIT_HS_TOKEN", SECRET),
            ("LIVEKIT_NEWS", "1"),
            ("LIVEKIT_API_KEY", "of a tool"),
            ("LIVEKIT_SERVICE_HOST", "10.0.0.1"),
            ("LIVEKIT_JWT_PORT", "tcp://10.0.0.1:8080"),
        ]);
        let said = concerns(&loaded.expect("right"));
        assert_eq!(said.len(), 4, "{said:?}");
        for (line, name) in said.iter().zip(["REDIS_URL", "SANITY", "HS_TOKEN", "NEWS"]) {
            assert!(line.contains(name) && !line.contains(SECRET), "{line}");
        }
    }

    #[test]
    fn a_developers_environment_is_left_alone() {
        let loaded = load(&[
            ("LIVEKIT_URL", "ws://localhost:7880"),
            ("LIVEKIT_API_KEY", "devkey"),
            ("LIVEKIT_KEY", "devkey"),
        ]);
        let loaded = loaded.expect("right");
        assert!(!loaded.config.matrix.is_on() && loaded.config.keys.is_empty());
        let said = concerns(&loaded);
        assert!(
            said.len() == 1 && said.concat().contains(SWITCH),
            "{said:?}"
        );
    }

    #[test]
    fn keys_come_from_files_too() {
        let folder = std::env::temp_dir().join(format!("stellwerk-alias-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).expect("a writable temporary directory");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a writable directory");
            path.to_str().expect("a plain name").to_owned()
        };
        let pair = write("pair", &format!("first: {SECRET}\n"));
        let (name, secret) = (write("name", "second\n"), write("secret", SECRET));
        let base = [("LIVEKIT_URL", "wss://rtc.example.org"), (SWITCH, "*")];
        let mut env = base.to_vec();
        env.extend([
            ("LIVEKIT_KEY_FILE", pair.as_str()),
            ("LIVEKIT_KEY_FROM_FILE", &name),
            ("LIVEKIT_SECRET_FROM_FILE", &secret),
        ]);
        let keys = load(&env).map(|loaded| loaded.config.keys);
        let mut gone = base.to_vec();
        gone.extend([
            ("LIVEKIT_KEY_FILE", "/nonexistent"),
            ("LIVEKIT_SECRET", SECRET),
        ]);
        let refused = load(&gone).expect_err("wrong").to_string();
        let _ = std::fs::remove_dir_all(&folder);
        let keys = keys.expect("right");
        let names: Vec<_> = keys.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["first", "second"]);
        assert!(
            refused.contains("LIVEKIT_KEY_FILE: cannot read /nonexistent"),
            "{refused}"
        );
        assert!(refused.contains("LIVEKIT_SECRET: has no name"), "{refused}");
    }
}

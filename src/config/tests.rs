//! The sample and the code are one; layers win in their order.

use super::layer::{env_name, sample_values};
use super::*;

fn load(sources: &Sources<'_>) -> Config {
    Config::load(sources).expect("a right configuration").config
}

/// Lines of the sample that hold a default, as `section.key`.
fn sample_keys() -> Vec<String> {
    let text = sample_values();
    let mut section = "";
    let mut keys = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push(format!("{section}.{key}"));
        }
    }
    keys
}

#[test]
fn the_sample_has_every_parameter_once_and_in_order() {
    let known: Vec<_> = KNOWN
        .iter()
        .map(|(section, key, _)| format!("{section}.{key}"))
        .collect();
    assert_eq!(sample_keys(), known);
}

#[test]
fn every_parameter_of_the_sample_has_a_sentence() {
    let lines: Vec<_> = SAMPLE.lines().collect();
    for pair in lines.windows(2) {
        let [above, line] = pair else { continue };
        if line.starts_with('#') && line.contains(" = ") && !line.starts_with("# ") {
            assert!(
                above.starts_with("# ") && above.ends_with('.'),
                "no sentence above {line}"
            );
        }
    }
}

#[test]
fn the_sample_as_a_file_changes_nothing() {
    let path = std::env::temp_dir().join(format!("stellwerk-sample-{}.toml", std::process::id()));
    std::fs::write(&path, sample_values()).expect("a writable temporary directory");
    let sources = Sources {
        file: Some(&path),
        ..Sources::default()
    };
    let from_file = Config::load(&sources);
    let _ = std::fs::remove_file(&path);
    assert_eq!(
        from_file.expect("the sample is right").config,
        load(&Sources::default())
    );
}

#[test]
fn every_parameter_takes_its_default_from_the_environment_too() {
    let values: toml::Table = toml::from_str(&sample_values()).expect("the sample is TOML");
    let text = |value: &toml::Value| match value {
        toml::Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(toml::Value::as_str).collect();
            items.join(",")
        }
        toml::Value::String(text) => text.clone(),
        toml::Value::Table(table) if table.is_empty() => String::new(),
        other => other.to_string(),
    };
    let env = KNOWN
        .iter()
        .map(|(section, key, _)| (env_name(section, key), text(&values[*section][*key])));
    let sources = Sources {
        env: env.collect(),
        ..Sources::default()
    };
    assert_eq!(load(&sources), load(&Sources::default()));
    let names: std::collections::BTreeSet<_> = KNOWN
        .iter()
        .map(|(section, key, _)| env_name(section, key))
        .collect();
    assert_eq!(names.len(), KNOWN.len(), "two parameters share a variable");
}

#[test]
fn no_default_stands_on_a_limit_that_the_protocol_goes_beyond() {
    let config = load(&Sources::default());
    assert!(config.limits.join_request_bytes <= config.limits.signal_message_bytes);
    assert!(config.limits.sdp_bytes <= config.limits.signal_message_bytes);
    assert!(config.limits.metadata_bytes <= config.limits.join_request_bytes);
    assert_eq!(config.media_limits().tracks_per_participant, 32);
}

#[test]
fn variables_of_kubernetes_are_no_parameters() {
    let foreign = [
        "STELLWERK_PORT_7880_TCP_ADDR",
        "STELLWERK_SERVICE_HOST",
        "STELLWERK_PORT",
    ];
    let env = foreign
        .map(|name| (name.to_owned(), "10.0.0.1".to_owned()))
        .to_vec();
    assert_eq!(
        load(&Sources {
            env,
            ..Sources::default()
        }),
        load(&Sources::default())
    );
}

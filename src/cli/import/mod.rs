//! `import-livekit`: a configuration of livekit-server becomes one of ours.
//!
//! The tree of YAML is walked leaf by leaf. [`rules`] knows what each leaf becomes; whatever has no
//! equivalent is named on standard error with the reason, so that nothing is lost in silence. What
//! is not here: whether the result is right, which `stellwerk check-config` says.

mod rules;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::Failure;

/// Real configurations take a few KiB; a longer file is the wrong file.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Sections, in the order of our own sample.
const SECTIONS: [&str; 7] = [
    "http", "metrics", "media", "rooms", "webhook", "limits", "log",
];

/// `import-livekit FILE`.
#[derive(Debug, Args)]
pub struct Import {
    /// The config.yaml of livekit-server; "-" for standard input.
    file: PathBuf,
}

/// What the walk has found.
#[derive(Debug, Default)]
struct Found {
    /// Our parameters, by section and key.
    parameters: BTreeMap<(&'static str, &'static str), toml::Value>,
    /// API keys.
    keys: BTreeMap<String, String>,
    /// What has no equivalent, or needs a look: the path there, and why.
    notes: Vec<(String, String)>,
}

impl Import {
    /// Prints our configuration, and on standard error what there is to say.
    pub fn run(&self) -> Result<(), Failure> {
        let name = self.file.display();
        let text = read(&self.file).map_err(|error| {
            Failure::Usage(format!(
                "cannot read {name}: {error}; check path and permissions"
            ))
        })?;
        // The words of the parser may quote the text, and with it a secret.
        let tree: Value = serde_saphyr::from_str(&text).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            Failure::Usage(format!("{name}:{line}: no YAML; correct that line"))
        })?;
        let found = convert(&tree).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        super::print(&found.toml());
        for (path, note) in &found.notes {
            eprintln!("{name}: {path}: {note}");
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => io::stdin()
            .lock()
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)?,
        _ => File::open(path)?
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)?,
    };
    match read as u64 {
        FILE_BYTES_MAX => Err(io::Error::other("too long for a configuration")),
        _ => Ok(text),
    }
}

/// The error names the path in the tree.
fn convert(tree: &Value) -> Result<Found, String> {
    let mut found = Found::default();
    match tree {
        Value::Object(_) | Value::Null => {}
        _ => return Err("is no configuration of livekit-server; name its config.yaml".to_owned()),
    }
    rules::listeners(tree, &mut found)?;
    walk(tree, "", &mut found)?;
    Ok(found)
}

fn walk(value: &Value, path: &str, found: &mut Found) -> Result<(), String> {
    if let Some(rule) = rules::of(path) {
        return rule
            .apply(value, path, found)
            .map_err(|error| format!("{path}: {error}"));
    }
    match value {
        Value::Object(entries) => entries.iter().try_for_each(|(key, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            walk(value, &format!("{path}{dot}{key}"), found)
        }),
        // As good as not written.
        Value::Null => Ok(()),
        _ => {
            found.note(path, "has no equivalent, and none is known to be needed");
            Ok(())
        }
    }
}

impl Found {
    fn set(&mut self, section: &'static str, key: &'static str, value: toml::Value) {
        self.parameters.insert((section, key), value);
    }

    fn note(&mut self, path: &str, text: &str) {
        self.notes.push((path.to_owned(), text.to_owned()));
    }

    fn toml(&self) -> String {
        let mut text = "# From a configuration of livekit-server. Check it with `stellwerk \
            check-config FILE`;\n# it holds secrets: `chmod o-rwx FILE`.\n"
            .to_owned();
        for section in SECTIONS {
            let own = self.parameters.iter().filter(|((it, _), _)| *it == section);
            let lines: Vec<_> = own
                .map(|((_, key), value)| format!("{key} = {value}\n"))
                .collect();
            if !lines.is_empty() {
                text += &format!("\n[{section}]\n{}", lines.concat());
            }
        }
        text += "\n[keys]\n";
        for (name, secret) in &self.keys {
            let name = toml::Value::String(name.clone());
            text += &format!("{name} = {}\n", toml::Value::String(secret.clone()));
        }
        text
    }
}

#[cfg(test)]
mod tests;

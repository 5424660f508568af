//! `config show --effective`: every value with its origin, as TOML that can be read back.

use std::fmt::Write;

use toml::Value;

use super::KNOWN;
use super::layer::Layers;

/// What stands for a secret.
const MASK: &str = "********";

pub(super) fn effective(layers: &Layers) -> String {
    let mut text = String::new();
    let mut open = "";
    for &(section, key, _) in KNOWN {
        let Some(entry) = layers.entry(section, key) else {
            continue;
        };
        if section != open {
            let gap = if open.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
            open = section;
        }
        let _ = writeln!(text, "{key} = {} # {}", entry.value, entry.place);
    }
    text.push_str("\n[keys]\n");
    for (name, entry) in layers.section("keys") {
        let name = toml::Value::String(name.to_owned());
        // The path of a secret's file helps and gives nothing away.
        let value = match &entry.value {
            Value::Table(table) => Value::Table(table.clone()),
            _ => Value::String(MASK.to_owned()),
        };
        let _ = writeln!(text, "{name} = {value} # {}", entry.place);
    }
    text
}

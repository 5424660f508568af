//! Layers of the configuration: who says what, and who wins.
//!
//! defaults < development defaults < file < environment < command line. A layer replaces single
//! values, in `[keys]` single keys.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::{Spanned, Value};

use super::alias;
use super::error::{Error, Problem};
use super::keys::{self, Keys};
use super::value::Parameter;
use super::{DEV_KEY, DEV_SECRET, Known, SAMPLE};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `config/stellwerk.toml`, compiled in.
    Default,
    /// The defaults of `--dev`.
    Dev,
    /// A line of a file, counted from 1; 0 for the file as a whole.
    File(Arc<Path>, usize),
    /// An environment variable.
    Env(String),
    /// An option of the command line.
    Flag(&'static str),
}

/// Which layers to read.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// Whether the defaults are those for development.
    pub dev: bool,
    /// The configuration file.
    pub file: Option<&'a Path>,
    /// The environment: names and values. Only names with `STELLWERK_` or `LIVEKIT_` matter.
    pub env: Vec<(String, String)>,
    /// The command line.
    pub overrides: Overrides,
}

/// Parameters with an option of their own on the command line.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--workers`.
    pub workers: Option<u16>,
    /// `--http`.
    pub http: Option<SocketAddr>,
    /// `--metrics`.
    pub metrics: Option<SocketAddr>,
    /// `--media-port`.
    pub media_port: Option<u16>,
}

/// A value and its origin.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub value: Value,
    pub place: Place,
}

type Entries = BTreeMap<String, BTreeMap<String, Entry>>;

/// The layers, merged.
#[derive(Debug)]
pub(super) struct Layers {
    defaults: Entries,
    entries: Entries,
    problems: Vec<Problem>,
    concerns: Vec<Problem>,
}

impl Place {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Dev => f.write_str("--dev"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

impl Sources<'_> {
    /// The environment of this process, as far as it is meant for us.
    pub fn process_env() -> Vec<(String, String)> {
        std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let value = value.to_string_lossy().into_owned();
                let ours = name.starts_with(ENV_PREFIX) || name.starts_with(alias::PREFIX);
                ours.then_some((name, value))
            })
            .collect()
    }
}

const ENV_PREFIX: &str = "STELLWERK_";

/// Kubernetes gives every container such variables for a service called "stellwerk"; they are no
/// parameters and must not keep the daemon from starting.
const ENV_FOREIGN: [&str; 2] = ["STELLWERK_PORT", "STELLWERK_SERVICE_"];

impl Layers {
    /// Reads and merges. Fails at once when the file can't be read or is no TOML.
    pub fn gather(sources: &Sources<'_>, known: &[Known]) -> Result<Self, Error> {
        let defaults = parse(&sample_values(), |_| Place::Default)
            .expect("a test parses the sample that is compiled in");
        let mut layers = Self {
            entries: defaults.clone(),
            defaults,
            problems: Vec::new(),
            concerns: Vec::new(),
        };
        if sources.dev {
            layers.set("http", "listen", list("127.0.0.1:7880"), Place::Dev);
            layers.set("metrics", "listen", "127.0.0.1:7889".into(), Place::Dev);
            layers.set("media", "addresses", list("127.0.0.1"), Place::Dev);
            layers.set("media", "port", 7882.into(), Place::Dev);
            layers.set("keys", DEV_KEY, DEV_SECRET.into(), Place::Dev);
        }
        if let Some(path) = sources.file {
            layers.add_file(path, known)?;
        }
        layers.add_aliases(&sources.env);
        layers.add_env(&sources.env, known);
        layers.imply_federation(&sources.env);
        layers.add_overrides(&sources.overrides);
        Ok(layers)
    }

    /// A value, typed and in its range. After a problem the default stands in for it.
    pub fn read<T: Parameter + PartialOrd>(
        &mut self,
        section: &str,
        key: &str,
        range: Option<RangeInclusive<T>>,
    ) -> T {
        let entry = self
            .entry(section, key)
            .expect("a test finds every key in the sample");
        let bounds = range.as_ref().map(|range| {
            let (least, most) = (range.start().show(), range.end().show());
            format!("; take at least {least} and at most {most}")
        });
        let problem = match T::from_toml(&entry.value) {
            Ok(value) if range.is_none_or(|range| range.contains(&value)) => return value,
            Ok(_) => format!("{} is out of range", entry.value),
            Err(problem) => problem,
        };
        let problem = problem + &bounds.unwrap_or_default();
        self.problems
            .push(Problem::new(&entry.place, section, key, problem));
        let default = self
            .defaults
            .get(section)
            .and_then(|entries| entries.get(key));
        default
            .and_then(|entry| T::from_toml(&entry.value).ok())
            .expect("a test reads every default of the sample")
    }

    /// Notes a problem with a value as a whole.
    pub fn refuse(&mut self, section: &str, key: &str, message: String) {
        let place = self
            .entry(section, key)
            .map_or(Place::Default, |entry| entry.place.clone());
        self.problems
            .push(Problem::new(&place, section, key, message));
    }

    /// The API keys, read from their files where they have one.
    pub fn keys(&mut self) -> Keys {
        let mut keys = Keys::default();
        for (name, entry) in self.entries.get("keys").into_iter().flatten() {
            let problem = |message| Problem::new(&entry.place, "keys", name, message);
            match keys::read(&entry.value, &entry.place) {
                Ok(_) if name.is_empty() => {
                    self.problems.push(problem("a key needs a name".to_owned()));
                }
                Ok(found) => {
                    self.concerns.extend(found.exposed.map(problem));
                    keys.insert(name.clone(), found.secret);
                }
                Err(message) => self.problems.push(problem(message)),
            }
        }
        keys
    }

    /// Fails when there was any problem so far.
    pub fn check(&mut self) -> Result<(), Error> {
        match std::mem::take(&mut self.problems) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(Error::new(problems)),
        }
    }

    pub fn take_concerns(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.concerns)
    }

    pub fn entry(&self, section: &str, key: &str) -> Option<&Entry> {
        self.entries.get(section)?.get(key)
    }

    pub fn section(&self, section: &str) -> impl Iterator<Item = (&str, &Entry)> {
        let entries = self.entries.get(section).into_iter().flatten();
        entries.map(|(key, entry)| (key.as_str(), entry))
    }

    /// Notes a problem with what stands at `place` as a whole.
    pub fn complain(&mut self, place: &Place, message: String) {
        self.problems.push(Problem::new(place, "", "", message));
    }

    /// Notes what can be lived with.
    pub fn worry(&mut self, place: &Place, message: String) {
        self.concerns.push(Problem::new(place, "", "", message));
    }

    pub fn set(&mut self, section: &str, key: &str, value: Value, place: Place) {
        let section = self.entries.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), Entry { value, place });
    }

    fn add_file(&mut self, path: &Path, known: &[Known]) -> Result<(), Error> {
        let name: Arc<Path> = PathBuf::from(path).into();
        let fail = |line: usize, message: String| {
            let place = Place::File(name.clone(), line);
            Error::new(vec![Problem::new(&place, "", "", message)])
        };
        let text = fs::read_to_string(path).map_err(|error| {
            let message = match error.kind() {
                ErrorKind::InvalidData => "is not UTF-8; save it as such".to_owned(),
                _ => format!("cannot be read: {error}; check path and permissions"),
            };
            fail(0, message)
        })?;
        let entries = parse(&text, |line| Place::File(name.clone(), line)).map_err(|error| {
            let line = error.span().map_or(0, |span| line_of(&text, span.start));
            // serde's words for a value outside a section quote the value, perhaps a secret.
            let message = match error.message() {
                text if text.starts_with("invalid type") => "a value outside any section",
                text => text,
            };
            fail(
                line,
                format!("{message}; a section is [name], a value is key = value"),
            )
        })?;
        for (section, entries) in entries {
            // A section without keys has no place of its own and does no harm, unless misspelt.
            if entries.is_empty() {
                self.refuse_section(&section, &Place::File(name.clone(), 0), known);
            }
            for (key, Entry { value, place }) in entries {
                if self.is_known(&section, &key, &place, known) {
                    self.set(&section, &key, value, place);
                }
            }
        }
        Ok(())
    }

    fn add_env(&mut self, env: &[(String, String)], known: &[Known]) {
        for (name, text) in env {
            let place = Place::Env(name.clone());
            let Some(wanted) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            if wanted == "KEYS" {
                self.add_env_keys(text, &place);
            } else if let Some(&(section, key, from_text)) = known
                .iter()
                .find(|(section, key, _)| env_name(section, key) == *name)
            {
                self.set(section, key, from_text(text), place);
            } else if !ENV_FOREIGN.iter().any(|prefix| name.starts_with(prefix)) {
                let names = known.iter().map(|(section, key, _)| env_name(section, key));
                let remedy = nearest(name, names, "unset it");
                let message = format!("is no parameter; {remedy}");
                self.complain(&place, message);
            }
        }
    }

    fn add_env_keys(&mut self, text: &str, place: &Place) {
        let pairs = text
            .split([',', '\n'])
            .map(str::trim)
            .filter(|pair| !pair.is_empty());
        for pair in pairs {
            match pair.split_once(':') {
                Some((name, secret)) => {
                    self.set("keys", name.trim(), secret.trim().into(), place.clone());
                }
                None => {
                    let message = "has an entry without a colon; write \"name:secret\"".to_owned();
                    self.complain(place, message);
                }
            }
        }
    }

    fn add_overrides(&mut self, overrides: &Overrides) {
        if let Some(workers) = overrides.workers {
            let workers = i64::from(workers).into();
            self.set("media", "workers", workers, Place::Flag("--workers"));
        }
        if let Some(http) = overrides.http {
            self.set(
                "http",
                "listen",
                list(&http.to_string()),
                Place::Flag("--http"),
            );
        }
        if let Some(metrics) = overrides.metrics {
            let metrics = metrics.to_string().into();
            self.set("metrics", "listen", metrics, Place::Flag("--metrics"));
        }
        if let Some(port) = overrides.media_port {
            self.set(
                "media",
                "port",
                i64::from(port).into(),
                Place::Flag("--media-port"),
            );
        }
    }

    fn is_known(&mut self, section: &str, key: &str, place: &Place, known: &[Known]) -> bool {
        if section == "keys" || known.iter().any(|(s, k, _)| (*s, *k) == (section, key)) {
            return true;
        }
        if self.refuse_section(section, place, known) {
            return false;
        }
        let keys = known
            .iter()
            .filter(|(s, _, _)| *s == section)
            .map(|(_, k, _)| *k);
        let elsewhere = known.iter().find(|(_, k, _)| *k == key).map(|(s, _, _)| *s);
        let remedy = match elsewhere {
            Some(other) => format!("it belongs under [{other}]"),
            None => nearest(key, keys, "remove it"),
        };
        let message = format!("unknown key; {remedy}");
        self.problems
            .push(Problem::new(place, section, key, message));
        false
    }

    /// Notes a problem when there is no such section; says whether it did.
    fn refuse_section(&mut self, section: &str, place: &Place, known: &[Known]) -> bool {
        let mut sections: Vec<_> = known.iter().map(|(section, _, _)| *section).collect();
        sections.dedup();
        sections.push("keys");
        let unknown = !sections.contains(&section);
        if unknown {
            let remedy = nearest(section, sections, "remove it");
            let message = format!("unknown section; {remedy}");
            self.problems
                .push(Problem::new(place, section, "", message));
        }
        unknown
    }
}

fn list(item: &str) -> Value {
    Value::Array(vec![item.into()])
}

/// The environment variable of a parameter.
pub(super) fn env_name(section: &str, key: &str) -> String {
    format!("{ENV_PREFIX}{section}_{key}").to_ascii_uppercase()
}

/// The sample with its defaults switched on, line by line the same.
pub(super) fn sample_values() -> String {
    let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn parse(text: &str, place: impl Fn(usize) -> Place) -> Result<Entries, toml::de::Error> {
    type Section = BTreeMap<Spanned<String>, Value>;
    let sections: BTreeMap<String, Section> = toml::from_str(text)?;
    let entry = |(key, value): (Spanned<String>, Value)| {
        let place = place(line_of(text, key.span().start));
        (key.into_inner(), Entry { value, place })
    };
    let section =
        |(name, section): (String, Section)| (name, section.into_iter().map(entry).collect());
    Ok(sections.into_iter().map(section).collect())
}

/// The line, counted from 1, that the byte at `offset` stands in.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// "did you mean ...?" with the candidate nearest to `wrong`, else `otherwise`.
fn nearest<S: AsRef<str>>(
    wrong: &str,
    candidates: impl IntoIterator<Item = S>,
    otherwise: &str,
) -> String {
    let scored = candidates
        .into_iter()
        .map(|name| (distance(wrong, name.as_ref()), name));
    match scored.min_by_key(|(distance, _)| *distance) {
        Some((distance, name)) if distance * 2 <= wrong.len().max(name.as_ref().len()) => {
            format!("did you mean `{}`?", name.as_ref())
        }
        _ => format!("{otherwise}; `stellwerk config show` lists all parameters"),
    }
}

/// Levenshtein's edit distance in bytes. Longer words than any key are far from all of them.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    if a.len() > LONGEST || b.len() > LONGEST {
        return LONGEST * 2;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (cell, other) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_edits() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("lisen", "listen"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}

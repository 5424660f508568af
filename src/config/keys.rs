//! API keys: names and secrets, given directly or by a file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::Value;

use super::layer::Place;

/// RFC 7518, 3.2: an HS256 key has at least as many bits as the hash; 32 characters of text are
/// the usual way to ask for it.
const SECRET_CHARS_MIN: usize = 32;

/// A longer secret file is the wrong file.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// A secret. Prints nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// API keys by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<String, Secret>);

impl Secret {
    /// The bytes to sign with.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text, for those it is shared with.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A secret that is strong enough, or why it is not.
    pub fn new(text: &str) -> Result<Self, String> {
        let count = text.chars().count();
        if count < SECRET_CHARS_MIN {
            return Err(format!(
                "the secret has {count} characters and could be guessed; take at least \
                 {SECRET_CHARS_MIN}, for example from `openssl rand -base64 36`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

impl Keys {
    /// Adds a key or replaces its secret.
    pub fn insert(&mut self, name: String, secret: Secret) {
        self.0.insert(name, secret);
    }

    /// The secret of a key.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// The first key by name: the one new tokens are signed with when nobody says which.
    pub fn first(&self) -> Option<(&str, &Secret)> {
        self.iter().next()
    }

    /// All keys, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, secret)| (name.as_str(), secret))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A secret as read, and whether strangers can read its file too.
pub(super) struct Found {
    pub secret: Secret,
    pub exposed: Option<String>,
}

/// The secret that a value under `[keys]` gives: a text, or a table with the key `file`.
pub(super) fn read(value: &Value, place: &Place) -> Result<Found, String> {
    let file = match value {
        Value::String(text) => {
            let exposed = place
                .file()
                .and_then(|path| exposed(path, "the secret stands in"));
            return Ok(Found {
                secret: Secret::new(text)?,
                exposed,
            });
        }
        Value::Table(table) if table.len() == 1 => table.get("file").and_then(Value::as_str),
        _ => None,
    };
    let Some(file) = file else {
        return Err("is neither a secret in quotes nor { file = \"/path\" }".to_owned());
    };
    let path = beside(place, Path::new(file));
    let text = read_file(&path).map_err(|error| {
        format!(
            "cannot read {}: {error}; check path and permissions",
            path.display()
        )
    })?;
    Ok(Found {
        secret: Secret::new(text.trim())?,
        exposed: exposed(&path, "the secret file is"),
    })
}

/// `file`, looked for in the directory of the configuration file when it is relative.
fn beside(place: &Place, file: &Path) -> PathBuf {
    let directory = place.file().and_then(Path::parent);
    directory.map_or_else(|| file.to_owned(), |directory| directory.join(file))
}

pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?
        .take(SECRET_FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    if length as u64 == SECRET_FILE_BYTES_MAX {
        return Err(io::Error::other("too long for a secret"));
    }
    Ok(text)
}

/// `what` and the remedy, if everyone on this host can read the file.
pub(super) fn exposed(path: &Path, what: &str) -> Option<String> {
    let path = is_exposed(path).then(|| path.display())?;
    Some(format!(
        "{what} {path}, which everyone on this host can read; run `chmod o-rwx {path}`"
    ))
}

/// Whether everyone on this host can read the file.
pub fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o004 != 0)
}

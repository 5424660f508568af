//! What is wrong with a configuration: where, which parameter, and what to do about it.

use std::fmt;
use std::path::Path;

use super::Place;

/// One fault: `stellwerk.toml:12: [http] listen: ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the faulty text stands.
    pub place: Place,
    /// Section and key, as an operator writes them; empty when there is none to name.
    pub parameter: String,
    /// What is wrong and the remedy. Never contains a secret.
    pub message: String,
}

/// A configuration that can't be used. Holds at least one problem.
#[derive(Debug)]
pub struct Error {
    problems: Vec<Problem>,
}

impl Problem {
    pub(super) fn new(place: &Place, section: &str, key: &str, message: String) -> Self {
        let parameter = match (section, key) {
            ("", "") => String::new(),
            (section, "") => format!("[{section}]"),
            (section, key) => format!("[{section}] {key}"),
        };
        Self {
            place: place.clone(),
            parameter,
            message,
        }
    }
}

impl Error {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    pub(super) fn no_keys(file: Option<&Path>) -> Self {
        let message = "there is no API key, so nobody could join; add one under [keys], for \
                       example `name = \"SECRET\"` with a secret from `openssl rand -base64 36`, \
                       or set STELLWERK_KEYS=\"name:SECRET\"; to just try, use --dev";
        let place = file.map_or(Place::Default, |file| Place::File(file.into(), 0));
        Self::new(vec![Problem::new(&place, "keys", "", message.to_owned())])
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A default is never at fault itself; something is missing in the layers above.
        if self.place != Place::Default {
            write!(f, "{}: ", self.place)?;
        }
        if !self.parameter.is_empty() {
            write!(f, "{}: ", self.parameter)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

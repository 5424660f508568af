//! The registration as application service: the file by which Synapse and this daemon know each
//! other. Here it is read, and made for `stellwerk matrix registration`.
//!
//! Synapse passes requests below one prefix on to the application service that claims it (MSC4512)
//! and lets it ask who is in a room (MSC4502). The names of the keys are those that Synapse 1.163
//! reads; what other texts call `proxy_prefix` or `io.element.msc4502.scope` it ignores.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::config::{Secret, ServerName, is_exposed};

/// The only prefix that Synapse lets an application service claim.
pub const PROXY_PREFIX: &str = "rtc/livekit";

/// What allows to ask whether somebody is in a room.
pub const SCOPE_IS_JOINED: &str = "urn:matrix:client:io.element.msc4502:rooms:is_joined";

/// A registration takes less than 1 KiB; a longer file is the wrong file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a token before they are text: as many as an HS256 key has, and as hard to guess.
const TOKEN_BYTES: usize = 32;

/// Element Call tries without a token whether leaves can be entrusted through the homeserver, which
/// says 401 for us whatever we think of it; and Element Call takes all but 404 for a yes.
pub const LEAVES_EXPECTED: &str = "with matrix.registration, clients believe that their leave is \
    kept here and may stay in a call for an hour after they have vanished; set matrix.leaves to a \
    file";

/// What each side has to know of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The name under which the homeserver knows us.
    pub id: String,
    /// With this we ask the homeserver.
    pub as_token: Secret,
    /// With this the homeserver asks us.
    pub hs_token: Secret,
    /// The local part of the user that we are for the homeserver.
    pub sender_localpart: String,
    /// What Synapse makes less of than its author meant, each with its remedy. Without secrets.
    pub concerns: Vec<String>,
}

/// The file as written. Keys that are not here concern Synapse alone.
#[derive(Deserialize)]
struct Written {
    id: Option<String>,
    as_token: Option<String>,
    hs_token: Option<String>,
    sender_localpart: Option<String>,
    rate_limited: Option<bool>,
    #[serde(rename = "io.element.msc4512.proxy_prefix")]
    proxy_prefix: Option<String>,
    #[serde(rename = "io.element.msc4512.proxy_url")]
    proxy_url: Option<String>,
    #[serde(rename = "io.element.msc4502.scopes")]
    scopes: Option<Vec<String>>,
}

impl Registration {
    /// Reads the file at `path`. The error names file, key and remedy, and no secret.
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| {
                format!(
                    "cannot read {name}: {error}; check path and permissions, or make the file \
                     with `stellwerk matrix registration`"
                )
            })?;
        if text.len() as u64 == FILE_BYTES_MAX {
            return Err(format!(
                "{name} is too long for a registration; name the right file"
            ));
        }
        let mut read = Self::parse(&text).map_err(|error| format!("{name}: {error}"))?;
        if is_exposed(path) {
            read.concerns.push(format!(
                "holds secrets, and everyone on this host can read it; run `chmod o-rwx {name}`"
            ));
        }
        Ok(read)
    }

    /// Reads the text of such a file.
    fn parse(text: &str) -> Result<Self, String> {
        // The words of the parser may quote the text, and with it a token: only its place is told.
        let written: Written = serde_saphyr::from_str(text).map_err(|error| {
            let line = error
                .location()
                .map_or(String::new(), |it| format!("line {}: ", it.line()));
            format!(
                "{line}no registration as YAML; write it anew with `stellwerk matrix \
                 registration`"
            )
        })?;
        let concerns = written.concerns();
        Ok(Self {
            id: written.id.unwrap_or_default(),
            as_token: token("as_token", written.as_token)?,
            hs_token: token("hs_token", written.hs_token)?,
            sender_localpart: written
                .sender_localpart
                .filter(|name| !name.is_empty())
                .ok_or("sender_localpart is missing; write `sender_localpart: stellwerk`")?,
            concerns,
        })
    }

    /// The text of a new registration for `server`, whose requests shall come to `proxy_url`. Its
    /// tokens are drawn anew each time.
    pub fn generate(server: &ServerName, proxy_url: &str) -> Result<String, String> {
        let (as_token, hs_token) = (draw()?, draw()?);
        // A regular expression in a quoted text of YAML, where a backslash is only itself.
        let users = server.as_str().replace('.', "\\.").replace('[', "\\[");
        Ok(format!(
            "id: stellwerk
as_token: \"{as_token}\"
hs_token: \"{hs_token}\"
sender_localpart: stellwerk
# No events: who has left a room is asked every few seconds. With the address of this daemon here
# the homeserver tells it at once, and sends all events of all rooms that its users are in.
url: null
# The leaves that clients entrust to us all come from one address.
rate_limited: false
namespaces:
  users:
    - regex: '^@.*:{users}$'
      exclusive: false
  aliases: []
  rooms: []
io.element.msc4512.proxy_prefix: \"{PROXY_PREFIX}\"
io.element.msc4512.proxy_url: \"{proxy_url}\"
io.element.msc4502.scopes:
  - \"{SCOPE_IS_JOINED}\"
"
        ))
    }
}

impl Written {
    fn concerns(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.proxy_prefix.as_deref() != Some(PROXY_PREFIX) {
            found.push(format!(
                "io.element.msc4512.proxy_prefix is not {PROXY_PREFIX:?}, so the homeserver passes \
                 no requests for tokens on; write it with exactly this key and value"
            ));
        }
        if self.proxy_url.is_none() {
            found.push(
                "io.element.msc4512.proxy_url is missing, so the homeserver passes no requests for \
                 tokens on; write the address at which it reaches this daemon, as in \
                 \"http://127.0.0.1:7880\""
                    .to_owned(),
            );
        }
        let asks = |scopes: &Vec<String>| scopes.iter().any(|scope| scope == SCOPE_IS_JOINED);
        if !self.scopes.as_ref().is_some_and(asks) {
            found.push(format!(
                "io.element.msc4502.scopes doesn't have {SCOPE_IS_JOINED:?}, so the homeserver \
                 doesn't tell who is in a room; add it under exactly this key"
            ));
        }
        if self.rate_limited != Some(false) {
            found.push(
                "rate_limited is not false, so the homeserver lets only a few leaves through at a \
                 time; write `rate_limited: false`"
                    .to_owned(),
            );
        }
        found
    }
}

/// Only the names of what stands there.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

/// A token as it goes into a header.
fn token(key: &str, text: Option<String>) -> Result<Secret, String> {
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Err(format!(
            "{key} is missing; write the file with `stellwerk matrix registration`"
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{key} has characters that can't stand in a header; take letters and digits"
        ));
    }
    Secret::new(&text).map_err(|message| format!("{key}: {message}"))
}

/// A random token.
fn draw() -> Result<String, String> {
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: &str = "as_token: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\
        hs_token: BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB\n";

    fn server(name: &str) -> ServerName {
        ServerName::new(name).unwrap()
    }

    #[test]
    fn what_is_made_can_be_read() {
        let text = Registration::generate(&server("a.example.org:8448"), "http://127.0.0.1:7880");
        let text = text.unwrap();
        assert!(
            text.contains("regex: '^@.*:a\\.example\\.org:8448$'"),
            "{text}"
        );
        let read = Registration::parse(&text).unwrap();
        assert_eq!(read.sender_localpart, "stellwerk");
        assert_eq!(read.concerns, Vec::<String>::new());
        assert_ne!(read.as_token, read.hs_token);
        let other = Registration::generate(&server("example.org"), "http://127.0.0.1:7880");
        assert_ne!(
            Registration::parse(&other.unwrap()).unwrap().as_token,
            read.as_token
        );
    }

    #[test]
    fn secrets_are_in_no_message() {
        let read = Registration::parse(&format!("{TOKENS}sender_localpart: s\n")).unwrap();
        assert!(!format!("{read:?}").contains("AAAA"), "{read:?}");
        for text in [
            "as_token: [SECRETSECRET]\n",
            "as_token: SECRETSECRET\nhs_token: {\n",
            "SECRETSECRET",
            "as_token: &a SECRETSECRET\nas_token: *b\n",
            "as_token: SECRETSECRET\nas_token: SECRETSECRET\n",
        ] {
            let error = Registration::parse(text).unwrap_err();
            assert!(!error.contains("SECRETSECRET"), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_a_remedy() {
        for (text, expected) in [
            (String::new(), "as_token is missing"),
            (
                "as_token: A\n".to_owned(),
                "as_token: the secret has 1 characters",
            ),
            (
                TOKENS.replace("BBBB", "B B "),
                "hs_token has characters that",
            ),
            (TOKENS.to_owned(), "sender_localpart is missing"),
            (format!("{TOKENS}id: [\n"), "no registration as YAML"),
        ] {
            let error = Registration::parse(&text).unwrap_err();
            assert!(
                error.contains(expected),
                "{text:?} is answered with {error:?}"
            );
        }
        let error = Registration::read(Path::new("/nonexistent/r.yaml")).unwrap_err();
        assert!(
            error.starts_with("cannot read /nonexistent/r.yaml: "),
            "{error}"
        );
    }

    #[test]
    fn keys_that_synapse_does_not_read_are_told() {
        let text = format!(
            "{TOKENS}sender_localpart: s\nproxy_prefix: rtc/livekit\n\
             io.element.msc4502.scope: [x]\n"
        );
        let read = Registration::parse(&text).unwrap();
        let keys = ["proxy_prefix", "proxy_url", "scopes", "rate_limited"];
        for (concern, key) in read.concerns.iter().zip(keys) {
            assert!(concern.contains(key), "{concern}");
        }
        assert_eq!(read.concerns.len(), 4);
    }

    #[test]
    fn an_endless_text_of_references_is_refused() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let one = format!("*a{},", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", one.repeat(9));
        }
        assert!(Registration::parse(&text).is_err());
    }
}

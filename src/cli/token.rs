//! `token`: prints a token that the configured keys, or one on the command line, have signed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use stellwerk::config::{self, Config, Keys, Secret};
use stellwerk::media::message;
use stellwerk::signal::grant::Grant;

use super::{Failure, unix_now};

/// `token ...`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("aim")
    .args(["room", "room_create", "room_list"]).required(true).multiple(true))]
pub struct Token {
    /// The room to join.
    #[arg(long)]
    room: Option<String>,
    /// Who joins; unique in a room.
    #[arg(long)]
    identity: String,
    /// Name to display.
    #[arg(long)]
    name: Option<String>,
    /// Free text for other participants.
    #[arg(long)]
    metadata: Option<String>,
    /// Attribute for other participants; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
    #[command(flatten)]
    rights: Rights,
    /// How long the token is good: "90s", "10m", "6h".
    #[arg(long, default_value = "6h", value_parser = config::duration)]
    ttl: Duration,
    #[command(flatten)]
    signer: Signer,
}

/// What the participant may do.
#[derive(Debug, Args)]
struct Rights {
    /// Forbid to publish tracks.
    #[arg(long)]
    no_publish: bool,
    /// Forbid to subscribe to tracks.
    #[arg(long)]
    no_subscribe: bool,
    /// Forbid to send data, which is not forwarded yet anyway.
    #[arg(long)]
    no_publish_data: bool,
    /// Allow to publish from this source only; may be given several times.
    #[arg(long, value_enum)]
    source: Vec<Source>,
    /// Allow to change the own name, metadata and attributes.
    #[arg(long)]
    update_metadata: bool,
    /// Invisible for others, where rooms.hidden_participants allows that.
    #[arg(long)]
    hidden: bool,
    /// Allow to create rooms, where rooms.auto_create doesn't.
    #[arg(long)]
    room_create: bool,
    /// Allow to control the room by the server API.
    #[arg(long, requires = "room")]
    room_admin: bool,
    /// Allow to list rooms by the server API.
    #[arg(long)]
    room_list: bool,
}

/// Which key signs.
#[derive(Debug, Args)]
pub struct Signer {
    /// Sign with a key of this configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sign with the key for development.
    #[arg(long)]
    dev: bool,
    /// Name of the key; otherwise the first by name.
    #[arg(long)]
    key: Option<String>,
    /// Its secret. Other users of this host can see it: better use --config, --secret-file or
    /// STELLWERK_KEYS.
    #[arg(long, requires = "key", conflicts_with_all = ["config", "dev"])]
    secret: Option<String>,
    /// A file that holds its secret, and nothing else.
    #[arg(long, value_name = "FILE", requires = "key",
        conflicts_with_all = ["config", "dev", "secret"])]
    secret_file: Option<PathBuf>,
}

/// Where a track may come from.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Source {
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
}

impl Token {
    /// Prints the token.
    pub fn run(self) -> Result<(), Failure> {
        let keys = self.signer.keys()?;
        let (key, secret) = self.signer.choose(&keys)?;
        let token = self.grant().mint(key, secret, unix_now(), self.ttl);
        super::print(&format!("{token}\n"));
        Ok(())
    }

    fn grant(&self) -> Grant {
        let rights = &self.rights;
        let mut grant = Grant::new(self.identity.as_str().into());
        grant.name = self.name.clone().unwrap_or_default();
        grant.metadata = self.metadata.clone().unwrap_or_default();
        grant.attributes = self.attribute.iter().cloned().collect();
        grant.room_join = self.room.is_some();
        grant.room = self.room.as_deref().map(Into::into);
        grant.room_create = rights.room_create;
        grant.room_list = rights.room_list;
        grant.room_admin = rights.room_admin;
        grant.permissions = message::Permissions {
            publish: !rights.no_publish,
            sources: rights
                .source
                .iter()
                .map(|source| (*source).into())
                .collect(),
            subscribe: !rights.no_subscribe,
            publish_data: !rights.no_publish_data,
            update_metadata: rights.update_metadata,
            hidden: rights.hidden,
        };
        grant
    }
}

impl Signer {
    /// The keys to choose from.
    pub fn keys(&self) -> Result<Keys, Failure> {
        if let (Some(key), Some(secret)) = (&self.key, self.secret()?) {
            let mut keys = Keys::default();
            keys.insert(key.clone(), secret);
            return Ok(keys);
        }
        let sources = super::config::sources(self.dev, self.config.as_deref());
        let loaded = Config::load(&sources)?;
        loaded.require_keys()?;
        Ok(loaded.config.keys)
    }

    /// The secret on the command line, or in the file it names.
    fn secret(&self) -> Result<Option<Secret>, Failure> {
        let (name, text) = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => ("--secret", secret.clone()),
            (None, Some(path)) => {
                let wrong = |error| Failure::Usage(format!("{}: {error}", path.display()));
                (
                    "--secret-file",
                    std::fs::read_to_string(path).map_err(wrong)?,
                )
            }
            (None, None) => return Ok(None),
        };
        let secret = Secret::new(text.trim());
        let wrong = |message| Failure::Usage(format!("{name}: {message}"));
        secret.map(Some).map_err(wrong)
    }

    /// The one that signs: its name and secret.
    pub fn choose<'a>(&'a self, keys: &'a Keys) -> Result<(&'a str, &'a Secret), Failure> {
        let chosen = match &self.key {
            Some(name) => keys.secret(name).map(|secret| (name.as_str(), secret)),
            None => keys.first(),
        };
        chosen.ok_or_else(|| {
            let names: Vec<_> = keys.iter().map(|(name, _)| name).collect();
            Failure::Usage(format!("--key: no such key; there is {}", names.join(", ")))
        })
    }
}

impl From<Source> for message::Source {
    fn from(source: Source) -> Self {
        match source {
            Source::Camera => Self::Camera,
            Source::Microphone => Self::Microphone,
            Source::ScreenShare => Self::ScreenShare,
            Source::ScreenShareAudio => Self::ScreenShareAudio,
        }
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

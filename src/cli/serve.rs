//! `serve`: configuration, logs, a greeting for developers, then the daemon until it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stellwerk::config::{self, Config, DEV_KEY};
use stellwerk::daemon;
use stellwerk::signal::grant::Grant;

use super::{Failure, log, unix_now};

/// `serve ...`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen on 127.0.0.1 with a well-known key, and print tokens for it. Needs no file; one
    /// given with --config is laid over it.
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Options that stand above the file and the environment.
#[derive(Debug, Args)]
pub struct Overrides {
    /// Worker threads, 0 for one per core.
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// Address for HTTP and WebSocket signalling.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Address for metrics and health.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// UDP port of the first worker.
    #[arg(long, value_name = "PORT")]
    media_port: Option<u16>,
}

impl Overrides {
    /// As a layer of the configuration.
    pub fn to_sources(&self) -> config::Overrides {
        config::Overrides {
            workers: self.workers,
            http: self.http,
            metrics: self.metrics,
            media_port: self.media_port,
        }
    }
}

impl Serve {
    /// Runs until the daemon ends.
    pub fn run(&self) -> Result<(), Failure> {
        let mut sources = super::config::sources(self.dev, self.config.as_deref());
        sources.overrides = self.overrides.to_sources();
        let loaded = Config::load(&sources)?;
        loaded.require_keys()?;
        log::start(&loaded.config.log);
        for concern in &loaded.concerns {
            tracing::warn!("{concern}");
        }
        if self.dev {
            super::print(&greeting(&loaded.config));
        }
        daemon::run(loaded.config).map_err(|error| Failure::Run(error.to_string()))
    }
}

/// What a developer needs to join, and a warning when the well-known key is open to others.
fn greeting(config: &Config) -> String {
    const ROOM: &str = "dev";
    const TTL: Duration = Duration::from_secs(24 * 3600);
    let url = config
        .http
        .listen
        .first()
        .map_or_else(String::new, |address| url(*address));
    let exposed = config
        .http
        .listen
        .iter()
        .any(|address| !address.ip().is_loopback());
    let mut text = format!("Stellwerk for development: {url}\n");
    if exposed {
        text.push_str("WARNING: the key is public, and the address open to other hosts.\n");
    }
    let mut example = String::new();
    for identity in ["anna", "bert"] {
        let mut grant = Grant::new(identity.into());
        grant.room = Some(ROOM.into());
        grant.room_join = true;
        if let Some(secret) = config.keys.secret(DEV_KEY) {
            let token = grant.mint(DEV_KEY, secret, unix_now(), TTL);
            text.push_str(&format!(
                "\nToken for {identity} in room {ROOM}, good for a day:\n{token}\n"
            ));
            if example.is_empty() {
                example = token;
            }
        }
    }
    text.push_str("\nA page that joins (npm install livekit-client, any bundler):\n\n");
    text.push_str(&SNIPPET.replace("URL", &url).replace("TOKEN", &example));
    text
}

/// A web page. Its videos are small so that nobody is below the edge of the window: what nobody
/// sees, an adaptive client does not ask for.
const SNIPPET: &str = r#"<style>video { width: 320px }</style>
<script type="module">
  import { Room, RoomEvent } from "livekit-client";
  const room = new Room({ adaptiveStream: true });
  const show = (track) => document.body.append(track.attach());
  room.on(RoomEvent.TrackSubscribed, show);
  room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((e) => e.remove()));
  room.on(RoomEvent.LocalTrackPublished, (p) => p.kind === "video" && show(p.track));
  await room.connect("URL", "TOKEN");
  await room.localParticipant.enableCameraAndMicrophone();
</script>
"#;

/// The address a browser on this host reaches `listen` by.
fn url(listen: SocketAddr) -> String {
    format!("ws://{}", super::from_this_host(listen))
}

//! `ctl`: speaks to a running daemon by its control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use stellwerk::config::Config;

use super::Failure;

/// Rooms answer in milliseconds; the daemon gives up before this.
const PATIENCE: Duration = Duration::from_secs(30);

/// `ctl ...`.
#[derive(Debug, Args)]
pub struct Ctl {
    /// The socket. Otherwise the one that the configuration names.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

/// One for each thing to do. Answers are JSON.
#[derive(Debug, Subcommand)]
enum Action {
    /// List the rooms.
    Rooms,
    /// Print a room: who is in it, what comes in on each track and goes out on each leg.
    Room {
        /// The room.
        room: String,
    },
    /// Create a room, or change the options of an open one.
    Create {
        /// The room.
        room: String,
        /// Seconds it waits for its first participant.
        #[arg(long, value_name = "SECONDS")]
        empty_timeout: Option<u32>,
        /// Seconds it outlives its last participant.
        #[arg(long, value_name = "SECONDS")]
        departure_timeout: Option<u32>,
        /// The most participants.
        #[arg(long, value_name = "N")]
        participants_max: Option<u32>,
        /// Free text for clients.
        #[arg(long, value_name = "TEXT")]
        metadata: Option<String>,
    },
    /// Send everybody away and close the room.
    Delete {
        /// The room.
        room: String,
    },
    /// Remove a participant; its tokens are refused from now on.
    Remove(Whom),
    /// Mute a track.
    Mute {
        #[command(flatten)]
        whom: Whom,
        /// The track, by its sid.
        track: String,
        /// Unmute instead, where rooms.remote_unmute allows it.
        #[arg(long)]
        unmute: bool,
    },
    /// Subscribe a participant to tracks of others.
    Subscribe {
        #[command(flatten)]
        whom: Whom,
        /// The tracks, by their sids.
        #[arg(required = true)]
        tracks: Vec<String>,
        /// Unsubscribe instead.
        #[arg(long)]
        unsubscribe: bool,
    },
    /// Choose what a participant gets of tracks it is subscribed to. Its client may choose again.
    Layers {
        #[command(flatten)]
        whom: Whom,
        /// The tracks, by their sids.
        #[arg(required = true)]
        tracks: Vec<String>,
        /// The best layer.
        #[arg(long, value_name = "QUALITY")]
        quality: Option<Quality>,
        /// The size of the picture, such as 640x360; goes before the quality.
        #[arg(long, value_name = "WxH", value_parser = size)]
        size: Option<(u32, u32)>,
        /// The most frames per second.
        #[arg(long, value_name = "FPS")]
        frame_rate: Option<u32>,
        /// What goes first when bandwidth is short: the higher number, 255 at most.
        #[arg(long, value_name = "N")]
        priority: Option<u32>,
        /// Nothing at all.
        #[arg(long)]
        off: bool,
    },
    /// Print what happens in rooms, a line each, until interrupted.
    Events {
        /// Only in this room.
        room: Option<String>,
    },
    /// Pass requests on that come as lines of JSON on standard input; print what comes back.
    Raw,
}

/// Somebody in a room.
#[derive(Debug, Args)]
struct Whom {
    /// The room.
    room: String,
    /// Who, by the identity.
    identity: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Quality {
    Low,
    Medium,
    High,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('x');
    let parts = parts.and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    parts.ok_or_else(|| "write WIDTHxHEIGHT, such as 640x360".to_owned())
}

impl Ctl {
    /// Does one thing and prints the answer.
    pub fn run(&self) -> Result<(), Failure> {
        let mut socket = Socket::open(&self.path()?)?;
        match &self.action {
            Action::Events { room } => {
                socket.ask(json!({ "do": "listen", "room": room }))?;
                socket.copy()
            }
            Action::Raw => socket.raw(),
            action => {
                let answer = socket.ask(action.request())?;
                let text = serde_json::to_string_pretty(&answer);
                let text = text.map_err(|error| Failure::Run(error.to_string()))?;
                super::print(&format!("{text}\n"));
                Ok(())
            }
        }
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.socket {
            return Ok(path.clone());
        }
        let sources = super::config::sources(false, self.config.as_deref());
        Config::load(&sources)?
            .config
            .control
            .socket
            .ok_or_else(|| {
                let text = "no control socket is configured: set control.socket \
                        (STELLWERK_CONTROL_SOCKET) for the daemon and here, or name it with \
                        --socket";
                Failure::Usage(text.to_owned())
            })
    }
}

impl Action {
    /// As a request; what isn't given isn't said.
    fn request(&self) -> Value {
        let mut request = match self {
            Self::Rooms => json!({ "do": "rooms" }),
            Self::Room { room } => json!({ "do": "room", "room": room }),
            Self::Create {
                room,
                empty_timeout,
                departure_timeout,
                participants_max,
                metadata,
            } => json!({
                "do": "create_room",
                "room": room,
                "empty_timeout": empty_timeout,
                "departure_timeout": departure_timeout,
                "participants_max": participants_max,
                "metadata": metadata,
            }),
            Self::Delete { room } => json!({ "do": "delete_room", "room": room }),
            Self::Remove(whom) => whom.request("remove", json!({})),
            Self::Mute {
                whom,
                track,
                unmute,
            } => whom.request("mute", json!({ "track": track, "muted": !unmute })),
            Self::Subscribe {
                whom,
                tracks,
                unsubscribe,
            } => {
                let fields = json!({ "tracks": tracks, "subscribed": !unsubscribe });
                whom.request("subscribe", fields)
            }
            Self::Layers {
                whom,
                tracks,
                quality,
                size,
                frame_rate,
                priority,
                off,
            } => {
                let fields = json!({
                    "tracks": tracks,
                    "quality": quality.map(Quality::word),
                    "width": size.map(|(width, _)| width),
                    "height": size.map(|(_, height)| height),
                    "frame_rate": frame_rate,
                    "priority": priority,
                    "disabled": off,
                });
                whom.request("layers", fields)
            }
            Self::Events { room } => json!({ "do": "listen", "room": room }),
            Self::Raw => json!({}),
        };
        if let Some(fields) = request.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        request
    }
}

impl Whom {
    fn request(&self, action: &str, fields: Value) -> Value {
        let mut request = json!({ "do": action, "room": self.room, "identity": self.identity });
        if let (Some(request), Value::Object(mut fields)) = (request.as_object_mut(), fields) {
            request.append(&mut fields);
        }
        request
    }
}

impl Quality {
    fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// A connection to the daemon.
struct Socket {
    reading: BufReader<UnixStream>,
    writing: UnixStream,
}

impl Socket {
    fn open(path: &std::path::Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "join the group of the daemon",
                _ => "is the daemon running, and control.socket the same for both?",
            };
            Failure::Run(format!(
                "cannot reach {}: {error}; {remedy}",
                path.display()
            ))
        };
        let writing = UnixStream::connect(path).map_err(failed)?;
        let reading = BufReader::new(writing.try_clone().map_err(failed)?);
        Ok(Self { reading, writing })
    }

    /// Sends one request and waits for its answer, past any events.
    fn ask(&mut self, request: Value) -> Result<Value, Failure> {
        self.reading
            .get_ref()
            .set_read_timeout(Some(PATIENCE))
            .map_err(lost)?;
        writeln!(self.writing, "{request}").map_err(lost)?;
        loop {
            let line = self
                .line()?
                .ok_or_else(|| Failure::Run("the daemon closed the connection".to_owned()))?;
            let mut answer: Map<String, Value> = serde_json::from_str(&line)
                .map_err(|error| Failure::Run(format!("the daemon said no JSON: {error}")))?;
            if let Some(error) = answer.get("error") {
                let text = error.get("text").and_then(Value::as_str);
                return Err(Failure::Run(text.unwrap_or("refused").to_owned()));
            }
            if let Some(ok) = answer.remove("ok") {
                return Ok(ok);
            }
        }
    }

    /// Prints every line until the daemon ends the connection.
    fn copy(&mut self) -> Result<(), Failure> {
        self.reading
            .get_ref()
            .set_read_timeout(None)
            .map_err(lost)?;
        while let Some(line) = self.line()? {
            super::print(&line);
        }
        Ok(())
    }

    /// Both ways at once. The end of the input ends the connection when every request that came
    /// before it has its answer.
    fn raw(&mut self) -> Result<(), Failure> {
        let mut writing = self.writing.try_clone().map_err(lost)?;
        let (ended, input) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let copied = std::io::copy(&mut std::io::stdin().lock(), &mut writing);
            // Said before the daemon can know of it.
            let _ = ended.send(copied);
            writing.shutdown(std::net::Shutdown::Write)
        });
        self.copy()?;
        match input.try_recv() {
            Ok(copied) => copied.map(|_| ()).map_err(lost),
            Err(_) => Err(Failure::Run("the daemon closed the connection".to_owned())),
        }
    }

    fn line(&mut self) -> Result<Option<String>, Failure> {
        let mut line = String::new();
        let read = self.reading.read_line(&mut line).map_err(lost)?;
        Ok((read > 0).then_some(line))
    }
}

fn lost(error: std::io::Error) -> Failure {
    Failure::Run(format!("the connection to the daemon was lost: {error}"))
}

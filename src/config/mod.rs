//! The configuration: layers of text become one typed value, once, at the start.
//!
//! Defaults are not written in code: `config/stellwerk.toml`, the file operators read, is compiled
//! in and is the lowest layer. Above it lie the development defaults (if asked for), the file, the
//! environment and the command line. Every value remembers where it came from, for error messages
//! and for `config show --effective`. What is not here: reloading, and what the values do.

mod address;
mod alias;
mod error;
mod interfaces;
mod keys;
mod layer;
mod matrix;
mod show;
mod value;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::{Network, PathPrefix, ServerMap, ServerName, SocketUrl, is_server_name};
pub use error::{Error, Problem};
pub use interfaces::{Interfaces, LocalAddresses};
pub use keys::{Keys, Secret, is_exposed};
pub use layer::{Overrides, Place, Sources};
pub use value::{ByteSize, LogFormat, LogLevel, WebUrl};

use crate::media;
use crate::media::message::{Codec, Kind};
use layer::Layers;
use value::Parameter;

/// The annotated defaults, as shipped.
pub const SAMPLE: &str = include_str!("../../config/stellwerk.toml");

/// The key of `serve --dev`. Everyone knows it.
pub const DEV_KEY: &str = "devkey";

/// The secret of [`DEV_KEY`]. Everyone knows it.
pub const DEV_SECRET: &str = "stellwerk-dev-secret-0123456789abcdef";

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Declares the sections: structs of plain fields, how they are read, and the list of their keys.
/// A parameter with an order has a range; anything outside is a [`Problem`].
macro_rules! sections {
    ($(
        $(#[$section_doc:meta])*
        $section:ident: $type:ident {
            $($(#[$doc:meta])* $key:ident: $value:ty $(, $min:expr, $max:expr)?;)*
        }
    )*) => {
        $(
            $(#[$section_doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $type { $($(#[$doc])* pub $key: $value,)* }
        )*

        /// Everything an operator can set. See `config/stellwerk.toml` for the whole text.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $($(#[$section_doc])* pub $section: $type,)*
            /// API keys. May be empty, see [`Loaded::require_keys`].
            pub keys: Keys,
        }

        /// A parameter: section, key, and how a text of the environment becomes its value.
        type Known = (&'static str, &'static str, fn(&str) -> toml::Value);

        /// Every parameter, in the order of the sample.
        const KNOWN: &[Known] = &[
            $($((stringify!($section), stringify!($key), <$value as Parameter>::from_text),)*)*
        ];

        fn read(layers: &mut Layers) -> Config {
            Config {
                $($section: $type {
                    $($key: layers.read::<$value>(
                        stringify!($section),
                        stringify!($key),
                        range!($($min, $max)?),
                    ),)*
                },)*
                keys: layers.keys(),
            }
        }
    };
}

macro_rules! range {
    () => {
        None
    };
    ($min:expr, $max:expr) => {
        Some(RangeInclusive::new($min, $max))
    };
}

sections! {
    /// HTTP and WebSocket signalling.
    http: Http {
        /// Addresses to listen on.
        listen: Vec<SocketAddr>;
        /// A client without a full request head after this is disconnected.
        header_timeout: Duration, SECOND, 600 * SECOND;
        /// TCP connections of all clients together; more wait in the kernel.
        connections: usize, 1, 10_000_000;
        /// TCP connections of one IPv4 address or /64 of IPv6, 0 for no limit; more are closed.
        connections_per_address: usize, 0, 10_000_000;
        /// Origins a browser page may have; `*` is every one.
        origins: Vec<String>;
        /// Proxies whose X-Forwarded-For is believed.
        trusted_proxies: Vec<Network>;
        /// What may stand before every path.
        prefixes: Vec<PathPrefix>;
        /// Whether `/rtc/v1` is there; without it clients use `/rtc` and two connections.
        v1: bool;
        /// Whether clients may ask to have faults simulated.
        simulate: bool;
    }
    /// Metrics and health.
    metrics: Metrics {
        /// Address to listen on.
        listen: SocketAddr;
    }
    /// Media over UDP.
    media: Media {
        /// Addresses as configured; [`Media::local_addresses`] fills in an empty list.
        addresses: Vec<IpAddr>;
        /// Which interfaces of the host count for an empty list.
        interfaces: Vec<Interfaces>;
        /// What clients are told instead of the local addresses, see [`Media::told_addresses`].
        advertise: Vec<IpAddr>;
        /// The port of worker 0; the others follow, unless they share it.
        port: u16, 1, u16::MAX;
        /// Whether all workers share that port.
        single_port: bool;
        /// Where media connections over TCP are taken; 0 for nowhere.
        tcp_port: u16, 0, u16::MAX;
        /// Worker threads; 0 for one per core, see [`Media::worker_count`].
        workers: u16, 0, 1024;
        /// UDP receive buffer per socket.
        receive_buffer: ByteSize, ByteSize::kib(64), ByteSize::mib(1024);
        /// UDP send buffer per socket.
        send_buffer: ByteSize, ByteSize::kib(64), ByteSize::mib(1024);
    }
    /// What holds for every room.
    rooms: Rooms {
        /// Participants of a room on a worker, before others take some too; 0 for no limit.
        participants_per_worker: usize, 0, 1_000_000;
        /// Whether a join creates a missing room.
        auto_create: bool;
        /// How long a room that was created waits for its first participant.
        empty_timeout: Duration, Duration::ZERO, DAY;
        /// How long a room outlives its last participant.
        departure_timeout: Duration, Duration::ZERO, DAY;
        /// How long a participant may take to connect media.
        connect_timeout: Duration, SECOND, DAY;
        /// Whether `hidden` in a token is honoured.
        hidden_participants: bool;
        /// Codecs that may be used, the preferred ones first.
        codecs: Vec<Codec>;
        /// Whether video may be paused for want of bandwidth, where the client doesn't say.
        pause_video: bool;
        /// How many are heard at a time in a large room; 0 for all.
        loudest: usize, 0, 100;
        /// A room of more participants is large.
        loudest_above: usize, 0, 1_000_000;
        /// Most cameras that a participant is sent; 0 for all.
        last_n: usize, 0, 1000;
        /// Whether the server API may unmute tracks.
        remote_unmute: bool;
        /// How long tokens of a removed participant are refused.
        revocation_time: Duration, SECOND, 366 * DAY;
    }
    /// The node in the hands of programs on this host.
    control: Control {
        /// Where the Unix socket is; none for nowhere.
        socket: Option<PathBuf>;
    }
    /// Calls of Matrix clients.
    matrix: Matrix {
        /// Servers whose users may come, and where this host reaches them.
        homeservers: ServerMap;
        /// The address that tokens come with.
        url: Option<SocketUrl>;
        /// Servers whose users may open rooms; `*` is every one.
        full_access: Vec<ServerName>;
        /// Other servers whose users may publish; `*` is every one.
        remote_publish: Vec<ServerName>;
        /// Whether users of other servers than the configured ones may come.
        federation: bool;
        /// The registration as application service, for calls by the homeserver's own API.
        registration: Option<PathBuf>;
        /// Whether only members of a Matrix room get a token for its call, where that is known.
        require_membership: bool;
        /// Where leaves are kept that clients have entrusted to us; none: they can't.
        leaves: Option<PathBuf>;
        /// Where client-server APIs are that differ from `homeservers`.
        cs_api: ServerMap;
        /// Certificates of authorities trusted beside those of the host, as PEM.
        extra_ca: Option<PathBuf>;
        /// Whether certificates of homeservers are not checked: one exact sentence.
        insecure_skip_verify: Option<String>;
        /// How long tokens are good for a first join.
        token_time: Duration, 10 * SECOND, DAY;
        /// Whether participants may change their own metadata.
        update_metadata: bool;
        /// The name of the API key that signs tokens; none for the first by name.
        key: Option<String>;
    }
    /// Events for other programs.
    webhook: Webhook {
        /// Where events are posted; empty for nowhere.
        urls: Vec<WebUrl>;
        /// The name of the API key that signs them; none for the first by name.
        key: Option<String>;
    }
    /// Bounds on what clients may take.
    limits: Limits {
        /// Participants on this node; more are refused with 503.
        participants: usize, 0, 10_000_000;
        /// Rooms on this node; more are refused with 503.
        rooms: usize, 0, 10_000_000;
        /// Participants of a room; more are refused with 503.
        participants_per_room: usize, 1, 1_000_000;
        /// Tracks a participant may publish at a time; more are refused.
        tracks_per_participant: usize, 0, 1024;
        /// Longest identity; tokens beyond are refused.
        identity_bytes: ByteSize, ByteSize(1), ByteSize::kib(64);
        /// Longest display or room name; tokens beyond are refused.
        name_bytes: ByteSize, ByteSize(1), ByteSize::kib(64);
        /// Longest metadata; tokens beyond are refused.
        metadata_bytes: ByteSize, ByteSize(0), ByteSize::mib(16);
        /// Keys and values of all attributes; tokens beyond are refused.
        attributes_bytes: ByteSize, ByteSize(0), ByteSize::mib(16);
        /// Longest token; longer ones are refused unread.
        token_bytes: ByteSize, ByteSize::kib(1), ByteSize::mib(1);
        /// Largest inflated join request; larger ones are refused.
        join_request_bytes: ByteSize, ByteSize::kib(4), ByteSize::mib(64);
        /// Largest signalling message; a larger one closes the connection.
        signal_message_bytes: ByteSize, ByteSize::kib(4), ByteSize::mib(64);
        /// Signalling messages per second and participant; faster ones are slowed down.
        signal_requests_per_second: u32, 1, 1_000_000;
        /// Messages waiting for one participant; one more closes its connection.
        pending_notices: usize, 16, 1_000_000;
        /// Bytes of those messages; more close its connection.
        pending_notice_bytes: ByteSize, ByteSize::kib(64), ByteSize::mib(1024);
        /// Largest SDP offer; a larger one ends that session.
        sdp_bytes: ByteSize, ByteSize::kib(4), ByteSize::mib(64);
        /// Most media sections of an SDP offer; more end that session.
        media_sections: usize, 2, 65_536;
        /// Remote candidates per participant; more are ignored.
        candidates: usize, 1, 1024;
        /// RTP packets per second and participant; more are dropped.
        packets_per_second: u32, 100, 10_000_000;
        /// Data messages per second and participant; more are dropped.
        data_messages_per_second: u32, 1, 1_000_000;
        /// Reliable data messages waiting for one participant; more are dropped.
        data_queue_bytes: ByteSize, ByteSize::kib(64), ByteSize::mib(1024);
        /// Removed participants whose tokens are refused; one more and the oldest may come back.
        revocations: usize, 1, 10_000_000;
    }
    /// The end.
    shutdown: Shutdown {
        /// From SIGTERM to the end of the waiting for clients.
        deadline: Duration, Duration::ZERO, DAY;
    }
    /// Log output.
    log: Log {
        /// Least severe messages to write.
        level: LogLevel;
        /// Shape of a line.
        format: LogFormat;
    }
}

/// A configuration, and what there is to say about it.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// What is wrong but can be lived with, such as a secret that everyone on the host can read.
    pub concerns: Vec<Problem>,
    layers: Layers,
    file: Option<PathBuf>,
}

impl Loaded {
    /// Fails without an API key: nobody could join.
    pub fn require_keys(&self) -> Result<(), Error> {
        if self.config.keys.is_empty() {
            return Err(Error::no_keys(self.file.as_deref()));
        }
        Ok(())
    }

    /// The effective values as TOML, each with its origin; secrets are masked.
    pub fn show(&self) -> String {
        show::effective(&self.layers)
    }
}

impl Config {
    /// Reads all layers. All problems of all layers come back together.
    pub fn load(sources: &Sources<'_>) -> Result<Loaded, Error> {
        let mut layers = Layers::gather(sources, KNOWN)?;
        let config = read(&mut layers);
        config.relations(&mut layers);
        layers.check()?;
        let concerns = layers.take_concerns();
        Ok(Loaded {
            config,
            concerns,
            layers,
            file: sources.file.map(Path::to_owned),
        })
    }

    /// What single values can't tell.
    fn relations(&self, layers: &mut Layers) {
        if self.http.listen.is_empty() {
            let message = "is empty; name at least one address, as in [\"127.0.0.1:7880\"]";
            layers.refuse("http", "listen", message.to_owned());
        }
        self.http_relations(layers);
        self.webhook_relations(layers);
        self.matrix_relations(layers);
        let codecs = &self.rooms.codecs;
        if !codecs.contains(&Codec::Opus) || !codecs.iter().any(|it| it.kind() == Kind::Video) {
            let message = "leaves calls without sound or picture; name \"opus\" and one video \
                codec at least, as in [\"vp8\", \"opus\"]";
            layers.refuse("rooms", "codecs", message.to_owned());
        }
        self.media_relations(layers);
    }

    fn media_relations(&self, layers: &mut Layers) {
        let Media {
            port,
            single_port,
            tcp_port,
            ..
        } = self.media;
        let workers = self.media.worker_count();
        let ports = match single_port {
            true => 1,
            false => workers,
        };
        let Some(last) = port.checked_add(ports.saturating_sub(1)) else {
            let message = format!(
                "{workers} workers need a port each, and ports end at {}; take a lower first port \
                 or single_port = true",
                u16::MAX
            );
            return layers.refuse("media", "port", message);
        };
        // An address with port says what goes over it.
        if (port..=last).contains(&tcp_port) {
            let message =
                format!("{tcp_port} is the number of a UDP port; {port} to {last} are taken");
            layers.refuse("media", "tcp_port", message);
        }
    }

    fn http_relations(&self, layers: &mut Layers) {
        let Http {
            listen,
            connections,
            origins,
            ..
        } = &self.http;
        // Each listener waits with a place in its hand: the last one would never accept.
        if *connections < listen.len() {
            let message = format!(
                "is less than the {} addresses of listen; take one for each at least",
                listen.len()
            );
            layers.refuse("http", "connections", message);
        }
        for (index, address) in listen.iter().enumerate().filter(|(_, to)| to.port() != 0) {
            if listen.iter().take(index).any(|before| before == address) {
                let message = format!("names {address} twice; remove one of them");
                layers.refuse("http", "listen", message);
            }
            if *address == self.metrics.listen {
                let message = format!("{address} is in http.listen too; take another port");
                layers.refuse("metrics", "listen", message);
            }
        }
        for origin in origins.iter().filter(|origin| !is_origin(origin)) {
            let message = format!(
                "{origin:?} is what no browser sends; write scheme, host and port without a path \
                 or a slash at the end, as in \"https://call.example.org\", or \"*\" for all"
            );
            layers.refuse("http", "origins", message);
        }
    }

    fn webhook_relations(&self, layers: &mut Layers) {
        if let Some(key) = &self.webhook.key
            && self.keys.secret(key).is_none()
        {
            let message = format!("{key:?} is no key of [keys]; add it there or name another");
            layers.refuse("webhook", "key", message);
        }
    }

    /// The part of the limits that a shard enforces.
    pub fn media_limits(&self) -> media::Limits {
        media::Limits {
            rooms: self.limits.rooms,
            participants_per_room: self.limits.participants_per_room,
            tracks_per_participant: self.limits.tracks_per_participant,
            sdp_bytes: self.limits.sdp_bytes.get(),
            media_sections: self.limits.media_sections,
            candidates: self.limits.candidates,
            packets_per_second: self.limits.packets_per_second,
            data_messages_per_second: self.limits.data_messages_per_second,
            data_queue_bytes: self.limits.data_queue_bytes.get(),
            connect_timeout: self.rooms.connect_timeout,
            empty_timeout: self.rooms.empty_timeout,
            departure_timeout: self.rooms.departure_timeout,
            name_bytes: self.limits.name_bytes.get(),
            metadata_bytes: self.limits.metadata_bytes.get(),
            attributes_bytes: self.limits.attributes_bytes.get(),
            pause_video: self.rooms.pause_video,
            loudest: self.rooms.loudest,
            loudest_above: self.rooms.loudest_above,
            last_n: self.rooms.last_n,
            codecs: self.rooms.codecs.clone(),
        }
    }
}

/// Whether a browser could send this as its origin (RFC 6454, 6.2), or it stands for all.
fn is_origin(text: &str) -> bool {
    let host = text.split_once("://").map(|(_, host)| host);
    text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
}

/// A duration as the configuration writes it: "500ms", "10s", "5m", "6h".
pub fn duration(text: &str) -> Result<Duration, String> {
    Duration::from_toml(&Duration::from_text(text))
}

impl Media {
    /// The number of workers to start: as configured, or one per core.
    pub fn worker_count(&self) -> u16 {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, |cores| {
                u16::try_from(cores.get()).unwrap_or(u16::MAX).min(1024)
            }),
            workers => workers,
        }
    }

    /// The addresses to receive media on: as configured, or those of the host.
    pub fn local_addresses(&self) -> io::Result<LocalAddresses> {
        if !self.addresses.is_empty() {
            return Ok(LocalAddresses {
                ready: self.addresses.clone(),
                tentative: 0,
            });
        }
        interfaces::host_addresses(&self.interfaces)
    }

    /// The addresses clients are told, for media that is received on `local`: what is advertised
    /// stands for all local addresses of its family.
    pub fn told_addresses(&self, local: &[IpAddr]) -> Vec<IpAddr> {
        let stands_in = |own: &IpAddr| {
            let mut advertised = self.advertise.iter();
            advertised.any(|address| address.is_ipv4() == own.is_ipv4())
        };
        let kept = local.iter().filter(|own| !stands_in(own));
        let mut told: Vec<IpAddr> = self.advertise.iter().chain(kept).copied().collect();
        told.sort_unstable();
        told.dedup();
        told
    }
}

#[cfg(test)]
mod tests;

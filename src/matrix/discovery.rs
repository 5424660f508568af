//! From the name of a Matrix server to where it answers (Matrix specification, server discovery).
//!
//! ```text
//! name -- IP address, or a port? ----------------------------------> there
//!   |
//!   +- https://name/.well-known/matrix/server -- other name, as above -> there
//!   |                                       \- other name --+
//!   |  none                                                 |
//!   +-------------------------------------------------------+- SRV? ---> its targets
//!                                                           \- none ---> port 8448
//! ```
//!
//! Whose name it is decides what the certificate has to be for and what `Host` says: that before
//! SRV. Every address on the way is checked ([`Place`]). What is not here: who may be asked at all,
//! and how often (`homeservers`).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use hyper::header::{CACHE_CONTROL, DATE, EXPIRES, HeaderMap, HeaderName, LOCATION};
use hyper::{StatusCode, Uri};
use serde::Deserialize;

use super::cache::Cache;
use super::fetch::{Fetcher, Place, Question, Response, TOTAL_TIME, Trouble};
use super::names::{Names, Service};
use crate::config::is_server_name;

/// The port of a server that names none.
const PORT: u16 = 8448;

/// The services to ask for, in order; the second is the name before version 1.8.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];

/// Hosts of a service that are looked up; further ones are not.
const TARGETS: usize = 4;

/// What no weight counts as, beside others: hardly ever chosen.
const WEIGHT_OF_ZERO: f64 = 0.01;

/// Redirects of a `.well-known` that are followed.
const REDIRECTS: usize = 5;

/// What a `.well-known` may take with all its redirects. It leaves time for the server itself,
/// because a host whose port 443 is silent may still have one.
const WELL_KNOWN_TIME: Duration = Duration::from_secs(5);
const _: () = assert!(WELL_KNOWN_TIME.as_secs() < TOTAL_TIME.as_secs());

/// How long a delegation is remembered: at least and at most, if the answer doesn't say, and if
/// there is none.
const LIFE_MIN: Duration = Duration::from_secs(5 * 60);
const LIFE_MAX: Duration = Duration::from_secs(48 * 3600);
const LIFE: Duration = Duration::from_secs(24 * 3600);
const LIFE_OF_NONE: Duration = Duration::from_secs(5 * 60);

/// The same for where the client-server API is.
const LIFE_OF_CLIENT: Duration = Duration::from_secs(4 * 3600);

/// Bytes of the address of a client-server API, which is remembered.
const URL_BYTES: usize = 1024;

/// What discovery asks of the world.
pub trait World: Send + Sync {
    /// The addresses of a host.
    fn addresses(&self, host: &str) -> impl Future<Output = Vec<IpAddr>> + Send;

    /// The hosts of a service.
    fn services(&self, service: &str) -> impl Future<Output = Vec<Service>> + Send;

    /// One request.
    fn ask(
        &self,
        place: &Place,
        question: Question<'_>,
    ) -> impl Future<Output = Result<Response, Trouble>> + Send;
}

/// The world as it is.
pub struct Internet {
    pub names: Names,
    pub fetcher: Fetcher,
}

impl World for Internet {
    async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        self.names.addresses(host).await
    }

    async fn services(&self, service: &str) -> Vec<Service> {
        self.names.services(service).await
    }

    async fn ask(&self, place: &Place, question: Question<'_>) -> Result<Response, Trouble> {
        self.fetcher.ask(place, question).await
    }
}

/// Finds servers, and remembers what they said of themselves.
pub struct Discovery<W> {
    pub world: W,
    /// By host: the name it delegates to, if any.
    delegations: Cache<Option<String>>,
    /// By host: its client-server API, if it tells.
    clients: Cache<Option<Uri>>,
}

/// The name of a server, taken apart.
#[derive(Debug, PartialEq, Eq)]
enum Stated<'a> {
    Address(SocketAddr),
    Port(&'a str, u16),
    Host(&'a str),
}

impl<W: World> Discovery<W> {
    pub fn new(world: W) -> Self {
        Self {
            world,
            delegations: Cache::default(),
            clients: Cache::default(),
        }
    }

    /// Where `server` answers other servers; none if nowhere that may be asked.
    pub async fn federation(&self, server: &str) -> Option<Place> {
        let delegated = match stated(server)? {
            Stated::Host(host) => self.delegation(host).await,
            _ => None,
        };
        let name = delegated.as_deref().unwrap_or(server);
        match stated(name)? {
            Stated::Address(at) => Place::new(&at.ip().to_string(), name, [at]),
            Stated::Port(host, port) => self.place(host, name, port).await,
            Stated::Host(host) => self.announced(host).await,
        }
    }

    /// The client-server API of `server`, if it says where that is.
    pub async fn client(&self, server: &str) -> Option<Uri> {
        let address;
        let host = match stated(server)? {
            Stated::Host(host) | Stated::Port(host, _) => host,
            Stated::Address(at) => {
                address = bracketed(at.ip());
                &address
            }
        };
        if let Some(known) = self.clients.get(host) {
            return known;
        }
        let answer = self.well_known(host, "/.well-known/matrix/client").await;
        let base = answer.and_then(|answer| base_url(&answer.body));
        let life = base.as_ref().map_or(LIFE_OF_NONE, |_| LIFE_OF_CLIENT);
        self.clients.put(host, base.clone(), life);
        base
    }

    /// The place of an `https` address.
    pub async fn place_of(&self, url: &Uri) -> Option<Place> {
        let authority = url.authority()?.as_str();
        // Somebody else's user and password are nothing to send to anybody.
        if url.scheme_str() != Some("https") || authority.contains('@') {
            return None;
        }
        let port = url.port_u16().unwrap_or(443);
        let host = url.host()?;
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => Place::new(&ip.to_string(), authority, [SocketAddr::new(ip, port)]),
            Err(_) => self.place(host, authority, port).await,
        }
    }

    async fn place(&self, host: &str, header: &str, port: u16) -> Option<Place> {
        let addresses = self.world.addresses(host).await;
        let addresses = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
        Place::new(host, header, addresses)
    }

    /// By SRV, or at the usual port.
    async fn announced(&self, host: &str) -> Option<Place> {
        for service in SERVICES {
            let found = self.world.services(&format!("{service}.{host}")).await;
            if found.is_empty() {
                continue;
            }
            let mut addresses = Vec::new();
            for target in in_order(found).iter().take(TARGETS) {
                let found = self.world.addresses(&target.host).await;
                addresses.extend(found.iter().map(|ip| SocketAddr::new(*ip, target.port)));
            }
            return Place::new(host, host, addresses);
        }
        self.place(host, host, PORT).await
    }

    async fn delegation(&self, host: &str) -> Option<String> {
        if let Some(known) = self.delegations.get(host) {
            return known;
        }
        let answer = self.well_known(host, "/.well-known/matrix/server").await;
        let delegated = answer.as_ref().and_then(|answer| m_server(&answer.body));
        let life = match (&delegated, &answer) {
            (Some(_), Some(answer)) => life(&answer.headers),
            _ => LIFE_OF_NONE,
        };
        self.delegations.put(host, delegated.clone(), life);
        delegated
    }

    /// What a host says under a path, or whoever it sends us to.
    async fn well_known(&self, host: &str, path: &str) -> Option<Response> {
        let mut url: Uri = format!("https://{host}{path}").parse().ok()?;
        let follow = async {
            for _ in 0..=REDIRECTS {
                let place = self.place_of(&url).await?;
                let path = url.path_and_query()?.as_str();
                let answer = self.world.ask(&place, Question::get(path)).await.ok()?;
                if answer.status == StatusCode::OK {
                    return Some(answer);
                }
                if !matches!(answer.status.as_u16(), 301..=303 | 307 | 308) {
                    return None;
                }
                url = redirected(&url, text(&answer.headers, LOCATION)?)?;
            }
            None
        };
        tokio::time::timeout(WELL_KNOWN_TIME, follow).await.ok()?
    }
}

/// None if it is no name of a server.
fn stated(name: &str) -> Option<Stated<'_>> {
    if !is_server_name(name) {
        return None;
    }
    let unbracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    if let Ok(at) = name.parse() {
        return Some(Stated::Address(at));
    }
    if let Ok(ip) = unbracketed.unwrap_or(name).parse() {
        return Some(Stated::Address(SocketAddr::new(ip, PORT)));
    }
    Some(match name.split_once(':') {
        Some((host, "")) => Stated::Host(host),
        Some((host, port)) => Stated::Port(host, port.parse().ok()?),
        None => Stated::Host(name),
    })
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The hosts of a service in the order in which to try them (RFC 2782), without what says that
/// the service is not there.
fn in_order(mut services: Vec<Service>) -> Vec<Service> {
    services.retain(|service| !matches!(&*service.host, "" | "."));
    // Who has the larger weight waits less on average: the first of two to come is either as often
    // as the weights say.
    let wait = |service: &Service| {
        let weight = f64::from(service.weight).max(WEIGHT_OF_ZERO);
        (-fastrand::f64().ln() / weight * 1e12) as u64
    };
    services.sort_by_cached_key(|service| (service.priority, wait(service)));
    services
}

/// The name that `.well-known/matrix/server` delegates to.
fn m_server(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Delegation {
        #[serde(rename = "m.server")]
        server: String,
    }
    let Delegation { server } = serde_json::from_slice(body).ok()?;
    stated(&server).is_some().then_some(server)
}

/// The address that `.well-known/matrix/client` gives.
fn base_url(body: &[u8]) -> Option<Uri> {
    #[derive(Deserialize)]
    struct Client {
        #[serde(rename = "m.homeserver")]
        homeserver: Homeserver,
    }
    #[derive(Deserialize)]
    struct Homeserver {
        base_url: String,
    }
    let Client { homeserver } = serde_json::from_slice(body).ok()?;
    if homeserver.base_url.len() > URL_BYTES {
        return None;
    }
    let url: Uri = homeserver.base_url.parse().ok()?;
    (url.scheme_str() == Some("https")).then_some(url)
}

/// Where an answer to `from` sends us.
fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let authority = from.authority()?;
    let location = location.split('#').next()?;
    if let Some(elsewhere) = location.strip_prefix("//") {
        return format!("https://{elsewhere}").parse().ok();
    }
    if location.starts_with('/') {
        return format!("https://{authority}{location}").parse().ok();
    }
    if location.contains("://") {
        return location.parse().ok();
    }
    let folder = from.path().rsplit_once('/')?.0;
    format!("https://{authority}{folder}/{location}")
        .parse()
        .ok()
}

/// How long an answer may be remembered. `Expires` counts from the server's own clock.
fn life(headers: &HeaderMap) -> Duration {
    let told = match text(headers, CACHE_CONTROL) {
        Some(control) => max_age(control),
        None => None,
    };
    let expires = || {
        let end = text(headers, EXPIRES)?;
        let parsed = |text| httpdate::parse_http_date(text).unwrap_or(SystemTime::UNIX_EPOCH);
        let left = parsed(end).duration_since(parsed(text(headers, DATE)?));
        Some(left.unwrap_or_default())
    };
    told.or_else(expires)
        .unwrap_or(LIFE)
        .clamp(LIFE_MIN, LIFE_MAX)
}

fn max_age(control: &str) -> Option<Duration> {
    let directives = || {
        control
            .split(',')
            .map(|part| part.trim().to_ascii_lowercase())
    };
    if directives().any(|directive| directive == "no-store" || directive == "no-cache") {
        return Some(Duration::ZERO);
    }
    let mut seconds = directives().filter_map(|directive| {
        let value = directive
            .strip_prefix("max-age=")?
            .trim_matches('"')
            .parse();
        value.ok()
    });
    seconds.next().map(Duration::from_secs)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests;

//! One request to a homeserver, bounded in time and size, and the two ways it can take.
//!
//! ```text
//! a stranger's server:   Place (checked addresses, the name they answer to) -> Fetcher
//! a configured one:      its base address, wherever that is                 -> Pool
//! ```
//!
//! A [`Place`] can only be made of addresses that [`is_public`], and its connection goes to those
//! and not to a name: what a name resolves to the second time doesn't matter (DNS rebinding). It
//! knows `https` only. Redirects are not followed here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::address::is_public;

/// How long all of one exchange may take, from the name to the last byte of the answer.
pub const TOTAL_TIME: Duration = Duration::from_secs(10);

/// How long TCP and TLS may take together, over all addresses of a place.
pub const CONNECT_TIME: Duration = Duration::from_secs(3);

/// How much later than the one before an address is tried (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of one place that are tried; further ones are not.
const ADDRESSES: usize = 6;

/// Bytes of an answer. Longer ones are refused; none that we ask for is near it.
const BODY_BYTES: usize = 64 << 10;

/// Bytes of the head of an answer.
const HEAD_BYTES: usize = 64 << 10;

/// Connections to a configured homeserver that are kept for the next request, and how long: less
/// than servers keep them, or a request would meet one that is just being closed.
const IDLE_CONNECTIONS: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No address that may be asked, or none that answers as HTTP under the right certificate.
    Unreachable,
    /// It took too long.
    Timeout,
}

/// What is asked. It holds secrets, so it can't be printed.
pub struct Question<'a> {
    pub method: Method,
    /// As it stands in the request line.
    pub path: &'a str,
    /// What proves to the server who we are.
    pub token: Option<&'a str>,
    /// JSON.
    pub body: Option<Vec<u8>>,
}

impl<'a> Question<'a> {
    pub fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            token: None,
            body: None,
        }
    }

    fn request(self, uri: Uri) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::builder().method(self.method).uri(uri);
        request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = self.token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|_| Trouble::Unreachable)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if self.body.is_some() {
            let json = HeaderValue::from_static("application/json");
            request = request.header(CONTENT_TYPE, json);
        }
        let body = Full::from(self.body.unwrap_or_default());
        request.body(body).map_err(|_| Trouble::Unreachable)
    }
}

/// An answer, whole.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    async fn read(response: hyper::Response<Incoming>) -> Result<Self, Trouble> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES).collect().await;
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body: body.map_err(|_| Trouble::Unreachable)?.to_bytes(),
        })
    }
}

/// Where a stranger's server is, checked, and what it has to answer to.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    addresses: Vec<SocketAddr>,
    name: ServerName<'static>,
    host: HeaderValue,
}

impl Place {
    /// The server `name` (of its certificate; a host name or an IP address without brackets),
    /// addressed as `host` (the header). None if no address may be asked.
    pub fn new(
        name: &str,
        host: &str,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Option<Self> {
        let addresses = addresses.into_iter().filter(|at| is_public(at.ip()));
        let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES).collect();
        let place = Self {
            // rustls takes no dot at the end, which a certificate doesn't have either.
            name: ServerName::try_from(name.trim_end_matches('.').to_owned()).ok()?,
            host: HeaderValue::try_from(host).ok()?,
            addresses,
        };
        (!place.addresses.is_empty()).then_some(place)
    }

    #[cfg(test)]
    pub fn seen(&self) -> (String, String, Vec<String>) {
        let addresses = self.addresses.iter().map(SocketAddr::to_string);
        let host = self.host.to_str().unwrap().to_owned();
        (self.name.to_str().into_owned(), host, addresses.collect())
    }
}

/// Asks strangers.
pub struct Fetcher {
    tls: TlsConnector,
    /// Where test servers listen in the place of public addresses.
    #[cfg(test)]
    pub detours: std::collections::HashMap<SocketAddr, SocketAddr>,
}

impl Fetcher {
    pub fn new(tls: &ClientConfig) -> Self {
        Self {
            tls: TlsConnector::from(Arc::new(tls.clone())),
            #[cfg(test)]
            detours: std::collections::HashMap::new(),
        }
    }

    /// Asks once. The caller limits the time.
    pub async fn ask(&self, place: &Place, question: Question<'_>) -> Result<Response, Trouble> {
        let path = question.path.parse().map_err(|_| Trouble::Unreachable)?;
        let mut request = question.request(path)?;
        request.headers_mut().insert(HOST, place.host.clone());
        let connecting = async {
            let tcp = self.connect(&place.addresses).await?;
            self.tls.connect(place.name.clone(), tcp).await
        };
        let stream = tokio::time::timeout(CONNECT_TIME, connecting).await;
        let stream = stream
            .map_err(|_| Trouble::Timeout)?
            .map_err(|_| Trouble::Unreachable)?;
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_BYTES);
        let handshake = http.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|_| Trouble::Unreachable)?;
        // Ends with this function, however that ends.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(request).await;
        Response::read(response.map_err(|_| Trouble::Unreachable)?).await
    }

    /// The first address that takes the connection; each is given a head start before the next.
    async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let mut attempts = JoinSet::new();
        for (address, rank) in addresses.iter().zip(0..) {
            let address = self.dialled(*address);
            attempts.spawn(async move {
                tokio::time::sleep(STAGGER * rank).await;
                TcpStream::connect(address).await
            });
        }
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        while let Some(attempt) = attempts.join_next().await {
            match attempt.map_err(io::Error::other).flatten() {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    #[cfg(not(test))]
    fn dialled(&self, address: SocketAddr) -> SocketAddr {
        address
    }

    #[cfg(test)]
    fn dialled(&self, address: SocketAddr) -> SocketAddr {
        // A test that forgot one meets a closed port, not the internet.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        *self.detours.get(&address).unwrap_or(&nowhere)
    }
}

/// Asks the configured homeservers.
pub struct Pool {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Pool {
    pub fn new(tls: ClientConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIME));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIME)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(HEAD_BYTES)
            .build(connector);
        Self { client }
    }

    /// Asks below `base`. The caller limits the time.
    pub async fn ask(&self, base: &Uri, question: Question<'_>) -> Result<Response, Trouble> {
        let uri = below(base, question.path).ok_or(Trouble::Unreachable)?;
        let request = question.request(uri)?;
        let response = self.client.request(request).await;
        Response::read(response.map_err(|_| Trouble::Unreachable)?).await
    }
}

/// The address of `path` below a base address, which may have a path itself.
pub fn below(base: &Uri, path: &str) -> Option<Uri> {
    let prefix = base.path().trim_end_matches('/');
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(format!("{prefix}{path}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_public_addresses_only() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let mixed = ["127.0.0.1:8448", "1.2.3.4:8448", "[fc00::1]:8448"].map(at);
        let place = Place::new("a.example.", "a.example", mixed).unwrap();
        let seen = place.seen();
        assert_eq!((&*seen.0, &*seen.1), ("a.example", "a.example"));
        assert_eq!(seen.2, ["1.2.3.4:8448"]);
        assert_eq!(
            Place::new("a.example", "a.example", [at("10.0.0.1:443")]),
            None
        );
        let many = (1..50).map(|host| SocketAddr::from(([1, 2, 3, host], 443)));
        let place = Place::new("a.example", "a.example", many).unwrap();
        assert_eq!(place.addresses.len(), ADDRESSES);
    }

    #[test]
    fn paths_go_below_bases() {
        let below = |base: &str| below(&base.parse().unwrap(), "/_matrix/x?y=1").unwrap();
        assert_eq!(below("http://a:1"), "http://a:1/_matrix/x?y=1");
        assert_eq!(below("https://a/"), "https://a/_matrix/x?y=1");
        assert_eq!(below("https://a/b/?c"), "https://a/b/_matrix/x?y=1");
    }
}
